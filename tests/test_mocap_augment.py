"""Augmentation of motions: what must stay and what must change."""

from __future__ import annotations

import math

import pytest
import torch

from kinflow.errors import UsageError
from kinflow.mocap.augment import (
    LOWER_BODY,
    UPPER_BODY,
    Moves,
    exchange_bodies,
    mirror,
    moves_of,
    resample,
    time_warp,
    turn_heading,
)
from kinflow.mocap.retarget import smpl_forward
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat
from kinflow.skeleton import MIRROR_SMPL


def random_moves(*batch: int, frames: int = 7, scale: float = 0.4, fps: float = 30.0) -> Moves:
    rotmats = rotvec_to_rotmat(scale * torch.randn(*batch, frames, 24, 3, dtype=torch.float64))
    transl = torch.randn(*batch, frames, 3, dtype=torch.float64)
    return Moves(rotmats, transl, torch.ones(*batch, frames, dtype=torch.bool), fps)


def joints(moves: Moves) -> torch.Tensor:
    flat = moves.rotmats.reshape(-1, 24, 3, 3).numpy()
    return torch.from_numpy(smpl_forward(flat, moves.transl.reshape(-1, 3).numpy())).unflatten(
        0, moves.transl.shape[:-1]
    )


def test_mirror_mirrors_joint_positions() -> None:
    moves = random_moves(2)
    expected = joints(moves)[..., list(MIRROR_SMPL), :] * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(joints(mirror(moves)), expected)
    torch.testing.assert_close(mirror(mirror(moves)).rotmats, moves.rotmats)


def test_heading_turns_the_whole_motion_about_its_start() -> None:
    moves = random_moves(3)
    angle = torch.tensor([0.0, math.pi / 2, -1.0], dtype=torch.float64)
    turned = turn_heading(moves, angle)
    torch.testing.assert_close(turned.rotmats[..., 1:, :, :], moves.rotmats[..., 1:, :, :])
    torch.testing.assert_close(turned.transl[:, 0], moves.transl[:, 0])
    centre = moves.transl[:, :1, None]
    rotation = rotvec_to_rotmat(torch.stack((0 * angle, angle, 0 * angle), -1))
    expected = centre + torch.einsum("bij,btkj->btki", rotation, joints(moves) - centre)
    torch.testing.assert_close(joints(turned), expected)
    torch.testing.assert_close(turned.rotmats[0], moves.rotmats[0])


def test_resample_hits_frames_and_goes_between_them() -> None:
    moves = random_moves(2, frames=5)
    same = resample(moves, torch.arange(5.0))
    torch.testing.assert_close(same.rotmats, moves.rotmats, atol=1e-9, rtol=0)
    half = resample(moves, torch.tensor([1.5]))
    a, b = moves.rotmats[:, 1], moves.rotmats[:, 2]
    torch.testing.assert_close(geodesic_distance(a, half.rotmats[:, 0]), geodesic_distance(a, b) / 2)
    torch.testing.assert_close(half.transl[:, 0], (moves.transl[:, 1] + moves.transl[:, 2]) / 2)
    marked = Moves(moves.rotmats, moves.transl, torch.tensor([True, True, False, True, True]).expand(2, 5), 30.0)
    valid = resample(marked, torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])).valid[0]
    assert valid.tolist() == [True, True, False, False, False, True]
    with pytest.raises(UsageError, match="where"):
        resample(moves, torch.tensor([4.1]))


@pytest.mark.parametrize("swing", [0.0, 0.6])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_time_warp_keeps_start_order_and_speed(speed: float, swing: float) -> None:
    frames = 41
    moves = random_moves(frames=frames)
    steady = Moves(moves.rotmats, torch.arange(frames, dtype=torch.float64)[:, None].expand(-1, 3), moves.valid, 60.0)
    warped = time_warp(steady, speed, swing, phase=0.7)
    place = warped.transl[:, 0]
    assert warped.fps == 60.0 and len(place) == int(40 / speed) + 1
    assert place[0] == 0 and (place.diff() > 0).all() and place[-1] == pytest.approx(40, abs=1e-6)
    if swing == 0:
        torch.testing.assert_close(place.diff(), torch.full_like(place[1:], speed))
    else:
        assert place.diff().max() > 1.3 * place.diff().min()
    with pytest.raises(UsageError):
        time_warp(steady, 0.0)


def test_exchange_takes_legs_from_one_and_chest_from_the_other() -> None:
    lower, upper = random_moves(2, scale=0.2), random_moves(2, scale=0.2)
    both = exchange_bodies(lower, upper)
    legs, chest = list(LOWER_BODY), list(UPPER_BODY)
    assert sorted([0, 3, *legs, *chest]) == list(range(24))
    torch.testing.assert_close(both.rotmats[:, :, [0, *legs]], lower.rotmats[:, :, [0, *legs]])
    torch.testing.assert_close(both.rotmats[:, :, chest], upper.rotmats[:, :, chest])
    torch.testing.assert_close(both.transl, lower.transl)
    # The spine joint's tilt against the vertical is the upper motion's.
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    mine = both.rotmats[:, :, 0] @ both.rotmats[:, :, 3] @ up
    theirs = upper.rotmats[:, :, 0] @ upper.rotmats[:, :, 3] @ up
    torch.testing.assert_close(mine[..., 1], theirs[..., 1])
    torch.testing.assert_close(exchange_bodies(lower, lower).rotmats, lower.rotmats)
    turned = exchange_bodies(lower, turn_heading(upper, 2.0))
    torch.testing.assert_close(turned.rotmats, both.rotmats)  # the other's heading does not matter
    with pytest.raises(UsageError, match="upper"):
        exchange_bodies(lower, random_moves(2, frames=8))


def test_exchange_rejects_a_broken_back() -> None:
    lower, upper = random_moves(scale=0.0), random_moves(scale=0.0)
    rotmats = lower.rotmats.clone()
    rotmats[3, 0] = rotvec_to_rotmat(torch.tensor([math.pi, 0.0, 0.0], dtype=torch.float64))  # on the hands
    both = exchange_bodies(Moves(rotmats, lower.transl, lower.valid, 30.0), upper)
    assert both.valid.tolist() == [True, True, True, False, True, True, True]


def test_moves_of_a_clip() -> None:
    from test_mocap import clip

    one = clip("a", 6)
    moves = moves_of(one, torch.float64)
    assert moves.rotmats.shape == (6, 24, 3, 3) and moves.fps == 60
    torch.testing.assert_close(
        moves.rotmats[:, 0], rotvec_to_rotmat(torch.from_numpy(one.global_orient).to(torch.float64))
    )
    assert moves.valid.tolist() == one.valid.tolist()
