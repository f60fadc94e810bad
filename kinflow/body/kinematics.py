"""Forward kinematics of SMPL's tree and linear blend skinning: pure tensor functions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..skeleton import BODY_INDEX_LEVELS, SMPL_PARENTS

PARENTS: list[int] = list(SMPL_PARENTS[1:])


def _runs() -> list[tuple[slice, int, slice]]:
    """The tree below the root, cut into runs: the joints, the earlier run that holds their parents, and where in it.

    The joints of a run are consecutive and of one depth; their parents are consecutive joints of one earlier run, or
    one and the same joint. SMPL's order goes by depth, so that ten runs of plain slices do for 23 joints, and the hot
    path needs no gather.
    """
    runs = [[0]]
    for level in BODY_INDEX_LEVELS[1:]:
        holder = {j: i for i, run in enumerate(runs) for j in run}
        for joint in level:
            last, parent = runs[-1], SMPL_PARENTS[joint]
            parents = [SMPL_PARENTS[j] for j in last] + [parent]
            steps = {b - a for a, b in itertools.pairwise(parents)}
            joins = last[-1] == joint - 1 and last[0] in level and steps in ({0}, {1})
            if joins and holder[parent] == holder[parents[0]]:
                last.append(joint)
            else:
                runs.append([joint])
    out = []
    holder = {j: i for i, run in enumerate(runs) for j in run}
    for run in runs[1:]:
        first, final = SMPL_PARENTS[run[0]], SMPL_PARENTS[run[-1]]
        start = runs[holder[first]][0]
        out.append((slice(run[0], run[-1] + 1), holder[first], slice(first - start, final - start + 1)))
    return out


RUNS = _runs()


def full_pose(body_rotmat: Tensor, root_rotmat: Tensor | None = None) -> Tensor:
    """All rotations (..., 24, 3, 3) of a body's (..., 21, 3, 3) and its root's (..., 3, 3): hands at rest, and the root
    where none is given."""
    eye = torch.eye(3).to(body_rotmat).expand(*body_rotmat.shape[:-3], 1, 3, 3)
    root = eye if root_rotmat is None else root_rotmat[..., None, :, :].to(body_rotmat.dtype).expand_as(eye)
    return torch.cat((root, body_rotmat, eye, eye), -3)


def forward_kinematics(pose_rotmat: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """World rotations and positions of the 24 joints, ten batched products down the tree.

    SMPL, eq. (3)-(4): G_j = G_parent(j) [R_j | o_j], with o_j the joint from its parent at rest.

    Args:
        pose_rotmat: (..., 24, 3, 3) rotation of each joint relative to its parent; the root's relative to the world.
        rest_joints: (..., 24, 3) m, joints at rest. Leading dimensions broadcast.

    Returns:
        rotations (..., 24, 3, 3) and positions (..., 24, 3) m.
    """
    # One 3x4 product a level: [G | p] = G_parent [R | o] + [0 | p_parent].
    offsets = torch.cat((rest_joints[..., :1, :], rest_joints[..., 1:, :] - rest_joints[..., PARENTS, :]), -2)
    # broadcast_tensors, for broadcast_shapes imports torch's compiler (1.2 s of a core).
    _, columns = torch.broadcast_tensors(pose_rotmat[..., :1], offsets[..., None])
    local = torch.cat((pose_rotmat.expand(*columns.shape[:-1], 3), columns), -1)
    placed = [local[..., :1, :, :]]
    for joints, holder, parents in RUNS:
        above = placed[holder][..., parents, :, :]
        product = above[..., :3] @ local[..., joints, :, :]
        product[..., 3].add_(above[..., 3])
        placed.append(product)
    world = torch.cat(placed, -3)
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
