"""Rendered clips with known 3D: dressed bodies in plain light before simple backgrounds.

They serve the end-to-end test (a rendered walk through the whole command) and training on what the perception
networks really make of a person whose 3D is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..body.surface import vertex_normals
from ..errors import UsageError, check_shape
from ..render import interpolate, join_meshes, shade, visible_points
from ..render.texture import Texture, join_textures
from ..skeleton import SMPL_JOINTS
from ..video import VideoWriter

_SKIN = ((255, 219, 188), (241, 194, 155), (224, 172, 125), (184, 128, 88), (141, 85, 52), (90, 56, 37))
_HAIR = ((30, 24, 20), (60, 40, 26), (98, 66, 38), (170, 130, 76), (120, 120, 118), (140, 60, 28))

_SHIRT = ("spine1", "spine2", "spine3", "left_collar", "right_collar", "left_shoulder", "right_shoulder")
_SLEEVES = ("left_elbow", "right_elbow")
_SHORTS = ("pelvis", "left_hip", "right_hip")
_LEGS = ("left_knee", "right_knee")
_SHOES = ("left_ankle", "right_ankle", "left_foot", "right_foot")

_CHUNK = 16
"""Frames rendered at a time."""

_GRAINS = 8
"""Fields of sensor noise, drawn once and used in random order: a new one costs more than the rendering."""


@dataclass(frozen=True)
class Look:
    """What a rendered scene looks like, without its geometry.

    Attributes:
        colours: (V, 3) surface colour of each vertex, 0..255, or the texture of the faces.
        background: (H, W, 3) uint8 RGB.
        light: direction towards the lamp, camera axes.
        ambient, diffuse: shares of sky and lamp.
        blur: standard deviation of the lens blur, px.
        noise: standard deviation of the sensor noise, grey levels.
        seed: of the sensor noise.
    """

    colours: np.ndarray | Texture
    background: np.ndarray
    light: tuple[float, float, float] = (-0.4, -0.7, -0.6)
    ambient: float = 0.45
    diffuse: float = 0.65
    blur: float = 0.5
    noise: float = 2.0
    seed: int = 0


def clothes(
    part_labels: Any,
    rest_vertices: Any,
    rng: np.random.Generator,
    rest_landmarks: Any = None,
) -> np.ndarray:
    """Dress a body: skin, shirt, trousers, shoes, hair, and a face.

    Args:
        part_labels: (V,) index into :data:`kinflow.skeleton.SMPL_JOINTS`.
        rest_vertices: (V, 3) zero pose, y up, facing +z, m.
        rng: draws colours, lengths of sleeves and legs, pattern.
        rest_landmarks: (33, 3) BlazePose landmarks at zero pose, where eyes and mouth go; without them there is no
            face.

    Returns:
        (V, 3) float32 colours 0..255.
    """
    labels = np.asarray(part_labels)
    rest = np.asarray(rest_vertices, np.float64)
    check_shape("rest_vertices", rest, f"{len(labels)} 3")

    def of(*names: str) -> np.ndarray:
        return np.isin(labels, [SMPL_JOINTS.index(n) for n in names])

    skin = np.array(_SKIN[rng.integers(len(_SKIN))], np.float64) * rng.uniform(0.9, 1.1)
    colours = np.tile(skin, (len(labels), 1))
    shirt, trousers, shoes = _garment(rest, rng), _garment(rest, rng), _garment(rest, rng, plain=True)
    hem = rng.uniform(0.3, 0.9)
    for wear, parts, part_of in (
        (shirt, of(*_SHIRT), None),
        (shirt, of(*_SLEEVES), rng.random() < 0.6),
        (trousers, of(*_SHORTS), None),
        (trousers, of(*_LEGS), rng.random() < 0.75),
        (shoes, of(*_SHOES), None),
    ):
        if part_of is None or part_of:
            colours[parts] = wear[parts]
    if rng.random() < 0.4:  # short sleeves end on the upper arm, shorts above the knee
        arms = of("left_shoulder", "right_shoulder") & ~of(*_SLEEVES)
        if arms.any() and not np.array_equal(colours[of(*_SLEEVES)], shirt[of(*_SLEEVES)]):
            reach = np.abs(rest[:, 0])
            low, high = reach[arms].min(), reach[arms].max()
            colours[arms & (reach > low + hem * (high - low))] = skin
    head = of("head")
    if head.any():
        _face(colours, rest, head, skin, rng, None if rest_landmarks is None else np.asarray(rest_landmarks))
    return np.clip(colours, 0, 255).astype(np.float32)


def _garment(rest: np.ndarray, rng: np.random.Generator, plain: bool = False) -> np.ndarray:
    """One cloth over all vertices: plain, striped or blotched."""
    base = _colour(rng)
    kind = 0.0 if plain else rng.random()
    if kind < 0.6:
        return np.tile(base, (len(rest), 1))
    other = np.clip(base + rng.uniform(-90, 90, 3) * (0.3, 1.0)[rng.integers(2)], 0, 255)
    direction = rng.normal(size=3) if kind > 0.8 else np.array([0.0, 1.0, 0.0])
    wave = np.sin(rest @ direction / np.linalg.norm(direction) * rng.uniform(60, 160) + rng.uniform(0, 6))
    return np.where(wave[:, None] > 0, base, other)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour 0..255, more often muted than bright."""
    colour = rng.uniform(15, 235, 3)
    return colour.mean() + rng.random() ** 1.5 * (colour - colour.mean())


def _face(
    colours: np.ndarray,
    rest: np.ndarray,
    head: np.ndarray,
    skin: np.ndarray,
    rng: np.random.Generator,
    landmarks: np.ndarray | None,
) -> None:
    """Hair on top and behind; eyes, brows and mouth where the landmarks say. In place."""
    low, high = rest[head].min(0), rest[head].max(0)
    relative = (rest - low) / np.maximum(high - low, 1e-9)
    if rng.random() < 0.9:
        line = rng.uniform(0.72, 0.82)
        scalp = head & ((relative[:, 1] > line) | ((relative[:, 2] < 0.4) & (relative[:, 1] > 0.35)))
        colours[scalp] = np.array(_HAIR[rng.integers(len(_HAIR))], np.float64)
    if landmarks is None:
        return
    size = float(high[1] - low[1])
    eyes, mouth = landmarks[[2, 5]], landmarks[[9, 10]]
    in_front = head & (relative[:, 2] > 0.5)

    def paint(centre: np.ndarray, radii: tuple[float, float], colour: np.ndarray, least: int = 1) -> None:
        away = ((rest[:, 0] - centre[0]) / (radii[0] * size)) ** 2 + ((rest[:, 1] - centre[1]) / (radii[1] * size)) ** 2
        inside = in_front & (away < 1)
        if inside.sum() >= least:
            colours[inside] = colour

    for eye in eyes:
        paint(eye, (0.075, 0.040), np.array([235.0, 232.0, 228.0]), least=12)  # not on a coarse mesh
        paint(eye, (0.035, 0.038), np.array([40.0, 28.0, 20.0]))
        paint(eye + np.array([0, 0.085 * size, 0]), (0.085, 0.018), 0.4 * skin)
    paint(mouth.mean(0), (max(0.08, 0.5 * abs(mouth[0, 0] - mouth[1, 0]) / size), 0.03), skin * (0.8, 0.5, 0.5))


def background(image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random still background (H, W, 3) uint8: flat, gradient, room with a floor, boxes, or blotches."""
    width, height = image_size
    kind = rng.integers(5)
    a, b = _colour(rng), _colour(rng)
    down = np.linspace(0, 1, height)[:, None, None]
    right = np.linspace(0, 1, width)[None, :, None]
    if kind == 0:
        image = np.broadcast_to(a, (height, width, 3)).copy()
    elif kind == 1:
        t = rng.uniform(0, 1)
        image = a + (b - a) * (t * down + (1 - t) * right)
    else:
        horizon = rng.uniform(0.4, 0.75)
        image = np.where(down < horizon, a * (1 - 0.25 * down), b * (0.7 + 0.3 * down)) + 0 * right
    if kind == 3:
        for _ in range(int(rng.integers(3, 12))):
            x, y = rng.integers(0, width), rng.integers(0, height)
            w, h = rng.integers(max(2, width // 20), max(3, width // 3)), rng.integers(2, max(3, height // 3))
            image[y : y + h, x : x + w] = _colour(rng)
    if kind == 4 or rng.random() < 0.3:
        vivid = rng.random() ** 1.5
        for cells in (4, 16, 48):
            blotch = rng.normal(size=(1, 3, cells, cells))
            coarse = torch.from_numpy(blotch.mean(1, keepdims=True) * 1.7 * (1 - vivid) + blotch * vivid)
            fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
            image = image + rearrange(fine, "1 c h w -> h w c").numpy() * rng.uniform(2, 60 / cells**0.5)
    return np.clip(image, 0, 255).astype(np.uint8)


def random_look(
    image_size: tuple[int, int],
    part_labels: Any,
    rest_vertices: Any,
    rng: np.random.Generator,
    rest_landmarks: Any = None,
) -> Look:
    """Draw clothes, background, lamp, blur and noise. Arguments as in :func:`clothes`; ``image_size`` (W, H) px."""
    towards = rng.normal(size=3) * (1.0, 0.5, 0.6) + (0.0, -0.8, -0.9)
    towards /= np.linalg.norm(towards)
    ambient = rng.uniform(0.3, 0.65)
    return Look(
        colours=clothes(part_labels, rest_vertices, rng, rest_landmarks),
        background=background(image_size, rng),
        light=(float(towards[0]), float(towards[1]), float(towards[2])),
        ambient=float(ambient),
        diffuse=float(rng.uniform(0.85, 1.2) - ambient),
        blur=float(rng.uniform(0.3, 0.9)),
        noise=float(rng.uniform(0.5, 5.0)),
        seed=int(rng.integers(2**31)),
    )


def render_frames(
    vertices: Any,
    faces: Any,
    K: Any,
    image_size: tuple[int, int],
    look: Look,
) -> np.ndarray:
    """Render a moving mesh.

    Args:
        vertices: (T, V, 3) camera axes, m. Several people are one mesh: see :func:`join`.
        faces: (F, 3), counter-clockwise seen from outside.
        K: (3, 3) or (T, 3, 3) intrinsics, px.
        image_size: (W, H) px, the size of the look's background.

    Returns:
        (T, H, W, 3) uint8 RGB.
    """
    parts = list(_rendered(vertices, faces, K, image_size, look))
    return np.concatenate(parts) if parts else np.zeros((0, image_size[1], image_size[0], 3), np.uint8)


def render_clip(
    path: str | os.PathLike[str],
    vertices: Any,
    faces: Any,
    K: Any,
    image_size: tuple[int, int],
    look: Look,
    *,
    fps: float = 30.0,
    timestamps: Any = None,
) -> None:
    """Render a moving mesh to an mp4; arguments as in :func:`render_frames`, ``timestamps`` (T,) s in place of fps.

    Raises:
        OutputError: when the file cannot be written; then nothing is left of it.
    """
    with VideoWriter(path, image_size, fps) as video:
        count = 0
        for images in _rendered(vertices, faces, K, image_size, look):
            for image in images:
                video.write(image, None if timestamps is None else float(timestamps[count]))
                count += 1


def join(people: list[tuple[Any, Any, Look]]) -> tuple[Tensor, Tensor, Look]:
    """Several (vertices (T, V, 3), faces, look) as one scene, with the first's background, light and lens."""
    if not people:
        raise UsageError("people: expected at least one mesh, got none.")
    points, triangles = join_meshes([vertices for vertices, _, _ in people], [faces for _, faces, _ in people])
    each = [look.colours for _, _, look in people]
    painted = [c for c in each if isinstance(c, Texture)]
    if painted and len(painted) < len(each):
        raise UsageError("people: expected textures on all meshes or on none. Give all of them vertex colours.")
    colours = join_textures(painted) if painted else np.concatenate([c for c in each if not isinstance(c, Texture)])
    return points, triangles, replace(people[0][2], colours=colours)


def _rendered(vertices: Any, faces: Any, K: Any, image_size: tuple[int, int], look: Look) -> Iterator[np.ndarray]:
    points = torch.as_tensor(vertices, dtype=torch.float32)
    triangles = torch.as_tensor(faces, dtype=torch.int64)
    dims = check_shape("vertices", points, "T V 3", "A single frame is vertices[None].")
    if isinstance(look.colours, Texture):
        check_shape("faces", triangles, f"{len(look.colours.face_uv)} 3", "Give the mesh that the texture is of.")
    else:
        check_shape("look.colours", look.colours, f"{dims['V']} 3", "Dress the mesh that is rendered: clothes(...).")
    check_shape("look.background", look.background, f"{image_size[1]} {image_size[0]} 3")
    cameras = torch.as_tensor(K, dtype=torch.float32).expand(dims["T"], 3, 3)
    paint = look.colours if isinstance(look.colours, Texture) else torch.as_tensor(look.colours, dtype=torch.float32)
    generator = torch.Generator().manual_seed(look.seed)
    behind = torch.as_tensor(look.background, dtype=torch.float32)
    grain = torch.randn(behind.shape[:2], generator=generator)[..., None] * look.noise
    shifts = torch.randint(0, 1 << 20, (_GRAINS, 2), generator=generator).tolist()
    grains = [grain.roll(shift, (0, 1)) for shift in shifts]
    empty = [_to_bytes(_blur(behind, look.blur) + g) for g in grains]
    order = torch.randint(0, _GRAINS, (dims["T"],), generator=generator).tolist()
    for begin in range(0, dims["T"], _CHUNK):
        with torch.inference_mode():
            part = points[begin : begin + _CHUNK]
            seen = visible_points(part, triangles, cameras[begin : begin + _CHUNK], image_size, cull_backfaces=True)
            normals = interpolate(seen, vertex_normals(part, triangles), triangles)
            surface = paint.colours(seen) if isinstance(paint, Texture) else interpolate(seen, paint, triangles)
            lit = shade(normals, surface, light=look.light, ambient=look.ambient, diffuse=look.diffuse)
            picks = order[begin : begin + part.shape[0]]
            images = torch.stack([empty[i] for i in picks])
            ends = torch.searchsorted(seen.batch, torch.arange(len(picks) + 1)).tolist()
            for t, pick in enumerate(picks):
                span = slice(ends[t], ends[t + 1])
                _paint(images[t], seen.row[span], seen.column[span], lit[span], behind, grains[pick], look.blur)
            yield images.numpy()


def _paint(image: Tensor, row: Tensor, column: Tensor, lit: Tensor, behind: Tensor, grain: Tensor, blur: float) -> None:
    """Put the covered pixels on the background, through the lens, working on their surroundings alone; in place."""
    if row.numel() == 0:
        return
    low = max(0, int(row.min()) - 2), max(0, int(column.min()) - 2)
    high = int(row.max()) + 3, int(column.max()) + 3
    box = slice(low[0], high[0]), slice(low[1], high[1])
    scene = behind[box].clone(memory_format=torch.contiguous_format)
    width = scene.shape[1]
    scene.view(-1, 3).index_copy_(0, (row - low[0]) * width + column - low[1], lit.contiguous())
    image[box] = _to_bytes(_blur(scene, blur) + grain[box])


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Three taps of standard deviation ``sigma`` px along rows and columns of (H, W, 3); borders keep their value."""
    side = min(0.5 * sigma**2, 1 / 3)
    if side > 0:
        for axis in (0, 1):
            size = image.shape[axis] - 2
            if size > 0:
                inner = image.narrow(axis, 1, size)
                around = image.narrow(axis, 0, size) + image.narrow(axis, 2, size)
                blurred = image.clone()
                blurred.narrow(axis, 1, size).copy_(inner.mul(1 - 2 * side).add_(around, alpha=side))
                image = blurred
    return image


def _to_bytes(image: Tensor) -> Tensor:
    return image.clamp(0, 255).add_(0.5).to(torch.uint8)
