"""Which parts of the feet stand still, told by how they move in the fitted motion.

Before a camera that stands still a foot that stands does not move across the line of sight, where one camera sees well. What the
network said of single frames adds nothing to that (measured). A camera that moves is taken out by the world
(:func:`kinflow.place`), which settles contacts anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_shape
from ..timing import velocity

WEIGHTS, CONSTANT = (-1.36, -0.26, 0.175, -0.53), -2.33
"""Of the columns of :func:`foot_speeds`: logistic regression on rendered people of validation motions, as
tools/calibrate_contacts.py prints it."""
_LEAST_MS = 0.02


def foot_speeds(feet: Tensor, timestamps: Tensor) -> Tensor:
    """Logs of speeds in m/s (T, 4, 4): across the line of sight; along it; of the other foot's same part, across; of the same
    foot's other part, across. Each is the faster of the steps before and after.

    Args:
        feet: (T, 4, 3) m in camera axes: left heel, left toe, right heel, right toe.
        timestamps: (T,) s.
    """
    frames = check_shape("feet", feet, "T 4 3")["T"]
    if frames < 2:
        return feet.new_full((frames, 4, 4), _LEAST_MS).log()
    moved = velocity(feet, timestamps)  # (T - 1, 4, 3)
    along = (moved * torch.nn.functional.normalize(feet[1:], dim=-1)).sum(-1)
    across = (moved.square().sum(-1) - along.square()).clamp_min(0).sqrt()
    faster = [torch.maximum(torch.cat((v[:1], v)), torch.cat((v, v[-1:]))) for v in (across, along.abs())]
    seen, deep = (v.clamp_min(_LEAST_MS).log() for v in faster)
    return torch.stack((seen, deep, seen[:, [2, 3, 0, 1]], seen[:, [1, 0, 3, 2]]), -1)


def contact_probability(feet: Tensor, timestamps: Tensor) -> Tensor:
    """Probability (T, 4) that parts of the feet stand still; arguments as of :func:`foot_speeds`."""
    return torch.sigmoid(foot_speeds(feet, timestamps) @ feet.new_tensor(WEIGHTS) + CONSTANT)
