"""DeepMimic's humanoid3d motions (Peng et al., SIGGRAPH 2018): a JSON list of frames of 44 numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch

from ..errors import ShapeError
from ..rotations import quat_wxyz_to_rotmat
from .source import Array, SourceMotion, between, euler_to_rotmat

# name, parent, offset from the parent in m (x forward, y up, left = -z), degrees of freedom, column of the first value.
# Offsets are those of the model's own character file, rounded to a millimetre; only directions and leg length matter.
_LAYOUT = (
    ("root", -1, (0.0, 0.0, 0.0), 4, 4),
    ("chest", 0, (0.0, 0.236, 0.0), 4, 8),
    ("neck", 1, (0.0, 0.224, 0.0), 4, 12),
    ("neck_end", 2, (0.0, 0.175, 0.0), 0, 0),
    ("right_hip", 0, (0.0, 0.0, 0.085), 4, 16),
    ("right_knee", 4, (0.0, -0.422, 0.0), 1, 20),
    ("right_ankle", 5, (0.0, -0.410, 0.0), 4, 21),
    ("right_shoulder", 1, (-0.02, 0.224, 0.183), 4, 25),
    ("right_elbow", 7, (0.0, -0.275, 0.0), 1, 29),
    ("right_elbow_end", 8, (0.0, -0.259, 0.0), 0, 0),
    ("left_hip", 0, (0.0, 0.0, -0.085), 4, 30),
    ("left_knee", 10, (0.0, -0.422, 0.0), 1, 34),
    ("left_ankle", 11, (0.0, -0.410, 0.0), 4, 35),
    ("left_shoulder", 1, (-0.02, 0.224, -0.183), 4, 39),
    ("left_elbow", 13, (0.0, -0.275, 0.0), 1, 43),
    ("left_elbow_end", 14, (0.0, -0.259, 0.0), 0, 0),
)


def read_deepmimic(path: str | os.PathLike[str]) -> SourceMotion:
    """Read one motion; a frame is duration s, root position m, then wxyz quaternions and hinge angles (rad, about z).

    Frames of uneven length are brought to the rate of the median one. Raises ShapeError where the file is no such motion.
    """
    path = Path(path)
    try:
        rows = np.asarray(json.loads(path.read_text(encoding="utf-8"))["Frames"], dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise ShapeError(f"{path.name}: cannot be read as a DeepMimic motion ({error}).") from None
    if rows.ndim != 2 or rows.shape[1] != 44:
        raise ShapeError(f"{path.name}: expected frames of 44 numbers, got {rows.shape}.")
    durations = rows[:-1, 0]
    if len(durations) == 0 or durations.min() <= 0:
        raise ShapeError(f"{path.name}: expected at least two frames of positive duration.")
    rotmats = np.broadcast_to(np.eye(3), (len(rows), len(_LAYOUT), 3, 3)).copy()
    for j, (_, _, _, dof, column) in enumerate(_LAYOUT):
        if dof == 4:
            rotmats[:, j] = _unit_quat_to_rotmat(rows[:, column : column + 4])
        elif dof == 1:
            rotmats[:, j] = euler_to_rotmat(np.rad2deg(rows[:, column : column + 1]), "Z")
    root = rows[:, 1:4].copy()
    step = float(np.median(durations))
    if np.ptp(durations) > 1e-3 * step:
        times = np.concatenate(([0.0], np.cumsum(durations)))
        where = np.interp(np.arange(int(times[-1] / step + 1e-6) + 1) * step, times, np.arange(len(times)))
        low = np.minimum(where.astype(int), len(rows) - 2)
        part = where - low
        rotmats = between(rotmats[low], rotmats[low + 1], part[:, None])
        root = root[low] + part[:, None] * (root[low + 1] - root[low])
    return SourceMotion(
        path.stem,
        tuple(row[0] for row in _LAYOUT),
        tuple(row[1] for row in _LAYOUT),
        np.array([row[2] for row in _LAYOUT]),
        rotmats,
        root,
        1.0 / step,
    )


def _unit_quat_to_rotmat(quat_wxyz: Array) -> Array:
    norm = np.linalg.norm(quat_wxyz, axis=-1, keepdims=True)
    if (norm < 0.5).any():  # hand-made motions hold quaternions rounded or blended, hence not of unit length
        raise ShapeError("quaternions: expected unit length, got one below 0.5.")
    return quat_wxyz_to_rotmat(torch.from_numpy(quat_wxyz / norm)).numpy()
