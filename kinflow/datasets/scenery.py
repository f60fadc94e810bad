"""A room with textured floor and walls, as a moving camera sees it: backgrounds of rendered clips with a known camera."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import check_shape

_TEXELS = 512
_REPEAT_M = 6.0
"""Side of the square of floor or wall that one texture fills."""


@dataclasses.dataclass(frozen=True)
class Room:
    """A closed box, seen from inside; the world's y is up and its floor at 0.

    Attributes:
        low, high: (3,) m, its corners.
        textures: (3, 3, S, S) 0..255, channels second: of the walls square to x, of floor and ceiling, of those square to z.
        tints: (6, 3), factors on them: low and high x, floor and ceiling, low and high z.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    textures: Tensor
    tints: Tensor

    @classmethod
    def drawn(cls, rng: np.random.Generator, centre: NDArray[np.float64], reach: float, contrast: float = 1.0) -> Room:
        """A random room about a place, ``reach`` m to its nearest wall; ``contrast`` 0 is plain paint."""
        sides = rng.uniform(1.0, 1.6, 4) * reach
        low = np.array([centre[0] - sides[0], 0.0, centre[2] - sides[1]])
        high = np.array([centre[0] + sides[2], rng.uniform(3.0, 4.5), centre[2] + sides[3]])
        return cls(
            low, high, torch.stack([_texture(rng, contrast) for _ in range(3)]),
            torch.from_numpy(rng.uniform(0.75, 1.05, (6, 1)) * rng.uniform(0.92, 1.05, (6, 3))).float(),
        )  # fmt: skip

    def seen(self, T_world2cam: NDArray[np.float64], K: Tensor, image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """What a camera (4, 4) inside the room sees of it: (H, W, 3) uint8 RGB."""
        check_shape("T_world2cam", T_world2cam, "4 4")
        width, height = image_size
        turn, shift = (torch.from_numpy(np.asarray(v)).float() for v in (T_world2cam[:3, :3], T_world2cam[:3, 3]))
        x = (torch.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
        y = (torch.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
        rays = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width), torch.ones(height, width)), -1) @ turn
        centre = -shift @ turn
        bounds = torch.from_numpy(np.stack((self.low, self.high))).float()
        away = torch.where(rays >= 0, bounds[1], bounds[0]) - centre
        reach = away / torch.where(rays.abs() < 1e-6, torch.full_like(rays, 1e-6), rays)
        nearest, axis = reach.clamp_min(0).min(-1)
        hit = centre + nearest[..., None] * rays
        face = 2 * axis + (rays.gather(-1, axis[..., None])[..., 0] >= 0)
        others = torch.tensor([[2, 1], [0, 2], [0, 1]])[axis]
        uv = hit.gather(-1, others) / _REPEAT_M
        uv = 2 * (uv - uv.floor()) - 1
        image = torch.empty(height, width, 3)
        for number, texture in enumerate(self.textures):  # of three kinds of walls
            there = axis == number
            if bool(there.any()):
                sampled = torch.nn.functional.grid_sample(
                    texture[None], uv[there][None, None], mode="bilinear", padding_mode="border", align_corners=False
                )
                image[there] = sampled[0, :, 0].T
        return (image * self.tints[face]).clamp(0, 255).byte().numpy()


def _texture(rng: np.random.Generator, contrast: float) -> Tensor:
    """Blotches of several sizes on a colour, with planks or tiles: (3, S, S) 0..255. It need not tile: corners are features."""
    base = torch.from_numpy(rng.uniform(90, 180, 3)).float()[:, None, None]
    image = base.expand(3, _TEXELS, _TEXELS).clone()
    for cells, strength in ((6, 22.0), (24, 20.0), (64, 16.0), (160, 12.0)):
        noise = torch.from_numpy(
            rng.normal(size=(1, 3, cells, cells)) * 0.4 + rng.normal(size=(1, 1, cells, cells))
        ).float()
        image += contrast * strength * torch.nn.functional.interpolate(
            noise, size=(_TEXELS, _TEXELS), mode="bilinear", align_corners=False
        )[0]  # fmt: skip
    cells = int(rng.integers(6, 13))
    line = (torch.arange(_TEXELS) * cells % _TEXELS) < 3 * cells
    image[:, line] *= 1 - 0.35 * contrast
    image[:, :, line] *= 1 - 0.2 * contrast
    return image.clamp(0, 255)
