"""Clips: a video file, one image, or a folder of numbered images, read as a stream of batches.

Decoding runs in a background thread, a few frames ahead of whoever consumes them, so that it overlaps with the
networks; memory does not grow with the length of the clip.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ..config import VideoConfig
from ..errors import UsageError, VideoError
from .sources import IMAGE_SUFFIXES, DecordSource, Frame, ImageSource, PyAVSource, Source, list_images


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive frames of a clip.

    Attributes:
        images: (B, H, W, 3) uint8 RGB, upright.
        timestamps: (B,) float64, s from the clip's first frame.
        frame_ids: (B,) int64, index in the whole clip.
    """

    images: np.ndarray
    timestamps: np.ndarray
    frame_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.frame_ids)


class ClipReader:
    """An opened clip; made by :func:`open_clip`.

    Attributes:
        path: what was opened.
        image_size: (width, height) in px, upright.
        fps: mean frames per second by the file's own header. Use the timestamps for anything exact.
        num_frames: how many frames to expect, or None where the file does not say; an estimate.
        damage: after reading: None, or one line saying what part of the clip could not be read.
    """

    def __init__(self, path: Path, source: Source, config: VideoConfig) -> None:
        self.path = path
        self._source = source
        self._config = config
        frames = source.frames()
        first = next(frames, None)
        if first is None:
            start = getattr(source, "start", None)
            duration = getattr(source, "duration", None)
            if start and duration and start >= duration:
                raise UsageError(f"start: {start:g} s is past the end of {path.name}, which lasts {duration:.2f} s.")
            raise VideoError(
                f"{path}: not one frame could be decoded; the file is cut off or damaged. Copy or re-encode it."
            )
        self._opened: Iterator[Frame] | None = chain([first], frames)
        height, width = first.image.shape[:2]
        self.image_size: tuple[int, int] = (width, height)
        self.fps = source.fps
        self.num_frames = source.num_frames

    @property
    def damage(self) -> str | None:
        """After reading: None, or what could not be read, in one line."""
        return self._source.damage

    def batches(self, n: int) -> Iterator[FrameBatch]:
        """Yield batches of ``n`` frames, the last one shorter. May be called again: it reads from the start.

        Raises:
            UsageError: when ``n`` is not positive.
            VideoError: when an image of a folder differs in size.
        """
        if n < 1:
            raise UsageError(f"n: expected a batch of at least one frame, got {n}.")
        frames, self._opened = self._opened or self._source.frames(), None
        width, height = self.image_size
        ahead = max(2, min(2 * n, self._config.prefetch_mb * 2**20 // (width * height * 3)))
        stream = _ahead(frames, ahead)
        try:
            while True:
                images = np.empty((n, height, width, 3), np.uint8)
                times, ids = np.empty(n, np.float64), np.empty(n, np.int64)
                count = 0
                for frame in stream:
                    images[count], times[count], ids[count] = frame
                    count += 1
                    if count == n:
                        break
                if count:
                    yield FrameBatch(images[:count], times[:count], ids[:count])
                if count < n:
                    return
        finally:
            stream.close()


def _ahead(frames: Iterator[Frame], size: int) -> Generator[Frame, None, None]:
    """Run ``frames`` in a thread that stays at most ``size`` items ahead; closing the generator stops the thread."""
    box: queue.Queue[Frame | BaseException | None] = queue.Queue(maxsize=size)
    stop = threading.Event()

    def put(item: Frame | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                box.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for frame in frames:
                if not put(frame):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    worker = threading.Thread(target=work, name="kinflow-decode", daemon=True)
    worker.start()
    try:
        while (item := box.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join(timeout=10)


def open_clip(
    path: str | os.PathLike[str],
    start: float | None = None,
    end: float | None = None,
    config: VideoConfig | None = None,
) -> ClipReader:
    """Open a video file, a single image, or a folder of numbered images.

    Args:
        path: the clip.
        start, end: the part to read, in s from the clip's first frame: ``start <= t < end``.
        config: decoder and limits.

    Raises:
        VideoError: when it is missing, empty, not a video, audio only, or holds no frame that decodes.
        UsageError: when ``start`` and ``end`` leave nothing.

    >>> clip = open_clip("clip.mp4", end=2.0)  # doctest: +SKIP
    >>> for batch in clip.batches(16):  # doctest: +SKIP
    ...     print(batch.images.shape, batch.timestamps)
    """
    config = config or VideoConfig()
    path = Path(path)
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (np.isfinite(value) and value >= 0):
            raise UsageError(f"{name}: expected seconds from the clip's beginning, got {value}.")
    if start is not None and end is not None and end <= start:
        raise UsageError(f"start, end: nothing lies between {start:g} and {end:g} s. Give an end after the start.")
    if path.is_dir():
        return ClipReader(path, ImageSource(list_images(path), start, end, config.image_fps), config)
    if not path.exists():
        raise VideoError(f"{path}: no such file. Check the path.")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ClipReader(path, ImageSource([path], start, end, config.image_fps), config)
    kinds: dict[str, type[PyAVSource] | type[DecordSource]] = {"pyav": PyAVSource, "decord": DecordSource}
    if config.decoder not in kinds:
        raise UsageError(f"decoder: expected {' or '.join(kinds)}, got {config.decoder!r}.")
    return ClipReader(path, kinds[config.decoder](path, start, end, config.threads), config)
