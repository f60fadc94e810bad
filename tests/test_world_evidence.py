"""Legs bent to their contacts, the ground that a camera goes along, and what of a background is upright."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from motions_seen import standing, walking

from kinflow.body import Body
from kinflow.rotations import exp_so3, rotvec_to_rotmat
from kinflow.world import legs as bending
from kinflow.world import locate, place
from kinflow.world.floor import along_floor
from kinflow.world.gravity import LINES_DEG, _maximum
from kinflow.world.legs import CHAINS, Limbs, bend, posed
from kinflow.world.verticals import Lines, Segments

TILTED = rotvec_to_rotmat(torch.tensor([0.35, 0.1, -0.2]))
UP = np.array([0.05, -0.95, -0.3])
UP /= np.linalg.norm(UP)


def limbs(frames: int, seed: int = 0) -> Limbs:
    """Legs in any pose."""
    draw = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    turns = [rotvec_to_rotmat(0.4 * numbers(frames, *lead, 3)) for lead in ((), (2, 3), (2,))]
    return Limbs(turns[0], numbers(frames, 3), turns[1], turns[2], 0.3 * numbers(2, 4, 3), 0.1 * numbers(4, 6, 3))


# -- legs -----------------------------------------------------------------------------------------------------------------


def test_markers_move_with_joints_as_their_jacobian_says() -> None:
    some, small = limbs(3), 1e-6
    at = posed(some)
    for axis in range(9):
        turn = torch.zeros(3, 2, 9, dtype=torch.float64)
        turn[..., axis] = small
        moved = some._replace(rotmat=some.rotmat @ rotvec_to_rotmat(turn.unflatten(-1, (3, 3))))
        change = (bending._markers(posed(moved)) - bending._markers(at)) / small
        torch.testing.assert_close(bending._jacobian(at)[..., axis], change, atol=1e-5, rtol=0)


def test_legs_pose_as_the_body_does(body: Body) -> None:
    from kinflow.world.person import Person

    person = Person.of(walking(body, TILTED), body)
    at = posed(person.limbs(torch.eye(3, dtype=torch.float64).expand(len(person.pelvis), 3, 3), person.pelvis))
    torch.testing.assert_close(at.soles, person.soles.double(), atol=1e-5, rtol=0)


def shaken(frames: int = 40) -> tuple[Limbs, torch.Tensor]:
    """Both legs straight down from a pelvis that stands still, heels and toes under them, their joints shaken; and times."""
    eye = torch.eye(3, dtype=torch.float64)
    offsets = torch.tensor([[[x, -0.1, 0], [0, -0.4, 0], [0, -0.4, 0], [0, -0.06, 0.12]] for x in (0.1, -0.1)]).double()
    region = torch.tensor([[x, 0.0, z] for x in (-0.03, 0.03) for z in (-0.03, 0, 0.03)]).double()
    soles = torch.stack([region + torch.tensor([0, y, 0.0]) for y in (-0.08, -0.02, -0.08, -0.02)])
    wave = torch.sin(torch.arange(frames).double()[:, None, None, None] * torch.tensor([0.5, 0.7, 0.9]).double())
    bent = rotvec_to_rotmat(0.06 * wave.expand(frames, 2, 3, 3))
    pelvis = torch.tensor([0.0, 0.98, 0.0]).double().expand(frames, 3)
    return (
        Limbs(eye.expand(frames, 3, 3), pelvis, bent, eye.expand(frames, 2, 3, 3), offsets, soles),
        torch.arange(frames).double() / 30,
    )


def test_feet_that_stand_are_held_and_others_are_left_alone() -> None:
    legs, times = shaken()
    rays = torch.tensor([0.0, 0.0, -1.0]).double().expand(len(times), 3)
    standing_left = torch.zeros(len(times), 4, dtype=torch.float64)
    standing_left[:, :2] = 1.0
    after = legs._replace(rotmat=bend(legs, legs.pelvis, rays, standing_left, times))
    moved = [posed(x).soles.mean(2).diff(dim=0).norm(dim=-1).mean(0) for x in (legs, after)]
    assert (moved[0] > 0.01).all()
    assert (moved[1][:2] < 0.003).all()  # metres a frame
    assert posed(after).soles[:, :2, :, 1].amin(-1).abs().median() < 0.008
    torch.testing.assert_close(moved[1][2:], moved[0][2:], rtol=0.25, atol=0)
    # Across the line of sight a shaken foot is moved to its middle place, the other hardly.
    off = (posed(after).placed - posed(legs).placed)[..., :2].norm(dim=-1)
    assert off[:, 0].mean() < 0.05 and off[:, 1].mean() < 0.01
    nobody = bend(legs, legs.pelvis, rays, torch.zeros_like(standing_left), times, ground=False)
    torch.testing.assert_close(nobody, legs.rotmat, atol=1e-6, rtol=0)


def test_long_motions_are_bent_in_pieces_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    legs, times = shaken(80)
    rays = torch.tensor([0.0, 0.0, -1.0]).double().expand(80, 3)
    stands = torch.ones(80, 4, dtype=torch.float64) * (torch.arange(80)[:, None] // 13 % 2)
    whole = bend(legs, legs.pelvis, rays, stands, times)
    monkeypatch.setattr(bending, "PIECE", 30)
    monkeypatch.setattr(bending, "MARGIN", 30)
    pieces = bend(legs, legs.pelvis, rays, stands, times)
    torch.testing.assert_close(pieces, whole, atol=5e-3, rtol=0)
    monkeypatch.setattr(bending, "MARGIN", 0)
    assert (bend(legs, legs.pelvis, rays, stands, times) - whole).abs().max() > 5e-3


def test_legs_are_bent_in_the_world_and_stay_the_evidences_before_the_camera(body: Body) -> None:
    motion = walking(body, TILTED)
    placed = place([motion])[0]
    for name in ("body_pose", "z"):
        np.testing.assert_array_equal(getattr(placed, name), getattr(motion, name))
    upright = placed.in_world(body)
    bent = torch.tensor(CHAINS)[:, :3].flatten().numpy() - 1
    others = np.setdiff1d(np.arange(23), bent)
    assert np.abs(upright.body_pose[:, bent] - motion.body_pose[:, bent]).max() > 0.01
    np.testing.assert_allclose(upright.body_pose[:, others], motion.body_pose[:, others], atol=1e-5)
    for one in (placed, upright):
        joints = body.joints(torch.tensor(one.betas), one.pose_rotmat(), torch.tensor(one.transl))
        np.testing.assert_allclose(one.joints3d, joints.numpy(), atol=1e-5)


# -- the ground before a camera -------------------------------------------------------------------------------------------


def along(
    frames: int = 20, wall: int = 30, seed: int = 0, level: float = -1.6
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Rays to 80 corners of a floor at ``level`` m from a camera and to some of a wall, its turns, and its places."""
    rng = np.random.default_rng(seed)
    x = np.cross(UP, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    forward = np.cross(x, UP)
    on_floor = level * UP + rng.uniform(-2, 2, (80, 1)) * x + rng.uniform(2, 7, (80, 1)) * forward
    on_wall = 8 * forward + rng.uniform(-3, 3, (wall, 1)) * x - rng.uniform(0.3, 1.5, (wall, 1)) * UP
    points = np.concatenate((on_floor, on_wall))
    places = np.linspace(0, 1, frames)[:, None] * (0.8 * forward + 0.3 * x)
    turns = np.stack([exp_so3(np.array([0.0, 0.004 * t, 0.001 * t])) for t in range(frames)])
    rays = (points - places[:, None]) @ turns.swapaxes(1, 2)
    rays += rng.normal(0, 0.0005, rays.shape)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    half = frames // 2
    return [rays[: half + 1], rays[half:, ::-1]], turns, places


def test_the_ground_tells_how_far_a_camera_goes_and_mends_its_turns() -> None:
    windows, turns, places = along()
    found, _, told = along_floor(windows, turns, UP, 1.6)
    assert told == 1.0
    np.testing.assert_allclose(found, places, atol=0.05)
    wrong = np.stack([exp_so3(np.array([0, 0.0006 * t, 0])) for t in range(len(turns))]) @ turns
    found, mended, _ = along_floor(windows, wrong, UP, 1.6)
    np.testing.assert_allclose(found, places, atol=0.06)
    trace = np.einsum("nij,nij->n", mended, turns)
    assert np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))).max() < 0.35  # of 0.65
    np.testing.assert_allclose(along_floor(windows, turns, UP, 3.2)[0], 2 * found, atol=0.12)


def test_a_camera_that_sees_no_ground_is_not_told_by_it() -> None:
    windows, turns, _ = along()
    for few in ([w[:, :3] for w in windows], along(wall=0, level=1.6)[0]):  # and a ceiling
        found, same, told = along_floor(few, turns, UP, 1.6)
        assert told == 0.0 and not found.any()
        np.testing.assert_array_equal(same, turns)


# -- what is upright ------------------------------------------------------------------------------------------------------


def upright(up: np.ndarray, count: int = 24, others: int = 40) -> Segments:
    """Planes through segments that run along ``up``, and through others."""
    rng = np.random.default_rng(1)
    normals = np.cross(up, rng.normal(size=(count, 3)) * [1, 0.2, 1])
    normals = np.concatenate((normals, rng.normal(size=(others, 3))))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    ones = torch.ones(len(normals), dtype=torch.float64)
    return Segments(torch.from_numpy(normals), 0.015 * ones, 0.5 * ones)


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def test_upright_lines_mend_what_bodies_say(body: Body) -> None:
    from kinflow.world.camera_files import CameraPath
    from kinflow.world.gravity import find_ground
    from kinflow.world.person import Person

    motion = standing(body)
    sighted = [Person.of(motion, body).sighted(CameraPath.static(len(motion)), motion.frame_ids)]
    truth = np.array([0.0, -1.0, 0.0])
    alone, helped = find_ground(sighted), find_ground(sighted, lines=upright(truth))
    assert alone is not None and helped is not None
    assert degrees(helped.up.numpy(), truth) < 1 < degrees(alone.up.numpy(), truth)
    assert LINES_DEG < helped.up_std_deg < 2.5 < alone.up_std_deg
    # A background without anything upright has no say.
    rough = find_ground(sighted, lines=upright(truth, count=0))
    assert rough is not None
    np.testing.assert_allclose(rough.up, alone.up, atol=1e-9)
    assert rough.up_std_deg == pytest.approx(alone.up_std_deg)


def test_lines_of_a_picture_tell_up() -> None:
    cv2 = pytest.importorskip("cv2")
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    picture = np.full((480, 640), 200, np.uint8)
    for x in np.linspace(-3, 3, 13):
        ends = np.array([x, 0, 4.0]) + np.array([[-1.2], [1.2]]) * UP
        pixels = (ends @ K.T)[:, :2] / ends[:, 2:]
        cv2.line(picture, *(tuple(int(v) for v in (256 * p).round()) for p in pixels), 40, 2, cv2.LINE_AA, 8)
    lines = Lines(K, np.arange(40) / 30)
    mask = np.full_like(picture, 255)
    for row in range(40):
        if lines.due(row):
            lines.look(row, picture, mask, 1.0)
    assert len(lines._found) == 3  # every half second
    segments = lines.segments(np.tile(np.eye(4), (40, 1, 1)))
    assert segments is not None
    angle = torch.arange(-10, 10.1, 0.25, dtype=torch.float64).deg2rad()
    x, z = np.cross(UP, [0, 0, 1.0]), np.cross(UP, [1.0, 0, 0])
    near = torch.from_numpy(UP) + torch.cartesian_prod(angle, angle) @ torch.from_numpy(np.stack((x, z)))
    near = torch.nn.functional.normalize(near, dim=-1)
    assert degrees(near[int(segments.score(near).argmax())].numpy(), UP) < 0.7
    # Where people are there is no background.
    masked = Lines(K, np.arange(1) / 30)
    masked.look(0, picture, np.zeros_like(mask), 1.0)
    assert masked.segments(np.eye(4)[None]) is None


# -- bodies that are cut off ----------------------------------------------------------------------------------------------


def test_a_cropped_body_does_not_tell_up(body: Body) -> None:
    motion = standing(body, TILTED)
    points = motion.keypoints2d.copy()
    points[:, 23:, 1] = motion.image_size[1] + 50.0  # hips and legs below the picture
    world = locate([dataclasses.replace(motion, keypoints2d=points)])
    assert world.up_from == "assumed" and world.up_std_deg is None and world.height is None
    assert "--up" in world.notes[0]


def test_a_glimpse_of_somebody_lying_across_the_picture_is_not_believed(body: Body) -> None:
    rolled = rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.5]))
    glimpse, long = (locate([standing(body, rolled, frames=n)]) for n in (6, 120))
    assert glimpse.up_from == "assumed" and glimpse.up_std_deg is None
    assert long.up_from == "people"
    assert degrees(long.T_world2cam[0, :3, 1], rolled.double().numpy() @ [0, -1, 0]) < 8


def test_the_most_probable_and_its_width_are_those_of_a_known_density() -> None:
    """A sharp, bent valley, far from where it is begun; and beyond its turn the curvature is not positive."""
    scales = torch.tensor([1.0, 10.0, 0.2], dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        bent = torch.stack((x[0] - 1, x[1] - x[0] ** 2, x[2] + x[1]))
        return torch.log1p(0.5 * (scales * bent).square()).sum() + 0.5 * (scales * bent).square().sum()

    found, covariance = _maximum(loss, torch.tensor([-1.5, 2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64), atol=1e-4, rtol=0)
    turned = torch.tensor([[1.0, 0, 0], [-2, 1, 0], [0, 1, 1]], dtype=torch.float64)  # of the residuals, there
    expected = torch.linalg.inv(turned.mT @ torch.diag(2 * scales.square()) @ turned)
    torch.testing.assert_close(covariance, expected, rtol=1e-2, atol=1e-4)
