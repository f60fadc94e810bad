"""Independent Gaussians by mean and log-variance: products and quotients of densities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

LARGEST_PREDICTED_VAR = 0.95
"""A prediction is never taken to be as wide as the prior N(0, I) itself, so that dividing the prior out stays proper."""

LEAST_PRECISION = 0.02


class Gaussian(NamedTuple):
    """Mean and log-variance (..., D)."""

    mean: Tensor
    log_var: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.log_var)

    def where(self, condition: Tensor, other: Gaussian) -> Gaussian:
        """This one where ``condition`` (...) holds, else ``other``."""
        pick = condition[..., None]
        return Gaussian(torch.where(pick, self.mean, other.mean), torch.where(pick, self.log_var, other.log_var))


def fuse(a: Gaussian, b: Gaussian) -> Gaussian:
    """Normalised product of two densities: precisions add, means weigh by them."""
    # softmax of the log-precisions: the weights, without leaving the range of floats.
    weight_b = torch.sigmoid(a.log_var - b.log_var)
    mean = a.mean + weight_b * (b.mean - a.mean)
    return Gaussian(mean, -torch.logaddexp(-a.log_var, -b.log_var))


def evidence_of(posterior: Gaussian) -> Gaussian:
    """What one frame says apart from the prior: ``posterior / N(0, I)``, a Gaussian in z up to its scale.

    Where the posterior is no narrower than the prior the frame says next to nothing (precision :data:`LEAST_PRECISION`).
    """
    precision = torch.exp(-posterior.log_var)
    left = (precision - 1).clamp_min(LEAST_PRECISION)
    return Gaussian(posterior.mean * precision.clamp_min(LEAST_PRECISION) / left, -torch.log(left))


def fuse_over_prior(filtered: Gaussian, backward: Gaussian) -> Gaussian:
    """Two-filter fusion of both directions of time: ``filtered * backward / N(0, I)``, normalised.

    ``filtered`` has seen frames up to t, ``backward`` is the prediction of frame t from those after it; each contains the
    prior N(0, I) of one frame once, so one is divided out (Fraser and Potter, IEEE Trans. Automatic Control 1969).
    The backward prediction is held narrower than the prior (:data:`LARGEST_PREDICTED_VAR`), which keeps every
    precision positive; inside that bound the result is exact.
    """
    precision = torch.exp(-filtered.log_var)
    precision_back = torch.exp(-backward.log_var).clamp_min(1 / LARGEST_PREDICTED_VAR)
    total = precision + precision_back - 1
    mean = (precision * filtered.mean + precision_back * backward.mean) / total
    return Gaussian(mean, -torch.log(total))


def soft_max(x: Tensor, high: float) -> Tensor:
    """Keep x below ``high``, the identity well below it, with a gradient everywhere.

    The log-variance of v becomes that of ``v c / (v + c)``, with ``high`` the log of c: as if a precision were added.
    """
    return high - softplus(high - x)


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Keep x within (low, high), but for e^(low - high) at the top; the identity well inside, a gradient everywhere."""
    return low + softplus(soft_max(x, high) - low)


def standard(like: Tensor) -> Gaussian:
    """N(0, I), shaped as ``like``."""
    return Gaussian(torch.zeros_like(like), torch.zeros_like(like))
