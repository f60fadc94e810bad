"""Scenes of benchmarks/world.py: captured motion on a known ground before a known camera, rendered in a room.

Three kinds: ``static`` (a tilted and rolled camera that stands), ``pan`` (one that turns with the person and does not move)
and ``walk`` (carried along by hand). Everything is drawn from the seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinflow.body import Body
from kinflow.body.soles import soles_of
from kinflow.cameras import Focal, intrinsics, project
from kinflow.datasets.scenery import Room
from kinflow.datasets.synthetic import join, random_look, render_frames
from kinflow.mocap.clips import MotionClip
from kinflow.motion import Motion
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.video import VideoWriter

KINDS = ("static", "pan", "walk")
FRAMES, FPS = 100, 30.0
IMAGE_SIZE = (384, 288)
Float = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Person:
    """One person's truth: rotations (T, 24, 3, 3) with the root's to the world, translation (T, 3) m, shape (10,)."""

    pose_rotmat: Tensor
    transl: Tensor
    betas: Tensor
    source: str


@dataclasses.dataclass(frozen=True)
class WorldScene:
    """People on y = 0 and the camera that sees them."""

    name: str
    kind: str
    people: tuple[Person, ...]
    T_world2cam: Float  # (T, 4, 4)
    K: Tensor
    room: Room
    seed: int

    @property
    def timestamps(self) -> Float:
        return np.arange(len(self.T_world2cam)) / FPS

    def joints(self, body: Body) -> list[Tensor]:
        """Everybody's joints (T, 24, 3) m in the world."""
        return [body.joints(p.betas, p.pose_rotmat, p.transl) for p in self.people]

    def truth(self, body: Body) -> list[Motion]:
        """Everybody's true motion in camera axes, as a perfect reconstruction would leave it."""
        out = []
        cameras = torch.from_numpy(self.T_world2cam).float()
        for number, person in enumerate(self.people):
            pose = person.pose_rotmat.clone()
            pose[:, 0] = cameras[:, :3, :3] @ pose[:, 0]
            rest = body.rest_joints(person.betas)[0]
            pelvis = person.transl + rest
            transl = (cameras[:, :3, :3] @ pelvis[..., None])[..., 0] + cameras[:, :3, 3] - rest
            rotvec = rotmat_to_rotvec(pose)
            joints, landmarks = body.joints_and_landmarks(person.betas, pose, transl)
            frames = len(pose)
            pixels = project(landmarks, self.K)
            out.append(
                Motion(
                    person_id=number, body="open", frame_ids=np.arange(frames), timestamps=self.timestamps,
                    observed=np.ones(frames, bool), betas=person.betas.numpy(), global_orient=rotvec[:, 0].numpy(),
                    body_pose=rotvec[:, 1:].numpy(), transl=transl.numpy(), joints3d=joints.numpy(),
                    joints3d_std=np.full((frames, 24), 0.03), z=np.zeros((frames, 63)),
                    contacts=np.full((frames, 4), 0.5), keypoints2d=pixels.numpy(), confidence=np.ones((frames, 33)),
                    boxes_xyxy=torch.cat((pixels.amin(1), pixels.amax(1)), -1).numpy(), K=self.K.numpy(),
                    image_size=np.array(IMAGE_SIZE),
                )
            )  # fmt: skip
        return out


def draw_scenes(clips: Sequence[MotionClip], body: Body, seed: int, count: int) -> Iterator[WorldScene]:
    """``count`` scenes of each kind, one person or two of one stretch's length."""
    for k, kind in enumerate(KINDS):
        for number in range(count):
            rng = np.random.default_rng([seed, k, number])
            yield draw_scene(clips, body, rng, kind, f"{kind}{number}", seed * 1000 + 10 * k + number)


def draw_scene(
    clips: Sequence[MotionClip], body: Body, rng: np.random.Generator, kind: str, name: str, seed: int
) -> WorldScene:
    """Draw until people are in sight of the camera all the time and stand on the ground most of it."""
    while True:
        first = draw_person(clips, body, rng, travels=1.5 if kind == "walk" else 0.3)
        people = [first]
        if kind == "static" and rng.random() < 0.5:
            people.append(draw_person(clips, body, rng, travels=0.3))
        people = _set_apart(people, rng)
        K = intrinsics(IMAGE_SIZE, Focal(float(math.hypot(*IMAGE_SIZE) * rng.uniform(0.85, 1.2))))
        centre = torch.stack([p.transl[:, [0, 2]] for p in people]).mean((0, 1)).double().numpy()
        cameras = draw_camera(people, rng, kind)
        room = Room.drawn(rng, np.array([centre[0], 0.0, centre[1]]), 9.0)
        scene = WorldScene(name, kind, tuple(people), cameras, K, room, seed)
        if _in_sight(scene, body):
            return scene


def draw_person(clips: Sequence[MotionClip], body: Body, rng: np.random.Generator, travels: float) -> Person:
    """A stretch on level ground: on the ground in most frames, upright in most, and going at least ``travels`` m."""
    betas = torch.from_numpy(rng.normal(size=10).astype(np.float32) * 0.7)
    rest = body.rest_joints(betas)
    leg = float((rest[1] - rest[4]).norm() + (rest[4] - rest[7]).norm())
    soles = soles_of(body, betas)
    while True:
        clip = clips[int(rng.integers(len(clips)))]
        step = max(1, round(clip.fps / FPS))
        span = (FRAMES - 1) * step + 1
        if len(clip) < span:
            continue
        at = int(rng.integers(len(clip) - span + 1))
        rows = slice(at, at + span, step)
        if not clip.valid[at : at + span].all():
            continue
        pose = rotvec_to_rotmat(
            torch.from_numpy(np.concatenate((clip.global_orient[rows, None], clip.body_pose[rows]), 1))
        )
        path = torch.from_numpy(clip.transl[rows]) * (leg / clip.leg_length if clip.leg_length > 0.3 else 1.0)
        length = float(path[:, [0, 2]].diff(dim=0).norm(dim=-1).sum())
        transl = path - rest[0]
        rotations, joints = body.transforms(betas, pose, transl)
        lowest = soles.posed(rotations, joints)[..., 1].amin((1, 2))
        floor = lowest.quantile(0.1)
        grounded = float(((lowest - floor).abs() < 0.04).float().mean())
        upright = float((joints[:, 15, 1] - joints[:, 0, 1] > 0.3).float().mean())
        if length >= travels and grounded > 0.8 and upright > 0.9:
            transl[:, 1] -= float(lowest.quantile(0.3))
            transl[:, [0, 2]] -= transl[:, [0, 2]].mean(0)
            return Person(pose, transl, betas, f"{clip.name} {clip.description}")


def _set_apart(people: list[Person], rng: np.random.Generator) -> list[Person]:
    """Two people a little apart."""
    if len(people) == 1:
        return people
    angle = rng.uniform(0, 2 * math.pi)
    shift = torch.tensor([math.cos(angle), 0.0, math.sin(angle)]) * 0.9
    return [dataclasses.replace(p, transl=p.transl + s * shift) for p, s in zip(people, (-1, 1), strict=True)]


def draw_camera(people: Sequence[Person], rng: np.random.Generator, kind: str) -> Float:
    """A camera's path (T, 4, 4) of a kind."""
    frames = len(people[0].transl)
    body = torch.stack([p.transl for p in people]).double().numpy()
    middle = body.mean((0, 1))
    spread = np.linalg.norm(body[..., [0, 2]] - middle[[0, 2]], axis=-1).max()
    angle = rng.uniform(0, 2 * math.pi)
    distance = rng.uniform(3.2, 4.5) + (spread if kind == "static" else 0.3 * spread)
    height = rng.uniform(0.9, 2.6) if kind == "static" else rng.uniform(1.2, 1.9)
    roll = np.full(frames, math.radians(rng.normal(0, 4.0)))
    out = np.array([math.sin(angle), 0.0, math.cos(angle)])
    place = np.tile(middle * [1, 0, 1] + distance * out + [0, height, 0], (frames, 1))
    target = np.tile(middle * [1, 0, 1] + [0, 0.85 + rng.normal(0, 0.08), 0], (frames, 1))
    followed = _slow(body[0], 15.0)
    if kind == "pan":
        target = followed * [1, 0, 1] + [0, 0.85, 0]
    elif kind == "walk":
        place = place + (followed - followed.mean(0)) * [1, 0, 1] + _shake(rng, frames, 0.02, 8.0)
        target = followed * [1, 0, 1] + [0, 0.85, 0] + _shake(rng, frames, 0.03, 10.0)
        roll = roll + _shake(rng, frames, 0.01, 10.0)[:, 0]
    return np.stack([look_at(p, t, r) for p, t, r in zip(place, target, roll, strict=True)])


def _slow(path: Float, sigma: float) -> Float:
    """A path (T, 3) smoothed over so many frames, its ends held."""
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.concatenate((np.repeat(path[:1], reach, 0), path, np.repeat(path[-1:], reach, 0)))
    return np.stack([np.convolve(c, kernel / kernel.sum(), "valid") for c in padded.T], -1)


def _shake(rng: np.random.Generator, frames: int, size: float, sigma: float) -> Float:
    """Hand-held noise (T, 3) of standard deviation ``size``."""
    noise = _slow(rng.normal(size=(frames, 3)), sigma)
    return size * noise / noise.std(0)


def look_at(place: Float, target: Float, roll: float) -> Float:
    """World (y up) to camera (x right, y down, z forward), (4, 4)."""
    z = (target - place) / np.linalg.norm(target - place)
    x = np.cross(z, [0.0, 1.0, 0.0])
    x /= np.linalg.norm(x)
    turn = np.stack((x, np.cross(z, x), z))
    c, s = math.cos(roll), math.sin(roll)
    out = np.eye(4)
    out[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn
    out[:3, 3] = -out[:3, :3] @ place
    return out


def _in_sight(scene: WorldScene, body: Body) -> bool:
    cameras = torch.from_numpy(scene.T_world2cam).float()
    for joints in scene.joints(body):
        seen = joints @ cameras[:, :3, :3].mT + cameras[:, None, :3, 3]
        pixels = project(seen, scene.K) / torch.tensor(IMAGE_SIZE)
        inside = ((pixels > 0.01) & (pixels < 0.99)).all(-1) & (seen[..., 2] > 1.0)
        if float(inside.float().mean()) < 0.98:
            return False
    return True


def render(scene: WorldScene, body: Body, path: Path) -> None:
    """Render a scene to an mp4."""
    rng = np.random.default_rng(scene.seed)
    cameras = torch.from_numpy(scene.T_world2cam).float()
    parts = []
    for person in scene.people:
        rest = body.rest_vertices(person.betas)
        landmarks = body.landmarks(person.betas, torch.eye(3).expand(24, 3, 3))
        look = random_look(IMAGE_SIZE, body.part_labels.numpy(), rest.numpy(), rng, landmarks.numpy())
        vertices = body.vertices(person.betas, person.pose_rotmat, person.transl)
        parts.append((vertices @ cameras[:, :3, :3].mT + cameras[:, None, :3, 3], body.faces, look))
    vertices, faces, look = join(parts)
    with VideoWriter(path, IMAGE_SIZE, FPS) as video:
        for t, camera in enumerate(scene.T_world2cam):
            behind = scene.room.seen(camera, scene.K, IMAGE_SIZE)
            frame = dataclasses.replace(look, background=behind, seed=scene.seed + t, noise=min(look.noise, 2.5))
            video.write(render_frames(vertices[t : t + 1], faces, scene.K, IMAGE_SIZE, frame)[0], t / FPS)
