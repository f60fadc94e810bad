"""The noun at the door: a Clip, frames with their true times and the camera that saw them, read lazily.

Decoding runs in a background thread, a few frames ahead of whoever consumes them, so that it overlaps with the
networks; memory does not grow with the length of the clip.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from torch import Tensor

from .cameras import Camera, camera_matrix
from .config import VideoConfig
from .errors import UsageError, VideoError, check_path, check_type
from .video.decord_source import DecordSource, decord_is_faster
from .video.images import ImageSource, list_images
from .video.prefetch import prefetch
from .video.sources import IMAGE_SUFFIXES, Frame, PyAVSource, Source


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


class Clip:
    """A video file, one image, or a folder of numbered images; made by :meth:`open`, read as often as need be.

    Attributes:
        path: what was opened.
        image_size: (width, height) in px, upright.
        K: (3, 3) float32 camera matrix, px.
        fps: mean frames per second by the file's own header. Use the timestamps for anything exact.
        num_frames: how many frames to expect, or None where the file does not say; an estimate.
        config: how it is decoded.
        waited_s: how long consumers of :meth:`batches` have waited for frames, in all.

    >>> clip = Clip.open("clip.mp4", end=2.0)  # doctest: +SKIP
    >>> for batch in clip.batches(16):  # doctest: +SKIP
    ...     print(batch.images.shape, batch.timestamps)
    """

    def __init__(self, path: Path, source: Source, camera: Camera, config: VideoConfig) -> None:
        self.path, self.config = path, config
        self._source = source
        frames = source.frames()
        first = next(frames, None)
        if first is None:
            start = getattr(source, "start", None)
            duration = getattr(source, "duration", None)
            if start and duration and start >= duration:
                raise UsageError(f"start: {start:g} s is past the end of {path.name}, which lasts {duration:.2f} s.")
            if next(_source(path, None, None, config).frames(), None) is not None:
                raise UsageError(f"start, end: no frame of {path.name} lies between them. Ask for a longer part.")
            raise VideoError(
                f"{path}: not one frame could be decoded; the file is cut off or damaged. Copy or re-encode it."
            )
        self._opened: Iterator[Frame] | None = chain([first], frames)
        height, width = first.image.shape[:2]
        self.image_size: tuple[int, int] = (width, height)
        self.K: Tensor = camera_matrix(camera, self.image_size)
        self.fps = source.fps
        self.num_frames = source.num_frames
        self.waited_s = 0.0
        self._index: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        start: float | None = None,
        end: float | None = None,
        camera: Camera = None,
        config: VideoConfig | None = None,
    ) -> Clip:
        """Open a video file, a single image, or a folder of numbered images.

        Args:
            path: the clip.
            start, end: the part to read, in s from the clip's first frame: ``start <= t < end``.
            camera: its matrix (3, 3) in px, ``"fx,fy,cx,cy"`` or a file that
                :func:`kinflow.cameras.read_intrinsics` reads, :class:`kinflow.cameras.Focal` or
                :class:`kinflow.cameras.FieldOfView`. Without any, the focal length is the image's diagonal.
            config: decoder and limits.

        Raises:
            VideoError: when it is missing, empty, not a video, audio only, or holds no frame that decodes.
            UsageError: when ``start`` and ``end`` leave nothing, or for a camera matrix that is none.
        """
        config = VideoConfig() if config is None else config
        check_type("config", config, VideoConfig)
        path = check_path("clip", path)
        for name, value in (("start", start), ("end", end)):
            if value is not None:
                check_type(name, value, Real)
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise UsageError(f"{name}: expected seconds from the clip's beginning, got {value}.")
        if end == 0:
            raise UsageError("end: expected seconds above 0, got 0. Nothing lies before a clip's first frame.")
        if start is not None and end is not None and end <= start:
            raise UsageError(f"start, end: nothing lies between {start:g} and {end:g} s. Give an end after the start.")
        return cls(path, _source(path, start, end, config), camera, config)

    def __repr__(self) -> str:
        return f"Clip({str(self.path)!r}, image_size={self.image_size}, fps={self.fps:g}, num_frames={self.num_frames})"

    @property
    def damage(self) -> str | None:
        """After reading: None, or what could not be read, in one line."""
        return self._source.damage

    @property
    def decoder(self) -> str:
        """What decodes it, "pyav" or "decord"; after reading: what did so to the end of the last pass."""
        return self._source.decoder

    @property
    def timestamps(self) -> np.ndarray:
        """(T,) float64, s: the true times of all frames that decode. Reads the clip unless that was done before."""
        return self._times_and_ids()[0]

    @property
    def frame_ids(self) -> np.ndarray:
        """(T,) int64: index in the whole file of all frames that decode. Reads the clip unless that was done before."""
        return self._times_and_ids()[1]

    def _times_and_ids(self) -> tuple[np.ndarray, np.ndarray]:
        if self._index is None:
            for _ in self.batches(1):
                pass
        assert self._index is not None  # set at the end of the pass
        return self._index

    def batches(self, n: int) -> Iterator[FrameBatch]:
        """Yield batches of ``n`` frames, the last one shorter. May be called again: it reads from the start.

        Raises:
            UsageError: when ``n`` is not a number above 0.
            VideoError: when an image of a folder differs in size.
        """
        if not (isinstance(n, Integral) and n >= 1):
            raise UsageError(f"n: expected a batch of at least one frame, got {n!r}.")
        frames, self._opened = self._opened or self._source.frames(), None
        width, height = self.image_size
        ahead = max(2, min(2 * n, self.config.prefetch_mb * 2**20 // (width * height * 3)))
        stream = prefetch(frames, ahead)
        seen_times, seen_ids = array("d"), array("q")
        try:
            count = n
            while count == n:
                began = time.perf_counter()
                images = np.empty((n, height, width, 3), np.uint8)
                times, ids = np.empty(n, np.float64), np.empty(n, np.int64)
                count = 0
                for frame in stream:
                    images[count], times[count], ids[count] = frame
                    count += 1
                    if count == n:
                        break
                seen_times.extend(times[:count].tolist())
                seen_ids.extend(ids[:count].tolist())
                self.waited_s += time.perf_counter() - began
                if count:
                    yield FrameBatch(images[:count], times[:count], ids[:count])
            self._index = np.array(seen_times, np.float64), np.array(seen_ids, np.int64)
        finally:
            stream.close()


def _source(path: Path, start: float | None, end: float | None, config: VideoConfig) -> Source:
    if path.is_dir():
        return ImageSource(list_images(path), start, end, config.image_fps)
    if not path.exists():
        raise VideoError(f"{path}: no such file. Check the path.")
    if not path.is_file():  # opening a pipe waits for whoever writes to it, and a clip is read more than once
        raise VideoError(
            f"{path}: a pipe, socket or device, not a file. Write the clip to a file first, and give that."
        )
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], start, end, config.image_fps)
    source = PyAVSource(path, start, end, config.threads)
    if config.decoder == "decord" or (config.decoder == "auto" and decord_is_faster(source)):
        return DecordSource(source, checked_first=config.decoder == "auto")
    return source
