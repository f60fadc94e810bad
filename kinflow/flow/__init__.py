"""The kinematic normalizing flow: a density over body poses, and 63 standard normal latents of a pose."""

from __future__ import annotations

from pathlib import Path

from ..assets import asset_path
from ..assets.weights import load_module
from ..config import FlowConfig
from .pose import LATENT_DIM, PoseFlow
from .rot6d import Rot6dFlow

__all__ = ["LATENT_DIM", "PoseFlow", "Rot6dFlow", "build_flow", "load_flow"]


def build_flow(config: FlowConfig) -> PoseFlow | Rot6dFlow:
    """An untrained flow of the representation that ``config`` names."""
    return PoseFlow(config) if config.representation == "chart" else Rot6dFlow(config)


def load_flow(path: str | Path | None = None) -> PoseFlow:
    """A trained flow, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train flow``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
        FormatError: not the weights of a flow.
        ConfigError: the file holds another representation than the chart's, which has no 63 latents.
    """
    path = asset_path("flow.safetensors") if path is None else path
    flow = load_module(path, "a flow", FlowConfig, build_flow)
    if not isinstance(flow, PoseFlow):
        from ..errors import ConfigError

        raise ConfigError(f"{path}: expected a flow on the chart (63 latents), got {flow.config.representation!r}.")
    return flow
