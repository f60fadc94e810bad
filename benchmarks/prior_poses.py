"""kinflow's prior over single poses beside its peers: likelihood, hidden limbs, noisy rotations, 2D keypoints, cost.

    python benchmarks/prior_poses.py [--data data/mocap.npz] [--study runs/study] [--seeds 0 1 2] [--quick]

Peers: a Gaussian and Gaussian mixtures (8 and 32 full covariances), a VAE with VPoser's architecture, zuko's neural
spline flow, the paper's RealNVP on the 6D form, and kinflow's flow with affine couplings. All learn from the train
split and are tuned on the validation split; nothing is chosen on the test split. Networks see augmented poses as
kinflow's flow does (the share of poses with another's upper body is chosen for each) and stop early by validation.
Densities: nats a pose with respect to the Haar measure on SO(3)^21. For the VAE and the 6D flow they are
importance-weighted lower bounds, so the gap to these is an upper bound.

Estimation tasks: every prior gets the same starting poses, the same optimiser and the same number of evaluations; step
size (of two) and weights are chosen for each prior on the validation split, with the first seed. "rotations":
the search is over the free joints' chart coordinates, under the density over rotations. "latents": over z with
|z|^2 / 2, the natural use of VAEs and flows. Of a prior with both, "*" marks the one that validation prefers. zuko's flow is
autoregressive, so that a decoding takes 63 passes: it is used in rotations alone. A mixture's energy is stiff (its
narrowest axes are 0.01 rad wide), so that this many steps of Adam do not reach its maximum; where it has a closed form,
the conditional mean of hidden joints, that is a row of its own. The maximum of a flow's density is reached, but it is
not the mean. The spread is the standard error over clips; in brackets, the standard deviation of the seeds' means.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from likelihood import by_clip
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
    poses_of,
    random_views,
)  # fmt: skip
from peers.poses.flows import read_flow, trained_flow
from peers.poses.mixture import MixturePrior
from peers.poses.report import Errors, Report, bars, cell, record
from peers.poses.training import GRADIENT, MIXTURES, NOISE, Cache, Peers, settings_of
from peers.poses.vae import VaePrior
from rich.console import Console
from torch import Tensor

from kinflow.config import config_hash
from kinflow.errors import MissingAssetError
from kinflow.flow.chart import RotationChart
from kinflow.skeleton import NUM_BODY
from kinflow.training.poses import read_captures

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


# -- likelihood -------------------------------------------------------------------------------------------------------


def likelihood(contestants: list[Contestant], test: Poses, sizes: Sizes) -> tuple[Report, dict[str, Errors]]:
    """Held-out nats a pose, with noise and as captured."""
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
    report = Report(
        f"Held-out poses, nats a pose ({len(test.clip)} poses of {len(test.clip.unique())} clips, {sizes.rate:g} Hz)",
        ["prior", *(c for key in rows[OWN].values for c in (key, f"{OWN} gains")), "poses won", "settings"],
        notes=[
            "± standard error over clips, in brackets the seeds' standard deviation; poses won: with noise. ≥: a lower "
            f"bound, {sizes.vae_samples} (VAE) or {sizes.flow_samples} (6D) importance samples.",
            f"Networks learn with noise of {NOISE:g} rad, and mixtures get the floor that validates best under it. The "
            "last pair gives mixtures the floor that validates best without noise: joints that the capture never moves "
            "then decide, and the figure grows without limit as the floor falls.",
        ],
    )
    for contestant in contestants:
        name, errors = contestant.name, rows[contestant.name]
        bound = "≥ " if contestant.priors[0].bound else ""
        cells = [name]
        for key in errors.values:
            mean, error = by_clip(rows[OWN].mean(key) - errors.mean(key), test.clip)
            cells += [bound + cell(errors, key, test.clip), "" if name == OWN else f"{mean:+.2f} ± {error:.2f}"]
        first = next(iter(errors.values))
        won = float((rows[OWN].mean(first) > errors.mean(first)).double().mean())
        report.rows.append([*cells, "" if name == OWN else f"{won:.0%}", contestant.about])
    return report, rows


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


TASKS = {
    "hidden limbs": [f"{limb}, {unit}" for limb in LIMBS for unit in ("deg", "mm")],
    "noisy rotations": [f"{deg:g} deg noise, {unit}" for deg in NOISES for unit in ("deg", "mm")],
    "2D keypoints": ["2D fit, mm", "2D fit, deg"],
}
HEADLINES = {"hidden limbs": "both arms, mm", "noisy rotations": "10 deg noise, deg", "2D keypoints": "2D fit, mm"}


def task_report(task: str, rows: dict[str, Errors], preferred: dict[str, str], test: Poses, sizes: Sizes) -> Report:
    """One task's table, with the difference to kinflow's flow pose by pose."""
    keys, headline = TASKS[task], HEADLINES[task]
    own = rows[preferred[f"{OWN}: {task}"]]
    report = Report(
        f"{task[0].upper()}{task[1:]} ({len(test.clip)} test poses, {sizes.steps} evaluations)",
        ["prior", *keys, f"less {OWN}: {headline}"],
        notes=["* the mode that validation prefers. Last column: error less that of the preferred "
               f"{OWN}, pose by pose; positive: {OWN} is nearer to the truth."],
    )  # fmt: skip
    for name, errors in rows.items():
        if keys[0] not in errors.values:
            continue
        star = "*" if name in [v for k, v in preferred.items() if k.endswith(task)] else ""
        mean, error = by_clip(errors.mean(headline) - own.mean(headline), test.clip)
        gap = "" if errors is own else f"{mean:+.2f} ± {error:.2f}"
        report.rows.append([name + star, *(cell(errors, k, test.clip, 1) for k in keys), gap])
    return report


# -- cost -------------------------------------------------------------------------------------------------------------


def cost(contestants: list[Contestant], test: Poses, repeats: int) -> tuple[Report, dict[str, float]]:
    """Milliseconds for the density of 2,400 poses and its gradient by the rotations; the median of some runs."""
    rotmat = test.rotmat.repeat(math.ceil(COST_POSES / len(test.rotmat)), 1, 1, 1)[:COST_POSES]
    report = Report(
        f"log_prob and gradient of {COST_POSES} poses, {torch.get_num_threads()} threads",
        ["prior", "ms", "parameters"],
        notes=["Bounds with one sample. The median of a few runs; other work on the machine shows in it."],
    )
    out = {}
    for contestant in contestants:
        prior, times = contestant.priors[0], []
        for _ in range(repeats + 1):
            free = rotmat.clone().requires_grad_(True)
            began = time.perf_counter()
            torch.autograd.grad(prior.log_prob(free).sum(), [free])
            times.append(time.perf_counter() - began)
        out[contestant.name] = 1000 * statistics.median(times[1:])
        numbers = sum(p.numel() for p in prior.parameters())
        if isinstance(prior, MixturePrior):
            numbers = prior.weights.numel() + prior.means.numel() + prior.means.shape[0] * 63 * 64 // 2
        report.rows.append([contestant.name, f"{out[contestant.name]:.0f}", f"{numbers:,}"])
    return report, out


# -- all --------------------------------------------------------------------------------------------------------------


def contestants_of(
    peers: Peers,
    flows: Sequence[Path | None],
    seeds: Sequence[int],
    study: Path,
    console: Console,
    without: Sequence[str] = (),
) -> tuple[list[Contestant], dict[str, str]]:
    """Every prior but those ``without``, fitted or read; those without weights are left out with the command that makes
    them."""
    out, hashes = [], {}
    for count, name in MIXTURES.items():
        if name in without:
            continue
        fits = [peers.mixture(count, s) for s in (seeds[:1] if count == 1 else seeds)]
        out.append(Contestant(name, [f.prior for f in fits], [f.captured or f.prior for f in fits], fits[0].chosen))
    for kind, name in GRADIENT.items():
        if name in without:
            continue
        fits = [peers.trained(kind, s) for s in seeds]
        out.append(Contestant(name, [f.prior for f in fits], [f.prior for f in fits], fits[0].chosen))
        hashes[name] = config_hash(settings_of(kind, seeds[0], peers.quick))
    for variant, name in (("rot6d", "RealNVP-6D (paper)"), ("affine", "kinflow affine")):
        try:
            read = [read_flow(trained_flow(study, variant, s)) for s in seeds]
        except MissingAssetError as error:
            console.print(f"{name} is left out. {error}")
            continue
        hashes[name] = read[0][1]
        out.append(Contestant(name, [f for f, _ in read], [f for f, _ in read], f"config {read[0][1]}"))
    read = [read_flow(path) for path in flows]
    own: list[PosePrior] = [f for f, _ in read]
    if any(f.bound for f in own):
        raise MissingAssetError(
            "flow: expected weights of a flow on the chart, got the 6D form's. Give those by --study."
        )
    hashes[OWN] = read[0][1]
    out.append(Contestant(OWN, own, own, f"config {read[0][1]}"))
    return out, hashes


def run(
    data: Path,
    flows: Sequence[Path | None],
    seeds: Sequence[int],
    out: Path,
    quick: bool,
    console: Console,
    study: Path = Path("runs/study"),
    without: Sequence[str] = (),
    tasks: bool = True,
) -> dict[str, Any]:
    """Measure everything; print it and write ``poses.json``, ``poses.md`` and plots to ``out``.

    Args:
        data: the prepared capture.
        flows: kinflow's flow, one file a seed; None: the packaged one.
        seeds: of the peers.
        out: folder; fitted peers are kept under ``out/peers``.
        quick: a smoke run on a few poses with hardly trained peers.
        study: folder of the trained variants, ``flow_VARIANT_SEED/flow.safetensors``.
        without: names of peers to leave out (the mixture of 32 and the VAE take longest to fit).
        tasks: the estimation tasks as well; otherwise the likelihoods alone, and nothing is written.

    Returns:
        What the JSON file holds.

    Raises:
        MissingAssetError: no such flow.
    """
    began, sizes = time.monotonic(), QUICK if quick else Sizes()
    splits = {s: read_captures(data, s) for s in ("train", "validation", "test")}
    peers = Peers(splits["train"], splits["validation"], Cache(out / "peers", data), quick)
    contestants, hashes = contestants_of(peers, flows, seeds, study, console, without)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    minutes = {k: sum(len(c.body_pose) / c.fps for c in v) / 60 for k, v in splits.items()}
    header = [
        f"commit {commit or 'unknown'}, data {data.name}: "
        + ", ".join(f"{k} {len({c.name for c in v})} clips {minutes[k]:.1f} min" for k, v in splits.items()),
        "configs: " + ", ".join(f"{k} {v}" for k, v in hashes.items()),
        f"{len(flows)} flows, seeds of the peers {', '.join(map(str, seeds))}" + (", QUICK" if quick else ""),
    ]
    for line in header:
        console.print(line)
    every = poses_of(splits["test"], sizes.rate)
    test = every.spread(sizes.poses)
    reports, results = [], {"header": header, "hashes": hashes, "seeds": list(seeds)}
    report, nats = likelihood(contestants, every, sizes)
    report.show(console)
    reports.append(report)
    results["likelihood"] = {k: record(v, every.clip) for k, v in nats.items()}
    if not tasks:
        return results
    bench = Bench(peers.chart, poses_of(splits["validation"], sizes.rate).spread(sizes.tuning), test, sizes.steps)
    rows, preferred = estimates(contestants, bench, console)
    results["estimates"] = {k: record(v, test.clip) for k, v in rows.items()}
    results["preferred"] = preferred
    results["chosen"] = {", ".join(k): [v, dataclasses.asdict(s)] for k, (v, s) in bench.chosen.items()}
    for task in TASKS:
        reports.append(task_report(task, rows, preferred, test, sizes))
        reports[-1].show(console)
    report, results["cost_ms"] = cost(contestants, every, 1 if quick else 3)
    report.show(console)
    reports.append(report)
    results["seconds"] = time.monotonic() - began
    write(out, results, reports, header)
    return results


def write(out: Path, results: dict[str, Any], reports: list[Report], header: list[str]) -> None:
    """``poses.json``, ``poses.md``, ``poses_likelihood.png`` and ``poses_tasks.png``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "poses.json").write_text(json.dumps(results, indent=1))
    text = "\n\n".join(["# Priors over single poses", *header, *(r.markdown() for r in reports)])
    (out / "poses.md").write_text(text)

    def pick(rows: dict[str, Any], key: str) -> dict[str, tuple[float, float]]:
        return {name: (r[key]["mean"], r[key]["clip_error"]) for name, r in rows.items() if key in r}

    keys = list(results["likelihood"][OWN])
    bars(out / "poses_likelihood.png", "Held-out likelihood", "nats a pose",
         {key: pick(results["likelihood"], key) for key in keys})  # fmt: skip
    bars(out / "poses_tasks.png", "Estimates with single-pose priors", "error",
         {key: pick(results["estimates"], key) for key in HEADLINES.values()})  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data/mocap.npz"))
    parser.add_argument("--flow", type=Path, nargs="*", default=None, help="one a seed; otherwise from --study")
    parser.add_argument("--packaged", action="store_true", help="the packaged flow instead of --study's")
    parser.add_argument("--study", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_prior"))
    parser.add_argument("--threads", type=int, default=0, help="torch's CPU threads; 0: leave")
    names = [*MIXTURES.values(), *GRADIENT.values()]
    parser.add_argument("--without", nargs="+", choices=names, default=[], metavar="PEER", help=", ".join(names))
    parser.add_argument("--likelihood", action="store_true", help="the likelihoods alone; writes nothing")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    seeds = args.seeds[:1] if args.quick else args.seeds
    flows: list[Path | None] = args.flow or (
        [None] if args.packaged else [trained_flow(args.study, "spline", s) for s in seeds]
    )
    console = Console(width=190)
    run(args.data, flows, seeds, args.out, args.quick, console, args.study, args.without, not args.likelihood)


if __name__ == "__main__":
    main()
