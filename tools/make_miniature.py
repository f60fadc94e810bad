"""Write small data sets in the layouts of the real ones, rendered from the open body, to try things without the data.

    python tools/make_miniature.py 3dpw --out mini [--sequences 2] [--frames 45]   # 3DPW: two people, moving camera
    python tools/make_miniature.py smpl --out mini/body            # body files in SMPL's layout, and the joint regressor
    python tools/make_miniature.py emdb --out mini_emdb [--frames 30]
    python tools/make_miniature.py h36m --out mini_h36m.npz        # single frames as SPIN keeps Human3.6M
    python tools/make_miniature.py mpi_inf_3dhp --out mini_3dhp.npz
    python tools/make_miniature.py coco --out mini_coco
    python tools/make_miniature.py amass --out mini_amass

Figures reached on them say that an installation works, and nothing about how good anything is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from kinflow.cli.command import run_command
from kinflow.datasets import miniature

KINDS: dict[str, Callable[[argparse.Namespace], Path]] = {
    "3dpw": lambda args: miniature.write_3dpw(args.out, args.sequences, args.frames),
    "smpl": lambda args: miniature.write_smpl(args.out),
    "emdb": lambda args: miniature.write_emdb(args.out, args.frames),
    "h36m": lambda args: miniature.write_single_frames(args.out, "h36m", args.frames),
    "mpi_inf_3dhp": lambda args: miniature.write_single_frames(args.out, "mpi_inf_3dhp", args.frames),
    "coco": lambda args: miniature.write_coco(args.out, args.sequences),
    "amass": lambda args: miniature.write_amass(args.out, args.frames),
}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="make_miniature", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("kind", choices=tuple(KINDS))
    p.add_argument("--out", type=Path, required=True, help="folder or npz to write")
    p.add_argument("--sequences", type=int, default=2, help="sequences of 3DPW, images of COCO (default: 2)")
    p.add_argument("--frames", type=int, default=45, help="frames a sequence (default: 45)")
    return p


def main() -> int:
    return run_command(parser(), lambda args: print(KINDS[args.kind](args)))


if __name__ == "__main__":
    sys.exit(main())
