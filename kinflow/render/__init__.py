"""Meshes to pixels: the rasteriser, plain shading, and people drawn over frames."""

from __future__ import annotations

from .fragments import Fragments, VisiblePoints
from .rasteriser import rasterise, visible_points
from .shading import (
    PALETTE,
    interpolate,
    join_meshes,
    overlay,
    part_mask,
    person_colour,
    shade,
    silhouette,
)

__all__ = [
    "PALETTE",
    "Fragments",
    "VisiblePoints",
    "interpolate",
    "join_meshes",
    "overlay",
    "part_mask",
    "person_colour",
    "rasterise",
    "shade",
    "silhouette",
    "visible_points",
]
