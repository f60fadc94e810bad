"""Meshes as pictures of their own: looked at from the front, the side, above, wherever; no frame behind them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from ..body import Body
from ..body.surface import vertex_normals
from ..cameras import Focal, intrinsics, project
from ..rotations import rotvec_to_rotmat
from .rasteriser import visible_points
from .shading import interpolate, shade

PAPER = 247.0
"""Grey level behind everything."""

_SHADE = 0.80
"""How dark the floor is in a body's shadow, relative to the paper."""

_CHUNK = 24
"""Meshes rendered at a time."""


@dataclasses.dataclass(frozen=True)
class View:
    """Where a scene with y up is looked at from, and how much of it is shown.

    The picture's axes are x to the right, y up and z towards the viewer, in metres; what faces +z faces the viewer of an
    unturned scene. Points in camera axes (x right, y down, z forward) are such a scene after ``points * (1, -1, -1)``,
    seen from the camera by :data:`FRONT`.

    Attributes:
        yaw: degrees by which the scene is turned about the vertical; -90 shows the left side of a body that faces +z.
        pitch: degrees by which the viewer is raised; 90 looks straight down.
        span: m shown from the picture's lower edge to its upper, at the depth of ``centre``.
        centre: (3,) m, the middle of what is shown, in the picture's axes.
        lens: focal length in picture heights; a long one shows proportions without perspective.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    span: float = 2.0
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lens: float = 5.0

    def turned(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the scene in the picture's axes, m."""
        yaw, pitch = (np.deg2rad(a) * torch.eye(3)[i] for a, i in ((self.yaw, 1), (self.pitch, 0)))
        return points @ (rotvec_to_rotmat(pitch.float()) @ rotvec_to_rotmat(yaw.float())).to(points).mT

    def to_camera(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the scene in camera axes, m."""
        flipped = (self.turned(points) - points.new_tensor(self.centre)) * points.new_tensor((1.0, -1.0, -1.0))
        return flipped + points.new_tensor((0.0, 0.0, self.lens * self.span))

    def intrinsics(self, image_size: tuple[int, int]) -> Tensor:
        """K (3, 3) of a picture of ``image_size`` (W, H) px."""
        return intrinsics(image_size, Focal(self.lens * image_size[1]))

    def pixels(self, points: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Where points (..., 3) of the scene lie in a picture of ``image_size`` (W, H): (..., 2) px."""
        return project(self.to_camera(points), self.intrinsics(image_size).to(points))

    def fitted(self, points: Tensor, image_size: tuple[int, int], margin: float = 0.05) -> View:
        """The same view, moved and widened until it just shows all ``points`` (..., 3), with a margin in parts of it."""
        at = self.turned(points).reshape(-1, 3)
        centre = (at.amin(0) + at.amax(0)) / 2
        x, y, z = (at - centre).unbind(-1)
        # |x| lens span / (lens span - z) <= width / 2, solved for the span, where z is how much nearer the point is.
        span = 2 * torch.maximum(x.abs() * image_size[1] / image_size[0], y.abs()) + z / self.lens
        across, up, towards = centre.tolist()
        return dataclasses.replace(self, span=(1 + 2 * margin) * float(span.max()), centre=(across, up, towards))


FRONT, SIDE, TOP, OBLIQUE = View(), View(yaw=-90.0), View(pitch=90.0), View(yaw=-35.0, pitch=8.0)

_STANDING = dataclasses.replace(OBLIQUE, span=2.2, centre=(-0.08, 0.94, 0.0))
"""One person on a floor at y = 0, turned a little; arms reach forwards, which is to the left."""

_STANDING_ASPECT = 1.9 / 2.2


def draw_mesh(
    vertices: Tensor,
    faces: Tensor,
    view: View,
    image_size: tuple[int, int],
    colours: Tensor,
    *,
    floor: float | None = None,
) -> np.ndarray:
    """Shaded meshes on plain paper, rendered at twice the size and averaged.

    Args:
        vertices: (N, V, 3) m, y up; each has a picture of its own.
        faces: (F, 3), counter-clockwise seen from outside.
        view: from where.
        image_size: (W, H) px of each picture.
        colours: RGB 0..255 that broadcasts to (N, V, 3): one for all, (N, 1, 3) one a picture, (V, 3) one a vertex. A
            face has its first corner's.
        floor: m, height of a floor on which a soft shadow straight below shows what touches it; None: no floor.

    Returns:
        (N, H, W, 3) uint8 RGB.
    """
    width, height = size = (2 * image_size[0], 2 * image_size[1])
    K, tints = view.intrinsics(size).to(vertices), colours.to(vertices).expand(vertices.shape)
    images = []
    for points, tint in zip(vertices.split(_CHUNK), tints.split(_CHUNK), strict=True):
        image = vertices.new_full((len(points), height, width, 3), PAPER)
        if floor is not None:
            cast = points * points.new_tensor((1.0, 0.0, 1.0)) + points.new_tensor((0.0, floor, 0.0))
            dark = visible_points(view.to_camera(cast), faces, K, size)
            mask = vertices.new_zeros(len(points), 1, height, width)
            mask[dark.batch, 0, dark.row, dark.column] = 1.0
            for _ in range(2):
                mask = functional.avg_pool2d(mask, height // 40 * 2 + 1, 1, height // 40)
            image *= 1 - (1 - _SHADE) * rearrange(mask, "n 1 h w -> n h w 1")
        at = view.to_camera(points)
        seen = visible_points(at, faces, K, size, cull_backfaces=True)
        normals = interpolate(seen, vertex_normals(at, faces), faces)
        image[seen.batch, seen.row, seen.column] = shade(
            normals, tint[seen.batch, faces[seen.face, 0]], ambient=0.6, diffuse=0.5
        )
        half = rearrange(functional.avg_pool2d(rearrange(image, "n h w c -> n c h w"), 2), "n c h w -> n h w c")
        images.append((half + 0.5).clamp(0, 255).to(torch.uint8))
    return torch.cat(images).cpu().numpy()


def draw_bodies(body: Body, pose_rotmat: Tensor, colours: Tensor, height: int) -> np.ndarray:
    """Bodies of mean shape standing on a floor, one a picture, from ahead and a little to the side.

    Args:
        body: whose mesh.
        pose_rotmat: (N, 24, 3, 3), the root's in a world with y up. The pelvis is in the picture's middle.
        colours: (N, 3) RGB 0..255.
        height: px of a picture, which shows 2.2 m.

    Returns:
        (N, height, W, 3) uint8.
    """
    parts = []
    for chunk, tint in zip(pose_rotmat.split(_CHUNK), colours.split(_CHUNK), strict=True):
        points = body.vertices(torch.zeros(10), chunk)
        points[..., 1] -= points[..., 1].amin(-1, keepdim=True)
        size = (round(height * _STANDING_ASPECT), height)
        parts.append(draw_mesh(points, body.faces, _STANDING, size, tint[:, None], floor=0.0))
    return np.concatenate(parts)
