"""Which points of a body's soles stand when, and what they carry."""

from __future__ import annotations

import torch
from torch import Tensor

from ..skeleton import SMPL_JOINTS
from ..timing import velocity

NEAR_M, NEAR_WIDTH_M = 0.045, 0.012
"""A region this high above the ground is as likely to stand as not, and how sharply that falls off."""
SLOW_MS, SLOW_WIDTH_MS = 0.45, 0.12
"""The same of its speed."""


STANDING, STANDING_WIDTH = 0.78, 0.03
"""Height of the pelvis over the feet, in lengths of a leg, at which the feet carry as likely as a seat, and how sharply."""


_MASS = {
    "pelvis": 0.14, "spine1": 0.10, "spine2": 0.13, "spine3": 0.13, "head": 0.08, "hip": 0.057, "knee": 0.069, "ankle": 0.028,
    "foot": 0.007, "shoulder": 0.016, "elbow": 0.021, "wrist": 0.013,
}  # fmt: skip
"""Shares of a body's mass by joint, those of limbs on each side: segments' masses (Winter, Biomechanics and Motor Control of
Human Movement, table 4.1), each split between its ends by where its centre lies."""


def centre_of_mass(joints: Tensor) -> Tensor:
    """About where the mass of a body with these joints (..., 24, 3) m lies: (..., 3)."""
    shares = joints.new_tensor(
        [_MASS.get(name.removeprefix("left_").removeprefix("right_"), 0.0) for name in SMPL_JOINTS]
    )
    return (joints * (shares / shares.sum())[:, None]).sum(-2)


def carried_by_feet(height: Tensor, leg: float) -> Tensor:
    """How surely the feet carry a body (...) 0..1 whose pelvis is ``height (...)`` m above them, of legs ``leg`` m long: seats are
    lower than that."""
    return torch.sigmoid((height / leg - STANDING) / STANDING_WIDTH)


def support(soles: Tensor, up: Tensor) -> Tensor:
    """The middle (T, 3) m of the regions ``soles (T, 4, P, 3)`` that are about as low as the lowest along ``up (T, 3)``."""
    height = (soles * up[:, None, None]).sum(-1).amin(-1)
    low = torch.sigmoid((NEAR_M - (height - height.amin(-1, keepdim=True))) / NEAR_WIDTH_M)
    return (low[..., None] * soles.mean(-2)).sum(1) / low.sum(1, keepdim=True)


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
