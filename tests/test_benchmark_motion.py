"""The over-time benchmark: its peers against closed forms, its corruptions, and its measures, on synthetic data."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from peers.motion.coordinates import Tangent, unwrap
from peers.motion.filters import one_euro, savitzky_golay
from peers.motion.humor import Humor, HumorSettings, train
from peers.motion.interpolation import cubic, extrapolate, slerp
from peers.motion.kalman import START, Kalman, run_filter, run_smoother
from peers.motion.linear import Autoregression, Baseline

import kinflow.evaluation.motion_windows as mt
from kinflow.evaluation.motion_windows import by_clip
from kinflow.rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.training.poses import Capture, mirror_body


def uneven(frames: int, size: int = 1) -> Tensor:
    """Time stamps (size, frames) with steps of 10 to 60 ms."""
    return (0.01 + 0.05 * torch.rand(size, frames, dtype=torch.float64)).cumsum(1)


def dense(times: Tensor, q: float, r: float, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance (N, N) of the seen observations, and (T, N) of all positions with them, from the model's definition."""
    since = times - times[0]
    low = torch.minimum(since[:, None], since[None])
    high = torch.maximum(since[:, None], since[None])
    # Integrated Brownian motion: cov(x_s, x_t) = q (s^2 t / 2 - s^3 / 6) for s <= t, over a vague start.
    position = q * START + q * START * since[:, None] * since[None] + q * (low**2 * high / 2 - low**3 / 6)
    return position[seen][:, seen] + r * torch.eye(int(seen.sum()), dtype=torch.float64), position[:, seen]


def test_kalman_log_likelihood_is_the_joint_gaussians() -> None:
    times, q, r = uneven(12), 3.0, 0.02
    y = torch.randn(1, 12, 1, dtype=torch.float64).cumsum(1)
    valid = torch.ones(1, 12, dtype=torch.bool)
    valid[0, 4:6] = False
    out = run_filter(y, times, torch.tensor([q]), torch.tensor([r]), valid)
    covariance, _ = dense(times[0], q, r, valid[0])
    joint = torch.distributions.MultivariateNormal(torch.zeros(10, dtype=torch.float64), covariance)
    assert float(out.log_prob.sum()) == pytest.approx(float(joint.log_prob(y[0, valid[0], 0])), rel=1e-5)


def test_smoother_is_the_conditional_mean() -> None:
    times, q, r = uneven(12), 3.0, 0.02
    y = torch.randn(1, 12, 1, dtype=torch.float64).cumsum(1)
    valid = torch.ones(1, 12, dtype=torch.bool)
    valid[0, 4:6] = False
    out = run_filter(y, times, torch.tensor([q]), torch.tensor([r]), valid)
    mean, variance = run_smoother(out, times)
    covariance, cross = dense(times[0], q, r, valid[0])
    weight = torch.linalg.solve(covariance, cross.mT).mT
    assert torch.allclose(mean[0, :, 0], weight @ y[0, valid[0], 0], atol=1e-5)
    # The last variances, where the vague start cancels badly in the dense form, are compared more loosely.
    everywhere = torch.ones(12, dtype=torch.bool)
    prior = dense(times[0], q, 0.0, everywhere)[0].diagonal()
    assert torch.allclose(variance[0, :, 0], prior - (weight * cross).sum(-1), rtol=1e-2, atol=1e-5)


def test_kalman_fit_finds_its_own_noise() -> None:
    times = uneven(80, 48)
    dt = torch.diff(times, dim=1)[..., None]
    q, r = torch.tensor([4.0, 0.25]).double(), torch.tensor([0.0004, 0.01]).double()
    x, v = [torch.zeros(48, 2).double()], torch.zeros(48, 2).double()
    for t in range(79):
        step, first, second = dt[:, t], *torch.randn(2, 48, 2, dtype=torch.float64)
        own = (q * step).sqrt() * first
        x.append(x[-1] + step * v + step / 2 * own + (q * step**3 / 12).sqrt() * second)
        v = v + own
    y = torch.stack(x, 1) + r.sqrt() * torch.randn(48, 80, 2, dtype=torch.float64)
    fitted = Kalman.fit(y, times, whiten=False)
    assert torch.allclose((fitted.q / q).log(), torch.zeros(2).double(), atol=0.7)
    assert torch.allclose((fitted.r / r).log(), torch.zeros(2).double(), atol=0.7)
    # Whitening changes the axes, not the family: the likelihood, with its volume, is about as good.
    other = Kalman.fit(y, times, whiten=True).log_prob(y, times).mean()
    assert float(other) == pytest.approx(float(fitted.log_prob(y, times).mean()), abs=0.3)


def test_autoregression_recovers_its_coefficients() -> None:
    first = torch.tensor([[1.5, 0.1], [-0.1, 1.2]]).double()
    second = torch.tensor([[-0.6, 0.0], [0.05, -0.4]]).double()
    constant = torch.tensor([0.3, -0.2]).double()
    x = [torch.zeros(200, 2).double(), torch.zeros(200, 2).double()]
    for _ in range(120):
        x.append(x[-1] @ first.mT + x[-2] @ second.mT + constant + 0.1 * torch.randn(200, 2).double())
    motion = torch.stack(x, 1)
    model = Autoregression.fit(motion[:150], motion[150:])
    for found, true in zip(model.matrices(), (first, second, constant), strict=True):
        assert torch.allclose(found, true, atol=0.02)
    covariance = model.gaussian.factor @ model.gaussian.factor.mT
    assert torch.allclose(covariance, 0.01 * torch.eye(2).double(), atol=1e-3)
    times = torch.arange(122).double().expand(200, -1)
    assert model.log_prob(motion).mean() > Baseline.fit(motion, times, True).log_prob(motion, times).mean()
    ahead = model.forecast(motion[:, :50], 0.1, (0.1, 0.15, 0.2))
    assert torch.allclose(ahead[:, 1], (ahead[:, 0] + ahead[:, 2]) / 2)


def test_filters_leave_a_constant_alone() -> None:
    pytest.importorskip("scipy")
    rotmat = rotvec_to_rotmat(torch.randn(2, 1, 21, 3)).expand(-1, 40, -1, -1, -1)
    assert torch.allclose(savitzky_golay(rotmat, 11, 2), rotmat, atol=1e-5)
    x = torch.randn(2, 1, 63).expand(-1, 40, -1)
    assert torch.allclose(one_euro(x, uneven(40, 2), 1.0, 0.5), x, atol=1e-6)


def test_one_euro_lags_less_when_it_may_speed_up() -> None:
    ramp = torch.linspace(0, 10, 60)[None, :, None]
    times = torch.arange(60).double() / 30
    off = [float((one_euro(ramp, times, 1.0, beta) - ramp).abs().mean()) for beta in (0.0, 1.0)]
    assert off[1] < 0.5 * off[0]


def test_interpolation_is_exact_at_constant_velocity() -> None:
    times = uneven(20, 2)
    speed = torch.randn(2, 1, 21, 3)
    start = rotvec_to_rotmat(torch.randn(2, 1, 21, 3))
    rotmat = start @ rotvec_to_rotmat(speed * times[..., None, None].float())
    valid = torch.ones(2, 20, dtype=torch.bool)
    valid[:, 5:12] = False
    blank = torch.where(valid[..., None, None, None], rotmat, torch.eye(3))
    for fill in (slerp, cubic):
        assert float(geodesic_distance(fill(blank, times, valid), rotmat).max()) < 2e-3
    future = torch.tensor([0.1, 0.3]).double()
    ahead = start @ rotvec_to_rotmat(speed * (times[:, -1:] + future).float()[..., None, None])
    assert float(geodesic_distance(extrapolate(rotmat, times, future), ahead).max()) < 5e-3
    assert torch.allclose(extrapolate(rotmat, times, future, 0.0)[:, 1], rotmat[:, -1], atol=1e-5)


def test_tangent_coordinates() -> None:
    rotmat = rotvec_to_rotmat(0.5 * torch.randn(200, 21, 3)) @ rotvec_to_rotmat(torch.tensor([0.3, 0.2, -1.0]))
    space = Tangent.fit(rotmat)
    x, log_det = space.encode(rotmat)
    assert torch.allclose(space.decode(x), rotmat, atol=1e-5)
    assert bool((log_det > 0).all())  # away from the mean, a volume of rotations takes more room in vectors
    path = torch.linspace(2.5, 4.0, 30)[None, :, None, None] * torch.tensor([0.0, 0.6, 0.8])
    wrapped = torch.where(
        path.norm(dim=-1, keepdim=True) > math.pi, path * (1 - 2 * math.pi / path.norm(dim=-1, keepdim=True)), path
    )
    assert torch.allclose(unwrap(wrapped), path, atol=1e-5)


SMALL = HumorSettings(
    latent=4, hidden=32, groups=4, batch=64, steps=30, rollout_steps=3, rollout_frames=5, every=10, fps=(20.0, 60.0)
)


def test_conditional_vae() -> None:
    time = torch.arange(300) / 60.0
    phase = 6 * torch.rand(6, 1, 5)
    tracks = list(torch.sin(2 * torch.arange(1, 6) * time[:, None] + phase) + 0.01 * torch.randn(6, 300, 5))
    model, rolled, scores = train(tracks[:5], tracks[5:], 60.0, SMALL, seed=0)
    assert math.isfinite(scores["validation_bound"])
    x = torch.stack([t[:40] for t in tracks])
    times = (torch.arange(40).double() / 60).expand(6, -1)
    bounds = [float(model.log_prob(x, times, n, torch.Generator().manual_seed(1)).mean()) for n in (1, 8, 128)]
    assert bounds[0] < bounds[1] < bounds[2]
    # The change is undone by its inverse, at uneven steps.
    steps = (torch.full((6,), 0.02), torch.full((6,), 0.05))
    change = model.change(x[:, 0], x[:, 1], x[:, 2], *steps)
    assert torch.allclose(model.place(x[:, 0], x[:, 1], change, *steps), x[:, 2], atol=1e-4)
    ahead = rolled.forecast(x, times, (0.05, 0.2))
    assert ahead.shape == (6, 2, 5) and bool(torch.isfinite(ahead).all())


def test_conditional_vae_of_no_use_is_the_gaussian() -> None:
    """With a decoder and posterior that ignore the latent, the bound is tight and equals the decoder's Gaussian."""
    model = Humor(3, SMALL).eval()
    with torch.no_grad():
        for net in (model.prior, model.posterior, model.decoder):
            net.linear[-1].weight.zero_()
            net.linear[-1].bias.zero_()
    x, times = torch.randn(2, 6, 3), uneven(6, 2)
    dt = torch.diff(times, dim=1).float()[..., None]
    missed = x[:, 2:] - x[:, 1:-1] - (x[:, 1:-1] - x[:, :-2]) * dt[:, 1:] / dt[:, :-1]
    scale = dt[:, 1:] * 30
    expected = (torch.distributions.Normal(0.0, 1.0).log_prob(missed / scale) - scale.log()).sum(-1)
    assert torch.allclose(model.log_prob(x, times, 3), expected, atol=1e-3)


def capture(name: str, frames: int, fps: float = 60.0) -> Capture:
    pose = 0.3 * torch.randn(frames, 21, 3).cumsum(0) / 30
    return Capture(name, pose, torch.eye(3).expand(frames, 3, 3), torch.zeros(frames, 3), fps)


def test_windows_keep_captured_frames() -> None:
    captures = mt.thinned([capture("a", 400), capture("b", 1600, 120.0), capture("c", 500, 30.0)])
    assert [round(c.fps) for c in captures] == [60, 60, 30]
    frames = torch.cat([c.body_pose[:, 0, 0] for c in captures])
    for rate, hertz in mt.RATES.items():
        made = mt.windows(captures, rate, 9)
        assert made.rotmat.shape[:2] == (9, round(2.5 * hertz))
        steps = torch.diff(made.timestamps, dim=1) * 60
        assert torch.allclose(steps, steps.round()) and bool((steps > 0.5).all())
        assert set(made.clip.tolist()) == {0, 1}  # 30 Hz has no frames for these
        first = rotmat_to_rotvec(made.rotmat)[..., 0, 0].flatten()
        assert all(float((frames - value).abs().min()) < 1e-4 for value in first)
        if rate == "jittered":
            assert float(steps.std()) == pytest.approx(0.6, abs=0.15)
    ends = [mt.past_and_future(captures, rate, (5, 60), 6)[0] for rate in mt.RATES]
    for past in ends:
        assert torch.equal(past.rotmat[:, -1], ends[0].rotmat[:, -1]) and bool((past.timestamps[:, -1] == 0).all())


def test_corruptions() -> None:
    truth = mt.windows([capture("a", 2000)], "30 Hz", 40)
    rng = torch.Generator().manual_seed(0)
    shuffled = mt.shuffle_frames(truth.rotmat, rng)
    assert not torch.equal(shuffled, truth.rotmat)
    assert torch.allclose(shuffled.flatten(2).sort(1).values, truth.rotmat.flatten(2).sort(1).values)

    inside = mt.swapped_frames(truth.timestamps, rng, share=0.05)
    assert 0.02 < float(inside.double().mean()) < 0.1
    swapped = mt.swap_sides(truth.rotmat, inside)
    assert torch.equal(swapped[~inside], truth.rotmat[~inside])
    assert torch.allclose(swapped[inside], mirror_body(truth.rotmat[inside]))
    once = mt.swapped_frames(truth.timestamps, rng, share=0.0, at_least=1)
    lengths = once.sum(1).double() / 30
    assert bool((lengths > 0.05).all()) and bool((lengths < 0.45).all())

    noisy = mt.corrupt(truth, 5.0, "noise")
    angle = mt.angle_error(noisy.rotmat, truth.rotmat).mean()
    assert float(angle) == pytest.approx(5 * math.sqrt(8 / math.pi), rel=0.03)  # mean length of three normals
    dropped = mt.corrupt(truth, 5.0, "drops").valid
    assert 0.06 < 1 - float(dropped.double().mean()) < 0.13 and bool(dropped[:, [0, -1]].all())


def test_measures() -> None:
    truth = mt.windows([capture("a", 2000)], "60 Hz", 4)
    found = mt.errors(truth.rotmat, truth)
    assert all(float(v.abs().max()) < 1e-3 for v in found.values())
    turned = truth.rotmat.clone()
    turned[..., 0, :, :] = turned[..., 0, :, :] @ rotvec_to_rotmat(torch.tensor([math.radians(21.0), 0.0, 0.0]))
    assert float(mt.angle_error(turned, truth.rotmat).mean()) == pytest.approx(1.0, rel=1e-3)  # one joint of 21
    assert mt.auc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == pytest.approx(0.875)
    clip = torch.arange(200) // 2
    value = torch.randn(100).repeat_interleave(2)
    assert by_clip(value, clip)[1] == pytest.approx(0.1, rel=0.25)  # two windows of a clip are one, not two
    assert mt.bootstrap(lambda i: float(value[i].mean()), clip) == pytest.approx(0.1, rel=0.3)
