"""The predictive distribution of the next latent: a mixture of Gaussians of one shape and several sizes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..flow.normal import LOG_2PI


class Predictive(NamedTuple):
    """Mixture over z (..., D): component k is N(mean_k, scale_k^2 C) with C = A (diag(std^2) + U U^T) A^T.

    Components of different size make tails heavier than a Gaussian's, as abrupt moves have them, while one
    factorisation of C serves all.

    Attributes:
        log_weight: (..., K), normalised.
        means: (..., K, D) in latent units.
        scale: (..., K) positive.
        std: (..., D) along the axes of ``basis``.
        low_rank: (..., D, r) the factor U.
        basis: (D, D) or (..., D, D) lower triangular with unit diagonal, the matrix A.
    """

    log_weight: Tensor
    means: Tensor
    scale: Tensor
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
        inner = torch.diag_embed(self.std.square()) + self.low_rank @ self.low_rank.mT
        size = (weight * self.scale.square()).sum(-1)[..., None, None]
        off = (self.means - self.mean[..., None, :]) * weight.sqrt()[..., None]
        return size * (self.basis @ inner @ self.basis.mT) + off.mT @ off

    def variance(self) -> Tensor:
        """(..., D) marginal variances of the mixture."""
        weight, own = self.log_weight.exp(), self._own_variance()
        spread = (weight[..., None] * (self.means - self.mean[..., None, :]).square()).sum(-2)
        return (weight * self.scale.square()).sum(-1, keepdim=True) * own + spread

    def log_prob(self, z: Tensor) -> Tensor:
        """log-density (...) of z (..., D), nats per Lebesgue volume of the latents."""
        dim, rank = self.low_rank.shape[-2:]
        eye = torch.eye(rank, dtype=z.dtype, device=z.device)
        off = ((z[..., None, :] - self.means) @ self._inverse_basis().mT) / self.std[..., None, :]  # (..., K, D)
        factor = self.low_rank / self.std[..., None]  # (..., D, r)
        chol = torch.linalg.cholesky(factor.mT @ factor + eye)
        seen = torch.linalg.solve_triangular(chol, (off @ factor).mT, upper=False)  # (..., r, K), Woodbury
        square = (off.square().sum(-1) - seen.square().sum(-2)) / self.scale.square()
        log_det = self.std.log().sum(-1) + chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = -0.5 * square - log_det[..., None] - dim * (self.scale.log() + 0.5 * LOG_2PI)
        return torch.logsumexp(self.log_weight + each, -1)

    def cdf(self, z: Tensor) -> Tensor:
        """Marginal cumulative probabilities (..., D) of z (..., D): uniform on 0..1 where predictions are as wide as their errors."""
        deviation = self.scale[..., None] * self._own_variance().sqrt()[..., None, :]
        inside = torch.special.ndtr((z[..., None, :] - self.means) / deviation)
        return (self.log_weight.exp()[..., None] * inside).sum(-2)

    def sample(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """One draw (..., D); ``temperature`` scales its distance from the drawn component's mean."""
        device, dtype = self.std.device, self.std.dtype

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        flat = self.log_weight.exp().reshape(-1, self.log_weight.shape[-1])
        k = torch.multinomial(flat, 1, generator=generator).reshape(*self.log_weight.shape[:-1], 1)
        mean = self.means.gather(-2, k[..., None].expand(*k.shape, self.means.shape[-1])).squeeze(-2)
        own = self.std[..., None] * normal(*self.std.shape, 1)
        own = own + self.low_rank @ normal(*self.low_rank.shape[:-2], self.low_rank.shape[-1], 1)
        return mean + temperature * self.scale.gather(-1, k) * (self.basis @ own).squeeze(-1)

    def _own_variance(self) -> Tensor:
        """(..., D) marginal variances of a component of scale 1."""
        return (self.basis.square() @ self.std.square()[..., None]).squeeze(-1) + (
            (self.basis @ self.low_rank).square().sum(-1)
        )

    def _inverse_basis(self) -> Tensor:
        eye = torch.eye(self.basis.shape[-1], dtype=self.basis.dtype, device=self.basis.device)
        return torch.linalg.solve_triangular(self.basis, eye, upper=False, unitriangular=True)
