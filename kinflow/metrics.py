"""Errors of 3D human motion: pure functions of tensors, one value per frame or joint, never pooled over a batch.

Positions in metres, times in seconds; results in metres and m/s^2 (multiply by 1000 for the field's millimetres).
How they are pooled, which joints enter and which root is subtracted belong to a benchmark's protocol.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import check_shape
from .timing import acceleration, jerk


def _pair(predicted: Tensor, target: Tensor, last: int = 3) -> None:
    check_shape("predicted", predicted, f"... J {last}")
    check_shape("target", target, f"... {predicted.shape[-2]} {last}")


def joint_errors(predicted: Tensor, target: Tensor, root: int | tuple[int, ...] | None = 0) -> Tensor:
    """Distance of each joint of (..., J, 3) -> (..., J), m; arguments as of :func:`mpjpe`."""
    _pair(predicted, target)
    if root is not None:
        index = [root] if isinstance(root, int) else list(root)
        predicted = predicted - predicted[..., index, :].mean(-2, keepdim=True)
        target = target - target[..., index, :].mean(-2, keepdim=True)
    return (predicted - target).norm(dim=-1)


def mpjpe(predicted: Tensor, target: Tensor, root: int | tuple[int, ...] | None = 0) -> Tensor:
    """Mean per-joint position error of (..., J, 3) -> (...), m, after both roots are moved to the origin.

    Args:
        predicted, target: (..., J, 3) m.
        root: joint index, or several whose mean is the root (the hips), or None for positions as given.
    """
    return joint_errors(predicted, target, root).mean(-1)


class Similarity(NamedTuple):
    """``scale * points @ rotation + shift`` of row vectors: scale (..., 1, 1), rotation (..., 3, 3), shift (..., 1, 3)."""

    scale: Tensor
    rotation: Tensor
    shift: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """Points (..., N, 3) moved."""
        return self.scale * (points @ self.rotation) + self.shift


def similarity(points: Tensor, target: Tensor, scale: bool = True) -> Similarity:
    """Best similarity transform (rotation, scale, shift) of points (..., N, 3) onto ``target``.

    Least squares in closed form (Umeyama, PAMI 1991, eq. (40)-(43)); rotations only, never a reflection. Without ``scale``
    the best rigid one.
    """
    _pair(points, target)
    centre, centre_target = points.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = points - centre, target - centre_target
    u, s, vh = torch.linalg.svd(a.transpose(-1, -2) @ b)
    sign = torch.ones_like(s)
    sign[..., -1] = torch.det(u @ vh).sign()
    rotation = (u * sign[..., None, :]) @ vh
    size = (s * sign).sum(-1) / a.square().sum((-1, -2)).clamp_min(1e-12)
    factor = (size if scale else torch.ones_like(size))[..., None, None]
    return Similarity(factor, rotation, centre_target - factor * (centre @ rotation))


def similarity_align(points: Tensor, target: Tensor) -> Tensor:
    """Points (..., J, 3) after their best :func:`similarity` onto ``target`` -> (..., J, 3)."""
    return similarity(points, target)(points)


def pa_mpjpe(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean per-joint error of (..., J, 3) after Procrustes alignment of each frame -> (...), m."""
    return (similarity_align(predicted, target) - target).norm(dim=-1).mean(-1)


def pve(
    predicted: Tensor, target: Tensor, predicted_root: Tensor | None = None, target_root: Tensor | None = None
) -> Tensor:
    """Per-vertex error of (..., V, 3) -> (...), m; with roots (..., 3) both meshes are moved to them first."""
    _pair(predicted, target)
    if predicted_root is not None:
        predicted = predicted - predicted_root[..., None, :]
    if target_root is not None:
        target = target - target_root[..., None, :]
    return (predicted - target).norm(dim=-1).mean(-1)


def acceleration_error(predicted: Tensor, target: Tensor, timestamps: Tensor) -> Tensor:
    """Mean joint acceleration error of (..., T, J, 3) -> (..., T-2), m/s^2, by the true time steps (..., T) s."""
    _pair(predicted, target)
    check_shape("timestamps", timestamps, f"... {predicted.shape[-3]}")
    return acceleration(predicted - target, timestamps).norm(dim=-1).mean(-1)


def acceleration_magnitude(joints: Tensor, timestamps: Tensor) -> Tensor:
    """Mean joint acceleration of (..., T, J, 3) -> (..., T-2), m/s^2: the jitter where the truth is not known."""
    return acceleration(joints, timestamps).norm(dim=-1).mean(-1)


def jerk_error(predicted: Tensor, target: Tensor, timestamps: Tensor) -> Tensor:
    """Mean joint jerk error of (..., T, J, 3) -> (..., T-3), m/s^3, by the true time steps (..., T) s."""
    _pair(predicted, target)
    check_shape("timestamps", timestamps, f"... {predicted.shape[-3]}")
    return jerk(predicted - target, timestamps).norm(dim=-1).mean(-1)


def successive_valid(valid: Tensor, count: int) -> Tensor:
    """(..., T) bool -> (..., T-count+1) bool: where ``count`` frames in a row are valid, so that no difference crosses a gap."""
    return valid.unfold(-1, count, 1).all(-1) if valid.shape[-1] >= count else valid[..., :0]


def triplets_valid(valid: Tensor) -> Tensor:
    """(..., T) bool -> (..., T-2) bool: frames that have both neighbours, as accelerations need them."""
    return successive_valid(valid, 3)


def pck(predicted: Tensor, target: Tensor, confidence: Tensor, torso: Tensor, threshold: float = 0.2,
        min_confidence: float = 0.5) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Correct keypoints at ``threshold`` of the torso's length.

    Args:
        predicted, target: (..., P, 2) px.
        confidence: (..., P) of the target; points below ``min_confidence`` do not count.
        torso: (...) px, the length of the torso (mid-shoulder to mid-hip).
        threshold: fraction of the torso.

    Returns:
        (...) number of correct points and (...) number of points that count, so that the caller pools as counts.
    """
    _pair(predicted, target, last=2)
    counted = confidence >= min_confidence
    distance = (predicted - target).norm(dim=-1)
    correct = counted & (distance <= threshold * torso[..., None])
    return correct.sum(-1), counted.sum(-1)


def torso_length(keypoints: Tensor) -> Tensor:
    """Mid-shoulder to mid-hip of BlazePose landmarks (..., 33, D) -> (...), in their unit."""
    check_shape("keypoints", keypoints, "... 33 D")
    shoulders = keypoints[..., [11, 12], :].mean(-2)
    return (shoulders - keypoints[..., [23, 24], :].mean(-2)).norm(dim=-1)


def pck3d(errors: Tensor, threshold: float = 0.05) -> Tensor:
    """Share of joints within ``threshold`` m of the truth: errors (..., J) m -> (...)."""
    return (errors <= threshold).to(errors.dtype).mean(-1)


def auc3d(errors: Tensor, highest: float = 0.2) -> Tensor:
    """Area under the curve of :func:`pck3d` over thresholds 0 to ``highest`` m, as a share of all: (..., J) m -> (...).

    The integral in closed form: a joint off by e is inside for the part ``1 - e / highest`` of the thresholds.
    """
    return (1 - errors / highest).clamp_min(0).mean(-1)


def f1_score(found: Tensor, true: Tensor) -> Tensor:
    """Harmonic mean of precision and recall of what was found (...) bool among what is true (...) bool; NaN where nothing is."""
    hits = (found & true).sum().double()
    return torch.where(true.any(), 2 * hits / (found.sum() + true.sum()), torch.nan)


# -- in the world ---------------------------------------------------------------------------------------------------------


def world_mpjpe(predicted: Tensor, target: Tensor, aligned: int | None = 2, segment: int = 100) -> Tensor:
    """W-MPJPE and WA-MPJPE of joints in the world (..., T, J, 3) -> (..., T), m.

    Segments of ``segment`` frames (the last is shorter) are aligned one by one, each by one similarity transform, as the field
    does since SLAHMR (Ye et al., CVPR 2023).

    Args:
        aligned: the transform is the best one of so many first frames of the segment (W-MPJPE), or of all (None: WA-MPJPE).
    """
    _pair(predicted, target)
    out = []
    for mine, truth in zip(predicted.split(segment, -3), target.split(segment, -3), strict=True):
        first = mine.shape[-3] if aligned is None else aligned
        fit = similarity(mine[..., :first, :, :].flatten(-3, -2), truth[..., :first, :, :].flatten(-3, -2))
        out.append((fit(mine.flatten(-3, -2)) - truth.flatten(-3, -2)).norm(dim=-1).unflatten(-1, mine.shape[-3:-1]))
    return torch.cat(out, -2).mean(-1)


def root_translation_error(predicted: Tensor, target: Tensor) -> Tensor:
    """RTE of a root's path (..., T, 3) -> (..., T): distance after the best rigid alignment of the whole path, as a share of
    the length of the true path (WHAM, Shin et al., CVPR 2024, times 100 for their per cent).

    Infinite where the truth does not move.
    """
    _pair(predicted, target)
    off = (similarity(predicted, target, scale=False)(predicted) - target).norm(dim=-1)
    return off / target.diff(dim=-2).norm(dim=-1).sum(-1, keepdim=True)


class Sliding(NamedTuple):
    """Of feet (..., T, F, 3): how far each moved since the frame before (..., T-1, F), m, and whether the truth stood."""

    distance: Tensor
    standing: Tensor


def foot_sliding(predicted: Tensor, target: Tensor, timestamps: Tensor, standing_speed: float = 0.3) -> Sliding:
    """How far points of the feet move while those of the truth stand.

    Args:
        predicted, target: (..., T, F, 3) m, world.
        timestamps: (..., T) s.
        standing_speed: m/s under which a point of the truth stands: the field's centimetre a frame at 30 frames/s.
    """
    _pair(predicted, target)
    check_shape("timestamps", timestamps, f"... {predicted.shape[-3]}")
    speed = target.diff(dim=-3).norm(dim=-1) / timestamps.diff(dim=-1).to(target.dtype)[..., None]
    return Sliding(predicted.diff(dim=-3).norm(dim=-1), speed < standing_speed)


# -- predicted deviations -------------------------------------------------------------------------------------------------


def gaussian_nll(error: Tensor, std: Tensor) -> Tensor:
    """Negative log-likelihood of errors (..., 3) m under independent Gaussians of ``std`` (..., 3), or (..., 1) for all
    axes alike, m -> (...), nats."""
    check_shape("error", error, "... 3")
    std = std.expand_as(error)
    return (std.log() + 0.5 * math.log(2 * math.pi) + 0.5 * (error / std).square()).sum(-1)


def covered(error: Tensor, std: Tensor, level: float) -> Tensor:
    """Whether errors (..., 3) lie in the ellipsoid that a Gaussian of ``std`` (..., 3), or (..., 1) for all axes alike,
    fills to ``level`` -> (...) bool.

    Of a calibrated prediction a share ``level`` does. The ellipsoid's content is the chi-square distribution function of three
    degrees of freedom.
    """
    check_shape("error", error, "... 3")
    half = 0.5 * (error / std).square().sum(-1)
    return torch.special.gammainc(torch.full_like(half, 1.5), half) <= level
