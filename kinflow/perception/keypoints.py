"""Other tools' keypoint files as Evidence: OpenPose, COCO (ViTPose, RTMPose, MMPose), AlphaPose, MediaPipe.

==============================  ==========================================================================================
source                          what is read
==============================  ==========================================================================================
OpenPose ``--write_json DIR``   ``DIR/NAME_000000000012_keypoints.json``, the number is the frame's; BODY_25 or COCO (18)
COCO results, AlphaPose         list of ``{"image_id", "keypoints": 17 x (x, y, score)}``; or 26 (Halpe), or 136, of which the
                                first 26 are read
COCO annotations                ``{"images": [...], "annotations": [...]}``, 17 x (x, y, visibility 0, 1 or 2)
MMPose, RTMPose, ViTPose        ``{"instance_info": [{"frame_id", "instances": [{"keypoints", "keypoint_scores"}]}]}``, or
                                that list alone; 17 keypoints, 26 (Halpe), or 133 (whole body, of which body and
                                feet are read)
MediaPipe                       list (or ``{"frames": list}``) of one entry a frame: null, or ``{"pose_landmarks": people}``
                                of 33 ``{"x", "y", "visibility", "presence"}`` in units of the image, and optionally
                                ``"pose_world_landmarks"``; an entry's ``"frame"`` overrides its position
==============================  ==========================================================================================

Identities are the source's where it gives some (OpenPose ``person_id``, else ``track_id``), else people are linked over time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kinflow.errors import KinflowError, ShapeError, UsageError, check_path
from kinflow.evidence import Evidence
from kinflow.perception.linking import Sighting, link_people
from kinflow.skeleton import BLAZEPOSE, COCO17, keypoint_map

__all__ = ["read_keypoints"]

_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
_LAYOUTS: dict[int, str | tuple[str, ...]] = {
    17: "coco17",
    18: "openpose18",
    25: "body25",
    26: "halpe26",
    33: "blazepose33",
    133: COCO17 + _FEET,
    136: "halpe26",
}
_BODIES = (17, 26, 133, 136)  #: numbers of keypoints a person in COCO's and MMPose's files
_OPENPOSE_FILE = re.compile(r"(\d+)_keypoints\.json$")
_Sightings = dict[int, list[Sighting]]


class Frames(Protocol):
    """What keypoints are read beside: a :class:`kinflow.clip.Clip`, or anything that knows as much of its frames."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in px."""

    @property
    def timestamps(self) -> np.ndarray:
        """(T,) s."""

    @property
    def frame_ids(self) -> np.ndarray:
        """(T,) index of each frame."""


def read_keypoints(path: str | Path, clip: Frames) -> list[Evidence]:
    """2D keypoints from a file or folder of another tool, one Evidence per person.

    Args:
        path: an OpenPose folder, or a JSON file of one of the module's formats.
        clip: the frames that the keypoints belong to.
    Returns:
        People with BlazePose's 33 landmarks; those the source lacks have confidence 0. The one seen in most frames first.
    Raises:
        UsageError: no such file, not JSON, no format known here, or frames that the clip does not have.
        ShapeError: a person with another number of keypoints than the format has, or values that are no numbers.
    """
    path = check_path("keypoints", path)
    if not hasattr(clip, "image_size"):
        raise UsageError(
            f"clip: expected the frames' Clip, got {type(clip).__name__}. Open one with kinflow.Clip.open."
        )
    size, ids = clip.image_size, clip.frame_ids
    try:
        frames = _openpose(path) if path.is_dir() else _json_file(path, _load(path), size, ids)
    except KinflowError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # JSON of an unforeseen structure
        raise UsageError(f"{path}: malformed keypoint file ({type(error).__name__}: {error}).") from error
    unknown = sorted(set(frames) - set(ids.tolist()))
    if unknown and len(unknown) == len(frames):
        raise UsageError(
            f"{path}: its frames {unknown[0]}..{unknown[-1]} are none of the clip's {ids.min()}..{ids.max()}. "
            "Use the keypoints of this clip, frames counted from 0."
        )
    return link_people([frames.get(i, []) for i in ids.tolist()], clip.timestamps, ids, size)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file or folder. Pass an OpenPose folder or a keypoint JSON file.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not JSON ({error}).") from error


def _openpose(folder: Path) -> _Sightings:
    numbered = [(int(m.group(1)), p) for p in sorted(folder.iterdir()) if (m := _OPENPOSE_FILE.search(p.name))]
    if not numbered:
        raise UsageError(
            f"{folder}: holds no NAME_000000000000_keypoints.json. Write them with OpenPose's --write_json."
        )
    frames: _Sightings = {}
    for number, file in numbered:
        if number in frames:
            raise UsageError(f"{folder}: two files of frame {number}. Keep the files of one clip in the folder.")
        content = _load(file)
        if not isinstance(content, dict) or not isinstance(content.get("people"), list):
            raise UsageError(f"{file}: expected OpenPose's {{'people': [...]}}.")
        frames[number] = []
        for person in content["people"]:
            values = _get(file, person, "pose_keypoints_2d")
            if values is None or len(values) == 0:
                continue
            label = person.get("person_id", [-1])
            label = label[0] if isinstance(label, list) and label else label
            known = isinstance(label, int) and label >= 0
            frames[number].append(_sighting(file, _triples(file, values), (18, 25), str(label) if known else None))
    largest = max((s.keypoints2d.max() for people in frames.values() for s in people), default=np.inf)
    if largest <= 1.0:
        raise UsageError(f"{folder}: coordinates in units of the image. Run OpenPose with --keypoint_scale 0 (px).")
    return frames


def _json_file(path: Path, content: Any, size: tuple[int, int], ids: np.ndarray) -> _Sightings:
    if isinstance(content, dict):
        if "annotations" in content:
            return _coco_annotations(path, content, ids)
        if "instance_info" in content:
            return _instances(path, content["instance_info"], ids)
        if "people" in content:
            raise UsageError(f"{path}: one frame of OpenPose. Pass the folder that holds all frames.")
        if "frames" in content:
            return _mediapipe(path, content["frames"], size)
    if isinstance(content, list):
        entries = [entry for entry in content if entry]
        if not entries:
            raise UsageError(f"{path}: holds no people.")
        if isinstance(entries[0], dict) and "instances" in entries[0]:
            return _instances(path, content, ids)
        if isinstance(entries[0], dict) and "image_id" in entries[0]:
            return _coco_results(path, content, ids)
        if isinstance(entries[0], dict) and ("pose_landmarks" in entries[0] or "poseLandmarks" in entries[0]):
            return _mediapipe(path, content, size)
    raise UsageError(f"{path}: none of the known formats (OpenPose folder, COCO, MMPose, MediaPipe landmarks).")


def _coco_results(path: Path, results: list[Any], ids: np.ndarray) -> _Sightings:
    frame_of = _frame_numbers(path, [_number(path, _get(path, r, "image_id", needed=True)) for r in results], ids)
    frames: _Sightings = {}
    for result in results:
        points = _triples(path, _get(path, result, "keypoints", needed=True))
        frame = frame_of[_number(path, result["image_id"])]
        frames.setdefault(frame, []).append(_sighting(path, points, _BODIES, _label(result)))
    return frames


def _coco_annotations(path: Path, content: dict[str, Any], ids: np.ndarray) -> _Sightings:
    images = content.get("images")
    if not isinstance(images, list) or not isinstance(content["annotations"], list):
        raise UsageError(f"{path}: expected COCO's 'images' and 'annotations' lists.")
    keys: dict[Any, int] = {}
    for image in images:
        key = next((image[k] for k in ("frame_id", "file_name") if k in image), _get(path, image, "id", needed=True))
        keys[image["id"]] = _number(path, key)
    frame_of = _frame_numbers(path, list(keys.values()), ids)
    frames: _Sightings = {}
    for annotation in content["annotations"]:
        values = _get(path, annotation, "keypoints")
        if not values:
            continue
        image = _get(path, annotation, "image_id", needed=True)
        if image not in keys:
            raise UsageError(f"{path}: an annotation's image_id {image!r} is not among the images.")
        points = _triples(path, values)
        flags = points[:, 2]
        if np.isin(flags, (0, 1, 2)).all():  # visibility: absent, hidden, visible
            points[:, 2] = flags / 2
        frames.setdefault(frame_of[keys[image]], []).append(_sighting(path, points, _BODIES, _label(annotation)))
    return frames


def _instances(path: Path, entries: Any, ids: np.ndarray) -> _Sightings:
    if not isinstance(entries, list):
        raise UsageError(f"{path}: expected a list of frames with 'instances'.")
    numbers = [_number(path, _get(path, entry, "frame_id", needed=True)) for entry in entries]
    frame_of = _frame_numbers(path, numbers, ids)
    frames: _Sightings = {}
    for number, entry in zip(numbers, entries, strict=True):
        people = frames.setdefault(frame_of[number], [])
        for instance in _get(path, entry, "instances", needed=True):
            points = _array(path, _get(path, instance, "keypoints", needed=True)).reshape(-1, 2)
            scores = _array(path, _get(path, instance, "keypoint_scores", needed=True)).reshape(-1)
            if len(scores) != len(points):
                raise ShapeError(f"{path}: {len(points)} keypoints with {len(scores)} scores.")
            people.append(_sighting(path, np.column_stack([points, scores]), _BODIES, _label(instance)))
    return frames


def _mediapipe(path: Path, entries: Any, size: tuple[int, int]) -> _Sightings:
    if not isinstance(entries, list):
        raise UsageError(f"{path}: expected a list with one entry a frame.")
    frames: _Sightings = {}
    for position, entry in enumerate(entries):
        if not entry:
            continue
        number = next((entry[k] for k in ("frame", "frame_id") if k in entry), position)
        people = _people(path, entry.get("pose_landmarks", entry.get("poseLandmarks")))
        worlds = _people(path, entry.get("pose_world_landmarks", entry.get("poseWorldLandmarks")))
        if worlds and len(worlds) != len(people):
            raise ShapeError(f"{path}: frame {number} has {len(people)} people but {len(worlds)} with world landmarks.")
        found = frames.setdefault(_number(path, number), [])
        for k, person in enumerate(people):
            points = person[:, [0, 1, 3]]
            points[:, :2] *= size
            world = worlds[k][:, :3] if worlds else None
            found.append(_sighting(path, points, (33,), None, world))
    return frames


def _people(path: Path, value: Any) -> list[np.ndarray]:
    """One person's 33 landmarks or a list of people, as arrays (33, 4): x, y, z, visibility times presence."""
    if not value:
        return []
    if isinstance(value, dict):  # the legacy solution's message
        value = value.get("landmark", value.get("landmarks"))
    if not isinstance(value, list) or not value:
        raise ShapeError(f"{path}: expected landmarks as a list.")
    first = value[0]
    point = isinstance(first, list) and bool(first) and isinstance(first[0], (int, float))
    alone = point or (isinstance(first, dict) and "x" in first)
    people = []
    for person in [value] if alone else value:
        if isinstance(person, dict):
            person = person.get("landmark") or person.get("landmarks") or []
        rows = [_landmark(path, point) for point in person]
        if len(rows) != len(BLAZEPOSE):
            raise ShapeError(f"{path}: expected {len(BLAZEPOSE)} landmarks a person, got {len(rows)}.")
        people.append(_array(path, rows))
    return people


def _landmark(path: Path, point: Any) -> list[float]:
    if isinstance(point, Mapping):
        x, y = _get(path, point, "x", needed=True), _get(path, point, "y", needed=True)
        return [x, y, point.get("z", 0.0), point.get("visibility", 1.0) * point.get("presence", 1.0)]
    return [*point[:3], *(point[3:4] or [1.0])] if isinstance(point, list) and len(point) >= 3 else [np.nan] * 4


def _sighting(
    path: Path, points: np.ndarray, sizes: tuple[int, ...], label: str | None, world: np.ndarray | None = None
) -> Sighting:
    """Points (K, 3): x px, y px, score; K one of `sizes`."""
    if len(points) not in sizes:
        wanted = " or ".join(map(str, sizes))
        raise ShapeError(f"{path}: expected {wanted} keypoints a person, got {len(points)}. Export a body model.")
    keypoints, confidence = np.zeros((33, 2)), np.zeros(33)
    for source, target in keypoint_map(_LAYOUTS[len(points)], "blazepose33"):
        keypoints[target], confidence[target] = points[source, :2], np.clip(points[source, 2], 0.0, 1.0)
    return Sighting(keypoints, confidence, label, world)


def _triples(path: Path, values: Any) -> np.ndarray:
    array = _array(path, values).reshape(-1)
    if array.size % 3:
        raise ShapeError(f"{path}: expected keypoints as x, y, score, got {array.size} numbers.")
    return array.reshape(-1, 3).copy()


def _array(path: Path, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{path}: expected keypoints as lists of numbers.") from error
    if not np.isfinite(array).all():
        raise ShapeError(f"{path}: keypoints with values that are not finite numbers.")
    return array


def _get(path: Path, entry: Any, key: str, needed: bool = False) -> Any:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{path}: expected an object with '{key}', got {type(entry).__name__}.")
    if needed and key not in entry:
        raise UsageError(f"{path}: an entry lacks '{key}'.")
    return entry.get(key)


def _label(entry: Mapping[str, Any]) -> str | None:
    label = entry.get("track_id")
    return None if label is None or label == -1 else str(label)


def _number(path: Path, key: Any) -> int:
    """A frame's number from an integer or from the last digits of a file name."""
    if isinstance(key, int) and not isinstance(key, bool):
        return key
    digits = re.findall(r"\d+", Path(key).stem) if isinstance(key, str) else []
    if not digits:
        raise UsageError(f"{path}: {key!r} names no frame. Number the frames.")
    return int(digits[-1])


def _frame_numbers(path: Path, numbers: Sequence[int], ids: np.ndarray) -> dict[int, int]:
    """The source's numbers to the clip's: as they are, counted from 1, or, where each frame has one, by their order."""
    distinct, known = sorted(set(numbers)), set(ids.tolist())
    ways: list[Callable[[int, int], int]] = [lambda _, n: n, lambda _, n: n - 1]
    if 0 not in distinct and distinct and distinct[-1] - 1 in known and distinct[-1] not in known:
        ways.reverse()
    for way in ways:
        mapped = {n: way(k, n) for k, n in enumerate(distinct)}
        if known.issuperset(mapped.values()):
            return mapped
    if len(distinct) == len(ids):
        return dict(zip(distinct, ids.tolist(), strict=True))
    part = {n: n for n in distinct}
    if known.intersection(distinct):
        return part  # keypoints of a longer clip of which some frames are used
    raise UsageError(
        f"{path}: frames {distinct[0]}..{distinct[-1]} do not match the clip's {ids.min()}..{ids.max()}. "
        "Use the keypoints of this clip."
    )
