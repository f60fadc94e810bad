"""The data sets that a training can draw from, by their names in the configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...body import Body
from ...cameras import Focal, intrinsics
from ...config import ClipsConfig, FramesDataSetConfig, SourcesConfig
from ...datasets.coco import CocoPersons
from ...datasets.emdb import Emdb
from ...datasets.recording import DataSet
from ...datasets.single_frames import SingleFrames
from ...datasets.threedpw import ThreeDPW
from .filmed import FilmedMotions
from .footage import read_footage
from .projected import Sample, Stream, join
from .recorded import RecordedMotions

log = logging.getLogger(__name__)

DATA_SETS: dict[str, Callable[[Any], DataSet]] = {
    "threedpw": lambda config: ThreeDPW(config.path, "train"),
    "emdb": lambda config: Emdb(config.path),
    "h36m": lambda config: SingleFrames(config.path, "h36m", config.fps),
    "mpi_inf_3dhp": lambda config: SingleFrames(config.path, "mpi_inf_3dhp", config.fps),
    "coco": lambda config: CocoPersons(config.path, "train"),
}
"""How each is opened; the names are fields of :class:`kinflow.config.SourcesConfig`, as "own" and "clips" are."""


def open_data_sets(
    config: SourcesConfig, body: Body, frames: int, device: torch.device | str = "cpu"
) -> dict[str, Stream]:
    """Streams of windows of ``frames`` frames from the data sets and clips that the configuration names.

    Args:
        device: on which clips that were not seen before are perceived.

    Raises:
        ConfigError: no weight above 0, or one of a data set without its path.
        MissingAssetError, FormatError: a data set that is not there, or is another.
        VideoError, NobodyFoundError, OutputError: clips that cannot be read, show nobody, or cannot be kept.
    """
    config.check()
    streams: dict[str, Stream] = {}
    for name, one in config.data_sets.items():
        if isinstance(one, ClipsConfig):
            assert one.path is not None  # data_sets names no others
            footage = read_footage([one.path], one.cache, device, progress=lambda c: log.info("%s: looking at it", c))
            streams[name] = FilmedMotions(footage, body, frames)
            continue
        K = intrinsics(one.image_size, Focal(one.focal)) if isinstance(one, FramesDataSetConfig) else None
        streams[name] = RecordedMotions(DATA_SETS[name](one), body, frames, K)
    return streams


class Mixture:
    """Draws each window of a batch from one of several streams, at random by their weights.

    Args:
        streams: by name. weights: of each, not all 0.
    """

    def __init__(self, streams: Mapping[str, Stream], weights: Mapping[str, float]) -> None:
        self.streams = {name: stream for name, stream in streams.items() if weights[name] > 0}
        share = np.array([weights[name] for name in self.streams], float)
        self.shares = share / share.sum()

    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch; how many are of which stream varies."""
        counts = rng.multinomial(batch, self.shares)
        parts = [s.draw(rng, int(n)) for s, n in zip(self.streams.values(), counts, strict=True) if n]
        return join(parts)


class Shared:
    """Draws a fixed share of each batch, to the nearest window, from a second stream."""

    def __init__(self, first: Stream, second: Stream, share: float) -> None:
        self.first, self.second, self.share = first, second, share

    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch, the first stream's windows before the second's."""
        count = round(batch * self.share)
        parts = [self.first.draw(rng, batch - count)] if batch > count else []
        return join([*parts, *([self.second.draw(rng, count)] if count else [])])
