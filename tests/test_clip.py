"""Reading clips: true timestamps, odd sizes, frames in batches. Every clip is made here."""

from __future__ import annotations

import struct
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from drawn_clips import encode, numbers, pictures, read

from kinflow.cameras import FieldOfView
from kinflow.clip import Clip
from kinflow.config import VideoConfig
from kinflow.errors import UsageError


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_times_and_ids(clip30: Path, decoder: str) -> None:
    clip = Clip.open(clip30, config=VideoConfig(decoder=decoder))
    assert clip.path == clip30 and clip.image_size == (64, 48)
    assert clip.fps == pytest.approx(10) and clip.num_frames == 30
    images, times, ids = read(clip)
    np.testing.assert_array_equal(numbers(images), np.arange(30))
    np.testing.assert_allclose(times, np.arange(30) / 10, atol=1e-6)
    np.testing.assert_array_equal(ids, np.arange(30))
    assert clip.damage is None
    np.testing.assert_array_equal(read(clip, 16)[0], images)  # a reader can be read again


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_start_and_end_keep_the_index_in_the_whole_clip(clip30: Path, decoder: str) -> None:
    clip = Clip.open(clip30, start=0.95, end=2.3, config=VideoConfig(decoder=decoder))
    images, times, ids = read(clip)
    np.testing.assert_array_equal(ids, np.arange(10, 23))
    np.testing.assert_array_equal(numbers(images), np.arange(10, 23))
    np.testing.assert_allclose(times, ids / 10, atol=1e-6)
    assert clip.num_frames is not None and abs(clip.num_frames - 13) <= 1
    assert clip.damage is None


def test_a_clip_knows_its_times_and_its_camera(clip30: Path) -> None:
    clip = Clip.open(clip30, start=1.0, camera=FieldOfView(90))
    assert clip.K[0, 0].item() == pytest.approx(32) and clip.K[:2, 2].tolist() == [32, 24]
    np.testing.assert_array_equal(clip.frame_ids, np.arange(10, 30))  # reads the clip by itself
    np.testing.assert_allclose(clip.timestamps, np.arange(10, 30) / 10, atol=1e-6)
    waited, began, own = clip.waited_s, time.perf_counter(), 0.0
    for _ in clip.batches(8):
        working = time.perf_counter()
        threading.Event().wait(0.05)
        own += time.perf_counter() - working
    passed = time.perf_counter() - began
    assert 0 < waited <= clip.waited_s <= waited + passed - own  # the consumer's own work is not waiting
    assert "clip.mp4" in repr(clip)
    with pytest.raises(UsageError, match="camera matrix"):
        Clip.open(clip30, camera=np.eye(4))


def test_a_pass_that_is_left_early_says_nothing_of_the_times(clip30: Path) -> None:
    clip = Clip.open(clip30)
    next(clip.batches(3))
    assert len(clip.timestamps) == 30


def test_start_without_times_in_packets(tmp_path: Path) -> None:
    path = encode(tmp_path / "raw.h264", pictures(12), options={"bf": "0"})  # a bare stream holds no times
    images, times, ids = read(Clip.open(path, start=0.2))
    np.testing.assert_array_equal(ids, np.arange(5, 12))
    np.testing.assert_array_equal(numbers(images), ids)
    np.testing.assert_allclose(times, ids / 25)


def test_variable_frame_rate(tmp_path: Path) -> None:
    truth = [0, 0.1, 0.15, 0.5, 0.52, 1.7, 1.75, 2.0]
    path = encode(tmp_path / "vfr.mp4", pictures(8), times=truth)
    for decoder in ("pyav", "decord"):
        images, times, _ = read(Clip.open(path, config=VideoConfig(decoder=decoder)))
        np.testing.assert_allclose(times, truth, atol=1e-3)
        np.testing.assert_array_equal(numbers(images), np.arange(8))


def test_timestamps_count_from_the_first_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "late.ts", pictures(10))  # MPEG-TS starts at 1.4 s
    images, times, ids = read(Clip.open(path))
    np.testing.assert_allclose(times, np.arange(10) / 10, atol=1e-4)
    cut, late, numbered = read(Clip.open(path, start=0.5))
    np.testing.assert_array_equal(numbered, ids[5:])
    np.testing.assert_allclose(late, times[5:], atol=1e-9)
    np.testing.assert_array_equal(numbers(cut), numbers(images)[5:])


def turn(path: Path, out: Path, degrees: int, width: int, height: int) -> Path:
    """Write the display matrix of a phone held on its side: clockwise by ``degrees``."""
    rows = {
        90: (0, 1, 0, -1, 0, 0, height, 0),
        180: (-1, 0, 0, 0, -1, 0, width, height),
        270: (0, -1, 0, 1, 0, 0, 0, width),
    }[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    struct.pack_into(">9i", data, at, *(v << 16 for v in rows), 1 << 30)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_flag(clip30: Path, tmp_path: Path, degrees: int, decoder: str) -> None:
    path = turn(clip30, tmp_path / "phone.mp4", degrees, 64, 48)
    clip = Clip.open(path, config=VideoConfig(decoder=decoder))
    assert clip.image_size == ((64, 48) if degrees == 180 else (48, 64))
    upright = read(Clip.open(clip30))[0]
    np.testing.assert_array_equal(read(clip)[0], np.rot90(upright, -degrees // 90, axes=(1, 2)))


def test_grey(tmp_path: Path) -> None:
    images, _, _ = read(Clip.open(encode(tmp_path / "grey.mp4", pictures(9), pix_fmt="gray")))
    assert images.shape == (9, 48, 64, 3) and np.ptp(images.astype(int), axis=-1).max() == 0
    np.testing.assert_array_equal(numbers(images), np.arange(9))


@pytest.mark.parametrize("size", [(8, 8), (63, 47), (65, 48), (1, 1)])
def test_small_and_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = np.full((5, size[1], size[0], 3), 90, np.uint8)
    clip = Clip.open(encode(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="bgr0"))
    assert clip.image_size == size
    images, times, _ = read(clip)
    np.testing.assert_array_equal(images, frames)
    np.testing.assert_allclose(times, np.arange(5) / 10, atol=2e-3)


def test_one_frame(tmp_path: Path) -> None:
    clip = Clip.open(encode(tmp_path / "one.mp4", pictures(1)))
    images, times, ids = read(clip)
    assert len(images) == 1 and times.tolist() == [0] and ids.tolist() == [0]
    assert np.isfinite(clip.fps) and clip.fps > 0 and clip.damage is None


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for image in pictures(4, 48, 48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    clip = Clip.open(path)
    assert clip.image_size == (64, 48)
    assert read(clip)[0].shape == (4, 48, 64, 3)


def test_leaving_early_stops_the_decoder(clip30: Path) -> None:
    before = threading.active_count()
    for _ in Clip.open(clip30).batches(3):
        break
    stream = Clip.open(clip30).batches(3)
    next(stream)
    stream.close()
    assert threading.active_count() <= before


def test_decoding_stays_a_bounded_number_of_frames_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip.open(encode(tmp_path / "long.mp4", pictures(60)), config=VideoConfig(prefetch_mb=0))
    decoded = 0
    real = clip._source.frames

    def counted() -> Any:
        nonlocal decoded
        for frame in real():
            decoded += 1
            yield frame

    clip._opened = counted()
    stream = clip.batches(4)
    next(stream)
    threading.Event().wait(0.3)
    assert 4 <= decoded <= 4 + 4
    stream.close()
