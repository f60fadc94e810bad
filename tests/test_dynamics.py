"""Latent dynamics: independence of batch-mates, exact conditionals, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinflow.config import DynamicsConfig
from kinflow.dynamics import LatentDynamics, Predictive
from kinflow.dynamics.root import heading_rotmat, root_motion
from kinflow.errors import ShapeError
from kinflow.rotations import rotvec_to_rotmat

SMALL = {"hidden": 12, "ode_hidden": 10, "head_hidden": 16, "rank": 3, "dropout": 0.0}


def make(**settings: object) -> LatentDynamics:
    """Dynamics far from their start, in float64."""
    model = LatentDynamics(DynamicsConfig(**{**SMALL, **settings})).double().eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def motion(batch: int = 3, frames: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, uneven time stamps, valid with the first frame seen."""
    generator = torch.Generator().manual_seed(seed)
    z = 0.1 * torch.randn(batch, frames, 63, generator=generator, dtype=torch.float64).cumsum(1)
    dt = 0.01 + 0.09 * torch.rand(batch, frames, generator=generator, dtype=torch.float64)
    valid = torch.rand(batch, frames, generator=generator) > 0.3
    valid[:, 0] = True
    return z, dt.cumsum(1), valid


@pytest.mark.parametrize("solver", ("midpoint", "heun3", "dopri5"))
def test_same_alone_and_in_a_batch(solver: str) -> None:
    model = make(solver=solver)
    z, times, valid = motion(5)
    times[3] *= 40  # a clip with long gaps must not change its batch-mates' steps
    together = model.log_prob(z, times, valid)
    alone = torch.cat([model.log_prob(z[i : i + 1], times[i : i + 1], valid[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "settings",
    (
        {"solver": "rk4", "max_step": 0.02},
        {"solver": "heun3", "max_step": 0.005},
        {"solver": "dopri5", "rtol": 1e-8, "atol": 1e-9},
    ),
    ids=lambda s: str(s["solver"]),
)
def test_denser_query_times_do_not_change_the_answer(settings: dict[str, object]) -> None:
    """Frames that nobody observed add nothing and, up to the solver's error, change nothing."""
    model = make(**settings)
    z, times, _ = motion(2, 6)
    sparse = model.log_prob(z, times)
    middle = (times[:, 1:] + times[:, :-1]) / 2
    dense_times, order = torch.cat((times, middle), 1).sort(1)
    dense_z = torch.cat((z, torch.full_like(z[:, 1:], 7.0)), 1).gather(1, order[..., None].expand(-1, -1, 63))
    valid = order < 6
    dense = model.log_prob(dense_z, dense_times, valid)
    assert (dense[~valid] == 0).all()
    torch.testing.assert_close(dense[valid].reshape(2, 6), sparse, rtol=0, atol=1e-6)


@pytest.mark.parametrize("components", (1, 3))
def test_sequence_is_the_sum_of_its_conditionals(components: int) -> None:
    """The parallel likelihood against the step-by-step one, frame by frame, with gaps and root motion."""
    model = make(components=components)
    z, times, valid = motion(3, 10)
    root = torch.randn(3, 10, 6, dtype=torch.float64)
    expected = model.log_prob(z, times, valid, root)
    state = model.initial_state(3)
    for t in range(10):
        if t:
            state = model.advance(state, times[:, t] - times[:, t - 1])
        now = model.predict(state).log_prob(z[:, t])
        torch.testing.assert_close(torch.where(valid[:, t], now, 0.0), expected[:, t], rtol=0, atol=1e-9)
        state = model.update(state, z[:, t], root[:, t], valid[:, t])


def test_rows_that_saw_nothing_yet_have_the_base_density() -> None:
    model = make()
    z, times, valid = motion(3, 4)
    valid[0, :2] = False
    assert torch.isfinite(model.log_prob(z, times, valid)).all()
    state = model.update(model.initial_state(3), z[:, 0], valid=valid[:, 0])
    state = model.advance(state, times[:, 1] - times[:, 0])
    predictive = model.predict(state)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z[0, 1]).sum()
    torch.testing.assert_close(predictive.log_prob(z[:, 1])[0], expected)
    torch.testing.assert_close(predictive.covariance()[0], torch.eye(63, dtype=torch.float64))


def test_later_frames_do_not_reach_back() -> None:
    model = make()
    z, times, _ = motion(1, 8)
    changed = z.clone()
    changed[:, 5:] += 1
    torch.testing.assert_close(model.log_prob(z, times)[:, :5], model.log_prob(changed, times)[:, :5])


def random_predictive(k: int = 3, dim: int = 5) -> Predictive:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    return Predictive(
        torch.log_softmax(normal(k), -1), normal(k, dim), normal(k).exp(), normal(dim).exp(), normal(dim, 2),
        torch.eye(dim, dtype=torch.float64) + 0.5 * normal(dim, dim).tril(-1),
    )  # fmt: skip


def test_predictive_against_torch_distributions() -> None:
    p = random_predictive()
    shape = p.basis @ (torch.diag(p.std**2) + p.low_rank @ p.low_rank.T) @ p.basis.T
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=p.log_weight),
        torch.distributions.MultivariateNormal(p.means, p.scale[:, None, None] ** 2 * shape),
    )
    z = torch.randn(50, 5, dtype=torch.float64)
    batch = Predictive(*(x.expand(50, *x.shape) if i < 5 else x for i, x in enumerate(p)))
    torch.testing.assert_close(batch.log_prob(z), mixture.log_prob(z))
    torch.testing.assert_close(p.mean, mixture.mean)
    torch.testing.assert_close(p.variance(), p.covariance().diagonal())
    wide = Predictive(*(x.expand(100000, *x.shape) if i < 5 else x for i, x in enumerate(p)))
    draws = wide.sample(torch.Generator().manual_seed(0))
    covariance = p.covariance()
    scale = covariance.diagonal().sqrt()
    assert ((draws.mean(0) - p.mean) / scale).abs().max() < 0.02
    assert ((torch.cov(draws.T) - covariance) / (scale[:, None] * scale)).abs().max() < 0.04


def test_all_parameters_get_gradients() -> None:
    model = make().float()
    z, times, valid = motion()
    root = torch.randn(3, 9, 6)
    # The first update starts from the learned start, the head sees every part.
    model.log_prob(z.float(), times, valid, root).sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_far_out_latents_give_low_finite_values_and_gradients() -> None:
    model = make().float()
    z, times, _ = motion()
    far = (1e3 * torch.randn(3, 9, 63)).requires_grad_()
    log_prob = model.log_prob(far, times)
    (gradient,) = torch.autograd.grad(log_prob.sum(), far)
    assert torch.isfinite(log_prob).all() and torch.isfinite(gradient).all()
    assert log_prob.max() < model.log_prob(z.float(), times).min()


def test_fitted_baseline_beats_the_start() -> None:
    """A random walk with correlated steps: the fitted start must come near its true density."""
    model = LatentDynamics(DynamicsConfig(**SMALL)).eval()  # type: ignore[arg-type]
    factor = torch.eye(63) + 0.3 * torch.randn(63, 63).tril(-1)
    z = (0.02 * torch.randn(64, 40, 63) @ factor.T).cumsum(1)
    times = (torch.arange(40) / 30).expand(64, 40)
    valid = torch.ones(64, 40, dtype=torch.bool)
    before = model.log_prob(z, times)[:, 2:].mean()
    model.fit_baseline(z, times, valid)
    after = model.log_prob(z, times)[:, 2:].mean()
    assert after > before + 20


def test_root_motion_does_not_depend_on_world_heading_or_place() -> None:
    rotmat = rotvec_to_rotmat(0.3 * torch.randn(2, 6, 3, dtype=torch.float64).cumsum(1))
    transl = torch.randn(2, 6, 3, dtype=torch.float64).cumsum(1)
    times = torch.arange(6, dtype=torch.float64).expand(2, 6) / 25
    turn = rotvec_to_rotmat(torch.tensor([0.0, 1.1, 0.0], dtype=torch.float64))
    expected = root_motion(rotmat, transl, times)
    moved = root_motion(turn @ rotmat, (turn @ transl[..., None]).squeeze(-1) + 3.0, times)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9)
    assert (expected[:, 0] == 0).all()


def test_root_motion_is_read_between_valid_frames() -> None:
    """Across a gap it is that of the gap's two ends, whatever stands between them."""
    rotmat = rotvec_to_rotmat(0.3 * torch.randn(1, 6, 3, dtype=torch.float64).cumsum(1))
    transl = torch.randn(1, 6, 3, dtype=torch.float64)
    times = torch.tensor([[0.0, 0.1, 0.13, 0.2, 0.4, 0.5]], dtype=torch.float64)
    valid = torch.tensor([[False, True, False, True, True, False]])
    kept = [1, 3, 4]
    expected = root_motion(rotmat[:, kept], transl[:, kept], times[:, kept])
    for fill in (math.nan, 100.0):
        transl[~valid], rotmat[~valid] = fill, fill
        root = root_motion(rotmat, transl, times, valid)
        torch.testing.assert_close(root[:, kept], expected)
        assert (root[~valid] == 0).all()


def test_root_motion_of_a_turning_walk() -> None:
    """Facing along its path at 1.5 m/s on a circle of radius 3 m: forward is +z, the turn is about y."""
    angle = 1.5 / 3 * torch.arange(200, dtype=torch.float64) / 1000
    rotmat = rotvec_to_rotmat(torch.stack((0 * angle, angle, 0 * angle), -1))[None]
    # Heading (sin a, 0, cos a); position its integral.
    transl = 3 * torch.stack((1 - torch.cos(angle), 0 * angle, torch.sin(angle)), -1)[None]
    root = root_motion(rotmat, transl, torch.arange(200, dtype=torch.float64)[None] / 1000)[0, 1:]
    expected = torch.tensor([0, 0.5, 0, 0, 0, 1.5], dtype=torch.float64)
    torch.testing.assert_close(root, expected.expand_as(root), rtol=0, atol=1e-3)


@pytest.mark.parametrize("pitch", (0.0, 0.8, -0.8, math.pi / 2, -math.pi / 2))
def test_heading_of_upright_bowing_and_lying(pitch: float) -> None:
    yaw = rotvec_to_rotmat(torch.tensor([0.0, 0.7, 0.0], dtype=torch.float64))
    lean = rotvec_to_rotmat(torch.tensor([pitch, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(heading_rotmat(yaw @ lean), yaw)


@pytest.mark.parametrize(
    ("times", "match"),
    (
        (torch.tensor([[0.0, 0.1, 0.1]]), "increasing"),
        (torch.tensor([[0.0, 0.2, 0.1]]), "increasing"),
        (torch.tensor([[0.0, 0.2]]), "timestamps"),
    ),
)
def test_wrong_times_are_named(times: Tensor, match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        make().log_prob(torch.zeros(1, 3, 63, dtype=torch.float64), times)


def test_negative_step_is_named() -> None:
    model = make()
    with pytest.raises(ShapeError, match="dt"):
        model.advance(model.initial_state(2), -0.1)


@pytest.mark.parametrize("between", ["ode", "cell"])
def test_frames_ahead_are_predicted_from_the_start_alone(between: str) -> None:
    model = make(between=between)
    z, times, valid = motion()
    valid[:, (2, 7)] = True
    start, target = torch.full((3, 1), 2), torch.full((3, 1), 7)
    one, ahead = model.log_prob_ahead(z, times, valid, None, start, target)
    torch.testing.assert_close(one, model.log_prob(z, times, valid))
    state = model.initial_state((3,))
    for t in range(3):
        if t:
            state = model.advance(state, times[:, t] - times[:, t - 1])
        state = model.update(state, z[:, t], valid=valid[:, t])
    state = model.advance(state, times[:, 7] - times[:, 2])
    torch.testing.assert_close(ahead[:, 0], model.predict(state).log_prob(z[:, 7]))
