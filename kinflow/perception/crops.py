"""Regions of interest: rotated squares in the frame, their warps to network inputs, and the way back.

A region is [centre x, centre y, side, angle] in px and rad of the full frame (origin at the image's top-left corner, pixel
centres at half-integers); the angle is clockwise as seen, from the image's axes to the crop's. Source: MediaPipe's
AlignmentPointsRectsCalculator, RectTransformationCalculator and ImageToTensorCalculator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinflow.errors import check_shape

__all__ = ["ROI_SCALE", "box_iou", "crop_to_frame", "frame_to_crop", "letterbox", "roi_from_alignment", "warp_crops"]

ROI_SCALE = 1.25
BORDER_PX = 2.0


def roi_from_alignment(centre: np.ndarray, rim: np.ndarray, scale: float = ROI_SCALE) -> np.ndarray:
    """Region around a person from its two alignment points.

    Args:
        centre: (..., 2) middle of the hips, px.
        rim: (..., 2) a point on the circle around the whole body, above the head in the body's own direction, px.
    Returns:
        (..., 4) region; the crop shows the body upright.
    """
    delta = np.asarray(rim, np.float64) - centre
    angle = math.pi / 2 - np.arctan2(-delta[..., 1], delta[..., 0])
    angle = angle - 2 * math.pi * np.floor((angle + math.pi) / (2 * math.pi))
    side = 2 * scale * np.hypot(delta[..., 0], delta[..., 1])
    return np.concatenate([np.asarray(centre, np.float64), np.stack([side, angle], -1)], -1)


def crop_to_frame(points: np.ndarray, rois: np.ndarray) -> np.ndarray:
    """Points (N, P, 2) in units of the crop, [0, 1], to px of the full frame; rois (N, 4)."""
    cos, sin, side = np.cos(rois[:, 3:]), np.sin(rois[:, 3:]), rois[:, 2:3]
    x, y = (points[..., 0] - 0.5) * side, (points[..., 1] - 0.5) * side
    return np.stack([rois[:, 0:1] + cos * x - sin * y, rois[:, 1:2] + sin * x + cos * y], -1)


def frame_to_crop(points: np.ndarray, rois: np.ndarray) -> np.ndarray:
    """The inverse of :func:`crop_to_frame`."""
    cos, sin, side = np.cos(rois[:, 3:]), np.sin(rois[:, 3:]), rois[:, 2:3]
    x, y = points[..., 0] - rois[:, 0:1], points[..., 1] - rois[:, 1:2]
    return np.stack([cos * x + sin * y, cos * y - sin * x], -1) / side[..., None] + 0.5


def warp_crops(images: Sequence[Tensor], rois: np.ndarray, size: int) -> Tensor:
    """Cut a region out of each of N frames: bilinear, the frame's border repeated outside.

    Args:
        images: N frames (H, W, 3) uint8 RGB on one device; the same one may come again.
        rois: (N, 4).
    Returns:
        (N, 3, size, size) float32 in [0, 1], channels last in memory, on the images' device.
    """
    check_shape("rois", rois, f"{len(images)} 4", "one region per image")
    device = images[0].device
    out = torch.empty(len(images), 3, size, size, device=device, memory_format=torch.channels_last)
    ticks = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size - 0.5
    for i, (image, (cx, cy, side, angle)) in enumerate(zip(images, np.asarray(rois, np.float64).tolist(), strict=True)):
        height, width = image.shape[:2]
        cos, sin = side * math.cos(angle), side * math.sin(angle)
        reach = 0.5 * (abs(cos) + abs(sin)) + BORDER_PX
        x0, x1 = _span(cx, reach, width)
        y0, y1 = _span(cy, reach, height)
        step = max(1, int(side / (2 * size)))  # far larger than the crop: read every step-th pixel of each axis
        region = image[y0:y1:step, x0:x1:step].permute(2, 0, 1)[None].to(torch.float32)
        ux, uy = 2.0 / (step * region.shape[3]), 2.0 / (step * region.shape[2])  # px to grid_sample's [-1, 1]
        offset = 0.5 * (step - 1)  # a kept pixel stands at the start of its step
        left, top = (cx - x0 + offset) * ux - 1.0, (cy - y0 + offset) * uy - 1.0
        grid = torch.empty(1, size, size, 2, device=device)
        torch.add((ticks * (cos * ux))[None, :], (ticks * (-sin * ux) + left)[:, None], out=grid[0, ..., 0])
        torch.add((ticks * (sin * uy))[None, :], (ticks * (cos * uy) + top)[:, None], out=grid[0, ..., 1])
        out[i] = F.grid_sample(region, grid, "bilinear", "border", align_corners=False)[0]
    return out.mul_(1.0 / 255.0)


def _span(centre: float, reach: float, limit: int) -> tuple[int, int]:
    """Pixels [start, stop) of one axis that a region touches; at least one pixel, inside the frame."""
    start = min(max(math.floor(centre - reach), 0), limit - 1)
    return start, max(min(math.ceil(centre + reach), limit), start + 1)


def letterbox(image: Tensor, tile: tuple[int, int, int, int], size: int) -> tuple[Tensor, float, float, float]:
    """Scale a tile of the frame to fit a square network input, black around it.

    Args:
        image: (H, W, 3) uint8.
        tile: x0, y0, x1, y1 px.
    Returns:
        (3, size, size) float32 in [-1, 1]; and scale, dx, dy with frame = input * scale + (dx, dy).
    """
    x0, y0, x1, y1 = tile
    width, height = x1 - x0, y1 - y0
    scale = max(width, height) / size
    new = (max(1, round(height / scale)), max(1, round(width / scale)))
    region = image[y0:y1, x0:x1].permute(2, 0, 1)[None]
    if region.device.type != "cpu":
        region = region.float()
    small = F.interpolate(region, size=new, mode="bilinear", antialias=True, align_corners=False)[0]
    out = torch.full((3, size, size), -1.0, device=image.device)
    left, top = (size - new[1]) // 2, (size - new[0]) // 2
    out[:, top : top + new[0], left : left + new[1]] = small.float() * (2.0 / 255.0) - 1.0
    return out, scale, x0 - left * scale, y0 - top * scale


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) and (M, 4) xyxy: (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), -1)
    area_a, area_b = (np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), -1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - inter
    return np.where(union > 0, inter / np.maximum(union, 1e-9), 0.0)
