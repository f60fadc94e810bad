"""Dynamics: a likelihood of motions in latents or coordinates of poses, at any frame rate."""

from __future__ import annotations

from pathlib import Path

from ..assets import asset_path
from ..assets.weights import load_module
from ..config import DynamicsConfig
from .latent import ROOT_DIM, LatentDynamics, State
from .predictive import Predictive

__all__ = ["ROOT_DIM", "LatentDynamics", "Predictive", "State", "load_dynamics"]


def load_dynamics(path: str | Path | None = None) -> LatentDynamics:
    """Trained dynamics in the coordinates of the flow's chart, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train dynamics``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
        FormatError: not the weights of latent dynamics.
    """
    path = asset_path("dynamics.safetensors") if path is None else path
    return load_module(path, "latent dynamics", DynamicsConfig, LatentDynamics)
