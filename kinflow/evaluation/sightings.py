"""What a system is given to see of a sequence, and which of the people seen is which of the recordings'."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..cameras import project
from ..clip import Clip
from ..config import PerceptionConfig, config_hash
from ..datasets.recording import Recording
from ..errors import FormatError, MissingAssetError, UsageError
from ..evidence import Evidence
from ..perception import Perceiver, read_keypoints
from ..perception.linking import Sighting, link_people
from ..skeleton import BLAZEPOSE, keypoint_map
from .predictions import to_camera
from .protocols import LIMBS

NEAR = 0.3
"""Mean distance of limb points, in sizes of the person, up to which somebody seen can be the person of a recording."""
CONFIDENT = 0.3


@dataclasses.dataclass(frozen=True)
class Seen:
    """One sequence as a system sees it.

    Attributes:
        people: its recordings.
        K: (3, 3) px, the data set's own.
        evidences: everyone who was seen.
        owners: for each evidence the number of its recording among ``people``, or None for bystanders.
        distances: for each evidence its mean distance from its owner, in sizes of the person.
        notes: what should be told, such as images that could not be read.
    """

    people: list[Recording]
    K: NDArray[np.float64]
    evidences: list[Evidence]
    owners: list[int | None]
    distances: list[float]
    notes: tuple[str, ...] = ()


class Eyes(Protocol):
    """A source of evidence.

    Attributes:
        name: as it is printed. needs_images: whether it looks at the frames. settings: what else its evidence depends on.
    """

    name: str
    needs_images: bool
    settings: dict[str, Any]

    def see(self, people: list[Recording]) -> Seen:
        """Evidence of one sequence's people.

        Raises:
            KinflowError: of this sequence; others may be fine.
        """


class VideoEyes:
    """kinflow's own perception on the frames.

    Args:
        config: of perception. device: of its networks. batch_size: frames decoded at a time.
        progress: called with (frames done, frames).
    """

    name = "video"
    needs_images = True

    def __init__(
        self,
        config: PerceptionConfig,
        device: torch.device,
        batch_size: int,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        config = dataclasses.replace(config, masks=False)
        self._perceiver = Perceiver(config, device)
        self.settings: dict[str, Any] = {"landmarks": config.landmarks, "perception": config_hash(config)}
        self._batch, self._progress = batch_size, progress

    def see(self, people: list[Recording]) -> Seen:
        K = _camera(people)
        clip = Clip.open(_image_folder(people[0]), camera=K.astype(np.float32))
        self._perceiver.reset()
        done = 0
        for batch in clip.batches(self._batch):
            self._perceiver.update(batch.images, batch.timestamps, batch.frame_ids)
            done += len(batch)
            if self._progress is not None:
                self._progress(done, len(people[0]))
        owners, distances = match(evidences := self._perceiver.finish(), people)
        return Seen(people, K, evidences, owners, distances, (clip.damage,) if clip.damage else ())


class Poses2dEyes:
    """The data set's own 2D keypoints, each person's known as theirs; no image is looked at."""

    name = "poses2d"
    needs_images = False

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def see(self, people: list[Recording]) -> Seen:
        evidences: list[Evidence] = []
        owners: list[int | None] = []
        for number, person in enumerate(people):
            found = _own_keypoints(person)
            evidences += found
            owners += [number] * len(found)
        return Seen(people, _camera(people), evidences, owners, [0.0] * len(evidences))


class FileEyes:
    """Another tool's 2D keypoints: ``FOLDER/SEQUENCE.json`` or ``FOLDER/SEQUENCE/``, as ``kinflow-video --keypoints`` reads them.

    Raises:
        MissingAssetError: no such folder.
    """

    needs_images = False

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise MissingAssetError(
                f"evidence: no folder {folder}. Give video, poses2d, or a folder with one keypoint file a sequence."
            )
        self.folder, self.name = folder, f"keypoints of {folder.name}"
        self.settings: dict[str, Any] = {}

    def see(self, people: list[Recording]) -> Seen:
        base = self.folder / people[0].sequence
        path = base if base.is_dir() else base.with_name(f"{base.name}.json")
        if not path.exists():
            raise MissingAssetError(f"{base}: neither a folder nor a .json of this sequence's keypoints is there.")
        evidences = read_keypoints(path, _Frames(people[0]))
        return Seen(people, _camera(people), evidences, *match(evidences, people))


@dataclasses.dataclass(frozen=True)
class _Frames:
    """What keypoints are read beside, without opening the frames."""

    recording: Recording

    @property
    def image_size(self) -> tuple[int, int]:
        return _image_size(self.recording)

    @property
    def timestamps(self) -> np.ndarray:
        return self.recording.timestamps

    @property
    def frame_ids(self) -> np.ndarray:
        return self.recording.frame_ids


def _camera(people: Sequence[Recording]) -> NDArray[np.float64]:
    K = people[0].K
    if K is None:
        raise FormatError(f"{people[0].name}: expected a camera matrix, got none.")
    return np.asarray(K, np.float64)


def _image_folder(recording: Recording) -> Path:
    if not recording.images:
        raise MissingAssetError(f"{recording.sequence}: no images. Read the data set with images.")
    return recording.images[0].parent


def _image_size(recording: Recording) -> tuple[int, int]:
    """The recording's own, or twice the principal point."""
    if recording.image_size is not None:
        return recording.image_size
    width, height = 2 * _camera([recording])[:2, 2]
    return round(float(width)), round(float(height))


def _own_keypoints(recording: Recording) -> list[Evidence]:
    """The recording's keypoints as evidence; several pieces where they pause for long, none where there are none."""
    if recording.keypoints2d is None or recording.confidence is None:
        raise UsageError(f"{recording.name}: expected 2D keypoints, got none. Use --evidence video.")
    pairs = np.array(keypoint_map(recording.layout, "blazepose33"))
    frames = len(recording)
    points, confidence = np.zeros((frames, 33, 2)), np.zeros((frames, 33))
    points[:, pairs[:, 1]] = recording.keypoints2d[:, pairs[:, 0]]
    confidence[:, pairs[:, 1]] = recording.confidence[:, pairs[:, 0]]
    sightings = [
        [Sighting(p, c, label=recording.name)] if (c > 0).any() else [] for p, c in zip(points, confidence, strict=True)
    ]
    return link_people(sightings, recording.timestamps, recording.frame_ids, _image_size(recording))


def limb_pixels(recording: Recording) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where a recording's limb joints (in the order of LIMBS) are in the image: (T, 12, 2) px, and whether known (T, 12).

    From the joints where there are some and the camera is valid, else from the keypoints.
    """
    frames = len(recording)
    points, known = np.zeros((frames, len(LIMBS), 2)), np.zeros((frames, len(LIMBS)), bool)
    if recording.keypoints2d is not None and recording.confidence is not None:
        for i, name in enumerate(LIMBS):
            if name in recording.layout:
                at = recording.layout.index(name)
                points[:, i], known[:, i] = recording.keypoints2d[:, at], recording.confidence[:, at] > CONFIDENT
    if recording.joints3d is not None and all(name in recording.joint_names for name in LIMBS):
        index = [recording.joint_names.index(name) for name in LIMBS]
        in_camera = to_camera(torch.from_numpy(recording.joints3d[:, index]), recording)
        sound = torch.isfinite(in_camera).all(-1) & (in_camera[..., 2] > 0.1)
        in_front = sound.numpy() & recording.valid[:, None]
        pixels = project(in_camera, torch.from_numpy(_camera([recording]))).numpy()
        points, known = np.where(in_front[..., None], pixels, points), in_front | known
    return points, known


def match(evidences: Sequence[Evidence], people: Sequence[Recording]) -> tuple[list[int | None], list[float]]:
    """Whose each evidence is: the person whose limbs it lies on, or None; and its mean distance in sizes of the person.

    The truth serves to tell people apart, as in every protocol of this data, and for nothing else. A person may have several.
    """
    marks = [BLAZEPOSE.index(name) for name in LIMBS]
    places = [limb_pixels(person) for person in people]
    owners: list[int | None] = []
    distances: list[float] = []
    for evidence in evidences:
        best, owner = NEAR, None
        for number, (person, (points, known)) in enumerate(zip(people, places, strict=True)):
            rows = np.searchsorted(person.frame_ids, evidence.frame_ids)
            common = evidence.observed & np.isin(evidence.frame_ids, person.frame_ids)
            rows = rows[common]
            both = known[rows] & (evidence.confidence[common][:, marks] > CONFIDENT)
            enough = both.sum(1) >= 4
            if not enough.any():
                continue
            away = np.linalg.norm(evidence.keypoints2d[common][:, marks] - points[rows], axis=-1)
            size = _sizes(points[rows], known[rows])
            per_frame = (away * both).sum(1)[enough] / both.sum(1)[enough] / size[enough]
            if (distance := float(per_frame.mean())) < best:
                best, owner = distance, number
        owners.append(owner)
        distances.append(best)
    return owners, distances


def _sizes(points: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Diagonal (T,) of the box around the known points (T, P, 2), px."""
    low = np.where(known[..., None], points, np.inf).min(1)
    high = np.where(known[..., None], points, -np.inf).max(1)
    return np.maximum(np.where(known.any(1), np.linalg.norm(high - low, axis=-1), 1.0), 1.0)
