"""Part maps: where BodyPix looks at a person, and the compact record of what it sees there.

BodyPix knows upright people; turned until the torso is upright it tells front from back where it would not otherwise. So it
looks at a crop of its own, made from the landmarks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from kinflow.perception.bodypix import PART_STRIDE, PartOutput

__all__ = ["MAP_SIZE", "PART_SIZE", "part_maps", "upright_roi"]

PART_SIZE = 257  #: px of the crop that BodyPix sees
MAP_SIZE = 48  #: cells of the record
MARGIN = 0.15  #: around the landmarks' box, in its longer side: the skull rises above the eyes, arms and hips are thick
SURE = 0.3  #: least confidence of a landmark that the crop has to show
_CELLS = (PART_SIZE - 1) // PART_STRIDE + 1


def upright_roi(keypoints2d: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The square around a person's confident landmarks, turned until the shoulders are above the hips.

    Args:
        keypoints2d: (33, 2) px.
        confidence: (33,).
    Returns:
        (4,) region, as in :mod:`kinflow.perception.crops`.
    """
    up = keypoints2d[[11, 12]].mean(0) - keypoints2d[[23, 24]].mean(0)
    angle = math.atan2(up[0], -up[1])
    cos, sin = math.cos(angle), math.sin(angle)
    axes = np.array([[cos, sin], [-sin, cos]])  # rows: the crop's axes in the frame
    sure = keypoints2d[confidence >= min(SURE, float(confidence.max()))] @ axes.T
    low, high = sure.min(0), sure.max(0)
    centre = 0.5 * (low + high) @ axes
    side = max((1 + 2 * MARGIN) * float((high - low).max()), 1.0)
    return np.array([*centre, side, angle])


def part_maps(output: PartOutput, rois: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is kept of BodyPix' answer for N crops.

    Args:
        rois: (N, 4) the crops.
    Returns:
        (N, 48, 48) uint8 part: 0 where no person is seen, else 1 + its place in :data:`~kinflow.skeleton.BODYPIX24`;
        (N, 48, 48) uint8 confidence in it, 0..255: the person's probability times the part's; 0 where there is none;
        (N, 4) the regions that the maps' cells fill.
    """
    logits = torch.cat([output.mask[:, None], output.parts], 1).float()
    probability = torch.sigmoid(F.interpolate(logits, size=MAP_SIZE, mode="bilinear", align_corners=False))
    person = probability[:, 0]
    best, part = probability[:, 1:].max(1)
    seen = person > 0.5
    labels = torch.where(seen, part + 1, torch.zeros_like(part)).to(torch.uint8)
    confidence = torch.where(seen, 255 * person * best, torch.zeros_like(best)).round().to(torch.uint8)
    regions = np.array(rois, np.float64)
    regions[:, 2] *= _CELLS * PART_STRIDE / PART_SIZE  # the outermost cells are centred on the crop's border pixels
    return labels.cpu().numpy(), confidence.cpu().numpy(), regions
