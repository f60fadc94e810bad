"""Perception: frames or other tools' keypoint files in, one Evidence per person out."""

from __future__ import annotations

from kinflow.perception.perceiver import Perceiver

__all__ = ["Perceiver"]
