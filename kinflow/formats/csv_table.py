"""CSV: one person's joints over time as a table, for spreadsheets and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import atomic_write
from .characters import Character
from .points import points

__all__ = ["write_csv"]


def write_csv(path: Path, person: Character, joint_set: str = "smpl24") -> None:
    """Write a row a frame: ``time_s``, ``frame_id`` (the clip's; not of resampled motions), ``observed`` (1, or 0 where the
    motion was filled in), and ``NAME_x``, ``NAME_y``, ``NAME_z`` of each joint in metres, y up.

    Args:
        joint_set: one of :data:`~kinflow.formats.points.JOINT_SETS`.

    Raises:
        UsageError: as of :func:`~kinflow.formats.points.points`.
        OutputError: the file cannot be written.
    """
    names, places = points(person, joint_set)
    columns: list[tuple[str, str, NDArray[Any]]] = [
        ("time_s", "%.6f", person.timestamps),
        ("observed", "%d", person.observed),
    ]
    if person.frame_ids is not None:
        columns.insert(1, ("frame_id", "%d", person.frame_ids))
    header = [c[0] for c in columns] + [f"{name}_{axis}" for name in names for axis in "xyz"]
    rows = np.column_stack((*(c[2] for c in columns), places.reshape(len(person), -1)))
    with atomic_write(path) as stream:
        stream.write((",".join(header) + "\n").encode())
        np.savetxt(stream, rows, [c[1] for c in columns] + ["%.6f"] * (3 * len(names)), delimiter=",")
