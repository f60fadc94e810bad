"""Joint names, the kinematic tree, keypoint layouts and the maps between them."""

from __future__ import annotations

from .errors import UsageError

SMPL_JOINTS: tuple[str, ...] = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
"""SMPL's 24 joints in SMPL's order."""

SMPL_PARENTS: tuple[int, ...] = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""Parent of each SMPL joint; the root's is -1."""

SMPL_REST_OFFSETS: tuple[tuple[float, float, float], ...] = (
    (0.000, 0.000, 0.000), (0.069, -0.091, -0.006), (-0.069, -0.091, -0.006), (0.000, 0.109, -0.027),
    (0.036, -0.379, -0.005), (-0.036, -0.379, -0.005), (0.000, 0.135, 0.001), (-0.014, -0.398, -0.043),
    (0.014, -0.398, -0.043), (0.000, 0.053, 0.025), (0.026, -0.052, 0.121), (-0.026, -0.052, 0.121),
    (0.000, 0.214, -0.043), (0.080, 0.120, -0.036), (-0.080, 0.120, -0.036), (0.000, 0.065, 0.051),
    (0.093, 0.032, -0.009), (-0.093, 0.032, -0.009), (0.257, -0.013, -0.024), (-0.257, -0.013, -0.024),
    (0.252, 0.008, -0.003), (-0.252, 0.008, -0.003), (0.084, -0.008, -0.018), (-0.084, -0.008, -0.018),
)  # fmt: skip
"""Each joint from its parent, m, in SMPL's zero pose: a mean adult, both sides made alike. Rotations mean what they mean
through these directions; the open body is built to them."""

NUM_JOINTS = 24
NUM_BODY = 21
"""Joints 1..21 turn in the flow; 22 and 23 (the hands) stay at identity."""

BLAZEPOSE: tuple[str, ...] = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
"""The 33 landmarks of MediaPipe's BlazePose: kinflow's keypoint layout."""

FEET: tuple[int, ...] = (29, 31, 30, 32)
"""BlazePose landmarks of left heel, left toe, right heel, right toe: the order of foot contacts."""

COCO17: tuple[str, ...] = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

BODYPIX24: tuple[str, ...] = (
    "left_face", "right_face", "left_upper_arm_front", "left_upper_arm_back", "right_upper_arm_front",
    "right_upper_arm_back", "left_lower_arm_front", "left_lower_arm_back", "right_lower_arm_front",
    "right_lower_arm_back", "left_hand", "right_hand", "torso_front", "torso_back", "left_upper_leg_front",
    "left_upper_leg_back", "right_upper_leg_front", "right_upper_leg_back", "left_lower_leg_front",
    "left_lower_leg_back", "right_lower_leg_front", "right_lower_leg_back", "left_foot", "right_foot",
)  # fmt: skip
"""BodyPix's 24 parts of the body's surface, in the order of its channels; left and right are the person's own."""

OPENPOSE18: tuple[str, ...] = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
"""OpenPose's COCO model: 18 keypoints."""

BODY25: tuple[str, ...] = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
    "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
"""OpenPose's BODY_25."""

HALPE26: tuple[str, ...] = (
    *COCO17, "head_top", "neck", "mid_hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)  # fmt: skip
"""The 26 body keypoints of Halpe-FullBody (AlphaPose, RTMPose); head, neck and hip as the others name them."""

H36M17: tuple[str, ...] = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax", "jaw",
    "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
"""Human3.6M's 17 joints in the order of the 3D pose literature, the right leg first.

``thorax``, ``jaw`` and ``head_top`` are also called neck, nose and head. In SPIN's ``J_regressor_h36m.npy`` the left leg comes
first (rows 1 to 3); everything else is in this order.
"""

LAYOUTS: dict[str, tuple[str, ...]] = {
    "smpl24": SMPL_JOINTS,
    "blazepose33": BLAZEPOSE,
    "coco17": COCO17,
    "openpose18": OPENPOSE18,
    "body25": BODY25,
    "halpe26": HALPE26,
    "h36m17": H36M17,
}
"""The joint sets by name: what each calls its points, in its order. :meth:`kinflow.body.Body.keypoints` gives their places."""

# Names by which one layout means what another calls differently (the big toe's tip is BlazePose's foot index).
_SYNONYMS = {"left_big_toe": "left_foot_index", "right_big_toe": "right_foot_index", "mid_hip": "pelvis"}

BLAZEPOSE_EDGES: tuple[tuple[int, int], ...] = (
    (0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (11, 12), (11, 13), (13, 15), (15, 17),
    (15, 19), (15, 21), (17, 19), (12, 14), (14, 16), (16, 18), (16, 20), (16, 22), (18, 20), (11, 23), (12, 24),
    (23, 24), (23, 25), (25, 27), (27, 29), (27, 31), (29, 31), (24, 26), (26, 28), (28, 30), (28, 32), (30, 32),
)  # fmt: skip
"""Lines to draw between BlazePose landmarks."""


def _mirror(names: tuple[str, ...]) -> tuple[int, ...]:
    def other(name: str) -> str:
        if "left" in name:
            return name.replace("left", "right")
        return name.replace("right", "left")

    return tuple(names.index(other(n)) if ("left" in n or "right" in n) else i for i, n in enumerate(names))


MIRROR_SMPL = _mirror(SMPL_JOINTS)
"""``x[MIRROR_SMPL]`` exchanges left and right joints."""
MIRROR_BODY = tuple(i - 1 for i in MIRROR_SMPL[1 : NUM_BODY + 1])
"""The same among the body's joints, SMPL's 1 to 21."""
MIRROR_BLAZEPOSE = _mirror(BLAZEPOSE)
"""``x[MIRROR_BLAZEPOSE]`` exchanges left and right landmarks."""
MIRROR_BODYPIX = _mirror(BODYPIX24)
"""``MIRROR_BODYPIX[part]`` is the part of the mirrored body."""


def _depth(joint: int) -> int:
    return 0 if SMPL_PARENTS[joint] < 0 else 1 + _depth(SMPL_PARENTS[joint])


BODY_INDEX_LEVELS: tuple[tuple[int, ...], ...] = tuple(
    tuple(j for j in range(NUM_JOINTS) if _depth(j) == level)
    for level in range(1 + max(map(_depth, range(NUM_JOINTS))))
)
"""Joints by depth in the tree, root first: forward kinematics goes level by level."""


def keypoint_map(src: str | tuple[str, ...], dst: str | tuple[str, ...]) -> list[tuple[int, int]]:
    """Pairs (index in ``src``, index in ``dst``) of the keypoints that both layouts have.

    The same name is not always the same place: what SMPL calls a hip, or a neck, lies centimetres from where annotators mark
    one (docs/body.md). Where a body is at hand compare the points of one set (:meth:`kinflow.body.Body.keypoints`).

    Args:
        src, dst: a layout's name (a key of :data:`LAYOUTS`) or its tuple of names.

    >>> keypoint_map("coco17", "blazepose33")[:2]
    [(0, 0), (1, 2)]
    """
    names = []
    for layout in (src, dst):
        if isinstance(layout, str):
            if layout not in LAYOUTS:
                raise UsageError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}.")
            layout = LAYOUTS[layout]
        names.append([_SYNONYMS.get(n, n) for n in layout])
    return [(i, names[1].index(n)) for i, n in enumerate(names[0]) if n in names[1]]


BLAZEPOSE_TO_SMPL: dict[int, int] = {
    i: j
    for i, j in keypoint_map("blazepose33", "smpl24")
    if BLAZEPOSE[i].split("_")[-1] in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
}
"""BlazePose landmark -> SMPL joint, where both name the same joint (definitions differ by a few centimetres)."""
