"""``kinflow-bench SUBJECT``: the figures that an installed package can reproduce."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import IncompleteError, MissingAssetError
from ..records import atomic_write
from .command import new_parser, run_command, show_warnings

EPILOG = """\
examples:
  kinflow-bench 3dpw --root 3DPW -o out --protocol official24                        the open body alone
  kinflow-bench 3dpw --root 3DPW -o out --protocol wham --body-path SMPL             as WHAM and GVHMR report
  kinflow-bench 3dpw --root 3DPW -o out --protocol official24 --evidence poses2d     from the data's 2D keypoints
  kinflow-bench 3dpw --root 3DPW -o out --protocol wham --body-path SMPL --system truth   checks the harness: zeros
  kinflow-bench emdb --root EMDB -o out --body-path SMPL                             EMDB 1; --split 2 for EMDB 2
  kinflow-bench clip walk.mp4 --reference walk.npz                                   a video of your own with known points
  kinflow-bench speed walk.mp4                                                       frames a second, by stages
  kinflow-bench prior --data data/mocap.npz                                          the motion prior on held-out motion

output of 3dpw and emdb in OUT:
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
    clip = subjects.add_parser("clip", help="a video with reference points in an npz (docs/benchmark.md)")
    clip.add_argument("clip", metavar="CLIP", help="a video file, or a folder of numbered images")
    clip.add_argument("--reference", type=Path, required=True, metavar="FILE.npz", help="points (T, P, 3) in camera axes, their names, and their joint set")  # fmt: skip
    clip.add_argument("--points", choices=("limbs", "all"), default="limbs", help="compare the twelve limb points, or all that both have (default: limbs)")  # fmt: skip
    clip.add_argument(
        "--known-camera", action="store_true", help="give the reference's camera matrix to the reconstruction"
    )
    clip.add_argument("--refine", action="store_true", help="optimise once more under the training's losses")
    clip.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    clip.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of kinflow/config/pipeline.py; may be repeated")  # fmt: skip
    _output_arguments(clip, _run_clip)
    speed = subjects.add_parser("speed", help="frames a second of kinflow-video on a clip, by stages")
    speed.add_argument("clip", metavar="CLIP")
    speed.add_argument("--runs", type=int, default=3, metavar="N", help="each in a process of its own (default: 3)")
    speed.add_argument("--quality", choices=("best", "fast"), default="best", help="landmark network (default: best)")
    speed.add_argument("--max-people", type=int, metavar="N", help="keep the N people seen longest (default: everyone)")
    speed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    _output_arguments(speed, _run_speed)
    prior = subjects.add_parser("prior", help="the motion prior on held-out motion capture")
    prior.add_argument("--data", type=Path, default=Path("data/mocap.npz"), metavar="FILE", help="prepared capture (tools/prepare_mocap.py)")  # fmt: skip
    prior.add_argument("--split", default="test", choices=("test", "validation"), help="whose motion (default: test)")
    prior.add_argument("--windows", type=int, default=64, metavar="N", help="of each setting (default: 64)")
    prior.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    _output_arguments(prior, _run_prior)
    return p


def _output_arguments(p: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None]) -> None:
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="also write the figures to this JSON file")
    p.add_argument("--quiet", action="store_true", help="print errors only")
    p.add_argument("--json", action="store_true", help="print the figures as JSON on standard output, nothing else")
    p.set_defaults(run=run)


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
    show_warnings("kinflow-bench", quiet)
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


def _run_clip(args: argparse.Namespace) -> None:
    from ..apps.bench_clip import bench_clip
    from ..apps.options import RunOptions
    from ..config import PipelineConfig, load_config
    from .progress import StageProgress

    options = RunOptions(device=args.device, refine=args.refine, config=load_config(PipelineConfig, overrides=args.set))
    with StageProgress(enabled=not (args.quiet or args.json)) as progress:
        info = bench_clip(
            args.clip, args.reference, options, known_camera=args.known_camera, limbs=args.points == "limbs",
            progress=progress,
        )  # fmt: skip
    lines = [f"{info['clip']}, {info['kind']} of {args.reference.name}:", ""]
    lines += ["| system | PA-MPJPE mm | MPJPE mm | Accel m/s^2 | points | frames | found |", "|---|" + "---:|" * 6]
    for name, s in info["systems"].items():
        lines.append(
            f"| {name} | {s['pa_mpjpe']:.1f} | {s['mpjpe']:.1f} | {s['accel']:.1f} | {s['points']} | {s['frames']} "
            f"| {100 * s['found']:.0f} % |"
        )
    _hand_out(args, info, "\n".join([*lines, "", f"weights {info['weights']}, config {info['config_hash']}"]))


def _run_speed(args: argparse.Namespace) -> None:
    from ..apps.bench_clip import bench_speed

    more = ["--quality", args.quality, "--device", args.device]
    more += ["--max-people", str(args.max_people)] if args.max_people is not None else []
    info = bench_speed(args.clip, args.runs, more)
    rates = sorted(info["frames_per_second"])
    size = "x".join(map(str, info["image_size"]))
    lines = [
        f"{info['clip']}: {info['frames']} frames of {size} px, {info['people']} people; {info['machine']}, {info['device']}",
        f"frames/s: median {rates[len(rates) // 2]:.1f}, {rates[0]:.1f} to {rates[-1]:.1f} in {len(rates)} runs",
        "seconds, median: " + ", ".join(f"{k} {v:.2f}" for k, v in info["stages_s"].items()),
        f"weights {info['weights']}, config {info['config_hash']}",
    ]
    _hand_out(args, info, "\n".join(lines))


def _run_prior(args: argparse.Namespace) -> None:
    from ..devices import find_device
    from ..evaluation import prior as figures
    from ..prior import MotionPrior
    from .progress import StageProgress

    if not args.data.is_file():
        raise MissingAssetError(
            f"{args.data}: no prepared capture there. Make it with tools/prepare_mocap.py, or give --data."
        )
    prior = MotionPrior.load().to(find_device(args.device))
    with StageProgress(enabled=not (args.quiet or args.json)) as progress:
        found = figures.bench_prior(args.data, prior, split=args.split, count=args.windows, progress=progress)
    title = f"{args.windows} windows a setting of the {args.split} split of {args.data.name}; mean ± standard error over clips"
    info = {"data": args.data.name, "split": args.split, "windows": args.windows, "figures": figures.record(found)}
    _hand_out(args, info, f"{title}\n\n{figures.markdown(found)}")


def _hand_out(args: argparse.Namespace, info: dict[str, Any], text: str) -> None:
    """The figures where they were asked for."""
    if args.out is not None:
        with atomic_write(args.out) as stream:
            stream.write((json.dumps(info, indent=1) + "\n").encode())
    if args.json:
        print(json.dumps(info))
    elif not args.quiet:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
