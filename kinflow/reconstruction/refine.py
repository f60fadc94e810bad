"""Test-time optimisation: latents, root, translation and shape fitted to one clip's evidence under the training losses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import losses
from ..body import Body
from ..cameras import project
from ..config import LossConfig, RefineConfig
from ..dynamics import LatentDynamics
from ..errors import UsageError
from ..evidence import Evidence
from ..flow import PoseFlow
from ..motion import Motion
from ..rotations import rotvec_to_rotmat
from .geometry import local_view
from .kernel import Kernel, kernel_of
from .pose import full_pose

Progress = Callable[[int, int], None]
FEET = (29, 31, 30, 32)
"""BlazePose landmarks of left heel, left toe, right heel, right toe."""
_ROOT_STD = 0.15  # rad, how far the network's root is trusted
_MASK_THRESHOLD = 127


class Target(NamedTuple):
    """What one person's motion is fitted to (tensors (T, ...)), gathered once."""

    timestamps: Tensor
    observed: Tensor
    triplets: Tensor
    keypoints2d: Tensor
    confidence: Tensor
    K: Tensor
    size_px: Tensor
    world: Tensor
    has_world: Tensor
    ray_to_camera: Tensor
    pixels: Tensor | None
    pixel_parts: Tensor | None
    rois: Tensor


@dataclasses.dataclass
class Variables:
    """What is optimised."""

    z: Tensor
    turn: Tensor
    transl: Tensor
    betas: Tensor


def mask_pixels(masks: np.ndarray, rois: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the person sampled from crop masks.

    Args:
        masks: (T, S, S) uint8 person probability inside each crop.
        rois: (T, 4) centre x, y, side in px, angle in rad of the crop in the frame.
        count: pixels per frame; where a mask has fewer, some come twice.

    Returns:
        (T, count, 2) px in the frame and (T, count) part: 0, or -1 where a frame's mask is empty.
    """
    rng = np.random.default_rng(seed)
    side = masks.shape[-1]
    pixels = np.zeros((len(masks), count, 2), np.float32)
    parts = np.full((len(masks), count), -1, np.int64)
    for t, (mask, (cx, cy, size, angle)) in enumerate(zip(masks, rois, strict=True)):
        rows, columns = np.nonzero(mask > _MASK_THRESHOLD)
        if not len(rows) or size <= 0:
            continue
        pick = rng.permutation(len(rows))[:count] if len(rows) >= count else rng.integers(0, len(rows), count)
        u, v = (columns[pick] + 0.5) / side - 0.5, (rows[pick] + 0.5) / side - 0.5
        pixels[t, :, 0] = cx + size * (u * math.cos(angle) - v * math.sin(angle))
        pixels[t, :, 1] = cy + size * (u * math.sin(angle) + v * math.cos(angle))
        parts[t] = 0
    return pixels, parts


def inside_crops(points: Tensor, rois: Tensor) -> Tensor:
    """Which points (T, V, 2) px lie inside their frame's crop (T, 4) -> (T, V) 0 or 1."""
    offset = points - rois[:, None, :2]
    cos, sin = torch.cos(rois[:, 3])[:, None], torch.sin(rois[:, 3])[:, None]
    u = cos * offset[..., 0] + sin * offset[..., 1]
    v = -sin * offset[..., 0] + cos * offset[..., 1]
    return (torch.maximum(u.abs(), v.abs()) < rois[:, None, 2] / 2).to(points.dtype)


def gather_target(motion: Motion, evidence: Evidence, config: RefineConfig, device: torch.device) -> Target:
    """Collect one person's evidence as tensors.

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
    K = tensor(motion.K)
    centred = torch.where(observed[:, None, None], keypoints, K[:2, 2])
    weight = (confidence + 1e-3) / (confidence + 1e-3).sum(-1, keepdim=True)
    middle = (centred * weight[..., None]).sum(1, keepdim=True)
    size_px = 3 * ((centred - middle).square().sum(-1) * weight).sum(-1).clamp_min(1.0).sqrt()
    pixels = parts = None
    if evidence.masks is not None:
        pixels, parts = (tensor(x) for x in mask_pixels(evidence.masks, evidence.rois, config.pixels))
    return Target(
        tensor(evidence.timestamps - evidence.timestamps[0]), observed, observed[2:] & observed[1:-1] & observed[:-2],
        keypoints, confidence, K, size_px, tensor(evidence.world_landmarks), tensor(evidence.has_world),
        local_view(centred, confidence, K).ray_to_camera, pixels, parts, tensor(evidence.rois),
    )  # fmt: skip


def objective(
    v: Variables,
    start: Variables,
    root: Tensor,
    z_std: Tensor,
    contacts: Tensor,
    target: Target,
    flow: PoseFlow,
    dynamics: LatentDynamics,
    body: Body,
    weights: LossConfig,
    vertex_ids: Tensor,
    window: int,
    offset: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The refinement's loss and its terms (scalars, unweighted), each a mean over the frames it applies to."""
    pose = flow.decode(v.z)[0]
    rotmats = full_pose(root @ rotvec_to_rotmat(v.turn), pose)
    betas = v.betas.expand(len(v.z), -1)
    joints, landmarks = body.joints_and_landmarks(betas, rotmats, v.transl)
    seen = target.observed
    terms: dict[str, Tensor] = {
        "keypoints": losses.masked_mean(
            losses.keypoint_reprojection(
                landmarks, target.keypoints2d, target.confidence, target.K, target.size_px, weights.keypoint_scale
            ),
            seen,
        ),
        "posterior": (
            0.5 * ((v.z - start.z) / z_std).square().sum(-1) + 0.5 * (v.turn / _ROOT_STD).square().sum(-1)
        ).mean(),
        "latent": losses.latent_nll(v.z).mean(),
        "betas": losses.betas_prior(v.betas),
    }
    if weights.landmarks > 0 and bool(target.has_world.any()):
        axis_weight = landmarks.new_tensor([1.0, 1.0, weights.depth_weight])
        in_ray = (landmarks - v.transl[:, None]) @ target.ray_to_camera
        value = losses.landmark_alignment(in_ray, target.world, target.confidence, axis_weight=axis_weight)
        terms["landmarks"] = losses.masked_mean(value, target.has_world & seen)
    if weights.parts > 0 and target.pixels is not None and target.pixel_parts is not None:
        vertices = project(body.vertices(betas, rotmats, v.transl, vertex_ids=vertex_ids), target.K)
        weight = inside_crops(vertices.detach(), target.rois)
        one_part = torch.zeros(len(vertex_ids), dtype=torch.long, device=vertices.device)
        value = losses.part_alignment(
            vertices, one_part, target.pixels, target.pixel_parts, target.size_px, weights.part_scale, weight
        )
        terms["parts"] = losses.masked_mean(value, seen)
    if len(v.z) > 1:
        terms["smoothness"] = losses.latent_smoothness(v.z, target.timestamps).mean()
        terms["dynamics"] = _dynamics_term(v.z, target.timestamps, dynamics, window, offset, weights)
        if weights.contact_velocity > 0:
            terms["contact_velocity"] = losses.contact_velocity(
                landmarks[:, list(FEET)], contacts, target.timestamps
            ).mean()
    if len(v.z) > 2:
        terms["acceleration"] = losses.acceleration(joints, target.timestamps, scale=weights.acceleration_scale).mean()
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total, terms


def _dynamics_term(
    z: Tensor, timestamps: Tensor, dynamics: LatentDynamics, window: int, offset: int, weights: LossConfig
) -> Tensor:
    """Negative log-likelihood per frame, in windows whose borders move with ``offset`` so that no seam stays unjoined."""
    if weights.dynamics <= 0:
        return z.new_zeros(())
    usable = (len(z) - offset) // window if len(z) > window else 0
    if not usable:
        return losses.dynamics_nll(dynamics.log_prob(z[None], timestamps[None]), timestamps[None]).mean()
    rows = slice(offset, offset + usable * window)
    times = timestamps[rows].unflatten(0, (usable, window))
    return losses.dynamics_nll(dynamics.log_prob(z[rows].unflatten(0, (usable, window)), times), times).mean()


def refine_motions(
    motions: Sequence[Motion],
    evidences: Sequence[Evidence],
    flow: PoseFlow,
    dynamics: LatentDynamics,
    body: Body,
    config: RefineConfig,
    weights: LossConfig,
    progress: Progress | None,
    finish: Callable[..., Motion],
) -> list[Motion]:
    """Fit each motion to its evidence, starting from itself; the network's Gaussians stay as a prior.

    Args:
        progress: called with (iterations done, of how many).
        finish: makes the record from parameters (:meth:`Reconstructor.finish`).

    Raises:
        UsageError: motions and evidences that do not belong together.
    """
    if len(motions) != len(evidences):
        raise UsageError(f"evidences: expected one for each of {len(motions)} motions, got {len(evidences)}.")
    total = len(motions) * config.iterations
    out = []
    for person, (motion, evidence) in enumerate(zip(motions, evidences, strict=True)):
        done = person * config.iterations
        report = None if progress is None else (lambda i, done=done: progress(done + i, total))
        out.append(_refine_one(motion, evidence, flow, dynamics, body, config, weights, report, finish))
    return out


def _refine_one(
    motion: Motion,
    evidence: Evidence,
    flow: PoseFlow,
    dynamics: LatentDynamics,
    body: Body,
    config: RefineConfig,
    weights: LossConfig,
    report: Callable[[int], None] | None,
    finish: Callable[..., Motion],
) -> Motion:
    device = body.v_template.device
    target = gather_target(motion, evidence, config, device)
    start = Variables(
        *(
            torch.from_numpy(x).to(device)
            for x in (motion.z, np.zeros_like(motion.global_orient), motion.transl, motion.betas)
        )
    )
    root = rotvec_to_rotmat(torch.from_numpy(motion.global_orient).to(device))
    z_std = torch.from_numpy(motion.z_std).to(device).clamp_min(0.05)
    contacts = torch.from_numpy(motion.contacts).to(device)
    vertex_ids = torch.linspace(0, body.num_vertices - 1, config.vertices, device=device).round().long().unique()
    # What is optimised is a correction that is smooth in time, added to the start.
    free = Variables(
        *(torch.zeros_like(getattr(start, f.name)).requires_grad_() for f in dataclasses.fields(Variables))
    )
    kernel = kernel_of(target.timestamps[None], config.smooth)
    rates = (config.lr, config.lr_root, config.lr_transl, config.lr_betas)
    groups = [
        {"params": [getattr(free, f.name)], "lr": lr} for f, lr in zip(dataclasses.fields(free), rates, strict=True)
    ]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.iterations))
    with torch.enable_grad():
        for iteration in range(config.iterations):
            optimiser.zero_grad()
            offset = (iteration * 17) % config.window
            v = _corrected(start, free, kernel)
            loss, _ = objective(
                v,
                start,
                root,
                z_std,
                contacts,
                target,
                flow,
                dynamics,
                body,
                weights,
                vertex_ids,
                config.window,
                offset,
            )
            loss.backward()
            optimiser.step()
            schedule.step()
            if report is not None:
                report(iteration + 1)
    with torch.no_grad():
        v = _corrected(start, free, kernel)
        return finish(
            evidence, torch.from_numpy(motion.K), v.betas.detach(), root @ rotvec_to_rotmat(v.turn), v.z.detach(),
            v.transl.detach(), z_std, contacts, joints3d_std=motion.joints3d_std,
        )  # fmt: skip


def _corrected(start: Variables, free: Variables, kernel: Kernel) -> Variables:
    z, turn, transl = (kernel(x[None])[0] for x in (free.z, free.turn, free.transl))
    return Variables(start.z + z, turn, start.transl + transl, start.betas + free.betas)
