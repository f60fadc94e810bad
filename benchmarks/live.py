"""How well `kinflow.prior.LiveFilter` follows captured motion: error, jitter, lag and cost against the raw landmarks.

    python benchmarks/live.py --data data/mocap.npz [--split train] [--clips 24] [--seconds 4] [--rates 30 15 60]

Windows of motion capture become BlazePose landmarks by the open body, under three kinds of noise:

* clean: none. What is left is the filter's own lag and bias;
* white: 3 cm across and 6 cm in depth a landmark, new in each frame;
* tracked: the noise model of the trainings (errors alike from frame to frame, limbs bent in depth, sizes of an average
  person), which is closer to what a landmark network does.

Limbs are shoulders, elbows, wrists, knees and ankles, around the middle of the hips. Lag is the shift in time at which the
filtered limbs agree best with the true ones. The first half second is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinflow import timing
from kinflow.body import Body
from kinflow.cameras import intrinsics, project
from kinflow.config import NoiseConfig
from kinflow.errors import KinflowError
from kinflow.mocap.clips import MotionClip, load_clips
from kinflow.prior import LiveFilter, MotionPrior
from kinflow.prior.live import LANDMARK_STD
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.streams.noise import corrupt

LIMBS = [11, 12, 13, 14, 15, 16, 25, 26, 27, 28]
"""Shoulders, elbows, wrists, knees, ankles."""
HIPS = [23, 24]
KINDS = ("clean", "white", "tracked")
_WHITE = (0.03, 0.03, 0.06)  # m
_DISTANCE = 4.0  # m from the camera
_IMAGE = (1280, 720)
_SETTLED = 0.5  # s


class Stream(NamedTuple):
    """``truth``, ``raw`` (T, 33, 3) m around the hips, ``visibility`` (T, 33), ``times`` (T,) s."""

    truth: Tensor
    raw: Tensor
    visibility: Tensor
    times: Tensor


class Score(NamedTuple):
    """Of one stream's limbs: error m, acceleration m/s^2, lag s of raw and filtered landmarks; processor ms a frame."""

    error: tuple[float, float]
    acceleration: tuple[float, float]
    lag: tuple[float, float]
    cost: float


def around_hips(points: Tensor) -> Tensor:
    """(..., 33, 3) with the middle of the hips at the origin."""
    return points - points[..., HIPS, :].mean(-2, keepdim=True)


def acceleration(points: Tensor, times: Tensor) -> float:
    """Mean acceleration of the limbs of landmarks (T, 33, 3), m/s^2: motion and jitter."""
    return float(timing.acceleration(points[:, LIMBS].double(), times).norm(dim=-1).mean())


def lag(truth: Tensor, found: Tensor, times: Tensor) -> float:
    """Seconds by which found limbs (T, 33, 3) follow the true ones: the shift at which they agree best, to a millisecond."""
    a, b = (x[:, LIMBS].flatten(1).double().numpy() for x in (truth, found))
    stamps = times.numpy()
    inside = (stamps > stamps[0] + 0.3) & (stamps < stamps[-1] - 0.1)
    if inside.sum() < 3:
        return float("nan")  # too short to tell
    a, b = a - a.mean(0), b - b.mean(0)
    shifts = np.arange(-0.1, 0.3, 0.01)
    costs = np.array([
        np.square(np.stack([np.interp(stamps[inside] - s, stamps, column) for column in a.T], 1) - b[inside]).mean()
        for s in shifts
    ])  # fmt: skip
    best = int(np.clip(costs.argmin(), 1, len(shifts) - 2))
    low, here, high = costs[best - 1 : best + 2]
    return float(
        shifts[best] + 0.005 * (low - high) / max(low - 2 * here + high, 1e-12)
    )  # a parabola through the least


def stream(clip: MotionClip, start: int, frames: int, step: int, kind: str, body: Body, rng: torch.Generator) -> Stream:
    """Landmarks of a window, before a level camera that the person faces in a random direction."""
    rows = slice(start, start + frames * step, step)
    pose = rotvec_to_rotmat(torch.from_numpy(np.concatenate((clip.global_orient[rows, None], clip.body_pose[rows]), 1)))
    turn = float(2 * torch.pi * torch.rand((), generator=rng))
    camera = rotvec_to_rotmat(torch.tensor([torch.pi, 0.0, 0.0])) @ rotvec_to_rotmat(torch.tensor([0.0, turn, 0.0]))
    truth = around_hips(body.landmarks(torch.zeros(10), pose)) @ camera.T
    times = torch.arange(len(truth), dtype=torch.float64) * step / clip.fps
    visibility = torch.ones(truth.shape[:2])
    if kind == "clean":
        return Stream(truth, truth, visibility, times)
    if kind == "white":
        noise = torch.randn(truth.shape, generator=rng) * torch.tensor(_WHITE)
        return Stream(truth, around_hips(truth + noise), visibility, times)
    K = intrinsics(_IMAGE)
    seen = truth + torch.tensor([0.0, 0.0, _DISTANCE])
    keypoints = project(seen, K)[None]
    size = (keypoints.amax(2) - keypoints.amin(2)).amax(-1)
    dt = torch.full((1, len(truth)), step / clip.fps)
    noisy = corrupt(
        keypoints, truth[None], size, size * _DISTANCE / K[0, 0], torch.ones(1, *visibility.shape, dtype=torch.bool),
        torch.ones(1), dt, NoiseConfig(), rng,
    )  # fmt: skip
    return Stream(truth, around_hips(noisy.world[0]), noisy.confidence[0], times)


def score(live: LiveFilter, seen: Stream, scale: float = 1.0) -> Score:
    """Run a filter over a stream."""
    live.reset()
    found, spent = [], 0.0
    std = tuple(scale * s for s in LANDMARK_STD)
    for points, visibility, t in zip(seen.raw, seen.visibility, seen.times.tolist(), strict=True):
        began = time.process_time()
        found.append(live.landmarks(t, points, visibility, std=std).landmarks)  # type: ignore[arg-type]
        spent += time.process_time() - began
    settled = seen.times >= _SETTLED
    truth, raw, filtered, times = (x[settled] for x in (seen.truth, seen.raw, torch.stack(found), seen.times))
    both = (raw, filtered)
    return Score(
        tuple(float((x - truth)[:, LIMBS].norm(dim=-1).mean()) for x in both),  # type: ignore[arg-type]
        tuple(acceleration(x, times) for x in both),  # type: ignore[arg-type]
        tuple(lag(truth, x, times) for x in both),  # type: ignore[arg-type]
        1000 * spent / len(found),
    )


def windows(
    clips: list[MotionClip], count: int, seconds: float, rng: np.random.Generator
) -> list[tuple[MotionClip, int]]:
    """Clips and first frames of windows that are valid throughout."""
    runs = [(c, a, b) for c in clips for a, b in c.valid_runs(int(seconds * c.fps) + 1)]
    rng.shuffle(runs)  # type: ignore[arg-type]
    return [(c, int(rng.integers(a, b - int(seconds * c.fps)))) for c, a, b in runs[:count]]


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="prepared motion capture, by tools/prepare_mocap.py")
    p.add_argument("--split", default="train", help="train, validation or test (default: train)")
    p.add_argument("--clips", type=int, default=24, help="windows (default: 24)")
    p.add_argument("--seconds", type=float, default=4.0, help="of each window (default: 4)")
    p.add_argument("--rates", type=float, nargs="+", default=[30.0], help="frames/s (default: 30)")
    p.add_argument("--std", type=float, default=1.0, help="scales the error that the filter expects (default: 1)")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    try:
        clips = load_clips(args.data, args.split)
        live, body = LiveFilter(MotionPrior.load()), Body.open("light")
    except KinflowError as error:
        print(f"live: {error}", file=sys.stderr)
        return error.exit_code
    picked = windows(clips, args.clips, args.seconds, np.random.default_rng(args.seed))
    table = Table(title=f"{len(picked)} windows of {args.seconds:g} s, {args.split}; commit {_commit()}")
    for column in (
        "noise",
        "frames/s",
        "limbs off, mm raw -> filtered",
        "acceleration, m/s^2",
        "lag, ms",
        "ms a frame",
    ):
        table.add_column(column, justify="left" if column == "noise" else "right")
    for rate in args.rates:
        for kind in KINDS:
            rng = torch.Generator().manual_seed(args.seed)
            scores = []
            for clip, start in picked:
                step = max(1, round(clip.fps / rate))
                frames = int(args.seconds * clip.fps / step)
                scores.append(score(live, stream(clip, start, frames, step, kind, body, rng), args.std))
            mean = [[float(np.mean([getattr(s, name)[i] for s in scores])) for i in (0, 1)] for name in ("error", "acceleration", "lag")]  # fmt: skip
            pair = [f"{k * raw:.{d}f} -> {k * now:.{d}f}" for (raw, now), k, d in zip(mean, (1000, 1, 1000), (0, 1, 0), strict=True)]  # fmt: skip
            table.add_row(kind, f"{rate:g}", *pair, f"{np.mean([s.cost for s in scores]):.1f}")
    Console().print(table)
    return 0


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
