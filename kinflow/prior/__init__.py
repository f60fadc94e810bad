"""MotionPrior: the flow and its dynamics as one density over motions, to put into another tracker.

>>> import torch
>>> prior = MotionPrior.load()
>>> body_pose = torch.zeros(1, 5, 23, 3, requires_grad=True)       # what a tracker optimises, rad
>>> nats = prior.log_prob(body_pose, fps=30)
>>> nats.shape
torch.Size([1, 5])
>>> data_term = body_pose.square().sum()
>>> loss = data_term - nats.sum()
>>> loss.backward()
"""

from __future__ import annotations

from .live import Filtered, LiveFilter
from .motion_prior import MotionPrior

__all__ = ["Filtered", "LiveFilter", "MotionPrior"]
