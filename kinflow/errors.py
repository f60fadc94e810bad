"""Exceptions, and the checks of shapes and paths.

Every error a user can cause is a :class:`KinflowError`: one line that says what was wrong and what to do about it.
Each class carries the exit code with which the commands end (0 fine, 1 failed on the machine's side, 2 usage,
3 missing asset, 4 unreadable video, 5 nobody found, 6 something that was left out: clips of many, data of a benchmark,
7 an adaptation that did not help).
"""

from __future__ import annotations

import numbers
import os
from pathlib import Path
from typing import Any


class KinflowError(Exception):
    """Base of all errors that kinflow raises on purpose."""

    exit_code = 1


class UsageError(KinflowError, ValueError):
    """An argument that cannot be used as given."""

    exit_code = 2


class ShapeError(UsageError):
    """An array whose shape, type or values are not what was asked for."""


class FormatError(UsageError):
    """A file whose content is not what was asked for, or does not belong with the others."""


class ConfigError(UsageError):
    """A configuration key or value that does not exist or does not fit."""


class MissingAssetError(KinflowError, FileNotFoundError):
    """A packaged or user-supplied model file that is not there."""

    exit_code = 3


class VideoError(KinflowError):
    """A clip that cannot be read."""

    exit_code = 4


class NobodyFoundError(KinflowError):
    """A clip in which no person was found for long enough."""

    exit_code = 5


class IncompleteError(KinflowError):
    """Work on many things, clips or a benchmark's data, some of which could not be done; the rest was."""

    exit_code = 6


class NotBetterError(KinflowError):
    """An adaptation after which what was held out was seen no better than before; the weights stay as they were."""

    exit_code = 7


class OutputError(KinflowError, OSError):
    """A result that could not be written (no permission, disk full)."""


def check_shape(name: str, value: Any, pattern: str, remedy: str = "") -> dict[str, int]:
    """Check the shape of an array or tensor once, at a module's boundary.

    Args:
        name: the argument's name, for the message.
        value: anything with a ``shape``.
        pattern: space-separated dimensions: an integer must match, a name binds (the same name must match the same
            size), a leading ``...`` admits any leading dimensions.
        remedy: what the caller should do about it.

    Returns:
        The sizes bound to the pattern's names.

    Raises:
        ShapeError: naming the argument, what was expected, what was given, and the remedy.

    >>> import numpy as np
    >>> check_shape("body_pose", np.zeros((4, 23, 3)), "T 23 3")
    {'T': 4}
    """
    shape = getattr(value, "shape", None)
    if shape is None:
        raise ShapeError(
            f"{name}: expected an array of shape ({pattern}), got {type(value).__name__}. {remedy}".strip()
        )
    got = tuple(int(s) for s in shape)
    want = pattern.split()
    tail = want[1:] if want and want[0] == "..." else want
    bound: dict[str, int] = {}
    fits = len(got) >= len(tail) if want[:1] == ["..."] else len(got) == len(tail)
    if fits:
        for size, dim in zip(got[len(got) - len(tail) :], tail, strict=True):
            expected = int(dim) if dim.lstrip("-").isdigit() else bound.setdefault(dim, size)
            fits = fits and size == expected
    if not fits:
        raise ShapeError(f"{name}: expected shape ({', '.join(want)}), got {got}. {remedy}".strip())
    return bound


def check_type(name: str, value: Any, kind: type, remedy: str = "") -> None:
    """Check that a value is of a class; ``numbers.Integral`` and ``numbers.Real`` take numpy's numbers, and no booleans.

    Raises:
        UsageError: it is not.

    >>> check_type("samples", "many", numbers.Integral, "Say how many.")
    Traceback (most recent call last):
        ...
    kinflow.errors.UsageError: samples: expected a whole number, got 'many'. Say how many.
    """
    counted: dict[type, str] = {numbers.Integral: "a whole number", numbers.Real: "a number"}
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in counted):
        wanted = counted.get(kind, kind.__name__)
        shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
        raise UsageError(f"{name}: expected {wanted}, got {shown}. {remedy}".strip())


def check_path(name: str, value: Any) -> Path:
    """A path from what a user gave as one.

    Raises:
        UsageError: neither text nor a path.

    >>> check_path("clip", "clip.mp4").suffix
    '.mp4'
    """
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name}: expected the path of a file or folder, got {value!r}.")
    return Path(value)
