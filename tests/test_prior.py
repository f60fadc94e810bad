"""MotionPrior: what it promises a tracker."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinflow.config import DynamicsConfig, FlowConfig
from kinflow.dynamics import LatentDynamics
from kinflow.errors import KinflowError, ShapeError, UsageError
from kinflow.flow import PoseFlow
from kinflow.prior import MotionPrior
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
    """Small, untrained, away from the identity, in float64."""
    torch.manual_seed(3)
    flow = PoseFlow(FlowConfig(layers=2, hidden=8, bins=4, dropout=0.0))
    dynamics = LatentDynamics(DynamicsConfig(hidden=8, ode_hidden=8, head_hidden=8, rank=2, dropout=0.0))
    flow.fit_chart(rotvec_to_rotmat(0.4 * torch.randn(400, 21, 3)))
    with torch.no_grad():
        for p in [*flow.parameters(), *dynamics.parameters()]:
            p.add_(0.05 * torch.randn_like(p))
    return MotionPrior(flow, dynamics).double().eval().requires_grad_(False)


def motion(batch: int = 2, frames: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = 0.4 * torch.randn(batch, 1, 23, 3, generator=generator, dtype=torch.float64)
    return start + 0.03 * torch.randn(batch, frames, 23, 3, generator=generator, dtype=torch.float64).cumsum(1)


TIMES = torch.arange(7, dtype=torch.float64) / 25


def test_forms_of_input_agree(prior: MotionPrior) -> None:
    pose = motion()
    expected = prior.log_prob(pose, TIMES)
    assert expected.shape == (2, 7)
    torch.testing.assert_close(prior.log_prob(pose, fps=25), expected)
    torch.testing.assert_close(prior.log_prob(pose[..., :21, :], TIMES.expand(2, 7)), expected)
    torch.testing.assert_close(prior.log_prob(rotvec_to_rotmat(pose), TIMES), expected)
    torch.testing.assert_close(prior(pose, TIMES), expected)
    single = prior.float().log_prob(pose.float(), TIMES)
    prior.double()
    torch.testing.assert_close(single.double(), expected, rtol=1e-3, atol=0.1)


def test_first_frame_has_the_flows_density(prior: MotionPrior) -> None:
    pose = motion()
    torch.testing.assert_close(
        prior.log_prob(pose, TIMES)[:, 0], prior.flow.log_prob(rotvec_to_rotmat(pose[:, 0, :21])), rtol=0, atol=1e-9
    )


def test_invalid_frames_are_not_looked_at(prior: MotionPrior) -> None:
    pose = motion()
    valid = torch.tensor([[True, True, False, True, True, False, True]]).expand(2, 7)
    expected = prior.log_prob(pose, TIMES, valid=valid)
    broken = pose.clone()
    broken[~valid] = math.nan
    torch.testing.assert_close(prior.log_prob(broken, TIMES, valid=valid), expected)
    assert (expected[~valid] == 0).all()


def test_root_motion_conditions(prior: MotionPrior) -> None:
    pose = motion()
    root = {"global_orient": 0.1 * torch.randn(2, 7, 3).double().cumsum(1), "transl": torch.randn(2, 7, 3).double()}
    value = prior.log_prob(pose, TIMES, **root)
    assert not torch.allclose(value[:, 2:], prior.log_prob(pose, TIMES)[:, 2:])
    with pytest.raises(UsageError, match="both or neither"):
        prior.log_prob(pose, TIMES, transl=root["transl"])


def test_gradient(prior: MotionPrior) -> None:
    def value(pose: Tensor) -> Tensor:
        return prior.log_prob(pose.unflatten(-1, (21, 3)), TIMES[:3]).sum()

    pose = motion(1, 3)[..., :21, :].flatten(-2).requires_grad_()
    (gradient,) = torch.autograd.grad(value(pose), pose)
    direction = torch.randn_like(pose)
    numeric = (value(pose.detach() + 1e-5 * direction) - value(pose.detach() - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-5)


def test_encode_and_decode(prior: MotionPrior) -> None:
    pose = motion()
    back = prior.decode(prior.encode(pose))
    assert back.shape == (2, 7, 23, 3) and (back[..., 21:, :] == 0).all()
    assert geodesic_distance(rotvec_to_rotmat(back), rotvec_to_rotmat(pose))[..., :21].max() < 1e-6


def test_sample_and_forecast(prior: MotionPrior) -> None:
    draws = prior.sample(TIMES, 3, generator=torch.Generator().manual_seed(0))
    assert draws.shape == (3, 7, 23, 3) and torch.isfinite(draws).all()
    torch.testing.assert_close(draws, prior.sample(TIMES, 3, generator=torch.Generator().manual_seed(0)))
    pose, future = motion(), torch.tensor([0.26, 0.4, 0.5], dtype=torch.float64)
    expected = prior.forecast(pose, TIMES, future)
    assert expected.shape == (2, 3, 23, 3)
    torch.testing.assert_close(prior.forecast(pose[1:], TIMES, future), expected[1:])
    assert prior.forecast(pose, TIMES, future, samples=4).shape == (2, 4, 3, 23, 3)
    with pytest.raises(ShapeError, match="future"):
        prior.forecast(pose, TIMES, torch.tensor([0.1, 0.3], dtype=torch.float64))


def test_infill_keeps_what_is_seen_and_climbs(prior: MotionPrior) -> None:
    pose = motion()
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[:, 2:5] = False
    start, filled = (prior.infill(pose, TIMES, valid=valid, steps=s) for s in (0, 60))
    torch.testing.assert_close(filled[valid][..., :21, :], pose[valid][..., :21, :], rtol=0, atol=1e-7)

    def density(poses: Tensor) -> Tensor:
        return prior.dynamics.log_prob(prior.encode(poses), TIMES.expand(2, 7)).sum()

    assert density(filled) > density(start) + 1


def test_denoise_moves_towards_the_prior(prior: MotionPrior) -> None:
    pose = motion() + 0.1 * torch.randn(2, 7, 23, 3, dtype=torch.float64)
    clean = prior.denoise(pose, TIMES, noise=0.1)
    assert prior.log_prob(clean, TIMES).sum() > prior.log_prob(pose, TIMES).sum()
    barely = prior.denoise(pose, TIMES, noise=1e-3, steps=20)
    near, far = (
        geodesic_distance(rotvec_to_rotmat(x), rotvec_to_rotmat(pose))[..., :21, ].mean() for x in (barely, clean)
    )  # fmt: skip
    assert near < far


@pytest.mark.parametrize(
    ("change", "match"),
    (
        ({"body_pose": torch.zeros(2, 7, 24, 3)}, "body_pose.*23 or 21"),
        ({"body_pose": torch.zeros(7, 23, 3)}, "body_pose"),
        ({"body_pose": torch.full((2, 7, 23, 3), math.nan)}, "NaN"),
        ({"body_pose": torch.zeros(2, 7, 23, 3, dtype=torch.int64)}, "floating"),
        ({"body_pose": torch.zeros(0, 7, 23, 3)}, "at least one"),
        ({"timestamps": TIMES.flip(0)}, "increasing"),
        ({"timestamps": TIMES[:5]}, "timestamps"),
        ({"timestamps": None}, "timestamps, fps"),
        ({"fps": 30.0}, "timestamps, fps"),
        ({"timestamps": None, "fps": 0.0}, "fps"),
        ({"valid": torch.zeros(2, 7, dtype=torch.bool)}, "valid"),
        ({"valid": torch.ones(2, 6, dtype=torch.bool)}, "valid"),
    ),
)
def test_bad_input_is_named(prior: MotionPrior, change: dict[str, object], match: str) -> None:
    arguments = {"body_pose": motion(), "timestamps": TIMES, **change}
    with pytest.raises(KinflowError, match=match):
        prior.log_prob(**arguments)  # type: ignore[arg-type]


def test_one_frame_and_the_far_out(prior: MotionPrior) -> None:
    assert torch.isfinite(prior.log_prob(motion(1, 1), fps=30)).all()
    far = torch.full((1, 3, 23, 3), math.pi / math.sqrt(3), dtype=torch.float64, requires_grad=True)
    value = prior.log_prob(far, fps=30)
    (gradient,) = torch.autograd.grad(value.sum(), far)
    assert torch.isfinite(value).all() and torch.isfinite(gradient).all()


def test_packaged_prior_tells_motion_from_its_shuffled_frames() -> None:
    packaged = MotionPrior.load()
    generator = torch.Generator().manual_seed(0)
    z = packaged.dynamics.initial_state((1,)).z  # its type and device
    ends = 0.5 * torch.randn(4, 2, 63, generator=generator).to(z)
    share = (0.5 - 0.5 * torch.cos(torch.linspace(0, math.pi, 40)))[:, None].to(z)
    pose = packaged.decode(ends[:, :1] + share * (ends[:, 1:] - ends[:, :1]))
    order = torch.randperm(40, generator=generator)
    right, wrong = packaged.log_prob(pose, fps=30), packaged.log_prob(pose[:, order], fps=30)
    assert (right.mean(1) > wrong.mean(1) + 20).all()
    alone = torch.cat([packaged.log_prob(p[None], fps=30) for p in pose])
    torch.testing.assert_close(right, alone, rtol=1e-4, atol=2e-3)
    draws = packaged.sample(torch.arange(30) / 30, 4, generator=generator)
    assert torch.isfinite(draws).all()
