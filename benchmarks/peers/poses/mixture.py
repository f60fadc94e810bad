"""Gaussian mixtures with full covariances on the chart; one component is the single Gaussian.

The single Gaussian is fitted in closed form, mixtures by expectation-maximisation (scikit-learn). The floor that is
added to each variance is chosen on the validation split, from :data:`FLOORS` in rad^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kinflow.flow.chart import RotationChart

from .base import DIM, ChartPrior

FLOORS = (3e-5, 1e-4, 3e-4)
"""Variances, rad^2, from which the floor is chosen (0.003 to 0.03 rad)."""


class Components(NamedTuple):
    """weights (K,), means (K, D) and covariances (K, D, D), float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


class MixturePrior(ChartPrior):
    """sum_k w_k N(u; m_k, S_k). With one component, latents are u whitened."""

    def __init__(self, chart: RotationChart, components: Components) -> None:
        super().__init__(chart)
        self.latent_dim = DIM if len(components.weights) == 1 else 0
        self.register_buffer("weights", components.weights)
        self.register_buffer("means", components.means)
        self.register_buffer("covariances", components.covariances)
        self.register_buffer("factor", torch.linalg.cholesky(components.covariances))
        eye = torch.eye(components.means.shape[-1], dtype=torch.float64)
        self.register_buffer("whiten", torch.linalg.solve_triangular(self.factor, eye, upper=False))

    def joint_density(self, u: Tensor) -> Tensor:
        """log w_k N(u; m_k, S_k) of (N, D) -> (K, N), float64."""
        off = (u.double() - self.means[:, None]) @ self.whiten.mT
        log_det = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = self.weights.log() - log_det - 0.5 * u.shape[-1] * math.log(2 * math.pi)
        return constant[:, None] - 0.5 * off.square().sum(-1)

    def density(self, u: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        return torch.logsumexp(self.joint_density(u), 0).to(u.dtype)

    def decode(self, z: Tensor) -> Tensor:
        return self.rotations((z.double() @ self.factor[0].mT + self.means[0]).to(z.dtype))

    def encode(self, rotmat: Tensor) -> Tensor:
        u, _ = self.coordinates(rotmat)
        return ((u.double() - self.means[0]) @ self.whiten[0].mT).to(u.dtype)

    @torch.no_grad()
    def conditional_mean(self, u: Tensor, hidden: Tensor) -> Tensor:
        """u (N, D) with the hidden coordinates (D,) bool replaced by their exact mean given the others."""
        seen = ~hidden
        cross, own = self.covariances[:, seen][:, :, hidden], self.covariances[:, seen][:, :, seen]
        marginal = MixturePrior(self.chart, Components(self.weights, self.means[:, seen], own))
        off = u[:, seen].double() - self.means[:, None, seen]
        means = self.means[:, None, hidden] + off @ torch.linalg.solve(own, cross)  # (K, N, hidden)
        share = torch.softmax(marginal.joint_density(u[:, seen]), 0)
        out = u.clone()
        out[:, hidden] = (share[..., None] * means).sum(0).to(u.dtype)
        return out


def with_floor(components: Components, floor: float) -> Components:
    """``floor`` added to each variance."""
    eye = torch.eye(components.means.shape[-1], dtype=torch.float64)
    return components._replace(covariances=components.covariances + floor * eye)


def fit_components(u: Tensor, count: int, floor: float, seed: int, iterations: int = 60) -> Components:
    """Mixture of ``count`` Gaussians of chart coordinates (N, D), by EM from k-means; closed form for one."""
    if count == 1:
        u = u.double()
        covariance = torch.cov(u.T) + floor * torch.eye(u.shape[-1], dtype=torch.float64)
        return Components(torch.ones(1, dtype=torch.float64), u.mean(0)[None], covariance[None])
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(count, covariance_type="full", reg_covar=floor, max_iter=iterations, tol=1e-3,
                            random_state=seed)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last iterations gain hundredths of a nat
        model.fit(u.double().numpy())
    return Components(*(torch.from_numpy(x) for x in (model.weights_, model.means_, model.covariances_)))
