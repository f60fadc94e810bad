"""What the prior is for, against its peers over time: likelihood, denoising, filling gaps and forecasting.

Each task takes the bench and gives its numbers, with their spread over clips and over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from motion_bench import NOISE, Bench, Results, body, spread
from peers.motion import fitted
from peers.motion.interpolation import cubic, slerp
from torch import Tensor

import kinflow.evaluation.motion_windows as mt

GAPS = (0.2, 0.5, 1.0)
DEGREES = (2.0, 5.0, 10.0)
KINDS = ("noise", "drops", "swaps")
AHEAD = {80: 5, 160: 10, 320: 19, 400: 24, 560: 34, 1000: 60}
"""ms -> captured frames after the last: 83, 167, 317, 400, 567 and 1000 ms, so that the truth is a captured frame."""


@torch.no_grad()
def likelihood(bench: Bench) -> Results:
    """One-step predictive likelihood: nats a frame with respect to the Haar measure, from the third frame on."""
    results: Results = {}
    for rate in bench.rates:
        test = bench.windows_of("test", rate, bench.windows, NOISE)
        values: dict[str, list[Tensor]] = {}
        for name, prior in bench.priors.items():
            own = torch.cat(
                [
                    prior.log_prob(r, t)[:, 2:]
                    for r, t in zip(test.rotmat.split(32), test.timestamps.split(32), strict=True)
                ]
            )
            values.setdefault("kinflow", []).append(own.mean(1))
            z, log_det = prior.flow.encode(test.rotmat)
            for peer, nats in bench.one_step(name, rate).log_prob(z, test.timestamps).items():
                values.setdefault(peer, []).append((nats + log_det[:, 2:]).mean(1))
        x, log_det = bench.tangent.encode(test.rotmat)
        tangent = bench.one_step("tangent", rate).log_prob(x, test.timestamps)
        values["Kalman, rotation vectors"] = [(tangent["Kalman"] + log_det[:, 2:]).mean(1)]
        values["VAR(2), rotation vectors"] = [(tangent["VAR(2)"] + log_det[:, 2:]).mean(1)]
        values["HuMoR-style CVAE (bound)"] = [
            peer.log_prob(test.rotmat, test.timestamps, bench.humor_samples).mean(1) for peer in bench.humors
        ]
        mine = values["kinflow"]
        results[rate] = {}
        for peer, each in values.items():
            count = max(len(each), len(mine))
            gap = [mine[i % len(mine)] - each[i % len(each)] for i in range(count)]
            results[rate][peer] = {"nats": spread(each, test.clip)}
            if peer != "kinflow":
                results[rate][peer]["gap"] = spread(gap, test.clip)
    return results


def tuned(bench: Bench, rate: str, degrees: float, kind: str) -> dict[str, tuple[float, ...]]:
    """Settings of the classical filters with the least joint angle error on validation, and the least acceleration
    error (named "..., steady")."""
    noisy = mt.corrupt(bench.windows_of("validation", rate, bench.tuning_windows), degrees, kind, seed=1)
    out: dict[str, tuple[float, ...]] = {}
    for name in fitted.NAMES:
        scored = []
        for settings in bench.smoothers.grid(name):
            if name == "Savitzky-Golay" and settings[0] > noisy.rotmat.shape[1]:
                continue
            made = bench.smoothers.run(
                name, settings, noisy.rotmat, noisy.truth.timestamps, noisy.valid, math.radians(degrees)
            )
            found = mt.errors(made, noisy.truth)
            scored.append((float(found["deg"].mean()), float(found["acc"].mean()), settings))
        out[name] = min(scored)[2]
        out[f"{name}, steady"] = min(scored, key=lambda s: s[1])[2]
    return out


def denoise(bench: Bench) -> Results:
    """Noise, drop-outs and left-right swaps at 30 and 60 Hz: joint angle, joint position and acceleration error."""
    results: Results = {}
    for rate in [r for r in ("30 Hz", "60 Hz") if not bench.quick or r == "30 Hz"]:
        truth = bench.windows_of("test", rate, bench.windows).first(bench.estimate_windows)
        for kind in KINDS:
            for degrees in DEGREES if not bench.quick else (5.0,):
                noise = math.radians(degrees)
                noisy = mt.corrupt(truth, degrees, kind)
                times, valid = truth.timestamps, noisy.valid
                made = {"noisy": [slerp(noisy.rotmat, times, valid)]}
                settings = tuned(bench, rate, degrees, kind)
                for name, choice in settings.items():
                    own = bench.smoothers.run(name.split(",")[0], choice, noisy.rotmat, times, valid, noise)
                    made[name] = [own]
                made["kinflow"] = [
                    torch.cat(
                        [
                            body(prior.denoise(r, t, noise=noise, valid=v)).detach()
                            for r, t, v in zip(noisy.rotmat.split(16), times.split(16), valid.split(16), strict=True)
                        ]
                    )
                    for prior in bench.priors.values()
                ]
                results[f"{rate}, {kind}, {degrees:g} deg"] = _compared(made, truth, settings)
    return results


def _compared(
    made: dict[str, list[Tensor]], truth: mt.MotionWindows, settings: dict[str, Any] | None = None
) -> Results:
    """Each model's errors, and how far the prior lies below the best of the classical ones, metric by metric."""
    found: Results = {}
    values = {name: [mt.errors(r, truth) for r in each] for name, each in made.items()}
    for name, each in values.items():
        found[name] = {m: spread([e[m] for e in each], truth.clip) for m in ("deg", "mm", "acc")}
        if settings and name in settings:
            found[name]["settings"] = list(settings[name])
    for metric in ("deg", "mm", "acc"):
        classical = [n for n in values if n not in ("noisy", "kinflow")]
        best = min(classical, key=lambda n: found[n][metric]["mean"])
        level = found[best][metric]["mean"]
        saved = [(values[best][0][metric] - e[metric]) / level for e in values["kinflow"]]
        found["kinflow"][metric] |= {"best_peer": best, "reduction": spread(saved, truth.clip)}
    return found


def infill(bench: Bench) -> Results:
    """Gaps in the middle of 2.5 s at 30 Hz: errors inside the gap."""
    results: Results = {}
    truth = bench.windows_of("test", "30 Hz", bench.windows).first(bench.estimate_windows)
    times = truth.timestamps
    for gap in GAPS:
        middle = float(times[0, -1]) / 2
        hidden = (times - middle).abs() < gap / 2 - 1e-6
        valid = ~hidden
        blank = torch.where(valid[..., None, None, None], truth.rotmat, torch.eye(3))
        made = {"slerp": [slerp(blank, times, valid)], "cubic": [cubic(blank, times, valid)]}
        track = bench.tangent.track(made["slerp"][0])
        own = bench.tangent.decode(bench.plain_kalman.smooth(track, times, valid))
        made["Kalman smoother"] = [torch.where(valid[..., None, None, None], blank, own)]
        made["kinflow"] = [
            torch.cat(
                [
                    body(prior.infill(r, t, valid=v)).detach()
                    for r, t, v in zip(blank.split(16), times.split(16), valid.split(16), strict=True)
                ]
            )
            for prior in bench.priors.values()
        ]
        inside = hidden[0].nonzero()[:, 0]
        part = mt.MotionWindows(truth.rotmat[:, inside], times[:, inside], truth.clip)
        results[f"{gap:g} s"] = _compared({k: [r[:, inside] for r in v] for k, v in made.items()}, part)
    return results


@torch.no_grad()
def forecast(bench: Bench) -> Results:
    """From 1.5 s at 30 Hz: errors at each horizon. The velocity's horizon is tuned on validation at each."""
    ahead = list(AHEAD.values())
    future = torch.tensor(ahead, dtype=torch.float64) / mt.CAPTURED
    makers = fitted.Forecasters(bench.tangent, bench.plain_kalman)

    def several(past: mt.MotionWindows, pick: Callable[[str, int], Any]) -> dict[str, Tensor]:
        columns: dict[str, list[Tensor]] = {"damped velocity": [], "Kalman": []}
        for i in range(len(future)):
            one = future[i : i + 1]
            horizon, frames = pick("damped velocity", i)
            columns["damped velocity"].append(makers.damped(past.rotmat, past.timestamps, one, horizon, frames))
            (horizon,) = pick("Kalman", i)
            columns["Kalman"].append(makers.filtered(past.rotmat, past.timestamps, one, horizon))
        return {k: torch.cat(v, 1) for k, v in columns.items()}

    past, target = mt.past_and_future(bench.splits["validation"], "30 Hz", ahead, bench.windows)
    grid = {
        "damped velocity": [(h, n) for h in fitted.HORIZONS for n in (1, 2, 4)],
        "Kalman": [(h,) for h in fitted.HORIZONS],
    }
    best: dict[tuple[str, int], tuple[float, Any]] = {}
    for name, options in grid.items():
        for option in options:
            make = makers.damped if name == "damped velocity" else makers.filtered
            error = mt.angle_error(make(past.rotmat, past.timestamps, future, *option), target).mean(0)
            for i, value in enumerate(error.tolist()):
                best[name, i] = min(best.get((name, i), (math.inf, option)), (value, option))

    past, target = mt.past_and_future(bench.splits["test"], "30 Hz", ahead, bench.windows)
    last = past.rotmat[:, -1:].expand_as(target)
    made: dict[str, list[Tensor]] = {
        "last pose": [last],
        "constant velocity": [makers.damped(past.rotmat, past.timestamps, future, math.inf, 1)],
    }
    made |= {k: [v] for k, v in several(past, lambda name, i: best[name, i][1]).items()}
    regression = bench.one_step("tangent", "30 Hz").autoregression
    rolled = regression.forecast(bench.tangent.track(past.rotmat), 1 / 30, future.tolist())
    made["VAR(2), rotation vectors"] = [bench.tangent.decode(rolled)]
    made["VAR(2)"], made["kinflow"] = [], []
    for name, prior in bench.priors.items():
        z = prior.flow.encode(past.rotmat)[0]
        regression = bench.one_step(name, "30 Hz").autoregression
        made["VAR(2)"].append(prior.flow.decode(regression.forecast(z, 1 / 30, future.tolist()).float())[0])
        made["kinflow"].append(body(prior.forecast(past.rotmat, past.timestamps, future)))
    made["HuMoR-style CVAE"] = [p.forecast(past.rotmat, past.timestamps, future.tolist()) for p in bench.humors]
    results: Results = {}
    for i, milliseconds in enumerate(AHEAD):
        row: Results = {}
        for name, each in made.items():
            right = target[:, i]
            row[name] = {
                "deg": spread([mt.angle_error(r[:, i], right) for r in each], past.clip),
                "mm": spread([mt.position_error(r[:, i], right) for r in each], past.clip),
            }
        for metric, measure in (("deg", mt.angle_error), ("mm", mt.position_error)):
            peer = min((n for n in row if n != "kinflow"), key=lambda n: row[n][metric]["mean"])
            level = row[peer][metric]["mean"]
            other = torch.stack([measure(r[:, i], target[:, i]) for r in made[peer]]).mean(0)
            saved = [(other - measure(r[:, i], target[:, i])) / level for r in made["kinflow"]]
            row["kinflow"][metric] |= {"best_peer": peer, "reduction": spread(saved, past.clip)}
        row["damped velocity"]["settings"] = list(best["damped velocity", i][1])
        row["Kalman"]["settings"] = list(best["Kalman", i][1])
        results[f"{milliseconds} ms"] = row
    return results
