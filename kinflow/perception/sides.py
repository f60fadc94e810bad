"""Left and right told apart over time, where the landmark network takes one for the other.

From some sides a back looks like a front, and crossed legs like legs that are not. The landmark network then calls left what is
right, of the whole person, of the legs or of all but the legs, for a frame or for some. Nobody turns round in a frame, so a
network that sees those before and after can tell.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinflow.assets import asset_path
from kinflow.assets.weights import load_module
from kinflow.config import SidesConfig
from kinflow.evidence import Evidence
from kinflow.skeleton import MIRROR_BLAZEPOSE

__all__ = ["LIMBS", "SidesNetwork", "Sighted", "exchange", "exchanged", "load_sides", "settle_sides", "sighted"]

LIMBS = ((11, 12, 13, 14, 15, 16), (23, 24, 25, 26, 27, 28))
"""Landmarks by which the two halves of a person are told: shoulders, elbows, wrists; hips, knees, ankles, left ones and right by turns."""
SURE = 1.5
"""Log-odds from which on a half is exchanged."""
_BOTH = LIMBS[0] + LIMBS[1]
_OTHER = [i ^ 1 for i in range(len(_BOTH))]  # left for right among these
_LOWER = 23  # the first landmark of the lower half
_MIRROR = list(MIRROR_BLAZEPOSE)
_INPUTS = len(_MIRROR) * 6 + 3
_MOVES = 2 * 4 * len(_BOTH)
_MOVED = 5.0  # brings what limbs move from frame to frame to about 1
_SHORTEST = 4  # frames: of fewer nothing can be told


class Sighted(NamedTuple):
    """What was seen of B people in T frames that follow each other, all of them frames in which they were seen."""

    keypoints2d: Tensor  #: (B, T, 33, 2) px
    confidence: Tensor  #: (B, T, 33)
    world: Tensor  #: (B, T, 33, 3) m, axes x right, y down, z forward; 0 where not known
    has_world: Tensor  #: (B, T) bool
    timestamps: Tensor  #: (B, T) s


def exchange(seen: Sighted, halves: Tensor) -> Sighted:
    """Left for right in the upper and the lower half where ``halves`` (B, T, 2) bool says so.

    Who is exchanged altogether is turned round as well, with what was near far away: a body and its exchanged mirror image in
    depth have one picture, and that is what a back taken for a front is.
    """
    upper, lower = halves[..., :1].expand(*halves.shape[:-1], _LOWER), halves[..., 1:]
    each = torch.cat((upper, lower.expand(*halves.shape[:-1], len(_MIRROR) - _LOWER)), -1)
    world = torch.where(each[..., None], seen.world[..., _MIRROR, :], seen.world)
    turned = world * world.new_tensor([1.0, 1.0, -1.0])
    return seen._replace(
        keypoints2d=torch.where(each[..., None], seen.keypoints2d[..., _MIRROR, :], seen.keypoints2d),
        confidence=torch.where(each, seen.confidence[..., _MIRROR], seen.confidence),
        world=torch.where(halves.all(-1)[..., None, None], turned, world),
    )


class SidesNetwork(nn.Module):
    """Log-odds that left and right are exchanged in either half of a person, from all frames in which they were seen."""

    def __init__(self, config: SidesConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.frame = nn.Sequential(
            nn.Linear(_INPUTS, 2 * width), nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU(), nn.Dropout(config.dropout)
        )
        self.clip = nn.GRU(width + _MOVES, width, bidirectional=True, batch_first=True)
        self.odds = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, seen: Sighted) -> Tensor:
        """(B, T, 2), upper and lower half."""
        limbs = seen.keypoints2d[..., _BOTH, :]
        size = (limbs.amax(-2) - limbs.amin(-2)).norm(dim=-1).clamp_min(1.0)
        centre = seen.keypoints2d[..., [11, 12, 23, 24], :].mean(-2, keepdim=True)
        points = (seen.keypoints2d - centre) / size[..., None, None]
        known = seen.has_world[..., None, None]
        world = (seen.world - seen.world[..., [23, 24], :].mean(-2, keepdim=True)) * known
        since = torch.diff(seen.timestamps, prepend=seen.timestamps[:, :1])
        scalars = torch.stack((10 * since, since.clamp_min(0.01).log(), seen.has_world.to(points.dtype)), -1)
        frames = self.frame(torch.cat((points.flatten(-2), seen.confidence, world.flatten(-2), scalars), -1))
        moved = torch.cat((_moves(limbs, size), _moves(world[..., _BOTH, :], torch.ones_like(size))), -1)
        after = torch.cat((moved[:, 1:], torch.zeros_like(moved[:, :1])), 1)
        return self.odds(self.clip(torch.cat((frames, moved, after), -1))[0])


def _moves(limbs: Tensor, size: Tensor) -> Tensor:
    """How far limbs (B, T, 12, 2 or 3) moved from the frame before, and would have moved if they were each other's, in sizes (B, T).

    (B, T, 24), 0 in the first frame.
    """
    before, here = limbs[:, :-1], limbs[:, 1:]
    turn = limbs.new_tensor([1.0, 1.0, -1.0])[: limbs.shape[-1]]
    moved = torch.cat(((here - before).norm(dim=-1), (here[..., _OTHER, :] * turn - before).norm(dim=-1)), -1)
    return F.pad(_MOVED * moved / (0.5 * (size[:, :-1] + size[:, 1:]))[..., None], (0, 0, 1, 0))


@torch.no_grad()
def settle_sides(evidence: Evidence, network: SidesNetwork) -> Evidence:
    """The same person with left and right exchanged where they were confused; the evidence itself where nothing was."""
    if evidence.observed.sum() < _SHORTEST:
        return evidence
    halves = network(sighted(evidence)) > SURE
    return exchanged(evidence, halves[0]) if bool(halves.any()) else evidence


def exchanged(evidence: Evidence, halves: Tensor) -> Evidence:
    """Evidence with left and right of halves (N, 2) bool exchanged, in the N frames in which the person was seen.

    Everything that goes by landmarks is: keypoints, confidence, world landmarks and features.
    """
    rows = np.flatnonzero(evidence.observed)
    seen = exchange(sighted(evidence), halves[None])
    told = {"keypoints2d": seen.keypoints2d, "confidence": seen.confidence, "world_landmarks": seen.world}
    values: dict[str, Any] = {name: np.array(getattr(evidence, name)) for name in told}
    for name, value in told.items():
        values[name][rows] = value[0].numpy()
    if evidence.features is not None:
        each = np.repeat(halves.numpy(), (_LOWER, len(_MIRROR) - _LOWER), 1)
        seen_features = evidence.features[rows]
        values["features"] = np.array(evidence.features)
        values["features"][rows] = np.where(each[..., None], seen_features[:, _MIRROR], seen_features)
    return dataclasses.replace(evidence, **values)


def sighted(evidence: Evidence) -> Sighted:
    """What a person's evidence has of the frames in which they were seen, a batch of one."""
    rows = evidence.observed
    return Sighted(
        torch.from_numpy(evidence.keypoints2d[rows])[None],
        torch.from_numpy(evidence.confidence[rows])[None],
        torch.from_numpy(evidence.world_landmarks[rows] * evidence.has_world[rows, None, None])[None],
        torch.from_numpy(evidence.has_world[rows])[None],
        torch.from_numpy((evidence.timestamps[rows] - evidence.timestamps[0]).astype(np.float32))[None],
    )


def load_sides(path: str | Path | None = None) -> SidesNetwork:
    """The trained network, in evaluation mode.

    Args:
        path: a file written by ``kinflow-train sides``; None: the packaged one.

    Raises:
        MissingAssetError: no such file.
        FormatError: not the weights of such a network.
    """
    path = asset_path("sides.safetensors") if path is None else path
    return load_module(path, "a network of sides", SidesConfig, SidesNetwork)
