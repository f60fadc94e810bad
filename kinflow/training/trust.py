"""How far forecasts are to be trusted: fitted on motions of the validation split, for :mod:`kinflow.denoiser.forecast`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..denoiser.forecast import outlook, pace
from ..denoiser.network import HORIZONS
from ..denoiser.windows import FORECAST_PAST
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from .poses import Capture
from .streams.windows import WindowSampler

WINDOWS = 320
RATE = 24.0
"""Frames a second of the windows: each of the horizons is a whole number of them."""
EXACT = 0.002
"""rad of noise that the past is thought to have."""
ROUNDS = 15
HELD = 10.0
"""Joints of whole windows that speak for trusting the denoiser as it is."""


@torch.no_grad()
def fit_trust(denoiser: Denoiser, captures: Sequence[Capture]) -> Tensor:
    """Set ``denoiser.trust`` so that the mean angle of its forecasts to what came is least.

    Args:
        denoiser: in evaluation mode. captures: motions that it was not trained on.

    Returns:
        Mean angles (H, 2) in degrees at the horizons: of the forecast, and of the last pose.
    """
    past, ahead = round(FORECAST_PAST * RATE) + 1, [round(h * RATE) for h in HORIZONS]
    window = WindowSampler(captures).draw(np.random.default_rng(0), WINDOWS, past + max(ahead), (RATE, RATE + 1e-6))
    whole = window.present.all(1)
    poses = torch.cat([c.body_pose for c in captures])
    device = denoiser.trust.device
    rotmat = rotvec_to_rotmat(poses[window.frames[whole]]).to(device)
    times = window.timestamps[whole].to(device)
    future = torch.tensor(ahead, device=device) + past - 1
    expected, truth, speeds = [], [], []
    for own, stamps in zip(rotmat.split(32), times.split(32), strict=True):
        seen = torch.ones(len(own), past, dtype=torch.bool, device=device)
        noise = own.new_full((len(own),), EXACT)
        made, last, _, speed = outlook(denoiser, own[:, :past], stamps[:, :past], seen, stamps[:, future], noise)
        expected.append(rotmat_to_rotvec(last.mT @ made))
        truth.append(rotmat_to_rotvec(last.mT @ own[:, future]))
        speeds.append(speed)
    way, right, part = torch.cat(expected).double(), torch.cat(truth).double(), pace(torch.cat(speeds).double())
    columns = torch.stack(((1 - part)[:, None, None, None] * way, part[:, None, None, None] * way), -1)
    table, errors = [], []
    for h in range(len(HORIZONS)):
        weights = _least_angles(columns[:, h], right[:, h]).clamp(0, 1.3)
        table.append(weights)
        off = (right[:, h] - columns[:, h] @ weights).norm(dim=-1)
        errors.append(torch.rad2deg(torch.stack((off.mean(), right[:, h].norm(dim=-1).mean()))))
    denoiser.trust.copy_(torch.stack(table))
    return torch.stack(errors)


def _least_angles(columns: Tensor, right: Tensor) -> Tensor:
    """Weights (2,) of columns (N, J, 3, 2) with the least sum of distances to right (N, J, 3), by reweighted least squares."""
    weights = columns.new_ones(2)
    held = HELD * right.norm(dim=-1).mean() * columns.shape[1]
    for _ in range(ROUNDS):
        pull = 1 / (right - columns @ weights).norm(dim=-1).clamp_min(1e-3)
        normal = torch.einsum("njck,nj,njcl->kl", columns, pull, columns) + held * torch.eye(2).to(columns)
        weights = torch.linalg.solve(normal, torch.einsum("njck,nj,njc->k", columns, pull, right) + held)
    return weights
