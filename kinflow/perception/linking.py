"""Keypoints of unnamed people, frame by frame, into one Evidence per person."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kinflow.evidence import Evidence
from kinflow.perception.tracking import pauses

__all__ = ["Sighting", "link_people"]

LEAST_CONFIDENCE = 0.05  #: keypoints below are missing
LEAST_POINTS = 4  #: a sighting with fewer keypoints is none
REACH = 0.35  #: how far keypoints may move on average between sightings, in body sizes, ...
REACH_PER_SECOND = 0.5  #: ... and more for each second between them
MEMORY_S = 1.0  #: a person may be out of sight this long and stay the same person
MIN_DURATION_S = 0.6  #: people seen for less are dropped; never more than half of the clip is asked for
ROI_MARGIN = 1.25


@dataclasses.dataclass(frozen=True)
class Sighting:
    """One person in one frame."""

    keypoints2d: np.ndarray  #: (33, 2) px
    confidence: np.ndarray  #: (33,) 0..1
    label: str | None = None  #: the source's own name of the person, where it tracks
    world: np.ndarray | None = None  #: (33, 3) m, camera axes, hip-centred

    @property
    def known(self) -> np.ndarray:
        """(33,) bool."""
        return self.confidence >= LEAST_CONFIDENCE

    @property
    def box_xyxy(self) -> np.ndarray:
        points = self.keypoints2d[self.known]
        return np.concatenate([points.min(0), points.max(0)])

    @property
    def size(self) -> float:
        """Diagonal of the box, px."""
        box = self.box_xyxy
        return float(max(np.hypot(*(box[2:] - box[:2])), 1.0))


@dataclasses.dataclass
class _Chain:
    rows: list[tuple[int, Sighting]]
    velocity: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))  #: px/s


def link_people(
    frames: Sequence[list[Sighting]], timestamps: np.ndarray, frame_ids: np.ndarray, image_size: tuple[int, int]
) -> list[Evidence]:
    """Join sightings that are the same person: by the source's labels, else by closeness of the pose over time.

    Args:
        frames: the sightings in each of T frames.
        timestamps: (T,) s; frame_ids: (T,).
    Returns:
        People, the one seen in most frames first. Where the clip itself pauses, nobody goes on, whatever the labels.
    """
    chains: list[_Chain] = []
    labelled: dict[str, _Chain] = {}
    breaks = set(pauses(timestamps, MEMORY_S).tolist())
    for index, sightings in enumerate(frames):
        if index in breaks:
            labelled.clear()
        sightings = [s for s in sightings if s.known.sum() >= LEAST_POINTS]
        for sighting in [s for s in sightings if s.label is not None]:
            chain = labelled.setdefault(str(sighting.label), _Chain([]))
            if not chain.rows:
                chains.append(chain)
            if not chain.rows or chain.rows[-1][0] < index:
                chain.rows.append((index, sighting))
        _extend(chains, index, [s for s in sightings if s.label is None], timestamps)

    interval = float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else 0.0
    shortest = min(MIN_DURATION_S, 0.5 * interval * len(timestamps))
    kept = [c for c in chains if interval * len(c.rows) >= shortest - 1e-6]
    kept.sort(key=lambda c: (-len(c.rows), c.rows[0][0]))
    return [_evidence(n, c.rows, timestamps, frame_ids, image_size) for n, c in enumerate(kept)]


def _extend(chains: list[_Chain], index: int, sightings: list[Sighting], times: np.ndarray) -> None:
    """Give each sighting to the chain that it continues best, or start a new one."""
    costs = []
    for c, chain in enumerate(chains):
        last, before = chain.rows[-1]
        gap = float(times[index] - times[last])
        if before.label is not None or last == index or gap > MEMORY_S:
            continue
        for s, sighting in enumerate(sightings):
            common = before.known & sighting.known
            if not common.any():
                continue
            moved = sighting.keypoints2d[common] - before.keypoints2d[common] - chain.velocity * min(gap, 0.25)
            size = max(before.size, sighting.size)
            cost = float(np.linalg.norm(moved, axis=-1).mean()) / size / (REACH + REACH_PER_SECOND * gap)
            costs.append((cost, c, s))
    taken_chains, taken_sightings = set(), set()
    for cost, c, s in sorted(costs):
        if cost < 1.0 and c not in taken_chains and s not in taken_sightings:
            taken_chains.add(c)
            taken_sightings.add(s)
            last, before = chains[c].rows[-1]
            common = before.known & sightings[s].known
            step = (sightings[s].keypoints2d[common] - before.keypoints2d[common]).mean(0)
            chains[c].velocity = 0.5 * (chains[c].velocity + step / max(float(times[index] - times[last]), 1e-3))
            chains[c].rows.append((index, sightings[s]))
    chains += [_Chain([(index, sighting)]) for s, sighting in enumerate(sightings) if s not in taken_sightings]


def _evidence(
    number: int,
    rows: list[tuple[int, Sighting]],
    timestamps: np.ndarray,
    frame_ids: np.ndarray,
    image_size: tuple[int, int],
) -> Evidence:
    first, last = rows[0][0], rows[-1][0]
    count = last - first + 1
    observed, has_world = np.zeros(count, bool), np.zeros(count, bool)
    keypoints, confidence = np.zeros((count, 33, 2), np.float32), np.zeros((count, 33), np.float32)
    world, boxes, rois = (
        np.zeros((count, 33, 3), np.float32),
        np.zeros((count, 4), np.float32),
        np.zeros((count, 4), np.float32),
    )
    limit = np.tile(np.array(image_size, np.float64), 2)
    for index, sighting in rows:
        t = index - first
        observed[t] = True
        keypoints[t] = np.where(sighting.known[:, None], sighting.keypoints2d, 0.0)
        confidence[t] = np.where(sighting.known, np.clip(sighting.confidence, 0.0, 1.0), 0.0)
        box = sighting.box_xyxy
        margin = 0.1 * (box[2:] - box[:2]).max()
        boxes[t] = np.clip(box + margin * np.array([-1, -1, 1, 1]), 0, limit)
        rois[t] = [*(box[:2] + box[2:]) / 2, ROI_MARGIN * (box[2:] - box[:2]).max(), 0.0]
        if sighting.world is not None:
            world[t], has_world[t] = sighting.world, True
    return Evidence(
        person_id=number,
        frame_ids=np.asarray(frame_ids[first : last + 1], np.int64),
        timestamps=np.asarray(timestamps[first : last + 1], np.float64),
        observed=observed,
        keypoints2d=keypoints,
        confidence=confidence,
        world_landmarks=world,
        has_world=has_world,
        boxes_xyxy=boxes,
        rois=rois,
        image_size=np.array(image_size, np.int64),
    )
