"""TensorBoard's event files beside log.csv."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from line_training import CONFIG, Line

from kinflow.errors import MissingAssetError
from kinflow.training.logs import FOLDER, Log
from kinflow.training.loop import fit

events = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
)


def read(out: Path) -> Any:
    found = events.EventAccumulator(str(out / FOLDER))
    found.Reload()
    return found


def logged(out: Path, name: str) -> list[tuple[int, float]]:
    with (out / "log.csv").open(newline="") as stream:
        return [(int(float(row["step"])), float(row[name])) for row in csv.DictReader(stream) if row[name]]


def test_tensorboard_shows_what_the_log_has(tmp_path: Path) -> None:
    """Of a training that broke off after a validation and went on: steps taken twice are there once."""
    with pytest.raises(KeyboardInterrupt):
        fit(Line(stop_after=37), CONFIG, tmp_path, progress=False, tensorboard=True)
    fit(Line(), CONFIG, tmp_path, resume=True, progress=False, tensorboard=True)
    found = read(tmp_path)
    names = {f"train/{n}": n for n in ("loss", "lr", "grad_norm", "rms", "minutes")} | {"validation/score": "val_score"}
    assert set(found.Tags()["scalars"]) == set(names)
    for tag, name in names.items():
        expected = dict(logged(tmp_path, name))
        shown = {e.step: e.value for e in found.Scalars(tag)}
        assert len(found.Scalars(tag)) == len(shown)
        if name != "minutes":
            assert shown == pytest.approx(expected, rel=1e-5)
    text = found.Tensors("configuration/text_summary")
    assert len(text) == 1 and b"lr: 0.02" in text[0].tensor_proto.string_val[0]


def test_another_training_into_the_same_folder_hides_the_first(tmp_path: Path) -> None:
    fit(Line(), CONFIG, tmp_path, progress=False, tensorboard=True)
    fit(Line(), dataclasses.replace(CONFIG, steps=20), tmp_path, progress=False, tensorboard=True)
    assert [e.step for e in read(tmp_path).Scalars("train/loss")] == [10, 20]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    with Log(tmp_path / "none", 0, tensorboard=True, active=False) as rows:
        rows.write({"step": 1, "loss": 2.0})
    assert not list(tmp_path.iterdir())


def test_nothing_unless_asked_for_and_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, steps=1)
    fit(Line(), config, tmp_path / "quiet", progress=False)
    assert not (tmp_path / "quiet" / FOLDER).exists()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingAssetError, match=r"kinflow\[tensorboard\]"):
        fit(Line(), config, tmp_path / "asked", progress=False, tensorboard=True)


def test_inference_imports_neither() -> None:
    code = "import sys, kinflow.apps.video, kinflow.prior, kinflow.apps.bench; print([m for m in sys.modules if m.split('.')[0] in ('lightning_fabric', 'tensorboard')])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert out.stdout.strip() == "[]"
