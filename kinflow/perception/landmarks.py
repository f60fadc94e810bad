"""From the landmark network's output to a person in the full frame.

Source: MediaPipe's TensorsToLandmarksCalculator, RefineLandmarksFromHeatmapCalculator, LandmarkProjectionCalculator and
WorldLandmarkProjectionCalculator with the options of ``modules/pose_landmark/``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinflow.perception.blazepose import LANDMARK_SIZE, LandmarkOutput
from kinflow.perception.crops import crop_to_frame, frame_to_crop, roi_from_alignment
from kinflow.skeleton import MIRROR_BLAZEPOSE

__all__ = ["Person", "mask_overlap", "people_from_output", "refine_landmarks", "visible_points"]

HEATMAP_KERNEL = 7
HEATMAP_CONFIDENCE = 0.5
MASK_SIZE = 64
BOX_CONFIDENCE = 0.3


def refine_landmarks(points: Tensor, heatmaps: Tensor) -> Tensor:
    """Move each point to the centre of mass of its heatmap around it, where the heatmap is sure of itself.

    Args:
        points: (N, P, 2) in units of the crop, [0, 1].
        heatmaps: (N, P, h, w) logits.
    Returns:
        (N, P, 2). As MediaPipe has it, cell (row, column) stands for (row / h, column / w).
    """
    n, p, height, width = heatmaps.shape
    size = points.new_tensor([width, height])
    centre = (points * size).long()  # toward zero, as a C cast
    inside = ((centre >= 0) & (centre < size.long())).all(-1)
    reach = torch.arange(HEATMAP_KERNEL, device=points.device) - HEATMAP_KERNEL // 2
    columns = centre[..., 0, None] + reach  # (N, P, 7)
    rows = centre[..., 1, None] + reach
    valid = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    index = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    window = heatmaps.reshape(n, p, -1).gather(-1, index.reshape(n, p, -1)).reshape(index.shape).float()
    mass = torch.sigmoid(window) * valid
    total = mass.sum((-2, -1))
    x = (mass * columns[..., None, :]).sum((-2, -1)) / total.clamp_min(1e-12) / width
    y = (mass * rows[..., :, None]).sum((-2, -1)) / total.clamp_min(1e-12) / height
    sure = inside & (mass.amax((-2, -1)) >= HEATMAP_CONFIDENCE) & (total > 0)
    return torch.where(sure[..., None], torch.stack([x, y], -1), points)


@dataclasses.dataclass(frozen=True)
class Person:
    """One person in one frame, as the landmark network saw it through `roi`."""

    roi: np.ndarray  #: (4,) the crop
    next_roi: np.ndarray  #: (4,) where to look in the next frame, if nothing moved
    score: float  #: pose score, 0..1
    keypoints2d: np.ndarray  #: (33, 2) px, full frame
    confidence: np.ndarray  #: (33,) visibility times presence
    world: np.ndarray  #: (33, 3) m, camera axes, hip-centred
    box_xyxy: np.ndarray  #: (4,) px, within the frame
    mask: np.ndarray | None  #: (64, 64) uint8 inside the crop
    parts: np.ndarray | None = None  #: (48, 48) uint8 part inside part_roi, see kinflow.perception.parts
    part_confidence: np.ndarray | None = None  #: (48, 48) uint8
    part_roi: np.ndarray | None = None  #: (4,)
    features: np.ndarray | None = None  #: (33, 48) float16 decoder features at the keypoints
    code: np.ndarray | None = None  #: (1152,) float16 last hidden layer
    look: np.ndarray | None = None  #: (2, 3, 10) float32 colours of trunk and thighs, see kinflow.perception.appearance
    witness: np.ndarray | None = None  #: (2,) what BodyPix says for it, see kinflow.perception.verification
    looked: bool = True  #: false: told by the sightings before and after, see kinflow.perception.between

    @property
    def examined(self) -> bool:
        """Whether BodyPix has looked."""
        return self.witness is not None


def features_at(points: Tensor, pyramid: Tensor) -> Tensor:
    """Feature maps (N, C, h, w) read bilinearly at points (N, P, 2) in units of the crop -> (N, P, C).

    Cell (row, column) stands for (row / h, column / w), as of the heatmaps; beyond the border its values go on.
    """
    last = points.new_tensor([pyramid.shape[-1], pyramid.shape[-2]])
    grid = 2 * points * last / (last - 1) - 1
    sampled = F.grid_sample(pyramid.float(), grid[:, None], align_corners=True, padding_mode="border")
    return sampled[:, :, 0].transpose(1, 2)


def people_from_output(
    output: LandmarkOutput, rois: np.ndarray, image_size: tuple[int, int], mirrored: np.ndarray, features: bool = False
) -> list[Person]:
    """Decode the network's output for N regions of frames of (width, height) px.

    Args:
        mirrored: (N,) bool, which of the crops the network saw in the mirror; the people are as they stand in the frame.
        features: keep what it saw, too.
    """
    refined = refine_landmarks(output.landmarks[..., :2] / LANDMARK_SIZE, output.heatmaps)
    points = refined.cpu().numpy().astype(np.float64)
    certainty = torch.sigmoid(output.landmarks[:, :33, 3:5]).prod(-1).cpu().numpy()
    world = output.world[:, :33].cpu().numpy().astype(np.float64)
    scores = output.score.cpu().numpy()
    masks = None
    if output.mask is not None:
        pooled = F.avg_pool2d(torch.sigmoid(output.mask)[:, None], LANDMARK_SIZE // MASK_SIZE)[:, 0]
        masks = (pooled * 255.0).round().to(torch.uint8).cpu().numpy()

    at_points = codes = None
    if features:
        at_points = features_at(refined[:, :33], output.pyramid).half().cpu().numpy()
        codes = output.code.half().cpu().numpy()

    if mirrored.any():
        swap = list(MIRROR_BLAZEPOSE)
        points[mirrored, :, 0] = 1 - points[mirrored, :, 0]
        world[mirrored, :, 0] *= -1
        for values in (points, certainty, world, at_points):
            if values is not None:
                values[mirrored, :33] = values[mirrored][:, swap]
        if masks is not None:
            masks[mirrored] = masks[mirrored][..., ::-1]
    frame_points = crop_to_frame(points, rois)
    cos, sin = np.cos(rois[:, 3:]), np.sin(rois[:, 3:])
    world = np.stack(
        [cos * world[..., 0] - sin * world[..., 1], sin * world[..., 0] + cos * world[..., 1], world[..., 2]], -1
    )
    following = roi_from_alignment(frame_points[:, 33], frame_points[:, 34])
    return [
        Person(
            roi=rois[i],
            next_roi=following[i],
            score=float(scores[i]),
            keypoints2d=frame_points[i, :33],
            confidence=certainty[i],
            world=world[i],
            box_xyxy=_person_box(frame_points[i, :33], certainty[i], image_size),
            mask=None if masks is None else masks[i],
            features=None if at_points is None else at_points[i],
            code=None if codes is None else codes[i],
        )
        for i in range(len(rois))
    ]


def visible_points(person: Person, image_size: tuple[int, int]) -> int:
    """How many landmarks lie inside the frame and are likely visible."""
    inside = ((person.keypoints2d >= 0) & (person.keypoints2d <= np.array(image_size))).all(-1)
    return int((inside & (person.confidence > 0.5)).sum())


def mask_overlap(a: Person, b: Person) -> float:
    """Common area of two person masks relative to the smaller one, 0..1; 0 where either has no mask."""
    if a.mask is None or b.mask is None:
        return 0.0
    small, large = (a, b) if a.roi[2] <= b.roi[2] else (b, a)
    assert small.mask is not None and large.mask is not None
    inside = small.mask >= 128
    if not inside.any():
        return 0.0
    grid = (np.stack(np.nonzero(inside)[::-1], -1) + 0.5) / MASK_SIZE
    place = frame_to_crop(crop_to_frame(grid[None], small.roi[None]), large.roi[None])[0]
    cell = np.floor(place * MASK_SIZE).astype(int)
    within = ((cell >= 0) & (cell < MASK_SIZE)).all(-1)
    common = float((large.mask[cell[within, 1], cell[within, 0]] >= 128).sum())
    smaller = min(float(inside.sum()), float((large.mask >= 128).sum()) * (large.roi[2] / small.roi[2]) ** 2)
    return min(common / max(smaller, 1.0), 1.0)


def _person_box(points: np.ndarray, confidence: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Box around the confident landmarks, a tenth wider (the skull rises above the eyes), cut at the frame's border."""
    sure = points[confidence >= min(BOX_CONFIDENCE, float(confidence.max()))]
    low, high = sure.min(0), sure.max(0)
    margin = 0.1 * float((high - low).max())
    limit = np.array(image_size, np.float64)
    return np.concatenate([np.clip(low - margin, 0, limit), np.clip(high + margin, 0, limit)])
