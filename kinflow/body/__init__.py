"""The body: forward kinematics and linear blend skinning of SMPL-format models."""

from __future__ import annotations

from .body import Body

__all__ = ["Body"]
