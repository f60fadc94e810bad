"""Meshes to pixels: the rasteriser, plain shading, and people drawn over frames."""

from __future__ import annotations

from .rasteriser import Fragments, VisiblePoints, rasterise, visible_points
from .shading import (
    PALETTE,
    draw_keypoints,
    interpolate,
    overlay,
    part_mask,
    person_colour,
    shade,
    silhouette,
    vertex_normals,
)

__all__ = [
    "PALETTE",
    "Fragments",
    "VisiblePoints",
    "draw_keypoints",
    "interpolate",
    "overlay",
    "part_mask",
    "person_colour",
    "rasterise",
    "shade",
    "silhouette",
    "vertex_normals",
    "visible_points",
]
