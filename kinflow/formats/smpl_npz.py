"""SMPL parameters of one person in an npz, by the names that smplx takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..records import atomic_write
from ..rotations import rotmat_to_rotvec
from .characters import Character

__all__ = ["write_smpl"]


def write_smpl(path: Path, person: Character) -> None:
    """Write ``global_orient`` (T, 3), ``body_pose`` (T, 69), ``transl`` (T, 3), ``betas`` (1, 10), float32, as
    ``smplx.SMPL(...)(**...)`` takes them, y up; and beside them ``timestamps`` (T), ``fps``, ``observed`` (T), ``gender`` and
    ``body``.

    ``betas`` belong to the body that ``body`` names: those of the open body say nothing to SMPL, which takes zeros in their
    place.

    Raises:
        OutputError: the file cannot be written.
    """
    rotvec = rotmat_to_rotvec(torch.from_numpy(person.pose_rotmat)).numpy().astype(np.float32)
    with atomic_write(path) as stream:
        np.savez_compressed(
            stream,
            global_orient=rotvec[:, 0],
            body_pose=rotvec[:, 1:].reshape(len(person), -1),
            transl=person.transl.astype(np.float32),
            betas=person.betas[None].astype(np.float32),
            timestamps=person.timestamps,
            fps=np.array(person.fps),
            observed=person.observed,
            gender=np.array("neutral"),
            body=np.array(person.body.name),
        )
