"""``kinflow-train {flow,dynamics,denoiser,lifter,reconstructor}``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import MissingAssetError
from ..training.processes import PRECISIONS, STRATEGIES
from ..training.tasks import NETWORKS, training_of
from .command import new_parser, run_command


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    p = new_parser("kinflow-train", "Train one of kinflow's networks on motion capture.")
    p.add_argument("network", choices=NETWORKS)
    p.add_argument("--config", type=Path, help="YAML overrides of the defaults, for example configs/flow.yaml")
    p.add_argument(
        "--data", type=Path, default=Path("data/mocap.npz"), help="prepared capture (tools/prepare_mocap.py)"
    )
    p.add_argument("--out", type=Path, help="folder for checkpoints, log and weights (default runs/NETWORK)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--devices", type=int, default=1, metavar="N",
                   help="train in N processes on each machine, one a device; each draws a batch of its own")  # fmt: skip
    p.add_argument(
        "--num-nodes", type=int, default=1, metavar="N", help="machines (docs/training.md says how they meet)"
    )
    p.add_argument("--strategy", choices=STRATEGIES, default="auto", help="how several processes share the work")
    p.add_argument("--precision", choices=PRECISIONS, help="sets train.precision")
    p.add_argument("--tensorboard", action="store_true", help="log to OUT/tensorboard too")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                   help="override one setting, for example train.minutes=10; may be repeated")  # fmt: skip
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    return run_command(parser(), _run, argv, interrupted="stopped. Go on from the last checkpoint with --resume.")


def _run(args: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s")
    if not args.data.is_file():
        raise MissingAssetError(
            f"{args.data}: no prepared capture there. Make it with tools/prepare_mocap.py, or give --data."
        )
    from ..training.run import run_training  # torch: not for --help

    weights = run_training(
        training_of(args.network),
        args.data,
        args.out or Path("runs") / args.network,
        config_path=args.config,
        overrides=[*args.overrides, *([f"train.precision={args.precision}"] if args.precision else [])],
        resume=args.resume,
        device=args.device,
        devices=args.devices,
        num_nodes=args.num_nodes,
        strategy=args.strategy,
        progress=not args.quiet and sys.stderr.isatty(),
        tensorboard=args.tensorboard,
    )
    if weights is not None:
        print(weights)


if __name__ == "__main__":
    sys.exit(main())
