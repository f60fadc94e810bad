"""Held-out likelihood of the flow and of the dynamics against Gaussians, on the test split's subjects.

    python benchmarks/likelihood.py [--data data/mocap.npz] [--flow FILE] [--dynamics FILE]

Poses: nats a pose with respect to the Haar measure on SO(3)^21 (8 pi^2 a joint), the flow against a Gaussian with full
covariance on the same chart, fitted to the same training poses. The Gaussian is given the noise floor, of several, that
suits it best on the validation split. Poses come as captured, and once more with 0.01 rad of noise on every axis, so that
joints which the capture never moves do not decide.

Motion: nats a frame in the flow's latents (the flow's volume change is the same for all), the dynamics against Gaussians
around the last frame and around constant velocity. These have full covariances and are fitted anew for each frame rate;
the dynamics are one model for all. Every model sees the same poses, which carry the training's 0.002 rad of noise, and
each clip's first two frames are left out. The spread is the standard error over clips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from reporting import commit
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinflow.assets import asset_path
from kinflow.assets.weights import load_weights
from kinflow.config import DynamicsTrainingConfig
from kinflow.dynamics import LatentDynamics, load_dynamics
from kinflow.evaluation.motion_windows import by_clip
from kinflow.flow import PoseFlow, load_flow
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.poses import Capture, mirror_body, perturb, read_captures
from kinflow.training.tasks.dynamics import RATES, encode_all

FLOORS = (0.0, 0.003, 0.01, 0.03, 0.1)


def gaussian(mean: Tensor, covariance: Tensor, x: Tensor) -> Tensor:
    """log N(x; mean, covariance), (N, D) -> (N,)."""
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def poses_of(captures: list[Capture], rate: float) -> tuple[Tensor, Tensor]:
    """Rotations (N, 21, 3, 3) at about ``rate`` Hz and the clip each belongs to (N,)."""
    parts = [c.body_pose[:: max(1, round(c.fps / rate))] for c in captures]
    clip = torch.cat([torch.full((len(p),), i) for i, p in enumerate(parts)])
    return rotvec_to_rotmat(torch.cat(parts)), clip


def chart_gaussian(flow: PoseFlow, train: Tensor, validation: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """log-density of a full-covariance Gaussian on the flow's chart, with the floor that validates best."""

    def coordinates(rotmat: Tensor) -> tuple[Tensor, Tensor]:
        u, log_det = flow.chart(rotmat)
        return u.flatten(-2).double(), log_det.double()

    x, _ = coordinates(torch.cat((train, mirror_body(train))))
    covariance, mean = torch.cov(x.T), x.mean(0)
    eye = torch.eye(63, dtype=torch.float64)

    def score(rotmat: Tensor, floor: float) -> Tensor:
        y, log_det = coordinates(rotmat)
        return gaussian(mean, covariance + (floor**2 + 1e-6) * eye, y) + log_det

    best = max(FLOORS, key=lambda floor: float(score(validation, floor).mean()))
    return score(test, best), best


def tracks(flow: PoseFlow, captures: list[Capture], noise: float, seed: int) -> list[Tensor]:
    """Latents of each clip at its own rate."""
    generator = torch.Generator().manual_seed(seed)
    return [
        encode_all(flow, perturb(rotvec_to_rotmat(c.body_pose), noise, generator), torch.device("cpu"))
        for c in captures
    ]


def at_rate(z: Tensor, source_fps: float, rate: float) -> tuple[Tensor, Tensor]:
    """Frames of one clip at about ``rate`` Hz, with their own time stamps."""
    count = int((len(z) - 1) * rate / source_fps) + 1
    frames = torch.unique(torch.round(torch.arange(count) * source_fps / rate).long().clamp(max=len(z) - 1))
    return z[frames], frames.double() / source_fps


def residuals(z: Tensor, times: Tensor, velocity: bool) -> Tensor:
    """What last-frame or constant-velocity prediction misses, from the third frame on."""
    if not velocity:
        return z[2:] - z[1:-1]
    dt = torch.diff(times).to(z.dtype)[:, None]
    return z[2:] - z[1:-1] - (z[1:-1] - z[:-2]) / dt[:-1] * dt[1:]


def batched(dynamics: LatentDynamics, parts: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """log-densities of each clip's frames, all clips in one batch (their values do not depend on it)."""
    frames = max(len(z) for z, _ in parts)
    z = torch.zeros(len(parts), frames, 63)
    times = torch.arange(frames, dtype=torch.float64).repeat(len(parts), 1)
    valid = torch.zeros(len(parts), frames, dtype=torch.bool)
    for i, (own, stamps) in enumerate(parts):
        n = len(own)
        z[i, :n], times[i, :n], valid[i, :n] = own, stamps, True
        times[i, n:] = stamps[-1] + 0.01 * torch.arange(1, frames - n + 1)
    log_prob = dynamics.log_prob(z, times, valid)
    return [log_prob[i, : len(own)] for i, (own, _) in enumerate(parts)]


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data/mocap.npz"))
    parser.add_argument("--flow", type=Path, default=None)
    parser.add_argument("--dynamics", type=Path, default=None)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds of each test clip that are used")
    args = parser.parse_args()
    console = Console(width=110)
    flow = load_flow(args.flow)
    splits = {s: read_captures(args.data, s) for s in ("train", "validation", "test")}
    hashes = [
        load_weights(path or asset_path(f"{name}.safetensors"))[2]["config_hash"]
        for name, path in (("flow", args.flow), ("dynamics", args.dynamics))
    ]
    console.print(
        f"commit {commit()}, flow config {hashes[0]}, dynamics config {hashes[1]}, data {args.data.name}: "
        + ", ".join(
            f"{k} {len(v)} runs {sum(len(c.body_pose) / c.fps for c in v) / 60:.1f} min" for k, v in splits.items()
        )
    )

    train, _ = poses_of(splits["train"], 10)
    validation, _ = poses_of(splits["validation"], 5)
    test, clip = poses_of(splits["test"], 10)
    table = Table(title=f"Held-out poses, nats a pose ({len(test)} poses)")
    for column in ("poses", "Gaussian, full covariance", "its floor, rad", "flow", "gain", "poses the flow wins"):
        table.add_column(column, justify="right")
    for name, size in (("as captured", 0.0), ("0.01 rad noise", 0.01)):
        generator = torch.Generator().manual_seed(0)
        rotmat = perturb(test, size, generator)
        other, floor = chart_gaussian(flow, train, perturb(validation, size, generator), rotmat)
        own = torch.cat([flow.log_prob(part) for part in rotmat.split(1024)]).double()
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in (by_clip(v, clip) for v in (other, own, own - other))]
        table.add_row(name, cells[0], f"{floor:g}", *cells[1:], f"{float((own > other).double().mean()):.1%}")
    console.print(table)

    noise = DynamicsTrainingConfig().dequantise
    dynamics = load_dynamics(args.dynamics)
    training, testing = (tracks(flow, splits[s], noise, i) for i, s in enumerate(("train", "test")))
    table = Table(title="Held-out motion, nats a frame in latents (one-step prediction)")
    for column in ("frame rate", "last frame", "constant velocity", "dynamics", "gain over the better"):
        table.add_column(column, justify="right")
    for rate in RATES:
        fitted = []
        for velocity in (False, True):
            missed = torch.cat(
                [residuals(*at_rate(z, c.fps, rate), velocity) for z, c in zip(training, splits["train"], strict=True)]
            ).double()
            fitted.append(missed.T @ missed / len(missed) + 1e-8 * torch.eye(63, dtype=torch.float64))
        parts = [
            at_rate(z[: int(args.longest * c.fps)], c.fps, rate) for z, c in zip(testing, splits["test"], strict=True)
        ]
        parts = [(z, times) for z, times in parts if len(z) >= 3]
        values: list[list[Tensor]] = [[], [], [own[2:].double() for own in batched(dynamics, parts)]]
        for z, times in parts:
            for j, velocity in enumerate((False, True)):
                missed = residuals(z, times, velocity).double()
                values[j].append(gaussian(torch.zeros(63, dtype=torch.float64), fitted[j], missed))
        index = [torch.full((len(z) - 2,), i) for i, (z, _) in enumerate(parts)]
        last, constant, own = (torch.cat(v) for v in values)
        clip = torch.cat(index)
        better = max((last, constant), key=lambda v: float(v.mean()))
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in (by_clip(v, clip) for v in (last, constant, own, own - better))]
        table.add_row(f"{rate:.0f} Hz", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
