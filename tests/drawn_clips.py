"""Clips and images that tell which frame is which, made with PyAV; and what reads them back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinflow.clip import Clip
from kinflow.errors import VideoError


def pictures(count: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Frames that tell their number: grey level 20 + 7 n on the left half, a moving texture on the right."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (height, width // 2 + count, 3))
    frames = np.empty((count, height, width, 3), np.uint8)
    for n in range(count):
        frames[n] = min(255, 20 + 7 * n)
        frames[n, :, width // 2 :] = texture[:, n : n + width - width // 2]
    return frames


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    times: list[float] | None = None,
    fps: int = 10,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = {"crf": "10", **(options or {})} if codec == "libx264" else options or {}
        stream.codec_context.time_base = Fraction(1, 12000)
        if pix_fmt == "gray":
            stream.codec_context.color_range = 2  # full range: black is 0
        for n, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round((times[n] if times else n / fps) * 12000)
            frame.time_base = Fraction(1, 12000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def spoil(source: Path, path: Path, packets: range) -> Path:
    """A copy in which these packets (in the file's order) do not decode, whatever the encoder made of the pictures.

    The length in front of their first NAL unit is set beyond the packet's end. Bytes changed within a unit will not do:
    CABAC decodes a good part of such noise without an error.
    """
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos is not None and packet.size]
    for n in packets:
        data[places[n] : places[n] + 4] = b"\xff" * 4
    path.write_bytes(data)
    return path


def numbers(images: np.ndarray) -> np.ndarray:
    """Which of :func:`pictures` these are."""
    return np.rint((images[:, 10:40, 4:24].mean((1, 2, 3)) - 20) / 7).astype(int)


def read(clip: Clip, n: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batches = list(clip.batches(n))
    assert all(len(b) == n for b in batches[:-1])
    for batch in batches:
        assert batch.images.dtype == np.uint8 and batch.timestamps.dtype == np.float64
        assert batch.frame_ids.dtype == np.int64 and batch.images.shape[1:] == (*clip.image_size[::-1], 3)
    return (
        np.concatenate([b.images for b in batches]),
        np.concatenate([b.timestamps for b in batches]),
        np.concatenate([b.frame_ids for b in batches]),
    )


def complains(path: Path, *words: str) -> None:
    with pytest.raises(VideoError) as caught:
        list(Clip.open(path).batches(8))
    message = str(caught.value)
    assert "\n" not in message and path.name in message and caught.value.exit_code == 4
    for word in words:
        assert word in message, message


def save_image(path: Path, image: np.ndarray, codec: str = "png", pix_fmt: str = "rgb24") -> Path:
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = image.shape[1], image.shape[0], pix_fmt
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    path.write_bytes(b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)]))
    return path
