"""Frozen records of named arrays that check themselves and save to npz without pickle; the one door to npz files.

:class:`Record` is the base of :class:`kinflow.evidence.Evidence` and :class:`kinflow.motion.Motion`. Each field is
declared with :func:`array`, whose shape pattern, type and one-line description serve the check, the file and the
documentation alike. Every npz that kinflow reads, its own and other tools', comes through :func:`open_npz`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import numpy as np

from .errors import FormatError, KinflowError, MissingAssetError, OutputError, ShapeError, check_path, check_shape

R = TypeVar("R", bound="Record")


def array(shape: str, dtype: str, doc: str, *, optional: bool = False) -> Any:
    """Declare a record's array field: shape pattern of :func:`~kinflow.errors.check_shape`, numpy type, description."""
    metadata = {"shape": shape, "dtype": dtype, "doc": doc, "optional": optional}
    return dataclasses.field(default=None, metadata=metadata) if optional else dataclasses.field(metadata=metadata)


def scalar(kind: str, doc: str) -> Any:
    """Declare a record's scalar field (``"int"`` or ``"str"``)."""
    return dataclasses.field(metadata={"shape": "", "dtype": kind, "doc": doc, "optional": False})


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; rename it when the block ends well, remove it when it does not.

    Raises:
        OutputError: when the folder cannot be written or the disk is full.
    """
    path = check_path("path", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror}). Choose another folder.") from error
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(
                f"{path}: could not be written ({error.strerror}). Free space or choose another."
            ) from error
        raise


@contextlib.contextmanager
def reading(path: Path, what: str = "the file") -> Iterator[None]:
    """Whatever a reader of a foreign format raises in the block becomes a FormatError that names file and part.

    numpy, zipfile and zlib raise at least a dozen kinds of exceptions on damaged files (tokenize.TokenError and
    NotImplementedError among them) and promise none, so all are taken; keep the block to calls into such a library.

    Raises:
        FormatError: the file is damaged, or not what was asked for.
    """
    try:
        yield
    except KinflowError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise FormatError(
            f"{path.name}: {what}: expected plain arrays, got something that cannot be read ({reason}). Copy the file "
            "again; pickled objects are not loaded: save them as numbers, with numpy.savez."
        ) from error


class Npz:
    """The arrays of an open npz, unpacked as they are asked for; made by :func:`open_npz`."""

    def __init__(self, path: Path, file: np.lib.npyio.NpzFile) -> None:
        self.path, self._file = path, file
        self.keys: tuple[str, ...] = tuple(file.files)

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def __getitem__(self, key: str) -> np.ndarray:
        """Raises FormatError: no such member, one that is damaged, or one that is no plain array."""
        if key not in self.keys:
            raise FormatError(f"{self.path.name}: lacks {key}; it holds {', '.join(self.keys)[:200] or 'nothing'}.")
        with reading(self.path, key):
            value = self._file[key]
        if not isinstance(value, np.ndarray):  # numpy hands on members that are not arrays as bytes
            raise FormatError(f"{self.path.name}: {key}: expected an array, got {type(value).__name__}.")
        return value

    def numbers(self, key: str, shape: str = "...") -> np.ndarray:
        """A member that is of numbers or booleans and of this shape (:func:`~kinflow.errors.check_shape`)."""
        value = self[key]
        if value.dtype.kind not in "biuf":
            raise FormatError(f"{self.path.name}: {key}: expected numbers, got {value.dtype}.")
        check_shape(f"{self.path.name}: {key}", value, shape)
        return value

    def text(self, key: str) -> str:
        """A member that is one text."""
        value = self[key]
        if value.dtype.kind not in "US" or value.size != 1:
            raise FormatError(f"{self.path.name}: {key}: expected a text, got {value.dtype} {value.shape}.")
        with reading(self.path, key):
            item = value.item()
            return item.decode() if isinstance(item, bytes) else str(item)

    def texts(self, key: str) -> list[str]:
        """A member (N,) of texts."""
        value = self[key]
        if value.dtype.kind != "U" or value.ndim != 1:
            raise FormatError(f"{self.path.name}: {key}: expected texts (N), got {value.dtype} {value.shape}.")
        with reading(self.path, key):
            return [str(v) for v in value]

    def schema(self, expected: str) -> None:
        """Raises FormatError unless the member ``schema`` is the one expected."""
        found = self.text("schema") if "schema" in self else "unknown"
        if found != expected:
            raise FormatError(
                f"{self.path.name}: expected schema {expected}, got {found}. Write it anew with this version."
            )


@contextlib.contextmanager
def open_npz(path: str | Path) -> Iterator[Npz]:
    """Open an npz of plain arrays. Members are read as they are asked for, so what nobody asks for may be anything.

    Raises:
        MissingAssetError: no such file.
        FormatError: not an npz; and, from the :class:`Npz`, members that are damaged, missing or of another kind.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such file.")
    with reading(path):
        file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise FormatError(
            f"{path.name}: expected an npz of named arrays, got a single array. Save it with numpy.savez."
        )
    with file:
        yield Npz(path, file)


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of the records: checked on construction, saved and loaded as npz."""

    SCHEMA: ClassVar[str] = ""

    def __post_init__(self) -> None:
        sizes: dict[str, tuple[str, int]] = {}
        for field in dataclasses.fields(self):
            meta, value = field.metadata, getattr(self, field.name)
            if meta["dtype"] in ("int", "str"):
                object.__setattr__(self, field.name, int(value) if meta["dtype"] == "int" else str(value))
                continue
            if value is None:
                if not meta["optional"]:
                    raise ShapeError(f"{field.name}: expected an array of shape ({meta['shape']}), got None.")
                continue
            value = np.asarray(value)
            for dim, size in check_shape(field.name, value, meta["shape"]).items():
                owner, known = sizes.setdefault(dim, (field.name, size))
                if known != size:
                    raise ShapeError(f"{field.name}: expected {dim} = {known} as in {owner}, got {size}.")
            if value.dtype.kind not in "biuf":
                raise ShapeError(f"{field.name}: expected {meta['dtype']}, got {value.dtype}.")
            value = np.ascontiguousarray(value, dtype=meta["dtype"])
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ShapeError(
                    f"{field.name}: expected finite values, got {np.count_nonzero(~np.isfinite(value))} NaN or inf."
                )
            object.__setattr__(self, field.name, value)
        times = getattr(self, "timestamps", None)
        if times is not None and not (np.diff(times) > 0).all():
            raise ShapeError(
                "timestamps: expected strictly increasing seconds. Sort the frames and drop repeated ones."
            )

    def save(self, path: str | Path) -> Path:
        """Write all fields to ``path`` (npz, compressed, no pickle), by a temporary name and a rename."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        with atomic_write(path) as stream:
            np.savez_compressed(stream, schema=self.SCHEMA, **{k: v for k, v in values.items() if v is not None})
        return Path(path)

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """Read a record written by :meth:`save`.

        Raises:
            MissingAssetError: no such file.
            FormatError: not an npz, another schema, or a field that is missing, damaged or does not fit.
        """
        with open_npz(path) as npz:
            npz.schema(cls.SCHEMA)
            values: dict[str, Any] = {}
            for f in dataclasses.fields(cls):
                kind = f.metadata["dtype"]
                if f.name in npz or not f.metadata["optional"]:
                    values[f.name] = npz.text(f.name) if kind == "str" else npz.numbers(f.name)
                if kind == "int":
                    if values[f.name].size != 1 or values[f.name].dtype.kind not in "iu":
                        raise FormatError(f"{npz.path.name}: {f.name}: expected one whole number.")
                    values[f.name] = values[f.name].item()
        try:
            return cls(**values)
        except ShapeError as error:
            raise FormatError(f"{npz.path.name}: {error}") from error

    @classmethod
    def describe(cls) -> list[tuple[str, str, str, str]]:
        """(name, shape, type, description) of each field, for the documentation."""
        rows = []
        for f in dataclasses.fields(cls):
            shape = f"({', '.join(f.metadata['shape'].split())})" if f.metadata["shape"] else "scalar"
            doc = f.metadata["doc"] + (" May be absent." if f.metadata["optional"] else "")
            rows.append((f.name, shape, f.metadata["dtype"], doc))
        return rows
