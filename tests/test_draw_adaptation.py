"""tools/draw_adaptation.py: people before and after, from all sides."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_reconstructor import evidence_of, observations, untrained

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import draw_adaptation
import draw_motion

from kinflow.body import Body
from kinflow.training.streams.footage import Footage


def test_before_and_after_stand_over_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body.open("light")
    footage = Footage(Path("clip.mp4"), (evidence_of(observations(body, batch=1, steps=40)),))
    networks = {None: untrained(body), Path("mine.safetensors"): untrained(body)}
    monkeypatch.setattr(draw_adaptation, "read_footage", lambda clips, cache: [footage])
    monkeypatch.setattr(draw_adaptation.Reconstructor, "load", lambda path: networks[path])
    out = tmp_path / "mine.png"
    assert draw_adaptation.main(["clip.mp4", "mine.safetensors", "-o", str(out), "--columns", "3"]) == 0
    high, top = draw_motion.HEIGHT, 34 + 28
    with Image.open(out) as opened:
        sheet = np.asarray(opened.convert("L"), np.int16)
    assert sheet.shape == (top + 6 * high, 150 + 3 * high)
    rows = sheet[top:, 150:].reshape(6, high, -1)
    assert all((row < 200).any() for row in rows)
    for before, after in zip(rows[::2], rows[1::2], strict=True):  # of the same weights
        np.testing.assert_array_equal(before, after)
    assert (rows[0] != rows[2]).any() and (rows[2] != rows[4]).any()


def test_what_was_held_out_is_the_last_quarter() -> None:
    body = Body.open("light")
    long, short = (evidence_of(observations(body, batch=1, steps=n)) for n in (80, 10))
    begun = draw_adaptation.first_held_out(Footage(Path("clip.mp4"), (long, short)))
    assert begun == [float(long.timestamps[60]), float("inf")]


def test_a_clip_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert draw_adaptation.main([str(tmp_path / "none.mp4"), str(tmp_path / "no.safetensors")]) == 3
    assert capsys.readouterr().err.startswith("error: ")
