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


def a_path(frames: int = 230, joints: int = 24) -> torch.Tensor:
    """A body (2, T, J, 3) that walks a curve."""
    t = torch.arange(frames, dtype=D)[:, None, None] / 30
    body = torch.randn(2, 1, joints, 3, dtype=D) * 0.3 + 0.1 * torch.sin(3 * t + torch.randn(2, 1, joints, 3, dtype=D))
    return body + torch.cat((t, torch.zeros_like(t), 0.5 * torch.sin(t)), -1)


STAMPS = torch.arange(230, dtype=D) / 30


def test_a_known_similarity_is_found_back() -> None:
    points, turn = torch.randn(5, 9, 3, dtype=D), rotvec_to_rotmat(torch.randn(5, 3, dtype=D))
    moved = 1.7 * points @ turn + torch.randn(5, 1, 3, dtype=D)
    fit = metrics.similarity(points, moved)
    torch.testing.assert_close(fit.scale.flatten(), torch.full((5,), 1.7, dtype=D))
    torch.testing.assert_close(fit.rotation, turn)
    torch.testing.assert_close(fit(points), moved)
    assert torch.equal(metrics.similarity(points, moved, scale=False).scale.flatten(), torch.ones(5, dtype=D))


def test_jerk_and_gaps() -> None:
    t = torch.tensor([[0.0, 0.1, 0.3, 0.4, 0.45]], dtype=D)
    joints = (2 * t**3)[..., None, None] * torch.tensor([0.6, 0.8, 0], dtype=D).expand(1, 5, 2, 3)  # jerk 12
    torch.testing.assert_close(
        metrics.jerk_error(joints, torch.zeros_like(joints), t), torch.full((1, 2), 12.0, dtype=D)
    )
    valid = torch.tensor([True, True, True, True, False, True])
    assert metrics.successive_valid(valid, 4).tolist() == [True, False, False]
    assert metrics.successive_valid(valid[:2], 4).shape == (0,)


def test_jitter_scores_its_closed_form() -> None:
    """Frames off by a along x, to and fro: second differences are 4 a, third ones 8 a, over the step's powers."""
    truth, a = a_path(), 0.01
    guess = truth.clone()
    guess[:, ::2, :, 0] += a
    guess[:, 1::2, :, 0] -= a
    stamps = STAMPS.expand(2, -1)
    assert metrics.acceleration_error(guess, truth, stamps).mean().item() == pytest.approx(4 * a * 30**2)
    assert metrics.jerk_error(guess, truth, stamps).mean().item() == pytest.approx(8 * a * 30**3)


def test_pck_and_area_by_hand() -> None:
    errors = torch.tensor([0.0, 0.04, 0.05, 0.1, 0.3], dtype=D)
    assert metrics.pck3d(errors).item() == pytest.approx(3 / 5)
    assert metrics.auc3d(errors).item() == pytest.approx((1 + 0.8 + 0.75 + 0.5 + 0) / 5)
    curve = torch.stack([metrics.pck3d(errors, t) for t in torch.linspace(0, 0.2, 20001, dtype=D)])
    assert metrics.auc3d(errors).item() == pytest.approx(curve.mean().item(), abs=1e-4)


def test_f1_by_hand() -> None:
    true = torch.tensor([[True, False], [True, True]])
    found = torch.tensor([[True, True], [False, True]])  # precision and recall 2/3
    assert metrics.f1_score(found, true).item() == pytest.approx(2 / 3)
    assert metrics.f1_score(true, true) == 1 and metrics.f1_score(true, ~true) == 0
    assert metrics.f1_score(true, true & ~true).isnan()


def test_world_metrics_forgive_their_alignment_and_no_more() -> None:
    truth, turn = a_path(), rotvec_to_rotmat(torch.tensor([0.3, -1.0, 0.4], dtype=D))
    moved = 1.3 * truth @ turn + torch.tensor([4.0, 0, -2], dtype=D)
    for aligned in (2, None):
        assert metrics.world_mpjpe(moved, truth, aligned).max() < 1e-12
    # A constant drift, by hand: nothing is off in each segment's first frames, v t at the end.
    away = 0.2 * (STAMPS[:, None] * torch.tensor([0.0, 1, 0], dtype=D))[:, None]
    drift = torch.cat([p - a[:1] + a for p, a in zip(truth.split(100, 1), away.split(100), strict=True)], 1)
    scores = metrics.world_mpjpe(drift, truth, 1)
    expected = torch.cat([0.2 * (s - s[0]) for s in STAMPS.split(100)])
    torch.testing.assert_close(scores, expected.expand(2, -1), atol=1e-10, rtol=0)
    assert (metrics.world_mpjpe(drift, truth, None).mean() < scores.mean()).item()


def test_root_translation_error_by_hand() -> None:
    line = torch.zeros(1, 5, 3, dtype=D)
    line[0, :, 0] = torch.arange(5)
    assert metrics.root_translation_error(line @ rotvec_to_rotmat(torch.ones(3, dtype=D)), line).max() < 1e-12
    # Half as long, about the same middle: off by 1, 1/2, 0, 1/2, 1 of a path of length 4.
    short = metrics.root_translation_error(0.5 * line, line)
    torch.testing.assert_close(short, torch.tensor([[0.25, 0.125, 0, 0.125, 0.25]], dtype=D))


def test_foot_sliding_by_hand() -> None:
    truth, stamps = torch.zeros(4, 2, 3, dtype=D), torch.tensor([0.0, 0.1, 0.2, 0.4], dtype=D)
    truth[:, 1, 0] = 1.0 * stamps  # the second foot walks at 1 m/s, the first one stands
    guess = truth.clone()
    guess[:, 0, 2] = 0.05 * stamps
    sliding = metrics.foot_sliding(guess, truth, stamps)
    assert sliding.standing.tolist() == 3 * [[True, False]]
    torch.testing.assert_close(sliding.distance[:, 0], torch.tensor([0.005, 0.005, 0.01], dtype=D))


def test_deviations_against_scipy_and_their_own_draws() -> None:
    from scipy.stats import multivariate_normal

    std = torch.tensor([0.5, 1.0, 2.0], dtype=D)
    error = torch.randn(3, 3, dtype=D)
    nll = [-multivariate_normal([0, 0, 0], s**2).logpdf(e) for s, e in zip(std.tolist(), error.numpy(), strict=True)]
    torch.testing.assert_close(metrics.gaussian_nll(error, std[..., None]), torch.tensor(nll, dtype=D))
    draws = 0.03 * torch.randn(20000, 3, dtype=D)
    for level in (0.5, 0.9):
        share = metrics.covered(draws, torch.tensor(0.03, dtype=D), level).double().mean().item()
        assert share == pytest.approx(level, abs=0.012)  # 3 standard errors
        long = metrics.covered(
            draws * torch.tensor([1.0, 1.0, 7.0], dtype=D), 0.03 * torch.tensor([1.0, 1, 7], dtype=D), level
        )
        assert long.double().mean().item() == share
        assert metrics.covered(draws, torch.tensor(0.015, dtype=D), level).double().mean().item() < level - 0.2


@pytest.mark.parametrize("name", ["mpjpe", "pa_mpjpe", "world", "rte", "jerk", "nll"])
def test_gradients(name: str) -> None:
    truth = a_path(6, 5)[:1]
    stamps = torch.tensor([[0.0, 0.1, 0.25, 0.3, 0.5, 0.6]], dtype=D)
    score = {
        "mpjpe": lambda x: metrics.mpjpe(x, truth),
        "pa_mpjpe": lambda x: metrics.pa_mpjpe(x, truth),
        "world": lambda x: metrics.world_mpjpe(x, truth, 2, 4),
        "rte": lambda x: metrics.root_translation_error(x[:, :, 0], truth[:, :, 0]),
        "jerk": lambda x: metrics.jerk_error(x, truth, stamps),
        "nll": lambda x: metrics.gaussian_nll(x - truth, torch.full((1,), 0.1, dtype=D)),
    }[name]
    guess = (truth + 0.1 * torch.randn_like(truth)).requires_grad_()
    assert torch.autograd.gradcheck(score, guess)
