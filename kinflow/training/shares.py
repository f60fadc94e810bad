"""Rotations that trackers share out differently among neighbouring joints, drawn anew for each clip.

Where a bend or a turn is ambiguous between neighbours, SMPL fits differ by who made them: how far the collars go with the arms,
how the spine's joints share a bend, how toes are held, whether a limb twists above or below its hinge. Some hold to one way all the
clip long, others wander. A prior is to be broad there, and sharp across: so training shows it every way of sharing, with all limbs
pointing where they did.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import SMPL_JOINTS, SMPL_REST_OFFSETS
from .streams.noise import ar1

RHYTHM = 0.2
"""Largest change of the share of an arm's swing that the collar takes."""
SPINE = 0.3
"""Largest change of the first and of the second spine joint's share of the trunk's bend."""
TOES = (0.35, 0.15, 0.25)
"""rad, largest change of how toes are bent, turned out and rolled."""
TWIST = (0.35, 0.25, 0.5, 0.35)
"""rad, largest change of the turn of thigh, shin, upper arm and forearm about their own bones, above their hinge against below. A
bent knee 20 degrees off its hinge, as published fits of walking and dancing people have them, is a thigh turned by as much."""
OWN = 0.5
"""How far left and right differ, a share of the range."""
WANDER, WANDER_S = 0.3, (0.1, 1.0)
"""How far ways wander at most, a share of the range (standard deviation), and how fast, s."""
KINDS = ("rhythm", "spine", "toes", "twist")
_SIDES = (("left", 1.0), ("right", -1.0))
_TWISTS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
_SPINE = tuple(SMPL_JOINTS.index(f"spine{i}") - 1 for i in (1, 2, 3))


def _at(name: str) -> int:
    """Index among the 21 body joints."""
    return SMPL_JOINTS.index(name) - 1


@dataclasses.dataclass(frozen=True)
class Shares:
    """Clips' ways, numbers from -1 to 1 of their ranges (a little beyond where they wander), 0 as captured.

    Attributes:
        rhythm: (..., 2) left and right. spine: (..., 2) of the first two joints. toes: (..., 2, 3) left and right, bent, turned
            and rolled. twist: (..., 2, 4) of thigh, shin, upper arm, forearm.
    """

    rhythm: Tensor
    spine: Tensor
    toes: Tensor
    twist: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator, times: Tensor | None = None) -> Shares:
        """``count`` clips' ways, each number uniform over its range: (count, ...), or wandering over ``times (count, T)`` s about
        that, some a little and some a lot: (count, T, ...)."""

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=generator) - 1

        def sided(*shape: int) -> Tensor:
            return (1 - OWN) * uniform(count, 1, *shape) + OWN * uniform(count, 2, *shape)

        ways = cls(sided(), uniform(count, 2), sided(3), sided(4))
        if times is None:
            return ways
        low, high = (math.log(s) for s in WANDER_S)
        seconds = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
        amount = WANDER * torch.rand(count, 1, generator=generator)
        step = torch.diff(times, dim=1, prepend=times[:, :1]).float().clamp_min(0)
        return cls(*(
            v[:, None] + amount.reshape(-1, *[1] * v.dim()) * ar1(v.shape[1:], step, seconds, generator)
            for v in vars(ways).values()
        ))  # fmt: skip

    def alone(self, kinds: Sequence[str]) -> Shares:
        """With all but these kinds as captured."""
        return Shares(*(v if k in kinds else torch.zeros_like(v) for k, v in vars(self).items()))

    def mirrored(self) -> Shares:
        """Left for right."""
        return Shares(self.rhythm.flip(-1), self.spine, self.toes.flip(-2), self.twist.flip(-2))


def reshare(rotmat: Tensor, shares: Shares) -> Tensor:
    """Body rotations (B, ..., 21, 3, 3) with rotations shared out in other ways; (B) or (B, T) of ``shares``.

    Head, arms, hands and legs keep their directions in space.
    """
    out = rotmat.clone()
    frames = rotmat.dim() - 3

    def of(number: Tensor) -> Tensor:
        """(B) or (B, T), once more for each frame."""
        return number.to(rotmat).reshape(*number.shape, *[1] * (frames - number.dim() + 1))

    # The spine: where its first two joints stand between pelvis and chest, which stays where it is.
    one, two, three = (rotmat[..., j, :, :] for j in _SPINE)
    second = one @ two
    chest = second @ three
    whole = rotmat_to_rotvec(chest)
    lower = one @ rotvec_to_rotmat(SPINE * of(shares.spine[..., 0]) * whole)
    upper = second @ rotvec_to_rotmat(SPINE * of(shares.spine.mean(-1)) * whole)
    for joint, value in zip(_SPINE, (lower, lower.mT @ upper, upper.mT @ chest), strict=True):
        out[..., joint, :, :] = value
    for i, (side, sign) in enumerate(_SIDES):
        collar, shoulder = _at(f"{side}_collar"), _at(f"{side}_shoulder")
        arm = rotmat[..., collar, :, :] @ rotmat[..., shoulder, :, :]
        swing = _swing(arm, _bone(f"{side}_elbow", rotmat))
        turned = rotvec_to_rotmat(RHYTHM * of(shares.rhythm[..., i]) * swing) @ rotmat[..., collar, :, :]
        out[..., collar, :, :], out[..., shoulder, :, :] = turned, turned.mT @ arm
        foot = _at(f"{side}_foot")
        bent = [most * of(shares.toes[..., i, k]) * (1 if k == 0 else sign) for k, most in enumerate(TOES)]
        out[..., foot, :, :] = rotmat[..., foot, :, :] @ rotvec_to_rotmat(torch.cat(bent, -1))
        for k, (above, below) in enumerate(_TWISTS):
            upper_joint, lower_joint = _at(f"{side}_{above}"), _at(f"{side}_{below}")
            axis = torch.nn.functional.normalize(_bone(f"{side}_{below}", rotmat), dim=-1)
            twist = rotvec_to_rotmat(sign * TWIST[k] * of(shares.twist[..., i, k]) * axis)
            out[..., upper_joint, :, :] = out[..., upper_joint, :, :] @ twist
            out[..., lower_joint, :, :] = twist.mT @ out[..., lower_joint, :, :]
    return out


def _bone(joint: str, like: Tensor) -> Tensor:
    """(3,) m from a joint's parent to it, at rest."""
    return like.new_tensor(SMPL_REST_OFFSETS[SMPL_JOINTS.index(joint)])


def _swing(rotmat: Tensor, bone: Tensor) -> Tensor:
    """Rotation vector (..., 3) of the shortest turn that takes a bone (3,) to where rotations (..., 3, 3) turn it."""
    bone = bone / bone.norm()
    turned = rotmat @ bone
    axis = torch.linalg.cross(bone.expand_as(turned), turned)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (turned * bone).sum(-1, keepdim=True)
    return axis / sine.clamp_min(1e-6) * torch.atan2(sine, cosine)
