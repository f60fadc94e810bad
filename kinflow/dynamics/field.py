"""The hidden state between frames: a neural ODE over the true time step."""

from __future__ import annotations

import torch
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


def fixed_step(field: nn.Module, h: Tensor, step: Tensor, solver: str) -> Tensor:
    """One step of an explicit Runge-Kutta method for dh/dt = field(h): h (B, H), step (B, 1) s.

    The same numbers as torchdiffeq's fixed-grid solvers over [0, 1] with the derivative scaled by each row's step (a test
    compares them), in half the time, and without their checks on the time grid, which no graph export passes.
    """
    k1 = field(h)
    if solver == "euler":
        return h + step * k1
    if solver == "midpoint":
        return h + step * field(h + 0.5 * step * k1)
    k2 = field(h + step * k1 / 3)  # rk4: Kutta's 3/8 rule, as torchdiffeq's
    k3 = field(h + step * (k2 - k1 / 3))
    k4 = field(h + step * (k1 - k2 + k3))
    return h + step * (k1 + 3 * (k2 + k3) + k4) / 8


def flow_over(field: nn.Module, h: Tensor, dt: Tensor, solver: str, max_step: float, most: int | None = None) -> Tensor:
    """Let h (B, H) move along ``field`` for each row's own dt (B,) seconds.

    Each row is integrated over its own step, so that rows do not see each other. A row whose dt exceeds ``max_step`` is
    cut into equal parts; rows that need fewer parts rest meanwhile, so a row's answer is the same alone and in any batch.

    Args:
        most: no row is cut into more parts than this; None: as many as the longest dt asks for. A number makes the
            computation's shape independent of the data, for export.
    """
    parts = torch.ceil(dt / max_step - 1e-6).clamp(min=1, max=most)
    step = (dt / parts)[:, None].to(h.dtype)
    for part in range(most if most is not None else int(parts.max()) if parts.numel() else 0):
        h = fixed_step(field, h, step if part == 0 else step * (part < parts)[:, None], solver)
    return h
