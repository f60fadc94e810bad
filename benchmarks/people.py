"""Are the right people found, and do they stay the same? Rendered crowds with known truth, and counts on clips.

    python benchmarks/people.py --data data/mocap.npz [--scenes 20] [--split test] [--set perception.memory_s=2] [CLIP ...]

Each scene (benchmarks/crowds.py) is filmed, written as H.264, and seen by ``kinflow.perception.perceive``. In each frame the people
that were reported are matched with those who are there: by the mean distance of the landmarks that are in the frame and
reported as seen, at most NEAR of the true body's size; who was matched before stays matched while that holds.

precision   of those reported in a frame, the share who lie on somebody
recall      of those in a frame with at least SEEN of the body in sight, the share who are found. Whoever is hidden more is neither
            missed nor, where reported, wrong
exchanged   of those matched whose trunk is seen broadside, the share whose left and right are exchanged
switches    times that one reported person goes on as another one, a scene
fragments   reported people beyond the first for one who is there, a scene
phantoms    reported people of whom less than half lies on anybody, a scene

Numbers are means over scenes with their standard error. ``--keep FOLDER`` keeps the renders, which depend on split and seed alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from crowds import FRAMES, IMAGE_SIZE, Crowd, draw_crowd, load_crowd, save_crowd
from reporting import Sheet, commit
from rich.console import Console
from scipy.optimize import linear_sum_assignment

from kinflow.body import Body
from kinflow.clip import Clip
from kinflow.config import PipelineConfig, load_config
from kinflow.evidence import Evidence
from kinflow.mocap.clips import load_clips
from kinflow.perception import perceive
from kinflow.skeleton import BLAZEPOSE

NEAR = 0.12  #: of the diagonal of the true landmarks' box
SEEN = 0.5  #: least visible share of who must be found
HIDDEN = 0.03  #: who is seen less is not there
CONFIDENT = 0.3  #: landmarks reported as seen
BROADSIDE = 0.08  #: of the body's size: shoulders and hips so far apart in the image tell left from right
TRUNK = tuple(BLAZEPOSE.index(name) for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip"))
FIRST_SEED = {"train": 0, "validation": 700, "test": 100}


@dataclasses.dataclass(frozen=True)
class Score:
    """What became of one scene; rates are shares, the rest counts. NaN where nothing was there to be counted."""

    precision: float
    recall: float
    exchanged: float
    switches: float
    fragments: float
    phantoms: float


def owners_of(people: Sequence[Evidence], crowd: Crowd) -> np.ndarray:
    """(E, T) which of the crowd each reported person is in each frame; -1 nobody, -2 not reported."""
    count, frames = crowd.visible.shape
    reported = np.full((len(people), frames, 33, 2), np.nan)
    certain = np.zeros((len(people), frames, 33), bool)
    out = np.full((len(people), frames), -2)
    for e, person in enumerate(people):
        rows = person.frame_ids[person.observed]
        reported[e, rows], certain[e, rows] = (
            person.keypoints2d[person.observed],
            person.confidence[person.observed] > CONFIDENT,
        )
        out[e, rows] = -1
    before: dict[int, int] = {}
    for t in range(frames):
        there = [p for p in range(count) if crowd.visible[p, t] > HIDDEN]
        seen = np.flatnonzero(out[:, t] == -1).tolist()
        cost = np.full((len(seen), len(there)), np.inf)
        for j, p in enumerate(there):
            size = np.linalg.norm(np.ptp(crowd.points[p, t], axis=0))
            for i, e in enumerate(seen):
                # Of somebody half outside only what is inside can be compared.
                inside = ((crowd.points[p, t] >= 0) & (crowd.points[p, t] < IMAGE_SIZE)).all(-1) & certain[e, t]
                if inside.sum() >= 4:
                    cost[i, j] = np.linalg.norm(reported[e, t] - crowd.points[p, t], axis=-1)[inside].mean() / size
        for i, e in enumerate(seen):  # who was matched before stays matched
            last = before.get(e, -1)
            if last in there and cost[i, there.index(last)] < NEAR:
                cost[i, there.index(last)] -= 1.0
        possible = np.where(cost < NEAR, cost, 1e3)
        for i, j in zip(*linear_sum_assignment(possible), strict=True):
            if possible[i, j] < NEAR:
                out[seen[i], t] = before[seen[i]] = there[j]
    return out


def score(people: Sequence[Evidence], crowd: Crowd) -> Score:
    """See the top of this file."""
    owners = owners_of(people, crowd)
    matched, seen = owners >= 0, owners > -2
    wanted = crowd.visible >= SEEN
    found = np.zeros_like(wanted)
    rows, times = np.nonzero(matched)
    found[owners[rows, times], times] = True
    switches, tracks = 0, Counter[int]()
    phantoms = 0
    for own, reported in zip(owners, seen, strict=True):
        chain = own[own >= 0]
        switches += int((np.diff(chain) != 0).sum())
        if 2 * len(chain) < reported.sum():
            phantoms += 1
        else:
            tracks[int(np.bincount(chain).argmax())] += 1
    wrong, broadside = 0, 0
    for e, t in zip(rows.tolist(), times.tolist(), strict=True):
        truth = crowd.points[owners[e, t], t]
        size = np.linalg.norm(np.ptp(truth, axis=0))
        at = int(np.searchsorted(people[e].frame_ids, t))
        across = np.diff(truth[list(TRUNK)].reshape(2, 2, 2), axis=1)[:, 0].mean(0)
        if np.linalg.norm(across) > BROADSIDE * size and crowd.visible[owners[e, t], t] >= SEEN:
            measured = np.diff(people[e].keypoints2d[at][list(TRUNK)].reshape(2, 2, 2), axis=1)[:, 0].mean(0)
            broadside, wrong = broadside + 1, wrong + int(across @ measured < 0)
    return Score(
        precision=float(matched.sum() / seen.sum()) if seen.any() else np.nan,
        recall=float((found & wanted).sum() / wanted.sum()) if wanted.any() else np.nan,
        exchanged=wrong / broadside if broadside else np.nan,
        switches=float(switches),
        fragments=float(sum(tracks.values()) - len(tracks)),
        phantoms=float(phantoms),
    )


def summary(scores: Sequence[Score]) -> list[str]:
    """Mean and standard error of each column."""
    table = np.array([dataclasses.astuple(s) for s in scores], np.float64)
    out = []
    for column in table.T:
        known = column[np.isfinite(column)]
        error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else np.nan
        out.append(f"{known.mean():.3f} ± {error:.3f}")
    return out


@torch.no_grad()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="prepared motion capture; without it no renders")
    p.add_argument("--scenes", type=int, default=20)
    p.add_argument("--split", default="test", choices=list(FIRST_SEED))
    p.add_argument(
        "--set", action="append", default=[], metavar="perception.NAME=VALUE", help="as kinflow-video takes it"
    )
    p.add_argument("--keep", type=Path, help="folder for the renders")
    p.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    args = p.parse_args()
    torch.set_num_threads(1)
    config = load_config(PipelineConfig, None, args.set).perception
    console = Console(width=140)
    names = [f.name for f in dataclasses.fields(Score)]
    if args.data is not None:
        sheet = Sheet(f"{args.scenes} crowds of the {args.split} split, commit {commit()}", ["scene", "people", *names])
        clips, body, scores = load_clips(args.data, args.split), Body.open("light"), []
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.keep or Path(scratch)
            for seed in range(FIRST_SEED[args.split], FIRST_SEED[args.split] + args.scenes):
                name = f"{args.split}_{seed}"
                path, crowd = load_crowd(folder, name) or (None, None)
                if path is None or crowd is None:
                    images, crowd = draw_crowd(clips, body, seed)
                    path = save_crowd(folder, name, images, crowd)
                found = score(perceive(Clip.open(path), config=config, device="cpu"), crowd)
                scores.append(found)
                values = [f"{v:.3f}" if i < 3 else f"{v:.0f}" for i, v in enumerate(dataclasses.astuple(found))]
                sheet.rows.append([f"{seed}: {', '.join(crowd.things)}", str(len(crowd.points)), *values])
                console.print(name, len(crowd.points), *values)
        sheet.rows.append(["mean ± standard error", "", *summary(scores)])
        sheet.notes = [f"{FRAMES} frames each; {' '.join(args.set) or 'perception as it is by default'}"]
        sheet.show(console)
    if args.clips:
        sheet = Sheet("people by clip", ["clip", "frames", "people", "observed frames of each (first-last)"])
        for path in args.clips:
            clip = Clip.open(path)
            people = perceive(clip, config=config, device="cpu")
            spans = [f"{q.observed.sum()} ({q.frame_ids[0]}-{q.frame_ids[-1]})" for q in people]
            sheet.rows.append([path.name, str(len(clip.timestamps)), str(len(people)), ", ".join(spans)])
        sheet.show(console)


if __name__ == "__main__":
    main()
