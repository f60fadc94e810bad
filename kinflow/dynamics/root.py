"""Root motion as the dynamics see it: velocities in the body's heading frame, which no choice of world axes changes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_shape
from ..rotations import rotmat_to_rotvec
from ..timing import gather_time, valid_before

_SHORTEST = 1e-4  # s between two frames


def heading_rotmat(global_rotmat: Tensor) -> Tensor:
    """Rotation about world y that turns +z to where the body faces: (..., 3, 3) -> (..., 3, 3).

    The body's own +z, laid on the ground, is the heading. Lying down, where +z points up or down, it is read off the
    body's +y instead, as far as needed for a smooth change.
    """
    forward, up = global_rotmat[..., :, 2], global_rotmat[..., :, 1]
    flat = forward - forward[..., 1:2] * up  # as +z leans up, the head leans back: -y on the ground takes over
    x, z = flat[..., 0], flat[..., 2]
    norm = (x * x + z * z).clamp_min(1e-12).sqrt()
    sin, cos = x / norm, z / norm
    zero, one = torch.zeros_like(sin), torch.ones_like(sin)
    return torch.stack((cos, zero, sin, zero, one, zero, -sin, zero, cos), -1).unflatten(-1, (3, 3))


def root_motion(global_rotmat: Tensor, transl: Tensor, timestamps: Tensor, valid: Tensor | None = None) -> Tensor:
    """Root velocities from the valid frame before each, as the latents' velocities are.

    Args:
        global_rotmat: (B, T, 3, 3) root orientation in a world frame with y up.
        transl: (B, T, 3) root position in m.
        timestamps: (B, T) s.
        valid: (B, T) bool; the other frames are not looked at. None: all are.

    Returns:
        (B, T, 6): angular velocity (rad/s) and linear velocity (m/s), both in the heading frame of the earlier frame;
        zeros at the first valid frame, which has none before it, and where not valid.
    """
    sizes = check_shape("global_rotmat", global_rotmat, "B T 3 3")
    check_shape("transl", transl, f"{sizes['B']} {sizes['T']} 3")
    check_shape("timestamps", timestamps, f"{sizes['B']} {sizes['T']}")
    valid = torch.ones(timestamps.shape, dtype=torch.bool, device=transl.device) if valid is None else valid
    check_shape("valid", valid, f"{sizes['B']} {sizes['T']}")
    eye = torch.eye(3, dtype=global_rotmat.dtype, device=global_rotmat.device)
    before = valid_before(valid)
    both = valid & (before >= 0)
    # Chosen before anything is computed, so that no NaN reaches a logarithm or a gradient.
    earlier, later = (
        torch.where(both[..., None, None], r, eye)
        for r in (gather_time(global_rotmat, before.clamp_min(0)), global_rotmat)
    )
    shift = torch.where(both[..., None], transl - gather_time(transl, before.clamp_min(0)), 0.0)
    dt = (timestamps - gather_time(timestamps, before.clamp_min(0))).to(shift.dtype).clamp_min(_SHORTEST)[..., None]
    turn = rotmat_to_rotvec(later @ earlier.mT)
    return torch.cat([(heading_rotmat(earlier).mT @ v[..., None]).squeeze(-1) / dt for v in (turn, shift)], -1)
