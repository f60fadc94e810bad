"""The single-frame half of the prior's benchmark: the peers' densities against closed forms, and its tasks."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinflow.flow.chart import RotationChart
from kinflow.rotations import geodesic_distance, quat_wxyz_to_rotmat, rotvec_to_rotmat

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from peers.poses.base import ChartPrior, importance_bound, training_chart
from peers.poses.estimates import (
    LIMBS,
    Poses,
    Search,
    Setting,
    Skeleton,
    conditional_mean,
    hidden_joints,
    moved_joints,
    random_views,
)
from peers.poses.mixture import Components, MixturePrior, fit_components
from peers.poses.training import Cache, settings_of
from peers.poses.vae import VaePrior


def random_poses(count: int, spread: float = 0.2) -> Tensor:
    """Correlated joint rotations (N, 21, 3, 3)."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(63, 63, generator=generator) / math.sqrt(63)
    return rotvec_to_rotmat((spread * torch.randn(count, 63, generator=generator) @ mixing).unflatten(-1, (21, 3)))


def haar_mass(prior: ChartPrior) -> float:
    """The integral of a one-joint density over SO(3), at evenly spread rotations (Shoemake, 1992)."""
    a, b, c = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(2**16, dtype=torch.float64).unbind(-1)
    b, c = 2 * math.pi * b, 2 * math.pi * c
    low, high = (1 - a).sqrt(), a.sqrt()
    quaternions = torch.stack((low * b.sin(), low * b.cos(), high * c.sin(), high * c.cos()), -1)
    with torch.no_grad():
        density = prior.log_prob(quat_wxyz_to_rotmat(quaternions)[:, None]).exp()
    return float(density.mean()) * 8 * math.pi**2


def one_joint() -> RotationChart:
    chart = RotationChart(1).double()
    chart.mean_rotmat.copy_(rotvec_to_rotmat(torch.tensor([[0.3, -0.5, 0.2]], dtype=torch.float64)))
    return chart


def two_components(dim: int) -> Components:
    root = 0.7 * torch.eye(dim, dtype=torch.float64) + 0.2 * torch.randn(2, dim, dim, dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return Components(weights, 0.5 * torch.randn(2, dim, dtype=torch.float64), root @ root.mT)


def test_a_mixture_integrates_to_one_and_agrees_with_torch() -> None:
    components = two_components(3)
    prior = MixturePrior(one_joint(), components)
    assert haar_mass(prior) == pytest.approx(1.0, abs=0.01)
    u = torch.randn(50, 3, dtype=torch.float64)
    expected = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(components.weights),
        torch.distributions.MultivariateNormal(components.means, components.covariances),
    ).log_prob(u)
    torch.testing.assert_close(prior.density(u), expected)


def test_expectation_maximisation_finds_the_mixture() -> None:
    mixture = pytest.importorskip("sklearn.mixture", reason="scikit-learn is not installed")
    torch.manual_seed(3)
    u = torch.cat((0.1 * torch.randn(400, 4) + 1, 0.2 * torch.randn(400, 4) - 1)).double()
    components = fit_components(u, 2, 1e-4, seed=0)
    oracle = mixture.GaussianMixture(2, reg_covar=1e-4, max_iter=60, random_state=0).fit(u.numpy())
    prior = MixturePrior(RotationChart(1), components)
    torch.testing.assert_close(prior.density(u), torch.from_numpy(oracle.score_samples(u.numpy())))
    torch.testing.assert_close(components.weights, torch.full((2,), 0.5, dtype=torch.float64), atol=0.01, rtol=0)


def test_one_component_is_the_closed_form_and_its_latents_invert() -> None:
    poses = random_poses(500)
    chart = training_chart(poses)
    u = chart(poses)[0].flatten(-2)
    prior = MixturePrior(chart, fit_components(u, 1, 1e-4, seed=0))
    z = prior.encode(poses)
    torch.testing.assert_close(z.mean(0), torch.zeros(63), atol=1e-3, rtol=0)
    torch.testing.assert_close(prior.decode(z), poses, atol=1e-4, rtol=0)


def test_the_conditional_mean_of_a_mixture_agrees_with_quadrature() -> None:
    components = two_components(2)
    prior = MixturePrior(RotationChart(1), components)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    points = torch.stack((torch.full_like(grid, 0.4), grid), -1)
    share = torch.softmax(prior.density(points), 0)
    found = prior.conditional_mean(points[:1], torch.tensor([False, True]))
    assert float(found[0, 0]) == pytest.approx(0.4)
    assert float(found[0, 1]) == pytest.approx(float((share * grid).sum()), abs=1e-6)


def test_the_spline_flow_integrates_to_one() -> None:
    pytest.importorskip("zuko", reason="zuko is not installed")
    from peers.poses.spline import ZukoPrior

    prior = ZukoPrior(one_joint(), dim=3, hidden=(16, 16)).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    prior.fit_whitening(0.8 * torch.randn(500, 3, dtype=torch.float64) + 0.2)
    assert haar_mass(prior) == pytest.approx(1.0, abs=0.01)


class LinearVae(VaePrior):
    """A linear decoder and a posterior that is too wide: the exact density is a Gaussian's."""

    def __init__(self) -> None:
        super().__init__(RotationChart(21), latent=4)
        self.matrix = 0.2 * torch.randn(4, 63)
        precision = torch.eye(4) + self.matrix @ self.matrix.T / 0.1**2
        self.gain = torch.linalg.solve(precision, self.matrix / 0.1**2)
        self.wide = 0.5 * torch.linalg.inv(precision).diagonal().log() + 0.7

    def mean(self, z: Tensor) -> Tensor:
        return z @ self.matrix

    def posterior(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.coordinates(rotmat)[0] @ self.gain.T
        return mean, self.wide.expand_as(mean)


@torch.no_grad()
def test_the_vae_bound_rises_with_samples_and_stays_below_the_likelihood() -> None:
    vae = LinearVae()
    u = torch.randn(200, 4) @ vae.matrix + 0.1 * torch.randn(200, 63)
    rotmat = vae.rotations(u)
    exact_covariance = vae.matrix.T @ vae.matrix + 0.1**2 * torch.eye(63)
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(63), exact_covariance)
    exact = float((gaussian.log_prob(u) + vae.coordinates(rotmat)[1]).mean())
    one, some, many = (float(vae.log_prob(rotmat, k, torch.Generator().manual_seed(0)).mean()) for k in (1, 8, 512))
    single = float(torch.stack([vae.log_prob(rotmat).mean() for _ in range(100)]).mean())
    evidence = float(torch.stack([vae(rotmat).mean() for _ in range(100)]).mean())
    assert one < some < many < exact
    assert many == pytest.approx(exact, abs=0.1)
    assert evidence == pytest.approx(single, abs=0.2)


def test_the_importance_bound_averages_weights() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(importance_bound(weights.log()), torch.tensor([2.0, 3.0]).log())


def test_every_peer_has_finite_gradients_at_the_mean_pose() -> None:
    poses = random_poses(100)
    chart = training_chart(poses)
    u = chart(poses)[0].flatten(-2)
    priors: list[ChartPrior] = [MixturePrior(chart, fit_components(u, 1, 1e-3, seed=0)), VaePrior(chart).eval()]
    for prior in priors:
        free = torch.zeros(2, 63, requires_grad=True)
        (gradient,) = torch.autograd.grad(prior.log_prob(prior.rotations(free)).sum(), [free])
        assert bool(torch.isfinite(gradient).all())


def test_the_most_likely_limb_under_a_gaussian_is_the_conditional_mean() -> None:
    poses = random_poses(4000)
    chart = training_chart(poses)
    prior = MixturePrior(chart, fit_components(chart(poses)[0].flatten(-2), 1, 1e-2, seed=0))
    hidden = hidden_joints("left arm")
    exact = conditional_mean(prior, poses[:8], hidden)
    for mode, tolerance in (("rotations", 1.0), ("latents", 2.0)):
        found = Search(prior, mode, chart, 200).complete(poses[:8], hidden, Setting(0.05, 0.01))
        torch.testing.assert_close(found[:, ~hidden], poses[:8, ~hidden])
        off = torch.rad2deg(geodesic_distance(found, exact)[:, hidden])
        assert float(off.mean()) < tolerance, mode


def test_cleaning_under_a_gaussian_brings_poses_nearer() -> None:
    poses = random_poses(1000)
    chart = training_chart(poses)
    prior = MixturePrior(chart, fit_components(chart(poses)[0].flatten(-2), 1, 1e-4, seed=0))
    given = poses[:16] @ rotvec_to_rotmat(0.2 * torch.randn(16, 21, 3))
    found = Search(prior, "rotations", chart, 150).clean(given, 0.2, Setting(0.03))
    before, after = (float(geodesic_distance(r, poses[:16]).mean()) for r in (given, found))
    assert after < 0.82 * before


def test_limbs() -> None:
    assert [j for j in range(21) if hidden_joints("left arm")[j]] == [12, 15, 17, 19]
    assert moved_joints("left arm") == [16, 18, 20, 22]
    assert moved_joints("right leg") == [5, 8, 11]
    assert int(hidden_joints("both arms").sum()) == len(LIMBS["both arms"])


def test_views_fit_the_truth_and_show_a_person_of_the_stated_size() -> None:
    rotmat = random_poses(64)
    poses = Poses(rotmat, rotvec_to_rotmat(torch.zeros(64, 3)), torch.zeros(64, dtype=torch.long))
    views = random_views(poses, Skeleton(), seed=0)
    assert float(views.misfit(rotmat).sum() / views.seen.sum()) == pytest.approx(1.0, abs=0.1)
    points = views.points(rotmat)
    assert 700 < float((points[..., 1].amax(-1) - points[..., 1].amin(-1)).median()) < 1100
    # Upright: the nose is above the heels in the image.
    assert bool((points[:, 0, 1] < points[:, 29, 1]).all())


def test_the_cache_tells_seeds_settings_and_data_apart(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    data.write_bytes(b"12")
    cache = Cache(tmp_path / "peers", data)
    paths = {
        cache.path("VAE", settings_of("vae", seed, quick), (VaePrior,)) for seed in (0, 1) for quick in (False, True)
    }
    paths |= {cache.path("VAE", settings_of("vae", 0), (MixturePrior,)), cache.path("NSF", settings_of("nsf", 0), ())}
    data.write_bytes(b"123")
    paths.add(Cache(tmp_path / "peers", data).path("VAE", settings_of("vae", 0), (VaePrior,)))
    assert len(paths) == 7
    path = paths.pop()
    assert cache.load(path) is None
    cache.save(path, {"state": torch.ones(2)})
    torch.testing.assert_close(cache.load(path)["state"], torch.ones(2))
