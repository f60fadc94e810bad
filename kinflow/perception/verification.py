"""Whether a track shows a person: two networks that were trained apart must mean the same body, over the track.

BlazePose was made to place a body in any crop, and gives a chair landmarks of high confidence; BodyPix was made to tell persons
from all else, but sees a patch of one in many a cloth. Where both mean a person they agree on which pixels are theirs, and on
where trunk, arms and legs are; where one is mistaken they rarely do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kinflow.perception.crops import frame_to_crop
from kinflow.perception.parts import MAP_SIZE, agreement_of
from kinflow.perception.tracking import Rows
from kinflow.skeleton import BODYPIX24

__all__ = ["Witness", "refusal", "witness_of"]

LOOKED_AT = 60  #: sightings of a track at most, spread over it
SURE = 0.5  #: least confidence of the landmarks at a limb's ends for the limb to be looked for
_FAMILIES = ("face", "upper_arm", "lower_arm", "hand", "torso", "upper_leg", "lower_leg", "foot")
_FAMILY = np.array([-1] + [next(i for i, f in enumerate(_FAMILIES) if f in name) for name in BODYPIX24])
_LIMBS = (
    ("face", (0,), (0,)), ("torso", (11, 12), (23, 24)), ("torso", (11,), (24,)), ("torso", (12,), (23,)),
    ("upper_arm", (11,), (13,)), ("upper_arm", (12,), (14,)), ("lower_arm", (13,), (15,)), ("lower_arm", (14,), (16,)),
    ("upper_leg", (23,), (25,)), ("upper_leg", (24,), (26,)), ("lower_leg", (25,), (27,)), ("lower_leg", (26,), (28,)),
)  # fmt: skip


class Witness(NamedTuple):
    """What speaks for a person in a track: medians over its sightings."""

    agreement: float  #: intersection over union of BodyPix' persons and BlazePose's mask
    placed: float  #: share of the limbs in the middle of which BodyPix sees a limb of that kind
    score: float  #: of the landmark network


def witness_of(rows: Rows, image_size: tuple[int, int]) -> Witness | None:
    """Of a track's rows; None where masks or parts were not kept."""
    if not {"mask", "parts"} <= set(rows.dtype.names or ()):
        return None
    some = rows[np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).round().astype(int))]
    agreement = agreement_of(some["parts"], some["part_roi"], some["mask"], some["roi"], image_size)
    return Witness(
        float(np.median(agreement)), float(np.median(_placed(some, image_size))), float(np.median(some["score"]))
    )


def _placed(rows: Rows, image_size: tuple[int, int]) -> np.ndarray:
    """(N,) share of the limbs in view that BodyPix sees where the landmarks have them; 0 where none is in view."""
    right, looked = np.zeros(len(rows)), np.zeros(len(rows))
    regions = rows["part_roi"].astype(np.float64)
    for family, start, end in _LIMBS:
        ends = list(start + end)
        middle = 0.5 * (rows["keypoints2d"][:, list(start)].mean(1) + rows["keypoints2d"][:, list(end)].mean(1))
        sure = rows["confidence"][:, ends].min(1) >= SURE
        inside = ((middle >= 0) & (middle < image_size)).all(-1)
        cell = np.floor(frame_to_crop(middle[:, None].astype(np.float64), regions)[:, 0] * MAP_SIZE).astype(int)
        within = sure & inside & ((cell >= 0) & (cell < MAP_SIZE)).all(-1)
        column, row = cell.clip(0, MAP_SIZE - 1).T
        seen = _FAMILY[rows["parts"][np.arange(len(rows)), row, column]]
        looked += within
        right += within & (seen == _FAMILIES.index(family))
    return right / np.maximum(looked, 1)


def refusal(rows: Rows, image_size: tuple[int, int], least: float) -> str | None:
    """Why a track is taken for no person, or None.

    Args:
        least: agreement that is asked for; twice as much where hardly a limb lies in its place. Of who is cut by the frame's
            border or a door few limbs are in view, and agreement alone decides.
    """
    witness = witness_of(rows, image_size)
    if witness is None or witness.agreement >= (least if witness.placed >= 0.5 * least else 2 * least):
        return None
    return (
        f"BodyPix and BlazePose agree on {100 * witness.agreement:.0f} % of the body, {100 * witness.placed:.0f} % of the limbs lie "
        f"where BodyPix sees such a limb"
    )
