"""A conditional VAE over one step of motion, after Rempe et al., "HuMoR" (ICCV 2021), sec. 3.

As published: the state is the pose and its velocity; a conditional prior p(h | x_{t-1}) and a posterior
q(h | x_{t-1}, x_t) over 48 latents are perceptrons with four hidden layers, group normalisation of 16 groups and ReLU,
the decoder has three and is given h at each; the decoder gives the change of the state; the KL term is brought in
gradually; then training goes on with the model's own predictions fed back (scheduled sampling, detached).

Departures. The pose is the body's alone (rotation vectors about the joints' mean rotations: HuMoR has no flow), without
root, joints or contacts. Hidden layers are half as wide (512 and 256) to fit minutes of one CPU thread. The decoder's
Gaussian has a learned variance, which a likelihood needs, in the axes that whiten the residuals of constant velocity,
so that it has the linear peers' full covariance from the start. The time steps are given as inputs and the change is
counted in units of its spread at that step, so that one model serves all frame rates: HuMoR itself is bound to 30 Hz.
Scheduled sampling makes a second model, used for forecasts; likelihood is the first one's, which is the better at it.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .linear import Gaussian

LOG_2PI = math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class HumorSettings:
    """Sizes and training; ``steps`` of one-step training, then ``rollout_steps`` of scheduled sampling."""

    latent: int = 48
    hidden: int = 512
    groups: int = 16
    batch: int = 512
    steps: int = 3600
    rollout_steps: int = 150
    rollout_frames: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    anneal: float = 0.2
    every: int = 60
    fps: tuple[float, float] = (12.0, 60.0)

    def key(self, *more: object) -> str:
        """Short hash of the settings and of whatever else the result depends on."""
        text = json.dumps([dataclasses.asdict(self), *map(str, more)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Layers(nn.Module):
    """Linear, group normalisation and ReLU; ``skip`` inputs join every layer."""

    def __init__(self, sizes: Sequence[int], groups: int, skip: int = 0) -> None:
        super().__init__()
        self.linear = nn.ModuleList(
            nn.Linear(a + (skip if i else 0), b) for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.norm = nn.ModuleList(nn.GroupNorm(min(groups, n), n) for n in sizes[1:-1])

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(N, sizes[0]) -> (N, sizes[-1])."""
        for i, layer in enumerate(self.linear):
            if i:
                x = functional.relu(self.norm[i - 1](x))
                x = x if skip is None else torch.cat((x, skip), -1)
            x = layer(x)
        return x


def _log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return (-0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - 0.5 * LOG_2PI).sum(-1)


class Humor(nn.Module):
    """p(x_t | x_{t-1}, x_{t-2}, time steps) of coordinates x (..., D) as a conditional VAE."""

    centre: Tensor
    spread: Tensor
    whiten: Tensor
    log_level: Tensor
    power: Tensor

    def __init__(self, dim: int, settings: HumorSettings) -> None:
        super().__init__()
        self.dim, self.settings = dim, settings
        context, wide, latent = 2 * dim + 2, settings.hidden, settings.latent
        self.prior = _Layers((context, wide, wide, wide, wide, 2 * latent), settings.groups)
        self.posterior = _Layers((context + dim, wide, wide, wide, wide, 2 * latent), settings.groups)
        self.decoder = _Layers((context + latent, wide, wide, wide // 2, 2 * dim), settings.groups, skip=latent)
        for name, value in (
            ("centre", torch.zeros(dim)),
            ("spread", torch.ones(dim)),
            ("whiten", torch.eye(dim)),
            ("log_level", torch.zeros(dim)),
            ("power", torch.ones(dim)),
        ):
            self.register_buffer(name, value)

    @torch.no_grad()
    def fit_scale(self, x: Tensor, times: Tensor) -> None:
        """Set the units from triples x (N, 3, D) at times (N, 3) of all rates."""
        self.centre.copy_(x.flatten(0, 1).mean(0))
        self.spread.copy_(x.flatten(0, 1).std(0).clamp_min(1e-3))
        dt = torch.diff(times, dim=1).to(x.dtype)
        residual = x[:, 2] - x[:, 1] - (x[:, 1] - x[:, 0]) * (dt[:, 1:] / dt[:, :1])
        middle = (dt[:, 1] > 0.025) & (dt[:, 1] < 0.042)
        factor = Gaussian.fit(residual[middle]).factor
        eye = torch.eye(self.dim, dtype=factor.dtype)
        self.whiten.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))
        # How the whitened residual grows with the step: a power of it in each coordinate.
        size = torch.log((residual @ self.whiten.mT).abs() + 1e-2)
        reach = torch.log(dt[:, 1:] * 30)
        self.power.copy_((((reach - reach.mean()) * size).mean(0) / reach.var()).clamp(0, 2.5))
        self.log_level.zero_()

    # -- one step ------------------------------------------------------------------------------------------------------

    def context(self, before: Tensor, here: Tensor, dt_before: Tensor, dt: Tensor) -> Tensor:
        """Inputs (N, 2 D + 2): pose, velocity (in whitened units a reference step) and both time steps (N,)."""
        velocity = (here - before) / dt_before[:, None]
        scaled = torch.asinh(velocity @ self.whiten.mT / 30 / 4)
        pose = (here - self.centre) / self.spread
        return torch.cat((pose, scaled, torch.log(dt_before * 30)[:, None], torch.log(dt * 30)[:, None]), -1)

    def _unit(self, dt: Tensor) -> Tensor:
        """log of the spread (N, D) of the whitened change at a step (N,)."""
        return self.log_level + self.power * torch.log(dt * 30)[:, None]

    def change(self, before: Tensor, here: Tensor, after: Tensor, dt_before: Tensor, dt: Tensor) -> Tensor:
        """What constant velocity misses (N, D), whitened and in units of its spread."""
        missed = after - here - (here - before) * (dt / dt_before)[:, None]
        return (missed @ self.whiten.mT) * torch.exp(-self._unit(dt))

    def _gaussian(self, out: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = out.chunk(2, -1)
        return mean, 5 * torch.tanh(log_std / 5)

    def decode(self, context: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation (N, D) of the change."""
        return self._gaussian(self.decoder(torch.cat((context, latent), -1), latent))

    def bound(self, context: Tensor, change: Tensor, weight: float = 1.0) -> Tensor:
        """Evidence lower bound (N,) of the change, its KL term multiplied by ``weight``."""
        prior_mean, prior_log = self._gaussian(self.prior(context))
        mean, log_std = self._gaussian(self.posterior(torch.cat((context, change), -1)))
        latent = mean + log_std.exp() * torch.randn_like(mean)
        kl = (
            prior_log - log_std - 0.5
            + 0.5 * ((2 * (log_std - prior_log)).exp() + ((mean - prior_mean) * torch.exp(-prior_log)).square())
        ).sum(-1)  # fmt: skip
        return _log_normal(change, *self.decode(context, latent)) - weight * kl

    def volume(self, dt: Tensor) -> Tensor:
        """log|d change / dx| (N,), nats, to be added to a log-density of changes."""
        return torch.linalg.slogdet(self.whiten)[1] - self._unit(dt).sum(-1)

    # -- motions -------------------------------------------------------------------------------------------------------

    def log_prob(
        self,
        x: Tensor,
        times: Tensor,
        samples: int = 64,
        generator: torch.Generator | None = None,
        chunk: int = 512,
    ) -> Tensor:
        """Importance-weighted bound (Burda et al., ICLR 2016) of each frame from the third on: (B, T, D) -> (B, T-2)."""
        size, frames, dim = x.shape
        dt = torch.diff(times, dim=1).to(x.dtype)
        parts = [x[:, :-2], x[:, 1:-1], x[:, 2:]]
        before, here, after = (p.reshape(-1, dim) for p in parts)
        first, second = dt[:, :-1].reshape(-1), dt[:, 1:].reshape(-1)
        out = []
        for rows in torch.arange(len(before)).split(chunk):
            context = self.context(before[rows], here[rows], first[rows], second[rows])
            change = self.change(before[rows], here[rows], after[rows], first[rows], second[rows])
            mean, log_std = self._gaussian(self.posterior(torch.cat((context, change), -1)))
            prior_mean, prior_log = self._gaussian(self.prior(context))
            noise = torch.randn(samples, *mean.shape, generator=generator, dtype=mean.dtype)
            latent = mean + log_std.exp() * noise
            # The first layer sees the context once, not once a sample.
            wide = context.expand(samples, *context.shape).flatten(0, 1)
            own, own_log = self.decode(wide, latent.flatten(0, 1))
            weight = (
                _log_normal(change, own.unflatten(0, (samples, -1)), own_log.unflatten(0, (samples, -1)))
                + _log_normal(latent, prior_mean, prior_log)
                - _log_normal(latent, mean, log_std)
            )
            out.append(torch.logsumexp(weight, 0) - math.log(samples) + self.volume(second[rows]))
        return torch.cat(out).reshape(size, frames - 2)

    def step(self, before: Tensor, here: Tensor, dt_before: Tensor, dt: Tensor) -> Tensor:
        """Next pose (N, D) through the means of prior and decoder."""
        context = self.context(before, here, dt_before, dt)
        mean, _ = self.decode(context, self._gaussian(self.prior(context))[0])
        return self.place(before, here, mean, dt_before, dt)

    def place(self, before: Tensor, here: Tensor, change: Tensor, dt_before: Tensor, dt: Tensor) -> Tensor:
        """Next pose (N, D) of a change: the inverse of :meth:`change`."""
        moved = torch.linalg.solve(self.whiten, (change * torch.exp(self._unit(dt)))[..., None])[..., 0]
        return here + (here - before) * (dt / dt_before)[:, None] + moved

    @torch.no_grad()
    def forecast(self, x: Tensor, times: Tensor, future: Sequence[float], interval: float = 1 / 30) -> Tensor:
        """Mean rollout (B, F, D) after (B, T, D): steps of ``interval``, and a shorter last one to each time asked."""
        before, here = x[:, -2], x[:, -1]
        dt_before = (times[:, -1] - times[:, -2]).to(x.dtype)
        now, out = 0.0, []
        for target in future:
            while target - now > interval + 1e-6:
                step = torch.full_like(dt_before, interval)
                before, here, dt_before = here, self.step(before, here, dt_before, step), step
                now += interval
            out.append(self.step(before, here, dt_before, torch.full_like(dt_before, target - now)))
        return torch.stack(out, 1)


class Triples:
    """Windows of consecutive frames at rates drawn anew, from tracks of 60 Hz x (n, D)."""

    def __init__(self, tracks: Sequence[Tensor], fps: float, settings: HumorSettings) -> None:
        self.fps, self.settings = fps, settings
        kept = [t for t in tracks if len(t) >= 16]
        self.flat = torch.cat(kept)
        length = torch.tensor([len(t) for t in kept])
        first = torch.cumsum(length, 0) - length
        self.end = torch.repeat_interleave(first + length, length)

    def draw(self, count: int, frames: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (count, frames, D) and times (count, frames) s."""
        low, high = (math.log(f) for f in self.settings.fps)
        rows, times = [], []
        while sum(map(len, rows)) < count:
            rate = torch.exp(low + (high - low) * torch.rand(count, 1, generator=rng))
            gaps = self.fps / rate * (1 + 0.15 * torch.randn(count, frames - 1, generator=rng))
            at = torch.cat((torch.zeros(count, 1), gaps.round().clamp_min(1).cumsum(1)), 1).long()
            start = torch.randint(len(self.flat), (count, 1), generator=rng)
            fits = (start + at[:, -1:] < self.end[start])[:, 0]
            rows.append((start + at)[fits])
            times.append(at[fits].double() / self.fps)
        index = torch.cat(rows)[:count]
        return self.flat[index], torch.cat(times)[:count]


def _one_step(model: Humor, x: Tensor, times: Tensor, weight: float = 1.0) -> Tensor:
    dt = torch.diff(times, dim=1).to(x.dtype)
    context = model.context(x[:, 0], x[:, 1], dt[:, 0], dt[:, 1])
    return model.bound(context, model.change(x[:, 0], x[:, 1], x[:, 2], dt[:, 0], dt[:, 1]), weight)


def _fed_back(model: Humor, x: Tensor, times: Tensor, own: float, rng: torch.Generator) -> Tensor:
    """Bound over a window where each frame is replaced, with probability ``own``, by the model's prediction of it."""
    dt = torch.diff(times, dim=1).to(x.dtype)
    before, here = x[:, 0], x[:, 1]
    values = []
    for t in range(2, x.shape[1]):
        context = model.context(before, here, dt[:, t - 2], dt[:, t - 1])
        values.append(model.bound(context, model.change(before, here, x[:, t], dt[:, t - 2], dt[:, t - 1])))
        with torch.no_grad():
            guess = model.step(before, here, dt[:, t - 2], dt[:, t - 1])
        use = torch.rand(len(x), 1, generator=rng) < own
        before, here = here, torch.where(use, guess, x[:, t])
    # A prediction that has run away must not own the step.
    return torch.stack(values, 1).clamp_min(-1e3)


@torch.no_grad()
def _rollout_error(model: Humor, x: Tensor, times: Tensor) -> float:
    """Root mean square of what a rollout from the first two frames misses at the last."""
    dt = torch.diff(times, dim=1).to(x.dtype)
    before, here = x[:, 0], x[:, 1]
    for t in range(2, x.shape[1]):
        before, here = here, model.step(before, here, dt[:, t - 2], dt[:, t - 1])
    return float((here - x[:, -1]).square().mean().sqrt().nan_to_num(1e9))


@torch.enable_grad()
def train(
    tracks: Sequence[Tensor], validation: Sequence[Tensor], fps: float, settings: HumorSettings, seed: int
) -> tuple[Humor, Humor, dict[str, float]]:
    """Train on tracks (n, D): the model for likelihood, the one for forecasts, and the scores they stopped at."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    bank, held = Triples(tracks, fps, settings), Triples(validation, fps, settings)
    model = Humor(bank.flat.shape[1], settings)
    model.fit_scale(*bank.draw(40000, 3, rng))
    fixed = held.draw(4096, 3, torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps + 1, settings.learning_rate * 0.02)

    best, best_score, when = copy.deepcopy(model.state_dict()), -math.inf, 0
    for step in range(1, settings.steps + 1):
        x, times = bank.draw(settings.batch, 3, rng)
        value = _one_step(model, x, times, min(1.0, step / (settings.anneal * settings.steps)))
        _descend(model, optimiser, -value.clamp_min(-1e3).mean())
        schedule.step()
        if step % settings.every == 0 or step == settings.steps:
            with torch.no_grad():
                score = float(_one_step(model, *fixed).mean())
            if score > best_score:
                best, best_score, when = copy.deepcopy(model.state_dict()), score, step
    model.load_state_dict(best)

    rolled = copy.deepcopy(model)
    far = held.draw(512, 14, torch.Generator().manual_seed(1))
    best, best_error = copy.deepcopy(rolled.state_dict()), _rollout_error(rolled, *far)
    optimiser = torch.optim.AdamW(rolled.parameters(), settings.learning_rate * 0.3, weight_decay=settings.weight_decay)
    size = max(16, settings.batch // 4)
    for step in range(1, settings.rollout_steps + 1):
        x, times = bank.draw(size, settings.rollout_frames, rng)
        _descend(rolled, optimiser, -_fed_back(rolled, x, times, step / settings.rollout_steps, rng).mean())
        if step % max(1, settings.rollout_steps // 6) == 0:
            error = _rollout_error(rolled, *far)
            if error < best_error:
                best, best_error = copy.deepcopy(rolled.state_dict()), error
    rolled.load_state_dict(best)
    scores = {"validation_bound": best_score, "best_step": float(when), "rollout_error": best_error}
    return model.eval().requires_grad_(False), rolled.eval().requires_grad_(False), scores


def _descend(model: Humor, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimiser.step()


def cached(
    folder: Path,
    tracks: Sequence[Tensor],
    validation: Sequence[Tensor],
    fps: float,
    settings: HumorSettings,
    seed: int,
) -> tuple[Humor, Humor, dict[str, float]]:
    """As :func:`train`, kept in ``folder`` under a hash of settings, seed and data."""
    data = [len(tracks), sum(map(len, tracks)), f"{float(sum(t.double().sum() for t in tracks)):.6g}"]
    path = folder / f"humor_{settings.key(seed, data)}.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        models = [Humor(tracks[0].shape[1], settings) for _ in range(2)]
        for model, state in zip(models, saved["models"], strict=True):
            model.load_state_dict(state)
            model.eval().requires_grad_(False)
        return models[0], models[1], saved["scores"]
    one, rolled, scores = train(tracks, validation, fps, settings, seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"models": [one.state_dict(), rolled.state_dict()], "scores": scores}, path)
    return one, rolled, scores
