"""What of a body touches the ground: points of its soles, and which of them stand when."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..body import Body
from ..skeleton import SMPL_JOINTS
from ..timing import velocity

SOLE_M = 0.006
"""Vertices within this of the lowest one of their region, at zero pose, are its sole."""
_AROUND = 6
"""Points a region: the outermost ones of its sole in so many directions."""
_REGIONS = tuple(
    SMPL_JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("ankle", "foot")
)  # fmt: skip
"""Left heel, left toe, right heel, right toe, as :data:`kinflow.skeleton.FEET`: the joints that carry them."""

NEAR_M, NEAR_WIDTH_M = 0.045, 0.012
"""A region this high above the ground is as likely to stand as not, and how sharply that falls off."""
SLOW_MS, SLOW_WIDTH_MS = 0.45, 0.12
"""The same of its speed."""


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


def contact_probability(soles: Tensor, ground: float, timestamps: Tensor, prior: Tensor | None = None) -> Tensor:
    """Which regions stand, (T, 4) 0..1: near the ground and slow, and what the network saw as a third voice.

    Args:
        soles: (T, 4, 6, 3) m in the world, y up. ground: its height there, m.
        timestamps: (T,) s.
        prior: (T, 4) probabilities of another source; clamped, so that it can only lean the verdict.
    """
    height = soles[..., 1].amin(-1) - ground
    logit = (NEAR_M - height) / NEAR_WIDTH_M
    if len(soles) > 1:
        speed = velocity(soles.mean(-2), timestamps).norm(dim=-1)  # (T - 1, 4)
        # A frame stands where either of its two steps is short: feet land and lift within one.
        slow = torch.minimum(torch.cat((speed[:1], speed)), torch.cat((speed, speed[-1:])))
        logit = torch.minimum(logit, (SLOW_MS - slow) / SLOW_WIDTH_MS)
    if prior is not None:
        logit = logit + 0.5 * torch.logit(prior.to(logit).clamp(0.05, 0.95))
    return torch.sigmoid(logit)


def lowest_probability(soles: Tensor) -> Tensor:
    """Which regions stand, (T, 4) 0..1, told by each frame alone: those about as low as the lowest; ``soles`` as above."""
    height = soles[..., 1].amin(-1)
    return torch.sigmoid((NEAR_M / 2 - (height - height.amin(-1, keepdim=True))) / NEAR_WIDTH_M)


def slow_across(soles: Tensor, rays: Tensor, timestamps: Tensor) -> Tensor:
    """Which regions are slow as the camera saw them, (T, 4) 0..1: across the line of sight, where it sees well, over a tenth of a
    second.

    Args:
        soles: (T, 4, P, 3) m, as seen, in axes that stand still. rays: (T, 3) lines of sight. timestamps: (T,) s.
    """
    frames = len(soles)
    if frames < 2:
        return torch.ones_like(soles[..., 0, 0])
    at = torch.arange(frames)
    reach = max(1, round(0.05 / max(1e-3, float(timestamps.diff().median()))))
    before, after = (at - reach).clamp_min(0), (at + reach).clamp_max(frames - 1)
    centre = soles.mean(-2)
    moved = centre[after] - centre[before]
    moved = moved - (moved * rays[:, None]).sum(-1, keepdim=True) * rays[:, None]
    seconds = (timestamps[after] - timestamps[before]).to(soles.dtype)
    speed = moved.norm(dim=-1) / seconds[:, None]
    return torch.sigmoid((SLOW_MS - speed) / SLOW_WIDTH_MS)
