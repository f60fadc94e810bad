"""Strict reading of configurations: defaults, then a YAML file, then ``key=value`` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..errors import ConfigError

C = TypeVar("C")


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
        ConfigError: unknown key or wrong type.
    """
    base = cls() if base is None else base
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{_path}{key}"
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f" Did you mean {_path}{near[0]}?" if near else f" Known: {', '.join(sorted(fields)) or 'none'}."
            raise ConfigError(f"{name}: no such setting.{hint}")
        out[key] = _coerce(name, value, hints[key], getattr(base, key))
    return dataclasses.replace(base, **out)  # type: ignore[type-var]


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
        except yaml.YAMLError as error:
            raise ConfigError(f"{yaml_path}: not YAML ({str(error).splitlines()[0]}).") from error
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
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: {text!r} is not a YAML value.") from error
    return from_dict(cls, values)


def _coerce(name: str, value: Any, hint: Any, default: Any = None) -> Any:
    """Check ``value`` against the type ``hint``; an int where a float is wanted, or a list for a tuple, is fine."""
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: expected a group of settings, got {value!r}.")
        return from_dict(typing.cast(type, hint), value, default, f"{name}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _coerce(name, value, next(a for a in args if a is not type(None)))
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{name}: expected one of {', '.join(map(str, args))}, got {value!r}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}: expected a list, got {value!r}.")
        if args[-1:] != (Ellipsis,) and len(args) != len(value):
            raise ConfigError(f"{name}: expected {len(args)} values, got {len(value)}.")
        kinds = [args[0]] * len(value) if args[-1:] == (Ellipsis,) else args
        return tuple(_coerce(f"{name}[{i}]", v, k) for i, (v, k) in enumerate(zip(value, kinds, strict=True)))
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{name}: expected float, got {value!r}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name}: expected {hint.__name__}, got {value!r}.")
    return value
