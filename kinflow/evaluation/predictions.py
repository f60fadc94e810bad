"""What a system says of one recording, and the truth in the same form."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..body import Body
from ..datasets.recording import Recording
from ..errors import ShapeError, check_shape
from ..rotations import rotvec_to_rotmat
from ..skeleton import SMPL_JOINTS


@dataclasses.dataclass(frozen=True)
class Parameters:
    """SMPL parameters of one person in camera axes.

    Attributes:
        body: the model they belong to.
        betas: (10,) or (T, 10). pose_rotmat: (T, 24, 3, 3), pelvis to camera first. transl: (T, 3) m, of the template's origin.
    """

    body: Body
    betas: Tensor
    pose_rotmat: Tensor
    transl: Tensor

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape, pose and translation of some frames, on the body's device and in its type."""
        betas = self.betas if self.betas.dim() == 1 else self.betas[index]
        parts = (betas.expand(len(index), -1), self.pose_rotmat[index], self.transl[index])
        return tuple(part.to(self.body.device, self.body.dtype) for part in parts)  # type: ignore[return-value]

    def joints(self) -> Tensor:
        """(T, 24, 3) m."""
        every = torch.arange(len(self.transl))
        return torch.cat([self.body.joints(*self.rows(part)) for part in every.split(1024)]).cpu()


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One person over a recording's T frames, in camera axes and metres.

    Attributes:
        found: (T,) bool, whether the frame has a prediction; elsewhere the arrays may hold anything finite.
        joints3d: (T, 24, 3) SMPL's joints; NaN in all frames for joints that the system does not know.
        parameters: where there are some; protocols of meshes need those of an SMPL body.
        joints3d_std: (T, 24, 2) predicted deviations of the joints about the pelvis, across the line of sight and along it,
            or None.
        placed: whether the system says where the person is; metrics of the world are left out where it does not.
    """

    found: Tensor
    joints3d: Tensor
    parameters: Parameters | None = None
    joints3d_std: Tensor | None = None
    placed: bool = True

    def __post_init__(self) -> None:
        frames = check_shape("joints3d", self.joints3d, f"T {len(SMPL_JOINTS)} 3")["T"]
        check_shape("found", self.found, f"{frames}")
        if self.joints3d_std is not None:
            check_shape("joints3d_std", self.joints3d_std, f"{frames} {len(SMPL_JOINTS)} 2")

    @classmethod
    def of(cls, parameters: Parameters, found: Tensor, joints3d_std: Tensor | None = None) -> Prediction:
        """From SMPL parameters, whose body has the joints."""
        return cls(found, parameters.joints(), parameters, joints3d_std)


def nobody(frames: int) -> Prediction:
    """The prediction of a system that did not find the person."""
    return Prediction(torch.zeros(frames, dtype=torch.bool), torch.zeros(frames, len(SMPL_JOINTS), 3))


def to_camera(points_world: Tensor, recording: Recording) -> Tensor:
    """Points (T, P, 3) of the recording's world in its camera's axes."""
    if recording.T_world2cam is None:
        return points_world
    extrinsics = torch.from_numpy(np.ascontiguousarray(recording.T_world2cam)).to(points_world)
    return points_world @ extrinsics[:, :3, :3].transpose(-1, -2) + extrinsics[:, None, :3, 3]


def to_world(points_cam: Tensor, recording: Recording) -> Tensor:
    """The inverse of :func:`to_camera`."""
    if recording.T_world2cam is None:
        return points_cam
    extrinsics = torch.from_numpy(np.ascontiguousarray(recording.T_world2cam)).to(points_cam)
    return (points_cam - extrinsics[:, None, :3, 3]) @ extrinsics[:, :3, :3]


def true_parameters(recording: Recording, body: Body) -> Parameters:
    """The recording's own SMPL parameters in camera axes, on ``body``.

    Raises:
        ShapeError: the recording has none.
    """
    if recording.smpl is None or recording.smpl.transl is None:
        raise ShapeError(f"{recording.name}: expected SMPL parameters, got none. Use a protocol of joints.")
    truth = recording.smpl
    rotvec = torch.from_numpy(np.concatenate((truth.global_orient[:, None], truth.body_pose), 1))
    pose = rotvec_to_rotmat(rotvec)
    betas, transl = torch.from_numpy(truth.betas), torch.from_numpy(recording.smpl.transl)
    pelvis = body.rest_joints(betas.to(body.device, body.dtype))[0].cpu().double()
    if recording.T_world2cam is not None:
        pose[:, 0] = torch.from_numpy(np.ascontiguousarray(recording.T_world2cam[:, :3, :3])) @ pose[:, 0]
        # The body turns about its pelvis, so it is the pelvis that the camera's pose carries over.
        transl = to_camera((transl + pelvis)[:, None], recording)[:, 0] - pelvis
    return Parameters(body, betas, pose, transl)


def true_joints(recording: Recording) -> Tensor:
    """The recording's own 24 joints in camera axes (T, 24, 3).

    Raises:
        ShapeError: the recording has other joints, or none.
    """
    if recording.joints3d is None or recording.joint_names != SMPL_JOINTS:
        raise ShapeError(f"{recording.name}: expected SMPL's 24 joints, got {len(recording.joint_names)} others.")
    return to_camera(torch.from_numpy(recording.joints3d), recording)
