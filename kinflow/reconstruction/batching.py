"""Evidence records to padded tensors, long ones cut into overlapping chunks, and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evidence import Evidence
from .observation import Observations

_GROUP = 8


class Chunk(NamedTuple):
    """Rows ``start:stop`` of person ``person`` go through the network; rows ``keep_from:keep_to`` of them are kept."""

    person: int
    start: int
    stop: int
    keep_from: int
    keep_to: int


def cut(lengths: Sequence[int], chunk: int, context: int) -> list[Chunk]:
    """Cut people of so many frames into chunks of at most ``chunk`` kept frames with ``context`` frames at each side.

    A person's cuts depend on the person's own length alone, so company in the clip changes nothing.
    """
    chunks = []
    for person, length in enumerate(lengths):
        pieces = max(1, -(-length // chunk))
        edges = [round(i * length / pieces) for i in range(pieces + 1)]
        chunks += [
            Chunk(person, max(0, a - context), min(length, b + context), a, b) for a, b in itertools.pairwise(edges)
        ]
    return chunks


def collate(evidences: Sequence[Evidence], chunks: Sequence[Chunk], K: Tensor, dtype: torch.dtype) -> Observations:
    """Stack chunks of evidence into one padded batch; times count from each chunk's first frame."""
    steps = max(c.stop - c.start for c in chunks)

    def stack(name: str) -> Tensor:
        first = getattr(evidences[chunks[0].person], name)
        out = np.zeros((len(chunks), steps, *first.shape[1:]), np.float64 if first.dtype.kind == "f" else first.dtype)
        for row, c in enumerate(chunks):
            out[row, : c.stop - c.start] = getattr(evidences[c.person], name)[c.start : c.stop]
        tensor = torch.from_numpy(out)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    times = np.zeros((len(chunks), steps))
    valid = torch.zeros(len(chunks), steps, dtype=torch.bool)
    for row, c in enumerate(chunks):
        t = evidences[c.person].timestamps[c.start : c.stop]
        times[row] = t[-1] - t[0]
        times[row, : len(t)] = t - t[0]
        valid[row, : len(t)] = True
    return Observations(
        stack("keypoints2d"),
        stack("confidence"),
        stack("world_landmarks"),
        stack("has_world"),
        stack("observed"),
        valid,
        torch.from_numpy(times).to(dtype),
        K.to(dtype).expand(len(chunks), 3, 3),
    )


def grouped(chunks: Sequence[Chunk], together: bool = True) -> list[list[Chunk]]:
    """Chunks that go through a network at once, of like length together.

    Args:
        chunks: as :func:`cut` gives them, person after person.
        together: those of several people too. Otherwise a group is one person's, and no rounding in it depends on the company.
    """
    people = [list(some) for _, some in itertools.groupby(chunks, lambda c: 0 if together else c.person)]
    orders = [sorted(some, key=lambda c: c.stop - c.start) for some in people]
    return [order[at : at + _GROUP] for order in orders for at in range(0, len(order), _GROUP)]
