"""Training of what tells left and right, on rendered and projected people of whom more is exchanged than the front end confuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...body import Body
from ...body.kinematics import full_pose
from ...cameras import project
from ...config import SidesTrainingConfig
from ...perception.sides import LIMBS, SURE, SidesNetwork, Sighted, exchange
from ..loop import FitResult
from ..run import Captured, Card, Training
from ..streams.borrowed import BorrowedErrors
from ..streams.perceived import PerceivedMotions, asked_perceived, draw_both, held_out_names
from ..streams.projected import ProjectedMotions, Sample

_CLEARLY = 0.6  # an error is clearly the smaller of two if it is less than this share of the other
_AWAY = 0.05  # sizes of the person: with limbs as near as that to where they are, nothing is confused
_OTHER = [i ^ 1 for i in range(len(LIMBS[0]))]
_BATCH = 64
_WHOLE = 0.05  # of the runs exchanged in training are a whole window


class Window(NamedTuple):
    """B windows: what was seen, and what is true of it."""

    seen: Sighted
    kept: Tensor  #: (B, T, 2) mean error of the limbs of either half as they are, in sizes of the person
    swapped: Tensor  #: (B, T, 2) the same if left and right of it were exchanged
    valid: Tensor  #: (B, T) bool, frames in which the person was seen

    @property
    def exchanged(self) -> Tensor:
        """(B, T, 2) 1 where left and right are exchanged, 0 where they are not, NaN where it makes little difference."""
        wrong = (self.swapped < _CLEARLY * self.kept) & (self.kept > _AWAY)
        right = (self.kept < _CLEARLY * self.swapped) & (self.swapped > _AWAY)
        known = torch.where(wrong, 1.0, torch.where(right, 0.0, torch.nan))
        return torch.where(self.valid[..., None], known, torch.nan)

    def with_exchanged(self, halves: Tensor) -> Window:
        """The same with halves (B, T, 2) bool exchanged."""
        kept, swapped = torch.where(halves, self.swapped, self.kept), torch.where(halves, self.kept, self.swapped)
        return Window(exchange(self.seen, halves), kept, swapped, self.valid)

    def to(self, device: torch.device) -> Window:
        """The same on another device."""
        return Window(Sighted(*(x.to(device) for x in self.seen)), *(x.to(device) for x in self[1:]))


class SidesTask:
    """Cross-entropy of what is exchanged, in windows in which runs of frames are exchanged on purpose."""

    def __init__(
        self,
        config: SidesTrainingConfig,
        body: Body,
        projected: ProjectedMotions,
        perceived: PerceivedMotions,
        validation: PerceivedMotions,
        device: torch.device,
    ) -> None:
        self.config, self.device, self.body = config, device, body
        self.projected, self.perceived = projected, perceived
        self.module = SidesNetwork(config.model).to(device)
        clips = validation.clips
        samples = [validation.whole(clips[i : i + _BATCH]) for i in range(0, len(clips), _BATCH)]
        self.held_out = [window_of(sample, body).to(device) for sample in samples]

    def draw(self, rng: np.random.Generator) -> Window:
        """A batch of windows from both streams."""
        config = self.config
        sample = draw_both(rng, config.train.batch, config.perceived_share, self.perceived, self.projected)
        window = window_of(sample, self.body)
        halves = torch.from_numpy(runs(rng, len(window.valid), window.valid.shape[1], self.config.exchanged))
        window = window.with_exchanged(halves)
        return window._replace(seen=self._confused(window.seen, halves, rng)).to(self.device)

    def _confused(self, seen: Sighted, halves: Tensor, rng: np.random.Generator) -> Sighted:
        """Noise on people in the frames in which they are exchanged."""
        g = torch.Generator().manual_seed(int(rng.integers(2**62)))
        size = (seen.keypoints2d.amax(-2) - seen.keypoints2d.amin(-2)).norm(dim=-1)
        much = 2 * self.config.noise * halves.any(-1)[..., None, None] * torch.rand(len(size), 1, 1, 1, generator=g)
        flat = torch.randn(seen.keypoints2d.shape, generator=g) * much * size[..., None, None]
        deep = torch.randn(seen.world.shape, generator=g) * 2 * much * seen.has_world[..., None, None]
        return seen._replace(keypoints2d=seen.keypoints2d + flat, world=seen.world + deep)

    def loss(self, batch: Window) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Over the frames and halves of which it is known."""
        odds, exchanged = self.module(batch.seen), batch.exchanged
        each = F.binary_cross_entropy_with_logits(odds, exchanged.nan_to_num(), reduction="none")
        told = ~exchanged.isnan()
        total = (each * told).sum() / told.sum().clamp_min(1)
        return total, {"cross_entropy": total.detach()}

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Of the clips held out, as the front end saw them: mean errors of limbs before and after, in thousandths of the person's size.

        "exchanged" is the share of halves that are, "found" the share of these that is put right, "spoilt" the share of the others
        that is exchanged. The score is the error afterwards.
        """
        rows: list[list[Tensor]] = [[], [], [], []]
        for window in self.held_out:
            put = module(window.seen) > SURE
            valid, exchanged = window.valid, window.exchanged
            values = (window.kept, torch.where(put, window.swapped, window.kept), exchanged, put)
            for row, value in zip(rows, values, strict=True):
                row.append(value[valid].cpu())
        before, after, exchanged, put = map(torch.cat, rows)
        wrong, right = exchanged == 1, exchanged == 0
        return {
            "score": 1000 * float(after.mean()),
            "before": 1000 * float(before.mean()),
            "after": 1000 * float(after.mean()),
            "exchanged": float(wrong.float().mean()),
            "found": float((wrong & put).sum() / wrong.sum().clamp_min(1)),
            "spoilt": float((right & put).sum() / right.sum().clamp_min(1)),
        }


@torch.no_grad()
def window_of(sample: Sample, body: Body) -> Window:
    """What the network is told of a sample's people, and what is true of it; frames without a sighting repeat the last."""
    obs = sample.obs
    valid = obs.observed & obs.valid
    frames = torch.arange(valid.shape[1]).expand_as(valid)
    last = torch.where(valid, frames, -1).cummax(1).values
    at = torch.where(last < 0, valid.float().argmax(1, keepdim=True), last)
    rows = torch.arange(len(at))[:, None]
    points, confidence, world, times = (
        x.float()[rows, at] for x in (obs.keypoints2d, obs.confidence, obs.world, obs.timestamps)
    )
    seen = Sighted(points, confidence, world, (obs.has_world & valid)[rows, at], times)
    betas = sample.betas[:, None].expand(-1, valid.shape[1], -1)
    landmarks = body.landmarks(betas, full_pose(sample.pose_rotmat, sample.root_to_camera), sample.transl)
    true = project(landmarks, sample.K[:, None])[rows, at]
    limbs = true[..., LIMBS[0] + LIMBS[1], :]
    size = (limbs.amax(-2) - limbs.amin(-2)).norm(dim=-1).clamp_min(1.0)[..., None]
    kept, swapped = (_errors(seen.keypoints2d, true, order) / size for order in (list(range(len(_OTHER))), _OTHER))
    return Window(seen, kept, swapped, valid)


def _errors(seen: Tensor, true: Tensor, order: list[int]) -> Tensor:
    """Mean distance (B, T, 2), px, of the limbs of either half, seen (B, T, 33, 2) and taken in this order, from the true ones."""
    halves = [
        (seen[..., half, :][..., order, :] - true[..., half, :]).norm(dim=-1).mean(-1) for half in map(list, LIMBS)
    ]
    return torch.stack(halves, -1)


def runs(rng: np.random.Generator, batch: int, frames: int, share: float) -> np.ndarray:
    """Halves (B, T, 2) bool that are exchanged: runs of frames of one of them or, every second time, of both."""
    out = np.zeros((batch, frames, 2), bool)
    at = np.arange(frames)
    for row in out:
        more = share
        while rng.random() < more:
            length = frames if rng.random() < _WHOLE else 1 + int(0.7 * frames * rng.random() ** 2)
            begin = int(rng.integers(1 - length, frames)) if length < frames else 0
            kind = int(rng.integers(4))
            row[(at >= begin) & (at < begin + length)] ^= np.array([kind != 2, kind != 3])
            more *= 0.5
    return out


def _build(config: SidesTrainingConfig, captured: Captured, device: torch.device) -> SidesTask:
    body, clips = Body.open("light"), asked_perceived(config.perceived)
    hold = held_out_names(clips, captured.path)
    kept, others = [c for c in clips if c.source not in hold], [c for c in clips if c.source in hold]
    lender = BorrowedErrors(kept, body) if config.projection.borrowed > 0 else None
    projected = ProjectedMotions(captured.training, body, config.projection, None, lender)
    perceived = PerceivedMotions(kept, body, config.projection.frames)
    validation = PerceivedMotions(others, body, max(map(len, others), default=1), augment=False)
    return SidesTask(config, body, projected, perceived, validation, device)


def _card(task: SidesTask, captured: Captured, result: FitResult) -> Card:
    clips = task.perceived.clips
    return Card(
        "left and right told over time, from landmarks",
        f"{captured.minutes:.0f} min of motion capture, {len(clips)} rendered, perceived clips, {sum(map(len, clips))} frames",
        {"validation": ", ".join(f"{k} {v:.3g}" for k, v in result.scores.items() if k != "score")},
    )


TRAINING = Training("sides", SidesTrainingConfig, _build, _card)
