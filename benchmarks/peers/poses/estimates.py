"""Most likely poses under a prior: hidden limbs, noisy rotations, 2D keypoints; the same optimiser for every prior.

A pose is searched for either in *rotations*, the chart coordinates of the free joints under the prior's density over
rotations, or in *latents* z under |z|^2 / 2, as users of VPoser do. Energies are negative log-densities, each pose its
own, so that a batch does not change the result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.cameras import project
from kinflow.flow.chart import RotationChart
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat
from kinflow.skeleton import NUM_BODY, SMPL_JOINTS, SMPL_PARENTS
from kinflow.training.poses import Capture, perturb

from .base import PosePrior, in_parts
from .mixture import MixturePrior

BOUND_SAMPLES = 4
"""Fresh importance samples at each evaluation of a density that is known only by a bound."""
LIMBS: dict[str, tuple[str, ...]] = {
    "left arm": ("left_collar", "left_shoulder", "left_elbow", "left_wrist"),
    "right leg": ("right_hip", "right_knee", "right_ankle", "right_foot"),
    "both arms": tuple(f"{s}_{j}" for s in ("left", "right") for j in ("collar", "shoulder", "elbow", "wrist")),
}
PERSON_PX, PIXEL_NOISE, MISSING, STATURE = 1000.0, 5.0, 0.2, 1.7


@dataclasses.dataclass(frozen=True)
class Setting:
    """lr: Adam's first step size. weight: of the prior (keypoints), or the tolerance in rad by which latents must meet
    the visible joints (hidden limbs)."""

    lr: float
    weight: float = 1.0


def descend(start: Tensor, energy: Callable[[Tensor], Tensor], lr: float, steps: int) -> Tensor:
    """Minimise energies (N,) of (N, D) from ``start`` by ``steps`` evaluations: Adam, step size on a cosine to 1 %."""
    x = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=lr, betas=(0.9, 0.99))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        (gradient,) = torch.autograd.grad(energy(x).sum(), [x])
        # One pose out of reach must not stop the others.
        x.grad = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
        optimiser.step()
    return x.detach()


def hidden_joints(limb: str) -> Tensor:
    """Bool (21,): the body joints of a limb of :data:`LIMBS`."""
    return torch.tensor([SMPL_JOINTS[j + 1] in LIMBS[limb] for j in range(NUM_BODY)])


def moved_joints(limb: str) -> list[int]:
    """SMPL joints whose place depends on the limb's rotations."""
    roots = [SMPL_JOINTS.index(name) for name in LIMBS[limb]]
    moved: list[int] = []
    for joint, parent in enumerate(SMPL_PARENTS):
        if parent in roots or parent in moved:
            moved.append(joint)
    return moved


class Search:
    """Searches poses under one prior, in ``mode`` "rotations" or "latents"."""

    def __init__(self, prior: PosePrior, mode: str, chart: RotationChart, steps: int) -> None:
        self.prior, self.mode, self.chart, self.steps = prior, mode, chart, steps
        self.generator = torch.Generator().manual_seed(0)

    def pose(self, x: Tensor) -> Tensor:
        """Rotations (N, 21, 3, 3) of what is searched over."""
        if self.mode == "latents":
            return self.prior.decode(x)
        return self.chart.inverse(x.unflatten(-1, (-1, 3)))[0]

    def start(self, rotmat: Tensor) -> Tensor:
        """What is searched over, at a pose."""
        with torch.no_grad():
            return self.prior.encode(rotmat) if self.mode == "latents" else self.chart(rotmat)[0].flatten(-2)

    def energy(self, x: Tensor, rotmat: Tensor) -> Tensor:
        """Minus the prior's log-density (N,), up to a constant."""
        if self.mode == "latents":
            return 0.5 * x.square().sum(-1)
        return -self.prior.log_prob(rotmat, BOUND_SAMPLES, self.generator)

    def complete(self, rotmat: Tensor, hidden: Tensor, setting: Setting) -> Tensor:
        """``rotmat`` (N, 21, 3, 3) with its hidden joints (21,) bool put anew; they start at the training's mean."""
        blank = torch.where(hidden[:, None, None], self.chart.mean_rotmat, rotmat)
        if self.mode == "latents":

            def energy(z: Tensor) -> Tensor:
                pose = self.pose(z)
                off = geodesic_distance(pose[:, ~hidden], rotmat[:, ~hidden]).square().sum(-1)
                return off / (2 * setting.weight**2) + self.energy(z, pose)

            found = self.pose(descend(self.start(blank), energy, setting.lr, self.steps))
        else:
            free = hidden.repeat_interleave(3).to(rotmat.dtype)
            start = self.start(blank)

            def assemble(x: Tensor) -> Tensor:
                return torch.where(hidden[:, None, None], self.pose(start + (x - start) * free), rotmat)

            found = assemble(descend(start, lambda x: self.energy(x, assemble(x)), setting.lr, self.steps))
        return torch.where(hidden[:, None, None], found, rotmat).detach()

    def clean(self, noisy: Tensor, noise: float, setting: Setting) -> Tensor:
        """The most likely poses behind rotations with known noise (rad, each axis); they start at the noisy ones."""

        def energy(x: Tensor) -> Tensor:
            pose = self.pose(x)
            return geodesic_distance(pose, noisy).square().sum(-1) / (2 * noise**2) + self.energy(x, pose)

        return self.pose(descend(self.start(noisy), energy, setting.lr, self.steps)).detach()

    def fit(self, views: Views, setting: Setting) -> Tensor:
        """Poses that explain 2D keypoints; they start at the training's mean pose. Weight 0: without the prior."""
        mean = self.chart.mean_rotmat.expand(len(views.root), -1, -1, -1)

        def energy(x: Tensor) -> Tensor:
            pose = self.pose(x)
            data = views.misfit(pose)
            return data + setting.weight * self.energy(x, pose) if setting.weight else data

        return self.pose(descend(self.start(mean), energy, setting.lr, self.steps)).detach()


def conditional_mean(prior: MixturePrior, rotmat: Tensor, hidden: Tensor) -> Tensor:
    """Hidden joints at a mixture's exact conditional mean in chart coordinates."""
    u, _ = prior.coordinates(rotmat)
    found = prior.rotations(prior.conditional_mean(u, hidden.repeat_interleave(3)))
    return torch.where(hidden[:, None, None], found, rotmat)


# -- poses, views and errors ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Poses:
    """Held-out poses: rotmat (N, 21, 3, 3), root (N, 3, 3) world, clip (N,) index of the recording."""

    rotmat: Tensor
    root: Tensor
    clip: Tensor

    def spread(self, count: int) -> Poses:
        """``count`` of them at equal distances."""
        keep = torch.linspace(0, len(self.clip) - 1, min(count, len(self.clip))).round().long()
        return Poses(self.rotmat[keep], self.root[keep], self.clip[keep])


def poses_of(captures: list[Capture], rate: float) -> Poses:
    """Poses at about ``rate`` Hz. Runs cut from one recording count as one clip."""
    names = {name: i for i, name in enumerate(dict.fromkeys(c.name for c in captures))}
    every = [slice(None, None, max(1, round(c.fps / rate))) for c in captures]
    parts = [(c.body_pose[s], c.global_rotmat[s], names[c.name]) for c, s in zip(captures, every, strict=True)]
    clip = torch.cat([torch.full((len(p),), i) for p, _, i in parts])
    return Poses(rotvec_to_rotmat(torch.cat([p[0] for p in parts])), torch.cat([p[1] for p in parts]), clip)


def noisy(rotmat: Tensor, noise: float, seed: int) -> Tensor:
    """Rotations with noise of ``noise`` rad about each axis."""
    return perturb(rotmat, noise, torch.Generator().manual_seed(seed))


class Skeleton:
    """The open body of mean shape, root at the origin."""

    def __init__(self) -> None:
        self.body = Body.open("light")
        self.betas = torch.zeros(10)
        self.pelvis = self.body.rest_joints(self.betas)[0]

    def millimetres(self, found: Tensor, true: Tensor, joints: list[int]) -> Tensor:
        """Mean distance (N,) of joints, mm, the root held."""
        a, b = (self.body.joints(self.betas, full_pose(r))[:, joints] for r in (found, true))
        return 1000 * (a - b).norm(dim=-1).mean(-1)


def degrees(found: Tensor, true: Tensor, joints: Tensor | None = None) -> Tensor:
    """Mean geodesic distance (N,) in degrees, over the joints (21,) bool."""
    angle = torch.rad2deg(geodesic_distance(found, true))
    return (angle if joints is None else angle[:, joints]).mean(-1)


@dataclasses.dataclass(frozen=True)
class Views:
    """What cameras see: root (N, 3, 3) in camera axes, pelvis (N, 3) m, K (N, 3, 3), keypoints (N, 33, 2) px,
    seen (N, 33). Camera, root and shape are known."""

    skeleton: Skeleton
    root: Tensor
    pelvis: Tensor
    K: Tensor
    keypoints: Tensor
    seen: Tensor

    def points(self, rotmat: Tensor) -> Tensor:
        """The 33 landmarks (N, 33, 2) px of poses."""
        skeleton = self.skeleton
        pose = full_pose(rotmat, self.root)
        return project(skeleton.body.landmarks(skeleton.betas, pose, self.pelvis - skeleton.pelvis), self.K)

    def misfit(self, rotmat: Tensor) -> Tensor:
        """Minus the log-likelihood (N,) of the keypoints that are seen, up to a constant: their noise is Gaussian."""
        off = (self.points(rotmat) - self.keypoints).square().sum(-1)
        return (off * self.seen).sum(-1) / (2 * PIXEL_NOISE**2)


def random_views(poses: Poses, skeleton: Skeleton, seed: int) -> Views:
    """One camera a pose: any bearing, pitch to 30 degrees, some roll, 3 to 6 m away, the person 1000 px tall."""
    generator = torch.Generator().manual_seed(seed)
    count = len(poses.clip)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def about(axis: int, angle: Tensor) -> Tensor:
        return rotvec_to_rotmat(angle[:, None] * torch.eye(3)[axis])

    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y up, to the camera's y down and z forward
    tilt = about(2, uniform(-0.1, 0.1)) @ about(0, uniform(-0.5, 0.5)) @ flip
    root = tilt @ about(1, uniform(-math.pi, math.pi)) @ poses.root
    depth = uniform(3.0, 6.0)
    K = torch.zeros(count, 3, 3)
    K[:, 0, 0] = K[:, 1, 1] = PERSON_PX / STATURE * depth
    K[:, 2, 2] = 1.0
    pelvis = torch.stack((0 * depth, 0 * depth, depth), -1)
    views = Views(
        skeleton, root, pelvis, K, torch.zeros(count, 33, 2), torch.rand(count, 33, generator=generator) > MISSING
    )

    def points(i: Tensor) -> Tensor:
        return dataclasses.replace(views, root=root[i], pelvis=pelvis[i], K=K[i]).points(poses.rotmat[i])

    clean = in_parts(points, torch.arange(count), 512)
    return dataclasses.replace(views, keypoints=clean + PIXEL_NOISE * torch.randn(clean.shape, generator=generator))
