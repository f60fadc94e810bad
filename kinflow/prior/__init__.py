"""MotionPrior: the flow and its dynamics as one density over motions, to put into another tracker.

>>> prior = MotionPrior.load()                                            # doctest: +SKIP
>>> nats = prior.log_prob(body_pose, fps=30)                              # doctest: +SKIP
>>> loss = data_term - nats.sum()                                         # doctest: +SKIP
"""

from __future__ import annotations

from .live import Filtered, LiveFilter
from .motion_prior import MotionPrior

__all__ = ["Filtered", "LiveFilter", "MotionPrior"]
