"""Lines and dots over pictures: keypoints and their skeleton, grids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError, check_shape
from ..skeleton import BLAZEPOSE_EDGES

__all__ = ["draw_keypoints", "draw_lines"]

LIGHT, DARK = (255, 255, 255), (30, 30, 30)
_SHARE = 1 / 420
"""Width of a keypoint's line, in heights of the picture."""


def draw_keypoints(
    image: NDArray[np.uint8], keypoints2d: NDArray[np.floating], confidence: NDArray[np.floating], least: float = 0.5
) -> None:
    """Draw BlazePose landmarks and the lines between them into a picture, white with a dark rim: they show on any mesh.

    Args:
        image: (H, W, 3) uint8 RGB, changed in place.
        keypoints2d: (33, 2) px.
        confidence: (33,) 0..1.
        least: landmarks below it are left out, and the lines to them.
    """
    check_shape("keypoints2d", keypoints2d, "33 2")
    check_shape("confidence", confidence, "33")
    seen = (confidence >= least) & np.isfinite(keypoints2d).all(-1)
    edges = np.array([e for e in BLAZEPOSE_EDGES if seen[list(e)].all()], int).reshape(-1, 2)
    width = max(1.5, image.shape[0] * _SHARE)
    dots = keypoints2d[seen]
    for colour, more in ((DARK, width), (LIGHT, 0.0)):
        draw_lines(image, keypoints2d[edges[:, 0]], keypoints2d[edges[:, 1]], colour, width + more)
        draw_lines(image, dots, dots, colour, 2.4 * width + more)


def draw_lines(
    image: NDArray[np.uint8],
    starts: NDArray[np.floating],
    ends: NDArray[np.floating],
    colour: tuple[int, int, int],
    width: float = 1.0,
) -> None:
    """Draw straight lines with round ends and soft edges into a picture; a line of no length is a dot.

    Args:
        image: (H, W, 3) uint8 RGB, changed in place.
        starts, ends: (N, 2) px, the top-left corner is (0, 0); what lies outside is cut off.
        colour: RGB 0..255.
        width: px.

    Raises:
        ShapeError: an image of another type.
    """
    dims = check_shape("image", image, "H W 3", "Give one RGB frame.")
    if image.dtype != np.uint8:
        raise ShapeError(f"image: expected uint8, got {image.dtype}. Convert it to 0..255 first.")
    size = np.array([dims["W"], dims["H"]])
    paint = np.array(colour, np.float32)
    for start, end in zip(np.asarray(starts, float), np.asarray(ends, float), strict=True):
        if not (np.isfinite(start).all() and np.isfinite(end).all()):
            continue
        reach = width / 2 + 1
        low = np.clip(np.floor(np.minimum(start, end) - reach), 0, size).astype(int)
        high = np.clip(np.ceil(np.maximum(start, end) + reach), 0, size).astype(int)
        if (high <= low).any():
            continue
        x = np.arange(low[0], high[0], dtype=np.float32) + 0.5 - np.float32(start[0])
        y = np.arange(low[1], high[1], dtype=np.float32)[:, None] + 0.5 - np.float32(start[1])
        along = (end - start).astype(np.float32)
        share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12), 0, 1)
        distance = np.hypot(x - share * along[0], y - share * along[1])
        cover = np.clip(width / 2 + 0.5 - distance, 0, 1)[..., None]
        part = image[low[1] : high[1], low[0] : high[0]]
        part[:] = (part + cover * (paint - part) + 0.5).astype(np.uint8)
