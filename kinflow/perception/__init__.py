"""Perception: a clip, or another tool's keypoint files beside it, in; one Evidence per person out."""

from __future__ import annotations

from kinflow.perception.keypoints import read_keypoints
from kinflow.perception.perceiver import Perceiver, perceive, watch
from kinflow.perception.settling import Refused

__all__ = ["Perceiver", "Refused", "perceive", "read_keypoints", "watch"]
