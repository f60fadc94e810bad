"""``kinflow-train {flow,dynamics,denoiser,sides,lifter,reconstructor}``, and ``kinflow-train adapt``."""

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

EPILOG = """\
examples:
  kinflow-train flow --config configs/flow.yaml --set train.minutes=10
  kinflow-train reconstructor --config configs/reconstructor.yaml --clips videos   real clips without 3D, too
  kinflow-train adapt talk.mp4 -o mine.safetensors   then: kinflow-video talk.mp4 -o out --weights mine.safetensors

exit codes: 0 fine, 1 could not be written, 2 usage, 3 missing file or library, 4 unreadable clip, 5 nobody found in the clips,
7 adapt: what was held out got no better, and nothing was written, 130 interrupted, 143 terminated
"""
CLIPS_WEIGHT = 0.5
"""Of real clips against motion capture, where ``--clips`` names them and no setting weighs them."""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    p = new_parser("kinflow-train", "Train one of kinflow's networks, or adapt the reconstructor to clips.", EPILOG)
    kinds = p.add_subparsers(dest="network", metavar="NETWORK|adapt", required=True)
    for network in NETWORKS:
        one = kinds.add_parser(
            network, help=f"train the {network}", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _add_training(one)
        if network == "reconstructor":
            one.add_argument("--clips", type=Path, metavar="FOLDER", help=f"real videos without 3D to learn from too; sets sources.clips.path, and sources.clips.weight to {CLIPS_WEIGHT}")  # fmt: skip
            one.add_argument("--cache", type=Path, metavar="FOLDER", help="what perception sees in them is kept here; sets sources.clips.cache")  # fmt: skip
    _add_adapt(
        kinds.add_parser(
            "adapt",
            help="adapt the reconstructor to your own clips, without any 3D",
            description="Adapt the reconstructor to your own clips by what is seen in them. The last part of each person's "
            "frames is held out, and where it gets worse nothing is written.",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return p


def _add_adapt(p: argparse.ArgumentParser) -> None:
    p.add_argument("clip", metavar="CLIP", nargs="+", type=Path, help="a video, a folder of videos, or one of numbered images")  # fmt: skip
    p.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="weights to write, FILE.safetensors, for kinflow-video --weights; a card beside it says how they came about")  # fmt: skip
    p.add_argument("--weights", metavar="FILE", type=Path, help="weights to begin with (default: the packaged ones)")
    p.add_argument("--cache", metavar="FOLDER", type=Path, help="what perception sees is kept here (default: a hidden folder beside each clip)")  # fmt: skip
    p.add_argument("--config", type=Path, help="YAML overrides of the defaults (kinflow.config.AdaptationConfig)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override one setting, for example train.steps=300; may be repeated")  # fmt: skip
    p.add_argument("--quiet", action="store_true", help="no progress bar, no report")


def _add_training(p: argparse.ArgumentParser) -> None:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    return run_command(
        parser(),
        _run,
        argv,
        interrupted="stopped. Go on from the last checkpoint with --resume; adapt has written nothing.",
    )


def _run(args: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s")
    if args.network == "adapt":
        _adapt(args)
    else:
        _train(args)


def _adapt(args: argparse.Namespace) -> None:
    from ..config import AdaptationConfig, load_config  # torch: not for --help
    from ..training.adaptation import adapt

    adapted = adapt(
        args.clip,
        args.out,
        load_config(AdaptationConfig, args.config, args.overrides),
        weights=args.weights,
        cache=args.cache,
        device=args.device,
        progress=not args.quiet and sys.stderr.isatty(),
    )
    if not args.quiet:
        print(f"{adapted.frames} frames of people learnt from, {adapted.held_out} held out; of the latter:")
        print(f"{'':14}{'before':>10}{'after':>10}")
        for name, value in adapted.before.items():
            print(f"{name:14}{value:10.4g}{adapted.after[name]:10.4g}")
    print(adapted.path)


def _train(args: argparse.Namespace) -> None:
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
        overrides=[*_clips(args), *args.overrides, *([f"train.precision={args.precision}"] if args.precision else [])],
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


def _clips(args: argparse.Namespace) -> list[str]:
    """Settings that ``--clips`` and ``--cache`` stand for; ``--set`` comes after them."""
    settings = []
    if getattr(args, "clips", None) is not None:
        settings += [f"sources.clips.path={args.clips}", f"sources.clips.weight={CLIPS_WEIGHT}"]
    if getattr(args, "cache", None) is not None:
        settings.append(f"sources.clips.cache={args.cache}")
    return settings


if __name__ == "__main__":
    sys.exit(main())
