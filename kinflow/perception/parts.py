"""Part maps: where BodyPix looks at a person, and the compact record of what it sees there.

BodyPix looks at a crop of its own, made from the landmarks. What matters (measured on 300 frames of five real clips, against
BlazePose heavy's keypoints):

* that people stand upright in it. Rolled by 26 degrees, the middle of the arms gets the right label in 54 % of places instead
  of 68, that of the legs in 47 % instead of 75, and front is taken for back in 10 % of frames instead of 6. The direction between the
  torso's and the whole body's is better than either: those who squat or run lean with the torso alone.
* that people are about 220 px tall: at 257 px a tight crop is better than a wide one, and as good as larger crops, in which
  legs change sides more often (18 % of places at 377 px, 13 at 257): the network sees some 300 px at a time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from kinflow.errors import UsageError
from kinflow.evidence import Evidence
from kinflow.perception.bodypix import PART_STRIDE, PartOutput
from kinflow.perception.crops import crop_to_frame, frame_to_crop
from kinflow.skeleton import BODYPIX24

__all__ = [
    "CELL_CENTRES",
    "MAP_SIZE",
    "PART_SIZE",
    "agreement_of",
    "facing",
    "facing_of",
    "mask_agreement",
    "part_maps",
    "upright_roi",
]

PART_SIZE = 257  #: px of the crop that BodyPix sees
MAP_SIZE = 48  #: cells of the record
MARGIN = 0.08  #: around the landmarks' box, in its longer side: hands and feet reach beyond them
SKULL = 0.7  #: the skull's top lies so far above the ears, in their height over the shoulders
SURE = 0.3  #: least confidence of a limb's landmark that the crop has to show, ...
SURE_LEGS = 0.5  #: ... and of ankles that say where up is
DOUBT = 4.0  #: so many cells of the torso's front, and of its back, are taken as seen before any are: 3.5 fits best
_CELLS = (PART_SIZE - 1) // PART_STRIDE + 1
CELL_CENTRES = (np.stack(np.meshgrid(np.arange(MAP_SIZE), np.arange(MAP_SIZE)), -1).reshape(-1, 2) + 0.5) / MAP_SIZE
"""Of a part map, (MAP_SIZE², 2) in units of its region, row by row."""


def upright_roi(keypoints2d: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The square around a person's head, torso and what is surely seen of the limbs, turned until they stand upright in it.

    Up is halfway between the directions from hips and from ankles to the shoulders; from the hips alone where ankles are unsure.

    Args:
        keypoints2d: (33, 2) px.
        confidence: (33,).
    Returns:
        (4,) region, as in :mod:`kinflow.perception.crops`.
    """
    ears, shoulders, hips, ankles = (keypoints2d[[i, i + 1]].mean(0) for i in (7, 11, 23, 27))
    up = _unit(shoulders - hips)
    if confidence[[27, 28]].min() >= SURE_LEGS:
        up = up + _unit(shoulders - ankles)
    angle = math.atan2(up[0], -up[1])
    cos, sin = math.cos(angle), math.sin(angle)
    axes = np.array([[cos, sin], [-sin, cos]])  # rows: the crop's axes in the frame
    sure = confidence >= SURE
    sure[[7, 8, 11, 12, 23, 24]] = True
    shown = np.concatenate([keypoints2d[sure], [ears + SKULL * (ears - shoulders)]]) @ axes.T
    low, high = shown.min(0), shown.max(0)
    side = max((1 + 2 * MARGIN) * float((high - low).max()), 1.0)
    return np.array([*(0.5 * (low + high) @ axes), side, angle])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def part_maps(
    output: PartOutput, rois: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is kept of BodyPix' answer for N crops.

    Args:
        rois: (N, 4) the crops.
        image_size: (width, height) of the frames in px.
    Returns:
        (N, 48, 48) uint8 part: 0 outside the frame and where no person is seen, else 1 + its place in :data:`~kinflow.skeleton.BODYPIX24`;
        (N, 48, 48) uint8 confidence in it, 0..255: the person's probability times the part's; 0 where there is none;
        (N, 4) the regions that the maps' cells fill.
    """
    logits = torch.cat([output.mask[:, None], output.parts], 1).float()
    probability = torch.sigmoid(F.interpolate(logits, size=MAP_SIZE, mode="bilinear", align_corners=False))
    person = probability[:, 0]
    best, part = probability[:, 1:].max(1)
    regions = np.array(rois, np.float64)
    regions[:, 2] *= _CELLS * PART_STRIDE / PART_SIZE  # the outermost cells are centred on the crop's border pixels
    places = crop_to_frame(np.broadcast_to(CELL_CENTRES, (len(regions), *CELL_CENTRES.shape)), regions)
    inside = ((places >= 0) & (places < np.array(image_size))).all(-1).reshape(-1, MAP_SIZE, MAP_SIZE)
    seen = (person > 0.5) & torch.from_numpy(inside).to(person.device)
    labels = torch.where(seen, part + 1, torch.zeros_like(part)).to(torch.uint8)
    confidence = torch.where(seen, 255 * person * best, torch.zeros_like(best)).round().to(torch.uint8)
    return labels.cpu().numpy(), confidence.cpu().numpy(), regions


def facing(evidence: Evidence) -> np.ndarray:
    """Probability that the front of the torso is seen rather than its back: (T,) float64, 0.5 where no torso is.

    The share of the front among the torso's cells, by confidence. It is a fair probability as it stands: over 1,500 renders the
    torso faced the camera in 2 % of those with a share below 0.02, 42 % of 0.3 to 0.5, 58 % of 0.5 to 0.7 and 94 % of 0.9 and
    more.

    Raises:
        UsageError: evidence without part maps.
    """
    parts, confidence, _ = _maps(evidence)
    return facing_of(parts, confidence)


def facing_of(parts: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """:func:`facing` of part maps (T, 48, 48) and their confidence (T, 48, 48)."""
    front, back = (
        np.where(parts == 1 + BODYPIX24.index(name), confidence, 0).sum((1, 2)) / 255.0
        for name in ("torso_front", "torso_back")
    )
    return (front + DOUBT) / (front + back + 2 * DOUBT)


def mask_agreement(evidence: Evidence) -> np.ndarray:
    """Intersection over union of what BodyPix and BlazePose's mask take for the person: (T,) float64, 0 where both see nobody.

    Counted over the part map's cells that lie inside the frame and inside BlazePose's crop.

    Raises:
        UsageError: evidence without part maps or without masks.
    """
    parts, _, regions = _maps(evidence)
    if evidence.masks is None:
        raise UsageError("evidence: expected person masks, got none. Perceive with perception.masks=true.")
    size = (int(evidence.image_size[0]), int(evidence.image_size[1]))
    return agreement_of(parts, regions, evidence.masks, evidence.rois, size)


def agreement_of(
    parts: np.ndarray, regions: np.ndarray, masks: np.ndarray, rois: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """:func:`mask_agreement` of part maps (T, 48, 48) in regions (T, 4) and masks (T, S, S) in regions (T, 4)."""
    places = crop_to_frame(np.broadcast_to(CELL_CENTRES, (len(parts), *CELL_CENTRES.shape)), regions.astype(np.float64))
    side = masks.shape[-1]
    rois = np.where(rois[:, 2:3] > 0, rois, np.float32(1))  # rows not observed are zeros
    cell = np.floor(frame_to_crop(places, rois.astype(np.float64)) * side).astype(int)
    known = ((places >= 0) & (places < image_size)).all(-1) & ((cell >= 0) & (cell < side)).all(-1)
    column, row = np.moveaxis(cell.clip(0, side - 1), -1, 0)
    masked = known & (masks[np.arange(len(parts))[:, None], row, column] > 127)
    labelled = known & (parts.reshape(len(parts), -1) > 0)
    return np.asarray((masked & labelled).sum(1) / np.maximum((masked | labelled).sum(1), 1))


def _maps(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if evidence.parts is None or evidence.part_confidence is None or evidence.part_rois is None:
        raise UsageError("evidence: expected part maps, got none. Perceive with perception.parts_interval_s=0.")
    return evidence.parts, evidence.part_confidence, evidence.part_rois
