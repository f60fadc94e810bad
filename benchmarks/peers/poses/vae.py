"""A variational autoencoder of poses with the architecture of VPoser.

Pavlakos et al., Expressive Body Capture: 3D Hands, Face, and Body from a Single Image (CVPR 2019), sec. 3.2: encoder
and decoder with two hidden layers of 512 units, leaky ReLU and dropout, 32 latents, the pose as rotation matrices going
in and as the continuous 6D form coming out. There the reconstruction loss has fixed weights, and so no likelihood. Here
the decoder's rotations are the mean of a Gaussian over chart coordinates with one learned variance each, and training
maximises the evidence lower bound (KL weight 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kinflow.flow.chart import RotationChart
from kinflow.flow.normal import standard_normal_log_prob
from kinflow.rotations import rot6d_to_rotmat
from kinflow.skeleton import NUM_BODY

from .base import DIM, ChartPrior, importance_bound


def _layers(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.LeakyReLU(), nn.Dropout(dropout),
        nn.Linear(hidden, hidden), nn.LeakyReLU(), nn.Linear(hidden, outputs),
    )  # fmt: skip


class VaePrior(ChartPrior):
    """p(u) = integral of N(u; mean(z), diag s^2) N(z; 0, I) dz over 32 latents, of which only bounds are known."""

    bound = "importance-weighted, the encoder's posterior as proposal"

    def __init__(self, chart: RotationChart, hidden: int = 512, latent: int = 32, dropout: float = 0.1) -> None:
        super().__init__(chart)
        self.latent_dim = latent
        self.encoder = _layers(9 * NUM_BODY, hidden, 2 * latent, dropout)
        self.decoder = _layers(latent, hidden, 6 * NUM_BODY, dropout)
        self.log_std = nn.Parameter(torch.full((DIM,), math.log(0.1)))

    def posterior(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (N, latent) of q(z | pose)."""
        mean, log_std = self.encoder(rotmat.flatten(-3)).chunk(2, -1)
        return mean, log_std.clamp(-7, 3)

    def mean(self, z: Tensor) -> Tensor:
        """Chart coordinates (..., 63) of the decoder's rotations."""
        return self.chart(self.decode(z))[0].flatten(-2)

    def decode(self, z: Tensor) -> Tensor:
        # The identity is added, so that an untrained decoder starts from it.
        offset = z.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        return rot6d_to_rotmat(self.decoder(z).unflatten(-1, (NUM_BODY, 6)) + offset)

    def encode(self, rotmat: Tensor) -> Tensor:
        return self.posterior(rotmat)[0]

    def likelihood(self, u: Tensor, z: Tensor, keep: Tensor | None = None) -> Tensor:
        """log N(u; mean(z), s^2) (...), over the coordinates ``keep`` (63,) bool alone where given."""
        each = -0.5 * ((u - self.mean(z)) / self.log_std.exp()).square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return (each if keep is None else each[..., keep]).sum(-1)

    def weights(self, rotmat: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(u | z) p(z) / q(z | u) and the chart's volume change, for draws z of q: (samples, N)."""
        u, log_det = self.coordinates(rotmat)
        mean, log_std = self.posterior(rotmat)
        noise = torch.randn(samples, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        z = mean + log_std.exp() * noise
        log_q = standard_normal_log_prob(noise) - log_std.sum(-1)
        return self.likelihood(u, z) + standard_normal_log_prob(z) - log_q + log_det

    def log_prob(self, rotmat: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Stochastic lower bound (N,); with one sample, the evidence lower bound's."""
        return importance_bound(self.weights(rotmat, samples, generator))

    def forward(self, rotmat: Tensor) -> Tensor:
        """The evidence lower bound with the closed form of the KL divergence (N,): what training maximises."""
        u, log_det = self.coordinates(rotmat)
        mean, log_std = self.posterior(rotmat)
        z = mean + log_std.exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1)
        return self.likelihood(u, z) - divergence + log_det
