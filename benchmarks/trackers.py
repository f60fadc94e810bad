"""What the prior makes of motions that others put out: AMASS's capture, and what trackers leave behind.

    python benchmarks/trackers.py --data data/mocap.npz sample.npz hmr4d_results.pt:30:y wham_output.pkl:30 [--noise 3]
        [--flow FILE --dynamics FILE]

FILE[:FPS[:UP]] is anything that ``kinflow-smooth`` reads, its frame rate where it does not say, and which way is up where that is
known, for the feet. Beside it windows of the test split, as captured, by the same measures.

nats       of the body pose, at 30 frames/s: mean and median over frames from the third one on. Motions without fault should have about
           what ours have; what jumps or bends where nobody can has less.
beyond     share of the chart's coordinates further than 4 of training's standard deviations from their mean
far        the three joints whose coordinates are the largest, root mean square in those deviations
moves      standard deviation of the rotations of collars, spine2 and toes, degrees (left and right pooled)
turned     by what ``kinflow-smooth --noise`` changes the body's joints, degrees
accel      mean acceleration of the joints of the open body in these poses, m/s^2, before and after
sliding    of parts of feet that stand, mm a frame: before, smoothed, and with ``--lock-feet``
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinflow.apps.smooth import SmoothingConfig, smooth_pose_file
from kinflow.evaluation.motion_windows import by_clip, thinned, windows
from kinflow.formats.pose_files import PoseFile, read_pose_file
from kinflow.formats.tracker_files import ENDINGS, unpack_tracker_file
from kinflow.prior import MotionPrior
from kinflow.rotations import rotmat_to_rotvec
from kinflow.skeleton import SMPL_JOINTS
from kinflow.training.poses import read_captures

RATE = 30.0
FAR = 4.0
DEQUANTISED = 0.002


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", metavar="FILE[:FPS[:UP]]")
    p.add_argument("--data", type=Path, help="prepared motion capture, for our own test motions beside them")
    p.add_argument("--noise", type=float, default=3.0, help="degrees, as of kinflow-smooth (default: 3)")
    p.add_argument("--flow", type=Path)
    p.add_argument("--dynamics", type=Path)
    args = p.parse_args()
    prior = MotionPrior.load(args.flow, args.dynamics)
    table = Table(
        "motion", "frames, Hz", "nats: mean, median", "beyond, %", "far", "moves", "turned", "accel", "sliding"
    )
    if args.data is not None:
        test = windows(thinned(read_captures(args.data, "test")), "30 Hz", 48, noise=DEQUANTISED)
        nats = frames_log_prob(prior, test.rotmat, test.timestamps)
        mean = "{:.0f} ± {:.0f}".format(*by_clip(nats.mean(1).double(), test.clip))
        table.add_row("ours, test split", f"{nats.numel()}, 30", f"{mean}, {float(nats.median()):.0f}",
                      *far(prior, test.rotmat), moves(test.rotmat), "", "", "")  # fmt: skip
    for name in args.files:
        path, fps, up = (*name.split(":"), None, None)[:3]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(str(path))
            npz = unpack_tracker_file(path, folder) if path.suffix in ENDINGS else path
            table.add_row(*row(path.name, read_pose_file(npz, float(fps) if fps else None), up, prior, args.noise))
    Console(width=160).print(table)
    return 0


def row(name: str, file: PoseFile, up: str | None, prior: MotionPrior, noise: float) -> tuple[str, ...]:
    """The table's row for one file."""
    times = torch.from_numpy(file.timestamps)
    grid = torch.arange(0, float(times[-1]) + 1e-6, 1 / RATE, dtype=torch.float64)
    rows = (times[None] - grid[:, None]).abs().argmin(1).unique()  # captured frames, about as far apart
    rotmat, stamps = torch.from_numpy(file.body_rotmat[:, rows]).float(), times[rows].expand(file.people, -1)
    nats = frames_log_prob(prior, rotmat, stamps)
    smoothed = smooth_pose_file(file, prior, SmoothingConfig(noise_deg=noise))
    slides = [math.nan] * 3
    if up is not None and file.roots and file.translations:
        locked = smooth_pose_file(file, prior, SmoothingConfig(noise_deg=noise, lock_feet=True, up=up))
        still = smooth_pose_file(file, prior, SmoothingConfig(noise_deg=0.01, lock_feet=True, up=up, root=False))
        slides = [(still.sliding or slides)[0], *(locked.sliding or slides)]
    return (
        name, f"{len(times)}, {file.fps:.0f}", f"{float(nats.mean()):.0f}, {float(nats.median()):.0f}",
        *far(prior, rotmat), moves(rotmat), f"{smoothed.change_deg:.1f}",
        "{:.1f} -> {:.1f}".format(*smoothed.acceleration),
        "" if np.isnan(slides).any() else "{:.1f}, {:.1f}, {:.1f}".format(*slides),
    )  # fmt: skip


@torch.no_grad()
def frames_log_prob(prior: MotionPrior, rotmat: Tensor, times: Tensor) -> Tensor:
    """Nats (B, T - 2) of frames from the third on."""
    parts = zip(rotmat.split(16), times.split(16), strict=True)
    return torch.cat([prior.log_prob(r, t)[:, 2:] for r, t in parts])


def far(prior: MotionPrior, rotmat: Tensor) -> tuple[str, str]:
    """Share of coordinates beyond FAR, %, and the joints that are furthest from training's mean."""
    coordinates = prior.chart.encode(rotmat)[0].flatten(0, -2)
    size = coordinates.unflatten(-1, (-1, 3)).square().mean((0, -1)).sqrt()
    worst = size.argsort(descending=True)[:3].tolist()
    beyond = 100 * float((coordinates.abs() > FAR).float().mean())
    return f"{beyond:.1f}", ", ".join(f"{SMPL_JOINTS[1 + j]} {float(size[j]):.1f}" for j in worst)


def moves(rotmat: Tensor) -> str:
    """How far collars, spine2 and toes turn about their means, degrees."""
    out = []
    for names in (("left_collar", "right_collar"), ("spine2",), ("left_foot", "right_foot")):
        turns = rotmat_to_rotvec(rotmat[..., [SMPL_JOINTS.index(n) - 1 for n in names], :, :]).flatten(0, -3)
        out.append(f"{math.degrees(float(turns.var(0).sum(-1).mean().sqrt())):.0f}")
    return ", ".join(out)


if __name__ == "__main__":
    raise SystemExit(main())
