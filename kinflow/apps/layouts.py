"""What stands in the picture beside the overlay: the frame as it was, and the people from the side."""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Literal

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..body import Body
from ..config import RenderConfig
from ..errors import UsageError
from ..formats.characters import file_axes, on_ground
from ..motion import Motion
from ..render import overlay, person_colour
from ..render.lines import draw_lines
from ..render.views import PAPER, SIDE, View

__all__ = ["LAYOUTS", "Layout", "Panels", "SideView", "check_layout", "scaled"]

Layout = Literal["overlay", "original-overlay", "overlay-side", "side-by-side"]
LAYOUTS: dict[Layout, tuple[str, ...]] = {
    "overlay": ("overlay",),
    "original-overlay": ("original", "overlay"),
    "overlay-side": ("overlay", "side"),
    "side-by-side": ("original", "overlay", "side"),
}
"""Panels from left to right."""

WIDEST = 2560
"""Pixels of several panels together: many players stop at 4096, and screens before that."""
FIXED_M = 5.0
"""People who keep within so much are shown in one steady view from the side; with others it goes along."""
AROUND_S = 1.0
"""It holds what they do within so many seconds before and after."""
AROUND_JOINTS_M = 0.25
"""How far a body reaches beyond its joints."""
RAISED = 8.0
"""Degrees by which the viewer is raised where there is a ground to look at."""
GRID_M = 0.5
_GRID, _GRID_STRONG = (222, 222, 222), (190, 190, 190)


def check_layout(layout: str) -> Layout:
    """Raises UsageError: no layout of :data:`LAYOUTS`."""
    if layout not in LAYOUTS:
        raise UsageError(f"layout: expected one of {', '.join(typing.get_args(Layout))}, got {layout!r}.")
    return layout  # type: ignore[return-value]  # mypy does not narrow by a dict's keys


@dataclasses.dataclass(frozen=True)
class Panels:
    """Sizes of what stands side by side, px.

    Attributes:
        names: of :data:`LAYOUTS`.
        frame: (width, height) of the frame's panels: the clip's own, smaller where all would be wider than :data:`WIDEST`.
        side: (width, height) of the view from the side.
    """

    names: tuple[str, ...]
    frame: tuple[int, int]
    side: tuple[int, int]

    @classmethod
    def of(cls, layout: Layout, image_size: tuple[int, int]) -> Panels:
        names, (width, height) = LAYOUTS[layout], image_size
        beside = min(width, height)
        total = sum(beside if name == "side" else width for name in names)
        share = min(1.0, WIDEST / total) if len(names) > 1 else 1.0
        if share < 1:
            width, height, beside = (max(2, 2 * round(v * share / 2)) for v in (width, height, beside))
        return cls(names, (width, height), (beside, height))

    @property
    def overlay_columns(self) -> tuple[int, int] | None:
        """From where to where the overlay reaches; None where it is alone."""
        left = sum(self.frame[0] for name in self.names[: self.names.index("overlay")] if name == "original")
        return (left, left + self.frame[0]) if len(self.names) > 1 else None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole picture."""
        return sum(self.side[0] if n == "side" else self.frame[0] for n in self.names), self.frame[1]


def scaled(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) in another size (width, height), each pixel the mean of those that it covers."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return np.asarray(frame.reformat(width=size[0], height=size[1], interpolation="AREA").to_ndarray(), np.uint8)


class SideView:
    """The people of a clip from the side, upright, in the axes of the exports; their camera stands to the left.

    Upright is the world's where the motions know it, and then there is a grid on the ground; else it is the camera's, and
    people lean as far as the camera was tilted.

    Args:
        motions: of one clip.
        body: that they belong to.
        size: (width, height) px of the picture.
        config: rasteriser.
    """

    def __init__(
        self, motions: Sequence[Motion], body: Body, size: tuple[int, int], config: RenderConfig | None = None
    ) -> None:
        self.size, self._faces = size, body.faces
        self._config = dataclasses.replace(config or RenderConfig(), opacity=1.0)
        self._axes = [file_axes(m, body) for m in motions]
        self._ground = on_ground(motions)
        # A world's axes may lie anyhow about the vertical: what counts is where the camera first looks.
        ahead = self._axes[0][0][0][:, 2] if self._axes and len(self._axes[0][0]) else np.array([0.0, 0.0, -1.0])
        heading = math.degrees(math.atan2(-ahead[0], -ahead[2]))
        self._base = dataclasses.replace(SIDE, yaw=SIDE.yaw - heading, pitch=RAISED if self._ground else SIDE.pitch)
        self._views = self._framed(motions)
        self._rows = [{int(f): t for t, f in enumerate(m.frame_ids)} for m in motions]
        self._paper: tuple[View, NDArray[np.uint8]] | None = None

    def draw(self, frame_id: int, present: Mapping[int, Tensor]) -> NDArray[np.uint8]:
        """One frame: (H, W, 3) uint8. ``present``: number of each person in view -> vertices (V, 3) in camera axes, m."""
        view = self._views.get(frame_id)
        if view is None or not present:
            return self._blank(view)
        meshes = []
        for person, vertices in present.items():
            (turn, shift), row = self._axes[person], self._rows[person][frame_id]
            points = vertices @ torch.from_numpy(turn[row].T).to(vertices) + torch.from_numpy(shift[row]).to(vertices)
            meshes.append((view.to_camera(points), person_colour(person)))
        return overlay(self._blank(view), meshes, self._faces, view.intrinsics(self.size), self._config)

    def _framed(self, motions: Sequence[Motion]) -> dict[int, View]:
        """The view of each frame in which there is somebody."""
        bounds: dict[int, tuple[float, NDArray[np.float64], NDArray[np.float64]]] = {}
        for motion, (turn, shift) in zip(motions, self._axes, strict=True):
            joints = np.einsum("tij,tnj->tni", turn, motion.joints3d) + shift[:, None]
            for frame, time, low, high in zip(
                motion.frame_ids, motion.timestamps, joints.min(1), joints.max(1), strict=True
            ):
                _, before, after = bounds.get(int(frame), (time, low, high))
                bounds[int(frame)] = (float(time), np.minimum(low, before), np.maximum(high, after))
        if not bounds:
            return {}
        frames = sorted(bounds)
        times = np.array([bounds[f][0] for f in frames])
        low = np.stack([bounds[f][1] for f in frames]) - AROUND_JOINTS_M
        high = np.stack([bounds[f][2] for f in frames]) + AROUND_JOINTS_M
        if self._ground:
            low[:, 1] = np.minimum(low[:, 1], 0.0)
        if np.ptp(np.stack((low, high)).reshape(-1, 3), 0).max() <= FIXED_M:
            view = self._around(low.min(0), high.max(0))
            return dict.fromkeys(frames, view)
        near = [np.abs(times - t) <= AROUND_S for t in times]
        low, high = np.stack([low[n].min(0) for n in near]), np.stack([high[n].max(0) for n in near])
        # Means over the same stretch once more: the view glides.
        return {f: self._around(low[n].mean(0), high[n].mean(0)) for f, n in zip(frames, near, strict=True)}

    def _around(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> View:
        corners = torch.tensor(list(itertools.product(*zip(low.tolist(), high.tolist(), strict=True))))
        return self._base.fitted(corners, self.size, 0.02)

    def _blank(self, view: View | None) -> NDArray[np.uint8]:
        """Paper, with the grid on the ground."""
        if self._paper is not None and view == self._paper[0]:
            return self._paper[1].copy()
        image = np.full((self.size[1], self.size[0], 3), round(PAPER), np.uint8)
        if view is None:
            return image
        if self._ground:
            _draw_grid(image, view, self.size)
        self._paper = view, image
        return image.copy()


def _draw_grid(image: NDArray[np.uint8], view: View, size: tuple[int, int]) -> None:
    """Lines on the ground every half metre, those of whole metres stronger, around the middle of what is shown."""
    turn = view.turned(torch.eye(3)).T.numpy()  # from the scene's axes to the picture's
    middle = np.round(np.array(view.centre) @ turn / GRID_M)
    reach = math.ceil((view.span * max(1.0, size[0] / size[1]) / 2 + 1.0) / GRID_M)
    for step, axis in itertools.product(range(-reach, reach + 1), (0, 2)):
        ends = np.zeros((2, 3))
        ends[:, axis] = middle[axis] + step
        ends[:, 2 - axis] = middle[2 - axis] - reach, middle[2 - axis] + reach
        at = view.pixels(torch.from_numpy(ends * GRID_M).float(), size).numpy()
        draw_lines(image, at[:1], at[1:], _GRID_STRONG if (middle[axis] + step) % 2 == 0 else _GRID)
