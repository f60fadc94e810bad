"""Body files in SMPL's layout with the open body's shape, and a joint regressor beside them.

They have SMPL's 6,890 vertices, its three genders, its pelvis below the template's origin and the vertices that smplx names at
their numbers, so that everything that needs licensed files can be run without them. They are no SMPL: figures reached with
them mean nothing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...body.files import BodyArrays, read_open
from ...body.joint_sets import SKIN_CARRIERS, SKIN_POINTS
from ...records import atomic_write
from ...skeleton import BLAZEPOSE, SMPL_JOINTS, SMPL_PARENTS

Array = NDArray[np.float64]

VERTICES = 6890
SIZES = {"neutral": (1.0, 1.0, 1.0), "male": (1.08, 1.04, 1.03), "female": (0.99, 0.96, 0.98)}
"""By how much each gender's body is wider, taller and deeper than the open one."""
ORIGIN = (0.0, -0.22, 0.03)
"""m, where the pelvis lies at zero pose: about where SMPL's does."""
H36M = (
    "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine2", "neck", "nose",
    "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
"""Rows of the field's ``J_regressor_h36m.npy``."""
_GROWN = (
    "shapedirs", "joint_shapedirs", "landmark_offsets", "landmark_shapedirs", "landmark_anatomical_offsets", "skin_offsets",
    "skin_shapedirs",
)  # fmt: skip
NEAR = 200
"""Vertices that a joint is regressed from."""


def gendered(gender: str, resolution: str = "light") -> BodyArrays:
    """The open body in the size and at the origin of a gender's file."""
    open_body, size = read_open(resolution), np.array(SIZES[gender])
    shift = np.array(ORIGIN) - size * open_body.joint_template[0]

    def grown(value: Array | None) -> Array | None:
        return None if value is None else size[:, None] * value if value.ndim == 3 else size * value

    changed: dict[str, Any] = {name: grown(getattr(open_body, name)) for name in _GROWN}
    return dataclasses.replace(
        open_body,
        v_template=size * open_body.v_template + shift,
        joint_template=size * open_body.joint_template + shift,
        **changed,
    )


def _vertex_order(full: BodyArrays) -> NDArray[np.int64]:
    """6,890 of the full mesh's vertices, those that smplx names at the numbers that it names them by."""
    from smplx.vertex_ids import vertex_ids

    order = np.linspace(0, len(full.v_template) - 1, VERTICES).round().astype(np.int64)
    joints, offsets = full.landmark_joints, full.landmark_anatomical_offsets
    assert joints is not None and offsets is not None and full.skin_offsets is not None  # the open body has all of them
    marks = dict(zip(BLAZEPOSE, full.joint_template[joints] + offsets, strict=True))
    skin = full.joint_template[list(SKIN_CARRIERS)] + full.skin_offsets
    marks |= {name: place for name, place in zip(SKIN_POINTS, skin, strict=True) if name.endswith("small_toe")}
    names = {"nose": "nose"}
    for side, s in (("left", "l"), ("right", "r")):
        names |= {f"{side}_eye": f"{s}eye", f"{side}_ear": f"{s}ear", f"{side}_heel": f"{s.upper()}Heel"}
        names |= {f"{side}_foot_index": f"{s.upper()}BigToe", f"{side}_small_toe": f"{s.upper()}SmallToe"}
    for landmark, name in names.items():
        place = vertex_ids["smplh"][name]
        away = np.linalg.norm(full.v_template[order] - marks[landmark], axis=1)
        nearest = int(away.argmin())
        order[[place, nearest]] = order[[nearest, place]]
    return order


def _local_regressor(points: Array, targets: Array) -> Array:
    """(J, V): each joint from the vertices near it, exact at rest and along every shape direction.

    Args:
        points: (V, 3, 11) vertices of the mean shape, then their shape directions.
        targets: (J, 3, 11) joints likewise.
    """
    regressor = np.zeros((len(targets), len(points)))
    for joint, target in enumerate(targets):
        near = np.linalg.norm(points[..., 0] - target[:, 0], axis=1).argsort()[:NEAR]
        rows = np.concatenate((points[near].reshape(NEAR, -1).T, np.ones((1, NEAR))))
        regressor[joint, near] = np.linalg.lstsq(rows, np.append(target.reshape(-1), 1.0), rcond=None)[0]
    return regressor


def _h36m_regressor(vertices: Array, joints: Array, count: int = 60) -> Array:
    """(17, V): the mean of the vertices nearest to each point, which lies a little off the joint as the real one's does."""
    head = vertices[vertices[:, 1].argmax()]
    nose = joints[SMPL_JOINTS.index("head")] + (0.0, 0.05, 0.12)
    places = {**dict(zip(SMPL_JOINTS, joints, strict=True)), "head_top": head, "nose": nose}
    regressor = np.zeros((len(H36M), len(vertices)))
    for row, name in enumerate(H36M):
        near = np.linalg.norm(vertices - places[name], axis=1).argsort()[:count]
        regressor[row, near] = 1 / count
    return regressor


def write_smpl(folder: str | Path) -> Path:
    """Write ``SMPL_NEUTRAL.npz``, ``SMPL_MALE.npz``, ``SMPL_FEMALE.npz`` and ``J_regressor_h36m.npy``; returns the folder."""
    folder = Path(folder)
    order = _vertex_order(read_open("full"))
    for gender in SIZES:
        full = gendered(gender, "full")
        points = np.concatenate((full.v_template[..., None], full.shapedirs), -1)[order]
        joints = np.concatenate((full.joint_template[..., None], full.joint_shapedirs), -1)
        parents = np.array(SMPL_PARENTS, np.int64).astype(np.uint32)  # the root's is 2**32 - 1 in SMPL's files
        arrays: dict[str, Any] = {
            "v_template": points[..., 0],
            "shapedirs": points[..., 1:],
            "posedirs": np.zeros((VERTICES, 3, 207), np.float32),
            "weights": full.weights[order],
            "J_regressor": _local_regressor(points, joints),
            "kintree_table": np.stack((parents, np.arange(len(parents), dtype=np.uint32))),
            "f": _faces(full.faces, order),
        }
        with atomic_write(folder / f"SMPL_{gender.upper()}.npz") as stream:
            np.savez_compressed(stream, **arrays)
        if gender == "neutral":
            with atomic_write(folder / "J_regressor_h36m.npy") as stream:
                np.save(stream, _h36m_regressor(points[..., 0], joints[..., 0]))
    return folder


def _faces(faces: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The triangles whose corners are all among the chosen vertices."""
    place = np.full(faces.max() + 1, -1)
    place[order] = np.arange(len(order))
    kept = place[faces]
    return kept[(kept >= 0).all(1)].astype(np.uint32)
