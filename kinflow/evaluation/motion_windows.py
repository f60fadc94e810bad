"""Windows of held-out motion, what is done to them, and how the results are measured.

Windows keep captured frames with their own time stamps: at rates that do not divide the capture's the steps differ, and
nothing is interpolated. The starts are the same at every rate, spread evenly over all places where a window fits, so
that clips count in proportion to their duration.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..body import Body
from ..body.kinematics import forward_kinematics, full_pose
from ..errors import UsageError
from ..metrics import acceleration_error
from ..rotations import geodesic_distance, rotvec_to_rotmat
from ..training.poses import Capture, mirror_body, perturb

RATES: dict[str, float] = {"12 Hz": 12.0, "24 Hz": 24.0, "30 Hz": 30.0, "60 Hz": 60.0, "jittered": 30.0}
"""Names of the rates and their mean frames a second; the intervals of "jittered" vary by :data:`JITTER`."""
JITTER = 0.3
SECONDS = 2.5
CAPTURED = 60.0
"""Frames a second of the capture, thinned to them where it has more: clips at other rates make no windows."""


@dataclasses.dataclass(frozen=True)
class MotionWindows:
    """Motions of one length: rotmat (B, T, 21, 3, 3), timestamps (B, T) s float64 from 0 on, clip (B,) they are from."""

    rotmat: Tensor
    timestamps: Tensor
    clip: Tensor

    def __len__(self) -> int:
        return len(self.rotmat)

    def first(self, count: int) -> MotionWindows:
        """About ``count`` of the windows, evenly spread over them."""
        keep = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()
        return MotionWindows(self.rotmat[keep], self.timestamps[keep], self.clip[keep])


def thinned(captures: Sequence[Capture]) -> list[Capture]:
    """Every second, third ... frame of the clips that were captured at twice :data:`CAPTURED`, three times ..."""
    out = []
    for c in captures:
        every = max(1, round(c.fps / CAPTURED))
        if every > 1:
            parts = (c.body_pose[::every], c.global_rotmat[::every], c.transl[::every])
            c = Capture(c.name, *parts, c.fps / every)
        out.append(c)
    return out


def starts(captures: Sequence[Capture], span: int, count: int, seed: int = 0) -> list[tuple[int, int]]:
    """``count`` pairs of capture and first frame, evenly spread over all places with room for ``span`` frames.

    Raises:
        UsageError: there is no such place.
    """
    room = np.array([max(0, len(c.body_pose) - span + 1) if abs(c.fps - CAPTURED) < 0.5 else 0 for c in captures])
    edges = np.cumsum(room)
    if not len(room) or edges[-1] == 0:
        raise UsageError(
            f"data: expected a stretch of {span / CAPTURED:g} s of valid frames at {CAPTURED:g} frames/s, got none. Use more capture."
        )
    rng = np.random.default_rng(seed)
    places = ((np.arange(count) + rng.random(count)) / count * edges[-1]).astype(np.int64)
    owner = np.searchsorted(edges, places, side="right")
    return [(int(i), int(p - (edges[i] - room[i]))) for i, p in zip(owner, places, strict=True)]


def frames_of(rate: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` increasing captured frames from 0 on that sample at a rate of :data:`RATES`."""
    step = CAPTURED / RATES[rate]
    if rate != "jittered":
        return np.round(step * np.arange(count)).astype(np.int64)
    intervals = np.maximum(1, np.round(step * (1 + JITTER * rng.standard_normal(count - 1)))).astype(np.int64)
    return np.concatenate(([0], np.cumsum(intervals)))


def clip_index(captures: Sequence[Capture]) -> list[int]:
    """The clip of each run: runs that were cut from one recording count as one clip."""
    names = {name: i for i, name in enumerate(dict.fromkeys(c.name for c in captures))}
    return [names[c.name] for c in captures]


def windows(
    captures: Sequence[Capture], rate: str, count: int = 64, seconds: float = SECONDS, seed: int = 0, noise: float = 0.0
) -> MotionWindows:
    """Windows of ``seconds`` at a rate; ``noise`` rad about each axis, as training dequantises with."""
    frames = round(seconds * RATES[rate])
    rng = np.random.default_rng([seed, 1])
    # Jittered windows may run over by a few frames; all rates leave the same room, so that all share their starts.
    room = round(seconds * CAPTURED * 1.2)
    clips, out, times, clip = clip_index(captures), [], [], []
    for i, start in starts(captures, room, count, seed):
        at = np.minimum(frames_of(rate, frames, rng), room - 1)
        at = torch.from_numpy(np.unique(at))
        if len(at) < frames:  # all but impossible: the jitter ran past the room
            at = torch.arange(frames) * 2
        out.append(rotvec_to_rotmat(captures[i].body_pose[start + at]))
        times.append(at.double() / captures[i].fps)
        clip.append(clips[i])
    rotmat = torch.stack(out)
    if noise:
        rotmat = perturb(rotmat, noise, torch.Generator().manual_seed(seed))
    return MotionWindows(rotmat, torch.stack(times), torch.tensor(clip))


def past_and_future(
    captures: Sequence[Capture],
    rate: str,
    ahead: Sequence[int],
    count: int = 64,
    past: float = 1.5,
    seed: int = 0,
) -> tuple[MotionWindows, Tensor]:
    """The past at a rate, whose last frame is the same at every rate and has time 0, and the truth ``ahead`` of it.

    Args:
        ahead: captured frames after the last.

    Returns:
        Windows with time stamps up to 0, and rotations (B, len(ahead), 21, 3, 3).
    """
    rng = np.random.default_rng([seed, 2])
    before, frames = round(past * CAPTURED * 1.2), round(past * RATES[rate])
    clips, out, times, clip, future = clip_index(captures), [], [], [], []
    for i, start in starts(captures, before + max(ahead) + 1, count, seed):
        at = torch.from_numpy(np.minimum(frames_of(rate, frames, rng), before)[::-1].copy())
        last = start + before
        pose = captures[i].body_pose
        out.append(rotvec_to_rotmat(pose[last - at]))
        future.append(rotvec_to_rotmat(pose[last + torch.tensor(list(ahead))]))
        times.append(-at.double() / captures[i].fps)
        clip.append(clips[i])
    return MotionWindows(torch.stack(out), torch.stack(times), torch.tensor(clip)), torch.stack(future)


# -- corruptions -------------------------------------------------------------------------------------------------------


def shuffle_frames(rotmat: Tensor, rng: torch.Generator) -> Tensor:
    """The frames of each window (B, T, ...) in an order of its own; time stamps stay."""
    order = torch.rand(rotmat.shape[:2], generator=rng).argsort(1)
    return torch.stack([own[index] for own, index in zip(rotmat, order, strict=True)])


def swapped_frames(
    timestamps: Tensor,
    rng: torch.Generator,
    share: float = 0.05,
    length: tuple[float, float] = (0.1, 0.4),
    at_least: int = 0,
) -> Tensor:
    """Frames (B, T) bool inside random intervals of ``length`` seconds that cover about ``share`` of the time.

    ``at_least`` intervals fall in each window, inside it and with at least one frame.
    """
    inside = torch.zeros(timestamps.shape, dtype=torch.bool)
    duration = timestamps[:, -1] - timestamps[:, 0]
    mean = share * duration / (sum(length) / 2)
    counts = torch.poisson(mean.float(), generator=rng).long().clamp_min(at_least)
    for b, count in enumerate(counts.tolist()):
        for _ in range(count):
            span, where = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
            span = length[0] + span * (length[1] - length[0])
            start = float(timestamps[b, 0]) + where * max(0.0, float(duration[b]) - span)
            hit = (timestamps[b] >= start) & (timestamps[b] < start + span)
            if not bool(hit.any()):
                hit[(timestamps[b] - start).abs().argmin()] = True
            inside[b] |= hit
    return inside


def swap_sides(rotmat: Tensor, frames: Tensor) -> Tensor:
    """Left for right in ``frames`` (B, T) of rotations (B, T, 21, 3, 3)."""
    return torch.where(frames[..., None, None, None], mirror_body(rotmat), rotmat)


def dropped(shape: tuple[int, int], share: float, rng: torch.Generator) -> Tensor:
    """Valid (B, T): ``share`` of the frames is not; the first and last frames of a window always are."""
    valid = torch.rand(shape, generator=rng) >= share
    valid[:, [0, -1]] = True
    return valid


@dataclasses.dataclass(frozen=True)
class Noisy:
    """What a denoiser is given: rotations (B, T, 21, 3, 3), valid (B, T), and the truth beside them."""

    rotmat: Tensor
    valid: Tensor
    truth: MotionWindows


def corrupt(truth: MotionWindows, degrees: float, kind: str, seed: int = 0) -> Noisy:
    """Noise of ``degrees`` about each axis of each joint; ``kind``: "noise", "drops" (10 % of the frames), "swaps"."""
    rng = torch.Generator().manual_seed(seed)
    rotmat = truth.rotmat
    valid = torch.ones(rotmat.shape[:2], dtype=torch.bool)
    if kind == "swaps":
        rotmat = swap_sides(rotmat, swapped_frames(truth.timestamps, rng))
    elif kind == "drops":
        valid = dropped((rotmat.shape[0], rotmat.shape[1]), 0.1, rng)
    return Noisy(perturb(rotmat, math.radians(degrees), rng), valid, truth)


# -- measures ----------------------------------------------------------------------------------------------------------


@functools.cache
def _rest_joints() -> Tensor:
    body = Body.open("light")
    return body.rest_joints(torch.zeros(1, 10))[0].float()


def positions(rotmat: Tensor) -> Tensor:
    """Joints (..., 23, 3) m, all but the root, of the open body's mean shape with its root held: (..., 21, 3, 3)."""
    return forward_kinematics(full_pose(rotmat), _rest_joints().to(rotmat.dtype))[1][..., 1:, :]


def angle_error(rotmat: Tensor, truth: Tensor) -> Tensor:
    """Degrees (...) between rotations (..., 21, 3, 3), the mean over joints."""
    return torch.rad2deg(geodesic_distance(rotmat, truth)).mean(-1)


def position_error(rotmat: Tensor, truth: Tensor) -> Tensor:
    """Millimetres (...), the mean over 23 joints."""
    return 1000 * (positions(rotmat) - positions(truth)).norm(dim=-1).mean(-1)


def errors(rotmat: Tensor, truth: MotionWindows) -> dict[str, Tensor]:
    """A value a window (B,): "deg", "mm" and "acc" (m/s^2) of (B, T, 21, 3, 3)."""
    moved, right = positions(rotmat), positions(truth.rotmat)
    return {
        "deg": angle_error(rotmat, truth.rotmat).mean(-1),
        "mm": 1000 * (moved - right).norm(dim=-1).mean((-1, -2)),
        "acc": acceleration_error(moved.double(), right.double(), truth.timestamps).mean(-1),
    }


def by_clip(value: Tensor, clip: Tensor) -> tuple[float, float]:
    """Mean over values (N,), one a window, pose or frame of the clips (N,), and its standard error from the differences between clips."""
    count = int(clip.max()) + 1
    size = torch.zeros(count, dtype=torch.float64).index_add_(0, clip, torch.ones(len(clip), dtype=torch.float64))
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, clip, value.double())
    mean = float(total.sum() / size.sum())
    used = size > 0
    number = int(used.sum())
    residual = (total - mean * size)[used]
    return mean, float(residual.square().sum().sqrt() / size.sum()) * math.sqrt(number / max(1, number - 1))


def bootstrap(statistic: Callable[[Tensor], float], clip: Tensor, draws: int = 200, seed: int = 0) -> float:
    """Standard error of ``statistic(index of windows)`` when clips are drawn anew."""
    rng = np.random.default_rng(seed)
    groups = [torch.nonzero(clip == c)[:, 0] for c in torch.unique(clip)]
    values = [
        statistic(torch.cat([groups[i] for i in rng.integers(len(groups), size=len(groups))])) for _ in range(draws)
    ]
    return float(np.std(values))


def auc(high: Tensor, low: Tensor) -> float:
    """Share of pairs of a value of ``high`` (N,) and one of ``low`` (M,) in which the first is larger; ties are half."""
    difference = high[:, None] - low[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())
