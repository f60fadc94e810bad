"""What each training learns: one module a network, found by its name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..run import Training

NETWORKS = ("flow", "dynamics", "denoiser", "sides", "lifter", "reconstructor")


def training_of(network: str) -> Training:
    """The training of one of :data:`NETWORKS`; imports that one's task alone."""
    return importlib.import_module(f"{__name__}.{network}").TRAINING
