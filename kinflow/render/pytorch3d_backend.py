"""pytorch3d as a second backend of :func:`kinflow.render.rasterise`, where it is installed."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError
from .rasteriser import Fragments


def rasterise_pytorch3d(
    vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int], near: float, cull_backfaces: bool
) -> Fragments:
    """Same arguments and result as :func:`kinflow.render.rasterise`, through ``pytorch3d.renderer``.

    pytorch3d's axes are x left, y up, z forward, and its NDC spans -1..1 over the shorter side of the image.

    Raises:
        UsageError: when pytorch3d is not installed.
    """
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise UsageError(
            "backend: pytorch3d is not installed. Build it from source for this torch, or use backend='torch'."
        ) from error
    width, height = image_size
    cameras = K.to(vertices).expand(vertices.shape[0], 3, 3)
    depth = vertices[..., 2]
    behind = depth < near
    safe = depth.clamp_min(near)
    yn = vertices[..., 1] / safe
    x = cameras[:, 0, 0, None] * vertices[..., 0] / safe + cameras[:, 0, 1, None] * yn + cameras[:, 0, 2, None]
    y = cameras[:, 1, 1, None] * yn + cameras[:, 1, 2, None]
    half = min(width, height) / 2
    ndc = torch.stack(((width / 2 - x) / half, (height / 2 - y) / half, torch.where(behind, -1.0, depth)), -1)
    index, zbuf, barycentric, _ = rasterize_meshes(
        Meshes(list(ndc), [faces] * vertices.shape[0]),
        image_size=(height, width),
        faces_per_pixel=1,
        perspective_correct=True,
        cull_backfaces=cull_backfaces,
        z_clip_value=None,
    )
    index, zbuf, barycentric = index[..., 0], zbuf[..., 0], barycentric[..., 0, :]
    empty = index < 0
    start = torch.arange(vertices.shape[0], device=vertices.device)[:, None, None] * faces.shape[0]
    index = torch.where(empty, index, index - start)
    dropped = ~empty & behind.flatten()[
        faces[index.clamp_min(0)]
        + torch.arange(len(behind), device=faces.device)[:, None, None, None] * behind.shape[1]
    ].any(-1)
    empty = empty | dropped
    return Fragments(
        torch.where(empty, -1, index),
        torch.where(empty[..., None], 0.0, barycentric),
        torch.where(empty, torch.inf, zbuf),
    )
