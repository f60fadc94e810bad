"""What a likelihood of motion must have, whatever it is used for.

Frame rates that agree, broken motion told from real, predictions that are calibrated, values that do not depend on the
batch, and its cost.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import torch
from motion_bench import NOISE, Bench, Results, body, spread
from torch import Tensor

import kinflow.evaluation.motion_windows as mt
from kinflow.rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat


@torch.no_grad()
def agreement(bench: Bench) -> Results:
    """Forecasts from one past sampled at different rates: how far they are from each other, over their own error."""
    ahead = (12, 30)
    future = torch.tensor(ahead, dtype=torch.float64) / mt.CAPTURED
    results: Results = {}
    shares: dict[str, list[dict[str, Tensor]]] = {}
    clip = torch.zeros(0)
    for prior in bench.priors.values():
        made = []
        for rate in bench.rates:
            past, target = mt.past_and_future(bench.splits["test"], rate, ahead, bench.windows)
            made.append(body(prior.forecast(past.rotmat, past.timestamps, future)))
            clip = past.clip
        each = torch.stack(made)  # (R, B, F, 21, 3, 3)
        u, _, vh = torch.linalg.svd(each.mean(0))
        sign = torch.ones_like(u[..., 0])
        sign[..., 2] = torch.det(u @ vh).sign()
        centre = (u * sign[..., None, :]) @ vh
        for i, frames in enumerate(ahead):
            off = torch.rad2deg(geodesic_distance(each[:, :, i], centre[:, i].expand_as(each[:, :, i]))).mean(-1)
            pairs = [
                mt.angle_error(each[a, :, i], each[b, :, i]) for a in range(len(each)) for b in range(a + 1, len(each))
            ]
            error = torch.stack([mt.angle_error(e[:, i], target[:, i]) for e in each]).mean(0)
            widest = max(pairs, key=lambda p: float(p.mean()))
            shares.setdefault(f"{1000 * frames / mt.CAPTURED:.0f} ms", []).append(
                {"off": off.mean(0), "widest": widest, "error": error}
            )
    for ahead_name, seeds in shares.items():
        row = {k: spread([s[k] for s in seeds], clip) for k in ("off", "widest", "error")}
        for part in ("off", "widest"):

            def ratio(index: Tensor, part: str = part, seeds: list[dict[str, Tensor]] = seeds) -> float:
                return sum(float(s[part][index].mean() / s["error"][index].mean()) for s in seeds) / len(seeds)

            everything = torch.arange(len(clip))
            row[f"{part} / error"] = {
                "mean": ratio(everything),
                "se": mt.bootstrap(ratio, clip),
                "seeds": [float(s[part].mean() / s["error"].mean()) for s in seeds],
            }
        results[ahead_name] = row
    return results


@torch.no_grad()
def detection(bench: Bench) -> Results:
    """Real against corrupted windows by :attr:`Bench.score`: AUC over all pairs, and the share of windows that score
    above their own corruption."""
    results: Results = {}
    for rate in bench.rates:
        plain = bench.windows_of("test", rate, bench.windows)
        rng = torch.Generator().manual_seed(3)
        swapped = mt.swapped_frames(plain.timestamps, rng, share=0.0, at_least=1)
        broken = {
            "shuffled": mt.shuffle_frames(plain.rotmat, rng),
            "jittered 2 deg": mt.perturb(plain.rotmat, math.radians(2), rng),
            "jittered 5 deg": mt.perturb(plain.rotmat, math.radians(5), rng),
            "swapped": mt.swap_sides(plain.rotmat, swapped),
        }
        results[rate] = {kind: {"auc": [], "paired": [], "se": []} for kind in broken}
        for prior in bench.priors.values():
            real = bench.score(prior, mt.perturb(plain.rotmat, NOISE, rng), plain.timestamps)
            for kind, rotmat in broken.items():
                own = bench.score(prior, mt.perturb(rotmat, NOISE, rng), plain.timestamps)
                row = results[rate][kind]
                row["auc"].append(mt.auc(real, own))
                row["paired"].append(float((real > own).double().mean()))
                row["se"].append(mt.bootstrap(lambda i, a=real, b=own: mt.auc(a[i], b[i]), plain.clip))
        for kind, row in results[rate].items():
            results[rate][kind] = {
                key: {"mean": sum(row[key]) / len(row[key]), "se": max(row["se"]), "seeds": row[key]}
                for key in ("auc", "paired")
            }
    return results


@torch.no_grad()
def calibration(bench: Bench) -> Results:
    """Share of latents inside the central 50 and 90 % of their one-step predictions, from the third frame on."""
    results: Results = {}
    for rate in bench.rates:
        test = bench.windows_of("test", rate, bench.windows, NOISE)
        found: dict[str, list[Tensor]] = {"50": [], "90": []}
        for prior in bench.priors.values():
            z = prior.chart.encode(test.rotmat)[0]
            off = (prior.dynamics.predictions(z, test.timestamps).cdf(z)[:, 2:] - 0.5).abs()
            for name, half in (("50", 0.25), ("90", 0.45)):
                found[name].append((off <= half).double().mean(1))  # (B, D)
        results[rate] = {}
        for name, each in found.items():
            row = spread([e.mean(-1) for e in each], test.clip)
            by_dim = torch.stack(each).mean((0, 1))
            row |= {"worst_latent": float((by_dim - int(name) / 100).abs().max()), "latents": by_dim.tolist()}
            results[rate][name] = row
    return results


@torch.no_grad()
def batch(bench: Bench) -> Results:
    """Largest difference of a frame's log_prob between a clip alone and in a padded batch of clips of other lengths.

    In float32 the sums of a larger batch round differently; float64 shows that nothing else differs.
    """
    test = bench.windows_of("test", "jittered", 8, NOISE)
    lengths = torch.linspace(20, test.rotmat.shape[1], 8).long()
    valid = torch.arange(test.rotmat.shape[1]) < lengths[:, None]
    results: Results = {}
    for name, single in bench.priors.items():
        for kind, prior in (("float32", single), ("float64", copy.deepcopy(single).double())):
            rotmat = test.rotmat.to(prior.dynamics.start.dtype)
            together = prior.log_prob(rotmat, test.timestamps, valid=valid)
            off, size = 0.0, 0.0
            for i, n in enumerate(lengths.tolist()):
                alone = prior.log_prob(rotmat[i : i + 1, :n], test.timestamps[i : i + 1, :n])[0]
                off = max(off, float((alone - together[i, :n]).abs().max()))
                size = max(size, float(alone.abs().max()))
            results[f"{name}, {kind}"] = {"largest_difference": off, "largest_value": size, "relative": off / size}
    return results


def cost(bench: Bench) -> Results:
    """Seconds of log_prob and its gradient for 8 clips of 300 frames at 60 Hz on 2 threads, each model's whole path."""
    frames = 30 if bench.quick else 300
    clips = [c.body_pose[:frames] for c in bench.splits["test"] if len(c.body_pose) >= frames][:8]
    pose = rotmat_to_rotvec(mt.perturb(rotvec_to_rotmat(torch.stack(clips)), NOISE, torch.Generator().manual_seed(0)))
    times = (torch.arange(frames, dtype=torch.float64) / 60).expand(len(pose), -1)
    name, prior = next(iter(bench.priors.items()))
    rate = "60 Hz" if "60 Hz" in bench.rates else "30 Hz"
    peers = bench.one_step(name, rate)
    calls: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kinflow": lambda p, t: prior.log_prob(p, t)}
    for peer in ("last frame", "constant velocity", "VAR(2)", "Kalman"):

        def linear(p: Tensor, t: Tensor, peer: str = peer) -> Tensor:
            z, log_det = prior.flow.encode(rotvec_to_rotmat(p))
            model = {"last frame": peers.last, "constant velocity": peers.velocity, "Kalman": peers.kalman}.get(peer)
            nats = peers.autoregression.log_prob(z) if model is None else model.log_prob(z, t)
            return nats + log_det[:, 2:]

        calls[peer] = linear
    calls["HuMoR-style CVAE (bound)"] = lambda p, t: bench.humors[0].log_prob(
        rotvec_to_rotmat(p), t, bench.humor_samples
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    results: Results = {}
    try:
        for model, call in calls.items():
            taken = []
            # A bound over 64 samples is differentiated clip by clip: all at once would need gigabytes.
            size = 1 if "CVAE" in model else len(pose)
            for _ in range(2 if bench.quick or size == 1 else 3):
                start = time.perf_counter()
                for part, stamps in zip(pose.split(size), times.split(size), strict=True):
                    given = part.clone().requires_grad_()
                    torch.autograd.grad(call(given, stamps).sum(), given)
                taken.append(time.perf_counter() - start)
            results[model] = {
                "seconds": {"mean": sum(taken[1:]) / len(taken[1:]), "se": max(taken[1:]) - min(taken[1:])}
            }
    finally:
        torch.set_num_threads(threads)
    return results
