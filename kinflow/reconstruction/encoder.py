"""Frame encoder, its recurrence over time in both directions, and the heads that turn states into Gaussians."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ReconstructorConfig
from ..rotations import rot6d_to_rotmat
from ..timing import gather_time, reverse_index
from .gaussian import soft_clamp
from .observation import FEATURE_SIZE, Observations

COORDINATES = 63
LOG_VAR_RANGE = (-7.0, 2.0)
_LAYOUT = {"chart_mean": COORDINATES, "chart_log_var": COORDINATES, "root_rot6d": 6, "root_log_var": 3, "betas_mean": 10, "betas_log_var": 10, "contact_logits": 4}  # fmt: skip
HEAD_SIZE = sum(_LAYOUT.values())


class Estimate(NamedTuple):
    """What a head says of each frame (all (B, T, ...), float32 or wider).

    Attributes:
        chart_mean, chart_log_var: (..., 63) Gaussian over the pose in the flow's chart, N(0, I) where nothing is known.
        root_rotmat: (..., 3, 3) correction of the closed-form root frame: root_to_ray @ root_rotmat is the pelvis.
        root_log_var: (..., 3) of the correction, rad^2, in the pelvis' axes.
        betas_mean, betas_log_var: (..., 10) one frame's evidence of the shape.
        contact_logits: (..., 4) left heel, left toe, right heel, right toe.
    """

    chart_mean: Tensor
    chart_log_var: Tensor
    root_rotmat: Tensor
    root_log_var: Tensor
    betas_mean: Tensor
    betas_log_var: Tensor
    contact_logits: Tensor


def read_head(out: Tensor) -> Estimate:
    """Split a head's raw output (..., HEAD_SIZE) into an :class:`Estimate`."""
    part = dict(zip(_LAYOUT, out.float().split(list(_LAYOUT.values()), -1) if out.dtype != torch.float64
                    else out.split(list(_LAYOUT.values()), -1), strict=True))  # fmt: skip
    identity = part["root_rot6d"].new_tensor([1.0, 0, 0, 0, 1.0, 0])
    return Estimate(
        part["chart_mean"],
        soft_clamp(part["chart_log_var"], *LOG_VAR_RANGE),
        rot6d_to_rotmat(identity + part["root_rot6d"]),
        soft_clamp(part["root_log_var"] - 4, -11.0, 1.0),
        part["betas_mean"],
        soft_clamp(part["betas_log_var"], -5.0, 4.0),
        part["contact_logits"],
    )


class Block(nn.Module):
    """Pre-norm residual MLP."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        last = nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def head(inputs: int, width: int, outputs: int, zero: bool = False) -> nn.Sequential:
    """Two-layer head; with ``zero`` its first output is 0 everywhere (a correction that starts as none)."""
    last = nn.Linear(width, outputs)
    with torch.no_grad():
        last.weight.mul_(0.0 if zero else 0.1)
        last.bias.zero_()
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU(), last)


class States(NamedTuple):
    """Per-frame code and recurrent states (B, T, ...): forward has seen frames up to t, backward those from t on."""

    code: Tensor
    forward: Tensor
    backward: Tensor


class SequenceEncoder(nn.Module):
    """Frames to codes (residual MLP), codes to states (gated recurrence in each direction, true time steps as input)."""

    def __init__(self, config: ReconstructorConfig) -> None:
        super().__init__()
        width, recurrent = config.width, config.recurrent
        self.inputs = nn.Linear(FEATURE_SIZE, width)
        self.missing = nn.Parameter(torch.zeros(width))
        self.blocks = nn.Sequential(*(Block(width, config.dropout) for _ in range(config.blocks)))
        self.norm = nn.LayerNorm(width)
        self.gru_forward = nn.GRU(width + 1, recurrent, batch_first=True)
        self.gru_backward = nn.GRU(width + 1, recurrent, batch_first=True)

    def codes(self, features: Tensor, observed: Tensor) -> Tensor:
        """(B, T, FEATURE_SIZE) -> (B, T, width); frames not observed all share a learned code."""
        x = self.norm(self.blocks(self.inputs(features)))
        return torch.where(observed[..., None], x, self.missing.to(x.dtype))

    def forward(self, features: Tensor, obs: Observations, dt: Tensor) -> States:
        observed = obs.observed & obs.valid
        code = self.codes(features, observed)
        lengths = obs.valid.sum(1)
        step = 0.5 * torch.log(dt * 30).to(code.dtype)[..., None]
        ahead, _ = self.gru_forward(torch.cat((code, step), -1))
        # Backward: each sequence is reversed within its own length, so padding comes last again and changes nothing.
        index = reverse_index(lengths, code.shape[1])
        step_back = torch.cat((step[:, 1:], torch.zeros_like(step[:, :1])), 1)
        inputs = gather_time(torch.cat((code, step_back), -1), index)
        behind, _ = self.gru_backward(inputs)
        return States(code, ahead, gather_time(behind, index))
