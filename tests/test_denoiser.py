"""The denoiser, the regression it starts from, and the windows it learns on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kinflow.body import Body
from kinflow.body.kinematics import forward_kinematics
from kinflow.config import DenoiserConfig, DenoiserTrainingConfig, TrainConfig
from kinflow.denoiser import Denoiser, gp
from kinflow.denoiser.gp import LENGTHS, SHARES_NOISY, MotionRegression, matern52
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat, wrap_rotvec
from kinflow.skeleton import MIRROR_SMPL, SMPL_JOINTS
from kinflow.training.poses import Capture, mirror_body
from kinflow.training.streams.windows import WindowSampler
from kinflow.training.tasks.denoiser import Damaged, DenoiserTask, damage


def swing(frames: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    times = torch.cumsum(0.02 + 0.03 * torch.rand(2, frames, generator=generator, dtype=torch.float64), 1)
    phase = torch.randn(2, 1, 21, 3, generator=generator, dtype=torch.float64)
    return rotvec_to_rotmat(0.3 * torch.sin(3 * times[..., None, None] + phase)), times


def test_regression_is_the_dense_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    # With all trust in the capture's own axes, each axis is one Gaussian process of known variance.
    monkeypatch.setattr(gp, "TRUST", 1e12)
    monkeypatch.setattr(gp, "CALM", 1.0)
    model = MotionRegression().double()
    model.variance.copy_(torch.linspace(0.2, 0.001, 63, dtype=torch.float64))
    rotmat, times = swing()
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[0, (3, 7, 8)] = False
    noise = torch.tensor([0.06, 0.1], dtype=torch.float64)
    known = model(rotmat, times, valid, noise)
    seen, t = valid[0].nonzero().squeeze(-1), times[0]
    lag = t[:, None] - t[None]
    kernel = SHARES_NOISY[0] + sum(
        w * matern52(lag, length) for w, length in zip(SHARES_NOISY[1:], LENGTHS, strict=True)
    )
    for axis in (0, 30, 62):
        size = float(model.variance[axis])
        noisy = size * kernel[seen][:, seen] + (0.06**2 + 1e-5 * size) * torch.eye(len(seen), dtype=torch.float64)
        gain = size * kernel[:, seen] @ torch.linalg.inv(noisy)
        torch.testing.assert_close(known.mean[0, :, axis], gain @ known.seen[0, seen, axis], rtol=1e-5, atol=1e-8)
        variance = size * (kernel.diagonal() - (gain * kernel[:, seen]).sum(-1))
        torch.testing.assert_close(known.std[0, :, axis], variance.sqrt(), rtol=1e-4, atol=1e-7)
    back = model.place(known.centre, known.seen)
    torch.testing.assert_close(back[valid], rotmat[valid])


def test_regression_adapts_to_the_clip() -> None:
    # Two joints that move together, the rest at rest: the second pass finds the one way in which this body moves.
    generator = torch.Generator().manual_seed(0)
    times = (torch.arange(90, dtype=torch.float64) / 30).expand(4, -1)
    turn = torch.zeros(4, 90, 21, 3, dtype=torch.float64)
    turn[..., 3, 0] = 0.6 * torch.sin(5 * times)
    turn[..., 17, 1] = turn[..., 3, 0]
    truth = rotvec_to_rotmat(turn)
    noisy = truth @ rotvec_to_rotmat(0.15 * torch.randn(turn.shape, generator=generator, dtype=torch.float64))
    model, valid = MotionRegression().double(), torch.ones(4, 90, dtype=torch.bool)
    level = torch.full((4,), 0.15, dtype=torch.float64)
    known = model(noisy, times, valid, level)
    moved, still = (
        float(geodesic_distance(model.place(known.centre, known.mean), truth)[..., joints].mean())
        for joints in ([3, 17], [0, 1, 2, 10, 20])
    )
    assert still < 0.05 and moved < 0.1  # noise alone is 0.24 a joint
    # Its velocity, against a difference of two queries close by.
    longer = torch.cat((times, times[:, -1:] + 0.05, times[:, -1:] + 0.05 + 1e-6), 1)
    more = model(torch.cat((noisy, noisy[:, :2]), 1), longer, torch.cat((valid, valid.new_zeros(4, 2)), 1), level)
    torch.testing.assert_close((more.mean[:, -1] - more.mean[:, -2]) / 1e-6, more.velocity[:, -2], rtol=1e-3, atol=1e-4)


def network() -> Denoiser:
    torch.manual_seed(0)
    model = (
        Denoiser(DenoiserConfig(width=24, hidden=16, layers=2, heads=2, overview=8, mix=4, dropout=0.0)).double().eval()
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def test_answers_depend_on_what_was_seen_alone() -> None:
    model, (rotmat, times) = network(), swing()
    valid = torch.rand(2, 12, generator=torch.Generator().manual_seed(1)) > 0.3
    valid[:, 0], valid[:, (4, 7)] = True, False
    noise = torch.tensor([0.05, 0.1], dtype=torch.float64)
    out = model(rotmat, times, valid, noise)
    keep = [i for i in range(12) if i not in (4, 7)]
    torch.testing.assert_close(out[:, keep], model(rotmat[:, keep], times[:, keep], valid[:, keep], noise))
    torch.testing.assert_close(out[:1], model(rotmat[:1], times[:1], valid[:1], noise[:1]))
    torch.testing.assert_close(out, model(rotmat, times + 7, valid, noise))
    broken = torch.where(valid[..., None, None, None], rotmat, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(out, model(broken, times, valid, noise))


@torch.no_grad()
def test_a_mirrored_body_is_denoised_to_the_mirror_image() -> None:
    # The network alone: what the regression says of the mirrored body is mirrored by hand.
    model, generator = network(), torch.Generator().manual_seed(2)
    for layer in model.leave:
        layer.weight.data.mul_(10)
    rotmat, times = swing()
    valid, noise = torch.rand(2, 12, generator=generator) > 0.2, torch.tensor([0.05, 0.1], dtype=torch.float64)
    known = model.regression(rotmat, times, valid, noise)
    assert torch.equal(model.regression.basis, torch.eye(63))  # so that its numbers are rotation vectors

    def mirrored(turns: Tensor, sign: tuple[float, float, float] = (1.0, -1.0, -1.0)) -> Tensor:
        swapped = turns.unflatten(-1, (21, 3))[..., [i - 1 for i in MIRROR_SMPL[1:22]], :]
        return (swapped * turns.new_tensor(sign)).flatten(-2)

    other = known._replace(
        centre=mirror_body(known.centre), seen=mirrored(known.seen), mean=mirrored(known.mean),
        velocity=mirrored(known.velocity), std=mirrored(known.std, (1.0, 1.0, 1.0)),
    )  # fmt: skip
    here, there = model.correct(known, times, valid, noise), model.correct(other, times, valid, noise)
    assert float(geodesic_distance(here, model.regression.place(known.centre, known.mean)).mean()) > 0.01
    torch.testing.assert_close(there, mirror_body(here))


def test_every_parameter_learns() -> None:
    model, (rotmat, times) = network().train(), swing()
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, 5:9] = False
    out = model(rotmat, times, valid, torch.full((2,), 0.05, dtype=torch.float64))
    (out * torch.randn_like(out)).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, name


def captures() -> list[Capture]:
    out = []
    for frames, fps in ((50, 60.0), (400, 120.0)):
        turn = torch.linspace(0, 1, frames)[:, None, None].expand(-1, 21, 3).contiguous()
        out.append(Capture("x", turn, torch.eye(3).expand(frames, 3, 3), torch.zeros(frames, 3), fps))
    return out


def test_windows_keep_true_times() -> None:
    sampler = WindowSampler(captures())
    window = sampler.draw(np.random.default_rng(0), 64, 16, (10.0, 120.0), jitter=0.2)
    assert (window.timestamps.diff(dim=1) > 0).all() and (window.timestamps[:, 0] == 0).all()
    assert ((window.frames >= 50) == (window.capture == 1)[:, None]).all()
    fps = torch.tensor([60.0, 120.0], dtype=torch.float64)[window.capture]
    within = window.present
    passed = (window.frames - window.frames[:, :1]) / fps[:, None]
    torch.testing.assert_close(window.timestamps[within], passed[within])
    assert within[:, :2].all() and not within.all()  # a window at 10 Hz is longer than the short capture


def test_damage_leaves_what_it_says() -> None:
    config = DenoiserTrainingConfig(noise=(0.02, 0.02), told_error=0.0, outliers=0.0, swaps=0.0, correlated=0.0)
    sampler = WindowSampler(captures()[1:])
    window = sampler.draw(np.random.default_rng(0), 256, 32, (30.0, 60.0))
    target = rotvec_to_rotmat(captures()[1].body_pose[window.frames])
    damaged = damage(config, target, window, np.random.default_rng(1))
    off = geodesic_distance(damaged.rotmat, target).square().mean().sqrt()
    assert math.isclose(float(off), 0.02 * math.sqrt(3), rel_tol=0.02)
    assert damaged.valid.any(1).all() and not (damaged.valid & ~window.present).any()
    missing = ~damaged.valid & window.present
    assert 0.1 < missing.float().mean() < 0.5


def drawn(captured: list[Capture], **settings: float) -> Damaged:
    """Windows of a training without mirror images and exchanged halves."""
    small = DenoiserConfig(width=32, hidden=32, layers=1, heads=2)
    train = TrainConfig(batch=24, steps=1)
    config = DenoiserTrainingConfig(small, train, frames=24, fps=(60.0, 60.1), mirror=0.0, exchange=0.0, **settings)  # type: ignore[arg-type]
    return DenoiserTask(config, captured, captured, torch.device("cpu")).draw(np.random.default_rng(0))


def test_windows_run_backwards() -> None:
    """Of a motion that turns ever further: times go on, angles fall."""
    for share in (0.0, 1.0):
        batch = drawn(captures()[1:], reverse=share)
        angle = geodesic_distance(batch.target, torch.eye(3).expand_as(batch.target)).mean(-1)
        assert (batch.timestamps.diff(dim=1) > 0).all() and (batch.timestamps[:, 0] == 0).all()
        assert (angle.diff(dim=1) < 0).all() if share else (angle.diff(dim=1) > 0).all()


def test_windows_with_rotations_shared_out_otherwise_point_where_they_did() -> None:
    plain, other = drawn(captures()[1:], shares=0.0), drawn(captures()[1:], shares=1.0)
    turned = geodesic_distance(plain.target, other.target)
    torch.testing.assert_close(plain.timestamps, other.timestamps)
    eye = torch.eye(3).expand(*plain.target.shape[:2], 1, 3, 3)
    rest = Body.open("light").rest_joints(torch.zeros(1, 10))[0]
    places = [forward_kinematics(torch.cat((eye, b.target, eye, eye), 2), rest)[1] for b in (plain, other)]
    assert turned.mean() > 0.05
    limbs = [SMPL_JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "ankle")]
    assert (places[0] - places[1]).norm(dim=-1)[..., limbs].max() < 1e-4


def test_wrap_rotvec() -> None:
    vector = torch.randn(200, 3, dtype=torch.float64) * 4
    wrapped = wrap_rotvec(vector)
    assert wrapped.norm(dim=-1).max() <= math.pi + 1e-9
    torch.testing.assert_close(rotvec_to_rotmat(wrapped), rotvec_to_rotmat(vector))
    small = 0.1 * vector / vector.norm(dim=-1, keepdim=True)
    assert torch.equal(wrap_rotvec(small), small)
