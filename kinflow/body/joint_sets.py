"""The field's joint sets as points of a body: each point a weighted mean of joints, landmarks and points of the skin.

A joint set is what a data set's annotators, or the network that learned from them, call "hip" or "neck". The same word means
places that are centimetres apart, so every set has its own recipe, and points are compared within one set only.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..skeleton import BLAZEPOSE, LAYOUTS, SMPL_JOINTS

__all__ = ["SKIN_CARRIERS", "SKIN_POINTS", "crown", "set_weights"]

SKIN_POINTS: dict[str, str] = {
    "head_top": "head",
    **{f"{s}_{point}": f"{s}_{joint}" for s in ("left", "right")
       for point, joint in (("big_toe", "foot"), ("small_toe", "foot"), ("heel", "ankle"))},
}  # fmt: skip
"""Points of the skin that are neither joints nor landmarks, and the joint that carries each: the crown, the tips of big and
small toes, and the heels' backs."""
SKIN_CARRIERS: tuple[int, ...] = tuple(SMPL_JOINTS.index(joint) for joint in SKIN_POINTS.values())

Recipe = dict[str, float]
"""Weights, of sum 1, of sources: ``joint NAME``, ``mark NAME`` (a landmark) or ``skin NAME``."""
_SOURCES: tuple[str, ...] = (
    *(f"joint {name}" for name in SMPL_JOINTS),
    *(f"mark {name}" for name in BLAZEPOSE),
    *(f"skin {name}" for name in SKIN_POINTS),
)

_HIPS_APART = 0.94
"""Of Human3.6M: from the pelvis to either hip, in distances between SMPL's hips.

Its own skeleton (one for all subjects) has root and hips in one line, 0.266 m from hip to hip, with 0.897 m from hip to ankle and
0.726 m from root to crown; laid over the mean body by ankle and crown that line is 2 cm above SMPL's pelvis joint, by knees and
crown 2 cm below it. SMPL's hips are 0.138 m apart, 9 cm below.
"""


def _h36m(name: str) -> Recipe:
    """SMPL's joints where Human3.6M means about the same; its own hips, thorax and jaw (docs/body.md has the differences)."""
    if name.endswith("hip"):
        near, far = ("left", "right") if name == "left_hip" else ("right", "left")
        return {"joint pelvis": 1.0, f"joint {near}_hip": _HIPS_APART, f"joint {far}_hip": -_HIPS_APART}
    return {
        "spine": {"joint spine2": 1.0},
        "thorax": {"joint neck": 0.5, "joint left_shoulder": 0.25, "joint right_shoulder": 0.25},
        "jaw": {"joint head": 0.5, "mark nose": 0.5},
        "head_top": {"skin head_top": 1.0},
    }.get(name, {f"joint {name}": 1.0})


def _marked(name: str) -> Recipe:
    """A point of COCO, OpenPose or Halpe: the middle of two others, a point of the skin, or what BlazePose sees too."""
    between = {"neck": "shoulder", "mid_hip": "hip"}.get(name)
    if between is not None:
        return {f"mark left_{between}": 0.5, f"mark right_{between}": 0.5}
    return {f"skin {name}" if name in SKIN_POINTS else f"mark {name}": 1.0}


@functools.cache
def set_weights(joint_set: str) -> NDArray[np.float64]:
    """Weights (N, 64) that take a body's 24 joints, 33 landmarks and 7 points of the skin to a set's N points; read-only.

    Args:
        joint_set: a key of :data:`kinflow.skeleton.LAYOUTS`.

    Raises:
        UsageError: another name.

    >>> set_weights("coco17").shape
    (17, 64)
    """
    if joint_set not in LAYOUTS:
        raise UsageError(f"joint_set: expected one of {', '.join(LAYOUTS)}, got {joint_set!r}.")
    recipes = {
        "smpl24": lambda name: {f"joint {name}": 1.0},
        "blazepose33": lambda name: {f"mark {name}": 1.0},
        "h36m17": _h36m,
    }
    weights = np.zeros((len(LAYOUTS[joint_set]), len(_SOURCES)))
    for row, name in enumerate(LAYOUTS[joint_set]):
        for source, weight in recipes.get(joint_set, _marked)(name).items():
            weights[row, _SOURCES.index(source)] = weight
    weights.flags.writeable = False
    return weights


def crown(template: NDArray[np.floating], head: NDArray[np.floating]) -> int:
    """The top of the head: number of the highest vertex of (V, 3) m at zero pose, a step to the side of the ``head`` joint (3,)
    counting as one down."""
    return int((template[:, 1] - np.abs(template[:, 0] - head[0])).argmax())
