"""What the prior makes of trackers that share rotations out differently, beside limbs that point elsewhere.

    python benchmarks/shares.py --data data/mocap.npz --split test [--flow FILE --dynamics FILE]

Windows of the split at 30 frames/s; every window gets one way of sharing, drawn within its range (kinflow/training/shares.py), in all
its frames. Beside it, the shoulders (for the spine: the hips) are turned by the same mean angle per turned joint, one direction a
window: that is another motion, and should cost more. Nats a frame, ± standard error over clips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinflow.evaluation.motion_windows import by_clip, thinned, windows
from kinflow.prior import MotionPrior
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS
from kinflow.training.poses import read_captures
from kinflow.training.shares import KINDS, Shares, reshare

DEQUANTISED = 0.002
MOVING = 1e-3
"""rad: joints that turn by less are not counted."""


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="prepared motion capture")
    p.add_argument("--split", default="test")
    p.add_argument("--windows", type=int, default=48)
    p.add_argument("--flow", type=Path)
    p.add_argument("--dynamics", type=Path)
    args = p.parse_args()
    prior = MotionPrior.load(args.flow, args.dynamics)
    test = windows(thinned(read_captures(args.data, args.split)), "30 Hz", args.windows, noise=DEQUANTISED)

    @torch.no_grad()
    def nats(rotmat: Tensor) -> Tensor:
        parts = zip(rotmat.split(16), test.timestamps.split(16), strict=True)
        return torch.cat([prior.log_prob(r, t).mean(1) for r, t in parts]).double()

    generator = torch.Generator().manual_seed(0)
    base, drawn = nats(test.rotmat), Shares.draw(len(test), generator)
    table = Table("share", "turned by, degrees", "costs, nats a frame", "a limb by as much")
    for kind in KINDS:
        made = reshare(test.rotmat, drawn.alone((kind,)))
        turn = geodesic_distance(test.rotmat, made)
        moved = turn.amax((0, 1)) > MOVING
        angle = turn[..., moved].mean((1, 2))  # (B,)
        limb = "hip" if kind == "spine" else "shoulder"
        other = test.rotmat.clone()
        axis = torch.nn.functional.normalize(torch.randn(len(test), 2, 3, generator=generator), dim=-1)
        for side, towards in zip(("left", "right"), axis.unbind(1), strict=True):
            j = SMPL_JOINTS.index(f"{side}_{limb}") - 1
            other[:, :, j] = rotvec_to_rotmat(angle[:, None] * towards)[:, None] @ other[:, :, j]
        costs = ("{:.1f} ± {:.1f}".format(*by_clip(base - nats(x), test.clip)) for x in (made, other))
        table.add_row(kind, f"{float(torch.rad2deg(angle.mean())):.1f}", *costs)
    table.add_row(
        "all at once", "", "{:.1f} ± {:.1f}".format(*by_clip(base - nats(reshare(test.rotmat, drawn)), test.clip))
    )
    console = Console()
    console.print("as captured: {:.1f} ± {:.1f} nats a frame".format(*by_clip(base, test.clip)))
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
