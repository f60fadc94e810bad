"""How far a camera goes, by the ground before it: corners on a plane at a known height under the camera say it in metres.

People's feet say so too (:mod:`kinflow.world.steps`), but which of two feet stands is a matter of centimetres, of which
one camera tells few; the ground is seen by a hundred corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rotations import exp_so3

Array = NDArray[Any]

BELOW = 0.07
"""Least cosine below the horizon, 4 degrees, from which on a corner is taken to be on the ground."""
FEWEST = 12
"""Corners, of those below, that are to agree with a plane for a step to be told; MISSED: to so many rad at least."""
MISSED = 0.003
NOISE, TURNED = 0.001, 0.009
"""Noise of a corner, and of the turn within a window, rad."""
ROUNDS = 12


def along_floor(windows: Sequence[Array], rotmat: Array, up: Array, height: float) -> tuple[Array, Array, float]:
    """Where a camera is in each frame, of which the turns are known to half a degree.

    Args:
        windows: unit rays (n, P, 3) to corners over n frames, in camera axes; each window begins with the last frame of the one
            before.
        rotmat: (N, 3, 3) from the reference's axes to each frame's.
        up: (3,) in the reference's axes. height: of the camera over the ground, m.

    Returns:
        places (N, 3) m in the reference's axes, the first the origin; the turns (N, 3, 3), mended by what the ground says of
        them; and the share of the frames that it told.
    """
    places, turns, told, first = np.zeros((len(rotmat), 3)), rotmat.copy(), 0, 0
    mended = np.eye(3)
    for corners in windows:
        count = len(corners)
        turns[first : first + count] = rotmat[first : first + count] @ mended
        rays = corners @ turns[first : first + count]
        below = -(rays[0] @ up)
        chosen = below > BELOW
        rays, reach = rays[:, chosen], height / below[chosen]
        step = np.zeros(6)
        for number in range(1, count):
            found = _step(rays[0], rays[number], reach, step) if chosen.sum() >= FEWEST else None
            if found is not None:
                step = found
                told += 1
            places[first + number] = places[first] + step[:3]
            turns[first + number] = turns[first + number] @ exp_so3(-step[3:])
        first += count - 1
        mended = mended @ exp_so3(-step[3:])
    return places, turns, told / max(1, len(rotmat) - 1)


def _step(before: Array, now: Array, reach: Array, start: Array) -> Array | None:
    """The camera's place (3,) m and what it is turned by beside what was known (3,) rad, for which points ``reach * before``
    (P, 3) are seen along ``now`` (P, 3), by least squares with Cauchy's weights; None where too few agree."""
    eye = np.eye(3)
    lever = np.cross(now[:, None], eye).swapaxes(1, 2) / reach[:, None, None]
    # A turn w moves a ray r by w x r, and (w x r) x r = r (r . w) - w.
    twist = eye - now[:, :, None] * now[:, None, :]
    rows = np.concatenate((lever, twist), -1)
    wanted = np.cross(now, before)  # of points that the camera's step moves by what is seen
    held = np.diag([1e-9] * 3 + [(NOISE / TURNED) ** 2] * 3)
    step, size = start, np.zeros(len(now))
    for _ in range(ROUNDS):
        size = np.linalg.norm(wanted - rows @ step, axis=-1)
        weight = 1 / (1 + (size / max(float(np.median(size)), MISSED)) ** 2)
        normal = np.einsum("p,pki,pkj->ij", weight, rows, rows) + held
        step = np.linalg.solve(normal, np.einsum("p,pki,pk->i", weight, rows, wanted))
    return step if int((size < 2 * MISSED).sum()) >= FEWEST else None
