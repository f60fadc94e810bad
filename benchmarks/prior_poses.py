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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peers.poses.base import PosePrior
from peers.poses.estimates import poses_of
from peers.poses.flows import read_flow, trained_flow
from peers.poses.training import GRADIENT, MIXTURES, Cache, Peers, settings_of
from pose_report import TASKS, cost_report, likelihood_report, record, task_report, write
from pose_tasks import OWN, QUICK, Bench, Contestant, Sizes, cost, estimates, likelihood
from reporting import commit
from rich.console import Console

from kinflow.config import config_hash
from kinflow.errors import MissingAssetError
from kinflow.training.poses import read_captures


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
    minutes = {k: sum(len(c.body_pose) / c.fps for c in v) / 60 for k, v in splits.items()}
    header = [
        f"commit {commit()}, data {data.name}: "
        + ", ".join(f"{k} {len({c.name for c in v})} clips {minutes[k]:.1f} min" for k, v in splits.items()),
        "configs: " + ", ".join(f"{k} {v}" for k, v in hashes.items()),
        f"{len(flows)} flows, seeds of the peers {', '.join(map(str, seeds))}" + (", QUICK" if quick else ""),
    ]
    for line in header:
        console.print(line)
    every = poses_of(splits["test"], sizes.rate)
    test = every.spread(sizes.poses)
    reports, results = [], {"header": header, "hashes": hashes, "seeds": list(seeds)}
    nats = likelihood(contestants, every, sizes)
    reports.append(likelihood_report(nats, contestants, every, sizes))
    reports[-1].show(console)
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
    results["cost_ms"] = cost(contestants, every, 1 if quick else 3)
    reports.append(cost_report(results["cost_ms"], contestants))
    reports[-1].show(console)
    results["seconds"] = time.monotonic() - began
    write(out, results, reports, header)
    return results


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
