"""Training of the kinematic flow on single poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...config import FlowTrainingConfig
from ...flow import PoseFlow, Rot6dFlow, build_flow, load_flow
from ...rotations import rotvec_to_rotmat
from ..loop import FitResult
from ..poses import Capture, exchange, mirror_body, perturb
from ..run import Captured, Card, Training, capture_alone
from ..shares import Shares, reshare


class FlowTask:
    """Maximum likelihood of augmented poses; validated on the poses as captured."""

    def __init__(
        self,
        config: FlowTrainingConfig,
        training: Sequence[Capture],
        validation: Sequence[Capture],
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.poses = torch.cat([c.body_pose for c in training])
        self.validation = torch.cat([c.body_pose[:: max(1, round(c.fps / 5))] for c in validation])
        self.module: PoseFlow | Rot6dFlow = build_flow(config.model).to(device)
        rng = np.random.default_rng(config.train.seed)
        if config.init is not None:
            self.module.load_state_dict(load_flow(config.init).state_dict())
            return
        self.module.fit_chart(self._augmented(rng, min(len(self.poses), 60000), jitter=False).to(device))

    def _augmented(self, rng: np.random.Generator, count: int, jitter: bool = True) -> Tensor:
        config = self.config
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))

        def some(share: float) -> Tensor:
            return torch.rand(count, generator=noise) < share

        def pick() -> Tensor:
            rotmat = rotvec_to_rotmat(self.poses[torch.from_numpy(rng.integers(len(self.poses), size=count))])
            return torch.where(some(config.mirror)[:, None, None, None], mirror_body(rotmat), rotmat)

        rotmat = pick()
        if config.exchange > 0:
            rotmat = torch.where(some(config.exchange)[:, None, None, None], exchange(rotmat, pick()), rotmat)
        if config.shares > 0:
            other = reshare(rotmat, Shares.draw(count, noise))
            rotmat = torch.where(some(config.shares)[:, None, None, None], other, rotmat)
        more = config.jitter * torch.rand(count, generator=noise) * some(config.jitter_share if jitter else 0.0)
        return perturb(rotmat, (config.noise**2 + more**2).sqrt()[:, None, None], noise)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Poses (batch, 21, 3, 3)."""
        return self._augmented(rng, self.config.train.batch).to(self.device)

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Mean negative log-likelihood, nats a pose."""
        log_prob = self.module(batch)
        return -log_prob.mean(), {"log_prob_std": log_prob.std()}

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Mean negative log-likelihood of the validation split's poses at 5 Hz, nats a pose."""
        values = []
        generator = torch.Generator(self.device).manual_seed(0)
        for chunk in self.validation.split(512):
            rotmat = rotvec_to_rotmat(chunk.to(self.device))
            if isinstance(module, Rot6dFlow):
                values.append(module.log_prob(rotmat, self.config.bounds_samples, generator))
            else:
                values.append(module(rotmat))
        log_prob = torch.cat(values)
        return {
            "score": -float(log_prob.mean()),
            "median_log_prob": float(log_prob.median()),
            "worst": float(log_prob.min()),
        }


def _build(config: FlowTrainingConfig, captured: Captured, device: torch.device) -> FlowTask:
    return FlowTask(config, captured.training, captured.validation, device)


def _card(task: FlowTask, captured: Captured, result: FitResult) -> Card:
    scores = {"validation, nats a pose": f"{-result.score:.2f}"}
    return Card("kinematic normalizing flow over SMPL's 21 body joints", capture_alone(captured), scores)


TRAINING = Training("flow", FlowTrainingConfig, _build, _card)
