"""Charts: one-to-one maps between joint rotations and Euclidean space, with their volume change.

The chart of one joint is the rotation vector relative to the joint's mean rotation, stretched along its radius:

    w = log(mean^T R),  |w| < pi          u = w / (1 - (|w| / pi)^4)^(1/4),  u in R^3

The rotation vector alone maps SO(3) onto a ball, so a density on all of R^3 would lose the mass outside the ball. The
stretch maps the open ball onto R^3, one to one, hence **the density over SO(3) integrates to exactly 1**; what is left
out is the ball's surface (turns by exactly pi away from the mean), a set of measure zero. Up to half a turn the stretch
changes a vector by less than 2 %.

Volumes are with respect to the Haar measure whose total on SO(3) is 8 pi^2 (the exponential map is an isometry at zero).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..rotations import nearest_rotmat, rotmat_to_rotvec, rotvec_to_rotmat, so3_log_jacobian_logdet

# 1 - (|w|/pi)^4 is not let below this: within 8e-6 rad of the surface the chart is cut, so that it stays finite.
_SURFACE = 1e-5


def ball_to_space(w: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch (..., 3), |w| <= pi, onto R^3. Returns u (..., 3) and log|det du/dw| (...)."""
    t2 = (w * w).sum(-1) / math.pi**2
    rest = (1 - t2 * t2).clamp_min(_SURFACE)
    return w * rest[..., None].pow(-0.25), -1.75 * rest.log()


def space_to_ball(u: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of :func:`ball_to_space`: w (..., 3) with |w| < pi, and log|det dw/du| (...)."""
    # |u| may be huge: with q = |u| / pi, (1 + q^4) = q_^4 (1/q_^4 + (q/q_)^4) where q_ = max(1, q).
    q = ((u * u).sum(-1) / math.pi**2 + 1e-30).sqrt()
    big = q.clamp_min(1.0)
    log_grown = 4 * big.log() + (big.pow(-4) + (q / big).pow(4)).log()
    return u * torch.exp(-0.25 * log_grown)[..., None], -1.75 * log_grown


class RotationChart(nn.Module):
    """Joint rotations (..., J, 3, 3) <-> u (..., J, 3), each joint about its own mean rotation.

    Buffers:
        mean_rotmat (J, 3, 3): the means; identity until :meth:`fit`.
    """

    mean_rotmat: Tensor

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.register_buffer("mean_rotmat", torch.eye(3).repeat(joints, 1, 1))

    @torch.no_grad()
    def fit(self, rotmat: Tensor) -> None:
        """Set the means to the chordal means of (N, J, 3, 3)."""
        self.mean_rotmat.copy_(nearest_rotmat(rotmat.double().mean(0)))

    def forward(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """u (..., J, 3) and log|du / dHaar| (...), summed over joints."""
        w = rotmat_to_rotvec(self.mean_rotmat.transpose(-1, -2).to(rotmat.dtype) @ rotmat)
        u, log_det = ball_to_space(w)
        return u, (log_det - so3_log_jacobian_logdet(w)).sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (..., J, 3, 3) and log|dHaar / du| (...)."""
        w, log_det = space_to_ball(u)
        return self.mean_rotmat.to(u.dtype) @ rotvec_to_rotmat(w), (log_det + so3_log_jacobian_logdet(w)).sum(-1)


class Whitening(nn.Module):
    """x (..., D) <-> (x - mean) L^-T with L the Cholesky factor of the data's covariance.

    L is lower triangular and joints come parents first, so each latent is what remains of its joint after a linear
    prediction from the joints before it.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("factor", torch.eye(dim))

    @torch.no_grad()
    def fit(self, x: Tensor, floor: float = 1e-6) -> None:
        """Set mean and covariance from (N, D); ``floor`` is added to each variance."""
        x = x.double()
        covariance = torch.cov(x.T) + floor * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        self.mean.copy_(x.mean(0))
        self.factor.copy_(torch.linalg.cholesky(covariance))

    def log_det(self) -> Tensor:
        """log|det| of the forward map, a scalar."""
        return -self.factor.diagonal().log().sum()

    def forward(self, x: Tensor) -> Tensor:
        """Whitened (..., D)."""
        centred = (x - self.mean.to(x.dtype)).unsqueeze(-1)
        return torch.linalg.solve_triangular(self.factor.to(x.dtype), centred, upper=False).squeeze(-1)

    def inverse(self, y: Tensor) -> Tensor:
        """Data (..., D)."""
        return y @ self.factor.to(y.dtype).T + self.mean.to(y.dtype)


class Tail(nn.Module):
    """Elementwise y = x (1 + x^2 / c^2)^(-1/4): near-linear inside c, square root outside.

    A Gaussian density in y is one in x with exponential tails, so that a far-out pose is unlikely, not impossible, and
    its gradient stays moderate. c is learned per dimension. The inverse is closed-form.
    """

    def __init__(self, dim: int, c: float) -> None:
        super().__init__()
        self.log_c = nn.Parameter(torch.full((dim,), math.log(c)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y (..., D) and log|det dy/dx| (...)."""
        r = (x * torch.exp(-self.log_c.clamp(-1, 5)).to(x.dtype)).square()
        return x * (1 + r).pow(-0.25), (torch.log1p(0.5 * r) - 1.25 * torch.log1p(r)).sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., D) and log|det dx/dy| (...)."""
        inverse_c2 = torch.exp(-2 * self.log_c.clamp(-1, 5)).to(y.dtype)
        s = y.square() * inverse_c2
        x = y * ((s + (s.square() + 4).sqrt()) / 2).sqrt()
        r = x.square() * inverse_c2
        return x, (1.25 * torch.log1p(r) - torch.log1p(0.5 * r)).sum(-1)
