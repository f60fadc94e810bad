"""Motions of the procedural walker, as a reconstruction would leave them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from small_motion import a_motion
from walker import rotvecs, walk

from kinflow.body import Body
from kinflow.motion import Motion


def a_walk(
    body: Body, frames: int = 24, fps: float = 24.0, *, person_id: int = 0, start_s: float = 0.0, heading: float = 0.9,
    jitter_s: float = 0.0,
) -> Motion:  # fmt: skip
    """A person of an unusual shape who walks past the camera; the third and fourth frame are not observed.

    Args:
        start_s: when the first frame is, s. jitter_s: by how much every other frame comes late.
    """
    steps = walk(frames, fps, heading)
    betas = np.linspace(1.5, -1.0, 10).astype(np.float32) * (1 - person_id)
    times = start_s + steps.timestamps.numpy() + jitter_s * (np.arange(frames) % 2)
    rotvec = rotvecs(steps).numpy()
    with torch.no_grad():
        joints = body.joints(torch.tensor(betas), steps.pose_rotmat, steps.transl)
    return dataclasses.replace(
        a_motion(frames), person_id=person_id, body=body.name, betas=betas, timestamps=times,
        frame_ids=np.rint(start_s * fps).astype(int) + np.arange(frames), global_orient=rotvec[:, 0],
        body_pose=rotvec[:, 1:], transl=steps.transl.numpy(), joints3d=joints.numpy(),
        **{f.name: None for f in dataclasses.fields(Motion) if f.metadata["optional"]},  # not placed in a world
    )  # fmt: skip


def y_up(points_cam: np.ndarray) -> np.ndarray:
    """Camera axes (..., 3) to those of the exports, written out once more."""
    return np.stack((points_cam[..., 0], -points_cam[..., 1], -points_cam[..., 2]), -1)
