"""``kinflow-smooth``: clean and fill the poses of a file with the motion prior."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .command import new_parser, run_command, show_warnings

EPILOG = """\
examples:
  kinflow-smooth tracked.npz -o clean.npz                 what another tracker wrote; the file says its frame rate
  kinflow-smooth tracked.npz -o clean.npz --fps 29.97     it does not
  kinflow-smooth wham_output.pkl -o clean.npz --fps 30 --person 0   one of the people in a tracker's own file
  kinflow-smooth walk_poses.npz -o clean.npz --noise 1    AMASS capture: smooth very little
  kinflow-smooth out/person00.npz -o clean.npz --noise 6  what kinflow-video wrote: smooth more
  kinflow-smooth world.npz -o clean.npz --lock-feet --up y   feet that stand no longer slide
  kinflow-smooth gaps.npz -o full.npz --fill only         fill the frames that are NaN, leave the others alone

what it reads (docs/smooth.md has every name and shape):
  AMASS             poses (T, 72|156|165), trans, mocap_framerate; the world stays as it is
  SMPL parameters   global_orient, body_pose, transl (or pose, poses, trans, pose_world, ...), as rotation vectors or
                    matrices; several people as (P, T, ...)
  kinflow           personNN.npz; frames that are not `observed` are filled
  other trackers    VIBE's, PARE's and WHAM's .pkl, GVHMR's .pt: nothing in them is run

what it writes: an npz with the same arrays under the same names, in the same types and shapes. Body pose, root orientation and
translation change; hands, shape and everything else are copied.

exit codes: 0 fine, 1 could not be written, 2 usage or an input that does not fit, 3 no such file, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    p = new_parser(
        "kinflow-smooth",
        "Clean noisy SMPL poses and fill missing frames with a learned prior over human motion.",
        EPILOG,
    )
    p.add_argument(
        "input", metavar="IN", help="npz of AMASS, of SMPL parameters or of kinflow's own; or a tracker's .pkl or .pt"
    )
    p.add_argument("-o", "--out", metavar="OUT.npz", required=True, help="the new file; never the input itself")
    how = p.add_argument_group("how much")
    how.add_argument("--noise", type=float, default=3.0, metavar="DEG", help="how noisy the joints' rotations are, as a standard deviation about each axis; more smooths more (default: 3)")  # fmt: skip
    how.add_argument("--transl-noise", type=float, metavar="M", help="how noisy the root's position is, in metres (default: told from the file's own jitter)")  # fmt: skip
    how.add_argument("--fill", choices=("missing", "only", "keep"), default="missing", help="missing: fill frames that are NaN or not observed, smooth the others; only: fill them, leave the others as they are; keep: leave them as they are (default: missing)")  # fmt: skip
    how.add_argument("--body-only", action="store_true", help="leave root orientation and translation as they are")
    how.add_argument("--lock-feet", action="store_true", help="bend the legs so that feet that stand stay where they stand, on a level ground")  # fmt: skip
    how.add_argument("--up", metavar="AXIS", help="for --lock-feet: which axis of the file's world is up: x, y, z, -x, -y or -z (default: z for AMASS; others must say; write --up=-y)")  # fmt: skip
    source = p.add_argument_group("input")
    source.add_argument("--fps", type=float, metavar="F", help="frames a second, where the file does not say")
    source.add_argument(
        "--person", metavar="ID", help="which of several people in a tracker's .pkl, by the number it has there"
    )
    run = p.add_argument_group("how")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    run.add_argument("--chunk", type=int, default=600, metavar="N", help="frames at a time; memory grows with it (default: 600)")  # fmt: skip
    out = p.add_argument_group("output")
    out.add_argument("--quiet", action="store_true", help="print errors only")
    out.add_argument("--json", action="store_true", help="print the summary as JSON on standard output, nothing else")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # Heavy imports wait until the arguments are known to be fine, so that --help and usage errors are instant.
    from ..apps.smooth import SmoothingConfig, smooth_pose_file
    from ..devices import find_device
    from ..formats.pose_files import check_output, read_pose_file, write_pose_file
    from ..formats.tracker_files import ENDINGS, unpack_tracker_file
    from ..prior import MotionPrior
    from .progress import StageProgress

    if not args.out:
        raise UsageError("--out: expected a file to write, got ''. Name it.")
    quiet = args.quiet or args.json
    show_warnings("kinflow-smooth", quiet)
    config = SmoothingConfig(
        noise_deg=args.noise, transl_noise_m=args.transl_noise, fill=args.fill, root=not args.body_only,
        chunk=args.chunk, overlap=max(1, min(60, args.chunk // 4)), lock_feet=args.lock_feet, up=args.up,
    )  # fmt: skip
    source, out = Path(args.input), Path(args.out)
    device = find_device(args.device)
    with contextlib.ExitStack() as opened:
        if source.suffix in ENDINGS:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="kinflow-"))
            file = read_pose_file(unpack_tracker_file(source, folder, args.person), args.fps)
        elif args.person is not None:
            raise UsageError(
                "--person: it chooses among the people of a tracker's .pkl or .pt; an npz is smoothed whole."
            )
        else:
            file = read_pose_file(source, args.fps)
        check_output(source, out)
        prior = MotionPrior.load().to(device)
        began = time.perf_counter()
        with StageProgress(enabled=not quiet) as progress:
            result = smooth_pose_file(
                file, prior, config, progress=lambda done, total: progress("smoothing", done, total)
            )
        write_pose_file(file, out, result.body_rotmat, result.roots, result.translations, result.replaced, result.keep)
    before, after = (None if math.isnan(a) else round(a, 2) for a in result.acceleration)
    slides = [None if math.isnan(a) else round(a, 2) for a in result.sliding or (math.nan, math.nan)]
    info: dict[str, Any] = {
        "input": str(source),
        "output": str(out),
        "kind": file.kind,
        "people": file.people,
        "frames": int(file.missing.shape[1]),
        "fps": round(file.fps, 3),
        "missing": int(file.missing.sum()),
        "filled": result.filled,
        "change_deg": round(result.change_deg, 3),
        "root_change_deg": None if result.root_change_deg is None else round(result.root_change_deg, 3),
        "transl_change_m": None if result.transl_change_m is None else round(result.transl_change_m, 4),
        "acceleration_before": before,
        "acceleration_after": after,
        "sliding_before": slides[0],
        "sliding_after": slides[1],
        "seconds": round(time.perf_counter() - began, 2),
        "notes": list(file.notes),
    }
    if args.json:
        print(json.dumps(info))
    elif not args.quiet:
        _tell(info)


def _tell(info: dict[str, Any]) -> None:
    """The summary, as one paragraph."""
    from rich.console import Console

    who = f"{info['people']} people, " if info["people"] > 1 else ""
    text = f"{info['input']} ({info['kind']}): {who}{info['frames']} frames at {info['fps']:g} frames/s. "
    text += f"Body joints turned by {info['change_deg']:.2f} degrees on average"
    if info["root_change_deg"] is not None:
        text += f", the root by {info['root_change_deg']:.2f}"
    if info["transl_change_m"] is not None:
        text += f"; it moved by {1000 * info['transl_change_m']:.0f} mm"
    text += ". "
    if info["acceleration_before"] is not None:
        text += f"Joint acceleration went from {info['acceleration_before']:.1f} to {info['acceleration_after']:.1f} m/s^2. "
    if info["sliding_before"] is not None:
        text += f"Standing feet slid {info['sliding_before']:.1f} mm a frame, now {info['sliding_after']:.1f}. "
    if info["missing"]:
        text += f"{info['filled']} of {info['missing']} missing frames were filled. "
    text += f"Written to {info['output']} in {info['seconds']:.1f} s."
    console = Console(highlight=False)
    console.print(text, markup=False)
    for note in info["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False)


if __name__ == "__main__":
    sys.exit(main())
