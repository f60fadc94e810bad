"""Results as they come, a line of JSON a sequence, so that a run that was broken off goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import FormatError, OutputError, UsageError
from ..records import atomic_write

SCHEMA = "kinflow.bench/1"


class Journal:
    """``results.jsonl``: first a line of what the figures depend on, then one a sequence.

    A last line that was cut off by the end of a run is dropped, and so are lines of sequences that failed: those are tried again.

    Args:
        path: the file; made if it is not there.
        header: what the figures depend on.

    Raises:
        UsageError: the file holds results of other settings.
        FormatError: it is damaged, or something else.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        first = json.loads(json.dumps({"schema": SCHEMA, **header}))
        self.lines: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read(first)
        text = "\n".join(json.dumps(line) for line in (first, *self.lines.values())) + "\n"
        with atomic_write(path) as stream:
            stream.write(text.encode())

    def _read(self, first: dict[str, Any]) -> None:
        raw = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        found: list[dict[str, Any]] = []
        for number, text in enumerate(raw[:-1]):  # what follows the last line's end was cut off
            try:
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise ValueError("no object")
            except ValueError as error:
                raise FormatError(
                    f"{self.path}: line {number + 1} is damaged ({error}). Remove the file, or use another folder."
                ) from None
            found.append(line)
        if not found:
            return
        if found[0] != first:
            keys = [k for k in {**found[0], **first} if found[0].get(k) != first.get(k)]
            raise UsageError(
                f"{self.path}: holds results of another {', '.join(keys)}. Use another folder with -o, or remove the file."
            )
        for line in found[1:]:
            if "error" not in line:
                self.lines[str(line.get("sequence"))] = line

    def write(self, line: dict[str, Any]) -> None:
        """Add a sequence's line; it is on the disk when this returns.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.path}: could not be written ({error.strerror}). Free space and run again."
            ) from error
        self.lines[line["sequence"]] = json.loads(json.dumps(line))
