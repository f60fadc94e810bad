"""The hidden state between frames: a neural ODE over the true time step. The only import of torchdiffeq."""

from __future__ import annotations

import torch
import torchdiffeq
from torch import Tensor, nn


class DecayField(nn.Module):
    """dh/dt = rate * gate(h) * (target(h) - h), with target in (-1, 1), gate in (0, 1) and a learned rate per unit.

    The state stays inside (-1, 1) for all time, whatever the step (De Brouwer et al., "GRU-ODE-Bayes", NeurIPS 2019,
    eq. 3, with rates in 1/s so that units of different speed can live together).
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(hidden, width)
        self.second = nn.Linear(width, 2 * hidden)
        self.log_rate = nn.Parameter(torch.linspace(-0.7, 2.7, hidden))  # 0.5 to 15 per second

    def forward(self, h: Tensor) -> Tensor:
        """dh/dt in 1/s at h (..., H)."""
        target, gate = self.second(torch.tanh(self.first(h))).chunk(2, -1)
        return self.log_rate.clamp(max=3.0).exp() * torch.sigmoid(gate) * (torch.tanh(target) - h)


def flow_over(field: nn.Module, h: Tensor, dt: Tensor, solver: str, max_step: float) -> Tensor:
    """Let h (B, H) move along ``field`` for each row's own dt (B,) seconds.

    Each row is integrated over s in [0, 1] with its derivative scaled by its own step, so that rows do not see each
    other: torchdiffeq shares its time between the rows of a batch. A row whose dt exceeds ``max_step`` is cut into
    equal parts; rows that need fewer parts rest meanwhile, so a row's answer is the same alone and in any batch.
    """
    parts = torch.ceil(dt / max_step - 1e-6).clamp(min=1)
    step = (dt / parts)[:, None].to(h.dtype)
    unit = torch.tensor([0.0, 1.0], dtype=h.dtype, device=h.device)
    for part in range(int(parts.max()) if parts.numel() else 0):
        scale = step if part == 0 else step * (part < parts)[:, None]
        h = torchdiffeq.odeint(lambda s, y, scale=scale: scale * field(y), h, unit, method=solver)[-1]
    return h
