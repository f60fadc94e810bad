"""Frozen records of named arrays that check themselves and save to npz without pickle.

:class:`Record` is the base of :class:`kinflow.evidence.Evidence` and :class:`kinflow.motion.Motion`. Each field is
declared with :func:`array`, whose shape pattern, type and one-line description serve the check, the file and the
documentation alike.
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

from .errors import FormatError, MissingAssetError, OutputError, ShapeError, check_shape

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
    path = Path(path)
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
            FormatError: not this schema, or a field that is missing or damaged.
        """
        if not Path(path).is_file():
            raise MissingAssetError(f"{path}: no such file.")
        fields = {f.name: f.metadata for f in dataclasses.fields(cls)}
        try:
            with np.load(path, allow_pickle=False) as npz:
                schema = str(npz["schema"]) if "schema" in npz else "unknown"
                values = {k: npz[k] for k in npz.files if k in fields} if schema == cls.SCHEMA else {}
        except OSError:
            raise
        except Exception as error:  # whatever numpy, zipfile, zlib and tokenize come across in damaged bytes
            raise FormatError(f"{path}: not a readable npz file ({error}).") from error
        if schema != cls.SCHEMA:
            raise FormatError(f"{path}: expected schema {cls.SCHEMA}, got {schema}. Write it anew with this version.")
        missing = [k for k, meta in fields.items() if k not in values and not meta["optional"]]
        if missing:
            raise FormatError(f"{path}: lacks {', '.join(missing)}.")
        try:
            return cls(**{k: v.item() if fields[k]["dtype"] in ("int", "str") else v for k, v in values.items()})
        except (ValueError, TypeError, AttributeError, OverflowError) as error:  # not arrays, or not the record's
            raise FormatError(f"{path}: {error}") from error

    @classmethod
    def describe(cls) -> list[tuple[str, str, str, str]]:
        """(name, shape, type, description) of each field, for the documentation."""
        rows = []
        for f in dataclasses.fields(cls):
            shape = f"({', '.join(f.metadata['shape'].split())})" if f.metadata["shape"] else "scalar"
            doc = f.metadata["doc"] + (" May be absent." if f.metadata["optional"] else "")
            rows.append((f.name, shape, f.metadata["dtype"], doc))
        return rows
