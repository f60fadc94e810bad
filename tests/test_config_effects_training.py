"""Every setting of a training changes something: the batches drawn, the loss, the weights, the scores, a file, the steps.

Settings of the networks themselves (``model``) and the weights of the losses (``losses``) belong to their own rooms.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from swings import save_swings
from test_perceived import seen_clip
from torch import Tensor, nn

from kinflow.assets.weights import save_weights
from kinflow.body import Body
from kinflow.config import (
    DenoiserTrainingConfig,
    DynamicsConfig,
    DynamicsTrainingConfig,
    FlowConfig,
    FlowTrainingConfig,
    LifterConfig,
    LifterTrainingConfig,
    NoiseConfig,
    ProjectionConfig,
    ReconstructorTrainingConfig,
    SidesTrainingConfig,
    TrainConfig,
    load_config,
)
from kinflow.denoiser import Denoiser
from kinflow.dynamics import LatentDynamics
from kinflow.errors import MissingAssetError
from kinflow.flow import build_flow, load_flow
from kinflow.mocap.clips import load_clips
from kinflow.reconstruction.lifting import Lifter
from kinflow.training.loop import Task, fit
from kinflow.training.poses import read_captures
from kinflow.training.run import Captured
from kinflow.training.streams.borrowed import BorrowedErrors
from kinflow.training.streams.perceived import load_perceived, save_perceived
from kinflow.training.streams.projected import ProjectedMotions
from kinflow.training.tasks import training_of

TRAININGS = {
    "flow": FlowTrainingConfig,
    "dynamics": DynamicsTrainingConfig,
    "denoiser": DenoiserTrainingConfig,
    "sides": SidesTrainingConfig,
    "lifter": LifterTrainingConfig,
    "reconstructor": ReconstructorTrainingConfig,
}
ELSEWHERE = {"model", "losses", "projection", "sources"}
"""Groups that are not walked as part of a training; the stream of projections has a walk of its own, data sets have theirs in
test_training_sources.py."""
CPU = torch.device("cpu")
TINY_FLOW = FlowConfig(layers=1, hidden=8, bins=4)
TINY_DYNAMICS = DynamicsConfig(hidden=8, ode_hidden=6, head_hidden=8, rank=2)
TINY_LIFTER = LifterConfig(part_width=8, whole_width=8, blocks=1)


def own_settings(config: type) -> list[str]:
    """A training's settings, with what its task reads of the loop's."""
    return [n for n in leaves(config) if n.split(".")[0] not in {*ELSEWHERE, "train"}] + ["train.batch"]


def leaves(config: type) -> Iterator[str]:
    """Dotted names of all settings."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        inner = hints[field.name]
        yield from [f"{field.name}.{n}" for n in leaves(inner)] if dataclasses.is_dataclass(inner) else [field.name]


def value_of(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def another(config: Any, name: str) -> Any:
    """A value that a setting does not have now."""
    value = value_of(config, name)
    hint = typing.get_type_hints(type(value_of(config, name.rpartition(".")[0]) if "." in name else config))
    kind = hint[name.rpartition(".")[2]]
    if typing.get_origin(kind) is typing.Literal:
        return next(v for v in typing.get_args(kind) if v != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.9 if value < 0.5 else 0.3 * value
    if isinstance(value, tuple):
        return [0.5 * v for v in value]
    raise AssertionError(f"{name}: say what else it may be than {value!r}")


def same(a: Any, b: Any) -> bool:
    """Whether two observations agree in every number."""
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def observed(task: Any, seed: int = 0) -> tuple[Any, ...]:
    """What a task shows: its weights, what it draws, and the loss of that."""
    weights = {k: v.clone() for k, v in task.module.state_dict().items()}
    torch.manual_seed(seed)
    batch = task.draw(np.random.default_rng(seed))
    loss, parts = task.loss(batch)
    return weights, batch, loss.detach(), {k: float(torch.as_tensor(v).detach()) for k, v in parts.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture, weights of small networks and perceived clips."""
    out = tmp_path_factory.mktemp("effects")
    save_swings(out / "mocap.npz")
    torch.manual_seed(1)
    for name in ("flow", "flow_too"):
        flow = build_flow(TINY_FLOW)
        with torch.no_grad():
            for p in (*flow.parameters(), flow.whitening.mean):
                p.add_(0.05 * torch.randn_like(p))
        save_weights(out / f"{name}.safetensors", flow, TINY_FLOW, {})
    for name in ("dynamics", "dynamics_too"):
        save_weights(out / f"{name}.safetensors", LatentDynamics(TINY_DYNAMICS), TINY_DYNAMICS, {})
    for name in ("lifter", "lifter_too"):
        save_weights(out / f"{name}.safetensors", Lifter(TINY_LIFTER), TINY_LIFTER, {})
    for name, seeds in (("perceived", (0, 1)), ("perceived_too", (2, 3))):
        clips = [seen_clip(np.full((33, 3), 0.01 * seed, np.float32), seed) for seed in seeds]
        clips = [dataclasses.replace(c, has_world=c.observed) for c in clips]
        clips[1] = dataclasses.replace(clips[1], source=captured_name(out / "mocap.npz", "validation"))
        save_perceived(out / f"{name}.npz", clips)
    return out


def captured_name(path: Path, split: str) -> str:
    return load_clips(path, split)[0].name


@pytest.fixture(scope="module")
def captured(folder: Path) -> Captured:
    path = folder / "mocap.npz"
    return Captured(path, read_captures(path, "train")[:4], read_captures(path, "validation"))


def check(name: str, config: type, base: list[str], values: Mapping[str, str], observe: Any) -> None:
    """The observation changes with the setting, and only with it."""
    before = load_config(config, None, base)
    after = load_config(config, None, [*base, f"{name}={values.get(name) or another(before, name)}"])
    assert value_of(after, name) != value_of(before, name)
    first = observe(before)
    assert same(first, observe(before)), "the observation is not repeatable"
    assert not same(first, observe(after)), f"{config.__name__}.{name} changes nothing"


def build(network: str, config: Any, captured: Captured) -> Task:
    torch.manual_seed(0)
    return training_of(network).build(config, captured, CPU)


@pytest.mark.parametrize("name", own_settings(FlowTrainingConfig))
def test_flow(name: str, folder: Path, captured: Captured) -> None:
    kind = "rot6d" if name == "bounds_samples" else "chart"
    base = [f"model.representation={kind}", "model.layers=1", "model.hidden=8", "model.bins=4", "train.batch=32"]

    def observe(config: FlowTrainingConfig) -> Any:
        task = build("flow", config, captured)
        return observed(task), task.validate(task.module.eval())

    check(name, FlowTrainingConfig, base, {"init": str(folder / "flow.safetensors")}, observe)


@pytest.mark.parametrize("name", own_settings(DynamicsTrainingConfig))
def test_dynamics(name: str, folder: Path, captured: Captured) -> None:
    base = ["model.hidden=8", "model.ode_hidden=6", "model.head_hidden=8", "model.rank=2", "model.dropout=0",
            "train.batch=8", "frames=8", f"flow={folder / 'flow.safetensors'}"]  # fmt: skip
    others = {"init": str(folder / "dynamics.safetensors"), "flow": str(folder / "flow_too.safetensors")}

    def observe(config: DynamicsTrainingConfig) -> Any:
        task = build("dynamics", config, captured)
        return [observed(task, seed) for seed in range(2)], task.validate(task.module.eval())

    check(name, DynamicsTrainingConfig, base, others, observe)


SMALL_DENOISER = [f"model.{s}" for s in ("width=12", "hidden=8", "layers=1", "heads=2", "dropout=0")]


@contextlib.contextmanager
def without_regression() -> Iterator[None]:
    """Leaves out the fit of the denoiser's regression, and its validation sets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinflow.training.tasks.denoiser.validation_sets", lambda *_: {})
        patch.setattr("kinflow.training.tasks.denoiser.DenoiserTask._fit_regression", lambda _: None)
        yield


@pytest.fixture(scope="module")
def denoiser(captured: Captured) -> Any:
    config = load_config(DenoiserTrainingConfig, None, [*SMALL_DENOISER, "train.batch=8", "frames=16"])
    with without_regression():
        return build("denoiser", config, captured)


@pytest.mark.parametrize("name", own_settings(DenoiserTrainingConfig))
def test_denoiser(name: str, denoiser: Any, captured: Captured, tmp_path: Path) -> None:
    """On one task, without the fit of its regression, which takes longest: all of these are read when a batch is drawn or scored."""

    others = {}
    if name == "init":
        others["init"] = str(tmp_path / "init.safetensors")
        torch.manual_seed(5)
        save_weights(others["init"], Denoiser(denoiser.config.model), denoiser.config.model, {})

    def observe(config: DenoiserTrainingConfig) -> Any:
        task = copy.copy(denoiser) if config.init is None else build("denoiser", config, captured)
        task.config = config
        return observed(task)

    base = [*SMALL_DENOISER, "train.batch=8", "frames=16", "train.precision=fp32"]
    with without_regression():
        check(name, DenoiserTrainingConfig, base, others, observe)


@pytest.mark.parametrize("name", own_settings(ReconstructorTrainingConfig))
def test_reconstructor(name: str, folder: Path, captured: Captured, tmp_path: Path) -> None:
    sizes = ("width=16", "blocks=1", "recurrent=8", "head_width=8")
    base = [*(f"model.{s}" for s in sizes), "train.batch=4", "projection.frames=14", "validation=2",
            *(f"{part}={folder / part}.safetensors" for part in ("lifter", "flow", "dynamics"))]  # fmt: skip
    others = {
        "lifter": str(folder / "lifter_too.safetensors"),
        "flow": str(folder / "flow_too.safetensors"),
        "dynamics": str(folder / "dynamics_too.safetensors"),
        "perceived": str(folder / "perceived.npz"),
    }
    if name == "perceived_share":
        base.append(f"perceived={others['perceived']}")
    if name == "init":
        config = load_config(ReconstructorTrainingConfig, None, base)
        torch.manual_seed(5)
        task = training_of("reconstructor").build(config, captured, CPU)
        others["init"] = str(tmp_path / "init.safetensors")
        save_weights(others["init"], training_of("reconstructor").weights(task), config.model, {})

    def observe(config: ReconstructorTrainingConfig) -> Any:
        task: Any = build("reconstructor", config, captured)
        return observed(task), dict(task.validation)

    check(name, ReconstructorTrainingConfig, base, others, observe)


@pytest.mark.parametrize("name", own_settings(LifterTrainingConfig))
def test_lifter(name: str, folder: Path, captured: Captured) -> None:
    base = ["model.part_width=8", "model.whole_width=8", "model.blocks=1", "train.batch=6", "projection.frames=4",
            "projection.sampled=0.5", f"flow={folder / 'flow.safetensors'}",
            f"perceived={folder / 'perceived.npz'}"]  # fmt: skip
    others = {
        "flow": str(folder / "flow_too.safetensors"),
        "init": str(folder / "lifter.safetensors"),
        "perceived": str(folder / "perceived_too.npz"),
    }

    if name == "blend":
        base.append(f"init={others['init']}")

    def observe(config: LifterTrainingConfig) -> Any:
        task: Any = build("lifter", config, captured)
        seen = observed(task)
        with torch.no_grad():
            for p in task.module.parameters():  # as if it had learned something
                p.add_(0.02)
        return seen, task.validate(task.module.eval())

    check(name, LifterTrainingConfig, base, others, observe)


@pytest.mark.parametrize("name", own_settings(SidesTrainingConfig))
def test_sides(name: str, folder: Path, captured: Captured) -> None:
    base = ["model.width=8", "train.batch=6", "projection.frames=8", f"perceived={folder / 'perceived.npz'}"]
    others = {"perceived": str(folder / "perceived_too.npz")}
    check(name, SidesTrainingConfig, base, others, lambda config: observed(build("sides", config, captured)))


@pytest.mark.parametrize("name", list(leaves(ProjectionConfig)))
def test_projection(name: str, folder: Path, captured: Captured) -> None:
    body, flow = Body.open("light"), load_flow(folder / "flow.safetensors")
    lender = BorrowedErrors(load_perceived(folder / "perceived.npz"), body)
    base = ["frames=12", "borrowed=0.3", "world=0.5"]  # the others are of windows with modelled errors

    def observe(config: ProjectionConfig) -> Any:
        motions = ProjectedMotions(captured.training[:2], body, config, flow, lender)
        return [motions.draw(np.random.default_rng(seed), 12) for seed in range(2)]

    check(name, ProjectionConfig, base, {}, observe)


class Slope:
    """A regression whose score does not improve, on as many numbers as the configuration says."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(0)
        self.config, self.module = config, nn.Linear(3, 2)
        self.validations = 0

    def draw(self, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.standard_normal((self.config.batch, 3))).float()

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        return (10 * self.module(batch) - 1).square().mean(), {}

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        self.validations += 1
        return {"score": float(self.validations > 2)}


@pytest.mark.parametrize("name", list(leaves(TrainConfig)))
def test_loop(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    threads = torch.get_num_threads()
    base = ["steps=12", "batch=4", "warmup=3", "validate_every=3", "log_every=4", "weight_decay=0.5", "ema=0.5",
            "lr=0.01", "grad_clip=0.3"]  # fmt: skip

    def observe(config: TrainConfig) -> Any:
        task, out = Slope(config), tmp_path_factory.mktemp("loop")
        torch.set_num_threads(threads)
        try:
            result = fit(task, config, out, progress=False)
        except MissingAssetError:
            return "over before the first step"
        rows = (out / "log.csv").read_text().splitlines()
        # All columns but the wall clock's.
        log = [cell for row in rows for i, cell in enumerate(row.split(",")) if i != 1]
        return task.module.state_dict(), result.steps, log, torch.get_num_threads()

    try:
        elsewhere = {"minutes": "1e-9", "threads": str(threads + 1), "precision": "bf16"}  # "auto" is one of the two
        check(name, TrainConfig, base, elsewhere, observe)
    finally:
        torch.set_num_threads(threads)


def test_the_walk_misses_nothing() -> None:
    """Every group of a training is walked, or named as walked elsewhere; and there is something to walk."""
    groups = set()
    for config in TRAININGS.values():
        hints = typing.get_type_hints(config)
        groups |= {n: hints[n] for n in hints if dataclasses.is_dataclass(hints[n])}.items()
        assert len(own_settings(config)) >= 5
    assert {name for name, _ in groups} == {*ELSEWHERE, "train"}
    assert ("train", TrainConfig) in groups and ("projection", ProjectionConfig) in groups
    assert {f"noise.{n}" for n in leaves(NoiseConfig)} <= set(leaves(ProjectionConfig))
