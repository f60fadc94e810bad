"""From evidence to what the network sees: measurements expressed in the person's own axes.

All features are free of the image's scale and unchanged when the camera turns about the person's ray: rays and world
landmarks are written in a root frame taken in closed form from the world landmarks, and the network corrects that frame.
A leaning person before a rolled, tilted camera so looks the same as an upright one before a level camera.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import check_shape
from ..timing import gather_time, valid_before
from .geometry import local_view, root_rotmat, spread, torso_centre

NUM_LANDMARKS = 33
TYPICAL_SPREAD = 0.42
"""Root mean square distance of the landmarks from the torso's centre across the ray, m, for an average person."""
FEATURE_SIZE = NUM_LANDMARKS * (3 + 3 + 1) + 3 + 3 + 1 + 1 + 1 + 3 + 3


@dataclasses.dataclass(frozen=True)
class Observations:
    """A padded batch of evidence as tensors.

    Attributes:
        keypoints2d: (B, T, 33, 2) px, full frame.
        confidence: (B, T, 33) 0..1.
        world: (B, T, 33, 3) m, world landmarks in ray-aligned axes; zeros where ``has_world`` is false.
        has_world: (B, T) bool.
        observed: (B, T) bool.
        valid: (B, T) bool; false marks padding, which only follows a person's frames.
        timestamps: (B, T) s, not decreasing (constant over padding).
        K: (B, 3, 3).
    """

    keypoints2d: Tensor
    confidence: Tensor
    world: Tensor
    has_world: Tensor
    observed: Tensor
    valid: Tensor
    timestamps: Tensor
    K: Tensor

    def check(self) -> Observations:
        """Check all shapes against each other; returns itself."""
        size = check_shape("keypoints2d", self.keypoints2d, "B T 33 2")
        lead = f"{size['B']} {size['T']}"
        check_shape("confidence", self.confidence, f"{lead} 33")
        check_shape("world", self.world, f"{lead} 33 3")
        for name in ("has_world", "observed", "valid", "timestamps"):
            check_shape(name, getattr(self, name), lead)
        check_shape("K", self.K, f"{size['B']} 3 3")
        return self

    def to(self, device: torch.device | str) -> Observations:
        """Move all tensors to a device."""
        return Observations(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


class Flat(NamedTuple):
    """The keypoints in the ray-aligned view before anything is known of depth: the input of the 2D-only path.

    Attributes:
        points: (B, T, 33, 2) around the torso's centre, divided by their spread.
        spread: (B, T) that spread, at depth 1.
        ray_to_camera: (B, T, 3, 3).
    """

    points: Tensor
    spread: Tensor
    ray_to_camera: Tensor


class Canonical(NamedTuple):
    """What the frame encoder reads, and the frame it is written in.

    Attributes:
        features: (B, T, FEATURE_SIZE).
        root_to_ray: (B, T, 3, 3) closed-form root frame.
        ray_to_camera: (B, T, 3, 3).
        depth: (B, T) m, rough depth by which the 2D points became metric.
    """

    features: Tensor
    root_to_ray: Tensor
    ray_to_camera: Tensor
    depth: Tensor

    @property
    def root_to_camera(self) -> Tensor:
        return self.ray_to_camera @ self.root_to_ray


def flatten_view(obs: Observations) -> Flat:
    """Ray-aligned, scale-free 2D points of every frame; frames not observed give zeros."""
    seen = obs.observed[..., None]
    # A frame without measurement looks along the optical axis; so do single points that were not measured.
    there = (seen & (obs.confidence > 0))[..., None]
    pixels = torch.where(there, obs.keypoints2d, obs.K[:, None, None, :2, 2])
    view = local_view(pixels, obs.confidence, obs.K[:, None])
    size = spread(view.points, obs.confidence)
    points = view.points / size.clamp_min(1e-6)[..., None, None]
    return Flat(
        points.clamp(-6, 6) * seen[..., None], torch.where(obs.observed, size.clamp_min(1e-4), 0.1), view.ray_to_camera
    )


def canonicalise(obs: Observations, flat: Flat, landmarks: Tensor) -> Canonical:
    """Write 2D points and 3D landmarks in the root frame that the landmarks give.

    Args:
        landmarks: (B, T, 33, 3) m, ray-aligned axes: the world landmarks, or what the 2D-only path makes of the keypoints.
    """
    confidence = obs.confidence
    seen = (obs.observed & obs.valid)[..., None, None].to(landmarks.dtype)
    world = landmarks - torso_centre(landmarks, confidence)[..., None, :]
    size_world = spread(world[..., :2], confidence)
    depth = (size_world / flat.spread).clamp(0.2, 200.0)
    flat_m = flat.points * size_world[..., None, None]
    root_to_ray = root_rotmat(world)
    gap = torch.cat((flat_m - world[..., :2], torch.zeros_like(world[..., :1])), -1) * confidence[..., None]
    in_root = (world @ root_to_ray) * seen
    gap_in_root = (gap @ root_to_ray) * seen

    ray_to_camera = flat.ray_to_camera
    to_camera = ray_to_camera @ root_to_ray
    sight = root_to_ray[..., 2, :]  # the ray, in root axes
    down = to_camera[..., 1, :]  # the image's downward axis, in root axes
    ray = ray_to_camera[..., :, 2]
    place = ray * depth[..., None]
    previous, dt = valid_before(obs.observed), time_steps(obs.timestamps)
    there = previous.clamp_min(0)
    turn = _relative(to_camera, there)
    move = torch.einsum("btij,bti->btj", to_camera, place - gather_time(place, there))
    fresh = (previous >= 0)[..., None] & obs.observed[..., None]
    zero = torch.zeros_like(turn)
    scalars = torch.stack((torch.log(depth / 4), obs.has_world.to(depth.dtype), 0.5 * torch.log(dt * 30)), -1)
    features = torch.cat(
        (
            3 * in_root.clamp(-3, 3).flatten(-2),
            6 * gap_in_root.clamp(-2, 2).flatten(-2),
            confidence * seen[..., 0],
            sight * seen[..., 0],
            down * seen[..., 0],
            torch.where(fresh, turn, zero),
            torch.where(fresh, move.clamp(-2, 2), zero),
            scalars,
        ),
        -1,
    )
    return Canonical(features, root_to_ray, ray_to_camera, depth)


def time_steps(timestamps: Tensor) -> Tensor:
    """Time since the frame before (B, T) s; the first frame, and padding, count as 1/30 s."""
    dt = torch.diff(timestamps, dim=1, prepend=timestamps[:, :1])
    return torch.where(dt > 1e-6, dt, torch.full_like(dt, 1 / 30)).clamp_max(60.0)


def _relative(rotmat: Tensor, previous: Tensor) -> Tensor:
    """Turn since the previous sighting, as twice the sine of the angle along its axis (bounded, differentiable) (B, T, 3)."""
    relative = gather_time(rotmat, previous).transpose(-1, -2) @ rotmat
    axis = (
        relative[..., 2, 1] - relative[..., 1, 2],
        relative[..., 0, 2] - relative[..., 2, 0],
        relative[..., 1, 0] - relative[..., 0, 1],
    )
    return torch.stack(axis, -1)
