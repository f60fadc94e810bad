"""Perception: a clip, or another tool's keypoint files beside it, in; one Evidence per person out."""

from __future__ import annotations

from kinflow.perception.keypoints import read_keypoints
from kinflow.perception.perceiver import Perceiver, perceive, watch

__all__ = ["Perceiver", "perceive", "read_keypoints", "watch"]
