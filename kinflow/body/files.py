"""Reading body models: the packaged open body, and licensed files of the SMPL family through smplx."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..assets import asset_path
from ..errors import UsageError
from ..records import open_npz

RESOLUTIONS = {"full": "open_body.npz", "light": "open_body_light.npz"}


@dataclass(frozen=True)
class BodyArrays:
    """A body model as numpy arrays; see :class:`kinflow.Body` for frames.

    Args:
        name: the model's name, as motions record it.
        provenance: where it comes from and under which licence.
        v_template: (V, 3) m.
        shapedirs: (V, 3, 10) m per unit of each shape coefficient.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        weights: (V, 24) skinning weights.
        joint_template: (24, 3) m, joints of the mean shape.
        joint_shapedirs: (24, 3, 10).
        posedirs: (V, 3, 9 P) pose blend shapes of joints 1..P, or None.
        landmark_joints: (33,) the joint that carries each BlazePose landmark, or None where they are not known.
        landmark_offsets: (33, 3) m in the joint's frame, for the mean shape: where BlazePose sees the landmark.
        landmark_shapedirs: (33, 3, 10).
        landmark_anatomical_offsets: (33, 3) m, before calibration: where the landmark's name says.
        skin_offsets: (7, 3) m, :data:`~kinflow.body.joint_sets.SKIN_POINTS` in their joints' frames, or None as landmarks.
        skin_shapedirs: (7, 3, 10).
    """

    name: str
    provenance: str
    v_template: np.ndarray
    shapedirs: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joint_template: np.ndarray
    joint_shapedirs: np.ndarray
    posedirs: np.ndarray | None = None
    landmark_joints: np.ndarray | None = None
    landmark_offsets: np.ndarray | None = None
    landmark_shapedirs: np.ndarray | None = None
    landmark_anatomical_offsets: np.ndarray | None = None
    skin_offsets: np.ndarray | None = None
    skin_shapedirs: np.ndarray | None = None


def read_open(resolution: str = "full") -> BodyArrays:
    """The packaged open body; see :meth:`kinflow.Body.open`."""
    if resolution not in RESOLUTIONS:
        raise UsageError(f"resolution: expected one of {', '.join(RESOLUTIONS)}, got {resolution!r}.")
    with open_npz(asset_path(RESOLUTIONS[resolution])) as file:
        return BodyArrays(
            name=file.text("name"),
            provenance=file.text("provenance"),
            v_template=file["v_template"],
            shapedirs=file["shapedirs"],
            faces=file["faces"],
            weights=file["weights"],
            joint_template=file["J_template"],
            joint_shapedirs=file["J_shapedirs"],
            landmark_joints=file["landmark_joints"],
            landmark_offsets=file["landmark_offsets"],
            landmark_shapedirs=file["landmark_shapedirs"],
            landmark_anatomical_offsets=file["landmark_anatomical_offsets"],
            skin_offsets=file["skin_offsets"],
            skin_shapedirs=file["skin_shapedirs"],
        )
