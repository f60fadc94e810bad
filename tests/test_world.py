"""Gravity, ground and paths in the world: closed forms, equivariance, and what cannot be told."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from motions_seen import motion_seen, standing, walking
from test_config_effects import _train_twice, check, digest
from walker import walk

import kinflow
from kinflow.body import Body
from kinflow.config import TiltConfig
from kinflow.errors import FormatError, MissingAssetError, ShapeError, UsageError
from kinflow.flow.tilt import Tilt, TiltDensity, load_tilt
from kinflow.metrics import foot_sliding
from kinflow.motion import Motion
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS
from kinflow.world import gravity, locate, place, stand
from kinflow.world.camera_files import read_camera_path
from kinflow.world.chains import solve_chain
from kinflow.world.gravity import AWAY_DEG, Sighted, directions, tilt_score

TILTED = rotvec_to_rotmat(torch.tensor([0.35, 0.1, -0.2]))
"""A camera that looks down by 20 degrees and rolls."""
DOWN = torch.tensor([0.0, 1.0, 0.0])
FEET = [7, 10, 8, 11]


def degrees_off(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def up_of(motion: Motion) -> np.ndarray:
    assert motion.T_world2cam is not None
    return motion.T_world2cam[0, :3, 1]


# -- closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [torch.eye(3), TILTED], ids=["level", "tilted"])
def test_somebody_who_stands_gives_gravity_height_and_ground(body: Body, turn: torch.Tensor) -> None:
    world = locate([standing(body, turn, height=1.5)])
    assert degrees_off(world.T_world2cam[0, :3, 1], (turn @ -DOWN).numpy()) < 7
    assert world.up_from == "people" and world.up_std_deg is not None and 2 <= world.up_std_deg < 10
    # One who stands on one spot tells the height through up alone: that it is uncertain is said.
    assert world.height_std is not None and world.height is not None and 0.1 < world.height_std < 0.5
    assert abs(world.height - 1.5) < 2.5 * world.height_std
    # The camera is above the origin, and looks along -z.
    centre = np.linalg.inv(world.T_world2cam[0])[:3, 3]
    np.testing.assert_allclose(centre, [0, world.height, 0], atol=1e-9)
    assert world.T_world2cam[0, 2, 2] < 0 and abs(world.T_world2cam[0, 2, 0]) < 1e-9


@pytest.mark.parametrize("turn", [torch.eye(3), TILTED], ids=["level", "tilted"])
def test_somebody_who_walks_gives_them_too(body: Body, turn: torch.Tensor) -> None:
    motion = walking(body, turn)
    placed = place([motion])[0]
    lowest = walking(body).vertices(None, body)[..., 1].max(1)  # camera axes: y down
    assert degrees_off(up_of(placed), (turn @ -DOWN).numpy()) < 7
    height = np.linalg.inv(placed.T_world2cam[0].astype(float))[1, 3]
    assert height == pytest.approx(float(np.median(lowest)), rel=0.08)
    np.testing.assert_array_equal(placed.ground, [0, 1, 0, 0])
    assert placed.ground_std is not None and (placed.ground_std > 0).all()


def test_gravity_turns_with_the_camera(body: Body) -> None:
    level = locate([walking(body)])
    for rotvec in ([0.3, 0.0, 0.0], [0.0, 0.5, 0.0], [0.1, -0.4, 0.6], [-1.2, 0.3, 0.0]):
        turn = rotvec_to_rotmat(torch.tensor(rotvec))
        world = locate([walking(body, turn)])
        assert degrees_off(world.T_world2cam[0, :3, 1], turn.double().numpy() @ level.T_world2cam[0, :3, 1]) < 0.5
        assert world.height == pytest.approx(level.height, rel=0.01)


def test_nothing_sinks_or_floats_and_bodies_move_as_a_whole(body: Body) -> None:
    motion = walking(body, TILTED)
    placed = place([motion])[0].in_world(body)
    lowest = placed.to_world(placed.vertices(None, body))[..., 1].min(1)
    assert lowest.min() > -0.02 and np.abs(np.median(lowest)) < 0.02
    joints = placed.joints3d, placed.to_world(placed.joints3d)
    np.testing.assert_allclose(*(np.linalg.norm(x[:, 1:] - x[:, :1], axis=-1) for x in joints), atol=1e-5)


def test_body_parameters_and_points_agree_in_the_world(body: Body) -> None:
    motion = walking(body, TILTED)
    seen = place([motion])[0]
    np.testing.assert_array_equal(seen.body_pose, motion.body_pose)  # the camera's pose is the evidence's
    placed = seen.in_world(body)
    bent = np.abs(placed.body_pose - seen.body_pose).max((0, 2)) > 1e-4
    assert {SMPL_JOINTS[1 + j] for j in np.flatnonzero(bent)} == {
        f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")
    }
    assert np.abs(placed.joints3d - seen.joints3d)[:, FEET].max() > 0.005 and placed.in_world(body) is placed
    assert placed.global_orient_world is not None and placed.transl_world is not None
    rotmat = placed.pose_rotmat()
    rotmat[:, 0] = rotvec_to_rotmat(torch.tensor(placed.global_orient_world))
    joints = body.joints(torch.tensor(placed.betas), rotmat, torch.tensor(placed.transl_world))
    np.testing.assert_allclose(joints.numpy(), placed.to_world(placed.joints3d), atol=1e-5)
    # Back in the camera everybody is where they were seen, across the line of sight.
    assert placed.T_world2cam is not None
    back = joints.numpy() @ placed.T_world2cam[:, :3, :3].swapaxes(1, 2) + placed.T_world2cam[:, None, :3, 3]
    pixels = [x[..., :2] / x[..., 2:] * 700 for x in (back, placed.joints3d)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 15  # this walker's feet slide, by 2 cm a frame


def test_two_people_share_one_ground(body: Body) -> None:
    near, far = walking(body, TILTED, distance=4.0), walking(body, TILTED, distance=6.0, heading=-0.9)
    world = locate([near, dataclasses.replace(far, person_id=1)])
    people = stand([near, far], world)
    assert len(world.scales) == 2 and all(0.9 < s < 1.1 for s in world.scales)
    people = [p.in_world(body) for p in people]
    lows = [p.to_world(p.vertices(None, body))[..., 1].min() for p in people]
    assert max(abs(v) for v in lows) < 0.02


@pytest.mark.parametrize("above", [3.0, 30.0])
def test_somebody_on_a_roof_is_above_the_others_ground(body: Body, above: float) -> None:
    """Hundreds of deviations off the ground: seen on a real clip, where second derivatives were no numbers."""
    near, high = walking(body, TILTED, distance=4.0), walking(body, TILTED, distance=9.0, heading=-0.9)
    up = (TILTED @ -DOWN).numpy()
    lifted = {name: getattr(high, name) + (above * up).astype(np.float32) for name in ("transl", "joints3d")}
    world = locate([near, dataclasses.replace(high, person_id=1, **lifted)])
    assert world.height is not None and np.isfinite(world.height)
    assert degrees_off(world.T_world2cam[0, :3, 1], up) < 7


def test_a_known_up_is_taken_as_it_is(body: Body) -> None:
    up = (TILTED @ -DOWN).numpy()
    world = locate([walking(body, TILTED)], up=3 * up)
    np.testing.assert_allclose(world.T_world2cam[0, :3, 1], up, atol=1e-6)
    assert world.up_from == "given" and world.up_std_deg is None and world.height is not None


# -- what cannot be told --------------------------------------------------------------------------------------------------


def test_one_frame_is_placed_and_said_to_be_little(body: Body, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        placed = place([standing(body, frames=1)])[0]
    assert placed.transl_world is not None and placed.transl_world.shape == (1, 3)
    assert degrees_off(up_of(placed), -DOWN.numpy()) < 15
    assert "0.03 s of people" in caplog.text


def test_people_who_never_touch_the_ground(body: Body, caplog: pytest.LogCaptureFixture) -> None:
    w = walk(90)
    risen = w.transl.clone()
    risen[:, 1] -= 1.5 * torch.linspace(0, 1, 90)  # as on a lift
    with caplog.at_level(logging.WARNING):
        world = locate([motion_seen(body, w.pose_rotmat, risen)])
    assert world.height is None and world.height_std is None
    assert "no ground" in world.notes[0] and "no ground" in caplog.text
    placed = stand([motion_seen(body, w.pose_rotmat, risen)], world)[0]
    assert placed.ground is None and placed.ground_std is None and placed.placed
    assert degrees_off(up_of(placed), -DOWN.numpy()) < 8


def test_feet_out_of_sight_tell_no_ground(body: Body) -> None:
    motion = walking(body)
    confidence = motion.confidence.copy()
    confidence[:, 25:] = 0.1
    assert locate([dataclasses.replace(motion, confidence=confidence)]).height is None


def test_poses_that_say_nothing_leave_the_camera_level(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    from kinflow.world import person

    flat = TiltDensity(TiltConfig(components=1))
    with torch.no_grad():
        flat.layers[-1].weight.zero_()
        flat.layers[-1].bias.copy_(torch.tensor([0.0, 0, 0, 0, -50, 50]))
    monkeypatch.setattr(person, "load_tilt", lambda: flat)
    motion = standing(body)
    motion = dataclasses.replace(motion, confidence=np.zeros_like(motion.confidence))
    world = locate([motion])
    assert world.up_from == "assumed" and world.up_std_deg is None and "--up" in world.notes[0]
    np.testing.assert_allclose(world.T_world2cam[0, :3, 1], [0, -1, 0], atol=1e-9)


# -- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [(0, 0, 0), (1, 2), ("a", 0, 0), (float("nan"), 0, 1)])
def test_an_up_that_is_no_direction(body: Body, up: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"^up: expected a direction X,Y,Z"):
        place([standing(body, frames=2)], up=up)


def test_nobody_and_other_bodies(body: Body) -> None:
    with pytest.raises(UsageError, match="at least one person"):
        place([])
    motion = standing(body, frames=2)
    with pytest.raises(UsageError, match="belong to 'smpl'"):
        place([dataclasses.replace(motion, body="smpl")])
    with pytest.raises(ShapeError, match="observed frame"):
        place([dataclasses.replace(motion, observed=np.zeros(2, bool))])
    with pytest.raises(UsageError, match="the clip whose camera moves"):
        place([motion], camera="moving")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def tum(frames: int, quat: str = "0 0 0 1") -> str:
    return "# timestamp tx ty tz qx qy qz qw\n" + "".join(f"{k / 30} {0.1 * k} 0 0 {quat}\n" for k in range(frames))


def colmap(frames: int) -> str:
    return "# images\n" + "".join(
        f"{k + 1} 1 0 0 0 {-0.1 * k} 0 0 1 frame{k:03d}.png\n1.0 2.0 -1\n" for k in range(frames)
    )


def test_camera_files_say_the_same(tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = -0.1 * np.arange(5)
    np.savez(tmp_path / "cameras.npz", cam_poses=poses)
    (tmp_path / "sparse").mkdir()
    write(tmp_path / "sparse" / "images.txt", colmap(5))
    for path, source, metric in (
        (write(tmp_path / "tum.txt", tum(5)), "tum", False),
        (write(tmp_path / "images.txt", colmap(5)), "colmap", False),
        (tmp_path / "sparse", "colmap", False),
        (tmp_path / "cameras.npz", "3dpw", True),
    ):
        read = read_camera_path(path, 5)
        np.testing.assert_allclose(read.T_ref2cam, poses, atol=1e-12)
        assert (read.source, read.metric, read.up is not None) == (source, metric, metric)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (tum(4), "expected a pose for each of the clip's 5 frames, got 4"),
        (tum(5, "0 0 0 2"), "unit quaternions, got one of length 2"),
        (tum(5).replace("0.1 0 0 0", "nan 0 0 0"), "finite numbers"),
        ("\n".join(reversed(tum(5).splitlines())), "increasing timestamps"),
        ("hello\n", "COLMAP's images.txt, TUM's lines"),
        ("", "COLMAP's images.txt, TUM's lines"),
        ("a b c d e f g h\n", "expected numbers"),
    ],
)
def test_bad_camera_files(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        read_camera_path(write(tmp_path / "cameras.txt", text), 5)


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        (np.diag([1.0, 1, -1, 1]), "left-handed axes"),
        (np.diag([2.0, 2, 2, 1]), "axes scaled by 2"),
        (np.diag([1.0, 2, 0.5, 1]), "rigid poses"),
    ],
)
def test_camera_poses_that_are_none(tmp_path: Path, matrix: np.ndarray, told: str) -> None:
    np.savez(tmp_path / "cameras.npz", cam_poses=np.tile(matrix, (5, 1, 1)))
    with pytest.raises(FormatError, match=told):
        read_camera_path(tmp_path / "cameras.npz", 5)


def test_a_camera_file_that_is_not_there(body: Body, tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="no such file"):
        place([standing(body, frames=2)], camera=tmp_path / "none.txt")
    with pytest.raises(UsageError, match="expected auto, static, moving or a file"):
        kinflow.RunOptions(camera_motion="sideways")
    with pytest.raises(UsageError, match="expected the world"):
        kinflow.RunOptions(world=False, up=(0, -1, 0))


# -- the record -----------------------------------------------------------------------------------------------------------


def test_the_fields_travel_and_come_all_or_none(body: Body, tmp_path: Path) -> None:
    motion = standing(body, frames=4)
    placed = kinflow.place([motion])[0]
    again = Motion.load(placed.save(tmp_path / "person.npz"))
    for name in ("global_orient_world", "transl_world", "body_pose_world", "T_world2cam", "ground", "ground_std"):
        np.testing.assert_array_equal(getattr(again, name), getattr(placed, name))
        assert getattr(motion, name) is None
    assert placed[1:3].T_world2cam.shape == (2, 4, 4)  # type: ignore[union-attr]
    assert not motion.placed and Motion.load(motion.save(tmp_path / "camera.npz")).transl_world is None
    with pytest.raises(ShapeError, match=r"^transl_world: expected with the other fields"):
        dataclasses.replace(placed, transl_world=None)
    with pytest.raises(ShapeError, match="T_world2cam"):
        dataclasses.replace(placed, T_world2cam=np.zeros((3, 4, 4)))
    with pytest.raises(ShapeError, match=r"^body_pose_world: expected none"):
        dataclasses.replace(motion, body_pose_world=motion.body_pose)
    for asked in (lambda: motion.to_world(motion.joints3d), motion.in_world):
        with pytest.raises(UsageError, match=r"kinflow\.place"):
            asked()


def test_a_world_of_another_clip(body: Body) -> None:
    motion = standing(body, frames=4)
    other = dataclasses.replace(motion, frame_ids=motion.frame_ids + 2)
    with pytest.raises(ShapeError, match="their own clip"):
        stand([other], locate([motion]))


# -- parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 7, 12, 33])
def test_chains_are_solved_as_a_dense_system_is(frames: int) -> None:
    full = torch.zeros(frames, frames, 3, 3, dtype=torch.float64)
    for back in range(min(3, frames)):
        at = torch.arange(frames - back)
        full[at + back, at] = torch.randn(frames - back, 3, 3, dtype=torch.float64) + (
            4 * torch.eye(3) if not back else 0
        )
    factor = full.permute(0, 2, 1, 3).reshape(3 * frames, -1)
    matrix = factor @ factor.T + torch.eye(3 * frames)
    blocks = matrix.reshape(frames, 3, frames, 3).permute(0, 2, 1, 3)
    at = torch.arange(frames)
    bands = [blocks[at, (at + k) % frames] for k in range(3)]  # the last ones, which wrap around, are to be ignored
    right = torch.randn(frames, 3, dtype=torch.float64)
    dense = torch.linalg.solve(matrix, right.flatten()).reshape(frames, 3)
    torch.testing.assert_close(solve_chain(bands[0], bands[1], bands[2], right), dense, atol=1e-9, rtol=1e-9)


def test_the_tilt_density_is_one_on_the_sphere(body: Body) -> None:
    tilt = load_tilt()(rotvec_to_rotmat(0.3 * torch.randn(5, 21, 3, dtype=torch.float64)))
    grid = directions(20000)
    density = tilt._replace(**{k: v[:, None] for k, v in tilt._asdict().items()}).log_prob(grid[None]).exp()
    torch.testing.assert_close(density.mean(1) * 4 * torch.pi, torch.ones(5, dtype=torch.float64), atol=2e-3, rtol=0)
    upright = load_tilt()(standing(body).pose_rotmat(slice(0, 1))[:, 1:22].double())
    assert degrees_off(upright.mean[0, upright.log_weight[0, :-1].argmax()].numpy(), np.array([0, 1.0, 0])) < 12


def test_the_first_offset_is_where_most_soles_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair of lows, and the tilts' sum in one piece against pieces."""
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        lows = torch.cat((0.01 * torch.randn(40, generator=g) + 0.3, torch.rand(60, generator=g))).double()
        weight = torch.rand(100, generator=g).double() * (torch.rand(100, generator=g) < 0.8)
        soles = torch.stack((torch.zeros(100, 2).double(), lows[:, None].expand(-1, 2)), -1)[..., [0, 1, 1]]
        person: Any = SimpleNamespace(soles=soles, weight=weight, feet=torch.ones(100, dtype=torch.float64))
        near = ((lows[None] - lows[:, None]).abs() < 0.08).double() @ weight
        assert gravity._first_offset([person], torch.tensor([0.0, 1.0, 0.0]).double()) == -float(
            lows[int((near * (weight > 0)).argmax())]
        )
    tilt = Tilt(
        torch.nn.functional.normalize(torch.randn(9, 2, 3, generator=g), dim=-1), torch.rand(9, 2, generator=g),
        torch.log_softmax(torch.randn(9, 3, generator=g), -1),
    )  # fmt: skip
    turns = rotvec_to_rotmat(torch.randn(9, 3, generator=g, dtype=torch.float64))
    zeros, ones, ray = (
        torch.zeros(9, 3, dtype=torch.float64),
        torch.rand(9, generator=g, dtype=torch.float64),
        torch.tensor([[0, 0, 1.0]], dtype=torch.float64),
    )
    one = Sighted(turns, tilt, zeros[:, None], ray.expand(9, 3), ones, zeros, ones, ones, zeros, ones)
    whole = tilt_score([one], directions(50))
    monkeypatch.setattr(gravity, "_AT_ONCE", 100)
    torch.testing.assert_close(tilt_score([one], directions(50)), whole)


def test_a_blurred_tilt_is_the_mean_over_errors_of_up() -> None:
    """A sharp density seen through errors of 6 degrees, against the mean over drawn errors."""
    sharp = Tilt(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([6.0]), torch.tensor([-1e-6, -14.0])).blurred(0.0)
    std = float(np.deg2rad(6))
    drawn = std * torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    for degrees in (0.0, 5.0, 12.0):
        angle = float(np.deg2rad(degrees))
        turned = rotvec_to_rotmat(torch.stack((angle + drawn[:, 0], torch.zeros(len(drawn)), drawn[:, 1]), -1))
        expected = sharp.log_prob(turned[..., 1]).exp().mean()
        up = torch.tensor([0.0, np.cos(angle), np.sin(angle)], dtype=torch.float32)
        torch.testing.assert_close(sharp.blurred(std).log_prob(up).exp(), expected, rtol=0.06, atol=0.0)


@pytest.mark.parametrize("heading", [0.0, 2.0])
def test_bodies_are_taken_to_lean_away_from_the_camera_by_what_is_usual(heading: float) -> None:
    """Of one whose pose says straight up, and who is leant away from the camera by that, up is best where it is."""
    up, ray = -DOWN.double(), torch.tensor([0.0, 0.3, 0.954], dtype=torch.float64)
    lean = rotvec_to_rotmat(torch.tensor([-np.deg2rad(AWAY_DEG), 0.0, 0.0]))  # the head away, along z
    assert (lean @ up)[2] > 0.01
    turned = (
        lean
        @ rotvec_to_rotmat(torch.tensor([0.0, heading, 0.0], dtype=torch.float64))
        @ torch.diag(torch.tensor([1.0, -1, -1]).double())
    )
    tilt = Tilt(torch.tensor([[[0.0, 1.0, 0.0]]]), torch.tensor([[6.0]]), torch.tensor([[0.0, -20.0]]))
    zeros, ones = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    person = Sighted(turned[None], tilt, zeros[:, None], ray[None], ones, zeros, ones, ones, zeros, ones)
    angle = torch.arange(-4, 4.1, 0.2, dtype=torch.float64).deg2rad()
    grid = rotvec_to_rotmat(torch.nn.functional.pad(torch.cartesian_prod(angle, angle), (0, 1))[:, [0, 2, 1]]) @ up
    assert degrees_off(grid[int(tilt_score([person], grid).argmax())].numpy(), up.numpy()) < 0.15


def test_every_setting_of_the_tilt_density_has_an_effect() -> None:
    pose = rotvec_to_rotmat(0.4 * torch.randn(8, 21, 3, generator=torch.Generator().manual_seed(1)))

    def probe(c: TiltConfig) -> str:
        torch.manual_seed(0)
        model = TiltDensity(c)
        return digest(_train_twice(model, lambda: -model(pose).log_prob(pose[:, 0, 1]).mean()))

    check(TiltConfig(width=16, layers=1), dict(width=24, layers=2, components=2), probe)


def test_sliding_feet_are_measured_in_the_world(body: Body) -> None:
    """The metric sees what is solved for: a body moved along by hand slides, placed it does not."""
    motion = standing(body)
    shifted = motion.transl + np.linspace(0, 0.1, len(motion))[:, None] * np.array([0, 0, 1.0])  # errors of depth
    joints = motion.joints3d + (shifted - motion.transl)[:, None]
    placed = place([dataclasses.replace(motion, transl=shifted, joints3d=joints)])[0].in_world(body)
    still = torch.from_numpy(motion.joints3d[:, FEET])
    times = torch.tensor(motion.timestamps)
    slides = [
        float(foot_sliding(torch.from_numpy(x[:, FEET]), still, times).distance.mean())
        for x in (joints, placed.to_world(placed.joints3d))
    ]
    assert slides[0] > 0.0015 and slides[1] < 0.0004
