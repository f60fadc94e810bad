"""Landmarks in 3D from what the front end saw: its own world landmarks put right, with a standard deviation each.

The landmark network's world landmarks are wrong in depth limb by limb, for long stretches, and do not say so. What its
keypoints and its world landmarks say together is more: a network that learned from rendered people puts the landmarks right
frame by frame. Neither a recurrence over time nor the landmark network's last hidden layer as another input gained anything
with 12,000 to 25,000 rendered frames to learn from (measured); time is the filter's and the fit's.

Everything is seen in an upright view: the camera turned to look along the ray to the person and rolled until the torso
points up, so that neither the place in the image nor the camera's roll matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from ..assets import asset_path
from ..assets.weights import load_module
from ..config import LifterConfig
from ..evidence import Evidence
from ..skeleton import BLAZEPOSE, MIRROR_BLAZEPOSE
from .batching import collate, cut
from .encoder import Block, head
from .gaussian import soft_clamp
from .geometry import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER
from .observation import NUM_LANDMARKS, Flat, Observations, flatten_view

_MEASURED = 2 + 1 + 3  # of a landmark: keypoint, confidence, world landmark
_CORRECTION = 0.3  # m, of an output of one
_PIECE = 512  # frames lifted at once
_LOG_STD_RANGE = (-5.5, 0.0)


def _parts() -> tuple[tuple[list[int], list[int]], ...]:
    """Landmarks that each part of the body has, and those of its neighbours that it sees as well."""

    def at(names: str) -> list[int]:
        return [BLAZEPOSE.index(name) for name in names.split()]

    parts = [
        (list(range(at("left_shoulder")[0])), at("left_shoulder right_shoulder")),
        (at("left_shoulder right_shoulder left_hip right_hip"), at("nose")),
    ]
    for side, other in (("left", "right"), ("right", "left")):
        arm = [f"{side}_{name}" for name in ("elbow", "wrist", "pinky", "index", "thumb")]
        leg = [f"{side}_{name}" for name in ("knee", "ankle", "heel", "foot_index")]
        parts.append((at(" ".join(arm)), at(f"{side}_shoulder {side}_hip {other}_shoulder")))
        parts.append((at(" ".join(leg)), at(f"{side}_hip {other}_hip {side}_shoulder")))
    return tuple(parts)


PARTS = _parts()
"""Face, trunk, and each side's arm and leg."""
_IN_ORDER = np.argsort([i for own, _ in PARTS for i in own]).tolist()


class Lifted(NamedTuple):
    """Landmarks about the middle of the hips in ray-aligned axes.

    Attributes:
        mean: (B, T, 33, 3) m.
        log_std: (B, T, 33, 2) log of the standard deviation in m, of either axis across the ray and of the one along it.
    """

    mean: Tensor
    log_std: Tensor

    def log_std_by_axis(self) -> Tensor:
        """(B, T, 33, 3)."""
        return self.log_std[..., [0, 0, 1]]


def upright_view(flat: Flat) -> Tensor:
    """Rotation (B, T, 3, 3) about the ray of the view in which head and shoulders stand above the hips, to the ray's axes."""
    hips = flat.points[..., [LEFT_HIP, RIGHT_HIP], :].mean(-2)
    shoulders = flat.points[..., [LEFT_SHOULDER, RIGHT_SHOULDER], :].mean(-2)
    up = shoulders - hips + 0.5 * (flat.points[..., 0, :] - hips)
    length = up.norm(dim=-1, keepdim=True)
    x, y = torch.where(length > 1e-3, up / length.clamp_min(1e-3), up.new_tensor([0.0, -1.0])).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return rearrange(torch.stack((-y, -x, zero, x, -y, zero, zero, zero, one), -1), "... (i j) -> ... i j", i=3)


class Whole(nn.Module):
    """Residual MLP on single frames: what is added to the world landmarks, and the log-deviations."""

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        width = config.whole_width
        self.inputs = nn.Sequential(nn.Linear(NUM_LANDMARKS * _MEASURED + 2, width), nn.Dropout(config.dropout))
        self.blocks = nn.Sequential(*(Block(width, config.dropout) for _ in range(config.blocks)))
        self.outputs = head(width, width, NUM_LANDMARKS * 5)

    def forward(self, points: Tensor, confidence: Tensor, world: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Additions (B, T, 33, 3) in units of 0.3 m, and log-deviations (B, T, 33, 2)."""
        measured = torch.cat((points.flatten(-2), confidence, 2 * world.flatten(-2), scalars), -1)
        return _read(self.outputs(self.blocks(self.inputs(measured))).to(world.dtype))


class ByParts(nn.Module):
    """The same by residual MLPs of the parts of the body.

    Each part sees its own landmarks and its neighbours', and of the whole body a few numbers that say what matters to parts: limbs
    that were seen one by one are known in any company, and what people do that were never filmed is mostly that.

    Source: Zeng et al., "SRNet: Improving Generalization in 3D Human Pose Estimation with a Split-and-Recombine Approach"
    (ECCV 2020).
    """

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        whole = 3 * config.part_width // 2
        self.overview = nn.Sequential(
            nn.Linear(NUM_LANDMARKS * _MEASURED + 2, whole),
            Block(whole, config.dropout),
            head(whole, whole, config.overview),
        )
        self.parts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(len(own + beside) * _MEASURED + 2 + config.overview, config.part_width),
                nn.Dropout(config.dropout),
                *(Block(config.part_width, config.dropout) for _ in range(config.blocks)),
                head(config.part_width, config.part_width, len(own) * 5),
            )
            for own, beside in PARTS
        )

    def forward(self, points: Tensor, confidence: Tensor, world: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Additions (B, T, 33, 3) in units of 0.3 m, and log-deviations (B, T, 33, 2)."""
        measured = torch.cat((points, confidence[..., None], 2 * world), -1)
        overview = self.overview(torch.cat((measured.flatten(-2), scalars), -1)).to(measured)
        told = []
        for (own, beside), part in zip(PARTS, self.parts, strict=True):
            told.append(part(torch.cat((measured[..., own + beside, :].flatten(-2), scalars, overview), -1)))
        more, log_std = _read(torch.cat(told, -1).to(measured))
        return more[..., _IN_ORDER, :], log_std[..., _IN_ORDER, :]


def _read(out: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (..., P 5) as additions (..., P, 3) and log-deviations (..., P, 2)."""
    each = rearrange(out, "... (p k) -> ... p k", k=5)
    return each[..., :3], soft_clamp(each[..., 3:] - 2.5, *_LOG_STD_RANGE)


class Lifter(nn.Module):
    """Several networks of two kinds that learned the same from different beginnings; what they differ by adds to the deviations.

    Source of the latter: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles" (NIPS 2017), eq. for the mixture's variance.
    """

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        self.config = config
        networks = [*(ByParts(config) for _ in range(config.by_parts)), *(Whole(config) for _ in range(config.whole))]
        self.members = nn.ModuleList(networks)

    def forward(self, obs: Observations) -> Lifted:
        """Lift every frame; those that are not observed give something that nobody should count on."""
        lifted = self.each(obs)
        mean = lifted.mean.mean(0)
        apart = (lifted.mean - mean).square().mean(0)
        apart = torch.stack((apart[..., :2].mean(-1), apart[..., 2]), -1)
        return Lifted(mean, 0.5 * torch.log((2 * lifted.log_std).exp().mean(0) + apart))

    def each(self, obs: Observations) -> Lifted:
        """What each network says by itself: a first axis more.

        Under autocast the networks' products alone are in half precision, so that what they correct loses no digits.
        """
        device = obs.world.device.type
        half = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False):
            return self._each(obs, half)

    def _each(self, obs: Observations, half: bool) -> Lifted:
        flat = flatten_view(obs)
        view = upright_view(flat)
        world = obs.world - obs.world[..., [LEFT_HIP, RIGHT_HIP], :].mean(-2, keepdim=True)
        world = (world @ view) * obs.has_world[..., None, None]
        points = flat.points @ view[..., :2, :2]
        scalars = torch.stack((torch.log(flat.spread), obs.has_world.to(points.dtype)), -1)
        # A mirrored person is lifted to the mirrored landmarks: the mean of both ways of looking at one.
        side, mirror = points.new_tensor([-1.0, 1.0, 1.0]), list(MIRROR_BLAZEPOSE)
        seen = (points, obs.confidence, world, scalars)
        turned = (
            (points * side[:2])[..., mirror, :],
            obs.confidence[..., mirror],
            (world * side)[..., mirror, :],
            scalars,
        )
        means, log_stds = [], []
        for member in self.members:
            with torch.autocast(obs.world.device.type, enabled=half):
                (correction, log_std), (other, other_std) = member(*seen), member(*turned)
            means.append(world + _CORRECTION * (correction + (other * side)[..., mirror, :]) / 2)
            log_stds.append((log_std + other_std[..., mirror, :]) / 2)
        mean = torch.stack(means)
        mean = mean - mean[..., [LEFT_HIP, RIGHT_HIP], :].mean(-2, keepdim=True)
        return Lifted(mean @ view.transpose(-1, -2), torch.stack(log_stds))


@torch.no_grad()
def lift(lifter: Lifter, evidences: Sequence[Evidence], K: Tensor) -> list[Evidence]:
    """Evidence with its world landmarks put right in every observed frame, and their standard deviations.

    What was lifted before, and so has ``world_std``, stays as it is.

    Args:
        K: (3, 3) px.
    """
    device = next(lifter.parameters()).device
    chunks = [c for c in cut([len(e) for e in evidences], _PIECE, 0) if evidences[c.person].world_std is None]
    world = [np.zeros((len(e), NUM_LANDMARKS, 3), np.float32) for e in evidences]
    std = [np.zeros((len(e), NUM_LANDMARKS, 2), np.float32) for e in evidences]
    for c in chunks:
        lifted = lifter(collate(evidences, [c], K, torch.float32).to(device))
        seen = evidences[c.person].observed[c.start : c.stop, None, None]
        world[c.person][c.start : c.stop] = lifted.mean[0].cpu().numpy() * seen
        std[c.person][c.start : c.stop] = lifted.log_std[0].exp().cpu().numpy() * seen
    return [
        e if e.world_std is not None else dataclasses.replace(e, world_landmarks=w, world_std=s, has_world=e.observed)
        for e, w, s in zip(evidences, world, std, strict=True)
    ]


def load_lifter(path: str | Path | None = None) -> Lifter:
    """A trained lifter, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train lifter``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
        FormatError: not the weights of a lifter.
    """
    path = asset_path("lifter.safetensors") if path is None else path
    return load_module(path, "a lifter", LifterConfig, Lifter)
