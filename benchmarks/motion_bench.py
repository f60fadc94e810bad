"""What the over-time benchmark's tasks share: data, priors, sizes, and the peers once they are fitted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peers.motion import fitted
from peers.motion.coordinates import Latents, Tangent
from peers.motion.humor import HumorSettings
from peers.motion.kalman import Kalman
from torch import Tensor

import kinflow.evaluation.motion_windows as mt
from kinflow.evaluation.motion_windows import by_clip
from kinflow.prior import MotionPrior
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.poses import Capture, read_captures

NOISE = 0.002
"""rad, the training's dequantisation: every window whose likelihood is taken carries it."""

Score = Callable[[MotionPrior, Tensor, Tensor], Tensor]
Results = dict[str, Any]


def plausibility(prior: MotionPrior, body_pose: Tensor, timestamps: Tensor) -> Tensor:
    """(B,): by what the prior tells real windows (B, T, 21, 3, 3) at (B, T) s from broken ones."""
    return prior.plausibility(body_pose, timestamps)


@dataclasses.dataclass(eq=False)
class Bench:
    """What all tasks share: data, models, sizes, and the peers once they are fitted."""

    data: Path
    priors: dict[str, MotionPrior]
    seeds: Sequence[int]
    out: Path
    quick: bool = False
    windows: int = 64
    estimate_windows: int = 64
    tuning_windows: int = 24
    humor: HumorSettings = dataclasses.field(default_factory=HumorSettings)
    humor_samples: int = 64
    rates: tuple[str, ...] = tuple(mt.RATES)
    score: Score = plausibility

    def __post_init__(self) -> None:
        if self.quick:
            self.windows, self.estimate_windows, self.tuning_windows, self.humor_samples = 12, 3, 6, 8
            self.humor = dataclasses.replace(self.humor, steps=20, rollout_steps=3, every=10, hidden=128)
            self.rates, self.seeds = ("30 Hz", "jittered"), list(self.seeds)[:1]

    @functools.cached_property
    def splits(self) -> dict[str, list[Capture]]:
        """Runs of each split, at 60 Hz at most."""
        splits = {s: mt.thinned(read_captures(self.data, s)) for s in ("train", "validation", "test")}
        if self.quick:
            splits["train"] = sorted(splits["train"], key=lambda c: -len(c.body_pose))[::40]
        return splits

    @functools.cached_property
    def tangent(self) -> Tangent:
        """Rotation vectors about the training split's mean rotations."""
        return Tangent.fit(fitted.sampled(self.splits["train"]))

    def windows_of(self, split: str, rate: str, count: int, noise: float = 0.0) -> mt.MotionWindows:
        """Windows of a split at a rate."""
        return mt.windows(self.splits[split], rate, count, noise=noise)

    @functools.cached_property
    def fit_windows(self) -> int:
        """Training windows that the linear peers are fitted to."""
        return 120 if self.quick else 1000

    @functools.cached_property
    def plain_kalman(self) -> Kalman:
        """A filter on each rotation-vector component, for estimates; process noise by likelihood at 30 Hz."""
        own = self.windows_of("train", "30 Hz", 64 if self.quick else 256, NOISE)
        return Kalman.fit(self.tangent.encode(own.rotmat)[0], own.timestamps, whiten=False)

    @functools.cached_property
    def smoothers(self) -> fitted.Smoothers:
        """The classical denoisers."""
        return fitted.Smoothers(self.tangent, self.plain_kalman)

    @functools.cached_property
    def humors(self) -> list[fitted.HumorPeer]:
        """The conditional VAE at each seed."""
        folder = self.out / "peers"
        train, validation = self.splits["train"], self.splits["validation"]
        return [
            fitted.HumorPeer.load(folder, train, validation, self.tangent, NOISE, self.humor, seed)
            for seed in self.seeds
        ]

    @functools.cache  # noqa: B019  one bench a run
    def one_step(self, coordinates: str, rate: str) -> fitted.OneStep:
        """One-step peers at a rate, in the latents of a prior (by its name) or in rotation vectors ("tangent")."""
        space = self.tangent if coordinates == "tangent" else Latents(self.priors[coordinates].flow)
        own = self.windows_of("train", rate, self.fit_windows, NOISE)
        held = self.windows_of("validation", rate, 64, NOISE)
        x, y = (torch.cat([space.encode(p)[0] for p in w.rotmat.split(64)]) for w in (own, held))
        regular = self.one_step(coordinates, "30 Hz").autoregression if rate == "jittered" else None
        return fitted.OneStep.fit(x, own.timestamps, y, held.timestamps, regular)


def spread(values: Tensor | Sequence[Tensor], clip: Tensor) -> dict[str, Any]:
    """Mean and standard error over clips of values (B,), or of several seeds' values; then each seed's mean as well."""
    each = [values] if isinstance(values, Tensor) else list(values)
    mean, error = by_clip(torch.stack([v.double() for v in each]).mean(0), clip)
    out: dict[str, Any] = {"mean": mean, "se": error}
    if len(each) > 1:
        seeds = [by_clip(v, clip)[0] for v in each]
        out |= {"seeds": seeds, "seed_std": float(torch.tensor(seeds).std())}
    return out


def body(pose: Tensor) -> Tensor:
    """(..., 23, 3) rad of the prior -> (..., 21, 3, 3)."""
    return rotvec_to_rotmat(pose[..., :21, :])
