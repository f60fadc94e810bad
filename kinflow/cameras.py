"""Projection, intrinsics and rays of a pinhole camera.

OpenCV axes: x right, y down, z forward. Pixels: the image's top-left corner is (0, 0), pixel centres lie at
half-integers.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from .errors import KinflowError, UsageError
from .records import open_npz, reading

VIEWS = (1.0, 179.0)
"""Degrees along the longer side that a pinhole camera can see; what is outside is a mistake of units."""
MIN_DEPTH = 1e-3
"""Points nearer than this, in metres, are projected as if they stood here: finite values and gradients."""


@dataclass(frozen=True)
class Focal:
    """A lens by its focal length in px."""

    px: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.px) and self.px > 0):
            raise UsageError(f"focal: expected a positive number of pixels, got {self.px}.")

    def focal_px(self, image_size: tuple[int, int]) -> float:
        """Focal length in px in an image (width, height)."""
        return self.px


@dataclass(frozen=True)
class FieldOfView:
    """A lens by its field of view along the image's longer side, in degrees."""

    degrees: float

    def __post_init__(self) -> None:
        if not VIEWS[0] <= self.degrees < VIEWS[1]:
            raise UsageError(f"fov: expected degrees from {VIEWS[0]:g} to {VIEWS[1]:g}, got {self.degrees}.")

    def focal_px(self, image_size: tuple[int, int]) -> float:
        """Focal length in px in an image (width, height)."""
        return max(image_size) / 2 / math.tan(math.radians(self.degrees) / 2)


Camera: TypeAlias = "Tensor | np.ndarray | str | os.PathLike[str] | Focal | FieldOfView | None"
"""What is known of a camera: its matrix (3, 3) in px, what :func:`read_intrinsics` reads, its lens, or nothing."""


def intrinsics(
    image_size: tuple[int, int], lens: Focal | FieldOfView | None = None, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Camera matrix (3, 3) in px with its principal point in the image's centre.

    Args:
        image_size: (width, height) in px.
        lens: without one, the focal length is the image's diagonal: a field of view of 53 degrees across the diagonal,
            that of an ordinary camera (Kissos et al., "Beyond weak perspective", 2020).

    Raises:
        UsageError: for an image without pixels.
    """
    width, height = image_size
    if width <= 0 or height <= 0:
        raise UsageError(f"image_size: expected two positive numbers, got {image_size}.")
    f = math.hypot(width, height) if lens is None else lens.focal_px(image_size)
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=dtype)


def camera_matrix(camera: Camera, image_size: tuple[int, int]) -> Tensor:
    """Camera matrix (3, 3) float32 in px of a camera that sees images of ``image_size`` (width, height).

    Raises:
        UsageError: a file without a camera matrix, an array that is none, or a camera that does not fit such images: one
            that sees less than 1 or more than 179 degrees, or looks far past them.
    """
    if camera is None or isinstance(camera, (Focal, FieldOfView)):
        name, K = "focal", intrinsics(image_size, camera)
    elif isinstance(camera, (str, os.PathLike)):
        name, K = f"intrinsics {os.fspath(camera)}", read_intrinsics(os.fspath(camera))
    else:
        with reading(Path("camera"), "K"):
            name, K = "K", torch.as_tensor(np.asarray(camera))
        K = _checked(K, "K")
    longer = max(image_size)
    for focal in (float(K[0, 0]), float(K[1, 1])):
        view = 2 * math.degrees(math.atan2(longer / 2, focal))
        if not VIEWS[0] <= view <= VIEWS[1]:
            raise UsageError(
                f"{name}: expected a focal length in px with which {image_size[0]}x{image_size[1]} px see {VIEWS[0]:g} to "
                f"{VIEWS[1]:g} degrees, got {focal:g} px: {view:.3g} degrees. Give pixels of this clip's frames."
            )
    centre = K[:2, 2] / torch.tensor(image_size)
    if bool((centre < -10).any() or (centre > 11).any()):
        raise UsageError(f"{name}: expected a principal point in or near the image, got {K[:2, 2].tolist()} px.")
    return K


def project(points_cam: Tensor, K: Tensor) -> Tensor:
    """Project points (..., P, 3) in camera metres with ``K`` (..., 3, 3) -> (..., P, 2) px.

    ``K``'s leading dimensions broadcast against those of the points without P.
    """
    depth = points_cam[..., 2:].clamp_min(MIN_DEPTH)
    focal = torch.stack((K[..., 0, 0], K[..., 1, 1]), -1)[..., None, :]
    x, y = points_cam[..., 0:1] / depth, points_cam[..., 1:2] / depth
    skew = K[..., 0, 1][..., None, None] * torch.cat((y, torch.zeros_like(y)), -1)
    return torch.cat((x, y), -1) * focal + skew + K[..., None, :2, 2]


def rays(keypoints2d: Tensor, K: Tensor) -> Tensor:
    """Pixels (..., P, 2) -> (..., P, 2): x/z and y/z in camera axes (the inverse of :func:`project` at depth 1)."""
    focal = torch.stack((K[..., 0, 0], K[..., 1, 1]), -1)[..., None, :]
    xy = (keypoints2d - K[..., None, :2, 2]) / focal
    skew = (K[..., 0, 1] / K[..., 0, 0])[..., None, None] * torch.cat((xy[..., 1:], torch.zeros_like(xy[..., 1:])), -1)
    return xy - skew


def read_intrinsics(source: str) -> Tensor:
    """Camera matrix (3, 3) from ``"fx,fy,cx,cy"`` or a file that holds a 3x3 matrix.

    Files: ``.npy``; ``.npz`` with K; ``.json`` (a matrix, or an object with K, camera_matrix or intrinsics, or with fx,
    fy, cx, cy); any text whose first nine numbers are the matrix by rows. Lens distortion is not modelled.

    Raises:
        UsageError: no such file, or no camera matrix in it.
    """
    path = Path(source)
    try:
        if not path.is_file():
            values = [float(v) for v in source.split(",")]
            if len(values) != 4:
                raise ValueError
            return _checked(_from_four(*values), source)
        if path.suffix == ".npy":
            with reading(path), np.errstate(over="ignore"):  # what is too large for float32 is inf, and refused
                K = np.load(path, allow_pickle=False).astype(np.float32)
            return _checked(torch.from_numpy(K), source)
        if path.suffix == ".npz":
            with open_npz(path) as npz, np.errstate(over="ignore"):
                return _checked(torch.from_numpy(npz.numbers("K", "3 3").astype(np.float32)), source)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = json.loads(text)
            if isinstance(found, dict) and {"fx", "fy", "cx", "cy"} <= found.keys():
                return _checked(_from_four(*(float(found[k]) for k in ("fx", "fy", "cx", "cy"))), source)
            if isinstance(found, dict):
                found = next(found[k] for k in ("K", "camera_matrix", "intrinsics") if k in found)
            return _checked(torch.tensor(found, dtype=torch.float32), source)
        numbers = re.findall(r"(?<![\w.])[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", text)[:9]
        return _checked(torch.tensor([float(n) for n in numbers]).reshape(3, 3), source)
    except KinflowError:
        raise
    except (ValueError, KeyError, StopIteration, TypeError, RuntimeError, OSError, RecursionError) as error:
        raise UsageError(f"intrinsics {source}: expected fx,fy,cx,cy or a file with a 3x3 matrix in px.") from error


def _from_four(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _checked(K: Tensor, source: str) -> Tensor:
    K = K.to(torch.float32)
    if K.shape == (3, 3) and torch.equal(K, torch.eye(3)):
        raise UsageError(f"intrinsics {source}: expected focal lengths in px, got the identity. Leave the camera out.")
    if K.shape != (3, 3) or not torch.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0 or K[2].tolist() != [0, 0, 1]:
        got = K.tolist() if K.numel() <= 16 else f"an array {tuple(K.shape)}"
        raise UsageError(f"intrinsics {source}: not a camera matrix [fx s cx; 0 fy cy; 0 0 1], got {got}.")
    return K
