"""How far the joints of a reconstruction may be off: standard deviations across the line of sight and along it.

The lifter says of each landmark how far off it may be; a body fitted to all of them over time is off by less, by as much as
rendered people of motions never trained on show. So a joint's deviations are those of the landmarks about it, scaled joint by
joint until they hold what they promise there (``tools/calibrate_deviations.py``). Errors of successive frames are alike, so no
deviation shrinks with the number of frames. The errors' tails are heavier than a Gaussian's: how far the regions of 90 % reach is
calibrated beside the deviations, which half of the errors decide.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from ..assets import asset_path
from ..assets.weights import load_module
from ..config.ranges import Config
from ..errors import UsageError
from ..motion import GAUSSIAN_REACH
from ..skeleton import BLAZEPOSE, SMPL_JOINTS
from .geometry import ray_rotmat

_ABOUT = {
    "pelvis": ("left_hip", "right_hip"), "spine1": ("left_hip", "right_hip"),
    "spine2": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"), "spine3": ("left_shoulder", "right_shoulder"),
    "neck": ("left_shoulder", "right_shoulder"), "head": ("left_ear", "right_ear", "nose"),
    "collar": ("shoulder",), "foot": ("foot_index",), "hand": ("index",),
}  # fmt: skip
"""Landmarks about a joint, where they have other names; of a limb's joint, without its side."""
LEVELS = tuple(GAUSSIAN_REACH)
"""Nominal contents of the regions by which deviations are calibrated: 0.5 and 0.9."""
_HALF = GAUSSIAN_REACH[0.5]
_LEAST = 1e-3  # m
_POWERS = (0.3, 1.5)
_SCALES = (-8.0, 8.0)
"""Logs between which scales are looked for."""


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
        reach90: (24, 2), how many deviations the ellipsoid in space and the interval along the line of sight reach that hold
            nine tenths of the errors.
    """

    log_scale: Tensor
    power: Tensor
    reach90: Tensor
    _about: Tensor

    def __init__(self, config: DeviationsConfig | None = None) -> None:
        super().__init__()
        self.config = config or DeviationsConfig()
        self.register_buffer("log_scale", torch.zeros(len(SMPL_JOINTS), 2))
        self.register_buffer("power", torch.ones(len(SMPL_JOINTS), 2))
        self.register_buffer("reach90", torch.tensor(GAUSSIAN_REACH[0.9]).repeat(len(SMPL_JOINTS), 1))
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

        A power says how much the deviation follows what was said of the frame: the slope of log|error| against it. Scales are
        such that half of the errors lie in the regions of 50 %: the intervals along the line of sight first, the ellipsoids
        in space then; the regions of 90 % reach as far as it takes.

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
        along = (squared[..., 2].log() / 2 - said[..., 1]).exp()  # (N, 24), in units of the scale
        scale = along.median(0).values / _HALF[1]
        self.log_scale[:, 1] = scale.log()
        self.reach90[:, 1] = (along / scale).quantile(LEVELS[1], 0)
        low, high = (torch.full_like(scale, v) for v in _SCALES)
        for _ in range(40):  # the share inside grows with the scale across
            self.log_scale[:, 0] = (low + high) / 2
            many = (_distance(error.double(), self.scaled(base)) <= _HALF[0]).double().mean(0) > LEVELS[0]
            low, high = torch.where(many, low, self.log_scale[:, 0]), torch.where(many, self.log_scale[:, 0], high)
        self.reach90[:, 0] = _distance(error.double(), self.scaled(base)).quantile(LEVELS[1], 0)


def _distance(error: Tensor, std: Tensor) -> Tensor:
    """Of errors (N, ..., 3) in units of deviations (N, ..., 2)."""
    return (error / std.to(error)[..., [0, 0, 1]]).norm(dim=-1)


def inside(error: Tensor, std: Tensor, reach90: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Shares of errors (N, ..., 3) m in ray-aligned axes inside the regions of :data:`LEVELS` of deviations (N, ..., 2) that reach
    as far as ``reach90 (..., 2)`` says: ellipsoids in space, and intervals along the line of sight (...)."""
    space, along = _distance(error, std), error[..., 2].abs() / std.to(error)[..., 1]
    reach90 = reach90.to(error)
    return (
        tuple((space <= most).double().mean(0) for most in (_HALF[0], reach90[..., 0])),
        tuple((along <= most).double().mean(0) for most in (_HALF[1], reach90[..., 1])),
    )


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
