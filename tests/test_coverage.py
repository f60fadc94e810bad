"""The dynamics' spread, fitted: predictions made too wide and too narrow are brought back to what motions really do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from line_training import CONFIG, Line
from torch import Tensor

from kinflow.config import DynamicsConfig, TrainConfig
from kinflow.dynamics import LatentDynamics, Predictive
from kinflow.training.coverage import coverage, fit_spread
from kinflow.training.loop import fit


@dataclasses.dataclass(frozen=True)
class Drawn:
    z: Tensor
    timestamps: Tensor
    valid: Tensor


def a_model() -> LatentDynamics:
    torch.manual_seed(3)
    return LatentDynamics(DynamicsConfig(latent_dim=6, hidden=8, ode_hidden=6, head_hidden=8, rank=2)).eval()


@torch.no_grad()
def drawn(model: LatentDynamics, rate: float, count: int = 96, frames: int = 12) -> Drawn:
    """Motions that follow the model itself, the first two frames at rest."""
    generator = torch.Generator().manual_seed(int(rate))
    state, z = model.initial_state((count,)), []
    for t in range(frames):
        if t:
            state = model.advance(state, 1 / rate)
        x = torch.zeros(count, 6) if t < 2 else model.predict(state).sample(generator)
        state = model.update(state, x)
        z.append(x)
    times = (torch.arange(frames, dtype=torch.float64) / rate).expand(count, -1)
    return Drawn(torch.stack(z, 1), times, torch.ones(count, frames, dtype=torch.bool))


def test_spread_that_is_wrong_is_put_right_at_every_rate() -> None:
    model = a_model()
    motions = {rate: drawn(model, rate) for rate in (12.0, 60.0)}
    nominal = torch.tensor([0.5, 0.9], dtype=torch.float64)
    for own in motions.values():
        assert torch.allclose(coverage(model, own), nominal, atol=0.02)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        model.log_spread += 0.3
        model.spread_power += 0.15
    assert all(float((coverage(model, own) - nominal).abs().max()) > 0.05 for own in motions.values())
    for rate, shares in fit_spread(model, motions).items():
        assert torch.allclose(shares, nominal, atol=0.025), rate
    after = model.state_dict()
    assert {k for k in before if not torch.equal(before[k], after[k])} <= {"log_spread", "spread_power", "log_scale"}
    assert all(p.requires_grad for p in model.parameters())


def test_predictions_are_those_of_the_recurrence_step_by_step() -> None:
    model = a_model()
    motion = drawn(model, 30.0, count=3)
    together = model.predictions(motion.z, motion.timestamps)
    state = model.initial_state((3,))
    for t in range(motion.z.shape[1]):
        if t:
            state = model.advance(state, 1 / 30)
        alone = model.predict(state)
        for a, b in zip(alone, together, strict=True):
            here = b[:, t] if b.dim() > 2 and b.shape[:2] == motion.z.shape[:2] else b
            torch.testing.assert_close(a.expand(here.shape), here, rtol=1e-4, atol=1e-5)
        state = model.update(state, motion.z[:, t])


def test_no_step_leaves_the_weights_as_they_came(tmp_path: Path) -> None:
    task = Line()
    before = [p.detach().clone() for p in task.module.parameters()]
    result = fit(task, TrainConfig(**{**CONFIG.__dict__, "steps": 0}), tmp_path, progress=False)
    assert result.steps == result.step == 0 and result.score == pytest.approx(task.validate(task.module)["score"])
    assert all(torch.equal(a, b) for a, b in zip(before, task.module.parameters(), strict=True))


def test_levels_of_a_mixture_are_uniform_under_it() -> None:
    size, dim = 4000, 3
    basis = torch.eye(dim) + torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [-1, 2, 0]])
    predictive = Predictive(
        torch.tensor([0.3, 0.7]).log().expand(size, -1),
        torch.randn(2, dim).expand(size, -1, -1),
        torch.tensor([0.5, 2.0]).expand(size, -1),
        torch.tensor([0.3, 1.0, 0.1]).expand(size, -1),
        torch.randn(dim, 2).expand(size, -1, -1),
        basis,
    )
    level = predictive.cdf(predictive.sample(torch.Generator().manual_seed(0)))
    inside = ((level - 0.5).abs() < 0.25).double().mean(0)
    assert torch.allclose(inside, torch.full((dim,), 0.5).double(), atol=0.03)
