"""Which parts of the feet stand, told from a motion alone: near the ground, and slow.

Trackers' poses shake, and differences of successive frames of a foot that stands look like steps. So places and speeds are
those of straight lines through a tenth of a second, at the true times; the ground is where the lowest soles are most often.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ..body import Body
from ..body.kinematics import full_pose
from ..body.soles import soles_of

WIDTH_S = 0.05
"""Standard deviation of the Gaussian window of the lines."""
WEIGHTS, CONSTANT = (-1.05, -84.4), 2.66
"""Of log speed (m/s) and height (m), by tools/calibrate_prior_contacts.py."""
LEAST_MS = 0.02
HIGHEST_M = 0.3
GROUND = 0.1
"""Share of the frames whose lowest sole is below the ground."""


@functools.cache
def _body() -> Body:
    return Body.open("light")


def foot_contacts(body_rotmat: Tensor, root_rotmat: Tensor, transl: Tensor, times: Tensor, valid: Tensor) -> Tensor:
    """Probabilities (T, 4) that left heel, left toe, right heel, right toe stand; 0 in frames that are not valid.

    Args:
        body_rotmat: (T, 21, 3, 3) of the open body's mean shape. root_rotmat: (T, 3, 3), transl: (T, 3) m, y up.
        times: (T,) s. valid: (T,) bool, at least one.
    """
    speed, height = foot_motion(body_rotmat[valid], root_rotmat[valid], transl[valid], times[valid])
    logit = WEIGHTS[0] * speed + WEIGHTS[1] * height + CONSTANT
    out = logit.new_zeros(len(valid), 4)
    out[valid] = torch.sigmoid(logit)
    return out


def foot_motion(body_rotmat: Tensor, root_rotmat: Tensor, transl: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the speeds in m/s, and heights in m over the ground, of the feet's parts: (T, 4) each. Arguments as of
    :func:`foot_contacts`."""
    body, betas = _body(), torch.zeros(10)
    soles = soles_of(body, betas)
    pose = full_pose(body_rotmat.cpu().float(), root_rotmat.cpu().float())
    turned, placed = body.transforms(betas, pose, transl.cpu().float())
    points = soles.posed(turned, placed).to(body_rotmat)
    centre, lowest = points.mean(-2), points[..., 1].amin(-1)
    place, velocity = local_lines(centre.flatten(1), times)
    height = place.unflatten(1, (4, 3))[..., 1] + (lowest - centre[..., 1]).mean(0)
    height = height - height.amin(1).quantile(GROUND)
    speed = velocity.unflatten(1, (4, 3)).norm(dim=-1).clamp_min(LEAST_MS)
    return speed.log(), height.clamp(-HIGHEST_M, HIGHEST_M)


def local_lines(values: Tensor, times: Tensor, width: float = WIDTH_S) -> tuple[Tensor, Tensor]:
    """Places and slopes (T, D) at times (T,) s of the straight lines that fit values (T, D) best around each of them, by
    weighted least squares. A single frame has no slope: 0."""
    frames = len(times)
    if frames == 1:
        return values, torch.zeros_like(values)
    reach = max(1, math.ceil(3 * width / float(times.diff().median())))
    at = torch.arange(frames, device=times.device)[:, None] + torch.arange(-reach, reach + 1, device=times.device)
    inside = (at >= 0) & (at < frames)
    at = at.clamp(0, frames - 1)
    off = (times[at] - times[:, None]).to(values.dtype)
    # The nearest neighbours have a say however far away they are, so that there always is a line.
    near = torch.maximum(torch.exp(-0.5 * (off / width).square()), values.new_tensor(1e-3)) * inside
    weight = near / near.sum(1, keepdim=True)
    mean_off, mean = (weight * off).sum(1), torch.einsum("tk,tkd->td", weight, values[at])
    around = off - mean_off[:, None]
    slope = torch.einsum("tk,tkd->td", weight * around, values[at]) / (weight * around.square()).sum(1)[:, None]
    return mean - slope * mean_off[:, None], slope
