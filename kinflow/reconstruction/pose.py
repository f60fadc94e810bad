"""Putting a full pose together from the root and the flow's joints."""

from __future__ import annotations

import torch
from torch import Tensor


def full_pose(root_rotmat: Tensor, pose_rotmat: Tensor) -> Tensor:
    """Root (..., 3, 3) and the flow's 21 joints (..., 21, 3, 3), hands at rest -> (..., 24, 3, 3)."""
    hands = torch.eye(3, dtype=pose_rotmat.dtype, device=pose_rotmat.device).expand(*pose_rotmat.shape[:-3], 2, 3, 3)
    root = root_rotmat[..., None, :, :].to(pose_rotmat.dtype).expand(*pose_rotmat.shape[:-3], 1, 3, 3)
    return torch.cat((root, pose_rotmat, hands), -3)
