"""AMASS' npz: one person's motion as SMPL+H pose vectors in a world with z up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..mocap.amass import Z_UP_TO_Y_UP
from ..records import atomic_write
from ..rotations import rotmat_to_rotvec
from ..skeleton import NUM_BODY
from .characters import Character, at_even_rate

__all__ = ["write_amass"]

POSE = 156
"""Numbers of SMPL+H's 52 rotation vectors, 30 of them of fingers."""
BETAS, DMPLS = 16, 8


def write_amass(path: Path, person: Character) -> None:
    """Write one person as AMASS' first release has it: ``poses`` (T, 156), ``trans`` (T, 3), ``betas`` (16), ``dmpls`` (T, 8),
    ``gender``, ``mocap_framerate``; and beside them ``body``, ``start_s`` and ``observed`` (T).

    The world has z up, as all of AMASS. Hands are at rest, dmpls zero. ``betas`` belong to the body that ``body`` names: those
    of the open body say nothing to SMPL, which takes zeros in their place; ``trans`` puts a body's pelvis where it is by that
    body's own rest pose. The format knows one rate: uneven time stamps are resampled.

    Source: Mahmood et al., AMASS: Archive of Motion Capture as Surface Shapes, ICCV 2019.

    Raises:
        OutputError: the file cannot be written.
    """
    person = at_even_rate(person, "AMASS")
    turn = Z_UP_TO_Y_UP.T
    rotmat = person.pose_rotmat[:, : 1 + NUM_BODY].copy()
    rotmat[:, 0] = turn @ rotmat[:, 0]
    poses = np.zeros((len(person), POSE))
    poses[:, : 3 * (1 + NUM_BODY)] = rotmat_to_rotvec(torch.from_numpy(rotmat)).flatten(1).numpy()
    betas = np.zeros(BETAS)
    betas[: len(person.betas)] = person.betas
    with atomic_write(path) as stream:
        np.savez_compressed(
            stream,
            poses=poses,
            trans=person.pelvis @ turn.T - person.rest_joints[0],
            betas=betas,
            dmpls=np.zeros((len(person), DMPLS)),
            gender=np.array("neutral"),
            mocap_framerate=np.array(person.fps),
            body=np.array(person.body.name),
            start_s=np.array(person.timestamps[0]),
            observed=person.observed,
        )
