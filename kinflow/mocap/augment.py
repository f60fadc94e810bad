"""Augmentation of motions: mirror, time-warp, exchange of upper and lower bodies, turned headings.

Pure functions on a :class:`Moves`, which is a batch of clips of one length as rotation matrices, torch tensors on any device.
An hour of capture is not forty: what these make is motion that the hour does not hold but people could do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError, check_shape
from ..rotations import geodesic_distance, mirror_rotmat, rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import MIRROR_SMPL
from .clips import MotionClip

LOWER_BODY = (1, 2, 4, 5, 7, 8, 10, 11)
"""SMPL joints of the legs."""
UPPER_BODY = (6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
"""SMPL joints that go with the chest: the spine above its first joint, neck, head and arms."""
MAX_SPINE_BEND = 1.3
"""Rad: 75 degrees, as for captured motion."""


@dataclass(frozen=True)
class Moves:
    """A batch of motions: ``rotmats`` (..., T, 24, 3, 3) local rotations, the first in the world; ``transl`` (..., T, 3) m,
    y up; ``valid`` (..., T) bool; ``fps`` frames a second, one for the batch."""

    rotmats: Tensor
    transl: Tensor
    valid: Tensor
    fps: float

    def __post_init__(self) -> None:
        frames = check_shape("rotmats", self.rotmats, "... T 24 3 3")["T"]
        check_shape("transl", self.transl, f"... {frames} 3")
        check_shape("valid", self.valid, f"... {frames}")
        if not self.fps > 0:
            raise UsageError(f"fps: expected a positive rate, got {self.fps}.")


def moves_of(clip: MotionClip, dtype: torch.dtype = torch.float32) -> Moves:
    """A clip as a :class:`Moves` without batch dimensions."""
    rotvec = torch.from_numpy(np.concatenate([clip.global_orient[:, None], clip.body_pose], 1)).to(dtype)
    return Moves(
        rotvec_to_rotmat(rotvec), torch.from_numpy(clip.transl).to(dtype), torch.from_numpy(clip.valid), clip.fps
    )


def mirror(moves: Moves) -> Moves:
    """Left for right: the motion as a mirror in the plane x = 0 shows it."""
    rotmats = mirror_rotmat(moves.rotmats[..., list(MIRROR_SMPL), :, :])
    flip = moves.transl.new_tensor([-1.0, 1.0, 1.0])
    return replace(moves, rotmats=rotmats, transl=moves.transl * flip)


def turn_heading(moves: Moves, angle: Tensor | float) -> Moves:
    """Turn the motion about the vertical through the first frame's pelvis.

    Args:
        moves: any batch.
        angle: rad, a number or one for each motion of the batch.
    """
    angle = torch.as_tensor(angle, dtype=moves.transl.dtype, device=moves.transl.device)
    zero = torch.zeros_like(angle)
    turn = rotvec_to_rotmat(torch.stack((zero, angle, zero), -1))
    rotmats = moves.rotmats.clone()
    rotmats[..., 0, :, :] = turn[..., None, :, :] @ moves.rotmats[..., 0, :, :]
    centre = moves.transl[..., :1, :]
    return replace(moves, rotmats=rotmats, transl=centre + (moves.transl - centre) @ turn.transpose(-1, -2))


def resample(moves: Moves, where: Tensor, fps: float | None = None) -> Moves:
    """The motion at other, fractional frames: rotations by slerp, positions linearly.

    Args:
        moves: (..., T) frames.
        where: (S,) frame numbers in [0, T - 1], the same for the whole batch.
        fps: rate of the result; default the same as before, so that the motion is faster or slower.

    Returns:
        (..., S) frames; valid where both neighbours are. Raises UsageError where a number lies outside.
    """
    last = moves.transl.shape[-2] - 1
    if where.ndim != 1 or where.numel() == 0 or where.min() < 0 or where.max() > last:
        raise UsageError(f"where: expected frame numbers (S,) in [0, {last}].")
    where = where.to(moves.transl)
    low = where.floor().long().clamp_max(max(last - 1, 0))
    high = (low + 1).clamp_max(last)
    part = where - low
    first, second = moves.rotmats[..., low, :, :, :], moves.rotmats[..., high, :, :, :]
    step = rotmat_to_rotvec(first.transpose(-1, -2) @ second)
    rotmats = first @ rotvec_to_rotmat(part[:, None, None] * step)
    transl = torch.lerp(moves.transl[..., low, :], moves.transl[..., high, :], part[:, None])
    valid = (moves.valid[..., low] | (part == 1)) & (moves.valid[..., high] | (part == 0))
    return Moves(rotmats, transl, valid, moves.fps if fps is None else fps)


def time_warp(moves: Moves, speed: float, swing: float = 0.0, phase: float = 0.0) -> Moves:
    """Play the motion faster or slower, evenly or with a speed that comes and goes once over the clip.

    Args:
        moves: (..., T) frames.
        speed: mean factor, 2 for twice as fast (half as many frames).
        swing: relative change of speed over the clip, in [0, 1): speed (1 + swing cos).
        phase: rad, where in the clip it is fastest.

    Returns:
        Frames at the same rate. The path is kept, so its speed changes with the pose's.
    """
    if not speed > 0 or not 0 <= swing < 1:
        raise UsageError(f"speed, swing: expected speed > 0 and 0 <= swing < 1, got {speed} and {swing}.")
    last = moves.transl.shape[-2] - 1
    count = int(last / speed + 1e-6) + 1
    u = torch.linspace(0, 1, count, dtype=torch.float64) if count > 1 else torch.zeros(1, dtype=torch.float64)
    tau = 2 * torch.pi
    bend = swing / tau * (torch.sin(tau * u - phase) + torch.sin(torch.tensor(phase, dtype=torch.float64)))
    where = (u + bend) * min((count - 1) * speed, last)
    return resample(moves, where.clamp(0, last))


def exchange_bodies(lower: Moves, upper: Moves) -> Moves:
    """Legs, pelvis and path of one motion under the chest, head and arms of another (same shape and rate).

    The first spine joint takes up the change: the chest keeps the other motion's tilt against the vertical, so that a
    walker's arms on a dancer's legs stay level, while its heading follows the legs' pelvis. Frames that ask of that joint more
    than :data:`MAX_SPINE_BEND` are not valid.
    """
    if lower.rotmats.shape != upper.rotmats.shape or abs(lower.fps - upper.fps) > 1e-6:
        raise UsageError(
            f"upper: expected the shape and rate of lower, {tuple(lower.rotmats.shape)} at {lower.fps} frames/s, "
            f"got {tuple(upper.rotmats.shape)} at {upper.fps}."
        )
    rotmats = lower.rotmats.clone()
    joints = list(UPPER_BODY)
    rotmats[..., joints, :, :] = upper.rotmats[..., joints, :, :]
    mine, theirs = lower.rotmats[..., 0, :, :], upper.rotmats[..., 0, :, :]
    # The other's first spine joint in the world, turned about the vertical by the difference of the two headings.
    turn = _heading_turn(mine) @ _heading_turn(theirs).transpose(-1, -2)
    rotmats[..., 3, :, :] = mine.transpose(-1, -2) @ turn @ theirs @ upper.rotmats[..., 3, :, :]
    bend = geodesic_distance(rotmats[..., 3, :, :], torch.eye(3, dtype=rotmats.dtype, device=rotmats.device))
    return replace(lower, rotmats=rotmats, valid=lower.valid & upper.valid & (bend < MAX_SPINE_BEND))


def _heading_turn(pelvis_rotmat: Tensor) -> Tensor:
    """The turn about y (..., 3, 3) nearest to an orientation: its twist about the vertical."""
    sine = pelvis_rotmat[..., 0, 2] - pelvis_rotmat[..., 2, 0]
    cosine = pelvis_rotmat[..., 0, 0] + pelvis_rotmat[..., 2, 2]
    angle = torch.atan2(sine, cosine)
    zero = torch.zeros_like(angle)
    return rotvec_to_rotmat(torch.stack((zero, angle, zero), -1))
