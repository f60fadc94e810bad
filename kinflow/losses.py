"""Losses of reconstruction: alignment with the image, time, likelihood and shape, each a pure function of tensors.

Every function returns one value per frame (or per interval, or per person), never a mean over the batch, so that a
caller weighs missing frames as it sees fit: :func:`masked_mean` does. Training (``training/tasks/reconstructor.py``) and
test-time refinement (``reconstruction/refine.py``) share them. The set follows Zanfir et al., "Weakly Supervised 3D Human
Pose and Shape Reconstruction with Normalizing Flows", ECCV 2020, section 3.2-3.3, with true time steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import timing
from .cameras import project
from .errors import ShapeError, check_shape
from .flow.normal import LOG_2PI, standard_normal_log_prob
from .rotations import geodesic_distance

_TINY = 1e-12


def masked_mean(value: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of ``value`` where ``valid`` (bool or weights >= 0, broadcast), a scalar; 0 where nothing is valid."""
    if valid is None:
        return value.mean()
    weight = valid.to(value.dtype).expand_as(value)
    # where() before the product: an invalid entry may hold anything, infinities too.
    kept = torch.where(weight > 0, value, torch.zeros_like(value))
    return (kept * weight).sum() / weight.sum().clamp_min(_TINY)


def geman_mcclure(squared: Tensor, scale: float | Tensor) -> Tensor:
    """Geman-McClure of a squared residual: ``scale^2 r^2 / (r^2 + scale^2)``: r^2 when small, at most ``scale^2``."""
    scale2 = scale * scale
    return scale2 * squared / (squared + scale2)


def huber(squared: Tensor, scale: float | Tensor) -> Tensor:
    """Pseudo-Huber of a squared residual: ``2 scale^2 (sqrt(1 + r^2/scale^2) - 1)``: r^2 when small, 2 scale r when large."""
    scale2 = scale * scale
    return 2 * scale2 * ((1 + squared / scale2).sqrt() - 1)


def keypoint_reprojection(
    points_cam: Tensor,
    keypoints2d: Tensor,
    confidence: Tensor,
    K: Tensor,
    size_px: Tensor,
    scale: float = 0.1,
) -> Tensor:
    """Robust distance of projected points to keypoints, in units of the person's size in the image.

    Args:
        points_cam: (..., P, 3) m, camera axes.
        keypoints2d: (..., P, 2) px.
        confidence: (..., P) in 0..1; 0 leaves a point out.
        K: (..., 3, 3).
        size_px: (...) the person's size in px (the box's side), by which residuals are divided.
        scale: the residual, in that unit, from which on a point counts as an outlier (Geman-McClure).

    Returns:
        (...) confidence-weighted mean of the robust squared residuals, divided by ``scale^2`` (so at most 1).
    """
    check_shape("points_cam", points_cam, "... P 3")
    check_shape("keypoints2d", keypoints2d, f"... {points_cam.shape[-2]} 2")
    check_shape("confidence", confidence, f"... {points_cam.shape[-2]}")
    residual = (project(points_cam, K) - keypoints2d) / size_px[..., None, None]
    value = geman_mcclure(residual.square().sum(-1), scale) / (scale * scale)
    return (value * confidence).sum(-1) / confidence.sum(-1).clamp_min(_TINY)


def part_alignment(
    vertices2d: Tensor,
    vertex_parts: Tensor,
    pixels: Tensor,
    pixel_parts: Tensor,
    size_px: Tensor,
    scale: float = 0.2,
    vertex_weight: Tensor | None = None,
) -> Tensor:
    """Semantic part alignment without rendering: pixels to projected vertices of their part, vertices to the person's pixels.

    The mean over the pixels of the robust distance to the nearest vertex of the same part (Zanfir et al. 2020, eq. 8), and over
    the vertices of that to the nearest pixel of any part: what is hidden behind another part still lies within the person. With
    a person mask and no labels give every vertex and pixel part 0.

    Args:
        vertices2d: (..., V, 2) px, projected vertices.
        vertex_parts: (V,) int part of each vertex.
        pixels: (..., P, 2) px, positions sampled from the segmentation.
        pixel_parts: (..., P) int part of each; negative marks padding.
        size_px: (...) the person's size, by which distances are divided.
        scale: distance in that unit from which on the loss grows no more (Geman-McClure).
        vertex_weight: (..., V) 0..1, e.g. 0 for vertices outside the image (their pixels cannot be seen); all 1 if None.

    Returns:
        (...) at most 2; 0 where no pixel is of a person.
    """
    check_shape("vertices2d", vertices2d, "... V 2")
    check_shape("pixels", pixels, "... P 2")
    check_shape("vertex_parts", vertex_parts, f"{vertices2d.shape[-2]}")
    check_shape("pixel_parts", pixel_parts, f"... {pixels.shape[-2]}")
    p, v = pixels / size_px[..., None, None], vertices2d / size_px[..., None, None]
    person = pixel_parts >= 0
    amount = person.any(-1, keepdim=True).to(size_px.dtype)  # of each vertex: 0 where nobody is seen
    if vertex_weight is not None:
        amount = amount * vertex_weight
    with torch.no_grad():  # which is nearest; the distances themselves are taken again below, with their gradients
        distance = torch.cdist(p, v)
        nearest_pixel = distance.masked_fill(~person[..., None], torch.inf).argmin(-2)
        other = (pixel_parts[..., :, None] != vertex_parts) | (amount <= 0)[..., None, :]
        near, nearest_vertex = distance.masked_fill_(other, torch.inf).min(-1)
    total = torch.zeros_like(size_px)
    for squared, weight in (
        ((p - _take(v, nearest_vertex)).square().sum(-1), torch.isfinite(near).to(size_px.dtype)),
        ((v - _take(p, nearest_pixel)).square().sum(-1), amount.expand(v.shape[:-1])),
    ):
        robust = geman_mcclure(squared, scale) / (scale * scale)
        total = total + (robust * weight).sum(-1) / weight.sum(-1).clamp_min(_TINY)
    return total


def _take(points: Tensor, index: Tensor) -> Tensor:
    """Rows (..., N) of points (..., M, 2) -> (..., N, 2)."""
    return points.gather(-2, index[..., None].expand(*index.shape, points.shape[-1]))


def joints3d(predicted: Tensor, target: Tensor, weight: Tensor | None = None, scale: float = 0.1) -> Tensor:
    """Pseudo-Huber distance of joints (..., J, 3) m to known ones -> (...), in units of ``scale`` metres squared.

    Both are compared as given: subtract the root beforehand for root-relative positions. ``weight`` is (..., J).
    """
    check_shape("predicted", predicted, "... J 3")
    check_shape("target", target, f"... {predicted.shape[-2]} 3")
    value = huber((predicted - target).square().sum(-1), scale) / (scale * scale)
    if weight is None:
        return value.mean(-1)
    return (value * weight).sum(-1) / weight.sum(-1).clamp_min(_TINY)


def rotation_geodesic(predicted_rotmat: Tensor, target_rotmat: Tensor, weight: Tensor | None = None) -> Tensor:
    """Geodesic angle (rad) between rotations (..., J, 3, 3), averaged over J (with ``weight`` (..., J)) -> (...)."""
    check_shape("predicted_rotmat", predicted_rotmat, "... J 3 3")
    check_shape("target_rotmat", target_rotmat, f"... {predicted_rotmat.shape[-3]} 3 3")
    angle = geodesic_distance(predicted_rotmat, target_rotmat)
    if weight is None:
        return angle.mean(-1)
    return (angle * weight).sum(-1) / weight.sum(-1).clamp_min(_TINY)


def landmark_alignment(
    landmarks3d: Tensor, measured: Tensor, std: Tensor, weight: Tensor, scale: float = 2.0
) -> Tensor:
    """Robust Mahalanobis distance of landmarks to measured ones after the best common shift.

    The measurements' standard deviations differ across the line of sight and along it. Scale is not free: how large the
    person is belongs to what was measured.

    Args:
        landmarks3d, measured: (..., P, 3) m, ray-aligned axes.
        std: (..., P, 2) m, of ``measured`` across the ray (either axis) and along it.
        weight: (..., P) >= 0.
        scale: standard deviations from which on the loss grows in proportion (pseudo-Huber).

    Returns:
        (...) weighted mean over the landmarks of half the squared distance, nats.
    """
    check_shape("landmarks3d", landmarks3d, "... P 3")
    check_shape("measured", measured, f"... {landmarks3d.shape[-2]} 3")
    check_shape("std", std, f"... {landmarks3d.shape[-2]} 2")
    precision = std.clamp_min(1e-4).square().reciprocal()[..., [0, 0, 1]]
    w = precision * weight[..., None]
    off = landmarks3d - measured
    off = off - (w * off).sum(-2, keepdim=True) / w.sum(-2, keepdim=True).clamp_min(_TINY)
    distance2 = (precision * off.square()).sum(-1)
    return 0.5 * (huber(distance2, scale) * weight).sum(-1) / weight.sum(-1).clamp_min(_TINY)


def acceleration(joints: Tensor, timestamps: Tensor, target: Tensor | None = None, scale: float = 10.0) -> Tensor:
    """Pseudo-Huber magnitude of joints' acceleration (or of its error), in true time.

    Args:
        joints: (..., T, J, 3) m.
        timestamps: (..., T) s, increasing.
        target: (..., T, J, 3) m known motion; the loss is then on the difference of the accelerations.
        scale: m/s^2.

    Returns:
        (..., T-2), in units of ``scale`` squared. Mask triplets that touch missing frames.
    """
    check_shape("joints", joints, "... T J 3")
    check_shape("timestamps", timestamps, f"... {joints.shape[-3]}")
    accel = timing.acceleration(joints if target is None else joints - target, timestamps)
    return (huber(accel.square().sum(-1), scale) / (scale * scale)).mean(-1)


def latent_smoothness(z: Tensor, timestamps: Tensor) -> Tensor:
    """Squared change of the latent per second, ``|dz|^2 / (D dt)`` (..., T, D) -> (..., T-1), 1/s.

    The negative log-density of a Brownian motion up to constants: halving the time steps of one path keeps its scale.
    """
    check_shape("z", z, "... T D")
    check_shape("timestamps", timestamps, f"... {z.shape[-2]}")
    dt = timestamps.diff(dim=-1).clamp_min(1e-6)
    return z.diff(dim=-2).square().mean(-1) / dt


def latent_nll(z: Tensor) -> Tensor:
    """Negative log-density of flow latents (..., D) under their standard normal -> (...), nats: the flow's prior."""
    return -standard_normal_log_prob(z)


def gaussian_nll(value: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Negative log-density of (..., D) under independent Gaussians -> (...), nats."""
    return 0.5 * ((value - mean).square() * torch.exp(-log_var) + log_var + LOG_2PI).sum(-1)


def gaussian_divergence(mean: Tensor, log_var: Tensor, other_mean: Tensor, other_log_var: Tensor) -> Tensor:
    """Kullback-Leibler divergence of independent Gaussians (..., D) from the first to the other -> (...), nats; 0 where alike."""
    off = (mean - other_mean).square() * torch.exp(-other_log_var)
    return 0.5 * (torch.exp(log_var - other_log_var) - 1 + other_log_var - log_var + off).sum(-1)


def dynamics_nll(log_prob: Tensor, valid: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of whole motions per frame: ``log_prob`` (..., T) nats -> (...).

    ``log_prob`` is what ``LatentDynamics.log_prob`` gives: each frame's density given the frames before it.
    """
    if valid is None:
        return -log_prob.mean(-1)
    kept = torch.where(valid, log_prob, torch.zeros_like(log_prob))
    return -kept.sum(-1) / valid.sum(-1).clamp_min(1)


def betas_prior(betas: Tensor) -> Tensor:
    """Shape coefficients (..., 10), unit variance -> (...): half their mean square."""
    return 0.5 * betas.square().mean(-1)


def contact_bce(logits: Tensor, contacts: Tensor) -> Tensor:
    """Binary cross-entropy of foot contact, logits and labels 0..1 (..., 4) -> (...), nats."""
    if logits.shape != contacts.shape:
        raise ShapeError(f"contacts: expected shape {tuple(logits.shape)} as the logits, got {tuple(contacts.shape)}.")
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, contacts, reduction="none").mean(-1)


def contact_velocity(feet_cam: Tensor, contacts: Tensor, timestamps: Tensor, scale: float = 0.5) -> Tensor:
    """Speed of feet that touch the ground, for a camera that stands still.

    Args:
        feet_cam: (..., T, 4, 3) m [left heel, left toe, right heel, right toe].
        contacts: (..., T, 4) probability.
        timestamps: (..., T) s.
        scale: m/s, pseudo-Huber.

    Returns:
        (..., T-1) in units of ``scale`` squared, weighted by the probability of contact at both ends.
    """
    check_shape("feet_cam", feet_cam, "... T 4 3")
    speed2 = timing.velocity(feet_cam, timestamps).square().sum(-1)
    weight = contacts[..., 1:, :] * contacts[..., :-1, :]
    return (huber(speed2, scale) / (scale * scale) * weight).mean(-1)
