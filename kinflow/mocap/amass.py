"""AMASS sequences (Mahmood et al., ICCV 2019): npz files of SMPL+H, SMPL-X or SMPL parameters, z up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import FormatError, ShapeError
from ..records import open_npz
from ..rotations import rotvec_to_rotmat
from ..skeleton import NUM_JOINTS
from .retarget import SmplMotion
from .source import Array

Z_UP_TO_Y_UP: Array = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""World axes: AMASS's z becomes kinflow's y, its y becomes -z."""
SMPL_PELVIS: tuple[float, float, float] = (0.0, -0.23, 0.02)
"""m, roughly where SMPL's template has its pelvis; AMASS's ``trans`` is the template origin's, not the pelvis's.

The body turns about its pelvis, so the difference is one constant shift of the whole sequence."""
_BODIES = {72: "smpl", 156: "smplh", 165: "smplx"}


@dataclass(frozen=True)
class AmassSequence:
    """One sequence.

    Attributes:
        name: ``DATASET/SUBJECT/SEQUENCE`` from the path's last three parts, without the suffix.
        subject: ``DATASET/SUBJECT``.
        model: ``"smpl"``, ``"smplh"`` or ``"smplx"``, by the number of pose values.
        motion: root orientation and the 21 body joints in kinflow's world (y up); hands, jaw and eyes are left out.
            The leg length is unknown (0).
        betas: (B,) shape of the named model, as in the file; empty where it has none.
        gender: ``"male"``, ``"female"`` or ``"neutral"``; that of the model which the betas are for.
    """

    name: str
    subject: str
    model: str
    motion: SmplMotion
    betas: Array
    gender: str


def read_amass(path: str | os.PathLike[str], pelvis: tuple[float, float, float] = SMPL_PELVIS) -> AmassSequence:
    """Read one sequence.

    The file holds ``poses`` (N, 156) (SMPL+H: 52 joints' rotation vectors), (N, 165) (SMPL-X: 55) or (N, 72) (SMPL: 24), of
    which the first 22 joints are the same in all; ``trans`` (N, 3) m; ``betas``; ``gender``; ``mocap_framerate`` or
    ``mocap_frame_rate``. The world has z up.

    Args:
        path: a ``*_poses.npz`` or ``*_stageii.npz``.
        pelvis: m, the model's pelvis at zero pose, y up; added to ``trans`` before the axes change.

    Raises:
        MissingAssetError: no such file.
        FormatError: not such an archive, damaged, a key is missing, or no frame rate.
        ShapeError: a shape does not fit, or values are not finite.
    """
    path = Path(path)
    with open_npz(path) as npz:
        # Only what is needed is unpacked: some releases keep python objects (labels) under other keys.
        poses, trans = (npz.numbers(key).astype(np.float64) for key in ("poses", "trans"))
        key = next((k for k in ("mocap_framerate", "mocap_frame_rate") if k in npz), None)
        rates = np.empty(0) if key is None else npz.numbers(key).reshape(-1)
        betas = npz.numbers("betas").astype(np.float64).reshape(-1) if "betas" in npz else np.empty(0)
        gender = (npz.text("gender").lower() if "gender" in npz else "") or "neutral"
    rate = float(rates[0]) if len(rates) == 1 else None
    if poses.ndim != 2 or poses.shape[1] not in _BODIES or trans.shape != (len(poses), 3) or len(poses) == 0:
        raise ShapeError(
            f"{path.name}: expected poses (N, 72 | 156 | 165) and trans (N, 3), got {poses.shape} and {trans.shape}."
        )
    if rate is None or not 0 < rate < np.inf:
        raise FormatError(f"{path.name}: expected a positive mocap_framerate (or mocap_frame_rate), got {rate}.")
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise ShapeError(f"{path.name}: expected finite poses and trans.")
    rotvec = np.zeros((len(poses), NUM_JOINTS, 3))
    rotvec[:, :22] = poses[:, :66].reshape(-1, 22, 3)
    rotmats = rotvec_to_rotmat(torch.from_numpy(rotvec)).numpy()
    # SMPL's frames keep y up at zero pose; only the world changes, and with it the root's orientation.
    rotmats[:, 0] = Z_UP_TO_Y_UP @ rotmats[:, 0]
    motion = SmplMotion(rotmats, (trans + np.asarray(pelvis)) @ Z_UP_TO_Y_UP.T, 0.0, rate)
    parts = path.with_suffix("").parts[-3:]
    return AmassSequence("/".join(parts), "/".join(parts[:-1]), _BODIES[poses.shape[1]], motion, betas, gender)
