"""People who walk before a moving camera: motion, camera path and frames of a miniature."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ...body import Body
from ...cameras import project
from ...records import atomic_write
from ...rotations import rotvec_to_rotmat
from ...skeleton import BLAZEPOSE, OPENPOSE18
from ..synthetic import join, random_look, render_frames
from .smpl import gendered

IMAGE_SIZE = (360, 480)
FOCAL = 440.0
FPS = 30.0


@dataclasses.dataclass(frozen=True)
class Walker:
    """A person in the world (y up, m): SMPL parameters of a gender's body, float64.

    Attributes:
        gender: whose body.
        betas: (10,). pose_rotmat: (T, 24, 3, 3), the pelvis' to the world first. transl: (T, 3).
    """

    gender: str
    betas: Tensor
    pose_rotmat: Tensor
    transl: Tensor

    def body(self) -> Body:
        return Body(gendered(self.gender), torch.float64)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is filmed: T frames at 30 frames/s.

    Attributes:
        people: everyone in it.
        T_world2cam: (T, 4, 4), OpenCV axes.
        K: (3, 3) px of images of :data:`IMAGE_SIZE`.
        seed: of clothes, light and background.
    """

    people: tuple[Walker, ...]
    T_world2cam: Tensor
    K: Tensor
    seed: int

    def to_camera(self, points_world: Tensor) -> Tensor:
        """Points (T, P, 3) of the world in camera axes."""
        rotation, shift = self.T_world2cam[:, :3, :3], self.T_world2cam[:, :3, 3]
        return points_world @ rotation.transpose(-1, -2) + shift[:, None]

    def frames(self) -> np.ndarray:
        """The rendered film (T, H, W, 3) uint8 RGB."""
        rng = np.random.default_rng(self.seed)
        meshes = []
        for person in self.people:
            body = person.body()
            rest = body.rest_vertices(person.betas).numpy()
            marks = body.landmarks(person.betas, torch.eye(3, dtype=torch.float64).expand(24, 3, 3)).numpy()
            look = random_look(IMAGE_SIZE, body.part_labels.numpy(), rest, rng, marks)
            vertices = self.to_camera(body.vertices(person.betas, person.pose_rotmat, person.transl))
            meshes.append((vertices.float(), body.faces, look))
        return render_frames(*join(meshes)[:2], self.K, IMAGE_SIZE, join(meshes)[2])


def _about(axis: int, angle: Tensor) -> Tensor:
    rotvec = torch.zeros(*angle.shape, 3, dtype=angle.dtype)
    rotvec[..., axis] = angle
    return rotvec_to_rotmat(rotvec)


def walker(
    frames: int, gender: str, heading: float, middle: tuple[float, float], phase: float, speed: float = 0.5
) -> Walker:
    """Someone who walks on the ground y = 0.

    Args:
        heading: rad about y; 0 goes towards +z.
        middle: x and z of the walk's middle, m.
        phase: of the gait, rad. speed: m/s.
    """
    t = torch.arange(frames, dtype=torch.float64) / FPS
    swing = 2 * math.pi * 0.9 * t + phase
    pose = torch.eye(3, dtype=torch.float64).repeat(frames, 24, 1, 1)
    for side, hip, knee, shoulder, elbow, sign in ((0.0, 1, 4, 16, 18, 1.0), (math.pi, 2, 5, 17, 19, -1.0)):
        p = swing + side
        pose[:, hip] = _about(0, -0.4 * torch.sin(p) - 0.08)
        pose[:, knee] = _about(0, 0.12 + 0.35 * (1 + torch.cos(p - 0.6)))
        pose[:, shoulder] = _about(0, 0.35 * torch.sin(p)) @ _about(2, torch.full_like(t, -1.2 * sign))
        pose[:, elbow] = _about(1, -sign * (0.4 + 0.2 * torch.sin(p + 1.0)))
    pose[:, 3] = _about(1, 0.08 * torch.sin(swing))
    pose[:, 0] = _about(1, heading + 0.1 * torch.sin(0.8 * t))
    betas = 0.5 * torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(round(1000 * phase)))
    along = (t - t.mean()) * speed
    transl = torch.stack(
        (middle[0] + along * math.sin(heading), torch.zeros_like(t), middle[1] + along * math.cos(heading)), -1
    )
    body = Body(gendered(gender), torch.float64)
    transl[:, 1] -= body.vertices(betas, pose, transl)[..., 1].amin(-1)  # the lower foot on the ground
    return Walker(gender, betas, pose, transl)


def scene(frames: int, people: int, seed: int) -> Scene:
    """People side by side who walk across the view of a camera that somebody carries sideways."""
    walkers = []
    for i in range(people):
        gender = ("male", "female")[(i + seed) % 2]
        walkers.append(
            walker(frames, gender, 0.7 + 2.2 * i + seed, (1.1 * i - 0.55 * (people - 1), 0.0), 0.8 + i + 2.0 * seed)
        )
    t = torch.arange(frames, dtype=torch.float64) / FPS
    place = torch.stack((0.25 * (t - t.mean()), 1.4 + 0.02 * torch.sin(7 * t), torch.full_like(t, 4.2)), -1)
    forward = torch.nn.functional.normalize(torch.tensor([0.0, 0.85, 0.0]) - place, dim=-1)
    across = torch.nn.functional.normalize(
        torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0]).to(t).expand(frames, 3)), dim=-1
    )
    rotation = torch.stack((across, torch.linalg.cross(forward, across), forward), -2)  # rows: right, down, ahead
    extrinsics = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    extrinsics[:, :3, :3] = rotation
    extrinsics[:, :3, 3] = -(rotation @ place[..., None])[..., 0]
    width, height = IMAGE_SIZE
    K = torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Scene(tuple(walkers), extrinsics, K, seed)


def openpose18(
    scene: Scene, person: Walker, rng: np.random.Generator, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """2D detections as OpenPose gives them: (T, 18, 2) px with ``noise`` px of error, and confidence (T, 18).

    A tenth of the points is not found: zeros.
    """
    marks = person.body().landmarks(person.betas, person.pose_rotmat, person.transl)
    shoulders = [BLAZEPOSE.index(f"{side}_shoulder") for side in ("left", "right")]
    points = torch.stack([
        marks[:, shoulders].mean(1) if name == "neck" else marks[:, BLAZEPOSE.index(name)] for name in OPENPOSE18
    ], 1)  # fmt: skip
    pixels = project(scene.to_camera(points), scene.K).numpy()
    confidence = rng.uniform(0.5, 0.95, pixels.shape[:2]) * (rng.random(pixels.shape[:2]) > 0.1)
    pixels = pixels + rng.normal(0, noise, pixels.shape)
    return pixels * (confidence[..., None] > 0), confidence


def write_jpg(path: Path, image: np.ndarray) -> None:
    """Write one (H, W, 3) uint8 RGB image as JPEG."""
    codec = av.CodecContext.create("mjpeg", "w")
    height, width = image.shape[:2]
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"  # type: ignore[attr-defined]
    codec.time_base = Fraction(1)
    codec.options = {"qmin": "2", "qmax": "4"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="yuvj420p")
    with atomic_write(path) as stream:
        for packet in [*codec.encode(frame), *codec.encode(None)]:  # type: ignore[attr-defined]
            stream.write(bytes(packet))
