"""What the commands show: a bar for each stage, and a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..apps.many import Outcome

LABELS = {
    "perceive": "seeing people",
    "reconstruct": "reconstructing",
    "refine": "refining",
    "world": "finding ground",
    "overlay": "drawing overlay",
    "sequences": "sequences",
    "prior": "measuring",
}


NOTES = (
    "reprojection: confident 2D keypoints within 0.2 torso of the body's; says nothing of depth, lean or facing",
    "plausible: frames whose pose is among the prior's usual 99 %; unsure: frames whose keypoints are of low confidence",
)


class StageProgress:
    """A progress bar per stage on standard error; silent when not ``enabled``."""

    def __init__(self, enabled: bool = True) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), console=Console(stderr=True), disable=not enabled,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self._tasks:
            self._bars.start()  # not before there is something to show; again is nothing
            self._tasks[stage] = self._bars.add_task(LABELS.get(stage, stage), total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def clip_table(outcomes: Sequence[Outcome], out: str) -> None:
    """Print what became of each of many clips, and where their folders are."""
    console = Console()
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for column in ("clip", "people", "frames", "seconds", "status"):
        table.add_column(column, justify="left" if column in ("clip", "status") else "right", overflow="fold")
    for outcome in outcomes:
        info = outcome.info
        counts = ("-", "-") if info is None else (str(len(info["people"])), str(info["clip"]["frames"]))
        status = {"done": "done", "kept": "done before", "failed": f"failed: {outcome.error}"}[outcome.status]
        table.add_row(Text(outcome.folder.name), *counts, f"{outcome.seconds:.1f}", Text(status))
    console.print(table)
    console.print(f"written to {out}, a folder for each clip", markup=False)


def summary(info: dict[str, Any], out: str) -> None:
    """Print the people that were found, what speaks for them and against, and where the files are."""
    console = Console()
    # Without a frame, and folded rather than cut: headings and figures stand whole at 80 columns, nothing is lost at fewer.
    table = Table(
        title=f"{info['clip']['path']}: {info['clip']['frames']} frames, {info['frames_per_second']} frames/s",
        box=None, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for column in ("person", "seconds", "seen in", "height m", "distance m", "reprojection", "plausible", "unsure"):
        # A unit goes below its heading: what is measured over what it is measured in.
        heading = Text(column[:-2] + "\nm" if column.endswith(" m") else column)
        table.add_column(heading, justify="left" if column == "person" else "right", overflow="fold")
    for p in info["people"]:
        seen = f"{p['observed']}/{p['frames']}"
        fit = "-" if p["pck"] is None else f"{100 * p['pck']:.0f} %"
        table.add_row(
            Path(p["file"]).stem,
            f"{p['first_s']:.1f}-{p['last_s']:.1f}",
            seen,
            f"{p['height_m']:.2f}",
            f"{p['distance_m']:.1f}",
            fit,
            f"{100 * p['plausible']:.0f} %",
            f"{100 * p['low_confidence']:.0f} %",
        )
    console.print(table)
    for note in NOTES:
        console.print(note, style="dim", highlight=False)
    stages = {k: v for k, v in info["timings"].items() if k != "total"}
    console.print(", ".join(f"{k} {v:.1f} s" for k, v in stages.items()), style="dim")
    if info["clip"]["damage"]:
        console.print(f"warning: {info['clip']['damage']}", style="yellow")
    console.print(f"written to {out}: {', '.join(info['files'])}")
