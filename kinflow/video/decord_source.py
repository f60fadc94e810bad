"""Video files through decord, with PyAV's times, and PyAV behind it for whatever decord cannot read."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from av.error import FFmpegError

from .sources import Frame, PyAVSource, open_container, square_size, video_stream

log = logging.getLogger(__name__)


_FASTER = {("mov", "h264"), ("mov", "hevc"), ("mov", "mpeg4"), ("matroska", "h264")}
"""Containers and codecs in which decord was measured to be the faster, in pictures of at most _FASTER_PX."""

_FASTER_PX = 320 * 240


def decord_is_faster(source: PyAVSource) -> bool:
    """Whether decord reads a file of this kind at less cost than PyAV does, by measurement (docs/video.md).

    It spends less on each frame and more on each pixel: three quarters of PyAV's processor time at 320x180, as much at
    426x240, 1.2 to 1.7 times as much from 576x576 on. It indexes the whole file first, so parts of files are PyAV's.
    """
    whole = source.start is None and source.end is None
    known = (source.container.split(",")[0], source.codec) in _FASTER
    return whole and known and source.pixels <= _FASTER_PX


class DecordSource:
    """A video file through decord; ``pyav`` takes over whatever decord cannot do, from the frame where it stops.

    Times are PyAV's own, from the packets: decord's are single precision, 0.1 ms off after half an hour.

    Args:
        pyav: the same file and part through PyAV.
        checked_first: leave the first pass to PyAV, and all others if that pass finds damage: decord hands damaged frames
            on without a word.
    """

    def __init__(self, pyav: PyAVSource, checked_first: bool) -> None:
        self.pyav = pyav
        self.fps, self.num_frames = pyav.fps, pyav.num_frames
        self.damage: str | None = None
        self._sound = not checked_first
        self.decoder = "decord" if self._sound else "pyav"

    def frames(self) -> Iterator[Frame]:
        """Yield frames as :meth:`PyAVSource.frames` does."""
        self.damage = None
        if not self._sound:
            yield from self.pyav.frames()
            self.damage = self.pyav.damage
            self._sound = self.damage is None  # not reached by a pass that is left early
            return
        self.decoder = "decord"
        done = -1
        try:
            for frame in self._decord():
                yield frame
                done = frame.frame_id
            return
        except _DecordFailed as error:
            log.info("decord gives up on %s after frame %d (%s); PyAV goes on", self.pyav.path.name, done, error)
        self.decoder = "pyav"
        for frame in self.pyav.frames():
            if frame.frame_id > done:
                yield frame
        self.damage = self.pyav.damage

    def _decord(self) -> Iterator[Frame]:
        try:
            import decord
        except ImportError as error:
            raise _DecordFailed("no decord wheel here") from error
        path, start, end = self.pyav.path, self.pyav.start, self.pyav.end
        with open_container(path) as container:
            stream = video_stream(container, path)
            try:
                head = next(iter(container.decode(stream)), None)
            except FFmpegError as error:
                raise _DecordFailed("the first frame does not decode") from error
            if head is None or head.rotation or square_size(stream, head) != (head.width, head.height):
                raise _DecordFailed("no frame, a rotation flag, or pixels that are not square")
        stamps = np.array(self.pyav.packet_times() or [])
        try:
            reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=self.pyav.threads)
            its_own = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        except Exception as error:  # decord raises its own class and plain RuntimeError alike
            raise _DecordFailed(str(error).splitlines()[-1][:120]) from error
        if len(stamps) != len(its_own) or np.any(np.diff(stamps) <= 0):
            raise _DecordFailed("packets without increasing times, or others than decord's")
        times = stamps - stamps[0]
        if not np.allclose(its_own - its_own[0], times, rtol=1e-6, atol=1e-3):
            raise _DecordFailed("its times are not those of the packets")
        begin = int(np.searchsorted(times, (start or 0.0) - 1e-6))
        stop = len(times) if end is None else int(np.searchsorted(times, end - 1e-6))
        for index in range(begin, stop):
            try:
                if index == begin and begin:
                    reader.seek_accurate(begin)
                image = reader.next().asnumpy()
            except Exception as error:
                raise _DecordFailed(str(error).splitlines()[-1][:120]) from error
            if image.shape != (head.height, head.width, 3):  # pictures 48 px wide come with four channels
                raise _DecordFailed(f"frames of shape {image.shape}")
            yield Frame(image, float(times[index]), index)


class _DecordFailed(Exception):
    """decord cannot read this clip, or not further."""
