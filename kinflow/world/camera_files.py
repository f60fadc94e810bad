"""Camera paths, and the files of other tools that hold them: COLMAP text, TUM, 3DPW's layout."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, MissingAssetError, UsageError, check_path

Array = NDArray[Any]

_UNIT = 1e-2
"""How far a quaternion's length may be from 1, a matrix from a rotation: files round."""


@dataclasses.dataclass(frozen=True)
class CameraPath:
    """Where a camera was in each frame of a clip, in axes that do not move: the first camera's, or a file's.

    Attributes:
        T_ref2cam: (N, 4, 4).
        source: ``static``, ``moving``, ``colmap``, ``tum`` or ``3dpw``.
        metric: whether its places are in metres; False: in units of which nothing is known.
        up: (3,) in the reference's axes, where the file tells it.
        notes: what a user should know of it.
        corners: unit rays (n, P, 3) in camera axes to points of the background, in windows of n frames, each of which begins with
            the last frame of the one before; none where the frames were not looked at.
    """

    T_ref2cam: Array
    source: str
    metric: bool = True
    up: Array | None = None
    notes: tuple[str, ...] = ()
    corners: tuple[Array, ...] = ()

    @classmethod
    def static(cls, frames: int, notes: tuple[str, ...] = ()) -> CameraPath:
        """A camera that stands still."""
        return cls(np.tile(np.eye(4), (frames, 1, 1)), "static", notes=notes)


def read_camera_path(path: str | os.PathLike[str], frames: int) -> CameraPath:
    """Read the poses of a clip's camera, one a frame.

    Args:
        path: COLMAP's ``images.txt`` (or the folder it is in); TUM's lines ``timestamp tx ty tz qx qy qz qw`` of camera to
            world; or 3DPW's layout: a ``.pkl`` of its own or an ``.npz``, with ``cam_poses (N, 4, 4)`` of world to camera, y
            up, metres. COLMAP's and TUM's axes and units can be any: people tell gravity and scale.
        frames: how many poses there must be. Images of COLMAP are put in the order of their names.

    Raises:
        MissingAssetError: no such file.
        FormatError: none of these layouts, poses that are no rigid ones (scaled, left-handed), or of another number of frames.
    """
    path = check_path("camera", path)
    if path.is_dir() and (path / "images.txt").is_file():
        path = path / "images.txt"
    if not path.is_file():
        raise MissingAssetError(f"camera {path}: no such file. Give auto, static, moving, or a file of camera poses.")
    if path.suffix == ".pkl":
        from ..datasets.threedpw import read_3dpw

        poses, source = read_3dpw(path).T_world2cam, "3dpw"
    elif path.suffix == ".npz":
        from ..records import open_npz

        with open_npz(path) as npz:
            poses, source = npz.numbers("cam_poses", "N 4 4").astype(np.float64), "3dpw"
    else:
        poses, source = _read_text(path)
    if len(poses) != frames:
        raise FormatError(
            f"camera {path.name}: expected a pose for each of the clip's {frames} frames, got {len(poses)}. Cut the file like "
            "the clip, or the clip like the file (--start, --end)."
        )
    _check_rigid(path, poses)
    up = np.array([0.0, 1.0, 0.0]) if source == "3dpw" else None
    return CameraPath(poses, source, metric=source == "3dpw", up=up)


def _read_text(path: Path) -> tuple[Array, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise FormatError(f"camera {path.name}: expected text, an .npz or a .pkl, got what cannot be read.") from error
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and all(len(line) == 8 for line in lines):
        values = _numbers(path, lines)
        if not (np.diff(values[:, 0]) > 0).all():
            raise FormatError(f"camera {path.name}: TUM: expected increasing timestamps. Sort the lines.")
        return np.linalg.inv(_poses(path, values[:, [7, 4, 5, 6]], values[:, 1:4])), "tum"
    # COLMAP: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and a line of 2D points (it may be empty) after each.
    images = [line for line in lines if len(line) == 10 and _is_name(line[9])]
    if not images:
        raise FormatError(
            f"camera {path.name}: expected COLMAP's images.txt, TUM's lines of 8 numbers, or 3DPW's layout (.pkl, .npz with "
            f"cam_poses), got {len(lines)} lines of neither."
        )
    images.sort(key=lambda line: line[9])
    values = _numbers(path, [line[:9] for line in images])
    return _poses(path, values[:, 1:5], values[:, 5:8]), "colmap"


def _is_name(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return True
    return False


def _numbers(path: Path, rows: list[list[str]]) -> Array:
    try:
        values = np.array(rows, np.float64)
    except ValueError as error:
        raise FormatError(f"camera {path.name}: expected numbers ({error}). Write it again.") from None
    if not np.isfinite(values).all():
        raise FormatError(f"camera {path.name}: expected finite numbers, got NaN or inf. Leave such frames out.")
    return values


def _poses(path: Path, quat_wxyz: Array, places: Array) -> Array:
    """Matrices (N, 4, 4) of unit quaternions and translations."""
    import torch

    from ..rotations import quat_wxyz_to_rotmat

    length = np.linalg.norm(quat_wxyz, axis=1)
    if (np.abs(length - 1) > _UNIT).any():
        raise FormatError(
            f"camera {path.name}: expected unit quaternions, got one of length {length[np.abs(length - 1).argmax()]:.3g}. "
            "Check the order of the columns."
        )
    out = np.tile(np.eye(4), (len(places), 1, 1))
    out[:, :3, :3] = quat_wxyz_to_rotmat(torch.from_numpy(quat_wxyz / length[:, None])).numpy()
    out[:, :3, 3] = places
    return out


def _check_rigid(path: Path, poses: Array) -> None:
    turn = poses[:, :3, :3]
    size = np.abs(np.linalg.det(turn)) ** (1 / 3)
    if (np.linalg.det(turn) < 0).any():
        raise FormatError(
            f"camera {path.name}: expected rotations, got left-handed axes (a determinant of -1). Flip one axis of both the "
            "world's and the camera's: x right, y down, z forward (OpenCV)."
        )
    if (np.abs(size - 1) > _UNIT).any():
        raise FormatError(
            f"camera {path.name}: expected rigid poses, got axes scaled by {size[np.abs(size - 1).argmax()]:.4g}. Divide the "
            "scale out of the rotations."
        )
    skew = np.abs(turn @ turn.swapaxes(1, 2) - np.eye(3)).max()
    last = np.abs(poses[:, 3] - np.array([0.0, 0, 0, 1])).max()
    if skew > 2 * _UNIT or last > 1e-6:
        raise FormatError(f"camera {path.name}: expected rigid poses [R t; 0 1], got others. Check rows and columns.")


def check_camera_motion(camera: str | os.PathLike[str]) -> None:
    """Raises UsageError: neither auto, static, moving, nor a file that is there."""
    if str(camera) not in ("auto", "static", "moving") and not Path(camera).exists():
        raise UsageError(f"camera: expected auto, static, moving or a file of camera poses, got {os.fspath(camera)!r}.")
