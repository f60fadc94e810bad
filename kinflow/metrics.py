"""Errors of 3D human motion: pure functions of tensors, one value per frame or joint, never pooled over a batch.

Positions in metres, times in seconds; results in metres and m/s^2 (multiply by 1000 for the field's millimetres).
How they are pooled, which joints enter and which root is subtracted belong to a benchmark's protocol.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import check_shape
from .timing import acceleration


def _pair(predicted: Tensor, target: Tensor, last: int = 3) -> None:
    check_shape("predicted", predicted, f"... J {last}")
    check_shape("target", target, f"... {predicted.shape[-2]} {last}")


def mpjpe(predicted: Tensor, target: Tensor, root: int | tuple[int, ...] | None = 0) -> Tensor:
    """Mean per-joint position error of (..., J, 3) -> (...), m, after both roots are moved to the origin.

    Args:
        predicted, target: (..., J, 3) m.
        root: joint index, or several whose mean is the root (the hips), or None for positions as given.
    """
    _pair(predicted, target)
    if root is not None:
        index = [root] if isinstance(root, int) else list(root)
        predicted = predicted - predicted[..., index, :].mean(-2, keepdim=True)
        target = target - target[..., index, :].mean(-2, keepdim=True)
    return (predicted - target).norm(dim=-1).mean(-1)


def similarity_align(points: Tensor, target: Tensor) -> Tensor:
    """Best similarity transform (rotation, scale, shift) of points (..., J, 3) onto ``target``, applied -> (..., J, 3).

    Least squares in closed form (Umeyama, PAMI 1991); rotations only, never a reflection.
    """
    _pair(points, target)
    centre, centre_target = points.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = points - centre, target - centre_target
    u, s, vh = torch.linalg.svd(a.transpose(-1, -2) @ b)
    sign = torch.ones_like(s)
    sign[..., -1] = torch.det(u @ vh).sign()
    rotation = (u * sign[..., None, :]) @ vh  # row vectors: a @ rotation
    scale = (s * sign).sum(-1) / a.square().sum((-1, -2)).clamp_min(1e-12)
    return scale[..., None, None] * (a @ rotation) + centre_target


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


def triplets_valid(valid: Tensor) -> Tensor:
    """(..., T) bool -> (..., T-2) bool: frames that have both neighbours, so that no acceleration crosses a gap."""
    return valid[..., 2:] & valid[..., 1:-1] & valid[..., :-2]


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
