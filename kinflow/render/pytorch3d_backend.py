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
    safe = depth.clamp_min(near)
    yn = vertices[..., 1] / safe
    x = cameras[:, 0, 0, None] * vertices[..., 0] / safe + cameras[:, 0, 1, None] * yn + cameras[:, 0, 2, None]
    y = cameras[:, 1, 1, None] * yn + cameras[:, 1, 2, None]
    half = min(width, height) / 2
    ndc = torch.stack(((width / 2 - x) / half, (height / 2 - y) / half, depth), -1)
    whole = (depth >= near)[:, faces].all(-1)  # pytorch3d would draw faces that reach behind the camera
    kept = [w.nonzero()[:, 0] for w in whole]
    index, zbuf, barycentric, _ = rasterize_meshes(
        Meshes(list(ndc), [faces[k] for k in kept]),
        image_size=(height, width),
        faces_per_pixel=1,
        perspective_correct=True,
        cull_backfaces=cull_backfaces,
    )
    index, zbuf, barycentric = index[..., 0], zbuf[..., 0], barycentric[..., 0, :]
    empty = index < 0
    packed = torch.cat([*kept, kept[0].new_zeros(1)])  # a face's row, by its place in pytorch3d's list of all meshes
    return Fragments(
        torch.where(empty, -1, packed[index]),
        torch.where(empty[..., None], 0.0, barycentric),
        torch.where(empty, torch.inf, zbuf),
    )
