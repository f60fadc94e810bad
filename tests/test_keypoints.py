"""Readers of other tools' keypoint files, and the linking of people over time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from kinflow.errors import KinflowError, ShapeError, UsageError
from kinflow.perception.keypoints import read_keypoints
from kinflow.skeleton import BLAZEPOSE, BODY25, COCO17, HALPE26, OPENPOSE18, keypoint_map

SIZE = (640, 480)
FRAMES = 12
TIMES = np.arange(FRAMES) / 25.0
IDS = np.arange(FRAMES)


class Frames(NamedTuple):
    """What the readers want to know of a clip."""

    image_size: tuple[int, int]
    timestamps: np.ndarray
    frame_ids: np.ndarray


CLIP = Frames(SIZE, TIMES, IDS)
NOSE, LEFT_WRIST = BLAZEPOSE.index("nose"), BLAZEPOSE.index("left_wrist")


def _person(frame: int, which: int, count: int) -> np.ndarray:
    """(count, 3): two people who walk past each other, each with its own fixed pose."""
    pose = np.random.default_rng(which).uniform(-1, 1, (count, 2)) * (30, 90)
    centre = (150 + 30 * frame, 240) if which == 0 else (520 - 30 * frame, 260)
    return np.column_stack([pose + centre, np.full(count, 0.9)])


def _people(frame: int, count: int) -> list[np.ndarray]:
    people = [_person(frame, 0, count), _person(frame, 1, count)]
    return people if frame % 2 else people[::-1]  # the order says nothing


def _check(people: list[Any], layout: tuple[str, ...], world: bool = False) -> None:
    assert len(people) == 2
    for evidence in people:
        assert evidence.observed.all() and len(evidence) == FRAMES
        assert evidence.has_world.all() == world
        which = 0 if evidence.keypoints2d[0, NOSE, 0] < 320 else 1
        pairs = keypoint_map(layout, "blazepose33")
        assert pairs
        for frame in range(FRAMES):
            expected = _person(frame, which, len(layout))
            for source, target in pairs:
                np.testing.assert_allclose(evidence.keypoints2d[frame, target], expected[source, :2], atol=0.01)
        missing = sorted(set(range(33)) - {target for _, target in pairs})
        assert (evidence.confidence[:, missing] == 0).all()
        assert (evidence.boxes_xyxy[:, 2:] > evidence.boxes_xyxy[:, :2]).all()
        np.testing.assert_array_equal(evidence.image_size, SIZE)


def _write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def _openpose(folder: Path, count: int) -> Path:
    for frame in range(FRAMES):
        people = [{"person_id": [-1], "pose_keypoints_2d": p.ravel().tolist()} for p in _people(frame, count)]
        _write(folder / f"clip_{frame:012d}_keypoints.json", {"version": 1.3, "people": people})
    return folder


@pytest.mark.parametrize("layout", [BODY25, OPENPOSE18])
def test_openpose(tmp_path: Path, layout: tuple[str, ...]) -> None:
    _check(read_keypoints(_openpose(tmp_path, len(layout)), CLIP), layout)


@pytest.mark.parametrize("first", [0, 1, 4711])
def test_coco_results(tmp_path: Path, first: int) -> None:
    results = [
        {"image_id": first + f, "category_id": 1, "keypoints": p.ravel().tolist(), "score": 0.9}
        for f in range(FRAMES)
        for p in _people(f, 17)
    ]
    _check(read_keypoints(_write(tmp_path / "results.json", results), CLIP), COCO17)


@pytest.mark.parametrize("count", [26, 136])
def test_halpe_as_alphapose_writes_it(tmp_path: Path, count: int) -> None:
    results = [
        {"image_id": f"{f:06d}.jpg", "category_id": 1, "keypoints": p.ravel().tolist(), "score": 2.9}
        for f in range(FRAMES)
        for p in _people(f, count)
    ]
    people = read_keypoints(_write(tmp_path / "alphapose-results.json", results), CLIP)
    if count == 26:
        _check(people, HALPE26)
    assert ((people[0].confidence > 0).sum(1) == 21).all()  # COCO's 17, heels and big toes
    heel = people[0].keypoints2d[3, BLAZEPOSE.index("right_heel")]
    assert any(np.allclose(heel, p[25, :2], atol=0.01) for p in _people(3, count))


def test_coco_annotations(tmp_path: Path) -> None:
    images = [{"id": 900 - f, "file_name": f"img/{f:06d}.jpg"} for f in range(FRAMES)]
    annotations = []
    for frame in range(FRAMES):
        for person in _people(frame, 17):
            person[:, 2] = 2
            person[9] = (0, 0, 0)  # left wrist: not labelled
            person[10, 2] = 1  # right wrist: hidden
            annotations.append({"image_id": 900 - frame, "keypoints": person.ravel().tolist()})
    path = _write(tmp_path / "annotations.json", {"images": images, "annotations": annotations})
    people = read_keypoints(path, CLIP)
    assert len(people) == 2
    assert (people[0].confidence[:, LEFT_WRIST] == 0).all() and (people[0].keypoints2d[:, LEFT_WRIST] == 0).all()
    assert (people[0].confidence[:, LEFT_WRIST + 1] == 0.5).all() and (people[0].confidence[:, NOSE] == 1).all()


@pytest.mark.parametrize("count", [17, 133])
def test_mmpose_instances(tmp_path: Path, count: int) -> None:
    entries = []
    for frame in range(FRAMES):
        instances = [
            {"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()} for p in _people(frame, count)
        ]
        entries.append({"frame_id": frame + 1, "instances": instances})
    people = read_keypoints(_write(tmp_path / "out.json", {"meta_info": {}, "instance_info": entries}), CLIP)
    assert len(people) == 2 and all(e.observed.all() and len(e) == FRAMES for e in people)
    assert ((people[0].confidence > 0).sum(1) == (17 if count == 17 else 21)).all()


def test_mediapipe(tmp_path: Path) -> None:
    entries = []
    for frame in range(FRAMES):
        people = [p / (*SIZE, 1) for p in _people(frame, 33)]
        landmarks = [[{"x": x, "y": y, "z": 0.0, "visibility": v} for x, y, v in p.tolist()] for p in people]
        worlds = [[{"x": 0.1, "y": 0.2, "z": 0.3} for _ in range(33)] for _ in people]
        entries.append({"pose_landmarks": landmarks, "pose_world_landmarks": worlds})
    people = read_keypoints(_write(tmp_path / "mp.json", entries), CLIP)
    _check(people, BLAZEPOSE, world=True)
    np.testing.assert_allclose(people[0].world_landmarks[0, 5], [0.1, 0.2, 0.3], atol=1e-6)


def test_mediapipe_one_person_and_empty_frames(tmp_path: Path) -> None:
    entries: list[Any] = []
    for frame in range(FRAMES):
        points = (_person(frame, 0, 33) / (*SIZE, 1)).tolist()
        entries.append(
            None if frame in (4, 5) else {"frame": frame, "pose_landmarks": [[x, y, 0.0, v] for x, y, v in points]}
        )
    (person,) = read_keypoints(_write(tmp_path / "mp.json", {"frames": entries}), CLIP)
    assert person.observed.tolist() == [f not in (4, 5) for f in range(FRAMES)]
    assert not person.has_world.any() and (person.confidence[4] == 0).all()


def test_identities_of_the_source_win(tmp_path: Path) -> None:
    """Two people who exchange places between frames: only the source can know."""
    results = []
    for frame in range(FRAMES):
        for which in (0, 1):
            place = _person(0, which if frame < 6 else 1 - which, 17)
            results.append({"image_id": frame, "keypoints": place.ravel().tolist(), "track_id": which})
    people = read_keypoints(_write(tmp_path / "tracked.json", results), CLIP)
    assert all(np.linalg.norm(np.diff(e.keypoints2d[:, NOSE], axis=0), axis=-1).max() > 100 for e in people)
    assert [len(e) for e in people] == [FRAMES, FRAMES]


def test_short_sightings_are_dropped_and_gaps_bridged(tmp_path: Path) -> None:
    results = [
        {"image_id": f, "keypoints": _person(f, 0, 17).ravel().tolist()} for f in range(FRAMES) if f not in (3, 4)
    ]
    results.append({"image_id": 7, "keypoints": (_person(0, 1, 17) + (0, 0, 0)).ravel().tolist()})
    (person,) = read_keypoints(_write(tmp_path / "r.json", results), CLIP)
    assert person.observed.sum() == FRAMES - 2 and len(person) == FRAMES


def test_part_of_a_clip(tmp_path: Path) -> None:
    people = read_keypoints(_openpose(tmp_path, 25), Frames(SIZE, TIMES[6:], IDS[6:]))
    assert len(people) == 2 and people[0].frame_ids.tolist() == list(range(6, FRAMES))


GOOD = [0.0, 1.0, 0.5] * 17


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("{", UsageError, "not JSON"),
        ("[]", UsageError, "no people"),
        ('{"hello": 1}', UsageError, "none of the known formats"),
        ('[{"image_id": 0}]', UsageError, "'keypoints'"),
        (json.dumps([{"image_id": 0, "keypoints": [1, 2]}]), ShapeError, "x, y, score"),
        (json.dumps([{"image_id": 0, "keypoints": [1, 2, 3]}]), ShapeError, "expected 17"),
        (json.dumps([{"image_id": 0, "keypoints": ["a"] * 51}]), ShapeError, "numbers"),
        (json.dumps([{"image_id": 0, "keypoints": [float("nan")] * 51}]), ShapeError, "finite"),
        (json.dumps([{"image_id": "cat.jpg", "keypoints": GOOD}]), UsageError, "names no frame"),
        (json.dumps([{"image_id": 99999, "keypoints": GOOD}]), UsageError, "do not match"),
        (
            json.dumps({"images": [], "annotations": [{"image_id": 1, "keypoints": GOOD}]}),
            UsageError,
            "not among the images",
        ),
        (json.dumps([{"pose_landmarks": [[{"x": 0.1, "y": 0.2}]]}]), ShapeError, "33"),
        (json.dumps({"people": []}), UsageError, "folder"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, error: type[KinflowError], says: str) -> None:
    path = tmp_path / "keypoints.json"
    path.write_text(content)
    with pytest.raises(error, match=says) as caught:
        read_keypoints(path, CLIP)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_keypoints(tmp_path / "none.json", CLIP)
    with pytest.raises(UsageError, match="write_json"):
        read_keypoints(tmp_path, CLIP)


def test_openpose_of_another_clip_or_scale(tmp_path: Path) -> None:
    folder = _openpose(tmp_path, 25)
    with pytest.raises(UsageError, match="none of the clip's"):
        read_keypoints(folder, Frames(SIZE, TIMES, IDS + 1000))
    for file in folder.iterdir():
        values = (np.array(_people(0, 25)[0]) / (*SIZE, 1)).clip(0, 1).ravel().tolist()
        _write(file, {"people": [{"pose_keypoints_2d": values}]})
    with pytest.raises(UsageError, match="keypoint_scale"):
        read_keypoints(folder, CLIP)
