"""The denoiser: the answer to noise, gaps and the near future, by means instead of modes."""

from __future__ import annotations

from pathlib import Path

from ..assets import asset_path
from ..assets.weights import load_module
from ..config import DenoiserConfig
from .network import Denoiser
from .windows import denoise_clip

__all__ = ["Denoiser", "denoise_clip", "load_denoiser"]


def load_denoiser(path: str | Path | None = None) -> Denoiser:
    """A trained denoiser, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train denoiser``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
        FormatError: not the weights of a denoiser.
    """
    path = asset_path("denoiser.safetensors") if path is None else path
    return load_module(path, "a denoiser", DenoiserConfig, Denoiser)
