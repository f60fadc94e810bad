"""Frames in, Evidence out: detection at intervals, landmarks where they are needed, people told apart."""

from __future__ import annotations

import dataclasses
import logging
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinflow.clip import Clip
from kinflow.config import PerceptionConfig
from kinflow.devices import find_device
from kinflow.errors import ShapeError, check_shape, check_type
from kinflow.evidence import Evidence
from kinflow.perception.appearance import looks
from kinflow.perception.between import steady
from kinflow.perception.blazepose import DETECTOR_SIZE, LANDMARK_SIZE
from kinflow.perception.crops import letterbox, warp_crops
from kinflow.perception.detection import Detection, decode_detections, tile_around, tiles, weighted_nms
from kinflow.perception.identity import FEWEST
from kinflow.perception.landmarks import Person, people_from_output
from kinflow.perception.parts import PART_SIZE, part_maps, upright_roi
from kinflow.perception.runtimes import load_networks
from kinflow.perception.searching import squares, unexplained_regions
from kinflow.perception.settling import Refused, evidence_of, settled
from kinflow.perception.sides import load_sides
from kinflow.perception.tracking import Row, Track, Tracker, plausible
from kinflow.perception.verification import witness_of

__all__ = ["Perceiver", "perceive", "watch"]

log = logging.getLogger(__name__)

CONFIRMED_ROWS = 3  #: sightings after which a detection is taken for a person and followed backwards
HISTORY_BYTES = 256 * 2**20  #: at most so many bytes of frames are held for that
TILE_PERSON = 1.0  #: regions larger than this, in sides of the tile, are left to the whole frame's search


class Frame(NamedTuple):
    """One frame of the clip."""

    number: int  #: among the frames read
    time: float  #: s
    image: Tensor  #: (H, W, 3) uint8 RGB


class Perceiver:
    """Finds and follows the people of one clip.

    Call :meth:`update` with the clip's frames in order, batch by batch, then :meth:`finish`. Memory grows with the results
    (some 10 kB a person and frame); of the frames only the last second or so is held.

    Attributes:
        runtime: what runs the networks, "torch" or "openvino".
        too_short_s: after :meth:`finish`, how long somebody was seen at most who was left out for ``min_duration_s``; 0 for
            nobody.
        refused: after :meth:`finish`, who was followed for long enough and is taken for no person, see
            :mod:`kinflow.perception.verification`.

    >>> perceiver = Perceiver(PerceptionConfig())
    >>> perceiver.update(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1), np.zeros(1, int))
    >>> perceiver.finish()
    []
    """

    def __init__(self, config: PerceptionConfig | None = None, device: str | torch.device = "cpu") -> None:
        self.config = PerceptionConfig() if config is None else config
        check_type("config", self.config, PerceptionConfig)
        self.device = find_device(device)
        self._networks = load_networks(self.config, self.device)
        self.runtime = self._networks.runtime
        self.reset()

    def reset(self) -> None:
        """Forget the clip; the next :meth:`update` begins another, with the networks as they are."""
        look_ahead = self.config.look_ahead_s
        self._look_ahead = (0.0 if self.device.type == "cpu" else 0.07) if look_ahead is None else look_ahead
        self._tracker: Tracker | None = None
        self._image_size: tuple[int, int] | None = None
        self._frame_ids, self._times = array("q"), array("d")
        self._ahead: dict[tuple[int, int], Person] = {}  # (track, frame) -> sighting made in advance
        self._history: deque[Frame] = deque()
        self._passed: list[Frame] = []  # frames since the last that was looked at
        self._looked_at = -np.inf
        self._detected_at = -np.inf
        self._tiled_at = -np.inf
        self._labelled_at = -np.inf
        self._tile_turn = 0
        self.too_short_s = 0.0
        self.refused: list[Refused] = []

    @torch.inference_mode()
    def update(self, images: np.ndarray, timestamps: np.ndarray, frame_ids: np.ndarray) -> None:
        """Look at the next frames.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            timestamps: (B,) s, increasing over the whole clip.
            frame_ids: (B,) index of each frame in the clip, increasing.
        Raises:
            ShapeError: wrong shapes or type, another frame size than before, or time that runs backwards.
        """
        size = check_shape("images", images, "B H W 3", "frames are (B, H, W, 3) uint8 RGB arrays")
        check_shape("timestamps", timestamps, str(size["B"]), "one time per image")
        check_shape("frame_ids", frame_ids, str(size["B"]), "one number per image")
        if images.dtype != np.uint8:
            raise ShapeError(f"images: expected uint8, got {images.dtype}. Scale to 0..255 first.")
        if self._image_size not in (None, (size["W"], size["H"])):
            raise ShapeError(f"images: expected {self._image_size} px as before, got {(size['W'], size['H'])}.")
        times = np.asarray(timestamps, np.float64)
        if (np.diff(np.concatenate([self._times[-1:], times])) <= 0).any():
            raise ShapeError("timestamps: expected increasing seconds over the whole clip. Sort the frames.")
        if self._tracker is None:
            self._image_size = (size["W"], size["H"])
            self._tracker = Tracker(self.config, self._image_size)
        frames = [Frame(len(self._times) + i, t, self._to_device(images[i])) for i, t in enumerate(times.tolist())]
        self._times.extend(times.tolist())
        self._frame_ids.extend(np.asarray(frame_ids).astype(int).tolist())
        for i, frame in enumerate(frames):
            self._history.append(frame)
            if self._passes_over(self._tracker, frame):
                self._passed.append(frame)
            else:
                self._arrive(self._tracker, frames[i:])
            self._forget(frame.time)
        self._ahead.clear()

    def _to_device(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image)).to(self.device)

    def _passes_over(self, tracker: Tracker, frame: Frame) -> bool:
        """Whether the next frame will do instead: everybody is followed with nobody else near, and nothing else is due."""
        config, tracks = self.config, tracker.alive()
        if config.masks or config.features or self._everywhere or not tracks:
            return False  # what is kept of every frame needs a look at every frame
        before = self._times[frame.number - 1] if frame.number else -np.inf
        if frame.time + (frame.time - before) > self._looked_at + config.landmark_interval_s + 1e-6:
            return False
        known = all(track.found is None and track.steady for track in tracks)
        return known and not (tracker.missing(frame.time) or tracker.close() or self._search_due(tracker, frame.time))

    def _arrive(self, tracker: Tracker, frames: list[Frame]) -> None:
        """Look at frames[0], and before it at the frames passed over, unless they lie between two sightings of everybody."""
        passed, self._passed, here = self._passed, [], frames[0]
        if passed:
            tracks = tracker.alive()
            people = self._follow(tracks, frames[:1], with_mask=False)  # kept in _ahead, where _look finds them
            if not all(
                tracker.is_person(person) and plausible(track, person) and self._steady(track, here, person)
                for track, person in zip(tracks, people, strict=True)
            ):
                for frame in passed:
                    self._look(tracker, [frame])
                passed = []
        self._look(tracker, frames)
        self._looked_at = here.time
        for track in tracker.alive():
            track.fill([frame.number for frame in passed], self._times)
            track.steady = self._steady(track, here, track.last)

    def _steady(self, track: Track, frame: Frame, person: Person) -> bool:
        """Whether a track's person, seen in that frame, has moved so evenly of late that frames may be passed over."""
        interval = self.config.landmark_interval_s
        return interval > 0 and steady(track.rows, person, frame.number, self._times, interval)

    def _look(self, tracker: Tracker, frames: list[Frame]) -> None:
        """Look at frames[0]; the frames behind it serve to look ahead."""
        index, time, image = frames[0]
        tracks = tracker.alive()
        missing = tracker.missing(time)
        searched = self._search_due(tracker, time)
        detections = self._detect(image, time, [t.predicted_roi(time) for t in missing]) if searched else []
        with_mask = self.config.masks or bool(self._unclaimed(detections, tracks, time)) or bool(tracker.close())
        followed = self._examined(tracker, tracks, self._follow(tracks, frames, with_mask), frames[0])
        lost = tracker.keep(index, time, list(zip(tracks, followed, strict=True)))
        if lost and not searched:
            detections = self._detect(image, time, [t.predicted_roi(time) for t in lost])
        fresh = [(frames[0], d.roi) for d in self._unclaimed(detections, tracker.alive(), time)]
        # Masks tell people apart; of somebody alone none is needed, nor the network with it compiled.
        several = self.config.masks or len(fresh) + len(tracker.alive()) > 1
        begun = self._with_parts([image] * len(fresh), self._landmarks(fresh, several))
        for person in sorted(begun, key=lambda p: -p.next_roi[2]):
            tracker.admit(index, time, person)
        for person in self._missed(frames[0], tracker):
            tracker.admit(index, time, person)
        for track in tracker.alive():
            if track.found is not None and len(track.rows) - track.found >= CONFIRMED_ROWS:
                self._look_back(tracker, track, track.found)
                track.found = None

    def _search_due(self, tracker: Tracker, time: float) -> bool:
        """Whether it is time to search the whole frame."""
        tracks = tracker.alive()
        interval = (
            self.config.detector_interval_s if tracks and not tracker.missing(time) else self.config.search_interval_s
        )
        full = self.config.max_people is not None and len(tracks) >= self.config.max_people
        return time - self._detected_at >= interval - 1e-6 and not full

    def _missed(self, frame: Frame, tracker: Tracker) -> list[Person]:
        """People whom BodyPix sees in the whole frame, and whom neither a track nor the detector has; now and then."""
        _, time, image = frame
        segment, interval = self._networks.segment, self.config.missed_interval_s
        limit = self.config.max_people
        full = limit is not None and len(tracker.alive()) >= limit
        if segment is None or interval == 0 or full or time - self._labelled_at < interval - 1e-6:
            return []
        self._labelled_at = time
        height, width = image.shape[:2]
        found: list[Person] = []
        for tile in squares(width, height):
            view, scale, dx, dy = letterbox(image, tile, PART_SIZE)
            known = [track.last for track in tracker.alive()] + found
            for roi in unexplained_regions(segment(view[None]), scale, (dx, dy), (width, height), known):
                if roi[2] < self.config.min_roi_px:
                    continue
                (first,) = self._landmarks([(frame, roi)], with_mask=True)
                if tracker.is_person(first):  # the region was a guess: look once more where the landmarks are
                    found += self._with_parts([image], self._landmarks([(frame, first.next_roi)], with_mask=True))
        return found

    def _examined(self, tracker: Tracker, tracks: list[Track], people: list[Person], frame: Frame) -> list[Person]:
        """The same people, with what BodyPix says of those it is time to look at.

        That is everybody every ``parts_interval_s``; in every frame who has been looked at less than is needed to know them
        again since they came, and who comes so close to somebody else that one may be taken for the other.
        """
        if not self.config.parts or self._everywhere:
            return people
        interval, close = self.config.parts_interval_s, tracker.close()

        def due(track: Track) -> bool:
            waited = frame.time - track.examined_at >= interval - 1e-6
            return waited or track.examined < FEWEST or track.number in close

        some = [i for i, track in enumerate(tracks) if due(track)]
        out = list(people)
        found = self._with_parts([frame.image] * len(some), [people[i] for i in some])
        for i, person in zip(some, found, strict=True):
            out[i] = person
        return out

    def _look_back(self, tracker: Tracker, track: Track, position: int) -> None:
        """Follow a person back in time from the detection, rows[position], through the frames still held.

        Detection is too dear for every frame; this way people are known from their first visible frame all the same.
        """
        first = track.rows[position].index
        stop = track.rows[position - 1].index if position else -1
        back = track.backwards(position, self._times[first])
        known = 1  # rows of `back` up to the last that BodyPix takes for a person too
        for frame in reversed(self._history):
            if frame.number >= first:
                continue
            if frame.number <= stop:
                break
            person = self._landmarks([(frame, back.predicted_roi(-frame.time))], self.config.masks)[0]
            if (
                not tracker.is_person(person)
                or not plausible(back, person)
                or tracker.taken(frame.number, person, track)
            ):
                break
            if -frame.time - back.examined_at >= self.config.parts_interval_s - 1e-6:
                (person,) = self._with_parts([frame.image], [person])
            if person.witness is not None and person.witness[0] < 0.5 * self.config.least_agreement:
                del back.rows[known:]  # landmarks are found on an empty floor, too, once the person is gone from it
                break
            back.extend(Row(frame.number, person), -frame.time)
            known = len(back.rows) if person.examined else known
        track.rows[position:position] = back.rows[:0:-1]

    def _forget(self, time: float) -> None:
        """Drop the frames that are too old, or too many, to look back at."""
        held = self._history
        budget = HISTORY_BYTES // max(held[-1].image.numel(), 1)
        while len(held) > 1 and (held[0].time < time - self.config.look_back_s or len(held) > budget):
            held.popleft()
        for track in self._tracker.tracks if self._tracker is not None else ():
            track.put_away(held[0].number, self._held)

    def _follow(self, tracks: list[Track], frames: list[Frame], with_mask: bool) -> list[Person]:
        """The tracks' people in frames[0].

        The networks are faster in batches, so the next few frames are looked at too, through regions predicted from
        here. Such a sighting counts only if its region turns out to be the one that the frame before it asks for; a
        track whose regions were mispredicted looks less far ahead.
        """
        index, time, _ = frames[0]
        horizon = time + self._look_ahead
        people: dict[int, Person] = {}
        jobs: list[tuple[Track, Frame]] = []
        for track in tracks:
            ahead = self._ahead.get((track.number, index))
            fits = ahead is not None and (ahead.mask is not None or not with_mask)
            if ahead is not None and fits and _same_region(ahead.roi, track.predicted_roi(time)):
                people[track.number] = ahead
                continue
            track.look_ahead = 1 if ahead is not None else min(2 * track.look_ahead, self.config.batch_people)
            jobs += [(track, f) for f in frames[: track.look_ahead] if f.time <= horizon]
        mirrored = [self.config.mirrors and f.number % 2 == 1 and not t.fast for t, f in jobs]
        found = self._landmarks([(f, t.predicted_roi(f.time)) for t, f in jobs], with_mask, mirrored)
        for (track, frame), person in zip(jobs, found, strict=True):
            self._ahead[track.number, frame.number] = person
            if frame.number == index:
                people[track.number] = person
        return [people[t.number] for t in tracks]

    def _detect(self, image: Tensor, time: float, missing: list[np.ndarray]) -> list[Detection]:
        """People in the whole frame, around `missing` regions, and in some tiles of the frame.

        Small people, and people in wide frames, are larger in a tile; who overfills a tile is left to the whole frame's
        search.
        """
        self._detected_at = time
        height, width = image.shape[:2]
        places = [tile_around(roi, width, height) for roi in missing]
        if time - self._tiled_at >= self.config.tile_interval_s - 1e-6:
            places += self._next_tiles(width, height)
            self._tiled_at = time
        views = [letterbox(image, tile, DETECTOR_SIZE) for tile in [(0, 0, width, height), *places]]
        limits = [np.inf] + [TILE_PERSON * (x1 - x0) for x0, _, x1, _ in places]
        expected = 1 + len(missing)  # where somebody is expected, less is asked for
        thresholds = [self.config.detection_threshold] * expected + [self.config.tile_threshold] * (
            len(views) - expected
        )
        outputs = []
        for start in range(0, len(views), self.config.batch_people):
            batch = torch.stack([view[0] for view in views[start : start + self.config.batch_people]])
            boxes, logits = self._networks.detect(batch)
            outputs += list(zip(boxes.float().cpu().numpy(), logits.float().cpu().numpy(), strict=True))
        found = []
        for (_, scale, dx, dy), (box, logit), limit, threshold in zip(views, outputs, limits, thresholds, strict=True):
            raw = weighted_nms(decode_detections(box, logit, threshold), self.config.nms_iou)
            found += [d for d in (d.mapped(scale, dx, dy) for d in raw) if d.roi[2] <= limit]
        return weighted_nms(found, self.config.nms_iou)

    def _next_tiles(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """One tile of each scale in turn; all of them in the first frame, which may be the only one."""
        tilings = [tiles(width, height, scale) for scale in self.config.tile_scales]
        tilings = [[tile for tile in tiling if tile != (0, 0, width, height)] for tiling in tilings]
        if np.isinf(self._tiled_at):
            return [tile for tiling in tilings for tile in tiling]
        self._tile_turn += 1
        return [tiling[self._tile_turn % len(tiling)] for tiling in tilings if tiling]

    def _unclaimed(self, detections: list[Detection], tracks: Iterable[Track], time: float) -> list[Detection]:
        """Detections whose region is not already some live track's."""
        regions = [t.predicted_roi(time) for t in tracks]

        def near(a: np.ndarray, b: np.ndarray) -> bool:
            side = min(a[2], b[2])
            return bool(np.linalg.norm(a[:2] - b[:2]) < 0.15 * side and max(a[2], b[2]) < 1.5 * side)

        large = [d for d in detections if d.roi[2] >= self.config.min_roi_px]
        return [d for d in large if not any(near(d.roi, region) for region in regions)]

    def _landmarks(
        self, jobs: list[tuple[Frame, np.ndarray]], with_mask: bool, mirrored: Sequence[bool] = ()
    ) -> list[Person]:
        """The landmark network's answer for (frame, region) pairs; ``mirrored``: which it sees in the mirror, none by default."""
        assert self._image_size is not None  # set by update
        people = []
        for start in range(0, len(jobs), self.config.batch_people):
            part = jobs[start : start + self.config.batch_people]
            rois = np.stack([roi for _, roi in part])
            crops = warp_crops([frame.image for frame, _ in part], rois, LANDMARK_SIZE)
            turned = np.array([*mirrored[start : start + len(part)]] or [False] * len(part))
            crops[turned.nonzero()] = crops[turned.nonzero()].flip(-1)
            output = self._networks.landmark(crops, with_mask)
            people += people_from_output(output, rois, self._image_size, turned, self.config.features)
        return self._with_parts([frame.image for frame, _ in jobs], people) if self._everywhere else people

    @property
    def _everywhere(self) -> bool:
        """Whether BodyPix looks at everybody in every frame, and its maps are kept."""
        return self.config.parts and self.config.parts_interval_s == 0

    def _with_parts(self, images: list[Tensor], people: list[Person]) -> list[Person]:
        """The same people with what BodyPix says of those whose score is good, unless it has been asked."""
        segment, size = self._networks.segment, self._image_size
        if segment is None or size is None:
            return people
        threshold = self.config.landmark_threshold
        people, good = list(people), [i for i, p in enumerate(people) if p.score >= threshold and not p.examined]
        for start in range(0, len(good), self.config.batch_people):
            some = good[start : start + self.config.batch_people]
            rois = np.stack([upright_roi(people[i].keypoints2d, people[i].confidence) for i in some])
            crops = warp_crops([images[i] for i in some], rois, PART_SIZE)
            maps = part_maps(segment(2 * crops - 1), rois, size)
            found = [
                dataclasses.replace(people[i], parts=parts, part_confidence=confidence, part_roi=roi)
                for i, parts, confidence, roi in zip(some, *maps, strict=True)
            ]
            for i, person, look in zip(some, found, looks(crops, found), strict=True):
                told = dataclasses.replace(person, look=look, witness=witness_of(person, size))
                if not self._everywhere:  # what was told by the maps is kept, they are not
                    told = dataclasses.replace(told, parts=None, part_confidence=None, part_roi=None)
                people[i] = told
        return people

    def finish(self) -> list[Evidence]:
        """The people of the clip, the one seen in most frames first; numbered from 0 in that order.

        What they were made of is let go: of a long clip it is as large as they are. :meth:`reset` makes ready for another.
        """
        if self._tracker is None or self._image_size is None:
            return []
        if self._passed:
            with torch.inference_mode():
                self._arrive(self._tracker, [self._passed.pop()])
            self._ahead.clear()
        tracks, self._tracker = self._tracker.tracks[::-1], None
        found = []
        while tracks:
            found.append(tracks.pop().all_rows(self._held))
        people, self.refused, self.too_short_s = settled(found, self._times, self._frame_ids, self.config)
        kept = people[::-1]
        del people
        sides = load_sides() if self.config.sides and kept else None
        return [
            evidence_of(number, kept.pop(), self._times, self._frame_ids, self._image_size, set(self._held), sides)
            for number in range(len(kept))
        ]

    @property
    def _held(self) -> tuple[str, ...]:
        """What a sighting keeps beside its landmarks, by its name in :class:`Person`."""
        maps, told = ("parts", "part_confidence", "part_roi"), ("look", "witness", "examined")
        held = {("mask",): self.config.masks, ("features", "code"): self.config.features}
        held |= {told: self.config.parts, maps: self._everywhere}
        return tuple(name for names, wanted in held.items() if wanted for name in names)


def perceive(
    clip: Clip,
    *,
    config: PerceptionConfig | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 8,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Evidence]:
    """Find and follow the people of a clip.

    Args:
        clip: an open clip.
        config: of detection, landmarks and tracking.
        device: as of :func:`kinflow.devices.find_device`.
        batch_size: frames decoded at a time.
        progress: called with (frames done, frames to expect or None) after every batch.

    Returns:
        One Evidence a person, the one seen in most frames first; none where nobody was in view for long enough.

    Raises:
        UsageError: no open clip, a batch size below 1, or a device that is not there.
        VideoError: an image of a folder that differs in size.
        MissingAssetError: the installation lacks a network's weights.

    >>> people = perceive(Clip.open("clip.mp4"))  # doctest: +SKIP
    """
    check_type("clip", clip, Clip, "Open one with kinflow.Clip.open.")
    return watch(clip, config, find_device(device), batch_size, progress).finish()


def watch(
    clip: Clip,
    config: PerceptionConfig | None,
    device: torch.device,
    batch_size: int,
    progress: Callable[[int, int | None], None] | None,
    again: Perceiver | None = None,
) -> Perceiver:
    """A perceiver that has looked at the whole clip; arguments and errors are those of :func:`perceive`.

    ``again``: one of this configuration and device that has looked at another clip, whose networks serve once more.
    """
    if again is not None:
        again.reset()
    perceiver = Perceiver(config, device) if again is None else again
    done = 0
    for batch in clip.batches(batch_size):
        perceiver.update(batch.images, batch.timestamps, batch.frame_ids)
        done += len(batch)
        if progress is not None:
            progress(done, clip.num_frames)
    return perceiver


def _same_region(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two regions show a person so alike that the network's answer is as good from either."""
    turn = abs((a[3] - b[3] + np.pi) % (2 * np.pi) - np.pi)
    side = max(b[2], 1.0)
    return bool(np.hypot(*(a[:2] - b[:2])) < 0.06 * side and abs(a[2] - b[2]) < 0.12 * side and turn < 0.2)
