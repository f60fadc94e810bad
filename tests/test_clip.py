"""Reading clips: true timestamps, odd files, and damaged ones. Every clip is made here, with PyAV."""

from __future__ import annotations

import os
import struct
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinflow.cameras import FieldOfView
from kinflow.clip import Clip
from kinflow.config import VideoConfig
from kinflow.errors import UsageError, VideoError
from kinflow.video import VideoWriter, read_image
from kinflow.video.decord_source import decord_is_faster
from kinflow.video.images import natural_key
from kinflow.video.sources import PyAVSource


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


def numbers(images: np.ndarray) -> np.ndarray:
    """Which of :func:`pictures` these are."""
    return np.rint((images[:, 10:40, 4:24].mean((1, 2, 3)) - 20) / 7).astype(int)


@pytest.fixture(scope="module")
def clip30(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 10 a second, key frames every 10, index in front."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return encode(path, pictures(30), options={"g": "10", "bf": "2"}, muxer={"movflags": "+faststart"})


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
    waited = clip.waited_s
    for _ in clip.batches(8):
        threading.Event().wait(0.02)  # the consumer's own work is not waiting
    assert 0 < waited <= clip.waited_s < waited + 0.06 * 3 + 1.0
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


def test_both_decoders_agree_on_real_clips(shared_clips: Path) -> None:
    for path in sorted(shared_clips.glob("*.mp4")):
        ours, theirs = (
            next(iter(Clip.open(path, end=0.9, config=VideoConfig(decoder=d)).batches(40))) for d in ("pyav", "decord")
        )
        np.testing.assert_array_equal(ours.timestamps, theirs.timestamps)
        np.testing.assert_array_equal(ours.frame_ids, theirs.frame_ids)
        difference = np.abs(ours.images[::4].astype(int) - theirs.images[::4])
        assert difference.mean() < 1.0, path.name


def test_auto_takes_decord_for_further_passes_over_small_pictures(clip30: Path) -> None:
    pytest.importorskip("decord")
    clip = Clip.open(clip30)
    assert clip.decoder == "pyav"
    first = read(clip)
    assert clip.decoder == "pyav"
    for _ in range(2):
        for ours, theirs in zip(read(clip), first, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert clip.decoder == "decord" and clip.damage is None
    part = Clip.open(clip30, start=0.5)  # decord would index the whole file for it
    read(part), read(part)
    assert part.decoder == "pyav"


def test_auto_leaves_decord_out_until_a_whole_pass_found_no_damage(clip30: Path, tmp_path: Path) -> None:
    clip = Clip.open(clip30)
    next(clip.batches(4))
    read(clip)
    assert clip.decoder == "pyav"
    data = bytearray(clip30.read_bytes())
    at = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[at : at + 200] = np.random.default_rng(2).bytes(200)
    (tmp_path / "hurt.mp4").write_bytes(data)
    hurt = Clip.open(tmp_path / "hurt.mp4")
    for _ in range(3):
        read(hurt)
        assert hurt.decoder == "pyav" and hurt.damage is not None


@pytest.mark.parametrize(
    ("size", "codec", "name", "faster"),
    [
        ((320, 240), "libx264", "a.mp4", True),
        ((322, 240), "libx264", "a.mp4", False),
        ((64, 48), "libx264", "a.mkv", True),
        ((64, 48), "mpeg4", "a.mp4", True),
        ((64, 48), "mpeg4", "a.avi", False),
        ((64, 48), "ffv1", "a.mkv", False),
    ],
)
def test_which_kinds_decord_reads_faster(
    tmp_path: Path, size: tuple[int, int], codec: str, name: str, faster: bool
) -> None:
    frames = np.zeros((3, size[1], size[0], 3), np.uint8)
    source = PyAVSource(encode(tmp_path / name, frames, codec=codec), None, None)
    assert decord_is_faster(source) is faster


@pytest.mark.parametrize("colours", [1, 6, 2])
def test_both_decoders_read_the_same_colours(tmp_path: Path, colours: int) -> None:
    """BT.709, BT.601 and untagged; every pixel alike."""
    pytest.importorskip("decord")
    image = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.colorspace = stream.codec_context.color_primaries = colours
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    ours, theirs = (read(Clip.open(tmp_path / "a.mp4", config=VideoConfig(decoder=d)))[0] for d in ("pyav", "decord"))
    np.testing.assert_array_equal(ours, theirs)


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


# Bad input: one line that says what is wrong and what to do, never a traceback from a decoder


def complains(path: Path, *words: str) -> None:
    with pytest.raises(VideoError) as caught:
        list(Clip.open(path).batches(8))
    message = str(caught.value)
    assert "\n" not in message and path.name in message and caught.value.exit_code == 4
    for word in words:
        assert word in message, message


def test_missing_file(tmp_path: Path) -> None:
    complains(tmp_path / "nowhere.mp4", "no such file")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    complains(tmp_path / "empty.mp4", "empty")


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes.srt"])
def test_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("1\n00:00:01,000 --> 00:00:02,000\nnot a film\n" * 20)
    complains(tmp_path / name)


def test_random_bytes(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    complains(tmp_path / "noise.mp4")


def test_cut_off_before_its_index(clip30: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(clip30.read_bytes()[:300])
    complains(tmp_path / "cut.mp4", "cut off")


def test_cut_off_before_its_first_frame(clip30: Path, tmp_path: Path) -> None:
    data = clip30.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: data.index(b"mdat") + 4])
    complains(tmp_path / "cut.mp4", "cut off")


def test_unknown_codec(clip30: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.mp4").write_bytes(clip30.read_bytes().replace(b"avc1", b"zzzz"))
    complains(tmp_path / "odd.mp4", "cannot be decoded")


def test_audio_only(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    complains(path, "audio only")


def test_directory_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    complains(tmp_path, "without images")


def test_start_past_the_end(clip30: Path) -> None:
    with pytest.raises(UsageError, match="past the end"):
        Clip.open(clip30, start=100)
    with pytest.raises(UsageError, match="nothing lies between"):
        Clip.open(clip30, start=2, end=1)
    with pytest.raises(UsageError, match="start"):
        Clip.open(clip30, start=-1)
    with pytest.raises(UsageError, match="batch"):
        next(Clip.open(clip30).batches(0))
    with pytest.raises(UsageError, match="expected one of auto, pyav, decord, got 'abacus'"):
        VideoConfig(decoder="abacus")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_damaged_half_way_yields_the_good_part(clip30: Path, tmp_path: Path, decoder: str) -> None:
    data = bytearray(clip30.read_bytes())
    begin = data.index(b"mdat") + 4
    middle, end = begin + (len(data) - begin) // 2, begin + (len(data) - begin) * 3 // 4
    data[middle:end] = np.random.default_rng(1).bytes(end - middle)
    (tmp_path / "hurt.mp4").write_bytes(data)
    clip = Clip.open(tmp_path / "hurt.mp4", config=VideoConfig(decoder=decoder))
    images, times, ids = read(clip)
    assert 10 <= len(images) < 30 or clip.damage
    assert clip.damage is not None and "hurt.mp4 is damaged" in clip.damage and "\n" not in clip.damage
    np.testing.assert_array_equal(numbers(images[:10]), np.arange(10))
    assert (np.diff(times) > 0).all() and (np.diff(ids) > 0).all()


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_cut_off_half_way_yields_the_good_part(clip30: Path, tmp_path: Path, decoder: str) -> None:
    data = clip30.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    clip = Clip.open(tmp_path / "cut.mp4", config=VideoConfig(decoder=decoder))
    images, times, _ = read(clip)
    assert 8 <= len(images) < 28
    np.testing.assert_array_equal(numbers(images[:8]), np.arange(8))
    np.testing.assert_allclose(times[:8], np.arange(8) / 10, atol=1e-6)
    assert clip.damage is not None and "cut.mp4" in clip.damage


def test_pictures_that_decord_gives_four_channels_are_left_to_pyav(tmp_path: Path) -> None:
    path = tmp_path / "narrow.mp4"
    with VideoWriter(path, (48, 32), fps=25) as video:
        for image in np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), dtype=np.uint8):
            video.write(image)
    ours, theirs = (Clip.open(path, config=VideoConfig(decoder=d)) for d in ("pyav", "decord"))
    (a,), (b,) = ours.batches(8), theirs.batches(8)
    np.testing.assert_array_equal(a.images, b.images)


def test_decord_missing_or_failing(clip30: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = VideoConfig(decoder="decord")
    whole = read(Clip.open(clip30))
    monkeypatch.setitem(sys.modules, "decord", None)
    for ours, theirs in zip(read(Clip.open(clip30, config=config)), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    monkeypatch.undo()
    decord = pytest.importorskip("decord")
    real = decord.VideoReader.next
    count = 0

    def failing(self: Any) -> Any:
        nonlocal count
        count += 1
        if count % 30 == 14:
            raise RuntimeError("Error sending packet.")
        return real(self)

    monkeypatch.setattr(decord.VideoReader, "next", failing)
    for ours, theirs in zip(read(Clip.open(clip30, config=config)), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# Images


def save_image(path: Path, image: np.ndarray, codec: str = "png", pix_fmt: str = "rgb24") -> Path:
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = image.shape[1], image.shape[0], pix_fmt
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    path.write_bytes(b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)]))
    return path


@pytest.mark.parametrize("name", ["person.png", "with %d 100%.png", "a:b.png"])
def test_single_image(tmp_path: Path, name: str) -> None:
    image = pictures(1)[0]
    clip = Clip.open(save_image(tmp_path / name, image))
    images, times, ids = read(clip)
    np.testing.assert_array_equal(images, image[None])
    assert clip.image_size == (64, 48) and clip.num_frames == 1 and times.tolist() == [0] and ids.tolist() == [0]


def test_other_image_formats(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (200, 90, 40), np.uint8)
    grey = save_image(tmp_path / "grey.png", image, pix_fmt="gray")
    assert np.ptp(read_image(grey).astype(int), axis=-1).max() == 0
    for name, codec, fmt in (("a.jpg", "mjpeg", "yuvj444p"), ("a.bmp", "bmp", "bgr24"), ("a.tiff", "tiff", "rgb24")):
        assert np.abs(read_image(save_image(tmp_path / name, image, codec, fmt)).astype(int) - image).max() < 6


def test_exif_orientation(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 255
    data = save_image(tmp_path / "a.jpg", image, "mjpeg", "yuvj444p").read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"  # turn 90 clockwise
    exif = b"Exif\0\0" + tiff
    (tmp_path / "b.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    turned = read_image(tmp_path / "b.jpg")
    assert turned.shape == (64, 48, 3)
    assert turned[:30].min() > 240 and turned[34:].max() < 15


def test_folder_of_images(tmp_path: Path) -> None:
    frames = pictures(12)
    for n, image in enumerate(frames):
        save_image(tmp_path / f"frame_{n}.png", image)  # 10 sorts behind 9, not behind 1
    (tmp_path / "notes.txt").write_text("ignored")
    (tmp_path / ".hidden.png").write_bytes(b"ignored")
    clip = Clip.open(tmp_path, config=VideoConfig(image_fps=20.0))
    images, times, ids = read(clip)
    np.testing.assert_array_equal(images, frames)
    np.testing.assert_allclose(times, np.arange(12) / 20)
    assert clip.num_frames == 12 and clip.fps == 20 and ids.tolist() == list(range(12)) and clip.damage is None
    _, times, ids = read(Clip.open(tmp_path, start=0.1, end=0.4, config=VideoConfig(image_fps=20.0)))
    assert ids.tolist() == [2, 3, 4, 5, 6, 7] and times[0] == pytest.approx(0.1)
    with pytest.raises(UsageError, match="nothing lies between"):
        Clip.open(tmp_path, start=60)


def test_folder_with_an_unreadable_image(tmp_path: Path) -> None:
    for n, image in enumerate(pictures(4)):
        save_image(tmp_path / f"{n}.png", image)
    (tmp_path / "2.png").write_bytes(b"not an image")
    clip = Clip.open(tmp_path)
    assert read(clip)[2].tolist() == [0, 1, 3]
    assert clip.damage is not None and "2.png" in clip.damage
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(b"not an image")
    complains(tmp_path, "not one frame")


def test_folder_of_mixed_sizes(tmp_path: Path) -> None:
    save_image(tmp_path / "1.png", pictures(1)[0])
    save_image(tmp_path / "2.png", pictures(1, 32, 48)[0])
    with pytest.raises(VideoError, match=r"2\.png.*32x48.*1\.png.*64x48"):
        list(Clip.open(tmp_path).batches(4))


def test_bad_images(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    complains(tmp_path / "text.png")
    (tmp_path / "none.jpg").touch()
    complains(tmp_path / "none.jpg", "empty")
    good = save_image(tmp_path / "whole.png", pictures(1)[0]).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[:60])
    complains(tmp_path / "cut.png")


def test_natural_order() -> None:
    names = ["b10.png", "b9.png", "a.png", "B1.png", "2.png", "10.png", "b9a.png"]
    assert sorted(names, key=natural_key) == ["2.png", "10.png", "a.png", "B1.png", "b9.png", "b9a.png", "b10.png"]


# Streaming


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.png"])
def test_a_named_pipe_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(VideoError, match=rf"{name}: a pipe"):
        Clip.open(tmp_path / name)


def test_a_time_scale_of_zero_is_told(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (64, 48), 24) as video:
        for k in range(24):
            video.write(np.full((48, 64, 3), 10 * k, np.uint8))
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    at = content.index(b"mdhd") + 16
    content[at : at + 4] = bytes(4)
    (tmp_path / "clip.mp4").write_bytes(content)
    clip = Clip.open(tmp_path / "clip.mp4")
    assert len(clip.frame_ids) < 24
    assert clip.damage is not None and "of its 24 frames" in clip.damage
