"""From evidence to motion: frame encoder, latent filter, camera, refinement."""

from __future__ import annotations

from .network import ReconstructionNetwork
from .observation import Observations
from .reconstructor import Reconstructor

__all__ = ["Observations", "ReconstructionNetwork", "Reconstructor"]
