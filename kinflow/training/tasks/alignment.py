"""Losses of windows without known poses: alignment with keypoints, parts and landmarks, and what is likely of poses and motions.

Source: Zanfir et al., "Weakly Supervised 3D Human Pose and Shape Reconstruction with Normalizing Flows", ECCV 2020, section
3.3, on whole windows of real video in true time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import losses
from ...body import Body
from ...body.kinematics import full_pose
from ...body.surface import surface_parts
from ...cameras import project
from ...config import WeakLossConfig
from ...dynamics import LatentDynamics
from ...flow import PoseFlow
from ...reconstruction.geometry import solve_translation
from ...reconstruction.refine import landmark_weights
from ...reconstruction.target import inside_crops
from ...timing import gather_time
from ..streams.projected import Sample

VERTICES = 256
"""Of the body, that are held against a mask."""
NLL_CAP = 6.0
"""Nats per coordinate beyond which a frame's pull is bounded."""
_FARTHEST = 1e4  # of a coordinate that a network may mean
_HIPS = (1, 2)


def alignment_terms(
    sample: Sample,
    frames: Tensor,
    pose: Tensor,
    root: Tensor,
    view: Tensor,
    betas: Tensor,
    body: Body,
    flow: PoseFlow,
    weights: WeakLossConfig,
) -> dict[str, Tensor]:
    """Terms by the name of their weight, over the frames whose pose is not known.

    The body is placed where its landmarks project best onto the keypoints, so that pose and shape alone are moved.

    Args:
        sample: B windows. frames: (B, F) those of each that were decoded.
        pose: (B, F, 21, 3, 3) of these; root: (B, F, 3, 3) to the camera; view: (B, F, 3, 3) from the ray's axes to the
            camera's; betas: (B, F, 10). flow: whose prior the pose has.

    Returns:
        Scalars; 0 where no frame has what the term needs.
    """
    known, obs = sample.known, sample.obs
    unknown = gather_time(obs.valid & ~known.pose, frames)
    rows = unknown.any(1).nonzero()[:, 0]
    zero = pose.new_zeros(())
    names = ("keypoints.seen", "parts", "landmarks", "joints3d.positions", "latent")
    if not len(rows):
        return dict.fromkeys(names, zero)
    pose, root, view, betas, unknown = (x[rows] for x in (pose, root, view, betas, unknown))

    def part(x: Tensor) -> Tensor:
        return gather_time(x[rows], frames[rows])

    K, seen = sample.K[rows, None], unknown & part(obs.observed)
    pixels, confidence = part(obs.keypoints2d), part(obs.confidence)
    rotmats = full_pose(pose, root)
    joints, landmarks = body.joints_and_landmarks(betas, rotmats, None)
    with torch.no_grad():
        # A network that broke down is told by its loss, not by a factorisation that fails.
        there = landmarks.nan_to_num(0.0, 0.0, 0.0).clamp(-10, 10)
        place = solve_translation(there, pixels, confidence, K).mean
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
        "latent": zero,
        "parts": zero,
        "landmarks": zero,
    }
    if weights.latent > 0:
        z = flow.encode(pose)[0]
        terms["latent"] = losses.masked_mean(losses.latent_nll(z) / z.shape[-1], unknown)
    lifted = seen & part(obs.has_world)
    if weights.landmarks > 0 and bool(lifted.any()):
        in_ray = (landmarks - joints[..., :1, :]) @ view
        off = losses.landmark_alignment(in_ray, part(obs.world), part(known.world_std), landmark_weights(confidence))
        terms["landmarks"] = losses.masked_mean(off, lifted)
    masked = seen & part(known.masked)
    if weights.parts > 0 and bool(masked.any()):
        ids = torch.linspace(0, body.num_vertices - 1, VERTICES, device=pose.device).round().long().unique()
        labelled = known.labelled[rows, None].expand_as(masked)
        told = surface_parts(body)[ids]
        values = []
        for kind, vertex_parts in (
            (labelled, told),
            (~labelled, torch.zeros_like(told)),
        ):  # a mask tells no parts apart
            at = (masked & kind).nonzero(as_tuple=True)
            if not len(at[0]):
                continue
            vertices = project(body.vertices(betas[at], rotmats[at], place[at], vertex_ids=ids), sample.K[rows][at[0]])
            inside = inside_crops(vertices.detach(), part(known.crops)[at])
            pixels, parts = part(known.pixels)[at], part(known.parts)[at]
            values.append(
                losses.part_alignment(vertices, vertex_parts, pixels, parts, size[at], weights.part_scale, inside)
            )
        terms["parts"] = torch.cat(values).mean()
    return terms


def motion_terms(
    sample: Sample, chart: Tensor, dynamics: LatentDynamics | None, weights: WeakLossConfig
) -> dict[str, Tensor]:
    """Terms by the name of their weight, over the windows of two frames or more of which no pose is known.

    Args:
        chart: (B, T, 63) poses of the windows' frames in the flow's chart. dynamics: whose likelihood it is; None where that weighs
            nothing.

    Returns:
        Scalars, per coordinate; 0 where there is no such window.
    """
    valid = sample.obs.valid
    rows = (~(valid & sample.known.pose).any(1) & (valid.sum(1) > 1)).nonzero()[:, 0]
    terms = dict.fromkeys(("dynamics", "smoothness"), chart.new_zeros(()))
    if not len(rows):
        return terms
    if not sound(chart):
        return dict.fromkeys(terms, torch.nan * chart.sum())
    chart, valid, times = chart[rows], valid[rows], sample.obs.timestamps[rows]
    # Padding, which repeats the last frame's time, follows it here in even steps.
    times = times + torch.cumsum(~valid, 1) / 30
    if dynamics is not None and weights.dynamics > 0:
        nll = -dynamics.log_prob(chart, times, valid) / chart.shape[-1]
        terms["dynamics"] = losses.masked_mean(bounded(nll), valid)
    if weights.smoothness > 0:
        terms["smoothness"] = losses.masked_mean(losses.latent_smoothness(chart, times), valid[:, 1:] & valid[:, :-1])
    return terms


def sound(chart: Tensor) -> bool:
    """Whether poses in the chart are those of a network that has not broken down: of unit variance, if they are people's."""
    return bool((chart.abs() < _FARTHEST).all())


def bounded(nll: Tensor) -> Tensor:
    """Negative log-likelihoods per coordinate, beyond :data:`NLL_CAP` a tenth of them: a frame far out pulls less."""
    return torch.where(nll > NLL_CAP, NLL_CAP + 0.1 * (nll - NLL_CAP), nll)
