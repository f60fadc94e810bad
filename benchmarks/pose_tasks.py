"""The tasks of the single-pose benchmark: likelihood, hidden limbs, noisy rotations, 2D keypoints, cost."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peers.poses.base import PosePrior, in_parts
from peers.poses.estimates import (
    LIMBS,
    Poses,
    Search,
    Setting,
    Skeleton,
    conditional_mean,
    degrees,
    hidden_joints,
    moved_joints,
    noisy,
    random_views,
)
from peers.poses.mixture import MixturePrior
from peers.poses.training import NOISE
from peers.poses.vae import VaePrior
from rich.console import Console
from torch import Tensor

from kinflow.flow.chart import RotationChart
from kinflow.skeleton import NUM_BODY

OWN = "kinflow flow"
LR = {"rotations": (0.02, 0.06), "latents": (0.1, 0.3)}
TOLERANCES = (0.1, 0.3)
WEIGHTS = (1.0, 3.0, 10.0, 30.0)
NOISES = (5.0, 10.0)
COST_POSES = 2400


@dataclasses.dataclass
class Contestant:
    """A prior under one name: one trained prior a seed; ``captured``: for likelihoods of poses without noise."""

    name: str
    priors: list[PosePrior]
    captured: list[PosePrior]
    about: str

    @property
    def modes(self) -> tuple[str, ...]:
        """How poses can be searched for under it."""
        prior = self.priors[0]
        if isinstance(prior, VaePrior):
            return ("latents",)
        return ("rotations", "latents") if prior.latent_dim else ("rotations",)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    poses: int = 100
    tuning: int = 24
    steps: int = 60
    vae_samples: int = 200
    flow_samples: int = 64
    rate: float = 5.0


QUICK = Sizes(poses=12, tuning=6, steps=4, vae_samples=8, flow_samples=4, rate=0.5)


@dataclasses.dataclass
class Errors:
    """Errors (N,) a pose of one row of a table, one tensor a seed, by condition and unit."""

    values: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)

    def add(self, key: str, value: Tensor) -> None:
        self.values.setdefault(key, []).append(value.double())

    def mean(self, key: str) -> Tensor:
        """Averaged over seeds (N,)."""
        return torch.stack(self.values[key]).mean(0)

    def seeds(self, key: str) -> float | None:
        """Standard deviation of the seeds' means; None of one seed."""
        means = [float(v.mean()) for v in self.values[key]]
        return statistics.stdev(means) if len(means) > 1 else None


# -- likelihood -------------------------------------------------------------------------------------------------------


def likelihood(contestants: list[Contestant], test: Poses, sizes: Sizes) -> dict[str, Errors]:
    """Held-out nats a pose of every contestant, with noise and as captured."""
    rows: dict[str, Errors] = {c.name: Errors() for c in contestants}
    for noise in (NOISE, 0.0):
        rotmat = noisy(test.rotmat, noise, 0)
        for contestant in contestants:
            errors = rows[contestant.name]
            for i, prior in enumerate(contestant.priors):
                samples = sizes.vae_samples if isinstance(prior, VaePrior) else sizes.flow_samples
                generator = torch.Generator().manual_seed(i)
                size = max(8, 4096 // samples) if prior.bound else 512
                value = nats_of(prior, rotmat, samples, size, generator)
                errors.add(f"{NOISE:g} rad noise" if noise else "as captured", value)
                if not noise:
                    lower = contestant.captured[i]
                    value = value if lower is prior else nats_of(lower, rotmat, samples, size, generator)
                    errors.add("as captured, lower floor", value)
    return rows


@torch.no_grad()
def nats_of(prior: PosePrior, rotmat: Tensor, samples: int, size: int, generator: torch.Generator) -> Tensor:
    """log-density (N,) of poses, ``size`` at a time."""
    return in_parts(lambda x: prior.log_prob(x, samples, generator), rotmat, size)


# -- estimates --------------------------------------------------------------------------------------------------------


class Bench:
    """The three estimation tasks, on tuning and on test poses."""

    def __init__(self, chart: RotationChart, tuning: Poses, test: Poses, steps: int) -> None:
        self.chart, self.steps, self.skeleton = chart, steps, Skeleton()
        self.poses = {"tuning": tuning, "test": test}
        self.noisy = {
            (part, deg): noisy(p.rotmat, math.radians(deg), seed)
            for seed, (part, p) in enumerate(self.poses.items())
            for deg in NOISES
        }
        self.views = {
            part: random_views(p, self.skeleton, seed + 7) for seed, (part, p) in enumerate(self.poses.items())
        }
        self.chosen: dict[tuple[str, str, str], tuple[float, Setting]] = {}

    def hidden(self, part: str, limb: str, complete: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        true, joints = self.poses[part].rotmat, hidden_joints(limb)
        found = complete(true, joints)
        return {
            f"{limb}, deg": degrees(found, true, joints),
            f"{limb}, mm": self.skeleton.millimetres(found, true, moved_joints(limb)),
        }

    def cleaned(self, part: str, deg: float, clean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        true, given = self.poses[part].rotmat, self.noisy[part, deg]
        found = clean(given)
        mm = self.skeleton.millimetres(found, true, list(range(1, 24)))
        return {f"{deg:g} deg noise, deg": degrees(found, true), f"{deg:g} deg noise, mm": mm}

    def fitted(self, part: str, fit: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        true = self.poses[part].rotmat
        found = fit(self.views[part])
        mm = self.skeleton.millimetres(found, true, list(range(1, 24)))
        return {"2D fit, mm": mm, "2D fit, deg": degrees(found, true)}

    def choose(
        self, key: tuple[str, str, str], settings: Sequence[Setting], run: Callable[[Setting], Tensor]
    ) -> Setting:
        """The setting with the least mean error on the tuning poses; kept for the other seeds."""
        if key not in self.chosen:
            scores = [float(torch.nan_to_num(run(s), 1e3).mean()) for s in settings]
            best = min(range(len(settings)), key=scores.__getitem__)
            self.chosen[key] = (scores[best], settings[best])
        return self.chosen[key][1]

    def tasks(self, name: str, mode: str, prior: PosePrior, with_prior: bool = True) -> dict[str, Tensor]:
        """All errors of one prior in one mode on the test poses."""
        out: dict[str, Tensor] = {}
        search = Search(prior, mode, self.chart, self.steps)
        rates = [Setting(lr) for lr in LR[mode]]
        if with_prior:
            ways = rates if mode == "rotations" else [Setting(lr, t) for lr in LR[mode] for t in TOLERANCES]
            way = self.choose((name, mode, "hidden limbs"), ways, lambda s: self.hidden(
                "tuning", "left arm", lambda r, j: search.complete(r, j, s))["left arm, mm"])  # fmt: skip
            for limb in LIMBS:
                out |= self.hidden("test", limb, lambda r, j: search.complete(r, j, way))
            level = max(NOISES)
            rate = self.choose((name, mode, "noisy rotations"), rates, lambda s: self.cleaned(
                "tuning", level, lambda r: search.clean(r, math.radians(level), s)
            )[f"{level:g} deg noise, deg"])  # fmt: skip
            for deg in NOISES:
                out |= self.cleaned("test", deg, lambda r, d=deg: search.clean(r, math.radians(d), rate))
        ways = [Setting(lr, w) for lr in LR[mode] for w in (WEIGHTS if with_prior else (0.0,))]
        way = self.choose((name, mode, "2D keypoints"), ways, lambda s: self.fitted(
            "tuning", lambda v: search.fit(v, s))["2D fit, mm"])  # fmt: skip
        return out | self.fitted("test", lambda v: search.fit(v, way))

    def baselines(self) -> dict[str, Errors]:
        """What needs no prior: the training's mean pose, the observation itself, keypoints alone."""
        mean, alone = Errors(), Errors()
        for limb in LIMBS:
            for key, value in self.hidden(
                "test", limb, lambda r, j: torch.where(j[:, None, None], self.chart.mean_rotmat, r)
            ).items():
                mean.add(key, value)
        for deg in NOISES:
            for key, value in self.cleaned("test", deg, lambda r: r).items():
                alone.add(key, value)
        for key, value in self.fitted(
            "test", lambda v: self.chart.mean_rotmat.expand(len(v.root), NUM_BODY, 3, 3)
        ).items():
            mean.add(key, value)
        for key, value in self.tasks("no prior", "rotations", PosePrior(), with_prior=False).items():
            alone.add(key, value)
        return {"training mean": mean, "no prior": alone}


def estimates(
    contestants: list[Contestant], bench: Bench, console: Console
) -> tuple[dict[str, Errors], dict[str, str]]:
    """Errors of every row, and the row of each contestant and task that validation prefers."""
    rows = bench.baselines()
    for contestant in contestants:
        for mode in contestant.modes:
            began = time.monotonic()
            errors = rows[f"{contestant.name}, {mode}"] = Errors()
            for prior in contestant.priors:
                for key, value in bench.tasks(contestant.name, mode, prior).items():
                    errors.add(key, value)
            console.print(f"{contestant.name}, {mode}: {time.monotonic() - began:.0f} s")
        if isinstance(contestant.priors[0], MixturePrior):
            errors = rows[f"{contestant.name}, conditional mean"] = Errors()
            for prior in contestant.priors:
                for limb in LIMBS:
                    for key, value in bench.hidden(
                        "test", limb, lambda r, j, p=prior: conditional_mean(p, r, j)
                    ).items():
                        errors.add(key, value)
    preferred = {}
    for contestant in contestants:
        for task in ("hidden limbs", "noisy rotations", "2D keypoints"):
            mode = min(contestant.modes, key=lambda m: bench.chosen[contestant.name, m, task][0])
            preferred[f"{contestant.name}: {task}"] = f"{contestant.name}, {mode}"
    return rows, preferred


# -- cost -------------------------------------------------------------------------------------------------------------


def cost(contestants: list[Contestant], test: Poses, repeats: int) -> dict[str, float]:
    """Milliseconds for the density of 2,400 poses and its gradient by the rotations; the median of some runs."""
    rotmat = test.rotmat.repeat(math.ceil(COST_POSES / len(test.rotmat)), 1, 1, 1)[:COST_POSES]
    out = {}
    for contestant in contestants:
        prior, times = contestant.priors[0], []
        for _ in range(repeats + 1):
            free = rotmat.clone().requires_grad_(True)
            began = time.perf_counter()
            torch.autograd.grad(prior.log_prob(free).sum(), [free])
            times.append(time.perf_counter() - began)
        out[contestant.name] = 1000 * statistics.median(times[1:])
    return out
