"""Images and folders of images as clips."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from drawn_clips import complains, pictures, read, save_image

from kinflow.clip import Clip
from kinflow.config import VideoConfig
from kinflow.errors import UsageError, VideoError
from kinflow.video import read_image
from kinflow.video.images import natural_key


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
