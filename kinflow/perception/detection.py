"""From the detector's raw output to people: anchors, decoding, weighted non-maximum suppression.

Source: MediaPipe's SsdAnchorsCalculator, TensorsToDetectionsCalculator and NonMaxSuppressionCalculator with the options of
``modules/pose_detection/pose_detection_cpu.pbtxt``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kinflow.errors import check_shape
from kinflow.perception.blazepose import DETECTOR_SIZE
from kinflow.perception.crops import box_iou, roi_from_alignment

__all__ = ["Detection", "anchors", "decode_detections", "weighted_nms"]

#: (cells a side, anchors a cell) of the three feature maps: strides 8, 16 and three layers at 32, two anchors each.
LAYERS = ((28, 2), (14, 2), (7, 6))


class Detection(NamedTuple):
    """One person that the detector saw, in px of the network input or, once mapped, of the full frame."""

    score: float  #: 0..1
    box_xyxy: np.ndarray  #: (4,) around head and shoulders
    keypoints: np.ndarray  #: (4, 2) mid-hip, rim of the body's circle, mid-shoulder, rim of the upper body's circle

    def mapped(self, scale: float, dx: float, dy: float) -> Detection:
        """The same detection after coordinates * scale + (dx, dy)."""
        shift = np.array([dx, dy])
        return Detection(self.score, self.box_xyxy * scale + np.tile(shift, 2), self.keypoints * scale + shift)

    @property
    def roi(self) -> np.ndarray:
        """(4,) region of the whole body for the landmark network."""
        return roi_from_alignment(self.keypoints[0], self.keypoints[1])


@lru_cache(maxsize=1)
def anchors() -> np.ndarray:
    """Anchor centres (2254, 2) in px of the input; all anchors have the size of the input ("fixed_anchor_size")."""
    rows = []
    for cells, repeats in LAYERS:
        y, x = np.mgrid[:cells, :cells] + 0.5
        rows.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2) * (DETECTOR_SIZE / cells), repeats, axis=0))
    return np.concatenate(rows)


def decode_detections(boxes: np.ndarray, logits: np.ndarray, threshold: float) -> list[Detection]:
    """The anchors of one image whose score passes the threshold, highest first.

    Args:
        boxes: (2254, 12) raw: centre x, y, width, height, four points, px relative to the anchor's centre.
        logits: (2254,).
    """
    check_shape("boxes", boxes, "2254 12", "pass one image's output of PoseDetector")
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -100.0, 100.0)))
    keep = np.flatnonzero(scores >= threshold)
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    raw, centre = boxes[keep].astype(np.float64), anchors()[keep]
    middle, half = raw[:, :2] + centre, raw[:, 2:4] / 2
    points = raw[:, 4:].reshape(-1, 4, 2) + centre[:, None]
    corners = np.concatenate([middle - half, middle + half], -1)
    return [Detection(float(scores[k]), corners[i], points[i]) for i, k in enumerate(keep)]


def weighted_nms(detections: list[Detection], iou_threshold: float) -> list[Detection]:
    """Merge overlapping detections into score-weighted means, the strongest first; the strongest score stands."""
    rest = sorted(detections, key=lambda d: -d.score)
    merged = []
    while rest:
        overlap = box_iou(rest[0].box_xyxy[None], np.stack([d.box_xyxy for d in rest]))[0]
        overlap[0] = 1.0
        group = [d for d, o in zip(rest, overlap, strict=True) if o > iou_threshold]
        weights = np.array([d.score for d in group])
        weights /= weights.sum()
        box = np.einsum("n,nk->k", weights, np.stack([d.box_xyxy for d in group]))
        points = np.einsum("n,nkc->kc", weights, np.stack([d.keypoints for d in group]))
        merged.append(Detection(rest[0].score, box, points))
        rest = [d for d, o in zip(rest, overlap, strict=True) if o <= iou_threshold]
    return merged


def tile_around(roi: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around a region, half as large again where the frame allows, inside the frame."""
    side = int(min(max(1.5 * roi[2], DETECTOR_SIZE / 2), width, height))
    x = int(np.clip(roi[0] - side / 2, 0, width - side))
    y = int(np.clip(roi[1] - side / 2, 0, height - side))
    return x, y, x + side, y + side


def tiles(width: int, height: int, scale: float) -> list[tuple[int, int, int, int]]:
    """Overlapping squares of `scale` times the frame's shorter side, in rows and columns that cover the frame."""
    side = round(min(width, height) * scale)
    if side < DETECTOR_SIZE // 2 or scale <= 0:
        return []

    def starts(length: int) -> list[int]:
        count = max(1, int(np.ceil((length - side) / (0.7 * side))) + 1)
        return np.linspace(0, length - side, count).round().astype(int).tolist()

    return [(x, y, x + side, y + side) for y in starts(height) for x in starts(width)]
