"""Real clips without 3D: found, perceived once, and kept beside the videos for the trainings that follow."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...assets import FOLDER
from ...clip import Clip
from ...config import PerceptionConfig, config_hash
from ...errors import MissingAssetError, NobodyFoundError, OutputError
from ...evidence import Evidence
from ...perception import watch
from ...records import Record
from ...video.finding import find_clips

log = logging.getLogger(__name__)

CACHE = ".kinflow-perceived"
"""Folder beside the clips in which what was seen of them is kept."""
LEAST_FRAMES = 8
"""In which a person must be seen to be learnt from."""
LOOKING = PerceptionConfig(parts_interval_s=0.0)
"""The default front end, with the maps of body parts of every frame, which are learnt from."""
_NETWORKS = ("blazepose_detector", "blazepose_landmark_heavy", "bodypix")


@dataclasses.dataclass(frozen=True)
class Footage:
    """One clip and the people seen in it, each in :data:`LEAST_FRAMES` frames or more; perhaps none."""

    path: Path
    people: tuple[Evidence, ...]

    @property
    def seen(self) -> int:
        """Frames in which somebody is seen, added up over the people."""
        return sum(int(e.observed.sum()) for e in self.people)


def read_footage(
    paths: Sequence[str | Path],
    cache: str | Path | None = None,
    device: torch.device | str = "cpu",
    config: PerceptionConfig | None = None,
    progress: Callable[[Path], None] | None = None,
) -> list[Footage]:
    """The people of clips: perceived at the first time, read from the cache at those that follow.

    What is kept goes by the clip's name, size and time of change, the settings of perception and its networks: a clip that
    changed is perceived anew.

    Args:
        paths: videos, folders of videos, or folders of numbered images.
        cache: folder for what was seen; None: :data:`CACHE` beside each clip.
        config: of the front end; None: :data:`LOOKING`.
        progress: called with each clip that is about to be perceived.

    Returns:
        Those clips in which somebody is seen for long enough; the others are logged.

    Raises:
        MissingAssetError: no clip there. VideoError: one that cannot be read.
        NobodyFoundError: nobody is seen for long enough in any of them.
        OutputError: the cache cannot be written.
    """
    config = LOOKING if config is None else config
    clips = _clips(paths)
    out, perceiver = [], None
    for clip in clips:
        folder = cache_folder(clip, cache, config)
        if not folder.is_dir():
            if progress is not None:
                progress(clip)
            perceiver = watch(Clip.open(clip), config, torch.device(device), 8, None, perceiver)
            keep(perceiver.finish(), folder)
        people = [Evidence.load(file) for file in sorted(folder.glob("person*.npz"))]
        people = [e for e in people if e.observed.sum() >= LEAST_FRAMES]
        if people:
            out.append(Footage(clip, tuple(people)))
        else:
            log.warning("%s: nobody is seen in %d frames or more; left out.", clip, LEAST_FRAMES)
    if not out:
        raise NobodyFoundError(
            f"{', '.join(map(str, clips[:3]))}{', ...' if len(clips) > 3 else ''}: expected people seen in {LEAST_FRAMES} "
            "frames or more, found none. Use clips in which a person is at least 60 px tall and in view for a while."
        )
    return out


def _clips(paths: Sequence[str | Path]) -> list[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise MissingAssetError(f"{path}: expected a video, or a folder of them, found nothing.")
        if path.is_dir() and not any(p.is_file() and not p.name.startswith(".") for p in path.iterdir()):
            raise MissingAssetError(f"{path}: expected videos, found none.")
    return find_clips(paths)[0]


def cache_folder(clip: Path, cache: str | Path | None, config: PerceptionConfig) -> Path:
    """Where what was seen of a clip is kept: ``NAME-DIGEST``, one ``personNN.npz`` for each Evidence."""
    files = sorted(clip.iterdir()) if clip.is_dir() else [clip]
    digest = hashlib.sha256(f"{config_hash(config)} {_networks()}".encode())
    for file in files:
        facts = file.stat()
        digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    place = clip.parent / CACHE if cache is None else Path(cache)
    return place / f"{clip.stem or 'clip'}-{digest.hexdigest()[:12]}"


@functools.cache
def _networks() -> str:
    """A fingerprint of the packaged networks that perceive."""
    digest = hashlib.sha256()
    for name in _NETWORKS:
        digest.update((FOLDER / f"{name}.safetensors").read_bytes())
    return digest.hexdigest()[:12]


def keep(people: Sequence[Evidence], folder: Path) -> None:
    """Write what was seen of a clip's people into a folder that appears whole or not at all.

    Person masks and confidences of parts, which no loss reads, are left out.

    Raises:
        OutputError: it cannot be written.
    """
    stage = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
        for i, person in enumerate(people):
            kept: Record = person
            if person.parts is not None:
                kept = dataclasses.replace(person, masks=None, part_confidence=None)
            kept.save(stage / f"person{i:02d}.npz")
        os.replace(stage, folder)
    except OSError as error:
        raise OutputError(
            f"{folder.parent}: cannot keep there what was seen of the clips ({error.strerror or error}). Name a folder for "
            "it: --set sources.clips.cache=FOLDER, or --cache FOLDER."
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
