"""``kinflow-export``: results into the files that other programs read."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..skeleton import LAYOUTS
from .command import check_paths, new_parser, run_command, show_warnings

EPILOG = """\
examples:
  kinflow-export out --to glb                         everybody, skinned and animated: out/people.glb
  kinflow-export out --to bvh,usd --fps 30            resampled to 30 frames a second
  kinflow-export out --to trc,csv --joints coco17     marked points instead of joint centres
  kinflow-export out/person00.npz --to amass -o new   one person, into another folder

formats (docs/export.md has the axes, names and limits of each):
  glb    skinned, animated meshes of everybody, for Blender, Unreal, Unity, the web      people.glb
  usd    the same with UsdSkel, as text and packed                                       people.usda, people.usdz
  bvh    skeleton and joint angles                                                       person00.bvh
  amass  pose vectors as AMASS has them, z up                                            person00_poses.npz
  smpl   SMPL parameters by smplx' names                                                 person00_smpl.npz
  trc    markers for OpenSim                                                             person00.trc
  csv    a table of joints                                                               person00.csv

y up (amass: z up), metres, the camera at the origin; times are the clip's own unless --fps is given.

exit codes: 0 fine, 1 could not be written, 2 usage or an input that does not fit, 3 no such file, or a library that is not
installed, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    p = new_parser("kinflow-export", "Write kinflow's motions as GLB, BVH, USD, AMASS, SMPL, TRC or CSV.", EPILOG)
    p.add_argument("source", metavar="OUT", help="a folder that kinflow-video wrote, or one personNN.npz of it")
    p.add_argument("--to", metavar="LIST", required=True, help="formats: some of glb,bvh,usd,amass,smpl,trc,csv")
    p.add_argument("-o", "--out", metavar="DIR", help="folder to write to; made if need be (default: where OUT is)")
    p.add_argument("--fps", type=float, metavar="N", help="resample to N frames a second, rotations along the shortest turn (default: every frame at its true time)")  # fmt: skip
    p.add_argument("--joints", metavar="SET", default="smpl24", help=f"points of trc and csv: {', '.join(LAYOUTS)} (default: smpl24, joint centres; the others are marked points)")  # fmt: skip
    p.add_argument("--body-path", metavar="FILE", help="your copy of the licensed model that the motions belong to")
    p.add_argument("--quiet", action="store_true", help="print errors only")
    p.add_argument("--json", action="store_true", help="print what was done as JSON on standard output, nothing else")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # Heavy imports wait until the arguments are known to be fine, so that --help and usage errors are instant.
    from ..apps.export import export_result

    check_paths(args, "source", "out", "body_path")
    show_warnings("kinflow-export", args.quiet or args.json)
    info = export_result(
        Path(args.source), args.to, out=None if args.out is None else Path(args.out), fps=args.fps, joints=args.joints,
        body_path=None if args.body_path is None else Path(args.body_path),
    )  # fmt: skip
    if args.json:
        print(json.dumps(info))
    elif not args.quiet:
        _tell(info)


def _tell(info: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for person in info["people"]:
        seen = f"seen in {person['observed']} of {person['frames']} frames"
        console.print(f"{person['name']}: {person['first_s']:g} to {person['last_s']:g} s, {seen}", markup=False)
    if info["body"] == "open" and any(name.endswith(("_poses.npz", "_smpl.npz")) for name in info["files"]):
        console.print("note: betas belong to kinflow's open body; give SMPL zeros in their place", style="yellow")
    console.print(f"written to {info['output']}: {', '.join(info['files'])}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
