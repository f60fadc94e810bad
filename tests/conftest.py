"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kinflow.cli.threads import settle_threads

settle_threads()  # before torch is loaded: a test run beside other work would crawl otherwise

import torch  # noqa: E402

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
