"""What is seen through each pixel, and what both rasterisers need to find it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError, check_shape

NEAR = 0.05
"""Faces with a corner nearer than this (m), or behind the camera, are left out."""


class Fragments(NamedTuple):
    """What is seen through each pixel's centre.

    Attributes:
        face_index: (B, H, W) int64, row of ``faces``; -1 where there is nothing.
        barycentric: (B, H, W, 3) perspective-correct weights of the face's corners, 0 where there is nothing.
        depth: (B, H, W) z in camera metres; inf where there is nothing.
    """

    face_index: Tensor
    barycentric: Tensor
    depth: Tensor

    def points(self) -> VisiblePoints:
        """The covered pixels alone."""
        batch, row, column = where = (self.face_index >= 0).nonzero(as_tuple=True)
        return VisiblePoints(batch, row, column, self.face_index[where], self.barycentric[where], self.depth[where])


class VisiblePoints(NamedTuple):
    """The same as :class:`Fragments`, as a list of the N covered pixels only.

    Attributes:
        batch, row, column, face: (N,) int64.
        barycentric: (N, 3); depth: (N,) m.
    """

    batch: Tensor
    row: Tensor
    column: Tensor
    face: Tensor
    barycentric: Tensor
    depth: Tensor

    def fragments(self, batch: int, image_size: tuple[int, int]) -> Fragments:
        """The whole images (W, H) of ``batch`` meshes."""
        where, shape = (self.batch, self.row, self.column), (batch, image_size[1], image_size[0])
        return Fragments(
            self.face.new_full(shape, -1).index_put(where, self.face),
            self.barycentric.new_zeros((*shape, 3)).index_put(where, self.barycentric),
            self.depth.new_full(shape, torch.inf).index_put(where, self.depth),
        )


def check_meshes(vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int]) -> None:
    """Raise ShapeError or UsageError unless these can be rendered: see :func:`kinflow.render.rasterise`."""
    dims = check_shape("vertices", vertices, "B V 3", "A single mesh is vertices[None].")
    check_shape("faces", faces, "F 3")
    check_shape("K", K, "3 3" if K.ndim == 2 else f"{dims['B']} 3 3")
    if image_size[0] < 1 or image_size[1] < 1:
        raise UsageError(f"image_size: expected positive (width, height), got {image_size}.")
    if not vertices.is_floating_point():
        raise UsageError(f"vertices: expected floating point metres, got {vertices.dtype}.")


def to_pixels(vertices: Tensor, K: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices (B, V, 3) in camera axes -> x, y (B, V) px, and inverse depth (B, V), as at ``near`` where nearer."""
    cameras = K.to(vertices)[None] if K.ndim == 2 else K.to(vertices)
    inverse = vertices[..., 2].clamp_min(near).reciprocal()
    xn, yn = vertices[..., 0] * inverse, vertices[..., 1] * inverse
    x = cameras[:, 0, 0, None] * xn + cameras[:, 0, 1, None] * yn + cameras[:, 0, 2, None]
    return x, cameras[:, 1, 1, None] * yn + cameras[:, 1, 2, None], inverse
