"""Rendered crowds with known truth: people who walk past, hide and leave one another before things that are no people.

The people are the open body in captured motion. Each has a lane of their own, at a depth of their own, so that nobody walks
through anybody; they cross in the middle of the clip, and some leave the frame and come back. Chairs, racks of equipment, lamps,
coats on hangers and drawn signs stand and hang behind them, at times a pillar before them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinflow.body import Body
from kinflow.cameras import project
from kinflow.datasets.synthetic import Look, clothes, join, random_look, render_frames
from kinflow.mocap.clips import MotionClip
from kinflow.render import visible_points
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS
from kinflow.training.streams.render_and_perceive import draw_stretch
from kinflow.video import VideoWriter

__all__ = ["FPS", "FRAMES", "IMAGE_SIZE", "Crowd", "box", "draw_crowd", "load_crowd", "save_crowd"]

IMAGE_SIZE = (480, 270)  #: px
FOCAL = 430.0  #: px
FRAMES = 40
FPS = 12.0
EYE = 1.45  #: m, the camera's height; it looks level
NEAREST = 2.7  #: m from the camera to the first lane
LANE = 0.95  #: m between lanes
WALL = 8.5  #: m from the camera: where signs hang
COUNT_SCALE = 0.5  #: visible shares are counted in images of this scale
CHEST = (0, 3, 6, 9)  #: joints from the root to the chest
_HANGING = ("spine1", "spine2", "spine3", "left_collar", "right_collar", "left_shoulder", "right_shoulder", "pelvis")

Mesh = tuple[Tensor, Tensor, np.ndarray]
"""Vertices (V, 3) in camera axes, m; faces (F, 3); colours (V, 3), 0..255."""


@dataclasses.dataclass(frozen=True)
class Crowd:
    """A clip of P people in T frames, and where they are in it.

    Attributes:
        points: (P, T, 33, 2) BlazePose's landmarks, px; those of people out of sight lie outside the frame.
        visible: (P, T) share of the body that is seen: of its pixels those not hidden, times its landmarks in the frame.
        towards: (P, T) cosine between the chest's forward direction and the way to the camera.
        timestamps: (T,) s.
        things: what stands and hangs about.
    """

    points: np.ndarray
    visible: np.ndarray
    towards: np.ndarray
    timestamps: np.ndarray
    things: tuple[str, ...] = ()


# -- people ------------------------------------------------------------------------------------------------------------


def _about_y(angle: float) -> Tensor:
    return rotvec_to_rotmat(torch.tensor([0.0, float(angle), 0.0]))


def _stretch(
    clips: Sequence[MotionClip], rng: np.random.Generator, frames: int, least: float, most: float
) -> tuple[Tensor, Tensor]:
    """Rotations (T, 24, 3, 3) and path (T, 3) in the world of somebody upright who goes so far, m."""
    for _ in range(3000):
        drawn = draw_stretch(clips, rng, frames, FPS)
        if drawn is None:
            continue
        _, pose, path, _ = drawn
        gone = float((path[-1] - path[0])[[0, 2]].norm())
        upright = bool((pose[:, 0, 1, 1] > 0.8).all())
        if least <= gone <= most and upright and float(path[:, 1].min()) > 0.7:
            return pose, path
    raise ValueError(
        f"clips: expected somebody who walks {least} to {most} m in {frames} frames, found none. Give more."
    )


def _turned(pose: Tensor, path: Tensor, heading: float) -> tuple[Tensor, Tensor]:
    """The same motion along another heading, rad from +x towards the camera, about the origin."""
    step = path[-1] - path[0]
    turn = _about_y(-heading - float(torch.atan2(-step[2], step[0])))
    moved = (path - path[:1] * torch.tensor([1.0, 0, 1.0])) @ turn.T
    return torch.cat((turn @ pose[:, :1], pose[:, 1:]), 1), moved


def _walk(
    clips: Sequence[MotionClip], rng: np.random.Generator, lane: float, side: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Somebody who crosses the view along a lane, and passes its middle about when the others do."""
    pose, path = _turned(*_stretch(clips, rng, frames, 1.5, 6.0), rng.normal(0, 0.12) + (0.0 if side > 0 else np.pi))
    middle = int(frames * rng.uniform(0.35, 0.65))
    shift = torch.tensor([float(rng.normal(0, 0.25)), 0.0, -lane]) - path[middle] * torch.tensor([1.0, 0.0, 1.0])
    return pose, path + shift


def _return(
    clips: Sequence[MotionClip], rng: np.random.Generator, lane: float, side: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Somebody who walks out of the frame, is away for less than a second, and comes back."""
    out = int(frames * rng.uniform(0.35, 0.45))
    back = out + int(FPS * rng.uniform(0.4, 0.8))
    edge = side * (lane * IMAGE_SIZE[0] / 2 / FOCAL + 0.35)
    pose, path = _stretch(clips, rng, frames, 2.0, 6.0)
    away, away_path = _turned(pose, path, 0.0 if side > 0 else np.pi)
    home, home_path = _turned(pose, path, np.pi if side > 0 else 0.0)
    away_path = away_path + torch.tensor([edge, 0.0, -lane]) - away_path[out] * torch.tensor([1.0, 0.0, 1.0])
    home_path = home_path + torch.tensor([edge, 0.0, -lane]) - home_path[back] * torch.tensor([1.0, 0.0, 1.0])
    path = torch.where(torch.arange(frames)[:, None] < out, away_path, home_path)
    path[out:back, 0] = 30.0 * side
    return torch.where((torch.arange(frames) < out)[:, None, None, None], away, home), path


def _stand(
    clips: Sequence[MotionClip], rng: np.random.Generator, lane: float, side: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Somebody who stays about where they are."""
    pose, path = _turned(*_stretch(clips, rng, frames, 0.0, 0.6), rng.uniform(0, 2 * np.pi))
    at = torch.tensor([side * float(rng.uniform(0.2, 0.5)) * lane * IMAGE_SIZE[0] / FOCAL / 2, 0.0, -lane])
    return pose, path + at - path.mean(0) * torch.tensor([1.0, 0.0, 1.0])


# -- things ------------------------------------------------------------------------------------------------------------


def box(centre: Sequence[float], size: Sequence[float], colour: np.ndarray) -> Mesh:
    """A box; the centre is x, height over the ground and distance, m."""
    corners: list[np.ndarray] = []
    faces: list[list[int]] = []
    for axis in range(3):
        u, v = [a for a in range(3) if a != axis]
        for sign in (-1.0, 1.0):
            base = len(corners)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[axis], corner[u], corner[v] = sign, a, b
                corners.append(corner)
            for face in ((0, 1, 2), (0, 2, 3)):  # both windings: only the outer one is drawn
                faces += [[base + i for i in face], [base + i for i in reversed(face)]]
    middle = np.array([centre[0], EYE - centre[1], centre[2]])
    points = torch.tensor(np.array(corners) * 0.5 * np.array(size) + middle, dtype=torch.float32)
    return points, torch.tensor(faces), np.tile(colour, (len(corners), 1))


def _picture(centre: Sequence[float], width: float, image: np.ndarray) -> Mesh:
    """A picture (H, W, 3) on the wall, that wide in m."""
    h, w = image.shape[:2]
    size = width / w
    rows, columns = np.mgrid[: h + 1, : w + 1]
    x, y = centre[0] + (columns - w / 2) * size, EYE - centre[1] + (rows - h / 2) * size
    cells = np.arange(h * w)
    quads = (cells // w * (w + 1) + cells % w)[:, None] + np.array([0, 1, w + 2, w + 1])
    own = np.arange(4 * h * w).reshape(-1, 4)  # corners of their own: sharp borders between colours
    points = np.stack([x, y, np.full_like(x, centre[2])], -1).reshape(-1, 3)[quads.reshape(-1)]
    faces = np.concatenate([own[:, [0, 1, 2]], own[:, [0, 2, 3]], own[:, [2, 1, 0]], own[:, [3, 2, 0]]])
    colours = np.repeat(image.reshape(-1, 3), 4, axis=0).astype(np.float64)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(faces), colours


def _colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(20, 230, 3)


def _chair(rng: np.random.Generator, x: float, z: float) -> list[Mesh]:
    colour = _colour(rng)
    parts = [box((x, 0.45, z), (0.46, 0.08, 0.46), colour), box((x, 0.8, z + 0.2), (0.42, 0.6, 0.07), colour)]
    legs = [(x + a, 0.21, z + b) for a in (-0.19, 0.19) for b in (-0.19, 0.19)]
    return [*parts, *(box(leg, (0.05, 0.42, 0.05), 0.5 * colour) for leg in legs)]


def _equipment(rng: np.random.Generator, x: float, z: float) -> list[Mesh]:
    """A rack on the wall, with a round thing on top, a bulky one below it and hoses down the sides."""
    dark, light = _colour(rng) * 0.4, _colour(rng)
    image = np.tile(_colour(rng), (28, 14, 1))
    y, x_ = np.mgrid[:28, :14] + 0.5
    image[np.hypot(x_ - 7, y - 4.5) < 2.4] = light
    image[8:17, 4:10] = dark
    image[9:19, 2:3] = image[9:19, 11:12] = light * 0.7
    image[17:27, 4:6] = image[17:27, 8:10] = dark * 1.5
    return [_picture((x, rng.uniform(1.0, 1.6), WALL), rng.uniform(0.7, 1.1), np.clip(image, 0, 255))]


def _sign(rng: np.random.Generator, x: float, z: float) -> list[Mesh]:
    """A pictogram of somebody on a plain sheet."""
    image, ink = np.tile(_colour(rng), (40, 26, 1)), _colour(rng)
    y, x_ = np.mgrid[:40, :26] + 0.5
    image[np.hypot(x_ - 13, y - 6) < 3] = ink
    image[10:22, 9:17] = ink
    image[10:21, 6:8] = image[10:21, 18:20] = ink
    image[22:37, 9:12] = image[22:37, 14:17] = ink
    return [_picture((x, rng.uniform(1.2, 1.7), WALL), rng.uniform(0.6, 1.2), image)]


def _lamp(rng: np.random.Generator, x: float, z: float) -> list[Mesh]:
    parts = [((x, 0.8, z), (0.05, 1.5, 0.05)), ((x, 1.6, z), (0.34, 0.3, 0.34)), ((x, 0.03, z), (0.3, 0.06, 0.3))]
    colour = _colour(rng)
    return [box(*part, colour * shade) for part, shade in zip(parts, (0.4, 1.0, 0.4), strict=True)]


def _cupboard(rng: np.random.Generator, x: float, z: float) -> list[Mesh]:
    height, colour = rng.uniform(0.8, 1.9), _colour(rng)
    doors = [box((x + a, height / 2, z - 0.21), (0.36, 0.85 * height, 0.02), 0.8 * colour) for a in (-0.2, 0.2)]
    return [box((x, height / 2, z), (0.9, height, 0.4), colour), *doors]


def _coat(rng: np.random.Generator, x: float, z: float, body: Body) -> list[Mesh]:
    """A coat on a hanger: the trunk and upper arms of a body, and nobody in it."""
    pose = torch.eye(3).expand(1, 24, 3, 3).clone()
    for joint, angle in ((16, -1.2), (17, 1.2)):
        pose[0, joint] = rotvec_to_rotmat(torch.tensor([0.0, 0.0, angle]))
    pose[0, 0] = _about_y(rng.uniform(-0.9, 0.9))
    betas = torch.zeros(1, 10)
    points = body.vertices(betas, pose, torch.zeros(1, 3))[0] * torch.tensor([1.0, -1.0, -1.0])
    keep = torch.isin(body.part_labels, torch.tensor([SMPL_JOINTS.index(n) for n in _HANGING]))
    faces = body.faces[keep[body.faces].all(-1)]
    colours = clothes(body.part_labels.numpy(), body.rest_vertices(betas[0]).numpy(), rng)
    middle = points[keep].mean(0)
    return [(points - middle + torch.tensor([x, EYE - rng.uniform(1.2, 1.5), z]), faces, colours)]


def _things(rng: np.random.Generator, body: Body) -> tuple[list[Mesh], tuple[str, ...]]:
    """Three or four things side by side behind everybody, and now and then a pillar before them."""
    kinds = ["chair", "equipment", "sign", "lamp", "cupboard", "coat"]
    chosen = [str(k) for k in rng.choice(kinds, int(rng.integers(3, 5)), replace=False)]
    makers = {"chair": _chair, "equipment": _equipment, "sign": _sign, "lamp": _lamp, "cupboard": _cupboard}
    meshes: list[Mesh] = []
    places = np.linspace(-0.8, 0.8, len(chosen)) + rng.uniform(-0.1, 0.1, len(chosen))
    for kind, place in zip(chosen, places, strict=True):
        z = float(rng.uniform(6.2, 7.5))
        x = float(place) * z * IMAGE_SIZE[0] / 2 / FOCAL
        meshes += _coat(rng, x, z, body) if kind == "coat" else makers[kind](rng, x, z)
    if rng.random() < 0.4:
        x = float(rng.uniform(-0.5, 0.5))
        meshes.append(box((x, 1.5, 1.9), (0.28, 3.2, 0.28), _colour(rng)))
        chosen.append("pillar")
    return meshes, tuple(chosen)


# -- scenes ------------------------------------------------------------------------------------------------------------


def draw_crowd(clips: Sequence[MotionClip], body: Body, seed: int, frames: int = FRAMES) -> tuple[np.ndarray, Crowd]:
    """The frames (T, H, W, 3) uint8 RGB of a crowd of 2 to 4 people, and the truth; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 5))
    lanes = NEAREST + LANE * np.arange(count) + rng.uniform(-0.1, 0.1, count) + rng.uniform(0, 0.6)
    roles = [_walk, _walk, _return, _stand]
    first = int(rng.integers(2))
    meshes, points, towards = [], [], []
    for i, k in enumerate(rng.permutation(count)):
        role = roles[i] if count > 2 or rng.random() < 0.7 else roles[2 * i]
        pose, path = role(clips, rng, float(lanes[k]), 1 if (i + first) % 2 else -1, frames)
        betas = torch.from_numpy(rng.normal(size=10).astype(np.float32) * 0.7)[None]
        identity = torch.eye(3).expand(1, 24, 3, 3)
        rest, marks = body.vertices(betas, identity, None)[0], body.landmarks(betas, identity, None)[0]
        look = random_look(IMAGE_SIZE, body.part_labels.numpy(), rest.numpy(), rng, marks.numpy())
        shift = path - body.joints(betas, pose, None)[:, 0]
        vertices = body.vertices(betas, pose, shift)
        ground = torch.tensor([0.0, float(vertices[..., 1].amin(-1).median()), 0.0])

        def seen(x: Tensor, ground: Tensor = ground) -> Tensor:
            return (x - ground) * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, EYE, 0.0])

        meshes.append((seen(vertices), body.faces, look))
        points.append(seen(body.landmarks(betas, pose, shift)))
        chest = torch.stack([torch.linalg.multi_dot([p[j] for j in CHEST])[:, 2] for p in pose])
        way = torch.tensor([0.0, EYE, 0.0]) - path
        towards.append((chest * way).sum(-1) / way.norm(dim=-1))
    things, names = _things(rng, body)
    lens = meshes[0][2]
    still = [(p.expand(frames, -1, -1), f, dataclasses.replace(lens, colours=c)) for p, f, c in things]
    K = torch.tensor([[FOCAL, 0, IMAGE_SIZE[0] / 2], [0, FOCAL, 0.45 * IMAGE_SIZE[1]], [0, 0, 1.0]])
    images = render_frames(*join([*meshes, *still])[:2], K, IMAGE_SIZE, join([*meshes, *still])[2])
    pixels = torch.stack([project(p, K) for p in points]).numpy().astype(np.float64)
    shares = _visible([(v, f) for v, f, _ in [*meshes, *still]], count, K)
    inside = ((pixels >= 0) & (pixels < IMAGE_SIZE)).all(-1).mean(-1)
    times = np.arange(frames) / FPS
    return images, Crowd(pixels, shares * inside, torch.stack(towards).numpy().astype(np.float64), times, names)


def _visible(meshes: list[tuple[Tensor, Tensor]], people: int, K: Tensor) -> np.ndarray:
    """(P, T) share of the pixels of each of the first meshes in the frame that nothing hides."""
    size = (round(COUNT_SCALE * IMAGE_SIZE[0]), round(COUNT_SCALE * IMAGE_SIZE[1]))
    small = K * torch.tensor([[COUNT_SCALE], [COUNT_SCALE], [1.0]])
    blank = np.zeros((0, 3))
    look = Look(colours=blank, background=np.zeros((size[1], size[0], 3), np.uint8))
    vertices, faces, _ = join([(v, f, look) for v, f in meshes])
    frames = len(vertices)
    owner = torch.repeat_interleave(torch.arange(len(meshes)), torch.tensor([len(f) for _, f in meshes]))
    shares = np.zeros((people, frames))
    for t in range(frames):
        together = visible_points(vertices[t : t + 1], faces, small, size, cull_backfaces=True)
        counts = torch.bincount(owner[together.face], minlength=len(meshes))
        for p in range(people):
            alone = visible_points(meshes[p][0][t : t + 1], meshes[p][1], small, size, cull_backfaces=True)
            shares[p, t] = float(counts[p]) / max(len(alone.face), 1)
    return shares


# -- on disk -----------------------------------------------------------------------------------------------------------


def save_crowd(folder: Path, name: str, images: np.ndarray, crowd: Crowd) -> Path:
    """Write NAME.mp4 and NAME.npz; returns the video's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    with VideoWriter(path, IMAGE_SIZE, FPS) as video:
        for image in images:
            video.write(image)
    np.savez(folder / f"{name}.npz", **{f.name: getattr(crowd, f.name) for f in dataclasses.fields(crowd)})
    return path


def load_crowd(folder: Path, name: str) -> tuple[Path, Crowd] | None:
    """What :func:`save_crowd` wrote, or None."""
    path = folder / f"{name}.npz"
    if not path.exists() or not (folder / f"{name}.mp4").exists():
        return None
    with np.load(path) as record:
        things = tuple(str(name) for name in record["things"])
        arrays = {f.name: record[f.name] for f in dataclasses.fields(Crowd) if f.name != "things"}
    return folder / f"{name}.mp4", Crowd(**arrays, things=things)
