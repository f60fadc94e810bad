"""Where the front end's landmarks sit on the body: offsets of the 33 landmarks fitted to rendered, perceived clips.

"Shoulder" or "hip" mean to BlazePose what its annotators marked, which is centimetres away from a joint's centre. Each
landmark is carried rigidly by one joint; its offset in that joint's frame is the one whose projection lies, over all
clips, nearest to what the front end sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ..body import Body
from ..cameras import project
from ..errors import ShapeError
from ..skeleton import MIRROR_BLAZEPOSE
from .streams.perceived import PerceivedClip

MIN_CONFIDENCE = 0.7
FACE = slice(0, 11)
FACING = 0.3
"""A face counts when it looks towards the camera: least cosine."""
SCALE = 0.03
"""Residual in metres beyond which a sighting is doubted (Geman-McClure)."""
PRIOR = 0.05
"""How far, in metres, the fit may move a landmark along directions the clips say nothing about."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """``shift (33, 3)`` m to add to each landmark's offset; median distances in metres across the ray, before and after."""

    shift: np.ndarray
    before: np.ndarray
    after: np.ndarray
    sightings: np.ndarray


def calibrate(clips: Sequence[PerceivedClip], body: Body, iterations: int = 10) -> Calibration:
    """Fit offsets by iteratively reweighted least squares; left and right are kept mirror images.

    Residuals are measured across the viewing ray in metres (pixels times depth over focal length), so that every clip
    counts alike whatever its resolution.

    Raises:
        ShapeError: no clips.
    """
    if not clips:
        raise ShapeError("clips: expected at least one perceived clip, got none.")
    rows, residuals, carriers = [], [], body.landmark_joints
    for clip in clips:
        keep = torch.from_numpy(clip.observed)
        betas, pose = torch.from_numpy(clip.betas)[None], clip.pose_rotmat[keep]
        transl, K = torch.from_numpy(clip.transl)[keep], torch.from_numpy(clip.K)
        landmarks = body.landmarks(betas, pose, transl)
        turned = body.transforms(betas, pose, None)[0][:, carriers]  # (T, 33, 3, 3)
        depth = landmarks[..., 2:]
        gap = (torch.from_numpy(clip.keypoints2d)[keep] - project(landmarks, K)) * depth / K[0, 0]
        # Moving a point by d in camera axes moves its image, in metres across the ray, by d_xy - (xy/z) d_z.
        slope = landmarks[..., :2] / depth
        across = turned[..., :2, :] - slope[..., None] * turned[..., 2:, :]
        sure = torch.from_numpy(clip.confidence)[keep] > MIN_CONFIDENCE
        # Seen from behind, the front end guesses the face (with confidence) near the middle of the head.
        sure[:, FACE] &= turned[:, FACE, 2, 2] < -FACING
        rows.append(across * sure[..., None, None])
        residuals.append(gap * sure[..., None])
    a, b = torch.cat(rows).double(), torch.cat(residuals).double()  # (N, 33, 2, 3), (N, 33, 2)
    seen = a.abs().amax((-1, -2)) > 0
    flip = torch.tensor([-1.0, 1, 1], dtype=a.dtype)
    mirror = list(MIRROR_BLAZEPOSE)
    a = torch.cat((a, a[:, mirror] * flip))  # the mirrored sighting says the same of the other side
    b = torch.cat((b, b[:, mirror]))
    shift = torch.zeros(33, 3, dtype=a.dtype)
    for _ in range(iterations):
        rest = b - torch.einsum("nlij,lj->nli", a, shift)
        weight = (1 / (1 + rest.square().sum(-1) / SCALE**2)) ** 2
        normal = torch.einsum("nlij,nl,nlik->ljk", a, weight, a) + torch.eye(3, dtype=a.dtype) * (SCALE / PRIOR) ** 2
        shift = torch.linalg.solve(normal, torch.einsum("nlij,nl,nli->lj", a, weight, b))
    count = len(a) // 2
    before = b[:count].norm(dim=-1)
    after = (b - torch.einsum("nlij,lj->nli", a, shift))[:count].norm(dim=-1)
    middle = [
        [float(d[:, k][seen[:, k]].median()) if seen[:, k].any() else np.nan for k in range(33)]
        for d in (before, after)
    ]
    return Calibration(shift.float().numpy(), np.array(middle[0]), np.array(middle[1]), seen.sum(0).numpy())
