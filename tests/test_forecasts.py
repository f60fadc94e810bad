"""How far forecasts are trusted: the table read by hand, its two ends, and its fit on motions whose best weights are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinflow.config import DenoiserConfig
from kinflow.denoiser import Denoiser
from kinflow.denoiser.forecast import forecast, outlook, pace, trust
from kinflow.denoiser.network import BRISK, CALM, HORIZONS
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat
from kinflow.training import trust as fitting
from kinflow.training.poses import Capture

TABLE = torch.stack((torch.linspace(0, 0.6, len(HORIZONS)), torch.linspace(1, 0.4, len(HORIZONS))), 1).double()


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(DenoiserConfig(width=24, hidden=16, layers=1, heads=2)).double().eval().requires_grad_(False)


def a_past(speed: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    times = torch.arange(61, dtype=torch.float64)[None] / 30
    turn = torch.zeros(1, 61, 21, 3, dtype=torch.float64)
    turn[..., 2] = speed * times[..., None]
    seen = torch.ones(1, 61, dtype=torch.bool)
    ahead = torch.tensor([[2.1, 2.4, 3.0]], dtype=torch.float64)
    return rotvec_to_rotmat(turn), times, seen, ahead, torch.full((1,), 0.002, dtype=torch.float64)


def test_the_table_is_read_at_its_horizons_and_between() -> None:
    seconds = torch.tensor([HORIZONS], dtype=torch.float64).expand(2, -1)
    speed = torch.tensor([CALM / 5, BRISK * 5], dtype=torch.float64)
    assert torch.allclose(trust(TABLE, seconds, speed), TABLE.T, atol=1e-9)
    between = torch.tensor([[math.sqrt(HORIZONS[2] * HORIZONS[3])]], dtype=torch.float64)
    middle = torch.tensor([math.sqrt(CALM * BRISK)], dtype=torch.float64)
    assert float(pace(middle)) == pytest.approx(0.5)
    assert float(trust(TABLE, between, middle)) == pytest.approx(float(TABLE[2:4].mean()))
    beyond = torch.tensor([[0.001, 60.0]], dtype=torch.float64)
    assert torch.allclose(trust(TABLE, beyond, speed[1:]), TABLE[[0, -1], 1][None])


def test_a_forecast_lies_between_the_last_pose_and_the_expectation(denoiser: Denoiser) -> None:
    past = a_past(0.5)
    expected, last, seconds, speed = outlook(denoiser, *past)
    assert float(speed) == pytest.approx(0.5, abs=1e-6)
    assert torch.allclose(seconds, torch.tensor([[0.1, 0.4, 1.0]], dtype=torch.float64))
    kept = denoiser.trust.clone()
    try:
        denoiser.trust.fill_(1)
        assert torch.allclose(forecast(denoiser, *past), expected)
        denoiser.trust.zero_()
        assert torch.allclose(forecast(denoiser, *past), last.expand_as(expected))
        denoiser.trust.fill_(0.25)
        way = geodesic_distance(last.expand_as(expected), expected)
        assert torch.allclose(geodesic_distance(last.expand_as(expected), forecast(denoiser, *past)), 0.25 * way)
    finally:
        denoiser.trust.copy_(kept)


def test_the_fit_finds_how_far_expectations_are_right(monkeypatch: pytest.MonkeyPatch, denoiser: Denoiser) -> None:
    """Who moves fast does half of what is expected, who is calm nothing of it."""
    moving = torch.zeros(400, 21, 3)
    moving[..., 0] = torch.linspace(0, 2.5, 400)[:, None]
    captures = [
        Capture("moving", moving, torch.eye(3).expand(400, 3, 3), torch.zeros(400, 3), 60.0),
        Capture("still", torch.zeros(400, 21, 3), torch.eye(3).expand(400, 3, 3), torch.zeros(400, 3), 60.0),
    ]
    generator = torch.Generator().manual_seed(0)

    def stub(
        _: Denoiser, rotmat: Tensor, times: Tensor, valid: Tensor, ahead: Tensor, noise: Tensor
    ) -> tuple[Tensor, ...]:
        last = rotmat[:, -1:]
        seconds = (ahead - times[:, -1:]).float()
        still = geodesic_distance(rotmat[:, -2], rotmat[:, -1]).mean(-1) < 1e-6
        way = torch.zeros(*seconds.shape, 21, 3)
        way[..., 0] = 2 * (2.5 * 60 / 399) * seconds[..., None]
        way[still] = 0.2 * torch.randn(way[still].shape, generator=generator)
        return last @ rotvec_to_rotmat(way), last, seconds, torch.where(still, CALM / 2, BRISK * 2)

    monkeypatch.setattr(fitting, "outlook", stub)
    kept = denoiser.trust.clone()
    errors = fitting.fit_trust(denoiser, captures)
    found = denoiser.trust.clone()
    denoiser.trust.copy_(kept)
    assert torch.allclose(found[:, 1], torch.full((len(HORIZONS),), 0.5).double(), atol=0.03)
    assert float(found[:, 0].max()) < 0.1
    assert (errors[:, 0] < 0.3 * errors[:, 1]).all()
