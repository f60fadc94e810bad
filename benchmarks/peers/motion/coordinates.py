"""Coordinates of poses in which the linear peers and the conditional VAE work, with their volume change."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from kinflow.flow import PoseFlow
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat, so3_log_jacobian_logdet

DIM = 63


@dataclasses.dataclass(frozen=True)
class Latents:
    """The latents of a pose flow."""

    flow: PoseFlow

    def encode(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (..., 21, 3, 3) -> coordinates (..., 63) and log|dx / dHaar| (...)."""
        return self.flow.encode(rotmat)

    def decode(self, x: Tensor) -> Tensor:
        """Coordinates (..., 63) -> rotations (..., 21, 3, 3)."""
        return self.flow.decode(x.float())[0]


@dataclasses.dataclass(frozen=True)
class Tangent:
    """Rotation vectors about each joint's mean rotation (21, 3, 3): no flow, and a volume change known in closed form.

    A density on them counts what lies beyond pi as well, which a one-step prediction all but never reaches.
    """

    mean: Tensor

    @classmethod
    def fit(cls, rotmat: Tensor) -> Tangent:
        """About the mean rotations (nearest rotation to the mean matrix) of poses (N, 21, 3, 3)."""
        u, _, vh = torch.linalg.svd(rotmat.double().mean(0))
        sign = torch.ones(len(u), 3, dtype=u.dtype)
        sign[:, 2] = torch.det(u @ vh).sign()
        return cls(((u * sign[:, None]) @ vh).to(rotmat.dtype))

    def encode(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (..., 21, 3, 3) -> coordinates (..., 63) and log|dx / dHaar| (...)."""
        vector = rotmat_to_rotvec(self.mean.to(rotmat.dtype).mT @ rotmat)
        return vector.flatten(-2), -so3_log_jacobian_logdet(vector).sum(-1)

    def decode(self, x: Tensor) -> Tensor:
        """Coordinates (..., 63) -> rotations (..., 21, 3, 3)."""
        return self.mean @ rotvec_to_rotmat(x.to(self.mean.dtype).unflatten(-1, (21, 3)))

    def track(self, rotmat: Tensor) -> Tensor:
        """Coordinates (B, T, 63) of motions, continuous in time where the angle passes pi."""
        return unwrap(self.encode(rotmat)[0].unflatten(-1, (21, 3))).flatten(-2)


def unwrap(vector: Tensor) -> Tensor:
    """Rotation vectors (B, T, ..., 3), each turned by whole turns about its axis to come nearest to the one before."""
    out = [vector[:, 0]]
    for here in vector.unbind(1)[1:]:
        angle = here.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        turns = torch.stack([here + 2 * math.pi * k * here / angle for k in (0, -1, 1)], -2)
        nearest = (turns - out[-1][..., None, :]).norm(dim=-1).argmin(-1)
        out.append(turns.gather(-2, nearest[..., None, None].expand(*nearest.shape, 1, 3)).squeeze(-2))
    return torch.stack(out, 1)
