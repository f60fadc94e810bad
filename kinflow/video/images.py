"""Image files as frames: one picture, or a folder of numbered ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from ..errors import UsageError, VideoError
from .sources import IMAGE_SUFFIXES, Frame, open_container, to_rgb, video_stream


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``frame_10`` follows ``frame_9``."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in re.split(r"(\d+)", name) if p]


def read_image(path: Path) -> np.ndarray:
    """Read one image file -> (H, W, 3) uint8 RGB, upright by its EXIF flag.

    Raises:
        VideoError: when the file is missing, empty, or not an image.
    """
    if not path.is_file():
        raise VideoError(f"{path}: no such file. Check the path.")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes). Copy it again.")
    try:
        with open_container(path) as container:
            for frame in container.decode(video_stream(container, path)):
                return np.ascontiguousarray(to_rgb(frame))
    except FFmpegError as error:
        raise VideoError(f"{path}: not a readable image. Open it elsewhere and save it again.") from error
    raise VideoError(f"{path}: no picture inside. Open it elsewhere and save it again.")


class ImageSource:
    """Image files in natural order, ``fps`` apart: an image carries no time."""

    decoder = "pyav"

    def __init__(self, paths: list[Path], start: float | None, end: float | None, fps: float) -> None:
        self.fps = fps
        self.damage: str | None = None
        begin = math.ceil((start or 0.0) * fps - 1e-6)
        stop = len(paths) if end is None else min(len(paths), math.ceil(end * fps - 1e-6))
        if begin >= stop:
            raise UsageError(
                f"start, end: nothing lies between {start or 0} and {end} s of {len(paths)} images at {fps:g} a second."
            )
        self.paths, self.begin = paths[begin:stop], begin
        self.num_frames: int | None = len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """Yield the images; unreadable ones are skipped and named in :attr:`damage`."""
        self.damage = None
        unreadable: list[str] = []
        shape: tuple[int, ...] | None = None
        first = ""
        for offset, path in enumerate(self.paths):
            try:
                image = read_image(path)
            except VideoError:
                if len(self.paths) == 1:
                    raise
                unreadable.append(path.name)
                continue
            if shape is None:
                shape, first = image.shape, path.name
            if image.shape != shape:
                raise VideoError(
                    f"{path}: {image.shape[1]}x{image.shape[0]} px, but {first} has {shape[1]}x{shape[0]}. "
                    "All images of a folder must be of one size: resize them, or use separate folders."
                )
            index = self.begin + offset
            yield Frame(image, index / self.fps, index)
        if unreadable and shape is not None:
            self.damage = f"{len(unreadable)} of {len(self.paths)} images could not be read ({unreadable[0]} first)."


def list_images(folder: Path) -> list[Path]:
    """Images of a folder in natural order (``2.png`` before ``10.png``), hidden files left out.

    Raises:
        VideoError: when there are none.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not found:
        raise VideoError(
            f"{folder}: a folder without images. Give a folder with numbered png, jpg or webp files, or a video file."
        )
    return sorted((p for p in found if p.is_file()), key=lambda p: natural_key(p.name))
