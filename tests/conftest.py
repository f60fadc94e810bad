"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kinflow.cli.threads import settle_threads

settle_threads()  # before torch is loaded: a test run beside other work would crawl otherwise

import stub_front_end  # noqa: E402
import torch  # noqa: E402
from drawn_clips import encode, pictures  # noqa: E402

from kinflow.body import Body  # noqa: E402
from kinflow.perception import perceiver  # noqa: E402
from kinflow.prior import MotionPrior  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with motion capture and real clips; not part of the project."""
    folder = Path(os.environ.get("KINFLOW_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("shared data (motion capture, real clips) is not here; set KINFLOW_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def shared_clips(shared_data: Path) -> Path:
    return shared_data / "clips"


@pytest.fixture(scope="session")
def prior() -> MotionPrior:
    """The packaged prior. Shared by all tests: convert a copy, never itself."""
    return MotionPrior.load()


@pytest.fixture(scope="session")
def body() -> Body:
    """The light open body. Shared by all tests: convert a copy, never itself."""
    return Body.open("light")


@pytest.fixture(scope="module")
def full() -> Body:
    """The open body's full mesh in double precision, a module's own."""
    return Body.open("full").double()


@pytest.fixture(scope="module")
def light() -> Body:
    """The open body's light mesh in double precision, a module's own."""
    return Body.open("light").double()


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A front end that costs nothing, for one test."""
    for owner, name in (
        (perceiver, "load_networks"),
        (perceiver.Perceiver, "_detect"),
        (perceiver.Perceiver, "_landmarks"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back after the test
    stub_front_end.install()


@pytest.fixture(scope="session")
def clip30(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 10 a second, key frames every 10, index in front."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return encode(path, pictures(30), options={"g": "10", "bf": "2"}, muxer={"movflags": "+faststart"})
