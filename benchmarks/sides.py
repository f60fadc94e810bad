"""What telling left and right over time is worth, on rendered clips of the validation subjects as the front end saw them.

    python benchmarks/sides.py --perceived data/perceived --data data/mocap.npz [--clips 200] [--weights FILE]

The clips come from shards of the validation split (tools/render_and_perceive.py --split validation). Of each half of a person in
each frame: how often left and right are exchanged, how many of these are put right, and how many others are spoilt. Then the
reconstruction, with the front end's landmarks as they are, settled, and with all exchanged that is, as the truth tells: errors as in
benchmarks/fit.py, mean over clips with its standard error, and paired differences to the first; also over those clips alone in which
settling changed anything.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fit import errors
from reporting import Sheet, commit
from rich.console import Console
from rich.progress import track

from kinflow.body import Body
from kinflow.perception.sides import SURE, exchanged, load_sides, settle_sides
from kinflow.reconstruction import Reconstructor
from kinflow.training.streams.perceived import PerceivedMotions, held_out_names, load_perceived
from kinflow.training.tasks.sides import window_of

METRICS = ("PA-MPJPE", "MPJPE", "accel")


def mean(values: np.ndarray, digits: int = 2) -> str:
    """With its standard error."""
    spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True, help="the prepared capture that says who is whose")
    p.add_argument("--clips", type=int, default=200)
    p.add_argument("--weights", type=Path, help="of the network of sides (default: the packaged ones)")
    args = p.parse_args(argv)
    console, body, network = Console(), Body.open("light"), load_sides(args.weights)
    reconstructor = Reconstructor.load(body=body)
    clips = load_perceived(args.perceived)
    hold = held_out_names(clips, args.data)
    clips = [c for c in clips if c.source in hold and c.observed.sum() >= len(c) / 2]
    clips = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    motions = PerceivedMotions(clips, body, max(map(len, clips)), augment=False)
    found: dict[str, list[dict[str, float]]] = {"as they are": [], "settled": [], "as the truth tells": []}
    told, known = [], []
    with torch.no_grad():
        for clip in track(clips, "clips", console=console):
            window, evidence = window_of(motions.whole([clip]), body), clip.evidence()
            known.append(window.exchanged[0])
            told.append(network(window.seen)[0] > SURE)
            wrong = known[-1][torch.from_numpy(clip.observed)] == 1
            settled = (
                evidence,
                settle_sides(evidence, network),
                exchanged(evidence, wrong) if wrong.any() else evidence,
            )
            for i, (rows, seen) in enumerate(zip(found.values(), settled, strict=True)):
                if i and seen is evidence:
                    rows.append(found["as they are"][-1])
                    continue
                (motion,) = reconstructor.reconstruct([seen], clip.K)
                rows.append(errors(body, motion, clip))
    truth, put = torch.cat(known), torch.cat(told)
    wrong, right = truth == 1, truth == 0
    console.print(
        f"exchanged {int(wrong.sum())} of {truth.numel()} halves ({100 * float(wrong.float().mean()):.1f} %); "
        f"put right {100 * float(put[wrong].float().mean()):.0f} %, spoilt {100 * float(put[right].float().mean()):.2f} % of the others"
    )
    values = {name: np.array([[f[m] for m in METRICS] for f in rows]) for name, rows in found.items()}
    table = []
    for name, value in values.items():
        paired = value - values["as they are"]
        table.append([name, *(mean(value[:, i]) for i in range(3))])
        if name != "as they are":
            table.append(["  paired", *(mean(paired[:, i]) for i in range(3))])
        if name == "settled" and (some := (paired != 0).any(-1)).sum() > 1:
            table.append([f"  paired, the {some.sum()} changed", *(mean(paired[some, i]) for i in range(3))])
    Sheet(f"{len(clips)} rendered validation clips, {commit()}", ["landmarks", *METRICS], table).show(console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
