"""Losses of windows without known poses: alignment with keypoints, masks and joints, and the flow's prior (Zanfir et al., ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import losses
from ...body import Body
from ...body.kinematics import full_pose
from ...cameras import project
from ...config import TrainingLossConfig
from ...reconstruction.geometry import solve_translation
from ...timing import gather_time
from ..streams.projected import Sample

VERTICES = 256
"""Of the body, that are held against a mask."""
_HIPS = (1, 2)


def alignment_terms(
    sample: Sample,
    frames: Tensor,
    z: Tensor,
    pose: Tensor,
    root: Tensor,
    betas: Tensor,
    body: Body,
    weights: TrainingLossConfig,
) -> dict[str, Tensor]:
    """Terms by the name of their weight, over the frames whose pose is not known.

    The body is placed where its landmarks project best onto the keypoints, so that pose and shape alone are moved.

    Args:
        sample: B windows. frames: (B, F) those of each that were decoded.
        z: (B, F, 63) latents; pose: (B, F, 21, 3, 3) decoded from them; root: (B, F, 3, 3) to the camera; betas: (B, F, 10).

    Returns:
        Scalars; 0 where no frame has what the term needs.
    """
    known, obs = sample.known, sample.obs
    unknown = gather_time(obs.valid & ~known.pose, frames)
    rows = unknown.any(1).nonzero()[:, 0]
    zero = z.new_zeros(())
    names = ("keypoints.seen", "parts", "joints3d.positions", "latent")
    if not len(rows):
        return dict.fromkeys(names, zero)
    z, pose, root, betas, unknown = (x[rows] for x in (z, pose, root, betas, unknown))

    def part(x: Tensor) -> Tensor:
        return gather_time(x[rows], frames[rows])

    K, seen = sample.K[rows, None], unknown & part(obs.observed)
    pixels, confidence = part(obs.keypoints2d), part(obs.confidence)
    rotmats = full_pose(pose, root)
    joints, landmarks = body.joints_and_landmarks(betas, rotmats, None)
    with torch.no_grad():
        place = solve_translation(landmarks, pixels, confidence, K).mean
        place = torch.cat((place[..., :2], place[..., 2:].clamp_min(0.5)), -1)
        middle = (pixels * confidence[..., None]).sum(-2, keepdim=True) / (confidence.sum(-1)[..., None, None] + 1e-6)
        spread = ((pixels - middle).square().sum(-1) * confidence).sum(-1) / (confidence.sum(-1) + 1e-6)
        size = 3 * spread.clamp_min(1.0).sqrt()
    reprojection = losses.keypoint_reprojection(
        landmarks + place[..., None, :], pixels, confidence, K, size, weights.keypoint_scale
    )
    positions = joints - joints[..., _HIPS, :].mean(-2, keepdim=True)
    there = part(known.joints_known)
    distance = losses.joints3d(positions, part(known.joints), there.to(positions.dtype))
    terms = {
        "keypoints.seen": losses.masked_mean(reprojection, seen),
        "joints3d.positions": losses.masked_mean(distance, unknown & there.any(-1)),
        "latent": losses.masked_mean(losses.latent_nll(z) / z.shape[-1], unknown),
        "parts": zero,
    }
    masked = seen & part(known.masked)
    if weights.parts > 0 and bool(masked.any()):
        ids = torch.linspace(0, body.num_vertices - 1, VERTICES, device=z.device).round().long().unique()
        at = masked.nonzero(as_tuple=True)
        vertices = body.vertices(betas[at], rotmats[at], place[at], vertex_ids=ids)
        inside = part(known.pixels)[at]
        one = torch.zeros(len(ids), dtype=torch.long, device=z.device)  # a mask tells no parts apart
        whole = torch.zeros(inside.shape[:-1], dtype=torch.long, device=z.device)
        flat = project(vertices, sample.K[rows][at[0]])
        terms["parts"] = losses.part_alignment(flat, one, inside, whole, size[at], weights.part_scale).mean()
    return terms
