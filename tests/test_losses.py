"""Losses: values worked by hand, and a gradcheck for each."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kinflow import losses, timing
from kinflow.errors import ShapeError

K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def randn(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def times(*shape: int) -> Tensor:
    return torch.linspace(0, 1, shape[-1], dtype=torch.float64).pow(1.2).expand(shape)


def test_masked_mean_ignores_what_is_not_valid() -> None:
    value = torch.tensor([1.0, math.nan, 3.0])
    assert losses.masked_mean(value, torch.tensor([True, False, True])) == 2
    assert losses.masked_mean(value, torch.zeros(3, dtype=torch.bool)) == 0


def test_robust_functions_are_quadratic_near_zero_and_bounded_or_linear_far_out() -> None:
    small, large = torch.tensor(1e-6, dtype=torch.float64), torch.tensor(1e6, dtype=torch.float64)
    assert losses.geman_mcclure(small, 0.5).item() == pytest.approx(1e-6, rel=1e-4)
    assert losses.geman_mcclure(large, 0.5).item() == pytest.approx(0.25, rel=1e-4)
    assert losses.huber(small, 0.5).item() == pytest.approx(1e-6, rel=1e-4)
    assert losses.huber(large, 0.5).item() == pytest.approx(2 * 0.5 * 1000, rel=1e-2)


def test_keypoint_reprojection_value_and_weights() -> None:
    points = torch.tensor([[[0.0, 0, 2], [0.2, 0, 2]]], dtype=torch.float64)
    exact = torch.tensor([[[320.0, 240], [370, 240]]], dtype=torch.float64)
    size = torch.tensor([100.0], dtype=torch.float64)
    both = torch.ones(1, 2, dtype=torch.float64)
    assert losses.keypoint_reprojection(points, exact, both, K, size).item() == pytest.approx(0)
    off = exact + torch.tensor([[0.0, 0], [10, 0]])
    # 10 px of 100 is the scale itself: 1/2 of the largest value, for one point of two.
    assert losses.keypoint_reprojection(points, off, both, K, size).item() == pytest.approx(0.25)
    unseen = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert losses.keypoint_reprojection(points, off, unseen, K, size).item() == pytest.approx(0)
    with pytest.raises(ShapeError, match="keypoints2d"):
        losses.keypoint_reprojection(points, off[:, :1], both, K, size)


def test_keypoint_reprojection_gradient(rng: torch.Generator) -> None:
    points = randn(rng, 2, 4, 3) + torch.tensor([0, 0, 6.0])
    target, confidence = randn(rng, 2, 4, 2) * 30 + 300, torch.rand(2, 4, generator=rng, dtype=torch.float64)
    size = torch.full((2,), 200.0, dtype=torch.float64)
    assert gradcheck(lambda p: losses.keypoint_reprojection(p, target, confidence, K, size), points.requires_grad_())


def test_part_alignment_by_hand() -> None:
    vertices = torch.tensor([[[0.0, 0], [100, 0]]], dtype=torch.float64)
    pixels = torch.tensor([[[0.0, 10], [100, 0], [500, 500]]], dtype=torch.float64)
    size, parts = torch.tensor([100.0], dtype=torch.float64), torch.tensor([0, 1])
    # Part 0: vertex and pixel 0.1 apart, both ways; part 1 fits; the third pixel is padding.
    value = losses.part_alignment(vertices, parts, pixels, torch.tensor([[0, 1, -1]]), size, scale=0.1)
    assert value.item() == pytest.approx((0.5 + 0.5) / 2)
    # As one part the nearest of all counts.
    value = losses.part_alignment(
        vertices, torch.zeros(2, dtype=torch.long), pixels, torch.tensor([[0, 0, -1]]), size, 0.1
    )
    assert value.item() == pytest.approx(0.25 + 0.25)
    # A part that no pixel shows may be hidden: its vertex still lies within the person.
    value = losses.part_alignment(vertices, parts, pixels, torch.tensor([[0, 0, 0]]), size, scale=0.1)
    assert value.item() == pytest.approx(0.25 + (0.5 + 2 * (1 - 1e-3)) / 3, rel=2e-2)
    assert losses.part_alignment(vertices, parts, pixels, torch.full((1, 3), -1), size).item() == 0


def test_part_alignment_leaves_unseen_vertices_out() -> None:
    vertices, pixels = torch.tensor([[[0.0, 0], [100, 0]]]), torch.tensor([[[0.0, 10], [0.0, 10]]])
    size, parts, same = torch.tensor([100.0]), torch.tensor([0, 0]), torch.tensor([[0, 0]])
    weight = torch.tensor([[0.0, 1.0]])
    far = losses.part_alignment(vertices, parts, pixels, same, size, 0.1, weight)  # both ways to the one at 100
    assert far.item() == pytest.approx(2 * (1 - 1 / 102), rel=1e-3)
    assert losses.part_alignment(vertices, parts, pixels, same, size, 0.1, 0 * weight).item() == 0
    assert losses.part_alignment(vertices, parts + 1, pixels, same, size, 0.1, 1 - weight).item() == pytest.approx(0.5)


def test_part_alignment_gradient(rng: torch.Generator) -> None:
    vertices, pixels = randn(rng, 2, 7, 2) * 50, randn(rng, 2, 5, 2) * 50
    vertex_parts = torch.tensor([0, 1, 0, 1, 2, 0, 1])
    pixel_parts = torch.tensor([[0, 1, 1, 0, -1], [1, 1, 1, 2, 2]])
    weight = torch.rand(2, 7, generator=rng, dtype=torch.float64)
    size = torch.full((2,), 80.0, dtype=torch.float64)
    assert gradcheck(
        lambda v: losses.part_alignment(v, vertex_parts, pixels, pixel_parts, size, 0.3, weight),
        vertices.requires_grad_(),
    )


def test_joints3d_value_and_gradient(rng: torch.Generator) -> None:
    target, weight = randn(rng, 2, 5, 3), torch.rand(2, 5, generator=rng, dtype=torch.float64)
    moved = target + torch.tensor([0.3, 0, 0.4])
    expected = 2 * (math.sqrt(1 + 25) - 1)
    assert torch.allclose(losses.joints3d(moved, target, scale=0.1), torch.full((2,), expected, dtype=torch.float64))
    assert gradcheck(lambda x: losses.joints3d(x, target, weight), randn(rng, 2, 5, 3).requires_grad_())


def test_rotation_geodesic_value_and_gradient(rng: torch.Generator) -> None:
    from kinflow.rotations import rotvec_to_rotmat

    a = torch.tensor([[[0.0, 0, 0], [0, 0, 0.5]]], dtype=torch.float64)
    zero = rotvec_to_rotmat(torch.zeros_like(a))
    assert losses.rotation_geodesic(rotvec_to_rotmat(a), zero).item() == pytest.approx(0.25)
    target, weight = rotvec_to_rotmat(randn(rng, 3, 4, 3)), torch.rand(3, 4, generator=rng, dtype=torch.float64)
    assert gradcheck(
        lambda v: losses.rotation_geodesic(rotvec_to_rotmat(v), target, weight), randn(rng, 3, 4, 3).requires_grad_()
    )


def test_landmark_alignment_forgives_a_shift_alone(rng: torch.Generator) -> None:
    ours, weight = torch.randn(4, 33, 3, generator=rng, dtype=torch.float64), torch.rand(4, 33, generator=rng).double()
    std = 0.05 + 0.1 * torch.rand(4, 33, 2, generator=rng, dtype=torch.float64)
    assert losses.landmark_alignment(ours, ours + torch.tensor([3.0, -1, 2]), std, weight).abs().max() < 1e-12
    assert losses.landmark_alignment(ours, 1.2 * ours, std, weight).min() > 0.1
    # One landmark of two is off by 0.2 m along the ray, or across it: half of it remains to each once shifted.
    two, equal = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for axis, of in ((0, 0), (1, 0), (2, 1)):
        moved = two.clone()
        moved[0, axis] = 0.2
        std = torch.tensor([[1.0, 2.0]], dtype=torch.float64).expand(2, 2)
        expected = 0.5 * (0.1 / float(std[0, of])) ** 2
        assert float(losses.landmark_alignment(moved, two, std, equal, scale=1e3)) == pytest.approx(expected, rel=1e-6)
    # Who is measured better is shifted to.
    std = torch.tensor([[0.01, 0.01], [1.0, 1.0]], dtype=torch.float64)
    moved = two.clone()
    moved[0, 0] = 0.2
    expected = 0.5 * (0.2**2 / (0.01**2 + 1)) / 2
    assert float(losses.landmark_alignment(moved, two, std, equal, scale=1e3)) == pytest.approx(expected, rel=1e-6)
    theirs = torch.randn(4, 33, 3, generator=rng, dtype=torch.float64)
    std = 0.5 + torch.rand(4, 33, 2, generator=rng, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: losses.landmark_alignment(x, theirs, std, weight), ours.clone().requires_grad_()
    )


def test_acceleration_is_exact_for_parabolas_at_uneven_times() -> None:
    t = times(1, 7)
    path = (0.5 * 4.0 * t.square() + t)[..., None, None] * torch.tensor([1.0, 0, 0], dtype=torch.float64)
    accel = timing.acceleration(path, t)
    assert torch.allclose(accel, torch.tensor([4.0, 0, 0], dtype=torch.float64).expand_as(accel))
    expected = 2 * (math.sqrt(1 + 0.16) - 1)
    assert torch.allclose(losses.acceleration(path, t), torch.full((1, 5), expected, dtype=torch.float64))
    assert losses.acceleration(path, t, path).abs().max() == 0


def test_acceleration_gradient(rng: torch.Generator) -> None:
    target = randn(rng, 2, 5, 3, 3)
    assert gradcheck(lambda x: losses.acceleration(x, times(2, 5), target), randn(rng, 2, 5, 3, 3).requires_grad_())


def test_latent_smoothness_does_not_depend_on_the_frame_rate(rng: torch.Generator) -> None:
    # Brownian paths of one speed, seen at two rates.
    steps = randn(rng, 400, 240, 8) / math.sqrt(240)
    path, t = steps.cumsum(1), torch.arange(240, dtype=torch.float64).expand(400, 240) / 240
    fine = losses.latent_smoothness(path, t).mean().item()
    coarse = losses.latent_smoothness(path[:, ::8], t[:, ::8]).mean().item()
    assert fine == pytest.approx(1, rel=0.02) and coarse == pytest.approx(1, rel=0.05)
    assert gradcheck(lambda z: losses.latent_smoothness(z, times(2, 4)), randn(rng, 2, 4, 3).requires_grad_())


def test_likelihoods_against_torch_distributions(rng: torch.Generator) -> None:
    z, mean, log_var = randn(rng, 4, 6), randn(rng, 4, 6), randn(rng, 4, 6)
    normal = torch.distributions.Normal(torch.zeros_like(z), torch.ones_like(z))
    assert torch.allclose(losses.latent_nll(z), -normal.log_prob(z).sum(-1))
    expected = -torch.distributions.Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(-1)
    assert torch.allclose(losses.gaussian_nll(z, mean, log_var), expected)
    assert gradcheck(losses.latent_nll, z.clone().requires_grad_())
    assert gradcheck(losses.gaussian_nll, tuple(x.clone().requires_grad_() for x in (z, mean, log_var)))


def test_gaussian_divergence_is_that_of_torch(rng: torch.Generator) -> None:
    numbers = tuple(randn(rng, 2, 4) for _ in range(4))
    mean, log_var, other_mean, other_log_var = numbers
    one, other = (
        torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in ((mean, log_var), (other_mean, other_log_var))
    )
    expected = torch.distributions.kl_divergence(one, other).sum(-1)
    assert torch.allclose(losses.gaussian_divergence(*numbers), expected)
    assert torch.allclose(losses.gaussian_divergence(mean, log_var, mean, log_var), torch.zeros(2, dtype=torch.float64))
    assert gradcheck(losses.gaussian_divergence, tuple(x.clone().requires_grad_() for x in numbers))


def test_dynamics_nll_counts_valid_frames_only(rng: torch.Generator) -> None:
    log_prob = randn(rng, 2, 4)
    valid = torch.tensor([[True, True, False, True], [True, False, False, False]])
    value = losses.dynamics_nll(log_prob, valid)
    assert torch.allclose(value[0], -log_prob[0, [0, 1, 3]].mean()) and torch.allclose(value[1], -log_prob[1, 0])
    assert gradcheck(lambda x: losses.dynamics_nll(x, valid), log_prob.requires_grad_())


def test_betas_prior_and_contacts(rng: torch.Generator) -> None:
    betas, logits = randn(rng, 3, 10), randn(rng, 3, 5, 4)
    assert losses.betas_prior(torch.ones(10)).item() == pytest.approx(0.5)
    assert gradcheck(losses.betas_prior, betas.requires_grad_())
    contacts = (randn(rng, 3, 5, 4) > 0).double()
    by_hand = -(contacts * torch.sigmoid(logits).log() + (1 - contacts) * torch.sigmoid(-logits).log()).mean(-1)
    assert torch.allclose(losses.contact_bce(logits, contacts), by_hand)
    assert gradcheck(lambda x: losses.contact_bce(x, contacts), logits.requires_grad_())
    with pytest.raises(ShapeError, match="contacts"):
        losses.contact_bce(logits, contacts[..., :3])


def test_contact_velocity_value_and_gradient(rng: torch.Generator) -> None:
    t = torch.tensor([[0.0, 0.1]], dtype=torch.float64)
    feet = torch.zeros(1, 2, 4, 3, dtype=torch.float64)
    feet[0, 1, 0, 0] = 0.05  # the left heel slides at 0.5 m/s
    touching = torch.ones(1, 2, 4, dtype=torch.float64)
    assert losses.contact_velocity(feet, touching, t).item() == pytest.approx(2 * (math.sqrt(2) - 1) / 4)
    lifted = touching.clone()
    lifted[0, 1, 0] = 0
    assert losses.contact_velocity(feet, lifted, t).item() == 0
    contacts = torch.rand(2, 5, 4, generator=rng, dtype=torch.float64)
    assert gradcheck(
        lambda x: losses.contact_velocity(x, contacts, times(2, 5)), randn(rng, 2, 5, 4, 3).requires_grad_()
    )
