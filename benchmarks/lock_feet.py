"""What `kinflow-smooth --lock-feet` does to motions with a tracker's noise: sliding, joints, accelerations.

    python benchmarks/lock_feet.py --data data/mocap.npz --split test --clips 12

Runs of up to 10 s at 30 frames/s, spread over the split; feet stand where the captured ones do (slower than 0.3 m/s).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinflow import metrics
from kinflow.apps.smooth import SmoothingConfig, smooth_pose_file
from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.evaluation.motion_windows import thinned
from kinflow.formats.pose_files import PoseFile
from kinflow.prior import MotionPrior
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS
from kinflow.training.poses import perturb, read_captures

FEET = [SMPL_JOINTS.index(f"{s}_{j}") for s in ("left", "right") for j in ("ankle", "foot")]
DEGREES, ROOT_DEGREES, PLACE_M = 4.0, 2.0, 0.015


def joints(body: Body, pose: Tensor, root: Tensor, place: Tensor) -> Tensor:
    """(T, 24, 3) m."""
    return body.joints(torch.zeros(10), full_pose(pose.float(), root.float()), place.float()).double()


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="prepared motion capture")
    p.add_argument("--split", default="test")
    p.add_argument("--clips", type=int, default=12)
    args = p.parse_args()
    prior, body, generator = MotionPrior.load(), Body.open("light"), torch.Generator().manual_seed(0)
    captures = [c for c in thinned(read_captures(args.data, args.split)) if len(c.body_pose) >= 240]
    captures = captures[:: max(1, len(captures) // args.clips)][: args.clips]
    found: dict[str, list[list[float]]] = {"noisy": [], "smoothed": [], "smoothed, feet locked": []}
    for c in captures:
        rows = slice(0, 600, 2)
        pose, root, place = rotvec_to_rotmat(c.body_pose[rows]), c.global_rotmat[rows], c.transl[rows]
        times = torch.arange(len(pose), dtype=torch.float64) * 2 / c.fps
        noisy = (
            perturb(pose, math.radians(DEGREES), generator),
            perturb(root, math.radians(ROOT_DEGREES), generator),
            place + PLACE_M * torch.randn(place.shape, generator=generator),
        )
        given = [x.double().numpy()[None] for x in noisy]
        missing = np.zeros((1, len(pose)), bool)
        file = PoseFile(
            Path(c.name), "smpl", times.numpy(), given[0], {"root": given[1]}, {"transl": given[2]}, missing, (), (), ()
        )
        made = {"noisy": noisy}
        for name, config in (
            ("smoothed", SmoothingConfig(noise_deg=DEGREES)),
            ("smoothed, feet locked", SmoothingConfig(noise_deg=DEGREES, lock_feet=True, up="y")),
        ):
            out = smooth_pose_file(file, prior, config)
            arrays = (out.body_rotmat, out.roots["root"], out.translations["transl"])
            made[name] = tuple(torch.from_numpy(x[0]) for x in arrays)  # type: ignore[assignment]
        true = joints(body, pose, root, place)
        for name, own in made.items():
            mine = joints(body, *own)
            sliding = metrics.foot_sliding(mine[:, FEET], true[:, FEET], times)
            off = 1000 * float((mine - true).norm(dim=-1).mean())
            bent = float(metrics.acceleration_error(mine, true, times).mean())
            found[name].append([1000 * float(sliding.distance[sliding.standing].mean()), off, bent])
    table = Table("motion", "sliding, mm a frame", "joints off, mm", "acceleration error, m/s^2")
    for name, rows_of in found.items():
        values = np.array(rows_of)
        spread = np.nanstd(values, 0, ddof=1) / math.sqrt(len(values))
        table.add_row(name, *(f"{m:.1f} ± {s:.1f}" for m, s in zip(np.nanmean(values, 0), spread, strict=True)))
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
