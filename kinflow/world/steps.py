"""How far a camera goes, by the people before it: a foot that stands does not move, so what it seems to move is the camera's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .camera_files import CameraPath
from .chains import solve_chain
from .feet import lowest_probability
from .trajectory import solve_path

FAR = 1e3
"""Factor on the noise of where people are seen, while the camera's path is not known: they are where their feet take them."""
ACCELERATION = 3.0
"""Standard deviation of the acceleration of a camera that is carried, m/s^2; STEP_MS: of its speed as one person tells it, m/s."""
STEP_MS = 0.3
LEAST_M = 0.05
"""A path whose contacts see less than this of it, in metres, tells no scale."""


@dataclasses.dataclass(frozen=True)
class Stepping:
    """One person about a camera whose place is not known, in y-up axes that do not turn with it; T frames.

    Attributes:
        rows: (T,) int64, of the camera's path. timestamps: (T,) s. observed: (T,) bool.
        pelvis: (T, 3) m from the camera. soles: (T, 4, P, 3) m from the pelvis.
    """

    rows: Tensor
    timestamps: Tensor
    observed: Tensor
    pelvis: Tensor
    soles: Tensor


def carried(path: CameraPath, people: Sequence[Stepping], to_y_up: Tensor) -> CameraPath:
    """The path with places, of a camera whose turns alone are known: every person walks by their own feet, and the camera is where
    it must be to have seen them so.

    Args:
        to_y_up: (3, 3), from the reference's axes to those of the people.
    """
    frames = len(path.T_ref2cam)
    total, pull = torch.zeros(frames, dtype=torch.float64), torch.zeros(frames, 3, dtype=torch.float64)
    steps = torch.full((frames,), 1 / 30, dtype=torch.float64)
    for person in people:
        walked = solve_path(
            person.pelvis, torch.nn.functional.normalize(person.pelvis, dim=-1), person.pelvis.norm(dim=-1), person.soles,
            person.timestamps, ground=False, noise=FAR,
        ).pelvis  # fmt: skip
        centre = walked - person.pelvis
        both = (person.observed[1:] & person.observed[:-1]).double()
        dt = person.timestamps.diff()
        weight = both / (STEP_MS * dt) ** 2
        at = person.rows[:-1]
        total[at] += weight
        pull[at] += weight[:, None] * centre.diff(dim=0)
        steps[at] = dt
    # Places whose steps are those, smooth where nobody tells them.
    eye = torch.eye(3, dtype=torch.float64)
    diagonal, next_one, next_two = (torch.zeros(frames, dtype=torch.float64) for _ in range(3))
    right = torch.zeros(frames, 3, dtype=torch.float64)
    diagonal[0] += 1e6  # the first is the origin
    diagonal += 1e-6
    diagonal[:-1] += total[:-1]
    diagonal[1:] += total[:-1]
    next_one[:-1] -= total[:-1]
    right[:-1] -= pull[:-1]
    right[1:] += pull[:-1]
    if frames > 2:
        bend = 1 / (ACCELERATION * steps[:-2] * steps[1:-1]) ** 2
        diagonal[:-2] += bend
        diagonal[1:-1] += 4 * bend
        diagonal[2:] += bend
        next_one[:-2] -= 2 * bend
        next_one[1:-1] -= 2 * bend
        next_two[:-2] += bend
    here, onward, beyond = (band[:, None, None] * eye for band in (diagonal, next_one, next_two))
    places = solve_chain(here, onward, beyond, right)
    return moved_to(path, (places - places[0]) @ to_y_up)


def scaled(path: CameraPath, people: Sequence[Stepping], to_y_up: Tensor) -> tuple[CameraPath, float | None]:
    """A path of known shape in metres, and its scale: that which lets standing feet stand best. None where nothing tells it, and
    the path as it is."""
    poses = torch.from_numpy(path.T_ref2cam)
    places = -(poses[:, :3, :3].mT @ poses[:, :3, 3:])[..., 0] @ to_y_up.mT
    moved, went, weights = [], [], []
    for person in people:
        standing = lowest_probability(person.soles)
        feet = (person.pelvis[:, None] + person.soles.mean(2)).diff(dim=0)  # (T - 1, 4, 3)
        both = standing[1:] * standing[:-1] * (person.observed[1:] & person.observed[:-1])[:, None]
        moved.append(feet.flatten(0, 1))
        went.append(places[person.rows].diff(dim=0)[:, None].expand(-1, 4, -1).flatten(0, 1))
        weights.append(both.flatten())
    step, by, weight = torch.cat(moved), torch.cat(went), torch.cat(weights)
    scale = torch.ones((), dtype=torch.float64)
    robust = weight
    for number in range(20):
        energy = (robust * by.square().sum(-1)).sum()
        if float(energy) <= 0:
            return _metric(path, 1.0), None
        scale = -(robust * (by * step).sum(-1)).sum() / energy
        missed = (step + scale * by).norm(dim=-1)
        width = 0.01 if number > 5 else 0.03
        robust = weight / (1 + (missed / width) ** 2) ** 2
    seen = float(scale) * float((weight * by.norm(dim=-1)).sum() / weight.sum().clamp_min(1e-9)) * len(path.T_ref2cam)
    if not float(scale) > 0 or seen < LEAST_M:
        return _metric(path, 1.0), None
    return _metric(path, float(scale)), float(scale)


def _metric(path: CameraPath, scale: float) -> CameraPath:
    poses = path.T_ref2cam.copy()
    poses[:, :3, 3] *= scale
    return dataclasses.replace(path, T_ref2cam=poses, metric=True)


def moved_to(path: CameraPath, places: Tensor) -> CameraPath:
    """The path with the camera at ``places`` (N, 3) m of the reference's axes."""
    poses = path.T_ref2cam.copy()
    poses[:, :3, 3] = -np.einsum("nij,nj->ni", poses[:, :3, :3], places.numpy())
    return dataclasses.replace(path, T_ref2cam=poses, metric=True)
