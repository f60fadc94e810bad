"""Write the prepared motion-capture file: ``prepare_mocap.py --raw DIR_OR_TAR [DIR_OR_TAR ...] --out data/mocap.npz``."""

from __future__ import annotations

import argparse
import logging
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kinflow.errors import KinflowError, MissingAssetError, UsageError
from kinflow.mocap.clips import SPLITS, MotionClip, save_clips
from kinflow.mocap.prepare import TARGET_FPS, amass_clips, amass_files, prepare_clips, read_indices
from kinflow.mocap.split import load_split

ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)


def find_index(folder: Path) -> Path | None:
    """The folder that holds INDEX.csv, at most two levels down, next to the folders that it names; None without one."""
    for candidate in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
        if (candidate / "INDEX.csv").is_file() and any(f.is_dir() for f in candidate.iterdir()):
            return candidate
    return None


def contents(folder: Path) -> str:
    """What kinds of files lie below a folder, in words."""
    kinds = Counter(p.suffix.lower() or "no suffix" for p in folder.rglob("*") if p.is_file())
    return ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5)) or "no files"


def unpacked(raw: Path, scratch: Path, console: Console) -> Path:
    """A folder of raw motion capture: the one given, or an archive's content in ``scratch``."""
    if not raw.exists():
        raise MissingAssetError(f"{raw}: no such folder or archive.")
    if raw.is_dir():
        return raw
    console.print(f"unpacking {raw.name}")
    try:
        with tarfile.open(raw) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(scratch, filter="data")
            else:  # Python before 3.10.12 and 3.11.4 has no filter: plain files below the folder, and nothing else
                inside = [m for m in archive if m.isfile() and not {"/", ".."} & set(Path(m.name).parts)]
                archive.extractall(scratch, members=inside)
    except tarfile.TarError as error:
        raise MissingAssetError(f"{raw}: not a tar archive ({error}).") from None
    return scratch


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


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, prepare, save; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--raw",
        type=Path,
        required=True,
        nargs="+",
        help="folders or archives: INDEX.csv and the files it names (its `replaces` column leaves worse files of the others "
        "out), or AMASS npz files",
    )
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--amass", type=Path, help="folder of AMASS npz files of your own to add")
    parser.add_argument(
        "--amass-split", choices=SPLITS, default="train", help="the split of all of those (default: train)"
    )
    parser.add_argument("--fps", type=float, default=TARGET_FPS, help="frames a second to resample to (default: 60)")
    parser.add_argument("--split", type=Path, help="split file (default: the packaged one)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    console = Console()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            roots = {raw: unpacked(raw, Path(scratch) / str(i), console) for i, raw in enumerate(arguments.raw)}
            columns = (TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console) as bar:
                task = bar.add_task("reading", total=None)

                def progress(done: int, total: int, name: str) -> None:
                    bar.update(task, completed=done, total=total, description=name)

                found = {raw: find_index(root) for raw, root in roots.items()}
                indices = [index for index in found.values() if index is not None]
                amass = {raw: roots[raw] for raw, index in found.items() if index is None}
                if arguments.split is not None and not indices:
                    raise UsageError("--split: is for the clips of an INDEX.csv, and none is given.")
                for raw, folder in amass.items():
                    if not amass_files(folder):
                        raise MissingAssetError(
                            f"{raw}: neither an INDEX.csv beside its folders nor AMASS sequences (.npz) here; found "
                            f"{contents(folder)}. Is this the raw motion capture?"
                        )
                clips = []
                if indices:
                    rows, split = read_indices(indices), load_split(arguments.split)
                    clips += prepare_clips(rows, split, progress=progress, target_fps=arguments.fps)
                if arguments.amass:
                    amass[arguments.amass] = arguments.amass
                for raw, folder in amass.items():
                    files = len(amass_files(folder))
                    sequences = amass_clips(folder, arguments.amass_split, progress, arguments.fps)
                    if not sequences:
                        raise MissingAssetError(
                            f"{raw}: none of {files} .npz files is an AMASS sequence; it holds {contents(folder)}."
                        )
                    console.print(
                        f"{raw}: {len(sequences)} of {files} .npz files are AMASS sequences, all for "
                        f"{arguments.amass_split}"
                    )
                    clips += sequences
        save_clips(arguments.out, clips)
    except KinflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    console.print(summary(clips))
    console.print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MiB")
    if indices:
        console.print(ACKNOWLEDGEMENT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
