"""How right the 3D is: rendered clips of people never trained on, and a real clip seen by four cameras.

    python benchmarks/accuracy.py --data data/mocap.npz [--rendered 40] [--real CLIP --reference FILE.npz] [--refine]

Two tables. Rendered clips show the open body in motions of the test subjects, with looks, backgrounds and cameras drawn from
a seed of their own; each is encoded to H.264 and read back, so the whole command is measured. The real clip's truth are
BlazePose heavy's keypoints triangulated from four views (the file's ``blazepose33``), of which only one view is given to
kinflow, without its intrinsics. Both compare the same twelve marked points (shoulders, elbows, wrists, hips, knees, ankles):
never a joint's centre with a marked point.

Rows: the landmark networks' own world landmarks (what MediaPipe Pose gives; the packaged networks agree with it within
0.01 px), what the lifter makes of them frame by frame, and kinflow on either. PA-MPJPE after a similarity alignment of
each frame, MPJPE after the middles of the hips were moved onto each other, both in mm over the frames in which the person was seen; depth and across are the rms of what is
left after the alignment along the line of sight and at right angles to it; accel is the acceleration error about the hips
(``kinflow-bench clip`` scores alike); root is the angle by which the pelvis is turned wrongly. Mean over clips with its standard error. A third table says of rendered clips how many
of SMPL's joints lie in the regions that their predicted deviations fill to 50 and 90 %, in space and along the line of sight.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from kinflow.body import Body
from kinflow.clip import Clip
from kinflow.config import PerceptionConfig
from kinflow.datasets.synthetic import random_look, render_frames
from kinflow.evaluation.clips import Reference, score_points
from kinflow.evidence import Evidence
from kinflow.metrics import similarity_align
from kinflow.mocap.clips import load_clips
from kinflow.motion import Motion
from kinflow.perception import perceive
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.deviations import errors_in_view, inside
from kinflow.rotations import geodesic_distance
from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS
from kinflow.training.streams.render_and_perceive import draw_scene
from kinflow.video import VideoWriter

POINTS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
NAMES = tuple(BLAZEPOSE[i] for i in POINTS)
SEED = 7_000_000
"""First seed of the rendered clips; training's shards use small ones and those from 1,000,000 on."""
FRAMES = 32
METRICS = ("PA-MPJPE", "MPJPE", "depth", "across", "accel", "root", "seen")


@dataclasses.dataclass(frozen=True)
class Case:
    """A clip with its truth: ``points`` (T, 12, 3) m in camera axes at ``frame_ids`` (T,); of renders SMPL's ``joints``
    (T, 24, 3) and the pelvis' rotation ``root`` (T, 3, 3) too."""

    name: str
    clip: Clip
    points: Tensor
    frame_ids: np.ndarray
    joints: Tensor | None = None
    root: Tensor | None = None


def rendered(data: Path, count: int, body: Body, folder: Path) -> Iterator[Case]:
    """Clips of the test split, each from its own seed."""
    clips = load_clips(data, "test")
    made, seed = 0, SEED
    while made < count:
        rng = np.random.default_rng(seed)
        seed += 1
        scene = draw_scene(clips, body, rng, FRAMES, varied=False)
        if scene is None:
            continue
        betas, identity = scene.betas[None], torch.eye(3).expand(1, 24, 3, 3)
        rest = body.vertices(betas, identity, None)[0].numpy()
        marks = body.landmarks(betas, identity, None)[0].numpy()
        look = random_look(scene.image_size, body.part_labels.numpy(), rest, rng, marks)
        vertices = body.vertices(betas, scene.pose_rotmat, scene.transl)
        images = render_frames(vertices, body.faces, scene.K, scene.image_size, look)
        path = folder / f"{made:03d}.mp4"
        with VideoWriter(path, scene.image_size, 1 / float(np.diff(scene.timestamps).mean())) as video:
            for image, time in zip(images, scene.timestamps, strict=True):
                video.write(image, float(time))
        points = body.landmarks(betas, scene.pose_rotmat, scene.transl)[:, POINTS]
        joints = body.joints(betas, scene.pose_rotmat, scene.transl)
        yield Case(
            scene.source,
            Clip.open(path, camera=scene.K),
            points,
            np.arange(len(images)),
            joints,
            scene.pose_rotmat[:, 0],
        )
        made += 1


def real(clip: Path, reference: Path) -> Case:
    """The clip with triangulated landmarks."""
    with np.load(reference, allow_pickle=False) as npz:
        points = torch.from_numpy(npz["blazepose33"][:, POINTS]).float()
        return Case(clip.name, Clip.open(clip), points, npz["frame_ids"])


def errors(points: Tensor, made: Evidence | Motion, seen: np.ndarray, case: Case) -> dict[str, float]:
    """Of predicted points (T', 12, 3) in the frames of ``made``, over the frames ``seen`` (T',) that have a truth."""
    frame_ids = made.frame_ids
    at = np.searchsorted(case.frame_ids, frame_ids).clip(max=len(case.frame_ids) - 1)
    known = seen & (case.frame_ids[at] == frame_ids)
    truth = case.points[at[known]].double()
    left = similarity_align(points[known].double(), truth) - truth
    ray = torch.nn.functional.normalize(truth, dim=-1)
    along = (left * ray).sum(-1)
    across = left - along[..., None] * ray
    reference = Reference(case.points.double().numpy(), NAMES, case.frame_ids, "marks", None)
    scores = score_points(points, NAMES, frame_ids, seen, made.timestamps, reference)
    return {
        "PA-MPJPE": scores.pa_mpjpe,
        "MPJPE": scores.mpjpe,
        "depth": 1000 * float(along.square().mean().sqrt()),
        "across": 1000 * float(across.square().sum(-1).mean().sqrt()),
        "accel": scores.accel,
        "seen": scores.found,
    }


def shares(case: Case, motion: Motion) -> np.ndarray | None:
    """Share of the frames seen in which each joint (24, 4) is in the regions of its deviations: 50 and 90 % in space, 50 and 90 %
    along the line of sight."""
    if case.joints is None:
        return None
    truth = case.joints[motion.frame_ids[motion.observed]]
    error = errors_in_view(torch.from_numpy(motion.joints3d[motion.observed]), truth)
    space, depth = inside(error, torch.from_numpy(motion.deviations()[motion.observed]))
    return torch.stack((*space, *depth), -1).numpy()


def longest(people: list[Evidence]) -> Evidence | None:
    return max(people, key=lambda e: int(e.observed.sum()), default=None)


def systems(
    case: Case,
    reconstructor: Reconstructor,
    networks: list[str],
    refine: bool,
    regions: dict[str, list[np.ndarray]],
    ablate: bool = False,
) -> dict[str, dict[str, float]]:
    """Errors of every row of the table on one clip; a row is absent where nobody was found. ``regions`` collects the shares of
    :func:`shares` by row; ``ablate`` adds rows of parts left out."""
    out = {}
    for network in networks:
        config = PerceptionConfig(landmarks=network, masks=refine, parts=refine, parts_interval_s=0.0)
        evidence = longest(perceive(case.clip, config=config))
        if evidence is None:
            continue
        world = torch.from_numpy(evidence.world_landmarks[:, POINTS])
        seen = evidence.observed & evidence.has_world
        out[f"world landmarks, {network}"] = errors(world, evidence, seen, case)
        (lifted,) = reconstructor.lift([evidence], case.clip.K)
        points = torch.from_numpy(lifted.world_landmarks[:, POINTS])
        out[f"lifted landmarks, {network}"] = errors(points, evidence, evidence.observed, case)
        (motion,) = reconstructor.reconstruct([evidence], case.clip.K)
        stages = {f"kinflow, {network}": motion}
        if ablate:
            stages |= {f"{name}, {network}": made for name, made in ablated(evidence, case, reconstructor).items()}
        if refine:
            stages[f"kinflow --refine, {network}"] = reconstructor.refine([motion], [evidence])[0]
        for name, made in stages.items():
            parameters = (torch.from_numpy(made.betas)[None], made.pose_rotmat(), torch.from_numpy(made.transl))
            points = reconstructor.body.landmarks(*parameters)[:, POINTS]
            out[name] = errors(points, made, made.observed, case)
            if case.root is not None:
                turn = geodesic_distance(made.pose_rotmat()[:, 0], case.root[made.frame_ids])
                out[name]["root"] = float(turn[made.observed].mean().rad2deg())
            if name.startswith("kinflow") and (found := shares(case, made)) is not None:
                regions.setdefault(name, []).append(found)
    return out


def ablated(evidence: Evidence, case: Case, reconstructor: Reconstructor) -> dict[str, Motion]:
    """Motions with parts of the reconstruction left out."""
    whole = reconstructor.config
    flat = np.full((len(evidence), 33, 2), 0.08, np.float32)
    flat[~evidence.observed] = 0
    (raw,) = reconstructor.reconstruct(
        [dataclasses.replace(evidence, world_std=flat)], case.clip.K
    )  # not lifted any more
    out = {"without the lifter": raw}
    try:
        reconstructor.config = dataclasses.replace(whole, align=dataclasses.replace(whole.align, iterations=0))
        (out["without the fit"],) = reconstructor.reconstruct([evidence], case.clip.K)
        still = dataclasses.replace(whole.align_losses, acceleration=0.0)
        reconstructor.config = dataclasses.replace(whole, align_losses=still)
        (out["without the joints' acceleration"],) = reconstructor.reconstruct([evidence], case.clip.K)
        blind = dataclasses.replace(whole.align_losses, landmarks=0.0)
        reconstructor.config = dataclasses.replace(whole, align_losses=blind)
        (out["fitted to keypoints alone"],) = reconstructor.reconstruct([evidence], case.clip.K)
    finally:
        reconstructor.config = whole
    return out


def calibration(name: str, found: list[np.ndarray]) -> Table:
    """Shares of joints in their regions, joint by joint, mean over clips."""
    out = Table("joint", "in 50 %", "in 90 %", "depth 50 %", "depth 90 %", title=f"{name}: share in the regions, %")
    mean = 100 * np.mean(found, 0)
    for joint, row in zip(SMPL_JOINTS, mean, strict=True):
        out.add_row(joint, *(f"{v:.0f}" for v in row))
    spread = 100 * np.std(np.mean(found, 1), 0, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else np.zeros(4)
    out.add_row("all", *(f"{m:.1f} ± {s:.1f}" for m, s in zip(mean.mean(0), spread, strict=True)))
    return out


def table(title: str, results: list[dict[str, dict[str, float]]]) -> Table:
    """One row a system, one column a metric: mean and standard error over clips."""
    out = Table("mm; accel m/s²; root degrees", *METRICS, title=title)
    for name in dict.fromkeys(name for result in results for name in result):
        cells = []
        for metric in METRICS:
            values = np.array([r[name].get(metric, math.nan) for r in results if name in r])
            values = values[np.isfinite(values)]
            if not len(values):
                cells.append("")
                continue
            spread = (
                f" ± {values.std(ddof=1) / math.sqrt(len(values)):.1f}" if len(values) > 1 and metric != "seen" else ""
            )
            cells.append(f"{values.mean():.2f}{spread}" if metric == "seen" else f"{values.mean():.1f}{spread}")
        out.add_row(name, *cells)
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--data", type=Path, default=Path("data/mocap.npz"), help="prepared capture (tools/prepare_mocap.py)"
    )
    p.add_argument("--rendered", type=int, default=40, help="rendered clips (default: 40)")
    p.add_argument("--real", type=Path, help="the real clip, and ...")
    p.add_argument("--reference", type=Path, help="... its triangulated landmarks")
    p.add_argument(
        "--networks", nargs="+", choices=("full", "heavy"), default=["full", "heavy"], help="landmark networks"
    )
    p.add_argument("--refine", action="store_true", help="rows with --refine as well")
    p.add_argument("--ablate", action="store_true", help="rows of parts left out as well")
    p.add_argument("--out", type=Path, help="JSON of every clip's figures")
    args = p.parse_args()
    if (args.real is None) != (args.reference is None):
        p.error("--real and --reference go together")
    console, body = Console(), Body.open("light")
    reconstructor = Reconstructor.load(body=body)
    record: dict[str, object] = {"weights": reconstructor.weights}
    regions: dict[str, list[np.ndarray]] = {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        if args.rendered:
            cases = rendered(args.data, args.rendered, body, Path(scratch))
            pairs = [(c.name, systems(c, reconstructor, args.networks, args.refine, regions, args.ablate))
                     for c in track(cases, "rendered clips", args.rendered, console=console)]  # fmt: skip
            record["rendered"] = pairs
            console.print(table(f"{args.rendered} rendered clips of test subjects", [r for _, r in pairs]))
            for name, found in regions.items():
                console.print(calibration(name, found))
            record["regions"] = {name: np.mean(found, 0).tolist() for name, found in regions.items()}
        if args.real is not None:
            result = systems(
                real(args.real, args.reference), reconstructor, args.networks, args.refine, {}, args.ablate
            )
            record["real"] = result
            console.print(table(f"{args.real.name}, real, one view of four", [result]))
    console.print(f"weights {reconstructor.weights}", style="dim")
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
