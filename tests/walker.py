"""A procedural walker: SMPL parameters with a known gait, needing no data of anyone's.

The gait is told in angles from a straight T-pose, as people think of it, and turned into rotations from SMPL's zero pose.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from kinflow.mocap.zero_pose import into_zero_pose
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat


@dataclasses.dataclass(frozen=True)
class Walk:
    """``pose_rotmat (T, 24, 3, 3)`` with the root's in camera axes, ``transl (T, 3)`` camera metres, ``timestamps (T,)`` s."""

    pose_rotmat: Tensor
    transl: Tensor
    timestamps: Tensor


def _about(axis: int, angle: Tensor) -> Tensor:
    rotvec = torch.zeros(*angle.shape, 3)
    rotvec[..., axis] = angle
    return rotvec_to_rotmat(rotvec)


def walk(frames: int = 60, fps: float = 30.0, heading: float = 0.9, speed: float = 0.7, distance: float = 4.5) -> Walk:
    """A person walks past a level camera at eye height.

    Args:
        heading: direction of the walk in rad; 0 comes towards the camera, pi/2 goes to the image's right.
        speed: m/s. distance: of the walk's middle from the camera, m.
    """
    t = torch.arange(frames) / fps
    phase = 2 * math.pi * 0.9 * t
    rotvec = torch.zeros(frames, 24, 3)
    pose = rotvec_to_rotmat(rotvec)
    for side, (hip, knee, ankle, shoulder, elbow) in ((0.0, (1, 4, 7, 16, 18)), (math.pi, (2, 5, 8, 17, 19))):
        p = phase + side
        sign = 1.0 if side == 0 else -1.0
        pose[:, hip] = _about(0, -0.42 * torch.sin(p) - 0.08)
        pose[:, knee] = _about(0, 0.12 + 0.75 * torch.clamp(torch.sin(p - 2.4 + math.pi / 2 + 1.2), min=0) ** 2)
        pose[:, ankle] = _about(0, 0.12 * torch.sin(p + 0.6))
        pose[:, shoulder] = _about(0, 0.4 * torch.sin(p)) @ _about(2, torch.full_like(t, -1.27 * sign))
        pose[:, elbow] = _about(1, -sign * (0.35 + 0.2 * torch.clamp(-torch.sin(p), min=0)))
    pose[:, 3] = _about(1, 0.08 * torch.sin(phase))
    pose[:, 9] = _about(1, -0.14 * torch.sin(phase))
    pose = torch.from_numpy(into_zero_pose(pose.double().numpy())).float()
    # body (y up, faces +z) -> camera (y down, z forward): half a turn about x brings the body upright facing the camera
    pose[:, 0] = _about(0, torch.full_like(t, math.pi)) @ _about(1, torch.full_like(t, heading))
    direction = torch.tensor([math.sin(heading), 0.0, -math.cos(heading)])
    transl = torch.tensor([0.0, 0.25, distance]) + (t - t.mean())[:, None] * speed * direction
    transl[:, 1] += 0.02 * torch.cos(2 * phase)
    return Walk(pose, transl, t.double())


def rotvecs(w: Walk) -> Tensor:
    return rotmat_to_rotvec(w.pose_rotmat)
