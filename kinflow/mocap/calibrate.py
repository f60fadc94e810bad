"""Corrections by subject: feet that stand level, hands that rest straight."""

from __future__ import annotations

import numpy as np
import torch

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import SMPL_JOINTS
from .retarget import Array, twist_about, world_motion
from .rigs import Rig
from .source import SourceMotion

MAX_HAND_SWING = 80.0
"""Degrees of a hand away from its forearm's line; beyond, the source's hand has flipped and follows the forearm instead."""
MAX_HAND_TWIST = 100.0
"""Degrees of a hand about its forearm, half of which the forearm has taken already; beyond, as above."""


def flat_foot_pitch(motion: SourceMotion, rig: Rig, max_speed: float = 0.15) -> dict[str, Array]:
    """Pitch (degrees, positive: toes up) of ankle and toe frames, as the rig's zero has them, while the foot stands still.

    A foot stands still where ankle and toe joint move slower than ``max_speed`` m/s and the foot is the lower one.
    Its sole is then flat, on level ground, so the median over a subject's frames is the rig's error for that subject.

    Returns:
        SMPL joint name -> (n,) samples; empty for a rig without a toe joint.
    """
    out: dict[str, Array] = {}
    if any(f"{s}_foot" not in rig.points or f"{s}_foot" not in rig.follow for s in ("left", "right")):
        return out
    motion = rig.mend(motion) if rig.mend is not None else motion
    turned, positions = world_motion(motion, rig)
    for side, other in (("left", "right"), ("right", "left")):
        ankle, toe, opposite = (
            positions[:, motion.index(rig.points[j])] for j in (f"{side}_ankle", f"{side}_foot", f"{other}_ankle")
        )
        speed = np.maximum(*(np.linalg.norm(np.gradient(p, axis=0), axis=-1) * motion.fps for p in (ankle, toe)))
        still = (speed < max_speed) & (ankle[:, 1] < opposite[:, 1] + 0.05)
        for joint in (f"{side}_ankle", f"{side}_foot"):
            frame = turned[still, motion.index(rig.follow[joint].joint)] @ rig.zero.get(joint, np.eye(3))
            out[joint] = np.rad2deg(np.arcsin(np.clip(frame[:, 1, 2], -1.0, 1.0)))
    return out


def level_feet(rotmats: Array, pitch: dict[str, float]) -> Array:
    """Local rotations (T, 24, 3, 3) with the feet turned so that a standing foot is level.

    Args:
        rotmats: as :func:`retarget` gives them.
        pitch: degrees (positive: toes up) of each ankle's and foot's frame while the foot stands still, by SMPL joint, from
            :func:`flat_foot_pitch`; absent: none.
    """
    out = rotmats.copy()
    for side in ("left", "right"):
        ankle, foot = SMPL_JOINTS.index(f"{side}_ankle"), SMPL_JOINTS.index(f"{side}_foot")
        at_ankle, at_foot = (_pitch(pitch.get(f"{side}_{joint}", 0.0)) for joint in ("ankle", "foot"))
        out[:, ankle] = rotmats[:, ankle] @ at_ankle
        out[:, foot] = at_ankle.T @ rotmats[:, foot] @ at_foot
    return out


def _pitch(degrees: float) -> Array:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def hand_swing(rotmats: Array, side: str) -> tuple[Array, Array]:
    """A wrist's local rotations (T, 24, 3, 3) as swing after twist about the forearm: swing (T, 3) rad and twist (T, 3, 3)."""
    wrist = rotmats[:, SMPL_JOINTS.index(f"{side}_wrist")]
    twist = twist_about(wrist, np.array([1.0, 0.0, 0.0]))
    swing = rotmat_to_rotvec(torch.from_numpy(wrist @ np.swapaxes(twist, -1, -2))).numpy()
    return swing, twist


def settle_hands(rotmats: Array, rest: dict[str, Array]) -> Array:
    """Local rotations (T, 24, 3, 3) with hands whose resting swing is none.

    CMU's hand bone runs from the wrist to one finger marker, 20 to 40 degrees off the hand's line, differently by subject.

    Args:
        rotmats: as :func:`kinflow.mocap.retarget.retarget` gives them.
        rest: (3,) rad, the median swing of a subject's hand, by ``"left"`` and ``"right"``. A hand that swings or twists beyond
            the limits above follows the forearm; so does one that does not swing at all.
    """
    out = rotmats.copy()
    for side, median in rest.items():
        swing, twist = hand_swing(rotmats, side)
        size = np.linalg.norm(swing, axis=-1)
        swing = swing - median
        flipped = size > np.deg2rad(MAX_HAND_SWING)
        flipped |= np.trace(twist, axis1=-2, axis2=-1) < 1.0 + 2.0 * np.cos(np.deg2rad(MAX_HAND_TWIST))
        swing[flipped | (size < 1e-6)] = 0.0
        twist[flipped] = np.eye(3)
        out[:, SMPL_JOINTS.index(f"{side}_wrist")] = rotvec_to_rotmat(torch.from_numpy(swing)).numpy() @ twist
    return out
