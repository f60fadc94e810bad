"""The numbers of a training, in ``log.csv`` and, where asked for, in TensorBoard's event files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ..config import to_dict
from ..errors import MissingAssetError
from ..records import atomic_write

FOLDER = "tensorboard"
"""Of the event files, in a training's folder: ``tensorboard --logdir runs`` shows all trainings side by side."""


class Log:
    """Rows of numbers to a CSV file whose columns grow as new names appear. Rows after step ``keep`` are dropped.

    Args:
        out: the training's folder.
        keep: the step that a resumed training goes on from, 0 for one that begins.
        tensorboard: also write event files to ``out/tensorboard``: training under ``train/``, validation under
            ``validation/``.
        config: the configuration, shown there as text.
        active: false in all processes but the first, where nothing is written.

    Raises:
        MissingAssetError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, out: Path, keep: int, *, tensorboard: bool = False, config: Any = None, active: bool = True
    ) -> None:
        self.path, self.active, self.rows = out / "log.csv", active, []
        self.events: Any = None
        if not active:
            return
        if keep and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = [r for r in csv.DictReader(stream) if float(r["step"]) <= keep]
        if tensorboard:
            self.events = event_writer(out / FOLDER, keep)
            if config is not None and not keep:
                text = yaml.safe_dump(_plain(to_dict(config)), sort_keys=False)
                self.events.add_text("configuration", f"```\n{text}```")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        if self.events is not None:
            self.events.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row, which has a ``"step"``; a validation's row is written out at once."""
        if not self.active:
            return
        numbers = {k: v.item() if isinstance(v, Tensor) else float(v) for k, v in row.items()}
        self.rows.append({k: f"{v:.6g}" for k, v in numbers.items()})
        validated = any(k.startswith("val_") for k in row)
        if self.events is not None:
            step = int(numbers.pop("step"))
            for name, value in numbers.items():
                # The clock is the training's own: that of a validation row would be drawn over it.
                if not (validated and name == "minutes"):
                    tag = f"validation/{name[4:]}" if name.startswith("val_") else f"train/{name}"
                    self.events.add_scalar(tag, value, step)
        if validated or len(self.rows) % 20 == 0:
            self.flush()

    def flush(self) -> None:
        """Write the file."""
        if not self.active:
            return
        names = list(dict.fromkeys(k for row in self.rows for k in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self.path) as stream:
            stream.write(text.getvalue().encode())
        if self.events is not None:
            self.events.flush()


def event_writer(folder: Path, keep: int) -> Any:
    """TensorBoard's writer into ``folder``; what an earlier one wrote there after step ``keep`` is hidden.

    Raises:
        MissingAssetError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingAssetError(
            "tensorboard: is not installed. pip install 'kinflow[tensorboard]', or leave out --tensorboard."
        ) from None
    return SummaryWriter(str(folder), purge_step=keep + 1)


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML writes plainly."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
