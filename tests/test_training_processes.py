"""Training in several processes on the CPU, and what ``--devices`` and its kin refuse."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_training import CONFIG
from swings import save_swings
from torch import Tensor

from kinflow.assets.weights import load_weights
from kinflow.cli.train import main
from kinflow.config import FlowTrainingConfig, load_config
from kinflow.errors import MissingAssetError, UsageError
from kinflow.training.loop import fit, process_generator, seed_everything
from kinflow.training.poses import read_captures
from kinflow.training.processes import launch
from kinflow.training.tasks.flow import FlowTask

TESTS = Path(__file__).parent
SETTINGS = ("model.layers=2", "model.hidden=8", "model.bins=4", "model.dropout=0", "train.steps=4", "train.batch=16",
            "train.warmup=1", "train.validate_every=2", "train.log_every=1")  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    """Ours, as if no launcher had started this process."""
    mine = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "NODE_RANK")}
    return {**mine, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1", **more}


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment(**env), timeout=300, check=False
    )


def flow_command(capture: Path, out: Path, *more: str) -> list[str]:
    settings = [x for setting in SETTINGS for x in ("--set", setting)]
    return ["-m", "kinflow.cli.train", "flow", "--data", str(capture), "--out", str(out), "--device", "cpu", "--quiet",
            *settings, *more]  # fmt: skip


def column(out: Path, name: str) -> list[float]:
    with (out / "log.csv").open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row.get(name)]


class Doubled(FlowTask):
    """One process that draws what two draw."""

    def draw(self, rng: np.random.Generator) -> Tensor:
        if not hasattr(self, "other"):
            self.other = process_generator(self.config.train.seed, 1)
        return torch.cat((super().draw(rng), super().draw(self.other)))

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Numbers for the log are means over the processes."""
        spreads = [super(Doubled, self).loss(half)[1]["log_prob_std"] for half in batch.chunk(2)]
        return super().loss(batch)[0], {"log_prob_std": (spreads[0] + spreads[1]) / 2}


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_swings(tmp_path_factory.mktemp("capture") / "mocap.npz")


def test_two_processes_are_one_with_twice_the_batch(capture: Path, tmp_path: Path) -> None:
    config = load_config(FlowTrainingConfig, None, SETTINGS)
    seed_everything(0)
    task = Doubled(config, read_captures(capture, "train"), read_captures(capture, "validation"), torch.device("cpu"))
    expected = fit(task, config.train, tmp_path / "one", progress=False)

    done = run(*flow_command(capture, tmp_path / "two", "--devices", "2"))
    assert done.returncode == 0, done.stderr
    spoken = [
        line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")
    ]  # torch 2.8 itself speaks there
    assert spoken == [str(tmp_path / "two" / "flow.safetensors")]  # the first process alone
    for name in ("loss", "grad_norm", "log_prob_std", "val_score"):
        one, two = column(tmp_path / "one", name), column(tmp_path / "two", name)
        assert len(one) == (2 if name == "val_score" else 4)
        assert two == pytest.approx(one, rel=1e-5)
    state, _, header = load_weights(tmp_path / "two" / "flow.safetensors")
    assert "2 processes on cpu" in header["card"]["training"] and expected.step == 4
    for name, value in task.module.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


def test_the_second_process_draws_other_batches() -> None:
    draws = [process_generator(0, rank, step).random() for rank, step in ((0, 0), (1, 0), (2, 0), (1, 5))]
    assert len(set(draws)) == 4 and draws[0] == np.random.default_rng(0).random()


@pytest.mark.slow
def test_two_processes_go_on_as_if_they_had_not_stopped(tmp_path: Path) -> None:
    """With dropout in each process and a parameter that some steps leave out; a third process joins later."""
    script = str(TESTS / "line_training.py")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out, devices, stop_after in ((whole, 2, 1000), (broken, 2, 47), (broken, 2, 1000)):
        done = run(script, str(out), str(devices), str(stop_after))
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(out / "result.pt", weights_only=True) for out in (whole, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert column(whole, "loss") == column(broken, "loss")
    # The two differ from each other in what they draw and leave out: a training in one process is another.
    assert run(script, str(tmp_path / "alone"), "1", "1000").returncode == 0
    assert column(tmp_path / "alone", "loss") != column(whole, "loss")
    assert len(torch.load(whole / "last.pt", weights_only=True)["others"]) == 1
    (broken / "last.pt").unlink()
    assert run(script, str(broken), "2", "25").returncode == 0
    assert run(script, str(broken), "3", "1000").returncode == 0
    assert len(torch.load(broken / "last.pt", weights_only=True)["others"]) == 2


@pytest.mark.slow
def test_two_machines(capture: Path, tmp_path: Path) -> None:
    """Two commands that find each other by address, as on two nodes; only the first one's folder is written."""
    port = str(processes_port())
    both = [
        subprocess.Popen(
            [sys.executable, *flow_command(capture, tmp_path / f"node{rank}", "--num-nodes", "2")],
            env=environment(NODE_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    ends = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], ends
    assert (tmp_path / "node0" / "flow.safetensors").is_file() and not list((tmp_path / "node1").glob("*"))


def processes_port() -> int:
    from lightning_fabric.plugins.environments.lightning import find_free_network_port

    return find_free_network_port()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"devices": 0}, "devices: expected at least 1, got 0"),
        ({"num_nodes": -1}, "num_nodes: expected at least 1, got -1"),
        ({"strategy": "fsdp"}, "strategy: expected one of auto, ddp"),
        ({"device": "cuda:1", "devices": 2}, "devices: expected 1 with the single device cuda:1"),
        ({"device": "cuda", "devices": 2}, "devices: expected at most 1, as many as are here, got 2"),
        ({"device": "meta"}, "device: expected cpu, cuda or mps"),
        ({"devices": 2}, "Run kinflow-train as a command"),
    ],
)
def test_processes_that_cannot_be(given: Mapping[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(UsageError, match=told):
        launch(CONFIG, **given)


def test_a_launchers_number_of_processes_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each of torchrun's processes would train alone, into one folder."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match=r"expected 4 processes.*got 1 on 1 node"):
        launch(CONFIG)


def test_without_fabric_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capture: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingAssetError, match=r"kinflow\[train\]"):
        launch(CONFIG)
    assert main(["flow", "--data", str(capture), "--out", str(tmp_path), "--device", "cpu", "--quiet"]) == 3


def test_precision_is_the_configurations(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag sets what the configuration has, and Fabric's autocast is that of the loss."""
    seen: list[bool] = []
    loss = FlowTask.loss

    def watched(self: FlowTask, batch: Tensor) -> Any:
        seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16)
        assert batch.dtype is torch.float32
        return loss(self, batch)

    monkeypatch.setattr(FlowTask, "loss", watched)
    arguments = flow_command(capture, tmp_path, "--set", "train.steps=1")[2:]
    assert main(arguments) == 0 and seen == [False]
    assert main([*arguments, "--precision", "bf16"]) == 0 and seen == [False, True]
    for gains in (True, False):
        monkeypatch.setattr("kinflow.devices.gains_by_bf16", lambda device, gains=gains: gains)
        assert main([*arguments, "--precision", "auto"]) == 0 and seen.pop() is gains
