"""Feet that stand, told by the prior: lines through noisy places, somebody who stands, steps and jumps, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.body.soles import soles_of
from kinflow.errors import KinflowError
from kinflow.prior import MotionPrior
from kinflow.prior.contacts import foot_motion, local_lines
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS

HIP, KNEE = (SMPL_JOINTS.index(f"right_{j}") - 1 for j in ("hip", "knee"))


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
    return MotionPrior.load()


def lifting() -> tuple[Tensor, Tensor, Tensor]:
    """Two seconds at 30 frames/s: the right knee is raised from 0.6 to 1.4 s, the left foot stands; body turned and placed."""
    times = torch.arange(60, dtype=torch.float64) / 30
    lift = torch.where((times > 0.6) & (times < 1.4), torch.sin((times - 0.6) / 0.8 * math.pi), 0.0).clamp_min(0)
    pose = torch.zeros(60, 23, 3, dtype=torch.float64)
    pose[:, HIP, 0] = -1.2 * lift
    pose[:, KNEE, 0] = 1.4 * lift
    orient = torch.zeros(60, 3, dtype=torch.float64)
    orient[:, 1] = 0.7
    return pose, orient, torch.tensor([2.0, 1.3, -4.0], dtype=torch.float64).expand(60, 3)


def test_lines_are_exact_for_straight_motion_and_steady_for_noise() -> None:
    times = torch.sort(torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2).values
    values = torch.stack((3 * times - 1, -0.5 * times), 1)
    place, slope = local_lines(values, times)
    torch.testing.assert_close(place, values)
    torch.testing.assert_close(slope, torch.tensor([[3.0, -0.5]], dtype=torch.float64).expand(40, 2))
    times = torch.arange(6000, dtype=torch.float64) / 60
    noise = 0.01 * torch.randn(6000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # With a Gaussian window w the slope has the variance noise^2 sum(w^2 t^2) / sum(w t^2)^2.
    expected = 0.01 * math.sqrt(1 / (60 * 4 * math.sqrt(math.pi) * 0.05**3))
    assert float(local_lines(noise, times)[1][30:-30].std()) == pytest.approx(expected, rel=0.15)
    alone = local_lines(noise[:1], times[:1])
    assert torch.equal(alone[0], noise[:1]) and not alone[1].any()


def test_speed_and_height_are_those_of_the_soles() -> None:
    pose, orient, transl = lifting()
    times = torch.arange(60, dtype=torch.float64) / 30
    speed, height = foot_motion(rotvec_to_rotmat(pose[:, :21]), rotvec_to_rotmat(orient), transl, times)
    body = Body.open("light")
    full = full_pose(rotvec_to_rotmat(pose[:, :21]).float(), rotvec_to_rotmat(orient).float())
    points = soles_of(body, torch.zeros(10)).posed(*body.transforms(torch.zeros(10), full, transl.float()))
    lowest = points[..., 1].amin(-1)
    assert float((height[:12] - (lowest[:12] - lowest.min()).double()).abs().max()) < 0.01
    assert float(speed[5].exp().max()) < 0.021 and float(speed[22, 2:].exp().min()) > 0.5


def test_who_lifts_a_foot_stands_on_the_other(prior: MotionPrior) -> None:
    pose, orient, transl = lifting()
    found = prior.contacts(pose, orient, transl, fps=30)
    assert found.shape == (60, 4)
    assert float(found[:, :2].min()) > 0.8  # the left foot stands throughout
    assert float(found[24:38, 2:].max()) < 0.05 and float(found[:10, 2:].min()) > 0.8
    shaken = transl + 0.005 * torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(((prior.contacts(pose, orient, shaken, fps=30) > 0.5) == (found > 0.5)).double().mean()) > 0.95
    higher = prior.contacts(pose, orient, transl + torch.tensor([5.0, 9.0, 1.0]).double(), fps=30)
    torch.testing.assert_close(higher, found, atol=1e-3, rtol=0)


def test_frames_that_are_not_valid_are_not_looked_at(prior: MotionPrior) -> None:
    pose, orient, transl = (x[None].repeat(2, 1, 1, 1) if x.dim() == 3 else x[None].repeat(2, 1, 1) for x in lifting())
    valid = torch.ones(2, 60, dtype=torch.bool)
    valid[0, 50:] = False
    spoilt = transl.clone()
    spoilt[0, 50:] = math.nan
    found = prior.contacts(pose, orient, spoilt, fps=30, valid=valid)
    assert not found[0, 50:].any()
    torch.testing.assert_close(
        found[0, :50], prior.contacts(pose[:1, :50], orient[:1, :50], transl[:1, :50], fps=30)[0]
    )
    torch.testing.assert_close(found[1], prior.contacts(pose[1:], orient[1:], transl[1:], fps=30)[0])
    assert prior.contacts(pose[:, :1], orient[:, :1], transl[:, :1], fps=30).shape == (2, 1, 4)


@pytest.mark.parametrize(
    ("change", "match"),
    (
        ({"transl": torch.zeros(60, 2)}, "transl"),
        ({"global_orient": torch.zeros(59, 3)}, "global_orient"),
        ({"transl": torch.full((60, 3), math.nan)}, "transl.*NaN"),
        ({"fps": None}, "timestamps, fps"),
    ),
)
def test_bad_input_is_named(prior: MotionPrior, change: dict[str, object], match: str) -> None:
    pose, orient, transl = lifting()
    given = {"body_pose": pose, "global_orient": orient, "transl": transl, "fps": 30.0, **change}
    with pytest.raises(KinflowError, match=match):
        prior.contacts(**given)  # type: ignore[arg-type]
