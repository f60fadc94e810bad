"""Metrics: values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from kinflow import metrics
from kinflow.errors import ShapeError
from kinflow.rotations import rotvec_to_rotmat

D = torch.float64


def test_mpjpe_moves_the_root_away() -> None:
    truth = torch.zeros(2, 3, 3, dtype=D)
    guess = truth + torch.tensor([1.0, 2, 3], dtype=D)
    guess[0, 2, 0] += 0.3
    assert torch.allclose(metrics.mpjpe(guess, truth), torch.tensor([0.1, 0.0], dtype=D))
    assert metrics.mpjpe(guess, truth, root=None)[1].item() == pytest.approx(math.sqrt(14))
    # The mean of joints 1 and 2 as root: joint 0 is then 0.15 off, and so are both of them.
    assert metrics.mpjpe(guess, truth, root=(1, 2))[0].item() == pytest.approx(0.15)
    with pytest.raises(ShapeError, match="target"):
        metrics.mpjpe(guess, truth[:, :2])


def test_pa_mpjpe_forgives_similarity_but_not_reflection() -> None:
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(4, 14, 3, generator=g, dtype=D)
    turn = rotvec_to_rotmat(torch.randn(4, 3, generator=g, dtype=D))
    moved = 2.5 * truth @ turn + torch.randn(4, 1, 3, generator=g, dtype=D)
    assert metrics.pa_mpjpe(moved, truth).max() < 1e-12
    assert metrics.mpjpe(moved, truth).min() > 0.1
    mirrored = truth * torch.tensor([-1.0, 1, 1], dtype=D)
    assert metrics.pa_mpjpe(mirrored, truth).min() > 0.1


def test_pa_mpjpe_by_hand() -> None:
    truth = torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]], dtype=D)
    guess = torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 0.5, 0], [0, -0.5, 0]]], dtype=D)
    # No turn; scale (2 + 1) / (2 + 0.5) = 1.2: errors 0.2 along x, 0.4 along y.
    assert metrics.pa_mpjpe(guess, truth).item() == pytest.approx(0.3)


def test_pve_with_and_without_roots() -> None:
    truth = torch.zeros(1, 5, 3, dtype=D)
    guess = truth + torch.tensor([0.0, 3, 4], dtype=D)
    assert metrics.pve(guess, truth).item() == pytest.approx(5)
    assert metrics.pve(guess, truth, guess[:, 0], truth[:, 0]).item() == 0


def test_acceleration_uses_the_true_times() -> None:
    t = torch.tensor([[0.0, 0.1, 0.3, 0.4]], dtype=D)
    joints = (0.5 * 3 * t.square())[..., None, None] * torch.tensor([0.0, 1, 0], dtype=D).expand(1, 4, 2, 3)
    assert torch.allclose(metrics.acceleration_magnitude(joints, t), torch.full((1, 2), 3.0, dtype=D))
    assert torch.allclose(
        metrics.acceleration_error(joints, torch.zeros_like(joints), t), torch.full((1, 2), 3.0, dtype=D)
    )
    valid = torch.tensor([[True, True, True, False]])
    assert metrics.triplets_valid(valid).tolist() == [[True, False]]


def test_pck_counts_confident_points() -> None:
    truth = torch.zeros(1, 33, 2, dtype=D)
    truth[0, [11, 12], 1] = -100.0  # shoulders 100 px above the hips
    assert metrics.torso_length(truth).item() == pytest.approx(100)
    guess, confidence = truth.clone(), torch.zeros(1, 33, dtype=D)
    guess[0, 0, 0], guess[0, 1, 0], guess[0, 2, 0] = 19.0, 21.0, 500.0
    confidence[0, :2] = 0.9
    correct, counted = metrics.pck(guess, truth, confidence, torch.tensor([100.0], dtype=D))
    assert (correct.item(), counted.item()) == (1, 2)
