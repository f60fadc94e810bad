"""Gaussian-process regression of body motion: a smooth motion through noisy frames, at any time stamps.

The answer that the learned denoiser starts from. Around a clip's mean pose the joints' rotation vectors are a linear mix
of independent Gaussian processes in time (a constant plus Matern-5/2 processes of several length scales). The mix is found
for each clip by empirical Bayes: a first pass in the principal axes of motion capture, with the variance that the clip
shows in them, then a second in the principal axes of what the first one found. People move in few ways at a time, and
what is along the other axes is noise. Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), eqs. 2.25,
2.26 and 4.17.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..rotations import rot6d_to_rotmat, rotmat_to_rot6d, rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import NUM_BODY

LENGTHS = (0.15, 0.4, 1.2)
"""Seconds: length scales of the processes."""
SHARES_EXACT, SHARES_NOISY = (0.01, 0.3, 0.65, 0.04), (0.002, 0.8, 0.19, 0.008)
"""Shares of the constant and of each length scale in the variance, where the noise is below and above :data:`TURN`, and
between the two in between. Maximum likelihood puts nearly all on the shortest length, which suits noise but fills gaps of
half a second 8 % worse. Found on training and validation windows."""
TURN = (0.01, 0.06)
"""Radians."""
GROUPS = 7
"""In the first pass, axes share their clip's variance with their neighbours in the order of size: so many groups in all."""
TRUST = 100.0
"""In the second pass, frames that the capture's own covariance counts for, at a share :data:`CALM` of its size."""
CALM = 0.03
_DIM = 3 * NUM_BODY
_FLOOR = 1e-5  # of a process's variance: keeps its covariance positive definite in float32


def matern52(lag: Tensor, length: float) -> Tensor:
    """Matern-5/2 correlation at time lags (...) s for a length scale in s."""
    r = math.sqrt(5) * lag.abs() / length
    return (1 + r + r * r / 3) * torch.exp(-r)


def matern52_slope(lag: Tensor, length: float) -> Tensor:
    """d matern52 / d lag, 1/s."""
    r = math.sqrt(5) * lag.abs() / length
    return -5 * lag / (3 * length**2) * (1 + r) * torch.exp(-r)


class Regressed(NamedTuple):
    """What the regression makes of clips, in axes about each clip's mean pose.

    Attributes:
        centre: (B, 1, 21, 3, 3) mean pose of the valid frames.
        seen: (B, T, 63) the given rotations in the axes, zeros where not valid.
        mean, velocity: (B, T, 63) rad and rad/s. std: (B, T, 63) rad, posterior.
    """

    centre: Tensor
    seen: Tensor
    mean: Tensor
    velocity: Tensor
    std: Tensor


class MotionRegression(nn.Module):
    """Buffers: basis (63, 63), orthonormal axes as columns by falling variance; variance (63,) rad^2 along them."""

    basis: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(_DIM))
        self.register_buffer("variance", torch.full((_DIM,), 0.04))

    def scale(self) -> Tensor:
        """(63,) rad: how far motion goes along each axis."""
        return self.variance.clamp_min(1e-4).sqrt()

    def turns(self, axes: Tensor) -> Tensor:
        """Rotation vectors (..., 21, 3) of numbers (..., 63) in the axes."""
        return (axes @ self.basis.to(axes.dtype).T).unflatten(-1, (NUM_BODY, 3))

    def spread(self, std: Tensor) -> Tensor:
        """Standard deviations (..., 21, 3) of rotation vectors from independent ones (..., 63) along the axes."""
        return (std.square() @ self.basis.to(std.dtype).square().T).sqrt().unflatten(-1, (NUM_BODY, 3))

    def place(self, centre: Tensor, axes: Tensor) -> Tensor:
        """Rotations (B, T, 21, 3, 3) of numbers (B, T, 63) in the axes about centre (B, 1, 21, 3, 3)."""
        return centre @ rotvec_to_rotmat(self.turns(axes))

    @torch.no_grad()
    def forward(self, rotmat: Tensor, timestamps: Tensor, valid: Tensor, noise: Tensor) -> Regressed:
        """Posterior at every frame, seen or not. It depends on the valid frames, not on which others are asked for.

        Args:
            rotmat: (B, T, 21, 3, 3); what stands in frames that are not valid is not looked at.
            timestamps: (B, T) s. valid: (B, T) bool, at least one a clip.
            noise: (B,) rad, standard deviation of the noise about each axis of each joint, positive.
        """
        dtype, known = rotmat.dtype, valid.to(torch.float64)
        times = (timestamps - timestamps[:, :1]).double()
        centre, seen = self.coordinates(rotmat, valid)
        lag = times[:, :, None] - times[:, None, :]
        low, high = (math.log(x) for x in TURN)
        part = ((noise.double().log() - low) / (high - low)).clamp(0, 1)[:, None]
        shares = torch.lerp(lag.new_tensor(SHARES_EXACT), lag.new_tensor(SHARES_NOISY), part).unbind(1)
        pairs = [(share[:, None, None], length) for share, length in zip(shares[1:], LENGTHS, strict=True)]
        constant = shares[0][:, None, None].expand_as(lag)
        kernel = sum((w * matern52(lag, length) for w, length in pairs), start=constant)
        slope = sum((w * matern52_slope(lag, length) for w, length in pairs), start=torch.zeros_like(lag))
        # One factorisation serves all axes; frames that are not valid fall into its null space.
        level, modes = torch.linalg.eigh(kernel * known[:, :, None] * known[:, None, :])
        level, modes = level.clamp_min(0), modes * known[..., None]
        cross, rate = (kernel * known[:, None]) @ modes, (slope * known[:, None]) @ modes  # (B, T, modes)
        noise2 = noise.double().square()[:, None]

        def solve(values: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
            gain = 1 / (level[..., None] + (noise2 / size)[:, None] + _FLOOR)  # (B, modes, axes)
            return (modes.mT @ values) * gain, gain

        values = seen.double()
        size = self._energy(values, known, noise2)
        first = cross @ solve(values, size)[0]
        # Second pass: axes of this clip's own motion.
        first = first * known[..., None]
        count = known.sum(1)[:, None, None]
        usual = torch.diag(TRUST * CALM * self.variance.double())
        size, axes = torch.linalg.eigh((first.mT @ first + usual) / (count + TRUST))
        size = size.clamp_min(1e-4)
        solved, gain = solve(values @ axes, size)
        variance = (1 - cross.square() @ gain).clamp_min(0) * size[:, None]
        back = axes.mT
        std = (variance @ back.square()).sqrt()
        mean, velocity = cross @ solved @ back, rate @ solved @ back
        return Regressed(centre, seen, mean.to(dtype), velocity.to(dtype), std.to(dtype))

    def _energy(self, seen: Tensor, known: Tensor, noise2: Tensor) -> Tensor:
        """How far each clip moves along the axes (B, 63), rad^2, by the method of moments in groups of axes.

        People stand still for a while and dance for a while; one variance for both would smooth neither well. A few
        frames tell little, so the capture's own variance counts as much as two frames.
        """
        size = self.variance.double().unflatten(0, (GROUPS, -1)).mean(-1)
        power = seen.square().unflatten(-1, (GROUPS, -1)).mean(-1).sum(1)  # (B, G)
        count = known.sum(1, keepdim=True)
        excess = (power - (count - 1) * noise2).clamp_min(0)
        energy = ((excess + 2 * size) / (count + 2)).clamp_min(1e-6)
        return energy.repeat_interleave(_DIM // GROUPS, -1)

    def coordinates(self, rotmat: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Mean pose of each clip's valid frames, and all frames in the axes about it (zeros where not valid)."""
        known = valid.to(rotmat.dtype)
        six = rotmat_to_rot6d(torch.where(valid[..., None, None, None], rotmat, torch.zeros_like(rotmat)))
        centre = rot6d_to_rotmat(six.sum(1, keepdim=True) / known.sum(1)[:, None, None, None])
        off = rotmat_to_rotvec(centre.mT @ torch.where(valid[..., None, None, None], rotmat, centre))
        return centre, off.flatten(2) @ self.basis.to(rotmat.dtype)

    @torch.no_grad()
    def fit(self, rotmat: Tensor) -> None:
        """Axes and variances from windows (N, T, 21, 3, 3) of motion."""
        self.basis.copy_(torch.eye(_DIM))
        valid = torch.ones(rotmat.shape[:2], dtype=torch.bool, device=rotmat.device)
        flat = self.coordinates(rotmat, valid)[1].flatten(0, 1).double()
        size, basis = torch.linalg.eigh(flat.T @ flat / len(flat))
        self.basis.copy_(basis.flip(-1))
        self.variance.copy_(size.flip(-1).clamp_min(1e-8))
