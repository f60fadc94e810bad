"""From rotations relative to a straight T-pose to rotations relative to SMPL's zero pose, with SMPL's shoulder girdle.

Skeletons of motion capture are at zero with limbs straight, level and vertical. SMPL's body is not: its legs stand a few
degrees apart with the shins drawn back, its arms are swept back, its trunk leans back, and its shoulders are raised to the
height that level arms take. The same limb directions are therefore other rotations.
"""

from __future__ import annotations

import numpy as np

from ..rotations import Array, exp_so3, log_so3
from ..skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS, SMPL_REST_OFFSETS

RHYTHM = 1 / 3
"""Share of the arm's swing from the horizontal that the shoulder girdle takes (Inman, Saunders and Abbott, 1944: one part of
the scapula to two of the humerus; hanging arms lower SMPL's collars by 25 to 40 degrees)."""
LARGEST_SWING = np.deg2rad(110.0)
"""Swing beyond which the girdle follows no further."""
TRUNK_LEAN = np.deg2rad(5.0)
"""How far a natural stand leans forward from SMPL's zero pose, shared by the three spine joints."""

_REST = np.array(SMPL_REST_OFFSETS)
_INDEX = {name: j for j, name in enumerate(SMPL_JOINTS)}
_LIMBS = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist", "wrist": "hand"}


def shortest(a: Array, b: Array) -> Array:
    """The smallest rotation (..., 3, 3) that takes direction a (..., 3) to b (3,); opposite directions have none."""
    a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b)
    axis, cosine = np.cross(a, b), (a * b).sum(-1)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    return exp_so3(axis / np.maximum(sine, 1e-12) * np.arctan2(sine, cosine[..., None]))


def _corrections() -> Array:
    """(24, 3, 3): what takes SMPL's zero pose to a straight T-pose, in the world, by joint."""
    out = np.broadcast_to(np.eye(3), (NUM_JOINTS, 3, 3)).copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        straight = {"hip": (0.0, -1.0, 0.0), "knee": (0.0, -1.0, 0.0)}
        for joint, child in _LIMBS.items():
            bone = _REST[_INDEX[f"{side}_{child}"]]
            out[_INDEX[f"{side}_{joint}"]] = shortest(bone, np.array(straight.get(joint, (sign, 0.0, 0.0))))
        out[_INDEX[f"{side}_hand"]] = out[_INDEX[f"{side}_wrist"]]  # fingers do not move
        toes = _REST[_INDEX[f"{side}_foot"]]  # the soles are level in both
        turn = exp_so3(np.array((0.0, -np.arctan2(toes[0], toes[2]), 0.0)))
        out[_INDEX[f"{side}_ankle"]] = out[_INDEX[f"{side}_foot"]] = turn
    for share, name in enumerate(("spine1", "spine2", "spine3"), 1):
        out[_INDEX[name]] = exp_so3(np.array((share / 3 * TRUNK_LEAN, 0.0, 0.0)))
    for name in ("left_collar", "right_collar"):
        out[_INDEX[name]] = out[_INDEX["spine3"]]
    return out


CORRECTIONS = _corrections()


def into_zero_pose(rotmats: Array, rhythm: float = RHYTHM) -> Array:
    """Local rotations (T, 24, 3, 3) relative to SMPL's zero pose, from those relative to a straight T-pose.

    Directions of legs, feet, arms and hands stay; the trunk bends by :data:`TRUNK_LEAN`; the collars take ``rhythm`` of
    the arms' swing on top of the source's own shrugs, and the shoulders the rest.
    """
    world = np.empty_like(rotmats)
    for j, parent in enumerate(SMPL_PARENTS):
        world[:, j] = rotmats[:, j] if parent < 0 else world[:, parent] @ rotmats[:, j]
    world = world @ CORRECTIONS
    chest = world[:, _INDEX["spine3"]]
    for side in ("left", "right"):
        collar, shoulder = _INDEX[f"{side}_collar"], _INDEX[f"{side}_shoulder"]
        bone = _REST[_INDEX[f"{side}_elbow"]]
        arm = (np.swapaxes(chest, -1, -2) @ world[:, shoulder] @ bone[:, None])[..., 0]
        swing = -log_so3(shortest(arm, bone))
        angle = np.linalg.norm(swing, axis=-1, keepdims=True)
        swing = swing * np.minimum(1.0, LARGEST_SWING / np.maximum(angle, 1e-9))
        own = np.swapaxes(chest, -1, -2) @ world[:, collar]
        world[:, collar] = chest @ exp_so3(rhythm * swing) @ own
    out = world.copy()
    for j in range(1, NUM_JOINTS):
        out[:, j] = np.swapaxes(world[:, SMPL_PARENTS[j]], -1, -2) @ world[:, j]
    return out
