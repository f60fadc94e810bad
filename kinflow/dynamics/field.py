"""The vector field of the hidden state between frames."""

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
