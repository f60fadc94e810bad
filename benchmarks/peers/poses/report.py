"""What was measured: errors a pose over seeds, tables for the terminal and for markdown, bar charts."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from likelihood import by_clip
from rich.console import Console
from rich.table import Table
from torch import Tensor


@dataclasses.dataclass
class Errors:
    """Errors (N,) a pose of one row of a table, one tensor a seed, by condition and unit."""

    values: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)

    def add(self, key: str, value: Tensor) -> None:
        self.values.setdefault(key, []).append(value.double())

    def mean(self, key: str) -> Tensor:
        """Averaged over seeds (N,)."""
        return torch.stack(self.values[key]).mean(0)

    def seeds(self, key: str) -> float | None:
        """Standard deviation of the seeds' means; None of one seed."""
        means = [float(v.mean()) for v in self.values[key]]
        return statistics.stdev(means) if len(means) > 1 else None


def cell(errors: Errors, key: str, clip: Tensor, digits: int = 2) -> str:
    """mean ± standard error over clips (seeds' standard deviation)."""
    mean, error = by_clip(errors.mean(key), clip)
    seeds = errors.seeds(key)
    spread = "" if seeds is None else f" ({seeds:.{digits}f})"
    return f"{mean:.{digits}f} ± {error:.{digits}f}{spread}"


def record(errors: Errors, clip: Tensor) -> dict[str, Any]:
    """For the JSON file."""
    out = {}
    for key, values in errors.values.items():
        mean, error = by_clip(errors.mean(key), clip)
        out[key] = {"mean": mean, "clip_error": error, "seeds": [float(v.mean()) for v in values]}
    return out


@dataclasses.dataclass
class Report:
    """A table: title, columns, rows of text, and notes under it."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    notes: Sequence[str] = ()

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table(title=self.title)
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note)

    def markdown(self) -> str:
        """The same as markdown."""
        lines = [f"## {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|" + "|".join("---" if i == 0 else "---:" for i in range(len(self.columns))) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", *self.notes, ""])


def bars(path: Path, title: str, unit: str, series: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Bar chart: panel -> bar -> (value, standard error), panels side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(series), figsize=(4.2 * len(series), 4.5), squeeze=False, sharey=True)
    for axis, (panel, values) in zip(axes[0], series.items(), strict=True):
        names = list(values)[::-1]
        colours = ["tab:orange" if "kinflow flow" in n else "tab:blue" for n in names]
        axis.barh(names, [values[n][0] for n in names], xerr=[values[n][1] for n in names], color=colours)
        low = min(0.0, min(v for v, _ in values.values()))
        axis.set_xlim(left=low)
        axis.set_title(panel, fontsize=9)
        axis.set_xlabel(unit)
        axis.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
