"""The prior's core as one graph, for ``torch.export``: no checks, no branches on data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..dynamics import LatentDynamics
from ..flow import PoseFlow


class LogProbCore(nn.Module):
    """log p of each frame given those before it, from rotation matrices.

    >>> program = torch.export.export(prior.core(), (rotmat, timestamps, valid))          # doctest: +SKIP

    Args of ``forward``: rotmat (B, T, 21, 3, 3), timestamps (B, T) s, strictly increasing, valid (B, T) bool. Returns
    (B, T) nats. B and T are those of the example that is exported; intervals longer than ``longest`` s between two
    successive frames, valid or not, are integrated with steps longer than those of training.
    """

    def __init__(self, flow: PoseFlow, dynamics: LatentDynamics, longest: float) -> None:
        super().__init__()
        self.flow, self.dynamics = flow, dynamics
        self.most = max(1, math.ceil(longest / dynamics.config.max_step - 1e-6))

    def forward(self, rotmat: Tensor, timestamps: Tensor, valid: Tensor) -> Tensor:
        eye = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
        z, log_det = self.flow.encode(torch.where(valid[..., None, None, None], rotmat, eye))
        log_prob = self.dynamics.log_prob(z, timestamps, valid, None, self.most)
        return log_prob + torch.where(valid, log_det, torch.zeros_like(log_det))
