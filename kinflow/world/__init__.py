"""Out of the camera: gravity, ground, the camera's path, and people's paths in the world."""

from __future__ import annotations

from .camera_files import check_camera_motion
from .placing import World, direction, locate, place, stand, standing

__all__ = ["World", "check_camera_motion", "direction", "locate", "place", "stand", "standing"]
