"""Motions of known parameters in camera axes, as a perfect reconstruction would leave them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from walker import walk

from kinflow.body import Body
from kinflow.cameras import project
from kinflow.mocap.zero_pose import into_zero_pose
from kinflow.motion import Motion
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat

SIZE = (640, 480)
K = torch.tensor([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])


def motion_seen(
    body: Body, pose_rotmat: Tensor, transl: Tensor, turn: Tensor | None = None, fps: float = 30.0, person_id: int = 0
) -> Motion:
    """The motion of rotations (T, 24, 3, 3), translations (T, 3) m, before a camera that is turned by ``turn`` (3, 3) or
    (T, 3, 3) further."""
    betas = torch.zeros(10)
    turn = torch.eye(3) if turn is None else turn.float()
    rest = body.rest_joints(betas)[0]
    pose = pose_rotmat.clone()
    pose[:, 0] = turn @ pose[:, 0]
    transl = (turn @ (transl + rest)[..., None])[..., 0] - rest
    joints, landmarks = body.joints_and_landmarks(betas, pose, transl)
    rotvec, frames = rotmat_to_rotvec(pose), len(pose)
    pixels = project(landmarks, K).clamp(1, 479)
    return Motion(
        person_id=person_id, body="open", frame_ids=np.arange(frames), timestamps=np.arange(frames) / fps,
        observed=np.ones(frames, bool), betas=betas.numpy(), global_orient=rotvec[:, 0].numpy(),
        body_pose=rotvec[:, 1:].numpy(), transl=transl.numpy(), joints3d=joints.numpy(),
        joints3d_std=np.full((frames, 24), 0.03), z=np.zeros((frames, 63)),
        contacts=np.full((frames, 4), 0.5), keypoints2d=pixels.numpy(), confidence=np.ones((frames, 33)),
        boxes_xyxy=torch.cat((pixels.amin(1), pixels.amax(1)), -1).numpy(), K=K.numpy(), image_size=np.array(SIZE),
    )  # fmt: skip


def walking(body: Body, turn: Tensor | None = None, frames: int = 90, **options: float) -> Motion:
    """Somebody who walks past a camera, level but for ``turn``."""
    w = walk(frames, **options)  # type: ignore[arg-type]
    return motion_seen(body, w.pose_rotmat, w.transl, turn)


def standing(body: Body, turn: Tensor | None = None, frames: int = 60, height: float = 1.5) -> Motion:
    """Somebody who stands upright, arms down, on a ground ``height`` m below a level camera, but for ``turn``."""
    pose = torch.eye(3).repeat(24, 1, 1)
    for joint, sign in ((16, -1), (17, 1)):
        pose[joint] = rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.2 * sign]))
    pose = torch.from_numpy(into_zero_pose(pose.double().numpy()[None])).float()[0].expand(frames, -1, -1, -1).clone()
    facing = rotvec_to_rotmat(torch.tensor([torch.pi, 0.0, 0.0]))
    pose[:, 0] = facing
    feet = body.vertices(torch.zeros(10), pose[:1])[0, :, 1].amax()
    transl = torch.tensor([0.2, height - float(feet), 4.0]).expand(frames, -1)
    return motion_seen(body, pose, transl, turn)
