"""From results on disk to other programs' files: what ``kinflow-export`` does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..body import Body
from ..errors import MissingAssetError, UsageError
from ..formats.exports import check_formats, export
from ..motion import Motion
from .staging import staging

__all__ = ["body_of", "export_result", "read_motions"]

_PERSON = re.compile(r"person\d+\.npz")


def read_motions(source: Path) -> dict[str, Motion]:
    """Motions by name: every personNN.npz of a folder that kinflow-video wrote, or the one of a file.

    Raises:
        MissingAssetError: no such file or folder, or a folder without people.
        FormatError: a file that is no kinflow motion, or damaged.
    """
    if source.is_dir():
        files = sorted((p for p in source.iterdir() if _PERSON.fullmatch(p.name)), key=lambda p: (len(p.name), p.name))
        if not files:
            raise MissingAssetError(f"{source}: no personNN.npz in it. Give the folder that kinflow-video wrote.")
    else:
        files = [source]
    return {file.stem: Motion.load(file) for file in files}


def export_result(
    source: Path,
    to: str,
    *,
    out: Path | None = None,
    fps: float | None = None,
    joints: str = "smpl24",
    body_path: Path | None = None,
) -> dict[str, Any]:
    """Export what kinflow-video wrote; all files appear, or none.

    Args:
        source: a result folder, or a single motion's npz.
        out: folder to write to; that of the source by default.
        to, fps, joints: as of :func:`kinflow.formats.exports.export`.
        body_path: the licensed model file that the motions belong to.

    Returns:
        What was done, for people and for ``--json``.

    Raises:
        UsageError, ShapeError, FormatError, MissingAssetError, OutputError: as of :func:`read_motions` and ``export``; a
            licensed body without its file, or a file for the open body.
    """
    chosen = check_formats(to)
    motions = read_motions(source)
    body = body_of(motions, body_path)
    folder = source if source.is_dir() else source.parent
    out = folder if out is None else out
    scene = "people" if source.is_dir() else source.stem
    with staging(out, replaces=()) as stage:
        written = export(
            list(motions.values()), stage, chosen, body=body, fps=fps, joints=joints, names=list(motions), scene=scene
        )
    return {
        "source": str(source),
        "output": str(out),
        "body": body.name,
        "fps": fps,
        "people": [
            {
                "name": name,
                "frames": len(motion),
                "observed": int(motion.observed.sum()),
                "first_s": round(float(motion.timestamps[0]), 3),
                "last_s": round(float(motion.timestamps[-1]), 3),
            }
            for name, motion in motions.items()
        ],
        "files": [path.name for path in written],
    }


def body_of(motions: dict[str, Motion], body_path: Path | None) -> Body:
    """The body that motions, by name, belong to.

    Raises:
        UsageError: bodies of several kinds, a licensed one without its file, or a file for the open body.
    """
    kinds = {motion.body: name for name, motion in motions.items()}
    if len(kinds) > 1:
        told = ", ".join(f"{name} to {kind!r}" for kind, name in kinds.items())
        raise UsageError(
            f"body: expected motions of one body, got some that belong to others: {told}. Give those of one at a time."
        )
    (kind,) = kinds
    if kind == "open":
        if body_path is not None:
            raise UsageError(
                "body_path: these motions belong to the open body, which is packaged. Leave --body-path out."
            )
        return Body.open()
    if body_path is None:
        raise UsageError(
            f"body: these motions belong to {kind!r}, which is licensed. Give its file with --body-path FILE."
        )
    return Body.from_file(body_path, model_type=kind)
