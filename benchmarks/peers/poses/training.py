"""Fits the peers on the training split, chooses their settings on the validation split, and keeps them in a cache."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinflow.config import FlowConfig, FlowTrainingConfig, TrainConfig, load_config
from kinflow.flow.chart import RotationChart
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.loop import fit, seed_everything
from kinflow.training.poses import Capture, exchange, mirror_body, perturb
from kinflow.training.tasks.flow import FlowTask

from . import base, mixture, spline, vae
from .base import ChartPrior, in_parts, sampled, training_chart
from .mixture import FLOORS, Components, MixturePrior, fit_components
from .spline import ZukoPrior
from .vae import VaePrior

GRADIENT = {"vae": "VAE (VPoser)", "nsf": "NSF (zuko)"}
MIXTURES = {1: "Gaussian", 8: "GMM 8", 32: "GMM 32"}
QUICK_POSES = 3000
NOISE = FlowTrainingConfig().noise


FLOW_CONFIG = Path(__file__).parents[3] / "configs" / "flow.yaml"


@dataclasses.dataclass(frozen=True)
class PeerSettings:
    """How a peer is trained. ``exchanges``: shares of poses with another's upper body; validation chooses one."""

    kind: str
    train: TrainConfig
    exchanges: tuple[float, ...]


def exchanges() -> tuple[float, ...]:
    """The share that kinflow's own flow was tuned to, and the default: neither may be right for a peer."""
    return tuple(sorted({load_config(FlowTrainingConfig, FLOW_CONFIG).exchange, FlowTrainingConfig().exchange}))


def settings_of(kind: str, seed: int, quick: bool = False) -> PeerSettings:
    """Settings of a gradient-trained peer: Adam at 1e-3 as published, early stopping on validation."""
    lengths = {"vae": 3000, "nsf": 800}
    steps = 60 if quick else lengths[kind]
    train = TrainConfig(seed=seed, steps=steps, batch=256, lr=1e-3, weight_decay=0.0 if kind == "nsf" else 1e-4,
                        warmup=100, ema=0.995, validate_every=max(30, steps // 15), patience=4)  # fmt: skip
    return PeerSettings(kind, train, exchanges()[:1] if quick else exchanges())


class PeerTask:
    """A peer trained like kinflow's flow: the same augmented poses, the same validation poses."""

    def __init__(self, prior: ChartPrior, poses: FlowTask) -> None:
        self.module: nn.Module = prior
        self.poses = poses

    def draw(self, rng: np.random.Generator) -> Tensor:
        return self.poses.draw(rng)

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        return -self.module(batch).mean(), {}

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        rotmat = rotvec_to_rotmat(self.poses.validation)
        generator = torch.Generator().manual_seed(0)
        values = in_parts(lambda x: module.log_prob(x, 16, generator), rotmat, 512)
        return {"score": -float(values.mean())}


class Cache:
    """Fitted peers in a folder, keyed by all that decides them: settings, seed, data and the code that fits them."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = f"{data.name} {data.stat().st_size}"

    def path(self, name: str, settings: object, code: Sequence[Any]) -> Path:
        """The file of a peer; ``code``: the modules and functions that make it."""
        # Their syntax trees, so that comments and line breaks do not count.
        trees = [ast.dump(ast.parse(textwrap.dedent(inspect.getsource(part)))) for part in code]
        key = hashlib.sha256(f"{self.data} {name} {settings!r} {trees}".encode()).hexdigest()[:16]
        return self.folder / f"{name.replace(' ', '_').replace('(', '').replace(')', '')}_{key}.pt"

    def load(self, path: Path) -> Any:
        """What was saved; None where there is nothing."""
        return torch.load(path, weights_only=True) if path.is_file() else None

    def save(self, path: Path, value: Any) -> None:
        """Write whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        torch.save(value, partial)
        partial.replace(path)


@dataclasses.dataclass
class Fitted:
    """A peer, and what is told of it: the settings that validation chose, its validation score, seconds of fitting.

    captured: a mixture with the floor that suits poses as captured, without noise; others have one model for both.
    """

    prior: ChartPrior
    chosen: str
    validation: float
    seconds: float
    captured: ChartPrior | None = None


class Peers:
    """All peers, fitted when first asked for."""

    def __init__(
        self, training: Sequence[Capture], validation: Sequence[Capture], cache: Cache, quick: bool = False
    ) -> None:
        self.training, self.cache, self.quick = list(training), cache, quick
        self.validating = list(validation)
        self.chart: RotationChart = training_chart(sampled(self.training, 10)).requires_grad_(False)
        self.validation = sampled(self.validating, 5)
        self._tasks: dict[tuple[int, float], FlowTask] = {}

    def _score(self, prior: ChartPrior, noise: float = 0.0) -> float:
        rotmat = perturb(self.validation, noise, torch.Generator().manual_seed(0))
        with torch.no_grad():
            return float(in_parts(lambda x: prior.log_prob(x, 16), rotmat, 512).mean())

    def mixture(self, count: int, seed: int) -> Fitted:
        """Fitted to poses at 5 Hz (the single Gaussian: 10 Hz) and their mirror images.

        The floor, and the share of poses with another's upper body, are chosen with seed 0: on validation poses with
        the noise that the flows are trained with, and once more on those as captured.
        """
        saved = self._mixtures(count, 0 if count == 1 else seed)
        chosen = [_best(saved["scores"], i) for i in (0, 1)]
        clean, noisy = (MixturePrior(self.chart, Components(*saved["components"][c])) for c in chosen)
        about = (
            f"floor {chosen[1][0] ** 0.5:.2g} rad ({chosen[0][0] ** 0.5:.2g} as captured), exchange {chosen[1][1]:g}"
        )
        return Fitted(noisy, about, saved["scores"][chosen[1]][0], saved["seconds"], clean)

    def _mixtures(self, count: int, seed: int) -> dict[str, Any]:
        code = (base, mixture, Peers._mixtures, Peers._mixture_poses, Peers._score)
        shares = (0.0, max(exchanges()))
        path = self.cache.path(MIXTURES[count], (count, seed, FLOORS, shares, NOISE, self.quick), code)
        saved = self.cache.load(path)
        if saved is None:
            began = time.monotonic()
            choices = [(floor, share) for share in shares for floor in FLOORS]
            if count > 1 and self.quick:
                choices = [(3e-4, 0.0)]
            elif count > 1 and seed != 0:
                scores = self._mixtures(count, 0)["scores"]
                choices = sorted({_best(scores, i) for i in (0, 1)})
            saved = {"components": {}, "scores": {}}
            for floor, share in choices:
                u = self._mixture_poses(10 if count == 1 else 4, share)
                if count > 1 and self.quick:
                    u = u[:: max(1, len(u) // QUICK_POSES)]
                components = fit_components(u, count, floor, seed, 5 if self.quick else 25)
                prior = MixturePrior(self.chart, components)
                saved["components"][floor, share] = tuple(components)
                saved["scores"][floor, share] = (self._score(prior), self._score(prior, NOISE))
            saved["seconds"] = (time.monotonic() - began) / len(choices)
            self.cache.save(path, saved)
        return saved

    def _mixture_poses(self, rate: float, share: float) -> Tensor:
        """Chart coordinates (N, 63) of training poses and mirror images, a share with another's upper body."""
        generator = torch.Generator().manual_seed(0)
        rotmat = sampled(self.training, rate)
        rotmat = torch.cat((rotmat, mirror_body(rotmat)))
        other = rotmat[torch.randperm(len(rotmat), generator=generator)]
        swap = torch.rand(len(rotmat), generator=generator) < share
        rotmat = torch.where(swap[:, None, None, None], exchange(rotmat, other), rotmat)
        return self.chart(rotmat)[0].flatten(-2)

    def trained(self, kind: str, seed: int) -> Fitted:
        """A gradient-trained peer; its share of exchanged poses is the one that validates best with seed 0."""
        saved = self._trained(kind, seed)
        prior = self._build(kind)
        prior.load_state_dict(saved["state"])
        about = f"exchange {saved['exchange']:g}, best at step {saved['best']} of {saved['steps']}"
        return Fitted(prior.eval().requires_grad_(False), about, saved["score"], saved["seconds"])

    def _trained(self, kind: str, seed: int) -> dict[str, Any]:
        settings = settings_of(kind, seed, self.quick)
        module = {"vae": vae, "nsf": spline}[kind]
        code = (base, module, PeerTask, Peers._trained, Peers._train, Peers._build, Peers._poses)
        path = self.cache.path(GRADIENT[kind], (settings, FlowTrainingConfig()), code)
        saved = self.cache.load(path)
        if saved is None:
            shares = settings.exchanges if seed == 0 else (self._trained(kind, 0)["exchange"],)
            saved = max((self._train(kind, share, settings.train) for share in shares), key=lambda r: r["score"])
            self.cache.save(path, saved)
        return saved

    def _build(self, kind: str) -> ChartPrior:
        return VaePrior(self.chart) if kind == "vae" else ZukoPrior(self.chart)

    def _train(self, kind: str, share: float, train: TrainConfig) -> dict[str, Any]:
        began = time.monotonic()
        seed_everything(train.seed)
        poses = self._poses(share, train)
        prior = self._build(kind)
        if isinstance(prior, ZukoPrior):
            rng = np.random.default_rng(train.seed)
            draws = torch.cat([poses.draw(rng) for _ in range(80)])
            prior.fit_whitening(self.chart(draws)[0].flatten(-2))
        with tempfile.TemporaryDirectory() as folder:
            result = fit(PeerTask(prior, poses), train, folder, progress=False)
        return {
            "state": prior.state_dict(), "exchange": share, "score": self._score(prior.eval()),
            "best": result.step, "steps": result.steps, "seconds": time.monotonic() - began,
        }  # fmt: skip

    def _poses(self, share: float, train: TrainConfig) -> FlowTask:
        """The flow's own task, for its augmented poses; its (small) network is not used."""
        if (train.seed, share) not in self._tasks:
            config = FlowTrainingConfig(model=FlowConfig(layers=2, hidden=8), train=train, exchange=share)
            self._tasks[train.seed, share] = FlowTask(config, self.training, self.validating, torch.device("cpu"))
        return self._tasks[train.seed, share]


def _best(scores: Mapping[tuple[float, float], Sequence[float]], which: int) -> tuple[float, float]:
    """The (floor, share) of the highest validation score, as captured (0) or with noise (1)."""
    return max(scores, key=lambda c: scores[c][which])
