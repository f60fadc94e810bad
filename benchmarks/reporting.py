"""What every benchmark prints: tables, errors over clips, the commit."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


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


def commit() -> str:
    """Of the code that measures, short."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
