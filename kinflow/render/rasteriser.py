"""Triangles to pixels: for each pixel the nearest face, where in the face, and how deep.

Scan conversion without a loop over faces. Every face is expanded into the image rows it crosses, every row into the
pixels between its two edges, and a scatter-max over (inverse depth, face) keeps the nearest. An edge shared by two
faces gives both the same float, and spans are half-open, so a closed surface has neither holes nor doubly covered
pixels (the top-left rule).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError, check_shape

NEAR = 0.05
"""Faces with a corner nearer than this (m), or behind the camera, are left out."""

_CHUNK = 1 << 22
"""Rows or pixels expanded at a time: bounds the memory that large or many faces take."""


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


def rasterise(
    vertices: Tensor,
    faces: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    near: float = NEAR,
    cull_backfaces: bool = False,
    backend: str = "torch",
) -> Fragments:
    """Render a batch of meshes of one topology; each mesh has an image of its own.

    Args:
        vertices: (B, V, 3) camera axes, m. Gradients flow from ``barycentric`` and ``depth`` back to them.
        faces: (F, 3) integer rows of ``vertices``.
        K: (3, 3) or (B, 3, 3) intrinsics, px; pixel centres lie at half-integers.
        image_size: (W, H) px.
        near: m; faces that reach nearer are dropped whole.
        cull_backfaces: leave out faces that wind clockwise as seen from the camera.
        backend: "torch", or "pytorch3d" where that is installed.

    Raises:
        ShapeError, UsageError: for arguments that do not fit together, or a backend that is not there.

    >>> triangle = torch.tensor([[[-1.0, -1.0, 2.0], [3.0, -1.0, 2.0], [-1.0, 3.0, 2.0]]])
    >>> K = torch.tensor([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0], [0.0, 0.0, 1.0]])
    >>> rasterise(triangle, torch.tensor([[0, 1, 2]]), K, (4, 4)).depth[0, 0, 0]
    tensor(2.)
    """
    width, height = image_size
    if backend == "pytorch3d":
        from .pytorch3d_backend import rasterise_pytorch3d

        _check(vertices, faces, K, image_size)
        return rasterise_pytorch3d(vertices, faces, K, image_size, near, cull_backfaces)
    if backend != "torch":
        raise UsageError(f"backend: expected 'torch' or 'pytorch3d', got {backend!r}.")
    seen = visible_points(vertices, faces, K, image_size, near=near, cull_backfaces=cull_backfaces)
    where = (seen.batch, seen.row, seen.column)
    shape = (vertices.shape[0], height, width)
    return Fragments(
        seen.face.new_full(shape, -1).index_put(where, seen.face),
        vertices.new_zeros((*shape, 3)).index_put(where, seen.barycentric),
        vertices.new_full(shape, torch.inf).index_put(where, seen.depth),
    )


def visible_points(
    vertices: Tensor,
    faces: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    near: float = NEAR,
    cull_backfaces: bool = False,
) -> VisiblePoints:
    """The covered pixels of :func:`rasterise` as a list: much less memory where a mesh fills a part of the frame."""
    _check(vertices, faces, K, image_size)
    with torch.no_grad():
        batch, row, column, face = _nearest(vertices, faces, K, image_size, near, cull_backfaces)
    barycentric, depth = _intersect(vertices, faces, K, batch, row, column, face)
    return VisiblePoints(batch, row, column, face, barycentric, depth)


def _check(vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int]) -> None:
    dims = check_shape("vertices", vertices, "B V 3", "A single mesh is vertices[None].")
    check_shape("faces", faces, "F 3")
    check_shape("K", K, "3 3" if K.ndim == 2 else f"{dims['B']} 3 3")
    if image_size[0] < 1 or image_size[1] < 1:
        raise UsageError(f"image_size: expected positive (width, height), got {image_size}.")
    if not vertices.is_floating_point():
        raise UsageError(f"vertices: expected floating point metres, got {vertices.dtype}.")


def _expand(counts: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Runs ``start[i], start[i] + 1, ...`` of ``counts[i]`` integers -> (owner of each, the integers)."""
    owner = torch.repeat_interleave(counts)
    first = start - (counts.cumsum(0) - counts)
    return owner, torch.arange(owner.numel(), device=counts.device) + first[owner]


def _chunks(counts: Tensor) -> list[slice]:
    """Consecutive slices of ``counts`` that sum to about ``_CHUNK`` each."""
    total = counts.cumsum(0)
    if counts.numel() == 0 or int(total[-1]) <= _CHUNK:
        return [slice(0, counts.numel())] if counts.numel() else []
    edges = torch.searchsorted(total, torch.arange(_CHUNK, int(total[-1]), _CHUNK, device=counts.device))
    cuts = sorted({0, counts.numel(), *(edges + 1).tolist()})
    return [slice(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def _nearest(
    vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int], near: float, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch, row, column and face of every covered pixel."""
    width, height = image_size
    cameras = K.to(vertices)[None] if K.ndim == 2 else K.to(vertices)
    inverse = vertices[..., 2].clamp_min(near).reciprocal()
    xn, yn = vertices[..., 0] * inverse, vertices[..., 1] * inverse
    x = cameras[:, 0, 0, None] * xn + cameras[:, 0, 1, None] * yn + cameras[:, 0, 2, None]
    y = cameras[:, 1, 1, None] * yn + cameras[:, 1, 2, None]
    front = (vertices[..., 2] >= near) & torch.isfinite(x) & torch.isfinite(y)
    corners = [faces[:, i] for i in range(3)]
    xs = [x[:, c] for c in corners]
    ys = [y[:, c] for c in corners]
    top, bottom = _first(torch.minimum(torch.minimum(ys[0], ys[1]), ys[2]), height), _first(
        torch.maximum(torch.maximum(ys[0], ys[1]), ys[2]), height
    )
    left, right = _first(torch.minimum(torch.minimum(xs[0], xs[1]), xs[2]), width), _first(
        torch.maximum(torch.maximum(xs[0], xs[1]), xs[2]), width
    )
    keep = (bottom > top) & (right > left) & front[:, corners[0]] & front[:, corners[1]] & front[:, corners[2]]
    if cull:  # y points down, so a face that winds counter-clockwise to the viewer has negative area
        keep &= (xs[1] - xs[0]) * (ys[2] - ys[0]) < (xs[2] - xs[0]) * (ys[1] - ys[0])
    batch, face = keep.nonzero(as_tuple=True)
    if face.numel() == 0:
        return batch, batch, batch, face
    top, bottom, left, right = top[keep], bottom[keep], left[keep], right[keep]
    tri = faces[face]
    xyw = torch.stack((x, y, inverse), -1)[batch[:, None], tri]  # (M, 3 corners, 3)
    order = xyw[..., 1].argsort(-1)
    xyw = xyw.gather(1, order[..., None].expand(-1, -1, 3))
    low, middle, high = xyw.unbind(1)
    long = _Edge.between(low, high)
    short = _Edge.between(low, middle), _Edge.between(middle, high)

    x0, y0 = int(left.min()), int(top.min())
    w, h = int(right.max()) - x0, int(bottom.max()) - y0
    buffer = torch.zeros(vertices.shape[0] * h * w, dtype=torch.int64, device=vertices.device)
    for part in _chunks(bottom - top):
        owner, row = _expand((bottom - top)[part], top[part])
        owner += part.start
        centre = row.to(x) + 0.5
        xa, wa = long.at(owner, centre)
        below = centre >= middle[owner, 1]
        xb0, wb0 = short[0].at(owner, centre)
        xb1, wb1 = short[1].at(owner, centre)
        xb, wb = torch.where(below, xb1, xb0), torch.where(below, wb1, wb0)
        swap = xb < xa
        xl, xr = torch.where(swap, xb, xa), torch.where(swap, xa, xb)
        wl, wr = torch.where(swap, wb, wa), torch.where(swap, wa, wb)
        begin = _first(xl, width)
        count = _first(xr, width) - begin
        slope = (wr - wl) / (xr - xl).clamp_min(1e-12)
        base = batch[owner] * h + (row - y0)
        for piece in _chunks(count):
            span, column = _expand(count[piece], begin[piece])
            span += piece.start
            depth = wl[span] + slope[span] * (column.to(x) + 0.5 - xl[span])
            key = (depth.float().view(torch.int32).to(torch.int64) << 32) | owner[span]
            buffer.scatter_reduce_(0, base[span] * w + (column - x0), key, "amax")
    pixel = buffer.nonzero()[:, 0]
    owner = buffer[pixel] & 0xFFFFFFFF
    line = pixel // w
    return batch[owner], line % h + y0, pixel - line * w + x0, face[owner]


def _first(value: Tensor, limit: int) -> Tensor:
    """Index of the first pixel whose centre is not left of (above) ``value``, within 0..limit."""
    return (value - 0.5).ceil().clamp(0, limit).to(torch.int64)


class _Edge(NamedTuple):
    """Edges by their upper end: x and inverse depth as linear functions of y."""

    x: Tensor
    y: Tensor
    w: Tensor
    dx: Tensor
    dw: Tensor

    @classmethod
    def between(cls, upper: Tensor, lower: Tensor) -> _Edge:
        run = (lower[:, 1] - upper[:, 1]).clamp_min(1e-12)
        return cls(
            upper[:, 0], upper[:, 1], upper[:, 2], (lower[:, 0] - upper[:, 0]) / run, (lower[:, 2] - upper[:, 2]) / run
        )

    def at(self, owner: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and inverse depth where edges ``owner`` cross the lines ``y``."""
        step = y - self.y[owner]
        return self.x[owner] + step * self.dx[owner], self.w[owner] + step * self.dw[owner]


def _intersect(
    vertices: Tensor, faces: Tensor, K: Tensor, batch: Tensor, row: Tensor, column: Tensor, face: Tensor
) -> tuple[Tensor, Tensor]:
    """Barycentric weights (N, 3) and depth (N,) where the pixels' rays meet their faces (Moeller, Trumbore 1997)."""
    cameras = K.to(vertices)[None] if K.ndim == 2 else K.to(vertices)[batch]
    dy = (row.to(vertices) + 0.5 - cameras[:, 1, 2]) / cameras[:, 1, 1]
    dx = (column.to(vertices) + 0.5 - cameras[:, 0, 2] - cameras[:, 0, 1] * dy) / cameras[:, 0, 0]
    ray = torch.stack((dx, dy, torch.ones_like(dx)), -1)
    corners = vertices.reshape(-1, 3)[faces[face] + (batch * vertices.shape[1])[:, None]]
    origin = corners[:, 0]
    e1, e2 = corners[:, 1] - origin, corners[:, 2] - origin
    across = torch.linalg.cross(ray, e2)
    det = (e1 * across).sum(-1)
    det = torch.where(det.abs() < 1e-20, torch.full_like(det, 1e-20), det)
    u = -(origin * across).sum(-1) / det
    v = -(ray * torch.linalg.cross(origin, e1)).sum(-1) / det
    weights = torch.stack((1 - u - v, u, v), -1).clamp(0, 1)
    weights = weights / weights.sum(-1, keepdim=True)
    return weights, (weights * corners[..., 2]).sum(-1)
