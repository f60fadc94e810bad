"""What the benchmark asks of a prior over single poses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kinflow.flow.chart import RotationChart
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import NUM_BODY
from kinflow.training.poses import Capture, mirror_body

DIM = 3 * NUM_BODY


class PosePrior(nn.Module):
    """A density over body poses, and, where it has them, latents that are standard normal under it.

    Poses are rotations (N, 21, 3, 3) of SMPL's joints 1 to 21 relative to their parents. Densities are in nats with
    respect to the Haar measure on SO(3)^21 (8 pi^2 a joint).

    Attributes:
        latent_dim: number of latents that :meth:`decode` takes in one pass; 0: there are none.
        bound: what :meth:`log_prob` bounds from below with, in words; "" where it is exact.
    """

    latent_dim: int = 0
    bound: str = ""

    def log_prob(self, rotmat: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """(N, 21, 3, 3) -> (N,) nats, differentiable; ``samples`` tighten the bound of priors that have only one."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, latent_dim) -> rotations (N, 21, 3, 3), differentiable."""
        raise NotImplementedError

    def encode(self, rotmat: Tensor) -> Tensor:
        """Latents (N, latent_dim) of poses (N, 21, 3, 3): exact or the posterior's mean."""
        raise NotImplementedError


class ChartPrior(PosePrior):
    """A density over chart coordinates u in R^63, which the chart's volume change makes one over rotations."""

    def __init__(self, chart: RotationChart) -> None:
        super().__init__()
        self.chart = chart

    def coordinates(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """u (N, 63) and log|du / dHaar| (N,)."""
        u, log_det = self.chart(rotmat)
        return u.flatten(-2), log_det

    def rotations(self, u: Tensor) -> Tensor:
        """u (N, 63) -> rotations (N, 21, 3, 3)."""
        return self.chart.inverse(u.unflatten(-1, (NUM_BODY, 3)))[0]

    def density(self, u: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """log-density (N,) of chart coordinates (N, 63) with respect to du."""
        raise NotImplementedError

    def log_prob(self, rotmat: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        u, log_det = self.coordinates(rotmat)
        return self.density(u, samples, generator) + log_det


def in_parts(value: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """``value`` of (N, ...) -> (N, ...), ``size`` rows at a time."""
    return torch.cat([value(part) for part in x.split(size)])


def importance_bound(log_weights: Tensor) -> Tensor:
    """log of the mean importance weight: (samples, N) -> (N,). Its mean bounds the log-likelihood from below.

    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (ICLR 2016), eq. (8).
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def sampled(captures: list[Capture], rate: float) -> Tensor:
    """Rotations (N, 21, 3, 3) of all captures at about ``rate`` Hz."""
    return rotvec_to_rotmat(torch.cat([c.body_pose[:: max(1, round(c.fps / rate))] for c in captures]))


def training_chart(train: Tensor) -> RotationChart:
    """The chart about the mean rotations of training poses (N, 21, 3, 3) and their mirror images."""
    chart = RotationChart(NUM_BODY)
    chart.fit(torch.cat((train, mirror_body(train))))
    return chart
