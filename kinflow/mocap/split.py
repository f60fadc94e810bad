"""The split of the motion-capture clips by subject, as a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..assets import asset_path
from ..errors import ConfigError, MissingAssetError

CMU_SPLIT = "cmu_split.yaml"
"""The packaged split of the clips of the CMU index."""


@dataclass(frozen=True)
class Split:
    """Subject -> split, and path prefix -> split for clips whose subject is unknown."""

    subjects: dict[str, str]
    prefixes: dict[str, str]

    def of(self, name: str, subject: str) -> str:
        """Split of a clip. Raises ConfigError where the file says nothing about it."""
        if subject and subject in self.subjects:
            return self.subjects[subject]
        matches = [p for p in self.prefixes if name.startswith(p)]
        if subject or not matches:
            raise ConfigError(
                f"{name}: the split names neither subject {subject!r} nor a prefix of this path; add one."
            )
        return self.prefixes[max(matches, key=len)]


def load_split(path: str | os.PathLike[str] | None = None) -> Split:
    """Read a split file: ``train``, ``validation``, ``test``, each with ``subjects`` and/or ``prefixes``.

    Default: the packaged split of the CMU clips.

    Raises:
        MissingAssetError: no such file.
        ConfigError: an unknown key, or a subject or prefix named twice.
    """
    path = asset_path(CMU_SPLIT) if path is None else Path(path)
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such split file.")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or set(data) - {"train", "validation", "test"}:
        raise ConfigError(f"{path.name}: expected the keys train, validation and test.")
    tables: dict[str, dict[str, str]] = {"subjects": {}, "prefixes": {}}
    for split, part in data.items():
        if not isinstance(part, dict) or set(part) - set(tables):
            raise ConfigError(f"{path.name}: {split}: expected the keys subjects and prefixes.")
        for kind, values in part.items():
            for value in map(str, values):
                if value in tables[kind]:
                    raise ConfigError(f"{path.name}: {value!r} is named in {tables[kind][value]} and in {split}.")
                tables[kind][value] = split
    return Split(tables["subjects"], tables["prefixes"])
