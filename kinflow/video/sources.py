"""Where frames come from: what a source is, and video files through PyAV.

A source is opened once and yields decoded frames in order. It keeps no frame. :class:`kinflow.clip.Clip` wraps it
with prefetching and batches.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
from av.error import EOFError as AvEOFError
from av.error import FFmpegError

from ..errors import VideoError

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".mov",
        ".m4v",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
    }
)
"""Which files of a folder are taken for clips; a file that is named outright may be called anything."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_NOT_FILMS = frozenset({"tty", "srt", "webvtt", "ass", "lrc", "txt"})
"""Demuxers that take any text for a film."""

_NO_VIDEO = "{}: not a video, or cut off before its index. Check that it plays elsewhere, or copy it again."

_SLOWEST_FPS = 1 / 60
"""Fewer frames a second are a clock that does not work (a time scale of 0 counts as 1: 3,750 s a frame), where not all are read."""

_DEFAULT_FPS = 25.0
"""Spacing of frames that carry no time at all (ffmpeg's own convention); used only where a file says nothing."""


class Frame(NamedTuple):
    """One decoded frame: ``image`` (H, W, 3) uint8 RGB, ``timestamp`` in s from the clip's first frame, its index."""

    image: np.ndarray
    timestamp: float
    frame_id: int


class Source(Protocol):
    """What :class:`kinflow.clip.Clip` asks of a source."""

    fps: float
    num_frames: int | None
    damage: str | None
    decoder: str

    def frames(self) -> Iterator[Frame]:
        """Decode from the start of the wanted part; every call begins anew."""


def _upright(image: np.ndarray, rotation: int) -> np.ndarray:
    """Turn ``image`` counter-clockwise by ``rotation`` degrees, a multiple of 90 (others are left alone)."""
    if rotation % 90:
        log.warning("a rotation flag of %d degrees is not a multiple of 90 and is ignored", rotation)
        return image
    return np.rot90(image, (rotation // 90) % 4) if rotation % 360 else image


def to_rgb(frame: av.VideoFrame, size: tuple[int, int] | None = None) -> np.ndarray:
    """Convert to an upright (H, W, 3) uint8 RGB array, scaled to ``size`` (stored width, height) if that differs."""
    width, height = size or (frame.width, frame.height)
    rgb = frame.reformat(width=width, height=height, format="rgb24")  # by the YUV matrix that the frame declares
    return _upright(rgb.to_ndarray(), int(frame.rotation))


def square_size(stream: Any, frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of the stored frame with square pixels."""
    wide = float(stream.sample_aspect_ratio or 1)
    return (round(frame.width * wide) if 0.1 < wide < 10 else frame.width), frame.height


def open_container(path: Path) -> Any:
    """Open ``path`` with PyAV, or say in one line why that cannot be done."""
    options = {"pattern_type": "none"} if path.suffix.lower() in IMAGE_SUFFIXES else {}
    try:
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except PermissionError as error:
        raise VideoError(f"{path}: no permission to read it. Change its permissions or copy it elsewhere.") from error
    except (FFmpegError, ValueError, OSError) as error:
        raise VideoError(_NO_VIDEO.format(path)) from error
    if any(name in _NOT_FILMS for name in container.format.name.split(",")):
        container.close()
        raise VideoError(f"{path}: a text file, not a video. Give a video, an image, or a folder of images.")
    return container


def video_stream(container: Any, path: Path) -> Any:
    """The first stream that moves: cover pictures of audio files do not count."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                container.close()
                raise VideoError(f"{path}: a video in a format that cannot be decoded here. Re-encode it to H.264 mp4.")
            return stream
    audio = bool(container.streams.audio)
    container.close()
    if audio:
        raise VideoError(f"{path}: audio only, there is no video stream. Give a file with a picture.")
    raise VideoError(_NO_VIDEO.format(path))


class PyAVSource:
    """A video file through PyAV: true timestamps, rotation flags, variable frame rate, damaged files."""

    decoder = "pyav"

    def __init__(self, path: Path, start: float | None, end: float | None, threads: int = 0) -> None:
        self.path, self.start, self.end, self.threads = path, start, end, threads
        self.damage: str | None = None
        with open_container(path) as container:
            stream = video_stream(container, path)
            self.container, self.codec = container.format.name, stream.codec_context.name
            self.pixels = stream.width * stream.height
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            self.fps = float(rate) if rate else _DEFAULT_FPS
            self.duration = float(stream.duration * stream.time_base) if stream.duration else None
            if self.duration is None and container.duration:
                self.duration = container.duration / av.time_base
            self.promised = stream.frames or None
        self.num_frames = self._estimate()

    def _estimate(self) -> int | None:
        if self.start is None and self.end is None and self.promised:
            return int(self.promised)
        if self.duration is None:
            return None
        seconds = min(self.duration, self.end if self.end is not None else math.inf) - (self.start or 0.0)
        return max(1, round(seconds * self.fps))

    def packet_times(self, until: float = math.inf) -> list[float] | None:
        """Times of the packets up to ``until`` s after the first, sorted; None where packets carry none.

        Reads packet headers only. It is what lets a frame keep its index in the whole clip after a seek.
        """
        times: list[float] = []
        try:
            with open_container(self.path) as container:
                stream = video_stream(container, self.path)
                for packet in container.demux(stream):
                    if packet.size == 0 or packet.is_discard:
                        continue
                    if packet.pts is None:
                        return None
                    times.append(float(packet.pts * stream.time_base))
                    if times[-1] > times[0] + until:
                        break
        except FFmpegError as error:
            log.debug("scanning %s: %s", self.path, error)
        return sorted(times) or None

    def frames(self) -> Iterator[Frame]:
        """Yield upright frames; packets that do not decode are counted into :attr:`damage` and skipped."""
        self.damage = None
        times = self.packet_times(self.start + 2.0) if self.start else None
        if times is not None:
            try:
                yield from self._read(times, seek=True)
                return
            except _SeekError:
                log.debug("%s cannot be sought in; it is decoded from its beginning", self.path)
        yield from self._read(times, seek=False)

    def _read(self, times: list[float] | None, seek: bool) -> Iterator[Frame]:
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            # H.264 decoded frame by frame in several threads may hand a frame on before the thread that decodes it has
            # found it damaged: the damage then goes unnoticed at times. Slices are decoded before their frame is given.
            stream.thread_type = "SLICE" if self.codec == "h264" else "AUTO"
            stream.codec_context.thread_count = self.threads
            if times is not None and seek:
                target = times[0] + (self.start or 0.0)
                try:
                    container.seek(int(target / stream.time_base), stream=stream, backward=True)
                except (FFmpegError, OSError) as error:
                    raise _SeekError from error
            yield from self._decode(container, stream, times, seek)

    def _decode(self, container: Any, stream: Any, times: list[float] | None, seek: bool) -> Iterator[Frame]:
        period = 1.0 / self.fps
        first = times[0] if times is not None else None
        clock: float | None = None  # of the last frame decoded
        previous: float | None = None  # of the last frame yielded
        frame_id, read, lost, lost_at = 0, 0, 0, math.nan
        size: tuple[int, int] | None = None
        ended, stopped, found = False, False, False
        packets = container.demux(stream)
        while not ended:
            decoded: list[av.VideoFrame] = []
            try:
                packet = next(packets)
            except StopIteration:
                break
            except FFmpegError as error:
                lost, lost_at = lost + 1, (previous or 0.0) if not lost else lost_at
                log.debug("reading %s: %s", self.path, error)
                break
            ended = packet.size == 0
            broken = bool(packet.is_corrupt)
            try:
                decoded = packet.decode()
            except (AvEOFError, StopIteration):
                break
            except FFmpegError as error:
                log.debug("decoding %s: %s", self.path, error)
                broken = True
            if broken:
                lost, lost_at = lost + 1, (previous or 0.0) if not lost else lost_at
                if not decoded:
                    frame_id += 1
            for frame in decoded:
                stamp = float(frame.pts * stream.time_base) if frame.pts is not None else None
                if first is None:
                    first = stamp if stamp is not None else 0.0
                if stamp is None:
                    seconds = 0.0 if clock is None else clock + period
                else:
                    seconds = stamp - first
                clock = seconds
                if times is not None and stamp is not None and not read:
                    frame_id = bisect_left(times, stamp - 1e-6)
                    if seek and not found and frame_id > bisect_left(times, first + (self.start or 0.0) - 1e-6):
                        raise _SeekError
                found = True
                index, frame_id = frame_id, frame_id + 1
                if frame.is_corrupt:
                    lost, lost_at = lost + 1, (previous or 0.0) if not lost else lost_at
                    continue
                if self.start is not None and seconds < self.start - 1e-6:
                    continue
                if self.end is not None and seconds >= self.end - 1e-6:
                    stopped = ended = True
                    break
                if previous is not None and seconds <= previous:
                    log.debug("%s: frame %d does not move on in time", self.path, index)
                    seconds = previous + 0.5 * period
                previous = seconds
                size = size or square_size(stream, frame)
                read += 1
                yield Frame(to_rgb(frame, size), seconds, index)
        if seek and not found:
            raise _SeekError
        self._report(read, lost, lost_at, previous, stopped)

    def _report(self, read: int, lost: int, lost_at: float, last: float | None, stopped: bool) -> None:
        if lost and read:
            self.damage = (
                f"{self.path.name} is damaged: {lost} frames from {lost_at:.2f} s on could not be decoded; "
                f"the other {read} were used."
            )
        elif (
            read
            and not stopped
            and not self.start
            and self.promised
            and read < self.promised
            and self.fps < _SLOWEST_FPS
        ):
            self.damage = (
                f"{self.path.name} is damaged: by its clock a frame lasts {1 / self.fps:.0f} s, and {read} of its "
                f"{self.promised} frames were read. Re-encode it."
            )
        elif read and not stopped and not self.start and self.promised and self.duration and last is not None:
            short = self.duration - last > max(0.05 * self.duration, 1.5 / self.fps)
            if read < 0.95 * self.promised and short:
                self.damage = (
                    f"{self.path.name} is cut off: it promises {self.promised} frames, {read} are there "
                    f"({last:.2f} of {self.duration:.2f} s); these were used."
                )


class _SeekError(Exception):
    """Seeking did not reach the frame asked for."""
