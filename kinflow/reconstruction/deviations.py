"""How far the joints of a reconstruction may be off: standard deviations across the line of sight and along it.

The lifter says of each landmark how far off it may be; a body fitted to all of them over time is off by less, by as much as
rendered people of motions never trained on show. So a joint's deviations are those of the landmarks about it, scaled joint by
joint until they hold what they promise there (``tools/calibrate_deviations.py``). Errors of successive frames are alike, so no
deviation shrinks with the number of frames.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ..assets import asset_path
from ..assets.weights import load_module
from ..config.ranges import Config
from ..errors import UsageError
from ..skeleton import BLAZEPOSE, SMPL_JOINTS
from .geometry import ray_rotmat

_ABOUT = {
    "pelvis": ("left_hip", "right_hip"), "spine1": ("left_hip", "right_hip"),
    "spine2": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"), "spine3": ("left_shoulder", "right_shoulder"),
    "neck": ("left_shoulder", "right_shoulder"), "head": ("left_ear", "right_ear", "nose"),
    "collar": ("shoulder",), "foot": ("foot_index",), "hand": ("index",),
}  # fmt: skip
"""Landmarks about a joint, where they have other names; of a limb's joint, without its side."""
LEVELS = (0.5, 0.9)
"""Nominal contents of the regions by which deviations are calibrated."""
_SPACE, _DEPTH = (2.365974, 6.251389), (0.454936, 2.705543)
"""Quantiles of chi-square at the levels: three degrees of freedom, and one."""
_LEAST = 1e-3  # m
_POWERS = (0.3, 1.5)


def _landmarks_of(joint: str) -> list[int]:
    side, _, name = joint.rpartition("_")
    names = _ABOUT.get(name, (name,))
    return [BLAZEPOSE.index(f"{side}_{n}" if side else n) for n in names]


@dataclasses.dataclass(frozen=True)
class DeviationsConfig(Config):
    """:class:`JointDeviations` have nothing to configure."""


class JointDeviations(nn.Module):
    """Deviations of the 24 joints from those of the 33 landmarks: ``scale * landmarks' ** power`` in m, joint by joint.

    Buffers:
        log_scale, power: (24, 2), across the line of sight and along it. The pelvis' are of its own place, from the deviation
            of the translation; the others' are about the pelvis.
    """

    log_scale: Tensor
    power: Tensor
    _about: Tensor

    def __init__(self, config: DeviationsConfig | None = None) -> None:
        super().__init__()
        self.config = config or DeviationsConfig()
        self.register_buffer("log_scale", torch.zeros(len(SMPL_JOINTS), 2))
        self.register_buffer("power", torch.ones(len(SMPL_JOINTS), 2))
        about = torch.zeros(len(SMPL_JOINTS), len(BLAZEPOSE))
        for row, joint in zip(about, SMPL_JOINTS, strict=True):
            row[_landmarks_of(joint)] = 1.0
        self.register_buffer("_about", about / about.sum(1, keepdim=True), persistent=False)

    def base(self, world_std: Tensor, place_std: Tensor) -> Tensor:
        """What is said of each joint before the scaling, as logs (T, 24, 2).

        Args:
            world_std: (T, 33, 2) m, of the landmarks about the hips. place_std: (T, 2) m, of the person's place.
        """
        logs = self._about @ world_std.clamp_min(_LEAST).log()
        return torch.cat((place_std.clamp_min(_LEAST).log()[:, None], logs[:, 1:]), 1)

    def forward(self, world_std: Tensor, place_std: Tensor) -> Tensor:
        """Standard deviations (T, 24, 2) m, an axis; arguments as of :meth:`base`."""
        return self.scaled(self.base(world_std, place_std))

    def scaled(self, base: Tensor) -> Tensor:
        """Standard deviations (T, 24, 2) m from what is said of each joint (T, 24, 2)."""
        return (self.log_scale + self.power * base).exp()

    @torch.no_grad()
    def fit(self, base: Tensor, error: Tensor) -> None:
        """Choose powers and scales by errors of known people.

        A power says how much the deviation follows what was said of the frame: the slope of log|error| against it. Scales
        are where the shares of errors inside the regions of 50 and 90 % miss these least: the intervals along the line of
        sight first, the ellipsoids in space then.

        Args:
            base: (N, 24, 2), of :meth:`base`. error: (N, 24, 3) m in ray-aligned axes.

        Raises:
            UsageError: too few errors to choose by.
        """
        if len(base) < 100:
            raise UsageError(f"error: expected the errors of 100 frames or more, got {len(base)}.")
        base, squared = base.double(), error.double().square().clamp_min(1e-10)
        halves = torch.stack((squared[..., :2].mean(-1), squared[..., 2]), -1).log() / 2  # log errors (N, 24, 2)
        x, y = base - base.mean(0), halves - halves.mean(0)
        self.power.copy_(((x * y).mean(0) / x.square().mean(0).clamp_min(1e-9)).clamp(*_POWERS))
        said = self.power * base
        self.log_scale.copy_((halves - said).median(0).values)  # from which the search goes both ways
        for axis in (1, 0):
            start, least = self.log_scale[:, axis].clone(), torch.full((base.shape[1],), math.inf, dtype=base.dtype)
            best = start.clone()
            for change in torch.linspace(-1.5, 1.5, 151).tolist():
                self.log_scale[:, axis] = start + change
                shares = inside(error, self.scaled(base))[axis]
                missed = sum(
                    ((s - level).square() for s, level in zip(shares, LEVELS, strict=True)), torch.zeros_like(least)
                )
                best = torch.where(missed < least, self.log_scale[:, axis], best)
                least = torch.minimum(missed, least)
            self.log_scale[:, axis] = best


def inside(error: Tensor, std: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Shares of errors (N, ..., 3) m in ray-aligned axes inside the regions of :data:`LEVELS` of deviations (N, ..., 2):
    ellipsoids in space, and intervals along the line of sight (...)."""
    squared = error.square() / std.to(error)[..., [0, 0, 1]].square()
    space = tuple((squared.sum(-1) <= most).double().mean(0) for most in _SPACE)
    depth = tuple((squared[..., 2] <= most).double().mean(0) for most in _DEPTH)
    return space, depth


def errors_in_view(joints: Tensor, truth: Tensor) -> Tensor:
    """Errors (N, 24, 3) m of joints (N, 24, 3) in axes that look along the ray to the person: the pelvis' own, the others'
    about it."""
    error = joints - truth
    error = torch.cat((error[:, :1], error[:, 1:] - error[:, :1]), 1)
    return error @ ray_rotmat(truth[:, 0])


def load_deviations(path: str | Path | None = None) -> JointDeviations:
    """Calibrated deviations: a file written by ``tools/calibrate_deviations.py``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
        FormatError: other weights.
    """
    path = asset_path("deviations.safetensors") if path is None else path
    return load_module(path, "joint deviations", DeviationsConfig, JointDeviations)
