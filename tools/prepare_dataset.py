"""Look through a data set, write a manifest of what is there, and name what is wrong or missing, file by file.

    python tools/prepare_dataset.py 3dpw --root 3DPW [--split train] --out 3dpw.json [--images]
    python tools/prepare_dataset.py emdb --root EMDB --out emdb.json [--images]
    python tools/prepare_dataset.py h36m --root h36m_train.npz --out h36m.json [--images FOLDER]
    python tools/prepare_dataset.py mpi_inf_3dhp --root mpi_inf_3dhp_train.npz --fps 25 --out 3dhp.json
    python tools/prepare_dataset.py coco --root COCO --split val --out coco.json [--images]
    python tools/prepare_dataset.py amass --root AMASS --split train --out amass.json

The data sets are read where they lie (docs/benchmark.md); nothing is copied or converted. --images also looks for every
frame's file. Exit code 6 where anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import Progress

from kinflow.cli.command import run_command
from kinflow.datasets.amass import Amass
from kinflow.datasets.coco import CocoPersons
from kinflow.datasets.emdb import Emdb
from kinflow.datasets.inspection import inspect
from kinflow.datasets.recording import DataSet
from kinflow.datasets.single_frames import SingleFrames
from kinflow.datasets.threedpw import ThreeDPW
from kinflow.errors import IncompleteError


def opened(args: argparse.Namespace) -> DataSet:
    """The data set that the arguments name."""
    images = args.images is not None
    if args.kind == "3dpw":
        return ThreeDPW(args.root, args.split or "test", images)
    if args.kind == "emdb":
        return Emdb(args.root, images=images)
    if args.kind == "coco":
        return CocoPersons(args.root, args.split or "train", images)
    if args.kind == "amass":
        return Amass(args.root, args.split or "all")
    return SingleFrames(args.root, args.kind, args.fps, args.images)


def run(args: argparse.Namespace) -> None:
    data = opened(args)
    with Progress() as bars:
        task = bars.add_task(args.kind, total=len(data.sequences))
        found = inspect(data, lambda done, _: bars.update(task, completed=done))
    found.save(args.out)
    total = {key: sum(s[key] for s in found.sequences.values()) for key in ("people", "frames", "valid", "seconds")}
    print(f"{len(found.sequences)} sequences, {total['people']} people, {total['frames']} frames ({total['valid']} valid), "
          f"{total['seconds'] / 60:.1f} minutes: {args.out}")  # fmt: skip
    for name, fault in found.faults.items():
        print(f"{name}: {fault}")
    if found.faults:
        raise IncompleteError(
            f"{len(found.faults)} of {len(found.faults) + len(found.sequences)} sequences cannot be used."
        )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="prepare_dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("kind", choices=("3dpw", "emdb", "h36m", "mpi_inf_3dhp", "coco", "amass"))
    p.add_argument("--root", type=Path, required=True, help="folder of the data set, or the npz of single frames")
    p.add_argument("--out", type=Path, required=True, help="the manifest, JSON")
    p.add_argument("--split", help="which part, where there are several")
    p.add_argument("--fps", type=float, default=50.0, help="of single frames' numbers (default: 50, as Human3.6M)")
    p.add_argument("--images", nargs="?", const=Path("."), type=Path, help="look for the images too; their folder for single frames")  # fmt: skip
    return p


def main() -> int:
    return run_command(parser(), run)


if __name__ == "__main__":
    sys.exit(main())
