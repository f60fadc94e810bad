"""Predictions as wide as their errors: the dynamics' spread, fitted where the training had no say.

A network that is trained by likelihood alone is too careful at rates at which it saw little, since a mixture's middle and its
tails are not of one family with motion's. A few numbers put that right on the validation split: how wide predictions are, how
that grows with the time since the last frame, and the sizes of the mixture's parts. They are added to parameters that the
dynamics have already, so that the weights stay what they were to whoever reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ..dynamics import LatentDynamics

NOMINAL = (0.5, 0.9)
"""Central regions whose shares are fitted."""
PRICE = 400.0
"""Nats a frame that a share off by 1 is worth, squared: 5 points are a nat at their rate."""
STEPS, RATE = 40, 0.02
_SOFT = 0.03  # width of a region's edge, as a share, for its gradient


class Watched(Protocol):
    """Motions z (B, T, D) at timestamps (B, T) s, valid (B, T) bool."""

    @property
    def z(self) -> Tensor: ...
    @property
    def timestamps(self) -> Tensor: ...
    @property
    def valid(self) -> Tensor: ...


@torch.no_grad()
def coverage(module: LatentDynamics, motions: Watched) -> Tensor:
    """Shares of latents inside the :data:`NOMINAL` central regions of their one-step predictions, from each motion's third
    frame on."""
    predicted = module.predictions(motions.z, motions.timestamps, motions.valid)
    off = (predicted.cdf(motions.z)[_late(motions.valid)] - 0.5).abs()
    return torch.stack([(off <= level / 2).double().mean() for level in NOMINAL])


def fit_spread(module: LatentDynamics, motions: Mapping[float, Watched]) -> dict[float, Tensor]:
    """Set the spread of a trained module's predictions: the likelihood and the shares of the regions have their say.

    Args:
        motions: by their rate, each rate counting alike; none that the module was trained on.

    Returns:
        The shares then, by rate.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    fitted = (module.log_spread, module.spread_power, module.log_scale)
    module.requires_grad_(False)
    for parameter in fitted:
        parameter.requires_grad_(True)
    origin = [p.detach().clone() for p in fitted]
    # One number for all axes' widths, one for how they grow, one for each part of the mixture.
    numbers = [origin[0].new_zeros(1), origin[1].new_zeros(1), torch.zeros_like(origin[2])]
    optimiser = torch.optim.Adam(numbers, lr=RATE)
    for _ in range(STEPS):
        loss = torch.stack([_price(module, m) for m in motions.values()]).mean()
        for number, gradient in zip(numbers, torch.autograd.grad(loss, fitted), strict=True):
            number.grad = gradient.sum().expand_as(number) if len(number) == 1 else gradient
        optimiser.step()
        with torch.no_grad():
            for parameter, start, number in zip(fitted, origin, numbers, strict=True):
                parameter.copy_(start + number)
    module.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    return {rate: coverage(module, m) for rate, m in motions.items()}


def _price(module: LatentDynamics, motions: Watched) -> Tensor:
    """Nats a frame that such motions are unlikely by, and the price of shares that are off."""
    late, predicted = _late(motions.valid), module.predictions(motions.z, motions.timestamps, motions.valid)
    nats = predicted.log_prob(motions.z)[late].mean()
    off = (predicted.cdf(motions.z)[late] - 0.5).abs()
    shares = torch.stack([torch.sigmoid((level / 2 - off) / _SOFT).mean() for level in NOMINAL])
    return PRICE * (shares - shares.new_tensor(NOMINAL)).square().sum() - nats


def _late(valid: Tensor) -> Tensor:
    return valid & (valid.cumsum(1) > 2)
