"""tools/draw_motion.py: a sheet of overlay, front, side and top."""

from __future__ import annotations

import dataclasses
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


def test_a_sheet_has_a_row_for_each_view(tmp_path: Path) -> None:
    a_motion(6).save(tmp_path / "person00.npz")
    assert draw_motion.main([str(tmp_path), "--columns", "3"]) == 0
    with Image.open(tmp_path / "person00_views.png") as sheet:
        width, height = sheet.size
    assert (width, height) == (150 + 3 * draw_motion.HEIGHT, 34 + 28 + 4 * draw_motion.HEIGHT)


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
