"""Repairs of known faults of single conversions, on the source skeleton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .source import Array, SourceMotion, euler_to_rotmat


def thorax_mender(thorax: str, children: tuple[str, ...]) -> Callable[[SourceMotion], SourceMotion]:
    """For conversions that lost the thorax, so that neck and clavicles start at its lower end: put its length back.

    Args:
        thorax: the joint below.
        children: the joints at its upper end.
    """

    def mend(motion: SourceMotion) -> SourceMotion:
        offsets = motion.offsets.copy()
        below = float(np.linalg.norm(motion.offsets[motion.index(thorax)]))
        for child in children:
            if np.allclose(offsets[motion.index(child)], 0.0):
                # Over the subjects with an .asf file the thorax is as long as the bone below it, within 4 %.
                offsets[motion.index(child)] = (0.0, below, 0.05 * below)
        return replace(motion, offsets=offsets)

    return mend


MB_TPOSE: dict[str, Array] = {
    "LeftUpLeg": euler_to_rotmat(np.array([-21.0]), "Z"),
    "RightUpLeg": euler_to_rotmat(np.array([21.0]), "Z"),
    "LeftArm": euler_to_rotmat(np.array([-8.0]), "Z"),
    "RightArm": euler_to_rotmat(np.array([8.0]), "Z"),
    "Neck": euler_to_rotmat(np.array([-16.0]), "X"),
    "Neck1": euler_to_rotmat(np.array([21.0]), "X"),
    "Head": euler_to_rotmat(np.array([11.0]), "X"),
}
"""Local rotations of the T-pose that cgspeed's MotionBuilder conversions have as frame 0; identity for other joints."""


def has_bone_frames(motion: SourceMotion) -> bool:
    """Whether every joint lies on its parent's y axis: frames along the bones, as a detour through FBX leaves them."""
    offsets = motion.offsets[1:]
    return bool(np.abs(offsets[:, [0, 2]]).max() < 1e-3 * np.abs(offsets).max())


def to_world_frames(motion: SourceMotion, tpose: dict[str, Array]) -> SourceMotion:
    """Give a motion whose frames lie along the bones the world-aligned frames of its rig.

    Args:
        motion: frame 0 must be the rig's T-pose.
        tpose: local rotations of that T-pose in world-aligned frames, by joint; identity where absent.
    """
    turned = motion.global_rotmats()
    wanted: list[Array] = []
    for j, parent in enumerate(motion.parents):
        local = tpose.get(motion.joints[j], np.eye(3))
        wanted.append(local if parent < 0 else wanted[parent] @ local)
    change = np.swapaxes(turned[0], -1, -2) @ np.stack(wanted)
    world = turned @ change
    rotmats = world.copy()
    offsets = motion.offsets.copy()
    for j, parent in enumerate(motion.parents):
        if parent >= 0:
            rotmats[:, j] = np.swapaxes(world[:, parent], -1, -2) @ world[:, j]
            offsets[j] = change[parent].T @ motion.offsets[j]
    return replace(motion, rotmats=rotmats, offsets=offsets)
