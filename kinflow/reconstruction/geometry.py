"""Closed-form geometry of one person before a full-frame pinhole camera.

Three frames: *camera* (OpenCV axes), *ray* (the camera turned, by the smallest rotation, to look along the ray to the
person: what a crop shows and what BlazePose's world landmarks refer to) and *root* (axes of the torso: x to the
subject's left, y up the spine, z out of the chest).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..cameras import rays
from ..errors import check_shape

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 11, 12, 23, 24
TORSO = (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP)
_EPS = 1e-6
_NEAREST_M = 0.1
"""Whoever is seen is at least so far before the camera."""


def ray_rotmat(direction: Tensor) -> Tensor:
    """Smallest rotation that turns the optical axis into ``direction`` (..., 3), z > 0 -> (..., 3, 3), ray to camera."""
    x, y, z = torch.nn.functional.normalize(direction, dim=-1).unbind(-1)
    # Rodrigues about e_z x d, written out; finite for z > -1.
    k = 1 / (1 + z)
    rows = (1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, z)
    return rearrange(torch.stack(rows, -1), "... (i j) -> ... i j", i=3)


def torso_centre(points: Tensor, confidence: Tensor) -> Tensor:
    """Mean of hips (twice) and shoulders of landmarks (..., 33, D), weighted by confidence (..., 33) -> (..., D).

    The other landmarks count a hundredth, so that there is a centre where the torso was not seen.
    """
    share = points.new_full((points.shape[-2],), 0.01)
    share[list(TORSO)] = points.new_tensor([1.0, 1.0, 2.0, 2.0])
    weight = (confidence + 1e-5) * share
    return (points * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True)


def spread(points: Tensor, confidence: Tensor) -> Tensor:
    """Root mean square distance of points (..., P, D) from the origin, weighted by confidence (..., P) -> (...)."""
    weight = confidence + 1e-5
    return ((points.square().sum(-1) * weight).sum(-1) / weight.sum(-1)).clamp_min(1e-12).sqrt()


def root_rotmat(landmarks: Tensor) -> Tensor:
    """Axes of the torso from 3D landmarks (..., 33, 3), any unit -> (..., 3, 3), root to the landmarks' frame.

    y from mid-hips to mid-shoulders, x from right to left hip and shoulder made square to it, z out of the chest.
    Where the torso has no extent the axes fall back to a person who stands upright and faces the camera.
    """
    hips, shoulders = landmarks[..., [LEFT_HIP, RIGHT_HIP], :], landmarks[..., [LEFT_SHOULDER, RIGHT_SHOULDER], :]
    up = shoulders.mean(-2) - hips.mean(-2)
    left = 2 * (hips[..., 0, :] - hips[..., 1, :]) + (shoulders[..., 0, :] - shoulders[..., 1, :])
    y = up / up.norm(dim=-1, keepdim=True).clamp_min(_EPS)
    across = left - (left * y).sum(-1, keepdim=True) * y
    length = across.norm(dim=-1, keepdim=True)
    x = across / length.clamp_min(_EPS)
    rotmat = torch.stack((x, y, torch.linalg.cross(x, y)), -1)
    facing = torch.diag(landmarks.new_tensor([1.0, -1.0, -1.0]))
    sound = (length[..., 0] > 1e-4) & (up.norm(dim=-1) > 1e-4)
    return torch.where(sound[..., None, None], rotmat, facing)


class LocalView(NamedTuple):
    """The person's keypoints as a camera sees them that looks along the ray to the torso.

    Attributes:
        points: (..., 33, 2) image-plane coordinates at depth 1 around the torso's centre.
        ray_to_camera: (..., 3, 3).
        centre: (..., 2) x/z and y/z of the ray to the torso in camera axes.
    """

    points: Tensor
    ray_to_camera: Tensor
    centre: Tensor


def local_view(keypoints2d: Tensor, confidence: Tensor, K: Tensor) -> LocalView:
    """Turn full-frame pixels (..., 33, 2) into the ray-aligned view, with ``K`` (..., 3, 3)."""
    check_shape("keypoints2d", keypoints2d, "... 33 2")
    plane = rays(keypoints2d, K)
    centre = torso_centre(plane, confidence)
    one = torch.ones_like(centre[..., :1])
    ray_to_camera = ray_rotmat(torch.cat((centre, one), -1))
    directions = torch.cat((plane, torch.ones_like(plane[..., :1])), -1) @ ray_to_camera
    points = directions[..., :2] / directions[..., 2:].clamp_min(0.05)
    return LocalView(points, ray_to_camera, centre)


class Translation(NamedTuple):
    """Least-squares translation (..., 3) m and its covariance (..., 3, 3) m^2, in camera axes."""

    mean: Tensor
    covariance: Tensor


def solve_translation(
    points: Tensor, keypoints2d: Tensor, weight: Tensor, K: Tensor, sigma: float | Tensor = 0.03, iterations: int = 4
) -> Translation:
    """Translation that puts root-relative points onto their keypoints: full perspective, closed form, differentiable.

    Each keypoint says ``(X + t_x) - u (Z + t_z) = 0`` and the like for y: linear in t. Distances in this algebraic form
    are metres at the person, so no weighting by depth is needed; a few reweightings (Cauchy) bound outliers.

    Args:
        points: (..., P, 3) m, camera axes, relative to the translation sought.
        keypoints2d: (..., P, 2) px.
        weight: (..., P) >= 0, e.g. the confidence.
        K: (..., 3, 3).
        sigma: m, standard deviation of one point's error (of keypoint and pose together) at weight 1; (...) or a number.
        iterations: rounds of reweighting.

    Returns:
        Mean and covariance; a weak prior (4 m +- 10 m of depth) keeps them finite where nothing is seen. Nobody is behind the
        camera: where keypoints fit the points best there, for they show them upside down, their sizes alone tell the depth.
    """
    check_shape("points", points, "... P 3")
    uv = rays(keypoints2d, K)
    one, zero = torch.ones_like(uv[..., 0]), torch.zeros_like(uv[..., 0])
    # Rows of the design matrix, (..., P, 2, 3), and their right-hand side.
    design = torch.stack((torch.stack((one, zero, -uv[..., 0]), -1), torch.stack((zero, one, -uv[..., 1]), -1)), -2)
    rhs = uv * points[..., 2:] - points[..., :2]
    prior_precision = torch.diag(points.new_tensor([1e-4, 1e-4, 1e-2]))
    prior_info = points.new_tensor([0.0, 0.0, 0.04])
    if not isinstance(sigma, Tensor):
        sigma = points.new_tensor(sigma)
    precision_unit = 1 / sigma.square()
    robust = torch.ones_like(weight)
    for _ in range(iterations):
        w = weight * robust * precision_unit[..., None]
        normal = torch.einsum("...p,...pki,...pkj->...ij", w, design, design) + prior_precision
        info = torch.einsum("...p,...pki,...pk->...i", w, design, rhs) + prior_info
        factor = torch.linalg.cholesky(normal)
        mean = torch.cholesky_solve(info[..., None], factor)[..., 0]
        residual = torch.einsum("...pki,...i->...pk", design, mean) - rhs
        scale2 = 4 * sigma.square()[..., None]
        robust = (1 / (1 + residual.square().sum(-1) / scale2)).detach()
    return Translation(_before_camera(mean, points, uv, weight), torch.cholesky_inverse(factor))


def _before_camera(transl: Tensor, points: Tensor, uv: Tensor, weight: Tensor) -> Tensor:
    """Translations (..., 3), of which those that leave the points' middle behind the camera are told by sizes instead."""
    share = (weight / weight.sum(-1, keepdim=True).clamp_min(_EPS))[..., None]
    middle, centre = (share * points).sum(-2), (share * uv).sum(-2)
    behind = middle[..., 2] + transl[..., 2] < _NEAREST_M
    size, seen = (
        (share * (x - c[..., None, :]).square()).sum((-1, -2)).clamp_min(_EPS).sqrt()
        for x, c in ((points[..., :2], middle[..., :2]), (uv, centre))
    )
    depth = (size / seen).clamp_min(_NEAREST_M)[..., None]
    told = torch.cat((depth * centre - middle[..., :2], depth - middle[..., 2:]), -1)
    return torch.where(behind[..., None], told, transl)
