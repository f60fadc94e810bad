"""Whether a track shows a person: two networks that were trained apart must mean the same body, over the track.

BlazePose was made to place a body in any crop, and gives a chair landmarks of high confidence; BodyPix was made to tell persons
from all else, but sees a patch of one in many a cloth. Where both mean a person, BodyPix sees somebody where the landmarks have a
body, and trunk, arms and legs where they have such; where one is mistaken it rarely does.
"""

from __future__ import annotations

import numpy as np

from kinflow.perception.crops import crop_to_frame, frame_to_crop
from kinflow.perception.landmarks import Person
from kinflow.perception.parts import CELL_CENTRES, MAP_SIZE
from kinflow.perception.tracking import Rows
from kinflow.skeleton import BODYPIX24

__all__ = ["refusal", "witness_of"]

SURE = 0.5  #: least confidence of the landmarks at a limb's ends for the limb to be looked for
_FAMILIES = ("face", "upper_arm", "lower_arm", "hand", "torso", "upper_leg", "lower_leg", "foot")
_FAMILY = np.array([-1] + [next(i for i, f in enumerate(_FAMILIES) if f in name) for name in BODYPIX24])
_LIMBS = (
    ("face", (0,), (0,)), ("torso", (11, 12), (23, 24)), ("torso", (11,), (24,)), ("torso", (12,), (23,)),
    ("upper_arm", (11,), (13,)), ("upper_arm", (12,), (14,)), ("lower_arm", (13,), (15,)), ("lower_arm", (14,), (16,)),
    ("upper_leg", (23,), (25,)), ("upper_leg", (24,), (26,)), ("lower_leg", (25,), (27,)), ("lower_leg", (26,), (28,)),
)  # fmt: skip
_THICK = {"head": 0.28, "torso": 0.33, "upper_arm": 0.12, "lower_arm": 0.1, "upper_leg": 0.17, "lower_leg": 0.12}
"""Half the width of a limb in lengths of the torso."""
_BONES = (("head", (7, 8), (7, 8)), *(limb for limb in _LIMBS[1:] if limb[1:] not in (((11,), (24,)), ((12,), (23,)))))


def witness_of(person: Person, image_size: tuple[int, int]) -> np.ndarray:
    """What BodyPix says for a sighting: (2,) float32.

    The share of the body, drawn from the landmarks, that it takes for a person; and of the limbs in view, the share in the
    middle of which it sees a limb of that kind. Limbs of which the landmarks are unsure are left out of both.

    Args:
        person: with part maps. image_size: (width, height) px.
    """
    return np.array([_covered(person, image_size), _placed(person, image_size)], np.float32)


def _covered(person: Person, image_size: tuple[int, int]) -> float:
    assert person.parts is not None and person.part_roi is not None
    points, sure = person.keypoints2d, person.confidence >= SURE
    places = crop_to_frame(CELL_CENTRES[None], person.part_roi[None].astype(np.float64))[0]
    trunk = np.linalg.norm(points[[11, 12]].mean(0) - points[[23, 24]].mean(0))
    torso = max(
        float(trunk), float(np.linalg.norm(points[11] - points[12])), 1e-3
    )  # who leans to the camera looks short
    drawn = np.zeros(len(places), bool)
    for name, start, end in _BONES:
        if sure[list(start + end)].all():
            a, b = points[list(start)].mean(0), points[list(end)].mean(0)
            share = np.clip((places - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9), 0, 1)
            drawn |= np.linalg.norm(places - a - share[:, None] * (b - a), axis=-1) < _THICK[name] * torso
    drawn &= ((places >= 0) & (places < image_size)).all(-1)
    return float((drawn & (person.parts.reshape(-1) > 0)).sum() / max(drawn.sum(), 1))


def _placed(person: Person, image_size: tuple[int, int]) -> float:
    assert person.parts is not None and person.part_roi is not None
    points, sure, right, looked = person.keypoints2d, person.confidence >= SURE, 0, 0
    for family, start, end in _LIMBS:
        middle = 0.5 * (points[list(start)].mean(0) + points[list(end)].mean(0))
        if sure[list(start + end)].all() and ((middle >= 0) & (middle < image_size)).all():
            at = frame_to_crop(middle[None, None], person.part_roi[None].astype(np.float64))[0, 0]
            column, row = np.floor(at * MAP_SIZE).astype(int)
            if 0 <= column < MAP_SIZE and 0 <= row < MAP_SIZE:
                looked += 1
                right += int(_FAMILY[person.parts[row, column]] == _FAMILIES.index(family))
    return right / max(looked, 1)


def refusal(rows: Rows, least: float) -> str | None:
    """Why a track is taken for no person, or None; None too where BodyPix has not looked.

    Args:
        least: share of the body that BodyPix has to take for a person, in the median over the track; twice as much where
            hardly a limb lies in its place. Of who is cut by the frame's border or a door few limbs are in view, and the body
            alone decides.
    """
    if "witness" not in (rows.dtype.names or ()) or not rows["examined"].any():
        return None
    covered, placed = np.median(rows["witness"][rows["examined"]], 0)
    if covered >= (least if placed >= 0.5 * least else 2 * least):
        return None
    return (
        f"BodyPix takes {100 * covered:.0f} % of the body for a person, {100 * placed:.0f} % of the limbs lie where it sees such a "
        "limb"
    )
