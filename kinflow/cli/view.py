"""``kinflow-view``: look at results from all sides."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .command import check_paths, new_parser, run_command, show_warnings

EPILOG = """\
examples:
  kinflow-view out                          rerun's viewer: people, camera, keypoints, curves over time
  kinflow-view out --save out/people.rrd    the same as a file, for rerun anywhere
  kinflow-view out --save a.rrd --bodies capsules   a small file of a long clip
  kinflow-view out --html                   view.html in the browser: needs nothing else

rerun is an extra: python -m pip install 'kinflow[view]'

exit codes: 0 fine, 1 could not be written, 2 usage or an input that does not fit, 3 no such folder, or rerun is not installed,
130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    p = new_parser("kinflow-view", "Look at kinflow's results from all sides, and at their course over time.", EPILOG)
    p.add_argument("source", metavar="OUT", help="a folder that kinflow-video wrote, or one personNN.npz of it")
    p.add_argument("--save", metavar="FILE", help="write a recording (.rrd) and open no viewer")
    p.add_argument(
        "--html", action="store_true", help="open view.html in the browser; it is written if it is not there"
    )
    p.add_argument("--bodies", choices=("mesh", "capsules"), help="how rerun shows people; capsules take a sixteenth of the space (default: mesh up to 2000 frames of all people together)")  # fmt: skip
    p.add_argument("--body-path", metavar="FILE", help="your copy of the licensed model that the motions belong to")
    p.add_argument("--quiet", action="store_true", help="print errors only")
    p.add_argument("--json", action="store_true", help="print what was shown as JSON on standard output, nothing else")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    # Heavy imports wait until the arguments are known to be fine, so that --help and usage errors are instant.
    check_paths(args, "source", "save", "body_path")
    if args.html and (args.save is not None or args.bodies is not None):
        raise UsageError("--html: view.html is a file already, and shows meshes. Leave --save and --bodies out.")
    from ..apps.view import view_result

    show_warnings("kinflow-view", args.quiet or args.json)
    info = view_result(
        Path(args.source), save=None if args.save is None else Path(args.save), in_browser=args.html,
        bodies=args.bodies, body_path=None if args.body_path is None else Path(args.body_path),
    )  # fmt: skip
    if args.json:
        print(json.dumps(info))
    elif not args.quiet:
        _tell(info)


def _tell(info: dict[str, Any]) -> None:
    for person in info["people"]:
        print(f"{person['name']}: {person['frames']} frames")
    print(f"written to {info['file']}" if info["file"] else "shown in rerun's viewer")


if __name__ == "__main__":
    sys.exit(main())
