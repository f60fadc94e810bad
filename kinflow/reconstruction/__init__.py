"""From evidence to motion: frame encoder, filter, camera, refinement."""

from __future__ import annotations

from .network import ReconstructionNetwork
from .observation import Observations
from .reconstructor import Reconstructor, reconstruct
from .refine import Refiner

__all__ = ["Observations", "ReconstructionNetwork", "Reconstructor", "Refiner", "reconstruct"]
