"""The smoother, the regression it starts from, and the windows it learns on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchdiffeq
from torch import Tensor

from kinflow.config import SmootherConfig, SmootherTrainingConfig
from kinflow.dynamics import Smoother
from kinflow.dynamics.field import DecayField, flow_over
from kinflow.dynamics.regression import GROUP_OF, SPREAD, matern52, regress_rotations
from kinflow.rotations import geodesic_distance, rotmat_to_rot6d, rotvec_to_rotmat, wrap_rotvec
from kinflow.training.poses import Capture
from kinflow.training.smoother import damage
from kinflow.training.windows import WindowSampler


def swing(frames: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    times = torch.cumsum(0.02 + 0.03 * torch.rand(2, frames, generator=generator, dtype=torch.float64), 1)
    phase = torch.randn(2, 1, 21, 3, generator=generator, dtype=torch.float64)
    return rotvec_to_rotmat(0.3 * torch.sin(3 * times[..., None, None] + phase)), times


def test_regression_is_the_dense_posterior_mean() -> None:
    rotmat, times = swing()
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[0, (3, 7, 8)] = False
    noise = torch.tensor([0.05, 0.1], dtype=torch.float64)
    mean, _velocity, std = regress_rotations(rotmat, times, valid, noise, 0.3)
    joint = 17  # an elbow
    spread = SPREAD[GROUP_OF[joint]]
    seen = valid[0].nonzero().squeeze(-1)
    y = rotmat_to_rot6d(rotmat[0, :, joint])[seen]
    t = times[0]
    kernel = spread**2 * matern52(t[:, None] - t[None], 0.3)
    gain = kernel[:, seen] @ torch.linalg.inv(
        kernel[seen][:, seen] + 0.05**2 * torch.eye(len(seen), dtype=torch.float64)
    )
    expected = y.mean(0) + gain @ (y - y.mean(0))
    first = torch.nn.functional.normalize(expected[:, :3], dim=-1)
    torch.testing.assert_close(mean[0, :, joint, :, 0], first)
    variance = kernel.diagonal() - (gain * kernel[:, seen]).sum(-1)
    torch.testing.assert_close(std[0, :, joint], variance.sqrt(), rtol=1e-6, atol=1e-9)
    # The velocity, against a difference of two queries close by.
    extra = torch.cat((times, times[:, -1:] + 0.05, times[:, -1:] + 0.05 + 1e-6), 1)
    more = torch.cat((valid, valid.new_zeros(2, 2)), 1)
    longer = torch.cat((rotmat, rotmat[:, :2]), 1)
    pose, speed, _ = regress_rotations(longer, extra, more, noise, 0.3)
    change = (pose[:, -1, :, :, 0] - pose[:, -2, :, :, 0]) / 1e-6
    tangent = (
        speed[:, -2, :, :3] - (speed[:, -2, :, :3] * pose[:, -2, :, :, 0]).sum(-1, keepdim=True) * pose[:, -2, :, :, 0]
    )
    assert torch.nn.functional.cosine_similarity(change, tangent, dim=-1).min() > 0.999


def network() -> Smoother:
    torch.manual_seed(0)
    model = Smoother(SmootherConfig(width=24, hidden=16, layers=2, heads=2, dropout=0.0)).double().eval()
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


def test_every_parameter_learns() -> None:
    model, (rotmat, times) = network().train(), swing()
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, 5:9] = False
    out = model(rotmat, times, valid, torch.full((2,), 0.05, dtype=torch.float64))
    (out * torch.randn_like(out)).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
def test_steps_are_torchdiffeqs(solver: str) -> None:
    torch.manual_seed(0)
    field, h, dt = (
        DecayField(6, 5).double(),
        torch.randn(3, 6).double().tanh(),
        torch.tensor([0.02, 0.05, 0.09]).double(),
    )
    unit = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(lambda s, y: dt[:, None] * field(y), h, unit, method=solver)[-1]
    torch.testing.assert_close(flow_over(field, h, dt, solver, 0.1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow_over(field, h, dt, solver, 0.1, most=3), expected, rtol=0, atol=1e-12)


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
    config = SmootherTrainingConfig(noise=(0.02, 0.02), told_error=0.0, outliers=0.0, swaps=0.0, correlated=0.0)
    sampler = WindowSampler(captures()[1:])
    window = sampler.draw(np.random.default_rng(0), 256, 32, (30.0, 60.0))
    target = rotvec_to_rotmat(captures()[1].body_pose[window.frames])
    damaged = damage(config, target, window, np.random.default_rng(1))
    off = geodesic_distance(damaged.rotmat, target).square().mean().sqrt()
    assert math.isclose(float(off), 0.02 * math.sqrt(3), rel_tol=0.02)
    assert damaged.valid.any(1).all() and not (damaged.valid & ~window.present).any()
    missing = ~damaged.valid & window.present
    assert 0.1 < missing.float().mean() < 0.5


def test_wrap_rotvec() -> None:
    vector = torch.randn(200, 3, dtype=torch.float64) * 4
    wrapped = wrap_rotvec(vector)
    assert wrapped.norm(dim=-1).max() <= math.pi + 1e-9
    torch.testing.assert_close(rotvec_to_rotmat(wrapped), rotvec_to_rotmat(vector))
    small = 0.1 * vector / vector.norm(dim=-1, keepdim=True)
    assert torch.equal(wrap_rotvec(small), small)
