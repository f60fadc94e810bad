"""Which frames of a retargeted motion can be believed: solver flips and joints beyond their limits are masked."""

from __future__ import annotations

import numpy as np
import torch

from ..rotations import geodesic_distance, rotmat_to_rotvec
from ..skeleton import SMPL_JOINTS
from ..timing import valid_runs
from .retarget import Array, SmplMotion, smpl_forward, twist_about

MAX_TURN_SPEED = 3000.0
"""Degrees a second of any joint relative to its parent: fast sport stays below 2000; flips jump by 35 to 180 in a frame."""
MAX_JOINT_SPEED = 25.0
"""m/s of any joint, limbs' ends included."""
HINGE_LIMITS = (-15.0, 165.0)
"""Degrees of knees and elbows, flexion positive."""
TWIST_LIMITS = {"hip": 115.0, "shoulder": 140.0, "ankle": 60.0}
"""Degrees about the bone, either way."""
ANGLE_LIMITS = {
    "hip": 150.0, "ankle": 85.0, "foot": 80.0, "collar": 60.0, "shoulder": 165.0, "wrist": 130.0,
    "spine1": 75.0, "spine2": 60.0, "spine3": 60.0, "neck": 80.0, "head": 80.0,
}  # fmt: skip
"""Degrees of the whole turn away from the T-pose."""
MARGIN_SECONDS = 0.017
"""Frames this near to a broken one are masked too."""
MIN_RUN_SECONDS = 0.15
"""Shorter stretches between broken frames are masked."""


def valid_frames(result: SmplMotion) -> np.ndarray:
    """(T,) bool: frames without jumps, inside joint limits, and not in a short stretch between such frames."""
    bad = _jumps(result) | _beyond_limits(result.rotmats)
    margin = max(1, round(MARGIN_SECONDS * result.fps))
    bad = np.convolve(bad, np.ones(2 * margin + 1), "same") > 0.5 if bad.any() else bad
    good = ~bad
    runs = valid_runs(good)
    if len(runs) > 1:
        for start, stop in runs:
            if stop - start < MIN_RUN_SECONDS * result.fps:
                good[start:stop] = False
    return good


def hinge_flexion(rotmats: Array, joint: str) -> Array:
    """Flexion in degrees (T,) of a knee or elbow from local rotations (T, 24, 3, 3), in (-180, 180]."""
    index = SMPL_JOINTS.index(joint)
    axis = np.array([1.0, 0.0, 0.0]) if "knee" in joint else np.array([0.0, -1.0 if "left" in joint else 1.0, 0.0])
    twist = rotmat_to_rotvec(torch.from_numpy(twist_about(rotmats[:, index], axis))).numpy()
    return np.rad2deg(twist @ axis)


def _jumps(result: SmplMotion) -> np.ndarray:
    bad = np.zeros(len(result.rotmats), dtype=bool)
    if len(bad) < 2:
        return bad
    local = torch.from_numpy(result.rotmats)
    turn = np.rad2deg(geodesic_distance(local[:-1], local[1:]).numpy().max(-1)) * result.fps
    position = smpl_forward(result.rotmats, result.transl)
    speed = np.linalg.norm(np.diff(position, axis=0), axis=-1).max(-1) * result.fps
    step = (turn > MAX_TURN_SPEED) | (speed > MAX_JOINT_SPEED)
    bad[:-1] |= step
    bad[1:] |= step
    return bad


def _beyond_limits(rotmats: Array) -> np.ndarray:
    bad = np.zeros(len(rotmats), dtype=bool)
    angles = np.rad2deg(geodesic_distance(torch.from_numpy(rotmats), torch.eye(3, dtype=torch.float64)).numpy())
    for j, name in enumerate(SMPL_JOINTS):
        part = name.split("_")[-1]
        if part in ("knee", "elbow"):
            flexion = hinge_flexion(rotmats, name)
            bad |= (flexion < HINGE_LIMITS[0]) | (flexion > HINGE_LIMITS[1])
        if part in ANGLE_LIMITS and j > 0:
            bad |= angles[:, j] > ANGLE_LIMITS[part]
        if part in TWIST_LIMITS:
            axis = np.array([1.0, 0.0, 0.0]) if part == "shoulder" else np.array([0.0, 1.0, 0.0])
            twist = rotmat_to_rotvec(torch.from_numpy(twist_about(rotmats[:, j], axis))).numpy() @ axis
            bad |= np.abs(np.rad2deg(twist)) > TWIST_LIMITS[part]
    return bad
