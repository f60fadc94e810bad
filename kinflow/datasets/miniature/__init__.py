"""Small data sets in the layouts of the real ones, rendered from the open body: for tests, and to try an installation."""

from __future__ import annotations

from .others import write_amass, write_coco, write_emdb, write_single_frames
from .smpl import write_smpl
from .threedpw import write_3dpw

__all__ = ["write_3dpw", "write_amass", "write_coco", "write_emdb", "write_single_frames", "write_smpl"]
