"""``kinflow-video``: turn a clip into moving 3D people."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import IncompleteError, UsageError
from .command import new_parser, run_command, show_warnings

if TYPE_CHECKING:
    from ..apps.options import RunOptions
    from ..apps.results import WriteKeywords
    from ..cameras import Camera

EPILOG = """\
examples:
  kinflow-video walk.mp4 -o out                     everyone in the clip; out/overlay.mp4 to look at
  kinflow-video walk.mp4 -o out --start 2 --end 6   four seconds of it
  kinflow-video frames/ -o out --fov 65             a folder of numbered images, wide lens
  kinflow-video walk.mp4 -o out --refine            slower, closer to the pixels
  kinflow-video walk.mp4 -o out --layout side-by-side   the clip, the overlay and the people from the side
  kinflow-video walk.mp4 -o out --export glb,bvh    for Blender and game engines, too
  kinflow-video a.mp4 b.mp4 takes/ -o out           many clips: out/a, out/b, ...; again: goes on where it stopped
  kinflow-video walk.mp4 -o out --keypoints op/     2D keypoints of OpenPose, COCO or MediaPipe instead of our own

output in OUT:
  person00.npz ...  pose, shape, trajectory and uncertainty of each person (docs/output.md, field by field)
  overlay.mp4       the meshes over the frames, one colour a person
  view.html         everybody in 3D in a browser, the overlay beside them: a double click opens it
  run.json          versions, settings, camera, timings, people

exit codes: 0 fine, 1 could not be written, 2 usage, 3 missing model file or export library, 4 unreadable clip, 5 nobody found,
6 some of many clips failed (the others are done), 130 interrupted, 143 terminated
"""

LAYOUTS = ("overlay", "original-overlay", "overlay-side", "side-by-side")
QUALITY = {"best": ("heavy", "true"), "fast": ("full", "false")}  #: to perception.landmarks and perception.parts


def parser() -> argparse.ArgumentParser:
    p = new_parser(
        "kinflow-video",
        "Turn a clip into moving 3D people: pose, shape and trajectory of everyone in view.",
        EPILOG,
    )
    p.add_argument("clip", metavar="CLIP", nargs="+", help="a video file, an image, a folder of numbered images, or a folder of videos; several are done one after the other")  # fmt: skip
    p.add_argument("-o", "--out", metavar="OUT", required=True, help="folder for the results; made if need be. Of many clips each has a folder of its own in it")  # fmt: skip
    part = p.add_argument_group("what to look at")
    part.add_argument("--start", type=float, metavar="S", help="begin here, in seconds")
    part.add_argument("--end", type=float, metavar="S", help="end here, in seconds")
    part.add_argument("--max-people", type=int, metavar="N", help="keep the N people seen longest (default: everyone)")
    part.add_argument("--keypoints", metavar="FILE", help="2D keypoints to use instead of our own detector: OpenPose folder, COCO or MediaPipe JSON")  # fmt: skip
    camera = p.add_argument_group("camera (default: focal length = the image's diagonal)")
    one = camera.add_mutually_exclusive_group()
    one.add_argument("--focal", type=float, metavar="PX", help="focal length in pixels")
    one.add_argument("--fov", type=float, metavar="DEG", help="field of view along the longer side, in degrees")
    one.add_argument("--intrinsics", metavar="FX,FY,CX,CY|FILE", help="camera matrix: four numbers, or a file with a 3x3 matrix")  # fmt: skip
    world = p.add_argument_group(
        "world (default: gravity, ground and the camera's motion are told from people and background)"
    )
    world.add_argument("--camera", metavar="auto|static|moving|FILE", help="how the camera moves; FILE: its poses, as COLMAP's images.txt, TUM, or 3DPW's layout (default: auto)")  # fmt: skip
    world.add_argument("--up", metavar="X,Y,Z", help="which way is up in the first frame's camera axes; 0,-1,0 is a level camera")  # fmt: skip
    world.add_argument("--no-world", action="store_true", help="leave people in camera axes alone")
    body = p.add_argument_group("body")
    body.add_argument("--body", choices=("open", "smpl", "smplh", "smplx"), default="open", help="body model (default: open, packaged)")  # fmt: skip
    body.add_argument("--body-path", metavar="FILE", help="your copy of the licensed model")
    how = p.add_argument_group("how")
    how.add_argument("--quality", choices=tuple(QUALITY), help="networks: best sees turned and bent people better, and body parts; fast takes about a third of its time (default: best)")  # fmt: skip
    how.add_argument("--refine", action="store_true", help="optimise once more under the training's losses")
    how.add_argument("--weights", metavar="FILE", help="the reconstructor's weights, as kinflow-train adapt writes them (default: the packaged ones)")  # fmt: skip
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    how.add_argument("--batch-size", type=int, default=8, metavar="N", help="frames at a time (default: 8)")
    how.add_argument("--seed", type=int, default=0, help="of the draws behind the uncertainty (default: 0)")
    how.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of kinflow/config/pipeline.py, for example perception.min_duration_s=0.5; may be repeated")  # fmt: skip
    out = p.add_argument_group("output")
    out.add_argument("--no-overlay", action="store_true", help="write no overlay.mp4")
    out.add_argument("--no-view", action="store_true", help="write no view.html")
    out.add_argument("--layout", choices=LAYOUTS, help="what the overlay's picture holds: the overlay alone, the clip or a view from the side beside it, or all three (default: overlay)")  # fmt: skip
    out.add_argument("--draw-keypoints", action="store_true", help="draw the 2D keypoints over the overlay")
    out.add_argument("--ground", action="store_true", help="draw a grid of metres on the ground into the overlay")
    out.add_argument("--export", metavar="LIST", help="write the motions in other formats as well: some of glb,bvh,usd,amass,smpl,trc,csv (kinflow-export --help)")  # fmt: skip
    out.add_argument("--quiet", action="store_true", help="print errors only")
    out.add_argument("--json", action="store_true", help="print run.json on standard output, nothing else")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # Heavy imports wait until the arguments are known to be fine, so that --help and usage errors are instant.
    from ..apps.many import find_clips
    from ..apps.options import RunOptions
    from ..apps.staging import check_writable
    from ..apps.video import run
    from ..cameras import FieldOfView, Focal
    from ..clip import Clip
    from ..config import PipelineConfig, load_config
    from ..formats.exports import check_formats
    from .progress import StageProgress, summary

    if not args.out:
        raise UsageError("--out: expected a folder, got ''. Name it; . is the folder you are in.")
    if args.start is not None and args.end is not None and args.end <= args.start:
        raise UsageError(f"--end: expected more than --start ({args.start}), got {args.end}.")
    if args.no_overlay and (args.layout is not None or args.draw_keypoints):
        raise UsageError("--no-overlay: there is nothing to lay out or to draw keypoints on. Leave one of them out.")
    if args.ground and (args.no_world or args.no_overlay):
        raise UsageError("--ground: expected an overlay and the world, got --no-world or --no-overlay. Leave one out.")
    overrides = list(args.set)
    landmarks, parts = QUALITY[args.quality or "best"]
    if args.quality is not None:  # --set comes after it, and may ask for parts or do without them
        overrides = [f"perception.landmarks={landmarks}", f"perception.parts={parts}", *overrides]
    config = load_config(PipelineConfig, overrides=overrides)
    if args.quality is not None and config.perception.landmarks != landmarks:
        raise UsageError(
            f"--quality {args.quality}: means perception.landmarks={landmarks}, but --set "
            f"perception.landmarks={config.perception.landmarks} asks for the other network. Give one of the two."
        )
    options = RunOptions(
        max_people=args.max_people, device=args.device, batch_size=args.batch_size, body=args.body,
        body_path=args.body_path, weights=args.weights, refine=args.refine, keypoints=args.keypoints, seed=args.seed,
        world=not args.no_world, camera_motion=args.camera or "auto", up=_numbers(args.up), config=config,
    )  # fmt: skip
    camera: Camera = args.intrinsics
    if args.focal is not None:
        camera = Focal(args.focal)
    elif args.fov is not None:
        camera = FieldOfView(args.fov)
    formats = check_formats(args.export) if args.export is not None else ()  # told now, not after the work
    check_writable(args.out)
    quiet = args.quiet or args.json
    show_warnings("kinflow-video", quiet)
    clips, many = find_clips(args.clip)
    writing: WriteKeywords = {
        "draw": not args.no_overlay, "layout": args.layout or "overlay", "keypoints": args.draw_keypoints,
        "ground": args.ground, "view": not args.no_view, "export": formats,
    }  # fmt: skip
    if many:
        _run_many(args, clips, options, camera, writing)
        return
    with StageProgress(enabled=not quiet) as progress:
        clip = Clip.open(clips[0], start=args.start, end=args.end, camera=camera, config=options.config.video)
        result = run(clip, options, progress=progress)
        info = result.write(args.out, **writing, progress=progress)
    if args.json:
        print(json.dumps(info))
    elif not args.quiet:
        summary(info, args.out)


def _run_many(
    args: argparse.Namespace, clips: list[Path], options: RunOptions, camera: Camera, writing: WriteKeywords
) -> None:
    from ..apps.many import run_many
    from .progress import StageProgress, clip_table

    quiet = args.quiet or args.json
    with contextlib.ExitStack() as bars:

        def on_clip(clip: Path, number: int) -> StageProgress:
            bars.close()  # the last clip's are done
            if not quiet:
                print(f"{clip} ({number + 1} of {len(clips)})", file=sys.stderr)
            return bars.enter_context(StageProgress(enabled=not quiet))

        try:
            outcomes = run_many(
                clips, Path(args.out), options, start=args.start, end=args.end, camera=camera, writing=writing,
                on_clip=on_clip,
            )  # fmt: skip
        except KeyboardInterrupt as stopped:
            raise KeyboardInterrupt(
                "interrupted; what was finished stays, the same command goes on from there."
            ) from stopped
    failed = [o for o in outcomes if o.status == "failed"]
    if args.json:
        told = [dataclasses.asdict(o) | {"clip": str(o.clip), "folder": str(o.folder)} for o in outcomes]
        print(json.dumps({"clips": told}))
    elif not args.quiet:
        clip_table(outcomes, args.out)
    if failed:
        why = (
            "; ".join(str(o.error).rstrip(".") for o in failed)
            if args.quiet
            else ", ".join(o.clip.name for o in failed)
        )
        raise IncompleteError(
            f"{len(failed)} of {len(outcomes)} clips failed: {why}. The same command tries them again and keeps the others."
        )


def _numbers(text: str | None) -> tuple[float, float, float] | None:
    """Three numbers of ``--up``."""
    if text is None:
        return None
    try:
        x, y, z = (float(v) for v in text.split(","))
    except ValueError:
        raise UsageError(f"--up: expected three numbers X,Y,Z in camera axes, got {text!r}. Try --up=0,-1,0.") from None
    return x, y, z


if __name__ == "__main__":
    sys.exit(main())
