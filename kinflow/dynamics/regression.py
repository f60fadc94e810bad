"""Gaussian-process regression of rotations over time: a smooth motion through noisy frames, at any time stamps.

The classical answer that the learned smoother starts from. Each number of a joint's 6D form is a Gaussian process in time
with a Matern-5/2 kernel about the clip's mean, seen with isotropic noise; the posterior mean is brought back to a rotation
by Gram-Schmidt. Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), eqs. 2.25, 2.26 and 4.17.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rotations import rot6d_to_rotmat, rotmat_to_rot6d
from ..skeleton import NUM_BODY, SMPL_JOINTS

LENGTH = 0.25
"""Seconds: the kernel's length scale."""
SPREAD = (0.06, 0.12, 0.2, 0.33)
"""Radians: how far joints of each group move about a clip's mean, as motion capture has it."""
_GROUPS = {
    "spine2": 0,
    "spine3": 0,
    "foot": 0,
    "collar": 0,
    "spine1": 1,
    "neck": 1,
    "head": 1,
    "shoulder": 3,
    "elbow": 3,
}
GROUP_OF = tuple(_GROUPS.get(name.split("_")[-1], 2) for name in SMPL_JOINTS[1 : NUM_BODY + 1])
"""Group of each of the 21 body joints."""


def matern52(lag: Tensor, length: float) -> Tensor:
    """Matern-5/2 correlation at time lags (...) s for a length scale in s."""
    r = math.sqrt(5) * lag.abs() / length
    return (1 + r + r * r / 3) * torch.exp(-r)


def matern52_slope(lag: Tensor, length: float) -> Tensor:
    """d matern52 / d lag, 1/s."""
    r = math.sqrt(5) * lag.abs() / length
    return -5 * lag / (3 * length**2) * (1 + r) * torch.exp(-r)


def regress_rotations(
    rotmat: Tensor, timestamps: Tensor, valid: Tensor, noise: Tensor, length: float = LENGTH
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior mean, its velocity and standard deviation of the body's rotations at every frame, seen or not.

    What is asked at one frame does not depend on which other frames are asked for, only on those that are valid.

    Args:
        rotmat: (B, T, 21, 3, 3), noisy rotations; what stands in frames that are not valid is not looked at.
        timestamps: (B, T) s. valid: (B, T) bool, at least one a clip.
        noise: (B,) rad, standard deviation of the noise about each axis, positive.

    Returns:
        rotations (B, T, 21, 3, 3), the 6D forms' velocity (B, T, 21, 6) in 1/s, and the posterior standard deviation
        (B, T, 21) in rad.
    """
    times = (timestamps - timestamps[:, :1]).to(rotmat.dtype)
    seen = valid.to(rotmat.dtype)
    lag = times[:, :, None] - times[:, None, :]
    kernel = matern52(lag, length)
    slope = matern52_slope(lag, length) * seen[:, None, :]
    spread = torch.tensor(SPREAD, dtype=rotmat.dtype, device=rotmat.device)
    # Frames that are not valid become an identity of their own, which leaves the others' solution as it is.
    ratio = (noise.to(rotmat.dtype)[:, None] / spread).square().clamp_min(1e-5)  # (B, G)
    diagonal = torch.where(valid[:, None], ratio[..., None], torch.ones_like(seen)[:, None])
    chol = torch.linalg.cholesky((kernel * seen[:, :, None] * seen[:, None, :])[:, None] + torch.diag_embed(diagonal))
    cross = (kernel * seen[:, None, :])[:, None].expand_as(chol)
    group = torch.tensor(GROUP_OF, device=rotmat.device)
    explained = (torch.cholesky_solve(cross.mT, chol).mT * cross).sum(-1)
    std = ((1 - explained).clamp_min(0).sqrt() * spread[:, None]).movedim(1, 2)[..., group]
    values = rotmat_to_rot6d(rotmat) * seen[..., None, None]
    mean = values.sum(1, keepdim=True) / seen.sum(1)[:, None, None, None]
    centred = (values - mean) * seen[..., None, None]
    fitted, velocity = torch.empty_like(centred), torch.empty_like(centred)
    for g in range(len(SPREAD)):
        joints = (group == g).nonzero().squeeze(-1)
        solved = torch.cholesky_solve(centred[:, :, joints].flatten(2), chol[:, g])
        fitted[:, :, joints] = (cross[:, g] @ solved).unflatten(-1, (len(joints), 6))
        velocity[:, :, joints] = (slope @ solved).unflatten(-1, (len(joints), 6))
    return rot6d_to_rotmat(fitted + mean), velocity, std
