"""Which way is up for a body in such a pose: p(up in the pelvis' frame | body pose), a mixture on the sphere.

Somebody on both feet has up along the trunk within a few degrees; bent over, it lies where the legs say; of a pose that
falls, lies or hangs it can be anywhere. One frame tells little: :mod:`kinflow.world.gravity` puts the frames together.
"""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..assets import asset_path
from ..assets.weights import load_module
from ..body.kinematics import forward_kinematics, full_pose
from ..config import TiltConfig
from ..errors import check_shape
from ..skeleton import NUM_BODY

WEIGHTS = "tilt.safetensors"
_LOG_SPHERE = math.log(4 * math.pi)
_LOG_KAPPA = (0.0, 7.0)
"""Concentrations from a spread of 60 degrees to one of 2, of which no trained pose needs less."""


class Tilt(NamedTuple):
    """A mixture of K von Mises-Fisher densities and a uniform one on the sphere of directions in the pelvis' frame.

    Attributes:
        mean: (..., K, 3) unit vectors.
        log_kappa: (..., K), of the concentrations.
        log_weight: (..., K + 1) in nats, that of the uniform density last.
    """

    mean: Tensor
    log_kappa: Tensor
    log_weight: Tensor

    def log_prob(self, up: Tensor) -> Tensor:
        """log p (...) in nats of unit vectors ``up`` (..., 3), with respect to area on the sphere (Fisher, 1953)."""
        kappa = self.log_kappa.exp()
        cosine = (self.mean * up[..., None, :]).sum(-1)
        # kappa / (4 pi sinh kappa) exp(kappa cos), without overflow.
        log_norm = self.log_kappa - math.log(2 * math.pi) - torch.log1p(-torch.exp(-2 * kappa))
        each = log_norm + kappa * (cosine - 1)
        uniform = torch.full_like(each[..., :1], -_LOG_SPHERE)
        return torch.logsumexp(torch.cat((each, uniform), -1) + self.log_weight, -1)

    def blurred(self, std: float) -> Tilt:
        """The density where up in the pelvis' frame is told with an error of ``std`` rad in each of two directions."""
        # Variances add, near enough: 1 / kappa is that of a narrow von Mises-Fisher density.
        return self._replace(log_kappa=-torch.log(torch.exp(-self.log_kappa) + std * std))


class TiltDensity(nn.Module):
    """p(up in the pelvis' frame | body pose): an MLP on where a mean body's joints lie about its pelvis.

    Joints' places say what matters (where the legs are, where the trunk leans to) and leave out how limbs twist, which
    trackers tell badly.
    """

    rest_joints: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, config: TiltConfig) -> None:
        super().__init__()
        self.config = config
        features = 3 * 23
        self.register_buffer("rest_joints", torch.zeros(24, 3))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        sizes = [features, *[config.width] * config.layers]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 5 * config.components + 1))

    def features(self, body_rotmat: Tensor) -> Tensor:
        """Joints (..., 69) m about the pelvis in its frame, of body rotations (..., 21, 3, 3)."""
        rest = self.rest_joints.to(body_rotmat)
        _, joints = forward_kinematics(full_pose(body_rotmat), rest)
        return (joints[..., 1:, :] - joints[..., :1, :]).flatten(-2)

    def forward(self, body_rotmat: Tensor) -> Tilt:
        """The density for body rotations (..., 21, 3, 3)."""
        check_shape("body_rotmat", body_rotmat, f"... {NUM_BODY} 3 3")
        x = (self.features(body_rotmat) - self.centre.to(body_rotmat)) / self.scale.to(body_rotmat)
        out = self.layers(x.to(self.centre.dtype)).to(body_rotmat.dtype)
        count = self.config.components
        mean = out[..., : 3 * count].unflatten(-1, (count, 3))
        # Begun at the trunk's axis, as most poses have it; the mixture's parts fall apart in training.
        mean = nn.functional.normalize(mean + mean.new_tensor([0.0, 1.0, 0.0]), dim=-1)
        low, high = _LOG_KAPPA
        log_kappa = low + (high - low) * torch.sigmoid(out[..., 3 * count : 4 * count])
        return Tilt(mean, log_kappa, torch.log_softmax(out[..., 4 * count :], -1))


@functools.cache
def load_tilt(path: Path | None = None) -> TiltDensity:
    """The trained density; the packaged one by default. Shared: whoever changes it copies it first.

    Raises:
        MissingAssetError: no such file. FormatError: weights of another network.
    """
    path = asset_path(WEIGHTS) if path is None else path
    return load_module(path, "the tilt density", TiltConfig, TiltDensity).requires_grad_(False)
