"""The motion prior against its peers: single poses, and motion over time.

    python benchmarks/prior.py [--quick] [--only poses|motion] [--seeds 0 1 2] [--out runs/benchmark_prior]

Peers are trained on the training split with their published settings, what is tuned is tuned on the validation split, and
the figures are of the test split's subjects, which nothing was trained on. `prior_poses.py` and `prior_motion.py` say what
is measured and how; each runs alone as well. Tables go to the console and to ``out`` as markdown, JSON and plots.

kinflow's own networks are the packaged ones for seed 0. Those of other seeds and the variants (affine couplings, RealNVP on
the 6D form) are read from ``--study``, where the commands in docs/prior.md leave them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import prior_motion
import prior_poses
from rich.console import Console

from kinflow.errors import KinflowError, MissingAssetError
from kinflow.prior import MotionPrior


def trained(study: Path, name: str, seed: int) -> Path | None:
    """A network's weights for a seed: the packaged ones (None) for seed 0, those of the study for the others."""
    if seed == 0:
        return None
    path = study / f"{name}_{seed}" / f"{name.partition('_')[0]}.safetensors"
    if not path.is_file():
        raise MissingAssetError(f"{path}: not trained yet. docs/prior.md has the command, or leave out seed {seed}.")
    return path


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data/mocap.npz"))
    parser.add_argument("--study", type=Path, default=Path("runs/study"), help="networks of other seeds, and variants")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_prior"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("poses", "motion"))
    parser.add_argument("--tasks", nargs="+", choices=prior_motion.TASKS, help="of the half over time; default: all")
    parser.add_argument("--windows", type=int, default=64, help="of each rate, over time")
    parser.add_argument("--quick", action="store_true", help="a smoke run: its numbers mean nothing")
    args = parser.parse_args()
    console = Console(width=130)
    try:
        if not args.data.is_file():
            raise MissingAssetError(f"{args.data}: no prepared capture there. Make it with tools/prepare_mocap.py.")
        if args.only != "motion":
            flows = [trained(args.study, "flow_spline", s) for s in args.seeds]
            prior_poses.run(args.data, flows, args.seeds, args.out, args.quick, console, study=args.study)
        if args.only != "poses":
            # The dynamics of every seed live in the chart of the packaged flow; the denoiser is the packaged one.
            priors = {str(s): MotionPrior.load(None, trained(args.study, "dynamics_chart", s)) for s in args.seeds}
            sizes = {"windows": args.windows, "estimate_windows": args.windows}
            prior_motion.run(args.data, priors, args.seeds, args.out, args.quick, console, tasks=args.tasks, **sizes)
    except KinflowError as error:
        print(f"prior.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
