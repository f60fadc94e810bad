"""People as the exporters take them: one body each, its poses over true times, in the axes of the files."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..body import Body
from ..errors import ShapeError, UsageError, check_type
from ..motion import Motion
from ..rotations import rotmat_to_quat_wxyz, rotvec_to_rotmat, slerp
from ..skeleton import SMPL_PARENTS

__all__ = [
    "CAMERA_TO_Y_UP",
    "MAX_FPS",
    "Character",
    "at_even_rate",
    "characters",
    "exported_root",
    "file_axes",
    "ground_height",
    "on_ground",
    "one_by_one",
    "resampled",
]

log = logging.getLogger(__name__)

Array = NDArray[Any]

CAMERA_TO_Y_UP: Array = np.diag([1.0, -1.0, -1.0])
"""Half a turn about x: from camera axes (x right, y down, z forward) to those of the files (x right, y up, z towards whoever
looks), which glTF, USD and BVH mean alike. The camera stays at the origin and looks along -z."""

MAX_FPS = 1000.0
"""Above it is a mistake of units, and memory that nobody has."""
EVEN_S = 1e-3
"""Time stamps within this of an even grid are even: containers round theirs to milliseconds."""
ON_ROW = 1e-4
"""Share of a step by which a new row may miss an old one and still be it."""
STILL_FPS = 1.0
"""What a single frame is given as its rate where nothing tells one."""
SAME_BODY_M = 5e-3
"""A motion whose stored joints lie further than this from those of its parameters was made with another body."""

_PIECE = 512
_LOWEST_SHARE = 0.02  # of the frames, whose lowest joint may lie below a grid where no ground is known
_SOLE_M = 0.05  # how far below a foot's joint its sole lies, about


@dataclasses.dataclass(frozen=True)
class Character:
    """One person in the axes of the files: y up, metres.

    Attributes:
        name: in the files, unique among those who are exported together.
        person_id: of the motion.
        body: that the parameters belong to; ``betas (10,)`` its shape.
        timestamps: (T,) s from the clip's first frame, strictly increasing; T is at least 1.
        observed: (T,) bool, false where the motion was filled in.
        frame_ids: (T,) index of each frame in the clip; None of a motion that was resampled.
        pose_rotmat: (T, 24, 3, 3) rotations, the pelvis' to the file's axes, the others' to their parents.
        transl: (T, 3) m, as :class:`~kinflow.body.Body` takes it.
        fps: rows a second, of formats that know one rate only.
    """

    name: str
    person_id: int
    body: Body
    betas: Array
    timestamps: Array
    observed: NDArray[np.bool_]
    frame_ids: Array | None
    pose_rotmat: Array
    transl: Array
    fps: float

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def rest_joints(self) -> Array:
        """Joints at zero pose (24, 3) m."""
        return _numpy(self.body.rest_joints(self._betas))

    @property
    def offsets(self) -> Array:
        """Each joint from its parent at zero pose (24, 3) m; the pelvis from the origin."""
        rest = self.rest_joints
        return rest - np.concatenate((np.zeros((1, 3)), rest[list(SMPL_PARENTS[1:])]))

    @property
    def pelvis(self) -> Array:
        """Places of the pelvis (T, 3) m."""
        return self.transl + self.rest_joints[0]

    def rest_vertices(self) -> Array:
        """Vertices at zero pose (V, 3) m."""
        return _numpy(self.body.rest_vertices(self._betas))

    def joints(self) -> Array:
        """The 24 joints (T, 24, 3) m."""
        return _numpy(self.body.joints(self._betas, *self._posed()))

    def keypoints(self, joint_set: str) -> Array:
        """The points (T, N, 3) m of a joint set; raises UsageError as :meth:`kinflow.body.Body.keypoints`."""
        return _numpy(self.body.keypoints(joint_set, self._betas, *self._posed()))

    def quat_wxyz(self) -> Array:
        """``pose_rotmat`` as unit quaternions (T, 24, 4), real part first, each in the half of the sphere of the one before:
        readers that interpolate the numbers turn the short way."""
        quat = np.empty((*self.pose_rotmat.shape[:2], 4))
        for rows in _pieces(len(self)):
            quat[rows] = rotmat_to_quat_wxyz(torch.from_numpy(self.pose_rotmat[rows])).numpy()
        flips = (quat[1:] * quat[:-1]).sum(-1) < 0
        quat[1:][np.logical_xor.accumulate(flips, 0)] *= -1
        return quat

    @property
    def _betas(self) -> torch.Tensor:
        return torch.tensor(self.betas, dtype=self.body.dtype, device=self.body.device)

    def _posed(self) -> tuple[torch.Tensor, torch.Tensor]:
        pose, transl = torch.from_numpy(self.pose_rotmat), torch.from_numpy(self.transl)
        return pose.to(self.body.device, self.body.dtype), transl.to(self.body.device, self.body.dtype)


def exported_root(motion: Motion, body: Body) -> tuple[Array, Array]:
    """Orientation (T, 3, 3) of the pelvis and translation (T, 3) m in the axes of the files: the one place that knows them.

    The world's where the motion is in it; else the camera's, turned y up.
    """
    if motion.global_orient_world is not None and motion.transl_world is not None:
        turned = rotvec_to_rotmat(torch.tensor(motion.global_orient_world, dtype=torch.float64)).numpy()
        return turned, motion.transl_world.astype(np.float64)
    # A body turns about its pelvis, which at zero pose need not lie at the origin.
    pelvis = _numpy(body.rest_joints(torch.tensor(motion.betas).to(body.device, body.dtype)))[0]
    root = rotvec_to_rotmat(torch.tensor(motion.global_orient, dtype=torch.float64)).numpy()
    return CAMERA_TO_Y_UP @ root, (motion.transl + pelvis) @ CAMERA_TO_Y_UP.T - pelvis


def file_axes(motion: Motion, body: Body) -> tuple[Array, Array]:
    """The rigid motion from camera axes to those of the files, a frame each: points p are at ``R @ p + t``.

    Returns:
        R (T, 3, 3), t (T, 3) m.
    """
    root, transl = exported_root(motion, body)
    pelvis = _numpy(body.rest_joints(torch.tensor(motion.betas).to(body.device, body.dtype)))[0]
    seen = rotvec_to_rotmat(torch.tensor(motion.global_orient, dtype=torch.float64)).numpy()
    turn = root @ np.swapaxes(seen, -1, -2)
    return turn, transl + pelvis - np.einsum("tij,tj->ti", turn, motion.transl + pelvis)


def on_ground(motions: Sequence[Motion]) -> bool:
    """Whether y = 0 is the ground in the axes of the files, and their y the world's up; else they are the camera's."""
    return bool(motions) and all(getattr(motion, "ground", None) is not None for motion in motions)


def ground_height(motions: Sequence[Motion], body: Body) -> float:
    """Height m of a grid to draw: the ground's; where none is known, below nearly every foot, which keeps to no plane."""
    if on_ground(motions) or not motions:
        return 0.0
    lowest = []
    for motion in motions:
        turn, shift = file_axes(motion, body)
        lowest.append((np.einsum("ti,tni->tn", turn[:, 1], motion.joints3d) + shift[:, 1:2]).min(1))
    return float(np.quantile(np.concatenate(lowest), _LOWEST_SHARE)) - _SOLE_M


def characters(
    motions: Sequence[Motion], body: Body, *, fps: float | None = None, names: Sequence[str] | None = None
) -> list[Character]:
    """Bring motions into the axes of the files.

    Args:
        motions: of one clip.
        body: that all their parameters belong to.
        fps: resample to so many rows a second, rotations along the shortest turn, translations linearly; None keeps every
            row and its true time.
        names: one a motion; person00, person01, ... by ``person_id`` otherwise.

    Raises:
        ShapeError: a motion without frames, or with times before 0.
        UsageError: nobody, a motion of another body, two people of one name, a rate that is none.
    """
    if fps is not None:
        check_fps(fps)
    people = list(one_by_one(motions, body, names))
    if fps is None:
        return people
    start = min(float(p.timestamps[0]) for p in people)
    return [resampled(p, fps, start) for p in people]


def one_by_one(motions: Sequence[Motion], body: Body, names: Sequence[str] | None = None) -> Iterator[Character]:
    """:func:`characters`, for those who need not hold all of them; what does not fit is told before the first."""
    check_type("body", body, Body)
    if not motions:
        raise UsageError("motions: expected at least one person, got none.")
    for motion in motions:
        check_type("motions", motion, Motion)
    names = [f"person{m.person_id:02d}" for m in motions] if names is None else list(names)
    _check_names(names, len(motions))
    steps, spans = 0, 0.0
    for name, motion in zip(names, motions, strict=True):
        _check_motion(name, motion, body)
        steps, spans = steps + len(motion) - 1, spans + float(motion.timestamps[-1] - motion.timestamps[0])
    rate = steps / spans if steps else STILL_FPS
    return (_character(name, motion, body, rate) for name, motion in zip(names, motions, strict=True))


def check_fps(fps: float) -> None:
    """Raises UsageError: not a number of frames a second above 0 and up to :data:`MAX_FPS`."""
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
        raise UsageError(f"fps: expected frames a second above 0 and up to {MAX_FPS:g}, got {fps}.")


def resampled(character: Character, fps: float, start: float) -> Character:
    """The character at the times ``start + k / fps`` that lie within its own; at its first time where none does.

    A row counts as observed where both rows around it are, or the one that it falls on.
    """
    times = character.timestamps
    first, last = float(times[0]), float(times[-1])
    steps = np.arange(math.ceil((first - start) * fps - 1e-6), math.floor((last - start) * fps + 1e-6) + 1)
    grid = np.clip(start + steps / fps, first, last) if len(steps) else np.array([first])
    after = np.searchsorted(times, grid)
    before = np.where(times[after] == grid, after, after - 1)
    share = (grid - times[before]) / np.maximum(times[after] - times[before], 1e-12)
    share = np.where(share < ON_ROW, 0.0, np.where(share > 1 - ON_ROW, 1.0, share))
    pose = torch.from_numpy(character.pose_rotmat)
    turned = slerp(pose[before], pose[after], torch.from_numpy(share)[:, None].expand(-1, pose.shape[1]))
    moved = character.transl[before] + share[:, None] * (character.transl[after] - character.transl[before])
    seen = character.observed
    seen = np.where(share == 0, seen[before], np.where(share == 1, seen[after], seen[before] & seen[after]))
    return dataclasses.replace(
        character, timestamps=grid, observed=seen, frame_ids=None, pose_rotmat=turned.numpy(), transl=moved, fps=fps
    )


def at_even_rate(character: Character, what: str) -> Character:
    """The character as a format holds it that knows one rate and no time stamps; ``fps`` is that rate.

    Rows that stand evenly, within :data:`EVEN_S`, stay as they are. Others are resampled to ``fps``, which is told.
    """
    if len(character) == 1:
        return character
    times = character.timestamps
    own = (len(times) - 1) / float(times[-1] - times[0])
    off = np.abs(times - times[0] - np.arange(len(times)) / own).max()
    if off <= EVEN_S:
        return dataclasses.replace(character, fps=round(own, 6))
    log.warning(
        "%s: %s holds one rate, and frames stand up to %.0f ms from an even one; they are resampled to %.4g frames/s",
        character.name, what, 1e3 * off, character.fps,
    )  # fmt: skip
    return resampled(character, character.fps, float(times[0]))


def _character(name: str, motion: Motion, body: Body, rate: float) -> Character:
    root, transl = exported_root(motion, body)
    body_pose = motion.body_pose if motion.body_pose_world is None else motion.body_pose_world
    pose = np.empty((len(motion), 1 + body_pose.shape[1], 3, 3))
    for rows in _pieces(len(motion)):
        pose[rows, 0] = root[rows]
        pose[rows, 1:] = rotvec_to_rotmat(torch.tensor(body_pose[rows], dtype=torch.float64)).numpy()
    return Character(
        name=name, person_id=motion.person_id, body=body, betas=motion.betas, timestamps=motion.timestamps,
        observed=motion.observed, frame_ids=motion.frame_ids, pose_rotmat=pose, transl=transl, fps=rate,
    )  # fmt: skip


def _pieces(frames: int) -> list[slice]:
    """Rows that rotations are converted at once: on the way they take several times the room."""
    return [slice(first, first + _PIECE) for first in range(0, frames, _PIECE)]


def _check_names(names: Sequence[str], people: int) -> None:
    if len(names) != people:
        raise UsageError(f"names: expected one for each of {people} people, got {len(names)}.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"names: expected another for everyone, got {twice[0]} {Counter(names)[twice[0]]} times. Give each motion its "
            "own person_id, or names."
        )
    for name in names:
        if not name or Path(name).name != name:
            raise UsageError(f"names: expected one that a file can have, got {name!r}.")


def _check_motion(name: str, motion: Motion, body: Body) -> None:
    if motion.body != body.name:
        raise UsageError(f"{name}: body: this motion belongs to {motion.body!r}, got the body {body.name!r}.")
    if not len(motion):
        raise ShapeError(f"{name}: expected at least one frame, got none. There is nothing to export.")
    if motion.timestamps[0] < 0:
        raise ShapeError(
            f"{name}: timestamps: expected seconds from 0 on, got {motion.timestamps[0]:g}. Add an offset to all of them."
        )
    rows = np.unique(np.linspace(0, len(motion) - 1, 8).round().astype(int))
    with torch.no_grad():
        betas, transl = torch.tensor(motion.betas), torch.tensor(motion.transl[rows])
        joints = body.joints(*(p.to(body.device) for p in (betas, motion.pose_rotmat(rows), transl)))
    off = float(np.linalg.norm(_numpy(joints) - motion.joints3d[rows], axis=-1).max())
    if off > SAME_BODY_M:
        log.warning(
            "%s: its joints3d lie up to %.0f mm from the joints of its parameters: it was made with another body file or "
            "version; what is exported follows the parameters",
            name, 1e3 * off,
        )  # fmt: skip


def _numpy(value: torch.Tensor) -> Array:
    return value.detach().cpu().numpy().astype(np.float64)
