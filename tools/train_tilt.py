"""Train the density of up in the pelvis' frame on captured motion, and write it with its card.

    python tools/train_tilt.py --data data/mocap60.npz --out kinflow/assets          # half a minute on one idle core

Poses come as trackers find them: mirrored at times, and every joint turned by noise of 0 to ``--noise`` degrees, whose size
differs from pose to pose. The step that is best on the validation split is kept. Everything is seeded.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from kinflow.assets.weights import save_weights
from kinflow.body import Body
from kinflow.config import TiltConfig
from kinflow.errors import KinflowError
from kinflow.flow.tilt import WEIGHTS, TiltDensity
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.poses import Capture, mirror_body, perturb, read_captures

RATE = 12.0
"""Poses a second that are drawn from: neighbours closer in time are the same pose."""


def poses(captures: Sequence[Capture]) -> tuple[Tensor, Tensor]:
    """Body rotation vectors (N, 21, 3), and up (N, 3) in the pelvis' frame: the second row of its rotation to the world."""
    every = [max(1, round(c.fps / RATE)) for c in captures]
    body = torch.cat([c.body_pose[::n] for c, n in zip(captures, every, strict=True)])
    return body, torch.cat([c.global_rotmat[::n, 1] for c, n in zip(captures, every, strict=True)])


def altered(body: Tensor, up: Tensor, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of the poses mirrored, all of them disturbed: rotations (N, 21, 3, 3) and up (N, 3)."""
    rotmat = rotvec_to_rotmat(body)
    flip = torch.rand(len(body), generator=generator) < 0.5
    rotmat = torch.where(flip[:, None, None, None], mirror_body(rotmat), rotmat)
    up = torch.where(flip[:, None], up * up.new_tensor([-1.0, 1.0, 1.0]), up)
    std = math.radians(noise) * torch.rand(len(body), 1, 1, generator=generator)
    return perturb(rotmat, std, generator), up


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="prepared motion capture (tools/prepare_mocap.py)")
    p.add_argument("--out", type=Path, required=True, help="folder for tilt.safetensors and its card")
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--batch", type=int, default=512)
    p.add_argument("--noise", type=float, default=14.0, help="largest standard deviation of a joint's noise, degrees")
    args = p.parse_args(argv)
    began = time.perf_counter()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    try:
        body, up = poses(read_captures(args.data, "train"))
        held = altered(*poses(read_captures(args.data, "validation")), args.noise, torch.Generator().manual_seed(1))
    except KinflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    config = TiltConfig()
    model = TiltDensity(config)
    model.rest_joints.copy_(Body.open("light").rest_joints(torch.zeros(10)))
    seen = model.features(rotvec_to_rotmat(body))
    model.centre.copy_(seen.mean(0))
    model.scale.copy_(seen.std(0) + 0.01)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=args.steps)
    best, best_step, state = math.inf, 0, copy.deepcopy(model.state_dict())
    for step in range(1, args.steps + 1):
        rows = torch.randint(len(body), (args.batch,), generator=generator)
        rotmat, above = altered(body[rows], up[rows], args.noise, generator)
        loss = -model(rotmat).log_prob(above).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            with torch.no_grad():
                score = float(-model(held[0]).log_prob(held[1]).mean())
            print(f"step {step}: training {loss.item():.3f}, validation {score:.3f} nats", flush=True)
            if score < best:
                best, best_step, state = score, step, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    with torch.no_grad():
        tilt = model(held[0])
        strongest = tilt.log_weight[:, :-1].argmax(-1)
        mean = tilt.mean[torch.arange(len(strongest)), strongest]
        error = torch.rad2deg(torch.arccos((mean * held[1]).sum(-1).clamp(-1, 1)))
    spread = ", ".join(f"{100 * q:.0f} % {float(error.quantile(q)):.1f}" for q in (0.5, 0.9))
    path = save_weights(
        args.out / WEIGHTS, model, config,
        {
            "what": "p(up in the pelvis' frame | body pose), a mixture on the sphere",
            "data": f"{args.data.name}: {len(body)} poses of the training split at {RATE:g} a second (see NOTICE)",
            "noise": f"joints turned by 0 to {args.noise:g} degrees (standard deviation)",
            "validation": f"{best:.3f} nats; strongest direction off by, degrees: {spread}",
            "training": f"{args.steps} steps of {args.batch}, best at {best_step}, {(time.perf_counter() - began) / 60:.1f} min, cpu",
            "licence": "Apache-2.0",
        },
    )  # fmt: skip
    print(f"{path}: validation {best:.3f} nats, off by {spread} degrees; {dataclasses.asdict(config)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
