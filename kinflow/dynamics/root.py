"""Root motion as the dynamics see it: velocities in the body's heading frame, which no choice of world axes changes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_shape
from ..rotations import rotmat_to_rotvec
from ..timing import velocity

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


def root_motion(global_rotmat: Tensor, transl: Tensor, timestamps: Tensor) -> Tensor:
    """Root velocities from each frame's predecessor.

    Args:
        global_rotmat: (B, T, 3, 3) root orientation in a world frame with y up.
        transl: (B, T, 3) root position in m.
        timestamps: (B, T) s.

    Returns:
        (B, T, 6): angular velocity (rad/s) and linear velocity (m/s), both in the heading frame of the earlier frame;
        zeros at the first frame.
    """
    sizes = check_shape("global_rotmat", global_rotmat, "B T 3 3")
    check_shape("transl", transl, f"{sizes['B']} {sizes['T']} 3")
    check_shape("timestamps", timestamps, f"{sizes['B']} {sizes['T']}")
    to_heading = heading_rotmat(global_rotmat[:, :-1]).transpose(-1, -2)
    step = rotmat_to_rotvec(global_rotmat[:, 1:] @ global_rotmat[:, :-1].transpose(-1, -2))
    turn = step / torch.diff(timestamps, dim=1).to(step.dtype).clamp_min(_SHORTEST)[..., None]
    move = velocity(transl, timestamps, dim=-2, least=_SHORTEST)
    both = torch.cat([(to_heading @ v[..., None]).squeeze(-1) for v in (turn, move)], -1)
    return torch.cat((both.new_zeros(len(both), 1, 6), both), 1)  # of one frame alone there is no velocity to read
