"""Write the prepared motion-capture file: ``prepare_mocap.py --raw DIR_OR_TAR --out data/mocap.npz``."""

from __future__ import annotations

import argparse
import logging
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kinflow.errors import KinflowError, MissingAssetError
from kinflow.mocap.clips import SPLITS, MotionClip, save_clips
from kinflow.mocap.prepare import TARGET_FPS, amass_clips, prepare_clips
from kinflow.mocap.split import load_split

ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)


def find_index(folder: Path) -> Path:
    """The folder that holds INDEX.csv, at most two levels down, next to the files that it names."""
    for candidate in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
        if (candidate / "INDEX.csv").is_file() and (candidate / "cmu").is_dir():
            return candidate
    raise MissingAssetError(f"{folder}: no INDEX.csv beside a folder cmu/ here; is this the raw motion capture?")


def summary(clips: list[MotionClip]) -> Table:
    """Clips, subjects, minutes and masked share by split and by rig."""
    table = Table("", "clips", "subjects", "minutes", "valid minutes", title="Prepared motion capture")
    groups: dict[str, list[MotionClip]] = defaultdict(list)
    for clip in clips:
        groups[clip.split].append(clip)
        groups[f"  {clip.rig}"].append(clip)
        groups["all"].append(clip)
    for name in [*SPLITS, "all", *sorted(g for g in groups if g.startswith(" "))]:
        members = groups[name]
        minutes = sum(c.seconds for c in members) / 60
        valid = sum(float(c.valid.sum()) / c.fps for c in members) / 60
        table.add_row(name, str(len(members)), str(len({c.subject for c in members})), f"{minutes:.1f}", f"{valid:.1f}")
    return table


def main() -> int:
    """Parse, prepare, save; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--raw", type=Path, required=True, help="folder or .tar.xz with INDEX.csv and the files it names"
    )
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--amass", type=Path, help="folder of AMASS npz files of your own to add")
    parser.add_argument(
        "--amass-split", choices=SPLITS, default="train", help="the split of all of those (default: train)"
    )
    parser.add_argument("--fps", type=float, default=TARGET_FPS, help="frames a second to resample to (default: 60)")
    parser.add_argument("--split", type=Path, help="split file (default: the packaged one)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    console = Console()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            root = arguments.raw
            if not root.exists():
                raise MissingAssetError(f"{root}: no such folder or archive.")
            if root.is_file():
                console.print(f"unpacking {root.name}")
                try:
                    with tarfile.open(root) as archive:
                        archive.extractall(scratch, filter="data")
                except tarfile.TarError as error:
                    raise MissingAssetError(f"{root}: not a tar archive ({error}).") from None
                root = Path(scratch)
            columns = (TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console) as bar:
                task = bar.add_task("reading", total=None)

                def progress(done: int, total: int, name: str) -> None:
                    bar.update(task, completed=done, total=total, description=name)

                clips = prepare_clips(
                    find_index(root), load_split(arguments.split), progress=progress, target_fps=arguments.fps
                )
                if arguments.amass:
                    clips += amass_clips(arguments.amass, arguments.amass_split, progress, arguments.fps)
        save_clips(arguments.out, clips)
    except KinflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    console.print(summary(clips))
    console.print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MiB")
    console.print(ACKNOWLEDGEMENT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
