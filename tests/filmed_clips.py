"""A clip of somebody whose 3D is known, as perception would keep it: exact keypoints, landmarks and part maps, and no video."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinflow.body import Body
from kinflow.body.surface import surface_parts
from kinflow.cameras import intrinsics, project
from kinflow.evidence import Evidence
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.streams.footage import CACHE, LOOKING, cache_folder, keep
from kinflow.training.streams.projected import true_view

SIZE = (640, 480)
FPS = 25.0


@dataclasses.dataclass(frozen=True)
class Truth:
    """Rotations (T, 24, 3, 3) to the camera, places (T, 3) m, and joints (T, 24, 3) m in camera axes."""

    pose: Tensor
    transl: Tensor
    joints: Tensor


def swinging(body: Body, frames: int = 48, seed: int = 0) -> tuple[Evidence, Truth]:
    """Somebody who swings all limbs in front of the camera that is assumed of every clip."""
    g = torch.Generator().manual_seed(seed)
    times = torch.arange(frames) / FPS
    swing = (
        0.35 * torch.randn(1, 24, 3, generator=g) * torch.sin(3 * times + 6 * torch.rand(1, generator=g))[:, None, None]
    )
    pose = rotvec_to_rotmat(swing)
    turn = rotvec_to_rotmat(torch.tensor([0.0, 0.5, 0.0]))
    pose[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ turn @ pose[:, 0]
    transl = torch.tensor([0.3, -0.1, 5.0]).expand(frames, 3)
    joints, landmarks = body.joints_and_landmarks(torch.zeros(10), pose, transl)
    K = intrinsics(SIZE)
    ray, pixels = true_view(landmarks[None], K[None])
    world = (landmarks - landmarks[:, [23, 24]].mean(1, keepdim=True)) @ ray[0]
    seen = np.ones(frames, bool)
    maps, rois = part_maps(body, pose, transl, pixels[0])
    evidence = Evidence(
        person_id=0,
        frame_ids=np.arange(frames),
        timestamps=times.double().numpy(),
        observed=seen,
        keypoints2d=pixels[0].numpy(),
        confidence=np.ones((frames, 33)),
        world_landmarks=world.numpy(),
        has_world=seen,
        boxes_xyxy=np.zeros((frames, 4)),
        rois=rois,
        image_size=np.array(SIZE),
        parts=maps,
        part_rois=rois,
    )
    return evidence, Truth(pose, transl, joints)


def part_maps(body: Body, pose: Tensor, transl: Tensor, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Maps (T, 48, 48) in which the nearest vertex of each cell says the part, and the crops (T, 4) that they fill."""
    vertices = body.vertices(torch.zeros(10).expand(len(pose), -1), pose, transl)
    flat, parts = project(vertices, intrinsics(SIZE)).numpy(), surface_parts(body).numpy()
    centre = (pixels.amin(1) + pixels.amax(1)).numpy() / 2
    side = 1.3 * float((pixels.amax(1) - pixels.amin(1)).max())
    maps = np.zeros((len(pose), 48, 48), np.uint8)
    for t, points in enumerate(flat):
        cell = np.floor(((points - centre[t]) / side + 0.5) * 48).astype(int).clip(0, 47)
        far_to_near = np.argsort(-vertices[t, :, 2].numpy())
        maps[t, cell[far_to_near, 1], cell[far_to_near, 0]] = 1 + parts[far_to_near]
    rois = np.concatenate((centre, np.full((len(pose), 1), side), np.zeros((len(pose), 1))), 1)
    return maps, rois


def film(folder: Path, people: list[Evidence], name: str = "clip.mp4") -> Path:
    """A file in ``folder`` that stands for a clip, with what was seen in it kept beside."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / name
    clip.write_bytes(name.encode())
    keep(people, cache_folder(clip, None, LOOKING))
    assert (folder / CACHE).is_dir()
    return clip
