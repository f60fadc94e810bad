"""What the fit at the end of a reconstruction should weigh, searched on rendered clips of the validation subjects.

    python benchmarks/fit.py --perceived data/perceived --data data/mocap.npz [--clips 48] [--refine] [--set align_losses.start=0.03 ...]

Each ``--set`` is one setting (or several, separated by commas) tried against the packaged ones; rows say what each gives. The
clips come from shards of the validation split (tools/render_and_perceive.py --split validation): motions, looks and cameras
that no network was trained on. The real clips have no say in this. Errors are those of benchmarks/accuracy.py, over the same
twelve marked points, mean over clips with its standard error; ``paired`` is the mean difference to the first row with its
own. ``in`` and ``depth`` are the shares of joints in the regions, and the intervals along the line of sight, that the predicted
deviations about the pelvis fill to 50 and 90 %.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from reporting import Sheet, commit
from rich.console import Console
from rich.progress import track

from kinflow.body import Body
from kinflow.config import ReconstructorConfig, from_dict, to_dict
from kinflow.evidence import Evidence
from kinflow.metrics import acceleration_error, mpjpe, pa_mpjpe
from kinflow.motion import Motion
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.batching import collate, cut
from kinflow.reconstruction.deviations import LEVELS, errors_in_view, inside
from kinflow.reconstruction.observation import flatten_view
from kinflow.training.streams.perceived import PerceivedClip, held_out_names, load_perceived

POINTS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
HIPS = (6, 7)


def errors(body: Body, motion: Motion, clip: PerceivedClip) -> dict[str, float]:
    """Of the marked points over the frames seen, in mm and m/s^2, and how honest the deviations are."""
    at = motion.frame_ids
    betas = torch.from_numpy(np.array(motion.betas))[None]
    joints, points = body.joints_and_landmarks(betas, motion.pose_rotmat(), torch.from_numpy(np.array(motion.transl)))
    true_joints, truth = body.joints_and_landmarks(
        torch.from_numpy(clip.betas)[None], clip.pose_rotmat[at], torch.from_numpy(clip.transl[at])
    )
    seen = torch.from_numpy(np.array(motion.observed))
    mine, true = points[:, POINTS], truth[:, POINTS]
    off = errors_in_view(joints, true_joints)
    reach = torch.tensor(motion.reach())
    space, depth = inside(off[seen][:, 1:22], torch.from_numpy(motion.deviations())[seen][:, 1:22], reach[1:22])
    times = torch.from_numpy(np.array(motion.timestamps))
    accel = (
        acceleration_error(mine, true, times)[seen[2:] & seen[1:-1] & seen[:-2]] if len(times) > 2 else torch.zeros(0)
    )
    return {
        "PA-MPJPE": 1000 * float(pa_mpjpe(mine, true)[seen].mean()),
        "MPJPE": 1000 * float(mpjpe(mine, true, HIPS)[seen].mean()),
        "accel": float(accel.mean()) if len(accel) else math.nan,
        **{f"in {100 * level:.0f} %": float(share.mean()) for level, share in zip(LEVELS, space, strict=True)},
        **{f"depth {100 * level:.0f} %": float(share.mean()) for level, share in zip(LEVELS, depth, strict=True)},
    }


def lifted_errors(evidence: Evidence, clip: PerceivedClip, body: Body) -> dict[str, float]:
    """Of the evidence's own world landmarks, turned out of the ray-aligned axes that the keypoints give."""
    truth = body.landmarks(torch.from_numpy(clip.betas)[None], clip.pose_rotmat, torch.from_numpy(clip.transl))
    truth = truth[evidence.frame_ids][:, POINTS]
    obs = collate([evidence], cut([len(evidence)], len(evidence), 0), torch.from_numpy(clip.K), torch.float32)
    to_camera = flatten_view(obs).ray_to_camera[0]
    points = torch.from_numpy(np.array(evidence.world_landmarks))[:, POINTS] @ to_camera.transpose(-1, -2)
    seen = torch.from_numpy(evidence.observed & evidence.has_world)
    return {
        "PA-MPJPE": 1000 * float(pa_mpjpe(points, truth)[seen].mean()),
        "MPJPE": 1000 * float(mpjpe(points, truth, HIPS)[seen].mean()),
    }


def changed(config: ReconstructorConfig, setting: str) -> ReconstructorConfig:
    """A configuration with ``a.b=1,c=2`` set."""
    values = to_dict(config)
    for one in filter(None, setting.split(",")):
        name, value = one.split("=")
        place = values
        *path, last = name.split(".")
        for part in path:
            place = place[part]
        place[last] = json.loads(value)
    return from_dict(ReconstructorConfig, values)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--perceived", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True, help="the prepared capture that says who is whose")
    p.add_argument("--clips", type=int, default=48)
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE[,...]")
    p.add_argument("--weights", type=Path, help="of the reconstructor (default: the packaged ones)")
    args = p.parse_args(argv)
    console, body = Console(), Body.open("light")
    reconstructor = Reconstructor.load(args.weights, body=body)
    clips = load_perceived(args.perceived)
    hold = held_out_names(clips, args.data)
    clips = [c for c in clips if c.source in hold and c.observed.sum() >= len(c) / 2]
    clips = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    base = reconstructor.config
    rows: dict[str, list[dict[str, float]]] = {}
    with torch.no_grad():
        for clip in track(clips, "clips", console=console):
            evidence = clip.evidence()
            rows.setdefault("world landmarks, raw", []).append(lifted_errors(evidence, clip, body))
            (lifted,) = reconstructor.lift([evidence], clip.K)
            rows.setdefault("lifted", []).append(lifted_errors(lifted, clip, body))
            for setting in ("align.iterations=0", "", *args.set):
                reconstructor.config = changed(base, setting)
                (motion,) = reconstructor.reconstruct([evidence], clip.K)
                rows.setdefault(setting or "as packaged", []).append(errors(body, motion, clip))
    first = rows["as packaged"]
    table = []
    for name, found in rows.items():
        cells = []
        for metric in first[0]:
            values = np.array([f.get(metric, math.nan) for f in found])
            cells.append("" if np.isnan(values).all() else f"{np.nanmean(values):.2f}")
        gain = np.array([f["PA-MPJPE"] - g["PA-MPJPE"] for f, g in zip(found, first, strict=True)])
        table.append([name, *cells, f"{gain.mean():+.2f} ± {gain.std(ddof=1) / math.sqrt(len(gain)):.2f}"])
    Sheet(f"{len(clips)} rendered validation clips, {commit()}", ["", *first[0], "paired PA"], table).show(console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
