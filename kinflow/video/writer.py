"""Writing H.264 mp4 files that are complete or absent."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace

from ..config import VideoConfig
from ..errors import OutputError, ShapeError, UsageError, check_shape

_TICKS = 90_000
"""Time base of the stream, ticks per second: exact for every common rate."""


class VideoWriter:
    """Write RGB frames to an mp4 (H.264, yuv420p, index in front), through a temporary name.

    The file appears under ``path`` when the ``with`` block ends well; after any exception, Ctrl-C included, nothing
    is left. Sizes that yuv420p cannot hold are padded by one row or column, a copy of the last.

    Args:
        path: the file to write; its folder must exist.
        image_size: (width, height) px of the frames.
        fps: frames per second, where :meth:`write` gets no timestamps.
        config: quality and speed of the encoder.

    Raises:
        OutputError: when the file cannot be created or written (no permission, disk full).
        UsageError: for a size or rate that no video has.

    >>> with VideoWriter("out.mp4", (64, 48), fps=25) as video:  # doctest: +SKIP
    ...     video.write(np.zeros((48, 64, 3), np.uint8))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image_size: tuple[int, int],
        fps: float,
        config: VideoConfig | None = None,
    ) -> None:
        config = config or VideoConfig()
        width, height = image_size
        if width < 1 or height < 1:
            raise UsageError(f"image_size: expected two positive numbers, got {image_size}.")
        if not (math.isfinite(fps) and fps > 0):
            raise UsageError(f"fps: expected a positive number, got {fps}.")
        self.path, self.image_size, self.fps = Path(path), (width, height), fps
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._last = -1
        self._begin: float | None = None
        self._count = 0
        self._closed = False
        self._container: Any = None
        try:
            self._partial.touch()  # PyAV opens the file at the first frame only: too late to say that it cannot
            self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
            rate = Fraction(fps).limit_denominator(1001)
            stream: Any = self._container.add_stream("libx264", rate=max(rate, Fraction(1, 1001)))
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": str(config.crf), "preset": config.preset}
            stream.codec_context.time_base = Fraction(1, _TICKS)
            # BT.709 and saying so: players guess by the picture's height where a file does not tell
            stream.codec_context.colorspace = stream.codec_context.color_primaries = Colorspace.ITU709.value
            stream.codec_context.color_trc = 1
            stream.codec_context.color_range = ColorRange.MPEG.value
            self._stream = stream
        except (FFmpegError, OSError) as error:
            self.discard()
            raise self._explained(error) from error

    def write(self, image: np.ndarray, timestamp: float | None = None) -> None:
        """Append a frame (H, W, 3) uint8 RGB, shown from ``timestamp`` or one period after the last.

        Timestamps are s and increase; the video begins with the first of them.

        Raises:
            ShapeError: for another size or type.
            OutputError: when the disk is full.
        """
        width, height = self.image_size
        check_shape("image", image, f"{height} {width} 3", "Write frames of the size given at the start.")
        if image.dtype != np.uint8:
            raise ShapeError(f"image: expected uint8, got {image.dtype}. Convert it to 0..255 first.")
        if self._closed:
            raise UsageError("write: the video is closed. Open a new VideoWriter.")
        if width % 2 or height % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if timestamp is None:
            seconds = self._count / self.fps
        else:
            self._begin = timestamp if self._begin is None else self._begin
            seconds = timestamp - self._begin
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts = self._last = max(self._last + 1, round(seconds * _TICKS))
        frame.time_base = Fraction(1, _TICKS)
        self._count += 1
        try:
            self._container.mux(self._stream.encode(frame))
        except (FFmpegError, OSError) as error:
            self.discard()
            raise self._explained(error) from error

    def close(self) -> None:
        """Finish the file and give it its name. Without a frame nothing is written."""
        if self._closed:
            return
        if not self._count:
            self.discard()
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            os.replace(self._partial, self.path)
            self._closed = True
        except (FFmpegError, OSError) as error:
            raise self._explained(error) from error
        finally:
            if not self._closed:
                self.discard()

    def discard(self) -> None:
        """Drop what was written so far."""
        self._closed = True
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(FFmpegError, OSError):  # why it cannot be finished was raised already
                container.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _explained(self, error: Exception) -> OutputError:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return OutputError(
                f"{self.path}: the disk is full (or a quota or size limit is reached). Free some space, or write elsewhere."
            )
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return OutputError(f"{self.path}: no permission to write here. Choose another folder.")
        if number == errno.ENOENT:
            return OutputError(f"{self.path}: its folder does not exist. Create it first.")
        return OutputError(f"{self.path}: cannot be written ({error}). Check the disk, or write elsewhere.")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
