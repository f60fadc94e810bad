"""Clips in, clips out: decoding with true timestamps, and encoding to files that are complete or absent."""

from __future__ import annotations

from .reader import ClipReader, FrameBatch, open_clip
from .sources import read_image
from .writer import VideoWriter

__all__ = ["ClipReader", "FrameBatch", "VideoWriter", "open_clip", "read_image"]
