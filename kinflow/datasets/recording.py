"""What every data set is read as: recordings of one person, lazily, in shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError, UsageError, check_shape

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class SmplTruth:
    """SMPL parameters over T frames, in the recording's world.

    Attributes:
        global_orient: (T, 3) rad, pelvis to world.
        body_pose: (T, 23, 3) rad.
        betas: (10,) of the model of this gender.
        transl: (T, 3) m, SMPL's translation (the template's origin, not the pelvis); None where the data set has none.
        gender: ``"neutral"``, ``"male"`` or ``"female"``.
    """

    global_orient: Array
    body_pose: Array
    betas: Array
    transl: Array | None
    gender: str = "neutral"

    def __post_init__(self) -> None:
        frames = check_shape("global_orient", self.global_orient, "T 3")["T"]
        check_shape("body_pose", self.body_pose, f"{frames} 23 3")
        check_shape("betas", self.betas, "10")
        if self.transl is not None:
            check_shape("transl", self.transl, f"{frames} 3")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One person in one stretch of frames, or in one image (T = 1), with what the data set knows of them.

    What it does not know is None (or empty). Axes: the camera's are OpenCV's; the world's are the data set's own, and the
    camera's where there is no ``T_world2cam``.

    Attributes:
        dataset, sequence, person: where it comes from; the person's number in the sequence.
        timestamps: (T,) s, increasing.
        frame_ids: (T,) number of each frame among the sequence's images, from 0.
        valid: (T,) bool, whether the truth belongs to the image.
        images: T files, or none.
        image_size: (width, height) px.
        K: (3, 3) px. T_world2cam: (T, 4, 4).
        keypoints2d, confidence, layout: (T, P, 2) px, (T, P) 0 where not found, and the P points' names.
        smpl: parameters in the world.
        joints3d, joint_names: (T, J, 3) m in the world, NaN where not known, and the J joints' names.
        mask: of a frame's number among the T: (H, W) bool, the person's pixels; computed when called.
    """

    dataset: str
    sequence: str
    person: int
    timestamps: Array
    frame_ids: Array
    valid: NDArray[np.bool_]
    images: tuple[Path, ...] = ()
    image_size: tuple[int, int] | None = None
    K: Array | None = None
    T_world2cam: Array | None = None
    keypoints2d: Array | None = None
    confidence: Array | None = None
    layout: tuple[str, ...] = ()
    smpl: SmplTruth | None = None
    joints3d: Array | None = None
    joint_names: tuple[str, ...] = ()
    mask: Callable[[int], NDArray[np.bool_]] | None = None

    def __post_init__(self) -> None:
        frames = len(self.timestamps)
        for name, value, shape in (
            ("timestamps", self.timestamps, "T"), ("frame_ids", self.frame_ids, f"{frames}"),
            ("valid", self.valid, f"{frames}"), ("K", self.K, "3 3"), ("T_world2cam", self.T_world2cam, f"{frames} 4 4"),
            ("keypoints2d", self.keypoints2d, f"{frames} {len(self.layout)} 2"),
            ("confidence", self.confidence, f"{frames} {len(self.layout)}"),
            ("joints3d", self.joints3d, f"{frames} {len(self.joint_names)} 3"),
        ):  # fmt: skip
            if value is not None:
                check_shape(f"{self.name}: {name}", value, shape)
        if self.images and len(self.images) != frames:
            raise ShapeError(f"{self.name}: images: expected {frames}, one a frame, got {len(self.images)}.")
        if self.smpl is not None and len(self.smpl.body_pose) != frames:
            raise ShapeError(f"{self.name}: smpl: expected {frames} frames, got {len(self.smpl.body_pose)}.")
        if not (np.diff(self.timestamps) > 0).all():
            raise ShapeError(f"{self.name}: timestamps: expected increasing seconds.")

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def name(self) -> str:
        """``SEQUENCE_PERSON``, by which other tools call it too."""
        return f"{self.sequence}_{self.person}"


class DataSet(Protocol):
    """A data set: sequences by name, each read when it is asked for.

    A sequence is what is read together, with all people in it: a file, or an image. One that cannot
    be read raises a :class:`kinflow.errors.KinflowError` that names file and fault; the others are not touched by it.

    Attributes:
        name: the data set's.
        sequences: names of what is there, in a fixed order.
        missing: names of what belongs to it and is not there, where that is known.
    """

    name: str
    sequences: tuple[str, ...]
    missing: tuple[str, ...]

    def read(self, sequence: str) -> list[Recording]:
        """The people of one sequence."""


def shard(data: DataSet, index: int, count: int) -> tuple[str, ...]:
    """Every ``count``-th sequence from number ``index`` on: disjoint parts that make up the whole, one a process.

    Raises:
        UsageError: an index outside 0 to count - 1.
    """
    if not 0 <= index < count:
        raise UsageError(f"shard: expected an index from 0 to {count - 1}, got {index}.")
    return data.sequences[index::count]
