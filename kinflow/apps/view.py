"""To look at results from all sides: what ``kinflow-view`` does."""

from __future__ import annotations

import json
import logging
import webbrowser
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from ..errors import UsageError
from ..formats.rerun_scene import Bodies, Film, check_rerun, show, store
from ..motion import Motion
from .export import body_of, read_motions
from .page import write_page
from .staging import staging

__all__ = ["view_result"]

log = logging.getLogger(__name__)

MESH_FRAMES = 2000
"""About 100 MB of meshes, of all people together."""

_OVERLAY = "overlay.mp4"


def view_result(
    source: Path,
    *,
    save: Path | None = None,
    in_browser: bool = False,
    bodies: Bodies | None = None,
    body_path: Path | None = None,
) -> dict[str, Any]:
    """Show what kinflow-video wrote, in rerun's viewer unless told otherwise.

    Args:
        source: a result folder, or a single motion's npz.
        save: write a recording (.rrd) there, and open no viewer.
        in_browser: open view.html instead, which is written if it is not there.
        bodies: how people are drawn in rerun: "mesh", or "capsules", a sixteenth of its size; by default meshes unless there
            are more than :data:`MESH_FRAMES` of them.
        body_path: the licensed model file that the motions belong to.

    Returns:
        What was shown, for people and for ``--json``.

    Raises:
        UsageError: nobody with a frame in it; an option that does not fit.
        MissingAssetError: no such folder, or rerun is not installed.
        FormatError: a file that is no motion. OutputError: the file cannot be written.
    """
    folder = source if source.is_dir() else source.parent
    if in_browser:
        return _in_browser(source, folder, body_path)
    check_rerun()
    if save is not None and save.suffix != ".rrd":
        raise UsageError(f"save: expected a file that ends in .rrd, got {save.name}. Viewers go by the ending.")
    motions = _with_frames(source)
    body = body_of(motions, body_path)
    people = list(motions.values())
    if bodies is None:
        bodies = "mesh" if sum(map(len, people)) <= MESH_FRAMES else "capsules"
    film = _film(folder, people[0])
    title = _title(folder)
    if save is not None:
        with staging(save.parent, replaces=()) as stage:
            store(stage / save.name, title, people, body, names=list(motions), film=film, bodies=bodies)
    else:
        show(title, people, body, names=list(motions), film=film, bodies=bodies)
    return _told(source, motions, film is not None, save) | {"bodies": bodies}


def _in_browser(source: Path, folder: Path, body_path: Path | None) -> dict[str, Any]:
    page = folder / "view.html"
    if not source.is_dir():
        raise UsageError(f"{source}: view.html shows a whole folder. Give the folder that it lies in.")
    motions = read_motions(source)
    if not page.is_file():
        overlay = folder / _OVERLAY
        with staging(folder, replaces=()) as stage:
            write_page(
                stage / page.name, list(motions.values()), body_of(motions, body_path), title=_title(folder),
                names=list(motions), overlay=overlay if overlay.is_file() else None, begin=_begin(folder),
            )  # fmt: skip
    if not webbrowser.open(page.absolute().as_uri()):
        log.warning("no browser could be opened here; open %s by hand", page)
    return _told(source, motions, (folder / _OVERLAY).is_file(), page)


def _with_frames(source: Path) -> dict[str, Motion]:
    motions = read_motions(source)
    kept = {name: motion for name, motion in motions.items() if len(motion)}
    if not kept:
        raise UsageError(f"{source}: expected at least one person with a frame, got none. There is nothing to show.")
    for name in motions.keys() - kept.keys():
        log.warning("%s: has no frame and is left out", name)
    return kept


def _run_json(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _title(folder: Path) -> str:
    path = (_run_json(folder).get("clip") or {}).get("path")
    return Path(path).name if path else folder.absolute().name


def _begin(folder: Path) -> float:
    """Time of the clip's first picture, s: that of the overlay's."""
    return float((_run_json(folder).get("clip") or {}).get("start_s") or 0.0)


def _film(folder: Path, motion: Motion) -> Film | None:
    """The overlay, where its picture is the clip's own and nothing beside it: keypoints would lie elsewhere."""
    path = folder / _OVERLAY
    if not path.is_file():
        return None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            size = (stream.width, stream.height)
    except (FFmpegError, IndexError) as error:
        log.warning("%s cannot be read and is left out (%s)", path, error)
        return None
    width, height = motion.image_size.tolist()
    if size != (width + width % 2, height + height % 2):
        log.warning("%s has other panels beside the overlay and is left out", path)
        return None
    return path, _begin(folder)


def _told(source: Path, motions: dict[str, Motion], film: bool, file: Path | None) -> dict[str, Any]:
    return {
        "source": str(source),
        "people": [{"name": name, "frames": len(motion)} for name, motion in motions.items()],
        "film": film,
        "file": None if file is None else str(file),
    }
