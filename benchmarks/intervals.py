"""What it costs in accuracy that the landmark network passes over frames: rendered clips of the validation subjects.

    python benchmarks/intervals.py --data data/mocap.npz [--wardrobe data/wardrobe.npz] [--fps 30] [--clips 20] [--intervals 0 0.07 0.1]

Each clip is encoded to H.264, read back, perceived with every ``perception.landmark_interval_s`` and reconstructed. Errors are
those of benchmarks/accuracy.py over all frames, whether looked at or not; paired is the mean difference to the first
interval on the same clip, with its standard error over clips. ``looks`` is the share of frames that the network looked at.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accuracy import POINTS, errors, longest, rendered
from reporting import Sheet, commit
from rich.console import Console

from kinflow.config import PerceptionConfig
from kinflow.datasets.wardrobe import Wardrobe
from kinflow.perception import perceive
from kinflow.reconstruction import Reconstructor

METRICS = ("PA-MPJPE", "MPJPE", "accel")


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--wardrobe", type=Path)
    p.add_argument("--fps", type=float, default=30.0)
    p.add_argument("--clips", type=int, default=20)
    p.add_argument("--frames", type=int, default=60)
    p.add_argument("--intervals", type=float, nargs="+", default=[0.0, 0.07, 0.1], help="s")
    p.add_argument("--landmarks", choices=("heavy", "full"), default="heavy")
    args = p.parse_args(argv)
    wardrobe = None if args.wardrobe is None else Wardrobe.open(args.wardrobe)
    console, reconstructor = Console(), Reconstructor.load()
    found: dict[float, list[list[float]]] = {interval: [] for interval in args.intervals}
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        for case in rendered(args.data, args.clips, Path(folder), wardrobe, "validation", args.frames, args.fps):
            row = {}
            for interval in args.intervals:
                config = PerceptionConfig(landmarks=args.landmarks, masks=False, landmark_interval_s=interval)
                evidence = longest(perceive(case.clip, config=config, device="cpu"))
                if evidence is None:
                    break
                (motion,) = reconstructor.reconstruct([evidence], case.clip.K)
                shape = torch.tensor(motion.betas)[None]
                points = reconstructor.body.landmarks(shape, motion.pose_rotmat(), torch.tensor(motion.transl))
                error = errors(points[:, POINTS], motion, motion.observed, case)
                looks = 1.0 if evidence.looked is None else float(evidence.looked.sum() / evidence.observed.sum())
                row[interval] = [*(error[name] for name in METRICS), looks]
            if len(row) == len(found):
                for interval, values in row.items():
                    found[interval].append(values)
                console.print(case.name, *("/".join(f"{v:.2f}" for v in values) for values in row.values()))
    first, table = np.array(found[args.intervals[0]]), []
    for interval, rows in found.items():
        off = np.array(rows) - first
        spread = off.std(0, ddof=1) / math.sqrt(len(off))
        paired = [f"{m:+.2f} ± {s:.2f}" for m, s in zip(off.mean(0)[:3], spread, strict=False)]
        table.append([f"{interval:g} s", *(f"{v:.2f}" for v in np.mean(rows, 0)), *paired])
    columns = ["interval", *METRICS, "looks", *(f"paired {name}" for name in METRICS)]
    title = f"{len(first)} rendered validation clips, {args.fps:g} frames/s, {args.landmarks}, {commit()}"
    Sheet(title, columns, table).show(console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
