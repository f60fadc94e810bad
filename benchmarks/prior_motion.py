"""The motion prior against its peers over time, on the test split's subjects.

    python benchmarks/prior_motion.py [--data data/mocap.npz] [--out runs/benchmark_prior] [--tasks likelihood ...] [--quick]

Likelihood: one-step predictive, nats a frame with respect to the Haar measure on SO(3)^21 (8 pi^2 a joint), from the
third frame of each window on. Gaussian around the last frame or constant velocity, VAR(2) and Kalman filter work in the
prior's own latents (its volume change is added), fitted anew at each frame rate; the conditional VAE is one model for
all rates, as the prior is. Every window carries the training's 0.002 rad of noise.

Estimates: rotation error in degrees (mean over 21 joints), joint position error in mm (23 joints of the open body, its
root held) and acceleration error in m/s^2. Classical filters are tuned on the validation split anew for each noise; the
Kalman smoother and the prior are told the noise's size. Dropped frames are filled by slerp for those that need them.

The spread is the standard error over clips; with several priors or seeds, their standard deviation follows in brackets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import motion_evaluations as evaluations
import motion_properties as properties
import torch
from motion_bench import Bench, Results, Score, plausibility
from motion_report import report
from rich.console import Console

from kinflow.prior import MotionPrior

TASKS: dict[str, Callable[[Bench], Results]] = {
    f.__name__: f
    for f in (
        evaluations.likelihood,
        evaluations.denoise,
        evaluations.infill,
        evaluations.forecast,
        properties.agreement,
        properties.detection,
        properties.calibration,
        properties.batch,
        properties.cost,
    )
}


def run(
    data: Path,
    priors: dict[str, MotionPrior],
    seeds: Sequence[int],
    out: Path,
    quick: bool,
    console: Console,
    tasks: Sequence[str] | None = None,
    *,
    score: Score = plausibility,
    **sizes: Any,
) -> dict[str, Any]:
    """Measure, print tables, and write ``motion.json``, ``motion.md`` and plots to ``out``.

    Args:
        data: the motion capture.
        priors: by name of their seed.
        seeds: of the trained peer.
        quick: few windows, two rates and a peer that is hardly trained: shows that all runs, its numbers mean nothing.
        tasks: of :data:`TASKS`; None: all.
        score: (prior, rotations (B, T, 21, 3, 3), timestamps (B, T)) -> (B,), by which broken motion is told from real.
        sizes: other fields of the bench (windows, estimate_windows, tuning_windows, humor, humor_samples, rates).

    Returns:
        Results by task; also what tasks of earlier runs left in ``out`` is kept in its file.
    """
    bench = Bench(Path(data), priors, list(seeds), Path(out), quick, score=score, **sizes)
    bench.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name in tasks or TASKS:
        start = time.perf_counter()
        results[name] = TASKS[name](bench)
        console.print(f"{name}: {time.perf_counter() - start:.0f} s", style="dim")
        report({name: results[name]}, console)
        _write(bench, results)
    return results


def _write(bench: Bench, results: dict[str, Any]) -> None:
    """JSON, markdown and plots of these results and of those that other runs of the same priors left beside them."""
    path = bench.out / ("motion_quick.json" if bench.quick else "motion.json")
    about = {
        "priors": list(bench.priors),
        "seeds": list(bench.seeds),
        "windows": bench.windows,
        "estimate_windows": bench.estimate_windows,
        "data": bench.data.name,
        "weights": {k: f"{float(sum(v.double().abs().sum() for v in p.state_dict().values())):.9g}"
                    for k, p in bench.priors.items()},
    }  # fmt: skip
    kept: dict[str, Any] = {}
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier.get("about", {}).get("weights") == about["weights"]:
            kept = {k: v for k, v in earlier.items() if k in TASKS}
    merged = {k: v for k, v in (kept | results).items() if k in TASKS}
    path.write_text(json.dumps({"about": about, **merged}, indent=1))
    report(merged, None, path.with_suffix(".md"), bench.out)


def main() -> None:
    """Measure with the packaged prior, or with given weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data/mocap.npz"))
    parser.add_argument("--flow", type=Path, default=None)
    parser.add_argument("--dynamics", type=Path, default=None)
    parser.add_argument("--denoiser", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_prior"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trained peer")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=None)
    parser.add_argument("--windows", type=int, default=64, help="a rate")
    parser.add_argument("--estimate-windows", type=int, default=64, help="of these, for denoising and filling gaps")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = {} if args.quick else {"windows": args.windows, "estimate_windows": args.estimate_windows}
    prior = MotionPrior.load(args.flow, args.dynamics, args.denoiser)
    run(args.data, {"0": prior}, args.seeds, args.out, args.quick, Console(width=160), args.tasks, **sizes)


if __name__ == "__main__":
    main()
