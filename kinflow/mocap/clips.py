"""Motion clips in SMPL's terms, and the prepared file that holds many of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, MissingAssetError, UsageError, check_shape
from ..records import atomic_write, open_npz
from ..skeleton import NUM_BODY
from ..timing import valid_runs

SCHEMA = "kinflow.mocap/1"
SPLITS = ("train", "validation", "test")

Float = NDArray[np.float32]


@dataclass(frozen=True)
class MotionClip:
    """One motion of one person, for a body whose zero pose is SMPL's T-pose.

    Attributes:
        name: path of the source inside its collection, without the suffix; unique.
        subject: who moved; two clips of one subject are never in two splits.
        description: what the collection says about it.
        fps: frames a second.
        global_orient: (T, 3) rad, rotation vector of the pelvis in a world with y up.
        body_pose: (T, 23, 3) rad, rotation vectors relative to the parent joint; hands (22, 23) are zero.
        transl: (T, 3) m, position of the pelvis joint.
        valid: (T,) bool, false where the source is broken (a flip of the solver, a joint beyond its limits).
        split: ``"train"``, ``"validation"`` or ``"test"``.
        rig: kind of source skeleton.
        leg_length: m, hip to ankle of the source; 0 where unknown.
    """

    name: str
    subject: str
    description: str
    fps: float
    global_orient: Float
    body_pose: Float
    transl: Float
    valid: NDArray[np.bool_]
    split: str
    rig: str = ""
    leg_length: float = 0.0

    def __post_init__(self) -> None:
        frames = check_shape("global_orient", self.global_orient, "T 3")["T"]
        check_shape("body_pose", self.body_pose, f"{frames} 23 3")
        check_shape("transl", self.transl, f"{frames} 3")
        check_shape("valid", self.valid, f"{frames}")
        if self.split not in SPLITS:
            raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}.")
        if not self.fps > 0:
            raise UsageError(f"fps: expected a positive rate, got {self.fps}.")

    def __len__(self) -> int:
        return len(self.global_orient)

    @property
    def seconds(self) -> float:
        """Length in seconds, frames times the frame's duration."""
        return len(self) / self.fps

    def frames(self, start: int, stop: int | None = None) -> MotionClip:
        """The frames from ``start`` to before ``stop``, as a clip of the same name."""
        part = slice(start, stop)
        return replace(
            self,
            global_orient=self.global_orient[part],
            body_pose=self.body_pose[part],
            transl=self.transl[part],
            valid=self.valid[part],
        )

    def valid_runs(self, min_frames: int = 1) -> list[tuple[int, int]]:
        """Stretches of valid frames as (start, stop), at least ``min_frames`` long."""
        return [(int(a), int(b)) for a, b in valid_runs(self.valid) if b - a >= min_frames]


def save_clips(path: str | os.PathLike[str], clips: Sequence[MotionClip]) -> None:
    """Write clips to one npz file (schema ``kinflow.mocap/1``, no pickle), under a temporary name first.

    Arrays: ``names subjects descriptions splits rigs`` (N,) text, ``fps leg_length`` (N,) float64, ``offsets`` (N+1,) int64 (clip
    i is frames ``offsets[i]`` to ``offsets[i+1]``), ``global_orient`` (F, 3), ``body_pose`` (F, 21, 3), ``transl`` (F, 3) float32,
    ``valid`` (F,) bool.

    Raises:
        UsageError: no clips, or two of one name.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    names = [c.name for c in clips]
    if not clips or len(set(names)) != len(names):
        raise UsageError(f"clips: expected at least one clip and unique names, got {len(clips)}.")
    arrays = {
        "schema": np.array(SCHEMA),
        "names": np.array(names),
        "subjects": np.array([c.subject for c in clips]),
        "descriptions": np.array([c.description for c in clips]),
        "splits": np.array([c.split for c in clips]),
        "rigs": np.array([c.rig for c in clips]),
        "fps": np.array([c.fps for c in clips]),
        "leg_length": np.array([c.leg_length for c in clips]),
        "offsets": np.cumsum([0] + [len(c) for c in clips]).astype(np.int64),
        "global_orient": np.concatenate([c.global_orient for c in clips]).astype(np.float32),
        "body_pose": np.concatenate([c.body_pose[:, :NUM_BODY] for c in clips]).astype(np.float32),
        "transl": np.concatenate([c.transl for c in clips]).astype(np.float32),
        "valid": np.concatenate([c.valid for c in clips]),
    }
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_clips(path: str | os.PathLike[str], split: str | None = None) -> list[MotionClip]:
    """Read a prepared file.

    Args:
        path: as :func:`save_clips` (``tools/prepare_mocap.py``) wrote it.
        split: only the clips of ``"train"``, ``"validation"`` or ``"test"``; default all.

    Raises:
        MissingAssetError: there is no such file.
        FormatError: not a prepared file, of another schema, or damaged.
        UsageError: no such split.
    """
    path = Path(path)
    if split is not None and split not in SPLITS:
        raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    if not path.is_file():
        raise MissingAssetError(
            f"{path}: no such file; write it with tools/prepare_mocap.py --raw DIR_OR_TAR --out {path}."
        )
    with open_npz(path) as npz:
        npz.schema(SCHEMA)
        names, subjects, descriptions, splits, rigs = (
            npz.texts(key) for key in ("names", "subjects", "descriptions", "splits", "rigs")
        )
        count = str(len(names))
        fps, leg_length = npz.numbers("fps", count), npz.numbers("leg_length", count)
        starts = npz.numbers("offsets", str(len(names) + 1))
        body_pose = npz.numbers("body_pose", f"N {NUM_BODY} 3")
        rows = len(body_pose)
        orient, transl = npz.numbers("global_orient", f"{rows} 3"), npz.numbers("transl", f"{rows} 3")
        valid = npz.numbers("valid", str(rows)).astype(bool)
    uneven = {len(names)} != {len(v) for v in (subjects, descriptions, splits, rigs)}
    if uneven or starts[0] != 0 or starts[-1] != rows or (np.diff(starts) <= 0).any() or starts.dtype.kind not in "iu":
        raise FormatError(f"{path.name}: its clips and rows contradict each other. Prepare the file again.")
    if not all(np.isfinite(v).all() for v in (fps, leg_length, body_pose, orient, transl)) or (fps <= 0).any():
        raise FormatError(f"{path.name}: expected finite numbers and frame rates above 0. Prepare the file again.")
    pose = np.zeros((rows, 23, 3), np.float32)
    pose[:, :NUM_BODY] = body_pose
    clips = []
    for i, name in enumerate(names):
        if split is not None and splits[i] != split:
            continue
        part = slice(starts[i], starts[i + 1])
        clips.append(
            MotionClip(
                name=name,
                subject=subjects[i],
                description=descriptions[i],
                fps=float(fps[i]),
                global_orient=orient[part],
                body_pose=pose[part],
                transl=transl[part],
                valid=valid[part],
                split=splits[i],
                rig=rigs[i],
                leg_length=float(leg_length[i]),
            )
        )
    return clips
