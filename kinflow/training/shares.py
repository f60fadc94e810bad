"""Rotations that trackers share out differently among neighbouring joints, drawn anew for each clip.

Where a bend or a turn is ambiguous between neighbours, SMPL fits differ by who made them: how far the collars go with the arms,
how the spine's joints share a bend, how toes are held, whether a limb twists above or below its hinge. A prior is to be broad
there, and sharp across: so training shows it every way of sharing, with all limbs pointing where they did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import SMPL_JOINTS, SMPL_REST_OFFSETS

RHYTHM = 0.15
"""Largest change of the share of an arm's swing that the collar takes."""
SPINE = 0.25
"""Largest change of the first and of the second spine joint's share of the trunk's bend."""
TOES = 0.2
"""rad, largest change of how far toes are bent; TWIST: of a limb's turn about its own bone, above its hinge against below."""
TWIST = 0.15
KINDS = ("rhythm", "spine", "toes", "twist")
_SIDES = (("left", 1.0), ("right", -1.0))
_TWISTS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
_SPINE = tuple(SMPL_JOINTS.index(f"spine{i}") - 1 for i in (1, 2, 3))


def _at(name: str) -> int:
    """Index among the 21 body joints."""
    return SMPL_JOINTS.index(name) - 1


@dataclasses.dataclass(frozen=True)
class Shares:
    """One clip's ways, each a number from -1 to 1 of its range, 0 as captured.

    Attributes:
        rhythm: (B,). spine: (B, 2) of the first two joints. toes: (B,). twist: (B, 4) of thigh, shin, upper arm, forearm.
    """

    rhythm: Tensor
    spine: Tensor
    toes: Tensor
    twist: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator) -> Shares:
        """``count`` clips' ways, each number uniform over its range."""

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=generator) - 1

        return cls(uniform(count), uniform(count, 2), uniform(count), uniform(count, 4))

    def alone(self, kinds: Sequence[str]) -> Shares:
        """With all but these kinds as captured."""
        return Shares(*(v if k in kinds else torch.zeros_like(v) for k, v in vars(self).items()))


def reshare(rotmat: Tensor, shares: Shares) -> Tensor:
    """Body rotations (B, ..., 21, 3, 3) with rotations shared out in other ways; B of ``shares``.

    Head, arms, hands and legs keep their directions in space.
    """
    out = rotmat.clone()
    more = (1,) * (rotmat.dim() - 4)

    def of(number: Tensor) -> Tensor:
        return number.to(rotmat).reshape(-1, *more)

    # The spine: where its first two joints stand between pelvis and chest, which stays where it is.
    one, two, three = (rotmat[..., j, :, :] for j in _SPINE)
    second = one @ two
    chest = second @ three
    whole = rotmat_to_rotvec(chest)
    lower = one @ rotvec_to_rotmat((SPINE * of(shares.spine[:, 0]))[..., None] * whole)
    upper = second @ rotvec_to_rotmat((SPINE * of(shares.spine[:, :2].sum(1) / 2))[..., None] * whole)
    for joint, value in zip(_SPINE, (lower, lower.mT @ upper, upper.mT @ chest), strict=True):
        out[..., joint, :, :] = value
    for side, sign in _SIDES:
        collar, shoulder = _at(f"{side}_collar"), _at(f"{side}_shoulder")
        arm = rotmat[..., collar, :, :] @ rotmat[..., shoulder, :, :]
        swing = _swing(arm, _bone(f"{side}_elbow", rotmat))
        turned = rotvec_to_rotmat((RHYTHM * of(shares.rhythm))[..., None] * swing) @ rotmat[..., collar, :, :]
        out[..., collar, :, :], out[..., shoulder, :, :] = turned, turned.mT @ arm
        foot = _at(f"{side}_foot")
        bent = rotmat.new_zeros(3)
        bent[0] = TOES
        out[..., foot, :, :] = rotmat[..., foot, :, :] @ rotvec_to_rotmat(of(shares.toes)[..., None] * bent)
        for k, (above, below) in enumerate(_TWISTS):
            upper_joint, lower_joint = _at(f"{side}_{above}"), _at(f"{side}_{below}")
            axis = torch.nn.functional.normalize(_bone(f"{side}_{below}", rotmat), dim=-1)
            twist = rotvec_to_rotmat((sign * TWIST * of(shares.twist[:, k]))[..., None] * axis)
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
