"""The accuracy benchmark: its errors by hand, and one rendered clip through the whole of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import accuracy

from kinflow.body import Body
from kinflow.mocap.clips import MotionClip, save_clips
from kinflow.reconstruction import Reconstructor
from kinflow.rotations import rotvec_to_rotmat


@pytest.fixture
def case() -> Any:
    points = torch.randn(6, 12, 3, generator=torch.Generator().manual_seed(0)) * 0.3 + torch.tensor([0.0, 0.0, 4.0])
    return SimpleNamespace(points=points, frame_ids=np.arange(10, 16))


def frames(ids: np.ndarray) -> Any:
    """A record of those frames, at 30 frames/s."""
    return SimpleNamespace(frame_ids=ids, timestamps=ids / 30)


def test_errors_of_known_answers(case: Any) -> None:
    made, seen = frames(np.arange(8, 16)), np.ones(8, bool)
    mine = torch.cat((torch.zeros(2, 12, 3), case.points))  # two frames before the truth begins
    exact = accuracy.errors(mine, made, seen, case)
    assert max(exact[k] for k in ("PA-MPJPE", "MPJPE", "depth", "across", "accel")) < 1e-3 and exact["seen"] == 1
    turn = rotvec_to_rotmat(torch.tensor([0.2, 0.5, -0.1]))
    turned = accuracy.errors(1.1 * mine @ turn.T, made, seen, case)
    assert turned["PA-MPJPE"] < 1e-3 < 50 < turned["MPJPE"]
    hidden = accuracy.errors(mine, made, np.arange(8) % 2 == 0, case)
    assert hidden["seen"] == 0.5 and not np.isfinite(hidden["accel"])  # no acceleration across frames not seen


def test_depth_is_told_from_across(case: Any) -> None:
    noise = 0.02 * torch.randn(6, 12, 1, generator=torch.Generator().manual_seed(1))
    made, seen = frames(case.frame_ids), np.ones(6, bool)
    along = accuracy.errors(case.points + noise * torch.nn.functional.normalize(case.points, dim=-1), made, seen, case)
    beside = accuracy.errors(case.points + noise * torch.tensor([1.0, 0, 0]), made, seen, case)
    assert along["depth"] > 3 * along["across"] and beside["across"] > 3 * beside["depth"]


def test_one_rendered_clip(tmp_path: Path) -> None:
    frames = 40
    swing = 0.4 * np.sin(np.arange(frames) / 5)
    pose = np.zeros((frames, 23, 3), np.float32)
    pose[:, 0, 0], pose[:, 1, 0] = swing, -swing
    pose[:, 15, 2], pose[:, 16, 2] = -1.2, 1.2
    clip = MotionClip(
        name="walk", subject="2", description="", fps=30.0, global_orient=np.zeros((frames, 3), np.float32), body_pose=pose,
        transl=np.zeros((frames, 3), np.float32), valid=np.ones(frames, bool), split="test", rig="none", leg_length=0.8,
    )  # fmt: skip
    save_clips(tmp_path / "mocap.npz", [clip])
    body = Body.open("light")
    with torch.no_grad():
        (one,) = accuracy.rendered(tmp_path / "mocap.npz", 1, tmp_path)
        regions: dict[str, list[np.ndarray]] = {}
        rows = accuracy.systems(one, Reconstructor.load(body=body), ["heavy", "full"], False, regions, True, True)
    assert one.points.shape == (accuracy.FRAMES, 12, 3)
    assert {"world landmarks, heavy", "kinflow, heavy", "without the lifter, full", "without the fit, heavy"} <= set(
        rows
    )
    assert all(row["PA-MPJPE"] < 120 for row in rows.values())
    assert all(0.9 < row["seen"] <= 1 for name, row in rows.items() if not name.startswith(accuracy.HIDES))
    shown, hidden = accuracy.tables("clips", [rows, rows])
    assert shown.row_count + hidden.row_count == len(rows) and hidden.row_count == 4
    _, medians, _ = accuracy.tables("clips", [{n: {"PA-MPJPE": value} for n in rows} for value in (30.0, 40.0, 200.0)])
    assert medians.row_count == shown.row_count and list(medians.columns[1].cells) == ["40.0"] * shown.row_count
    away, seen = (rows[f"{name}, heavy"] for name in accuracy.HIDES)
    assert away["observed"] == 0 and seen["observed"] == 1 and away["deviation"] > seen["deviation"]
    assert set(regions) == {name for name in rows if name.startswith("kinflow")}
    for name, (found,) in regions.items():
        assert found.shape == (24, 4) and ((found >= 0) & (found <= 1)).all()
        assert (found[:, 1] >= found[:, 0]).all() and (found[:, 3] >= found[:, 2]).all()
        assert accuracy.calibration(name, [found, found]).row_count == 25
