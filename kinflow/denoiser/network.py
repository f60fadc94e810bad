"""The learned denoiser: the motion behind noisy, partly missing frames, in one pass over past and future."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import DenoiserConfig
from ..errors import check_shape
from ..flow.normal import squash
from ..rotations import mirror_rotmat, rotmat_to_rot6d, rotvec_to_rotmat
from ..skeleton import MIRROR_BODY, NUM_BODY, SMPL_JOINTS
from ..timing import to_nearest
from .gp import MotionRegression, Regressed

_LONGEST, _SHORTEST = 16.0, 0.04  # seconds: periods of the rotary embedding's slowest and fastest pair
_TOLD, _FLAGS = 3 * 3 + 3 + 6, 3  # numbers known of each joint and of each frame


def _body(names: str) -> list[int]:
    return [SMPL_JOINTS.index(name) - 1 for name in names.split()]


PARTS = (
    _body("spine1 spine2 spine3 neck head"),
    _body("left_collar left_shoulder left_elbow left_wrist"),
    _body("left_hip left_knee left_ankle left_foot"),
)
"""Body joints of the trunk and of the left arm and leg; the right ones are the mirrored body's left ones."""
_MIRROR = list(MIRROR_BODY)
_MIRROR_SIGN = torch.tensor([1.0, -1.0, -1.0])  # of a rotation vector
_LIMBS = PARTS[1] + PARTS[2]
_IN_ORDER = sorted(range(NUM_BODY), key=(PARTS[0] + _LIMBS + [_MIRROR[i] for i in _LIMBS]).__getitem__)
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
        """x (..., B, T, W), turn: cos and sin (B, 1, T, W / heads / 2), lag (B, 1, T, T) s; infinite: not looked at."""
        q, k, v = self.joined(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
        seen = torch.isfinite(lag)  # infinite lags are kept from the product: their gradient would not be a number
        bias = -torch.where(seen, lag, torch.zeros_like(lag)) * self.log_decay.exp()[:, None, None]
        bias = bias.masked_fill(~seen, -math.inf)
        y = functional.scaled_dot_product_attention(_rotate(q, turn), _rotate(k, turn), v, attn_mask=bias.to(q.dtype))
        return self.out(y.transpose(-3, -2).flatten(-2))


class Block(nn.Module):
    """Pre-norm attention over time and feed-forward, the same for all parts, after which parts tell each other a few numbers."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.norm_a, self.norm_b, self.norm_c = (nn.LayerNorm(config.width) for _ in range(3))
        self.attend = TimeAttention(config.width, config.heads)
        self.up, self.down = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)
        self.tell = nn.Linear(config.width, config.mix)
        self.hear = nn.Linear(2 * len(PARTS) * config.mix, len(PARTS) * config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], lag: Tensor) -> Tensor:
        """x (2, 3, B, T, W): sides of the body, each seen as the left one, and their parts."""
        x = x + self.drop(self.attend(self.norm_a(x), turn, lag))
        x = x + self.drop(self.down(functional.gelu(self.up(self.norm_b(x)))))
        told = self.tell(self.norm_c(x)).permute(0, 2, 3, 1, 4).flatten(-2)
        heard = self.hear(functional.gelu(torch.cat((told, told.flip(0)), -1)))
        return x + heard.unflatten(-1, (len(PARTS), -1)).permute(0, 3, 1, 2, 4)


class Denoiser(nn.Module):
    """E[motion | noisy or missing frames]: a transformer over frames, which corrects a Gaussian-process regression.

    One network for noise, drop-outs, gaps and the future (frames that are not valid after the last that is). It is
    trained on motion capture to return the motion from what noise and masks left of it, at frame rates of 10 to 120 Hz.
    Frames attend to those that are valid alone, so that a frame's answer depends on what was seen and on its own time,
    not on which other times are asked for, nor on padding.

    Trunk, arm and leg of each side are followed by themselves, the right ones mirrored, by the same weights; of the rest of
    the body each is told a few numbers. Limbs that were seen one by one are known in any company, and what people do
    that were never captured is mostly that (after Zeng et al., "SRNet", ECCV 2020).

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
        self.overview = nn.Linear(NUM_BODY * _TOLD + _FLAGS, config.overview)
        self.enter = nn.ModuleList(
            nn.Linear(len(part) * _TOLD + _FLAGS + config.overview, config.width) for part in PARTS
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.ModuleList(nn.Linear(config.width, 6 * len(part) + 1) for part in PARTS)
        self.register_buffer("trust", torch.ones(len(HORIZONS), 2))
        for name, value in self.leave.named_parameters():
            value.data.mul_(0.1 if name.endswith("weight") else 0.0)

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
            turns, std = self.regression.turns(known.mean), self.regression.spread(known.std)
            scale = self.regression.spread(self.regression.scale().to(dtype))
            told, flags = self._features(known, (turns, std, scale), times, valid, noise.to(dtype))
            lag = (times[:, None, :, None] - times[:, None, None, :]).abs()
            lag = lag.masked_fill(~valid[:, None, None, :], math.inf)
            turn = self._turn(times)
        flags = flags.expand(2, -1, -1, -1)
        whole = self.overview(torch.cat((told.flatten(-2), flags), -1)).to(dtype)
        x = torch.stack(
            [
                enter(torch.cat((told[..., part, :].flatten(-2), flags, whole), -1))
                for part, enter in zip(PARTS, self.enter, strict=True)
            ],
            1,
        )
        for block in self.blocks:
            x = block(x, turn, lag)
        x = self.norm(x)
        near, far = zip(*(_read(leave(x[:, i]).to(dtype)) for i, leave in enumerate(self.leave)), strict=True)
        with torch.autocast(device, enabled=False):
            # Two corrections: one that scales with how unsure the regression is, one for frames that are plainly wrong.
            more = std * _joined(torch.cat(near, -2)) + scale * _joined(torch.cat(far, -2))
            return known.centre @ rotvec_to_rotmat(turns + more)

    def _features(
        self, known: Regressed, told: tuple[Tensor, Tensor, Tensor], times: Tensor, valid: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is known of each joint, of the body and of its mirror image (2, B, T, 21, F), and of each frame (B, T, F);
        all of it about one in size."""
        turns, std, scale = told
        off = torch.where(valid[..., None], known.seen - known.mean, torch.zeros_like(known.mean))
        off = self.regression.turns(off) / (noise[:, None, None, None] + 0.01)
        velocity = self.regression.turns(known.velocity) / (6 * scale)
        vectors = torch.stack((squash(turns / scale, 4.0), squash(off, 5.0), squash(velocity, 4.0)), -2)
        both = torch.stack((vectors, (vectors * _MIRROR_SIGN.to(vectors))[..., _MIRROR, :, :]))
        size = 2 * std / scale
        sizes = torch.stack((size, size[..., _MIRROR, :]))
        centre = torch.stack((known.centre, mirror_rotmat(known.centre[..., _MIRROR, :, :])))
        six = 2 * rotmat_to_rot6d(centre).expand(*sizes.shape[:-1], -1)
        flags = torch.stack((
            valid.to(times.dtype) - 0.5, torch.log(noise / 0.05)[:, None].expand_as(times),
            to_nearest(times, valid).clamp(max=2.0),
        ), -1)  # fmt: skip
        return torch.cat((both.flatten(-2), sizes, six), -1), flags

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


def _read(out: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (..., 6 J + 1) as two corrections (..., J, 3), of which the second is let through by the last number."""
    near, far = out[..., :-1].unflatten(-1, (2, -1, 3)).unbind(-3)
    return near, far * torch.sigmoid(out[..., -1:, None] - 2)


def _joined(parts: Tensor) -> Tensor:
    """Rotation vectors (B, T, 21, 3) of those of the parts of the body and of its mirror image (2, B, T, J, 3)."""
    plain, mirrored = parts[0], parts[1] * _MIRROR_SIGN.to(parts)
    trunk = len(PARTS[0])
    middle = (plain[..., :trunk, :] + mirrored[..., :trunk, :]) / 2
    return torch.cat((middle, plain[..., trunk:, :], mirrored[..., trunk:, :]), -2)[..., _IN_ORDER, :]
