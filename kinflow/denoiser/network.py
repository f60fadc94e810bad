"""The learned denoiser: the motion behind noisy, partly missing frames, in one pass over past and future."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import DenoiserConfig
from ..errors import check_shape
from ..flow.normal import squash
from ..rotations import rotmat_to_rot6d
from ..skeleton import NUM_BODY
from ..timing import to_nearest
from .gp import MotionRegression, Regressed

_LONGEST, _SHORTEST = 16.0, 0.04  # seconds: periods of the rotary embedding's slowest and fastest pair
_BODY = 3 * NUM_BODY
HORIZONS = (1 / 24, 1 / 12, 1 / 6, 10 / 24, 17 / 24, 1.0, 1.5)
"""Seconds ahead at which it is known how far forecasts are to be trusted."""
CALM, BRISK = 0.1, 1.0
"""rad/s, mean over joints: speeds between which that changes."""


class TimeAttention(nn.Module):
    """Self-attention between frames that knows their times in seconds, not their numbers.

    Queries and keys turn with time (rotary embedding, Su et al., 2021, on seconds) and each head forgets at a learned
    rate (after ALiBi, Press et al., 2022).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.joined = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.log_decay = nn.Parameter(torch.linspace(-2.0, 2.5, heads))  # of an e-fold, in 1/s

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], lag: Tensor) -> Tensor:
        """x (B, T, W), turn: cos and sin (B, 1, T, W / heads / 2), lag (B, 1, T, T) s; infinite: not looked at."""
        q, k, v = self.joined(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = torch.isfinite(lag)  # infinite lags are kept from the product: their gradient would not be a number
        bias = -torch.where(seen, lag, torch.zeros_like(lag)) * self.log_decay.exp()[:, None, None]
        bias = bias.masked_fill(~seen, -math.inf)
        y = functional.scaled_dot_product_attention(_rotate(q, turn), _rotate(k, turn), v, attn_mask=bias.to(q.dtype))
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.norm_a, self.norm_b = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attend = TimeAttention(config.width, config.heads)
        self.up, self.down = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], lag: Tensor) -> Tensor:
        x = x + self.drop(self.attend(self.norm_a(x), turn, lag))
        return x + self.drop(self.down(functional.gelu(self.up(self.norm_b(x)))))


class Denoiser(nn.Module):
    """E[motion | noisy or missing frames]: a transformer over frames, which corrects a Gaussian-process regression.

    One network for noise, drop-outs, gaps and the future (frames that are not valid after the last that is). It is
    trained on motion capture to return the motion from what noise and masks left of it, at frame rates of 10 to 120 Hz.
    Frames attend to those that are valid alone, so that a frame's answer depends on what was seen and on its own time,
    not on which other times are asked for, nor on padding.

    >>> model = Denoiser(DenoiserConfig(width=32, hidden=32, layers=1, heads=2))
    >>> pose = torch.eye(3).expand(2, 9, 21, 3, 3)
    >>> model(pose, torch.arange(9.0).expand(2, 9) / 30, torch.ones(2, 9, dtype=torch.bool), torch.full((2,), 0.05)).shape
    torch.Size([2, 9, 21, 3, 3])

    Buffers: trust (H, 2), see :mod:`kinflow.denoiser.forecast`.
    """

    trust: Tensor

    def __init__(self, config: DenoiserConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DenoiserConfig()
        self.regression = MotionRegression()
        self.enter = nn.Linear(4 * _BODY + 6 * NUM_BODY + 3, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, 2 * _BODY + 1)
        self.register_buffer("trust", torch.ones(len(HORIZONS), 2))
        with torch.no_grad():
            self.leave.weight.mul_(0.1)
            self.leave.bias.zero_()

    def forward(self, rotmat: Tensor, timestamps: Tensor, valid: Tensor, noise: Tensor) -> Tensor:
        """The denoised motion.

        Args:
            rotmat: (B, T, 21, 3, 3) body rotations; those of frames that are not valid are not looked at.
            timestamps: (B, T) s, increasing. valid: (B, T) bool, at least one a clip.
            noise: (B,) rad, standard deviation of the noise about each axis that the rotations are thought to have.

        Returns:
            (B, T, 21, 3, 3).
        """
        sizes = check_shape("rotmat", rotmat, f"B T {NUM_BODY} 3 3")
        check_shape("timestamps", timestamps, f"{sizes['B']} {sizes['T']}")
        with torch.autocast(rotmat.device.type, enabled=False):
            known = self.regression(rotmat, timestamps, valid, noise)
        return self.correct(known, timestamps, valid, noise)

    def correct(self, known: Regressed, timestamps: Tensor, valid: Tensor, noise: Tensor) -> Tensor:
        """The network's part: rotations (B, T, 21, 3, 3) from what the regression made of the same clips."""
        dtype, device = known.mean.dtype, known.mean.device.type
        with torch.autocast(device, enabled=False):
            times = (timestamps - timestamps[:, :1]).to(dtype)
            features = self._features(known, times, valid, noise.to(dtype))
            lag = (times[:, None, :, None] - times[:, None, None, :]).abs()
            lag = lag.masked_fill(~valid[:, None, None, :], math.inf)
            turn = self._turn(times)
        x = self.enter(features)
        for block in self.blocks:
            x = block(x, turn, lag)
        near, far, gate = self.leave(self.norm(x)).to(dtype).split((_BODY, _BODY, 1), -1)
        # Two corrections: one that scales with how unsure the regression is, one for frames that are plainly wrong.
        scale = self.regression.scale().to(dtype)
        with torch.autocast(device, enabled=False):
            axes = known.mean + known.std * near + torch.sigmoid(gate - 2) * scale * far
            return self.regression.place(known.centre, axes)

    def _features(self, known: Regressed, times: Tensor, valid: Tensor, noise: Tensor) -> Tensor:
        """What each frame is told (B, T, F), all of it about one in size."""
        scale = self.regression.scale().to(times.dtype)
        level = noise[:, None, None] + 0.01
        off = torch.where(valid[..., None], (known.seen - known.mean) / level, torch.zeros_like(known.mean))
        six = rotmat_to_rot6d(known.centre).flatten(2).expand(-1, times.shape[1], -1)
        flags = torch.stack((
            valid.to(times.dtype) - 0.5, torch.log(noise / 0.05)[:, None].expand_as(times),
            to_nearest(times, valid).clamp(max=2.0),
        ), -1)  # fmt: skip
        return torch.cat((squash(known.mean / scale, 4.0), squash(off, 5.0), squash(known.velocity / (6 * scale), 4.0),
                          2 * known.std / scale, 2 * six, flags), -1)  # fmt: skip

    def _turn(self, times: Tensor) -> tuple[Tensor, Tensor]:
        pairs = self.config.width // self.config.heads // 2
        period = torch.logspace(
            math.log10(_LONGEST), math.log10(_SHORTEST), pairs, dtype=times.dtype, device=times.device
        )
        angle = 2 * math.pi * times[:, None, :, None] / period
        return torch.cos(angle), torch.sin(angle)


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    a, b = x.chunk(2, -1)
    cos, sin = (t.to(x.dtype) for t in turn)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
