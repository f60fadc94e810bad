"""Classical smoothers of noisy signals: the One-Euro filter and Savitzky-Golay."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinflow.rotations import quat_wxyz_to_rotmat, rotmat_to_quat_wxyz


def one_euro(
    x: Tensor, times: Tensor, min_cutoff: Tensor | float, beta: Tensor | float, derivative_cutoff: float = 1.0
) -> Tensor:
    """One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a causal low-pass whose cutoff grows with the speed.

    Args:
        x: (..., T, D), each of the D coordinates filtered on its own.
        times: (T,) or (..., T) s.
        min_cutoff: Hz, at rest. beta: cutoff a speed, Hz per unit/s. Both broadcast with (..., D).
        derivative_cutoff: Hz, of the speed's own low-pass (1 in the paper).

    Returns:
        (..., T, D).
    """
    dt = torch.diff(times, dim=-1).to(x.dtype)

    def smoothing(cutoff: Tensor | float, step: Tensor) -> Tensor:
        turn = 2 * math.pi * cutoff * step
        return turn / (turn + 1)

    here, speed = x[..., 0, :], torch.zeros_like(x[..., 0, :])
    out = [here]
    for t in range(1, x.shape[-2]):
        step = dt[..., t - 1, None]
        fresh = (x[..., t, :] - here) / step
        speed = speed + smoothing(derivative_cutoff, step) * (fresh - speed)
        here = here + smoothing(min_cutoff + beta * speed.abs(), step) * (x[..., t, :] - here)
        out.append(here)
    return torch.stack(torch.broadcast_tensors(*out), -2)


def continuous_quaternions(rotmat: Tensor) -> Tensor:
    """Quaternions (B, T, J, 4) of rotations (B, T, J, 3, 3), with signs that do not jump in time."""
    quat = rotmat_to_quat_wxyz(rotmat)
    agree = (quat[:, 1:] * quat[:, :-1]).sum(-1)
    sign = torch.where(agree < 0, -1.0, 1.0).cumprod(1).to(quat.dtype)
    return torch.cat((quat[:, :1], quat[:, 1:] * sign[..., None]), 1)


def savitzky_golay(rotmat: Tensor, window: int, order: int) -> Tensor:
    """Local polynomials (Savitzky and Golay, 1964) of quaternions, renormalised: (B, T, J, 3, 3), even time steps."""
    from scipy.signal import savgol_filter

    quat = continuous_quaternions(rotmat)
    smooth = torch.from_numpy(savgol_filter(quat.double().numpy(), window, order, axis=1, mode="interp"))
    return quat_wxyz_to_rotmat(torch.nn.functional.normalize(smooth, dim=-1)).to(rotmat.dtype)
