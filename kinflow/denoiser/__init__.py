"""The denoiser: the answer to noise, gaps and the near future, by means instead of modes."""

from __future__ import annotations

from pathlib import Path

from ..assets import asset_path
from ..assets.weights import load_weights
from ..config import DenoiserConfig, from_dict
from .network import Denoiser
from .windows import denoise_clip

__all__ = ["Denoiser", "denoise_clip", "load_denoiser"]


def load_denoiser(path: str | Path | None = None) -> Denoiser:
    """A trained denoiser, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train denoiser``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
    """
    state, config, _ = load_weights(asset_path("denoiser.safetensors") if path is None else path)
    model = Denoiser(from_dict(DenoiserConfig, config))
    model.load_state_dict(state)
    return model.eval()
