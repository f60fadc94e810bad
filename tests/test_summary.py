"""What a run says of its own quality: reprojection by its name, and what the prior and the keypoints make doubtful."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import kinflow
from kinflow.apps.results import doubts
from kinflow.cli.progress import summary
from kinflow.motion import Motion
from kinflow.video import VideoWriter


def motion(z_length: np.ndarray, confidence: np.ndarray) -> Motion:
    """Rows with z of that length and keypoints of that confidence."""
    count = len(z_length)
    z = np.zeros((count, 63))
    z[:, 5] = z_length
    shapes = {"global_orient": (3,), "body_pose": (23, 3), "transl": (3,), "joints3d": (24, 3), "joints3d_std": (24,),
              "contacts": (4,), "keypoints2d": (33, 2), "boxes_xyxy": (4,)}  # fmt: skip
    return Motion(
        person_id=0, body="open", frame_ids=np.arange(count), timestamps=np.arange(count) / 30.0,
        observed=np.ones(count, bool), betas=np.zeros(10), z=z, confidence=np.tile(confidence[:, None], (1, 33)),
        K=np.eye(3), image_size=np.array([64, 48]), **{k: np.zeros((count, *v)) for k, v in shapes.items()},
    )  # fmt: skip


def test_doubts() -> None:
    # 99 % of the validation subjects' poses are below 153.9.
    person = motion(np.sqrt([0.0, 63.0, 153.8, 154.0, 400.0]), np.array([0.9, 0.9, 0.51, 0.49, 0.1]))
    assert doubts(person) == {"plausible": 0.6, "low_confidence": 0.4}
    seen = dataclasses.replace(person, observed=np.array([1, 1, 0, 0, 1], bool))
    assert doubts(seen) == {"plausible": 0.6667, "low_confidence": 0.3333}


def shown(capsys: pytest.CaptureFixture[str], *people: dict[str, object]) -> str:
    """What the summary of some people prints."""
    person = {"file": "person00.npz", "observed": 9, "frames": 10, "first_s": 0.0, "last_s": 0.3, "height_m": 1.7,
              "distance_m": 4.0, "pck": 0.98, "plausible": 0.61, "low_confidence": 0.07}  # fmt: skip
    clip = {"path": "a.mp4", "frames": 10, "damage": None}
    info = {"clip": clip, "frames_per_second": 5, "people": [person | p for p in people], "timings": {"total": 2.0}}
    summary(info | {"files": ["run.json"]}, "out")
    return capsys.readouterr().out


def test_the_summary_names_the_figures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = shown(capsys, {})
    assert "on the body" not in text and "says nothing of depth, lean or facing" in text
    assert all(word in text for word in ("reprojection", "98 %", "plausible", "61 %", "unsure", "7 %"))


def test_at_80_columns_the_summary_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = {"file": "person01.npz", "observed": 4990, "frames": 5000, "first_s": 100.2, "last_s": 266.9,
            "distance_m": 12.5, "pck": 1.0, "plausible": 1.0, "low_confidence": 1.0}  # fmt: skip
    text = shown(capsys, {}, long)
    lines = text.splitlines()
    assert "…" not in text and max(map(len, lines)) <= 80
    assert lines[2].split() == ["person", "seconds", "seen", "in", "m", "m", "reprojection", "plausible", "unsure"]
    assert lines[1].split() == ["height", "distance"]
    assert "person01 100.2-266.9 4990/5000   1.70     12.5        100 %     100 %  100 %" in lines[4]
    monkeypatch.setenv("COLUMNS", "48")  # narrower than it can be: folded, and all there
    text = shown(capsys, long)
    assert "…" not in text and max(map(len, text.splitlines())) <= 48


def test_the_record_names_the_runtime_that_ran(stubbed: None, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (128, 96), 30) as video:
        for _ in range(3):
            video.write(np.full((96, 128, 3), 100, np.uint8))
    info = kinflow.run(tmp_path / "clip.mp4", device="cpu").info
    assert info["config"]["perception"]["runtime"] == "auto" and info["runtime"] == "stub"
