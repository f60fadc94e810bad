"""Legs bent to their contacts: feet that stand stay where they stand, at the cost of a few degrees at hip, knee and ankle.

A path moves a body as a whole; feet that slide under it because the pose says so are held here. Evidence keeps its say: what
the camera saw across the line of sight is held to centimetres, depth is free to move, for that is what one camera tells worst.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import SMPL_JOINTS
from .chains import solve_chain

CHAINS = tuple(
    tuple(SMPL_JOINTS.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle", "foot"))
    for side in ("left", "right")
)
"""Joints of the left and the right leg; the first three are bent, the toes are carried along."""
BENT = 3

STILL_M = 0.0015
"""How far a region that stands moves in a frame of 1/30 s; MISSED_M: from where on it is taken for one that does not stand."""
MISSED_M = 0.04
LEVEL_M = 0.016
"""How far a standing region's lowest point is from the ground; SINK_M: how far any sinks into it."""
SINK_M = 0.003
ACROSS_M = 0.04
"""How far knees, heels and toes are from where they were seen across the line of sight in a frame, and ALONG_M along it."""
ALONG_M = 0.12
BEND = 0.35
"""Standard deviation of what a joint is bent by, rad; STEADY: of its change in 1/30 s."""
STEADY = 0.03
ROUNDS = 4
PIECE, MARGIN = 600, 90
"""Frames of a long motion that are solved at once, and how far beyond them is looked: a frame takes 40 kB on the way."""


class Limbs(NamedTuple):
    """Both legs of one person over T frames, in the world's axes (y up, ground at 0).

    Attributes:
        above: (T, 3, 3) rotation of the pelvis. pelvis: (T, 3) m.
        rotmat: (T, 2, 3, 3, 3) hip, knee, ankle relative to their parents. toes: (T, 2, 3, 3) of the toes' joints.
        offsets: (2, 4, 3) m, each joint from its parent at rest.
        soles: (4, P, 3) m, points of left heel, left toe, right heel, right toe in the axes of the joints that carry them.
    """

    above: Tensor
    pelvis: Tensor
    rotmat: Tensor
    toes: Tensor
    offsets: Tensor
    soles: Tensor


def limbs_of(body_rotmat: Tensor, above: Tensor, pelvis: Tensor, rest_joints: Tensor, soles: Tensor) -> Limbs:
    """The legs of bodies (T, 21, 3, 3) whose joints are at ``rest_joints (24, 3)`` m at rest; the others as in :class:`Limbs`."""
    chains = torch.tensor(CHAINS)
    parents = torch.cat((torch.zeros(2, 1, dtype=torch.long), chains[:, :-1]), 1)
    local = body_rotmat[:, chains - 1]  # (T, 2, 4, 3, 3)
    offsets = rest_joints[chains] - rest_joints[parents]
    return Limbs(above, pelvis, local[:, :, :BENT], local[:, :, BENT], offsets, soles)


def with_legs(body_rotmat: Tensor, legs: Tensor) -> Tensor:
    """Bodies (T, 21, 3, 3) with other hips, knees and ankles (T, 2, 3, 3, 3)."""
    pose = body_rotmat.clone()
    pose[:, torch.tensor(CHAINS)[:, :BENT] - 1] = legs
    return pose


class Posed(NamedTuple):
    """``turned (T, 2, 4, 3, 3)`` and ``placed (T, 2, 4, 3)`` m of the legs' joints, ``soles (T, 4, P, 3)`` m."""

    turned: Tensor
    placed: Tensor
    soles: Tensor


def posed(limbs: Limbs) -> Posed:
    """Forward kinematics of both legs."""
    turned, placed = [], []
    above = limbs.above[:, None].expand(-1, 2, 3, 3)
    at = limbs.pelvis[:, None].expand(-1, 2, 3)
    for number in range(BENT + 1):
        at = at + (above @ limbs.offsets[:, number, :, None])[..., 0]
        above = above @ (limbs.rotmat[:, :, number] if number < BENT else limbs.toes)
        turned.append(above)
        placed.append(at)
    turns, places = torch.stack(turned, 2), torch.stack(placed, 2)
    # Heels are carried by the ankles, toes by the joints at their base.
    carriers, bases = turns[:, :, 2:].flatten(1, 2), places[:, :, 2:].flatten(1, 2)
    return Posed(turns, places, (carriers @ limbs.soles.mT).mT + bases[:, :, None])


def bend(
    limbs: Limbs,
    seen: Tensor,
    rays: Tensor,
    standing: Tensor,
    timestamps: Tensor,
    *,
    begin: Tensor | None = None,
    certainty: Tensor | None = None,
    ground: bool = True,
) -> Tensor:
    """Rotations (T, 2, 3, 3, 3) of hips, knees and ankles that hold standing feet, by Gauss-Newton over the whole clip.

    Minimises what standing regions move from frame to frame; their height over the ground; soles below it; how far knees, heels
    and toes go from where they were seen, across the line of sight, and from where the pose has them, along it; what joints
    are bent by, and how that changes.

    Args:
        limbs: as reconstructed, in the world.
        seen: (T, 3) m, the pelvis' places as the camera saw them: what is held across the line of sight.
        rays: (T, 3) unit vectors from the camera to the person.
        standing: (T, 4) 0..1, which regions stand.
        timestamps: (T,) s.
        begin: rotations to begin from, as returned, where they are known about already.
        certainty: (T,) 0..1, how far what was seen counts.
        ground: whether y = 0 is a ground.
    """
    frames, dtype = len(limbs.pelvis), limbs.pelvis.dtype
    certainty = torch.ones(frames, dtype=dtype) if certainty is None else certainty
    begin = limbs.rotmat if begin is None else begin
    kept = []
    for first in range(0, frames, PIECE):
        start, end = max(0, first - MARGIN), min(frames, first + PIECE + MARGIN)
        piece = limbs._replace(
            above=limbs.above[start:end], pelvis=limbs.pelvis[start:end], rotmat=limbs.rotmat[start:end],
            toes=limbs.toes[start:end],
        )  # fmt: skip
        arrays = (x[start:end] for x in (begin, seen, rays, standing, timestamps, certainty))
        kept.append(_bend(piece, *arrays, ground=ground)[first - start :][:PIECE])
    return torch.cat(kept)


def _bend(
    limbs: Limbs, begin: Tensor, seen: Tensor, rays: Tensor, standing: Tensor, timestamps: Tensor, certainty: Tensor,
    *, ground: bool,
) -> Tensor:  # fmt: skip
    """:func:`bend` of a piece."""
    frames, dtype = len(limbs.pelvis), limbs.pelvis.dtype
    steps = timestamps.diff().to(dtype).clamp_min(1e-3)
    span = (torch.cat((steps, steps[-1:])) * 30).clamp(max=1) if frames > 1 else torch.ones(1, dtype=dtype)
    along = rays[:, :, None] * rays[:, None, :]
    eye = torch.eye(3, dtype=dtype)
    precision = (certainty * span)[:, None, None] * ((eye - along) / ACROSS_M**2 + along / ALONG_M**2)
    first = posed(limbs)
    # Across the line of sight points are to stay where they were seen, along it where the pose has them.
    shift = seen - limbs.pelvis
    shift = shift - (shift * rays).sum(-1, keepdim=True) * rays
    wanted = _markers(first) + shift[:, None, None]
    start = limbs.rotmat
    now = limbs._replace(rotmat=begin)
    stand = standing.unflatten(1, (2, 2))  # (T, 2, heel and toe)
    for _ in range(ROUNDS):
        at = posed(now)
        markers, jacobian = _markers(at), _jacobian(at)  # (T, 2, 3, 3), (T, 2, 3, 3, 9): knee, heel, toe
        bent = rotmat_to_rotvec(start.mT @ now.rotmat).flatten(-2)  # (T, 2, 9)
        normal = torch.einsum("tlpia,tij,tlpjb->tlab", jacobian, precision, jacobian)
        right = torch.einsum("tlpia,tij,tlpj->tla", jacobian, precision, wanted - markers)
        held = span[:, None, None] / BEND**2
        normal = normal + held[..., None] * torch.eye(9, dtype=dtype)
        right = right - held * bent
        onward = torch.zeros_like(normal)
        if ground:
            heights = at.soles[..., 1].unflatten(1, (2, 2))  # (T, 2, 2, P)
            lowest, which = heights.min(-1)
            points = at.soles.unflatten(1, (2, 2)).gather(3, which[..., None, None].expand(-1, -1, -1, 1, 3))[..., 0, :]
            rows = _moved_by(at, points)[..., 1, :]  # (T, 2, 2, 9)
            weight = (stand / LEVEL_M**2 + (lowest < 0) * (1 - stand) / SINK_M**2) * span[:, None, None]
            normal = normal + torch.einsum("tlp,tlpa,tlpb->tlab", weight, rows, rows)
            right = right - torch.einsum("tlp,tlpa,tlp->tla", weight, rows, lowest)
        if frames > 1:
            feet, rows = markers[:, :, 1:], jacobian[:, :, 1:]  # (T, 2, 2, 3), (T, 2, 2, 3, 9)
            moved = feet[1:] - feet[:-1]
            share = (30 * steps)[:, None, None]
            weight = stand[1:] * stand[:-1] / (STILL_M * share) ** 2
            weight = weight / (1 + (moved.norm(dim=-1) / (share * MISSED_M)) ** 2) ** 2
            normal[:-1] += torch.einsum("tlp,tlpia,tlpib->tlab", weight, rows[:-1], rows[:-1])
            normal[1:] += torch.einsum("tlp,tlpia,tlpib->tlab", weight, rows[1:], rows[1:])
            onward[:-1] -= torch.einsum("tlp,tlpia,tlpib->tlab", weight, rows[:-1], rows[1:])
            right[:-1] += torch.einsum("tlp,tlpia,tlpi->tla", weight, rows[:-1], moved)
            right[1:] -= torch.einsum("tlp,tlpia,tlpi->tla", weight, rows[1:], moved)
            steady = 1 / (STEADY**2 * 30 * steps)[:, None, None]
            diagonal = steady[..., None] * torch.eye(9, dtype=dtype)
            change = steady * (bent[1:] - bent[:-1])
            normal[:-1] += diagonal
            normal[1:] += diagonal
            onward[:-1] -= diagonal
            right[:-1] += change
            right[1:] -= change
        step = solve_chain(
            normal.transpose(0, 1),
            onward.transpose(0, 1),
            torch.zeros_like(normal).transpose(0, 1),
            right.transpose(0, 1),
        ).transpose(0, 1)
        longest = step.unflatten(-1, (BENT, 3)).norm(dim=-1).amax()
        step = step / (longest / 0.5).clamp_min(1)  # linear only so far
        now = now._replace(rotmat=now.rotmat @ rotvec_to_rotmat(step.unflatten(-1, (BENT, 3))))
    return now.rotmat


def _markers(at: Posed) -> Tensor:
    """Knee, and the middles of heel and toe, of each leg (T, 2, 3, 3) m."""
    return torch.cat((at.placed[:, :, 1:2], at.soles.mean(2).unflatten(1, (2, 2))), 2)


def _jacobian(at: Posed) -> Tensor:
    """How the markers move (T, 2, 3, 3, 9) m with small turns of hip, knee and ankle about their own axes, rad."""
    return _moved_by(at, _markers(at), torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))


def _moved_by(at: Posed, points: Tensor, carried: Tensor | None = None) -> Tensor:
    """The same of points (T, 2, N, 3) m of the feet -> (T, 2, N, 3, 9), or of those that the joints marked in ``carried`` (N, 3)
    carry."""
    arm = points[:, :, :, None] - at.placed[:, :, None, :BENT]  # (T, 2, N, 3 joints, 3)
    axes = at.turned[:, :, None, :BENT]  # columns: the joint's own axes in the world
    moved = torch.linalg.cross(axes.mT, arm[..., None, :], dim=-1).mT  # (..., 3 xyz, 3 axes)
    if carried is not None:
        moved = moved * carried.to(moved)[:, :, None, None]
    return moved.transpose(-3, -2).flatten(-2)
