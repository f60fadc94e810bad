"""Dynamics: a likelihood of motions in latents or coordinates of poses, at any frame rate; and a smoother."""

from __future__ import annotations

from pathlib import Path

from ..assets import asset_path
from ..assets.weights import load_weights
from ..config import DynamicsConfig, SmootherConfig, from_dict
from .latent import ROOT_DIM, LatentDynamics, State
from .predictive import Predictive
from .smoother import Smoother

__all__ = ["ROOT_DIM", "LatentDynamics", "Predictive", "Smoother", "State", "load_dynamics", "load_smoother"]


def load_dynamics(path: str | Path | None = None, asset: str = "dynamics") -> LatentDynamics:
    """Trained dynamics, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train dynamics``; None: the packaged one.
        asset: which of the packaged ones: "dynamics" (in the flow's latents, which the reconstructor filters in) or
            "motion" (in the chart's coordinates, MotionPrior's).

    Raises:
        MissingAssetError: no such file.
    """
    state, config, _ = load_weights(asset_path(f"{asset}.safetensors") if path is None else path)
    model = LatentDynamics(from_dict(DynamicsConfig, config))
    model.load_state_dict(state)
    return model.eval()


def load_smoother(path: str | Path | None = None) -> Smoother:
    """A trained smoother, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train smoother``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
    """
    state, config, _ = load_weights(asset_path("smoother.safetensors") if path is None else path)
    model = Smoother(from_dict(SmootherConfig, config))
    model.load_state_dict(state)
    return model.eval()
