"""BodyPix at a low rate: when it looks, that nothing hangs on how frames are batched, and that who is refused is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_front_end
import torch
from torch import Tensor

from kinflow.cli.video import main
from kinflow.config import PerceptionConfig
from kinflow.perception import Perceiver
from kinflow.perception.bodypix import PartOutput
from kinflow.perception.identity import FEWEST
from kinflow.skeleton import BODYPIX24
from kinflow.video import VideoWriter


def bodypix(images: Tensor) -> PartOutput:
    """Takes all of a bright image for a trunk, and sees nobody in a dark one."""
    seen = torch.where(images.mean((1, 2, 3)) > 0, 4.0, -4.0)[:, None, None]
    parts = torch.full((len(images), 24, 33, 33), -4.0)
    parts[:, BODYPIX24.index("torso_front")] = seen
    return PartOutput(seen.expand(-1, 33, 33), parts, None, None)


def watched(images: np.ndarray, times: np.ndarray, batch: int = 8, **settings: float) -> tuple[Perceiver, list[int]]:
    """A perceiver with that BodyPix that has looked at the frames, and how many crops BodyPix was shown a call."""
    perceiver, calls = Perceiver(dataclasses.replace(PerceptionConfig(), missed_interval_s=0.0, **settings)), []

    def segment(crops: Tensor) -> PartOutput:
        calls.append(len(crops))
        return bodypix(crops)

    if perceiver.config.parts:
        perceiver._networks = perceiver._networks._replace(segment=segment)
    for start in range(0, len(times), batch):
        rows = slice(start, start + batch)
        perceiver.update(images[rows], times[rows], np.arange(len(times))[rows])
    return perceiver, calls


def grey(frames: int, brightness: int = 180) -> np.ndarray:
    return np.full((frames, 96, 128, 3), brightness, np.uint8)


def examined(perceiver: Perceiver) -> list[int]:
    assert perceiver._tracker is not None
    (track,) = perceiver._tracker.tracks
    rows = track.all_rows(perceiver._held)
    return rows["index"][rows["examined"]].tolist()


@pytest.mark.parametrize("fps", [10, 30])
def test_somebody_is_looked_at_when_they_come_and_now_and_then(stubbed: None, fps: int) -> None:
    times = np.arange(3 * fps) / fps
    perceiver, calls = watched(grey(len(times)), times)
    rows = examined(perceiver)
    assert rows[:FEWEST] == list(range(FEWEST))
    np.testing.assert_allclose(np.diff(times[rows[FEWEST - 1 :]]), 0.3, atol=1e-6)
    assert times[-1] - times[rows[-1]] < 0.3 and sum(calls) == len(rows)
    (person,) = perceiver.finish()
    assert person.parts is None and person.part_rois is None and len(person) == len(times)


def test_a_shorter_interval_looks_more_often_and_none_does_in_every_frame(stubbed: None) -> None:
    times = np.arange(60) / 30
    looks = [len(examined(watched(grey(60), times, parts_interval_s=s)[0])) for s in (0.5, 0.3, 0.1)]
    assert looks == sorted(set(looks))
    assert watched(grey(60), times, parts=False)[1] == []


def test_batches_do_not_decide_when(stubbed: None) -> None:
    images, times = grey(50), np.arange(50) / 25
    images[20:26] = 255  # nobody is seen, and whoever comes back is looked at anew
    seen = [examined(watched(images, times, batch)[0]) for batch in (1, 7, 50)]
    assert seen[0] == seen[1] == seen[2]
    back = [k for k in seen[0] if k >= 26]
    assert np.diff(back[:FEWEST]).tolist() == [1, 1] and len(seen[0]) < 15


def test_who_comes_close_to_another_is_looked_at_in_every_frame(stubbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinflow.perception.tracking.Tracker.close", lambda self: {0})
    assert len(examined(watched(grey(30), np.arange(30) / 30)[0])) == 30


@pytest.mark.parametrize("interval", [0.3, 0.0])
def test_nobody_is_followed_back_to_where_bodypix_sees_none(
    stubbed: None, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    """The landmark network goes on seeing somebody on the empty floor; the detector does not."""
    detect = Perceiver._detect

    def in_light(self: Perceiver, image: Tensor, time: float, missing: list[np.ndarray]) -> list[Any]:
        found = detect(self, image, time, missing)
        return found if image.float().mean() > 100 else []

    monkeypatch.setattr(Perceiver, "_detect", in_light)
    images, times = np.concatenate([grey(30, 40), grey(40)]), np.arange(70) / 30
    (person,) = watched(images, times, parts_interval_s=interval)[0].finish()
    assert 30 <= person.frame_ids[0] <= 34
    (person,) = watched(images, times, parts=False)[0].finish()
    assert person.frame_ids[0] == 0


def test_who_is_refused_is_told(
    stubbed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two people side by side; BodyPix sees nobody where the right one is."""
    stub_front_end.install(2)
    load = stub_front_end.perceiver.load_networks
    monkeypatch.setattr(
        stub_front_end.perceiver,
        "load_networks",
        lambda c, d: load(c, d)._replace(segment=bodypix if c.parts else None),
    )
    with VideoWriter(tmp_path / "clip.mp4", (320, 96), 10) as video:
        for _ in range(20):
            image = np.full((96, 320, 3), 200, np.uint8)
            image[:, 160:] = 40
            video.write(image)
    arguments = [
        str(tmp_path / "clip.mp4"),
        "-o",
        str(tmp_path / "out"),
        "--quiet",
        "--no-overlay",
        "--no-view",
        "--no-world",
        "--set",
        "perception.missed_interval_s=0",
    ]
    assert main(arguments) == 0
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(info["people"]) == 1
    (refused,) = info["refused"]
    assert refused["first_s"] == 0 and refused["last_s"] == pytest.approx(1.9) and refused["observed"] == 20
    assert refused["box_xyxy"][0] > 160 and refused["why"].startswith("BodyPix takes 0 % of the body for a person")
    assert main([*arguments, "--set", "perception.least_agreement=0"]) == 0
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(info["people"]) == 2 and info["refused"] == []

    monkeypatch.setattr("kinflow.perception.settling.refusal", lambda rows, least: "it is a chair" if least else None)
    capsys.readouterr()
    assert main(arguments) == 5
    line = capsys.readouterr().err
    assert "it is a chair" in line and "--set perception.least_agreement=0" in line
