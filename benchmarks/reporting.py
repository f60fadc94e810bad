"""What every benchmark prints: tables, errors over clips, the commit."""

from __future__ import annotations

import dataclasses
import math
import subprocess
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor


@dataclasses.dataclass
class Sheet:
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
        lines.append("|---|" + "---:|" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", *self.notes, ""])


def by_clip(value: Tensor, clip: Tensor) -> tuple[float, float]:
    """Mean over values (N,), one a window, pose or frame of the clips (N,), and its standard error from the differences between clips."""
    count = int(clip.max()) + 1
    size = torch.zeros(count, dtype=torch.float64).index_add_(0, clip, torch.ones(len(clip), dtype=torch.float64))
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, clip, value.double())
    mean = float(total.sum() / size.sum())
    used = size > 0
    number = int(used.sum())
    residual = (total - mean * size)[used]
    return mean, float(residual.square().sum().sqrt() / size.sum()) * math.sqrt(number / max(1, number - 1))


def commit() -> str:
    """Of the code that measures, short."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
