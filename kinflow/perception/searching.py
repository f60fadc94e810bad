"""People whom the detector misses: where BodyPix sees somebody whom no track explains.

The detector looks for heads and shoulders in the whole frame, small; who is near and large, cut by the frame's border or half
behind somebody else, is missed at times for seconds; so is who turns the back. BodyPix labels pixels, and sees a trunk wherever
there is one. It looks at the whole frame now and then, and a trunk that belongs to nobody is where to look.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from kinflow.perception.bodypix import PART_STRIDE, PartOutput
from kinflow.perception.crops import frame_to_crop
from kinflow.perception.landmarks import MASK_SIZE, Person
from kinflow.skeleton import BODYPIX24

__all__ = ["squares", "unexplained_regions"]

PERSON = 0.7  #: least probability of a person in a cell
LEAST_TRUNK = 4  #: cells of an unexplained trunk: 32 x 8 px of what the network sees
NEARLY_SQUARE = 1.25  #: sides of frames that are looked at in one
STRIP = 4  #: times as long as wide
THIGHS = 2.0  #: the knees are about so many trunks from the shoulders
WAIST = 0.5  #: half the width of trunk and skirt, in trunks
TORSOS = 4.5  #: the landmark network's region spans so many trunks
_TRUNK = [i for i, name in enumerate(BODYPIX24) if "torso" in name]


def squares(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """As few squares (x0, y0, x1, y1) px as cover the frame; all of it is one where it is nearly square itself, or a strip."""
    side, long = sorted((width, height))
    if not NEARLY_SQUARE * side < long <= STRIP * side:
        return [(0, 0, width, height)]
    starts = np.linspace(0, long - side, -(-long // side)).round().astype(int).tolist()
    return [(x, 0, x + side, side) if width > height else (0, x, side, x + side) for x in starts]


def unexplained_regions(
    output: PartOutput, scale: float, shift: tuple[float, float], image_size: tuple[int, int], known: Sequence[Person]
) -> list[np.ndarray]:
    """Regions (4,) for the landmark network around trunks that belong to nobody known, the largest first.

    Args:
        output: of one image, a part of the frame; frame = input * scale + shift.
        image_size: (width, height) px. known: the people in this frame, with masks where they have them.
    """
    person = torch.sigmoid(output.mask[0].float()).cpu().numpy() > PERSON
    trunk = person & np.isin(output.parts[0].float().argmax(0).cpu().numpy(), _TRUNK)
    if trunk.sum() < LEAST_TRUNK:
        return []
    cells = np.arange(trunk.shape[-1]) * PART_STRIDE + 0.5
    places = np.stack(np.meshgrid(cells, cells), -1) * scale + np.array(shift)  # (h, w, 2) px of the frame
    trunk &= ((places >= 0) & (places < image_size)).all(-1)
    for one in known:
        trunk &= ~_explained(places, one, PART_STRIDE * scale)
    regions = []
    for own in _clusters(trunk):
        if len(own) < LEAST_TRUNK:
            continue
        low, high = places[own[:, 0], own[:, 1]].min(0), places[own[:, 0], own[:, 1]].max(0)
        cell = PART_STRIDE * scale
        # A trunk is about 1.6 times as long as it is wide: what is hidden of it is made up for.
        length = max(high[1] - low[1] + cell, 1.6 * (high[0] - low[0] + cell))
        hips = np.array([0.5 * (low[0] + high[0]), low[1] - 0.5 * cell + length])
        regions.append((len(own), np.array([*hips, TORSOS * length, 0.0])))
    return [region for _, region in sorted(regions, key=lambda pair: -pair[0])]


def _clusters(cells: np.ndarray) -> list[np.ndarray]:
    """The set cells of a (h, w) map in groups that touch, corners included: (N, 2) rows and columns each."""
    left = {(int(row), int(column)) for row, column in np.argwhere(cells)}
    groups = []
    while left:
        group = waiting = [left.pop()]
        while waiting:
            row, column = waiting[-1]
            waiting = waiting[:-1]
            near = {(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            group = group + sorted(near)
            waiting = waiting + sorted(near)
        groups.append(np.array(group))
    return groups


def _explained(places: np.ndarray, person: Person, margin: float) -> np.ndarray:
    """Which places (h, w, 2) px are the person's: in the mask, about a cell wider; without one in the landmarks' box, or about
    trunk and thighs, which the box lacks where no landmark of the legs is sure: BodyPix takes a skirt for a trunk.
    """
    if person.mask is None:
        low, high = person.box_xyxy[:2] - margin, person.box_xyxy[2:] + margin
        shoulders, hips = (person.keypoints2d[[i, i + 1]].mean(0) for i in (11, 23))
        trunk = hips - shoulders
        length = max(float(np.linalg.norm(trunk)), 1e-6)
        along = np.clip((places - shoulders) @ trunk / length**2, 0, THIGHS)
        beside = np.linalg.norm(places - shoulders - along[..., None] * trunk, axis=-1) < WAIST * length + margin
        return np.asarray(((places >= low) & (places <= high)).all(-1) | beside)
    reach = min(max(round(margin / max(person.roi[2], 1.0) * MASK_SIZE), 1), MASK_SIZE // 4)
    masked = torch.from_numpy(person.mask > 100)[None, None].float()
    wide = F.max_pool2d(masked, 2 * reach + 1, 1, reach)[0, 0].numpy() > 0
    flat = frame_to_crop(places.reshape(1, -1, 2), person.roi[None])[0]
    cell = np.floor(flat * MASK_SIZE).astype(int)
    inside = ((cell >= 0) & (cell < MASK_SIZE)).all(-1)
    column, row = cell.clip(0, MASK_SIZE - 1).T
    return np.asarray((inside & wide[row, column]).reshape(places.shape[:2]))
