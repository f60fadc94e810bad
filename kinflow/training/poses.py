"""Motion capture as tensors of body rotations, and what training does to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..mocap.clips import load_clips
from ..rotations import mirror_rotmat, rotvec_to_rotmat
from ..skeleton import MIRROR_BODY, NUM_BODY, SMPL_JOINTS

_LOWER = tuple(i for i in range(NUM_BODY) if SMPL_JOINTS[i + 1].split("_")[-1] in ("hip", "knee", "ankle", "foot"))


@dataclasses.dataclass(frozen=True)
class Capture:
    """One clip: body_pose (T, 21, 3) rotation vectors, global_rotmat (T, 3, 3) and transl (T, 3) world, fps, name."""

    name: str
    body_pose: Tensor
    global_rotmat: Tensor
    transl: Tensor
    fps: float


def read_captures(path: str | Path, split: str, min_frames: int = 8) -> list[Capture]:
    """A split's clips, cut into their runs of valid frames.

    Raises:
        UsageError: the split has no clip.
    """
    captures = []
    for clip in load_clips(path, split=split):
        valid = np.asarray(clip.valid, bool)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], valid, [False])).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if stop - start >= min_frames:
                run = slice(int(start), int(stop))
                captures.append(
                    Capture(
                        clip.name,
                        torch.as_tensor(clip.body_pose[run, :NUM_BODY], dtype=torch.float32),
                        rotvec_to_rotmat(torch.as_tensor(clip.global_orient[run], dtype=torch.float32)),
                        torch.as_tensor(clip.transl[run], dtype=torch.float32),
                        float(clip.fps),
                    )
                )
    if not captures:
        raise UsageError(f"{path}: expected clips of the split {split!r}, got none. Prepare the capture again.")
    return captures


def mirror_body(rotmat: Tensor) -> Tensor:
    """Left for right: body rotations (..., 21, 3, 3)."""
    return mirror_rotmat(rotmat[..., list(MIRROR_BODY), :, :])


def mirror_root(root: Tensor) -> Tensor:
    """Left for right: root motion (..., 6). Angular velocity is an axial vector, linear a polar one."""
    return root * root.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])


def exchange(rotmat: Tensor, other: Tensor) -> Tensor:
    """The upper body of one pose on the legs of another: (..., 21, 3, 3)."""
    out = rotmat.clone()
    out[..., _LOWER, :, :] = other[..., _LOWER, :, :]
    return out


def perturb(rotmat: Tensor, std: Tensor | float, rng: torch.Generator) -> Tensor:
    """Turn each rotation (..., 3, 3) by a random rotation vector of standard deviation ``std`` rad."""
    noise = torch.randn(rotmat.shape[:-1], generator=rng, dtype=rotmat.dtype)
    return rotmat @ rotvec_to_rotmat(noise * std)
