"""The standard normal, and the squashing that lets networks read numbers which follow it without being blown up."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) of (..., D) -> (...), nats."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * LOG_2PI)


def squash(x: Tensor, scale: float) -> Tensor:
    """x / sqrt(1 + (x / scale)^2), elementwise: near-linear inside ``scale``, bounded by it."""
    return x * torch.rsqrt(1 + (x / scale).square())
