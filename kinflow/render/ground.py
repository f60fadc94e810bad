"""The ground drawn into frames: a grid of metres, that shows whether gravity, height and the camera's path are right."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import check_shape

FAR_M = 12.0
"""Lines fade out until here from the camera."""
LINE_PX = 1.3
"""Half of a line's width."""
OPACITY = 0.55
COLOUR = (255.0, 255.0, 255.0)


def grid_opacity(T_world2cam: NDArray[np.float64], K: NDArray[np.float64], image_size: tuple[int, int]) -> torch.Tensor:
    """How far lines of a metre's grid on the world's y = 0 cover each pixel (H, W), 0..1.

    Args:
        T_world2cam: (4, 4), world y up, m. K: (3, 3) px. image_size: (W, H) px.
    """
    check_shape("T_world2cam", T_world2cam, "4 4")
    check_shape("K", K, "3 3")
    width, height = image_size
    turn = torch.as_tensor(np.array(T_world2cam[:3, :3]), dtype=torch.float32)
    centre = -turn.T @ torch.as_tensor(np.array(T_world2cam[:3, 3]), dtype=torch.float32)
    x = (torch.arange(width) + 0.5 - float(K[0, 2])) / float(K[0, 0])
    y = (torch.arange(height) + 0.5 - float(K[1, 2])) / float(K[1, 1])
    rays = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width), torch.ones(height, width)), -1) @ turn
    away = -centre[1] / torch.where(
        rays[..., 1].abs() < 1e-6, torch.full_like(x, 1e-6).expand(height, -1), rays[..., 1]
    )
    seen = away > 0.1  # in front of the camera, and no ray along the ground
    cover = torch.zeros(height, width)
    for axis in (0, 2):
        at = centre[axis] + away * rays[..., axis]
        # Metres a pixel, of the neighbour that is further off: lines are as wide far away as near by.
        steps = [torch.gradient(at, dim=d)[0].abs() for d in (0, 1)]
        pixel = torch.maximum(*steps).clamp_min(1e-6)
        line = (at - at.round()).abs() / pixel
        dense = (1 - 2 * LINE_PX * pixel).clamp(0, 1)  # lines that run into each other are left out
        cover = torch.maximum(cover, (LINE_PX + 0.5 - line).clamp(0, 1) * dense)
    reach = (away * rays.norm(dim=-1)) / FAR_M
    return torch.where(seen, OPACITY * cover * (1 - reach).clamp(0, 1), torch.zeros_like(cover))


def draw_grid(image: NDArray[np.uint8], opacity: torch.Tensor) -> NDArray[np.uint8]:
    """A frame (H, W, 3) with lines in white, by their opacity (H, W)."""
    picture = torch.from_numpy(np.ascontiguousarray(image)).float()
    mixed = picture + opacity[..., None] * (torch.tensor(COLOUR) - picture)
    return (mixed + 0.5).to(torch.uint8).numpy()
