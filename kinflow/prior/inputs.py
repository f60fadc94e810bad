"""What a tracker hands over, checked once: rotations, time stamps, masks."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ShapeError, UsageError, check_shape
from ..rotations import rotvec_to_rotmat
from ..skeleton import NUM_BODY
from ..timing import last_valid

REMEDY = "Give rotation vectors (B, T, 23, 3) of SMPL's body joints (or 21 without the hands), or their matrices."
_COUNTS = (NUM_BODY, NUM_BODY + 2)
_NOT_ROTATION = 1e-2  # largest |R R^T - I| that rounding in a file of float16 leaves


Numbers: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
"""What arrays may be given as: tensors, numpy arrays, lists of numbers."""

M = TypeVar("M", bound=Callable[..., Tensor])

_TIMES = ("timestamps", "future")
_FRAMES = {"valid": 1, "global_orient": 2, "transl": 2, "up": 2}  # axes of one motion's arrays


def tensor_of(name: str, value: Numbers | float, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of what was given: arrays and lists on ``like``'s device, floating point in ``dtype`` (or as it comes).

    Raises:
        ShapeError: not numbers, or a tensor of another device.
    """
    if not isinstance(value, Tensor):
        try:
            # By numpy, whose lists are float64; a copy, since read-only arrays and negative strides are fine as well.
            value = torch.tensor(np.asarray(value, order="C"), device=like.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(
                f"{name}: expected a tensor, an array or a list of numbers, got {type(value).__name__} ({error})."
            ) from None
    elif value.device != like.device:
        raise ShapeError(
            f"{name}: expected a tensor on {like.device}, where the prior is, got one on {value.device}. Use .to()."
        )
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


def takes_numbers(method: M) -> M:
    """A method of the prior that takes what a tracker has at hand.

    Arrays and lists become tensors on the prior's device; poses are computed in the prior's own precision and times in
    float64, whatever they came in. One motion ``body_pose`` (T, 23, 3) without the batch's axis is taken as well: its
    ``valid``, ``global_orient``, ``transl`` and ``up`` are then without it too, and so is the answer.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        given = signature.bind(*args, **kwargs).arguments
        like = given["self"].flow.whitening.mean
        given["body_pose"] = tensor_of("body_pose", given["body_pose"], like, like.dtype)
        for name in (*_TIMES, *_FRAMES):
            if given.get(name) is not None:
                given[name] = tensor_of(name, given[name], like, torch.float64 if name in _TIMES else None)
        if not _alone(tuple(given["body_pose"].shape)):
            return method(**given)
        given["body_pose"] = given["body_pose"][None]
        for name, axes in _FRAMES.items():
            if given.get(name) is not None:
                check_shape(name, given[name], "T 3"[: 2 * axes - 1], "body_pose comes without the batch's axis.")
                given[name] = given[name][None]
        for name in _TIMES:
            if given.get(name) is not None:
                check_shape(name, given[name], "T", "body_pose comes without the batch's axis.")
        return method(**given)[0]

    return call  # type: ignore[return-value]


def _alone(shape: tuple[int, ...]) -> bool:
    """Whether this is one motion, (T, joints, 3) or (T, joints, 3, 3)."""
    matrices = shape[-2:] == (3, 3) and len(shape) > 2 and shape[-3] in _COUNTS
    return len(shape) == (4 if matrices else 3) and shape[-1] == 3 and shape[-3 if matrices else -2] in _COUNTS


def body_rotmat(body_pose: Tensor, valid: Tensor | None = None) -> Tensor:
    """Matrices (..., 21, 3, 3) of body poses (..., 23 or 21, 3) rad or (..., 23 or 21, 3, 3).

    Args:
        valid: (...,) bool; poses that are not valid may hold anything and become the zero pose.

    Raises:
        ShapeError: another shape or type, NaN or inf, angles beyond pi, matrices that are not rotations.
    """
    shape = tuple(getattr(body_pose, "shape", ()))
    matrices = len(shape) >= 3 and shape[-2:] == (3, 3) and shape[-3] in _COUNTS
    vectors = len(shape) >= 2 and shape[-1] == 3 and shape[-2] in _COUNTS and not matrices
    if not (matrices or vectors):
        raise ShapeError(
            f"body_pose: expected shape (..., 23 or 21, 3) or (..., 23 or 21, 3, 3), got {shape}. {REMEDY}"
        )
    if not body_pose.is_floating_point():
        raise ShapeError(f"body_pose: expected floating point, got {body_pose.dtype}. Convert it with .float().")
    body_pose = body_pose[..., :NUM_BODY, :, :] if matrices else body_pose[..., :NUM_BODY, :]
    if valid is not None:
        rest = torch.eye(3, dtype=body_pose.dtype, device=body_pose.device) if matrices else body_pose.new_zeros(())
        body_pose = torch.where(valid.reshape(*valid.shape, *[1] * (3 if matrices else 2)), body_pose, rest)
    seen = body_pose.detach()
    if not bool(torch.isfinite(seen).all()):
        raise ShapeError("body_pose: expected finite values, got NaN or inf. Mark such frames as not valid.")
    if matrices:
        off = (
            float((seen @ seen.mT - torch.eye(3, dtype=seen.dtype, device=seen.device)).abs().amax())
            if seen.numel()
            else 0.0
        )
        if off > _NOT_ROTATION or bool((torch.linalg.det(seen) < 0).any()):
            raise ShapeError(
                f"body_pose: expected rotation matrices, got some that are off by {off:.2g}. "
                "Orthonormalise them, for example with kinflow.rotations.rot6d_to_rotmat(rotmat_to_rot6d(x))."
            )
        return body_pose
    largest = float(seen.norm(dim=-1).amax()) if seen.numel() else 0.0
    if largest > math.pi + 1e-3:
        raise ShapeError(
            f"body_pose: expected angles of at most pi, got {largest:.4g} rad. "
            "Degrees become radians with torch.deg2rad; longer vectors are shortened by kinflow.rotations.wrap_rotvec."
        )
    return rotvec_to_rotmat(body_pose)


def root_inputs(
    global_orient: Tensor, transl: Tensor, times: Tensor, valid: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The root's rotation vectors (B, T, 3) rad and places (B, T, 3) m, zeros where not valid, in the more precise type of the
    two (``dtype`` where they are integers): velocities are taken before they are cast.

    Raises:
        ShapeError: another shape, NaN or inf in a valid frame.
    """
    precise = torch.promote_types(global_orient.dtype, transl.dtype)
    precise = precise if precise.is_floating_point else dtype
    parts = []
    for name, value in (("global_orient", global_orient), ("transl", transl)):
        check_shape(name, value, f"{times.shape[0]} {times.shape[1]} 3")
        parts.append(torch.where(valid[..., None], value.to(precise), 0.0))
        if not bool(torch.isfinite(parts[-1].detach()).all()):
            raise ShapeError(f"{name}: expected finite values, got NaN or inf. Mark such frames as not valid.")
    return parts[0], parts[1]


def up_vectors(up: Tensor, valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Directions (B, T, 3) against gravity in the pelvis' frame, of unit length; of frames that are not valid: y.

    Raises:
        ShapeError: another shape; NaN, or not of unit length, in a valid frame. Clips without any ``up`` beside clips that
            have one are told apart, since their densities could not be compared.
    """
    size, frames = valid.shape
    check_shape("up", up, f"{size} {frames} 3", "One unit vector a frame, in the pelvis' frame.")
    if not up.is_floating_point():
        raise ShapeError(f"up: expected floating point, got {up.dtype}. Convert it with .float().")
    up = torch.where(valid[..., None], up, up.new_tensor([0.0, 1.0, 0.0])).to(dtype)
    seen = up.detach()
    missing = ~torch.isfinite(seen).all(-1) & valid
    if bool(missing.any()):
        clips = torch.nonzero((missing == valid).all(1))[:, 0].tolist()
        where = (
            f"it is missing in the whole of clips {clips} of {size}" if clips else "it is NaN or inf in valid frames"
        )
        raise ShapeError(
            f"up: expected a direction in every valid frame of every clip, but {where}. Densities with and without up do not "
            "compare: score such clips in a call without up, or mark the frames as not valid."
        )
    off = float((seen.norm(dim=-1) - 1).abs().amax())
    if off > _NOT_ROTATION:
        raise ShapeError(
            f"up: expected vectors of unit length, got some that are off by {off:.2g}. "
            "Divide them by their length: torch.nn.functional.normalize(up, dim=-1)."
        )
    return torch.nn.functional.normalize(up, dim=-1)


def with_hands(rotvec: Tensor) -> Tensor:
    """(..., 21, 3) -> (..., 23, 3), the hands at rest."""
    return torch.cat((rotvec, torch.zeros_like(rotvec[..., :2, :])), -2)


def clip_inputs(
    body_pose: Tensor, timestamps: Tensor | None, fps: float | None, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Checked: rotations (B, T, 21, 3, 3), time stamps (B, T) float64 s, valid (B, T). Invalid frames are at zero pose.

    Raises:
        ShapeError: shapes or values that do not fit; no frame, or a clip without a valid one. UsageError: no times.
    """
    shape = tuple(getattr(body_pose, "shape", ()))
    if len(shape) not in (4, 5):
        raise ShapeError(
            f"body_pose: expected ([B,] T, joints, 3) or ([B,] T, joints, 3, 3), got shape {shape}. {REMEDY}"
        )
    size, frames = shape[:2]
    if size == 0 or frames == 0:
        raise ShapeError(f"body_pose: expected at least one clip and one frame, got ({size}, {frames}). {REMEDY}")
    if valid is None:
        valid = torch.ones(size, frames, dtype=torch.bool, device=body_pose.device)
    check_shape("valid", valid, f"{size} {frames}", "One boolean a frame.")
    valid = valid.bool()
    if not bool(valid.any(1).all()):
        raise ShapeError("valid: expected at least one valid frame in each clip, got a clip without. Leave it out.")
    rotmat = body_rotmat(body_pose, valid)
    times = time_stamps(timestamps, fps, size, frames).to(rotmat.device)
    return rotmat, in_order(times, valid), valid


def time_stamps(timestamps: Tensor | None, fps: float | None, size: int, frames: int) -> Tensor:
    """(B, T) float64 s from time stamps (T,) or (B, T), or from frames a second."""
    if (timestamps is None) == (fps is None):
        raise UsageError("timestamps, fps: expected one of them, got both or neither. Time stamps are in seconds.")
    if timestamps is None:
        given = fps
        try:
            fps = float(fps)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError):
            fps = math.nan
        if not (math.isfinite(fps) and fps > 0):
            raise UsageError(f"fps: expected frames a second above 0, got {given}.")
        return (torch.arange(frames, dtype=torch.float64) / fps).expand(size, -1)
    if timestamps.dim() == 1:
        timestamps = timestamps.expand(size, -1)
    check_shape("timestamps", timestamps, f"{size} {frames}", "One time in seconds a frame, (T,) or (B, T).")
    return timestamps.double()


def in_order(times: Tensor, valid: Tensor) -> Tensor:
    """Time stamps (B, T), strictly increasing. What stands behind a clip's last valid frame may be padding: where it is
    not in order, it is replaced by hundredths of a second.

    Raises:
        ShapeError: not finite or not increasing up to the last valid frame.
    """
    place = torch.arange(times.shape[1], device=times.device)
    last = last_valid(valid)
    rising = torch.diff(times, dim=1, prepend=times[:, :1] - 1) > 0
    good = torch.isfinite(times) & rising
    if not bool((good | (place > last)).all()):
        raise ShapeError("timestamps: expected finite, strictly increasing seconds. Sort the frames and drop repeats.")
    padded = times.gather(1, last) + 0.01 * (place - last)
    return torch.where((place > last) & ~good.all(1, keepdim=True), padded, times)
