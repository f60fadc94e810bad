"""Strict reading of configurations: defaults, then a YAML file, then ``key=value`` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..errors import ConfigError
from .ranges import checked, fields_of

C = TypeVar("C")

_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, RecursionError)
"""What the parser raises: on bytes that are no UTF-8, dates that no calendar has, keys that are lists, deep nesting."""


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain nested dictionaries."""
    return dataclasses.asdict(config)


def config_hash(config: Any) -> str:
    """Twelve hexadecimal digits that change whenever a value does."""
    text = json.dumps(to_dict(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def from_dict(cls: type[C], values: dict[str, Any], base: C | None = None, _path: str = "") -> C:
    """Build a configuration from (nested) overrides; what is not named stays as in ``base``, the defaults.

    A group inside another keeps the outer one's defaults for it, which may differ from the group's own.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    base = cls() if base is None else base
    fields = fields_of(cls)  # type: ignore[arg-type]
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{_path}{key}"
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f" Did you mean {_path}{near[0]}?" if near else f" Known: {', '.join(sorted(fields)) or 'none'}."
            raise ConfigError(f"{name}: no such setting.{hint}")
        current = getattr(base, key)
        if not dataclasses.is_dataclass(current):
            out[key] = checked(name, value, fields[key][0], current)
        elif isinstance(value, type(current)):
            out[key] = value
        elif isinstance(value, dict):
            out[key] = from_dict(type(current), value, current, f"{name}.")
        else:
            raise ConfigError(f"{name}: expected a group of settings, got {value!r}.")
    try:
        return dataclasses.replace(base, **out)  # type: ignore[type-var]
    except ConfigError as error:  # settings that contradict each other
        raise ConfigError(f"{_path}{error}") from None


def load_config(cls: type[C], yaml_path: str | Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Defaults, then a YAML file, then ``key.sub=value`` overrides (values are read as YAML).

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong type, or an override without ``=``.
    """
    values: dict[str, Any] = {}
    if yaml_path is not None:
        try:
            values = yaml.safe_load(Path(yaml_path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{yaml_path}: cannot be read ({error.strerror}).") from error
        except _NOT_YAML as error:
            raise ConfigError(f"{yaml_path}: not YAML in UTF-8 ({str(error).splitlines()[0]}).") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{yaml_path}: expected settings as 'key: value', got {type(values).__name__}.")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: expected key=value, for example perception.max_people=2.")
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {parent} is a value, not a group.")
        try:
            node[last] = yaml.safe_load(text)
        except _NOT_YAML as error:
            raise ConfigError(f"--set {override}: {text!r} is not a YAML value.") from error
    return from_dict(cls, values)
