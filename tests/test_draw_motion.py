"""tools/draw_motion.py: a sheet of overlay, front, side and top."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_motion import a_motion

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import draw_motion

from kinflow.body import Body
from kinflow.render.views import FRONT, SIDE, TOP
from kinflow.video import VideoWriter


def test_a_sheet_has_a_row_for_each_view(tmp_path: Path) -> None:
    a_motion(6).save(tmp_path / "person00.npz")
    assert draw_motion.main([str(tmp_path), "--columns", "3"]) == 0
    with Image.open(tmp_path / "person00_views.png") as sheet:
        width, height = sheet.size
    assert (width, height) == (150 + 3 * draw_motion.HEIGHT, 34 + 28 + 4 * draw_motion.HEIGHT)


def test_the_overlay_is_shown_at_the_persons_times(tmp_path: Path) -> None:
    """Of a run that began later than the clip: the overlay counts from 0."""
    motion = a_motion(6)  # frames 10 to 15 of 24 a second
    size = np.tile(np.float32([10, 10, 50, 50]), (6, 1))
    motion = dataclasses.replace(motion, boxes_xyxy=size)
    start = float(motion.timestamps[0]) - 2 / 24
    (tmp_path / "run.json").write_text(json.dumps({"clip": {"start_s": round(start, 4)}}))
    with VideoWriter(tmp_path / "overlay.mp4", (64, 64), 24.0) as video:
        for k in range(12):
            video.write(np.full((64, 64, 3), 20 * k, np.uint8), start + k / 24)
    rows = [0, 3, 5]
    frames = draw_motion.overlay_frames(tmp_path, motion.timestamps[rows].tolist())
    grey = draw_motion.overlay_crops(frames, motion, rows).mean((1, 2, 3))
    np.testing.assert_allclose(grey, [20 * (row + 2) for row in rows], atol=4)


def test_views_look_from_where_they_say() -> None:
    """A body that lies on its back, head away from the camera: long from the side and from above, short from the front."""
    motion = a_motion(1)
    lying = dataclasses.replace(
        motion,
        global_orient=np.array([[np.pi / 2, 0, 0]], np.float32),
        body_pose=np.zeros((1, 23, 3), np.float32),
        betas=np.zeros(10, np.float32),
    )
    body, extent = Body.open("light"), {}
    for name, view in {"front": FRONT, "side": SIDE, "top": TOP}.items():
        drawn = np.argwhere((draw_motion.pictures(body, lying, [0], view)[0] < 230).any(-1))
        extent[name] = drawn.max(0) - drawn.min(0) + 1  # rows, columns
    assert extent["front"][0] < 0.35 * extent["front"][1]  # the soles or the crown, arms stretched out
    assert extent["side"][1] > 3 * extent["side"][0]
    assert extent["top"][0] > 0.8 * extent["top"][1]


def test_a_folder_without_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_motion.main([str(tmp_path)]) == 3
    assert "no person files here" in capsys.readouterr().err
