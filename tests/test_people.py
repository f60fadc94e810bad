"""The right people: who is somebody, who stays the same, who is missed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from walker import walk

from kinflow.body import Body
from kinflow.cameras import project
from kinflow.config import PerceptionConfig
from kinflow.datasets.synthetic import Look, join, render_frames
from kinflow.perception import Perceiver
from kinflow.perception.appearance import BINS, DIFFERENT, LOOK_SHAPE, look_distance, looks
from kinflow.perception.bodypix import PartOutput
from kinflow.perception.identity import cut_at_changes, places_of, reunited
from kinflow.perception.landmarks import Person
from kinflow.perception.searching import squares, unexplained_regions
from kinflow.perception.tracking import Row, Rows, Track, Tracker, rows_of
from kinflow.perception.verification import refusal, witness_of
from kinflow.skeleton import BODYPIX24, SMPL_JOINTS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from crowds import Crowd, box
from people import score

SIZE = (200, 200)
TRUNK, THIGH = 1 + BODYPIX24.index("torso_front"), 1 + BODYPIX24.index("left_upper_leg_front")
HELD = ("look", "witness", "examined")


def upright(x: float = 100.0, side: float = 160.0) -> np.ndarray:
    """Landmarks (33, 2) of somebody who stands around (x, 100)."""
    points = np.tile([x, 40.0], (33, 1))
    for pair, (across, y) in {
        11: (14, 60),
        13: (24, 80),
        15: (26, 100),
        23: (10, 105),
        25: (11, 140),
        27: (12, 170),
    }.items():
        points[pair], points[pair + 1] = [x + across, y], [x - across, y]
    points[[17, 19, 21]], points[[18, 20, 22]] = points[15], points[16]
    points[[29, 31]], points[[30, 32]] = points[27], points[28]
    return points


def sighting(x: float = 100.0, look: np.ndarray | None = None, **changes: object) -> Person:
    """Somebody at x whom both networks see alike: trunk and thighs, and no more, in a region of 160 px."""
    roi = np.array([x, 100.0, 160.0, 0.0])
    parts = np.zeros((48, 48), np.uint8)
    parts[10:27, 19:29], parts[27:38, 19:29] = TRUNK, THIGH
    mask = np.zeros((64, 64), np.uint8)
    mask[13:51, 25:39] = 255
    box = np.array([x - 30, 30.0, x + 30, 175.0])
    confidence = np.full(33, 0.9)
    confidence[[13, 14, 15, 16, 27, 28]] = 0.1
    person = Person(
        roi, roi, 0.99, upright(x), confidence, np.zeros((33, 3)), box, mask, parts, parts * 10, roi, look=look
    )
    person = dataclasses.replace(person, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(person, witness=witness_of(person, SIZE))


def wearing(colour: tuple[float, float, float]) -> np.ndarray:
    """The look of somebody in one colour, 0..1, from head to foot."""
    crop = torch.tensor(colour)[None, :, None, None].expand(1, 3, 257, 257)
    return looks(crop, [sighting()])[0]


RED, BLUE, BLACK, WHITE = (wearing(c) for c in ((0.7, 0.15, 0.1), (0.1, 0.2, 0.6), (0.05, 0.05, 0.05), (0.9, 0.9, 0.9)))


def track(start: int, worn: list[np.ndarray], x: float = 100.0, speed: float = 0.0, every: int = 1) -> Rows:
    """Sightings in successive frames from ``start``, a tenth of a second apart; BodyPix looked at one in ``every``."""
    seen = [sighting(x + speed * i, look) for i, look in enumerate(worn)]
    unseen = {"look": None, "witness": None}
    seen = [dataclasses.replace(s, **({} if i % every == 0 else unseen)) for i, s in enumerate(seen)]  # type: ignore[arg-type]
    return rows_of([Row(start + i, s) for i, s in enumerate(seen)], HELD)


TIMES = np.arange(200) / 10


# -- looks ---------------------------------------------------------------------------------------------------------------


def test_looks_tell_colours_apart_and_light_not() -> None:
    assert RED.shape == LOOK_SHAPE and RED.sum() > 0
    for a, b in ((RED, BLUE), (BLACK, WHITE), (RED, BLACK), (BLUE, WHITE)):
        assert look_distance(a, b) > DIFFERENT
    assert look_distance(RED, wearing((0.45, 0.1, 0.065))) < 0.75 * DIFFERENT  # the same cloth in the shade
    assert look_distance(RED, np.zeros(LOOK_SHAPE)) == 0  # nothing known, nothing claimed
    np.testing.assert_allclose(look_distance(np.stack([RED, BLUE]), BLUE)[1], 0, atol=1e-12)


def test_a_neighbours_cells_do_not_count() -> None:
    crop = torch.full((1, 3, 257, 257), 0.5)
    crop[..., 170:] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]  # somebody in red to the right
    alone = sighting()
    assert alone.parts is not None
    crowded = alone.parts.copy()
    crowded[10:38, 32:46] = TRUNK
    grey = looks(crop, [alone])[0]
    np.testing.assert_array_equal(looks(crop, [dataclasses.replace(alone, parts=crowded)])[0], grey)


def test_bins_hold_every_cell() -> None:
    np.testing.assert_allclose(RED.sum(-1), np.tile(RED.sum(-1)[:, :1], 3), rtol=1e-6)
    assert RED.shape[-1] == BINS


# -- who is who ----------------------------------------------------------------------------------------------------------


def test_two_exchanged_tracks_are_cut_and_joined_crosswise() -> None:
    one, other = track(0, [RED] * 12 + [BLUE] * 12, 80), track(0, [BLUE] * 12 + [RED] * 12, 100)
    tracks = [cut_at_changes(rows, TIMES) for rows in (one, other)]
    assert [len(piece) for pieces in tracks for piece in pieces] == [12] * 4
    people = reunited(tracks, TIMES, 2.5)
    assert sorted(len(rows) for rows in people) == [20, 20]  # two sightings on each side of the change are blends
    for rows in people:
        assert look_distance(rows["look"][0], rows["look"][-1]) < 0.1


def test_who_is_looked_at_now_and_then_is_cut_between_two_looks() -> None:
    """What was seen between the last look at the one and the first at the other may be either, and is left out."""
    pieces = cut_at_changes(track(0, [RED] * 21 + [BLUE] * 21, every=3), TIMES)
    assert [len(piece) for piece in pieces] == [20, 22]  # looked at in frames 18 and 21
    (first, second) = sorted(reunited([pieces], TIMES, 2.5), key=lambda rows: int(rows["index"][0]))
    assert first["index"][-1] == 17 and second["index"][0] == 22
    assert len(cut_at_changes(track(0, [RED] * 42, every=3), TIMES)) == 1


def test_nobody_is_cut_whom_nobody_can_have_taken_over() -> None:
    """Somebody who squats shows other colours. Only where somebody else's track ends, begins or changes may the track be theirs."""
    rows, lit = (track(0, [RED] * 12 + [other] * 12) for other in (BLUE, wearing((0.62, 0.17, 0.12))))

    def pieces(*others: Rows) -> int:
        return len(cut_at_changes(rows, TIMES, [places_of(other, TIMES) for other in others]))

    assert pieces() == 1
    assert pieces(track(0, [BLUE] * 12 + [RED] * 12, 120)) == 2  # exchanged
    assert pieces(track(0, [BLUE] * 12, 120)) == pieces(track(12, [RED] * 12, 120)) == 2  # theirs ended, or began
    assert pieces(np.concatenate([track(0, [BLUE] * 10, 120), track(16, [BLUE] * 20, 120)])) == 2  # or was lost
    assert pieces(track(0, [BLUE] * 12 + [RED] * 12, 400)) == pieces(track(0, [BLUE] * 12, 400)) == 1  # far away
    stays = track(0, [BLUE] * 200, 120)  # in full view, who they are
    assert pieces(stays) == 2 and len(lit) == 24
    assert len(cut_at_changes(lit, TIMES, [places_of(stays, TIMES)])) == 1
    assert len(cut_at_changes(lit, TIMES, [places_of(stays[:12], TIMES)])) == 2
    assert pieces(track(60, [BLUE] * 12, 120)) == 1  # comes much later
    lost = np.concatenate([rows[:12], track(20, [BLUE] * 12)])
    assert len(cut_at_changes(lost, TIMES, [])) == 2
    assert all(len(part) == 0 for part in places_of(rows[:0], TIMES))


def test_one_look_is_one_piece() -> None:
    shade = wearing((0.5, 0.11, 0.07))
    assert len(cut_at_changes(track(0, [RED, shade] * 10), TIMES)) == 1
    assert (
        len(cut_at_changes(track(0, [RED] * 9 + [BLUE] * 2 + [RED] * 9), TIMES)) == 1
    )  # somebody in front for a moment
    bare = rows_of([Row(i, sighting()) for i in range(20)])
    assert len(cut_at_changes(bare, TIMES)) == 1 and len(reunited([[bare]], TIMES, 2.5)) == 1


def test_who_comes_back_in_the_same_clothes_is_the_same() -> None:
    before = track(0, [RED] * 10)
    assert len(reunited([[before], [track(27, [RED] * 10, 110)]], TIMES, 2.5)) == 1
    # In other light they are, where nobody else could be meant.
    lit = wearing((0.25, 0.05, 0.03))
    assert DIFFERENT < look_distance(RED, lit) < 2 * DIFFERENT
    after = track(27, [lit] * 10, 110)
    assert len(reunited([[before], [after]], TIMES, 2.5)) == 2  # nobody to compare with
    assert len(reunited([[before], [after], [track(0, [BLUE] * 40, 300)]], TIMES, 2.5)) == 2
    assert len(reunited([[before], [after], [track(0, [lit] * 40, 300)]], TIMES, 2.5)) == 3
    assert len(reunited([[before], [track(27, [BLUE] * 10, 110)]], TIMES, 2.5)) == 2
    assert len(reunited([[before], [track(27, [RED] * 10, 110)]], TIMES, 1.5)) == 2  # too long ago
    assert len(reunited([[before], [track(27, [RED] * 10, 900)]], TIMES, 2.5)) == 2  # nobody is so fast
    assert len(reunited([[before], [track(5, [RED] * 10, 110)]], TIMES, 2.5)) == 2  # both are there at once


def test_a_lost_person_is_not_taken_up_in_other_clothes() -> None:
    tracker = Tracker(PerceptionConfig(), SIZE)
    first = tracker.admit(0, 0.0, sighting(look=RED))
    assert first is not None
    for i in range(1, 6):
        tracker.keep(i, i / 10, [(first, sighting(look=RED))])
    tracker.keep(6, 0.6, [(first, sighting(score=0.1))])
    blue = tracker.admit(7, 0.7, sighting(look=BLUE))
    assert blue is not None and blue is not first
    tracker.keep(8, 0.8, [(blue, sighting(score=0.1))])
    assert tracker.admit(9, 0.9, sighting(look=RED)) is first


def test_the_body_goes_to_the_track_that_wears_it() -> None:
    """Both tracks slide onto one body, a little nearer to where the wrong one expects it."""
    red, blue = (Track(i, [Row(0, sighting(x, look))], 0.0) for i, (x, look) in enumerate(((92, RED), (106, BLUE))))
    tracker = Tracker(PerceptionConfig(), SIZE)
    tracker.tracks = [red, blue]
    body = sighting(101, RED)
    assert tracker.keep(1, 0.1, [(blue, body), (red, body)]) == [blue]


# -- who is somebody -----------------------------------------------------------------------------------------------------


def test_a_person_is_kept_and_furniture_refused() -> None:
    person = sighting()
    assert person.witness is not None and person.witness.min() > 0.8
    assert refusal(track(0, [RED] * 8), 0.4) is None
    elsewhere = np.zeros((48, 48), np.uint8)
    elsewhere[30:34, 5:9] = TRUNK  # a patch of a person beside the chair
    chair = rows_of([Row(i, sighting(parts=elsewhere)) for i in range(8)], HELD)
    reason = refusal(chair, 0.4)
    assert reason is not None and "0 % of the body" in reason
    assert refusal(chair, 0.0) is None
    blind = [sighting(parts=elsewhere) for _ in range(3)]  # a moment in which BodyPix is blind does not decide
    assert refusal(rows_of([Row(i, s) for i, s in enumerate([*blind, *[person] * 5])], HELD), 0.4) is None
    # Sightings at which it did not look decide nothing, nor do tracks without any other.
    unseen = dataclasses.replace(person, witness=None)
    assert refusal(rows_of([Row(i, unseen) for i in range(8)], HELD), 0.4) is None
    assert refusal(rows_of([Row(i, s) for i, s in enumerate([blind[0], *[unseen] * 7])], HELD), 0.4) is not None
    assert refusal(rows_of([Row(i, s) for i, s in enumerate([person, *[unseen] * 7])], HELD), 0.4) is None
    assert refusal(rows_of([Row(0, person)], ("mask",)), 0.4) is None


def test_half_a_body_is_a_person_if_its_limbs_are() -> None:
    """Somebody behind a table; a bag, with a person's cloth in it, of which no limb is one."""
    shown = sighting()
    assert shown.parts is not None
    upper = np.where(np.arange(48)[:, None] < 24, shown.parts, 0).astype(np.uint8)
    half = sighting(parts=upper, confidence=np.full(33, 0.9))
    bag = sighting(parts=np.where(upper > 0, 1 + BODYPIX24.index("left_hand"), 0).astype(np.uint8))
    assert half.witness is not None and bag.witness is not None
    assert 0.25 < half.witness[0] < 0.5 and half.witness[1] > 0.2 and bag.witness[1] == 0
    people = [rows_of([Row(i, s) for i in range(8)], HELD) for s in (half, bag)]
    assert refusal(people[0], 0.25) is None and refusal(people[1], 0.25) is not None


# -- who is missed -------------------------------------------------------------------------------------------------------


def labelled(*trunks: tuple[int, int, int, int]) -> PartOutput:
    """BodyPix' answer on a square of 257 px with trunks in cells rows a to b, columns c to d."""
    mask, parts = torch.full((1, 33, 33), -4.0), torch.full((1, 24, 33, 33), -4.0)
    for a, b, c, d in trunks:
        mask[:, a:b, c:d] = 4.0
        parts[:, TRUNK - 1, a:b, c:d] = 4.0
    return PartOutput(mask, parts, None, None)


def test_a_trunk_that_nobody_has_is_looked_at() -> None:
    output = labelled((8, 14, 14, 18), (10, 13, 24, 26))
    found = unexplained_regions(output, 1.0, (0.0, 0.0), (257, 257), [])
    assert len(found) == 2 and found[0][2] > found[1][2]
    np.testing.assert_allclose(found[0][:2], [124.5, 60.5 + 1.6 * 32], atol=1)
    mask = np.zeros((64, 64), np.uint8)
    mask[12:36, 26:38] = 255
    known = dataclasses.replace(sighting(), roi=np.array([128.5, 90.0, 257.0, 0.0]), mask=mask)
    assert len(unexplained_regions(output, 1.0, (0.0, 0.0), (257, 257), [known])) == 1
    boxed = dataclasses.replace(known, mask=None, box_xyxy=np.array([100.0, 60.0, 150.0, 110.0]))
    assert len(unexplained_regions(output, 1.0, (0.0, 0.0), (257, 257), [boxed])) == 1
    assert unexplained_regions(labelled((8, 9, 14, 16)), 1.0, (0.0, 0.0), (257, 257), []) == []
    assert unexplained_regions(output, 1.0, (0.0, -200.0), (257, 257), []) == []  # beyond the frame


def test_a_skirt_belongs_to_who_wears_it() -> None:
    """Without a mask the person is the box of sure landmarks, and here it ends at the hips."""
    known = dataclasses.replace(sighting(), mask=None, box_xyxy=np.array([70.0, 30.0, 130.0, 110.0]))
    skirt, other = (16, 19, 10, 15), (16, 19, 24, 28)
    assert len(unexplained_regions(labelled(skirt, other), 1.0, (0.0, 0.0), (257, 257), [])) == 2
    (found,) = unexplained_regions(labelled(skirt, other), 1.0, (0.0, 0.0), (257, 257), [known])
    assert found[0] > 180


def test_squares_cover_the_frame() -> None:
    assert squares(480, 270) == [(0, 0, 270, 270), (210, 0, 480, 270)]
    assert squares(270, 480) == [(0, 0, 270, 270), (0, 210, 270, 480)]
    assert squares(300, 300) == [(0, 0, 300, 300)] and squares(301, 1) == [(0, 0, 301, 1)]


# -- rendered ------------------------------------------------------------------------------------------------------------

FILM = (320, 240)


def crossing() -> tuple[np.ndarray, Crowd]:
    """Somebody in red walks to the right, somebody in blue to the left; they pass each other behind a pillar."""
    body, frames, fps = Body.open("light"), 28, 10
    K = torch.tensor([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
    skin = np.isin(body.part_labels.numpy(), [SMPL_JOINTS.index(n) for n in ("head", "left_hand", "right_hand")])
    grey = np.random.default_rng(3).integers(120, 150, (FILM[1], FILM[0], 3)).astype(np.uint8)
    meshes, places, visible = [], [], []
    for sign, distance, colour in ((1, 4.2, (190, 40, 30)), (-1, 4.9, (30, 60, 180))):
        steps = walk(frames, fps, heading=sign * np.pi / 2, speed=1.1, distance=distance)
        shape = torch.zeros(1, 10)
        look = Look(np.where(skin[:, None], (224, 172, 125), colour).astype(np.float32), grey)
        meshes.append((body.vertices(shape, steps.pose_rotmat, steps.transl), body.faces, look))
        places.append(project(body.landmarks(shape, steps.pose_rotmat, steps.transl), K).numpy())
        visible.append(np.where(steps.transl[:, 0].abs() > 0.85, 1.0, 0.2))
    points, faces, colours = box((0.0, 1.45, 2.8), (0.75, 4.0, 0.3), np.array([90.0, 80.0, 70.0]))
    meshes.append((points.expand(frames, -1, -1), faces, dataclasses.replace(meshes[0][2], colours=colours)))
    vertices, triangles, look = join(meshes)
    images = render_frames(vertices, triangles, K, FILM, look)
    return images, Crowd(np.stack(places), np.stack(visible), np.zeros((2, frames)), np.arange(frames) / fps)


def test_two_who_cross_behind_a_pillar_are_told_apart_by_their_clothes() -> None:
    images, truth = crossing()

    def seen(**settings: bool | float) -> tuple[int, float]:
        perceiver = Perceiver(PerceptionConfig(landmarks="full", **settings))  # type: ignore[arg-type]
        perceiver.update(images, truth.timestamps, np.arange(len(images)))
        found = score(people := perceiver.finish(), truth)
        assert found.recall > 0.8 and found.precision > 0.95
        return len(people), found.switches

    assert seen(parts=False, mirror=False) == (2, 2.0)  # by place alone each goes on as the other
    # BodyPix in every frame of this short clip: seldom looked at, half of the looks would show the pillar's edge.
    assert seen() == (2, 0.0)
