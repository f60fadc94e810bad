"""Forward kinematics of SMPL's tree and linear blend skinning: pure tensor functions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..skeleton import BODY_INDEX_LEVELS, NUM_JOINTS, SMPL_PARENTS

PARENTS: list[int] = list(SMPL_PARENTS[1:])
LEVELS: list[tuple[list[int], list[int]]] = [
    (list(level), [above.index(SMPL_PARENTS[j]) for j in level])
    for above, level in itertools.pairwise(BODY_INDEX_LEVELS)
]
"""Per level below the root: the joints, and where their parents stand in the level above."""
LEVEL_ORDER: list[int] = [j for level in BODY_INDEX_LEVELS for j in level]
"""Joints in the order in which the levels are laid one after another."""
FROM_LEVEL_ORDER: list[int] = [LEVEL_ORDER.index(j) for j in range(NUM_JOINTS)]


def forward_kinematics(pose_rotmat: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """World rotations and positions of the 24 joints, one batched product a level of the tree (nine levels).

    SMPL, eq. (3)-(4): G_j = G_parent(j) [R_j | o_j], with o_j the joint from its parent at rest.

    Args:
        pose_rotmat: (..., 24, 3, 3) rotation of each joint relative to its parent; the root's relative to the world.
        rest_joints: (..., 24, 3) m, joints at rest. Leading dimensions broadcast.

    Returns:
        rotations (..., 24, 3, 3) and positions (..., 24, 3) m.
    """
    # One 3x4 product a level: [G | p] = G_parent [R | o] + [0 | p_parent].
    offsets = torch.cat((rest_joints[..., :1, :], rest_joints[..., 1:, :] - rest_joints[..., PARENTS, :]), -2)
    lead = torch.broadcast_shapes(pose_rotmat.shape[:-3], offsets.shape[:-2])
    local = torch.cat(
        (pose_rotmat.expand(*lead, NUM_JOINTS, 3, 3), offsets.expand(*lead, NUM_JOINTS, 3)[..., None]), -1
    )
    current = local[..., :1, :, :]
    levels = [current]
    for joints, parents in LEVELS:
        above = current[..., parents, :, :]
        product = above[..., :3] @ local[..., joints, :, :]
        current = torch.cat((product[..., :3], product[..., 3:] + above[..., 3:]), -1)
        levels.append(current)
    world = torch.cat(levels, -3)[..., FROM_LEVEL_ORDER, :, :]
    return world[..., :3], world[..., 3]


def skin(rest_vertices: Tensor, weights: Tensor, rotations: Tensor, positions: Tensor, rest_joints: Tensor) -> Tensor:
    """Linear blend skinning (SMPL, eq. (2)).

    Args:
        rest_vertices: (..., V, 3) m, shaped (and pose-corrected) vertices at rest.
        weights: (V, 24) rows of sum 1.
        rotations, positions: (..., 24, 3, 3) and (..., 24, 3) of :func:`forward_kinematics`.
        rest_joints: (..., 24, 3) m.

    Returns:
        (..., V, 3) m. Leading dimensions broadcast.
    """
    shift = positions - (rotations @ rest_joints[..., None])[..., 0]
    affine = torch.cat((rotations, shift[..., None]), -1)
    blend = (weights @ affine.flatten(-2)).unflatten(-1, (3, 4))
    return (blend[..., :3] @ rest_vertices[..., None])[..., 0] + blend[..., 3]


def skin_one_shape(
    rest_vertices: Tensor, weights: Tensor, rotations: Tensor, positions: Tensor, rest_joints: Tensor
) -> Tensor:
    """As :func:`skin`, for many poses of one shape: one matrix product and no intermediate as large as the result.

    ``v = sum_j w_j (R_j v0 + t_j)`` is linear in the joints' transforms, with coefficients ``w_j [v0, 1]``.

    Args:
        rest_vertices: (V, 3) m.
        weights: (V, 24).
        rotations, positions: (N, 24, 3, 3), (N, 24, 3).
        rest_joints: (24, 3) m.

    Returns:
        (N, V, 3) m.
    """
    shift = positions - (rotations @ rest_joints[..., None])[..., 0]
    homogeneous = torch.cat((rest_vertices, torch.ones_like(rest_vertices[:, :1])), -1)
    coefficients = (weights[:, :, None] * homogeneous[:, None, :]).flatten(1)  # (V, 96)
    affine = torch.cat((rotations, shift[..., None]), -1)  # (N, 24, 3, 4)
    return torch.matmul(coefficients, affine.transpose(-1, -2).flatten(1, 2))
