"""How well a lifter does on rendered clips of the motions that it learned from, and of motions held out: what is it short of?

    python benchmarks/lifting.py --perceived NEW_CLIPS [NEW_CLIPS ...] --mocap data/mocap.npz [--lifter FILE]

The clips must be new (tools/render_and_perceive.py with numbers that no training has had). Where clips of known motions come out well
and those of others do not, more motions would help, and more pictures of the same would not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from reporting import Sheet
from rich.console import Console

from kinflow import metrics
from kinflow.body import Body
from kinflow.reconstruction.lifting import Lifter, load_lifter
from kinflow.training.streams.perceived import PerceivedClip, PerceivedMotions, held_out_names, load_perceived
from kinflow.training.tasks.lifter import POINTS

_BATCH = 64


@torch.no_grad()
def errors(lifter: Lifter, clips: Sequence[PerceivedClip], body: Body) -> np.ndarray:
    """Mean errors (N, 4) mm of each clip: PA-MPJPE and MPJPE of the front end's world landmarks, and of the lifted ones."""
    motions = PerceivedMotions(clips, body, max(map(len, clips)), augment=False)
    out = []
    for first in range(0, len(motions.clips), _BATCH):
        sample = motions.whole(motions.clips[first : first + _BATCH])
        seen = sample.obs.observed & sample.obs.valid & sample.obs.has_world
        true = sample.landmarks_ray[..., POINTS, :]
        for points in (sample.obs.world, lifter(sample.obs).mean):
            mine = points[..., POINTS, :]
            both = torch.stack((metrics.pa_mpjpe(mine, true), metrics.mpjpe(mine, true, (6, 7))), -1)
            out.append(((both * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)).numpy())
    return 1000 * np.concatenate((np.concatenate(out[::2]), np.concatenate(out[1::2])), 1)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, nargs="+", required=True, help="files, or folders of them")
    p.add_argument(
        "--mocap", type=Path, required=True, help="the prepared capture that says which motions are held out"
    )
    p.add_argument("--lifter", type=Path, help="default: the packaged one")
    args = p.parse_args(argv)
    lifter, body = load_lifter(args.lifter).eval(), Body.open("light")
    sheet = Sheet(
        "Errors in mm, mean over clips with its standard error",
        ("clips", "motions", "number", "raw PA-MPJPE", "raw MPJPE", "lifted PA-MPJPE", "lifted MPJPE"),
    )
    for path in args.perceived:
        clips = load_perceived(path)
        hold = held_out_names(clips, args.mocap)
        for name, some in (
            ("learned from", [c for c in clips if c.source not in hold]),
            ("held out", [c for c in clips if c.source in hold]),
        ):
            if some:
                found = errors(lifter, some, body)
                spread = found.std(0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.full(4, np.nan)
                told = [f"{mean:.1f} ± {error:.1f}" for mean, error in zip(found.mean(0), spread, strict=True)]
                sheet.rows.append([path.name, name, str(len(found)), *told])
    sheet.show(Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
