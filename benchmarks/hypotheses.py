"""Whether several hypotheses pay: limbs turned over in depth, each fitted, and what would choose between them.

    python benchmarks/hypotheses.py --perceived data/perceived --data data/mocap.npz [--clips 40]

Depth is two-valued limb by limb: a forearm that points to the camera looks like one that points away. For each limb of a
rendered validation clip three alternatives to the lifted landmarks are fitted, the lower part, the upper part, or both turned
over in depth about the joint above, for the whole clip; thirteen fits with the one that stays. ``oracle`` picks by the truth
and is the most that any choice could gain, ``at random`` shows what of it is the luck of thirteen tries. The others pick by the
weighted sum of a full objective's terms: reprojection, the flow's likelihood of the poses, the dynamics' of the motion, and the
landmarks as they were lifted, counted fully, by a tenth, or not at all. ``differs`` is the share of clips in which another one
than the lifted is chosen. Errors as of benchmarks/fit.py, gains paired with their standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accuracy import unfitted
from fit import errors
from reporting import Sheet, commit
from rich.console import Console
from rich.progress import track
from torch import Tensor

from kinflow.body import Body
from kinflow.config import FitLossConfig
from kinflow.evidence import Evidence
from kinflow.motion import Motion
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.refine import Variables
from kinflow.reconstruction.target import gather_target
from kinflow.training.streams.perceived import held_out_names, load_perceived

LIMBS = ((11, 13, 15), (12, 14, 16), (23, 25, 27), (24, 26, 28))
ENDS = {15: (17, 19, 21), 16: (18, 20, 22), 27: (29, 31), 28: (30, 32)}
"""What hangs on wrists and ankles."""
FULL = FitLossConfig(parts=0.0, latent=1.0, dynamics=1.0, smoothness=0.0, start=0.0, acceleration=0.0)
WEIGHTS = {
    "evidence as lifted": {"keypoints": 200.0, "landmarks": 4.0},
    "+ flow and dynamics": {"keypoints": 200.0, "landmarks": 4.0, "latent": 0.2, "dynamics": 0.2},
    "landmarks by a tenth": {"keypoints": 200.0, "landmarks": 0.4, "latent": 0.2, "dynamics": 0.2},
    "no landmarks": {"keypoints": 200.0, "latent": 0.2, "dynamics": 0.2},
    "flow alone": {"latent": 1.0},
    "dynamics alone": {"dynamics": 1.0},
}


def turned_over(evidence: Evidence, limb: tuple[int, int, int], upper: bool, lower: bool) -> Evidence:
    """The evidence with parts of a limb mirrored in depth about the joint above."""
    top, middle, end = limb
    world = np.array(evidence.world_landmarks)
    first, second = world[:, middle, 2] - world[:, top, 2], world[:, end, 2] - world[:, middle, 2]
    first, second = -first if upper else first, -second if lower else second
    moved = world[:, top, 2] + first + second - world[:, end, 2]
    world[:, middle, 2] = world[:, top, 2] + first
    for point in (end, *ENDS[end]):
        world[:, point, 2] += moved
    return dataclasses.replace(evidence, world_landmarks=world)


def fit_all(
    reconstructor: Reconstructor, evidence: Evidence, K: Tensor | np.ndarray
) -> tuple[list[Motion], list[dict[str, float]]]:
    """Thirteen fits of a person, the one as lifted first, and of each the terms that :data:`WEIGHTS` weigh."""
    config = reconstructor.config
    fitter, judge = reconstructor.refiner(config.align, config.align_losses), reconstructor.refiner(losses=FULL)
    start = unfitted(reconstructor, evidence, K)
    (lifted,) = reconstructor.lift([evidence], K)
    target = gather_target(start, lifted, 0, reconstructor.body.device)

    def judged(motion: Motion) -> dict[str, float]:
        begin = judge.start(motion)
        at = Variables(begin.chart, torch.zeros_like(begin.transl), begin.transl, begin.betas)
        with torch.no_grad():
            return {name: float(value) for name, value in judge.objective(at, begin, target)[1].items()}

    kinds = [(True, False), (False, True), (True, True)]
    ways = [lifted, *(turned_over(lifted, limb, *kind) for limb in LIMBS for kind in kinds)]
    motions = [fitter.fit(start, way) for way in ways]
    return motions, [judged(motion) for motion in motions]


def choose(scores: Sequence[dict[str, float]], weights: dict[str, float]) -> int:
    """The fit of which the weighted sum of terms is lowest."""
    return int(np.argmin([sum(w * s[term] for term, w in weights.items()) for s in scores]))


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True, help="the prepared capture that says who is whose")
    p.add_argument("--clips", type=int, default=40)
    args = p.parse_args(argv)
    console, body = Console(), Body.open("light")
    reconstructor = Reconstructor.load(body=body)
    clips = load_perceived(args.perceived)
    hold = held_out_names(clips, args.data)
    clips = [c for c in clips if c.source in hold and c.observed.all()]
    clips = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    pa, scores = [], []
    for clip in track(clips, "clips", console=console):
        motions, terms = fit_all(reconstructor, clip.evidence(), clip.K)
        pa.append([errors(body, m, clip)["PA-MPJPE"] for m in motions])
        scores.append(terms)
    error = np.array(pa)
    rng = np.random.default_rng(0)
    choices = {"as lifted": np.zeros(len(error), int), "oracle": error.argmin(1)}
    for name, weights in WEIGHTS.items():
        choices[name] = np.array([choose(one, weights) for one in scores])
    choices["at random"] = rng.integers(0, error.shape[1], len(error))
    table = []
    for name, choice in choices.items():
        mine = error[np.arange(len(error)), choice]
        gain = mine - error[:, 0]
        spread = gain.std(ddof=1) / math.sqrt(len(gain))
        table.append([name, f"{mine.mean():.2f}", f"{gain.mean():+.2f} ± {spread:.2f}", f"{(choice > 0).mean():.2f}"])
    Sheet(f"{len(clips)} rendered validation clips, {commit()}", ["", "PA-MPJPE", "paired", "differs"], table).show(
        console
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
