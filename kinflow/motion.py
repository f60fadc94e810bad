"""Motion: the pose, shape and trajectory of one person."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from .body import Body
from .errors import ShapeError
from .records import Record, array, scalar
from .rotations import rotvec_to_rotmat


@dataclasses.dataclass(frozen=True)
class Motion(Record):
    """One person's moving body, a row for every frame from first to last sighting.

    Rotations and positions are in camera axes (x right, y down, z forward) and metres.
    """

    SCHEMA: ClassVar[str] = "kinflow.motion/1"

    person_id: int = scalar("int", "Number of the person, from 0; the file's number.")
    body: str = scalar("str", "Body model the parameters belong to: open, or the licensed model's name.")
    frame_ids: np.ndarray = array("T", "int64", "Index of each frame in the clip, from 0.")
    timestamps: np.ndarray = array("T", "float64", "Time of each frame in seconds, strictly increasing.")
    observed: np.ndarray = array("T", "bool", "True where the person was seen, false where the motion was filled in.")
    betas: np.ndarray = array("10", "float32", "Shape coefficients, unit variance; the first is height.")
    global_orient: np.ndarray = array("T 3", "float32", "Rotation vector of the pelvis, body to camera, rad.")
    body_pose: np.ndarray = array(
        "T 23 3", "float32", "Rotation vectors of SMPL joints 1..23 relative to their parents, rad."
    )
    transl: np.ndarray = array("T 3", "float32", "Translation of the body in camera axes, m.")
    joints3d: np.ndarray = array("T 24 3", "float32", "The 24 SMPL joints in camera axes, m.")
    joints3d_std: np.ndarray = array(
        "T 24",
        "float32",
        "Standard deviation of each joint relative to the pelvis, per axis, m (the pelvis': its own, along the depth).",
    )
    z: np.ndarray = array("T 63", "float32", "Flow latent of the body pose, standard normal under the prior.")
    z_std: np.ndarray = array("T 63", "float32", "Standard deviation of z.")
    contacts: np.ndarray = array(
        "T 4", "float32", "Probability that left heel, left toe, right heel, right toe stand still."
    )
    keypoints2d: np.ndarray = array("T 33 2", "float32", "Detected BlazePose landmarks the motion was fitted to, px.")
    confidence: np.ndarray = array("T 33", "float32", "Their confidence, 0..1.")
    boxes_xyxy: np.ndarray = array("T 4", "float32", "Box around the person, px; zeros where not observed.")
    K: np.ndarray = array("3 3", "float32", "Camera matrix used, px.")
    image_size: np.ndarray = array("2", "int64", "Width and height of the frames, px.")

    def __len__(self) -> int:
        return len(self.frame_ids)

    def vertices(self, frames: slice | Sequence[int] | None = None, body: Body | None = None) -> np.ndarray:
        """Vertices (T', V, 3) in camera axes and metres, skinned on demand.

        Args:
            frames: rows to skin (a slice or indices); all by default.
            body: the model the parameters belong to; needed for a licensed body, the open body is loaded by default.

        Raises:
            ShapeError: the motion belongs to another body than the one given.
        """
        body = body if body is not None else self._default_body()
        transl = torch.from_numpy(self.transl[slice(None) if frames is None else frames])
        with torch.no_grad():
            parameters = (torch.from_numpy(self.betas)[None], self.pose_rotmat(frames), transl)
            return body.vertices(*(p.to(body.device) for p in parameters)).cpu().numpy()

    def pose_rotmat(self, frames: slice | Sequence[int] | np.ndarray | None = None) -> torch.Tensor:
        """Rotations (T', 24, 3, 3) of all joints, the pelvis' to the camera first, as :class:`~kinflow.body.Body` takes them."""
        rows = slice(None) if frames is None else frames
        return rotvec_to_rotmat(
            torch.from_numpy(np.concatenate((self.global_orient[rows, None], self.body_pose[rows]), 1))
        )

    def _default_body(self) -> Body:
        if self.body != "open":
            raise ShapeError(
                f"body: this motion belongs to {self.body!r}, got no model. Pass body=Body.from_file(PATH)."
            )
        return Body.open()
