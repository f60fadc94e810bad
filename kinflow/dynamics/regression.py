"""Gaussian-process regression of body motion: a smooth motion through noisy frames, at any time stamps.

The linear answer that the learned smoother starts from. Around a clip's mean pose the joints' rotation vectors, turned
into principal axes of motion capture's motion, are independent Gaussian processes in time: a constant plus Matern-5/2
processes of several length scales, with variances fitted by maximum likelihood. Axes in which bodies hardly move shrink
towards the mean, which is where correlations between joints take noise away. Rasmussen and Williams, "Gaussian Processes
for Machine Learning" (2006), eqs. 2.25, 2.26 and 4.17.
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
GROUPS = 7
"""Axes share their variances with their neighbours in the order of size, so many groups in all."""
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
    """Buffers: basis (63, 63), orthonormal axes as columns by falling variance; variance (7, 4) rad^2 of the constant and
    of each length scale, for groups of nine axes."""

    basis: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(_DIM))
        self.register_buffer("variance", torch.full((GROUPS, 1 + len(LENGTHS)), 0.01))

    def scale(self) -> Tensor:
        """(63,) rad: how far motion goes along each axis."""
        return self.variance.sum(1).clamp_min(1e-4).sqrt().repeat_interleave(_DIM // GROUPS)

    def place(self, centre: Tensor, axes: Tensor) -> Tensor:
        """Rotations (B, T, 21, 3, 3) of numbers (B, T, 63) in the axes about centre (B, 1, 21, 3, 3)."""
        return centre @ rotvec_to_rotmat((axes @ self.basis.to(axes.dtype).T).unflatten(-1, (NUM_BODY, 3)))

    def forward(self, rotmat: Tensor, timestamps: Tensor, valid: Tensor, noise: Tensor) -> Regressed:
        """Posterior at every frame, seen or not. It depends on the valid frames, not on which others are asked for.

        Args:
            rotmat: (B, T, 21, 3, 3); what stands in frames that are not valid is not looked at.
            timestamps: (B, T) s. valid: (B, T) bool, at least one a clip.
            noise: (B,) rad, standard deviation of the noise about each axis of each joint, positive.
        """
        times = (timestamps - timestamps[:, :1]).to(rotmat.dtype)
        known = valid.to(rotmat.dtype)
        centre, seen = self.coordinates(rotmat, valid)
        lag = times[:, :, None] - times[:, None, :]
        parts = torch.stack([torch.ones_like(lag), *(matern52(lag, s) for s in LENGTHS)], 1)  # (B, 4, T, T)
        slopes = torch.stack([torch.zeros_like(lag), *(matern52_slope(lag, s) for s in LENGTHS)], 1)
        variance = self.variance.to(rotmat.dtype)
        share = variance / variance.sum(1, keepdim=True)
        kernel, slope = (torch.einsum("gk,bkst->bgst", share, x) for x in (parts, slopes))
        noise = noise.to(rotmat.dtype)
        size = self._energy(seen, known, noise, variance.sum(1))  # (B, G)
        ratio = (noise[:, None].square() / size + _FLOOR)[..., None]  # (B, G, 1)
        # Frames that are not valid become an identity of their own, which leaves the others' solution as it is.
        diagonal = torch.where(valid[:, None], ratio, torch.ones_like(ratio))
        both = known[:, None, :, None] * known[:, None, None, :]
        chol = torch.linalg.cholesky(kernel * both + torch.diag_embed(diagonal))
        cross = kernel * known[:, None, None, :]  # (B, G, T, T)
        grouped = seen.unflatten(-1, (GROUPS, -1)).movedim(2, 1)  # (B, G, T, 9)
        solved = torch.cholesky_solve(grouped, chol)
        whitened = torch.linalg.solve_triangular(chol, cross.mT, upper=False)
        std = ((1 - whitened.square().sum(-2)).clamp_min(0) * size[..., None]).sqrt()  # (B, G, T)

        def ungroup(x: Tensor) -> Tensor:
            return x.movedim(1, 2).flatten(2)

        mean, velocity = ungroup(cross @ solved), ungroup((slope * known[:, None, None, :]) @ solved)
        return Regressed(centre, seen, mean, velocity, std.movedim(1, 2).repeat_interleave(_DIM // GROUPS, -1))

    @staticmethod
    def _energy(seen: Tensor, known: Tensor, noise: Tensor, size: Tensor) -> Tensor:
        """How far this clip moves along each group's axes: variances (B, G) by the method of moments, rad^2.

        People stand still for a while and dance for a while; one variance for both would smooth neither well. A few
        frames tell little, so the capture's own variance counts as much as two frames.
        """
        power = seen.square().unflatten(-1, (GROUPS, -1)).mean(-1).sum(1)  # (B, G)
        count = known.sum(1, keepdim=True)
        excess = (power - (count - 1) * noise[:, None].square()).clamp_min(0)
        return ((excess + 2 * size) / (count + 2)).clamp_min(1e-6)

    def coordinates(self, rotmat: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Mean pose of each clip's valid frames, and all frames in the axes about it (zeros where not valid)."""
        known = valid.to(rotmat.dtype)
        six = rotmat_to_rot6d(torch.where(valid[..., None, None, None], rotmat, torch.zeros_like(rotmat)))
        centre = rot6d_to_rotmat(six.sum(1, keepdim=True) / known.sum(1)[:, None, None, None])
        off = rotmat_to_rotvec(centre.mT @ torch.where(valid[..., None, None, None], rotmat, centre))
        return centre, off.flatten(2) @ self.basis.to(rotmat.dtype)

    @torch.no_grad()
    def fit(self, rotmat: Tensor, timestamps: Tensor, steps: int = 150) -> None:
        """Axes and variances from windows (N, T, 21, 3, 3) that share their time stamps (T,)."""
        self.basis.copy_(torch.eye(_DIM))
        valid = torch.ones(rotmat.shape[:2], dtype=torch.bool, device=rotmat.device)
        _, axes = self.coordinates(rotmat, valid)
        flat = axes.flatten(0, 1).double()
        _, basis = torch.linalg.eigh(flat.T @ flat / len(flat))
        self.basis.copy_(basis.flip(-1))
        x = (axes.double() @ self.basis.double()).unflatten(-1, (GROUPS, -1))  # (N, T, G, 9)
        scatter = torch.einsum("nsgi,ntgi->gst", x, x) / (x.shape[0] * x.shape[-1])
        lag = timestamps.double()[:, None] - timestamps.double()[None]
        parts = torch.stack([torch.ones_like(lag), *(matern52(lag, s) for s in LENGTHS)])
        size = scatter.diagonal(dim1=-2, dim2=-1).mean(-1)
        eye = torch.eye(len(lag), dtype=lag.dtype, device=lag.device)
        with torch.enable_grad():
            log_share = torch.zeros(GROUPS, len(parts), dtype=torch.float64, device=lag.device, requires_grad=True)
            optimiser = torch.optim.Adam([log_share], lr=0.1)
            for _ in range(steps):
                kernel = torch.einsum("gk,kst->gst", log_share.exp() * size[:, None] / len(parts), parts)
                kernel = kernel + (1e-3 * size[:, None, None] + 1e-7) * eye
                chol = torch.linalg.cholesky(kernel)
                fit = torch.cholesky_solve(scatter, chol).diagonal(dim1=-2, dim2=-1).sum(-1)
                loss = (0.5 * fit + chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        self.variance.copy_((log_share.detach().exp() * size[:, None] / len(parts)).clamp_min(1e-8))
