"""kinflow's own flows behind the benchmark's interface: on the chart, and the paper's RealNVP on the 6D form."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kinflow.assets import asset_path
from kinflow.assets.weights import load_weights
from kinflow.config import FlowConfig, from_dict
from kinflow.errors import MissingAssetError
from kinflow.flow import PoseFlow, Rot6dFlow, build_flow

from .base import PosePrior

SETTINGS = {
    "spline": "",
    "affine": " --set model.coupling=affine",
    "rot6d": " --set model.representation=rot6d --set model.coupling=affine",
}
"""How each variant's training differs from the default one, but for all knowing kinflow's own poses alone, as their peers do."""


class FlowPrior(PosePrior):
    """A trained flow. Of :class:`~kinflow.flow.Rot6dFlow` only a bound of the density is known."""

    def __init__(self, flow: PoseFlow | Rot6dFlow) -> None:
        super().__init__()
        self.flow = flow
        self.latent_dim = flow.latent_dim
        self.bound = "importance-weighted over the Gram-Schmidt lengths" if isinstance(flow, Rot6dFlow) else ""

    def log_prob(self, rotmat: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        if isinstance(self.flow, Rot6dFlow):
            return self.flow.log_prob(rotmat, samples, generator)
        return self.flow.log_prob(rotmat)

    def decode(self, z: Tensor) -> Tensor:
        return self.flow.decode(z)[0]

    def encode(self, rotmat: Tensor) -> Tensor:
        return self.flow.encode(rotmat)[0]


def read_flow(path: Path | None) -> tuple[FlowPrior, str]:
    """A trained flow of any representation (None: the packaged one) and its configuration's hash.

    Raises:
        MissingAssetError: no such file.
    """
    state, config, header = load_weights(path or asset_path("flow.safetensors"))
    flow = build_flow(from_dict(FlowConfig, config))
    flow.load_state_dict(state)
    return FlowPrior(flow.eval()).requires_grad_(False), str(header["config_hash"])


def trained_flow(study: Path, variant: str, seed: int) -> Path:
    """The weights of a variant of :data:`SETTINGS` under the folder ``study``.

    Raises:
        MissingAssetError: not trained yet; the message says which command does it.
    """
    path = study / f"flow_{variant}_{seed}" / "flow.safetensors"
    if not path.is_file():
        raise MissingAssetError(
            f"{path}: no such weights. Train them: kinflow-train flow --config configs/flow.yaml --set shares=0"
            f"{SETTINGS[variant]} --set train.seed={seed} --out {path.parent}"
        )
    return path
