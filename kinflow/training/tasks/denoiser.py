"""Training of the denoiser: motion capture back from what noise and masks leave of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...body import Body
from ...body.kinematics import forward_kinematics
from ...config import DenoiserTrainingConfig
from ...denoiser import Denoiser, load_denoiser
from ...denoiser.network import HORIZONS
from ...rotations import geodesic_distance, rotvec_to_rotmat
from ..loop import FitResult
from ..poses import Capture, exchange, mirror_body, perturb
from ..run import Captured, Card, Training, capture_alone, listed
from ..shares import Shares, reshare
from ..streams.noise import ar1
from ..streams.windows import Window, WindowSampler, log_uniform
from ..trust import fit_trust


@dataclasses.dataclass(frozen=True)
class Damaged:
    """Motions and what is left of them: target and rotmat (B, T, 21, 3, 3), timestamps, valid, present (B, T), noise (B,)."""

    target: Tensor
    rotmat: Tensor
    timestamps: Tensor
    valid: Tensor
    present: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> Damaged:
        """The same on another device."""
        return Damaged(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


class DenoiserTask:
    """Least absolute errors of the smoothed motion's angles, joints and second differences."""

    def __init__(
        self,
        config: DenoiserTrainingConfig,
        training: Sequence[Capture],
        validation: Sequence[Capture],
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.module = Denoiser(config.model).to(device)
        self.sampler = WindowSampler(training)
        self.poses = torch.cat([c.body_pose for c in training])
        body = Body.open("light")
        self.rest = body.rest_joints(torch.zeros(1, 10))[0].to(device)
        if config.init is None:
            self._fit_regression()
        else:
            self.module.load_state_dict(load_denoiser(config.init).state_dict())
        self.held_out = validation
        self.validation = validation_sets(validation, self.module)

    def _fit_regression(self) -> None:
        """Axes and variances of the regression, from windows at 30 frames/s and their mirror images."""
        rng = np.random.default_rng(self.config.train.seed)
        window = self.sampler.draw(rng, 1200, 48, (30.0, 30.001))
        pose = rotvec_to_rotmat(self.poses[window.frames[window.present.all(1)]]).to(self.device)
        self.module.regression.fit(torch.cat((pose, mirror_body(pose))))

    def draw(self, rng: np.random.Generator) -> Damaged:
        """A batch of damaged windows."""
        config, size = self.config, self.config.train.batch

        def window() -> Window:
            return self.sampler.draw(rng, size, config.frames, config.fps, config.rate_jitter, config.time_warp)

        own = window()
        target = rotvec_to_rotmat(self.poses[own.frames])
        swap = torch.from_numpy(rng.random(size) < config.exchange)
        if bool(swap.any()):
            other = rotvec_to_rotmat(self.poses[window().frames[swap]])
            target[swap] = exchange(target[swap], other)
        flip = torch.from_numpy(rng.random(size) < config.mirror)
        target[flip] = mirror_body(target[flip])
        if config.shares > 0:
            some = torch.from_numpy(rng.random(size) < config.shares)
            draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
            target[some] = reshare(target[some], Shares.draw(int(some.sum()), draws, own.timestamps[some]))
        if config.reverse > 0:
            back = torch.from_numpy(rng.random(size) < config.reverse) & own.present.all(1)
            target[back] = target[back].flip(1)
            times = own.timestamps
            times[back] = times[back][:, -1:] - times[back].flip(1)
        return damage(config, target, own, rng).to(self.device)

    def loss(self, batch: Damaged) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Mean over windows of the smoothed motion's errors, relative to those of the regression alone.

        A window with a long gap has a hundred times the error of one with little noise; relative to what a linear
        denoiser makes of the same window, they count alike.
        """
        device = batch.rotmat.device.type
        valid = batch.valid & batch.present
        with torch.autocast(device, enabled=False), torch.no_grad():
            known = self.module.regression(batch.rotmat, batch.timestamps, valid, batch.noise)
            linear = self._errors(self.module.regression.place(known.centre, known.mean), batch)
        rotmat = self.module.correct(known, batch.timestamps, valid, batch.noise)
        with torch.autocast(device, enabled=False):
            errors = self._errors(rotmat.float(), batch)
            ratios = [(e / (r + f)).mean() for e, r, f in zip(errors, linear, (5e-3, 2e-3, 5e-4), strict=True)]
        config = self.config
        weights = torch.tensor((config.angle, config.position, config.acceleration), device=batch.rotmat.device)
        parts: dict[str, float | Tensor] = dict(zip(("angle", "position", "second"), ratios, strict=True))
        return (weights * torch.stack(ratios)).sum() / weights.sum(), parts

    def _errors(self, rotmat: Tensor, batch: Damaged) -> tuple[Tensor, Tensor, Tensor]:
        """Mean errors of each window (B,): joint angles (rad), positions (m), second differences of positions (m)."""
        chord = (rotmat - batch.target).square().sum((-1, -2))  # 2 angle^2 for small angles
        angle = (0.5 * chord + 1e-6).sqrt().mean(-1)
        off = self._joints(rotmat) - self._joints(batch.target)
        position = (off.square().sum(-1) + 1e-7).sqrt().mean(-1)
        bend = off[:, 2:] - 2 * off[:, 1:-1] + off[:, :-2]
        second = (bend.square().sum(-1) + 1e-8).sqrt().mean(-1)
        here = batch.present.to(angle.dtype)

        def mean(x: Tensor, weight: Tensor) -> Tensor:
            return (x * weight).sum(1) / weight.sum(1).clamp_min(1)

        return mean(angle, here), mean(position, here), mean(second, here[:, 2:])

    def _joints(self, rotmat: Tensor) -> Tensor:
        """Joints (B, T, 24, 3) m of the mean body with its root at rest."""
        eye = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device).expand(*rotmat.shape[:2], 1, 3, 3)
        full = torch.cat((eye, rotmat, eye, eye), 2)
        return forward_kinematics(full, self.rest)[1]

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Mean angle in degrees for each kind of damage on the validation split; the score is their mean, relative to a
        Gaussian-process regression's."""
        scores = {}
        for name, (batch, reference, where) in self.validation.items():
            b = batch.to(self.device)
            rotmat = module(b.rotmat, b.timestamps, b.valid, b.noise)
            scores[name] = math.degrees(float(geodesic_distance(rotmat, b.target)[where].mean())) / reference
        return {"score": float(np.mean(list(scores.values()))), **scores}


def damage(config: DenoiserTrainingConfig, target: Tensor, window: Window, rng: np.random.Generator) -> Damaged:
    """What noise, wrong frames and masks leave of motions (B, T, 21, 3, 3)."""
    size, frames = window.present.shape
    times, present = window.timestamps, window.present
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    level = torch.from_numpy(log_uniform(rng, config.noise, size)).float()
    told = level * torch.from_numpy(np.exp(rng.uniform(-config.told_error, config.told_error, size))).float()

    def some(share: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.random(shape or size) < share)

    draws = torch.randn(*target.shape[:-1], generator=generator)
    step = torch.diff(times, dim=1, prepend=times[:, :1]).float()
    slow = ar1(tuple(target.shape[2:-1]), step, torch.full((size,), 0.2), generator)
    draws = torch.where(some(config.correlated)[:, None, None, None], slow, draws)
    odd = some(config.outliers, size, frames, target.shape[2]) & some(0.3)[:, None, None]
    turn = draws * level[:, None, None, None] * torch.where(odd, 6.0, 1.0)[..., None]
    # Exchanged left and right, for a while: one or two intervals.
    seen = target
    for _ in range(2):
        inside = _interval(times, present, rng, (0.05, 0.5)) & some(config.swaps)[:, None]
        seen = torch.where(inside[..., None, None, None], mirror_body(target), seen)
    rotmat = seen @ rotvec_to_rotmat(turn)
    share = rng.random((size, 1)) * config.drops * (rng.random((size, 1)) < 0.6)
    valid = present & torch.from_numpy(rng.random((size, frames)) >= share)
    kind = torch.from_numpy(rng.random(size))
    gap = _interval(times, present, rng, config.gap) & (kind < config.gaps)[:, None]
    ends = torch.where(present, times, torch.zeros_like(times)).amax(1)
    length = torch.from_numpy(log_uniform(rng, config.gap, size))
    late = (times > (ends - length).clamp_min(0)[:, None]) & (kind > 1 - config.future)[:, None]
    kept = valid & ~gap & ~late
    kept[:, 0] |= ~kept.any(1)
    return Damaged(target, rotmat, times, kept, present, told)


def _interval(times: Tensor, present: Tensor, rng: np.random.Generator, length: tuple[float, float]) -> Tensor:
    """One interval of each row, of random length in s: (B, T) bool."""
    ends = torch.where(present, times, torch.zeros_like(times)).amax(1)
    span = torch.from_numpy(log_uniform(rng, length, len(times)))
    begin = torch.from_numpy(rng.random(len(times))) * (ends - span).clamp_min(0.0)
    return (times > begin[:, None]) & (times <= (begin + span)[:, None]) & present


def validation_sets(
    captures: Sequence[Capture], module: Denoiser, count: int = 48
) -> dict[str, tuple[Damaged, float, Tensor]]:
    """Fixed damage of a split: (windows, the regression's error in degrees, frames that count (B, T))."""
    sampler, poses = WindowSampler(captures), torch.cat([c.body_pose for c in captures])
    out = {}
    for name, rate, degrees, hole in (
        ("noise2_30hz", 30.0, 2.0, 0.0), ("noise5_30hz", 30.0, 5.0, 0.0), ("noise10_30hz", 30.0, 10.0, 0.0),
        ("noise5_60hz", 60.0, 5.0, 0.0), ("gap500_30hz", 30.0, 0.1, 0.5), ("gap1000_30hz", 30.0, 0.1, 1.0),
        ("future400_12hz", 12.0, 0.1, -0.4), ("future1000_12hz", 12.0, 0.1, -1.0),
    ):  # fmt: skip
        rng = np.random.default_rng(0)
        window = sampler.draw(rng, count, int(2.5 * rate), (rate, rate + 1e-6))
        target = rotvec_to_rotmat(poses[window.frames])
        rotmat = perturb(target, math.radians(degrees), torch.Generator().manual_seed(0))
        times, valid = window.timestamps, window.present.clone()
        middle = times[:, int(1.25 * rate)][:, None]
        if hole > 0:
            valid &= (times - middle).abs() > hole / 2
        if hole < 0:
            valid &= times <= middle
        where = window.present if hole == 0 else window.present & ~valid
        if hole < 0:
            where = where & ((times - middle + hole).abs() < 0.5 / rate)
        noise = torch.full((count,), math.radians(degrees))
        known = module.regression(*(x.to(module.regression.basis.device) for x in (rotmat, times, valid, noise)))
        linear = module.regression.place(known.centre, known.mean).cpu()
        reference = geodesic_distance(linear, target)[where].mean()
        batch = Damaged(target, rotmat, times, valid, window.present, noise)
        out[name] = (batch, math.degrees(float(reference)), where)
    return out


def _build(config: DenoiserTrainingConfig, captured: Captured, device: torch.device) -> DenoiserTask:
    return DenoiserTask(config, captured.training, captured.validation, device)


def _card(task: DenoiserTask, captured: Captured, result: FitResult) -> Card:
    what = "bidirectional denoiser of body motion: noise, drop-outs, gaps, the near future"
    scores = {"validation, error over a Gaussian-process regression's": listed(result)}
    return Card(what, capture_alone(captured), scores)


def _finish(task: DenoiserTask) -> dict[str, str]:
    errors = fit_trust(task.module, task.held_out)
    told = (
        f"{1000 * h:.0f} ms {own:.2f} ({last:.2f})" for h, (own, last) in zip(HORIZONS, errors.tolist(), strict=True)
    )
    return {"validation, forecast (last pose), degrees": ", ".join(told)}


TRAINING = Training("denoiser", DenoiserTrainingConfig, _build, _card, finish=_finish)
