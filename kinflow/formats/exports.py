"""Export: motions into the files that other programs read, by the formats' names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..body import Body
from ..errors import MissingAssetError, UsageError, check_path
from ..motion import Motion
from .amass_npz import write_amass
from .bvh import write_bvh
from .characters import Character, characters, check_fps
from .csv_table import write_csv
from .glb import write_glb
from .points import check_joint_set
from .smpl_npz import write_smpl
from .trc import write_trc
from .usd import write_usd

__all__ = ["FORMATS", "Format", "check_formats", "export"]


class Format(NamedTuple):
    """A format: what it writes, and what it needs.

    Attributes:
        endings: of the files, after the person's name or, for formats that hold everybody, the scene's.
        everybody: writes all people into one file; None of a format of one person.
        one: writes one person; the joint set is the third argument.
        needs: the module that it is written with and the extra that brings it.
    """

    endings: tuple[str, ...]
    everybody: Callable[[Path, Sequence[Character]], None] | None = None
    one: Callable[[Path, Character, str], None] | None = None
    needs: tuple[str, str] | None = None


FORMATS: dict[str, Format] = {
    "glb": Format((".glb",), everybody=write_glb, needs=("pygltflib", "glb")),
    "bvh": Format((".bvh",), one=lambda path, person, joints: write_bvh(path, person)),
    "usd": Format((".usda", ".usdz"), everybody=write_usd, needs=("pxr", "usd")),
    "amass": Format(("_poses.npz",), one=lambda path, person, joints: write_amass(path, person)),
    "smpl": Format(("_smpl.npz",), one=lambda path, person, joints: write_smpl(path, person)),
    "trc": Format((".trc",), one=write_trc),
    "csv": Format((".csv",), one=write_csv),
}


def check_formats(to: str | Sequence[str]) -> tuple[str, ...]:
    """The formats that are asked for, each once: ``"glb,bvh"`` or a list.

    Raises:
        UsageError: none, or one that does not exist.
        MissingAssetError: one whose library is not installed; the message has the line that installs it.
    """
    names = to.split(",") if isinstance(to, str) else list(to)
    chosen = tuple(dict.fromkeys(str(name).strip().lower() for name in names))
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown or not chosen:
        raise UsageError(f"export: expected some of {','.join(FORMATS)}, got {unknown[0] if unknown else 'none'!r}.")
    for name in chosen:
        needs = FORMATS[name].needs
        if needs is not None and importlib.util.find_spec(needs[0]) is None:
            raise MissingAssetError(
                f"export {name}: {needs[0]} is not installed. Run python -m pip install 'kinflow[{needs[1]}]', or leave "
                f"{name} out."
            )
    return chosen


def export(
    motions: Sequence[Motion],
    out: str | os.PathLike[str],
    to: str | Sequence[str],
    *,
    body: Body | None = None,
    fps: float | None = None,
    joints: str = "smpl24",
    names: Sequence[str] | None = None,
    scene: str = "people",
) -> list[Path]:
    """Write motions into a folder in other programs' formats (docs/export.md says what each holds).

    Args:
        motions: people of one clip.
        out: the folder, made if need be; files of the same names are replaced.
        to: formats, of :data:`FORMATS`: ``"glb,bvh"`` or a list.
        body: that all their parameters belong to; the open body by default.
        fps: resample to so many frames a second; None keeps true time stamps.
        joints: the joint set of trc and csv, of :data:`~kinflow.formats.points.JOINT_SETS`.
        names: of the people, one a motion; ``person00`` and so on by ``person_id`` by default.
        scene: name of the files that hold everybody, without the ending.

    Returns:
        The files, in the order of ``to``.

    Raises:
        UsageError: an unknown format or joint set, nobody, two people of one name, motions of another body, a rate that is none.
        ShapeError: a motion without frames, or with times before 0.
        MissingAssetError: a format's library is not installed.
        OutputError: a file cannot be written.

    >>> people = [Motion.load("out/person00.npz")]  # doctest: +SKIP
    >>> export(people, "out", to="glb,bvh", fps=30)  # doctest: +SKIP
    [PosixPath('out/people.glb'), PosixPath('out/person00.bvh')]
    """
    folder = check_path("out", out)
    chosen = check_formats(to)
    check_joint_set(joints)
    if fps is not None:
        check_fps(fps)
    people = characters(motions, Body.open() if body is None else body, fps=fps, names=names)
    written = []
    for name in chosen:
        form = FORMATS[name]
        for ending in form.endings:
            if form.everybody is not None:
                written.append(folder / f"{scene}{ending}")
                form.everybody(written[-1], people)
            elif form.one is not None:
                for person in people:
                    written.append(folder / f"{person.name}{ending}")
                    form.one(written[-1], person, joints)
    return written
