"""One person as the world asks about it: what of a motion meets the ground, and what it says of gravity."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..body import Body
from ..body.soles import Soles, soles_of
from ..flow.tilt import Tilt, load_tilt
from ..motion import Motion
from ..skeleton import BLAZEPOSE, FEET, NUM_BODY
from .camera_files import CameraPath
from .feet import carried_by_feet, centre_of_mass, support
from .gravity import CORRELATED_S, WOBBLE_DEG, Sighted
from .legs import Limbs, limbs_of
from .steps import Stepping

_FRAMES = 400
"""Frames a person from which gravity is found, evenly taken; more of them say the same again."""
_PIECE = 512
_SURE = 0.5
"""Confidence of a landmark from which it counts as seen."""
_WHOLE = tuple(
    BLAZEPOSE.index(f"{side}_{joint}")
    for joint in ("shoulder", "hip", "knee", "ankle") for side in ("left", "right")
)  # fmt: skip
_CROPPED, _ENTIRE = 0.55, 0.85
"""Mean confidence of these landmarks, 0 outside the picture, up to which a pose tells nothing of gravity, and from which on it counts as whole: legs that
are not seen are guessed."""


@dataclasses.dataclass(frozen=True)
class Person:
    """One person's motion with what of it meets the ground, in camera axes; float64 tensors (T, ...), but for ``soles``."""

    motion: Motion
    timestamps: Tensor
    pelvis: Tensor
    mass: Tensor
    soles: Tensor  # (T, 4, P, 3), in the body's own precision: most of what a long clip holds here
    feet: Tensor
    whole: Tensor  # 0..1, how far the body is in sight
    rest_joints: Tensor
    sole_offsets: Tensor  # (4, P, 3), in the axes of the joints that carry them
    leg: float
    observed_s: float

    @property
    def frame_ids(self) -> NDArray[np.int64]:
        return self.motion.frame_ids

    @property
    def observed(self) -> NDArray[np.bool_]:
        return self.motion.observed

    @property
    def rest_pelvis(self) -> Tensor:
        return self.rest_joints[0]

    def turned(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Rotations of the pelvis (T', 3, 3) and of the body's joints (T', 21, 3, 3) in frames; not kept, for they are large."""
        pose = self.motion.pose_rotmat(rows)[:, : 1 + NUM_BODY].double()
        return pose[:, 0], pose[:, 1:]

    @classmethod
    def sampled(cls, motion: Motion, body: Body) -> Person:
        """In those frames alone that say where up and ground are: enough where nothing moves but people."""
        return dataclasses.replace(cls.of(motion[_looks(motion.observed)], body), observed_s=_observed_s(motion))

    @classmethod
    def of(cls, motion: Motion, body: Body) -> Person:
        betas = torch.tensor(motion.betas).to(body.device, body.dtype)
        soles: Soles = soles_of(body, betas)
        points, pelvis, mass = [], [], []
        with torch.no_grad():
            for rows in pieces(motion):
                pose = motion.pose_rotmat(rows).to(body.device, body.dtype)
                turned, placed = body.transforms(betas, pose, torch.tensor(motion.transl[rows]).to(pose))
                points.append(soles.posed(turned, placed).cpu())
                pelvis.append(placed[:, 0].double().cpu())
                mass.append(centre_of_mass(placed).double().cpu())
            joints = body.rest_joints(betas).double().cpu()
        leg = float(joints[0, 1] - (soles.offsets[..., 1].double().cpu() + joints[soles.joints.cpu(), None, 1]).amin())
        inside = ((motion.keypoints2d > 0) & (motion.keypoints2d < motion.image_size)).all(-1)
        seen = (motion.confidence >= _SURE) & inside
        sure = np.where(inside, motion.confidence, 0.0)[:, _WHOLE].mean(-1)
        whole = ((sure - _CROPPED) / (_ENTIRE - _CROPPED)).clip(0, 1)
        return cls(
            motion, torch.tensor(motion.timestamps), torch.cat(pelvis), torch.cat(mass), torch.cat(points),
            torch.from_numpy(seen[:, FEET].mean(-1)), torch.from_numpy(whole), joints, soles.offsets.double().cpu(), leg,
            _observed_s(motion),
        )  # fmt: skip

    def cameras(self, path: CameraPath, ids: NDArray[np.int64]) -> Tensor:
        """T_ref2cam (T, 4, 4) of its frames."""
        return torch.from_numpy(path.T_ref2cam[np.searchsorted(ids, self.frame_ids)])

    def world_soles(self, path: CameraPath, ids: NDArray[np.int64]) -> Tensor:
        """Points of the soles (T, 4, P, 3) in the reference's axes."""
        return _back(self.cameras(path, ids), self.soles.double())

    def limbs(self, turn: Tensor, pelvis: Tensor) -> Limbs:
        """Its legs in axes that camera axes are turned to by ``turn`` (T, 3, 3), the pelvis at ``pelvis`` (T, 3)."""
        parts = []
        for rows in pieces(self.motion):
            root, body = self.turned(rows)
            parts.append(limbs_of(body, turn[rows] @ root, pelvis[rows], self.rest_joints, self.sole_offsets))
        above, places, rotmat, toes = (torch.cat(piece) for piece in zip(*(p[:4] for p in parts), strict=True))
        return Limbs(above, places, rotmat, toes, parts[0].offsets, parts[0].soles)

    def stepping(self, path: CameraPath, ids: NDArray[np.int64], to_y_up: Tensor) -> Stepping:
        """What its feet say of the camera's steps, in axes turned y up from the reference's by ``to_y_up`` (3, 3)."""
        turn = to_y_up @ self.cameras(path, ids)[:, :3, :3].mT
        soles = (self.soles.double() - self.pelvis[:, None, None]) @ turn[:, None].mT
        rows = torch.from_numpy(np.searchsorted(ids, self.frame_ids))
        pelvis = (turn @ self.pelvis[..., None])[..., 0]
        return Stepping(rows, self.timestamps, torch.tensor(self.observed), pelvis, soles)

    def sighted(self, path: CameraPath, ids: NDArray[np.int64]) -> Sighted:
        """What the observed frames say of gravity and ground, in the reference's axes."""
        rows = _looks(self.observed)
        cameras = self.cameras(path, ids)[rows]
        turn = cameras[:, :3, :3].mT
        depth, soles = self.pelvis[rows].norm(dim=-1), self.soles[rows].double()
        root, body = self.turned(rows)
        # One frame is one look.
        share = max(1.0, self.observed_s / CORRELATED_S) / max(len(rows), 1)
        with torch.no_grad():
            tilt = load_tilt()(body).blurred(math.radians(WOBBLE_DEG))
        # Which feet carry is told by the likeliest up of each frame alone.
        likeliest = tilt.log_weight[:, :-1].argmax(-1)
        up = (root @ tilt.mean[torch.arange(len(rows)), likeliest][..., None])[..., 0]
        carrier = support(soles, up)
        balance = self.mass[rows] - carrier
        upright = carried_by_feet(((self.pelvis[rows] - carrier) * up).sum(-1), self.leg)
        return Sighted(
            turn @ root, Tilt(*tilt), _back(cameras, soles).flatten(1, 2),
            (turn @ (self.pelvis[rows] / depth[:, None])[..., None])[..., 0], depth,
            -(turn @ cameras[:, :3, 3:])[..., 0], min(1.0, share) * self.whole[rows],
            self.feet[rows], (turn @ balance[..., None])[..., 0], upright,
        )  # fmt: skip


def _looks(observed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Frames that gravity is found from."""
    rows = np.flatnonzero(observed)
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(_FRAMES, len(rows))).round().astype(int))]


def _observed_s(motion: Motion) -> float:
    """Seconds in which the person was observed."""
    step = float(np.median(np.diff(motion.timestamps))) if len(motion) > 1 else 1 / 30
    return step * float(motion.observed.sum())


def _back(cameras: Tensor, points: Tensor) -> Tensor:
    """Points (T, ..., 3) out of the axes of cameras (T, 4, 4)."""
    lead = [1] * (points.dim() - 2)
    shift = cameras[:, :3, 3].reshape(-1, *lead, 3)
    return (points - shift) @ cameras[:, :3, :3].reshape(-1, *([1] * (points.dim() - 3)), 3, 3)


def pieces(motion: Motion) -> list[NDArray[np.int64]]:
    """Its frames, so many as a body is posed for at once."""
    return np.array_split(np.arange(len(motion)), len(motion) // _PIECE + 1)
