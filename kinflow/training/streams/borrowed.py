"""Errors of the real front end, lent to motion that was never rendered.

Rendering and perceiving costs 50 ms a frame; projecting captured motion costs nothing, but how a front end errs has to be
modelled. Between the two: what the front end got wrong of rendered people, keypoints, world landmarks and confidences over
time, is added to the exact projections of other people who stand alike before the camera. So the errors are real ones, and
the motions as many as there are. (Measured: a lifter of single frames trained on 11,500 perceived frames errs by 75.6 mm
PA-MPJPE on people it has not seen, with nine tenths of borrowed errors by 69.7.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...body import Body
from ...errors import MissingAssetError
from ...reconstruction.geometry import LEFT_HIP, RIGHT_HIP
from ...reconstruction.lifting import upright_view
from ...reconstruction.observation import Observations, flatten_view
from ...skeleton import MIRROR_BLAZEPOSE
from .noise import Noisy
from .perceived import PerceivedClip
from .projected import true_view

_LIKE = (0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Landmarks by which poses are compared: nose and limbs."""
_CHOICES = 5
_OFFERED = 4096


class BorrowedErrors:
    """Errors of rendered, perceived clips, found by pose and view.

    Args:
        clips: of any number of frames.
        body: gives the true landmarks.
        frames: how many frames a stretch has that is lent as one.
        coherent: a window's errors are those of one stretch, the first frames of a clip in which the person is never lost, found
            by the middle frame, and so as alike from frame to frame as real ones; otherwise every frame of a clip is lent by
            itself (``frames`` is 1 then), to the frame that is most like it, which fits the pose better and jumps.

    Attributes:
        pose: (N, T, 13, 3) m, landmarks of N stretches of T frames about the hips in the exact upright view.
        times: (N, T) s about the middle frame.
        points: (N, T, 33, 2) errors of the keypoints in that view, in units of their spread.
        world: (N, T, 33, 3) m, errors of the world landmarks in that view.
        confidence: (N, T, 33).

    Raises:
        MissingAssetError: no such clip.
    """

    def __init__(self, clips: Sequence[PerceivedClip], body: Body, frames: int = 20, coherent: bool = True) -> None:
        self.coherent = coherent
        frames = frames if coherent else 1
        kept = [(c, rows) for c in clips if len(rows := _lent_rows(c, frames, coherent))]
        if not kept:
            raise MissingAssetError(
                f"perceived: expected clips of {frames} frames in which the person is seen throughout, got none of "
                f"{len(clips)}. Make more with tools/render_and_perceive.py."
            )

        def stack(name: str) -> Tensor:
            return torch.cat([torch.as_tensor(getattr(c, name)[rows]) for c, rows in kept]).unflatten(0, (-1, frames))

        K = torch.cat([torch.as_tensor(c.K).float().expand(len(rows) // frames, 3, 3) for c, rows in kept])
        landmarks = torch.cat(
            [
                body.landmarks(torch.from_numpy(c.betas).expand(len(rows), -1), c.pose_rotmat[rows], torch.from_numpy(c.transl[rows]))
                for c, rows in kept
            ]
        ).unflatten(0, (-1, frames))  # fmt: skip
        exact = exact_view(landmarks, K)
        world = stack("world_landmarks")
        world = world - world[..., [LEFT_HIP, RIGHT_HIP], :].mean(-2, keepdim=True)
        off = (stack("keypoints2d") - exact.pixels) @ exact.view[..., :2, :2]
        self.pose = _with_mirrored(exact.landmarks, 3)
        self.points = _with_mirrored(off / exact.size_px[..., None, None], 2)
        self.world = _with_mirrored(world @ exact.view - exact.landmarks, 3)
        self.confidence = _with_mirrored(stack("confidence")[..., None], 0)[..., 0]
        self.pose = self.pose[:, :, list(_LIKE)]
        times = stack("timestamps").float()
        self.times = torch.cat((times, times)) - torch.cat((times, times))[:, frames // 2, None]

    def lend(self, landmarks: Tensor, K: Tensor, timestamps: Tensor, rng: torch.Generator) -> Noisy:
        """What the front end might have made of exact landmarks.

        Args:
            landmarks: (B, T, 33, 3) m, camera axes. K: (B, 3, 3). timestamps: (B, T) s.
            rng: picks one of the most alike clips for each window.

        Returns:
            Keypoints in px, confidences, and world landmarks in m, hip-centred, ray-aligned axes.
        """
        exact = exact_view(landmarks, K)
        wanted = exact.landmarks[..., list(_LIKE), :].flatten(-2)
        if self.coherent:
            middle = landmarks.shape[1] // 2
            clip = _alike(wanted[:, middle], self.pose[:, self.pose.shape[1] // 2].flatten(1), rng)
            at = timestamps - timestamps[:, middle, None]
            points, world, confidence = (
                _at_times(x[clip], self.times[clip], at) for x in (self.points, self.world, self.confidence)
            )
        else:
            frame = _alike(wanted.flatten(0, 1), self.pose.flatten(0, 1).flatten(1), rng).reshape(wanted.shape[:2])
            points, world, confidence = (x.flatten(0, 1)[frame] for x in (self.points, self.world, self.confidence))
        back = exact.view.transpose(-1, -2)
        pixels = exact.pixels + points @ back[..., :2, :2] * exact.size_px[..., None, None]
        return Noisy(pixels, confidence, (exact.landmarks + world) @ back)


def _lent_rows(clip: PerceivedClip, frames: int, coherent: bool) -> np.ndarray:
    """Rows of a clip whose errors are lent: all that were seen, or its first ``frames`` if they all were."""
    seen = clip.observed & clip.has_world
    if not coherent:
        return np.flatnonzero(seen)
    return np.arange(frames if len(clip) >= frames and seen[:frames].all() else 0)


def _alike(wanted: Tensor, offered: Tensor, rng: torch.Generator) -> Tensor:
    """For each pose (B, D) one of the most alike among some of those offered (N, D): (B,)."""
    some = torch.randperm(len(offered), generator=rng)[:_OFFERED]
    near = torch.cdist(wanted, offered[some]).topk(min(_CHOICES, len(some)), 1, largest=False).indices
    pick = torch.randint(near.shape[1], (len(near), 1), generator=rng)
    return some[near.gather(1, pick)[:, 0]]


class Exact(NamedTuple):
    """Pixels (B, T, 33, 2), upright view to ray (B, T, 3, 3), spread (B, T) px, landmarks (B, T, 33, 3) m in the view."""

    pixels: Tensor
    view: Tensor
    size_px: Tensor
    landmarks: Tensor


def exact_view(landmarks: Tensor, K: Tensor) -> Exact:
    """The upright view of exact landmarks (B, T, 33, 3) m in camera axes, with K (B, 3, 3)."""
    ray_to_camera, pixels = true_view(landmarks, K)
    seen = torch.ones(landmarks.shape[:2], dtype=torch.bool)
    sure = torch.ones(landmarks.shape[:3])
    flat = flatten_view(Observations(pixels, sure, landmarks, seen, seen, seen, torch.zeros(landmarks.shape[:2]), K))
    view = upright_view(flat)
    hips = landmarks[..., [LEFT_HIP, RIGHT_HIP], :].mean(-2, keepdim=True)
    return Exact(pixels, view, flat.spread * K[:, None, 0, 0], (landmarks - hips) @ ray_to_camera @ view)


def _with_mirrored(x: Tensor, axes: int) -> Tensor:
    """Values of landmarks (N, ..., 33, D) and after them the same of mirrored people: left for right, the first axis turned."""
    side = x.new_tensor([-1.0, 1.0, 1.0])[:axes] if axes else x.new_ones(1)
    return torch.cat((x, (x * side)[..., list(MIRROR_BLAZEPOSE), :]))


def _at_times(values: Tensor, known: Tensor, at: Tensor) -> Tensor:
    """Values (B, T, ...) known at times (B, T) about 0, at other times (B, S) about 0; beyond the ends they run back."""
    low, span = known[:, :1], (known[:, -1:] - known[:, :1]).clamp_min(1e-6)
    phase = (at - low).remainder(2 * span)
    inside = low + torch.where(phase > span, 2 * span - phase, phase)
    after = torch.searchsorted(known.contiguous(), inside.contiguous()).clamp(1, known.shape[1] - 1)
    t0, t1 = known.gather(1, after - 1), known.gather(1, after)
    weight = ((inside - t0) / (t1 - t0).clamp_min(1e-6)).clamp(0, 1)
    rows = torch.arange(len(values))[:, None]
    weight = weight.reshape(*weight.shape, *([1] * (values.ndim - 2)))
    return torch.lerp(values[rows, after - 1], values[rows, after], weight)
