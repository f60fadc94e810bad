"""Write small data sets in the layouts of the real ones, rendered from the open body, to try the benchmarks without the data.

    python tools/make_miniature.py 3dpw --out mini [--sequences 2] [--frames 45]   # 3DPW: two people, moving camera
    python tools/make_miniature.py smpl --out mini/body                             # body files in SMPL's layout, and a regressor

Figures reached on them say that an installation works, and nothing about how good anything is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import Progress

from kinflow.datasets.miniature import write_3dpw, write_smpl


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=("3dpw", "smpl"))
    p.add_argument("--out", type=Path, required=True, help="folder to write to")
    p.add_argument("--sequences", type=int, default=2, help="sequences of a data set (default: 2)")
    p.add_argument("--frames", type=int, default=45, help="frames a sequence (default: 45)")
    args = p.parse_args()
    if args.kind == "smpl":
        print(write_smpl(args.out))
        return
    with Progress() as bars:
        task = bars.add_task(args.kind, total=args.sequences)
        write_3dpw(args.out, args.sequences, args.frames, progress=lambda done, _: bars.update(task, completed=done))
    print(args.out)


if __name__ == "__main__":
    main()
