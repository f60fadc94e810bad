"""Every number of every configuration has a range, and what lies outside is refused by the field's name."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any

import pytest

from kinflow import config
from kinflow.config import DenoiserConfig, PipelineConfig, ProjectionConfig, RenderConfig, TrainConfig, load_config
from kinflow.config.ranges import Config, Range, fields_of
from kinflow.errors import ConfigError

CONFIGS = [c for name in config.__all__ if dataclasses.is_dataclass(c := getattr(config, name))]


def numbers(hint: Any) -> tuple[type | None, Range | None, bool]:
    """Type, range, and whether it is a tuple, of a field that holds numbers; (None, None, False) of any other."""
    if type(None) in typing.get_args(hint) and typing.get_origin(hint) is not typing.Annotated:
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    args = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    kind = typing.get_args(args[0])[0] if typing.get_origin(args[0]) is tuple else args[0]
    found = next((a for a in args[1:] if isinstance(a, Range)), None)
    return (kind if kind in (int, float) else None), found, kind is not args[0]


WALK = [
    pytest.param(cls, name, *numbers(hint), id=f"{cls.__name__}.{name}")
    for cls in CONFIGS
    for name, (hint, _) in fields_of(cls).items()
    if numbers(hint)[0]
]


def test_every_configuration_checks_itself() -> None:
    assert len(CONFIGS) > 10 and len(WALK) > 100
    assert all(issubclass(cls, Config) for cls in CONFIGS)


@pytest.mark.parametrize(("cls", "name", "kind", "allowed", "many"), WALK)
def test_numbers_out_of_range_are_refused_by_name(cls: Any, name: str, kind: type, allowed: Range, many: bool) -> None:
    assert allowed is not None, "a number without a range"
    far = [-(10**30), 10**30] if kind is int else [math.nan, math.inf, -math.inf, 1e30, -1e30]
    base = cls()
    for value in [*far, *([allowed.low] if allowed.above else [])]:
        now = getattr(base, name)
        values = (value,) * len(now) if many else value
        with pytest.raises(ConfigError, match=rf"^{name}(\[0\])?: expected .*, got "):
            dataclasses.replace(base, **{name: values})
    for value in (allowed.high, *([] if allowed.above else [allowed.low])):
        if not many and kind is float:
            assert getattr(cls(**{name: value}), name) == value


@pytest.mark.parametrize("cls", CONFIGS)
def test_other_types_are_refused_by_name(cls: Any) -> None:
    for name in fields_of(cls):
        with pytest.raises(ConfigError, match=f"^{name}: expected"):
            cls(**{name: object()})


def test_a_refusal_says_where_and_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"^opacity: expected 0 to 1, got 7\.0\. The default is 0\.8\.$"):
        RenderConfig(opacity=7)
    with pytest.raises(ConfigError, match=r"^render\.opacity: expected 0 to 1, got 7\.0\. The default is 0\.8\.$"):
        load_config(PipelineConfig, None, ["render.opacity=7"])
    with pytest.raises(ConfigError, match=r"^fps: expected the smallest first, got \[60\.0, 5\.0\]"):
        ProjectionConfig(fps=(60, 5))
    with pytest.raises(ConfigError, match=r"^heads: expected a divisor of width \(128\), got 7"):
        DenoiserConfig(heads=7)
    with pytest.raises(ConfigError, match=r"^seed: expected 0 to 4294967295"):
        TrainConfig(seed=2**64)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a: \xe9", b"2024-13-45: 2024-99-99", b"? [a, b]\n: 1", b"[" * 3000, b"{[]: 1}"]
)
def test_files_that_are_no_yaml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml|no such setting"):
        load_config(PipelineConfig, tmp_path / "c.yaml")
