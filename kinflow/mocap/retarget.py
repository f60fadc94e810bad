"""From any rig to SMPL's local joint rotations, for a body whose zero pose is SMPL's T-pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..rotations import rotmat_to_quat_wxyz, rotvec_to_rotmat
from ..skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from .rigs import Follow, Rig
from .source import Array, SourceMotion, between

REST_OFFSETS: Array = np.array(
    [
        (0.0, 0.0, 0.0), (0.09, -0.08, 0.0), (-0.09, -0.08, 0.0), (0.0, 0.12, -0.02), (0.0, -0.40, 0.0),
        (0.0, -0.40, 0.0), (0.0, 0.13, 0.0), (0.0, -0.41, 0.0), (0.0, -0.41, 0.0), (0.0, 0.06, 0.0),
        (0.0, -0.06, 0.13), (0.0, -0.06, 0.13), (0.0, 0.21, 0.0), (0.08, 0.12, 0.0), (-0.08, 0.12, 0.0),
        (0.0, 0.09, 0.03), (0.11, 0.03, 0.0), (-0.11, 0.03, 0.0), (0.27, 0.0, 0.0), (-0.27, 0.0, 0.0),
        (0.26, 0.0, 0.0), (-0.26, 0.0, 0.0), (0.08, 0.0, 0.0), (-0.08, 0.0, 0.0),
    ]
)  # fmt: skip
"""(24, 3) m: a plain T-pose, arms straight and level, legs straight and vertical; an adult's rounded lengths."""


@dataclass(frozen=True)
class SmplMotion:
    """Result of :func:`retarget`: world rotations relative to the parent, world y up, metres.

    Attributes:
        rotmats: (T, 24, 3, 3), the first the root's orientation in the world, hands identity.
        transl: (T, 3) m, the pelvis.
        leg_length: m, hip to ankle of the source, mean of the sides.
        fps: frames a second.
    """

    rotmats: Array
    transl: Array
    leg_length: float
    fps: float


def smpl_forward(rotmats: Array, transl: Array, offsets: Array = REST_OFFSETS) -> Array:
    """Joint positions (T, 24, 3) m by forward kinematics of local rotations (T, 24, 3, 3) and pelvis positions (T, 3)."""
    turned = np.empty_like(rotmats)
    out = np.empty(rotmats.shape[:2] + (3,))
    for j, parent in enumerate(SMPL_PARENTS):
        turned[:, j] = rotmats[:, j] if parent < 0 else turned[:, parent] @ rotmats[:, j]
        out[:, j] = transl if parent < 0 else out[:, parent] + turned[:, parent] @ offsets[j]
    return out


def world_motion(motion: SourceMotion, rig: Rig) -> tuple[Array, Array]:
    """World rotations (T, J, 3, 3) and positions (T, J, 3) m of the source's joints, y up, T-pose facing +z."""
    turned = motion.global_rotmats()
    positions = motion.positions(turned)
    if not np.array_equal(rig.world, np.eye(3)):
        turned = rig.world @ turned @ rig.world.T
        positions = positions @ rig.world.T
    return turned, positions


def retarget(
    motion: SourceMotion,
    rig: Rig,
    rest_offsets: Array = REST_OFFSETS,
) -> SmplMotion:
    """Turn a source motion into SMPL's local rotations.

    The pelvis is placed so that the middle of the hips is the source's.

    Args:
        motion: as read from the file.
        rig: what its joints mean.
        rest_offsets: (24, 3) m, the target body's joints relative to their parents in its T-pose; its middle of the hips.

    Returns:
        One frame a source frame, at the source's rate.

    Raises:
        UsageError: the skeleton lacks a joint of the rig.
    """
    motion = rig.mend(motion) if rig.mend is not None else motion
    turned, positions = world_motion(motion, rig)
    spread: list[Array] = []
    for j, name in enumerate(SMPL_JOINTS):
        if name not in rig.follow:
            spread.append(spread[SMPL_PARENTS[j]])
            continue
        zero = rig.zero.get(name, np.eye(3))
        spread.append(_followed(turned, motion, rig.follow[name]) @ zero)
    world = np.stack(spread, axis=1)
    rotmats = world.copy()
    for j in range(1, NUM_JOINTS):
        rotmats[:, j] = np.swapaxes(world[:, SMPL_PARENTS[j]], -1, -2) @ world[:, j]

    def at(joint: str) -> Array:
        return positions[:, motion.index(rig.points[joint])]

    middle = 0.5 * (rest_offsets[1] + rest_offsets[2])
    transl = 0.5 * (at("left_hip") + at("right_hip")) - world[:, 0] @ middle
    leg = sum(
        float(np.linalg.norm(at(f"{s}_{a}") - at(f"{s}_{b}"), axis=-1).mean())
        for s in ("left", "right")
        for a, b in (("hip", "knee"), ("knee", "ankle"))
    )
    return SmplMotion(rotmats, transl, 0.5 * leg, motion.fps)


def _followed(turned: Array, motion: SourceMotion, follow: Follow) -> Array:
    first = turned[:, motion.index(follow.joint)]
    if follow.towards is None or follow.part == 0.0:
        return first
    second = turned[:, motion.index(follow.towards)]
    if not follow.twist_only:
        return between(first, second, follow.part)
    axis = motion.offsets[motion.index(follow.towards)]
    return first @ twist_about(np.swapaxes(first, -1, -2) @ second, axis, follow.part)


def twist_about(rotmat: Array, axis: Array, part: float = 1.0) -> Array:
    """``part`` of the twist of rotations (..., 3, 3) about an axis (3,), as rotations (..., 3, 3) about that axis.

    The twist is that of the swing-twist decomposition: the turn about the axis nearest to the rotation.
    """
    axis = axis / np.linalg.norm(axis)
    quat = rotmat_to_quat_wxyz(torch.from_numpy(np.ascontiguousarray(rotmat))).numpy()
    angle = 2.0 * np.arctan2(quat[..., 1:] @ axis, quat[..., 0])
    angle = (angle + np.pi) % (2.0 * np.pi) - np.pi
    return rotvec_to_rotmat(torch.from_numpy(part * angle[..., None] * axis)).numpy()
