"""Options of a run: one record, the same keywords everywhere, nothing out of range and nothing twice."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kinflow
from kinflow.apps import options as module
from kinflow.config import PipelineConfig, VideoConfig
from kinflow.errors import UsageError
from kinflow.video import VideoWriter


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"max_people": 0}, "max_people"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"body": "smpl"}, "licensed"),
        ({"body_path": "x.npz"}, "open body"),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        kinflow.RunOptions(**wrong)


@pytest.mark.parametrize("function", [kinflow.run, kinflow.reconstruct])
def test_functions_take_the_fields_as_keywords(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    for field in inspect.signature(kinflow.RunOptions).parameters.values():
        assert parameters[field.name] == field.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    with pytest.raises(TypeError, match="refin"):
        function("nowhere.mp4", refin=True)


def test_keywords_are_typed_as_the_record_is() -> None:
    source = inspect.getsource(module)
    typed = source[source.index("class RunKeywords") : source.index("BodyName =")]
    lines = [line.strip() for line in typed.splitlines() if line.startswith("        ") and '"""' not in line]
    assert lines == [f"{f.name}: {f.type}" for f in dataclasses.fields(kinflow.RunOptions)]


def test_settings_of_an_open_clip_are_not_given_twice(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "empty.mp4", (64, 48), 10) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
    clip = kinflow.Clip.open(tmp_path / "empty.mp4", config=VideoConfig(threads=1))
    with pytest.raises(UsageError, match=r"config\.video"):
        kinflow.run(clip, config=PipelineConfig(video=VideoConfig(threads=2)))
    for config in (PipelineConfig(), PipelineConfig(video=VideoConfig(threads=1))):
        with pytest.raises(kinflow.KinflowError, match="nobody"):
            kinflow.run(clip, config=config, device="cpu")
