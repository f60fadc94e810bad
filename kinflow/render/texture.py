"""Pictures on meshes: the colour of each covered pixel from texture coordinates of the faces' corners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import check_shape
from .fragments import VisiblePoints


@dataclass(frozen=True)
class Texture:
    """What the faces of a mesh are painted with.

    Attributes:
        face_uv: (F, 3, 2) texture coordinates of each face's corners: u to the right, v upwards, 0..1, repeating.
        face_picture: (F,) index into ``pictures``.
        pictures: each (H, W, 3) uint8 RGB.
    """

    face_uv: NDArray[np.float32]
    face_picture: NDArray[np.int64]
    pictures: tuple[NDArray[np.uint8], ...]

    def __post_init__(self) -> None:
        count = check_shape("face_uv", self.face_uv, "F 3 2")["F"]
        check_shape("face_picture", self.face_picture, f"{count}")
        for n, picture in enumerate(self.pictures):
            check_shape(f"pictures[{n}]", picture, "H W 3")

    def colours(self, seen: VisiblePoints) -> Tensor:
        """(N, 3) 0..255 at the covered pixels: bilinear, from each picture shrunk until its texels are about as large as
        the pixels, all in one: a mesh seen from far away does not flicker."""
        uv = torch.from_numpy(self.face_uv)
        picture_of = torch.from_numpy(self.face_picture).index_select(0, seen.face)
        at = (uv.index_select(0, seen.face) * seen.barycentric[..., None]).sum(1)
        out = torch.empty(len(at), 3)
        for number, picture in enumerate(self.pictures):
            here = (picture_of == number).nonzero()[:, 0]
            if len(here) == 0:
                continue
            image = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
            shrunk = _shrink(image, self._texels(seen, here, number) / len(here))
            x, y = (at[here] % 1).unbind(-1)
            grid = torch.stack((2 * x - 1, 1 - 2 * y), -1)[None, None]
            sampled = torch.nn.functional.grid_sample(shrunk, grid, padding_mode="border", align_corners=False)
            out[here] = sampled[0, :, 0].T
        return out

    def _texels(self, seen: VisiblePoints, here: Tensor, number: int) -> float:
        """How many texels of a picture the faces seen take, once for each image of the batch in which they are seen."""
        pairs = torch.unique(seen.batch[here] * len(self.face_uv) + seen.face[here])
        a, b, c = torch.from_numpy(self.face_uv).index_select(0, pairs % len(self.face_uv)).unbind(1)
        (ux, uy), (vx, vy) = (b - a).unbind(-1), (c - a).unbind(-1)
        height, width = self.pictures[number].shape[:2]
        return float((ux * vy - uy * vx).abs().sum()) / 2 * height * width


def join_textures(textures: Sequence[Texture]) -> Texture:
    """The texture of meshes that are joined in this order."""
    starts = np.cumsum([0, *(len(t.pictures) for t in textures[:-1])])
    return Texture(
        np.concatenate([t.face_uv for t in textures]),
        np.concatenate([t.face_picture + start for t, start in zip(textures, starts, strict=True)]),
        tuple(picture for t in textures for picture in t.pictures),
    )


def _shrink(image: Tensor, texels_per_pixel: float) -> Tensor:
    """Halve (1, 3, H, W) while there are more than two texels a pixel."""
    while texels_per_pixel > 2 and min(image.shape[-2:]) >= 8:
        image = torch.nn.functional.avg_pool2d(image, 2)
        texels_per_pixel /= 4
    return image
