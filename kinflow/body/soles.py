"""What of a body touches the ground: points of its soles."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..skeleton import SMPL_JOINTS
from .body import Body

SOLE_M = 0.006
"""Vertices within this of the lowest one of their region, at zero pose, are its sole."""
_AROUND = 6
"""Points a region: the outermost ones of its sole in so many directions."""
_REGIONS = tuple(
    SMPL_JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("ankle", "foot")
)  # fmt: skip
"""Left heel, left toe, right heel, right toe, as :data:`kinflow.skeleton.FEET`: the joints that carry them."""


class Soles(NamedTuple):
    """Where the soles of a shape are: ``joints (4,)`` that carry heel and toe of left and right, and ``offsets (4, 6, 3)`` m of
    points in those joints' frames."""

    joints: Tensor
    offsets: Tensor

    def posed(self, rotations: Tensor, positions: Tensor) -> Tensor:
        """Points (..., 4, 6, 3) m for world rotations (..., 24, 3, 3) and places (..., 24, 3) of the joints."""
        turned = rotations[..., self.joints, :, :] @ self.offsets.mT  # (..., 4, 3, 6)
        return turned.mT + positions[..., self.joints, None, :]


def soles_of(body: Body, betas: Tensor) -> Soles:
    """The soles of a shape ``betas (10,)``: of each region the outermost vertices near its lowest, at zero pose.

    They are carried rigidly, as the skin of a shoe is: no mesh has to be posed.
    """
    mean = body.v_template
    rest, joints = body.rest_vertices(betas), body.rest_joints(betas)
    angles = torch.arange(_AROUND, device=mean.device, dtype=mean.dtype) * (2 * math.pi / _AROUND)
    towards = torch.stack((angles.cos(), torch.zeros_like(angles), angles.sin()), -1)
    offsets = []
    for joint in _REGIONS:
        near = torch.nonzero(body.part_labels == joint)[:, 0]
        near = near[mean[near, 1] <= mean[near, 1].min() + SOLE_M]
        chosen = near[(mean[near] @ towards.T).argmax(0)]
        offsets.append(rest[chosen] - joints[joint])
    return Soles(torch.tensor(_REGIONS, device=mean.device), torch.stack(offsets))
