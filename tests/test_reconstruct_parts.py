"""Geometry, smoothing, Gaussians and batching of the reconstructor, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from kinflow.cameras import project
from kinflow.reconstruction.batching import cut
from kinflow.reconstruction.gaussian import (
    Gaussian,
    absorb,
    evidence_of,
    fuse,
    fuse_over_prior,
    soft_clamp,
    soft_max,
    standard,
)
from kinflow.reconstruction.geometry import local_view, ray_rotmat, root_rotmat, solve_translation
from kinflow.reconstruction.kernel import kernel_of
from kinflow.reconstruction.target import inside_crops, part_pixels
from kinflow.rotations import exp_so3, log_so3, rotvec_to_rotmat
from kinflow.tracks import ROOT, TRANSL, OrnsteinUhlenbeck, smooth

D = torch.float64
K = torch.tensor([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]], dtype=D)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=D)


# -- geometry ---------------------------------------------------------------------------------------------------------


def test_ray_rotation_is_the_smallest_that_points_along_the_ray() -> None:
    direction = torch.nn.functional.normalize(randn(50, 3).abs() + 0.05, dim=-1)
    R = ray_rotmat(direction)
    axis = torch.tensor([0.0, 0, 1], dtype=D)
    assert torch.allclose(R @ axis, direction)
    assert torch.allclose(R @ R.transpose(-1, -2), torch.eye(3, dtype=D).expand(50, 3, 3))
    angle = torch.arccos((R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)
    assert torch.allclose(angle, torch.arccos(direction[:, 2]))


def test_root_frame_turns_with_the_body_and_faces_the_camera_in_doubt() -> None:
    landmarks = randn(20, 33, 3)
    turn = rotvec_to_rotmat(randn(20, 3))
    assert torch.allclose(root_rotmat(landmarks @ turn.transpose(-1, -2)), turn @ root_rotmat(landmarks))
    R = root_rotmat(landmarks)
    assert torch.allclose(torch.det(R), torch.ones(20, dtype=D))
    facing = torch.diag(torch.tensor([1.0, -1, -1], dtype=D))
    assert torch.equal(root_rotmat(torch.zeros(1, 33, 3, dtype=D))[0], facing)
    # A person upright before the camera: the subject's left is at the image's right, y points down.
    upright = torch.zeros(33, 3, dtype=D)
    upright[[11, 12], 1] = -0.5
    upright[[11, 23], 0], upright[[12, 24], 0] = 0.15, -0.15
    assert torch.allclose(root_rotmat(upright), facing)


def test_local_view_looks_straight_at_the_person() -> None:
    points = randn(33, 3) * 0.3 + torch.tensor([1.5, -0.8, 4.0])
    view = local_view(project(points, K), torch.ones(33, dtype=D), K)
    in_ray = points @ view.ray_to_camera
    assert torch.allclose(view.points, in_ray[:, :2] / in_ray[:, 2:])
    assert view.points[[11, 12, 23, 24]].mean(0).abs().max() < 0.1


def test_translation_is_exact_and_withstands_outliers() -> None:
    points, transl = randn(6, 33, 3) * 0.4, randn(6, 3) * 0.5 + torch.tensor([0, 0, 5.0])
    pixels = project(points + transl[:, None], K)
    weight = torch.ones(6, 33, dtype=D)
    solved = solve_translation(points, pixels, weight, K, sigma=1e-3)
    assert torch.allclose(solved.mean, transl, atol=1e-5)
    wrong = pixels.clone()
    wrong[:, :5] += 200
    robust = solve_translation(points, wrong, weight, K, sigma=0.02, iterations=10)
    assert (robust.mean - transl).norm(dim=-1).max() < 0.01
    # Depth is the uncertain direction.
    variance = robust.covariance.diagonal(dim1=-2, dim2=-1)
    assert (variance[:, 2] > 5 * variance[:, 0]).all()


def test_nobody_is_behind_the_camera() -> None:
    """Keypoints that show the points upside down fit best behind it, where everything stands on its head."""
    points, transl = randn(3, 33, 3) * 0.4, torch.tensor([0.3, -0.2, 5.0], dtype=D)
    pixels = project(points + transl, K)
    turned = points.clone()
    turned[1:, :, :2] *= -1
    solved = solve_translation(turned, pixels, torch.ones(3, 33, dtype=D), K, sigma=0.03).mean
    assert torch.allclose(solved[0], transl, atol=1e-5)
    assert ((solved - transl).norm(dim=-1) < 0.8).all()  # about where the person is, by size


def test_translation_without_keypoints_is_finite_and_differentiable() -> None:
    points, pixels = randn(1, 33, 3).requires_grad_(), torch.zeros(1, 33, 2, dtype=D)
    solved = solve_translation(points, pixels, torch.zeros(1, 33, dtype=D), K)
    assert torch.isfinite(solved.mean).all() and solved.covariance[0, 2, 2] > 10
    solved = solve_translation(points, project(points + torch.tensor([0, 0, 6.0]), K), torch.ones(1, 33, dtype=D), K)
    solved.mean.sum().backward()
    assert points.grad is not None and torch.isfinite(points.grad).all()


# -- smoothing --------------------------------------------------------------------------------------------------------


def motion(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, smooth truth and noisy measurement (T, 3)."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.uniform(0.02, 0.05, count))
    truth = np.stack((np.sin(1.5 * t), 0.3 * t, np.cos(t)), -1)
    return t, truth, truth + 0.05 * rng.normal(size=truth.shape)


@pytest.mark.parametrize("wander", (ROOT, TRANSL, OrnsteinUhlenbeck(4.0, 0.05)))
@pytest.mark.parametrize("dt", (1e-9, 1e-4, 0.004999, 1 / 30, 0.0399999, 0.1, 1.0, 30.0))
def test_transition_and_noise_are_one_model(wander: OrnsteinUhlenbeck, dt: float) -> None:
    """Van Loan, IEEE Trans. Automatic Control 1978: both from one matrix exponential of the differential equation."""
    A = np.array([[0.0, 1], [0, -1 / wander.memory]])
    block = np.zeros((4, 4))
    block[:2, :2], block[:2, 2:], block[2:, 2:] = -A, np.diag([0, wander.drift]), A.T
    steps = max(1, math.ceil(4 * dt / wander.memory))  # longer ones leave the range in which -A's exponential is exact
    out = scipy.linalg.expm(block * dt / steps)
    F, Q = np.eye(2), np.zeros((2, 2))
    for _ in range(steps):
        F, Q = out[2:, 2:].T @ F, out[2:, 2:].T @ (Q @ out[2:, 2:] + out[:2, 2:])
    np.testing.assert_allclose(wander.transition(dt), F, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(wander.noise(dt), Q, rtol=1e-6 if dt < 1e-3 else 1e-9)


@pytest.mark.parametrize("rotation", (False, True))
def test_smoother_is_the_gaussian_process_posterior(rotation: bool) -> None:
    """Means and covariances, in a gap of 3 s too, against dense linear algebra on the integrated process' kernel."""
    rng, wander, std, count = np.random.default_rng(0), OrnsteinUhlenbeck(4.0, 0.5), 0.1, 60
    size = 1e-3 if rotation else 1.0  # turns so small that their order does not matter
    steps, observed = rng.uniform(0.02, 0.06, count), rng.random(count) < 0.8
    steps[25:35], observed[25:35], observed[0] = 0.3, False, True
    t = np.cumsum(steps)
    a = (t - t[0]) / wander.memory
    least, apart = np.minimum(a[:, None], a), np.abs(a[:, None] - a)
    walk = 2 * least - 1 + np.exp(-a[:, None]) + np.exp(-a) - np.exp(-apart)
    K = wander.rate_var * wander.memory**2 * walk
    truth = np.linalg.cholesky(K + 1e-12 * np.eye(count)) @ rng.normal(size=(count, 3))
    y = truth + 0.5 * std * rng.normal(size=truth.shape)  # none so far off that its pull is bounded
    prior = K + 1e2 / size**2  # where the first is, is as good as unknown
    seen = prior[np.ix_(observed, observed)] + std**2 * np.eye(observed.sum())
    gain = np.linalg.solve(seen, prior[observed]).T
    first = y[0]
    mean, cov = first + gain @ (y[observed] - first), prior - gain @ prior[observed]
    small = OrnsteinUhlenbeck(wander.drift * size**2, wander.memory)
    measured = exp_so3(size * y) if rotation else y
    value, value_cov = smooth(measured, np.tile((size * std) ** 2 * np.eye(3), (count, 1, 1)), t, observed, small)
    np.testing.assert_allclose((log_so3(value) if rotation else value) / size, mean, atol=1e-3 if rotation else 1e-6)
    expected = np.einsum("t,ij->tij", np.diag(cov), np.eye(3))
    np.testing.assert_allclose(value_cov / size**2, expected, rtol=1e-3, atol=1e-6)


def test_smoothing_reduces_noise_without_lag_and_bridges_gaps() -> None:
    t, truth, noisy = motion(200, 0)
    observed = np.ones(200, bool)
    observed[80:95] = False
    noisy[80:95] = 1e3  # must not be looked at
    cov = np.tile(np.eye(3) * 0.05**2, (200, 1, 1))
    value, value_cov = smooth(noisy, cov, t, observed, OrnsteinUhlenbeck(4.0, 1.0))
    inner = observed.copy()
    inner[:5] = inner[-5:] = False
    assert np.abs(value - truth)[inner].mean() < 0.42 * np.abs(noisy - truth)[inner].mean()
    assert np.abs(value - truth)[~observed].max() < 0.09
    # In the gap it knows that it knows less; and the lag that fits best is none.
    assert value_cov[87, 0, 0] > 20 * value_cov[60, 0, 0]
    errors = [np.abs(value[20 + k : 70 + k, 0] - truth[20:70, 0]).mean() for k in (-2, -1, 0, 1, 2)]
    assert int(np.argmin(errors)) == 2


def test_smoothing_of_rotations_agrees_with_vectors_where_turns_are_small() -> None:
    t, _, noisy = motion(60, 1)
    small, cov = 1e-3 * noisy, np.tile(np.eye(3) * 1e-6, (60, 1, 1))
    observed = np.ones(60, bool)
    as_vectors, _ = smooth(small, cov, t, observed, OrnsteinUhlenbeck(1e-5, 1.0))
    as_rotations, _ = smooth(exp_so3(small), cov, t, observed, OrnsteinUhlenbeck(1e-5, 1.0))
    assert np.allclose(log_so3(as_rotations), as_vectors, atol=2e-6)


def test_smoothing_does_not_depend_on_the_frame_of_rotations() -> None:
    t, _, noisy = motion(40, 2)
    cov, observed = np.tile(np.eye(3) * 0.01, (40, 1, 1)), np.ones(40, bool)
    turn = exp_so3(np.array([0.4, -2.0, 1.0]))
    plain, _ = smooth(exp_so3(noisy), cov, t, observed, OrnsteinUhlenbeck(5.0, 1.0))
    turned, _ = smooth(turn @ exp_so3(noisy), cov, t, observed, OrnsteinUhlenbeck(5.0, 1.0))
    assert np.allclose(turned, turn @ plain, atol=1e-9)


def test_smoothing_with_nothing_observed_or_one_frame() -> None:
    one = np.ones((1, 3))
    value, _ = smooth(one, np.eye(3)[None], np.zeros(1), np.zeros(1, bool), TRANSL)
    assert np.array_equal(value, one)
    value, cov = smooth(one, np.eye(3)[None], np.zeros(1), np.ones(1, bool), TRANSL)
    assert np.allclose(value, one) and np.isfinite(cov).all()


# -- Gaussians --------------------------------------------------------------------------------------------------------


def test_fusion_is_the_normalised_product() -> None:
    a, b = Gaussian(randn(5), randn(5)), Gaussian(randn(5), randn(5))
    fused = fuse(a, b)
    pa, pb = torch.exp(-a.log_var), torch.exp(-b.log_var)
    assert torch.allclose(torch.exp(-fused.log_var), pa + pb)
    assert torch.allclose(fused.mean, (pa * a.mean + pb * b.mean) / (pa + pb))


def test_two_filter_fusion_equals_the_joint_posterior_of_a_gaussian_chain() -> None:
    """x_t = a x_{t-1} + noise with N(0, 1) marginals, observed with noise: filters both ways against linear algebra."""
    a, count = 0.9, 6
    y, var = randn(count), torch.rand(count, dtype=D) + 0.2
    steps = torch.arange(count)
    prior = a ** (steps[:, None] - steps).abs().to(D)
    joint = torch.linalg.inv(torch.linalg.inv(prior) + torch.diag(1 / var))
    mean = joint @ (y / var)

    def run(order: list[int]) -> tuple[dict[int, Gaussian], dict[int, Gaussian]]:
        predicted, filtered = {}, {}
        state = None
        for t in order:
            if state is None:
                state = standard(y[:1])
            else:
                moved = a * a * state.log_var.exp() + 1 - a * a
                state = Gaussian(a * state.mean, moved.log())
            predicted[t] = state
            state = fuse(state, Gaussian(y[t : t + 1], var[t : t + 1].log()))
            filtered[t] = state
        return predicted, filtered

    _, ahead = run(list(range(count)))
    behind, _ = run(list(range(count))[::-1])
    for t in range(count):
        fused = fuse_over_prior(ahead[t], behind[t])
        assert fused.mean.item() == pytest.approx(mean[t].item(), abs=1e-9)
        assert fused.log_var.exp().item() == pytest.approx(joint[t, t].item(), abs=1e-9)


def test_fusing_with_the_prior_changes_nothing() -> None:
    """At a chunk's last frame, and in a single image, one direction of time knows nothing: N(0, I)."""
    g = Gaussian(torch.tensor([1.5, -2.0, 0.3, 1.5], dtype=D), torch.tensor([0.3, 1e-3, 0.999, 1.0], dtype=D).log())
    for fused in (fuse_over_prior(g, standard(g.mean)), fuse_over_prior(standard(g.mean), g)):
        assert torch.allclose(fused.mean, g.mean, atol=1e-12) and torch.allclose(fused.log_var, g.log_var, atol=1e-12)
    again = absorb(standard(g.mean), evidence_of(g))
    assert torch.allclose(again.mean, g.mean, atol=1e-12) and torch.allclose(again.log_var, g.log_var, atol=1e-12)


def test_what_is_wider_than_the_prior_never_outweighs_it() -> None:
    mean, log_var = randn(2, 1000), 3 * randn(2, 1000)
    fused = fuse_over_prior(Gaussian(mean[0], log_var[0]), Gaussian(mean[1], log_var[1]))
    assert (fused.log_var <= 1e-12).all() and (fused.mean.abs() <= mean.abs().sum(0) + 1e-12).all()


def test_two_filter_fusion_stays_proper_when_the_backward_pass_knows_nothing() -> None:
    wide = Gaussian(randn(8), torch.full((8,), 3.0, dtype=D))
    nothing = Gaussian(torch.zeros(8, dtype=D), torch.full((8,), 1.0, dtype=D))
    fused = fuse_over_prior(wide, nothing)
    assert torch.isfinite(fused.log_var).all() and (fused.log_var <= wide.log_var + 1e-9).all()


def test_soft_bounds_hold_and_are_the_identity_inside() -> None:
    x = torch.linspace(-20, 20, 81, dtype=D).requires_grad_()
    held = soft_clamp(x, -7.0, 2.0)
    assert (held > -7).all() and (held < 2 + np.exp(-9)).all() and (held.diff() >= 0).all()
    assert torch.allclose(soft_clamp(torch.tensor(-2.5, dtype=D), -30.0, 30.0), torch.tensor(-2.5, dtype=D), atol=1e-9)
    held.sum().backward()
    assert x.grad is not None and (x.grad > 0).all()
    v = torch.rand(5, dtype=D) + 0.1  # a bound on a variance adds its precision
    assert torch.allclose(soft_max(v.log(), float(np.log(0.95))).exp(), 1 / (1 / v + 1 / 0.95))


# -- kernel -----------------------------------------------------------------------------------------------------------


def test_kernel_averages_in_true_time_and_leaves_lone_frames_alone() -> None:
    t = torch.tensor([[0.0, 0.03, 0.06, 0.09, 5.0, 5.5]], dtype=D)
    kernel = kernel_of(t, 0.05)
    assert torch.allclose(kernel.weights.sum(-1), torch.ones(1, 6, dtype=D))
    x = randn(1, 6, 2)
    out = kernel(x)
    assert torch.allclose(out[:, 4:], x[:, 4:])
    w = torch.exp(-0.5 * (torch.tensor([0.03, 0, 0.03, 0.06], dtype=D) / 0.05) ** 2)
    assert torch.allclose(out[0, 1], (w[:, None] * x[0, :4]).sum(0) / w.sum())
    # Padding neither gives nor takes.
    valid = torch.tensor([[True, True, True, False, False, False]])
    alone = kernel_of(t[:, :3], 0.05)(x[:, :3])
    assert torch.allclose(kernel_of(t, 0.05, valid)(x)[:, :3], alone)


def test_kernel_has_as_many_columns_as_a_frame_has_neighbours() -> None:
    """A single short interval, as a camera's clock makes now and then, brings one neighbour more, not hundreds."""
    even = torch.arange(400, dtype=D)[None] / 30
    odd = even.clone()
    odd[0, 200] = odd[0, 199] + 1e-3
    valid = torch.ones(1, 400, dtype=torch.bool)
    valid[:, 390:] = False
    padded = torch.where(valid, even, even[:, :1])
    for times, mask in ((even, None), (odd, None), (padded, valid)):
        assert kernel_of(times, 0.05, mask).rows.shape[-1] in (9, 11)
    # The same average as over all frames.
    x, apart = randn(1, 400, 2), (odd[0, :, None] - odd[0]) / 0.05
    weights = torch.exp(-0.5 * apart**2) * (apart.abs() <= 3)
    assert torch.allclose(kernel_of(odd, 0.05)(x)[0], (weights / weights.sum(1, keepdim=True)) @ x[0])


def test_kernel_weighs_means_by_their_precision() -> None:
    t = torch.tensor([[0.0, 0.01]], dtype=D)
    g = Gaussian(torch.tensor([[[0.0], [1.0]]], dtype=D), torch.tensor([[[0.0], [-20.0]]], dtype=D))
    fused = kernel_of(t, 0.05).average(g)
    assert torch.allclose(fused.mean, torch.ones(1, 2, 1, dtype=D), atol=1e-6)
    none = kernel_of(t, 0.0).average(g)
    assert torch.allclose(none.mean, g.mean) and torch.allclose(none.log_var, g.log_var)


# -- batching ---------------------------------------------------------------------------------------------------------


def test_chunks_keep_every_frame_once_with_context() -> None:
    chunks = cut([1, 256, 257, 1000], chunk=256, context=48)
    for person, length in enumerate([1, 256, 257, 1000]):
        mine = [c for c in chunks if c.person == person]
        kept = [t for c in mine for t in range(c.keep_from, c.keep_to)]
        assert kept == list(range(length))
        for c in mine:
            assert c.start == max(0, c.keep_from - 48) and c.stop == min(length, c.keep_to + 48)
            assert c.keep_to - c.keep_from <= 256


# -- masks ------------------------------------------------------------------------------------------------------------


def test_mask_pixels_lie_where_the_crop_says() -> None:
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[0, 32:, :32] = 255  # lower left quarter
    masks[1, :32] = 255
    rois = np.array([[100.0, 50, 40, 0], [100, 50, 40, np.pi / 2], [100, 50, 40, 0]], np.float32)
    pixels, parts = part_pixels(masks > 0, rois, 200, np.random.default_rng(0))
    assert (parts[:2] == 0).all() and (parts[2] == -1).all()
    assert pixels[0, :, 0].min() > 80 and pixels[0, :, 0].max() < 100
    assert pixels[0, :, 1].min() > 50 and pixels[0, :, 1].max() < 70
    # A quarter turn clockwise on the screen: the crop's upper half is the frame's right half.
    assert pixels[1, :, 0].min() > 100 and pixels[1, :, 0].max() < 120
    inside = inside_crops(torch.from_numpy(pixels), torch.from_numpy(rois))
    assert (inside[:2] == 1).all()
    assert inside_crops(torch.tensor([[[130.0, 50.0]]]), torch.from_numpy(rois[:1])).item() == 0


def test_part_pixels_carry_their_part() -> None:
    maps = np.zeros((2, 48, 48), np.uint8)
    maps[0, :, :24], maps[0, :, 24:] = 1, 24
    rois = np.array([[100.0, 50, 40, 0]] * 2, np.float32)
    pixels, parts = part_pixels(maps, rois, 300, np.random.default_rng(0))
    assert set(parts[0].tolist()) == {0, 23} and (parts[1] == -1).all()
    assert (pixels[0, parts[0] == 0, 0] < 100).all() and (pixels[0, parts[0] == 23, 0] > 100).all()
