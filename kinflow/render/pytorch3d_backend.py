"""pytorch3d as a second backend of :func:`kinflow.render.rasterise`, where it is installed."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from ..errors import UsageError
from .fragments import Fragments, to_pixels


def installed() -> bool:
    """Whether pytorch3d is there, without importing it."""
    return importlib.util.find_spec("pytorch3d") is not None


def rasterise_pytorch3d(
    vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int], near: float, cull_backfaces: bool
) -> Fragments:
    """Same arguments and result as :func:`kinflow.render.rasterise`, through ``pytorch3d.renderer``.

    pytorch3d's axes are x left, y up, z forward, and its NDC spans -1..1 over the shorter side of the image.

    Raises:
        UsageError: when pytorch3d is not installed, or lacks CUDA for vertices that are there.
    """
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise UsageError(
            "backend: pytorch3d is not installed. Build it from source for this torch, or use backend 'torch'."
        ) from error
    width, height = image_size
    x, y, _ = to_pixels(vertices, K, near)
    half, depth = min(width, height) / 2, vertices[..., 2]
    ndc = torch.stack(((width / 2 - x) / half, (height / 2 - y) / half, depth), -1)
    whole = (depth >= near)[:, faces].all(-1)  # pytorch3d would draw faces that reach behind the camera
    kept = [w.nonzero()[:, 0] for w in whole]
    meshes = Meshes(list(ndc), [faces[k] for k in kept])
    try:
        index, zbuf, barycentric, _ = rasterize_meshes(
            meshes,
            image_size=(height, width),
            faces_per_pixel=1,
            perspective_correct=True,
            cull_backfaces=cull_backfaces,
        )
    except RuntimeError as error:
        if "GPU support" not in str(error):
            raise
        raise UsageError(
            "backend: pytorch3d was built without CUDA. Build it again with FORCE_CUDA=1, or use backend 'torch'."
        ) from error
    index, zbuf, barycentric = index[..., 0], zbuf[..., 0], barycentric[..., 0, :]
    empty = index < 0
    packed = torch.cat([*kept, kept[0].new_zeros(1)])  # a face's row, by its place in pytorch3d's list of all meshes
    return Fragments(
        torch.where(empty, -1, packed[index]),
        torch.where(empty[..., None], 0.0, barycentric),
        torch.where(empty, torch.inf, zbuf),
    )
