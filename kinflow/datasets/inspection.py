"""What is there of a data set, and what is wrong with it, file by file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import KinflowError
from ..records import atomic_write
from .recording import DataSet

SCHEMA = "kinflow.dataset/1"


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Every sequence of a data set, read once.

    Attributes:
        dataset: its name.
        sequences: of what could be read, by name: people, frames in all, frames whose truth belongs to the image, seconds.
        faults: of what could not, by name: the one line that says why. What is missing is among them.
    """

    dataset: str
    sequences: dict[str, dict[str, Any]]
    faults: dict[str, str]

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Raises:
            OutputError: the place cannot be written.
        """
        with atomic_write(path) as stream:
            stream.write(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1).encode())


def inspect(data: DataSet, progress: Callable[[int, int], None] | None = None) -> Inspection:
    """Read every sequence of a data set.

    Args:
        data: the data set.
        progress: called with (sequences done, sequences).
    """
    found: dict[str, dict[str, Any]] = {}
    faults = {name: "no such file" for name in data.missing}
    for done, name in enumerate(data.sequences):
        try:
            people = data.read(name)
            found[name] = {
                "people": len(people),
                "frames": sum(len(p) for p in people),
                "valid": int(sum(p.valid.sum() for p in people)),
                "seconds": round(sum(float(p.timestamps[-1] - p.timestamps[0]) for p in people), 3),
            }
        except KinflowError as error:
            faults[name] = str(error)
        if progress is not None:
            progress(done + 1, len(data.sequences))
    return Inspection(data.name, found, faults)
