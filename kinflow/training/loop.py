"""One training loop for every network: AdamW, cosine learning rate, averaged weights, checkpoints that resume.

A training is a :class:`Task`: it owns a module, draws batches, computes the loss and scores the module. :func:`fit`
does the rest::

    class FlowTask(Task):
        def __init__(self, ...): self.module = PoseFlow(...)
        def draw(self, rng): ...                  # one batch, from the given numpy generator alone
        def loss(self, batch): ...                # scalar tensor, {"name": number}
        def validate(self, module): ...           # {"score": lower is better, ...}

    result = fit(FlowTask(...), TrainConfig(), out=Path("runs/flow"), resume=True)

``out`` holds ``last.pt`` (everything needed to go on), ``best.pt`` (the averaged weights with the best score) and
``log.csv``. Both are tensors and plain numbers, read with ``weights_only=True``.

It runs on Lightning Fabric, in one process or in many (:func:`kinflow.training.processes.launch`). Each process draws
batches of its own, as large as one process alone would, and the gradients are averaged: two processes take the steps that
one takes with twice the batch. Only the first validates, averages the weights and writes.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import rich.progress
import torch
from torch import Tensor, nn

from ..config import TrainConfig, config_hash
from ..errors import ConfigError, KinflowError, MissingAssetError
from ..records import atomic_write
from .logs import Log
from .processes import launch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


class Task(Protocol):
    """What :func:`fit` trains."""

    @property
    def module(self) -> nn.Module:
        """Holds all trained parameters. Parameters without ``requires_grad`` stay as they are."""

    def draw(self, rng: np.random.Generator) -> Any:
        """One batch. All randomness comes from ``rng``."""

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Scalar loss of ``self.module`` on a batch, and numbers for the log."""

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Scores of ``module`` (the averaged weights, evaluation mode, no gradients). ``"score"``: lower is better."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a training went.

    Attributes:
        score: the best validation score; step: at which step; steps: done in all; minutes: spent, over all resumptions.
        scores: everything ``validate`` returned at the best step.
    """

    score: float
    step: int
    steps: int
    minutes: float
    scores: dict[str, float]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def learning_rate(config: TrainConfig, step: int, share: float) -> float:
    """Linear warm-up, then a cosine from ``lr`` to a hundredth of it over ``share`` 0..1 of the training."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    return config.lr * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (biases, scales) do not."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


class _Loss(nn.Module):
    """A task's loss as a forward pass, which Fabric wraps: whatever methods of its network the task calls, they run inside.

    The batch is no argument: wrappers would take it apart, and cast times in float64 to half the digits.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module, self.loss = task.module, task.loss
        self.batch: Any = None

    def forward(self) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = self.loss(self.batch)
        return loss, {name: torch.as_tensor(value).detach() for name, value in parts.items()}


def fit(
    task: Task,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    fabric: Fabric | None = None,
    run_config: Any = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> FitResult:
    """Train ``task.module`` and leave in it (that of the first process) the averaged weights with the best validation score.

    Args:
        out: folder for ``last.pt``, ``best.pt``, ``log.csv``.
        resume: go on from ``out/last.pt``; without one, start. One process goes on exactly as if it had not stopped, and so
            do as many as had stopped.
        fabric: the processes and their device, as :func:`~kinflow.training.processes.launch` made them of ``config``; None:
            this one on the CPU.
        run_config: the whole configuration; a checkpoint made with another one (but for steps and minutes) is refused.
        progress: draw a progress bar.
        tensorboard: write ``log.csv``'s numbers to ``out/tensorboard`` too.

    Raises:
        ConfigError: resuming with another configuration.
        MissingAssetError: Fabric, or TensorBoard where asked for, is not installed.
        KinflowError: the loss stopped being finite for many steps.
    """
    fabric = launch(config) if fabric is None else fabric
    out, device, first = Path(out), fabric.device, fabric.is_global_zero
    out.mkdir(parents=True, exist_ok=True)
    if config.threads and torch.get_num_threads() != config.threads:
        torch.set_num_threads(config.threads)
    module = task.module.to(device).train()
    optimiser = torch.optim.AdamW(parameter_groups(module, config.weight_decay), lr=config.lr, betas=(0.9, 0.99))
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    rng = process_generator(config.seed, fabric.global_rank)
    if not first:  # all began alike, for equal weights; from here on each has its own dropout
        torch.manual_seed(int(process_generator(config.seed, fabric.global_rank).integers(2**62)))
    identity = _identity(config, run_config)
    step, spent, best, best_step, best_scores, stale = 0, 0.0, math.inf, 0, {}, 0
    saved = _read(out / "last.pt", device) if first and resume and (out / "last.pt").is_file() else None
    saved = fabric.broadcast(saved)
    if saved is not None:
        if saved["identity"] != identity:
            raise ConfigError(
                f"{out / 'last.pt'}: made with another configuration. Choose another --out, or leave out --resume."
            )
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        average = saved["average"]
        step, spent, stale = saved["step"], saved["spent"], saved["stale"]
        best, best_step, best_scores = saved["best"], saved["best_step"], saved["best_scores"]
        states = [saved, *saved.get("others", [])]
        if fabric.global_rank < len(states):
            restore_random_states(states[fabric.global_rank], rng, device)
        else:  # one more than there were
            rng = process_generator(config.seed, fabric.global_rank, step)
    held = _Loss(task)
    stepper, stepping = fabric.setup(held, optimiser)
    began, bad = time.monotonic() - spent, 0

    def share() -> float:
        by_time = (time.monotonic() - began) / (60 * config.minutes) if config.minutes else 0.0
        by_time = (
            fabric.broadcast(by_time) if config.minutes and fabric.world_size > 1 else by_time
        )  # one clock for all
        return max(step / config.steps if config.steps else 1.0, by_time)

    def averaged(value: Tensor) -> Tensor:
        """Over the processes."""
        return value if fabric.world_size == 1 else cast(Tensor, fabric.all_reduce(value, reduce_op="mean"))

    columns = ("[progress.description]{task.description}", rich.progress.BarColumn(), "{task.percentage:>3.0f}%",
               rich.progress.TimeElapsedColumn(), "{task.fields[note]}")  # fmt: skip
    rows = Log(out, step, tensorboard=tensorboard, config=run_config or config, active=first)
    with rows, rich.progress.Progress(*columns, disable=not (progress and first)) as bar:
        line = bar.add_task("training", total=1.0, note="")
        gone = share()
        done = gone >= 1 or bool(config.patience and stale >= config.patience)
        if done and not step:  # no step is asked for: weights as they came
            best_scores = fabric.broadcast(_validate(task, module, average, device) if first else {})
            best = best_scores["score"]
            if first:
                _write(out / "best.pt", {"average": average, "step": step, "scores": best_scores})
        while not done:
            rate = learning_rate(config, step, gone)
            for group in optimiser.param_groups:
                group["lr"] = rate
            held.batch = task.draw(rng)  # outside autocast: what is learned from keeps its precision
            loss, parts = stepper()
            optimiser.zero_grad(set_to_none=True)
            fabric.backward(loss)
            norm: Any = fabric.clip_gradients(stepper, stepping, max_norm=config.grad_clip, error_if_nonfinite=False)
            loss = averaged(loss.detach())  # so that all agree whether it is finite
            if bool(torch.isfinite(norm)) and bool(torch.isfinite(loss)):
                stepping.step()
                bad = 0
            else:
                bad += 1
                if bad >= 20:
                    raise KinflowError(f"training: the loss was not finite for {bad} steps. Lower train.lr.")
            step += 1
            gone = share()
            if first:
                _average(average, module, min(config.ema, (1 + step) / (10 + step)))
            if step % config.log_every == 0:
                minutes = (time.monotonic() - began) / 60
                parts = {k: averaged(v.float()) for k, v in parts.items()}
                rows.write({"step": step, "minutes": minutes, "lr": rate, "loss": loss, "grad_norm": norm, **parts})
                bar.update(line, completed=min(1.0, gone), note=f"step {step} loss {loss.item():.3f} best {best:.3f}")
            done = gone >= 1
            if step % config.validate_every == 0 or done:
                scores = fabric.broadcast(_validate(task, module, average, device) if first else {})
                stale = 0 if scores["score"] < best else stale + 1
                if scores["score"] < best:
                    best, best_step, best_scores = scores["score"], step, scores
                    if first:
                        _write(out / "best.pt", {"average": average, "step": step, "scores": scores})
                done = done or bool(config.patience and stale >= config.patience)
                spent = time.monotonic() - began
                rows.write({"step": step, "minutes": spent / 60, **{f"val_{k}": v for k, v in scores.items()}})
                own = random_states(rng, device)
                states = [fabric.broadcast(own, rank) for rank in range(fabric.world_size)]
                if first:
                    log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
                    _write(out / "last.pt", {
                        "identity": identity, "module": module.state_dict(), "optimiser": optimiser.state_dict(),
                        "average": average, **states[0], "others": states[1:],
                        "step": step, "spent": spent, "stale": stale,
                        "best": best, "best_step": best_step, "best_scores": best_scores,
                    })  # fmt: skip
    if first:
        load_best(module, out)
    return FitResult(best, best_step, step, spent / 60, dict(best_scores))


def process_generator(seed: int, rank: int, step: int = 0) -> np.random.Generator:
    """What process ``rank`` draws its batches from; that of the first is the one of a training in one process."""
    return np.random.default_rng([seed, rank, step] if rank else seed)


def load_best(module: nn.Module, out: str | Path) -> dict[str, float]:
    """Put the best averaged weights of a training folder into ``module``; returns their scores.

    Raises:
        MissingAssetError: nothing was validated there yet.
    """
    path = Path(out) / "best.pt"
    if not path.is_file():
        raise MissingAssetError(f"{path}: no validated weights there. Train for at least one validation.")
    saved = _read(path, next(module.parameters()).device)
    module.load_state_dict(saved["average"])
    module.eval()
    return dict(saved["scores"])


def _identity(config: TrainConfig, run_config: Any) -> str:
    """A hash that does not change when a training is made longer or logs differently."""
    free = {"steps": 0, "minutes": 0.0, "patience": 0, "threads": 0, "log_every": 1, "validate_every": 1}
    neutral = dataclasses.replace(config, **free)  # type: ignore[arg-type]
    if run_config is None:
        return config_hash(neutral)
    return config_hash(dataclasses.replace(run_config, train=neutral))


@torch.no_grad()
def _average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    floats: tuple[list[Tensor], list[Tensor]] = ([], [])
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            floats[0].append(average[key])
            floats[1].append(value)
        else:
            average[key].copy_(value)
    torch._foreach_lerp_(floats[0], floats[1], 1 - decay)


def random_states(rng: np.random.Generator, device: torch.device) -> dict[str, Any]:
    """Where all random numbers of a training stand: the batches', torch's on the CPU and, there, on a CUDA ``device``."""
    states = {"rng": _strings(rng.bit_generator.state), "torch_rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda_rng"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: Mapping[str, Any], rng: np.random.Generator, device: torch.device) -> None:
    """Put back what :func:`random_states` took; a training that moves to or from CUDA has no state of that device."""
    rng.bit_generator.state = _ints(states["rng"])
    torch.set_rng_state(states["torch_rng"].cpu())
    if device.type == "cuda" and "cuda_rng" in states:
        torch.cuda.set_rng_state(states["cuda_rng"].cpu(), device)


@torch.no_grad()
def _validate(task: Task, module: nn.Module, average: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    own = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(average)
    module.eval()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        scores = {k: float(v) for k, v in task.validate(module).items()}
    module.load_state_dict(own)
    module.train()
    return scores


def _strings(state: Any) -> Any:
    """numpy's generator state holds integers beyond 64 bits, which a checkpoint takes as text."""
    if isinstance(state, dict):
        return {k: _strings(v) for k, v in state.items()}
    return f"int:{state}" if isinstance(state, int) else state


def _ints(state: Any) -> Any:
    if isinstance(state, dict):
        return {k: _ints(v) for k, v in state.items()}
    return int(state[4:]) if isinstance(state, str) and state.startswith("int:") else state


def _write(path: Path, values: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    with atomic_write(path) as stream:
        stream.write(buffer.getvalue())


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise ConfigError(f"{path}: not a checkpoint that can be read. Remove it and start again.") from error
