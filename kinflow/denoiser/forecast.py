"""The near future: what the denoiser expects, as far as it is to be trusted beside standing still.

Someone who moves goes on moving, and the denoiser says how; of someone who is calm the last pose says more. How far each is
right was fitted on motions that the training did not see, by the time ahead and by how fast somebody moves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rotations import geodesic_distance, slerp
from .network import BRISK, CALM, HORIZONS, Denoiser
from .windows import FORECAST_RATE, meet, recent_past

SPEED_FRAMES = 3
"""Steps of the past, at :data:`FORECAST_RATE`, over which speed is told."""


def forecast(denoiser: Denoiser, rotmat: Tensor, times: Tensor, valid: Tensor, ahead: Tensor, noise: Tensor) -> Tensor:
    """Expected rotations (B, F, 21, 3, 3) at times ``ahead`` (B, F) s after each clip's last valid frame.

    Args:
        rotmat: (B, T, 21, 3, 3) at times (B, T) s, valid (B, T) bool. noise: (B,) rad.
    """
    expected, last, seconds, speed = outlook(denoiser, rotmat, times, valid, ahead, noise)
    return slerp(last.expand_as(expected), expected, trust(denoiser.trust, seconds, speed)[..., None])


def outlook(
    denoiser: Denoiser, rotmat: Tensor, times: Tensor, valid: Tensor, ahead: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a forecast is made of: the denoiser's expectation (B, F, 21, 3, 3), the last pose (B, 1, 21, 3, 3), how far ahead
    (B, F) s, and how fast the body moved last (B,) rad/s, the mean over its joints."""
    pose, asked, told = recent_past(rotmat, times, valid)
    frames = ahead.shape[1]
    shown = torch.cat((pose, pose[:, -1:].expand(-1, frames, -1, -1, -1)), 1)
    known = torch.cat((told, told.new_zeros(len(told), frames)), 1)
    stamps = torch.cat((asked, ahead), 1)
    filled = meet(denoiser(shown, stamps, known, noise), shown, stamps, known)[:, -frames:]
    turned = geodesic_distance(pose[:, -1 - SPEED_FRAMES], pose[:, -1]).mean(-1)
    return filled, pose[:, -1:], (ahead - asked[:, -1:]).to(pose.dtype), turned * (FORECAST_RATE / SPEED_FRAMES)


def pace(speed: Tensor) -> Tensor:
    """Where speeds (...) rad/s lie between :data:`CALM` (0) and :data:`BRISK` (1), by their logarithm."""
    return (torch.log(speed.clamp_min(1e-6) / CALM) / math.log(BRISK / CALM)).clamp(0, 1)


def trust(table: Tensor, seconds: Tensor, speed: Tensor) -> Tensor:
    """Share of the way (B, F) from the last pose to the expectation, of a table (H, 2) at :data:`HORIZONS`, calm and brisk.

    Between two horizons it is linear in the logarithm of time, beyond them constant.
    """
    table = table.to(seconds)
    knots = torch.log(seconds.new_tensor(HORIZONS))
    at = torch.log(seconds.clamp(HORIZONS[0], HORIZONS[-1]))
    above = torch.searchsorted(knots, at.contiguous()).clamp(1, len(knots) - 1)
    part = ((at - knots[above - 1]) / (knots[above] - knots[above - 1]))[..., None]
    calm, brisk = torch.lerp(table[above - 1], table[above], part).unbind(-1)
    return torch.lerp(calm, brisk, pace(speed)[:, None])
