"""One way to run every training: configuration, seeds, device, captures, task, loop, and weights with a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..assets.weights import load_weights, save_weights
from ..config import config_hash, load_config
from ..devices import find_device
from .loop import FitResult, Task, fit, seed_everything
from .poses import Capture, read_captures
from .processes import launch


@dataclasses.dataclass(frozen=True)
class Captured:
    """Prepared motion capture: the file, and the runs of valid frames of its splits."""

    path: Path
    training: Sequence[Capture]
    validation: Sequence[Capture]

    @property
    def minutes(self) -> float:
        """Of the training split."""
        return sum(len(c.body_pose) / c.fps for c in self.training) / 60


@dataclasses.dataclass(frozen=True)
class Card:
    """What only the task knows of the weights.

    Attributes:
        what: they are. data: they were trained on. scores: lines on how they validated. reads: lines on the other weights that they read.
    """

    what: str
    data: str
    scores: Mapping[str, str]
    reads: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Training:
    """What one training has of its own; the task modules declare theirs as ``TRAINING``.

    Attributes:
        name: of the weights, ``NAME.safetensors``.
        config: class of the configuration; has ``model`` and ``train``.
        build: the task, from the configuration, the captures and the device.
        card: what it says of a task that is trained.
        weights: what of the task is saved.
        finish: what is fitted on the validation split when the best weights are in the module; lines for the card, in place of
            those of the same name that the training left.
    """

    name: str
    config: type
    build: Callable[[Any, Captured, torch.device], Task]
    card: Callable[[Any, Captured, FitResult], Card]
    weights: Callable[[Any], nn.Module] = lambda task: task.module
    finish: Callable[[Any], Mapping[str, str]] = lambda task: {}


def run_training(
    training: Training,
    data: Path,
    out: Path,
    *,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    progress: bool = True,
    tensorboard: bool = False,
) -> Path | None:
    """Train, and write ``out/NAME.safetensors`` with its card. Returns its path; None in all processes but the first.

    Args:
        data: prepared motion capture. config_path, overrides: YAML and ``key=value`` over the defaults.
        out: also holds the checkpoints and the log; resume: go on from them; tensorboard: and event files.
        device, devices, num_nodes, strategy: where it runs: :func:`kinflow.training.processes.launch`.

    Raises:
        ConfigError, MissingAssetError, UsageError: settings, weights or data that do not fit.
    """
    config: Any = load_config(training.config, config_path, overrides)
    captured = Captured(data, read_captures(data, "train"), read_captures(data, "validation"))
    fabric = launch(config.train, find_device(device), devices=devices, num_nodes=num_nodes, strategy=strategy)
    where = fabric.device
    seed_everything(config.train.seed)
    task = training.build(config, captured, where)
    result = fit(
        task,
        config.train,
        out,
        resume=resume,
        fabric=fabric,
        run_config=config,
        progress=progress,
        tensorboard=tensorboard,
    )
    if not fabric.is_global_zero:
        return None
    processes = str(where) if fabric.world_size == 1 else f"{fabric.world_size} processes on {where.type}"
    finished = training.finish(task)
    card = training.card(task, captured, result)
    lines = {
        "what": card.what,
        "data": f"{data.name}: {card.data} (see NOTICE)",
        **card.scores,
        **finished,
        "training": f"{result.minutes:.1f} min, {result.steps} steps, best at {result.step}, {processes}",
        **_begun_from(getattr(config, "init", None)),
        "training config hash": config_hash(config),
        **card.reads,
        "licence": "Apache-2.0",
    }
    return save_weights(out / f"{training.name}.safetensors", training.weights(task), config.model, lines)


def _begun_from(init: str | None) -> dict[str, str]:
    """The card's line on weights that a training began from: which, and how they were trained themselves."""
    if init is None:
        return {}
    earlier = load_weights(init)[2]["card"]
    told = "; ".join(str(earlier[k]) for k in ("training", "begun from") if k in earlier)
    return {"begun from": f"{Path(init).name}" + (f" ({told})" if told else "")}


def capture_alone(captured: Captured) -> str:
    """The card's line on data of a training on nothing but motion capture."""
    return f"{len(captured.training)} runs of motion capture, {captured.minutes:.0f} min"


def listed(result: FitResult, sign: int = 1) -> str:
    """The best validation's scores by name, all but their mean."""
    return ", ".join(f"{k} {sign * v:.2f}" for k, v in result.scores.items() if k != "score")
