"""The motion prior on held-out motion: likelihood, noise taken away, gaps filled, and the next second.

These are kinflow's own figures, beside what costs nothing (the input as it is, the last pose); peers that are trained or tuned are
compared by ``benchmarks/prior.py`` of the repository, on the same windows.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..prior import MotionPrior
from ..rotations import rotvec_to_rotmat, slerp
from ..timing import neighbours
from ..training.poses import Capture, read_captures
from .motion_windows import (
    RATES,
    MotionWindows,
    angle_error,
    by_clip,
    clip_index,
    corrupt,
    errors,
    past_and_future,
    position_error,
    thinned,
    windows,
)

DEGREES = (2.0, 5.0, 10.0)
GAPS_S = (0.2, 0.5, 1.0)
AHEAD_MS = {80: 5, 160: 10, 400: 24, 1000: 60}
"""ms -> captured frames after the last."""
DEQUANTISED = 0.002
"""rad of noise that windows carry whose likelihood is taken, as in training."""
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure: what of, its unit, mean over windows, and standard error over clips."""

    task: str
    setting: str
    of: str
    unit: str
    mean: float
    error: float


Progress = Callable[[str, int, "int | None"], None]


def bench_prior(
    data: str | Path, prior: MotionPrior, *, split: str = "test", count: int = 64, progress: Progress | None = None
) -> list[Figure]:
    """Measure a prior on a split of prepared motion capture.

    Args:
        data: what ``tools/prepare_mocap.py`` made.
        count: windows of each setting, spread evenly over the split.
        progress: called with ("prior", tasks done, all).

    Raises:
        UsageError: fewer than two windows asked for.
        MissingAssetError, FormatError: no such file, or not one of prepared capture.
    """
    if count < 2:
        raise UsageError(f"windows: expected at least 2, got {count}.")
    captures = thinned(read_captures(Path(data), split))
    at_30 = windows(captures, "30 Hz", count)

    def likelihood(rate: str) -> list[Figure]:
        return _likelihood(windows(captures, rate, count, noise=DEQUANTISED), rate, prior)

    tasks: list[Callable[[], list[Figure]]] = [
        *(functools.partial(likelihood, rate) for rate in RATES),
        *(functools.partial(_denoise, at_30, degrees, prior) for degrees in DEGREES),
        *(functools.partial(_infill, at_30, gap, prior) for gap in GAPS_S),
        lambda: _gravity(captures, prior),
        lambda: _forecast(*past_and_future(captures, "30 Hz", list(AHEAD_MS.values()), count), prior),
    ]
    out: list[Figure] = []
    for done, task in enumerate(tasks):
        if progress is not None:
            progress("prior", done, len(tasks))
        out += task()
    if progress is not None:
        progress("prior", len(tasks), len(tasks))
    return out


def _figures(task: str, setting: str, unit: str, values: dict[str, Tensor], clip: Tensor) -> list[Figure]:
    return [Figure(task, setting, of, unit, *by_clip(value.double(), clip)) for of, value in values.items()]


@torch.no_grad()
def _likelihood(test: MotionWindows, rate: str, prior: MotionPrior) -> list[Figure]:
    parts = zip(test.rotmat.split(32), test.timestamps.split(32), strict=True)
    nats = torch.cat([prior.log_prob(r, t)[:, 2:].mean(1) for r, t in parts])
    return _figures("one-step likelihood", rate, "nats a frame", {"kinflow": nats}, test.clip)


@torch.no_grad()
def _gravity(captures: Sequence[Capture], prior: MotionPrior) -> list[Figure]:
    """What knowing gravity adds to single poses: of a body that leans as it did, and of one that leans 30 degrees further."""
    every = [c.body_pose[:: max(1, round(c.fps / 2))] for c in captures]
    up = torch.cat([c.global_rotmat[:: max(1, round(c.fps / 2)), 1] for c in captures])
    clips = clip_index(captures)
    clip = torch.tensor([i for i, own in zip(clips, every, strict=True) for _ in own])
    pose = torch.cat(every)[:, None]
    towards = torch.randn(up.shape, generator=torch.Generator().manual_seed(0))
    axis = torch.nn.functional.normalize(torch.linalg.cross(up, towards), dim=-1)
    leaning = (rotvec_to_rotmat(math.radians(30) * axis) @ up[..., None])[..., 0]
    values = {}
    alone = prior.log_prob(pose, fps=30)[:, 0]
    for of, own in (("kinflow", up), ("30 degrees further", leaning)):
        values[of] = prior.log_prob(pose, fps=30, up=own[:, None])[:, 0] - alone
    values["uniform"] = torch.full_like(alone, -math.log(4 * math.pi))
    return _figures("up, given the pose", "single poses", "nats", values, clip)


def _body(pose: Tensor) -> Tensor:
    """(..., 23, 3) rad of the prior -> (..., 21, 3, 3)."""
    return rotvec_to_rotmat(pose[..., :21, :]).detach()


def _denoise(truth: MotionWindows, degrees: float, prior: MotionPrior) -> list[Figure]:
    noisy = corrupt(truth, degrees, "noise").rotmat
    made = torch.cat([
        _body(prior.denoise(r, t, noise=math.radians(degrees)))
        for r, t in zip(noisy.split(_BATCH), truth.timestamps.split(_BATCH), strict=True)
    ])  # fmt: skip
    return _estimates("denoising, 30 Hz", f"{degrees:g} degrees", {"as given": noisy, "kinflow": made}, truth)


def _infill(truth: MotionWindows, gap: float, prior: MotionPrior) -> list[Figure]:
    """One gap in the middle of each window; errors inside it."""
    times = truth.timestamps
    middle = (times[:, :1] + times[:, -1:]) / 2
    valid = (times - middle).abs() > gap / 2
    made = torch.cat([
        _body(prior.infill(r, t, valid=v))
        for r, t, v in zip(truth.rotmat.split(_BATCH), times.split(_BATCH), valid.split(_BATCH), strict=True)
    ])  # fmt: skip
    near = neighbours(times, valid)
    rows = torch.arange(len(times))[:, None]
    straight = slerp(
        truth.rotmat[rows, near.before], truth.rotmat[rows, near.after], near.share[..., None].to(truth.rotmat.dtype)
    )
    inside, setting = ~valid, f"{gap:g} s"
    values: dict[str, dict[str, Tensor]] = {"degrees": {}, "mm": {}}
    for name, guess in (("slerp", straight), ("kinflow", made)):
        for unit, measure in (("degrees", angle_error), ("mm", position_error)):
            off = measure(guess, truth.rotmat)
            values[unit][name] = (off * inside).sum(1) / inside.sum(1)
    return [f for unit, v in values.items() for f in _figures("gaps, 30 Hz", setting, unit, v, truth.clip)]


def _estimates(task: str, setting: str, made: dict[str, Tensor], truth: MotionWindows) -> list[Figure]:
    found = {name: errors(guess, truth) for name, guess in made.items()}
    units = {"deg": "degrees", "mm": "mm", "acc": "m/s^2"}
    return [
        f
        for key, unit in units.items()
        for f in _figures(task, setting, unit, {n: e[key] for n, e in found.items()}, truth.clip)
    ]


@torch.no_grad()
def _forecast(past: MotionWindows, future: Tensor, prior: MotionPrior) -> list[Figure]:
    ahead = torch.tensor(list(AHEAD_MS.values()), dtype=torch.float64) / 60
    made = _body(prior.forecast(past.rotmat, past.timestamps, ahead))
    out: list[Figure] = []
    for i, milliseconds in enumerate(AHEAD_MS):
        for unit, measure in (("degrees", angle_error), ("mm", position_error)):
            values = {
                "last pose": measure(past.rotmat[:, -1], future[:, i]),
                "kinflow": measure(made[:, i], future[:, i]),
            }
            values["last pose - kinflow"] = values["last pose"] - values["kinflow"]  # paired, clip by clip
            out += _figures("forecast, 30 Hz", f"{milliseconds} ms", unit, values, past.clip)
    return out


def markdown(figures: Sequence[Figure]) -> str:
    """A table, one row a task, setting and unit, one column for each that is compared."""
    names = list(dict.fromkeys(f.of for f in figures))
    rows: dict[tuple[str, str, str], dict[str, Figure]] = {}
    for f in figures:
        rows.setdefault((f.task, f.setting, f.unit), {})[f.of] = f
    lines = ["| task | setting | unit | " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * len(names)]
    for key, found in rows.items():
        cells = (f"{found[n].mean:.2f} ± {found[n].error:.2f}" if n in found else "-" for n in names)
        lines.append("| " + " | ".join((*key, *cells)) + " |")
    return "\n".join(lines) + "\n"


def record(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """For JSON."""
    return [dataclasses.asdict(f) for f in figures]
