"""Plain light on meshes, and people drawn over video frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..body.surface import vertex_normals
from ..config import RenderBackend, RenderConfig
from ..errors import ShapeError, UsageError, check_shape
from .fragments import Fragments, VisiblePoints
from .rasteriser import rasterise, visible_points

PALETTE: tuple[tuple[int, int, int], ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
)
"""Seven RGB colours that colour-blind people tell apart (Okabe and Ito 2008), one a person."""

LIGHT = (-0.4, -0.7, -0.6)
"""Direction towards the lamp, camera axes: above, to the left, behind the camera."""


def person_colour(person_id: int) -> tuple[int, int, int]:
    """The colour in which a person is drawn, RGB 0..255."""
    return PALETTE[person_id % len(PALETTE)]


def shade(
    normals: Tensor,
    colours: Tensor,
    *,
    light: Tensor | Sequence[float] = LIGHT,
    ambient: float = 0.45,
    diffuse: float = 0.65,
) -> Tensor:
    """Lambert's law under a lamp and a sky that is brighter than the ground.

    Args:
        normals: (..., 3) in camera axes (y down), any length.
        colours: (..., 3) surface colour, any scale.
        light: towards the lamp, camera axes.
        ambient, diffuse: shares of sky and lamp.

    Returns:
        (..., 3) seen colour in the scale of ``colours``, not clipped.
    """
    direction = torch.nn.functional.normalize(torch.as_tensor(light).to(normals), dim=-1)
    x, y, z = normals.unbind(-1)
    inverse = (x * x + y * y + z * z).clamp_min(1e-24).rsqrt()
    sky = 0.75 - 0.25 * y * inverse
    lamp = ((x * direction[0] + y * direction[1] + z * direction[2]) * inverse).clamp_min(0)
    return colours * (ambient * sky + diffuse * lamp)[..., None]


def interpolate(seen: VisiblePoints, attributes: Tensor, faces: Tensor) -> Tensor:
    """Values (N, C) at the covered pixels of per-vertex ``attributes`` (V, C) or (B, V, C)."""
    start = seen.batch * attributes.shape[1] if attributes.ndim == 3 else None
    channels = [c.contiguous() for c in attributes.reshape(-1, attributes.shape[-1]).unbind(-1)]
    total: list[Tensor] = []
    for i in range(3):
        index = faces[:, i].contiguous().index_select(0, seen.face)
        index = index if start is None else index + start
        weight = seen.barycentric[:, i]
        terms = [c.index_select(0, index) * weight for c in channels]
        total = [a + b for a, b in zip(total, terms, strict=True)] if total else terms
    return torch.stack(total).T  # channel by channel in memory: what follows runs on whole channels


def part_mask(fragments: Fragments, faces: Tensor, part_labels: Tensor) -> Tensor:
    """(B, H, W) int64 part seen through each pixel, -1 for none: the label of the face's nearest corner."""
    corner = fragments.barycentric.argmax(-1)
    vertex = faces[fragments.face_index.clamp_min(0)].gather(-1, corner[..., None])[..., 0]
    return torch.where(fragments.face_index >= 0, part_labels.to(vertex)[vertex], -1)


def silhouette(
    vertices: Tensor, faces: Tensor, K: Tensor, image_size: tuple[int, int], *, backend: RenderBackend = "torch"
) -> Tensor:
    """(B, H, W) bool: where each mesh covers the pixel's centre. Arguments as in :func:`rasterise`."""
    return rasterise(vertices, faces, K, image_size, backend=backend).face_index >= 0


def overlay(
    image: np.ndarray,
    meshes: Sequence[tuple[Any, tuple[int, int, int]]],
    faces: Any,
    K: Any,
    config: RenderConfig | None = None,
) -> np.ndarray:
    """Draw people over a frame; whoever is nearer hides the other.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        meshes: a pair for each person: vertices (V, 3) in camera axes, m, and an RGB colour 0..255.
        faces: (F, 3) for all of them, or a list with one array for each; counter-clockwise seen from outside. Rendering
            runs on their device.
        K: (3, 3) intrinsics, px.
        config: opacity, near plane and rasteriser.

    Returns:
        (H, W, 3) uint8.

    >>> from kinflow.render import overlay, person_colour
    >>> triangle = np.array([[-1.0, -1.0, 2.0], [-1.0, 3.0, 2.0], [3.0, -1.0, 2.0]])
    >>> camera = np.array([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0], [0.0, 0.0, 1.0]])
    >>> overlay(np.zeros((4, 4, 3), np.uint8), [(triangle, person_colour(0))], [[0, 1, 2]], camera)[0, 0].any()
    np.True_
    """
    config = config or RenderConfig()
    dims = check_shape("image", image, "H W 3", "Give one RGB frame.")
    if image.dtype != np.uint8:
        raise ShapeError(f"image: expected uint8, got {image.dtype}. Convert it to 0..255 first.")
    out = image.copy()
    if not meshes:
        return out
    points, triangles, colours = _scene(meshes, faces)
    with torch.inference_mode():
        seen = visible_points(
            points[None], triangles, torch.as_tensor(K, dtype=torch.float32).to(points), (dims["W"], dims["H"]),
            near=config.near, cull_backfaces=True, backend=config.backend,
        )  # fmt: skip
        if seen.face.numel() == 0:
            return out
        normals = interpolate(seen, vertex_normals(points, triangles), triangles)
        lit = shade(normals, colours[triangles[seen.face, 0]]).cpu()
        drawn = torch.from_numpy(out).view(-1, 3)
        pixel = (seen.row * dims["W"] + seen.column).cpu()
        behind = drawn.index_select(0, pixel).float()
        mixed = behind + config.opacity * (lit - behind)
        drawn.index_copy_(0, pixel, mixed.clamp_(0, 255).add_(0.5).to(torch.uint8))
    return out


def join_meshes(vertices: Sequence[Any], faces: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Meshes (..., V_i, 3) with faces (F_i, 3) as one mesh (..., sum V_i, 3), on the device of the first's faces."""
    triangles = [torch.as_tensor(f, dtype=torch.int64) for f in faces]
    points = [torch.as_tensor(v, dtype=torch.float32, device=triangles[0].device) for v in vertices]
    starts = itertools.accumulate((p.shape[-2] for p in points[:-1]), initial=0)
    return torch.cat(points, -2), torch.cat([f + start for f, start in zip(triangles, starts, strict=True)])


def _scene(meshes: Sequence[tuple[Any, tuple[int, int, int]]], faces: Any) -> tuple[Tensor, Tensor, Tensor]:
    """All meshes as one: vertices (V, 3), faces (F, 3), and a colour for each vertex (V, 3)."""
    each = isinstance(faces, (list, tuple)) and len(faces) > 0 and getattr(faces[0], "ndim", 0) == 2
    if each and len(faces) != len(meshes):
        raise UsageError(f"faces: expected one array for each of {len(meshes)} meshes, got {len(faces)}.")
    for index, (vertices, _) in enumerate(meshes):
        check_shape(f"meshes[{index}]", vertices, "V 3", "Give one frame's vertices at a time.")
    points, triangles = join_meshes([v for v, _ in meshes], faces if each else [faces] * len(meshes))
    tints = torch.tensor([colour for _, colour in meshes], dtype=torch.float32)
    colours = tints.repeat_interleave(torch.tensor([len(v) for v, _ in meshes]), 0)
    return points, triangles, colours.to(points.device)
