"""Clips that pause: whoever is there afterwards is somebody else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import stub_front_end

from kinflow.cli.video import main
from kinflow.config import PerceptionConfig
from kinflow.perception import Perceiver, tracking
from kinflow.perception.linking import Sighting, link_people
from kinflow.perception.tracking import pauses
from kinflow.video import VideoWriter


def seen(times: np.ndarray, **settings: float) -> Perceiver:
    perceiver = Perceiver(dataclasses.replace(PerceptionConfig(), **settings))
    perceiver.update(np.zeros((len(times), 96, 128, 3), np.uint8), times, np.arange(len(times)))
    return perceiver


def last_part(frames: int, last: int) -> np.ndarray:
    """Frames (T, 96, 128, 3) of which the last show somebody."""
    images = np.full((frames, 96, 128, 3), 255, np.uint8)
    images[-last:] = 100
    return images


HOUR = np.concatenate([np.arange(30) / 30, 3600 + np.arange(40) / 30])


def test_an_hour_between_two_frames_parts_two_people(stubbed: None) -> None:
    people = seen(HOUR).finish()
    assert [(p.frame_ids[0], p.frame_ids[-1]) for p in people] == [(30, 69), (0, 29)]
    assert all(p.observed.all() for p in people)
    assert len(seen(HOUR, memory_s=4000.0).finish()) == 1


def test_a_time_lapse_shows_one_person(stubbed: None) -> None:
    (person,) = seen(np.arange(12) * 10.0).finish()
    assert len(person) == 12


@pytest.mark.parametrize("label", [None, "7"])
def test_keypoints_of_another_tool_part_there_too(label: str | None) -> None:
    points, _ = stub_front_end.standing(128, 96)
    frames = [[Sighting(points, np.ones(33), label)] for _ in HOUR]
    people = link_people(frames, HOUR, np.arange(len(HOUR)), (128, 96))
    assert [(p.frame_ids[0], p.frame_ids[-1]) for p in people] == [(30, 69), (0, 29)]


def test_pauses() -> None:
    assert pauses([0, 0.1, 0.2, 1.3, 2.6, 2.7], 1.2).tolist() == [4]
    assert pauses([0.0], 1.2).tolist() == pauses([0.0, 3600.0], 1.2).tolist() == []


def test_who_was_there_too_briefly_is_known(stubbed: None) -> None:
    watched = seen(np.arange(8) / 30, min_duration_s=0.1)
    assert len(watched.finish()) == 1 and watched.too_short_s == 0
    watched = Perceiver(PerceptionConfig())
    watched.update(last_part(60, 12), np.arange(60) / 30, np.arange(60))
    assert watched.finish() == [] and watched.too_short_s == pytest.approx(0.4)


def test_the_command_names_the_setting_that_left_them_out(
    stubbed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (128, 96), 30) as video:
        for frame in last_part(60, 12):
            video.write(frame)
    arguments = [str(tmp_path / "clip.mp4"), "-o", str(tmp_path / "out"), "--quiet", "--no-overlay"]
    assert main(arguments) == 5
    line = capsys.readouterr().err
    remedy = re.search(r"--set (perception\.min_duration_s=[0-9.]+\d)", line)
    assert "0.40 s at most" in line and remedy and line.count("\n") == 1
    assert main([*arguments, "--set", remedy[1]]) == 0


@pytest.mark.parametrize("masks", [False, True])
def test_sightings_go_into_arrays_once_nobody_looks_back_at_them(
    stubbed: None, monkeypatch: pytest.MonkeyPatch, masks: bool
) -> None:
    every: dict[str, float] = {"masks": masks, "parts": masks, "parts_interval_s": 0.0, "landmark_interval_s": 0.0}
    whole = seen(np.arange(90) / 30, **every).finish()
    monkeypatch.setattr(tracking, "PUT_AWAY", 10)
    watched = seen(np.arange(90) / 30, **every)
    assert watched._tracker is not None
    (track,) = watched._tracker.tracks
    assert [len(rows) for rows in track.old] == [10, 10, 10, 11] and len(track) == 90  # look_back_s is 1.5
    assert track.old[0].itemsize == 889 + (64 * 64 + 2 * 48 * 48 + 4 * 4 + 4 * 2 * 3 * 10 + 4 * 2 + 1) * masks
    (person,), (same,) = watched.finish(), whole
    for name in (
        "frame_ids",
        "keypoints2d",
        "confidence",
        "world_landmarks",
        "boxes_xyxy",
        "rois",
        "masks",
        "parts",
        "part_confidence",
        "part_rois",
    ):
        np.testing.assert_array_equal(getattr(person, name), getattr(same, name), err_msg=name)


def test_who_is_lost_is_put_away_at_once(stubbed: None) -> None:
    watched = Perceiver(PerceptionConfig())
    images = last_part(120, 100)[::-1]  # somebody for 100 frames, then nobody for 20 and long after
    watched.update(images, np.arange(120) / 30, np.arange(120))
    watched.update(np.full((60, 96, 128, 3), 255, np.uint8), 4 + np.arange(60) / 30, 120 + np.arange(60))
    assert watched._tracker is not None
    (track,) = watched._tracker.tracks
    assert len(track.rows) == 1 and len(track) == 100
    (person,) = watched.finish()
    assert person.frame_ids.tolist() == list(range(100))
