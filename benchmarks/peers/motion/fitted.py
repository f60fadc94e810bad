"""The peers over time, fitted on the training split and tuned on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.poses import Capture, mirror_body, perturb

from .coordinates import Latents, Tangent
from .filters import one_euro, savitzky_golay
from .humor import Humor, HumorSettings, cached
from .interpolation import extrapolate, reach, slerp
from .kalman import Kalman
from .linear import Autoregression, Baseline

INF = float("inf")
HORIZONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, INF)


def sampled(captures: Sequence[Capture], every: int = 6) -> Tensor:
    """Poses (N, 21, 3, 3), a few a second, and their mirror images."""
    rotmat = rotvec_to_rotmat(torch.cat([c.body_pose[::every] for c in captures]))
    return torch.cat((rotmat, mirror_body(rotmat)))


def tracks(captures: Sequence[Capture], tangent: Tangent, noise: float, mirror: bool) -> list[Tensor]:
    """Coordinates (n, 63) of each 60 Hz run with ``noise`` rad about each axis, and of its mirror image."""
    generator, out = torch.Generator().manual_seed(0), []
    for capture in captures:
        if abs(capture.fps - 60) < 0.5:
            rotmat = rotvec_to_rotmat(capture.body_pose)
            for side in (rotmat, mirror_body(rotmat)) if mirror else (rotmat,):
                out.append(tangent.encode(perturb(side, noise, generator))[0])
    return out


@dataclasses.dataclass(frozen=True)
class OneStep:
    """One-step densities at one frame rate, in coordinates x (B, T, 63) at times (B, T)."""

    last: Baseline
    velocity: Baseline
    autoregression: Autoregression
    kalman: Kalman

    @classmethod
    def fit(
        cls, x: Tensor, times: Tensor, validation: Tensor, validation_times: Tensor, regular: Autoregression | None
    ) -> OneStep:
        """Fit at one rate. ``regular``: the autoregression at even steps of the same mean rate, kept where it validates
        better than one fitted to these steps."""
        regression = Autoregression.fit(x, validation)
        if regular is not None and regular.log_prob(validation).mean() > regression.log_prob(validation).mean():
            regression = regular
        few = x[:: max(1, len(x) // 256)], times[:: max(1, len(x) // 256)]
        return cls(
            Baseline.fit(x, times, False), Baseline.fit(x, times, True), regression, Kalman.fit(*few, whiten=True)
        )

    def log_prob(self, x: Tensor, times: Tensor) -> dict[str, Tensor]:
        """Nats a frame (B, T-2) of each, from the third frame on, in these coordinates."""
        return {
            "last frame": self.last.log_prob(x, times),
            "constant velocity": self.velocity.log_prob(x, times),
            "VAR(2)": self.autoregression.log_prob(x),
            "Kalman": self.kalman.log_prob(x, times),
        }


class Smoothers:
    """Denoisers of rotations (B, T, 21, 3, 3), each a function of its settings, and the settings to choose from."""

    def __init__(self, tangent: Tangent, kalman: Kalman) -> None:
        self.tangent, self.kalman = tangent, kalman

    def grid(self, name: str) -> list[tuple[float, ...]]:
        """The settings to choose from."""
        if name == "One-Euro":
            return [(cut, beta) for cut in (0.3, 0.7, 1.5, 3.0, 6.0, 12.0) for beta in (0.0, 0.3, 0.7, 1.5, 3.0, 6.0)]
        if name == "Savitzky-Golay":
            return [(w, o) for w in (3, 5, 7, 9, 11, 15, 21, 31) for o in (1, 2, 3) if o < w]
        return [(boost, size) for boost in (1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0) for size in (1.0, 4.0)]

    def run(
        self, name: str, settings: tuple[float, ...], rotmat: Tensor, times: Tensor, valid: Tensor, noise: float
    ) -> Tensor:
        """(B, T, 21, 3, 3) of noisy rotations. ``noise``: rad about each axis, which the Kalman smoother is told."""
        filled = slerp(rotmat, times, valid)
        if name == "Savitzky-Golay":
            return savitzky_golay(filled, int(settings[0]), int(settings[1]))
        track = self.tangent.track(filled)
        if name == "One-Euro":
            return self.tangent.decode(one_euro(track, times, settings[0], settings[1]))
        return self.tangent.decode(self.kalman.smooth(track, times, valid, noise**2 * settings[1], settings[0]))


NAMES = ("One-Euro", "Savitzky-Golay", "Kalman smoother")


class Forecasters:
    """Point forecasts (B, F, 21, 3, 3) at ``future`` (F,) s after the last frame of motions that end at time 0."""

    def __init__(self, tangent: Tangent, kalman: Kalman) -> None:
        self.tangent, self.kalman = tangent, kalman

    def damped(self, rotmat: Tensor, times: Tensor, future: Tensor, horizon: float, frames: int) -> Tensor:
        """Constant velocity that dies out."""
        return extrapolate(rotmat, times, future, horizon, frames)

    def filtered(self, rotmat: Tensor, times: Tensor, future: Tensor, horizon: float) -> Tensor:
        """The Kalman filter's position and velocity, which dies out over ``horizon``."""
        x, v = self.kalman.last(self.tangent.track(rotmat), times)
        return self.tangent.decode(x[:, None] + reach(future, horizon)[:, None] * v[:, None])


@dataclasses.dataclass(frozen=True)
class HumorPeer:
    """The conditional VAE of one seed on its coordinates."""

    tangent: Tangent
    likelihood: Humor
    rollout: Humor
    scores: dict[str, float]

    @classmethod
    def load(
        cls,
        folder: Path,
        train: Sequence[Capture],
        validation: Sequence[Capture],
        tangent: Tangent,
        noise: float,
        settings: HumorSettings,
        seed: int,
    ) -> HumorPeer:
        """Trained, or as it was kept in ``folder``."""
        own, held = tracks(train, tangent, noise, True), tracks(validation, tangent, noise, False)
        return cls(tangent, *cached(folder, own, held, 60.0, settings, seed))

    def log_prob(self, rotmat: Tensor, times: Tensor, samples: int) -> Tensor:
        """Bound on the nats a frame (B, T-2) with respect to the Haar measure, from the third frame on."""
        x, log_det = self.tangent.encode(rotmat)
        return self.likelihood.log_prob(x, times, samples, torch.Generator().manual_seed(0)) + log_det[:, 2:]

    def forecast(self, rotmat: Tensor, times: Tensor, future: Sequence[float]) -> Tensor:
        """(B, F, 21, 3, 3)."""
        return self.tangent.decode(self.rollout.forecast(self.tangent.track(rotmat), times, future))


__all__ = ["HORIZONS", "NAMES", "Forecasters", "HumorPeer", "Latents", "OneStep", "Smoothers", "sampled", "tracks"]
