"""What somebody wears: the colours of trunk and thighs, by which people are told apart where their places do not tell.

BodyPix' part map says where the two garments are; of its cells only those near the person's own trunk and thighs count, for the
crop may show a neighbour too. A garment is three histograms: of the logarithm of its brightness, and of two chromaticities, which
do not depend on the light's strength. Histograms are compared by the earth mover's distance, so that a fold or a little more
light moves a colour by a little, where bins compared one by one would differ altogether.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kinflow.perception.crops import crop_to_frame
from kinflow.perception.landmarks import Person
from kinflow.perception.parts import CELL_CENTRES, MAP_SIZE
from kinflow.skeleton import BODYPIX24

__all__ = ["DIFFERENT", "DIFFERENT_AT_ONCE", "LOOK_SHAPE", "look_distance", "looks", "typical_look"]

BINS = 10
LOOK_SHAPE = (2, 3, BINS)  #: trunk, thighs; brightness, red over green, blue over both; bins
DIFFERENT = (
    0.5  #: the distance of looks of half a second from which they are of different people, see docs/perception.md
)
DIFFERENT_AT_ONCE = 0.9  #: the same of a single sighting: somebody else's arm in front changes it
LEAST_CELLS = 20.0  #: of a garment, for it to be known; who stands free shows 60 to 150
REACH = (0.35, 0.28)  #: cells count up to so far from the line of trunk and thigh, in its length
DARKEST = 0.02  #: brightness of the first bin, 0..1; below it noise decides
BLACK = 0.05  #: added to the sum of the channels: the chromaticity of dark cells is noise
CHROMA = 0.6  #: chromaticities are told apart up to so far from grey
LIGHT = 0.5  #: brightness may change by so much (natural logarithm) from sun to shade, ...
UNIT = (1.2, 0.10, 0.10)  #: ... and beyond it counts one of these as much as a chromaticity the others
_PARTS = tuple(
    np.isin(np.arange(len(BODYPIX24) + 1), [1 + i for i, name in enumerate(BODYPIX24) if word in name])
    for word in ("torso", "upper_leg")
)
_LINES = (((11, 12), (23, 24)), ((23,), (25,)), ((24,), (26,)))  #: landmarks at the ends of trunk and thighs


def looks(crops: Tensor, people: list[Person]) -> np.ndarray:
    """What each of N people wears.

    Args:
        crops: (N, 3, S, S) RGB in 0..1, what BodyPix saw. people: with part maps.
    Returns:
        (N, 2, 3, BINS) float32: how many cells of each garment fall into each bin; zeros of a garment that is not seen.
    """
    colours = F.adaptive_avg_pool2d(crops, MAP_SIZE).permute(0, 2, 3, 1).reshape(len(people), -1, 3).cpu().numpy()
    return np.stack([_look(c, p) for c, p in zip(colours.astype(np.float64), people, strict=True)]).astype(np.float32)


def _look(colours: np.ndarray, person: Person) -> np.ndarray:
    assert person.parts is not None and person.part_roi is not None
    out = np.zeros(LOOK_SHAPE)
    labels = person.parts.reshape(-1)
    places = crop_to_frame(CELL_CENTRES[None], person.part_roi[None].astype(np.float64))[0]
    near = [_near(places, person.keypoints2d, line, REACH[min(i, 1)]) for i, line in enumerate(_LINES)]
    for garment, own in enumerate((near[0], near[1] | near[2])):
        cells = np.flatnonzero(_PARTS[garment][labels] & own)
        if not len(cells):
            continue
        total = colours[cells].sum(-1)
        red, green, blue = colours[cells].T
        chroma = np.stack([red - green, blue - 0.5 * (red + green)]) / (total + BLACK)
        brightness = np.log(np.maximum(total / 3, DARKEST) / DARKEST) / -np.log(DARKEST)
        for channel, share in enumerate((brightness, *(0.5 + 0.5 * chroma / CHROMA))):
            at = np.clip(share, 0, 1) * (BINS - 1)
            low = np.minimum(at.astype(int), BINS - 2)
            np.add.at(out[garment, channel], low, 1 - (at - low))
            np.add.at(out[garment, channel], low + 1, at - low)
    return out


def _near(
    places: np.ndarray, keypoints2d: np.ndarray, line: tuple[tuple[int, ...], tuple[int, ...]], reach: float
) -> np.ndarray:
    """Which places (C, 2) lie near the line between two landmarks, or the middles of two pairs."""
    start, end = (keypoints2d[list(ends)].mean(0) for ends in line)
    along = end - start
    length = max(float(np.linalg.norm(along)), 1e-6)
    share = np.clip((places - start) @ along / length**2, 0, 1)
    away = np.linalg.norm(places - start - share[:, None] * along, axis=-1)
    # A trunk seen from above or a thigh that points at the camera is short, and as wide as ever.
    return away < max(reach * length, 0.12 * float(np.ptp(keypoints2d, axis=0).max()))


def look_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How different two looks are: 0 the same, from DIFFERENT on another's; 0 too where no garment is known of both.

    Args:
        a, b: (..., 2, 3, BINS) cells; means over several sightings weigh each by what was seen of it.
    Returns:
        (...) float64.
    """
    counts = np.minimum(a.sum((-1, -2)), b.sum((-1, -2))) / 3  # (..., 2)
    shares = [np.cumsum(x / np.maximum(x.sum(-1, keepdims=True), 1e-9), -1) for x in (a, b)]
    moved = np.abs(shares[0] - shares[1]).sum(-1) / (BINS - 1)  # (..., 2, 3), in units of a channel's range
    moved = moved * np.array([-np.log(DARKEST), 2 * CHROMA, 2 * CHROMA])
    moved[..., 0] = np.maximum(moved[..., 0] - LIGHT, 0)
    differ = np.sqrt(((moved / np.array(UNIT)) ** 2).sum(-1))
    known = counts >= LEAST_CELLS
    return np.where(known, differ, 0.0).max(-1)


def typical_look(worn: np.ndarray) -> np.ndarray:
    """What a person wears by N sightings (N, 2, 3, BINS): (2, 3, BINS), the median of the distributions, of the mean size.

    Somebody in front for a while changes a mean; the median not, unless for half of the time.
    """
    counts = worn.sum(-1, dtype=np.float64)  # (N, 2, 3)
    out = np.zeros(worn.shape[1:])
    for garment in range(worn.shape[1]):
        seen = counts[:, garment, 0] >= LEAST_CELLS
        some = worn[seen if seen.any() else slice(None), garment].astype(np.float64)
        below = np.cumsum(some, -1) / np.maximum(some.sum(-1, keepdims=True), 1e-9)
        out[garment] = np.diff(np.median(below, 0), axis=-1, prepend=0.0) * counts[:, garment, 0].mean()
    return out
