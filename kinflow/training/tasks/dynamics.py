"""Training of the latent dynamics on motions, at frame rates drawn anew for each window."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...config import DynamicsTrainingConfig
from ...dynamics import LatentDynamics, load_dynamics
from ...dynamics.root import root_motion
from ...flow import PoseFlow, load_flow
from ...rotations import rotvec_to_rotmat
from ..coverage import NOMINAL, fit_spread
from ..loop import FitResult
from ..poses import Capture, exchange, mirror_body, mirror_root, perturb
from ..run import Captured, Card, Training, capture_alone, listed
from ..shares import Shares, reshare
from ..streams.windows import WindowSampler

RATES = (12.0, 24.0, 30.0, 60.0)
"""Frame rates (Hz) at which the dynamics are validated and compared."""
NATS = "validation, nats a frame"


@dataclasses.dataclass(frozen=True)
class Windows:
    """A batch of motions: z (B, T, 63), timestamps (B, T) s float64, valid (B, T), root (B, T, 6)."""

    z: Tensor
    timestamps: Tensor
    valid: Tensor
    root: Tensor

    def to(self, device: torch.device) -> Windows:
        """The same on another device."""
        return Windows(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


@torch.no_grad()
def encode_all(flow: PoseFlow, rotmat: Tensor, device: torch.device, chunk: int = 2048) -> Tensor:
    """Latents (N, 63) of poses (N, 21, 3, 3), in chunks."""
    return torch.cat([flow.encode(part.to(device))[0].cpu() for part in rotmat.split(chunk)])


class DynamicsTask:
    """Maximum likelihood of windows of latents under the true time steps."""

    def __init__(
        self,
        config: DynamicsTrainingConfig,
        flow: PoseFlow,
        training: Sequence[Capture],
        validation: Sequence[Capture],
        device: torch.device,
    ) -> None:
        flow = flow.linear() if config.space == "chart" else flow
        self.config, self.device, self.flow = config, device, flow.to(device).eval()
        self.module = LatentDynamics(config.model).to(device)
        if config.init is not None:
            self.module.load_state_dict(load_dynamics(config.init).state_dict())
        self.sampler = WindowSampler(training)
        self.pose = torch.cat([c.body_pose for c in training])
        self.global_rotmat = torch.cat([c.global_rotmat for c in training])
        self.transl = torch.cat([c.transl for c in training])
        noise = torch.Generator().manual_seed(config.train.seed)
        # Latents (2, N, 63) of all captured poses and of their mirror images.
        self.bank = torch.stack([
            torch.cat([encode_all(flow, perturb(turn(rotvec_to_rotmat(p)), config.dequantise, noise), device)
                       for p in self.pose.split(8192)])
            for turn in (lambda r: r, mirror_body)
        ])  # fmt: skip
        if config.init is None:
            start = [self.draw(np.random.default_rng([config.train.seed, i])) for i in range(12)]
            self.module.fit_baseline(*(torch.cat([getattr(w, k) for w in start]) for k in ("z", "timestamps", "valid")))
        self.validation = validation_windows(config, flow, validation, device)

    def draw(self, rng: np.random.Generator) -> Windows:
        """Windows of ``frames`` frames, each at its own rate and speed."""
        config, size, frames = self.config, self.config.train.batch, self.config.frames
        window = self.sampler.draw(rng, size, frames, config.fps, config.rate_jitter, config.time_warp)
        rows, times, present = window.frames, window.timestamps, window.present
        mirrored = torch.from_numpy(rng.random(size) < config.mirror)
        z = self.bank[mirrored.long()[:, None], rows]
        valid = present & self._observed(rng, present)
        root = root_motion(self.global_rotmat[rows], self.transl[rows], times, valid).float()
        root = torch.where(mirrored[:, None, None], mirror_root(root), root)
        # Some windows are of motions that were not captured: another's upper body, another tracker's ways, or shaken joints.
        swap = torch.from_numpy(rng.random(size) < config.exchange)
        shake = torch.from_numpy(rng.random(size) < config.noise_share)
        resharing = torch.from_numpy(rng.random(size) < config.shares) if config.shares > 0 else torch.zeros_like(swap)
        altered = swap | shake | resharing
        if bool(altered.any()):
            rotmat = rotvec_to_rotmat(self.pose[rows[altered]])
            other = self.sampler.draw(rng, int(altered.sum()), frames, config.fps)
            taken = rows[altered] - rows[altered][:, :1] + other.frames[:, :1]
            taken = taken.minimum(other.frames[:, -1:])
            exchanged = exchange(rotmat, rotvec_to_rotmat(self.pose[taken]))
            rotmat = torch.where(swap[altered][:, None, None, None, None], exchanged, rotmat)
            rotmat = torch.where(mirrored[altered][:, None, None, None, None], mirror_body(rotmat), rotmat)
            noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
            if bool(resharing.any()):
                ways = reshare(rotmat, Shares.draw(len(rotmat), noise, times[altered]))
                rotmat = torch.where(resharing[altered][:, None, None, None, None], ways, rotmat)
            std = config.dequantise + config.noise * torch.from_numpy(rng.random(size)).float() * shake
            rotmat = perturb(rotmat, std[altered][:, None, None, None], noise)
            z[altered] = encode_all(self.flow, rotmat.flatten(0, 1), self.device).unflatten(0, (-1, frames))
        return Windows(z, times, valid, root).to(self.device)

    def _observed(self, rng: np.random.Generator, present: Tensor) -> Tensor:
        """Which frames (B, T) a window with drop-outs keeps: single frames are lost, and some windows have a gap, as
        behind an occluder."""
        config, (size, frames) = self.config, present.shape
        dropped = rng.random(size) < config.drop
        keep = rng.random((size, frames)) >= (rng.uniform(0, config.drop_share, size) * dropped)[:, None]
        hole = np.where(dropped & (rng.random(size) < 0.5), rng.integers(1, max(2, frames // 3), size), 0)
        at = rng.integers(0, frames, size)
        place = np.arange(frames)
        return torch.from_numpy(keep & ~((place >= at[:, None]) & (place < (at + hole)[:, None])))

    def loss(self, batch: Windows) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Mean negative log-likelihood, nats a frame, of the valid frames after each motion's first, plus a share of
        that of later frames with those between unseen."""
        config = self.config
        root = batch.root if torch.rand(()) < config.root_share else None
        if config.ahead > 0:
            start, target, use = pairs(batch.valid, config.ahead_count)
            log_prob, ahead = self.module.log_prob_ahead(batch.z, batch.timestamps, batch.valid, root, start, target)
            far = self._capped(ahead[use])
        else:
            log_prob, far = self.module.log_prob(batch.z, batch.timestamps, batch.valid, root), batch.z.new_zeros(())
        later = batch.valid & (batch.valid.cumsum(1) > 1)
        value = log_prob[later]
        return -self._capped(value) - config.ahead * far, {"log_prob": value.mean(), "ahead": far}

    def _capped(self, value: Tensor) -> Tensor:
        """Mean of log-densities, where a broken frame does not own the step: beyond 6 nats a latent below the batch's
        median its pull is a hundredth."""
        if not value.numel():
            return value.sum()
        floor = value.detach().median() - 6 * self.config.model.latent_dim
        return torch.where(value > floor, value, floor + (value - floor) * 0.01).mean()

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Mean negative log-likelihood on the validation split at each of :data:`RATES`, and their mean."""
        scores = {}
        for rate, windows in self.validation.items():
            w = windows.to(self.device)
            log_prob = module.log_prob(w.z, w.timestamps, w.valid)  # type: ignore[operator]
            later = w.valid & (w.valid.cumsum(1) > 1)
            scores[f"nll_{rate:.0f}hz"] = -float(log_prob[later].mean())
        return {"score": float(np.mean(list(scores.values()))), **scores}


def pairs(valid: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random pairs of valid frames of each row (B, T): start and target (B, count), start first, and which are real."""
    places = torch.sort(torch.multinomial(valid.float() + 1e-9, 2 * count, replacement=True), 1).values
    order = torch.randperm(2 * count, device=valid.device)
    one, two = places[:, order[:count]], places[:, order[count:]]
    start, target = torch.minimum(one, two), torch.maximum(one, two)
    use = (start < target) & valid.gather(1, start) & valid.gather(1, target)
    return start, torch.where(use, target, (start + 1).clamp(max=valid.shape[1] - 1)), use


def validation_windows(
    config: DynamicsTrainingConfig, flow: PoseFlow, captures: Sequence[Capture], device: torch.device, count: int = 48
) -> dict[float, Windows]:
    """Fixed windows of a split at each of :data:`RATES`, spread over its clips by duration."""
    rng = np.random.default_rng(0)
    noise = torch.Generator().manual_seed(0)
    latents = [
        encode_all(flow, perturb(rotvec_to_rotmat(c.body_pose), config.dequantise, noise), device) for c in captures
    ]
    weights = np.array([len(c.body_pose) / c.fps for c in captures])
    out = {}
    for rate in RATES:
        rows = []
        for _ in range(count):
            i = int(rng.choice(len(captures), p=weights / weights.sum()))
            capture = captures[i]
            span = int(config.frames * capture.fps / rate) + 1
            start = int(rng.integers(max(1, len(capture.body_pose) - span)))
            step = capture.fps / rate
            frames = torch.unique(torch.round(start + step * torch.arange(config.frames)).long())
            frames = frames[frames < len(capture.body_pose)]
            rows.append((latents[i][frames], (frames - frames[0]).double() / capture.fps))
        windows = Windows(
            torch.zeros(count, config.frames, latents[0].shape[-1]),
            torch.zeros(count, config.frames, dtype=torch.float64),
            torch.zeros(count, config.frames, dtype=torch.bool),
            torch.zeros(count, config.frames, 6),
        )
        for i, (z, times) in enumerate(rows):
            n = len(times)
            windows.z[i, :n], windows.timestamps[i, :n], windows.valid[i, :n] = z, times, True
            windows.timestamps[i, n:] = times[-1] + torch.arange(1, config.frames - n + 1, dtype=torch.float64) / rate
        out[rate] = windows
    return out


def _build(config: DynamicsTrainingConfig, captured: Captured, device: torch.device) -> DynamicsTask:
    return DynamicsTask(config, load_flow(config.flow), captured.training, captured.validation, device)


def _card(task: DynamicsTask, captured: Captured, result: FitResult) -> Card:
    what = f"recurrent neural-ODE dynamics in the {task.config.space} of flow.safetensors"
    return Card(what, capture_alone(captured), {NATS: listed(result, sign=-1).replace("nll_", "")})


def _finish(task: DynamicsTask) -> dict[str, str]:
    shares = fit_spread(task.module, {rate: w.to(task.device) for rate, w in task.validation.items()})
    told = ", ".join(f"{rate:.0f}hz " + " / ".join(f"{100 * s:.1f}" for s in each) for rate, each in shares.items())
    with torch.no_grad():
        scores = task.validate(task.module)
    return {
        NATS: ", ".join(f"{k.removeprefix('nll_')} {-v:.2f}" for k, v in scores.items() if k != "score"),
        "validation, % inside the central " + " / ".join(f"{100 * n:.0f}" for n in NOMINAL): told,
    }


TRAINING = Training("dynamics", DynamicsTrainingConfig, _build, _card, finish=_finish)
