"""How standing feet are told from a motion alone: the weights of kinflow/prior/contacts.py, and how well they do.

    python tools/calibrate_prior_contacts.py --data data/mocap.npz

Labels are of the capture as it is, near the ground and slow by frame (kinflow.world.feet); what is told from is the capture with
noise as trackers have it, at 60 and 30 frames/s. Four fifths of the validation motions choose weights by which the others are
scored, in turn; the weights printed are those of all. Then the packaged weights are scored on the test split.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from calibrate_contacts import FOLDS, f1, logistic
from rich.console import Console
from rich.progress import track
from torch import Tensor

from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.body.soles import soles_of
from kinflow.evaluation.motion_windows import thinned
from kinflow.prior.contacts import CONSTANT, WEIGHTS, foot_motion
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.poses import Capture, perturb, read_captures
from kinflow.world.feet import contact_probability

NOISE = ((0.0, 0.0), (1.0, 0.005), (2.0, 0.01), (3.0, 0.02))
"""Degrees about each axis of each joint (half of it at the root), and metres of the root's place along each axis."""
LONGEST = 900
"""Frames of a run."""


def labels(capture: Capture, body: Body) -> Tensor:
    """Which parts stand (T, 4) in the capture as it is."""
    pose = full_pose(rotvec_to_rotmat(capture.body_pose), capture.global_rotmat)
    points = soles_of(body, torch.zeros(10)).posed(*body.transforms(torch.zeros(10), pose, capture.transl))
    ground = float(points[..., 1].amin((-1, -2)).quantile(0.1))
    return contact_probability(points, ground, torch.arange(len(pose)) / capture.fps) > 0.5


@torch.no_grad()
def told(split: str, data: Path, console: Console) -> list[tuple[str, int, Tensor, Tensor]]:
    """For each noise, rate and motion: its setting, its fold, what is told from (N, 2) and the truth (N,)."""
    body, generator = Body.open("light"), torch.Generator().manual_seed(0)
    captures = [c for c in thinned(read_captures(data, split)) if len(c.body_pose) >= 30]
    names = sorted({c.name.rsplit("_", 1)[0] for c in captures})
    rows = []
    for c in track(captures, split, console=console):
        c = Capture(c.name, c.body_pose[:LONGEST], c.global_rotmat[:LONGEST], c.transl[:LONGEST], c.fps)
        true = labels(c, body)
        for degrees, metres in NOISE:
            for every in (1, 2):
                pose = perturb(rotvec_to_rotmat(c.body_pose[::every]), math.radians(degrees), generator)
                root = perturb(c.global_rotmat[::every], math.radians(degrees) / 2, generator)
                place = c.transl[::every]
                place = place + metres * torch.randn(place.shape, generator=generator)
                found = foot_motion(pose, root, place, torch.arange(len(pose), dtype=torch.float64) * every / c.fps)
                setting = f"{degrees:g} degrees, {100 * metres:g} cm, {c.fps / every:.0f} Hz"
                fold = names.index(c.name.rsplit("_", 1)[0]) % FOLDS
                rows.append((setting, fold, torch.stack(found, -1).flatten(0, 1).double(), true[::every].flatten()))
    return rows


def scores(rows: list[tuple[str, int, Tensor, Tensor]], weights: list[Tensor]) -> str:
    out = []
    for setting in dict.fromkeys(r[0] for r in rows):
        own = [r for r in rows if r[0] == setting]
        found = torch.cat([x @ weights[fold][:-1] + weights[fold][-1] > 0 for _, fold, x, _ in own])
        out.append(f"{setting}: {f1(found, torch.cat([r[3] for r in own])):.3f}")
    return "; ".join(out)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="prepared motion capture")
    args = p.parse_args()
    torch.set_num_threads(1)
    console = Console()
    rows = told("validation", args.data, console)

    def fitted(chosen: list[tuple[str, int, Tensor, Tensor]]) -> Tensor:
        return logistic(torch.cat([r[2] for r in chosen]), torch.cat([r[3] for r in chosen]).double())

    folds = [fitted([r for r in rows if r[1] != k]) for k in range(FOLDS)]
    console.print(f"F1 of validation motions that had no say: {scores(rows, folds)}")
    *weights, constant = fitted(rows).tolist()
    console.print(f"weights {', '.join(f'{w:.3g}' for w in weights)}; constant {constant:.3g}")
    packaged = [torch.tensor([*WEIGHTS, CONSTANT], dtype=torch.float64)] * FOLDS
    console.print(f"packaged weights, test: {scores(told('test', args.data, console), packaged)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
