"""The training loop, and kinflow-train on a small synthetic capture."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from line_training import CONFIG, Line
from swings import save_swings
from test_perceived import seen_clip
from torch import Tensor, nn

from kinflow.assets.weights import load_weights, save_weights
from kinflow.cli.train import main
from kinflow.config import FlowConfig, FlowTrainingConfig, LifterConfig, TrainConfig
from kinflow.dynamics import load_dynamics
from kinflow.errors import ConfigError, KinflowError
from kinflow.flow import load_flow
from kinflow.mocap.clips import load_clips
from kinflow.reconstruction.lifting import Lifter
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.loop import FitResult, fit, learning_rate, random_states, restore_random_states
from kinflow.training.poses import exchange, mirror_body, mirror_root, read_captures
from kinflow.training.run import run_training
from kinflow.training.streams.perceived import save_perceived
from kinflow.training.tasks import NETWORKS, training_of
from kinflow.training.tasks.flow import FlowTask


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_swings(tmp_path_factory.mktemp("capture") / "mocap.npz")


def test_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = Line()
    expected = fit(whole, CONFIG, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_after=47), CONFIG, tmp_path / "broken", progress=False)
    again = Line()
    result = fit(again, CONFIG, tmp_path / "broken", resume=True, progress=False)
    assert result.score == expected.score and result.steps == expected.steps == 60
    for a, b in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(a, b)
    rows = (tmp_path / "broken" / "log.csv").read_text().splitlines()
    assert rows[0].startswith("step,minutes,lr,loss,grad_norm,rms") and len(rows) == 1 + 6 + 3


def test_resuming_with_another_configuration_is_refused(tmp_path: Path) -> None:
    fit(Line(), CONFIG, tmp_path, progress=False)
    other = TrainConfig(**{**CONFIG.__dict__, "lr": 0.01})
    with pytest.raises(ConfigError, match="another configuration"):
        fit(Line(), other, tmp_path, resume=True, progress=False)
    longer = TrainConfig(**{**CONFIG.__dict__, "steps": 80})
    assert fit(Line(), longer, tmp_path, resume=True, progress=False).steps == 80


def test_random_states_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU without CUDA's state; on a CUDA device with that device's own."""
    cpu, cuda, rng = torch.device("cpu"), torch.device("cuda:1"), np.random.default_rng(3)
    states = random_states(rng, cpu)
    assert set(states) == {"rng", "torch_rng"}
    expected = rng.random(4), torch.rand(4)
    restore_random_states(states, rng, cpu)
    assert np.array_equal(rng.random(4), expected[0]) and torch.equal(torch.rand(4), expected[1])

    generators = {cuda: torch.tensor([1, 2, 3], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: generators[device].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: generators.update({device: state}))
    states = random_states(rng, cuda)
    generators[cuda] = torch.zeros(3, dtype=torch.uint8)
    restore_random_states({k: v for k, v in states.items() if k != "cuda_rng"}, rng, cuda)
    assert generators[cuda].sum() == 0  # a checkpoint from the CPU
    restore_random_states(states, rng, cuda)
    assert generators[cuda].tolist() == [1, 2, 3]
    restore_random_states(states, rng, cpu)


def test_training_that_diverges_says_so(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float | Tensor]]:
            return super().loss(batch)[0] * float("nan"), {}

    with pytest.raises(KinflowError, match="not finite"):
        fit(Broken(), CONFIG, tmp_path, progress=False)


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(CONFIG, s, s / 60) for s in range(61)]
    assert rates[0] < rates[4] and max(rates) <= CONFIG.lr and rates[-1] == pytest.approx(0.01 * CONFIG.lr)


def test_patience_stops(tmp_path: Path) -> None:
    class Flat(Line):
        def validate(self, module: nn.Module) -> Mapping[str, float]:
            return {"score": 1.0}

    config = TrainConfig(**{**CONFIG.__dict__, "patience": 2, "steps": 1000})
    assert fit(Flat(), config, tmp_path, progress=False).steps == 60


def test_captures_are_cut_at_invalid_frames(capture: Path) -> None:
    runs = read_captures(capture, "train")
    assert [len(r.body_pose) for r in runs] == [100, 137] * 4
    with pytest.raises(KinflowError):
        read_captures(capture, "nonsense")


def test_augmentations() -> None:
    rotmat = rotvec_to_rotmat(torch.randn(3, 21, 3))
    torch.testing.assert_close(mirror_body(mirror_body(rotmat)), rotmat)
    both = exchange(rotmat[:1], rotmat[1:2])
    assert torch.equal(both[0, 0], rotmat[1, 0]) and torch.equal(both[0, 15], rotmat[0, 15])
    assert torch.equal(mirror_root(mirror_root(torch.ones(6))), torch.ones(6))


def test_flow_learns(capture: Path) -> None:
    config = FlowTrainingConfig(FlowConfig(layers=2, hidden=16, bins=4), TrainConfig(batch=64), exchange=0.0)
    task = FlowTask(config, read_captures(capture, "train"), read_captures(capture, "validation"), torch.device("cpu"))
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(task.module.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss, _ = task.loss(task.draw(rng))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:5]) - 1


def test_commands(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flow, then dynamics in its latents, from the command line; resuming; and errors with their exit codes."""
    common = ["--data", str(capture), "--device", "cpu", "--quiet", "--set", "train.steps=4", "--set",
              "train.validate_every=2", "--set", "train.batch=8", "--set", "train.warmup=1"]  # fmt: skip
    flow = ["flow", *common, "--out", str(tmp_path / "flow"), "--set", "model.layers=2", "--set", "model.hidden=8"]
    assert main(flow) == 0
    assert main([*flow, "--resume", "--set", "train.steps=6"]) == 0
    weights = tmp_path / "flow" / "flow.safetensors"
    assert load_flow(weights).config.layers == 2 and "licence" in weights.with_suffix(".md").read_text()
    sizes = [f"model.{k}=8" for k in ("hidden", "ode_hidden", "head_hidden", "rank")]
    extra = [
        x for s in (*sizes, f"flow={weights}", "frames=8", "noise_share=0.5", "exchange=0.5") for x in ("--set", s)
    ]
    assert main(["dynamics", *common, "--out", str(tmp_path / "dynamics"), *extra]) == 0
    assert load_dynamics(tmp_path / "dynamics" / "dynamics.safetensors").config.hidden == 8
    capsys.readouterr()

    assert main(["flow", "--data", str(tmp_path / "none.npz")]) == 3
    assert main([*flow, "--set", "model.layer=3"]) == 2
    assert main([*flow, "--set", "model.coupling=round"]) == 2
    assert main([*flow, "--device", "abacus"]) == 2
    error = capsys.readouterr().err
    assert "tools/prepare_mocap.py" in error and "Did you mean model.layers" in error and "abacus" in error
    with pytest.raises(SystemExit) as stop:
        main(["nothing"])
    assert stop.value.code == 2


ROOT = Path(__file__).parents[1]
TINY = {
    "flow": ("layers=1", "hidden=8", "bins=4"),
    "dynamics": ("hidden=8", "ode_hidden=6", "head_hidden=8", "rank=2"),
    "denoiser": ("width=12", "hidden=8", "layers=1", "heads=2"),
    "sides": ("width=8",),
    "lifter": ("part_width=16", "whole_width=16", "blocks=1"),
    "reconstructor": ("width=16", "recurrent=8", "head_width=8"),
}
SAYS = {
    "flow": ("normalizing flow", "8 runs of motion capture", "| validation, nats a pose | -1.50 |"),
    "dynamics": (
        "in the chart of flow",
        "8 runs of motion capture",
        "| validation, nats a frame | 12hz ",
        "central 50 / 90 | 12hz ",
    ),
    "denoiser": ("bidirectional denoiser", "8 runs of motion capture", "regression's | nll_12hz 2.00 |"),
    "sides": ("left and right", "2 rendered, perceived clips, 40 frames", "| validation | nll_12hz 2 |"),
    "lifter": ("landmarks in 3D", "2 rendered, perceived clips, 40 frames", "| validation, mm | score 1.5"),
    "reconstructor": ("frame encoder", "of motion capture, projected (see NOTICE)", "| flow fingerprint |"),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_each_training_leaves_weights_with_a_card(
    network: str, capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the loop: a card that cannot be written would come to light after hours."""
    result = FitResult(1.5, 3, 4, 0.5, {"score": 1.5, "nll_12hz": 2.0})
    monkeypatch.setattr("kinflow.training.run.fit", lambda *_, **__: result)
    monkeypatch.setattr("kinflow.training.tasks.denoiser.validation_sets", lambda *_: {})
    monkeypatch.setattr("kinflow.training.tasks.denoiser.DenoiserTask._fit_regression", lambda _: None)
    settings = [*(f"model.{s}" for s in TINY[network]), "train.batch=4"]
    settings += ["projection.frames=8", "validation=2"] if network == "reconstructor" else []
    if network in ("sides", "lifter", "reconstructor"):
        clips = [seen_clip(np.zeros((33, 3), np.float32), seed) for seed in range(3)]
        clips = [dataclasses.replace(c, has_world=c.observed) for c in clips]
        clips[2] = dataclasses.replace(clips[2], source=load_clips(capture, "validation")[0].name)
        save_perceived(tmp_path / "perceived.npz", clips)
    if network in ("sides", "lifter"):
        settings.append(f"perceived={tmp_path / 'perceived.npz'}")
    if network == "reconstructor":
        small = LifterConfig(part_width=8, whole_width=8)
        save_weights(tmp_path / "small.safetensors", Lifter(small), small, {})
        settings.append(f"lifter={tmp_path / 'small.safetensors'}")
    path = run_training(training_of(network), capture, tmp_path, overrides=settings, device="cpu", progress=False)
    state, config, header = load_weights(path)
    assert path == tmp_path / f"{network}.safetensors" and state
    assert config[TINY[network][0].split("=")[0]] == int(TINY[network][0].split("=")[1])
    text = path.with_suffix(".md").read_text()
    assert all(
        said in text for said in (*SAYS[network], "mocap.npz: ", "| training | 0.5 min, 4 steps, best at 3, cpu |")
    )
    assert list(header["card"])[:2] == ["what", "data"] and list(header["card"])[-1] == "licence"


def test_the_commands_help_needs_no_torch() -> None:
    code = (
        "import sys, kinflow.cli.train as c; c.parser().format_help(); "
        "print([m for m in sys.modules if m == 'torch' or m.startswith('kinflow.training.tasks.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
