"""zuko's neural spline flow on the whitened chart coordinates.

Durkan et al., Neural Spline Flows (NeurIPS 2019), the autoregressive form, with zuko's documented defaults (three
transformations of eight bins) and conditioners of two hidden layers of 256. Its inverse takes 63 passes a
transformation, so it is used through its density alone, not through latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinflow.flow.chart import RotationChart, Whitening

from .base import DIM, ChartPrior


class ZukoPrior(ChartPrior):
    """Whitening, then zuko.flows.NSF; exact density."""

    def __init__(
        self, chart: RotationChart, dim: int = DIM, transforms: int = 3, hidden: tuple[int, ...] = (256, 256)
    ) -> None:
        from zuko.flows import NSF

        super().__init__(chart)
        self.whitening = Whitening(dim)
        self.flow = NSF(dim, transforms=transforms, hidden_features=hidden)

    @torch.no_grad()
    def fit_whitening(self, u: Tensor) -> None:
        """From training coordinates (N, dim): the splines act on [-5, 5]."""
        self.whitening.fit(u)

    def density(self, u: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        return self.flow().log_prob(self.whitening(u)) + self.whitening.log_det()

    def forward(self, rotmat: Tensor) -> Tensor:
        """The same as :meth:`log_prob`: what training maximises."""
        return self.log_prob(rotmat)
