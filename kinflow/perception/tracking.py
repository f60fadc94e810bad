"""People over time: which sighting in a frame belongs to which person. All thresholds are in seconds or in body sizes."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kinflow.config import PerceptionConfig
from kinflow.perception.appearance import DIFFERENT_AT_ONCE, LOOK_SHAPE, look_distance
from kinflow.perception.between import between
from kinflow.perception.blazepose import CODE_SIZE, PYRAMID_SIZE
from kinflow.perception.crops import box_iou
from kinflow.perception.landmarks import MASK_SIZE, Person, mask_overlap, visible_points
from kinflow.perception.parts import MAP_SIZE

__all__ = [
    "Row",
    "Rows",
    "Track",
    "Tracker",
    "join_successors",
    "parted",
    "pauses",
    "plausible",
    "rows_of",
    "same_body",
    "steady_rows",
    "surely_somebody",
]

HELD: dict[str, tuple[type, Any]] = {
    "mask": (np.uint8, (MASK_SIZE, MASK_SIZE)),
    "features": (np.float16, (33, PYRAMID_SIZE)),
    "code": (np.float16, (CODE_SIZE,)),
    "parts": (np.uint8, (MAP_SIZE, MAP_SIZE)),
    "part_confidence": (np.uint8, (MAP_SIZE, MAP_SIZE)),
    "part_roi": (np.float32, 4),
    "look": (np.float32, LOOK_SHAPE),
    "witness": (np.float32, 2),
    "examined": (np.bool_, ()),
}
"""What a sighting may have besides, and the record keep."""

Rows: TypeAlias = NDArray[np.void]
"""Sightings in order of time as one structured array (N,), with the fields of :func:`rows_of`."""


VELOCITY_SECONDS = 0.15  #: time constant of the velocity's average
FAST = 0.3  #: sides of the region a second
HORIZON_SECONDS = 0.25  #: how far a velocity is trusted: displacement = v * horizon * (1 - exp(-dt / horizon))
CLOSE = 0.2  #: people whose boxes overlap by more may be taken for each other
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
PUT_AWAY = 256  #: so many old sightings of a person go into an array at a time
LOOK_SIGHTINGS = 12  #: a track's look is the mean of about so many sightings
LOOK_SURPRISE = 0.25  #: a look of somebody else's surprises as much as a place so far off, in sides of the region
PAUSE = 3.0  #: a clip pauses where frames are further apart than this, in its median interval


@dataclasses.dataclass(frozen=True)
class Row:
    """A fresh sighting: the frame's index among those read, and what was seen."""

    index: int
    person: Person


def rows_of(rows: Sequence[Row], held: Collection[str] = ()) -> Rows:
    """Sightings as the record needs them: a Python object a sighting takes twice the memory.

    Fields: ``index`` of the frame among those read, and by the names of :class:`Person` all else; of the optional ones
    (:data:`HELD`) those named in ``held``, zeros where a sighting has none.
    """
    regions = [(name, np.float64, 4) for name in ("roi", "next_roi")]
    seen = [("keypoints2d", (33, 2)), ("confidence", 33), ("world", (33, 3)), ("box_xyxy", 4)]
    kept = [(name, *HELD[name]) for name in held]
    single = [(name, np.float32, shape) for name, shape in seen]
    head = [("index", np.int64), ("score", np.float64), ("looked", np.bool_)]
    out = np.empty(len(rows), np.dtype([*head, *regions, *single, *kept]))
    out["index"] = [row.index for row in rows]
    for name in (out.dtype.names or ())[1:]:
        for i, row in enumerate(rows):
            value = getattr(row.person, name)
            out[name][i] = 0 if value is None else value
    return out


@dataclasses.dataclass
class Track:
    """One person followed through the clip."""

    number: int
    rows: list[Row]  #: the fresh sightings; at these others look back
    seen_at: float  #: s, the last sighting
    velocity: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))  #: px/s of the region's centre
    look_ahead: int = 1  #: how many frames are looked at in one go
    found: int | None = 0  #: position in `rows` of a detection that has not been followed backwards yet; None: no such
    old: list[Rows] = dataclasses.field(default_factory=list)  #: the sightings before those in `rows`
    alive: bool = True  #: seen in the last frame that was looked at
    look: np.ndarray | None = None  #: what is worn, by the latest sightings; None: not known
    examined_at: float = -math.inf  #: s, when BodyPix looked last, ...
    examined: int = 0  #: ... and how often since the track began or the person came back
    steady: bool = False  #: moved so evenly of late that frames may be passed over

    def __post_init__(self) -> None:
        self._learn(self.last, self.seen_at)

    @property
    def last(self) -> Person:
        return self.rows[-1].person

    def predicted_roi(self, time: float) -> np.ndarray:
        """Where to look at `time`: the last region moved on by a velocity that is trusted for a short while."""
        dt = max(time - self.seen_at, 0.0)
        roi = self.last.next_roi.copy()
        roi[:2] += self.velocity * (HORIZON_SECONDS * -math.expm1(-dt / HORIZON_SECONDS))
        return roi

    @property
    def fast(self) -> bool:
        """Whether the person runs past or falls, and is soon lost where sightings err by turns this way and that."""
        return bool(np.linalg.norm(self.velocity) > FAST * max(self.last.next_roi[2], 1.0))

    def backwards(self, position: int, time: float) -> Track:
        """A track that follows the same person back in time from rows[position], seen at `time`: its times are negative."""
        return Track(self.number, [self.rows[position]], -time)  # and of the look at that position

    def extend(self, row: Row, time: float) -> None:
        """Append a sighting and update the velocity."""
        dt = time - self.seen_at
        if dt > 0:
            measured = (row.person.next_roi[:2] - self.last.next_roi[:2]) / dt
            self.velocity += (1 - math.exp(-dt / VELOCITY_SECONDS)) * (measured - self.velocity)
        self.rows.append(row)
        self.seen_at = time
        self.alive = True
        self._learn(row.person, time)

    def fill(self, frames: Sequence[int], times: Sequence[float]) -> None:
        """Put the frames passed over between the last two sightings."""
        if len(self.rows) < 2 or not frames or not self.rows[-2].index < frames[0] <= frames[-1] < self.rows[-1].index:
            return
        before, after = self.rows[-2:]
        first, last = times[before.index], times[after.index]
        told = [between(before.person, after.person, (times[i] - first) / (last - first)) for i in frames]
        self.rows[-1:-1] = [Row(i, person) for i, person in zip(frames, told, strict=True)]

    def _learn(self, person: Person, time: float) -> None:
        if person.examined:
            self.examined_at = time
            self.examined += 1
        if person.look is not None:
            seen = person.look.astype(np.float64)
            self.look = seen if self.look is None else self.look + (seen - self.look) / LOOK_SIGHTINGS

    def change(self, person: Person) -> float:
        """How different somebody looks from the track's person, in units of what is somebody else's; 0 where unknown."""
        if self.look is None or person.look is None:
            return 0.0
        return float(look_distance(self.look, person.look.astype(np.float64))) / DIFFERENT_AT_ONCE

    def put_away(self, before: int, held: Collection[str] = ()) -> None:
        """Move the sightings before that frame, at which nobody looks back, to `old`; many at a time while there are more."""
        gone = bisect.bisect_left(self.rows, before, hi=len(self.rows) - 1, key=lambda row: row.index)
        if gone >= PUT_AWAY or (gone and not self.alive):
            self.old.append(rows_of(self.rows[:gone], held))
            del self.rows[:gone]
            self.found = None if self.found is None or self.found < gone else self.found - gone

    def __len__(self) -> int:
        return sum(map(len, self.old)) + len(self.rows)

    def all_rows(self, held: Collection[str] = ()) -> Rows:
        """Every sighting, from the first."""
        return np.concatenate([*self.old, rows_of(self.rows, held)])


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

    def close(self) -> set[int]:
        """Numbers of the live tracks that come so close to another that masks are needed to tell one body from two."""
        tracks = self.alive()
        if len(tracks) < 2:
            return set()
        boxes = np.stack([t.last.box_xyxy for t in tracks])
        near = box_iou(boxes, boxes) > CLOSE
        return {t.number for t, others in zip(tracks, near.sum(1), strict=True) if others > 1}

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
            track.found, track.examined = len(track.rows), 0
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
        """How far a sighting lies from where its track should be, in sides of the region, and how different it looks; long
        tracks are trusted more.
        """
        expected = track.predicted_roi(time)
        distance = np.linalg.norm(person.next_roi[:2] - expected[:2]) / max(expected[2], 1.0)
        return float(distance) + 0.1 / len(track) + LOOK_SURPRISE * min(track.change(person), 2.0)

    @staticmethod
    def _return_cost(track: Track, person: Person, time: float) -> float:
        """Below 1 where `person` may be the lost `track`."""
        expected = track.predicted_roi(time)
        side = max(expected[2], 1.0)
        reach = REACH + REACH_PER_SECOND * (time - track.seen_at)
        distance = float(np.linalg.norm(person.next_roi[:2] - expected[:2])) / side / reach
        ratio = abs(math.log(max(person.next_roi[2], 1.0) / side)) / math.log(SIZE_RATIO)
        return max(distance, ratio, track.change(person))


def steady_rows(rows: Rows, times: Sequence[float]) -> Rows:
    """The rows without those whose region is far larger or smaller than the median of the second around them.

    Who comes into view from the frame's border is at times seen at first as a small whole person, in a head or an arm.

    Args:
        times: s, of all frames; a row's index points into it.
    """
    at = np.asarray(times)[rows["index"]]
    sides = np.log(np.maximum(rows["next_roi"][:, 2], 1.0))
    low, high = np.searchsorted(at, at - STEADY_SECONDS), np.searchsorted(at, at + STEADY_SECONDS, side="right")
    keep = [abs(s - np.median(sides[a:b])) < math.log(SIZE_RATIO) for s, a, b in zip(sides, low, high, strict=True)]
    return rows if all(keep) else rows[keep]


def surely_somebody(rows: Rows) -> bool:
    """Whether a track shows a person: furniture is taken for one in some frames, lost between them, and scores low.

    Who is hidden at times scores high when seen; who scores low but is there in most frames is kept as well.
    """
    seen = len(rows) / (rows["index"][-1] - rows["index"][0] + 1)
    return bool(seen >= MOSTLY_SEEN or np.median(rows["score"]) >= SURE_SCORE)


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


def parted(rows: Rows, before: np.ndarray) -> list[Rows]:
    """The rows in pieces: a new one begins with each of the frames ``before``, of which the numbers rise."""
    return [piece for piece in np.split(rows, np.searchsorted(rows["index"], before)) if len(piece)]


def plausible(track: Track, person: Person) -> bool:
    """A region that collapses or explodes within a frame is no sighting."""
    ratio = person.next_roi[2] / max(track.last.next_roi[2], 1.0)
    return bool(0.4 < ratio < 2.5)


def join_successors(tracks: list[Rows], times: Sequence[float], memory_s: float) -> list[Rows]:
    """Tracks of one body joined: a person lost for a moment and taken up as someone new.

    The lost track may see the body again now and then, badly; the new one sees it all along. So where a track's few
    sightings within a later track's span lie on that track's body (half of them at least), and its last sighting before is not older than
    ``memory_s``, the later one continues it. Two people in front of each other are both seen all along.

    Args:
        tracks: rows of each, in order of time. times: s, of all frames; a row's index points into it.
    """
    joined: list[Rows] = []
    for rows in sorted(tracks, key=lambda rows: int(rows["index"][0])):
        first, last = rows["index"][[0, -1]]
        for k, earlier in enumerate(joined):
            before, inside, after = np.split(earlier, np.searchsorted(earlier["index"], [first, last + 1]))
            _, here, there = np.intersect1d(inside["index"], rows["index"], assume_unique=True, return_indices=True)
            pairs = inside["roi"][here], rows["roi"][there]
            if len(before) and not len(inside):
                # Nothing seen twice: the last sighting must lie where the new track begins.
                pairs = before["roi"][-1:], rows["roi"][:1]
            few = 0 < len(pairs[0]) < FEW_SIGHTINGS * len(rows)
            fresh = len(before) > 0 and times[first] - times[before["index"][-1]] <= memory_s
            if few and fresh and 2 * np.count_nonzero(_same_place(*pairs)) >= len(pairs[0]):
                joined[k] = np.concatenate([before, rows, after])
                break
        else:
            joined.append(rows)
    return joined


def _same_place(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which regions (N, 4) lie where the others do."""
    return np.linalg.norm(a[:, :2] - b[:, :2], axis=-1) < SAME_PLACE * np.minimum(a[:, 2], b[:, 2])
