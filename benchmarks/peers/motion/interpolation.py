"""Interpolation of rotations over missing frames, and their extrapolation."""

from __future__ import annotations

import torch
from torch import Tensor

from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat


def neighbours(valid: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest valid frames at or before, and at or after, each frame of (B, T); at the ends both are one frame."""
    index = torch.arange(valid.shape[1]).expand(valid.shape)
    before = torch.where(valid, index, -1).cummax(1).values
    after = torch.where(valid, index, valid.shape[1]).flip(1).cummin(1).values.flip(1)
    return torch.where(before < 0, after, before), torch.where(after >= valid.shape[1], before, after)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return torch.stack([own[i] for own, i in zip(x, index, strict=True)])


def slerp(rotmat: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """Rotations (B, T, J, 3, 3), frames that are not valid on the shortest arcs between those that are (Shoemake, 1985)."""
    before, after = neighbours(valid)
    first, second = _take(rotmat, before), _take(rotmat, after)
    t0, t1 = times.gather(1, before), times.gather(1, after)
    share = ((times - t0) / (t1 - t0).clamp_min(1e-9)).clamp(0, 1).to(rotmat.dtype)
    turn = rotmat_to_rotvec(first.mT @ second)
    filled = first @ rotvec_to_rotmat(share[..., None, None] * turn)
    return torch.where(valid[..., None, None, None], rotmat, filled)


def inverse_right_jacobian(vector: Tensor) -> Tensor:
    """(..., 3) rad -> (..., 3, 3): derivative of a rotation vector for a body-frame angular velocity.

    Chirikjian, Stochastic Models, Information Theory, and Lie Groups, vol. 2, sec. 10.5.
    """
    angle = vector.norm(dim=-1)
    small = angle < 1e-3
    safe = torch.where(small, torch.ones_like(angle), angle)
    factor = torch.where(small, 1 / 12 + angle**2 / 720, 1 / safe**2 - (1 + safe.cos()) / (2 * safe * safe.sin()))
    zero = torch.zeros_like(angle)
    x, y, z = vector.unbind(-1)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=vector.dtype) + skew / 2 + factor[..., None, None] * (skew @ skew)


def cubic(rotmat: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """As :func:`slerp`, on cubic Hermite curves that leave and arrive at the velocities outside of the gap.

    The curve is drawn in the rotation vectors about the frame before the gap; velocities are those of the two frames at
    either side, where both are valid, else zero.
    """
    before, after = neighbours(valid)
    frames = valid.shape[1]
    first, second = _take(rotmat, before), _take(rotmat, after)
    t0, t1 = times.gather(1, before), times.gather(1, after)
    width = (t1 - t0).clamp_min(1e-9)
    share = ((times - t0) / width).clamp(0, 1).to(rotmat.dtype)[..., None, None]

    def velocity(low: Tensor, high: Tensor) -> Tensor:
        inside = (low >= 0) & (high < frames)
        low, high = low.clamp_min(0), high.clamp(max=frames - 1)
        usable = inside & valid.gather(1, low) & valid.gather(1, high)
        dt = (times.gather(1, high) - times.gather(1, low)).clamp_min(1e-9)
        speed = rotmat_to_rotvec(_take(rotmat, low).mT @ _take(rotmat, high)) / dt[..., None, None].to(rotmat.dtype)
        return torch.where(usable[..., None, None], speed, torch.zeros_like(speed))

    turn = rotmat_to_rotvec(first.mT @ second)
    size = width.to(rotmat.dtype)[..., None, None]
    leave = size * velocity(before - 1, before)
    arrive = size * (inverse_right_jacobian(turn) @ velocity(after, after + 1)[..., None])[..., 0]
    s2, s3 = share**2, share**3
    curve = (s3 - 2 * s2 + share) * leave + (3 * s2 - 2 * s3) * turn + (s3 - s2) * arrive
    return torch.where(valid[..., None, None, None], rotmat, first @ rotvec_to_rotmat(curve))


def extrapolate(
    rotmat: Tensor, times: Tensor, future: Tensor, horizon: float = float("inf"), frames: int = 1
) -> Tensor:
    """Constant angular velocity from the last frame of (B, T, J, 3, 3) on, at ``future`` (F,) s after it.

    Args:
        horizon: s, the time constant with which the velocity dies out; infinite: it does not; 0: the last frame stays.
        frames: over how many of the last intervals the velocity is taken.

    Returns:
        (B, F, J, 3, 3).
    """
    last = rotmat[:, -1]
    dt = (times[:, -1] - times[:, -1 - frames]).to(rotmat.dtype)
    speed = rotmat_to_rotvec(rotmat[:, -1 - frames].mT @ last) / dt[:, None, None]
    return last[:, None] @ rotvec_to_rotmat(reach(future, horizon).to(rotmat.dtype)[:, None, None] * speed[:, None])


def reach(future: Tensor, horizon: float) -> Tensor:
    """Seconds (F,) of full velocity that one which dies out over ``horizon`` amounts to after ``future`` (F,) s."""
    if horizon == float("inf"):
        return future
    return horizon * -torch.expm1(-future / horizon) if horizon > 0 else torch.zeros_like(future)
