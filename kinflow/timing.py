"""Frames in time: gathers, neighbours, finite differences at true time steps, overlapping windows.

Clips are (B, T, ...), their time stamps (B, T) in seconds, increasing. A mask ``valid`` (B, T) bool marks the frames that
were seen; an index is a number of a frame in its own clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# -- gathers --------------------------------------------------------------------------------------------------------------


def gather_time(x: Tensor, index: Tensor) -> Tensor:
    """Frames of clips (B, T, ...) by number (B, ...) -> (B, *index's, ...).

    >>> gather_time(torch.tensor([[10, 20, 30]]), torch.tensor([[2, 0]]))
    tensor([[30, 10]])
    """
    flat = index.flatten(1)
    out = x.gather(1, flat.reshape(*flat.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))
    return out if index.dim() == 2 else out.unflatten(1, index.shape[1:])


def reverse_index(lengths: Tensor, steps: int) -> Tensor:
    """Frame t of a clip of so many frames (B,) to length - 1 - t, padding behind it to itself: (B, steps), its own inverse."""
    t = torch.arange(steps, device=lengths.device)[None]
    return torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)


# -- neighbours -----------------------------------------------------------------------------------------------------------


def last_valid(valid: Tensor) -> Tensor:
    """(B, 1) number of each clip's last valid frame; -1 for none."""
    return torch.where(valid, torch.arange(valid.shape[1], device=valid.device), -1).amax(1, keepdim=True)


def valid_before(valid: Tensor) -> Tensor:
    """(B, T) number of the last valid frame strictly before each; -1 for none."""
    frame = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
    upto = torch.where(valid, frame, -1).cummax(1).values
    return torch.cat((torch.full_like(upto[:, :1], -1), upto[:, :-1]), 1)


def valid_runs(valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Stretches of valid frames of one clip, (T,) -> (N, 2) first and one past the last.

    >>> valid_runs(np.array([True, True, False, True])).tolist()
    [[0, 2], [3, 4]]
    """
    return np.flatnonzero(np.diff(np.concatenate(([False], valid, [False])).astype(np.int8))).reshape(-1, 2)


class Neighbours(NamedTuple):
    """For each frame (B, T) the valid frames at or before and at or after it (at an end, twice the only one), and where in
    time between them it is, 0 to 1."""

    before: Tensor
    after: Tensor
    share: Tensor


def neighbours(times: Tensor, valid: Tensor) -> Neighbours:
    """The valid frames around each frame; every clip must have one."""
    frame = torch.arange(times.shape[1], device=times.device).expand(valid.shape)
    before = torch.where(valid, frame, -1).cummax(1).values
    after = torch.where(valid, frame, times.shape[1]).flip(1).cummin(1).values.flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after >= times.shape[1], before, after)
    t0, t1 = times.gather(1, before), times.gather(1, after)
    return Neighbours(before, after, ((times - t0) / (t1 - t0).clamp_min(1e-9)).clamp(0, 1))


def to_nearest(times: Tensor, valid: Tensor) -> Tensor:
    """Seconds (B, T) from each frame to the nearest valid one; every clip must have one."""
    before, after, _ = neighbours(times, valid)
    return torch.minimum((times - times.gather(1, before)).abs(), (times.gather(1, after) - times).abs())


# -- finite differences ---------------------------------------------------------------------------------------------------


def velocity(x: Tensor, timestamps: Tensor, dim: int = -3, least: float = 1e-6) -> Tensor:
    """Differences per second of successive frames.

    Args:
        x: (..., T, J, 3), or with T at another negative ``dim``.
        timestamps: (..., T) s. Steps are taken before they are cast, so that float64 stamps lose nothing.
        dim: where in ``x`` the frames are.
        least: s, the shortest step that is divided by (padding repeats a time).

    Returns:
        (..., T - 1, J, 3), in units of ``x`` per second; exact for straight lines.
    """
    return x.diff(dim=dim) / _steps(x, timestamps, dim, least)


def acceleration(x: Tensor, timestamps: Tensor, dim: int = -3, least: float = 1e-6) -> Tensor:
    """Second differences per second squared (..., T - 2, J, 3), exact for parabolas at any steps; as :func:`velocity`."""
    dt = _steps(x, timestamps, dim, least)
    whole = dt.narrow(dim, 1, dt.shape[dim] - 1) + dt.narrow(dim, 0, dt.shape[dim] - 1)
    return 2 * (x.diff(dim=dim) / dt).diff(dim=dim) / whole


def jerk(x: Tensor, timestamps: Tensor, dim: int = -3, least: float = 1e-6) -> Tensor:
    """Third differences per second cubed (..., T - 3, J, 3), exact for cubics at any steps (6 times Newton's divided
    difference); as :func:`velocity`."""
    dt = _steps(x, timestamps, dim, least)
    count = dt.shape[dim] - 2
    whole = sum(dt.narrow(dim, i, count) for i in range(3))
    return 3 * acceleration(x, timestamps, dim, least).diff(dim=dim) / whole


def _steps(x: Tensor, timestamps: Tensor, dim: int, least: float) -> Tensor:
    dt = timestamps.diff(dim=-1).to(x.dtype).clamp_min(least)
    return dt.reshape(*dt.shape, *[1] * (-1 - dim))


# -- windows --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Windows:
    """Overlapping windows over a clip: window i is frames ``starts[i]`` to ``starts[i] + length``.

    For clips that go through a model piece by piece and come out as one, each piece fading into the next where both look
    at the same frames. The reconstructor's chunks (``reconstruction.batching``) are another thing: the frames around those
    that a chunk is for are context, and what comes out for them is thrown away, since means and variances do not fade.

    Attributes:
        frames: of the clip.
        length: of each window; a clip no longer than that is one window of its own length.
        starts: increasing from 0.

    >>> [(start, start + 6) for start in Windows.fitted(11, 6, 2).starts]
    [(0, 6), (4, 10), (5, 11)]
    >>> [(start, start + 6) for start in Windows.padded(11, 6, 2).starts]
    [(0, 6), (4, 10), (8, 14)]
    """

    frames: int
    length: int
    starts: tuple[int, ...]

    @classmethod
    def fitted(cls, frames: int, length: int, overlap: int) -> Windows:
        """Each shares at least ``overlap`` frames with the one before; the last is moved back to end with the clip."""
        if frames <= length:
            return cls(frames, frames, (0,))
        return cls(frames, length, (*range(0, frames - length, length - overlap), frames - length))

    @classmethod
    def padded(cls, frames: int, length: int, overlap: int) -> Windows:
        """Each shares ``overlap`` frames with the one before; the last may reach beyond the clip. Where a window lies does
        not depend on the clip's length, so that what stands behind a clip's end does not change its answer."""
        if frames <= length:
            return cls(frames, frames, (0,))
        step = length - overlap
        return cls(frames, length, tuple(range(0, frames - overlap, step)))

    def rows(self, device: torch.device | None = None) -> Tensor:
        """(count, length) numbers of the windows' frames; those beyond the clip are ``frames`` and more."""
        starts = torch.tensor(self.starts, device=device)
        return starts[:, None] + torch.arange(self.length, device=device)

    def cut(self, x: Tensor) -> Tensor:
        """Windows (B, count, length, ...) of clips (B, frames, ...); beyond the clip, its last frame again."""
        return x[:, self.rows(x.device).clamp(max=self.frames - 1)]

    def join(self, parts: Iterable[Tensor], fade: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Clips (B, frames, ...) of windows (B, length, ...), given in order; each is let go once it is joined.

        Args:
            fade: called with a window's number, what the clip is so far in the frames that it shares with that window
                (B, shared, ...), and the window there; gives what becomes of those frames.
        """
        out: Tensor | None = None
        for i, (start, part) in enumerate(zip(self.starts, parts, strict=True)):
            if out is None:
                out = part
                continue
            shared = out.shape[1] - start
            out = torch.cat((out[:, :start], fade(i, out[:, start:], part[:, :shared]), part[:, shared:]), 1)
        assert out is not None  # there is always a window
        return out[:, : self.frames]
