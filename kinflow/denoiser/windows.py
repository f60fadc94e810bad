"""The denoiser over clips of any length: in overlapping windows, joined along the shortest turn."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat, slerp
from ..timing import Windows, gather_time, last_valid, neighbours, to_nearest
from .network import Denoiser

WINDOW, OVERLAP = 96, 32
"""Frames that the denoiser sees at once, and how many of them neighbouring windows share."""
REACH = 1.5
"""Seconds: a frame further than this from every valid one is on the shortest turn between its valid neighbours."""
FADE = 0.5
"""Seconds in which the correction that lets what is filled in meet what was seen falls to a third."""
FORECAST_RATE = 12.0
"""Frames a second at which a forecast looks at the past, so that it does not depend on the rate of recording."""
FORECAST_PAST = 2.0
"""Seconds of the past that a forecast looks at."""


def denoise_clip(denoiser: Denoiser, rotmat: Tensor, times: Tensor, valid: Tensor, noise: Tensor) -> Tensor:
    """Denoised rotations (B, T, 21, 3, 3) of clips (B, T, 21, 3, 3) with times (B, T) s, valid (B, T), noise (B,) rad."""
    size, frames = times.shape
    nearby = slerp_between(rotmat, times, valid)
    windows = Windows.padded(frames, WINDOW, OVERLAP)
    count = len(windows.starts)
    if count == 1:
        out = denoiser(rotmat, times, valid, noise)
    else:
        behind = (windows.rows(times.device) - (frames - 1)).clamp_min(0)  # frames beyond the clip go on by hundredths
        stamps = (windows.cut(times) + 0.01 * behind).flatten(0, 1)
        seen = (windows.cut(valid) & (behind == 0)).flatten(0, 1)
        # A window in which nothing was seen is given the turn between its valid neighbours instead.
        empty = ~seen.any(1)
        poses = torch.where(
            empty[:, None, None, None, None], windows.cut(nearby).flatten(0, 1), windows.cut(rotmat).flatten(0, 1)
        )
        parts = denoiser(poses, stamps, seen | empty[:, None], noise.repeat_interleave(count)).unflatten(
            0, (size, count)
        )
        # A window is joined where it brings frames that were seen, so that padding behind a clip changes nothing.
        last = last_valid(valid)[:, 0]
        ramp = torch.arange(1, OVERLAP + 1, dtype=parts.dtype, device=parts.device) / (OVERLAP + 1)

        def fade(i: int, earlier: Tensor, later: Tensor) -> Tensor:
            brings = last >= windows.starts[i] + OVERLAP
            return slerp(earlier, later, ramp[:, None] * brings[:, None, None])

        out = windows.join(parts.unbind(1), fade)
    # Far from everything seen, the network has nothing to go by.
    away = ((to_nearest(times, valid) - REACH) / 0.3).clamp(0, 1)
    if bool((away > 0).any()):
        out = slerp(out, nearby, away.to(out.dtype)[..., None])
    return out


def slerp_between(rotmat: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """Rotations of frames that are not valid on the shortest turn, in time, between those that are; constant at the ends."""
    before, after, share = neighbours(times, valid)
    between = slerp(gather_time(rotmat, before), gather_time(rotmat, after), share.to(rotmat.dtype)[..., None])
    return torch.where(valid[..., None, None, None], rotmat, between)


def meet(filled: Tensor, rotmat: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """Bend what was filled in so that it meets the valid frames: what it misses there is taken off, less and less with
    the time from them."""
    missed = rotmat_to_rotvec(filled.mT @ torch.where(valid[..., None, None, None], rotmat, filled))
    before, after, share = neighbours(times, valid)
    fade = [torch.exp(-(times - times.gather(1, i)).abs() / FADE) for i in (before, after)]
    fade = [(f * w).to(filled.dtype)[..., None, None] for f, w in zip(fade, (1 - share, share), strict=True)]
    bend = gather_time(missed, before) * fade[0] + gather_time(missed, after) * fade[1]
    return torch.where(valid[..., None, None, None], rotmat, filled @ rotvec_to_rotmat(bend))


def recent_past(rotmat: Tensor, times: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The past at :data:`FORECAST_RATE`, counted back from each clip's last valid frame.

    Returns:
        rotations (B, S, 21, 3, 3) by slerp between valid frames, times (B, S) s, and which lie between valid frames close
        enough (two steps) to be told (B, S); the last one always does.
    """
    steps = int(FORECAST_PAST * FORECAST_RATE) + 1
    end = times.gather(1, last_valid(valid))
    asked = end - torch.arange(steps - 1, -1, -1, dtype=times.dtype, device=times.device) / FORECAST_RATE
    asked[:, -1:] = end
    before, after, _ = neighbours(times, valid)
    # Stamps that differ by rounding alone are the same.
    first = (torch.searchsorted(times.contiguous(), asked.contiguous() + 1e-6, right=True) - 1).clamp(
        0, times.shape[1] - 1
    )
    low = before.gather(1, first)
    second = (first + 1).clamp(max=times.shape[1] - 1)
    high = torch.where(times.gather(1, low) >= asked - 1e-6, low, after.gather(1, second))
    t0, t1 = times.gather(1, low), times.gather(1, high)
    share = ((asked - t0) / (t1 - t0).clamp_min(1e-9)).clamp(0, 1) * (high > low)
    told = (t0 <= asked + 1e-6) & (t1 >= asked - 1e-6) & (t1 - t0 <= 2.0 / FORECAST_RATE + 1e-6)
    pose = slerp(gather_time(rotmat, low), gather_time(rotmat, high), share.to(rotmat.dtype)[..., None])
    return pose, asked, told
