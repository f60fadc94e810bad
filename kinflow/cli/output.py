"""Standard output that cannot be written is told once, as an error of ours."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ..errors import OutputError


@contextlib.contextmanager
def flushed_output() -> Iterator[None]:
    """Write out at the block's end what was printed in it; an error that is under way goes first.

    Left to the interpreter's end, a full disk would be exit code 120 and a traceback.

    Raises:
        OutputError: standard output is full, or nobody reads it any more.
    """
    try:
        yield
    except SystemExit:  # --help, --version
        _flush()
        raise
    except BaseException:
        with contextlib.suppress(OutputError):
            _flush()
        raise
    _flush()


def _flush() -> None:
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # or the interpreter tries once more as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"standard output: could not be written ({error.strerror}). Write it elsewhere.") from error
