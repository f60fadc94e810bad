"""Triangles to pixels: for each pixel the nearest face, where in the face, and how deep.

Scan conversion without a loop over faces. Every face is expanded into the image rows it crosses, every row into the
pixels between its two edges, and a scatter-max over (inverse depth, face) keeps the nearest. An edge shared by two
faces gives both the same float, and spans are half-open, so a closed surface has neither holes nor doubly covered
pixels (the top-left rule).
"""

from __future__ import annotations

import itertools
import typing
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import RenderBackend
from ..errors import UsageError
from .fragments import NEAR, Fragments, VisiblePoints, check_meshes, to_pixels
from .pytorch3d_backend import installed, rasterise_pytorch3d

_CHUNK = 1 << 22
"""Rows or pixels expanded at a time: bounds the memory that large or many faces take."""


def rasterise(
    vertices: Tensor,
    faces: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    near: float = NEAR,
    cull_backfaces: bool = False,
    backend: RenderBackend = "torch",
) -> Fragments:
    """Render a batch of meshes of one topology; each mesh has an image of its own.

    Args:
        vertices: (B, V, 3) camera axes, m. Gradients flow from ``barycentric`` and ``depth`` back to them.
        faces: (F, 3) integer rows of ``vertices``.
        K: (3, 3) or (B, 3, 3) intrinsics, px; pixel centres lie at half-integers.
        image_size: (W, H) px.
        near: m; faces that reach nearer are dropped whole.
        cull_backfaces: leave out faces that wind clockwise as seen from the camera.
        backend: "torch", the reference; "pytorch3d"; or "auto": pytorch3d on CUDA where it is installed, else torch.

    Raises:
        ShapeError, UsageError: for arguments that do not fit together, or a backend that is not there.

    >>> triangle = torch.tensor([[[-1.0, -1.0, 2.0], [3.0, -1.0, 2.0], [-1.0, 3.0, 2.0]]])
    >>> K = torch.tensor([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0], [0.0, 0.0, 1.0]])
    >>> rasterise(triangle, torch.tensor([[0, 1, 2]]), K, (4, 4)).depth[0, 0, 0]
    tensor(2.)
    """
    seen = visible_points(vertices, faces, K, image_size, near=near, cull_backfaces=cull_backfaces, backend=backend)
    return seen.fragments(len(vertices), image_size)


def visible_points(
    vertices: Tensor,
    faces: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    near: float = NEAR,
    cull_backfaces: bool = False,
    backend: RenderBackend = "torch",
) -> VisiblePoints:
    """The covered pixels of :func:`rasterise` as a list: much less memory where a mesh fills a part of the frame."""
    check_meshes(vertices, faces, K, image_size)
    if chosen_backend(backend, vertices.device) == "pytorch3d":
        return rasterise_pytorch3d(vertices, faces, K, image_size, near, cull_backfaces).points()
    with torch.no_grad():
        batch, face, owner, row, column = _nearest(vertices, faces, K, image_size, near, cull_backfaces)
    barycentric, depth = _intersect(vertices, faces, K, batch, face, owner, row, column)
    return VisiblePoints(batch[owner], row, column, face[owner], barycentric, depth)


def chosen_backend(backend: RenderBackend, device: torch.device) -> RenderBackend:
    """Which "auto" is for meshes on ``device``: "torch" or "pytorch3d". Raises UsageError for any other word."""
    if backend not in typing.get_args(RenderBackend):
        raise UsageError(f"backend: expected one of {', '.join(typing.get_args(RenderBackend))}, got {backend!r}.")
    if backend == "auto":  # pytorch3d's rasteriser takes seconds a frame on CPUs
        return "pytorch3d" if device.type == "cuda" and installed() else "torch"
    return backend


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Runs ``0 .. counts[i] - 1`` one after another -> (the run's i, the integer in it) of each."""
    owner = torch.repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    return owner, torch.arange(owner.numel(), device=counts.device) - first.index_select(0, owner)


def _chunks(counts: Tensor) -> list[slice]:
    """Consecutive slices of ``counts`` that sum to about ``_CHUNK`` each."""
    total = counts.cumsum(0)
    if counts.numel() == 0 or int(total[-1]) <= _CHUNK:
        return [slice(0, counts.numel())] if counts.numel() else []
    edges = torch.searchsorted(total, torch.arange(_CHUNK, int(total[-1]), _CHUNK, device=counts.device))
    cuts = sorted({0, counts.numel(), *(edges + 1).tolist()})
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def _nearest(
    vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int], near: float, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mesh and face of the M faces that may be seen; index into these, row and column of the N covered pixels."""
    width, height = image_size
    x, y, inverse = to_pixels(vertices, K, near)
    front = (vertices[..., 2] >= near) & torch.isfinite(x) & torch.isfinite(y)
    corners = [faces[:, i].contiguous() for i in range(3)]
    xs = [x.index_select(1, c) for c in corners]
    ys = [y.index_select(1, c) for c in corners]
    top = _first(torch.minimum(torch.minimum(ys[0], ys[1]), ys[2]), height)
    bottom = _first(torch.maximum(torch.maximum(ys[0], ys[1]), ys[2]), height)
    left = _first(torch.minimum(torch.minimum(xs[0], xs[1]), xs[2]), width)
    right = _first(torch.maximum(torch.maximum(xs[0], xs[1]), xs[2]), width)
    keep = (bottom > top) & (right > left)
    for corner in corners:
        keep &= front.index_select(1, corner)
    if cull:  # y points down, so a face that winds counter-clockwise to the viewer has negative area
        keep &= (xs[1] - xs[0]) * (ys[2] - ys[0]) < (xs[2] - xs[0]) * (ys[1] - ys[0])
    batch, face = keep.nonzero(as_tuple=True)
    if face.numel() == 0:
        return batch, face, batch, batch, batch
    flat = batch * faces.shape[0] + face
    top, bottom, left, right = (t.flatten().index_select(0, flat) for t in (top, bottom, left, right))
    vertex = [batch * vertices.shape[1] + c.index_select(0, face) for c in corners]
    upper, middle, lower = _sorted_by_y(
        [tuple(t.flatten().index_select(0, v) for t in (x, y, inverse)) for v in vertex]  # type: ignore[misc]
    )
    long = _Edges.between(upper, lower)
    short = _Edges(*map(torch.cat, zip(_Edges.between(upper, middle), _Edges.between(middle, lower), strict=True)))

    x0, y0 = int(left.min()), int(top.min())
    w, h = int(right.max()) - x0, int(bottom.max()) - y0
    buffer = torch.zeros(vertices.shape[0] * h * w, dtype=torch.int64, device=vertices.device)
    rows = bottom - top
    for part in _chunks(rows):
        owner, step = _expand(rows[part])
        owner += part.start
        row = step + top.index_select(0, owner)
        centre = row.to(x) + 0.5
        xa, wa = long.at(owner, centre)
        under = centre >= middle[1].index_select(0, owner)
        xb, wb = short.at(owner + face.numel() * under, centre)
        begin = _first(torch.minimum(xa, xb), width)
        count = _first(torch.maximum(xa, xb), width) - begin
        run = xb - xa
        slope = (wb - wa) / torch.where(run.abs() < 1e-9, 1e-9, run)
        start = wa + slope * (begin.to(x) + 0.5 - xa)
        place = (batch.index_select(0, owner) * h + row - y0) * w + begin - x0
        for piece in _chunks(count):
            span, step = _expand(count[piece])
            span += piece.start
            depth = start.index_select(0, span) + slope.index_select(0, span) * step.to(x)
            key = depth.float().view(torch.int32).to(torch.int64) << 32
            key |= owner.index_select(0, span)
            buffer.scatter_reduce_(0, place.index_select(0, span) + step, key, "amax")
    pixel = buffer.nonzero()[:, 0]
    line = pixel // w
    return batch, face, buffer.index_select(0, pixel) & 0xFFFFFFFF, line % h + y0, pixel - line * w + x0


def _first(value: Tensor, limit: int) -> Tensor:
    """Index of the first pixel whose centre is not left of (above) ``value``, within 0..limit."""
    return (value - 0.5).ceil().clamp(0, limit).to(torch.int64)


_Corner = tuple[Tensor, Tensor, Tensor]
"""x, y and inverse depth of one corner of each face."""


def _sorted_by_y(corners: list[_Corner]) -> list[_Corner]:
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = corners[j][1] < corners[i][1]
        a, b = corners[i], corners[j]
        corners[i] = (torch.where(swap, b[0], a[0]), torch.where(swap, b[1], a[1]), torch.where(swap, b[2], a[2]))
        corners[j] = (torch.where(swap, a[0], b[0]), torch.where(swap, a[1], b[1]), torch.where(swap, a[2], b[2]))
    return corners


class _Edges(NamedTuple):
    """Edges by their upper end: x and inverse depth w as linear functions of y."""

    x: Tensor
    y: Tensor
    w: Tensor
    dx: Tensor
    dw: Tensor

    @classmethod
    def between(cls, upper: _Corner, lower: _Corner) -> _Edges:
        run = (lower[1] - upper[1]).clamp_min(1e-12)
        return cls(*upper, (lower[0] - upper[0]) / run, (lower[2] - upper[2]) / run)

    def at(self, owner: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and inverse depth where edges ``owner`` cross the lines ``y``."""
        x0, y0, w0, dx, dw = (t.index_select(0, owner) for t in self)
        step = y - y0
        return x0 + step * dx, w0 + step * dw


def _intersect(
    vertices: Tensor,
    faces: Tensor,
    K: Tensor,
    batch: Tensor,
    face: Tensor,
    owner: Tensor,
    row: Tensor,
    column: Tensor,
) -> tuple[Tensor, Tensor]:
    """Barycentric weights (N, 3) and depth (N,) where the pixels' rays meet their faces.

    Moeller and Trumbore (1997), with their determinants written as ray . (a vector for each face).
    """
    cameras = K.to(vertices).expand(vertices.shape[0], 3, 3)
    if K.ndim == 2:
        fx, skew, cx, fy, cy = K[0, 0], K[0, 1], K[0, 2], K[1, 1], K[1, 2]
    else:
        mesh = batch.index_select(0, owner)
        fx, skew, cx, fy, cy = (cameras[:, i, j][mesh] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)))
    ray_y = (row.to(vertices) + 0.5 - cy) / fy
    ray_x = (column.to(vertices) + 0.5 - cx - skew * ray_y) / fx
    flat = vertices.reshape(-1, 3)
    index = faces.index_select(0, face) + (batch * vertices.shape[1])[:, None]
    origin, b, c = (flat.index_select(0, index[:, i]) for i in range(3))
    e1, e2 = b - origin, c - origin

    def along(vector: Tensor) -> Tensor:
        x, y, z = (vector[:, i].contiguous().index_select(0, owner) for i in range(3))
        return ray_x * x + ray_y * y + z

    det = along(torch.linalg.cross(e2, e1))
    det = torch.where(det.abs() < 1e-20, 1e-20, det)
    u = along(torch.linalg.cross(origin, e2)) / det
    v = along(torch.linalg.cross(e1, origin)) / det
    first, u, v = (1 - u - v).clamp(0, 1), u.clamp(0, 1), v.clamp(0, 1)
    total = first + u + v
    weights = torch.stack((first / total, u / total, v / total))
    z = [corner[:, 2].contiguous().index_select(0, owner) for corner in (origin, b, c)]
    return weights.T, weights[0] * z[0] + weights[1] * z[1] + weights[2] * z[2]
