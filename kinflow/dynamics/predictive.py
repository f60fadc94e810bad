"""The predictive distribution of the next latent: a mixture of Gaussians with one structured covariance each."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Predictive(NamedTuple):
    """Mixture over z (..., D): component k is N(mean_k, A (diag(std_k^2) + U U^T) A^T).

    Attributes:
        log_weight: (..., K), normalised.
        means: (..., K, D) in latent units.
        std: (..., K, D) along the axes of ``basis``.
        low_rank: (..., D, r) the factor U, shared by the components (scaled by each one's ``std``'s level).
        basis: (D, D) or (..., D, D) lower triangular with unit diagonal, the matrix A.
    """

    log_weight: Tensor
    means: Tensor
    std: Tensor
    low_rank: Tensor
    basis: Tensor

    @property
    def mean(self) -> Tensor:
        """(..., D) mean of the mixture."""
        return (self.log_weight.exp()[..., None] * self.means).sum(-2)

    def covariance(self) -> Tensor:
        """(..., D, D) covariance of the mixture."""
        weight = self.log_weight.exp()
        inner = torch.diag_embed((weight[..., None] * self.std.square()).sum(-2))
        inner = inner + self.low_rank @ self.low_rank.transpose(-1, -2)
        off = (self.means - self.mean[..., None, :]) * weight.sqrt()[..., None]
        return self.basis @ inner @ self.basis.mT + off.transpose(-1, -2) @ off

    def variance(self) -> Tensor:
        """(..., D) marginal variances of the mixture."""
        weight = self.log_weight.exp()
        inner = (weight[..., None] * self.std.square()).sum(-2)
        spread = (weight[..., None] * (self.means - self.mean[..., None, :]).square()).sum(-2)
        return (
            (self.basis.square() @ inner[..., None]).squeeze(-1)
            + (self.basis @ self.low_rank).square().sum(-1)
            + spread
        )

    def log_prob(self, z: Tensor) -> Tensor:
        """log-density (...) of z (..., D), nats per Lebesgue volume of the latents."""
        dim, rank = self.low_rank.shape[-2:]
        off = (z[..., None, :] - self.means) @ self._inverse_basis().mT  # (..., K, D)
        scaled = off / self.std
        factor = self.low_rank[..., None, :, :] / self.std[..., None]  # (..., K, D, r)
        eye = torch.eye(rank, dtype=z.dtype, device=z.device)
        inner = factor.transpose(-1, -2) @ factor + eye
        chol = torch.linalg.cholesky(inner)
        seen = torch.linalg.solve_triangular(chol, factor.transpose(-1, -2) @ scaled[..., None], upper=False)
        square = scaled.square().sum(-1) - seen.square().sum((-1, -2))
        log_det = 2 * (self.std.log().sum(-1) + chol.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        each = -0.5 * (square + log_det + dim * math.log(2 * math.pi))
        return torch.logsumexp(self.log_weight + each, -1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (..., D)."""
        device, dtype = self.std.device, self.std.dtype
        uniform = torch.rand(self.log_weight.shape, generator=generator, device=device, dtype=dtype).clamp(
            1e-9, 1 - 1e-7
        )
        gumbel = -torch.log(-torch.log(uniform))
        k = (self.log_weight + gumbel).argmax(-1)[..., None, None].expand(*self.std.shape[:-2], 1, self.std.shape[-1])
        mean, std = self.means.gather(-2, k).squeeze(-2), self.std.gather(-2, k).squeeze(-2)
        a = torch.randn(std.shape, generator=generator, device=device, dtype=dtype)
        rank = (*self.low_rank.shape[:-2], self.low_rank.shape[-1], 1)
        b = torch.randn(rank, generator=generator, device=device, dtype=dtype)
        return mean + (self.basis @ (std[..., None] * a[..., None] + self.low_rank @ b)).squeeze(-1)

    def _inverse_basis(self) -> Tensor:
        eye = torch.eye(self.basis.shape[-1], dtype=self.basis.dtype, device=self.basis.device)
        return torch.linalg.solve_triangular(self.basis, eye, upper=False, unitriangular=True)
