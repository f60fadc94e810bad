"""Training of the lifter on rendered, perceived clips and on projected motion capture with their errors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ... import losses, metrics
from ...body import Body
from ...config import LifterTrainingConfig
from ...errors import ConfigError
from ...flow import load_flow
from ...reconstruction.lifting import ByParts, Lifted, Lifter, Whole, load_lifter
from ..loop import FitResult
from ..run import Captured, Card, Training
from ..streams.borrowed import BorrowedErrors
from ..streams.perceived import PerceivedClip, PerceivedMotions, asked_perceived, draw_both, held_out_names
from ..streams.projected import ProjectedMotions, Sample

POINTS = (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Shoulders, elbows, wrists, hips, knees, ankles among BlazePose's landmarks."""
_WEIGHT = 0.3
"""Of the other landmarks, face, hands and feet, against those."""
_SCALE = 0.03  # m, from which on an error pulls in proportion
_BATCH = 64


class LifterTask:
    """Distance of lifted landmarks from the true ones, and the likelihood of the deviations."""

    def __init__(
        self,
        config: LifterTrainingConfig,
        projected: ProjectedMotions,
        perceived: PerceivedMotions,
        validation: PerceivedMotions,
        device: torch.device,
    ) -> None:
        if config.blend < 1 and config.init is None:
            raise ConfigError("blend: expected 1 without init, for there is nothing to blend with. Set init=FILE too.")
        self.config, self.device = config, device
        self.projected, self.perceived, self.validation = projected, perceived, validation
        self.module = Lifter(config.model).to(device)
        if config.init is not None:
            begun = load_lifter(config.init)
            for kind in (ByParts, Whole):
                pairs = ([m for m in lifter.members if isinstance(m, kind)] for lifter in (self.module, begun))
                for mine, theirs in zip(*pairs, strict=False):
                    mine.load_state_dict(theirs.state_dict())
        self.begun = copy.deepcopy(self.module)
        self.weight = torch.full((33,), _WEIGHT, device=device)
        self.weight[list(POINTS)] = 1.0

    def draw(self, rng: np.random.Generator) -> Sample:
        """A batch of windows from both streams."""
        config = self.config
        sample = draw_both(rng, config.train.batch, config.perceived_share, self.perceived, self.projected)
        return sample.to(self.device)

    def loss(self, sample: Sample) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Over the frames that were seen, each network's by itself."""
        seen = sample.obs.observed & sample.obs.valid
        lifted = self.module.each(sample.obs)
        distance = losses.joints3d(
            lifted.mean, sample.landmarks_ray, self.weight.expand(lifted.mean.shape[:-1]), _SCALE
        )
        off = (lifted.mean.detach() - sample.landmarks_ray).flatten(-2)
        nll = losses.gaussian_nll(off, torch.zeros_like(off), 2 * lifted.log_std_by_axis().flatten(-2)) / off.shape[-1]
        terms = {"distance": losses.masked_mean(distance, seen), "nll": losses.masked_mean(nll.clamp_max(10), seen)}
        weights = {"distance": 1.0, "nll": self.config.likelihood}
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return total, terms

    @torch.no_grad()
    def blended(self, module: nn.Module) -> nn.Module:
        """The mean of the weights that training began with and of a module's, ``config.blend`` of it the latter.

        Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022).
        """
        if self.config.blend == 1:
            return module
        out = copy.deepcopy(self.begun).eval()
        for mine, learned in zip(out.parameters(), module.parameters(), strict=True):
            mine.lerp_(learned, self.config.blend)
        return out

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Errors in mm over all whole clips held out, lifted and as the front end gave them; share of deviations within 1 std."""
        module = self.blended(module)
        rows: dict[str, list[Tensor]] = {}
        for first in range(0, len(self.validation.clips), _BATCH):
            clips = self.validation.clips[first : first + _BATCH]
            sample = self.validation.whole(clips).to(self.device)
            seen = sample.obs.observed & sample.obs.valid & sample.obs.has_world
            truth = sample.landmarks_ray
            lifted = module(sample.obs)
            found = {"": lifted.mean, "raw_": sample.obs.world}
            for name, points in found.items():
                points, true = points[..., POINTS, :], truth[..., POINTS, :]
                rows.setdefault(f"{name}pa_mpjpe", []).append(1000 * metrics.pa_mpjpe(points, true)[seen])
                rows.setdefault(f"{name}mpjpe", []).append(1000 * metrics.mpjpe(points, true, (6, 7))[seen])
            rows.setdefault("coverage", []).append(_inside(lifted, truth)[seen])
        scores = {name: float(torch.cat(values).mean()) for name, values in rows.items()}
        return {"score": scores["pa_mpjpe"] + 0.5 * scores["mpjpe"], **scores}


def _inside(lifted: Lifted, truth: Tensor) -> Tensor:
    """Share (B, T) of coordinates of the marked points within one standard deviation: 0.683 if they are honest."""
    off = (lifted.mean - truth)[..., POINTS, :]
    return (off.abs() < lifted.log_std_by_axis()[..., POINTS, :].exp()).float().mean((-1, -2))


def _build(config: LifterTrainingConfig, captured: Captured, device: torch.device) -> LifterTask:
    return task_on(asked_perceived(config.perceived), config, captured, device)


def task_on(
    clips: Sequence[PerceivedClip], config: LifterTrainingConfig, captured: Captured, device: torch.device
) -> LifterTask:
    """The task of learning from these clips, and of being judged by those of them whose motion is held out."""
    body = Body.open("light")
    hold = held_out_names(clips, captured.path)
    kept, others = [c for c in clips if c.source not in hold], [c for c in clips if c.source in hold]
    whole = max(map(len, clips))
    lender = BorrowedErrors(kept, body, coherent=False) if config.projection.borrowed > 0 else None
    projected = ProjectedMotions(captured.training, body, config.projection, load_flow(config.flow), lender)
    perceived = PerceivedMotions(kept, body, config.projection.frames)
    unseen = PerceivedMotions(others, body, whole, augment=False)
    return LifterTask(config, projected, perceived, unseen, device)


def _card(task: LifterTask, captured: Captured, result: FitResult) -> Card:
    clips = task.perceived.clips
    return Card(
        "landmarks in 3D from what the front end saw",
        f"{captured.minutes:.0f} min of motion capture, {len(clips)} rendered, perceived clips, {sum(map(len, clips))} frames",
        {"validation, mm": ", ".join(f"{k} {v:.3g}" for k, v in result.scores.items())},
    )


TRAINING = Training("lifter", LifterTrainingConfig, _build, _card, weights=lambda task: task.blended(task.module))
