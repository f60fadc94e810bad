"""From frames to Evidence: geometry of the regions, detection, tracking. The people are drawn by tests/golden/make_blazepose.py."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from kinflow.clip import Clip
from kinflow.config import PerceptionConfig
from kinflow.errors import ShapeError
from kinflow.evidence import Evidence
from kinflow.perception import Perceiver, perceive
from kinflow.perception import perceiver as perceiving
from kinflow.perception.blazepose import LANDMARK_SIZE, LandmarkOutput
from kinflow.perception.crops import box_iou, crop_to_frame, letterbox, roi_from_alignment, warp_crops
from kinflow.perception.detection import Detection, anchors, decode_detections, weighted_nms
from kinflow.perception.landmarks import Person, mask_overlap, people_from_output, refine_landmarks
from kinflow.perception.tracking import (
    Row,
    Rows,
    Tracker,
    join_successors,
    rows_of,
    same_body,
    steady_rows,
    surely_somebody,
)
from kinflow.skeleton import MIRROR_BLAZEPOSE
from kinflow.video import VideoWriter


@pytest.fixture(scope="module")
def figure() -> np.ndarray:
    """(240, 240, 3) uint8 picture of a person."""
    path = Path(__file__).parent / "golden" / "make_blazepose.py"
    spec = importlib.util.spec_from_file_location("make_blazepose", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return (module.synthetic_person(240) * 255).astype(np.uint8)


# --- geometry ------------------------------------------------------------------------------------------------------------


def test_roi_of_an_upright_and_a_lying_person() -> None:
    upright = roi_from_alignment(np.array([100.0, 200.0]), np.array([100.0, 120.0]))
    np.testing.assert_allclose(upright, [100, 200, 200, 0], atol=1e-12)
    head_right = roi_from_alignment(np.array([100.0, 200.0]), np.array([180.0, 200.0]))
    np.testing.assert_allclose(head_right, [100, 200, 200, math.pi / 2], atol=1e-12)


@pytest.mark.parametrize("roi", [(60.0, 50.0, 40.0, 0.3), (20.0, 70.0, 64.0, -2.0), (50.0, 40.0, 90.0, 1.4)])
def test_warp_and_its_way_back(roi: tuple[float, float, float, float]) -> None:
    """In a linear image, each crop pixel holds the colour of the place that crop_to_frame gives for its centre."""
    y, x = np.mgrid[:100, :120] + 0.5
    image = torch.from_numpy(np.stack([x, y, x + y], -1).round().astype(np.uint8))
    size = 16
    crop = warp_crops([image], np.array([roi]), size)[0].permute(1, 2, 0).reshape(-1, 3).numpy() * 255
    ticks = (np.arange(size) + 0.5) / size
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(1, -1, 2)
    place = crop_to_frame(grid, np.array([roi]))[0]
    inside = ((place > 1) & (place < [119, 99])).all(-1)
    assert inside.sum() > 100
    np.testing.assert_allclose(crop[inside, :2], place[inside], atol=0.75)


def test_warp_repeats_the_border() -> None:
    image = torch.full((20, 30, 3), 200, dtype=torch.uint8)
    crops = warp_crops([image, image], np.array([[0, 0, 200, 0.5], [400, 400, 50, 0.0]]), 8)
    torch.testing.assert_close(crops, torch.full((2, 3, 8, 8), 200 / 255))


def test_letterbox_maps_back() -> None:
    image = torch.zeros(120, 300, 3, dtype=torch.uint8)
    image[50:70, 200:220] = 255
    out, scale, dx, dy = letterbox(image, (100, 20, 300, 120), 100)
    assert out.shape == (3, 100, 100) and out.min() == -1.0
    rows, columns = torch.nonzero(out[0] > 0, as_tuple=True)
    np.testing.assert_allclose(
        [(columns.float().mean() + 0.5) * scale + dx, (rows.float().mean() + 0.5) * scale + dy], [210, 60]
    )


def test_iou() -> None:
    a = np.array([[0.0, 0, 2, 2]])
    np.testing.assert_allclose(box_iou(a, np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])), [[1 / 7, 1, 0]])


# --- detection and landmarks ---------------------------------------------------------------------------------------------


def test_anchors() -> None:
    grid = anchors()
    assert grid.shape == (2254, 2)
    np.testing.assert_allclose(grid[[0, 1, 2, 1568, 1960, -1]], [[4, 4], [4, 4], [12, 4], [8, 8], [16, 16], [208, 208]])


def test_decoding() -> None:
    boxes, logits = np.zeros((2254, 12)), np.full(2254, -9.0)
    boxes[2] = [1, 2, 20, 40, 0, 0, 0, -30, 0, 0, 0, 0]
    logits[2] = 2.0
    (found,) = decode_detections(boxes, logits, 0.5)
    np.testing.assert_allclose(found.box_xyxy, [3, -14, 23, 26])
    np.testing.assert_allclose(found.roi, [12, 4, 75, 0], atol=1e-12)
    assert abs(found.score - 1 / (1 + math.exp(-2))) < 1e-12


def test_weighted_nms() -> None:
    def at(x: float, score: float) -> Detection:
        return Detection(score, np.array([x, 0, x + 10, 10]), np.full((4, 2), x))

    merged = weighted_nms([at(1.0, 0.5), at(50.0, 0.6), at(0.0, 1.0)], 0.3)
    assert [d.score for d in merged] == [1.0, 0.6]
    np.testing.assert_allclose(merged[0].box_xyxy, [1 / 3, 0, 10 + 1 / 3, 10])
    np.testing.assert_allclose(merged[0].keypoints, np.full((4, 2), 1 / 3))


def test_heatmap_refinement() -> None:
    heatmaps = torch.full((1, 3, 64, 64), -40.0)
    heatmaps[0, 0, 30, 20] = 10.0
    heatmaps[0, 0, 30, 22] = 10.0  # the first point: two equal peaks around column 21
    heatmaps[0, 1, 30, 20] = -1.0  # the second: not sure enough
    heatmaps[0, 2, 0, 0] = 10.0  # the third lies outside
    points = torch.tensor([[[21.5, 30.5], [21.5, 30.5], [-2.0, 1.0]]]) / 64
    refined = refine_landmarks(points, heatmaps) * 64
    torch.testing.assert_close(refined, torch.tensor([[[21.0, 30.0], [21.5, 30.5], [-2.0, 1.0]]]))


def test_who_is_seen_in_the_mirror_stands_where_they_stand() -> None:
    """Of a crop of the mirrored frame the same output gives the mirrored person; of the frame's own crop, mirrored, the person."""
    rng, width = np.random.default_rng(0), 400
    landmarks = torch.from_numpy(rng.uniform(20, LANDMARK_SIZE - 20, (2, 39, 5))).float()
    output = LandmarkOutput(
        landmarks,
        torch.tensor([0.9, 0.8]),
        torch.from_numpy(rng.normal(size=(2, LANDMARK_SIZE, LANDMARK_SIZE))).float(),
        torch.from_numpy(5 * rng.normal(size=(2, 39, 64, 64))).float(),
        torch.from_numpy(rng.normal(size=(2, 39, 3))).float(),
        torch.zeros(2, 1152),
        torch.from_numpy(rng.normal(size=(2, 48, 64, 64))).float(),
    )
    rois = np.array([[150.0, 120.0, 180.0, 0.4], [210.0, 130.0, 120.0, -0.3]])
    mirror_image = rois * [1, 1, 1, -1] + [[width - 300, 0, 0, 0], [width - 420, 0, 0, 0]]  # the frame's mirror image
    there = people_from_output(output, mirror_image, (width, 300), np.zeros(2, bool), features=True)
    here = people_from_output(output, rois, (width, 300), np.array([True, False]), features=True)
    plain = people_from_output(output, rois, (width, 300), np.zeros(2, bool), features=True)
    swap = list(MIRROR_BLAZEPOSE)
    seen, other = here[0], there[0]
    np.testing.assert_allclose(seen.keypoints2d, ([width, 0] + other.keypoints2d * [-1, 1])[swap], atol=1e-9)
    np.testing.assert_allclose(seen.world, (other.world * [-1, 1, 1])[swap], atol=1e-9)
    np.testing.assert_allclose(seen.confidence, other.confidence[swap])
    np.testing.assert_allclose(
        seen.next_roi, [width - other.next_roi[0], *other.next_roi[1:3], -other.next_roi[3]], atol=1e-9
    )
    np.testing.assert_array_equal(seen.roi, rois[0])
    assert seen.mask is not None and other.mask is not None and seen.features is not None and other.features is not None
    np.testing.assert_array_equal(seen.mask, other.mask[:, ::-1])
    np.testing.assert_array_equal(seen.features, other.features[swap])
    # The other crop was not mirrored.
    for name in ("keypoints2d", "world", "confidence", "mask", "features", "next_roi"):
        np.testing.assert_array_equal(getattr(here[1], name), getattr(plain[1], name))


def test_every_second_frame_is_seen_in_the_mirror(figure: np.ndarray) -> None:
    """Of a still picture a network that is not symmetric says two things by turns; where frames are passed over, one."""

    def watched(**settings: object) -> np.ndarray:
        perceiver = Perceiver(PerceptionConfig(min_duration_s=0.1, **settings))  # type: ignore[arg-type]
        perceiver.update(np.stack([figure] * 12), np.arange(12) / 30, np.arange(12))
        (evidence,) = perceiver.finish()
        return evidence.keypoints2d

    def jump(points: np.ndarray) -> float:
        return float(np.median(np.abs(np.diff(points[2:], axis=0)).max((1, 2))))

    turns, plain = watched(), watched(mirror=False)
    assert jump(turns) > 2 * jump(plain)
    np.testing.assert_array_equal(turns[0], plain[0])
    # Whoever is seen in the mirror does not turn round.
    assert np.abs(turns - plain).max(0)[[11, 12, 23, 24]].max() < 0.06 * 240
    over = {"landmark_interval_s": 0.07, "masks": False, "parts": False}
    np.testing.assert_array_equal(watched(**over), watched(**over, mirror=False))


def test_who_moves_fast_is_seen_as_they_are(figure: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[bool] = []
    decode = perceiving.people_from_output

    def noted(
        output: LandmarkOutput, rois: np.ndarray, size: tuple[int, int], mirrored: np.ndarray, *rest: bool
    ) -> list[Person]:
        turned.extend(mirrored.tolist())
        return decode(output, rois, size, mirrored, *rest)

    monkeypatch.setattr(perceiving, "people_from_output", noted)
    for step in (0, 9):  # px a frame: 270 a second, of a region of 200
        turned.clear()
        images = np.full((12, 240, 400, 3), 127, np.uint8)
        for i, image in enumerate(images):
            image[:, step * i : step * i + 240] = figure
        perceiver = Perceiver(PerceptionConfig(min_duration_s=0.1, look_ahead_s=0.0, parts=False))
        perceiver.update(images, np.arange(12) / 30, np.arange(12))
        (evidence,) = perceiver.finish()
        assert evidence.observed.all()
        assert (sum(turned) == 6) if step == 0 else (1 <= sum(turned) <= 2)  # until it is known how fast


def _person(x: float, size: float = 200.0, score: float = 0.99, mask_columns: tuple[int, int] = (24, 40)) -> Person:
    """A person around (x, 300) whose region is `size` px, with a mask of a column of the crop."""
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (33, 2)) * size + (x, 300)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, slice(*mask_columns)] = 255
    roi = np.array([x, 300.0, size, 0.0])
    return Person(
        roi=roi, next_roi=roi, score=score, keypoints2d=points, confidence=np.full(33, 0.9), world=np.zeros((33, 3)),
        box_xyxy=np.concatenate([points.min(0), points.max(0)]), mask=mask,
    )  # fmt: skip


def test_mask_overlap() -> None:
    assert mask_overlap(_person(300), _person(300)) == 1.0
    assert mask_overlap(_person(300), _person(500)) == 0.0
    assert abs(mask_overlap(_person(300), _person(325)) - 0.5) < 0.01  # masks 50 px wide, 25 px apart
    assert abs(mask_overlap(_person(300), _person(300, size=400.0)) - 1.0) < 0.01
    turned = dataclasses.replace(_person(300), roi=np.array([300.0, 300.0, 200.0, math.pi / 2]))
    assert abs(mask_overlap(_person(300), turned) - 0.25) < 0.01


def test_a_lost_track_that_lingers_is_joined_to_its_successor() -> None:
    times = [i / 30 for i in range(60)]

    def rows(x: float, indices: Sequence[int]) -> Rows:
        return rows_of([Row(i, _person(x)) for i in indices], ("mask",))

    lost = rows(300, [*range(20), 27, 33])  # seen again twice, badly, on the body that the new track follows
    new = rows(320, range(25, 60))
    (joined,) = join_successors([new, lost], times, memory_s=1.0)
    assert joined["index"].tolist() == [*range(20), *range(25, 60)]
    assert len(join_successors([new, rows(300, range(60))], times, 1.0)) == 2  # seen all along: somebody else
    assert len(join_successors([new, rows(700, [*range(20), 27, 33])], times, 1.0)) == 2  # elsewhere
    assert len(join_successors([rows(320, range(55, 60)), rows(300, [0, 1, 56])], times, 1.0)) == 2  # too long ago


def test_same_body() -> None:
    assert same_body(_person(300), _person(302))
    assert not same_body(_person(300), _person(400, mask_columns=(50, 64)))
    without = dataclasses.replace(_person(300), mask=None)
    assert same_body(without, dataclasses.replace(_person(303), mask=None))


# --- tracking ------------------------------------------------------------------------------------------------------------


def _tracker(**settings: float) -> Tracker:
    return Tracker(dataclasses.replace(PerceptionConfig(), **settings), (1000, 600))


@pytest.mark.parametrize("fps", [5, 30, 120])
def test_identity_survives_a_gap_in_seconds(fps: int) -> None:
    """Half a second out of sight at walking speed: the same person at any frame rate; two seconds: another one."""
    for gap, people in ((0.5, 1), (2.0, 2)):
        tracker = _tracker()
        frames = [k / fps for k in range(4 * fps + 1)]
        for index, time in enumerate(frames):
            hidden = 1.0 < time <= 1.0 + gap
            person = _person(200 + 100 * time, score=0.1 if hidden else 0.99)
            lost = tracker.keep(index, time, [(t, person) for t in tracker.alive()])
            if not hidden and not tracker.alive():
                assert tracker.admit(index, time, person) is not None
            assert not (lost and not hidden)
        assert len(tracker.tracks) == people


def test_two_tracks_on_one_body_end_as_one() -> None:
    """A track that jumps onto somebody else's body loses it to the one who was expected there."""
    tracker = _tracker()
    left, right = tracker.admit(0, 0.0, _person(200)), tracker.admit(0, 0.0, _person(600))
    assert left is not None and right is not None
    for index in range(1, 6):
        lost = tracker.keep(index, index / 30, [(left, _person(600)), (right, _person(600))])
        assert lost == [left] and tracker.alive() == [right]
        left.alive = True
    assert tracker.admit(5, 5 / 30, _person(600)) is None


def test_a_person_out_of_the_frame_is_lost() -> None:
    tracker = _tracker()
    track = tracker.admit(0, 0.0, _person(500))
    assert track is not None
    assert tracker.keep(1, 0.1, [(track, _person(1400))]) == [track]


def test_max_people_bounds_the_tracks() -> None:
    tracker = _tracker(max_people=1)
    assert tracker.admit(0, 0.0, _person(200)) is not None
    assert tracker.admit(0, 0.0, _person(700)) is None


def test_taken() -> None:
    tracker = _tracker()
    a, b = tracker.admit(0, 0.0, _person(200)), tracker.admit(0, 0.0, _person(700))
    assert a is not None and b is not None
    a.extend(Row(1, _person(210)), 0.1)
    assert tracker.taken(1, _person(211), b)
    assert not tracker.taken(1, _person(700), b) and not tracker.taken(2, _person(211), b)


def test_rows_of_the_wrong_size_are_dropped() -> None:
    """A person seen at first as a small one, who then walks up and doubles in size over four seconds."""
    times = [k / 10 for k in range(43)]
    sizes = [80.0] * 3 + [200.0 * 2 ** (k / 40) for k in range(40)]
    rows = rows_of([Row(k, _person(300, size)) for k, size in enumerate(sizes)])
    assert steady_rows(rows, times)["index"].tolist() == list(range(3, 43))


@pytest.mark.parametrize(
    ("score", "every", "kept"),
    [(0.99, 1, True), (0.99, 3, True), (0.8, 1, True), (0.8, 3, False)],
    ids=["a person", "one hidden at times", "one hard to see", "furniture"],
)
def test_furniture_is_nobody(score: float, every: int, kept: bool) -> None:
    person = dataclasses.replace(_person(300), score=score)
    assert surely_somebody(rows_of([Row(k, person) for k in range(0, 30, every)])) is kept
    assert surely_somebody(rows_of([Row(7, person)]))


# --- the whole -----------------------------------------------------------------------------------------------------------


def _perceive(frames: Iterable[np.ndarray], fps: float = 30.0, batch: int = 8, **settings: float) -> list[Evidence]:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    perceiver = Perceiver(dataclasses.replace(PerceptionConfig(), **settings))
    images = list(frames)
    for start in range(0, len(images), batch):
        part = np.stack(images[start : start + batch])
        ids = np.arange(start, start + len(part))
        perceiver.update(part, ids / fps, ids)
    return perceiver.finish()


def _scene(figure: np.ndarray, lefts: list[int]) -> np.ndarray:
    """A 640 x 320 frame with figures at the given columns."""
    frame = np.full((320, 640, 3), (150, 155, 150), np.uint8)
    for left in lefts:
        frame[40:280, left : left + 240] = figure
    return frame


def test_two_people_one_hidden_for_a_while(figure: np.ndarray) -> None:
    """The second person comes into view at frame 4, and a board hides the first for a third of a second."""
    frames = []
    for k in range(40):
        frame = _scene(figure, [20 + k] + ([360] if k >= 4 else []))
        if 15 <= k < 25:
            frame[:, :330] = (90, 90, 120)
        frames.append(frame)
    people = _perceive(frames, parts_interval_s=0.0)
    assert [e.person_id for e in people] == [0, 1]
    second, first = people
    assert second.frame_ids[0] in (4, 5) and second.observed.all() and second.frame_ids[-1] == 39
    assert first.frame_ids[0] == 0 and first.frame_ids[-1] == 39
    seen = first.observed
    assert not seen[16:24].any() and seen[:14].all() and seen[26:].all()
    assert (first.confidence[~seen] == 0).all() and (first.keypoints2d[~seen] == 0).all()
    nose = first.keypoints2d[seen, 0] - np.stack([np.flatnonzero(seen) + 20, np.full(seen.sum(), 40)], -1)
    np.testing.assert_allclose(nose, np.broadcast_to([120, 50], nose.shape), atol=12)
    assert first.masks is not None and first.masks.shape == (40, 64, 64)
    assert first.has_world.tolist() == seen.tolist()
    assert first.parts is not None and first.part_confidence is not None and first.part_rois is not None
    for values in (first.parts, first.part_confidence, first.part_rois):
        assert not values[~seen].any() and values[seen].reshape(seen.sum(), -1).any(1).all()
    assert first.parts.max() <= 24 and ((first.parts > 0) == (first.part_confidence > 0)).mean() > 0.99
    inside = crop_to_frame(np.full((len(first), 1, 2), 0.5), first.part_rois.astype(np.float64))[seen, 0]
    assert (np.abs(inside - first.keypoints2d[seen][:, [23, 24]].mean(1)) < 60).all()
    shoulders = first.world_landmarks[seen, 11] - first.world_landmarks[seen, 12]
    assert (shoulders[:, 0] > 0.1).all()  # facing the camera: the left shoulder on the right
    assert (first.world_landmarks[seen, 0, 1] < -0.3).all()  # the nose above the hips, y down
    inside = (first.boxes_xyxy[seen] >= 0) & (first.boxes_xyxy[seen] <= [640, 320, 640, 320])
    assert inside.all()


def test_mask_covers_the_person(figure: np.ndarray) -> None:
    (person,) = _perceive([_scene(figure, [200])])
    assert person.masks is not None and len(person) == 1
    inside = person.masks[0] >= 128
    cells = (np.stack(np.nonzero(inside)[::-1], -1) + 0.5) / 64
    place = crop_to_frame(cells[None], person.rois.astype(np.float64))[0]
    assert abs(place[:, 0].mean() - 320) < 15 and 120 < place[:, 1].mean() < 200
    assert 0.05 < inside.mean() < 0.6


def test_look_ahead_says_the_same(figure: np.ndarray) -> None:
    frames = [_scene(figure, [100 + 2 * k]) for k in range(12)]
    (plain,) = _perceive(frames, masks=False, parts=False)
    (ahead,) = _perceive(frames, masks=False, look_ahead_s=0.1)
    assert plain.masks is None and plain.parts is None and plain.part_rois is None
    assert ahead.observed.all()
    assert np.median(np.abs(ahead.keypoints2d - plain.keypoints2d)) < 2.0


def test_one_image_and_nobody(figure: np.ndarray) -> None:
    assert len(_perceive([_scene(figure, [100])])) == 1
    assert _perceive([_scene(figure, [])] * 3) == []
    assert _perceive([np.zeros((8, 8, 3), np.uint8)]) == []
    assert _perceive([np.full((1, 301, 3), 90, np.uint8)]) == []
    assert _perceive([]) == []


def test_a_glimpse_is_no_person(figure: np.ndarray) -> None:
    frames = [_scene(figure, [200] if 10 <= k < 14 else []) for k in range(40)]
    assert _perceive(frames, min_duration_s=0.4) == []


def test_bad_input_is_named(figure: np.ndarray) -> None:
    perceiver = Perceiver(PerceptionConfig())
    frame = _scene(figure, [])[None]
    perceiver.update(frame, np.zeros(1), np.zeros(1, int))
    with pytest.raises(ShapeError, match="increasing"):
        perceiver.update(frame, np.zeros(1), np.ones(1, int))
    with pytest.raises(ShapeError, match="uint8"):
        perceiver.update(frame.astype(np.float32), np.ones(1), np.ones(1, int))
    with pytest.raises(ShapeError, match="640"):
        perceiver.update(frame[:, :100], np.ones(1), np.ones(1, int))
    with pytest.raises(ShapeError, match="one time per image"):
        perceiver.update(frame, np.ones(2), np.ones(1, int))


def test_perceive_feeds_a_whole_clip(figure: np.ndarray, tmp_path: Path) -> None:
    frames = [_scene(figure, [100 + 2 * k]) for k in range(11)]
    with VideoWriter(tmp_path / "walk.mp4", (640, 320), 10) as video:
        for frame in frames:
            video.write(frame)
    clip, told = Clip.open(tmp_path / "walk.mp4", start=0.2), []
    config = PerceptionConfig(masks=False)
    (person,) = perceive(clip, config=config, device="cpu", batch_size=4, progress=lambda *now: told.append(now))
    assert told == [(4, 9), (8, 9), (9, 9)]
    np.testing.assert_array_equal(person.frame_ids, np.arange(2, 11))
    np.testing.assert_allclose(person.timestamps, np.arange(2, 11) / 10, atol=1e-6)
    assert person.masks is None and person.observed.all() and tuple(person.image_size) == clip.image_size
    (again,) = perceive(clip, config=config, device="cpu", batch_size=4)  # from the start once more
    np.testing.assert_array_equal(again.keypoints2d, person.keypoints2d)


# --- real clips ----------------------------------------------------------------------------------------------------------


def test_start_of_a_real_clip(shared_clips: Path) -> None:
    (dancer,) = perceive(Clip.open(shared_clips / "dancer_square.mp4", end=0.65), device="cpu")
    assert len(dancer) == 20 and dancer.observed.all() and dancer.confidence.mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("walk_past.mp4", [(0, 226, 0.9), (45, 198, 0.98)]),
        ("room_walk_sit.mp4", [(0, 186, 0.99)]),
        ("squats_5fps.mp4", [(0, 64, 0.99)]),
        ("dancer_square.mp4", [(0, 119, 0.99)]),
        (
            "people_one_by_one.mp4",
            [
                (932, 1190, 0.98),
                (236, 440, 0.98),
                (510, 690, 0.98),
                (70, 190, 0.98),
                (750, 860, 0.98),
                (1248, 1352, 0.98),
            ],
        ),
    ],
)
def test_one_record_per_visible_person(shared_clips: Path, name: str, views: list[tuple[int, int, float]]) -> None:
    """Each visible person has one record, observed in this part of the frames from the first to the last in view."""
    people = perceive(Clip.open(shared_clips / name), device="cpu")
    assert len(people) == len(views)
    taken = set()
    for first, last, part in views:
        wanted = np.arange(first, last + 1)
        records = [person.frame_ids[person.observed] for person in people]
        nearest = int(np.argmax([len(np.intersect1d(r, wanted)) / len(np.union1d(r, wanted)) for r in records]))
        assert np.isin(wanted, records[nearest]).mean() >= part
        taken.add(nearest)
    assert len(taken) == len(views)
