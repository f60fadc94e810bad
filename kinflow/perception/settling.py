"""The clip at an end: which tracks are people, who is who among them, and their records."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from kinflow.config import PerceptionConfig
from kinflow.evidence import Evidence
from kinflow.perception.between import cubic
from kinflow.perception.identity import cut_at_changes, places_of, reunited
from kinflow.perception.sides import SidesNetwork, settle_sides
from kinflow.perception.tracking import Rows, join_successors, parted, pauses, steady_rows, surely_somebody
from kinflow.perception.verification import refusal

__all__ = ["Refused", "Settled", "evidence_of", "settled"]

log = logging.getLogger(__name__)


class Refused(NamedTuple):
    """Somebody who was followed and is taken for no person."""

    first_s: float  #: time of the first sighting
    last_s: float  #: and of the last
    observed: int  #: sightings
    box_xyxy: list[float]  #: (4,) px, in the middle one
    why: str


class Settled(NamedTuple):
    """What is left of the tracks."""

    people: list[Rows]  #: the one seen in most frames first
    refused: list[Refused]  #: in order of time
    too_short_s: float  #: how long somebody was seen at most who was left out for ``min_duration_s``; 0 for nobody


def settled(
    tracks: list[Rows],
    times: Sequence[float],
    frame_ids: Sequence[int],
    config: PerceptionConfig,
) -> Settled:
    """Decide over whole tracks what could not be decided frame by frame. Empties ``tracks``: of a long clip they are large.

    Args:
        tracks: sightings of each. times: s, frame_ids: of all frames; a sighting's index points into them.
    """
    interval = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    shortest = min(config.min_duration_s, 0.5 * interval * len(times))
    breaks = pauses(times, config.memory_s)
    found: list[Rows] = []
    tracks.reverse()
    while tracks:
        found += parted(tracks.pop(), breaks)
    joined = join_successors(found, times, config.memory_s)[::-1]
    found, pieces = [], []
    places = [places_of(rows, times, interval * len(rows) >= shortest - 1e-6) for rows in joined]
    while joined:
        others = places[: len(joined) - 1] + places[len(joined) :]
        pieces.append(cut_at_changes(joined.pop(), times, others))
    united = reunited(pieces, times, config.reunion_s)[::-1]
    pieces.clear()
    kept: list[Rows] = []
    refused: list[Refused] = []
    too_short_s = 0.0
    while united:
        rows = steady_rows(united.pop(), times)
        if not len(rows) or not surely_somebody(rows):
            log.debug("dropped a track of %d frames", len(rows))
        elif reason := refusal(rows, config.least_agreement):
            first, last = rows["index"][[0, -1]].tolist()
            log.info("no person, frames %d to %d: %s", frame_ids[first], frame_ids[last], reason)
            if interval * len(rows) < shortest - 1e-6:
                continue
            box = rows["box_xyxy"][len(rows) // 2].astype(np.float64).round(1).tolist()
            refused.append(Refused(times[first], times[last], len(rows), box, reason))
        elif interval * len(rows) < shortest - 1e-6:
            too_short_s = max(too_short_s, interval * len(rows))
        else:
            kept.append(rows)
    kept.sort(key=lambda rows: (-len(rows), int(rows["index"][0])))
    return Settled(kept[: config.max_people], sorted(refused, key=lambda one: one.first_s), too_short_s)


def smoothed_between(rows: Rows, times: Sequence[float]) -> Rows:
    """The rows with a cubic in time in place of the straight lines between looks; without such as no longer lie between two.

    Args:
        times: s, of all frames; a row's index points into it.
    """
    looks = np.flatnonzero(rows["looked"])
    if len(looks) == len(rows) or not len(looks):
        return rows
    rows = rows[looks[0] : looks[-1] + 1].copy()
    looked, at = rows["looked"], np.asarray(times, np.float64)[rows["index"]]
    for name in ("keypoints2d", "world"):
        rows[name][~looked] = cubic(at[looked], rows[name][looked], at[~looked])
    return rows


def evidence_of(
    number: int,
    rows: Rows,
    times: Sequence[float],
    frame_ids: Sequence[int],
    image_size: tuple[int, int],
    held: Collection[str],
    sides: SidesNetwork | None = None,
) -> Evidence:
    """The record of one person.

    Args:
        rows: sightings, whose index points into times (s) and frame_ids.
        held: what they have beside landmarks (:data:`kinflow.perception.tracking.HELD`).
        sides: tells left and right over time; None: they stay as they were seen.
    """
    rows = smoothed_between(rows, times)
    first, last = rows["index"][[0, -1]]
    at = rows["index"] - first
    observed = np.zeros(last - first + 1, bool)
    observed[at] = True

    def fill(name: str) -> np.ndarray:
        values = rows[name]
        kind = np.float32 if values.dtype == np.float64 else values.dtype
        out = np.zeros((len(observed), *values.shape[1:]), kind)
        out[at] = values
        return out

    def held_or_none(name: str) -> np.ndarray | None:
        return fill(name) if name in held else None

    evidence = Evidence(
        person_id=number,
        frame_ids=np.array(frame_ids[first : last + 1], np.int64),
        timestamps=np.array(times[first : last + 1], np.float64),
        observed=observed,
        keypoints2d=fill("keypoints2d"),
        confidence=fill("confidence"),
        world_landmarks=fill("world"),
        has_world=observed.copy(),
        boxes_xyxy=fill("box_xyxy"),
        rois=fill("roi"),
        masks=held_or_none("mask"),
        features=held_or_none("features"),
        code=held_or_none("code"),
        image_size=np.array(image_size, np.int64),
        parts=held_or_none("parts"),
        part_confidence=held_or_none("part_confidence"),
        part_rois=held_or_none("part_roi"),
        looked=None if rows["looked"].all() else fill("looked"),
    )
    return evidence if sides is None else settle_sides(evidence, sides)
