"""Scores of many people as one: over frames and over people, with counts, and the worst named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .scores import METRICS, Scores


@dataclasses.dataclass(frozen=True)
class Pooled:
    """One metric over everyone.

    Attributes:
        frames_mean: mean over all frames in which it is defined, as the field pools.
        frames: their number.
        people_mean: mean of the people's means. people: their number.
        people_error: standard error of ``people_mean``; NaN for one.
    """

    frames_mean: float
    frames: int
    people_mean: float
    people: int
    people_error: float


def pool(scores: Sequence[Scores]) -> dict[str, Pooled]:
    """Every metric that is defined somewhere, in the order of :data:`~kinflow.evaluation.scores.METRICS`."""
    out = {}
    for key in METRICS:
        parts = [v[np.isfinite(v)] for s in scores if (v := s.metrics.get(key)) is not None and np.isfinite(v).any()]
        if not parts:
            continue
        means = np.array([part.mean() for part in parts])
        error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
        every = np.concatenate(parts)
        out[key] = Pooled(float(every.mean()), len(every), float(means.mean()), len(means), error)
    return out


def pool_joints(scores: Sequence[Scores]) -> dict[str, float]:
    """Mean error of each joint in mm, frames pooled."""
    total: dict[str, float] = {}
    frames: dict[str, int] = {}
    for s in scores:
        for joint, error in s.joints.items():
            total[joint] = total.get(joint, 0.0) + error * s.found
            frames[joint] = frames.get(joint, 0) + s.found
    return {joint: total[joint] / frames[joint] for joint in total}


def worst(scores: Sequence[Scores], key: str = "pa_mpjpe", count: int = 5) -> list[Scores]:
    """The people with the largest mean of a metric, worst first; those without it come not at all."""
    ranked = [s for s in scores if math.isfinite(s.mean(key))]
    return sorted(ranked, key=lambda s: -s.mean(key))[:count]
