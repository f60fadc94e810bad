"""TRC: one person's joints as markers over time, for OpenSim."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..records import atomic_write
from .characters import Character
from .points import points

__all__ = ["write_trc"]


def write_trc(path: Path, person: Character, joint_set: str = "smpl24") -> None:
    """Write markers in metres, y up as OpenSim's ground, at the character's own times; rows are numbered from 1.

    Source: OpenSim User's Guide, "Marker (.trc) Files".

    Args:
        joint_set: one of :data:`~kinflow.formats.points.JOINT_SETS`.

    Raises:
        UsageError: as of :func:`~kinflow.formats.points.points`.
        OutputError: the file cannot be written.
    """
    names, places = points(person, joint_set)
    rate = f"{person.fps:.6g}"
    counts = (len(person), len(names))
    axes = [f"{axis}{i}" for i in range(1, len(names) + 1) for axis in "XYZ"]
    head = [
        ("PathFileType", "4", "(X/Y/Z)", path.name),
        ("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"),
        (rate, rate, str(counts[0]), str(counts[1]), "m", rate, "1", str(counts[0])),
        ("Frame#", "Time", *(cell for name in names for cell in (name, "", ""))),
        ("", "", *axes),
        (),
    ]  # fmt: skip
    rows = np.column_stack((np.arange(1, len(person) + 1), person.timestamps, places.reshape(len(person), -1)))
    with atomic_write(path) as stream:
        stream.write("".join("\t".join(cells) + "\n" for cells in head).encode())
        np.savetxt(stream, rows, ["%d", *["%.6f"] * (rows.shape[1] - 1)], delimiter="\t")
