"""Frames passed over: what is told of them against motions that are known, and when every frame is looked at after all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import stub_front_end
import torch

from kinflow.config import PerceptionConfig
from kinflow.evidence import Evidence
from kinflow.perception import Perceiver, perceiver
from kinflow.perception.between import bend, between, cubic
from kinflow.perception.landmarks import Person

HEIGHT, WIDTH, FPS, INTERVAL = 96, 320, 30, 0.1
Place = Callable[[float], float]
"""px to the right of the middle at a time in s."""


def sighting(x: float, confidence: float = 0.9) -> Person:
    points = np.zeros((33, 2)) + [x, 50]
    roi = np.array([x, 50, 100, 0.0])
    return Person(roi, roi, 0.9, points, np.full(33, confidence), np.zeros((33, 3)), np.zeros(4), None)


def test_a_cubic_is_exact_for_parabolas_at_uneven_times() -> None:
    at = np.array([0.0, 0.1, 0.25, 0.3, 0.5, 0.9])
    wanted = np.array([0.1, 0.12, 0.27, 0.3, 0.4, 0.499])  # at the ends the slope is known from one side alone

    def path(t: np.ndarray) -> np.ndarray:
        return np.stack((3 - 2 * t + 5 * t**2, 7 * t), -1)[:, None]

    np.testing.assert_allclose(cubic(at, path(at), wanted), path(wanted), atol=1e-12)
    np.testing.assert_allclose(cubic(at[:2], path(at[:2]), np.array([0.05]))[0, 0, 1], 0.35)


def test_bend_in_closed_form() -> None:
    times = [0.0, 0.1, 0.3]
    even, thrown = [[10 + 50 * t + a * t**2 for t in times] for a in (0.0, 200.0)]
    assert bend([sighting(x) for x in even], times) == pytest.approx(0, abs=1e-12)
    # A parabola a t^2 lies a (t1 - t0) (t2 - t1) below its chord; the region's side is 100.
    assert bend([sighting(x) for x in thrown], times) == pytest.approx(200 * 0.1 * 0.2 / 100)
    unsure = [sighting(x, 0.3 if k == 1 else 0.9) for k, x in enumerate(thrown)]
    assert bend(unsure, times) == 0  # where the landmarks are not known nothing is told by their place


def test_half_way_between_two_sightings() -> None:
    a, b = sighting(10), dataclasses.replace(sighting(30, 0.5), score=0.6)
    b.roi[3], a.roi[3] = -3.1, 3.1  # across the cut of the angle
    told = between(a, b, 0.5)
    assert not told.looked and told.score == 0.6 and told.mask is None
    assert told.keypoints2d[:, 0] == pytest.approx(20) and told.confidence == pytest.approx(0.7)
    assert abs(told.roi[3]) == pytest.approx(np.pi)


class Filmed:
    """Frames whose first pixel is their number, and a front end that sees somebody where ``place`` says; counts its looks."""

    def __init__(self, place: Place, frames: int, gone: tuple[int, ...] = ()) -> None:
        self.times = np.arange(frames) / FPS
        self.images = np.full((frames, HEIGHT, WIDTH, 3), 180, np.uint8)
        self.images[:, 0, 0] = np.arange(frames)[:, None]
        self.place, self.gone, self.looks = place, gone, list[int]()
        figure, world = stub_front_end.standing(WIDTH, HEIGHT)
        self.figure, self.world = figure, world

    def points(self, number: int) -> np.ndarray:
        return self.figure + [self.place(float(self.times[number])), 0]

    def landmarks(self, jobs: list[tuple[perceiver.Frame, np.ndarray]]) -> list[Person]:
        out = []
        for frame, roi in jobs:
            number = int(frame.image[0, 0, 0])
            self.looks.append(number)
            points = self.points(number)
            following = np.array([points[:, 0].mean(), points[:, 1].mean(), float(HEIGHT), 0.0])
            score = 0.0 if number in self.gone else 0.99
            box = np.concatenate([points.min(0), points.max(0)])
            out.append(Person(roi, following, score, points, np.full(33, 0.9), self.world, box, None))
        return out

    def watch(self, monkeypatch: pytest.MonkeyPatch, batch: int = 8, **settings: float | bool | int) -> list[Evidence]:
        monkeypatch.setattr(perceiver.Perceiver, "_landmarks", lambda _, jobs, *others: self.landmarks(jobs))
        base = PerceptionConfig(landmark_interval_s=INTERVAL, masks=False, parts=False, max_people=1)
        watching = Perceiver(dataclasses.replace(base, **settings))  # type: ignore[arg-type]
        self.looks.clear()
        for start in range(0, len(self.times), batch):
            rows = slice(start, start + batch)
            watching.update(self.images[rows], self.times[rows], np.arange(len(self.times))[rows])
        return watching.finish()


def even(t: float) -> float:
    return 40 * t - 8 * t**2


def test_frames_passed_over_are_where_an_even_motion_was(stubbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Filmed(even, 61)
    (person,) = film.watch(monkeypatch)
    assert person.looked is not None and sorted(set(film.looks)) == np.flatnonzero(person.looked).tolist()
    assert person.looked.sum() < 30 and person.looked[[0, -1]].all()
    assert np.diff(person.timestamps[person.looked]).max() <= INTERVAL + 1e-9
    assert person.observed.all() and person.has_world.all() and len(person) == 61
    truth = np.stack([film.points(k) for k in range(61)])
    np.testing.assert_allclose(
        person.keypoints2d, truth, atol=0.03
    )  # at either end the slope is of one side: a h^2 / 4
    np.testing.assert_allclose(person.keypoints2d[4:-4], truth[4:-4], atol=1e-4)
    np.testing.assert_allclose(person.world_landmarks, np.broadcast_to(film.world, (61, 33, 3)), atol=1e-6)


def test_batches_do_not_decide_which(stubbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Filmed(lambda t: even(t) + 30 * (t > 1), 50)
    first, *others = [film.watch(monkeypatch, batch)[0] for batch in (8, 1, 7, 50)]
    for other in others:
        np.testing.assert_array_equal(other.looked, first.looked)
        np.testing.assert_array_equal(other.keypoints2d, first.keypoints2d)


def test_who_moves_suddenly_is_looked_at(stubbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start = 1.0
    film = Filmed(lambda t: 12 * min(max(t - start, 0) / 0.1, 1), 60)  # 1.2 m in a tenth of a second
    (person,) = film.watch(monkeypatch)
    assert person.looked is not None and not person.looked.all()
    near = np.abs(person.timestamps - (start + 0.05)) < 0.14
    assert person.looked[near].all()
    np.testing.assert_allclose(person.keypoints2d, np.stack([film.points(k) for k in range(60)]), atol=0.1)


def test_who_is_lost_is_lost_in_the_right_frame(stubbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tuple(range(31, 45))
    film = Filmed(even, 60, gone)
    monkeypatch.setattr(perceiver.Perceiver, "_detect", lambda *_: [])
    detections = stub_front_end._At(film.points(0), HEIGHT)

    def detect(self: Perceiver, image: torch.Tensor, time: float, missing: list[np.ndarray]) -> list[object]:
        self._detected_at = time
        return [] if int(image[0, 0, 0]) in gone else [detections]

    monkeypatch.setattr(perceiver.Perceiver, "_detect", detect)
    (person,) = film.watch(monkeypatch)
    assert np.flatnonzero(~person.observed).tolist() == list(gone)
    assert person.looked is not None and not person.looked.all() and not person.looked[list(gone)].any()


@pytest.mark.parametrize("setting", [{"landmark_interval_s": 0.0}, {"masks": True}, {"features": True}])
def test_every_frame_is_looked_at_once(
    stubbed: None, monkeypatch: pytest.MonkeyPatch, setting: dict[str, float | bool]
) -> None:
    """Where the interval is 0, and where something is kept of every frame."""
    film = Filmed(even, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceiver.Perceiver, "_held", ())
        (person,) = film.watch(monkeypatch, **setting)
    assert person.looked is None and film.looks == list(range(40))
    np.testing.assert_array_equal(person.keypoints2d, np.stack([film.points(k) for k in range(40)]).astype(np.float32))


def test_people_close_to_each_other_are_looked_at_in_every_frame(
    stubbed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Filmed(even, 40)
    monkeypatch.setattr("kinflow.perception.tracking.Tracker.close", lambda self: {0})
    (person,) = film.watch(monkeypatch)
    assert person.looked is None
