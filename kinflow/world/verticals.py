"""What of a background runs upright: walls' edges, door frames, shelves, houses. They tell gravity better than bodies do, which
one camera sees leaning towards it or away from it by degrees.

Line segments are found by OpenCV's LSD (von Gioi et al., 2010), people masked out. A segment and the camera's centre span a plane;
whatever is upright has up in that plane. Most segments are not upright: how many are is left open, and a mixture weighs them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

EVERY_S = 0.5
"""Frames are looked at so far apart; MOST: of a long clip, so many."""
MOST = 40
SHORTEST = 0.035
"""Segments shorter than this share of the picture's longer side tell nothing."""
UPRIGHT_SHARE = 0.3
"""Prior share of the segments that are upright."""
ENDS_PX = 0.7
"""Noise of a segment's ends; LEAST_DEG: that of what is built upright, and of the lens."""
LEAST_DEG = 0.7
TOGETHER = 0.5
"""What one segment counts: edges come in twos, and in pieces."""


@dataclasses.dataclass(frozen=True)
class Segments:
    """Line segments of a background.

    Attributes:
        normals: (N, 3) unit normals of the planes through them and the camera.
        noise: (N,) rad, of the planes' directions.
        weight: (N,) what each counts.
    """

    normals: Tensor
    noise: Tensor
    weight: Tensor

    def score(self, up: Tensor) -> Tensor:
        """Log evidence for directions ``up`` (..., 3) -> (...), nats; 0 where no segment is upright."""
        off = up @ self.normals.mT.to(up)
        inside = math.log(2 * UPRIGHT_SHARE / (1 - UPRIGHT_SHARE) / math.sqrt(2 * math.pi)) - self.noise.log()
        inside = inside - 0.5 * (off / self.noise).square()
        # Of a normal anywhere on the sphere the cosine with up is even between -1 and 1.
        return (self.weight * torch.nn.functional.softplus(inside)).sum(-1)


class Lines:
    """Collects segments of frames as they go by."""

    def __init__(self, K: Array, timestamps: Array) -> None:
        self._K = K
        span = max(EVERY_S, (timestamps[-1] - timestamps[0]) / MOST) if len(timestamps) else EVERY_S
        self._next, self._span, self._times = -math.inf, span, timestamps
        self._found: list[tuple[int, Array, Array]] = []

    def due(self, row: int) -> bool:
        """Whether the clip's ``row``-th frame is one to look at; those that were looked at are not."""
        return bool(self._times[row] >= self._next)

    def look(self, row: int, grey: Array, mask: Array, shrink: float) -> None:
        """Take the segments of a frame that is due, the clip's ``row``-th: ``grey`` (H, W) shrunk by ``shrink``, background where
        ``mask``."""
        self._next = float(self._times[row]) + self._span
        import cv2

        found = cv2.createLineSegmentDetector().detect(grey)[0]
        ends = np.empty((0, 4)) if found is None else found.reshape(-1, 4).astype(np.float64)
        length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
        middle = (ends[:, :2] + ends[:, 2:]) / 2
        at = middle.round().astype(int).clip(0, np.array(grey.shape[::-1]) - 1)
        kept = (length > SHORTEST * max(grey.shape)) & (mask[at[:, 1], at[:, 0]] > 0)
        # LSD counts from the first pixel's centre.
        points = (ends[kept].reshape(-1, 2, 2) + 0.5) / shrink
        rays = (points - self._K[:2, 2]) / np.array([self._K[0, 0], self._K[1, 1]])
        rays = np.concatenate((rays, np.ones((*rays.shape[:2], 1))), -1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        normals = np.cross(rays[:, 0], rays[:, 1])
        spread = np.linalg.norm(normals, axis=-1)
        pixel = 1 / (shrink * math.sqrt(self._K[0, 0] * self._K[1, 1]))
        noise = np.hypot(ENDS_PX * math.sqrt(2) * pixel / spread.clip(1e-9), math.radians(LEAST_DEG))
        self._found.append((row, normals / spread.clip(1e-9)[:, None], noise))

    def segments(self, T_ref2cam: Array) -> Segments | None:
        """What was found, in the reference's axes, of a camera with these poses (N, 4, 4); None where nothing was."""
        if not any(len(noise) for _, _, noise in self._found):
            return None
        normals = np.concatenate([n @ T_ref2cam[row, :3, :3] for row, n, _ in self._found])
        noise = np.concatenate([s for _, _, s in self._found])
        # A background that stays in view shows the same segments in every frame.
        count = np.full(len(noise), TOGETHER / len(self._found))
        return Segments(torch.from_numpy(normals), torch.from_numpy(noise), torch.from_numpy(count))
