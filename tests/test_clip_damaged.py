"""Bad input: one line that says what is wrong and what to do, never a traceback from a decoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from drawn_clips import complains, numbers, read

from kinflow.clip import Clip
from kinflow.config import VideoConfig
from kinflow.errors import UsageError, VideoError
from kinflow.video import VideoWriter


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
