"""How far somebody is reconstructed as leaning away from the camera: told by their poses once gravity is known, and undone.

A lean along the line of sight shows in no picture, so one camera tells it worst; seen from the side bodies then stand askew. The
ground that people walk on, a background's lines and other people say where up is, though, and poses which way up should be for them
(:mod:`kinflow.flow.tilt`). What is left between the two is posture, up's own error, or a wrong lean, by their variances.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..cameras import project
from ..flow.tilt import Tilt, load_tilt
from ..reconstruction.geometry import solve_translation
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from .chains import solve_chain
from .gravity import AWAY_DEG, CORRELATED_S, DEPTH_LEAN_DEG, LEAN_DEG, WOBBLE_DEG
from .person import Person, pieces

_ANGLES = torch.arange(-30, 31, dtype=torch.float64).deg2rad()
"""Leans that are tried in every frame."""
_NOISE_M = 0.05
"""Of a joint's place in the picture, where a body that was turned is placed anew."""
_SHARPEST_DEG = 1.0
"""No frame tells its lean better than this."""


def leaning(person: Person, up: Tensor, up_std_deg: float) -> Tensor:
    """Angles (T,) rad by which the person leans away from the camera and should not; negative: towards it.

    A lean is one angle all the clip long plus one that wanders (an Ornstein-Uhlenbeck process); what poses say of it has the
    posture's own lean and the error of up in it, which both stay the same all the clip long.

    Args:
        person: in camera axes.
        up: (T, 3) unit vectors in camera axes. up_std_deg: their standard deviation in each of two directions.
    """
    told, variance = _told(person, up)
    seconds = person.timestamps.diff().clamp_min(1e-6)
    apart = float(seconds.median()) if len(seconds) else CORRELATED_S
    counted = (min(1.0, apart / CORRELATED_S) * person.whole).clamp_min(1e-3)  # frames near each other err alike
    precision = counted / variance
    always, wander = math.radians(AWAY_DEG), math.radians(WOBBLE_DEG) ** 2
    chosen = math.radians(DEPTH_LEAN_DEG) ** 2
    constant = chosen + math.radians(LEAN_DEG) ** 2 + math.radians(up_std_deg) ** 2
    # Precision of the wandering part: tridiagonal, as of every Markov process.
    kept = torch.exp(-seconds / CORRELATED_S)
    stiff = 1 / (wander * (1 - kept.square()))
    diagonal, onward = precision.clone(), torch.zeros_like(precision)
    diagonal[:-1] += kept.square() * stiff
    diagonal[1:] += stiff
    onward[:-1] = -kept * stiff
    diagonal[0] += 1 / wander
    # Two right sides: what was told, and what a constant in it would do; the constant is then one unknown by itself.
    right = torch.stack((precision * (told - always), precision))[..., None]
    blocks = diagonal[:, None, None].expand(2, -1, 1, 1), onward[:, None, None].expand(2, -1, 1, 1)
    wandering, answer = solve_chain(*blocks, torch.zeros_like(blocks[0]), right)[..., 0]
    left = told - always - wandering
    whole = (precision * left).sum() / ((precision * (1 - answer)).sum() + 1 / constant)
    return always + wandering - whole * answer + whole * chosen / constant


def righted(person: Person, lean: Tensor, up: Tensor) -> Person:
    """The person turned back by ``lean (T,)`` rad about their pelvis, towards the camera, and moved so that joints stay where they
    were in the picture: whoever is seen from above is taller upright than leant, and so further away."""
    axis = torch.linalg.cross(up, _away(person, up))
    back = rotvec_to_rotmat(-lean[:, None] * axis)
    motion = person.motion
    root = back @ rotvec_to_rotmat(torch.tensor(motion.global_orient, dtype=torch.float64))
    joints = torch.tensor(motion.joints3d).double()
    K = torch.tensor(motion.K, dtype=torch.float64)
    turned = _turned(joints, joints[:, :1], back)
    moved = solve_translation(turned, project(joints, K), torch.ones_like(joints[..., 0]), K, _NOISE_M).mean
    ray = torch.nn.functional.normalize(person.pelvis, dim=-1)
    along = (moved * ray).sum(-1, keepdim=True)
    moved = (moved + (along.mean() - along) * ray)[:, None]  # a lean that wanders does not make anybody walk to and fro
    motion = dataclasses.replace(
        motion,
        global_orient=rotmat_to_rotvec(root).to(torch.float32).numpy(),
        transl=(torch.tensor(motion.transl) + moved[:, 0]).float().numpy(),
        joints3d=(turned + moved).float().numpy(),
    )
    pelvis = person.pelvis
    soles = _turned(person.soles.double(), pelvis[:, None, None], back[:, None]) + moved[:, None]
    mass = (_turned(person.mass[:, None], pelvis[:, None], back) + moved)[:, 0]
    return dataclasses.replace(
        person, motion=motion, pelvis=pelvis + moved[:, 0], mass=mass, soles=soles.to(person.soles.dtype)
    )


def _told(person: Person, up: Tensor) -> tuple[Tensor, Tensor]:
    """What each frame's pose says of the lean (T,) rad, and its variance (T,)."""
    away, tilt = _away(person, up), load_tilt()
    means, variances = [], []
    for rows in pieces(person.motion):
        root, body = person.turned(rows)
        tried = up[rows, None] + _ANGLES.tan()[:, None] * away[rows, None]  # (N, G, 3)
        local = torch.nn.functional.normalize(tried, dim=-1) @ root
        with torch.no_grad():
            density = Tilt(*(value.double()[:, None] for value in tilt(body)))
        weight = torch.softmax(density.log_prob(local), -1)
        mean = weight @ _ANGLES
        means.append(mean)
        variances.append((weight * (_ANGLES - mean[:, None]).square()).sum(-1) + math.radians(_SHARPEST_DEG) ** 2)
    return torch.cat(means), torch.cat(variances)


def _away(person: Person, up: Tensor) -> Tensor:
    """Horizontal directions (T, 3) from the camera to the person."""
    ray = torch.nn.functional.normalize(person.pelvis, dim=-1)
    return torch.nn.functional.normalize(ray - (ray * up).sum(-1, keepdim=True) * up, dim=-1)


def _turned(points: Tensor, pivot: Tensor, turn: Tensor) -> Tensor:
    return pivot + (points - pivot) @ turn.mT
