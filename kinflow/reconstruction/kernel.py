"""Averages by a Gaussian kernel in true time, for frames at any rate."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..timing import gather_time
from .gaussian import Gaussian

_PIECE = 512  # frames averaged at once: the neighbours of all would be N times the input
_SLACK = 1e-4  # s, by which a frame at the edge may be rounded in or out; it weighs nothing there


class Kernel(NamedTuple):
    """For every frame the rows (B, T, N) of the frames near it and their weights (B, T, N), which sum to 1.

    N is as large as the frame with the most neighbours asks for.
    """

    rows: Tensor
    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Average (B, T, D)."""
        pieces = zip(self.rows.split(_PIECE, 1), self.weights.split(_PIECE, 1), strict=True)
        return torch.cat([(gather_time(x, rows) * weights[..., None]).sum(2) for rows, weights in pieces], 1)

    def average(self, g: Gaussian) -> Gaussian:
        """Average means by their precisions; variances, whose errors are alike from frame to frame, by their mean."""
        precise = torch.softmax(self._near(-g.log_var) + self.weights.clamp_min(1e-30).log()[..., None], 2)
        return Gaussian((self._near(g.mean) * precise).sum(2), self(g.log_var))

    def _near(self, x: Tensor) -> Tensor:
        return gather_time(x, self.rows)


def kernel_of(timestamps: Tensor, seconds: float, valid: Tensor | None = None) -> Kernel:
    """The kernel of standard deviation ``seconds`` over times (B, T) s, among ``valid`` (B, T) frames alone.

    Reaches three standard deviations; frames that are not valid are left as they are.
    """
    count = timestamps.shape[1]
    valid = torch.ones_like(timestamps, dtype=torch.bool) if valid is None else valid
    near = _most_frames(timestamps, 3 * seconds + _SLACK, valid) if seconds > 0 else 0
    here = torch.arange(count, device=timestamps.device)[:, None]
    rows = here + torch.arange(-near, near + 1, device=timestamps.device)
    inside = (rows >= 0) & (rows < count)
    rows = rows.clamp(0, count - 1).expand(len(timestamps), -1, -1)
    apart = (gather_time(timestamps, rows) - timestamps[..., None]) / max(seconds, 1e-9)
    usable = inside & gather_time(valid, rows) & valid[..., None] & (apart.abs() <= 3)
    weights = torch.exp(-0.5 * apart.square()) * usable
    own = (rows == here) & inside
    weights = torch.where(own, torch.ones_like(weights), weights)
    return Kernel(rows, weights / weights.sum(-1, keepdim=True))


def _most_frames(timestamps: Tensor, reach: float, valid: Tensor) -> int:
    """How many frames away the furthest valid frame within ``reach`` s of another is, over all clips."""
    # Frames that are not valid take the time of the valid one before, or behind, which they cannot outdo.
    earlier = torch.where(valid, timestamps, -math.inf).cummax(1).values
    later = torch.where(valid, timestamps, math.inf).flip(1).cummin(1).values.flip(1).contiguous()
    here = torch.arange(timestamps.shape[1], device=timestamps.device)
    first = torch.searchsorted(earlier, timestamps - reach)
    last = torch.searchsorted(later, timestamps + reach, right=True) - 1
    return int(torch.where(valid, torch.maximum(here - first, last - here), 0).amax()) if valid.numel() else 0
