"""kinflow-smooth --lock-feet: feet that stand no longer slide, whichever axis is up; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_prior_contacts import lifting

from kinflow.apps.lock_feet import AXES, lock_feet
from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.body.soles import soles_of
from kinflow.cli.smooth import main
from kinflow.prior import MotionPrior
from kinflow.rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS

Array = NDArray[Any]
TIMES = np.arange(60) / 30
LEGS = [SMPL_JOINTS.index(f"{s}_{j}") - 1 for s in ("left", "right") for j in ("hip", "knee", "ankle")]


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
    return MotionPrior.load()


def swaying() -> tuple[Array, Array, Array]:
    """Somebody who lifts the right foot, whose root a tracker sways by 2 cm back and forth: pose, root and place, y up."""
    pose, orient, transl = lifting()
    sway = 0.02 * torch.sin(2 * torch.pi * torch.from_numpy(TIMES) / 1.5)[:, None]
    place = transl + sway * torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    return rotvec_to_rotmat(pose[:, :21]).numpy(), rotvec_to_rotmat(orient).numpy(), place.numpy()


def left_foot(pose: Array, root: Array, place: Array) -> Array:
    """Heel and toe (T, 2, 3) m of the left foot, by forward kinematics of the whole body."""
    body = Body.open("light")
    full = full_pose(torch.from_numpy(pose).float(), torch.from_numpy(root).float())
    turned, placed = body.transforms(torch.zeros(10), full, torch.from_numpy(place).float())
    return soles_of(body, torch.zeros(10)).posed(turned, placed).mean(-2)[:, :2].double().numpy()


def test_a_foot_that_stands_stays_on_its_spot(prior: MotionPrior) -> None:
    pose, root, place = swaying()
    valid = np.ones(60, bool)
    valid[50:] = False
    found, (before, after) = lock_feet(pose, root, place, TIMES, valid, "y", prior)
    slid = [np.ptp(left_foot(p, root, place)[:50], axis=0).max() for p in (pose, found)]
    assert slid[0] > 0.035 and slid[1] < 0.35 * slid[0]
    steps = np.linalg.norm(np.diff(left_foot(pose, root, place)[:50], axis=0), axis=-1).mean()
    assert 1000 * steps < before < 3000 * steps and after < 0.35 * before  # of all parts, the landing one's too
    turned = geodesic_distance(torch.from_numpy(pose), torch.from_numpy(found)).numpy()
    assert not np.delete(turned, LEGS, axis=1).any() and not turned[50:].any()
    assert 1e-3 < turned[:50, LEGS].max() < np.deg2rad(12)


@pytest.mark.parametrize("up", [a for a in AXES if a != "y"])
def test_any_axis_may_be_up(prior: MotionPrior, up: str) -> None:
    pose, root, place = swaying()
    valid = np.ones(60, bool)
    expected, _ = lock_feet(pose, root, place, TIMES, valid, "y", prior)
    towards = np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    turn = rotvec_to_rotmat(torch.tensor(AXES[up], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(turn @ towards, [0, 1, 0], atol=1e-12)
    # The same motion in a world whose axis is up: SMPL turns about the pelvis, not about the origin.
    rest = Body.open("light").rest_joints(torch.zeros(10))[0].double().numpy()
    found, _ = lock_feet(pose, turn.T @ root, (place + rest) @ turn - rest, TIMES, valid, up, prior)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(a) for a in arguments])
    told = capsys.readouterr()
    return code, told.out if code == 0 else told.err


def test_the_command_locks_and_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pose, root, place = swaying()
    flat = rotmat_to_rotvec(torch.from_numpy(pose)).numpy()
    arrays = {"body_pose": flat, "global_orient": rotmat_to_rotvec(torch.from_numpy(root)).numpy(), "transl": place}
    np.savez(tmp_path / "in.npz", **arrays, fps=30.0)
    source, out = tmp_path / "in.npz", tmp_path / "out.npz"
    common = [source, "-o", out, "--noise", 0.5, "--transl-noise", 0.001, "--json"]
    code, told = run(capsys, *common)
    assert code == 0 and json.loads(told)["sliding_after"] is None
    plain = dict(np.load(out))
    code, told = run(capsys, *common, "--lock-feet", "--up", "y")
    summary = json.loads(told)
    assert code == 0 and summary["sliding_after"] < 0.4 * summary["sliding_before"]
    locked = dict(np.load(out))
    assert all(np.array_equal(plain[k], locked[k]) for k in ("global_orient", "transl"))
    assert np.abs(plain["body_pose"][:, LEGS] - locked["body_pose"][:, LEGS]).max() > 0.01
    np.savez(tmp_path / "amass.npz", poses=np.zeros((60, 156)), trans=place, mocap_framerate=30.0)
    assert run(capsys, tmp_path / "amass.npz", "-o", out, "--lock-feet", "--json")[0] == 0  # z is up there


@pytest.mark.parametrize(
    ("arguments", "word"),
    (
        (("--lock-feet",), "--up"),
        (("--up", "y"), "--lock-feet"),
        (("--lock-feet", "--up", "north"), "up: expected one of"),
        (("--lock-feet", "--up", "y", "--fill", "only"), "lock_feet"),
    ),
)
def test_what_does_not_fit_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    arrays = {"global_orient": np.zeros((4, 3)), "body_pose": np.zeros((4, 63)), "transl": np.zeros((4, 3))}
    np.savez(tmp_path / "in.npz", **arrays, fps=30.0)
    code, told = run(capsys, tmp_path / "in.npz", "-o", tmp_path / "out.npz", *arguments)
    assert code == 2 and word in told and not (tmp_path / "out.npz").exists()
    np.savez(tmp_path / "body.npz", body_pose=np.zeros((4, 63)), fps=30.0)
    code, told = run(capsys, tmp_path / "body.npz", "-o", tmp_path / "out.npz", "--lock-feet", "--up", "y")
    assert code == 2 and "no root orientation" in told
