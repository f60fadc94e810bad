"""Motion: cut, read-only, skinned."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_motion import a_motion

from kinflow.body import Body
from kinflow.errors import ShapeError, UsageError
from kinflow.motion import Motion

pytestmark = pytest.mark.filterwarnings("error")  # torch warns where it is handed a read-only array to share
FRAMES = 8
MASK = np.array([True, False, True, True, False, False, False, True])


@pytest.fixture(scope="module")
def motion() -> Motion:
    return a_motion(FRAMES)


@pytest.mark.parametrize("rows", [slice(2, 5), slice(None, None, 3), slice(-2, None), [1, 4, -1], MASK, MASK.tolist(), slice(3, 3), []], ids=str)  # fmt: skip
@pytest.mark.parametrize("optional", [False, True])
def test_rows_of_all_arrays_are_cut_alike(rows: object, optional: bool) -> None:
    motion = a_motion(FRAMES, optional=optional)
    part = motion[rows]  # type: ignore[index]
    index = np.arange(FRAMES)[np.empty(0, int) if isinstance(rows, list) and not rows else rows]  # type: ignore[index]
    assert len(part) == len(index)
    for field in dataclasses.fields(Motion):
        whole, cut = getattr(motion, field.name), getattr(part, field.name)
        if whole is None:
            assert cut is None and not optional
            continue
        expected = whole[index] if field.metadata["shape"].startswith("T") else whole
        np.testing.assert_array_equal(cut, expected, err_msg=field.name)


def test_a_part_is_a_motion(motion: Motion, tmp_path: object) -> None:
    part = Motion.load(motion[2:6].save(f"{tmp_path}/part.npz"))
    np.testing.assert_array_equal(part.frame_ids, [12, 13, 14, 15])
    np.testing.assert_array_equal(part.observed, [False, False, True, True])


@pytest.mark.parametrize("rows", [3, np.int64(3), 3.0, FRAMES, [0, FRAMES], MASK[:-1], [0.5], "all", [[0, 1]], [[0], [1, 2]]], ids=str)  # fmt: skip
def test_other_rows_are_named(motion: Motion, rows: object) -> None:
    with pytest.raises(UsageError, match="rows: expected"):
        motion[rows]  # type: ignore[index]


def test_time_does_not_go_back(motion: Motion) -> None:
    for rows in (slice(None, None, -1), [2, 1], [1, 1]):
        with pytest.raises(ShapeError, match="timestamps: expected strictly increasing"):
            motion[rows]


def test_arrays_are_read_only_and_the_givers_are_not(motion: Motion) -> None:
    given = np.zeros((FRAMES, 3), np.float32)
    changed = dataclasses.replace(motion, transl=given)
    for part in (motion, changed, changed[1:]):
        for field in dataclasses.fields(Motion):
            if isinstance(value := getattr(part, field.name), np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    value[...] = 0
    given[0] = 1


def test_vertices_of_one_frame_of_some_and_of_all(motion: Motion, body: Body) -> None:
    whole = motion.vertices(body=body)
    assert whole.shape == (FRAMES, body.num_vertices, 3)
    for rows in (3, np.int64(-1), slice(1, 4), [0, 5], np.array([2]), MASK):
        np.testing.assert_allclose(motion.vertices(rows, body), whole[rows], atol=1e-6)
        np.testing.assert_array_equal(motion.pose_rotmat(rows), motion.pose_rotmat()[rows])
    for rows in (FRAMES, "3", 3.0, [0.5], MASK[1:]):
        with pytest.raises(UsageError, match="frames: expected a slice, indices from 0 to 7"):
            motion.vertices(rows, body)  # type: ignore[arg-type]


def test_the_body_takes_a_motions_arrays(motion: Motion, body: Body) -> None:
    found = body.vertices(motion.betas, motion.pose_rotmat(), motion.transl)
    np.testing.assert_array_equal(found, motion.vertices(body=body))
    joints, landmarks = body.joints_and_landmarks(motion.betas, motion.pose_rotmat().numpy(), motion.transl)
    assert joints.dtype == landmarks.dtype == torch.float32
    torch.testing.assert_close(body.joints(motion.betas.astype(float), motion.pose_rotmat(), motion.transl), joints)
    assert body.height(motion.betas).shape == ()
    with pytest.raises(ShapeError, match="betas: expected an array"):
        body.joints([0.0] * 10, motion.pose_rotmat())  # type: ignore[arg-type]
