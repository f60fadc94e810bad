"""Fit a body to a clip's 2D keypoints with a plain torch optimiser, the motion prior as one term of the loss.

    python examples/fit_keypoints.py CLIP -o fit.npz             keypoints by kinflow's own BlazePose
    python examples/fit_keypoints.py keypoints.npz -o fit.npz    keypoints2d (T, 33, 2) px, confidence (T, 33),
                                                                 timestamps (T,) s, image_size (2,)

Everything of interest is in :func:`fit`. The result holds SMPL parameters; ``kinflow-smooth`` and any tool that takes
those can read it. Fitted twice, with and without the prior, to show what it does.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinflow import timing
from kinflow.body import Body
from kinflow.cameras import intrinsics, project
from kinflow.errors import KinflowError, MissingAssetError, NobodyFoundError, ShapeError, check_shape
from kinflow.evidence import Evidence
from kinflow.losses import geman_mcclure
from kinflow.prior import MotionPrior
from kinflow.reconstruction.geometry import root_rotmat, solve_translation
from kinflow.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE_TO_SMPL


@dataclasses.dataclass(frozen=True)
class Keypoints:
    """``keypoints2d (T, 33, 2)`` px, ``confidence (T, 33)``, ``timestamps (T,)`` s, ``K (3, 3)`` px; ``world (T, 33, 3)`` m where
    the detector has a guess in 3D, only used to start from."""

    keypoints2d: Tensor
    confidence: Tensor
    timestamps: Tensor
    K: Tensor
    world: Tensor | None = None


class Fit(NamedTuple):
    """SMPL parameters ``body_pose (T, 23, 3)``, ``global_orient (T, 3)``, ``transl (T, 3)`` m, ``betas (10,)`` in camera axes, and
    the landmarks ``(T, 33, 3)`` and joints ``(T, 24, 3)`` of that body."""

    body_pose: Tensor
    global_orient: Tensor
    transl: Tensor
    betas: Tensor
    landmarks: Tensor
    joints: Tensor


def fit(
    seen: Keypoints,
    prior: MotionPrior,
    body: Body,
    weight: float = 1.0,
    steps: int = 150,
    noise_px: float | None = None,
) -> Fit:
    """Minimise  -log p(keypoints | body)  -  weight * log p(motion)  over pose, shape and trajectory.

    Args:
        weight: of the prior; 1 is Bayes' rule, 0 leaves it out.
        steps: of Adam.
        noise_px: standard deviation of a keypoint; 1.5 % of the person's size by default.
    """
    size = (seen.keypoints2d.amax(1) - seen.keypoints2d.amin(1)).norm(dim=-1).median()
    noise = 0.015 * size if noise_px is None else size.new_tensor(noise_px)
    orient, transl = starting_root(seen, prior, body)
    body_pose = prior.decode(torch.zeros(63)).expand(len(orient), -1, -1).clone()  # the most ordinary pose
    unknown = [body_pose, orient, transl, torch.zeros(10)]
    for x in unknown:
        x.requires_grad_()
    body_pose, orient, transl, betas = unknown
    optimiser = torch.optim.Adam([{"params": unknown[:2], "lr": 0.03}, {"params": unknown[2:], "lr": 0.02}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.06, 0.04], total_steps=steps, pct_start=0.2)
    for step in range(steps):
        optimiser.zero_grad()
        pose = rotvec_to_rotmat(torch.cat((orient[:, None], body_pose), 1))
        error = project(body.landmarks(betas, pose, transl), seen.K) - seen.keypoints2d
        # Tolerant of outliers from 5 standard deviations on; of much more while the body is still far off.
        scale = 5.0 * (1 + 10 * max(0.0, 1 - 3 * step / steps))
        data = (seen.confidence * geman_mcclure((error / noise).square().sum(-1), scale)).sum() / 2
        shape = betas.square().sum() / 2
        # The prior speaks of the body; the root gets a plain bound on its accelerations (30 rad/s^2, 5 m/s^2).
        root = (timing.acceleration(orient[:, None], seen.timestamps) / 30).square().sum()
        root = root + (timing.acceleration(transl[:, None], seen.timestamps) / 5).square().sum()
        loss = data + shape + root / 2
        if weight > 0:
            loss = loss - weight * prior.log_prob(body_pose[None], seen.timestamps).sum()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        pose = rotvec_to_rotmat(torch.cat((orient[:, None], body_pose), 1))
        joints, landmarks = body.joints_and_landmarks(betas, pose, transl)
    return Fit(body_pose.detach(), orient.detach(), transl.detach(), betas.detach(), landmarks, joints)


def starting_root(seen: Keypoints, prior: MotionPrior, body: Body) -> tuple[Tensor, Tensor]:
    """Root orientation (T, 3) and translation (T, 3) to start from: upright, turned as the shoulders say."""
    if seen.world is not None:
        rotmat = root_rotmat(seen.world)
    else:
        # A left shoulder to the image's right faces the camera; the narrower the shoulders, the more of a side view.
        across = seen.keypoints2d[:, 11, 0] - seen.keypoints2d[:, 12, 0]
        width = across / across.abs().max().clamp_min(1.0)
        turn = torch.acos(width.clamp(-1, 1))
        upright = rotvec_to_rotmat(torch.tensor([math.pi, 0.0, 0.0]))
        rotmat = upright @ rotvec_to_rotmat(torch.stack((0 * turn, turn, 0 * turn), -1))
    with torch.no_grad():
        rest = rotvec_to_rotmat(prior.decode(torch.zeros(63))).expand(len(rotmat), -1, -1, -1)
        points = body.landmarks(torch.zeros(10), torch.cat((rotmat[:, None], rest), 1))
        transl = solve_translation(points, seen.keypoints2d, seen.confidence, seen.K, sigma=0.2).mean
    return rotmat_to_rotvec(rotmat), transl


# -- reading, and telling how it went -------------------------------------------------------------------------------------


def read(source: str, start: float | None = None, end: float | None = None) -> Keypoints:
    """Keypoints of the person seen longest in a clip, or those in an npz (kinflow's Evidence, or plain arrays).

    Raises:
        MissingAssetError, ShapeError: no such npz, or arrays that do not fit.
        NobodyFoundError, VideoError: a clip with nobody in it, or that cannot be read.
    """
    if not source.endswith(".npz"):
        import kinflow

        people = kinflow.perceive(kinflow.Clip.open(source, start=start, end=end))
        if not people:
            raise NobodyFoundError(f"{source}: nobody was found. Use a clip with a person in view.")
        return of_evidence(people[0])
    if not Path(source).is_file():
        raise MissingAssetError(f"{source}: no such file.")
    with np.load(source, allow_pickle=False) as npz:
        if "schema" in npz.files:
            return of_evidence(Evidence.load(source))
        lacking = [k for k in ("keypoints2d", "confidence", "timestamps", "image_size") if k not in npz.files]
        if lacking:
            raise ShapeError(
                f"{source}: expected keypoints2d, confidence, timestamps and image_size; lacks {', '.join(lacking)}."
            )
        points, confidence, times = (torch.from_numpy(npz[k]) for k in ("keypoints2d", "confidence", "timestamps"))
        frames = check_shape("keypoints2d", points, "T 33 2", "BlazePose's landmarks, in px.")["T"]
        check_shape("confidence", confidence, f"{frames} 33")
        check_shape("timestamps", times, f"{frames}")
        width, height = (int(v) for v in npz["image_size"])
    return Keypoints(points.float(), confidence.float(), times.double(), intrinsics((width, height)))


def of_evidence(person: Evidence) -> Keypoints:
    """The frames in which a person was seen."""
    rows = person.observed & person.has_world
    points, confidence, world = (
        torch.from_numpy(x[rows]) for x in (person.keypoints2d, person.confidence, person.world_landmarks)
    )
    width, height = (int(v) for v in person.image_size)
    return Keypoints(points, confidence, torch.from_numpy(person.timestamps[rows]), intrinsics((width, height)), world)


def reprojection(result: Fit, seen: Keypoints) -> float:
    """Mean distance of the limbs' landmarks to confident keypoints, px."""
    limbs = sorted(BLAZEPOSE_TO_SMPL)
    error = (project(result.landmarks, seen.K) - seen.keypoints2d).norm(dim=-1)[:, limbs]
    return float(error[seen.confidence[:, limbs] > 0.5].mean())


def acceleration(result: Fit, seen: Keypoints, body: Body) -> tuple[float, float]:
    """Mean acceleration of the joints, m/s^2: in camera axes, and in the pelvis' own, where the prior speaks."""
    own = torch.cat((torch.zeros_like(result.global_orient)[:, None], result.body_pose), 1)
    joints = (result.joints, body.joints(result.betas, rotvec_to_rotmat(own), None))
    there, here = (float(timing.acceleration(x.double(), seen.timestamps).norm(dim=-1).mean()) for x in joints)
    return there, here


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", help="a clip, or an npz with keypoints")
    p.add_argument("-o", "--out", help="npz for the fitted SMPL parameters")
    p.add_argument("--start", type=float)
    p.add_argument("--end", type=float)
    p.add_argument("--weight", type=float, default=1.0, help="of the prior (default: 1)")
    p.add_argument("--steps", type=int, default=150, help="of the optimiser (default: 150)")
    args = p.parse_args(argv)
    try:
        seen = read(args.source, args.start, args.end)
        prior, body = MotionPrior.load(), Body.open("light")
        for name, weight in (("without prior", 0.0), ("with prior", args.weight)):
            result = fit(seen, prior, body, weight, args.steps)
            nats = float(prior.log_prob(result.body_pose[None], seen.timestamps).mean())
            there, here = acceleration(result, seen, body)
            print(
                f"{name:>13}: reprojection {reprojection(result, seen):.1f} px, acceleration {there:.1f} m/s^2, "
                f"{here:.1f} in the body's axes, log p {nats:.0f} nats a frame"
            )
    except KinflowError as error:
        print(f"fit_keypoints: {error}", file=sys.stderr)
        return error.exit_code
    if args.out:
        np.savez(
            args.out, global_orient=result.global_orient.numpy(), body_pose=result.body_pose.flatten(1).numpy(),
            transl=result.transl.numpy(), betas=result.betas.numpy(), timestamps=seen.timestamps.numpy(),
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
