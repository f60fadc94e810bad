"""Training of the latent dynamics on motions, at frame rates drawn anew for each window."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..assets.weights import save_weights
from ..config import DynamicsTrainingConfig, config_hash, load_config
from ..devices import find_device
from ..dynamics import LatentDynamics
from ..flow import PoseFlow, load_flow
from ..rotations import rotvec_to_rotmat
from .loop import fit, seed_everything
from .poses import Capture, exchange, mirror_body, mirror_root, perturb, read_captures, root_of

RATES = (12.0, 24.0, 30.0, 60.0)
"""Frame rates (Hz) at which the dynamics are validated and compared."""


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


def frames_at_rate(length: int, source_fps: float, fps: float, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Increasing source frames that sample a clip of ``length`` frames at ``fps``, from a random phase.

    Time stamps are the frames' own, so nothing is interpolated: at rates that do not divide the source's, and with
    jitter (a share of the interval), the steps differ.
    """
    step = source_fps / fps
    count = max(2, int((length - 1) / step))
    at = rng.uniform(0, step) + step * (np.arange(count) + jitter * rng.standard_normal(count))
    frames = np.unique(np.round(at).astype(np.int64))
    return frames[(frames >= 0) & (frames < length)]


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
        self.config, self.device, self.flow = config, device, flow.to(device).eval()
        self.module = LatentDynamics(config.model).to(device)
        self.captures = list(training)
        seconds = np.array([len(c.body_pose) / c.fps for c in training])
        self.weights = seconds / seconds.sum()
        noise = torch.Generator().manual_seed(config.train.seed)
        self.bank: list[tuple[Tensor, Tensor]] = []  # latents of each clip, and of its mirror image
        for capture in training:
            rotmat = rotvec_to_rotmat(capture.body_pose)
            both = [perturb(r, config.dequantise, noise) for r in (rotmat, mirror_body(rotmat))]
            self.bank.append((encode_all(flow, both[0], device), encode_all(flow, both[1], device)))
        start = [self.draw(np.random.default_rng([config.train.seed, i])) for i in range(12)]
        self.module.fit_baseline(*(torch.cat([getattr(w, k) for w in start]) for k in ("z", "timestamps", "valid")))
        self.validation = validation_windows(config, flow, validation, device)

    def draw(self, rng: np.random.Generator) -> Windows:
        """Windows of ``frames`` frames, each at its own rate and speed."""
        config, frames = self.config, self.config.frames
        rows = [self._row(rng) for _ in range(config.train.batch)]
        altered = [i for i, row in enumerate(rows) if row[4] is not None]
        if altered:
            z = encode_all(self.flow, torch.cat([rows[i][4] for i in altered]), self.device)  # type: ignore[misc]
            for i, part in zip(altered, z.split([len(rows[i][0]) for i in altered]), strict=True):
                rows[i] = (part, *rows[i][1:])
        batch = Windows(
            torch.zeros(len(rows), frames, self.config.model.latent_dim),
            torch.zeros(len(rows), frames, dtype=torch.float64),
            torch.zeros(len(rows), frames, dtype=torch.bool),
            torch.zeros(len(rows), frames, 6),
        )
        for i, (z, times, valid, root, _) in enumerate(rows):
            n = len(times)
            batch.z[i, :n], batch.timestamps[i, :n] = z, times
            batch.timestamps[i, n:] = times[-1] + torch.arange(1, frames - n + 1, dtype=torch.float64) / 60
            batch.valid[i, :n], batch.root[i, :n] = valid, root
        return batch.to(self.device)

    def _row(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """One window: z, time stamps, valid, root, and rotations still to be encoded if the pose was altered."""
        config = self.config
        i = int(rng.choice(len(self.captures), p=self.weights))
        capture = self.captures[i]
        fps = math.exp(rng.uniform(*np.log(config.fps)))
        span = int((config.frames + 2) * capture.fps / fps) + 2
        start = int(rng.integers(max(1, len(capture.body_pose) - span)))
        length = min(span, len(capture.body_pose) - start)
        frames = torch.from_numpy(start + frames_at_rate(length, capture.fps, fps, config.rate_jitter, rng))[
            : config.frames
        ]
        speed = math.exp(rng.uniform(-config.time_warp, config.time_warp))
        times = (frames - frames[0]).double() / (capture.fps * speed)
        mirrored = rng.random() < config.mirror
        root = root_of(capture, frames, times)
        valid = torch.ones(len(frames), dtype=torch.bool)
        if rng.random() < config.drop:
            valid &= torch.from_numpy(rng.random(len(frames)) >= rng.uniform(0, config.drop_share))
            if rng.random() < 0.5:  # one gap, as behind an occluder
                hole = int(rng.integers(1, max(2, len(frames) // 3)))
                at = int(rng.integers(max(1, len(frames) - hole)))
                valid[at : at + hole] = False
        altered = None
        if rng.random() < config.noise_share:
            altered = rotvec_to_rotmat(capture.body_pose[frames])
            if rng.random() < config.exchange:
                j = int(rng.choice(len(self.captures), p=self.weights))
                other = self.captures[j]
                begin = int(rng.integers(max(1, len(other.body_pose) - length)))
                taken = (begin + frames - start).clamp(max=len(other.body_pose) - 1)
                altered = exchange(altered, rotvec_to_rotmat(other.body_pose[taken]))
            altered = mirror_body(altered) if mirrored else altered
            noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
            altered = perturb(altered, config.noise * float(rng.random()), noise)
        return (
            self.bank[i][int(mirrored)][frames],
            times,
            valid,
            mirror_root(root) if mirrored else root,
            altered,
        )

    def loss(self, batch: Windows) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Mean negative log-likelihood of the valid frames after each motion's first, nats a frame."""
        root = batch.root if torch.rand(()) < self.config.root_share else None
        log_prob = self.module.log_prob(batch.z, batch.timestamps, batch.valid, root)
        later = batch.valid & (batch.valid.cumsum(1) > 1)
        value = log_prob[later]
        # A broken frame must not own the step: beyond 6 nats a latent below the batch's median its pull is capped.
        floor = value.detach().median() - 6 * self.config.model.latent_dim
        return -torch.where(value > floor, value, floor + (value - floor) * 0.01).mean(), {"log_prob": value.mean()}

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


def train(
    config_path: Path | None,
    overrides: Sequence[str],
    data: Path,
    out: Path,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Train the dynamics in the latents of a trained flow and write ``out/dynamics.safetensors``. Returns its path.

    Raises:
        ConfigError, MissingAssetError, UsageError: settings, flow or data that do not fit.
    """
    config = load_config(DynamicsTrainingConfig, config_path, overrides)
    seed_everything(config.train.seed)
    where = find_device(device)
    training, validation = read_captures(data, "train"), read_captures(data, "validation")
    task = DynamicsTask(config, load_flow(config.flow), training, validation, where)
    result = fit(task, config.train, out, resume=resume, device=where, run_config=config, progress=progress)
    minutes = sum(len(c.body_pose) / c.fps for c in training) / 60
    card = {
        "what": "recurrent neural-ODE dynamics in the latents of flow.safetensors",
        "data": f"{data.name}: {len(training)} runs of motion capture, {minutes:.0f} min (see NOTICE)",
        "validation, nats a frame": ", ".join(f"{k[4:]} {-v:.2f}" for k, v in result.scores.items() if k != "score"),
        "training": f"{result.minutes:.1f} min, {result.steps} steps, best at {result.step}, {where}",
        "training config hash": config_hash(config),
        "licence": "Apache-2.0",
    }
    return save_weights(out / "dynamics.safetensors", task.module, config.model, card)
