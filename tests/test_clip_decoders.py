"""PyAV and decord: the same frames, and when which is taken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from drawn_clips import encode, read, spoil

from kinflow.clip import Clip
from kinflow.config import VideoConfig
from kinflow.video import VideoWriter
from kinflow.video.decord_source import decord_is_faster
from kinflow.video.sources import PyAVSource


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
    hurt = Clip.open(spoil(clip30, tmp_path / "hurt.mp4", range(15, 17)))
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
