"""What a fit compares a motion with: one person's evidence as tensors, gathered once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..evidence import Evidence
from ..motion import Motion
from .geometry import local_view

_MASK_THRESHOLD = 127


class Silhouette(NamedTuple):
    """Pixels sampled from each frame's part map, or from its person mask where the evidence has no part maps.

    Attributes:
        pixels: (T, N, 2) px in the frame.
        parts: (T, N) int part of each, an index into BODYPIX24; with a mask 0; -1 where a frame's map is empty.
        rois: (T, 4) the crops in which the maps lie: centre x, y, side in px, angle in rad.
        labelled: whether the parts are told apart.
    """

    pixels: Tensor
    parts: Tensor
    rois: Tensor
    labelled: bool

    @property
    def seen(self) -> Tensor:
        """(T,) bool, whether the frame's map shows anybody."""
        return (self.parts >= 0).any(-1)


class Target(NamedTuple):
    """What one person's motion is fitted to (tensors (T, ...)).

    Attributes:
        timestamps: (T,) s, from 0.
        observed: (T,) bool.
        keypoints2d: (T, 33, 2) px; confidence: (T, 33) 0..1.
        K: (3, 3) px.
        size_px: (T,) the person's size in the image.
        world: (T, 33, 3) m, ray-aligned axes; has_world: (T,) bool.
        world_std: (T, 33, 2) m, across the line of sight and along it, or None where it is not known.
        ray_to_camera: (T, 3, 3).
        silhouette: None without part maps and masks.
    """

    timestamps: Tensor
    observed: Tensor
    keypoints2d: Tensor
    confidence: Tensor
    K: Tensor
    size_px: Tensor
    world: Tensor
    has_world: Tensor
    world_std: Tensor | None
    ray_to_camera: Tensor
    silhouette: Silhouette | None


def part_pixels(
    maps: np.ndarray, rois: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the person sampled from maps of parts.

    Args:
        maps: (T, S, S) inside each crop: 0 where nobody is seen, else 1 + the part.
        rois: (T, 4) centre x, y, side in px, angle in rad of the crop in the frame.
        count: pixels per frame; where a map has fewer, some come twice.
        rng: picks them.

    Returns:
        (T, count, 2) px in the frame and (T, count) part, or -1 where a frame's map is empty.
    """
    side = maps.shape[-1]
    pixels = np.zeros((len(maps), count, 2), np.float32)
    parts = np.full((len(maps), count), -1, np.int8)
    for t, (labels, (cx, cy, size, angle)) in enumerate(zip(maps, rois, strict=True)):
        rows, columns = np.nonzero(labels)
        if not len(rows) or size <= 0:
            continue
        pick = rng.permutation(len(rows))[:count] if len(rows) >= count else rng.integers(0, len(rows), count)
        u, v = (columns[pick] + 0.5) / side - 0.5, (rows[pick] + 0.5) / side - 0.5
        pixels[t, :, 0] = cx + size * (u * math.cos(angle) - v * math.sin(angle))
        pixels[t, :, 1] = cy + size * (u * math.sin(angle) + v * math.cos(angle))
        parts[t] = labels[rows[pick], columns[pick]].astype(np.int8) - 1
    return pixels, parts


def inside_crops(points: Tensor, rois: Tensor) -> Tensor:
    """Which points (T, V, 2) px lie inside their frame's crop (T, 4) -> (T, V) 0 or 1."""
    offset = points - rois[:, None, :2]
    cos, sin = torch.cos(rois[:, 3])[:, None], torch.sin(rois[:, 3])[:, None]
    u = cos * offset[..., 0] + sin * offset[..., 1]
    v = -sin * offset[..., 0] + cos * offset[..., 1]
    return (torch.maximum(u.abs(), v.abs()) < rois[:, None, 2] / 2).to(points.dtype)


def gather_target(motion: Motion, evidence: Evidence, pixels: int, device: torch.device, seed: int = 0) -> Target:
    """Collect one person's evidence as tensors.

    Args:
        pixels: sampled from each frame's part map or mask; 0 leaves them out.
        seed: of that sample.

    Raises:
        UsageError: motion and evidence of different frames.
    """
    if not np.array_equal(motion.frame_ids, evidence.frame_ids):
        raise UsageError(
            f"evidence: expected the {len(motion)} frames of person {motion.person_id}, got {len(evidence)}."
        )

    def tensor(x: np.ndarray) -> Tensor:
        out = torch.from_numpy(x).to(device)
        return out.float() if out.is_floating_point() else out

    observed, keypoints, confidence = (
        tensor(evidence.observed),
        tensor(evidence.keypoints2d),
        tensor(evidence.confidence),
    )
    K = tensor(motion.K.copy())
    centred = torch.where(observed[:, None, None], keypoints, K[:2, 2])
    weight = (confidence + 1e-3) / (confidence + 1e-3).sum(-1, keepdim=True)
    middle = (centred * weight[..., None]).sum(1, keepdim=True)
    size_px = 3 * ((centred - middle).square().sum(-1) * weight).sum(-1).clamp_min(1.0).sqrt()
    silhouette, maps, rois = None, evidence.parts, evidence.part_rois
    if maps is None and evidence.masks is not None:
        maps, rois = evidence.masks > _MASK_THRESHOLD, evidence.rois
    if maps is not None and rois is not None and pixels:
        places, labels = part_pixels(maps, rois, pixels, np.random.default_rng(seed))
        silhouette = Silhouette(tensor(places), tensor(labels), tensor(rois), evidence.parts is not None)
    return Target(
        timestamps=tensor(evidence.timestamps - evidence.timestamps[0]),
        observed=observed,
        keypoints2d=keypoints,
        confidence=confidence,
        K=K,
        size_px=size_px,
        world=tensor(evidence.world_landmarks),
        has_world=tensor(evidence.has_world),
        world_std=None if evidence.world_std is None else tensor(evidence.world_std),
        ray_to_camera=local_view(centred, confidence, K).ray_to_camera,
        silhouette=silhouette,
    )
