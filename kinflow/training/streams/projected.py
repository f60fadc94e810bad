"""Projected motion capture: windows of motion before random cameras, with a modelled front end, and their exact truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from ...body import Body
from ...body.kinematics import full_pose
from ...cameras import project, rays
from ...config import ProjectionConfig
from ...flow import PoseFlow
from ...reconstruction.geometry import ray_rotmat, spread, torso_centre
from ...reconstruction.observation import Observations, time_steps
from ...rotations import mirror_rotmat, rotvec_to_rotmat
from ...skeleton import FEET
from ..poses import Capture, exchange, mirror_body
from .noise import Noisy, ar1, bursts, corrupt, keep_coco, log_uniform

STILL = 0.25
"""Speed in m/s below which a part of the foot counts as standing still."""
_IMAGES = ((640, 480), (1280, 720), (1920, 1080), (720, 1280), (480, 640), (512, 512))
PIXELS = 128
"""Of a mask, in a sample."""
_NEAREST = 0.35  # m, of any joint to the camera


@dataclasses.dataclass(frozen=True)
class Supervision:
    """Which of a sample's truth is known, and what there is in place of it.

    Attributes:
        pose: (B, T) bool, rotations of pelvis and joints, and what follows from them. betas: (B,) bool.
        joints: (B, T, 24, 3) m, camera axes about the middle of the hips, where positions alone are known.
        joints_known: (B, T, 24) bool.
        pixels: (B, T, P, 2) px inside the person's mask or part map. masked: (B, T) bool, whether there is one.
        parts: (B, T, P) int part of each pixel, an index into BODYPIX24; 0 where the mask tells no parts apart.
        labelled: (B,) bool, whether parts are told apart.
        crops: (B, T, 4) centre x, y, side in px, angle in rad of the part of the image that mask or map covers.
        world_std: (B, T, 33, 2) m, of ``obs.world`` across the line of sight and along it, once it is lifted; 0 before.
    """

    pose: Tensor
    betas: Tensor
    joints: Tensor
    joints_known: Tensor
    pixels: Tensor
    masked: Tensor
    parts: Tensor
    labelled: Tensor
    crops: Tensor
    world_std: Tensor

    @classmethod
    def full(cls, valid: Tensor) -> Supervision:
        """All is known of windows whose frames (B, T) are ``valid``, and nothing is needed beside it."""
        batch, frames = valid.shape
        zero = torch.zeros(1, 1, 1, 1).expand(batch, frames, 24, 3)
        nothing = torch.zeros(1, 1, dtype=torch.bool).expand(batch, frames)
        return cls(
            torch.ones_like(valid), torch.ones(batch, dtype=torch.bool), zero,
            nothing[..., None].expand(batch, frames, 24), zero[..., :1, :2].expand(batch, frames, PIXELS, 2), nothing,
            torch.zeros(1, 1, 1, dtype=torch.long).expand(batch, frames, PIXELS), nothing[:, 0],
            zero[..., 0, :1].expand(batch, frames, 4), zero[..., :1, :1].expand(batch, frames, 33, 2),
        )  # fmt: skip

    def to(self, device: torch.device) -> Supervision:
        """The same on another device."""
        return Supervision(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class Sample:
    """A batch of windows: what is seen, and the truth.

    Attributes:
        obs: observations; ``obs.K`` is the camera the network is told.
        root_to_ray: (B, T, 3, 3) true pelvis rotation in the true camera's ray-aligned axes.
        root_to_camera: (B, T, 3, 3) the same in camera axes.
        pose_rotmat: (B, T, 21, 3, 3) true joint rotations.
        betas: (B, 10). transl: (B, T, 3) m, camera axes. K: (B, 3, 3) the true camera.
        contacts: (B, T, 4) 0 or 1, and whether they are known at all (B,) bool.
        landmarks_ray: (B, T, 33, 3) m, true landmarks about the middle of the hips, ray-aligned.
        known: which of these are known; the others hold anything finite.
    """

    obs: Observations
    root_to_ray: Tensor
    root_to_camera: Tensor
    pose_rotmat: Tensor
    betas: Tensor
    transl: Tensor
    K: Tensor
    contacts: Tensor
    contacts_known: Tensor
    landmarks_ray: Tensor
    known: Supervision

    def to(self, device: torch.device) -> Sample:
        """The same on another device."""
        return Sample(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


def join(parts: Sequence[Sample]) -> Sample:
    """Windows of one length put together along the batch."""

    def stack(items: Sequence[Any]) -> Any:
        if isinstance(items[0], Tensor):
            return torch.cat(list(items))
        names = [f.name for f in dataclasses.fields(items[0])]
        return type(items[0])(**{n: stack([getattr(x, n) for x in items]) for n in names})

    return cast(Sample, parts[0] if len(parts) == 1 else stack(parts))


def true_view(landmarks: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation ray to camera (B, T, 3, 3) of exact landmarks (B, T, 33, 3) in camera axes, and their exact pixels."""
    pixels = project(landmarks, K[:, None])
    plane = rays(pixels, K[:, None])
    centre = torso_centre(plane, torch.ones_like(plane[..., 0]))
    return ray_rotmat(torch.cat((centre, torch.ones_like(centre[..., :1])), -1)), pixels


class Stream(Protocol):
    """What windows are drawn from."""

    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch of windows of the stream's length; all randomness comes from ``rng``."""


class Lender(Protocol):
    """Errors of a real front end: :class:`kinflow.training.streams.borrowed.BorrowedErrors`."""

    def lend(self, landmarks: Tensor, K: Tensor, timestamps: Tensor, rng: torch.Generator) -> Noisy: ...


class ProjectedMotions:
    """Draws batches of :class:`Sample` from motion capture.

    Args:
        captures: runs of valid frames.
        body: gives joints and landmarks.
        flow: for windows that wander through its samples; None leaves those out.
        lender: of the real front end's errors, for a share ``config.borrowed`` of the windows; None: all are modelled.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        body: Body,
        config: ProjectionConfig,
        flow: PoseFlow | None = None,
        lender: Lender | None = None,
    ) -> None:
        self.body, self.config, self.flow, self.lender = body, config, flow, lender
        self.pose = torch.cat([c.body_pose for c in captures])
        self.root = torch.cat([c.global_rotmat for c in captures])
        self.transl = torch.cat([c.transl for c in captures])
        self.length = torch.tensor([len(c.body_pose) for c in captures])
        self.first = torch.cumsum(self.length, 0) - self.length
        self.fps = torch.tensor([c.fps for c in captures])
        seconds = (self.length / self.fps).double()
        self.share = (seconds / seconds.sum()).numpy()
        self.contacts = torch.cat([foot_contacts(c, body) for c in captures])
        neutral = body.rest_vertices(torch.zeros(10, dtype=body.dtype))
        self.height = float(neutral[:, 1].max() - neutral[:, 1].min())

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch of windows; all randomness comes from ``rng``."""
        config = self.config
        g = torch.Generator().manual_seed(int(rng.integers(2**62)))
        index, timestamps, valid = self._frames(rng, batch)
        dt = time_steps(timestamps)
        mirrored = torch.rand(batch, generator=g) < config.mirror
        pose, altered = self._poses(index, dt, mirrored, rng, g)
        root, path = self._path(index, mirrored, dt, g)
        contacts = self.contacts[index]
        contacts = torch.where(mirrored[:, None, None], contacts[..., [2, 3, 0, 1]], contacts)
        betas = torch.randn(batch, 10, generator=g) * (0.3 + torch.rand(batch, 1, generator=g))

        K, size = self._cameras(g, batch)
        turn = self._directions(g, batch)
        root = turn[:, None] @ root
        path = torch.einsum("bij,btj->bti", turn, path)
        rotmats = full_pose(pose, root)
        shape = betas[:, None].expand(-1, pose.shape[1], -1)
        joints, landmarks = self.body.joints_and_landmarks(shape, rotmats, None)
        pelvis = joints[..., :1, :]
        place = self._place(joints - pelvis + path[..., None, :], K, size, betas, g)
        offset = path[..., None, :] + place[:, None, None] - pelvis
        joints, landmarks, transl = joints + offset, landmarks + offset, offset[..., 0, :]

        ray_to_camera, pixels = true_view(landmarks, K)
        hips = landmarks[..., [23, 24], :].mean(-2, keepdim=True)
        landmarks_ray = (landmarks - hips) @ ray_to_camera
        noisy, observed = self._front_end(pixels, landmarks_ray, hips, K, size, betas, dt, valid, g)
        if self.lender is not None:
            rows = torch.rand(batch, generator=g) < config.borrowed
            if rows.any():
                lent = self.lender.lend(landmarks[rows], K[rows], timestamps[rows], g)
                for mine, theirs in zip(noisy, lent, strict=True):
                    mine[rows] = theirs
        told = K.clone()
        error = torch.exp(config.focal_error * torch.randn(batch, generator=g))
        error = torch.where(torch.rand(batch, generator=g) < 0.5, error, torch.ones_like(error))
        told[:, 0, 0] *= error
        told[:, 1, 1] *= error
        has_world = (torch.rand(batch, generator=g) < config.world)[:, None] & observed
        coco = (torch.rand(batch, generator=g) < config.coco) & ~has_world.any(1)
        noisy = keep_coco(noisy, coco)
        blank = torch.zeros(())
        obs = Observations(
            torch.where(observed[..., None, None], noisy.keypoints2d, blank),
            torch.where(observed[..., None], noisy.confidence, blank),
            torch.where(has_world[..., None, None], noisy.world, blank),
            has_world, observed, valid, timestamps, told,
        )  # fmt: skip
        return Sample(
            obs, ray_to_camera.transpose(-1, -2) @ root, root, pose, betas, transl, K, contacts, ~altered, landmarks_ray,
            Supervision.full(valid),
        )  # fmt: skip

    # -- motion -------------------------------------------------------------------------------------------------------

    def _frames(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Source frame (B, T) into the bank, time (B, T) s, valid (B, T), at random rates that may jitter."""
        config = self.config
        which = torch.from_numpy(rng.choice(len(self.share), size=batch, p=self.share))
        g = torch.Generator().manual_seed(int(rng.integers(2**62)))
        fps = log_uniform(*config.fps, (batch, 1), g)
        source = self.fps[which][:, None]
        step = (source / fps).clamp_min(1.0)
        count = torch.arange(config.frames)[None] * torch.ones(batch, 1)
        shaky = (torch.rand(batch, 1, generator=g) < 0.5) * config.jitter
        at = step * (count + shaky * torch.randn(batch, config.frames, generator=g))
        dropped = torch.rand(batch, config.frames, generator=g) < 0.3 * torch.rand(batch, 1, generator=g).pow(3)
        at = at + step * dropped.cumsum(1)
        frames = at.round().long() - at[:, :1].round().long()
        # Strictly increasing: each frame at least one after the one before.
        ahead = frames - torch.arange(config.frames)
        frames = ahead.cummax(1).values + torch.arange(config.frames)
        length = self.length[which][:, None]
        slack = (length - 1 - frames[:, -1:]).clamp_min(0)
        begin = (torch.rand(batch, 1, generator=g) * (slack + 1)).long()
        valid = begin + frames < length
        last = valid.sum(1, keepdim=True) - 1
        frames = torch.where(valid, frames, frames.gather(1, last))
        speed = torch.exp((2 * torch.rand(batch, 1, generator=g) - 1) * config.time_warp)
        return self.first[which][:, None] + begin + frames, frames / (source * speed), valid

    def _poses(
        self, index: Tensor, dt: Tensor, mirrored: Tensor, rng: np.random.Generator, g: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Joint rotations (B, T, 21, 3, 3), and which windows are no longer the capture's legs (B,) bool."""
        config, batch = self.config, len(index)
        rotmat = rotvec_to_rotmat(self.pose[index])
        swap = torch.rand(batch, generator=g) < config.exchange
        if swap.any():
            other, _, _ = self._frames(rng, int(swap.sum()))
            rotmat[swap] = exchange(rotmat[swap], rotvec_to_rotmat(self.pose[other]))
        rotmat = torch.where(mirrored[:, None, None, None, None], mirror_body(rotmat), rotmat)
        wander = torch.rand(batch, generator=g) < (config.sampled if self.flow is not None else 0.0)
        if self.flow is not None and wander.any():
            tau = log_uniform(0.3, 3.0, (int(wander.sum()),), g)
            z = ar1((63,), dt[wander], tau, g)
            z = _soften(z, dt[wander]) * (0.6 + 0.5 * torch.rand(len(z), 1, 1, generator=g))
            rotmat[wander] = self.flow.decode(z)[0]
        shaken = (torch.rand(batch, generator=g) < config.perturb) & ~wander
        if shaken.any():
            count = int(shaken.sum())
            slow = _soften(ar1((21, 3), dt[shaken], log_uniform(0.5, 4.0, (count,), g), g), dt[shaken])
            joint = torch.rand(count, 1, 21, 1, generator=g).square() * config.perturb_std
            fixed = torch.randn(count, 1, 21, 3, generator=g) * joint
            rotmat[shaken] = rotmat[shaken] @ rotvec_to_rotmat(slow * joint + fixed)
        return rotmat, swap | wander | shaken

    def _path(self, index: Tensor, mirrored: Tensor, dt: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pelvis rotation (B, T, 3, 3) and place (B, T, 3) m about the window's middle, world axes, tilted at times."""
        config, batch = self.config, len(index)
        root, path = self.root[index], self.transl[index]
        path = path - path[:, path.shape[1] // 2, None]
        flip = mirrored[:, None, None]
        root = torch.where(flip[..., None], mirror_rotmat(root), root)
        path = torch.where(flip, path * path.new_tensor([-1.0, 1.0, 1.0]), path)
        tilted = (torch.rand(batch, generator=g) < config.tilt) * 0.5
        tumbled = (torch.rand(batch, generator=g) < config.tumble) * 2.0
        lean = torch.randn(batch, 3, generator=g) * torch.maximum(tilted, tumbled)[:, None]
        slow = _soften(ar1((3,), dt, torch.full((batch,), 2.0), g), dt) * tilted[:, None, None] * 0.5
        return rotvec_to_rotmat(lean[:, None] + slow) @ root, path

    # -- camera -------------------------------------------------------------------------------------------------------

    def _cameras(self, g: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
        """K (B, 3, 3) px and image sizes (B, 2)."""
        size = torch.tensor(_IMAGES, dtype=torch.float32)[torch.randint(len(_IMAGES), (batch,), generator=g)]
        focal = log_uniform(*self.config.focal, (batch,), g) * size.norm(dim=-1)
        K = torch.zeros(batch, 3, 3)
        K[:, 0, 0] = K[:, 1, 1] = focal
        K[:, :2, 2] = size / 2
        K[:, 2, 2] = 1
        return K, size

    def _directions(self, g: torch.Generator, batch: int) -> Tensor:
        """World (y up) to camera rotations (B, 3, 3): any heading, mostly modest pitch and roll, at times any."""
        config = self.config

        def normal(std: float) -> Tensor:
            return torch.randn(batch, generator=g) * math.radians(std)

        wide = torch.rand(batch, generator=g) < config.wide
        pitch = math.radians(6) + torch.where(wide, normal(35.0), normal(config.pitch))
        roll = torch.where(wide, normal(35.0), normal(config.roll))
        yaw = 2 * math.pi * torch.rand(batch, generator=g)
        zero = torch.zeros_like(yaw)

        def about(axis: int, angle: Tensor) -> Tensor:
            return rotvec_to_rotmat(torch.stack([angle if i == axis else zero for i in range(3)], -1))

        return about(2, roll) @ about(0, math.pi + pitch.clamp(-1.4, 1.4)) @ about(1, yaw)

    def _place(self, joints: Tensor, K: Tensor, size: Tensor, betas: Tensor, g: torch.Generator) -> Tensor:
        """Where the path's middle lies before the camera (B, 3) m."""
        config, batch = self.config, len(joints)
        share = log_uniform(*config.size, (batch,), g)
        focal = K[:, 0, 0]
        depth = focal * self.height / (share * size[:, 1])
        depth = torch.maximum(depth, _NEAREST - joints[..., 2].amin((1, 2)))
        at = torch.randn(batch, 2, generator=g) * config.off_centre * size
        return torch.cat((at / focal[:, None] * depth[:, None], depth[:, None]), -1)

    # -- front end ----------------------------------------------------------------------------------------------------

    def _front_end(
        self, pixels: Tensor, landmarks_ray: Tensor, hips: Tensor, K: Tensor, size: Tensor, betas: Tensor, dt: Tensor,
        valid: Tensor, g: torch.Generator,
    ) -> tuple[Noisy, Tensor]:  # fmt: skip
        config, batch = self.config, len(pixels)
        inside = ((pixels > 0) & (pixels < size[:, None, None])).all(-1)
        metres = 3 * spread(landmarks_ray[..., :2], torch.ones_like(pixels[..., 0]))
        metres = metres.clamp_min(0.6)
        size_px = metres / hips[..., 0, 2].clamp_min(0.3) * K[:, None, 0, 0]
        stature = self.body.rest_joints(betas)[..., [15, 7], 1]
        average = self.body.rest_joints(torch.zeros(10))[[15, 7], 1]
        ratio = (stature[:, 0] - stature[:, 1]) / (average[0] - average[1])
        noisy = corrupt(pixels, landmarks_ray, size_px, metres, inside, ratio, dt, config.noise, g)
        lost = bursts(1, dt, torch.full((batch,), 0.5), 0.6, g)[..., 0]
        lost = lost & (torch.rand(batch, 1, generator=g) < config.gaps)
        # Fewer than a handful of points within the image: no detector fires.
        observed = ~lost & (inside.sum(-1) >= 8) & valid
        never = ~observed.any(1)
        observed[never, 0] = True
        return noisy, observed & valid


def _soften(x: Tensor, dt: Tensor, seconds: float = 0.25) -> Tensor:
    """Take the roughness out of AR(1) noise (B, T, ...): exponential averages both ways, at unit scale again."""
    keep = torch.exp(-dt / seconds).reshape(*dt.shape, *([1] * (x.ndim - 2)))
    for direction in (1, -1):
        rows = range(1, x.shape[1]) if direction > 0 else range(x.shape[1] - 2, -1, -1)
        out = list(x.unbind(1))
        for t in rows:
            k = keep[:, t] if direction > 0 else keep[:, t + 1]
            out[t] = k * out[t - direction] + (1 - k) * out[t]
        x = torch.stack(out, 1)
    return x * 1.2


@torch.no_grad()
def foot_contacts(capture: Capture, body: Body, chunk: int = 4096) -> Tensor:
    """(T, 4) 1 where heel or toe of the neutral body stands still, by its speed over about a tenth of a second."""
    feet = []
    frames = torch.arange(len(capture.body_pose))
    zero = torch.zeros(10)
    for rows in frames.split(chunk):
        pose = full_pose(rotvec_to_rotmat(capture.body_pose[rows]), capture.global_rotmat[rows])
        joints, landmarks = body.joints_and_landmarks(zero, pose, None)
        feet.append(landmarks[:, list(FEET)] - joints[:, :1] + capture.transl[rows, None])
    path = torch.cat(feet)
    reach = max(1, round(0.05 * capture.fps))
    before, after = (frames - reach).clamp_min(0), (frames + reach).clamp_max(len(frames) - 1)
    speed = (path[after] - path[before]).norm(dim=-1) * capture.fps / (after - before).clamp_min(1)[:, None]
    return (speed < STILL).float()


def foot_contacts_of(landmarks: Tensor, timestamps: Tensor) -> tuple[Tensor, Tensor]:
    """Contacts (B, T, 4) from landmarks (B, T, 33, 3) before a camera that stands still, and whether they can be told.

    Speeds are those between neighbouring frames, so frames further apart than 0.15 s in the mean tell nothing (B,).
    """
    feet = landmarks[..., list(FEET), :]
    dt = timestamps.diff(dim=1).clamp_min(1e-6)
    speed = feet.diff(dim=1).norm(dim=-1) / dt[..., None]
    speed = torch.cat((speed[:, :1], torch.maximum(speed[:, 1:], speed[:, :-1]), speed[:, -1:]), 1)
    return (speed < STILL).float(), dt.mean(1) < 0.15
