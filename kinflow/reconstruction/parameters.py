"""One person's motion as the body's parameters, and the record made of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..body import Body
from ..body.kinematics import full_pose
from ..evidence import Evidence
from ..flow import PoseFlow
from ..motion import Motion
from ..rotations import rotmat_to_rotvec

_PIECE = 512  # frames posed at once


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What a reconstruction finds of one person, on one device.

    Attributes:
        pose: (T, 21, 3, 3) rotations of the body's joints relative to their parents.
        root: (T, 3, 3) pelvis to camera.
        transl: (T, 3) m, camera axes.
        betas: (10,).
        contacts: (T, 4) probabilities, in the order of :data:`kinflow.skeleton.FEET`.
    """

    pose: Tensor
    root: Tensor
    transl: Tensor
    betas: Tensor
    contacts: Tensor


@torch.no_grad()
def motion_of(
    parameters: Parameters,
    std: np.ndarray,
    reach90: np.ndarray | None,
    evidence: Evidence,
    K: np.ndarray,
    flow: PoseFlow,
    body: Body,
) -> Motion:
    """The record of one person; see :class:`kinflow.motion.Motion`.

    Args:
        flow: in which the record's latents are.
        std: (T, 24, 2) m, deviations of the joints across the line of sight and along it.
        reach90: (24, 2), how many of them the regions of 90 % reach.
        evidence: of the same frames.
        K: (3, 3) px.
    """
    parts = []
    for rows in torch.arange(len(parameters.pose), device=parameters.pose.device).split(_PIECE):
        pose = parameters.pose[rows]
        rotmats = full_pose(pose, parameters.root[rows])
        joints = body.joints(parameters.betas.expand(len(pose), -1), rotmats, parameters.transl[rows])
        hands = torch.zeros_like(rotmats[:, 22:, 0])
        parts.append((flow.encode(pose)[0], joints, torch.cat((rotmat_to_rotvec(pose), hands), 1)))
    z, joints, body_pose = (torch.cat(x) for x in zip(*parts, strict=True))
    return Motion(
        person_id=evidence.person_id,
        body=body.name,
        frame_ids=evidence.frame_ids,
        timestamps=evidence.timestamps,
        observed=evidence.observed,
        betas=_numpy(parameters.betas),
        global_orient=_numpy(rotmat_to_rotvec(parameters.root)),
        body_pose=_numpy(body_pose),
        transl=_numpy(parameters.transl),
        joints3d=_numpy(joints),
        joints3d_std=std[..., 0],
        joints3d_depth_std=std[..., 1],
        joints3d_reach90=reach90,
        z=_numpy(z),
        contacts=_numpy(parameters.contacts),
        keypoints2d=evidence.keypoints2d,
        confidence=evidence.confidence,
        boxes_xyxy=evidence.boxes_xyxy,
        K=K,
        image_size=evidence.image_size,
    )


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
