"""The prior's core as one graph, for ``torch.export``: no checks, no branches on data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..dynamics import LatentDynamics
from ..flow import PoseFlow
from ..timing import gather_time


class LogProbCore(nn.Module):
    """log p of each frame given those before it, from rotation matrices.

    >>> from kinflow.prior import MotionPrior
    >>> core = MotionPrior.load().core(longest=0.1)
    >>> clip = torch.eye(3).expand(1, 2, 21, 3, 3), torch.tensor([[0.0, 0.04]]), torch.ones(1, 2, dtype=torch.bool)
    >>> program = torch.export.export(core, clip)
    >>> program.module()(*clip).shape
    torch.Size([1, 2])

    Args of ``forward``: rotmat (B, T, 21, 3, 3), timestamps (B, T) s, strictly increasing, valid (B, T) bool. Returns
    (B, T) nats. B and T are those of the example that is exported; intervals longer than ``longest`` s between two
    successive frames, valid or not, are integrated with steps longer than those of training.
    """

    def __init__(self, flow: PoseFlow, chart: PoseFlow, dynamics: LatentDynamics, longest: float) -> None:
        super().__init__()
        self.flow, self.chart, self.dynamics = flow, chart, dynamics
        self.most = max(1, math.ceil(longest / dynamics.config.max_step - 1e-6))

    def forward(self, rotmat: Tensor, timestamps: Tensor, valid: Tensor) -> Tensor:
        eye = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
        rotmat = torch.where(valid[..., None, None, None], rotmat, eye)
        return motion_log_prob(self.flow, self.chart, self.dynamics, rotmat, timestamps, valid, None, self.most)


def motion_log_prob(
    flow: PoseFlow,
    chart: PoseFlow,
    dynamics: LatentDynamics,
    rotmat: Tensor,
    timestamps: Tensor,
    valid: Tensor,
    root: Tensor | None,
    most: int | None = None,
) -> Tensor:
    """log p of each valid frame given those before it (B, T): the flow's density of the first, the dynamics' of the rest.

    Rotations (B, T, 21, 3, 3) must be rotations in frames that are not valid, too.
    """
    x, log_det = chart.encode(rotmat)
    later = dynamics.log_prob(x, timestamps, valid, root, most) + log_det
    first = valid & (valid.cumsum(1) == 1)
    alone = flow.log_prob(gather_time(rotmat, first.to(torch.int64).argmax(1, keepdim=True)))  # (B, 1)
    return torch.where(valid, torch.where(first, alone, later), torch.zeros_like(later))
