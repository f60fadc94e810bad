"""Projection, intrinsics and rays of a pinhole camera.

OpenCV axes: x right, y down, z forward. Pixels: the image's top-left corner is (0, 0), pixel centres lie at
half-integers.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import UsageError

MIN_DEPTH = 1e-3
"""Points nearer than this, in metres, are projected as if they stood here: finite values and gradients."""


def intrinsics(
    image_size: tuple[int, int],
    focal: float | None = None,
    fov: float | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Camera matrix (3, 3) in px with its principal point in the image's centre.

    Args:
        image_size: (width, height) in px.
        focal: focal length in px; or
        fov: field of view along the image's longer side, in degrees.
            With neither, the focal length is the image's diagonal: a field of view of 53 degrees across the diagonal,
            that of an ordinary camera (Kissos et al., "Beyond weak perspective", 2020).

    Raises:
        UsageError: when both are given, or a value is out of range.
    """
    width, height = image_size
    if width <= 0 or height <= 0:
        raise UsageError(f"image_size: expected two positive numbers, got {image_size}.")
    if focal is not None and fov is not None:
        raise UsageError("focal, fov: expected one of them, got both. Leave one out.")
    if focal is not None and not (math.isfinite(focal) and focal > 0):
        raise UsageError(f"focal: expected a positive number of pixels, got {focal}.")
    if fov is not None:
        if not 1 <= fov < 179:
            raise UsageError(f"fov: expected degrees from 1 to 179, got {fov}.")
        focal = max(width, height) / 2 / math.tan(math.radians(fov) / 2)
    f = focal if focal is not None else math.hypot(width, height)
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=dtype)


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
            return _checked(torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32)), source)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as npz:
                return _checked(torch.from_numpy(npz["K"].astype(np.float32)), source)
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
    except (ValueError, KeyError, StopIteration, TypeError, RuntimeError, OSError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"intrinsics {source}: expected fx,fy,cx,cy or a file with a 3x3 matrix in px.") from error


def _from_four(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _checked(K: Tensor, source: str) -> Tensor:
    K = K.to(torch.float32)
    if K.shape != (3, 3) or not torch.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0 or K[2].tolist() != [0, 0, 1]:
        raise UsageError(f"intrinsics {source}: not a camera matrix [fx s cx; 0 fy cy; 0 0 1], got {K.tolist()}.")
    return K
