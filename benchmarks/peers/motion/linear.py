"""Gaussian one-step predictions: around the last frame, around constant velocity, and a vector autoregression.

Each has a full residual covariance and is fitted for one frame rate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

RIDGES = tuple(10.0**e for e in range(-4, 4))


def residual_last(x: Tensor, times: Tensor) -> Tensor:
    """What the last frame misses, (B, T, D) -> (B, T-2, D), from the third frame on."""
    return x[:, 2:] - x[:, 1:-1]


def residual_velocity(x: Tensor, times: Tensor) -> Tensor:
    """What constant velocity over the true time steps (B, T) misses, (B, T, D) -> (B, T-2, D)."""
    dt = torch.diff(times, dim=1).to(x.dtype)[..., None]
    return x[:, 2:] - x[:, 1:-1] - (x[:, 1:-1] - x[:, :-2]) * (dt[:, 1:] / dt[:, :-1])


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(0, C) of residuals, by the Cholesky factor (D, D) of C."""

    factor: Tensor

    @classmethod
    def fit(cls, residual: Tensor) -> Gaussian:
        """Second moments about zero of residuals (..., D)."""
        flat = residual.reshape(-1, residual.shape[-1]).double()
        eye = torch.eye(flat.shape[-1], dtype=torch.float64)
        return cls(torch.linalg.cholesky(flat.mT @ flat / len(flat) + 1e-8 * eye))

    def log_prob(self, residual: Tensor) -> Tensor:
        """log N (...) of residuals (..., D), nats."""
        white = torch.linalg.solve_triangular(self.factor, residual.double()[..., None], upper=False)[..., 0]
        dim = white.shape[-1]
        return -0.5 * white.square().sum(-1) - self.factor.diagonal().log().sum() - 0.5 * dim * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A Gaussian around the last frame, or around constant velocity."""

    velocity: bool
    gaussian: Gaussian

    @classmethod
    def fit(cls, x: Tensor, times: Tensor, velocity: bool) -> Baseline:
        """From motions x (B, T, D) at times (B, T)."""
        return cls(velocity, Gaussian.fit((residual_velocity if velocity else residual_last)(x, times)))

    def log_prob(self, x: Tensor, times: Tensor) -> Tensor:
        """(B, T-2) nats a frame of (B, T, D), from the third frame on."""
        return self.gaussian.log_prob((residual_velocity if self.velocity else residual_last)(x, times))


@dataclasses.dataclass(frozen=True)
class Autoregression:
    """VAR(2): x_t = A1 x_{t-1} + A2 x_{t-2} + c + e, e ~ N(0, C).

    Written for the change of x given the last frame and the last change, so that the ridge shrinks towards standing
    still instead of towards zero: coefficients (2 D + 1, D) of (x_{t-1}, x_{t-1} - x_{t-2}, 1).
    """

    coefficients: Tensor
    gaussian: Gaussian
    ridge: float

    @staticmethod
    def _inputs(x: Tensor) -> Tensor:
        here, change = x[:, 1:], torch.diff(x, dim=1)
        return torch.cat((here, change, torch.ones_like(here[..., :1])), -1)

    @classmethod
    def fit(
        cls,
        x: Tensor,
        validation: Tensor,
        ridges: Sequence[float] = RIDGES,
    ) -> Autoregression:
        """Least squares on motions (B, T, D), with the ridge of several that predicts ``validation`` (B, T, D) best."""
        inputs = cls._inputs(x[:, :-1]).flatten(0, 1).double()
        targets = (x[:, 2:] - x[:, 1:-1]).flatten(0, 1).double()
        # One ridge for positions and changes: both are brought to unit size first. The constant is not shrunk.
        size = inputs.square().mean(0).sqrt().clamp_min(1e-9)
        size[-1] = 1
        scaled = inputs / size
        square, cross = scaled.mT @ scaled / len(scaled), scaled.mT @ targets / len(scaled)
        penalty = torch.ones(len(size), dtype=torch.float64)
        penalty[-1] = 0
        best: Autoregression | None = None
        score = -math.inf
        for ridge in ridges:
            solved = torch.linalg.solve(square + 1e-10 * torch.eye(len(size)) + ridge * torch.diag(penalty), cross)
            model = cls(solved / size[:, None], Gaussian.fit(targets - scaled @ solved), ridge)
            value = float(model.log_prob(validation).mean())
            if best is None or value > score:
                best, score = model, value
        assert best is not None
        return best

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """A1 (D, D), A2 (D, D) and c (D,)."""
        dim = self.coefficients.shape[1]
        here, change, constant = self.coefficients.split((dim, dim, 1))
        return torch.eye(dim, dtype=here.dtype) + (here + change).mT, -change.mT, constant[0]

    def step(self, before: Tensor, here: Tensor) -> Tensor:
        """Expected next frame (B, D) after two frames (B, D)."""
        one = torch.ones_like(here[:, :1])
        return here + torch.cat((here, here - before, one), -1) @ self.coefficients.to(here.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """(B, T-2) nats a frame of (B, T, D), from the third frame on."""
        x = x.double()
        return self.gaussian.log_prob(x[:, 2:] - x[:, 1:-1] - self._inputs(x[:, :-1]) @ self.coefficients)

    def forecast(self, x: Tensor, interval: float, future: Sequence[float]) -> Tensor:
        """Expected frames (B, F, D) at ``future`` seconds after the last of (B, T, D), on lines between its own steps."""
        steps = math.ceil(max(future) / interval)
        path = [x[:, -2].double(), x[:, -1].double()]
        for _ in range(steps):
            path.append(self.step(path[-2], path[-1]))
        track = torch.stack(path[1:], 1)
        at = torch.tensor(list(future), dtype=torch.float64) / interval
        low = at.floor().long().clamp(max=steps - 1)
        share = (at - low)[:, None]
        return (1 - share) * track[:, low] + share * track[:, low + 1]
