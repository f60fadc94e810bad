"""Types and ranges of settings, declared at the field and checked whenever a configuration is made.

>>> import dataclasses
>>> @dataclasses.dataclass(frozen=True)
... class Paint(Config):
...     opacity: Share = 0.8
>>> Paint(opacity=7)
Traceback (most recent call last):
    ...
kinflow.errors.ConfigError: opacity: expected 0 to 1, got 7.0. The default is 0.8.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Annotated, Any

from ..errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included unless ``above``: then ``low`` itself is not. Never NaN or inf.

    On a tuple it holds for each number; with ``rising`` none is below the one before.
    """

    low: float
    high: float
    above: bool = False
    rising: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"{'above ' * self.above}{self.low:.12g} {'and up ' * self.above}to {self.high:.12g}"


Share = Annotated[float, Range(0, 1)]
"""A share, a probability, or a threshold on one."""
Rate = Annotated[float, Range(0, 1 - 1e-6)]
"""A share that leaves something: of units dropped, of an average kept."""
Weight = Annotated[float, Range(0, 1e6)]
"""Of a loss; 0 leaves its term out."""
Positive = Annotated[float, Range(0, 1e6, above=True)]
"""A length, time, angle or scale that cannot be 0."""
Magnitude = Annotated[float, Range(0, 1e6)]
"""A length, time, angle or standard deviation; 0 means none of it."""
Span = Annotated[tuple[float, float], Range(0, 1e6, above=True, rising=True)]
"""Smallest and largest of what is drawn log-uniformly."""
Count = Annotated[int, Range(1, 1_000_000)]
CountOrNone = Annotated[int, Range(0, 1_000_000)]
"""A count that may be 0: none, or no limit, as the setting says."""
Width = Annotated[int, Range(1, 16_384)]
"""Units of a layer."""
Layers = Annotated[int, Range(1, 256)]
Threads = Annotated[int, Range(0, 1024)]
Frames = Annotated[int, Range(2, 100_000)]
"""Of a window; one frame has no motion."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of the configurations: the values have the fields' types and lie in their ranges, or are refused by name.

    Raises:
        ConfigError: another type, NaN or inf, or a number out of the field's range.
    """

    def __post_init__(self) -> None:
        for name, (hint, default) in fields_of(type(self)).items():  # type: ignore[arg-type]
            object.__setattr__(self, name, checked(name, getattr(self, name), hint, default))


@functools.cache
def fields_of(cls: Any) -> dict[str, tuple[Any, Any]]:
    """Type, with its range, and default of each field of a configuration."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(cls)}


def checked(name: str, value: Any, hint: Any, default: Any = dataclasses.MISSING) -> Any:
    """``value`` as ``hint`` wants it: an int where a float is wanted, or a list for a tuple, is fine.

    Raises:
        ConfigError: another type, or a number out of the hint's :class:`Range`; it names the default.
    """
    try:
        return _fitting(name, value, hint)
    except ConfigError as error:
        remedy = "" if default is dataclasses.MISSING else f" The default is {default}."
        raise ConfigError(f"{error}{remedy}") from None


def _fitting(name: str, value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _fitting(name, value, args[0])
        for numbers in args[1:]:
            _within(name, value, numbers)
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _fitting(name, value, next(a for a in args if a is not type(None)))
    if origin is typing.Literal:
        if not any(value == a and type(value) is type(a) for a in args):
            raise ConfigError(f"{name}: expected one of {', '.join(map(str, args))}, got {value!r}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}: expected a list, got {value!r}.")
        if args[-1:] != (Ellipsis,) and len(args) != len(value):
            raise ConfigError(f"{name}: expected {len(args)} values, got {len(value)}.")
        kinds = [args[0]] * len(value) if args[-1:] == (Ellipsis,) else args
        return tuple(_fitting(f"{name}[{i}]", v, k) for i, (v, k) in enumerate(zip(value, kinds, strict=True)))
    if hint is float and isinstance(value, (str, int)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text
        except (ValueError, OverflowError):
            raise ConfigError(f"{name}: expected float, got {str(value)[:40]!r}.") from None
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name}: expected {hint.__name__}, got {str(value)[:40]!r}.")
    return value


def _within(name: str, value: Any, numbers: Range) -> None:
    if isinstance(value, tuple):
        for i, one in enumerate(value):
            _within(f"{name}[{i}]", one, numbers)
        if numbers.rising and sorted(value) != list(value):
            raise ConfigError(f"{name}: expected the smallest first, got {list(value)}.")
    elif value not in numbers:
        raise ConfigError(f"{name}: expected {numbers}, got {value}.")
