"""A model of what a keypoint network gets wrong, for training on projected motion capture.

Errors are alike from frame to frame (AR(1) in true time), grow where confidence is low, and are of the kinds seen in
BlazePose's output: landmarks defined a little differently, swapped sides, limbs shrunk in depth or bent the wrong way,
a torso that leans or turns, world landmarks sized for an average person.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...config import NoiseConfig
from ...skeleton import BLAZEPOSE, COCO17, MIRROR_BLAZEPOSE, keypoint_map

_LIMBS = {
    "left_arm": (11, (13, 15, 17, 19, 21)), "right_arm": (12, (14, 16, 18, 20, 22)),
    "left_leg": (23, (25, 27, 29, 31)), "right_leg": (24, (26, 28, 30, 32)), "head": (None, tuple(range(11))),
}  # fmt: skip
_GROUPS = (
    *(points for _, points in _LIMBS.values()),
    (15, 17, 19, 21),
    (16, 18, 20, 22),
    (25, 26, 27, 28, 29, 30, 31, 32),
)
_FACTOR = {"eye": 0.5, "nose": 0.5, "mouth": 0.5, "ear": 0.7, "shoulder": 1.0, "hip": 1.2, "elbow": 1.0, "knee": 1.0,
           "wrist": 1.1, "ankle": 1.0, "heel": 1.2, "index": 1.5, "pinky": 1.5, "thumb": 1.4}  # fmt: skip


def _point_factor() -> Tensor:
    factors = []
    for name in BLAZEPOSE:
        words = name.split("_")
        factors.append(next((_FACTOR[w] for w in reversed(words) if w in _FACTOR), 1.0))
    return torch.tensor(factors)


class Noisy(NamedTuple):
    """Keypoints (B, T, 33, 2) px, confidence (B, T, 33), world landmarks (B, T, 33, 3) m ray-aligned."""

    keypoints2d: Tensor
    confidence: Tensor
    world: Tensor


def ar1(shape: tuple[int, ...], dt: Tensor, tau: Tensor, rng: torch.Generator) -> Tensor:
    """Unit-variance noise (B, T, *shape) whose correlation decays over ``tau`` (B,) s at steps ``dt`` (B, T)."""
    batch, steps = dt.shape
    white = torch.randn(batch, steps, *shape, generator=rng)
    keep = torch.exp(-dt / tau[:, None]).reshape(batch, steps, *([1] * len(shape)))
    fresh = (1 - keep.square()).sqrt()
    out = [white[:, 0]]
    for t in range(1, steps):
        out.append(keep[:, t] * out[-1] + fresh[:, t] * white[:, t])
    return torch.stack(out, 1)


def bursts(count: int, dt: Tensor, rate: Tensor, seconds: float, rng: torch.Generator) -> Tensor:
    """On/off processes (B, T, count) bool: on with ``rate`` (B,) per second, for ``seconds`` on average."""
    batch, steps = dt.shape
    draw = torch.rand(batch, steps, count, generator=rng)
    start = 1 - torch.exp(-rate[:, None] * dt)
    stop = 1 - torch.exp(-dt / seconds)
    share = (rate * seconds / (1 + rate * seconds))[:, None]
    on = torch.rand(batch, count, generator=rng) < share
    out = []
    for t in range(steps):
        on = torch.where(on, draw[:, t] >= stop[:, t, None], draw[:, t] < start[:, t, None])
        out.append(on)
    return torch.stack(out, 1)


def log_uniform(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Numbers whose logarithm is uniform."""
    return low * (high / low) ** torch.rand(shape, generator=rng)


def corrupt(
    keypoints2d: Tensor,
    landmarks_ray: Tensor,
    size_px: Tensor,
    metres_per_size: Tensor,
    inside: Tensor,
    height_ratio: Tensor,
    dt: Tensor,
    config: NoiseConfig,
    rng: torch.Generator,
) -> Noisy:
    """Corrupt exact projections and landmarks.

    Args:
        keypoints2d: (B, T, 33, 2) px, exact.
        landmarks_ray: (B, T, 33, 3) m, exact, ray-aligned, origin between the hips.
        size_px: (B, T) the person's size in px; metres_per_size: (B, T) the same length in m.
        inside: (B, T, 33) bool, within the image.
        height_ratio: (B,) the person's height over the average.
        dt: (B, T) s.
    """
    batch, _, points = keypoints2d.shape[:3]
    factor = _point_factor()

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, 1, *shape, generator=rng)

    def severity(low: float, high: float) -> Tensor:
        return log_uniform(low, high, (batch, 1), rng)

    # What is hard to see.
    hidden = torch.zeros(batch, dt.shape[1], points, dtype=torch.bool)
    occlusion_rate = config.occlusion * torch.rand(batch, generator=rng)
    for group, on in zip(_GROUPS, bursts(len(_GROUPS), dt, occlusion_rate, 0.8, rng).unbind(-1), strict=True):
        hidden[..., list(group)] |= on[..., None]
    far = (landmarks_ray[..., 2] - landmarks_ray[..., [11, 12, 23, 24], 2].mean(-1, keepdim=True)).clamp_min(0)
    veil = (far / 0.3).clamp_max(1) * torch.rand(batch, 1, 1, generator=rng) * 0.5
    dim = ar1((points,), dt, log_uniform(0.1, 1.0, (batch,), rng), rng).abs() * 0.08
    confidence = 1 - dim - 0.6 * veil
    lost = hidden | ~inside
    drop = 0.35 + 0.6 * torch.rand(batch, 1, points, generator=rng)
    confidence = torch.where(lost, confidence * (1 - drop), confidence).clamp(0.02, 0.9999)
    harder = factor * torch.where(lost, 4.0, 1.0) * (1 + 1.5 * veil)

    # The image plane, in units of the person's size.
    tau = log_uniform(0.04, 0.6, (batch,), rng)
    sigma = severity(*config.jitter2d)
    slow = ar1((points, 2), dt, 4 * tau, rng)
    quick = ar1((points, 2), dt, tau, rng)
    error = (sigma[..., None] * harder)[..., None] * (0.8 * slow + 0.6 * quick)
    error = error + (config.bias2d * factor)[:, None] * normal(points, 2)
    wild = torch.rand(confidence.shape, generator=rng) < config.outliers
    error = error + wild[..., None] * 0.15 * torch.randn(error.shape, generator=rng)
    fit = bursts(1, dt, torch.full((batch,), config.fits), 0.3, rng)[..., 0]
    error = torch.where(fit[..., None, None], error * 4, error)

    # World landmarks.
    noise = severity(*config.world)[..., None]
    depth_scale = torch.empty(batch, 1, 1).uniform_(*config.depth_scale, generator=rng)
    size = (height_ratio[:, None, None] ** -(0.4 + 0.6 * torch.rand(batch, 1, 1, generator=rng))) * (
        1 + 0.04 * normal(1)
    )
    world = landmarks_ray * size[..., None]
    x, y, z = world.unbind(-1)
    z = z * depth_scale
    wobble = ar1((5,), dt, log_uniform(0.1, 1.0, (batch,), rng), rng)
    flips = bursts(5, dt, torch.full((batch,), config.depth_flips), 0.4, rng)
    bend = (1 - 0.25 * normal(5).abs() - 0.15 * wobble).clamp(-0.3, 1.3)
    bend = torch.where(flips, -bend, bend)
    z_new = z.clone()
    for i, (anchor, members) in enumerate(_LIMBS.values()):
        base = z[..., [11, 12]].mean(-1, keepdim=True) if anchor is None else z[..., anchor, None]
        z_new[..., list(members)] = base + (z[..., list(members)] - base) * bend[..., i, None]
    lean = ar1((3,), dt, log_uniform(0.5, 3.0, (batch,), rng), rng) * 0.6 + normal(3) * 0.8
    z = z_new + config.lean * (lean[..., :1] * y + lean[..., 1:2] * x)
    roll = 0.03 * lean[..., 2:3]
    x, y = x - roll * y, y + roll * x
    along = ar1((points, 3), dt, 3 * tau, rng) * 0.8 + ar1((points, 3), dt, tau, rng) * 0.6
    along = along * along.new_tensor([1.0, 1.0, 2.6]) + 1.2 * normal(points, 3) * along.new_tensor([0.8, 0.8, 1.8])
    world = torch.stack((x, y, z), -1) + (noise * harder)[..., None] * along
    shared = error * metres_per_size[..., None, None]
    world = torch.cat((world[..., :2] + 0.6 * shared, world[..., 2:]), -1)
    world = torch.where(fit[..., None, None], world + 0.06 * torch.randn(world.shape, generator=rng), world)

    pixels = keypoints2d + error * size_px[..., None, None]
    mirror = list(MIRROR_BLAZEPOSE)
    swapped = bursts(1, dt, torch.full((batch,), config.swaps), 0.3, rng)
    pixels = torch.where(swapped[..., None], pixels[..., mirror, :], pixels)
    world = torch.where(swapped[..., None], world[..., mirror, :], world)
    confidence = torch.where(swapped | fit[..., None], confidence * 0.8, confidence)
    world = world - world[..., [23, 24], :].mean(-2, keepdim=True)
    return Noisy(pixels, confidence, world)


def keep_coco(noisy: Noisy, rows: Tensor) -> Noisy:
    """Leave only COCO's 17 points in the sequences ``rows`` (B,) bool, as a reader of other tools' keypoints does."""
    kept = torch.zeros(len(BLAZEPOSE), dtype=torch.bool)
    kept[[i for _, i in keypoint_map(COCO17, BLAZEPOSE)]] = True
    gone = rows[:, None, None] & ~kept
    return noisy._replace(
        keypoints2d=torch.where(gone[..., None], torch.zeros_like(noisy.keypoints2d), noisy.keypoints2d),
        confidence=torch.where(gone, torch.zeros_like(noisy.confidence), noisy.confidence),
    )
