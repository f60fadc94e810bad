"""MotionPrior: what it promises a tracker."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_motion import a_motion
from torch import Tensor

from kinflow.config import DenoiserConfig, DynamicsConfig, FlowConfig, TiltConfig
from kinflow.denoiser import Denoiser
from kinflow.dynamics import LatentDynamics
from kinflow.errors import KinflowError, ShapeError, UsageError
from kinflow.flow import PoseFlow
from kinflow.flow.tilt import TiltDensity
from kinflow.prior import MotionPrior
from kinflow.prior.motion_prior import RANGE
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
    """Small, untrained, away from the identity, in float64."""
    torch.manual_seed(3)
    flow = PoseFlow(FlowConfig(layers=2, hidden=8, bins=4, dropout=0.0))
    dynamics = LatentDynamics(DynamicsConfig(hidden=8, ode_hidden=8, head_hidden=8, rank=2, dropout=0.0))
    flow.fit_chart(rotvec_to_rotmat(0.4 * torch.randn(400, 21, 3)))
    denoiser = Denoiser(DenoiserConfig(width=24, hidden=16, layers=2, heads=2, dropout=0.0))
    tilt = TiltDensity(TiltConfig(width=16, layers=1))
    tilt.rest_joints.normal_(0, 0.3)
    with torch.no_grad():
        for p in [*flow.parameters(), *dynamics.parameters(), *denoiser.parameters(), *tilt.parameters()]:
            p.add_(0.05 * torch.randn_like(p))
    return MotionPrior(flow, dynamics, denoiser, tilt).double().eval().requires_grad_(False)


def motion(batch: int = 2, frames: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = 0.4 * torch.randn(batch, 1, 23, 3, generator=generator, dtype=torch.float64)
    return start + 0.03 * torch.randn(batch, frames, 23, 3, generator=generator, dtype=torch.float64).cumsum(1)


TIMES = torch.arange(7, dtype=torch.float64) / 25
UP = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(2, 7, 3)


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


def test_root_of_frames_that_are_not_valid_is_not_looked_at(prior: MotionPrior) -> None:
    pose, valid = motion(), torch.tensor([[True, True, False, True, False, False, True]]).expand(2, 7)
    root = {"global_orient": 0.1 * torch.randn(2, 7, 3).double().cumsum(1), "transl": torch.randn(2, 7, 3).double()}
    expected = prior.log_prob(pose, TIMES, valid=valid, **root)
    for fill in (math.nan, 100.0):
        other = {k: torch.where(valid[..., None], v, fill).requires_grad_() for k, v in root.items()}
        value = prior.log_prob(pose, TIMES, valid=valid, **other)
        torch.testing.assert_close(value, expected)
        gradients = torch.autograd.grad(value.sum(), list(other.values()))
        assert all(torch.isfinite(g).all() and (g[~valid] == 0).all() and (g[valid] != 0).any() for g in gradients)
    for name in root:  # where a frame is valid, NaN is an error by name
        with pytest.raises(ShapeError, match=name):
            prior.log_prob(pose, TIMES, **{**root, name: torch.full_like(root[name], math.nan)})


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


def test_draws_stay_in_the_range_of_poses(prior: MotionPrior) -> None:
    """Dynamics that run away, whatever is drawn: the flow's density of every pose stays above the bound, or that of the start."""
    wild = copy.deepcopy(prior)
    with torch.no_grad():
        wild.dynamics.log_spread += 2.5
    generator = torch.Generator().manual_seed(0)
    drawn = wild.sample(torch.arange(30) / 24, 6, temperature=1.0, generator=generator)
    nats = wild.flow.log_prob(rotvec_to_rotmat(drawn[:, :, :21]))
    assert bool((nats >= nats[:, :1].clamp(max=RANGE) - 1e-6).all()) and float(drawn.diff(dim=1).abs().max()) > 0.01
    far = torch.full((1, 2, 23, 3), 1.5, dtype=torch.float64)  # what was given may be anything
    later = wild.forecast(far, TIMES[:2], TIMES[2:], samples=2, temperature=1.0, generator=generator)
    least = wild.flow.log_prob(rotvec_to_rotmat(far[:, -1, :21]))
    assert float(least) < RANGE
    assert bool((wild.flow.log_prob(rotvec_to_rotmat(later[..., :21, :])) >= least - 1e-6).all())


def test_draws_of_a_padded_clip_start_at_its_last_valid_frame(prior: MotionPrior) -> None:
    pose, future = motion(1), torch.tensor([0.18, 0.3], dtype=torch.float64)  # s; the fifth frame is at 0.16
    valid = torch.tensor([[True, True, False, True, True, False, False]])
    padded, alone = (
        prior.forecast(
            pose[:, :n], TIMES[:n], future, 3, valid=valid[:, :n], generator=torch.Generator().manual_seed(0)
        )
        for n in (7, 5)
    )
    torch.testing.assert_close(padded, alone)


def test_infill_keeps_what_is_seen_and_meets_it(prior: MotionPrior) -> None:
    pose = motion(frames=40)[..., :21, :]
    times = torch.arange(40, dtype=torch.float64) / 60
    valid = torch.ones(2, 40, dtype=torch.bool)
    valid[:, 12:25] = False
    broken = torch.where(valid[..., None, None], pose, math.nan)
    filled = prior.infill(broken, times, valid=valid)[..., :21, :]
    torch.testing.assert_close(filled[valid], pose[valid], rtol=0, atol=1e-7)
    steps = geodesic_distance(rotvec_to_rotmat(filled[:, 1:]), rotvec_to_rotmat(filled[:, :-1])).mean(-1)
    assert steps[:, (11, 24)].max() < 3 * steps[:, 13:23].max() + 0.02  # no jump where the gap begins and ends


def test_denoise_takes_noise_away(prior: MotionPrior) -> None:
    clean = motion(frames=50)[..., :21, :] * 0.5
    clean = clean.mean(1, keepdim=True).expand_as(clean)
    noisy = clean + 0.1 * torch.randn(clean.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = prior.denoise(noisy, fps=30, noise=0.1)[..., :21, :]

    def off(pose: Tensor) -> Tensor:
        return geodesic_distance(rotvec_to_rotmat(pose), rotvec_to_rotmat(clean)).mean()

    assert off(out) < 0.6 * off(noisy)
    with pytest.raises(UsageError, match="noise"):
        prior.denoise(noisy, fps=30, noise=0.0)
    with pytest.raises(UsageError, match=r"noise: expected rad.*got 5"):
        prior.denoise(noisy, fps=30, noise=5)
    with pytest.raises(ShapeError, match="noise"):
        prior.denoise(noisy, fps=30, noise=torch.full((3,), 0.1))


def test_estimates_do_not_depend_on_batch_mates_or_padding(prior: MotionPrior) -> None:
    pose = motion(2, 150)
    times = torch.arange(150, dtype=torch.float64) / 50
    valid = torch.ones(2, 150, dtype=torch.bool)
    valid[1, 90:] = False
    stamps = times.repeat(2, 1)
    stamps[1, 90:] = 0  # padding, with time stamps that mean nothing
    for call in (
        lambda p, t, v: prior.denoise(p, t, valid=v, noise=0.05),
        lambda p, t, v: prior.log_prob(p, t, valid=v),
        lambda p, t, v: prior.infill(p, t, valid=v),
    ):
        both = call(pose, stamps, valid)
        torch.testing.assert_close(both[:1], call(pose[:1], times[None], valid[:1]), rtol=0, atol=1e-5)
        alone = call(pose[1:, :90], times[None, :90], valid[1:, :90])
        torch.testing.assert_close(both[1:, :90], alone, rtol=0, atol=1e-5)


def test_far_from_everything_seen_the_turn_is_the_shortest(prior: MotionPrior) -> None:
    pose = motion(1, 400)[..., :21, :]
    valid = torch.ones(1, 400, dtype=torch.bool)
    valid[:, 10:390] = False
    filled = rotvec_to_rotmat(prior.infill(pose, fps=50, valid=valid)[..., :21, :])
    middle = (filled[:, 200:201].mT @ filled[:, 201:202]).squeeze()
    turn = geodesic_distance(filled[:, 9], filled[:, 390])
    torch.testing.assert_close(geodesic_distance(middle, torch.eye(3).double()), turn[0] / 381, rtol=1e-3, atol=1e-5)


def test_forecast_does_not_depend_on_the_rate_of_recording(prior: MotionPrior) -> None:
    times = torch.arange(241, dtype=torch.float64) / 120
    start, speed = motion(1, 1), 0.3 * torch.randn(1, 1, 23, 3, dtype=torch.float64)
    pose = start + speed * torch.sin(4 * times)[:, None, None]
    future = torch.tensor([2.2, 2.5], dtype=torch.float64)
    every = [prior.forecast(pose[:, ::k], times[::k], future) for k in (1, 2, 5, 10)]
    for other in every[1:]:
        torch.testing.assert_close(other, every[0], rtol=0, atol=1e-9)
    odd = torch.sort(torch.randperm(240)[:120]).values
    odd = torch.cat((odd, torch.tensor([240])))
    assert (prior.forecast(pose[:, odd], times[odd], future) - every[0]).abs().max() < 0.02


def test_sum_over_frames_is_the_sum_of_conditionals(prior: MotionPrior) -> None:
    pose = motion()
    whole = prior.log_prob(pose, TIMES)
    state, total = prior.dynamics.initial_state((2,)), []
    for t in range(7):
        if t:
            state = prior.dynamics.advance(state, float(TIMES[t] - TIMES[t - 1]))
        rotmat = rotvec_to_rotmat(pose[:, t, :21])
        x, log_det = prior.chart.encode(rotmat)
        later = prior.dynamics.predict(state).log_prob(x) + log_det
        total.append(later if t else prior.flow.log_prob(rotmat))
        state = prior.dynamics.update(state, x)
    torch.testing.assert_close(torch.stack(total, 1), whole, rtol=0, atol=1e-8)


def test_plausibility_is_mean_plus_least(prior: MotionPrior) -> None:
    pose, valid = motion(), torch.ones(2, 7, dtype=torch.bool)
    valid[1, 2] = False
    nats = prior.log_prob(pose, TIMES, valid=valid)
    own = [n[v][2:] for n, v in zip(nats, valid, strict=True)]
    expected = torch.stack([x.mean() + x.min() for x in own])
    torch.testing.assert_close(prior.plausibility(pose, TIMES, valid=valid), expected)
    assert torch.isfinite(prior.plausibility(pose[:, :1], fps=30)).all()


def test_core_exports(prior: MotionPrior) -> None:
    rotmat, valid = rotvec_to_rotmat(motion(frames=3)[..., :21, :]), torch.ones(2, 3, dtype=torch.bool)
    times = TIMES[:3].repeat(2, 1)
    program = torch.export.export(prior.core(0.1), (rotmat, times, valid))
    valid[0, 1] = False
    later = 1.3 * times
    torch.testing.assert_close(program.module()(rotmat, later, valid), prior.log_prob(rotmat, later, valid=valid))


@pytest.mark.parametrize(
    ("change", "match"),
    (
        ({"body_pose": torch.zeros(2, 7, 24, 3)}, "body_pose.*23 or 21"),
        ({"body_pose": torch.zeros(7, 24, 3)}, "body_pose"),
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
        ({"body_pose": torch.full((2, 7, 23, 3), 2.0)}, "at most pi, got 3.46.*deg2rad"),
        ({"body_pose": torch.ones(2, 7, 21, 3, 3)}, "rotation matrices"),
        ({"body_pose": torch.zeros(2, 0, 23, 3)}, "at least one"),
        ({"body_pose": torch.zeros(23, 3)}, "B, T"),
        ({"timestamps": TIMES[:, None]}, "timestamps"),
        ({"timestamps": torch.where(TIMES > 0.1, math.nan, TIMES)}, "increasing"),
        ({"up": torch.zeros(2, 7, 3)}, "up.*unit length"),
        ({"up": 9.81 * UP}, "up.*unit length.*8.8.*normalize"),
        ({"up": UP[:, :6]}, "up"),
        ({"up": UP[..., :2]}, "up"),
        ({"up": UP.long()}, "up.*floating"),
        ({"up": torch.where(torch.arange(7)[:, None] == 3, math.nan, UP)}, "up.*valid frames"),
        ({"up": torch.stack((UP[0], torch.full((7, 3), math.nan)))}, r"up.*missing in the whole of clips \[1\] of 2"),
    ),
)
def test_bad_input_is_named(prior: MotionPrior, change: dict[str, object], match: str) -> None:
    arguments = {"body_pose": motion(), "timestamps": TIMES, **change}
    with pytest.raises(KinflowError, match=match):
        prior.log_prob(**arguments)  # type: ignore[arg-type]


def test_pose_and_tilt_together_are_a_density(prior: MotionPrior) -> None:
    """Over all directions of up, p(pose, up) integrates to p(pose): by quadrature on a spiral of equal areas."""
    count = 4000
    height = 1 - (2 * torch.arange(count, dtype=torch.float64) + 1) / count
    turn = torch.arange(count, dtype=torch.float64) * math.pi * (3 - math.sqrt(5))
    flat = (1 - height.square()).sqrt()
    up = torch.stack((flat * turn.cos(), height, flat * turn.sin()), -1)[:, None]
    pose = motion(1, 1)
    alone = prior.log_prob(pose, fps=30)
    together = prior.log_prob(pose.expand(count, -1, -1, -1), fps=30, up=up)
    assert float((together.exp() / alone.exp()).mean()) * 4 * math.pi == pytest.approx(1, abs=2e-3)
    assert float(together.std()) > 1e-3


def test_tilt_counts_in_every_valid_frame_alone(prior: MotionPrior) -> None:
    pose, valid = motion(), VALID
    up = torch.nn.functional.normalize(torch.randn(2, 7, 3, dtype=torch.float64), dim=-1)
    more = prior.log_prob(pose, TIMES, valid=valid, up=up) - prior.log_prob(pose, TIMES, valid=valid)
    assert prior.tilt is not None
    for t in range(7):
        each = prior.tilt(rotvec_to_rotmat(pose[:, t, :21])).log_prob(up[:, t])
        torch.testing.assert_close(more[:, t], each if bool(valid[0, t]) else torch.zeros(2, dtype=torch.float64))
    spoilt = torch.where(valid[..., None], up, math.nan)
    torch.testing.assert_close(
        prior.log_prob(pose, TIMES, valid=valid, up=spoilt), prior.log_prob(pose, TIMES, valid=valid, up=up)
    )
    with pytest.raises(UsageError, match="no density of tilt"):
        MotionPrior(prior.flow, prior.dynamics, prior.denoiser).log_prob(pose, TIMES, up=up)


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


# -- what a tracker has at hand ------------------------------------------------------------------------------------------

ROOT = {
    "global_orient": 0.05 * torch.arange(42, dtype=torch.float64).reshape(2, 7, 3).sin(),
    "transl": torch.arange(42, dtype=torch.float64).reshape(2, 7, 3).cos(),
}
VALID = torch.tensor([True, True, False, True, True, True, True]).expand(2, 7)
CALLS: dict[str, dict[str, object]] = {
    "log_prob": {"valid": VALID, **ROOT, "up": UP},
    "plausibility": {"valid": VALID},
    "denoise": {"valid": VALID, "noise": 0.1},
    "infill": {"valid": VALID},
    "forecast": {"valid": VALID, "future": TIMES[-1] + torch.tensor([0.1, 0.25], dtype=torch.float64)},
}


def changed(arguments: dict[str, object], change: Callable[[Tensor], object]) -> dict[str, object]:
    return {k: change(v) if isinstance(v, Tensor) else v for k, v in arguments.items()}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "given",
    [Tensor.numpy, Tensor.tolist, lambda x: readonly(x.numpy()), lambda x: x.flip(0).numpy()[::-1]],
    ids=["numpy", "lists", "readonly", "negative strides"],
)
@pytest.mark.filterwarnings("error")
def test_arrays_and_lists_are_taken(prior: MotionPrior, call: str, given: Callable[[Tensor], object]) -> None:
    arguments = {"body_pose": motion(), "timestamps": TIMES, **CALLS[call]}
    expected = getattr(prior, call)(**arguments)
    torch.testing.assert_close(getattr(prior, call)(**changed(arguments, given)), expected, rtol=0, atol=0)


def readonly(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("call", CALLS)
def test_one_motion_needs_no_axis_for_the_batch(prior: MotionPrior, call: str) -> None:
    one = {k: v[0] if isinstance(v, Tensor) and v.shape[:2] == (2, 7) else v for k, v in CALLS[call].items()}
    expected = getattr(prior, call)(motion(), TIMES, **CALLS[call])[0]
    for pose in (motion()[0], motion()[0, :, :21], rotvec_to_rotmat(motion()[0])):
        found = getattr(prior, call)(pose, TIMES, **one)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected)


def test_the_fields_of_a_motion_are_taken_as_they_are(prior: MotionPrior) -> None:
    person = a_motion(9)
    nats = prior.log_prob(person.body_pose, person.timestamps, valid=person.observed)
    assert nats.shape == (9,) and nats.dtype == torch.float64
    assert prior.denoise(person.body_pose, person.timestamps, valid=person.observed).shape == person.body_pose.shape
    assert prior.decode(prior.encode(person.body_pose)).shape == prior.decode(person.z).shape == (9, 23, 3)


def test_the_prior_keeps_its_precision(prior: MotionPrior) -> None:
    pose, times = motion(), TIMES.float()
    root = {"global_orient": ROOT["global_orient"].float(), "transl": ROOT["transl"]}
    assert prior.log_prob(pose.float(), times, **root).dtype == torch.float64
    single = copy.deepcopy(prior).float()
    expected = single.log_prob(pose.float(), TIMES)
    for mixed in (pose, pose.numpy(), pose.float().numpy()):
        torch.testing.assert_close(single.log_prob(mixed, TIMES.numpy()), expected, rtol=0, atol=0)
    assert single.encode(pose).dtype == single.decode(torch.zeros(63).double()).dtype == torch.float32
    leaf = pose.clone().requires_grad_()
    single.log_prob(leaf, TIMES).sum().backward()
    assert leaf.grad is not None and leaf.grad.dtype == torch.float64


def test_samples_at_a_list_of_times(prior: MotionPrior) -> None:
    expected = prior.sample(TIMES, 2, generator=torch.Generator().manual_seed(0))
    for times in (TIMES.tolist(), TIMES.numpy()):
        assert torch.equal(prior.sample(times, 2, generator=torch.Generator().manual_seed(0)), expected)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: p.log_prob("walk", fps=30), "^body_pose: expected a tensor, an array or a list of numbers, got str"),
        (lambda p: p.log_prob(None, fps=30), "^body_pose.*None"),
        (lambda p: p.log_prob([[1.0], [2.0, 3.0]], fps=30), "^body_pose.*list"),
        (lambda p: p.log_prob(motion().to("meta"), fps=30), "^body_pose.*meta"),
        (lambda p: p.log_prob(motion(), ["0", "1"]), "^timestamps.*list"),
        (lambda p: p.log_prob(motion(), fps=[30]), "^fps"),
        (lambda p: p.log_prob(motion(), fps="fast"), "^fps"),
        (lambda p: p.log_prob(motion()[0], TIMES, valid=VALID), "^valid: .*without the batch's axis"),
        (lambda p: p.log_prob(motion()[0], TIMES.expand(2, 7)), "^timestamps: .*without the batch's axis"),
        (lambda p: p.log_prob(motion()[0], TIMES, **ROOT), "^global_orient: .*without the batch's axis"),
        (lambda p: p.log_prob(motion()[:, 0, 0], fps=30), "^body_pose"),
        (lambda p: p.denoise(motion(), fps=30, noise="much"), "^noise"),
        (lambda p: p.encode("pose"), "^body_pose"),
        (lambda p: p.decode(torch.zeros(62)), "^z: .*63"),
        (lambda p: p.sample([0.0, 0.2, 0.1]), "^timestamps: .*increasing"),
        (lambda p: p.sample(0.5), "^timestamps"),
        (lambda p: p.sample([0.0, 0.1], 0), "^samples"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_named(prior: MotionPrior, call: Callable[[MotionPrior], Tensor], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        call(prior)
