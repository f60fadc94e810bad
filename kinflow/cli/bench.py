"""``kinflow-bench SUBJECT``: the figures that an installed package can reproduce."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import IncompleteError
from .command import new_parser, run_command

EPILOG = """\
examples:
  kinflow-bench 3dpw --root 3DPW -o out --protocol official24                        the open body alone
  kinflow-bench 3dpw --root 3DPW -o out --protocol wham --body-path SMPL             as WHAM and GVHMR report
  kinflow-bench 3dpw --root 3DPW -o out --protocol official24 --evidence poses2d     from the data's 2D keypoints
  kinflow-bench 3dpw --root 3DPW -o out --protocol wham --body-path SMPL --system truth   checks the harness: zeros

output in OUT:
  results.jsonl   settings, then a line a sequence with every frame's figures; a run that was broken off goes on from it
  table.md        figures, with what they mean, the worst five, and what was left out
  summary.json    the same to compute with
  error_over_time.png, per_joint.png, histogram.png

exit codes: 0 fine, 1 could not be written, 2 usage, 3 missing data, body file or regressor, 6 some sequences could not be
evaluated (the others were), 130 interrupted, 143 terminated; run again to go on
"""


def parser() -> argparse.ArgumentParser:
    p = new_parser("kinflow-bench", "Measure kinflow, with the protocol spelled out.", EPILOG)
    subjects = p.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    threedpw = subjects.add_parser("3dpw", help="3DPW, by one of three protocols")
    _sequence_arguments(threedpw, "test", "train, validation or test", "wham", "vibe, wham or official24")
    emdb = subjects.add_parser("emdb", help="EMDB, benchmarks 1 and 2")
    _sequence_arguments(emdb, "1", "the benchmark, 1 or 2, or all", "emdb24", "emdb24")
    return p


def _sequence_arguments(p: argparse.ArgumentParser, split: str, splits: str, protocol: str, protocols: str) -> None:
    """Arguments of benchmarks on data sets of sequences."""
    p.add_argument("--root", type=Path, required=True, metavar="DIR", help="the data set's folder")
    p.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="folder for the results; made if need be"
    )
    p.add_argument("--split", default=split, help=f"{splits} (default: {split})")
    p.add_argument("--protocol", default=protocol, help=f"{protocols} (default: {protocol})")
    p.add_argument("--joints", default="all", help="all joints of the protocol, or its twelve limbs (default: all)")
    p.add_argument("--system", default="kinflow", metavar="S", help="kinflow; a baseline: mean-pose, world-landmarks, per-frame; truth, which scores 0; truth-neutral; or a folder with another tool's SMPL parameters (default: kinflow)")  # fmt: skip
    p.add_argument("--evidence", default="video", metavar="E", help="video, poses2d (3DPW's keypoints), or a folder with one keypoint file a sequence (default: video)")  # fmt: skip
    p.add_argument("--body-path", type=Path, metavar="DIR", help="folder with SMPL_NEUTRAL, SMPL_MALE, SMPL_FEMALE (.pkl or .npz) and J_regressor_h36m.npy")  # fmt: skip
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    p.add_argument("--batch-size", type=int, default=8, metavar="N", help="frames at a time (default: 8)")
    p.add_argument("--batch-clips", type=int, default=1, metavar="N", help="sequences that go through the networks together (default: 1)")  # fmt: skip
    p.add_argument("--limit", type=int, metavar="N", help="only the first N sequences")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of perception, for example perception.landmarks=full; may be repeated")  # fmt: skip
    p.add_argument("--no-plots", action="store_true", help="draw no pictures")
    p.add_argument("--quiet", action="store_true", help="print errors only")
    p.add_argument("--json", action="store_true", help="print summary.json on standard output, nothing else")
    p.set_defaults(run=_run_sequences)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(parser(), _run, argv, interrupted="interrupted; run the same command again to go on.")


def _run(args: argparse.Namespace) -> None:
    args.run(args)


def _run_sequences(args: argparse.Namespace) -> None:
    # Heavy imports wait until the arguments are known to be fine, so that --help and usage errors are instant.
    from rich.console import Console

    from ..apps.bench import BenchOptions, bench_sequences
    from ..apps.staging import check_writable
    from ..config import PipelineConfig, load_config
    from ..evaluation.report import markdown, write_report
    from .progress import StageProgress

    options = BenchOptions(
        root=args.root, out=args.out, dataset=args.subject, split=args.split, protocol=args.protocol, joints=args.joints, system=args.system,
        evidence=args.evidence, body_path=args.body_path, device=args.device, batch_size=args.batch_size,
        batch_clips=args.batch_clips, limit=args.limit, plots=not args.no_plots,
        config=load_config(PipelineConfig, overrides=args.set),
    )  # fmt: skip
    check_writable(args.out)
    quiet = args.quiet or args.json
    logging.basicConfig(level=logging.ERROR if quiet else logging.WARNING, format="kinflow-bench: %(message)s")
    console = Console(stderr=True, quiet=quiet, highlight=False)
    with StageProgress(enabled=not quiet) as progress:
        summary = bench_sequences(options, progress, lambda line: console.print(line, markup=False))
    record = write_report(summary, args.out, options.plots)
    if args.json:
        print(json.dumps(record))
    elif not args.quiet:
        print(markdown(summary), end="")
    if summary.left_out:
        names = "; ".join(f"{name}: {why}" for name, why in summary.left_out[:3])
        more = f"; and {len(summary.left_out) - 3} more" if len(summary.left_out) > 3 else ""
        raise IncompleteError(f"{len(summary.left_out)} left out, the others are in {args.out}/table.md: {names}{more}")


if __name__ == "__main__":
    sys.exit(main())
