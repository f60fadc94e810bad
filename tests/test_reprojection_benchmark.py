"""The benchmark of reprojected limbs runs with either quality's networks."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import reprojection


@pytest.mark.parametrize(("quality", "landmarks", "parts"), [("best", "heavy", True), ("fast", "full", False)])
def test_quality_reaches_the_front_end(
    quality: str, landmarks: str, parts: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def run(clip: Path, **options: Any) -> Any:
        asked.append(options["config"].perception)
        return SimpleNamespace(info={"weights": {}, "config_hash": "", "people": []}, motions=[], body=None)

    monkeypatch.setattr(reprojection.kinflow, "run", run)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["reprojection.py", "a.mp4", "--quality", quality])
    reprojection.main()
    assert (asked[0].landmarks, asked[0].parts) == (landmarks, parts)
    assert "all, pooled" in capsys.readouterr().out
