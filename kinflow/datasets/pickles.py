"""Pickles of arrays, read without running anything in them.

A pickle is a program: it may ask for any function by name and call it. Here no name leads to anything of Python's or numpy's:
those that arrays are pickled with lead to stand-ins which note what they were given, every other name ends the reading, and
arrays are built afterwards, from checked types and raw bytes. joblib's files, in which arrays stand raw between the pickle's
instructions, are read in the same way. (numpy's own ``dtype`` and ``ndarray`` would do for honest files,
but a crafted type description makes them read foreign memory.)
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, MissingAssetError, ShapeError

_TYPES = re.compile(r"[<>|=]?([?bBhHiIlLqQefdFD]|[biufc](1|2|4|8|16)|[SU]\d{1,6}|O8?)")


class _Type:
    """A numpy type by its name and byte order; fields, subarrays and flags are refused."""

    def __init__(self, name: Any) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else str(name)
        if not _TYPES.fullmatch(self.name):
            raise pickle.UnpicklingError(f"arrays of type {self.name[:20]!r} are not read")
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
            raise pickle.UnpicklingError("arrays of records are not read")
        self.order = order

    @property
    def plain(self) -> np.dtype[Any]:
        kind = np.dtype(self.name)
        return kind.newbyteorder("<") if self.order == "<" else kind.newbyteorder(">") if self.order == ">" else kind


class _Array:
    """An array's shape, type and bytes."""

    def __init__(self, shape: Any = (), kind: Any = None, raw: Any = None, fortran: bool = False) -> None:
        self.shape, self.kind, self.raw, self.fortran = shape, kind, raw, fortran

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.kind, self.fortran, self.raw = state

    def plain(self, inner: Callable[[Any], Any]) -> Any:
        if not isinstance(self.kind, _Type):
            raise pickle.UnpicklingError("an array without a type")
        shape = tuple(int(n) for n in self.shape)
        kind = self.kind.plain
        if kind.hasobject:
            if not isinstance(self.raw, list) or len(self.raw) != math.prod(shape):
                raise pickle.UnpicklingError("an array of objects without its objects")
            out = np.empty(len(self.raw), object)
            for i, item in enumerate(self.raw):
                out[i] = inner(item)
        else:
            raw = self.raw.encode("latin1") if isinstance(self.raw, str) else bytes(self.raw)
            out = np.frombuffer(raw, kind).copy()
        return out.reshape(shape, order="F" if self.fortran else "C")


class _Name:
    """What a name in the pickle leads to: may be called, and is nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state for a function")


def _refuse(*args: Any) -> Any:
    raise pickle.UnpicklingError("an array that is made from code")


_NDARRAY = _Name(_refuse)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("an array of a class of its own")
    return _Array()


class _Scalar(_Array):
    """One number of numpy's."""


class _Beside(_Array):
    """joblib's: an array whose bytes follow the instruction that made it."""

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or state["subclass"] is not _NDARRAY:
            raise pickle.UnpicklingError("an array of a class of its own")
        self.shape, self.kind, self.fortran = state["shape"], state["dtype"], state["order"] == "F"
        self.padded = state.get("numpy_array_alignment_bytes") is not None

    def take(self, file: IO[bytes]) -> None:
        if not isinstance(self.kind, _Type) or self.kind.plain.hasobject:
            raise pickle.UnpicklingError("an array of objects beside the pickle")
        if self.padded:
            file.read(file.read(1)[0])
        size = math.prod(int(n) for n in self.shape) * self.kind.plain.itemsize
        self.raw = file.read(size)
        if len(self.raw) != size:
            raise pickle.UnpicklingError("it ends within an array")


def _mapping(make: Any = None) -> dict[Any, Any]:
    return {}


_CORE = {
    ("multiarray", "_reconstruct"): _Name(_reconstruct),
    ("multiarray", "scalar"): _Name(lambda kind, raw: _Scalar((), kind, raw)),
    ("numeric", "_frombuffer"): _Name(lambda raw, kind, shape, order: _Array(shape, kind, raw, order == "F")),
}
_NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name(lambda name, align=False, copy=False: _Type(name)),
    ("__builtin__", "bytes"): _Name(lambda: b""),  # how python 3 writes empty bytes for python 2
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Beside,
    ("collections", "defaultdict"): _Name(_mapping),
    ("builtins", "dict"): _Name(_mapping),
    ("_codecs", "encode"): _Name(lambda text, encoding="latin1": text.encode("latin1")),
    **{(f"numpy.{core}.{room}", name): it for core in ("core", "_core") for (room, name), it in _CORE.items()},
}


def _named(module: str, name: str) -> Any:
    if (module, name) not in _NAMES:
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, only numpy arrays are read")
    return _NAMES[module, name]


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _named(module, name)


class _JoblibUnpickler(pickle._Unpickler):  # type: ignore[name-defined]  # python's own, as joblib's
    """In Python, for it has to stop where an array's bytes begin."""

    stack: list[Any]

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        return _named(module, name)

    def build(self) -> None:
        self.load_build()  # type: ignore[attr-defined]
        if isinstance(self.stack[-1], _Beside):
            self.stack[-1].take(self.file)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: build}  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    """Stand-ins become arrays, in lists, tuples and dicts of any depth."""
    if isinstance(value, _Array):
        array = value.plain(_plain)
        return array[()].item() if isinstance(value, _Scalar) and array.shape == () else array
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    if type(value) is dict:
        return {_plain(k): _plain(v) for k, v in value.items()}
    if value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__} is no array, number or text")


def load_numpy_pickle(path: str | os.PathLike[str]) -> Any:
    """Load a pickle (python 2's or 3's) of arrays, numbers, texts, lists, tuples and dicts; nothing else is built or called.

    Raises:
        MissingAssetError: no such file.
        FormatError: damaged, or it asks for anything but arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such file.")
    try:
        with path.open("rb") as file:
            made_by_joblib = b"joblib.numpy_pickle" in file.read(4096)
            file.seek(0)
            reader = _JoblibUnpickler(file) if made_by_joblib else _ArrayUnpickler(file, encoding="latin1")
            return _plain(reader.load())
    except Exception as error:  # damaged pickles raise whatever their instructions lead to
        reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise FormatError(
            f"{path.name}: cannot be read as a pickle of arrays ({reason}). Download or copy the file again."
        ) from None


def finite_array(
    name: str, key: str, value: Any, shape: tuple[int | None, ...], dtype: Any = np.float64
) -> NDArray[Any]:
    """A field of a file as finite numbers of a shape, None being any length.

    Raises:
        ShapeError: it is none; the message says ``name`` of the file and ``key`` of the field.
    """
    try:
        out: NDArray[Any] = np.asarray(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name}: {key} cannot be read as numbers ({error}).") from None
    if out.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, out.shape, strict=True)):
        raise ShapeError(f"{name}: {key}: expected shape {shape}, got {out.shape}.")
    if not np.isfinite(out).all():
        raise ShapeError(f"{name}: {key}: expected finite numbers, got NaN or inf.")
    return out
