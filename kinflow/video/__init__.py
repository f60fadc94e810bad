"""Decoding with true timestamps, and encoding to files that are complete or absent.

:class:`kinflow.clip.Clip` is the way in; the sources of its frames live here.
"""

from __future__ import annotations

from .images import read_image
from .writer import VideoWriter

__all__ = ["VideoWriter", "read_image"]
