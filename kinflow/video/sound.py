"""The sound of a clip beside pictures drawn from it: its packets as they are, or encoded anew where mp4 cannot hold them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from ..errors import OutputError, VideoError
from .sources import IMAGE_SUFFIXES, PyAVSource, open_container

__all__ = ["add_sound"]

log = logging.getLogger(__name__)

_INTO_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
"""Sound that mp4 holds and players of mp4 play; other is encoded as AAC."""


def add_sound(path: Path, source: Path, begin: float) -> bool:
    """Give a written mp4 the sound of the clip that it was drawn from; its pictures are not encoded again.

    Sound that cannot be read is left out, and told; the pictures stay as they are.

    Args:
        path: the mp4, without sound; replaced when all went well.
        source: the clip. Images have no sound, nor have many videos: then nothing happens.
        begin: time of the mp4's first picture, s from the clip's first.

    Returns:
        Whether there is sound now.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    if not source.is_file() or source.suffix.lower() in IMAGE_SUFFIXES:
        return False
    partial = path.with_name(f".{path.name}.{os.getpid()}.sound")
    try:
        with open_container(source) as heard:
            if not heard.streams.audio:
                return False
            sound = heard.streams.audio[0]
            times = PyAVSource(source, None, None).packet_times(until=1.0)
            origin = begin + (times[0] if times else 0.0)
            with av.open(str(path)) as pictures, av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as out:  # fmt: skip
                count = _mux(pictures, heard, sound, out, origin)
        if not count:
            return False
        os.replace(partial, path)
        return True
    except (FFmpegError, VideoError, ValueError) as error:
        log.warning("%s: its sound cannot be read and is left out (%s)", source, error)
        return False
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}). Check the disk, or write elsewhere."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _mux(pictures: Any, heard: Any, sound: Any, out: Any, origin: float) -> int:
    """Write both streams in the order of their times; returns the number of packets of sound."""
    shown = pictures.streams.video[0]
    copy = out.add_stream_from_template(shown)
    length = float(shown.duration * shown.time_base)
    if sound.codec_context.name in _INTO_MP4:
        stream = out.add_stream_from_template(sound)
        packets = _copied(heard, sound, stream, origin, length)
    else:
        stream = out.add_stream("aac", rate=sound.codec_context.sample_rate)
        packets = _encoded(heard, sound, stream, origin, length)
    count, waiting = 0, next(packets, None)
    for packet in pictures.demux(shown):
        if packet.size == 0:
            continue
        seconds = float((packet.dts if packet.dts is not None else packet.pts) * packet.time_base)
        while waiting is not None and waiting[0] <= seconds:
            out.mux(waiting[1])
            count, waiting = count + 1, next(packets, None)
        packet.stream = copy
        out.mux(packet)
    while waiting is not None:
        out.mux(waiting[1])
        count, waiting = count + 1, next(packets, None)
    return count


def _copied(heard: Any, sound: Any, stream: Any, origin: float, length: float) -> Iterator[tuple[float, Any]]:
    """Packets of the stretch with the times they have in it, s."""
    base = sound.time_base
    shift = round(origin / base)
    if shift > 0:
        heard.seek(shift, stream=sound, backward=True)
    for packet in heard.demux(sound):
        if packet.size == 0 or packet.pts is None:
            continue
        seconds = float((packet.pts - shift) * base)
        if seconds >= length:
            break
        if seconds < 0:  # it would sound before the first picture
            continue
        packet.pts -= shift
        packet.dts = packet.pts
        packet.stream = stream
        yield seconds, packet


def _encoded(heard: Any, sound: Any, stream: Any, origin: float, length: float) -> Iterator[tuple[float, Any]]:
    resampler = av.AudioResampler(format="fltp", layout=sound.layout.name, rate=stream.rate)
    if origin > 0:
        heard.seek(round(origin / sound.time_base), stream=sound, backward=True)
    base = Fraction(1, stream.rate)
    for frame in heard.decode(sound):
        if frame.pts is None:
            continue
        seconds = float(frame.pts * frame.time_base) - origin
        if seconds >= length:
            break
        if seconds < 0:
            continue
        for even in resampler.resample(frame):
            even.pts, even.time_base = round(seconds / base), base
            seconds += even.samples / stream.rate
            for packet in stream.encode(even):
                yield float(packet.pts * packet.time_base), packet
    for packet in stream.encode(None):
        yield float(packet.pts * packet.time_base), packet
