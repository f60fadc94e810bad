"""Feet that stand are told by how they move across the line of sight."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from small_reconstructor import evidence_of, observations, untrained

from kinflow.body import Body
from kinflow.reconstruction import refine
from kinflow.reconstruction.contacts import contact_probability, foot_speeds
from kinflow.skeleton import FEET

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from calibrate_contacts import logistic


def test_speeds_by_hand() -> None:
    """The left heel goes 0.3 m/s across the ray and 0.4 along it, its toe stands; times are uneven."""
    times = torch.tensor([0.0, 0.1, 0.3, 0.4], dtype=torch.float64)
    feet = torch.zeros(4, 4, 3, dtype=torch.float64) + torch.tensor([0.0, 0.0, 1000.0], dtype=torch.float64)
    feet[:, 0] += times[:, None] * torch.tensor([0.3, 0.0, 0.4], dtype=torch.float64)
    speeds = foot_speeds(feet, times).exp()
    torch.testing.assert_close(speeds[:, 0], torch.tensor([[0.3, 0.4, 0.02, 0.02]] * 4).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(speeds[:, 1], torch.tensor([[0.02, 0.02, 0.02, 0.3]] * 4).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(speeds[:, 2], torch.tensor([[0.02, 0.02, 0.3, 0.02]] * 4).double(), rtol=1e-3, atol=0)


def test_what_stands_and_what_swings() -> None:
    times = torch.arange(12).double() / 30
    feet = torch.tensor([0.0, 1.0, 4.0]).double().repeat(12, 4, 1)
    feet[6:, 2:] += (times[6:, None] - times[6])[..., None] * torch.tensor([2.0, 0, 0]).double()
    found = contact_probability(feet, times)
    assert (found[:, :2] > 0.7).all() and (found[:6, 2:] > 0.7).all() and (found[7:, 2:] < 0.1).all()
    assert contact_probability(feet[:1], times[:1]).shape == (1, 4)


def test_the_fit_s_motion_has_them() -> None:
    reconstructor = untrained(Body.open("light"))
    obs = observations(reconstructor.body, steps=8)
    (motion,) = reconstructor.reconstruct([evidence_of(obs, 0)], obs.K[0])
    feet = torch.from_numpy(motion.keypoints3d("blazepose33")[:, list(FEET)])
    expected = contact_probability(feet, torch.tensor(motion.timestamps))
    torch.testing.assert_close(torch.tensor(motion.contacts), expected.float(), atol=2e-3, rtol=0)


def test_a_long_motion_is_posed_in_pieces_without_a_word(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """What is computed once more for the gradient is not where there is none: torch warns of it."""
    reconstructor = untrained(Body.open("light"))
    obs = observations(reconstructor.body, steps=8)
    monkeypatch.setattr(refine, "_PIECE", 3)
    reconstructor.reconstruct([evidence_of(obs, 0)], obs.K[0])
    assert not [w for w in recwarn if "requires_grad" in str(w.message)]


def test_the_regression_finds_its_own_law() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20000, 2, generator=g, dtype=torch.float64)
    y = torch.rand(20000, generator=g, dtype=torch.float64) < torch.sigmoid(1.5 * x[:, 0] - 0.5 * x[:, 1] + 0.3)
    torch.testing.assert_close(logistic(x, y.double()), torch.tensor([1.5, -0.5, 0.3]).double(), atol=0.08, rtol=0)
