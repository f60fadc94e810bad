"""People over time: which sighting in a frame belongs to which person. All thresholds are in seconds or in body sizes."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from kinflow.config import PerceptionConfig
from kinflow.perception.crops import box_iou
from kinflow.perception.landmarks import Person, mask_overlap, visible_points

__all__ = ["Row", "Track", "Tracker", "parted", "pauses", "plausible", "same_body", "steady_rows", "surely_somebody"]

VELOCITY_SECONDS = 0.15  #: time constant of the velocity's average
HORIZON_SECONDS = 0.25  #: how far a velocity is trusted: displacement = v * horizon * (1 - exp(-dt / horizon))
SAME_BODY = 0.25  #: two sightings whose confident landmarks lie closer than this, in torso lengths, are one body
REACH = 0.45  #: how far from its prediction a lost person may reappear, in sides of the region, ...
REACH_PER_SECOND = 0.5  #: ... and more for each second of absence
MASK_OVERLAP = 0.6  #: two sightings whose masks share this part of the smaller one are one body
LEAST_POINTS = 5  #: a person with fewer visible landmarks inside the frame is out of view
SIZE_RATIO = 1.7  #: a person's region changes by at most this between sightings
FEW_SIGHTINGS = 0.3  #: of a later track's, below which an earlier track on the same body only lingers
SAME_PLACE = 0.5  #: regions whose centres lie nearer than this, in sides of the smaller, are of one body
STEADY_SECONDS = 1.0  #: half the window in which regions must agree in size
SURE_SCORE = 0.9  #: people's median score is 0.99 and more, that of furniture less than this (measured), ...
MOSTLY_SEEN = 0.75  #: ... and furniture is lost and found again
PAUSE = 3.0  #: a clip pauses where frames are further apart than this, in its median interval


@dataclasses.dataclass(frozen=True)
class Row:
    """A sighting in the record: the frame's index among those read, and what was seen."""

    index: int
    person: Person


@dataclasses.dataclass
class Track:
    """One person followed through the clip."""

    number: int
    rows: list[Row]
    seen_at: float  #: s, the last sighting
    velocity: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))  #: px/s of the region's centre
    look_ahead: int = 1  #: how many frames are looked at in one go
    found: int | None = 0  #: position in `rows` of a detection that has not been followed backwards yet
    aged: int = 0  #: so many rows, from the first, are held as the record needs them
    alive: bool = True  #: seen in the last frame that was looked at

    @property
    def last(self) -> Person:
        return self.rows[-1].person

    def predicted_roi(self, time: float) -> np.ndarray:
        """Where to look at `time`: the last region moved on by a velocity that is trusted for a short while."""
        dt = max(time - self.seen_at, 0.0)
        roi = self.last.next_roi.copy()
        roi[:2] += self.velocity * (HORIZON_SECONDS * -math.expm1(-dt / HORIZON_SECONDS))
        return roi

    def backwards(self, position: int, time: float) -> Track:
        """A track that follows the same person back in time from rows[position], seen at `time`: its times are negative."""
        return Track(self.number, [self.rows[position]], -time)

    def extend(self, row: Row, time: float) -> None:
        """Append a sighting and update the velocity."""
        dt = time - self.seen_at
        if dt > 0:
            measured = (row.person.next_roi[:2] - self.last.next_roi[:2]) / dt
            self.velocity += (1 - math.exp(-dt / VELOCITY_SECONDS)) * (measured - self.velocity)
        self.rows.append(row)
        self.seen_at = time
        self.alive = True

    def age(self, before: int, masks: bool) -> None:
        """Keep of the sightings before that frame, at which nobody looks back, what the record needs: float32, masks if asked."""
        while self.aged < len(self.rows) - 1 and self.rows[self.aged].index < before:
            index, person = self.rows[self.aged].index, self.rows[self.aged].person
            short = {name: getattr(person, name).astype(np.float32) for name in ("keypoints2d", "confidence", "world")}
            kept = dataclasses.replace(person, mask=person.mask if masks else None, **short)
            self.rows[self.aged] = Row(index, kept)
            self.aged += 1


def same_body(a: Person, b: Person) -> bool:
    """Whether two sightings in one frame are of the same body: landmarks, or masks, on top of each other."""
    if box_iou(a.box_xyxy[None], b.box_xyxy[None])[0, 0] > 0.05 and mask_overlap(a, b) > MASK_OVERLAP:
        return True
    weight = a.confidence * b.confidence
    size = min(a.next_roi[2], b.next_roi[2]) / 4.0  # the region spans about four torsos
    if weight.sum() < 1.0 or size <= 0:
        return bool(box_iou(a.box_xyxy[None], b.box_xyxy[None])[0, 0] > 0.6)
    distance = float((np.linalg.norm(a.keypoints2d - b.keypoints2d, axis=-1) * weight).sum() / weight.sum())
    return distance < SAME_BODY * size


class Tracker:
    """The tracks of a clip. Feed frames in order: :meth:`regions`, then :meth:`keep` with what was seen there."""

    def __init__(self, config: PerceptionConfig, image_size: tuple[int, int]) -> None:
        self.config = config
        self.image_size = image_size
        self.tracks: list[Track] = []

    def alive(self) -> list[Track]:
        """Tracks seen in the last frame."""
        return [t for t in self.tracks if t.alive]

    def crowded(self) -> bool:
        """Whether two live tracks come so close that masks are needed to tell one body from two."""
        boxes = [t.last.box_xyxy for t in self.alive()]
        return len(boxes) > 1 and bool((np.triu(box_iou(np.stack(boxes), np.stack(boxes)), 1) > 0.2).any())

    def missing(self, time: float) -> list[Track]:
        """Tracks lost so recently that they may come back."""
        return [t for t in self.tracks if not t.alive and 0 < time - t.seen_at <= self.config.memory_s]

    def keep(self, index: int, time: float, seen: list[tuple[Track, Person]]) -> list[Track]:
        """Record this frame's sightings of known tracks; returns the tracks that were lost in it.

        A sighting is refused where its score is low, or where another track sees the same body and predicted it better.
        """
        accepted: list[tuple[float, Track, Person]] = []
        lost = []
        for track, person in seen:
            if not self.is_person(person) or not plausible(track, person):
                lost.append(track)
            else:
                accepted.append((self._surprise(track, person, time), track, person))
        accepted.sort(key=lambda item: item[0])
        kept: list[tuple[Track, Person]] = []
        for _, track, person in accepted:
            if any(same_body(person, other) for _, other in kept):
                lost.append(track)
            else:
                kept.append((track, person))
        for track, person in kept:
            track.extend(Row(index, person), time)
        for track in lost:
            track.alive = False
        return lost

    def taken(self, index: int, person: Person, track: Track) -> bool:
        """Whether another track has this body in frame `index`."""
        for other in self.tracks:
            if other is not track and other.rows[0].index <= index <= other.rows[-1].index:
                at = bisect.bisect_left(other.rows, index, key=lambda row: row.index)
                if other.rows[at].index == index and same_body(person, other.rows[at].person):
                    return True
        return False

    def admit(self, index: int, time: float, person: Person) -> Track | None:
        """A sighting from a detection: a lost person found again, a new person, or None where a live track has it."""
        if not self.is_person(person):
            return None
        for track in self.alive():
            if track.seen_at == time and same_body(person, track.last):
                return None
        costs = [(self._return_cost(t, person, time), t) for t in self.missing(time)]
        costs = [(c, t) for c, t in costs if c < 1.0]
        if costs:
            track = min(costs, key=lambda item: item[0])[1]
            track.found = len(track.rows)
            track.extend(Row(index, person), time)
            return track
        limit = self.config.max_people
        if limit is not None and len(self.alive()) >= limit:
            return None
        track = Track(len(self.tracks), [Row(index, person)], time)
        self.tracks.append(track)
        return track

    def is_person(self, person: Person) -> bool:
        """Whether a sighting shows somebody: a good score, and enough of the body inside the frame."""
        good = person.score >= self.config.landmark_threshold
        return good and visible_points(person, self.image_size) >= LEAST_POINTS

    @staticmethod
    def _surprise(track: Track, person: Person, time: float) -> float:
        """How far a sighting lies from where its track should be, in sides of the region; long tracks are trusted more."""
        expected = track.predicted_roi(time)
        distance = np.linalg.norm(person.next_roi[:2] - expected[:2]) / max(expected[2], 1.0)
        return float(distance) + 0.1 / len(track.rows)

    @staticmethod
    def _return_cost(track: Track, person: Person, time: float) -> float:
        """Below 1 where `person` may be the lost `track`."""
        expected = track.predicted_roi(time)
        side = max(expected[2], 1.0)
        reach = REACH + REACH_PER_SECOND * (time - track.seen_at)
        distance = float(np.linalg.norm(person.next_roi[:2] - expected[:2])) / side / reach
        ratio = abs(math.log(max(person.next_roi[2], 1.0) / side)) / math.log(SIZE_RATIO)
        return max(distance, ratio)


def steady_rows(rows: list[Row], times: Sequence[float]) -> list[Row]:
    """The rows without those whose region is far larger or smaller than the median of the second around them.

    Who comes into view from the frame's border is at times seen at first as a small whole person, in a head or an arm.

    Args:
        times: s, of all frames; a row's index points into it.
    """
    at = np.array([times[row.index] for row in rows])
    sides = np.log([max(row.person.next_roi[2], 1.0) for row in rows])
    low, high = np.searchsorted(at, at - STEADY_SECONDS), np.searchsorted(at, at + STEADY_SECONDS, side="right")
    keep = [abs(s - np.median(sides[a:b])) < math.log(SIZE_RATIO) for s, a, b in zip(sides, low, high, strict=True)]
    return [row for row, good in zip(rows, keep, strict=True) if good]


def surely_somebody(rows: Sequence[Row]) -> bool:
    """Whether a track shows a person: furniture is taken for one in some frames, lost between them, and scores low.

    Who is hidden at times scores high when seen; who scores low but is there in most frames is kept as well.
    """
    seen = len(rows) / (rows[-1].index - rows[0].index + 1)
    return seen >= MOSTLY_SEEN or float(np.median([row.person.score for row in rows])) >= SURE_SCORE


def pauses(times: np.ndarray | Sequence[float], memory_s: float) -> np.ndarray:
    """Numbers of the frames before which the clip itself pauses for longer than anybody is remembered.

    Who is there afterwards may be anyone. A time-lapse does not pause: its intervals are all alike.

    Args:
        times: (T,) s.
    """
    steps = np.diff(np.asarray(times, np.float64))
    if not len(steps):
        return np.zeros(0, np.int64)
    return np.flatnonzero(steps > max(memory_s, PAUSE * float(np.median(steps)))) + 1


def parted(rows: list[Row], before: np.ndarray) -> list[list[Row]]:
    """The rows in pieces: a new one begins with each of the frames ``before``, of which the numbers rise."""
    edges = [0, *np.searchsorted([row.index for row in rows], before).tolist(), len(rows)]
    return [rows[a:b] for a, b in itertools.pairwise(edges) if a < b]


def plausible(track: Track, person: Person) -> bool:
    """A region that collapses or explodes within a frame is no sighting."""
    ratio = person.next_roi[2] / max(track.last.next_roi[2], 1.0)
    return bool(0.4 < ratio < 2.5)


def join_successors(tracks: list[list[Row]], times: Sequence[float], memory_s: float) -> list[list[Row]]:
    """Tracks of one body joined: a person lost for a moment and taken up as someone new.

    The lost track may see the body again now and then, badly; the new one sees it all along. So where a track's few
    sightings within a later track's span lie on that track's body (half of them at least), and its last sighting before is not older than
    ``memory_s``, the later one continues it. Two people in front of each other are both seen all along.

    Args:
        tracks: rows of each, in order of time. times: s, of all frames; a row's index points into it.
    """
    remaining = sorted(tracks, key=lambda rows: rows[0].index)
    joined: list[list[Row]] = []
    for rows in remaining:
        for k, earlier in enumerate(joined):
            before = [row for row in earlier if row.index < rows[0].index]
            inside = [row for row in earlier if rows[0].index <= row.index <= rows[-1].index]
            after = [row for row in earlier if row.index > rows[-1].index]
            there = {row.index: row.person for row in rows}
            shared = [(row.person, there[row.index]) for row in inside if row.index in there]
            if before and not inside:  # nothing seen twice: the last sighting must lie where the new track begins
                shared = [(before[-1].person, rows[0].person)]
            few = 0 < len(shared) < FEW_SIGHTINGS * len(rows)
            fresh = bool(before) and times[rows[0].index] - times[before[-1].index] <= memory_s
            if few and fresh and 2 * sum(_same_place(a, b) for a, b in shared) >= len(shared):
                joined[k] = before + rows + after
                break
        else:
            joined.append(rows)
    return joined


def _same_place(a: Person, b: Person) -> bool:
    distance = float(np.linalg.norm(a.roi[:2] - b.roi[:2]))
    return distance < SAME_PLACE * min(a.roi[2], b.roi[2])
