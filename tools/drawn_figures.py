"""Bodies and stick figures as pictures: what tools/draw_prior.py puts on its sheets."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import LineCollection
from torch import Tensor
from torch.nn import functional

from kinflow.body import Body
from kinflow.render import interpolate, shade, vertex_normals, visible_points
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE, NUM_BODY, SMPL_JOINTS, SMPL_PARENTS

YAW, PITCH = -35.0, 8.0  # degrees: the subject turned to a three-quarter view, the camera a little above the hips
# m: what a picture of one body shows, and where its floor lies above the lower edge.
TALL, WIDE, GROUND = 2.2, 1.7, 0.16
LENS = 5.0  # focal length in picture heights: long, so that all bodies look alike wherever they stand
PAPER, SHADE = 247.0, 0.80
LEFT, RIGHT, TRUNK = "#d55e00", "#0072b2", "#404040"
EARS = [BLAZEPOSE.index("left_ear"), BLAZEPOSE.index("right_ear")]


# -- bodies --------------------------------------------------------------------------------------------------------------


def with_root(body_pose: Tensor, root_rotmat: Tensor | None = None) -> Tensor:
    """Body pose (..., 21 or 23, 3) rad or (..., 21, 3, 3) -> (..., 24, 3, 3); the pelvis upright where no root is given."""
    rotmat = body_pose if body_pose.shape[-2:] == (3, 3) else rotvec_to_rotmat(body_pose)
    rotmat = rotmat[..., :NUM_BODY, :, :].float()
    eye = torch.eye(3).expand(*rotmat.shape[:-3], 1, 3, 3)
    root = eye if root_rotmat is None else root_rotmat[..., None, :, :].expand_as(eye)
    return torch.cat((root, rotmat, eye, eye), -3)


def facing_forward(root_rotmat: Tensor) -> Tensor:
    """Root rotations (..., 3, 3) without their heading: turned about the vertical until the pelvis faces +z."""
    heading = torch.atan2(root_rotmat[..., 0, 2], root_rotmat[..., 2, 2])
    upright = torch.stack((torch.zeros_like(heading), -heading, torch.zeros_like(heading)), -1)
    return rotvec_to_rotmat(upright) @ root_rotmat


def turned(points: Tensor) -> Tensor:
    """World points (..., 3) as the viewer sees them: x to the right, y up, z towards the viewer, m."""
    yaw = rotvec_to_rotmat(torch.tensor((0.0, np.deg2rad(YAW), 0.0), dtype=torch.float32))
    pitch = rotvec_to_rotmat(torch.tensor((np.deg2rad(PITCH), 0.0, 0.0), dtype=torch.float32))
    return points @ (pitch @ yaw).T


def bodies(body: Body, pose_rotmat: Tensor, colours: Tensor, height: int) -> np.ndarray:
    """Shaded bodies: poses (N, 24, 3, 3) and RGB (N, 3) 0..255 -> (N, height, W, 3) uint8.

    The pelvis is in the middle and the lowest point on the floor; a soft shadow straight below shows what touches it.
    Rendered at twice the size and averaged.
    """
    size = (2 * round(height * WIDE / TALL), 2 * height)
    centre = torch.tensor((-0.08, TALL / 2 - GROUND, 0.0))  # arms reach forwards, which is to the left
    K = torch.tensor(((LENS * size[1], 0, size[0] / 2), (0, LENS * size[1], size[1] / 2), (0, 0, 1.0)))

    def camera(at: Tensor) -> Tensor:
        return (turned(at) - centre) * torch.tensor((1.0, -1.0, -1.0)) + torch.tensor((0.0, 0.0, LENS * TALL))

    images = []
    for chunk, tint in zip(pose_rotmat.split(24), colours.float().split(24), strict=True):
        points = body.vertices(torch.zeros(10), chunk)
        points[..., 1] -= points[..., 1].amin(-1, keepdim=True)
        cast = points * torch.tensor((1.0, 0.0, 1.0))
        image = torch.full((len(chunk), size[1], size[0], 3), PAPER)
        dark = visible_points(camera(cast), body.faces, K, size)
        mask = torch.zeros(len(chunk), 1, size[1], size[0])
        mask[dark.batch, 0, dark.row, dark.column] = 1.0
        for _ in range(2):
            mask = functional.avg_pool2d(mask, size[1] // 40 * 2 + 1, 1, size[1] // 40)
        image *= 1 - (1 - SHADE) * mask.movedim(1, -1)
        seen = visible_points(camera(points), body.faces, K, size, cull_backfaces=True)
        normals = interpolate(seen, vertex_normals(camera(points), body.faces), body.faces)
        image[seen.batch, seen.row, seen.column] = shade(normals, tint[seen.batch], ambient=0.6, diffuse=0.5)
        image = functional.avg_pool2d(image.movedim(-1, 1), 2).movedim(1, -1)
        images.append((image + 0.5).clamp(0, 255).to(torch.uint8))
    return torch.cat(images).numpy()


def contact_sheet(
    images: np.ndarray, columns: int, title: str, above: Sequence[str] = (), beside: Sequence[str] = ()
) -> plt.Figure:
    """Images (N, H, W, 3) in rows, with labels above the columns and beside the rows, pixel for pixel."""
    rows, (high, wide) = -(-len(images) // columns), images.shape[1:3]
    left, top = (150 if beside else 0), (62 if above else 40)
    width, height = left + columns * wide, top + rows * high
    sheet = np.full((rows * high, columns * wide, 3), round(PAPER), np.uint8)
    for i, image in enumerate(images):
        r, c = divmod(i, columns)
        sheet[r * high : (r + 1) * high, c * wide : (c + 1) * wide] = image
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100, facecolor=(PAPER / 255,) * 3)
    figure.figimage(sheet, left, 0)
    figure.text(8 / width, 1 - 10 / height, title, fontsize=11, va="top")
    for c, text in enumerate(above):
        figure.text((left + (c + 0.5) * wide) / width, 1 - 56 / height, text, fontsize=9, ha="center", va="bottom")
    for r, text in enumerate(beside):
        figure.text(8 / width, 1 - (top + (r + 0.5) * high) / height, text, fontsize=9, va="center")
    return figure


# -- stick figures -------------------------------------------------------------------------------------------------------


def sticks(body: Body, pose_rotmat: Tensor) -> np.ndarray:
    """Poses (..., 24, 3, 3) as seen -> (..., 25, 2) m: 24 joints and the head's middle; lowest point at 0, pelvis at x = 0."""
    joints, landmarks = body.joints_and_landmarks(torch.zeros(10), pose_rotmat)
    points = turned(torch.cat((joints, landmarks[..., EARS, :].mean(-2, keepdim=True)), -2))
    low = points[..., 1].amin(-1)
    return torch.stack((points[..., 0] - points[..., :1, 0], points[..., 1] - low[..., None]), -1).numpy()


def draw_stick(
    axis: plt.Axes, points: np.ndarray, x: float, colour: str | None = None, wide: float = 1.6, alpha: float = 1.0,
    stretch: float = 1.0,
) -> None:  # fmt: skip
    """One figure (25, 2) m at ``x``; left and right in two colours unless one is given. ``stretch``: x units a metre."""
    at = points * (stretch, 1.0) + (x, 0.0)
    ring = np.linspace(0, 2 * np.pi, 24)
    lines = [at[24] + 0.1 * np.stack((stretch * np.cos(ring), np.sin(ring)), -1)]
    colours = [colour or TRUNK]
    for joint, parent in enumerate(SMPL_PARENTS):
        if parent >= 0:
            name = SMPL_JOINTS[joint]
            side = LEFT if name.startswith("left") else RIGHT if name.startswith("right") else TRUNK
            lines.append(at[[parent, joint]])
            colours.append(colour or side)
    shown = LineCollection(lines, colors=colours, linewidths=wide, alpha=alpha, capstyle="round", clip_on=False)
    axis.add_collection(shown, autolim=False)


def strip(axis: plt.Axes, count: int, label: str) -> None:
    """An empty row for ``count`` stick figures a metre apart."""
    axis.set_xlim(-0.5, count - 0.5)
    axis.set_ylim(-0.08, 2.0)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)
    axis.axhline(-0.02, color="0.8", linewidth=0.8, zorder=0)
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10)
