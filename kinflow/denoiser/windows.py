"""The denoiser over clips of any length: in overlapping windows, joined along the shortest turn."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
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
    """Smoothed rotations (B, T, 21, 3, 3) of clips (B, T, 21, 3, 3) with times (B, T) s, valid (B, T), noise (B,) rad."""
    frames = times.shape[1]
    nearby = slerp_between(rotmat, times, valid)
    step = WINDOW - OVERLAP
    count = 1 + max(0, -(-(frames - WINDOW) // step))
    if count == 1:
        out = denoiser(rotmat, times, valid, noise)
    else:
        length = WINDOW + (count - 1) * step
        index = (torch.arange(length, device=times.device)).clamp(max=frames - 1)
        place = torch.arange(length, device=times.device) >= frames
        late = times[:, -1:] + 0.01 * (torch.arange(length, device=times.device) - frames + 1)
        all_times = torch.where(place, late, times[:, index])
        all_valid = valid[:, index] & ~place

        def cut(x: Tensor) -> Tensor:  # (B, length, ...) -> (B * count, WINDOW, ...)
            return x.unfold(1, WINDOW, step).movedim(-1, 2).flatten(0, 1)

        part_valid = cut(all_valid)
        # A window in which nothing was seen is given the turn between its valid neighbours instead.
        empty = ~part_valid.any(1)
        poses = torch.where(empty[:, None, None, None, None], cut(nearby[:, index]), cut(rotmat[:, index]))
        parts = denoiser(poses, cut(all_times), part_valid | empty[:, None], noise.repeat_interleave(count))
        # A window is joined where it brings frames that were seen, so that padding behind a clip changes nothing.
        place = torch.arange(frames, device=times.device)
        last = torch.where(valid, place, -1).amax(1, keepdim=True)
        brings = last >= step * torch.arange(1, count, device=times.device) + OVERLAP
        out = _join(parts.unflatten(0, (len(times), count)), brings)[:, :frames]
    # Far from everything seen, the network has nothing to go by.
    away = ((_to_nearest(times, valid) - REACH) / 0.3).clamp(0, 1)
    if bool((away > 0).any()):
        out = _towards(out, nearby, away.to(out.dtype)[..., None, None])
    return out


def slerp_between(rotmat: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """Rotations of frames that are not valid on the shortest turn, in time, between those that are; constant at the ends."""
    before, after, share = neighbours(times, valid)
    first, last = take(rotmat, before), take(rotmat, after)
    return torch.where(
        valid[..., None, None, None], rotmat, _towards(first, last, share.to(rotmat.dtype)[..., None, None])
    )


def neighbours(times: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each frame (B, T): the valid frames at or before and at or after it, and where between them it is, 0 to 1."""
    index = torch.arange(times.shape[1], device=times.device).expand(valid.shape)
    before = torch.where(valid, index, -1).cummax(1).values
    after = torch.where(valid, index, times.shape[1]).flip(1).cummin(1).values.flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after >= times.shape[1], before, after)
    t0, t1 = times.gather(1, before), times.gather(1, after)
    return before, after, ((times - t0) / (t1 - t0).clamp_min(1e-9)).clamp(0, 1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Frames ``index`` (B, S) of x (B, T, ...)."""
    return x.gather(1, index.reshape(*index.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))


def meet(filled: Tensor, rotmat: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """Bend what was filled in so that it meets the valid frames: what it misses there is taken off, less and less with
    the time from them."""
    missed = rotmat_to_rotvec(filled.mT @ torch.where(valid[..., None, None, None], rotmat, filled))
    before, after, share = neighbours(times, valid)
    fade = [torch.exp(-(times - times.gather(1, i)).abs() / FADE) for i in (before, after)]
    fade = [(f * w).to(filled.dtype)[..., None, None] for f, w in zip(fade, (1 - share, share), strict=True)]
    bend = take(missed, before) * fade[0] + take(missed, after) * fade[1]
    return torch.where(valid[..., None, None, None], rotmat, filled @ rotvec_to_rotmat(bend))


def recent_past(rotmat: Tensor, times: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The past at :data:`FORECAST_RATE`, counted back from each clip's last valid frame.

    Returns:
        rotations (B, S, 21, 3, 3) by slerp between valid frames, times (B, S) s, and which lie between valid frames close
        enough (two steps) to be told (B, S); the last one always does.
    """
    steps = int(FORECAST_PAST * FORECAST_RATE) + 1
    place = torch.arange(times.shape[1], device=times.device)
    last = torch.where(valid, place, -1).amax(1, keepdim=True)
    end = times.gather(1, last)
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
    pose = _towards(take(rotmat, low), take(rotmat, high), share.to(rotmat.dtype)[..., None, None])
    return pose, asked, told


def _towards(first: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """Along the shortest turn from one rotation (..., 3, 3) to another by a share (..., 1) of it."""
    return first @ rotvec_to_rotmat(share * rotmat_to_rotvec(first.mT @ last))


def _to_nearest(times: Tensor, valid: Tensor) -> Tensor:
    before, after, _ = neighbours(times, valid)
    return torch.minimum((times - times.gather(1, before)).abs(), (times.gather(1, after) - times).abs())


def _join(parts: Tensor, brings: Tensor) -> Tensor:
    """Windows (B, C, WINDOW, ...) that overlap by OVERLAP frames -> (B, T, ...).

    ``brings`` (B, C - 1): whether the overlap fades over to the later window, or stays with the earlier one.
    """
    ramp = torch.arange(1, OVERLAP + 1, dtype=parts.dtype, device=parts.device) / (OVERLAP + 1)
    share = ramp[:, None, None] * brings[..., None, None, None]
    ends = _towards(parts[:, :-1, -OVERLAP:], parts[:, 1:, :OVERLAP], share)
    middle = parts[:, :, OVERLAP : WINDOW - OVERLAP]
    out = [parts[:, 0, :OVERLAP]]
    for i in range(parts.shape[1]):
        out += [middle[:, i], ends[:, i] if i < ends.shape[1] else parts[:, i, -OVERLAP:]]
    return torch.cat(out, 1)
