"""The hidden state between frames: closed forms, order of convergence, batch-mates, torchdiffeq and its adjoint."""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from kinflow.assets import asset_path
from kinflow.assets.weights import load_weights
from kinflow.config import DynamicsConfig, from_dict
from kinflow.dynamics import LatentDynamics, load_dynamics, solver
from kinflow.dynamics.field import DecayField
from kinflow.dynamics.solver import CLOSED_FORM, FIXED_STEP, closed_form, flow_over, through_torchdiffeq
from kinflow.errors import ConfigError, KinflowError

SOLVERS: tuple[str, ...] = typing.get_args(typing.get_type_hints(DynamicsConfig)["solver"])
ADAPTIVE = tuple(s for s in SOLVERS if s not in FIXED_STEP)
ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def config(solver: str, **settings: object) -> DynamicsConfig:
    return DynamicsConfig(solver=solver, **settings)  # type: ignore[arg-type]


def state(rows: int = 5, size: int = 6) -> tuple[DecayField, Tensor, Tensor]:
    """A field, hidden states (rows, size) and steps of 0 to 2.5 s, one of them 0."""
    torch.manual_seed(0)
    field, h = DecayField(size, 5).double(), torch.randn(rows, size, dtype=torch.float64).tanh()
    return field, h, torch.tensor([0.03, 0.0, 0.25, 0.09, 2.5], dtype=torch.float64)[:rows]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often torchdiffeq was asked, by function."""
    counts = {"odeint": 0, "odeint_adjoint": 0}

    def counted(name: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: object, **kwargs: object) -> Tensor:
            counts[name] += 1
            return original(*args, **kwargs)

        return call

    for name in counts:
        monkeypatch.setattr(torchdiffeq, name, counted(name, getattr(torchdiffeq, name)))
    return counts


class Rotation(nn.Module):
    """dh/dt = A h with A = [[-decay, -turn], [turn, -decay]]: a spiral."""

    def __init__(self, decay: float = 0.7, turn: float = 3.0) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[-decay, -turn], [turn, -decay]], dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.matrix.T

    def exact(self, h: Tensor, dt: Tensor) -> Tensor:
        return (torch.linalg.matrix_exp(dt[:, None, None] * self.matrix) @ h[..., None])[..., 0]


def spiral() -> tuple[Rotation, Tensor, Tensor]:
    h = torch.tensor([[1.0, 0.0], [-2.0, 0.3], [0.5, 0.5]], dtype=torch.float64)
    return Rotation(), h, torch.tensor([0.4, 0.2, 0.8], dtype=torch.float64)


def test_there_are_solvers_of_each_kind() -> None:
    """What the tests below run over, so that none of them passes on nothing."""
    assert set(CLOSED_FORM) < set(FIXED_STEP) == set(ORDERS) and len(ADAPTIVE) >= 5
    from torchdiffeq._impl.odeint import SOLVERS as KNOWN

    assert set(SOLVERS) <= set(KNOWN)


@pytest.mark.parametrize("name", FIXED_STEP)
def test_order_of_convergence(name: str) -> None:
    field, h, dt = spiral()
    with torch.no_grad():
        errors = [
            float((flow_over(field, h, dt, config(name, max_step=step)) - field.exact(h, dt)).abs().max())
            for step in (0.1, 0.05, 0.025)
        ]
    assert errors[-1] < 0.2
    for coarse, fine in itertools.pairwise(errors):
        assert abs(math.log2(coarse / fine) - ORDERS[name]) < 0.35


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_methods_reach_their_tolerance(name: str) -> None:
    """Tolerances are of one step; over the many steps of the second-order methods errors add up."""
    field, h, dt = spiral()
    tolerances = (1e-2, 1e-4, 1e-6)
    with torch.no_grad():
        errors = [
            float((flow_over(field, h, dt, config(name, rtol=t, atol=t)) - field.exact(h, dt)).abs().max())
            for t in tolerances
        ]
    summed = 300 if name in ("fehlberg2", "adaptive_heun") else 30
    assert all(error < summed * t for error, t in zip(errors, tolerances, strict=True)), errors
    assert errors[2] < errors[0] / 20


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_forms_are_torchdiffeqs(name: str, calls: dict[str, int]) -> None:
    """Steps of several lengths and counts, against our own calls and against torchdiffeq called by hand."""
    field, h, dt = state()
    ours = flow_over(field, h, dt, config(name))
    assert calls == {"odeint": 0, "odeint_adjoint": 0}
    torch.testing.assert_close(through_torchdiffeq(field, h, dt, config(name)), ours, rtol=0, atol=1e-12)
    assert calls["odeint"] == 3  # one step, three, twenty-five
    for row, parts in enumerate((1, 1, 3, 1, 25)):
        times = torch.linspace(0, float(dt[row]), parts + 1, dtype=torch.float64)
        expected = torchdiffeq.odeint(lambda _, y: field(y), h[row], times, method=name)[-1] if dt[row] > 0 else h[row]
        torch.testing.assert_close(ours[row], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(closed_form(field, h, dt, name, 0.1, most=30), ours, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", (*FIXED_STEP, *ADAPTIVE))
@pytest.mark.parametrize("adjoint", (False, True))
def test_batch_mates_and_unpassed_time(name: str, adjoint: bool, calls: dict[str, int]) -> None:
    field, h, dt = state()
    settings = config(name, adjoint=adjoint, rtol=1e-4, atol=1e-5)
    together = flow_over(field, h, dt, settings)
    alone = torch.cat([flow_over(field, h[i : i + 1], dt[i : i + 1], settings) for i in range(len(h))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)
    torch.testing.assert_close(together[1], h[1], rtol=0, atol=1e-14)
    assert flow_over(field, h[:0], dt[:0], settings).shape == (0, 6)
    closed = name in CLOSED_FORM and not adjoint
    assert (calls["odeint"], calls["odeint_adjoint"]) != (0, 0) or closed
    assert calls["odeint_adjoint"] == 0 or adjoint


@pytest.mark.parametrize("name", ("euler", "midpoint", "rk4", "heun3", "dopri5", "bosh3"))
def test_state_stays_bounded_over_long_gaps(name: str) -> None:
    field, h = DecayField(12, 10).double(), torch.full((2, 12), 0.9, dtype=torch.float64)
    out = flow_over(field, h, torch.tensor([60.0, 1e-3], dtype=torch.float64), config(name, max_step=0.05))
    assert out.abs().max() <= 1
    # After a minute the state rests where the field vanishes.
    assert field(out[0]).abs().max() < 1e-3


def gradients(name: str, adjoint: bool, **settings: object) -> tuple[Tensor, ...]:
    field, h, dt = state()
    h.requires_grad_(), dt.requires_grad_()
    weight = torch.linspace(-1, 2, h.numel(), dtype=h.dtype).reshape(h.shape)
    out = flow_over(field, h, dt, config(name, adjoint=adjoint, **settings))
    return torch.autograd.grad((out.sin() * weight).sum(), (h, dt, *field.parameters()))


@pytest.mark.parametrize(
    ("name", "settings", "bound"),
    (("midpoint", {"max_step": 0.01}, 2e-3), ("heun3", {"max_step": 0.01}, 1e-4), ("rk4", {"max_step": 0.02}, 1e-5),
     ("bosh3", {"rtol": 1e-5, "atol": 1e-7}, 1e-3), ("dopri5", {"rtol": 1e-8, "atol": 1e-10}, 1e-6)),
)  # fmt: skip
def test_adjoint_gradients_are_those_through_the_steps(
    name: str, settings: dict[str, object], bound: float, calls: dict[str, int]
) -> None:
    """Of the state, the time step and every parameter, as far as the solver is exact."""
    through = gradients(name, adjoint=False, **settings)
    assert calls["odeint_adjoint"] == 0
    adjoint = gradients(name, adjoint=True, **settings)
    assert calls["odeint_adjoint"] > 0
    for a, b in zip(through, adjoint, strict=True):
        assert (a - b).norm() < bound * a.norm()


def test_adjoint_over_a_long_gap() -> None:
    """Back through a field that contracts by about exp(100): from its end alone the path would be lost."""
    results = []
    for adjoint in (False, True):
        torch.manual_seed(3)
        field, h = DecayField(6, 5).double(), torch.full((1, 6), 0.9, dtype=torch.float64)
        out = flow_over(field, h, torch.tensor([15.0], dtype=h.dtype), config("dopri5", adjoint=adjoint))
        gradient = torch.autograd.grad(out.sum(), tuple(field.parameters()))
        results.append(torch.cat([g.flatten() for g in gradient]))
    assert (results[1] - results[0]).norm() < 1e-3 * results[0].norm()


@pytest.mark.parametrize("name", ("rk4", "dopri5"))
def test_adjoint_keeps_less(name: str) -> None:
    """What waits for the backward pass: states and weights, not all that the steps computed."""

    def kept(seconds: float, adjoint: bool) -> int:
        field, h, _ = state(rows=1)
        held: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.numel()) or x, lambda x: x):
            flow_over(field, h, torch.tensor([seconds], dtype=h.dtype), config(name, adjoint=adjoint))
        return sum(held)

    assert 10 * (kept(8.0, adjoint=True) - kept(1.0, adjoint=True)) < kept(8.0, adjoint=False) - kept(
        1.0, adjoint=False
    )


@pytest.mark.parametrize("settings", ({"solver": "dopri5"}, {"solver": "midpoint", "adjoint": True}))
def test_gradients_reach_all_parameters_through_torchdiffeq(settings: dict[str, object]) -> None:
    model = LatentDynamics(DynamicsConfig(hidden=8, ode_hidden=6, head_hidden=8, rank=2, dropout=0.0, **settings))  # type: ignore[arg-type]
    times = torch.tensor([[0.0, 0.03, 0.4, 0.9]]).expand(2, -1)
    model.log_prob(0.1 * torch.randn(2, 4, 63), times).sum().backward()
    for name, p in model.field.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_autocast_leaves_torchdiffeq_alone() -> None:
    field, h, dt = state()
    field, h, dt = field.float(), h.float(), dt.float()
    expected = flow_over(field, h, dt, config("dopri5"))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(flow_over(field, h, dt, config("dopri5")), expected, rtol=0, atol=0)


@pytest.mark.parametrize("settings", ({"solver": "dopri5"}, {"solver": "heun2"}, {"solver": "rk4", "adjoint": True}))
def test_no_fixed_number_of_steps_without_a_closed_form(settings: dict[str, object]) -> None:
    field, h, dt = state()
    with pytest.raises(ConfigError, match=r"dynamics\.solver: expected euler, midpoint, rk4"):
        flow_over(field, h, dt, DynamicsConfig(**settings), most=3)  # type: ignore[arg-type]


def test_tolerances_that_cannot_be_met_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    field, h, dt = state()
    monkeypatch.setattr(solver, "MOST_STEPS", 300)
    with pytest.raises(KinflowError, match="Loosen them"):
        flow_over(field.float(), h.float(), dt.float(), config("bosh3", rtol=1e-14, atol=1e-16))
    for name in ("max_step", "rtol", "atol"):
        with pytest.raises(ConfigError, match=f"{name}: expected above 0"):
            DynamicsConfig(**{name: 0.0})  # type: ignore[arg-type]


def test_packaged_weights_take_any_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were written before torchdiffeq came back: what their header lacks has its default, the fast path."""
    state_dict, header, _ = load_weights(asset_path("dynamics.safetensors"))
    packaged = load_dynamics()
    assert packaged.config == from_dict(DynamicsConfig, header) and not packaged.config.adjoint
    assert packaged.config.solver in CLOSED_FORM
    z, times = 0.1 * torch.randn(1, 6, 63), torch.tensor([[0.0, 0.03, 0.08, 0.1, 0.14, 0.2]])
    scores = []
    for settings in ({"solver": "dopri5"}, {"solver": "rk4", "max_step": 0.005}):
        model = LatentDynamics(dataclasses.replace(packaged.config, **settings)).eval()  # type: ignore[arg-type]
        model.load_state_dict(state_dict)
        scores.append(model.log_prob(z, times))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(solver, "through_torchdiffeq", lambda *_: pytest.fail("the fast path asked torchdiffeq"))
        packaged.log_prob(z, times)
