"""Windows of motion drawn at any frame rate, a whole batch at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..poses import Capture


def log_uniform(rng: np.random.Generator, between: tuple[float, float], size: int) -> np.ndarray:
    """Numbers (size,) whose logarithm is uniform between two."""
    return np.exp(rng.uniform(math.log(between[0]), math.log(between[1]), size))


@dataclasses.dataclass(frozen=True)
class Window:
    """Which frames make up each row of a batch.

    Attributes:
        frames: (B, T) int64, rows of the concatenated captures; past a window's end its last frame is repeated.
        timestamps: (B, T) float64 s, strictly increasing, from 0.
        present: (B, T) bool, false past a window's end.
        capture: (B,) int64, index of the capture.
    """

    frames: Tensor
    timestamps: Tensor
    present: Tensor
    capture: Tensor


class WindowSampler:
    """Draws windows from captures in proportion to their duration.

    Frames are the capture's own with their own time stamps, nothing is interpolated: at rates that do not divide the
    capture's, and with jitter, the steps differ.
    """

    def __init__(self, captures: Sequence[Capture]) -> None:
        self.lengths = np.array([len(c.body_pose) for c in captures])
        self.fps = np.array([c.fps for c in captures])
        self.offsets = np.concatenate(([0], np.cumsum(self.lengths)[:-1]))
        seconds = self.lengths / self.fps
        self.weights = seconds / seconds.sum()

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        rates: tuple[float, float],
        jitter: float = 0.0,
        warp: float = 0.0,
    ) -> Window:
        """A batch of windows of ``frames`` frames.

        Args:
            rates: frames a second, drawn log-uniformly between the two; a capture of a lower rate gives its own.
            jitter: standard deviation of the frames' times as a share of the interval.
            warp: largest change of speed, as a log: the same frames with their times stretched.
        """
        pick = rng.choice(len(self.weights), size=batch, p=self.weights)
        fps, length = self.fps[pick], self.lengths[pick]
        step = np.maximum(1.0, fps / log_uniform(rng, rates, batch))
        start = rng.uniform(0, 1, batch) * np.maximum(0, length - 1 - step * (frames - 1))
        at = start[:, None] + step[:, None] * (np.arange(frames) + jitter * rng.standard_normal((batch, frames)))
        index = np.clip(np.round(at).astype(np.int64), 0, None)
        index = np.maximum.accumulate(index - np.arange(frames), axis=1) + np.arange(frames)  # strictly increasing
        present = index < length[:, None]
        speed = np.exp(rng.uniform(-warp, warp, batch))
        times = (index - index[:, :1]) / (fps * speed)[:, None]
        rows = np.minimum(index, length[:, None] - 1) + self.offsets[pick][:, None]
        return Window(*(torch.from_numpy(x) for x in (rows, times, present, pick)))
