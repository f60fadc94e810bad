"""Independent Gaussians by mean and log-variance: products and quotients of densities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


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


class Information(NamedTuple):
    """What a sighting says of z (..., D), as a factor exp(vector z - precision z^2 / 2) of its density: canonical form.

    Where it says nothing both are 0, for which mean and variance have no number.
    """

    vector: Tensor
    precision: Tensor


def fuse(a: Gaussian, b: Gaussian) -> Gaussian:
    """Normalised product of two densities: precisions add, means weigh by them."""
    # softmax of the log-precisions: the weights, without leaving the range of floats.
    weight_b = torch.sigmoid(a.log_var - b.log_var)
    mean = a.mean + weight_b * (b.mean - a.mean)
    return Gaussian(mean, -torch.logaddexp(-a.log_var, -b.log_var))


def evidence_of(posterior: Gaussian) -> Information:
    """What a posterior says apart from the prior in it: ``posterior / N(0, I)``.

    No posterior is wider than its prior; one that claims to be is held to the prior's variance, so that every precision
    stays at or above 0. Absorbed by N(0, I), any other comes back as it was.
    """
    precision = torch.exp(-posterior.log_var)
    return Information(posterior.mean * precision, (precision - 1).clamp_min(0))


def absorb(g: Gaussian, seen: Information) -> Gaussian:
    """Normalised product of a density and what was seen."""
    own = torch.exp(-g.log_var)
    precision = own + seen.precision
    return Gaussian((own * g.mean + seen.vector) / precision, -torch.log(precision))


def fuse_over_prior(filtered: Gaussian, backward: Gaussian) -> Gaussian:
    """Two-filter fusion of both directions of time: ``filtered * backward / N(0, I)``, normalised.

    ``filtered`` has seen frames up to t, ``backward`` is the prediction of frame t from those after it; each contains the
    prior N(0, I) of one frame once, so one is divided out (Fraser and Potter, IEEE Trans. Automatic Control 1969). Exact
    as long as neither is wider than the prior; N(0, I) on one side leaves the other as it is.
    """
    return absorb(absorb(standard(filtered.mean), evidence_of(filtered)), evidence_of(backward))


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
