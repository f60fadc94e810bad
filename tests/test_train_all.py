"""tools/train_all.py, rehearsed on the CPU with small networks on a small capture."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from swings import save_swings
from test_perceived import seen_clip

from kinflow.assets.weights import load_weights
from kinflow.mocap.clips import load_clips
from kinflow.training.streams.perceived import save_perceived

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import train_all as tool  # noqa: E402

SMALL = (
    *(f"{s}:train.batch=4" for s in ("flow", "sides", "lifter", "dynamics", "encoder", "reconstructor", "denoiser")),
    *(f"flow:model.{x}" for x in ("layers=1", "hidden=8", "bins=4")),
    *(f"lifter:model.{x}" for x in ("part_width=8", "whole_width=8", "overview=4", "blocks=1")),
    *(f"dynamics:model.{x}" for x in ("hidden=8", "ode_hidden=6", "head_hidden=8", "rank=2")),
    *(f"{s}:frames=8" for s in ("dynamics", "denoiser")),
    *(f"{s}:{x}" for s in ("encoder", "reconstructor")
      for x in ("model.width=16", "model.recurrent=8", "model.head_width=8", "projection.frames=8", "validation=2")),
    "sides:model.width=8", "sides:projection.frames=8", "denoiser:model.width=12", "denoiser:model.hidden=8", "denoiser:model.layers=1", "denoiser:model.heads=2",
    "denoiser:model.overview=4", "denoiser:model.mix=2",
)  # fmt: skip


def test_shares_and_configurations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert 0.1 < tool.PERCEIVED_SHARE < 0.4
    for stage in tool.STAGES:
        assert (ROOT / "configs" / f"{stage.config}.yaml").is_file()
        assert stage.packaged is None or stage.packaged in tool.KEPT
    for arguments, said in ((["--mocap", "no.npz", "--mocap120", "no.npz"], "prepare_mocap"),
                            (["--mocap", "x", "--mocap120", "x", "--set", "train.steps=1"], "name of no stage")):  # fmt: skip
        with pytest.raises(SystemExit):
            tool.main(arguments)
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """Everything from rendering to weights, broken off and gone on with."""
    mocap, out = save_swings(tmp_path / "mocap.npz"), tmp_path / "all"
    clips = [seen_clip(np.zeros((33, 3), np.float32), seed) for seed in range(3)]
    held = load_clips(mocap, "validation")[0].name
    save_perceived(out / "perceived" / "made.npz", [*clips[:2], dataclasses.replace(clips[2], source=held)])
    common = ["--mocap", str(mocap), "--mocap120", str(mocap), "--out", str(out), "--minutes", "0.02", "--device", "cpu",
              "--processes", "1", "--clips", "1", "--frames", "20", *(x for s in SMALL for x in ("--set", s))]  # fmt: skip
    assert tool.main([*common, "--only", "flow"]) == 0
    before = (out / "weights" / "flow.safetensors").stat().st_mtime_ns
    assert tool.main(common) == 0
    assert (out / "weights" / "flow.safetensors").stat().st_mtime_ns == before, "what is finished is not done again"
    for name in tool.KEPT:
        state, _, _ = load_weights(out / "weights" / f"{name}.safetensors")
        assert state and (out / "weights" / f"{name}.md").is_file()
    assert len(list((out / "perceived").glob("train_*.npz"))) >= 1
