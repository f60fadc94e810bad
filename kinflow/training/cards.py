"""What a training on motion capture leaves: weights with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..assets.weights import save_weights
from ..config import config_hash
from .loop import FitResult
from .poses import Capture


def save_trained(
    path: Path,
    module: nn.Module,
    config: Any,
    result: FitResult,
    what: str,
    scores: Mapping[str, str],
    data: Path,
    training: Sequence[Capture],
    device: torch.device,
) -> Path:
    """Write ``path`` and its card; returns ``path``.

    Args:
        config: the training's whole configuration, with the network's as ``model``.
        scores: lines of the card on how it validated.
        data, training: the prepared capture and what of it was trained on.
    """
    minutes = sum(len(c.body_pose) / c.fps for c in training) / 60
    card = {
        "what": what,
        "data": f"{data.name}: {len(training)} runs of motion capture, {minutes:.0f} min (see NOTICE)",
        **scores,
        "training": f"{result.minutes:.1f} min, {result.steps} steps, best at {result.step}, {device}",
        "training config hash": config_hash(config),
        "licence": "Apache-2.0",
    }
    return save_weights(path, module, config.model, card)
