"""Configurations are strict and say what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from kinflow.config import (
    DenoiserTrainingConfig,
    DynamicsTrainingConfig,
    FlowTrainingConfig,
    LifterTrainingConfig,
    PipelineConfig,
    ReconstructorTrainingConfig,
    SidesTrainingConfig,
    config_hash,
    from_dict,
    load_config,
    to_dict,
)
from kinflow.errors import ConfigError

TRAININGS = {
    "flow": FlowTrainingConfig,
    "dynamics": DynamicsTrainingConfig,
    "denoiser": DenoiserTrainingConfig,
    "sides": SidesTrainingConfig,
    "lifter": LifterTrainingConfig,
    "reconstructor": ReconstructorTrainingConfig,
}


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    other: Inner = dataclasses.field(default_factory=lambda: Inner(rate=9.0))
    kind: Literal["a", "b"] = "a"
    limit: int | None = None
    name: str = "x"
    flag: bool = False


def test_defaults_yaml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("kind: b\ninner: {rate: 1e-3, sizes: [4]}\n")
    config = load_config(Outer, path, ["limit=7", "inner.sizes=[8, 9]"])
    assert config == Outer(Inner(0.001, (8, 9)), kind="b", limit=7)
    assert from_dict(Outer, to_dict(config)) == config
    assert config_hash(config) != config_hash(Outer()) == config_hash(Outer())


def test_a_group_keeps_the_defaults_its_owner_gives_it() -> None:
    assert load_config(Outer, None, ["other.sizes=[5]"]).other == Inner(9.0, (5,))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("knd=a", "Did you mean kind"),
        ("inner.rat=1", "Did you mean inner.rate"),
        ("kind=c", "expected one of a, b"),
        ("limit=many", "expected int"),
        ("limit=true", "expected int"),
        ("inner=3", "expected a group"),
        ("inner.sizes=3", "expected a list"),
        ("inner.rate=fast", "expected float"),
        ("kind", "expected key=value"),
        ("kind.a=1", "no such|expected"),
        ("name=[", "not a YAML value"),
    ],
)
def test_errors_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, None, [override])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Outer, tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(Outer, tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="key: value"):
        load_config(Outer, tmp_path / "list.yaml")


def test_every_default_of_the_pipeline_passes_its_own_check() -> None:
    assert from_dict(PipelineConfig, to_dict(PipelineConfig())) == PipelineConfig()


def test_files_in_configs_fit() -> None:
    folder = Path(__file__).parents[1] / "configs"
    for path in folder.glob("*.yaml"):
        load_config(TRAININGS[path.stem], path)
