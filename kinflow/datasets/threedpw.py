"""3DPW sequences (von Marcard et al., ECCV 2018): SMPL poses of people filmed outdoors with a moving camera.

The data set is not part of kinflow and has its own licence. Its files are python-2 pickles; they are read with an unpickler
that builds numpy arrays and plain containers and refuses everything else, so that a file cannot run code.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingAssetError, ShapeError, UsageError

FPS = 30.0
SPLITS = ("train", "validation", "test")

_Float = NDArray[np.float64]
_ADMITTED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype")}


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, only numpy arrays are read")
        return super().find_class(module.replace("numpy.core", "numpy._core") if _NEW_NUMPY else module, name)


_NEW_NUMPY = int(np.__version__.split(".")[0]) >= 2


@dataclass(frozen=True)
class Actor:
    """One tracked person of a sequence, N frames at 30 Hz, in the sequence's world (y up, metres).

    Attributes:
        poses: (N, 72) rad, SMPL's 24 rotation vectors, the first the root's in the world.
        trans: (N, 3) m, SMPL's translation (of the template's origin, not of the pelvis).
        betas: (10,) of the gendered SMPL model.
        joints3d: (N, 24, 3) m, SMPL joints in the world.
        keypoints2d: (N, 18, 2) px in OpenPose's COCO order, and confidence (N, 18), 0 where not found.
        confidence: see above.
        gender: ``"male"`` or ``"female"``.
        campose_valid: (N,) bool, the camera is aligned to this person.
    """

    poses: _Float
    trans: _Float
    betas: _Float
    joints3d: _Float
    keypoints2d: _Float
    confidence: _Float
    gender: str
    campose_valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Sequence3DPW:
    """One sequence.

    Attributes:
        name: as its image folder is called.
        actors: the tracked people.
        T_world2cam: (N, 4, 4) camera poses, OpenCV axes.
        K: (3, 3) px.
        frame_ids: (N,) number of each frame in the 60 Hz motion.
        fps: 30.
    """

    name: str
    actors: tuple[Actor, ...]
    T_world2cam: _Float
    K: _Float
    frame_ids: NDArray[np.int64]
    fps: float = FPS

    def __len__(self) -> int:
        return len(self.T_world2cam)


def load_numpy_pickle(path: str | os.PathLike[str]) -> Any:
    """Load a python-2 pickle of arrays, numbers, strings, lists and dicts; nothing else is built.

    Raises:
        MissingAssetError: no such file.
        ShapeError: damaged, or it asks for anything but numpy's arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such file.")
    try:
        with path.open("rb") as file:
            return _NumpyUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ShapeError(f"{path.name}: cannot be read as a pickle of arrays ({error}).") from None


def read_3dpw(path: str | os.PathLike[str]) -> Sequence3DPW:
    """Read one ``sequenceFiles/SPLIT/NAME.pkl``.

    Raises:
        MissingAssetError: no such file.
        ShapeError: damaged, not admitted, or a field is missing or of another shape; the message names it.
    """
    path = Path(path)
    data = load_numpy_pickle(path)
    if not isinstance(data, dict):
        raise ShapeError(f"{path.name}: expected a dict of fields, got {type(data).__name__}.")

    def field(key: str) -> Any:
        if key not in data:
            raise ShapeError(f"{path.name}: the field {key!r} is missing.")
        return data[key]

    def array(key: str, value: Any, shape: tuple[int | None, ...], dtype: Any = np.float64) -> Any:
        try:
            out = np.asarray(value, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise ShapeError(f"{path.name}: {key} cannot be read as numbers ({error}).") from None
        if out.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, out.shape, strict=True)):
            raise ShapeError(f"{path.name}: {key}: expected shape {shape}, got {out.shape}.")
        return out

    cameras = array("cam_poses", field("cam_poses"), (None, 4, 4))
    frames = len(cameras)
    lists = ("poses", "trans", "betas", "jointPositions", "poses2d", "genders", "campose_valid")
    counts = {key: len(field(key)) for key in lists}
    if len(set(counts.values())) != 1 or not counts["poses"]:
        raise ShapeError(f"{path.name}: expected one entry an actor in each list, got {counts}.")
    actors = []
    for i in range(counts["poses"]):
        gender = {"m": "male", "f": "female"}.get(str(field("genders")[i]))
        if gender is None:
            raise ShapeError(f"{path.name}: genders: expected 'm' or 'f', got {field('genders')[i]!r}.")
        betas = array("betas", field("betas")[i], (None,))
        if len(betas) < 10:
            raise ShapeError(f"{path.name}: betas: expected at least 10 values, got {len(betas)}.")
        keypoints = array("poses2d", field("poses2d")[i], (frames, 3, 18))
        actors.append(
            Actor(
                poses=array("poses", field("poses")[i], (frames, 72)),
                trans=array("trans", field("trans")[i], (frames, 3)),
                betas=betas[:10],
                joints3d=array("jointPositions", field("jointPositions")[i], (frames, 72)).reshape(frames, 24, 3),
                keypoints2d=np.moveaxis(keypoints[:, :2], 1, 2).copy(),
                confidence=keypoints[:, 2].copy(),
                gender=gender,
                campose_valid=array("campose_valid", field("campose_valid")[i], (frames,), bool),
            )
        )
    return Sequence3DPW(
        name=str(data.get("sequence", path.stem)),
        actors=tuple(actors),
        T_world2cam=cameras,
        K=array("cam_intrinsics", field("cam_intrinsics"), (3, 3)),
        frame_ids=array("img_frame_ids", field("img_frame_ids"), (frames,), np.int64),
    )


def sequence_files(root: str | os.PathLike[str], split: str = "test") -> list[Path]:
    """The sequence files of a split, by name, under the folder that holds ``sequenceFiles``.

    Raises:
        UsageError: no such split.
        MissingAssetError: no files there.
    """
    if split not in SPLITS:
        raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    files = sorted((Path(root) / "sequenceFiles" / split).glob("*.pkl"))
    if not files:
        raise MissingAssetError(f"{Path(root) / 'sequenceFiles' / split}: no .pkl files; is this 3DPW's folder?")
    return files


def image_path(root: str | os.PathLike[str], sequence: str, frame: int) -> Path:
    """``imageFiles/NAME/image_%05d.jpg`` of a sequence's frame (0-based row of its arrays)."""
    return Path(root) / "imageFiles" / sequence / f"image_{frame:05d}.jpg"
