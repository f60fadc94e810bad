"""Adapting the trained reconstructor to somebody's own footage, without any 3D: ``kinflow-train adapt``.

The network is trained on the clips by what perception saw in them (:mod:`kinflow.training.tasks.alignment`). Beside these
windows it rehearses: on the noise stream of projected motions, drawn from the packaged motion prior so that no capture is
needed, it is held to what it said before. The last part of every person's frames is kept back, and decides.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import losses
from ..assets import asset_path
from ..assets.weights import load_weights, save_weights
from ..config import AdaptationConfig, config_hash
from ..devices import find_device
from ..errors import NotBetterError, UsageError
from ..evidence import Evidence
from ..prior import MotionPrior
from ..reconstruction import Reconstructor
from ..reconstruction.network import Prediction, Traces
from ..rotations import geodesic_distance, rotvec_to_rotmat
from ..skeleton import NUM_BODY
from ..timing import gather_time
from .loop import fit, seed_everything
from .poses import Capture
from .processes import launch
from .streams.filmed import FilmedMotions
from .streams.footage import LEAST_FRAMES, Footage, read_footage
from .streams.noise import ar1
from .streams.projected import ProjectedMotions, Sample
from .tasks.alignment import alignment_terms, motion_terms, sound
from .tasks.reconstructor import OwnWeights, lifted

log = logging.getLogger(__name__)

ALIGNMENT = ("keypoints", "parts", "landmarks")
"""Terms that say how well a motion agrees with what was seen; the others say how likely it is."""
_BATCH = 32
_BROKEN = 1e9  # score of a network that gives no numbers
_SECONDS, _FPS = 4.0, 30
_GAP_S = 0.5  # between what is trained on and what is held out: frames side by side are all but the same


@dataclasses.dataclass(frozen=True)
class Adapted:
    """How an adaptation went.

    Attributes:
        path: of the weights written.
        before, after: on the frames held out, of the network's own output: "keypoints", "parts" and "landmarks" as the losses
            have them, "alignment", their sum by weight, and "plausibility", nats a frame under the motion prior.
        frames, held_out: in which people were seen, trained on and held out; steps: of the best weights; minutes: it took.
    """

    path: Path
    before: Mapping[str, float]
    after: Mapping[str, float]
    frames: int
    held_out: int
    steps: int
    minutes: float


def adapt(
    clips: Sequence[str | Path],
    out: str | Path,
    config: AdaptationConfig | None = None,
    *,
    weights: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Adapted:
    """Adapt a reconstructor to clips and write its weights, if what was held out of them is seen better for it.

    Args:
        clips: videos, or folders of them.
        out: file for the weights, for ``kinflow.run(weights=...)``; a card is written beside it.
        weights: to begin with; None: the packaged ones.
        cache: folder for what was seen in the clips; None: a hidden one beside each.

    Raises:
        NotBetterError: the part held out got worse; nothing was written.
        UsageError: clips too short to hold a part out, or an ``out`` that is no ``.safetensors``.
        MissingAssetError, VideoError, NobodyFoundError, OutputError: see :func:`~.streams.footage.read_footage`.
    """
    config = AdaptationConfig() if config is None else config
    out = Path(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"out: expected a name that ends in .safetensors, got {out.name!r}.")
    where = find_device(device)
    seed_everything(config.train.seed)
    base = Reconstructor.load(weights, device=where)
    footage = read_footage(clips, cache, where, progress=lambda clip: log.info("%s: looking at it", clip))
    kept, held = split_footage(footage, config.held_out)
    task = AdaptationTask(base, kept, held, config, where)
    log.info("%d frames of people to learn from, %d held out", _seen(kept), _seen(held))
    with tempfile.TemporaryDirectory(prefix="kinflow-adapt-") as folder:
        fabric = launch(config.train, where)
        result = fit(task, config.train, folder, fabric=fabric, run_config=config, progress=progress)
    after = {name: value for name, value in result.scores.items() if name != "score"}
    if not result.score < 1:
        raise NotBetterError(
            f"{out}: not written, for what was held out of the clips did not get better ({compared(task.before, after)}). "
            "Use more footage, or lower train.lr."
        )
    started = asset_path("reconstructor.safetensors") if weights is None else Path(weights)
    _, _, header = load_weights(started)
    card = {
        **header["card"],
        "adapted from": f"{started.name} of {header['card'].get('training config hash', 'unknown configuration')}",
        "adapted to": f"{len(footage)} clips, {_seen(kept)} frames of people; {_seen(held)} held out",
        "adaptation": f"{result.minutes:.1f} min, best at step {result.step}; held out: {compared(task.before, after)}",
        "adaptation config hash": config_hash(config),
    }
    save_weights(out, OwnWeights(task.module), base.config, card)
    return Adapted(out, task.before, after, _seen(kept), _seen(held), result.step, result.minutes)


def compared(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """One line of all scores, before and after."""
    return ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before)


def split_footage(footage: Sequence[Footage], share: float) -> tuple[list[Footage], list[Footage]]:
    """The first frames of each person to learn from, and about ``share`` of them, the last ones, to judge by.

    Between the two half a second is left out. Who is seen too shortly for both is learnt from alone.

    Raises:
        UsageError: nobody is seen for long enough to be held out.
    """
    kept, held = [], []
    longest = 0
    for clip in footage:
        first, last = [], []
        for person in clip.people:
            seen = np.flatnonzero(person.observed)
            longest = max(longest, len(seen))
            begin = int(seen[len(seen) - max(LEAST_FRAMES, round(share * len(seen)))])
            end = int(np.searchsorted(person.timestamps, person.timestamps[begin] - _GAP_S))
            if int(person.observed[:end].sum()) < LEAST_FRAMES:
                first.append(person)
                continue
            first.append(_rows(person, 0, end))
            last.append(_rows(person, begin, len(person)))
        kept.append(dataclasses.replace(clip, people=tuple(first)))
        held += [dataclasses.replace(clip, people=tuple(last))] if last else []
    if not held:
        raise UsageError(
            f"clips: expected somebody who is seen for half a second and {2 * LEAST_FRAMES} frames, so that a part can be held "
            f"out; got {longest} frames at most. Use longer clips."
        )
    return kept, held


def _rows(person: Evidence, begin: int, end: int) -> Evidence:
    seen = begin + np.flatnonzero(person.observed[begin:end])
    rows = slice(int(seen[0]), int(seen[-1]) + 1)
    per_frame = [f.name for f in dataclasses.fields(person) if f.metadata["shape"].split()[:1] == ["T"]]
    values = {name: getattr(person, name) for name in per_frame}
    return dataclasses.replace(person, **{n: v[rows] for n, v in values.items() if v is not None})


def _seen(footage: Sequence[Footage]) -> int:
    return sum(clip.seen for clip in footage)


class AdaptationTask:
    """Alignment with real clips, and on rehearsed windows the Gaussians, root, shape and contacts of the network as it was.

    Args:
        base: what is adapted; it stays as it is.
        kept, held: what is learnt from, and what is judged by.

    Attributes:
        before: scores of ``base`` on what is held out.
    """

    def __init__(
        self,
        base: Reconstructor,
        kept: Sequence[Footage],
        held: Sequence[Footage],
        config: AdaptationConfig,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.flow, self.chart, self.lifter, self.body = base.flow, base.chart, base.lifter, base.body.to(device)
        self.teacher, self.module = base.network, copy.deepcopy(base.network)
        self.prior = MotionPrior.load().to(device)
        frames, body = config.projection.frames, copy.deepcopy(base.body).to("cpu")  # windows are drawn there
        self.clips = FilmedMotions(kept, body, frames)
        generator = torch.Generator(device).manual_seed(config.train.seed)
        motions = sampled_motions(self.prior, config.motions, generator)
        self.rehearsal = ProjectedMotions(motions, body, config.projection, copy.deepcopy(self.flow).to("cpu"))
        self.rehearsed = round(config.rehearsal * config.train.batch)
        whole = FilmedMotions(held, body, frames, augment=False).whole()
        self.held = lifted(whole.to(device), self.lifter)
        self.before: dict[str, float] = {}
        with torch.no_grad():
            self.before = {k: v for k, v in self.validate(self.teacher).items() if k != "score"}

    def draw(self, rng: np.random.Generator) -> tuple[Sample, Sample | None]:
        """Windows of the clips, and rehearsed ones."""
        clips = self.clips.draw(rng, max(1, self.config.train.batch - self.rehearsed))
        parts = [clips, *([self.rehearsal.draw(rng, self.rehearsed)] if self.rehearsed else [])]
        parts = [lifted(sample.to(self.device), self.lifter) for sample in parts]
        return parts[0], (parts[1] if self.rehearsed else None)

    def loss(self, batch: tuple[Sample, Sample | None]) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Weighted sum of all terms, and the terms."""
        self.module.filter.dynamics.eval()
        clips, rehearsed = batch
        prediction, _ = self.module(clips.obs)
        valid = clips.obs.valid
        count = min(self.config.decoded, valid.shape[1])
        begin = torch.randint(valid.shape[1] - count + 1, (len(valid), 1), device=self.device)
        begin = begin % (valid.sum(1, keepdim=True) - count + 1).clamp_min(1)  # not in what is padded
        terms = self._terms(clips, prediction, begin + torch.arange(count, device=self.device))
        if rehearsed is not None:
            with torch.no_grad():
                before = self.teacher(rehearsed.obs)
            after = self.module(rehearsed.obs)
            terms |= {f"holding.{name}": value for name, value in departure(after, before, rehearsed.obs.valid).items()}
        weights = {name: self._weight(name) for name in terms}
        terms = {name: value for name, value in terms.items() if weights[name] > 0}
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum(), terms

    def _weight(self, term: str) -> float:
        group = term.split(".")[0]
        return self.config.holding if group == "holding" else float(getattr(self.config.losses, group))

    def _terms(self, sample: Sample, prediction: Prediction, frames: Tensor) -> dict[str, Tensor]:
        """Terms of windows of clips by the names of their weights, those of single frames over ``frames`` (B, F)."""
        with torch.autocast(self.device.type, enabled=False):
            chart, root = gather_time(prediction.chart.mean, frames), gather_time(prediction.root_to_camera, frames)
            betas = prediction.betas.mean[:, None].expand(-1, frames.shape[1], -1)
            view = gather_time(prediction.canonical.ray_to_camera, frames)
            pose, weights = self.chart.decode(chart)[0], self.config.losses
            terms = alignment_terms(sample, frames, pose, root, view, betas, self.body, self.flow, weights)
            del terms["joints3d.positions"]  # of which clips have none
            dynamics = self.teacher.filter.dynamics
            terms |= motion_terms(sample, prediction.chart.mean, dynamics, weights)
            return {**terms, "betas": losses.betas_prior(prediction.betas.mean).mean()}

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Scores on what is held out; ``"score"`` is below 1 where it is better: aligned by more than plausibility costs."""
        totals: dict[str, float] = {}
        nats, count, windows = 0.0, 0, len(self.held.K)
        torch.manual_seed(0)
        for first in range(0, windows, _BATCH):
            sample = windows_of(self.held, slice(first, first + _BATCH))
            prediction, _ = module(sample.obs)
            if not sound(prediction.chart.mean):
                return {"score": _BROKEN, **dict.fromkeys(self.before, math.nan)}
            valid = sample.obs.valid
            frames = torch.arange(valid.shape[1], device=self.device).expand(len(valid), -1)
            for name, value in self._terms(sample, prediction, frames).items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(valid)
            times = sample.obs.timestamps + torch.cumsum(~valid, 1) / 30  # padding repeats the last frame's
            likely = self.prior.log_prob(self.chart.decode(prediction.chart.mean)[0], times, valid=valid)
            nats, count = nats + float(likely[valid].sum()), count + int(valid.sum())
        terms = {name.split(".")[0]: value / windows for name, value in totals.items()}
        scores = {name: terms[name] for name in ALIGNMENT if self._weight(name) > 0}
        scores["alignment"] = sum(self._weight(name) * value for name, value in scores.items())
        scores["plausibility"] = nats / count
        if not self.before:
            return {"score": 1.0, **scores}
        lost = max(0.0, self.before["plausibility"] - scores["plausibility"])
        ratio = scores["alignment"] / max(self.before["alignment"], 1e-12)
        return {"score": ratio + self.config.price * lost, **scores}


def departure(now: tuple[Prediction, Traces], before: tuple[Prediction, Traces], valid: Tensor) -> dict[str, Tensor]:
    """How far a network's output is from another's on the same windows: divergence of the Gaussians of pose and shape per
    number (nats), angle between the roots (rad), cross-entropy of the contacts beyond what is their own (nats)."""
    (mine, my_traces), (theirs, their_traces) = now, before
    pairs = {
        "smoothed": (mine.chart, theirs.chart),
        "filtered": (my_traces.ahead.filtered, their_traces.ahead.filtered),
    }
    terms = {}
    for name, (a, b) in pairs.items():
        divergence = losses.gaussian_divergence(b.mean, b.log_var, a.mean, a.log_var) / a.mean.shape[-1]
        terms[name] = losses.masked_mean(divergence, valid)
    a, b = mine.betas, theirs.betas
    terms["betas"] = losses.gaussian_divergence(b.mean, b.log_var, a.mean, a.log_var).mean() / a.mean.shape[-1]
    for name, one, other in (
        ("root", mine.root_to_camera, theirs.root_to_camera),
        ("root_stream", my_traces.frame.root_rotmat, their_traces.frame.root_rotmat),
    ):
        terms[name] = losses.masked_mean(geodesic_distance(one, other), valid)
    share = torch.sigmoid(theirs.contact_logits)
    own = losses.contact_bce(theirs.contact_logits, share)
    terms["contacts"] = losses.masked_mean(losses.contact_bce(mine.contact_logits, share) - own, valid)
    return terms


def windows_of(sample: Sample, rows: slice) -> Sample:
    """Some of a sample's windows."""

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows]
        return type(value)(**{f.name: part(getattr(value, f.name)) for f in dataclasses.fields(value)})

    return cast(Sample, part(sample))


def sampled_motions(prior: MotionPrior, count: int, generator: torch.Generator) -> list[Capture]:
    """Motions drawn from the prior, on roots that turn and travel at random, as captures to be projected."""
    times = torch.arange(round(_SECONDS * _FPS), dtype=torch.float64) / _FPS
    poses = prior.sample(times, count, generator=generator).float().cpu()[:, :, :NUM_BODY]
    g = torch.Generator().manual_seed(generator.initial_seed())
    dt = torch.full((count, len(times)), 1 / _FPS)
    yaw_rate, speed = ar1((1,), dt, torch.ones(count), g), ar1((2,), dt, torch.ones(count), g)
    yaw, path = (yaw_rate / _FPS).cumsum(1), (0.5 * speed / _FPS).cumsum(1)
    zero = torch.zeros_like(yaw)
    root = rotvec_to_rotmat(torch.cat((zero, yaw, zero), -1))
    transl = torch.cat((path[..., :1], zero + 0.95, path[..., 1:]), -1)
    return [Capture(f"sample {i}", poses[i], root[i], transl[i], float(_FPS)) for i in range(count)]
