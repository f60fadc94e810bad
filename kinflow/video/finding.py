"""Clips by the paths that stand for them: videos, folders of videos, folders of images."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from .images import natural_key
from .sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES

log = logging.getLogger(__name__)


def find_clips(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[Path], bool]:
    """The clips that paths stand for, and whether they are many: each has a folder of its own then.

    A folder of images is one clip, as is whatever is no folder. A folder of videos stands for those in it, by their names'
    endings, in natural order; folders inside it are not looked into. A clip that is named twice counts once.

    >>> find_clips(["walk.mp4"])
    ([PosixPath('walk.mp4')], False)
    """
    clips: dict[str, Path] = {}
    folders = False
    for path in map(Path, paths):
        videos = _videos(path)
        folders = folders or bool(videos)
        for clip in videos or [path]:
            clips.setdefault(os.path.abspath(clip), clip)
    return list(clips.values()), folders or len(paths) > 1


def _videos(folder: Path) -> list[Path]:
    """The videos of a folder that is no sequence of images."""
    if not folder.is_dir():
        return []
    shown = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    videos = [p for p in shown if p.suffix.lower() in VIDEO_SUFFIXES]
    images = len([p for p in shown if p.suffix.lower() in IMAGE_SUFFIXES])
    if videos and images:
        log.warning(
            "%s: holds %d images and %d videos; the images are taken for one clip. Name the videos, or move them.",
            folder, images, len(videos),
        )  # fmt: skip
        return []
    return sorted(videos, key=lambda p: natural_key(p.name))
