"""How well the reprojected body sits on the detected keypoints of real clips.

    python benchmarks/reprojection.py CLIP [CLIP ...] [--refine] [--max-people N] [--quality fast]

PCK at 0.1 and at 0.2 of the torso (mid-shoulder to mid-hip, px) over the twelve limb joints whose keypoint has a confidence of at least
0.5, over all frames in which the person was observed; pooled by counts. The keypoints are the detector's own, so this
tells how well the 3D explains what was seen, not how right the detector was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

import kinflow
from kinflow.apps.results import fit_to_keypoints
from kinflow.cli.video import QUALITY
from kinflow.config import PipelineConfig, load_config


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", nargs="+", type=Path)
    p.add_argument("--refine", action="store_true")
    p.add_argument("--max-people", type=int)
    p.add_argument("--quality", choices=tuple(QUALITY), default="best", help="landmark network (default: best)")
    args = p.parse_args()
    table = Table(title="PCK of the reprojected limbs" + (" after --refine" if args.refine else ""))
    for column in (
        "clip",
        "person",
        "frames seen",
        "points",
        "PCK 0.1",
        "PCK 0.2",
        "median px",
        "height m",
        "distance m",
    ):
        table.add_column(column, justify="left" if column == "clip" else "right")
    correct, points = {0.1: 0.0, 0.2: 0.0}, 0
    weights = config = None
    landmarks, parts = QUALITY[args.quality]
    settings = load_config(PipelineConfig, overrides=[f"perception.landmarks={landmarks}", f"perception.parts={parts}"])
    for clip in args.clips:
        result = kinflow.run(clip, refine=args.refine, max_people=args.max_people, config=settings)
        weights, config = result.info["weights"], result.info["config_hash"]
        for person, motion in zip(result.info["people"], result.motions, strict=True):
            shares = {t: fit_to_keypoints(motion, result.body, threshold=t)["pck"] or 0.0 for t in correct}
            row = [clip.name, person["person_id"], person["observed"], person["pck_points"]]
            row += ["-" if person["pck"] is None else f"{share:.3f}" for share in shares.values()]
            row += [person["reprojection_px"], person["height_m"], person["distance_m"]]
            table.add_row(*map(str, row))
            correct = {t: total + shares[t] * person["pck_points"] for t, total in correct.items()}
            points += person["pck_points"]
    table.add_section()
    table.add_row("all, pooled", "", "", str(points), *(f"{c / max(points, 1):.3f}" for c in correct.values()))
    console = Console()
    console.print(table)
    console.print(f"weights {weights}, config {config}", style="dim")


if __name__ == "__main__":
    main()
