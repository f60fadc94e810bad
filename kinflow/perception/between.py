"""Frames that the landmark network passes over: whether their neighbours tell what is in them, and what they tell.

Landmarks that move evenly from one look to the next need no look in between. They are given by a cubic through the looks around
(Catmull and Rom, "A class of local interpolating splines", 1974, for uneven steps), which misses what bends within the gap: so
where landmarks bend from look to look, the frames between are looked at after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kinflow.perception.landmarks import Person

__all__ = ["bend", "between", "cubic", "steady"]

LIMBS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]  #: shoulders, elbows, wrists, hips, knees, ankles
SLACK = 0.5  #: looks may be by so much closer together than the interval, in intervals
MEMORY = 6.0  #: so many intervals ago nothing is steady any more
SURE = 0.5  #: confidence of a landmark whose motion counts
BENT = 0.02  #: bend from look to look, in sides of the region, from which the frames between are looked at


class Sighting(Protocol):
    """A person in a frame of that number, as :class:`kinflow.perception.tracking.Row`."""

    @property
    def index(self) -> int: ...
    @property
    def person(self) -> Person: ...


def steady(rows: Sequence[Sighting], person: Person, index: int, times: Sequence[float], interval: float) -> bool:
    """Whether somebody seen in frame ``index`` got there so evenly that the frames since the look before may be told.

    Args:
        rows: earlier sightings, in order. times: s, of all frames. interval: s, between looks.
    """
    back: list[Sighting] = []
    wanted = times[index] - interval
    for row in reversed(rows):
        if row.person.looked and row.index < index and times[row.index] <= wanted + SLACK * interval:
            back.append(row)
            wanted = times[row.index] - interval
            if len(back) == 2:
                people = [back[1].person, back[0].person, person]
                return bend(people, [times[back[1].index], times[back[0].index], times[index]]) < BENT
        elif times[row.index] < times[index] - MEMORY * interval:
            break
    return False


def bend(people: Sequence[Person], times: Sequence[float]) -> float:
    """How far a straight line through the first and the last of three sightings misses landmarks of the middle one at most, in
    sides of the region: what moves evenly misses by nothing.

    Args:
        people: three sightings. times: s, of each, increasing.
    """
    share = (times[1] - times[0]) / (times[2] - times[0])
    points = [p.keypoints2d[LIMBS] for p in people]
    off = np.linalg.norm((1 - share) * points[0] + share * points[2] - points[1], axis=-1)
    sure = np.min([p.confidence[LIMBS] for p in people], 0) > SURE
    return float((off * sure).max() / max(people[1].next_roi[2], 1.0))


def between(before: Person, after: Person, share: float) -> Person:
    """Somebody on the straight way between two sightings, at ``share`` (0..1) of it; marked as not looked at."""

    def mixed(name: str) -> np.ndarray:
        a, b = getattr(before, name), getattr(after, name)
        return np.asarray((1 - share) * a + share * b)

    def region(name: str) -> np.ndarray:
        a, b = getattr(before, name), getattr(after, name)
        turn = (b[3] - a[3] + np.pi) % (2 * np.pi) - np.pi
        return np.append((1 - share) * a[:3] + share * b[:3], a[3] + share * turn)

    return Person(
        roi=region("roi"),
        next_roi=region("next_roi"),
        score=min(before.score, after.score),
        looked=False,
        mask=None,
        **{name: mixed(name) for name in ("keypoints2d", "confidence", "world", "box_xyxy")},
    )


def cubic(at: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values (N, ...) at times ``at`` (N,), N >= 2, as a spline whose slopes are those of the parabola through each three, at times
    ``wanted`` (M,) within them -> (M, ...)."""
    y = values.reshape(len(at), -1).astype(np.float64)
    step = np.diff(at)[:, None]
    rise = np.diff(y, axis=0) / step
    slope = np.concatenate(
        (rise[:1], (rise[:-1] * step[1:] + rise[1:] * step[:-1]) / (step[1:] + step[:-1]), rise[-1:])
    )
    k = np.searchsorted(at, wanted, side="right").clip(1, len(at) - 1) - 1
    h = step[k]
    s = (wanted - at[k])[:, None] / h
    rest = 1 - s
    out = rest**2 * ((1 + 2 * s) * y[k] + s * h * slope[k]) + s**2 * ((3 - 2 * s) * y[k + 1] - rest * h * slope[k + 1])
    return np.asarray(out.reshape(-1, *values.shape[1:]))
