"""The ablation: single frames stay single, rows go on from one another, and a table of small networks is measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_reconstructor import SMALL, observations
from test_perceived import captured, seen_clip

from kinflow.body import Body
from kinflow.evidence import Evidence
from kinflow.mocap.clips import save_clips
from kinflow.reconstruction.network import ReconstructionNetwork
from kinflow.training.streams.perceived import PerceivedClip, save_perceived

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import ablation
from accuracy import POINTS, Case

TINY = ("model.width=16", "model.blocks=1", "model.recurrent=8", "model.head_width=8", "model.align.iterations=2",
        "validation=2", "train.warmup=1", "projection.frames=8")  # fmt: skip


def test_single_frames_know_nothing_of_each_other() -> None:
    network = ReconstructionNetwork(dataclasses.replace(SMALL, pose_kernel=0.0)).double().eval()
    obs = observations(Body.open("light"), 1, 9)
    world = obs.world.clone()
    world[:, 4, 15] += 0.1
    other = dataclasses.replace(obs, world=world)

    def changed() -> torch.Tensor:
        with torch.no_grad():
            one, two = (network(o, dynamics=False)[0].chart.mean for o in (obs, other))
        return (one - two).abs().amax((0, 2)) > 1e-9

    assert changed().all()
    network.encoder = ablation.FrameEncoder(network.config).double()
    assert changed().tolist() == [i == 4 for i in range(9)]


def case_of(clip: PerceivedClip) -> tuple[Case, Evidence]:
    body = Body.open("light")
    betas, transl = torch.from_numpy(clip.betas)[None], torch.from_numpy(clip.transl)
    points = body.landmarks(betas, clip.pose_rotmat, transl)[:, POINTS]
    seen: Any = SimpleNamespace(K=torch.from_numpy(clip.K))
    return Case("walk", seen, points, np.arange(len(clip)), root=clip.pose_rotmat[:, 0]), clip.evidence()


def test_a_table_of_small_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = seen_clip(np.zeros((33, 3), np.float32), 0)
    clip = dataclasses.replace(clip, has_world=clip.observed, world_landmarks=clip.world_landmarks + 0.1)
    save_perceived(tmp_path / "clips.npz", [clip, dataclasses.replace(clip, source="held")])
    held = dataclasses.replace(captured(), name="held", subject="other", split="validation")
    save_clips(tmp_path / "mocap.npz", [captured(), held])
    case, evidence = case_of(clip)
    monkeypatch.setattr(ablation, "rendered", lambda *args: iter([case, case]))
    monkeypatch.setattr(ablation, "looked_at", lambda case: evidence)
    rows = {r.name: r for r in ablation.ROWS}
    kept = ("encoder of single frames", "+ recurrence, kernel over time", "perceived", "+ perceived clips")
    monkeypatch.setattr(ablation, "ROWS", tuple(rows[name] for name in kept))
    out = tmp_path / "out"
    command = ["--data", str(tmp_path / "mocap.npz"), "--perceived", str(tmp_path / "clips.npz"), "--out", str(out),
               "--steps", "1", "--more", "1", "--batch", "2", "--rendered", "2", "--seeds", "0", "1",
               *(part for s in TINY for part in ("--set", s))]  # fmt: skip
    assert ablation.main([*command, "--train-only"]) == 0
    files = sorted(out.iterdir())
    assert [f.name for f in files] == [f"row{row:02d}_seed{seed}.safetensors" for row in range(4) for seed in (0, 1)]
    before, after = load_file(files[4]), load_file(files[6])  # of seed 0: the last row goes on from the one before
    name = "encoder.inputs.weight"
    assert 0 < (before[name] - after[name]).abs().max() < 0.01 < before[name].abs().max()
    trained = [f.stat().st_mtime_ns for f in files]
    assert ablation.main(command) == 0
    assert trained == [f.stat().st_mtime_ns for f in files]  # not again
    lines = [line.split(" | ") for line in (out / "ablation.md").read_text().splitlines() if line.startswith("| ")]
    names = [line[0].removeprefix("| ") for line in lines[1:]]
    assert names[:3] == [kept[0], kept[1], kept[3]] and len(names) == 6
    assert float(lines[1][1].split(" ")[0]) > 50  # an untrained network
    (table,) = json.loads((out / "ablation.json").read_text()).values()
    best = table["(hypotheses, chosen by the truth)|fitted"][0]
    assert all(b["PA-MPJPE"] <= f["PA-MPJPE"] + 1e-6 for b, f in zip(best, table[f"{kept[3]}|fitted"][0], strict=True))
    assert len(table[f"{kept[0]}|network"]) == 2 and "+ refinement (parts, flow, dynamics)|fitted" in table
