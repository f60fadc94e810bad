"""What each motion-capture rig means in SMPL's terms: which of its joints turns which SMPL joint, and its zero pose.

A rig says, for each SMPL joint, which source joint's world rotation it follows, and the constant correction ``zero``:
the world rotation that SMPL's joint has when the source skeleton stands in its own zero pose. With G the source joint's
world rotation, SMPL's is ``G zero``. Where SMPL has more joints than the source (or fewer), the rotation lies part of the way
between two source joints'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from .mend import thorax_mender
from .source import Array, SourceMotion, euler_to_rotmat


@dataclass(frozen=True)
class Follow:
    """World rotation to follow: of ``joint``, or ``part`` of the way (by slerp) from ``joint`` to ``towards``.

    With ``twist_only`` it turns about the bone from ``joint`` to ``towards`` alone, so that the bone keeps its direction.
    """

    joint: str
    towards: str | None = None
    part: float = 0.0
    twist_only: bool = False


@dataclass(frozen=True)
class Rig:
    """A kind of skeleton.

    Attributes:
        name: as in the index of clips.
        follow: SMPL joint -> what it follows. A joint that is absent keeps its parent's rotation.
        zero: SMPL joint -> (3, 3) its world rotation at the source's zero pose; identity where absent.
        points: SMPL joint -> the source joint at the same place, for hips, translation and checks of bone directions.
        world: (3, 3) from the file's world axes (and its world-aligned joint frames) to y up, T-pose facing +z.
        by_design: SMPL joints whose bones point elsewhere than the source's on purpose (see docs/mocap.md).
        mend: what to repair in a file of this rig before use.
    """

    name: str
    follow: dict[str, Follow]
    zero: dict[str, Array]
    points: dict[str, str]
    world: Array = field(default_factory=lambda: np.eye(3))
    by_design: frozenset[str] = frozenset()
    mend: Callable[[SourceMotion], SourceMotion] | None = None


def _turn(axis: str, degrees: float) -> Array:
    return euler_to_rotmat(np.array([degrees]), axis)


_How = str | tuple[str, str, float] | tuple[str, str, float, bool]


def _both(follow: dict[str, _How]) -> dict[str, Follow]:
    return {k: Follow(v) if isinstance(v, str) else Follow(*v) for k, v in follow.items()}


# The CMU skeleton in its own (ASF) names. The other rigs of the database carry the same joints under other names.
_CMU_FOLLOW: dict[str, _How] = {
    "pelvis": "root",
    "spine1": "lowerback",
    "spine2": "upperback",
    "spine3": "thorax",
    "neck": ("lowerneck", "upperneck", 0.5),
    "head": "head",
}
_CMU_POINTS = {"pelvis": "root", "neck": "lowerneck", "head": "head"}
for _side, _s in (("left", "l"), ("right", "r")):
    _same = {
        f"{_side}_hip": f"{_s}femur",
        f"{_side}_knee": f"{_s}tibia",
        f"{_side}_ankle": f"{_s}foot",
        f"{_side}_foot": f"{_s}toes",
        f"{_side}_collar": f"{_s}clavicle",
        f"{_side}_shoulder": f"{_s}humerus",
    }
    # The source turns the whole forearm at the wrist; a body's forearm turns along its length.
    _forearm = (f"{_s}radius", f"{_s}wrist", 0.5, True)
    _CMU_FOLLOW |= _same | {f"{_side}_elbow": _forearm, f"{_side}_wrist": f"{_s}hand"}
    _CMU_POINTS |= _same
    _CMU_POINTS |= {f"{_side}_elbow": f"{_s}radius", f"{_side}_wrist": f"{_s}wrist", f"{_side}_hand": f"{_s}fingers"}

_CMU_ZERO: dict[str, Array] = {}
for _side, _sign in (("left", 1.0), ("right", -1.0)):
    for _part in ("hip", "knee", "ankle", "foot"):  # the zero pose spreads the legs by 20 degrees
        _CMU_ZERO[f"{_side}_{_part}"] = _turn("Z", 20.0 * _sign)

for _side, _sign in (("left", 1.0), ("right", -1.0)):
    # The elbow's hinge at zero pose is 30 degrees off the vertical (the axis line of humerus and radius in every .asf).
    _CMU_ZERO[f"{_side}_shoulder"] = _turn("X", -30.0)
    _CMU_ZERO[f"{_side}_elbow"] = _turn("X", -15.0)
# A subject who looks ahead has the head at +16 degrees of pitch (the median of walks; the converters' T-pose has the same:
# -16, +21 and +11 degrees in the three neck joints); the neck's two joints lie 5.5 degrees back.
_CMU_ZERO["head"] = _turn("X", -16.0)
_CMU_ZERO["neck"] = _turn("X", 5.5)

CMU_ASF = Rig("asfamc", _both(_CMU_FOLLOW), _CMU_ZERO, _CMU_POINTS)


def _renamed(rig: Rig, name: str, names: dict[str, str], **changes: object) -> Rig:
    def new(joint: str) -> str:
        return names.get(joint, joint)

    follow = {
        k: Follow(new(f.joint), None if f.towards is None else new(f.towards), f.part, f.twist_only)
        for k, f in rig.follow.items()
    }
    points = {k: new(v) for k, v in rig.points.items()}
    return replace(rig, name=name, follow=follow, points=points, **changes)  # type: ignore[arg-type]


_MB_NAMES = {"root": "Hips", "lowerback": "LowerBack", "upperback": "Spine", "thorax": "Spine1"}
_MB_NAMES |= {"lowerneck": "Neck", "upperneck": "Neck1", "head": "Head"}
_MAX_NAMES = {"root": "Hips", "upperback": "Chest", "thorax": "Chest2", "upperneck": "Neck", "head": "Head"}
for _s, _side in (("l", "Left"), ("r", "Right")):
    _MB_NAMES |= {f"{_s}femur": f"{_side}UpLeg", f"{_s}tibia": f"{_side}Leg", f"{_s}foot": f"{_side}Foot"}
    _MB_NAMES |= {f"{_s}toes": f"{_side}ToeBase", f"{_s}clavicle": f"{_side}Shoulder", f"{_s}humerus": f"{_side}Arm"}
    _MB_NAMES |= {f"{_s}radius": f"{_side}ForeArm", f"{_s}wrist": f"{_side}Hand", f"{_s}hand": f"{_side}FingerBase"}
    _MB_NAMES |= {f"{_s}fingers": f"{_side}HandIndex1"}
    _MAX_NAMES |= {f"{_s}femur": f"{_side}Hip", f"{_s}tibia": f"{_side}Knee", f"{_s}foot": f"{_side}Ankle"}
    _MAX_NAMES |= {f"{_s}toes": f"{_side}Toe", f"{_s}clavicle": f"{_side}Collar", f"{_s}humerus": f"{_side}Shoulder"}
    _MAX_NAMES |= {f"{_s}radius": f"{_side}Elbow", f"{_s}wrist": f"{_side}Wrist"}
    _MAX_NAMES |= {f"{_s}fingers": f"{_side[0]}Fingers"}

CGSPEED_MB = _renamed(
    CMU_ASF, "cgspeed_mb", _MB_NAMES, mend=thorax_mender("Spine1", ("Neck", "LeftShoulder", "RightShoulder"))
)
CGSPEED_MB_EXPMAP = replace(CGSPEED_MB, name="cgspeed_mb_expmap")
ASFNAMES_BVH = _renamed(
    CMU_ASF, "asfnames_bvh", {"root": "hip"}, mend=thorax_mender("thorax", ("lowerneck", "lclavicle", "rclavicle"))
)
# Arms hang down at zero: the T-pose is the zero pose with the arms lifted by 90 degrees.
_MAX_ZERO = dict(_CMU_ZERO)
for _side, _sign in (("left", 1.0), ("right", -1.0)):
    for _part in ("shoulder", "elbow", "wrist"):
        _MAX_ZERO[f"{_side}_{_part}"] = _turn("Z", -90.0 * _sign) @ _CMU_ZERO.get(f"{_side}_{_part}", np.eye(3))
CGSPEED_MAX = _renamed(
    CMU_ASF,
    "cgspeed_max",
    _MAX_NAMES,
    zero=_MAX_ZERO,
    mend=thorax_mender("Chest2", ("lowerneck", "LeftCollar", "RightCollar")),
)

# A fixed figure onto which the motion was retargeted; its zero pose is its T-pose, by definition of the retargeting:
# bent elbows and knees of the figure's rest shape are not part of the motion.
_DAZ_FOLLOW: dict[str, _How] = {
    "pelvis": "hip",
    "spine1": "abdomen",
    "spine2": ("abdomen", "chest", 0.5),
    "spine3": "chest",
    "neck": "neck",
    "head": "head",
}
_DAZ_POINTS = {"pelvis": "hip", "neck": "neck", "head": "head"}
for _side, _s in (("left", "l"), ("right", "r")):
    _same = {f"{_side}_hip": f"{_s}Thigh", f"{_side}_knee": f"{_s}Shin", f"{_side}_ankle": f"{_s}Foot"}
    _same |= {f"{_side}_collar": f"{_s}Collar", f"{_side}_shoulder": f"{_s}Shldr", f"{_side}_wrist": f"{_s}Hand"}
    _DAZ_FOLLOW |= _same | {f"{_side}_elbow": (f"{_s}ForeArm", f"{_s}Hand", 0.5, True)}
    _DAZ_POINTS |= _same
    _DAZ_POINTS |= {f"{_side}_foot": f"{_s}Foot_end", f"{_side}_elbow": f"{_s}ForeArm", f"{_side}_hand": f"{_s}Mid1"}
# The elbows bend about the same line as in the CMU skeleton, and the neck is 12 degrees ahead of it (same subjects in both).
_DAZ_ZERO = {k: v for k, v in _CMU_ZERO.items() if k.endswith(("shoulder", "elbow"))} | {"neck": _turn("X", -12.0)}
CGSPEED_DAZ = Rig(
    "cgspeed_daz",
    _both(_DAZ_FOLLOW),
    _DAZ_ZERO,
    _DAZ_POINTS,
    by_design=frozenset({"left_elbow", "right_elbow", "left_knee", "right_knee"}),
)


# Bone-local frames: x along the chain on the left and the trunk, against it on the right. ``_frame`` gives a bone's frame in
# the T-pose by its columns; found from the hinges of knees and elbows, which bend about local +z.
def _frame(x: tuple[int, int, int], y: tuple[int, int, int]) -> Array:
    return np.stack([np.array(x), np.array(y), np.cross(x, y)], axis=-1).astype(np.float64)


_UP, _AHEAD, _LEFT = (0, 1, 0), (0, 0, 1), (1, 0, 0)
_DOWN, _BACK = (0, -1, 0), (0, 0, -1)
_NEO_FOLLOW: dict[str, _How] = {
    "pelvis": "Hips",
    "spine1": "Spine",
    "spine2": "Spine1",
    "spine3": "Spine2",
    "neck": "Neck",
    "head": "Head",
}
_NEO_POINTS = {"pelvis": "Hips", "neck": "Neck", "head": "Head"}
_NEO_TPOSE = {j: _frame(_UP, _AHEAD) for j in _NEO_FOLLOW}
for _side, _s in (("left", "Left"), ("right", "Right")):
    _same = {f"{_side}_hip": f"{_s}UpLeg", f"{_side}_knee": f"{_s}Leg", f"{_side}_ankle": f"{_s}Foot"}
    _same |= {f"{_side}_foot": f"{_s}ToeBase", f"{_side}_collar": f"{_s}Shoulder", f"{_side}_shoulder": f"{_s}Arm"}
    _same |= {f"{_side}_elbow": f"{_s}ForeArm", f"{_side}_wrist": f"{_s}Hand"}
    _NEO_FOLLOW |= _same
    _NEO_POINTS |= _same
for _joint in ("hip", "knee"):
    _NEO_TPOSE[f"left_{_joint}"] = _frame(_DOWN, _BACK)
    _NEO_TPOSE[f"right_{_joint}"] = _frame(_UP, _AHEAD)
for _joint in ("ankle", "foot"):
    _NEO_TPOSE[f"left_{_joint}"] = _frame(_AHEAD, _DOWN)
    _NEO_TPOSE[f"right_{_joint}"] = _frame(_BACK, _UP)
for _joint in ("shoulder", "elbow", "wrist"):
    _NEO_TPOSE[f"left_{_joint}"] = _frame(_LEFT, _AHEAD)
    _NEO_TPOSE[f"right_{_joint}"] = _frame(_LEFT, _BACK)
_NEO_TPOSE["left_collar"] = _frame(_LEFT, _UP)
_NEO_TPOSE["right_collar"] = _frame(_LEFT, _DOWN)
_NEO_ZERO = {j: a.T for j, a in _NEO_TPOSE.items()}
# Bones lean at rest: neck and head forward, collars down (medians of standing frames against the same subject's .amc).
for _joint, _axis, _degrees in (
    ("neck", "X", -23.0),
    ("head", "X", -42.0),
    ("left_collar", "Z", 25.0),
    ("right_collar", "Z", -25.0),
):
    _NEO_ZERO[_joint] = _NEO_ZERO[_joint] @ _turn(_axis, _degrees)
NEO_FBX = Rig("neo_fbx", _both(_NEO_FOLLOW), _NEO_ZERO, _NEO_POINTS)

_DM_FOLLOW: dict[str, _How] = {
    "pelvis": "root",
    "spine1": ("root", "chest", 1 / 3),
    "spine2": ("root", "chest", 2 / 3),
    "spine3": "chest",
    "neck": ("chest", "neck", 0.5),
    "head": "neck",
}
_DM_ZERO: dict[str, Array] = {}
_DM_POINTS = {"pelvis": "root", "neck": "neck"}
for _side, _sign in (("left", 1.0), ("right", -1.0)):
    _same = {f"{_side}_{p}": f"{_side}_{p}" for p in ("hip", "knee", "ankle", "shoulder", "elbow")}
    _DM_FOLLOW |= _same
    _DM_POINTS |= _same
    _DM_POINTS[f"{_side}_wrist"] = f"{_side}_elbow_end"
    for _part in ("shoulder", "elbow"):  # arms hang at zero, elbows bend forward
        _DM_ZERO[f"{_side}_{_part}"] = _turn("Z", -90.0 * _sign)
DEEPMIMIC = Rig(
    "deepmimic_humanoid3d",
    _both(_DM_FOLLOW),
    _DM_ZERO,
    _DM_POINTS,
    world=np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
)

_XSENS_FOLLOW: dict[str, _How] = {
    "pelvis": "Hips",
    "spine1": "Spine",
    "spine2": ("Spine1", "Spine2", 0.5),
    "spine3": "Spine3",
    "neck": "Neck",
    "head": "Head",
}
_XSENS_POINTS = dict(_NEO_POINTS)
for _side, _s in (("left", "Left"), ("right", "Right")):
    _XSENS_FOLLOW |= {k: v for k, v in _NEO_FOLLOW.items() if k.startswith(_side)}
    _XSENS_POINTS[f"{_side}_hand"] = f"{_s}HandEnd"
XSENS27 = Rig(
    "fair_xsens27",
    _both(_XSENS_FOLLOW),
    {},
    _XSENS_POINTS,
    world=np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
)

RIGS: dict[str, Rig] = {
    r.name: r
    for r in (
        CMU_ASF, CGSPEED_MB, CGSPEED_MB_EXPMAP, ASFNAMES_BVH, CGSPEED_MAX, CGSPEED_DAZ, NEO_FBX, DEEPMIMIC, XSENS27,
    )
}  # fmt: skip
"""The rigs by the names that the index of clips uses."""
