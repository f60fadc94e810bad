"""From a straight T-pose to SMPL's zero pose: limbs stay where they point, the girdle follows the arms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kinflow.mocap.zero_pose import RHYTHM, into_zero_pose
from kinflow.skeleton import MIRROR_SMPL, SMPL_JOINTS, SMPL_PARENTS, SMPL_REST_OFFSETS

REST = np.array(SMPL_REST_OFFSETS)
INDEX = {name: j for j, name in enumerate(SMPL_JOINTS)}
STRAIGHT = {
    "hip": ("knee", (0, -1, 0)), "knee": ("ankle", (0, -1, 0)), "shoulder": ("elbow", (1, 0, 0)),
    "elbow": ("wrist", (1, 0, 0)), "wrist": ("hand", (1, 0, 0)),
}  # fmt: skip
"""Where a straight T-pose has the left side's bones."""


def world_of(rotmats: np.ndarray) -> np.ndarray:
    out = rotmats.copy()
    for j in range(1, 24):
        out[:, j] = out[:, SMPL_PARENTS[j]] @ rotmats[:, j]
    return out


def random_pose(frames: int, scale: float, seed: int = 0) -> np.ndarray:
    rotvec = np.random.default_rng(seed).normal(0, scale, (frames * 24, 3))
    return Rotation.from_rotvec(rotvec).as_matrix().reshape(frames, 24, 3, 3)


def test_limbs_point_where_they_pointed() -> None:
    before = random_pose(40, 0.5)
    straight, smpl = world_of(before), world_of(into_zero_pose(before))
    for side, sign in (("left", 1), ("right", -1)):
        for joint, (child, direction) in STRAIGHT.items():
            j = INDEX[f"{side}_{joint}"]
            was = straight[:, j] @ (np.array(direction) * (sign, 1, 1))
            bone = REST[INDEX[f"{side}_{child}"]]
            now = smpl[:, j] @ (bone / np.linalg.norm(bone))
            np.testing.assert_allclose(now, was, atol=1e-6, err_msg=f"{side} {joint}")
    np.testing.assert_allclose(smpl[:, 0], straight[:, 0])


def test_a_level_arm_leaves_the_girdle_and_a_hanging_one_lowers_it() -> None:
    pose = np.broadcast_to(np.eye(3), (2, 24, 3, 3)).copy()
    for side, sign in (("left", -1), ("right", 1)):
        pose[1, INDEX[f"{side}_shoulder"]] = Rotation.from_rotvec([0, 0, sign * np.deg2rad(80)]).as_matrix()
    out = into_zero_pose(pose)
    for side in ("left", "right"):
        level, hanging = (Rotation.from_matrix(out[t, INDEX[f"{side}_collar"]]) for t in (0, 1))
        assert np.rad2deg(level.magnitude()) < 4
        # SMPL's collars move by 25 to 40 degrees when arms come down from the horizontal
        assert np.rad2deg(hanging.magnitude()) == pytest.approx(np.rad2deg(np.deg2rad(80) * RHYTHM), abs=4)


def test_both_sides_are_treated_alike() -> None:
    pose = random_pose(10, 0.4, seed=1)
    flip = np.diag([-1.0, 1, 1])
    mirrored = flip @ pose[:, list(MIRROR_SMPL)] @ flip
    np.testing.assert_allclose(
        into_zero_pose(mirrored), flip @ into_zero_pose(pose)[:, list(MIRROR_SMPL)] @ flip, atol=1e-9
    )


def test_no_rhythm_leaves_the_collars_to_the_source() -> None:
    pose = random_pose(10, 0.4, seed=2)
    a, b = into_zero_pose(pose, rhythm=0.0), into_zero_pose(pose, rhythm=0.5)
    collars = [INDEX["left_collar"], INDEX["right_collar"]]
    assert np.abs(a[:, collars] - b[:, collars]).max() > 0.1
    np.testing.assert_allclose(world_of(a)[:, INDEX["left_elbow"]], world_of(b)[:, INDEX["left_elbow"]], atol=1e-9)
