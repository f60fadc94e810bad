"""Render and perceive: scenes seen whole, pairs that fit together, and landmark offsets found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from walker import rotvecs, walk

from kinflow.body import Body
from kinflow.cameras import intrinsics, project
from kinflow.config import PerceptionConfig
from kinflow.errors import MissingAssetError, ShapeError
from kinflow.mocap.clips import MotionClip
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.skeleton import MIRROR_BLAZEPOSE
from kinflow.training.calibration import calibrate
from kinflow.training.streams.perceived import PerceivedClip, load_perceived, save_perceived
from kinflow.training.streams.render_and_perceive import draw_scene, make_shard


def captured(frames: int = 240) -> MotionClip:
    """A walk as motion capture would have it: world axes, y up."""
    steps = walk(frames=frames, fps=60, heading=0.0)
    upright = rotvecs(steps).numpy()
    to_world = rotvec_to_rotmat(torch.tensor([np.pi, 0, 0], dtype=torch.float32))
    root = (to_world @ steps.pose_rotmat[:, 0]).double()
    return MotionClip(
        name="walk",
        subject="nobody",
        description="procedural walk",
        fps=60.0,
        global_orient=rotmat_to_rotvec(root).float().numpy(),
        body_pose=upright[:, 1:],
        transl=(steps.transl @ to_world.T).numpy(),
        valid=np.ones(frames, bool),
        split="train",
    )


def seen_clip(shift: np.ndarray, seed: int) -> PerceivedClip:
    """A clip in which the front end sees each landmark exactly ``shift`` away from where the body has it."""
    body, rng = Body.open("light"), np.random.default_rng(seed)
    steps = walk(frames=20, fps=5, heading=float(rng.uniform(-np.pi, np.pi)))
    K, betas = intrinsics((640, 480)), torch.zeros(1, 10)
    carried = body.transforms(betas, steps.pose_rotmat, None)[0][:, body.landmark_joints]
    landmarks = body.landmarks(betas, steps.pose_rotmat, steps.transl)
    moved = landmarks + (carried @ torch.from_numpy(shift)[..., None])[..., 0]
    rotvec = rotvecs(steps).numpy()
    frames = len(rotvec)
    return PerceivedClip(
        timestamps=steps.timestamps.numpy(),
        observed=np.ones(frames, bool),
        keypoints2d=project(moved, K).numpy(),
        confidence=np.ones((frames, 33), np.float32),
        world_landmarks=np.zeros((frames, 33, 3), np.float32),
        has_world=np.zeros(frames, bool),
        boxes_xyxy=np.zeros((frames, 4), np.float32),
        rois=np.zeros((frames, 4), np.float32),
        global_orient=rotvec[:, 0],
        body_pose=rotvec[:, 1:],
        transl=steps.transl.numpy(),
        betas=np.zeros(10, np.float32),
        K=K.numpy(),
        image_size=np.array([640, 480]),
        source="walk",
    )


def test_calibration_finds_a_known_shift() -> None:
    shift = np.random.default_rng(0).normal(0, 0.01, (33, 3)).astype(np.float32)
    shift = (shift + shift[list(MIRROR_BLAZEPOSE)] * np.array([-1, 1, 1], np.float32)) / 2
    fit = calibrate([seen_clip(shift, seed) for seed in range(8)], Body.open("light"))
    np.testing.assert_allclose(fit.shift, shift, atol=2e-3)
    assert np.nanmax(fit.after) < 1e-3 < np.nanmedian(fit.before)
    with pytest.raises(ShapeError, match="at least one"):
        calibrate([], Body.open("light"))


def test_scenes_show_the_person() -> None:
    body, rng, clip = Body.open("light"), np.random.default_rng(0), captured()
    for _ in range(8):
        scene = draw_scene([clip], body, rng, frames=16)
        assert scene is not None
        joints = body.joints(scene.betas[None], scene.pose_rotmat, scene.transl)
        assert joints[..., 2].min() > 0.3
        pixels = project(joints, scene.K)
        size = torch.tensor(scene.image_size)
        inside = ((pixels >= 0) & (pixels <= size)).all(-1).float().mean()
        assert inside > 0.6
        assert (np.diff(scene.timestamps) > 0).all()


def test_a_shard_pairs_what_was_seen_with_what_was_there(tmp_path: Path) -> None:
    made = make_shard([captured()], count=1, frames=12, seed=1, config=PerceptionConfig())
    save_perceived(tmp_path / "shards" / "train_0000.npz", made)
    (clip,) = load_perceived(tmp_path / "shards")
    body = Body.open("light")
    rotvec = torch.from_numpy(np.concatenate((clip.global_orient[:, None], clip.body_pose), 1))
    landmarks = body.landmarks(
        torch.from_numpy(clip.betas)[None], rotvec_to_rotmat(rotvec), torch.from_numpy(clip.transl)
    )
    away = np.linalg.norm(project(landmarks, torch.from_numpy(clip.K)).numpy() - clip.keypoints2d, axis=-1)
    sure = clip.observed[:, None] & (clip.confidence > 0.7)
    limbs = np.zeros(33, bool)
    limbs[[11, 12, 23, 24, 25, 26, 27, 28]] = True
    assert np.median(away[:, limbs][sure[:, limbs]]) < 8  # px of a frame of 240 to 384
    with pytest.raises(MissingAssetError, match="render_and_perceive"):
        load_perceived(tmp_path / "nothing.npz")
