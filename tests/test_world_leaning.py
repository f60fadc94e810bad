"""Bodies that lean along the line of sight are turned back once gravity is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from motions_seen import motion_seen, walking
from walker import walk

from kinflow.body import Body
from kinflow.motion import Motion
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.world import place
from kinflow.world.gravity import AWAY_DEG, CORRELATED_S, DEPTH_LEAN_DEG, LEAN_DEG, WOBBLE_DEG
from kinflow.world.leaning import _told, leaning, righted
from kinflow.world.person import Person

UP = (0.0, -1.0, 0.0)


def leant(motion: Motion, body: Body, degrees: np.ndarray) -> Motion:
    """The motion (T,) degrees further away from a level camera that looks along z, about the pelvis."""
    turn = rotvec_to_rotmat(torch.tensor(np.stack((-np.deg2rad(degrees), 0 * degrees, 0 * degrees), -1)))
    root = turn.float() @ rotvec_to_rotmat(torch.tensor(motion.global_orient))
    pose = motion.pose_rotmat()
    pose[:, 0] = root
    joints = body.joints(torch.tensor(motion.betas), pose, torch.tensor(motion.transl))
    return dataclasses.replace(motion, global_orient=rotmat_to_rotvec(root).numpy(), joints3d=joints.numpy())


def up_of(motion: Motion) -> torch.Tensor:
    return torch.tensor(UP, dtype=torch.float64).expand(len(motion), 3)


def test_the_lean_is_the_dense_posterior(body: Body) -> None:
    """Of a constant and an Ornstein-Uhlenbeck process under noise with two constants of its own, at uneven times."""
    motion = leant(walking(body), body, np.full(len(walking(body)), 5.0))
    times = motion.timestamps + 0.004 * np.sin(7.0 * np.arange(len(motion)))
    motion = dataclasses.replace(motion, timestamps=times - times[0])
    person, up = Person.of(motion, body), up_of(motion)
    told, variance = _told(person, up)
    lag = (person.timestamps[:, None] - person.timestamps).abs()
    square = {
        name: math.radians(value) ** 2 for name, value in (("lean", LEAN_DEG), ("deep", DEPTH_LEAN_DEG), ("up", 2.0))
    }
    wander = math.radians(WOBBLE_DEG) ** 2 * torch.exp(-lag / CORRELATED_S)
    counted = float(person.timestamps.diff().median()) / CORRELATED_S * person.whole
    noise = square["lean"] + square["up"] + torch.diag(variance / counted.clamp_min(1e-3))
    prior, always = wander + square["deep"], math.radians(AWAY_DEG)
    dense = always + prior @ torch.linalg.solve(prior + noise, told - always)
    torch.testing.assert_close(leaning(person, up, 2.0), dense, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("degrees", [-8.0, 8.0])
def test_whoever_leans_is_turned_back(body: Body, degrees: float) -> None:
    upright = walking(body)
    wrong = leant(upright, body, np.full(len(upright), degrees))
    (placed,) = place([wrong], up=UP)
    person = Person.of(wrong, body)
    # Somebody upright is told to be, up to the constant that is taken off everybody and how this walker holds himself.
    before = leaning(Person.of(upright, body), up_of(upright), 0.0)
    change = torch.rad2deg(leaning(person, up_of(wrong), 0.0) - before)
    assert 0.4 * abs(degrees) < float((change * np.sign(degrees)).mean()) < abs(degrees)
    trunk = (placed.joints3d[:, 15] - placed.joints3d[:, 0])[:, [1, 2]]
    ideal = (upright.joints3d[:, 15] - upright.joints3d[:, 0])[:, [1, 2]]
    was = (wrong.joints3d[:, 15] - wrong.joints3d[:, 0])[:, [1, 2]]
    assert np.linalg.norm(trunk - ideal, axis=-1).mean() < 0.75 * np.linalg.norm(was - ideal, axis=-1).mean()


def test_a_body_is_righted_as_a_whole(body: Body) -> None:
    motion = walking(body)
    person, up = Person.of(motion, body), up_of(motion)
    lean = torch.linspace(0.1, 0.2, len(motion), dtype=torch.float64)
    back = righted(person, lean, up)
    again = Person.of(back.motion, body)  # posed anew from its rotations
    for name in ("pelvis", "mass", "soles"):
        torch.testing.assert_close(getattr(back, name).double(), getattr(again, name).double(), atol=1e-5, rtol=0)
    joints = body.joints(torch.tensor(motion.betas), back.motion.pose_rotmat(), torch.tensor(back.motion.transl))
    np.testing.assert_allclose(back.motion.joints3d, joints.numpy(), atol=1e-5)
    heads = [m.joints3d[:, 15, 2] - m.joints3d[:, 0, 2] for m in (motion, back.motion)]
    assert (heads[0] > heads[1]).all()  # who leant away comes towards the camera


def test_whoever_is_righted_stays_in_the_picture(body: Body) -> None:
    """From above, somebody turned by 10 degrees is taller or smaller by a tenth: at another distance joints are where they were."""
    steps = walk(60)
    motion = motion_seen(body, steps.pose_rotmat, steps.transl + torch.tensor([0.0, 2.2, 0.0]))
    lean = torch.full((len(motion),), -0.17, dtype=torch.float64)
    back = righted(Person.of(motion, body), lean, up_of(motion)).motion
    held = back.joints3d + (motion.transl - back.transl)[:, None]
    seen = [x[..., :2] / x[..., 2:] for x in (motion.joints3d, back.joints3d, held)]
    moved, if_held = (np.linalg.norm(x - seen[0], axis=-1).mean() for x in seen[1:])
    assert moved < 0.7 * if_held and moved < 0.008


def test_nothing_is_turned_where_up_is_not_known(body: Body) -> None:
    """One frame in which legs are out of sight says nothing of up: the camera is taken as level, and nobody is turned by that."""
    motion = walking(body)[np.arange(1)]
    person = Person.of(motion, body)
    assert leaning(person, up_of(motion), 3.0).shape == (1,)
    blind = dataclasses.replace(motion, confidence=np.zeros_like(motion.confidence))
    (placed,) = place([blind])
    np.testing.assert_array_equal(placed.global_orient, motion.global_orient)
