"""Cameras that move: turns from known homographies and rendered rooms, steps from feet that stand, scale of given paths."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from motions_seen import SIZE, K, motion_seen, standing, walking

from kinflow.body import Body
from kinflow.clip import Clip
from kinflow.datasets.scenery import Room
from kinflow.errors import MissingAssetError
from kinflow.motion import Motion
from kinflow.rotations import exp_so3, log_so3
from kinflow.video import VideoWriter
from kinflow.world import locate, moving, place, stand
from kinflow.world.moving import fit_rotation, watch_background

FRAMES, FPS = 24, 24.0
needs_opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not installed")


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(np.linalg.norm(log_so3(np.swapaxes(a, -1, -2) @ b), axis=-1))


def level() -> np.ndarray:
    """World (y up) to a level camera 1.5 m over the floor, which looks along -z."""
    pose = np.diag([1.0, -1, -1, 1])
    pose[:3, 3] = pose[:3, :3] @ np.array([0, -1.5, 0])
    return pose


def filmed(path: Path, turns: np.ndarray, contrast: float = 1.0) -> Clip:
    """A room seen by a camera on a tripod that is turned by rotations (N, 3, 3)."""
    room = Room.drawn(np.random.default_rng(4), np.zeros(3), 7.0, contrast)
    with VideoWriter(path, SIZE, FPS) as video:
        for turn in turns:
            pose = level()
            pose[:3] = turn @ pose[:3]
            image = room.seen(pose, K, SIZE) if contrast else np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
            video.write(image)
    return Clip.open(path, camera=K)


def nobody(body: Body) -> Motion:
    """Somebody far aside, so that the whole background is seen."""
    motion = standing(body, frames=FRAMES)
    return dataclasses.replace(motion, observed=np.arange(FRAMES) < 1, boxes_xyxy=np.zeros((FRAMES, 4)))


def test_a_known_homography_gives_its_rotation_and_zoom() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(-0.4, 0.4, (60, 2))
    turn = exp_so3(np.array([0.05, -0.2, 0.08]))
    seen = np.concatenate((first, np.ones((60, 1))), 1) @ turn.T
    now = 1.1 * seen[:, :2] / seen[:, 2:]
    now[:15] += rng.uniform(0.05, 0.3, (15, 2))  # what moves by itself
    found, zoom, miss = fit_rotation(first, now, np.eye(3), 1.0, 1e-3, iterations=40)
    assert degrees_between(found, turn) < 0.05 and zoom == pytest.approx(1.1, abs=2e-3) and miss < 1e-3


@needs_opencv
def test_a_pan_is_told_from_its_background(tmp_path: Path, body: Body) -> None:
    angle = np.radians(18) * np.linspace(0, 1, FRAMES)
    turns = exp_so3(np.stack((0.1 * angle, angle, 0.2 * angle), -1))
    clip = filmed(tmp_path / "pan.mp4", turns)
    path = watch_background(clip, [nobody(body)], asked=False)
    assert path.source == "moving" and path.metric and not path.notes
    assert degrees_between(path.T_ref2cam[:, :3, :3], turns).max() < 0.3
    np.testing.assert_array_equal(path.T_ref2cam[:, :3, 3], 0)


@needs_opencv
def test_a_camera_that_stands_still_is_told_to(tmp_path: Path, body: Body) -> None:
    clip = filmed(tmp_path / "still.mp4", np.tile(np.eye(3), (FRAMES, 1, 1)))
    path = watch_background(clip, [nobody(body)], asked=False)
    assert path.source == "static" and not path.notes
    np.testing.assert_array_equal(path.T_ref2cam, np.tile(np.eye(4), (FRAMES, 1, 1)))


@needs_opencv
def test_a_glance_at_a_camera_that_stands_gives_the_same_world(
    tmp_path: Path, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few frames a second tell what all of them tell, people and upright lines included."""
    clip = filmed(tmp_path / "still.mp4", np.tile(np.eye(3), (FRAMES, 1, 1)))
    followed: list[int] = []
    flow = moving._flow
    monkeypatch.setattr(moving, "_flow", lambda *arrays: followed.append(1) or flow(*arrays))
    people = [walking(body, frames=FRAMES)]
    quick, glanced = place(people, clip)[0], len(followed)
    monkeypatch.setattr(moving, "_clearly_still", lambda *anything: False)
    whole = place(people, clip)[0]
    assert len(followed) - glanced == FRAMES - 1 and glanced < FRAMES / 4
    np.testing.assert_allclose(quick.to_world(quick.joints3d), whole.to_world(whole.joints3d), atol=1e-4)
    np.testing.assert_allclose(quick.T_world2cam, whole.T_world2cam, atol=1e-4)


@needs_opencv
def test_a_pan_with_no_texture_is_said_to_tell_nothing(
    tmp_path: Path, body: Body, caplog: pytest.LogCaptureFixture
) -> None:
    clip = filmed(tmp_path / "plain.mp4", np.tile(np.eye(3), (FRAMES, 1, 1)), contrast=0.0)
    with caplog.at_level(logging.WARNING):
        world = locate([standing(body, frames=FRAMES)], clip)
    assert world.camera == "static" and "too few corners" in world.notes[0] and "too few corners" in caplog.text
    assert watch_background(clip, [nobody(body)], asked=True).notes


def test_without_opencv_the_camera_is_static_and_that_is_said(
    tmp_path: Path, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = filmed(tmp_path / "still.mp4", np.tile(np.eye(3), (2, 1, 1)))
    monkeypatch.setattr("kinflow.world.moving.importlib.util.find_spec", lambda name: None)
    assert "kinflow[world]" in watch_background(clip, [], asked=False).notes[0]
    with pytest.raises(MissingAssetError, match=r"pip install 'kinflow\[world\]'"):
        watch_background(clip, [], asked=True)


# -- paths ----------------------------------------------------------------------------------------------------------------


def carried_past(body: Body, frames: int = 60) -> tuple[Motion, np.ndarray]:
    """Somebody who stands, seen by a camera that goes 1.2 m to the right and turns towards them; poses (T, 4, 4) of its own axes."""
    there = standing(body, frames=frames)
    share = np.linspace(0, 1, frames)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = exp_so3(np.stack((0 * share, 0.25 * share, 0 * share), -1))
    centres = np.stack((1.2 * share, 0 * share, 0 * share), -1)
    poses[:, :3, 3] = -np.einsum("nij,nj->ni", poses[:, :3, :3], centres)
    turn = torch.from_numpy(poses[:, :3, :3]).float()
    shifted = torch.tensor(there.transl) - torch.from_numpy(centres).float()
    return motion_seen(body, there.pose_rotmat(), shifted, turn), poses


def tum(path: Path, poses: np.ndarray, scale: float) -> Path:
    """A path in units of ``scale`` a metre, in axes turned against ours."""
    from scipy.spatial.transform import Rotation

    other = np.eye(4)
    other[:3, :3] = exp_so3(np.array([0.7, -0.3, 1.1]))
    moved = np.linalg.inv(poses)
    moved[:, :3, 3] *= scale
    moved = other @ moved
    quat = Rotation.from_matrix(moved[:, :3, :3]).as_quat()
    rows = np.concatenate((np.arange(len(poses))[:, None] / 30, moved[:, :3, 3], quat), 1)
    np.savetxt(path, rows)
    return path


def test_the_scale_of_a_given_path_comes_from_feet_that_stand(tmp_path: Path, body: Body) -> None:
    motion, poses = carried_past(body)
    world = locate([motion], camera=tum(tmp_path / "path.txt", poses, scale=7.0))
    assert world.camera == "tum" and world.scale == pytest.approx(1 / 7, rel=0.02)
    placed = stand([motion], world)[0]
    pelvis = placed.to_world(placed.joints3d)[:, 0]
    assert np.linalg.norm(pelvis - pelvis.mean(0), axis=-1).max() < 0.03
    assert degrees_between(world.T_world2cam[:, :3, :3], poses[:, :3, :3] @ world.T_world2cam[0, :3, :3]).max() < 0.01


def test_a_path_that_nobody_scales_is_taken_as_metres(tmp_path: Path, body: Body) -> None:
    poses = np.tile(np.eye(4), (60, 1, 1))
    poses[:, 0, 3] = 1e-9 * np.arange(60)
    world = locate([standing(body)], camera=tum(tmp_path / "path.txt", poses, scale=1.0))
    assert world.scale is None and "scale" in world.notes[0]


def test_steps_of_a_camera_come_from_feet_that_stand(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    from kinflow.world import placing
    from kinflow.world.camera_files import CameraPath

    motion, poses = carried_past(body)
    turns = poses.copy()
    turns[:, :3, 3] = 0
    monkeypatch.setattr(placing, "_camera_path", lambda *a: CameraPath(turns, "moving", metric=False))
    world = locate([motion])
    centres = np.linalg.inv(world.T_world2cam)[:, :3, 3]
    went = np.linalg.norm(centres - centres[0], axis=-1)
    np.testing.assert_allclose(went, 1.2 * np.linspace(0, 1, 60), atol=0.04)
    pelvis = stand([motion], world)[0].to_world(motion.joints3d)[:, 0]
    assert np.linalg.norm(pelvis - pelvis.mean(0), axis=-1).max() < 0.04


def test_3dpws_layout_knows_gravity_and_metres(tmp_path: Path, body: Body) -> None:
    motion, poses = carried_past(body)
    np.savez(tmp_path / "cameras.npz", cam_poses=poses @ level())
    world = locate([motion], camera=tmp_path / "cameras.npz")
    assert world.camera == "3dpw" and world.up_from == "file" and world.scale is None
    np.testing.assert_allclose(world.T_world2cam[0, :3, 1], [0, -1, 0], atol=1e-6)
    assert world.height == pytest.approx(1.5, abs=0.06)


# -- out of the house -----------------------------------------------------------------------------------------------------


def test_exports_are_in_the_world(tmp_path: Path, body: Body) -> None:
    import csv

    from kinflow.formats.exports import export

    tilted = torch.from_numpy(exp_so3(np.array([0.3, 0.0, 0.1]))).float()
    placed = place([standing(body, tilted, frames=6)])[0].in_world(body)
    (path,) = export([placed], tmp_path, "csv", body=body)
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    head = next(i for i, row in enumerate(rows) if "pelvis_x" in ",".join(row) or "pelvis" in ",".join(row))
    names = rows[head]
    first = [i for i, n in enumerate(names) if n.startswith("pelvis")][:3]
    read = np.array([[float(row[i]) for i in first] for row in rows[head + 1 : head + 7]])
    np.testing.assert_allclose(read, placed.to_world(placed.joints3d)[:, 0], atol=1e-3)
    pytest.importorskip("pygltflib")
    from read_glb import Glb

    (path,) = export([placed], tmp_path, "glb", body=body)
    _, joints, _ = Glb(path).skinned("person00", placed.timestamps[2])
    assert np.abs(joints - placed.to_world(placed.joints3d)[2]).max() < 1e-3


def test_the_grid_lies_on_the_ground() -> None:
    from kinflow.render.ground import draw_grid, grid_opacity

    cover = grid_opacity(level(), K.numpy(), SIZE)
    assert float(cover[:241].max()) == 0 and float(cover[260:].max()) > 0.3  # nothing above the horizon
    column, row = (np.array([0.0, 1.5, 8.0]) / 8.0 * 700)[:2] + np.array(K[:2, 2])  # x = 0, 8 m ahead
    assert float(cover[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2].max()) > 0.1
    image = draw_grid(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), cover)
    assert image.dtype == np.uint8 and (image[:241] == 0).all() and image.max() > 80
