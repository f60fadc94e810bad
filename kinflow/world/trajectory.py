"""A person's path in the world: as the camera saw it, with feet that stand where they stand."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .chains import solve_chain
from .feet import contact_probability, lowest_probability, slow_across

ACROSS_M = 0.015
"""Noise of the pelvis' place across the line of sight, in each frame; ALONG, along it, a share of the distance, in each part
of a second, for errors in depth are alike in time: :data:`COUNTED` a second. These, STILL_M and ACCELERATION are the best of some
settings on 15 validation clips (seed 7 of benchmarks/world.py). Where the pelvis goes aside, legs that are bent to its path miss their
feet in the picture by as much: 0.03 missed by more and was a little worse in the world, too; 0.008 let feet slide."""
ALONG = 0.006
COUNTED = 4.0
STILL_M = 0.008
"""How far a region that stands moves in a frame of 1/30 s; MISSED_M: from where on it is taken for one that does not stand."""
MISSED_M = 0.03
LEVEL_M = 0.01
"""How far a standing region's lowest point is from the ground."""
SINK_M = 0.002
"""How far a sole sinks into the ground."""
ACCELERATION = 4.0
"""Standard deviation of the pelvis' acceleration, m/s^2."""
ROUNDS = 6
"""Each solves for the path, then settles anew who stands and who would sink."""


@dataclasses.dataclass(frozen=True)
class Path:
    """``pelvis (T, 3)`` m in the world, and ``contacts (T, 4)`` 0..1 as they were settled with it."""

    pelvis: Tensor
    contacts: Tensor


def solve_path(
    seen: Tensor,
    rays: Tensor,
    depth: Tensor,
    soles: Tensor,
    timestamps: Tensor,
    *,
    certainty: Tensor | None = None,
    contacts: Tensor | None = None,
    ground: bool = True,
    noise: float = 1.0,
) -> Path:
    """Solve for a path by least squares over the whole clip; the pose stays what it is.

    Minimises, over the pelvis' places p_t: their distance from where they were seen, loose along the line of sight and tight
    across; the steps of regions of the feet that stand in both of two frames; the height of regions that stand; soles below
    the ground; and acceleration. Quadratic once it is known who stands, hence one banded system a round.

    Args:
        seen: (T, 3) m, the pelvis' places in the world (y up, ground at 0) as reconstructed.
        rays: (T, 3) unit vectors from the camera to it. depth: (T,) m.
        soles: (T, 4, P, 3) m from the pelvis to points of heels and toes, in the world's axes.
        timestamps: (T,) s.
        certainty: (T,) 0..1, how far what was seen counts; frames that were filled in count little.
        contacts: (T, 4) probability that a region stands by another source.
        ground: whether y = 0 is a ground.
        noise: factor on the noise of where it was seen.
    """
    dtype = seen.dtype
    frames = len(seen)
    certainty = torch.ones(frames, dtype=dtype) if certainty is None else certainty
    steps = timestamps.diff().to(dtype).clamp_min(1e-3)
    eye = torch.eye(3, dtype=dtype)
    # What the camera saw.
    span = torch.cat((steps, steps[-1:])) if frames > 1 else torch.full((1,), 1 / COUNTED, dtype=dtype)
    count = (span * COUNTED).clamp(max=1) * certainty
    along = rays[:, :, None] * rays[:, None, :]
    across = (span * 30).clamp(max=1) * certainty / ACROSS_M**2
    precision = across[:, None, None] * (eye - along) + (count / (ALONG * depth) ** 2)[:, None, None] * along
    precision = precision / noise**2
    base, base_right = precision, (precision @ seen[..., None])[..., 0]
    jerkless = _smoothness(steps, frames, dtype)
    slow = slow_across(seen[:, None, None] + soles, rays, timestamps)
    path = seen
    standing = torch.zeros(frames, 4, dtype=dtype)
    for number in range(ROUNDS):
        points = path[:, None, None] + soles
        level = 0.0 if ground else float(points[..., 1].amin((1, 2)).median())
        if number:
            standing = contact_probability(points, level, timestamps, contacts) * (slow if noise == 1 else 1)
        else:  # as seen, speeds are those of errors in depth, or of a camera whose path is not known yet
            standing = lowest_probability(soles) * (slow if noise == 1 else 1)
        diagonal, right = base.clone(), base_right.clone()
        next_one, next_two = torch.zeros_like(base), torch.zeros_like(base)
        if frames > 1:
            both = standing[1:] * standing[:-1]
            anchor = soles.mean(2)
            moved = anchor[1:] - anchor[:-1]  # p[t+1] - p[t] is to undo it
            missed = ((path[1:] - path[:-1])[:, None] + moved).norm(dim=-1) / (30 * steps[:, None])
            weight = both / (STILL_M * 30 * steps[:, None]) ** 2
            if number:  # Geman-McClure: what does not stand pulls no longer
                weight = weight / (1 + (missed / MISSED_M) ** 2) ** 2
            total, pull = weight.sum(1), (weight[..., None] * moved).sum(1)
            diagonal[:-1] += total[:, None, None] * eye
            diagonal[1:] += total[:, None, None] * eye
            next_one[:-1] -= total[:, None, None] * eye
            right[:-1] += pull
            right[1:] -= pull
        if ground:
            lowest = soles[..., 1].amin(2)  # (T, 4), below the pelvis: negative
            weight = standing / LEVEL_M**2
            sunk = (points[..., 1].amin(2) < 0) * (1 - standing) / SINK_M**2
            both_weights = weight + sunk
            diagonal[:, 1, 1] += both_weights.sum(1)
            right[:, 1] -= (both_weights * lowest).sum(1)
        for extra, block in zip(jerkless, (diagonal, next_one, next_two), strict=True):
            block += extra[:, None, None] * eye
        path = solve_chain(diagonal, next_one, next_two, right)
    return Path(path, standing)


def _smoothness(steps: Tensor, frames: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The bands (T,) of the penalty on second differences at true time steps: of frames with themselves, the next, the one
    after."""
    bands = [torch.zeros(frames, dtype=dtype) for _ in range(3)]
    if frames > 2:
        before, after = steps[:-1], steps[1:]
        # a = 2 ((p2 - p1) / after - (p1 - p0) / before) / (before + after), held to ACCELERATION over its own span.
        scale = 2 / (before + after) / ACCELERATION
        c0, c1, c2 = scale / before, -scale * (1 / before + 1 / after), scale / after
        per_second = ((before + after) / 2 * 30).clamp(max=1.0)
        for band, place, value in (
            (0, slice(0, -2), c0 * c0), (0, slice(1, -1), c1 * c1), (0, slice(2, None), c2 * c2),
            (1, slice(0, -2), c0 * c1), (1, slice(1, -1), c1 * c2), (2, slice(0, -2), c0 * c2),
        ):  # fmt: skip
            bands[band][place] += per_second * value
    return bands[0], bands[1], bands[2]
