"""How far a camera goes, by the ground before it: corners on a plane at a known height under the camera say it in metres.

People's feet say so too (:mod:`kinflow.world.steps`), but which of two feet stands is a matter of centimetres, of which
one camera tells few; the ground is seen by a hundred corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BELOW = 0.07
"""Least cosine below the horizon, 4 degrees, from which on a corner is taken to be on the ground."""
FEWEST = 12
"""Corners, of those below, that are to agree with a plane for a step to be told; MISSED: to so many rad at least."""
MISSED = 0.003
ROUNDS = 12


def floor_places(windows: Sequence[Array], rotmat: Array, up: Array, height: float) -> tuple[Array, float]:
    """Where a camera is in each frame, of which the turns are known.

    Args:
        windows: unit rays (n, P, 3) to corners over n frames, in camera axes; each window begins with the last frame of the one
            before.
        rotmat: (N, 3, 3) from the reference's axes to each frame's.
        up: (3,) in the reference's axes. height: of the camera over the ground, m.

    Returns:
        places (N, 3) m in the reference's axes, the first the origin, and the share of the frames that the ground told.
    """
    places, told, first = np.zeros((len(rotmat), 3)), 0, 0
    for corners in windows:
        count = len(corners)
        rays = corners @ rotmat[first : first + count]
        below = -(rays[0] @ up)
        chosen = below > BELOW
        rays, reach = rays[:, chosen], height / below[chosen]
        place = np.zeros(3)
        for number in range(1, count):
            found = _step(rays[0], rays[number], reach, place) if chosen.sum() >= FEWEST else None
            if found is not None:
                place = found
                told += 1
            places[first + number] = places[first] + place
        first += count - 1
    return places, told / max(1, len(rotmat) - 1)


def _step(before: Array, now: Array, reach: Array, start: Array) -> Array | None:
    """The camera's place (3,) m from which points ``reach * before`` (P, 3) are seen along ``now`` (P, 3), by least squares with
    Cauchy's weights; None where too few agree."""
    lever = np.cross(now[:, None], np.eye(3)).swapaxes(1, 2) / reach[:, None, None]
    wanted = np.cross(now, before)  # of points that the camera's step moves by what is seen
    place, size = start, np.zeros(len(now))
    for _ in range(ROUNDS):
        size = np.linalg.norm(wanted - lever @ place, axis=-1)
        weight = 1 / (1 + (size / max(float(np.median(size)), MISSED)) ** 2)
        normal = np.einsum("p,pki,pkj->ij", weight, lever, lever) + 1e-9 * np.eye(3)
        place = np.linalg.solve(normal, np.einsum("p,pki,pk->i", weight, lever, wanted))
    return place if int((size < 2 * MISSED).sum()) >= FEWEST else None
