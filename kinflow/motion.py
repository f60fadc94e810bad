"""Motion: the pose, shape and trajectory of one person."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import numpy as np
import torch

from .body import Body
from .errors import ShapeError, UsageError, check_type
from .records import Record, array, scalar
from .rotations import rotvec_to_rotmat

Rows: TypeAlias = slice | Sequence[int] | np.ndarray

GAUSSIAN_REACH = {0.5: (1.538172, 0.674490), 0.9: (2.500278, 1.644854)}
"""How many of its deviations a share of a Gaussian lies within: in space (roots of chi-square's quantiles of three degrees of
freedom), and along one axis."""

_NOT_PLACED = "motion: expected one in the world, got one in camera axes alone. Place it: kinflow.place."
_PIECE = 512
"""Frames whose joints are computed at once."""


@dataclasses.dataclass(frozen=True)
class Motion(Record):
    """One person's moving body, a row for every frame from first to last sighting.

    Rotations and positions are in camera axes (x right, y down, z forward) and metres, but for the fields of the world (y up,
    the ground at 0), which :func:`kinflow.place` fills in. The arrays are read-only:
    ``dataclasses.replace(motion, transl=...)`` makes another motion, ``motion[10:20]`` one of some of the rows.

    >>> motion = Motion.load("out/person00.npz")  # doctest: +SKIP
    >>> motion[motion.observed].vertices().shape  # doctest: +SKIP
    (210, 12272, 3)
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
        "Standard deviation of each joint relative to the pelvis, across the line of sight, per axis, m (the pelvis': its own).",
    )
    z: np.ndarray = array(
        "T 63",
        "float32",
        "Latent of the body pose, standard normal under the flow: `MotionPrior.load().decode(z)` is the pose again.",
    )
    contacts: np.ndarray = array(
        "T 4", "float32", "Probability that left heel, left toe, right heel, right toe stand still."
    )
    keypoints2d: np.ndarray = array("T 33 2", "float32", "Detected BlazePose landmarks the motion was fitted to, px.")
    confidence: np.ndarray = array("T 33", "float32", "Their confidence, 0..1.")
    boxes_xyxy: np.ndarray = array("T 4", "float32", "Box around the person, px; zeros where not observed.")
    K: np.ndarray = array("3 3", "float32", "Camera matrix used, px.")
    image_size: np.ndarray = array("2", "int64", "Width and height of the frames, px.")
    joints3d_depth_std: np.ndarray | None = array(
        "T 24", "float32", "The same along the line of sight; absent where they are alike.", optional=True
    )
    joints3d_reach90: np.ndarray | None = array(
        "24 2",
        "float32",
        "How many deviations the ellipsoid and the interval along the line of sight reach that hold 90 % of the errors; "
        "absent: a Gaussian's 2.50 and 1.64.",
        optional=True,
    )
    global_orient_world: np.ndarray | None = array(
        "T 3", "float32", "Rotation vector of the pelvis, body to world, rad.", optional=True
    )
    transl_world: np.ndarray | None = array(
        "T 3",
        "float32",
        "Translation of the body in the world's axes, m, with feet that stand held still.",
        optional=True,
    )
    body_pose_world: np.ndarray | None = array(
        "T 23 3",
        "float32",
        "body_pose as it is in the world, with legs bent to the feet that stand; absent: the same.",
        optional=True,
    )
    T_world2cam: np.ndarray | None = array(
        "T 4 4", "float32", "Rigid transform of points in the world to camera axes, m.", optional=True
    )
    ground: np.ndarray | None = array(
        "4", "float32", "Plane of the ground in the world: unit normal n and d, n . x + d = 0, m.", optional=True
    )
    ground_std: np.ndarray | None = array(
        "2", "float32", "Standard deviation of the up direction, rad, and of the camera's height, m.", optional=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        world = {
            name: getattr(self, name) is not None for name in ("global_orient_world", "transl_world", "T_world2cam")
        }
        if len(set(world.values())) > 1:
            lacking = ", ".join(name for name, there in world.items() if not there)
            raise ShapeError(f"{lacking}: expected with the other fields of the world, got None. Give all or none.")
        if self.body_pose_world is not None and self.transl_world is None:
            raise ShapeError(
                "body_pose_world: expected none of a motion that is not in the world. Give its other fields too."
            )
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.ndarray):
                view = value.view()  # whoever gave the array may go on writing to it
                view.flags.writeable = False
                object.__setattr__(self, field.name, view)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, rows: Rows) -> Motion:
        """The motion in some of its rows: all arrays of T rows cut alike, everything else as it is.

        Args:
            rows: a slice, indices in increasing order, or a mask (T,) of bools.

        Raises:
            UsageError: other rows; one row alone is ``motion[i : i + 1]``.
            ShapeError: rows that go back in time.
        """
        index = self._index("rows", rows)
        if isinstance(index, int):
            raise UsageError(f"rows: expected a slice, indices or a mask, got {index}. Use [{index}:{index + 1}].")
        return dataclasses.replace(
            self,
            **{
                f.name: value[index]
                for f in dataclasses.fields(self)
                if f.metadata["shape"][:1] == "T" and (value := getattr(self, f.name)) is not None
            },
        )

    def deviations(self) -> np.ndarray:
        """Standard deviations (T, 24, 2) m of the joints, across the line of sight and along it."""
        along = self.joints3d_std if self.joints3d_depth_std is None else self.joints3d_depth_std
        return np.stack((self.joints3d_std, along), -1)

    def reach(self, level: float = 0.9) -> np.ndarray:
        """How many deviations (24, 2) the regions of a level reach: the ellipsoid in space, the interval along the line of sight.

        Args:
            level: 0.5 or 0.9, the levels that are calibrated.
        """
        if level not in GAUSSIAN_REACH:
            raise UsageError(f"level: expected one of {', '.join(map(str, GAUSSIAN_REACH))}, got {level!r}.")
        if level == 0.9 and self.joints3d_reach90 is not None:
            return self.joints3d_reach90
        return np.tile(np.array(GAUSSIAN_REACH[level], np.float32), (self.joints3d.shape[1], 1))

    def regions(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Where a joint is with a probability: about its place, relative to the pelvis (the pelvis' own place: to the camera).

        Args:
            level: 0.5 or 0.9, the levels that are calibrated.

        Returns:
            Half-axes (T, 24, 2) m of an ellipsoid in space, across the line of sight and along it; and half the length (T, 24) m
            of the interval along the line of sight alone, which is shorter at the same probability.
        """
        std, reach = self.deviations(), self.reach(level)
        return std * reach[..., 0, None], std[..., 1] * reach[..., 1]

    def vertices(self, frames: Rows | int | None = None, body: Body | None = None) -> np.ndarray:
        """Vertices (T', V, 3) in camera axes and metres, skinned on demand.

        Args:
            frames: rows to skin: a slice, indices, or a mask (T,) of bools; all by default. Of one index, (V, 3).
            body: the model the parameters belong to; needed for a licensed body, the open body is loaded by default.

        Raises:
            ShapeError: the motion belongs to another body than the one given.
            UsageError: frames that the motion does not have.
        """
        index = self._index("frames", frames)
        body = self._body(body, "full")
        with torch.no_grad():
            return body.vertices(*self._parameters(index, body)).cpu().numpy()

    def keypoints3d(self, joint_set: str, frames: Rows | int | None = None, body: Body | None = None) -> np.ndarray:
        """The points (T', N, 3) of a joint set in camera axes and metres, each where its annotators mark it.

        Args:
            joint_set: ``coco17``, ``body25``, ``openpose18``, ``halpe26``, ``h36m17``, ``smpl24`` or ``blazepose33``: names and
                order are :data:`kinflow.skeleton.LAYOUTS`', places in docs/body.md.
            frames: as for :meth:`vertices`. Of one index, (N, 3).
            body: as for :meth:`vertices`.

        Raises:
            ShapeError: the motion belongs to another body than the one given.
            UsageError: an unknown set, or frames that the motion does not have.
        """
        index = self._index("frames", frames)
        body = self._body(body, "light")  # its points are the full mesh's
        with torch.no_grad():
            return body.keypoints(joint_set, *self._parameters(index, body)).cpu().numpy()

    @property
    def placed(self) -> bool:
        """Whether it is in the world: :func:`kinflow.place` puts it there."""
        return self.transl_world is not None

    def in_world(self, body: Body | None = None) -> Motion:
        """The motion in the pose that it has in the world: ``body_pose`` and ``joints3d`` with legs bent to the feet that stand,
        still in camera axes, from where :meth:`to_world` takes them.

        Args:
            body: as for :meth:`vertices`.

        Raises:
            UsageError: a motion that is not placed. ShapeError: it belongs to another body than the one given.

        >>> standing = motion.in_world()  # doctest: +SKIP
        >>> standing.to_world(standing.joints3d).shape  # doctest: +SKIP
        (210, 24, 3)
        """
        if not self.placed:
            raise UsageError(_NOT_PLACED)
        if self.body_pose_world is None:
            return self
        posed = dataclasses.replace(self, body_pose=self.body_pose_world, body_pose_world=None)
        body = self._body(body, "light")
        joints = np.empty_like(self.joints3d)
        with torch.no_grad():
            for first in range(0, len(self), _PIECE):
                rows = slice(first, first + _PIECE)
                joints[rows] = body.joints(*posed._parameters(rows, body)).cpu().numpy()
        return dataclasses.replace(posed, joints3d=joints)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Points (T, ..., 3) m of the body, or fixed to it, from camera axes to the world's, float32; those of legs that stand
        take :meth:`in_world` first.

        Not by ``T_world2cam``, which knows nothing of what the feet say: along the line of sight people are moved.

        Raises:
            UsageError: a motion that is not placed.
        """
        if self.global_orient_world is None or self.transl_world is None:
            raise UsageError(_NOT_PLACED)
        lead = [1] * (points.ndim - 2)
        pelvis = self.joints3d[:, 0].astype(np.float64)
        roots = (torch.tensor(v, dtype=torch.float64) for v in (self.global_orient_world, self.global_orient))
        ours, cameras = (rotvec_to_rotmat(r).numpy() for r in roots)
        turn = cameras @ ours.swapaxes(1, 2)  # row vectors: camera to body to world
        away = points - pelvis.reshape(-1, *lead, 3)
        flat = away.reshape(len(self), -1, 3) @ turn
        place = self.transl_world + (pelvis - self.transl)
        return (flat.reshape(points.shape) + place.reshape(-1, *lead, 3)).astype(np.float32)

    def pose_rotmat(self, frames: Rows | int | None = None) -> torch.Tensor:
        """Rotations (T', 24, 3, 3) of all joints, the pelvis' to the camera first, as :class:`~kinflow.body.Body` takes
        them; ``frames`` as for :meth:`vertices`."""
        rows = self._index("frames", frames)
        return rotvec_to_rotmat(
            torch.from_numpy(np.concatenate((self.global_orient[rows][..., None, :], self.body_pose[rows]), -2))
        )

    def _index(self, name: str, rows: Rows | int | None) -> slice | int | np.ndarray:
        """What numpy takes the rows by, checked."""
        if rows is None or isinstance(rows, slice):
            return slice(None) if rows is None else rows
        frames = len(self)
        try:
            index = np.asarray(rows)
        except ValueError:  # a ragged list
            index = np.empty(0, object)
        index = index.astype(np.int64) if index.size == 0 and index.dtype == np.float64 else index  # an empty list
        mask = index.dtype == bool and index.shape == (frames,)
        if not mask and (
            index.dtype.kind not in "iu" or index.ndim > 1 or not ((-frames <= index) & (index < frames)).all()
        ):
            raise UsageError(
                f"{name}: expected a slice, indices from 0 to {frames - 1}, or a mask of {frames} bools, got {rows!r}."
            )
        return index if index.ndim else int(index)

    def _parameters(
        self, index: slice | int | np.ndarray, body: Body
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Shape, rotations and translation of some rows on a body's device."""
        parts = (torch.tensor(self.betas), self.pose_rotmat(index), torch.tensor(self.transl[index]))
        return tuple(p.to(body.device, body.dtype) for p in parts)  # type: ignore[return-value]

    def _body(self, body: Body | None, resolution: str) -> Body:
        """The body given, or the open one in some resolution."""
        if body is None:
            if self.body == "open":
                return Body.open(resolution)
            raise ShapeError(
                f"body: this motion belongs to {self.body!r}, got no model. Pass body=Body.from_file(PATH)."
            )
        check_type("body", body, Body)
        if body.name != self.body:
            raise ShapeError(
                f"body: this motion belongs to {self.body!r}, got {body.name!r}. Pass the model it was made with."
            )
        return body
