"""Smooth bounds: the identity well inside a range, within it everywhere, and a gradient wherever."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def squash(x: Tensor, scale: float) -> Tensor:
    """Near-linear inside ``scale``, bounded by it on both sides: ``x / sqrt(1 + (x / scale)^2)``."""
    return x * torch.rsqrt(1 + (x / scale).square())


def soft_max(x: Tensor, high: float) -> Tensor:
    """Keep x below ``high``. For log-variances: v and c become v c / (v + c), as if precisions added."""
    return high - functional.softplus(high - x)


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Keep x within (low, high)."""
    return low + functional.softplus(soft_max(x, high) - low)
