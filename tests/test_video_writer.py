"""Writing clips: what comes back, and that a file is complete or absent."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinflow.clip import Clip
from kinflow.errors import OutputError, ShapeError, UsageError
from kinflow.video import VideoWriter


def stripes(n: int, width: int, height: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = (200, 40, 60)
    image[:, width // 2 :] = (30, 90, 220)
    image[: height // 2] //= 1 + n % 2
    return image


@pytest.mark.parametrize("size", [(64, 48), (33, 47), (8, 8), (1, 1)])
def test_round_trip(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = np.stack([stripes(n, *size) for n in range(12)])
    path = tmp_path / "out.mp4"
    with VideoWriter(path, size, 12.5) as video:
        for image in frames:
            video.write(image)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    clip = Clip.open(path)
    width, height = size
    assert clip.image_size == (width + width % 2, height + height % 2)  # yuv420p holds even sizes only
    assert clip.num_frames == 12 and clip.fps == pytest.approx(12.5)
    (batch,) = clip.batches(20)
    np.testing.assert_allclose(batch.timestamps, np.arange(12) / 12.5, atol=1e-4)
    assert np.median(np.abs(batch.images[:, :height, :width].astype(int) - frames)) < 6


def test_says_its_colours_and_plays_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, (64, 48), 25) as video:
        video.write(stripes(0, 64, 48))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        frame = next(container.decode(stream))
        assert int(frame.colorspace) == 1 and int(frame.color_range) == 1


def test_timestamps_count_from_the_first(tmp_path: Path) -> None:
    times = [7.0, 7.04, 7.5, 7.51, 9.0]
    with VideoWriter(tmp_path / "vfr.mp4", (16, 16), 25) as video:
        for time in times:
            video.write(np.zeros((16, 16, 3), np.uint8), time)
    (batch,) = Clip.open(tmp_path / "vfr.mp4").batches(9)
    np.testing.assert_allclose(batch.timestamps, np.array(times) - 7, atol=1e-4)


def test_nothing_written_means_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "none.mp4", (16, 16), 25):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an earlier result")
    with pytest.raises(error), VideoWriter(path, (64, 48), 25) as video:
        video.write(stripes(0, 64, 48))
        raise error
    assert path.read_bytes() == b"an earlier result" and len(list(tmp_path.iterdir())) == 1


def test_wrong_frames(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="48, 64, 3"), VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as video:
        video.write(np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ShapeError, match="uint8"), VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as video:
        video.write(np.zeros((48, 64, 3)))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="image_size"):
        VideoWriter(tmp_path / "a.mp4", (0, 48), 25)
    for fps in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="fps"):
            VideoWriter(tmp_path / "a.mp4", (64, 48), fps)
    video = VideoWriter(tmp_path / "a.mp4", (64, 48), 25)
    video.write(stripes(0, 64, 48))
    video.close()
    with pytest.raises(UsageError, match="closed"):
        video.write(stripes(0, 64, 48))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        VideoWriter(tmp_path / "no" / "out.mp4", (64, 48), 25)


class FullDisk:
    """Stands for the container of a disk without room."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def mux(self, packets: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.container.close()
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("at_close", [False, True])
def test_full_disk(tmp_path: Path, at_close: bool) -> None:
    video = VideoWriter(tmp_path / "out.mp4", (64, 48), 25)
    if at_close:
        video.write(stripes(0, 64, 48))
    video._container = FullDisk(video._container)
    with pytest.raises(OutputError, match="disk is full") as caught:
        if at_close:
            video.close()
        else:
            video.write(stripes(0, 64, 48))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
import numpy as np
from kinflow.errors import OutputError
from kinflow.video import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
rng = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], (160, 120), 25) as video:
        for _ in range(20):
            video.write(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
except OutputError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [2000, 100_000])
def test_a_real_limit_on_file_size(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "out.mp4"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=120)
    assert done.returncode == 1 and "disk is full" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
