"""Kalman filter and Rauch-Tung-Striebel smoother of a constant-velocity model driven by white acceleration.

Each coordinate is a filter of its own: state (x, v), ``dv = sqrt(q) dW``, ``dx = v dt``, observed as ``y = x + e`` with
e ~ N(0, r), discretised exactly over the true time steps (Bar-Shalom, Li and Kirubarajan, Estimation with Applications
to Tracking and Navigation, 2001, sec. 6.2.2). 2 x 2 covariances are kept as (xx, xv, vv).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .linear import Gaussian, residual_velocity

START = 1e6
"""Variances of position and velocity before the first frame, in units of q: so large that the first two frames decide
both, and in proportion to q so that the best q has a closed form."""
RATIOS = tuple(10.0**e for e in torch.linspace(-9, 0, 19).tolist())


@dataclasses.dataclass(frozen=True)
class Filtered:
    """Means (B, T, D, 2) and covariances (B, T, D, 3) before and after each frame; log_prob (B, T, D) nats."""

    mean_before: Tensor
    cov_before: Tensor
    mean: Tensor
    cov: Tensor
    log_prob: Tensor
    error: Tensor
    variance: Tensor


def _forward(mean: Tensor, cov: Tensor, dt: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    x, v = mean.unbind(-1)
    a, b, c = cov.unbind(-1)
    mean = torch.stack((x + dt * v, v.expand_as(x)), -1)
    return mean, torch.stack(
        (a + 2 * dt * b + dt**2 * c + q * dt**3 / 3, b + dt * c + q * dt**2 / 2, c + q * dt.expand_as(c)), -1
    )


def run_filter(y: Tensor, times: Tensor, q: Tensor, r: Tensor, valid: Tensor | None = None) -> Filtered:
    """Filter y (B, T, D) at times (B, T) with q (D,) and r (D,); frames that are not valid (B, T) are predicted only."""
    y, times = y.double(), times.double()
    size, frames, dim = y.shape
    q, r = q.double().expand(dim), r.double().expand(dim)
    use = torch.ones(size, frames, dtype=torch.bool) if valid is None else valid
    mean = y.new_zeros(size, dim, 2)
    cov = (q[:, None] * q.new_tensor((START, 0.0, START))).expand(size, dim, 3)
    kept: list[list[Tensor]] = [[] for _ in range(7)]
    for t in range(frames):
        if t:
            mean, cov = _forward(mean, cov, (times[:, t] - times[:, t - 1])[:, None], q)
        a, b, c = cov.unbind(-1)
        variance = a + r
        error = y[:, t] - mean[..., 0]
        log_prob = -0.5 * (error.square() / variance + variance.log() + math.log(2 * math.pi))
        gain = torch.stack((a, b), -1) / variance[..., None]
        new_mean = mean + gain * error[..., None]
        new_cov = torch.stack((a * r / variance, b * r / variance, c - b * b / variance), -1)
        seen = use[:, t, None, None]
        after = torch.where(seen, new_mean, mean), torch.where(seen, new_cov, cov)
        for store, value in zip(kept, (mean, cov, *after, log_prob * use[:, t, None], error, variance), strict=True):
            store.append(value)
        mean, cov = after
    return Filtered(*(torch.stack(k, 1) for k in kept))


def run_smoother(filtered: Filtered, times: Tensor) -> tuple[Tensor, Tensor]:
    """Means (B, T, D) and variances (B, T, D) of the positions given all frames (Rauch, Tung and Striebel, 1965)."""
    mean, cov = filtered.mean[:, -1], filtered.cov[:, -1]
    means, variances = [mean[..., 0]], [cov[..., 0]]
    for t in range(times.shape[1] - 2, -1, -1):
        dt = (times[:, t + 1] - times[:, t]).double()[:, None]
        a, b, c = filtered.cov[:, t].unbind(-1)
        pa, pb, pc = filtered.cov_before[:, t + 1].unbind(-1)
        det = pa * pc - pb * pb
        # G = P F^T Pp^-1, with P F^T = [[a + dt b, b], [b + dt c, c]].
        top, low = a + dt * b, b + dt * c
        g00, g01 = (top * pc - b * pb) / det, (b * pa - top * pb) / det
        g10, g11 = (low * pc - c * pb) / det, (c * pa - low * pb) / det
        ahead = mean - filtered.mean_before[:, t + 1]
        mean = filtered.mean[:, t] + torch.stack(
            (g00 * ahead[..., 0] + g01 * ahead[..., 1], g10 * ahead[..., 0] + g11 * ahead[..., 1]), -1
        )
        da, db, dc = (cov - filtered.cov_before[:, t + 1]).unbind(-1)
        cov = torch.stack(
            (
                a + g00 * g00 * da + 2 * g00 * g01 * db + g01 * g01 * dc,
                b + g00 * g10 * da + (g00 * g11 + g01 * g10) * db + g01 * g11 * dc,
                c + g10 * g10 * da + 2 * g10 * g11 * db + g11 * g11 * dc,
            ),
            -1,
        )
        means.append(mean[..., 0])
        variances.append(cov[..., 0])
    return torch.stack(means[::-1], 1), torch.stack(variances[::-1], 1)


@dataclasses.dataclass(frozen=True)
class Kalman:
    """Filters on the coordinates ``basis @ x``.

    With ``basis`` the whitening of constant velocity's residuals, a full covariance of the process noise is represented
    while each coordinate keeps its own balance of process and measurement noise.
    """

    q: Tensor
    r: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, x: Tensor, times: Tensor, whiten: bool) -> Kalman:
        """Maximum likelihood on motions (B, T, D): over a grid of r / q, with the best q for each in closed form."""
        x = x.double()
        dim = x.shape[-1]
        eye = torch.eye(dim, dtype=torch.float64)
        basis = eye
        if whiten:
            basis = torch.linalg.solve_triangular(Gaussian.fit(residual_velocity(x, times)).factor, eye, upper=False)
        y = x @ basis.mT
        best = torch.full((dim,), -math.inf, dtype=torch.float64)
        q, r = torch.ones(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64)
        for ratio in RATIOS:
            out = run_filter(y, times, torch.ones(dim), torch.full((dim,), ratio))
            error, variance = out.error[:, 2:], out.variance[:, 2:]
            scale = (error.square() / variance).mean((0, 1)).clamp_min(1e-12)
            value = -0.5 * (scale.log() + variance.log().mean((0, 1)))
            better = value > best
            best = torch.where(better, value, best)
            q, r = torch.where(better, scale, q), torch.where(better, scale * ratio, r)
        return cls(q, r, basis)

    def log_prob(self, x: Tensor, times: Tensor) -> Tensor:
        """(B, T-2) nats a frame of (B, T, D), from the third frame on."""
        out = run_filter(x.double() @ self.basis.mT, times, self.q, self.r)
        return out.log_prob[:, 2:].sum(-1) + torch.linalg.slogdet(self.basis)[1]

    def smooth(self, x: Tensor, times: Tensor, valid: Tensor | None = None, r: float | None = None,
               boost: float = 1.0) -> Tensor:  # fmt: skip
        """Positions (B, T, D) given all valid frames, with measurement noise ``r`` and process noise times ``boost``."""
        noise = self.r if r is None else torch.full_like(self.r, r)
        out = run_filter(x.double() @ self.basis.mT, times, self.q * boost, noise, valid)
        return torch.linalg.solve(self.basis, run_smoother(out, times)[0][..., None])[..., 0]

    def last(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Position (B, D) and velocity (B, D) at the last frame, given all."""
        out = run_filter(x.double() @ self.basis.mT, times, self.q, self.r)
        state = torch.linalg.solve(self.basis, out.mean[:, -1])
        return state[..., 0], state[..., 1]
