"""Integration of the hidden state over each row's own time step: closed-form steps, or torchdiffeq.

Rows of a batch must not see each other, and torchdiffeq shares the time axis, and with it the steps, among all rows of a
call. So time is scaled: each interval runs over s in [0, 1] with the derivative multiplied by the row's own dt, and rows
share a call only where that leaves each one's steps as they are when it is alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import DynamicsConfig
from ..errors import ConfigError, KinflowError

CLOSED_FORM = ("euler", "midpoint", "rk4")
"""Methods whose step is written out here."""
FIXED_STEP = (*CLOSED_FORM, "heun2", "heun3")
"""Methods that take steps of equal length, at most ``max_step``; the others choose theirs by ``rtol`` and ``atol``."""
MOST_STEPS = 10_000
"""Steps of an adaptive method between two frames, beyond which its tolerances are out of reach."""


def flow_over(field: nn.Module, h: Tensor, dt: Tensor, config: DynamicsConfig, most: int | None = None) -> Tensor:
    """Let h (B, H) move along dh/dt = ``field(h)`` for each row's own dt (B,) seconds; a row's answer is the same alone
    and in any batch.

    euler, midpoint and rk4 are computed by :func:`closed_form`; every other solver, and ``adjoint``, by
    :func:`through_torchdiffeq`.

    Args:
        most: no row is cut into more steps than this; None: as many as the longest dt asks for. A number makes the
            computation's shape independent of the data, for export.

    Raises:
        ConfigError: ``most`` is given for a solver without a closed form.
    """
    if config.solver in CLOSED_FORM and not config.adjoint:
        return closed_form(field, h, dt, config.solver, config.max_step, most)
    if most is not None:
        raise ConfigError(
            f"dynamics.solver: expected {', '.join(CLOSED_FORM)} without adjoint for a fixed number of steps (export), "
            f"got {config.solver}, adjoint {config.adjoint}. Build the dynamics with one of those; weights fit any solver."
        )
    return through_torchdiffeq(field, h, dt, config)


def closed_form(
    field: nn.Module, h: Tensor, dt: Tensor, solver: str, max_step: float, most: int | None = None
) -> Tensor:
    """Explicit Runge-Kutta steps of one length a row, all rows at once. Rows that need fewer steps rest meanwhile.

    The same numbers as torchdiffeq's methods of the same names (a test compares them), in a half to three quarters of the
    time (benchmarks/dynamics_cost.py), and without their checks on the time grid, which no graph export passes.
    """
    parts = steps_of(dt, max_step, most)
    step = (dt / parts)[:, None].to(h.dtype)
    for part in range(most if most is not None else int(parts.max()) if parts.numel() else 0):
        h = _one_step(field, h, step if part == 0 else step * (part < parts)[:, None], solver)
    return h


def through_torchdiffeq(field: nn.Module, h: Tensor, dt: Tensor, config: DynamicsConfig) -> Tensor:
    """:func:`flow_over` by ``torchdiffeq.odeint``, or ``odeint_adjoint`` with ``config.adjoint``.

    Rows that are cut into the same number of fixed steps share a call. Adaptive methods choose their steps by an error
    taken over everything in the call, so there each row has a call of its own: meant for few rows or long gaps.

    With ``adjoint`` the backward pass integrates the adjoint equation back in time (Chen et al., "Neural Ordinary
    Differential Equations", NeurIPS 2018, algorithm 1) instead of keeping all that the steps computed; the gradient is
    exact up to the solver's error (its steps chosen as in Kidger et al., "Hey, that's not an ODE", ICML 2021). The field
    contracts, so going back amplifies errors by exp(rate * seconds): the
    states of the forward pass are kept at every ``max_step``, and each stretch goes back from there.

    Autocast is off inside: bfloat16's rounding is far above any useful tolerance.

    Raises:
        KinflowError: tolerances below what the state's precision can meet.
    """
    import torchdiffeq  # half a second and scipy: left to those whose configuration asks for it

    if not len(h):
        return h
    fixed = config.solver in FIXED_STEP
    parts = steps_of(dt, config.max_step if fixed or config.adjoint else math.inf)
    each = [(parts == n).nonzero()[:, 0] for n in parts.unique()] if fixed else list(torch.arange(len(h)).split(1))

    def solve(rows: Tensor) -> Tensor:
        rate = dt[rows, None].to(h.dtype)
        times = torch.linspace(0, 1, int(parts[rows[0]]) + 1, dtype=h.dtype, device=h.device)
        # Without step_t an adaptive method's last step passes 1, and the answer is interpolated.
        options = {} if fixed else {"step_t": times, "max_num_steps": MOST_STEPS}
        settings: dict[str, Any] = {
            "method": config.solver,
            "rtol": config.rtol,
            "atol": config.atol,
            "options": options,
        }

        def scaled(_: Tensor, y: Tensor) -> Tensor:
            return rate * field(y)

        if config.adjoint:
            settings["adjoint_params"] = (*field.parameters(), rate)
            settings["adjoint_options"] = {**options, "norm": "seminorm"}  # gradients of parameters set no steps
            return torchdiffeq.odeint_adjoint(scaled, h[rows], times, **settings)[-1]
        return torchdiffeq.odeint(scaled, h[rows], times, **settings)[-1]

    try:
        with torch.autocast(h.device.type, enabled=False):
            moved = torch.cat([solve(rows) for rows in each])
    except AssertionError as error:
        raise KinflowError(
            f"dynamics.solver: {config.solver} does not reach rtol {config.rtol:g}, atol {config.atol:g} in {h.dtype} "
            f"({error}). Loosen them, or compute in float64."
        ) from error
    return moved[torch.cat(each).argsort()]


def steps_of(dt: Tensor, max_step: float, most: int | None = None) -> Tensor:
    """Into how many equal steps of at most ``max_step`` s each dt (B,) is cut, at least one; (B,) whole numbers."""
    return torch.ceil(dt / max_step - 1e-6).clamp(min=1, max=most)


def _one_step(field: nn.Module, h: Tensor, step: Tensor, solver: str) -> Tensor:
    """One step for dh/dt = field(h): h (B, H), step (B, 1) s."""
    k1 = field(h)
    if solver == "euler":
        return h + step * k1
    if solver == "midpoint":
        return h + step * field(h + 0.5 * step * k1)
    k2 = field(h + step * k1 / 3)  # rk4: Kutta's 3/8 rule, as torchdiffeq's
    k3 = field(h + step * (k2 - k1 / 3))
    k4 = field(h + step * (k1 - k2 + k3))
    return h + step * (k1 + 3 * (k2 + k3) + k4) / 8
