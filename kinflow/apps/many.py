"""Many clips with one command: a folder for each, past what fails, and not twice what was done before."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..assets import FOLDER
from ..cameras import Camera
from ..clip import Clip
from ..devices import find_device
from ..errors import KinflowError, MissingAssetError, UsageError
from ..video.finding import find_clips
from .options import Progress, RunOptions
from .video import Loaded, run

if TYPE_CHECKING:
    from .results import WriteKeywords

__all__ = ["Outcome", "clip_folders", "find_clips", "run_many"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one clip of many.

    Attributes:
        clip: its path.
        folder: where its results are, or would be.
        status: "done" now, "kept" from an earlier run with the same options, or "failed".
        seconds: that this run spent on it.
        info: what its run.json holds; None where it failed.
        error: why it failed, one line.
    """

    clip: Path
    folder: Path
    status: Literal["done", "kept", "failed"]
    seconds: float
    info: dict[str, Any] | None = None
    error: str | None = None


def clip_folders(clips: Sequence[Path], out: Path) -> list[Path]:
    """A folder in ``out`` for each clip, by its name without the ending.

    Clips that share it are told apart by their endings (``walk.mp4`` and ``walk.mov``: walk-mp4, walk-mov), else by the
    folders that they lie in (``a/walk.mp4`` and ``b/walk.mp4``: a-walk, b-walk).

    Raises:
        UsageError: two clips for which neither helps; it names both.
    """
    paths = [Path(os.path.abspath(c)) for c in clips]
    names = [p.stem or "clip" for p in paths]
    for rename in (_by_ending, _by_folder, _by_folder_and_ending):
        # Case folded: some file systems hold Walk and walk for one.
        count = Counter(name.casefold() for name in names)
        names = [n if count[n.casefold()] == 1 else rename(p) for n, p in zip(names, paths, strict=True)]
    first: dict[str, Path] = {}
    for name, clip in zip(names, clips, strict=True):
        if name.casefold() in first:
            raise UsageError(
                f"clips: {first[name.casefold()]} and {clip} would both be written to {out / name}. Rename one of them, or "
                "give it another -o."
            )
        first[name.casefold()] = clip
    return [out / name for name in names]


def _by_ending(path: Path) -> str:
    return f"{path.stem}-{path.suffix[1:]}" if path.suffix else path.stem


def _by_folder(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def _by_folder_and_ending(path: Path) -> str:
    return f"{path.parent.name}-{_by_ending(path)}"


def run_many(
    clips: Sequence[Path],
    out: Path,
    options: RunOptions,
    *,
    start: float | None = None,
    end: float | None = None,
    camera: Camera = None,
    writing: WriteKeywords | None = None,
    on_clip: Callable[[Path, int], Progress | None] | None = None,
) -> list[Outcome]:
    """Run clip after clip, networks loaded once, each into a folder of its own in ``out``.

    A clip that fails does not stop the others. One whose folder holds the complete results of an earlier run, of the same
    file with the same options, is kept: run.json has the request that it answered.

    Args:
        clips: as of :func:`find_clips`.
        out: the folder of folders.
        options, start, end, camera: for all of them.
        writing: keywords of :meth:`~kinflow.apps.results.Result.write`.
        on_clip: called with each clip and its number from 0 before it begins; what it returns hears of its progress.

    Raises:
        UsageError: options of one clip alone, two clips of one name, or a device that is not there.
        MissingAssetError: what no clip can do without.
    """
    if options.keypoints is not None:
        raise UsageError(
            f"keypoints: they belong to one clip, got {len(clips)} clips. Run them one by one, each with its own."
        )
    folders = clip_folders(clips, out)
    find_device(options.device)
    loaded, outcomes = Loaded(), []
    for number, (path, folder) in enumerate(zip(clips, folders, strict=True)):
        progress = on_clip(path, number) if on_clip is not None else None
        began = time.perf_counter()
        try:
            clip = Clip.open(path, start=start, end=end, camera=camera, config=options.config.video)
            request = _request(clip, options, start, end, writing or {})
            info = _finished(folder, request)
            status: Literal["done", "kept"] = "kept"
            if info is None:
                status = "done"
                result = run(clip, options, progress=progress, loaded=loaded)
                result = dataclasses.replace(result, info={**result.info, "request": request})
                info = result.write(folder, **(writing or {}), progress=progress)
            outcome = Outcome(path, folder, status, time.perf_counter() - began, info)
        except MissingAssetError:
            raise
        except KinflowError as error:
            outcome = Outcome(path, folder, "failed", time.perf_counter() - began, error=_line(error))
        except Exception as error:  # a fault of ours, or of a library, in one clip of a hundred: the others go on
            log.exception("%s: failed in a way that was not foreseen", path)
            told = f"{path}: not foreseen: {type(error).__name__}: {_line(error)}. Please report it."
            outcome = Outcome(path, folder, "failed", time.perf_counter() - began, error=told)
        outcomes.append(outcome)
    return outcomes


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _request(
    clip: Clip, options: RunOptions, start: float | None, end: float | None, writing: WriteKeywords
) -> dict[str, Any]:
    """All that results depend on, as run.json holds it."""
    asked: dict[str, Any] = {
        "clip": _stamp(clip.path),
        "start": start,
        "end": end,
        "K": clip.K.tolist(),
        "options": dataclasses.asdict(options),
        "body_file": None if options.body_path is None else _stamp(Path(options.body_path)),
        "weights_file": None if options.weights is None else _stamp(Path(options.weights)),
        "writing": dict(writing),
        "kinflow": [__version__, _assets()],
    }
    return dict(json.loads(json.dumps(asked, default=str)))  # as it comes back from the file


def _stamp(path: Path) -> list[Any]:
    """Path, sizes and times of change of a file, or of those in a folder."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.exists():
            facts = file.stat()
            digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return [os.path.abspath(path), digest.hexdigest()[:16]]


@functools.cache
def _assets() -> str:
    """A fingerprint of the packaged weights and bodies."""
    digest = hashlib.sha256()
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in (".safetensors", ".npz"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _finished(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """What run.json holds, of complete results that answer the same request."""
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        same = info["request"] == request and all((folder / name).is_file() for name in info["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(info) if same else None
