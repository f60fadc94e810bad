"""Rotations that trackers share out differently among neighbouring joints, drawn anew for each clip.

Where a bend or a turn is ambiguous between neighbours, SMPL fits differ by who made them: how far the collars go with the arms,
how the spine's joints share a bend, how toes are held, whether a limb twists above or below its hinge. Some hold to one way all the
clip long, others wander. A prior is to be broad there, and sharp across: so training shows it every way of sharing, with all limbs
pointing where they did.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import SMPL_JOINTS, SMPL_REST_OFFSETS
from .streams.noise import ar1

RHYTHM = 0.2
"""Largest change of the share of an arm's swing that the collar takes."""
COLLARS = (0.15, 0.3, 0.35)
"""rad, largest turn of the collars beside that, which the shoulders take back: rolled, forward and up."""
SPINE = 0.3
"""Largest change of the first and of the second spine joint's share of the trunk's bend."""
POSTURE = (0.25, 0.1, 0.12)
"""rad, largest turn of the first and of the second spine joint between pelvis and chest beside that: bent, turned, tilted."""
NECK = (0.3, 0.25, 0.2)
"""rad, largest turn of the neck that the head takes back: bent, turned, tilted."""
FEET = (0.2, 0.2, 0.25)
"""rad, largest turn of the feet that the toes take back: bent, turned out and rolled."""
TOES = (0.45, 0.25, 0.4)
"""rad, largest change of how toes are bent, turned out and rolled."""
HINGES = (0.6, 0.8)
"""rad, largest turn of the hinges of knees and elbows about the bones, thigh and shin, upper arm and forearm twisting alike: published
fits of people who walk and dance have knees up to 35 degrees off theirs."""
TWIST = (0.5, 0.35, 0.6, 0.5)
"""rad, largest change of the turn of thigh, shin, upper arm and forearm about their own bones beside that, above their hinge against
below."""
OWN = 0.5
"""How far left and right differ, a share of the range."""
WANDER, WANDER_S = 0.3, (0.1, 1.0)
"""How far ways wander at most, a share of the range (standard deviation), and how fast, s."""
KINDS = ("rhythm", "collars", "spine", "posture", "neck", "feet", "toes", "hinges", "twist")
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
        rhythm: (..., 2) left and right. collars: (..., 2, 3) rolled, forward, up. spine: (..., 2) of the first two joints.
            posture: (..., 2, 3) of these, bent, turned, tilted. neck: (..., 3) likewise. feet, toes: (..., 2, 3) left and right, bent,
            turned and rolled. hinges: (..., 2, 2) of knee and elbow. twist: (..., 2, 4) of thigh, shin, upper arm, forearm.
    """

    rhythm: Tensor
    collars: Tensor
    spine: Tensor
    posture: Tensor
    neck: Tensor
    feet: Tensor
    toes: Tensor
    hinges: Tensor
    twist: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator, times: Tensor | None = None) -> Shares:
        """``count`` clips' ways, each number uniform over its range: (count, ...), or wandering over ``times (count, T)`` s about
        that, some a little and some a lot: (count, T, ...)."""

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=generator) - 1

        def sided(*shape: int) -> Tensor:
            return (1 - OWN) * uniform(count, 1, *shape) + OWN * uniform(count, 2, *shape)

        ways = cls(
            sided(),
            sided(3),
            uniform(count, 2),
            uniform(count, 2, 3),
            uniform(count, 3),
            sided(3),
            sided(3),
            sided(2),
            sided(4),
        )
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
        turned = self.neck.new_tensor([1.0, -1.0, -1.0])
        return Shares(
            self.rhythm.flip(-1), self.collars.flip(-2), self.spine, self.posture * turned, self.neck * turned,
            self.feet.flip(-2), self.toes.flip(-2), self.hinges.flip(-2), self.twist.flip(-2),
        )  # fmt: skip


def reshare(rotmat: Tensor, shares: Shares) -> Tensor:
    """Body rotations (B, ..., 21, 3, 3) with rotations shared out in other ways; (B) or (B, T) of ``shares``.

    Head, arms, hands, legs and toes keep their directions in space: limbs point where they did. What lies between neighbours that
    share, collars, neck, spine and feet, does not.
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
    bent = [_vector(POSTURE, shares.posture[..., i, :], of) for i in range(2)]
    lower = one @ rotvec_to_rotmat(SPINE * of(shares.spine[..., 0]) * whole + bent[0])
    upper = second @ rotvec_to_rotmat(SPINE * of(shares.spine.mean(-1)) * whole + bent[1])
    for joint, value in zip(_SPINE, (lower, lower.mT @ upper, upper.mT @ chest), strict=True):
        out[..., joint, :, :] = value
    nod = rotvec_to_rotmat(_vector(NECK, shares.neck, of))
    neck, head = _at("neck"), _at("head")
    out[..., neck, :, :], out[..., head, :, :] = rotmat[..., neck, :, :] @ nod, nod.mT @ rotmat[..., head, :, :]
    for i, (side, sign) in enumerate(_SIDES):
        collar, shoulder = _at(f"{side}_collar"), _at(f"{side}_shoulder")
        arm = rotmat[..., collar, :, :] @ rotmat[..., shoulder, :, :]
        swing = _swing(arm, _bone(f"{side}_elbow", rotmat))
        held = rotvec_to_rotmat(_vector(COLLARS, shares.collars[..., i, :], of, sign))
        turned = rotvec_to_rotmat(RHYTHM * of(shares.rhythm[..., i]) * swing) @ rotmat[..., collar, :, :] @ held
        out[..., collar, :, :], out[..., shoulder, :, :] = turned, turned.mT @ arm
        ankle, foot = _at(f"{side}_ankle"), _at(f"{side}_foot")
        stood = rotvec_to_rotmat(_vector(FEET, shares.feet[..., i, :], of, sign))
        toes = rotvec_to_rotmat(_vector(TOES, shares.toes[..., i, :], of, sign))
        out[..., ankle, :, :] = rotmat[..., ankle, :, :] @ stood
        out[..., foot, :, :] = stood.mT @ rotmat[..., foot, :, :] @ toes
        for k, (above, below) in enumerate(_TWISTS):
            upper_joint, lower_joint = _at(f"{side}_{above}"), _at(f"{side}_{below}")
            axis = torch.nn.functional.normalize(_bone(f"{side}_{below}", rotmat), dim=-1)
            turn = TWIST[k] * of(shares.twist[..., i, k]) + HINGES[k // 2] * of(shares.hinges[..., i, k // 2])
            twist = rotvec_to_rotmat(sign * turn * axis)
            out[..., upper_joint, :, :] = out[..., upper_joint, :, :] @ twist
            out[..., lower_joint, :, :] = twist.mT @ out[..., lower_joint, :, :]
    return out


def _vector(most: Sequence[float], number: Tensor, of: Callable[[Tensor], Tensor], sign: float = 1.0) -> Tensor:
    """Rotation vectors of numbers (..., 3) of their ranges; ``sign`` -1 for the right side, whose y and z turn the other way."""
    return torch.cat([sign ** min(k, 1) * reach * of(number[..., k]) for k, reach in enumerate(most)], -1)


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
