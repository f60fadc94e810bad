"""Learning curves: parts lie in one another, leave out what they say, and a lifter is learned on each."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_perceived import captured, seen_clip

from kinflow.mocap.clips import save_clips
from kinflow.training.poses import Capture
from kinflow.training.streams.perceived import PerceivedClip, save_perceived

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import learning


@pytest.fixture(scope="module")
def clips() -> list[PerceivedClip]:
    one = seen_clip(np.zeros((33, 3), np.float32), 0)
    one = dataclasses.replace(one, has_world=one.observed, world_landmarks=one.world_landmarks + 0.1)
    return [dataclasses.replace(one, source=f"walk{i % 4}") for i in range(8)]


def test_a_thinned_clip_keeps_its_ends(clips: list[PerceivedClip]) -> None:
    few = learning.thinned(clips[0], 3)
    assert len(few) == 3 and len(learning.thinned(clips[0], 500)) == len(clips[0])
    np.testing.assert_array_equal(few.timestamps, clips[0].timestamps[[0, 10, 19]])
    np.testing.assert_array_equal(few.keypoints2d, clips[0].keypoints2d[[0, 10, 19]])
    np.testing.assert_array_equal(few.betas, clips[0].betas)


def test_parts_lie_in_one_another(clips: list[PerceivedClip]) -> None:
    pose = torch.zeros(60, 21, 3)
    captures = [
        Capture(f"walk{i}", pose, torch.eye(3).expand(60, 3, 3), torch.zeros(60, 3), 60.0 / (1 + i)) for i in range(4)
    ]
    args = argparse.Namespace(clips=[0.25, 0.5], frames=[5], capture=[0.5, 1.0])
    quarter, half, thin, some, every = learning.parts(clips, captures, args)
    assert (
        quarter.size[:2] == (2, 40)
        and half.size[0] == 4
        and all(any(c is d for d in half.clips) for c in quarter.clips)
    )
    assert thin.size == (8, 40, pytest.approx(10 / 60)) and thin.captures == captures
    assert every.size == (8, 160, pytest.approx(10 / 60)) and 0 < some.size[2] <= 5 / 60 + 1e-9
    assert {c.source for c in some.clips} == {c.name for c in some.captures}  # fmt: skip


def test_a_table_of_two_lifters(clips: list[PerceivedClip], tmp_path: Path) -> None:
    held = dataclasses.replace(clips[0], source="held")
    save_perceived(tmp_path / "clips.npz", [dataclasses.replace(c, source="walk") for c in clips] + [held])
    save_clips(
        tmp_path / "mocap.npz",
        [captured(), dataclasses.replace(captured(), name="held", subject="other", split="validation")],
    )
    command = ["--perceived", str(tmp_path / "clips.npz"), "--mocap", str(tmp_path / "mocap.npz"), "--steps", "2"]
    small = [
        "model.part_width=8",
        "model.blocks=1",
        "model.by_parts=1",
        "model.whole=0",
        "train.batch=4",
        "train.warmup=1",
        "projection.borrowed=1",
    ]
    out = ["--frames", "4", "5", "--out", str(tmp_path / "table.md")]
    assert learning.main([*command, *out, *(part for s in small for part in ("--set", s))]) == 0
    rows = [line.split(" | ") for line in (tmp_path / "table.md").read_text().splitlines() if "frames a clip" in line]
    assert [row[2] for row in rows] == ["32", "40"] and all(float(row[4]) > 0 for row in rows)  # fmt: skip
    for wrong in ([], ["--frames", "2"]):
        with pytest.raises(SystemExit):
            learning.main([*command, *wrong])
