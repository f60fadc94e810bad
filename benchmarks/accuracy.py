"""How right the 3D is: rendered clips of people never trained on, and a real clip seen by four cameras.

    python benchmarks/accuracy.py --data data/mocap.npz [--rendered 40] [--real CLIP --reference FILE.npz] [--refine]

Two tables. Rendered clips show the open body in motions of the test subjects, with looks, backgrounds and cameras drawn from
a seed of their own; each is encoded to H.264 and read back, so the whole command is measured. The real clip's truth are
BlazePose heavy's keypoints triangulated from four views (the file's ``blazepose33``), of which only one view is given to
kinflow, without its intrinsics. Both compare the same twelve marked points (shoulders, elbows, wrists, hips, knees, ankles):
never a joint's centre with a marked point.

Rows: the landmark networks' own world landmarks (what MediaPipe Pose gives, no frame seen in the mirror; the packaged networks agree
with it within 0.01 px), what the lifter makes of them frame by frame, and kinflow on either. PA-MPJPE after a similarity alignment of
each frame, MPJPE after the middles of the hips were moved onto each other, both in mm over the frames in which the person was seen; depth and across are the rms of what is
left after the alignment along the line of sight and at right angles to it; accel is the acceleration error about the hips
(``kinflow-bench clip`` scores alike); root is the angle by which the pelvis is turned wrongly; contact is the F1 of
heels and toes that stand still, told by their speed, of clips with neighbouring frames near enough to tell. Mean over clips with its standard error. A third table says of rendered clips how many
of SMPL's joints lie in the regions that their predicted deviations fill to 50 and 90 %, in space and along the line of sight.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
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
from kinflow.datasets.wardrobe import Wardrobe
from kinflow.evaluation.clips import Reference, score_points
from kinflow.evidence import Evidence
from kinflow.metrics import f1_score, similarity_align
from kinflow.mocap.clips import load_clips
from kinflow.motion import Motion
from kinflow.perception import perceive
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.deviations import errors_in_view, inside
from kinflow.rotations import geodesic_distance
from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS
from kinflow.training.streams.projected import foot_contacts_of
from kinflow.training.streams.render_and_perceive import draw_scene, film_scene
from kinflow.video import VideoWriter

HIDES = ("frames hidden", "the same frames seen")
POINTS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
NAMES = tuple(BLAZEPOSE[i] for i in POINTS)
SEED = 7_000_000
"""First seed of the rendered clips; training's shards use small ones and those from 1,000,000 on."""
FRAMES = 32
METRICS = ("PA-MPJPE", "MPJPE", "depth", "across", "accel", "root", "contact", "seen")
HIDDEN_METRICS = ("PA-MPJPE", "MPJPE", "depth", "across", "deviation", "observed")
UNLIFTED_STD = 0.08
"""m, of the landmark network's own world landmarks, where they stand in for lifted ones."""
KEPT_HIDDEN = ("frame_ids", "timestamps")
HIDDEN_S = 1.0
"""How long people are hidden at most, a third of their clip where that is less (``--hidden``)."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A clip with its truth: ``points`` (T, 12, 3) m in camera axes at ``frame_ids`` (T,); of renders SMPL's ``joints``
    (T, 24, 3), the pelvis' rotation ``root`` (T, 3, 3) and the feet's ``contacts`` (T, 4), where they can be told, too."""

    name: str
    clip: Clip
    points: Tensor
    frame_ids: np.ndarray
    joints: Tensor | None = None
    root: Tensor | None = None
    contacts: Tensor | None = None


def rendered(
    data: Path,
    count: int,
    folder: Path,
    wardrobe: Wardrobe | None = None,
    split: str = "test",
    frames: int = FRAMES,
    fps: float | None = None,
) -> Iterator[Case]:
    """Clips of a split, each from its own seed; ``fps``: of all of them, by default as video has it."""
    clips, bodies = load_clips(data, split), (Body.open("light"), Body.open("full"))
    body = bodies[0]
    made, seed = 0, SEED
    while made < count:
        rng = np.random.default_rng(seed)
        seed += 1
        scene = draw_scene(clips, body, rng, frames, varied=False, fps=fps)
        if scene is None:
            continue
        images = film_scene(scene, bodies, rng, wardrobe)
        path = folder / f"{made:03d}.mp4"
        with VideoWriter(path, scene.image_size, 1 / float(np.diff(scene.timestamps).mean())) as video:
            for image, time in zip(images, scene.timestamps, strict=True):
                video.write(image, float(time))
        betas = scene.betas[None]
        landmarks = body.landmarks(betas, scene.pose_rotmat, scene.transl)
        contacts, known = foot_contacts_of(landmarks[None], torch.from_numpy(scene.timestamps)[None])
        joints = body.joints(betas, scene.pose_rotmat, scene.transl)
        yield Case(
            scene.source,
            Clip.open(path, camera=scene.K),
            landmarks[:, POINTS],
            np.arange(len(images)),
            joints,
            scene.pose_rotmat[:, 0],
            contacts[0] if bool(known) else None,
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
    std, reach = torch.from_numpy(motion.deviations()[motion.observed]), torch.tensor(motion.reach())
    space, depth = inside(error, std, reach)
    return torch.stack((*space, *depth), -1).numpy()


def hide(evidence: Evidence) -> tuple[Evidence, np.ndarray]:
    """The evidence with nothing seen in the middle of its clip, and the rows (T,) hidden that were seen before."""
    times = evidence.timestamps
    length = min(HIDDEN_S, (times[-1] - times[0]) / 3)
    away = np.abs(times - (times[0] + times[-1]) / 2) <= length / 2
    gone = {}
    for field in dataclasses.fields(evidence):
        value = getattr(evidence, field.name)
        if field.name not in KEPT_HIDDEN and isinstance(value, np.ndarray) and value.shape[:1] == away.shape:
            gone[field.name] = np.where(away.reshape(-1, *[1] * (value.ndim - 1)), np.zeros_like(value), value)
    return dataclasses.replace(evidence, **gone), away & evidence.observed


def said(motion: Motion, rows: np.ndarray) -> dict[str, float]:
    """What the motion says of frames: the joints' deviation about the pelvis in mm, and whether it calls them seen."""
    return {
        "deviation": 1000 * float(motion.joints3d_std[rows, 1:].mean()),
        "observed": float(motion.observed[rows].mean()),
    }


def longest(people: list[Evidence]) -> Evidence | None:
    return max(people, key=lambda e: int(e.observed.sum()), default=None)


def systems(
    case: Case,
    reconstructor: Reconstructor,
    networks: list[str],
    refine: bool,
    regions: dict[str, list[np.ndarray]],
    ablate: bool = False,
    hidden: bool = False,
) -> dict[str, dict[str, float]]:
    """Errors of every row of the table on one clip; a row is absent where nobody was found. ``regions`` collects the shares of
    :func:`shares` by row; ``ablate`` adds rows of parts left out."""
    out = {}
    for network in networks:
        config = PerceptionConfig(landmarks=network, masks=refine, parts=refine, parts_interval_s=0.0)
        evidence = longest(perceive(case.clip, config=config))
        if evidence is None:
            continue
        given = longest(perceive(case.clip, config=dataclasses.replace(config, mirror=False)))
        if given is not None:
            world = torch.from_numpy(given.world_landmarks[:, POINTS])
            out[f"world landmarks, {network}"] = errors(world, given, given.observed & given.has_world, case)
        (lifted,) = reconstructor.lift([evidence], case.clip.K)
        points = torch.from_numpy(lifted.world_landmarks[:, POINTS])
        out[f"lifted landmarks, {network}"] = errors(points, evidence, evidence.observed, case)
        (motion,) = reconstructor.reconstruct([evidence], case.clip.K)
        stages = {f"kinflow, {network}": motion}
        if ablate:
            stages |= {f"{name}, {network}": made for name, made in ablated(evidence, case, reconstructor).items()}
        if hidden:
            masked, gone = hide(evidence)
            if gone.any() and masked.observed.sum() > 2:
                (filled,) = reconstructor.reconstruct([masked], case.clip.K)
                for name, made in zip(HIDES, (filled, motion), strict=True):
                    points = marked(made, reconstructor.body)
                    out[f"{name}, {network}"] = errors(points, made, gone, case) | said(made, gone)
        if refine:
            stages[f"kinflow --refine, {network}"] = reconstructor.refine([motion], [evidence])[0]
        for name, made in stages.items():
            out[name] = score(made, case, reconstructor.body)
            if case.contacts is not None:
                standing = case.contacts[made.frame_ids.tolist()][torch.tensor(made.observed)] > 0
                found_standing = torch.from_numpy(made.contacts[made.observed] > 0.5)
                out[name]["contact"] = float(f1_score(found_standing, standing))
            if name.startswith("kinflow") and (found := shares(case, made)) is not None:
                regions.setdefault(name, []).append(found)
    return out


def marked(motion: Motion, body: Body) -> Tensor:
    """The marked points (T, 12, 3) m of a motion, camera axes."""
    parameters = (torch.tensor(motion.betas)[None], motion.pose_rotmat(), torch.tensor(motion.transl))
    return body.landmarks(*parameters)[:, POINTS]


def score(motion: Motion, case: Case, body: Body) -> dict[str, float]:
    """Errors of a motion over the frames seen, and of renders the pelvis' rotation."""
    out = errors(marked(motion, body), motion, motion.observed, case)
    if case.root is not None:
        turn = geodesic_distance(motion.pose_rotmat()[:, 0], case.root[motion.frame_ids.tolist()])
        out["root"] = float(turn[torch.tensor(motion.observed)].mean().rad2deg())
    return out


def unlifted(evidence: Evidence) -> Evidence:
    """The evidence as if it had been lifted: its world landmarks stay as the landmark network gave them."""
    flat = np.full((len(evidence), 33, 2), UNLIFTED_STD, np.float32)
    flat[~evidence.observed] = 0
    return dataclasses.replace(evidence, world_std=flat)


def unfitted(reconstructor: Reconstructor, evidence: Evidence, K: Tensor | np.ndarray) -> Motion:
    """What the network says by itself, without the fit that ends a reconstruction."""
    whole = reconstructor.config
    try:
        reconstructor.config = dataclasses.replace(whole, align=dataclasses.replace(whole.align, iterations=0))
        return reconstructor.reconstruct([evidence], K)[0]
    finally:
        reconstructor.config = whole


def ablated(evidence: Evidence, case: Case, reconstructor: Reconstructor) -> dict[str, Motion]:
    """Motions with parts of the reconstruction left out."""
    whole = reconstructor.config
    (raw,) = reconstructor.reconstruct([unlifted(evidence)], case.clip.K)
    out = {"without the lifter": raw, "without the fit": unfitted(reconstructor, evidence, case.clip.K)}
    try:
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


def tables(title: str, results: list[dict[str, dict[str, float]]]) -> Iterator[Table]:
    """The systems, and people hidden where there are such rows: a column a metric, mean and standard error over clips, and the
    median, for errors have long tails: a few clips in which somebody is hardly seen count as much as all the others."""
    names = list(dict.fromkeys(name for result in results for name in result))
    hidden = [name for name in names if name.startswith(HIDES)]
    shown = [name for name in names if name not in hidden]
    yield _table(title, results, shown, METRICS)
    if len(results) > 2:
        yield _table("median over these clips", results, shown, METRICS, median=True)
    if hidden:
        yield _table(f"people hidden for up to {HIDDEN_S:g} s", results, hidden, HIDDEN_METRICS)


def _table(
    title: str,
    results: list[dict[str, dict[str, float]]],
    names: list[str],
    metrics: Sequence[str],
    median: bool = False,
) -> Table:
    out = Table("mm; accel m/s²; root degrees", *metrics, title=title)
    for name in names:
        cells = []
        for metric in metrics:
            values = np.array([r[name].get(metric, math.nan) for r in results if name in r])
            values = values[np.isfinite(values)]
            digits = 2 if metric in ("contact", "observed", "seen") else 1
            if not len(values):
                cells.append("")
            elif median:
                cells.append(f"{np.median(values):.{digits}f}")
            else:
                spread = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.{digits}f}" if len(values) > 1 else ""
                cells.append(f"{values.mean():.{digits}f}{spread}")
        out.add_row(name, *cells)
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--data", type=Path, default=Path("data/mocap.npz"), help="prepared capture (tools/prepare_mocap.py)"
    )
    p.add_argument("--rendered", type=int, default=40, help="rendered clips (default: 40)")
    p.add_argument(
        "--wardrobe", type=Path,
        help="dress the people (tools/build_wardrobe.py): clothes and photographs that training knows, motions and people that it "
        "does not; without it they are painted, before drawn backgrounds",
    )  # fmt: skip
    p.add_argument("--real", type=Path, help="the real clip, and ...")
    p.add_argument("--reference", type=Path, help="... its triangulated landmarks")
    p.add_argument(
        "--networks", nargs="+", choices=("full", "heavy"), default=["full", "heavy"], help="landmark networks"
    )
    p.add_argument("--refine", action="store_true", help="rows with --refine as well")
    p.add_argument("--ablate", action="store_true", help="rows of parts left out as well")
    p.add_argument(
        "--hidden",
        action="store_true",
        help=f"hide people for up to {HIDDEN_S:g} s and compare with the same frames seen",
    )
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
            wardrobe = None if args.wardrobe is None else Wardrobe.open(args.wardrobe)
            cases = rendered(args.data, args.rendered, Path(scratch), wardrobe)
            pairs = [(c.name, systems(c, reconstructor, args.networks, args.refine, regions, args.ablate, args.hidden))
                     for c in track(cases, "rendered clips", args.rendered, console=console)]  # fmt: skip
            record["rendered"] = pairs
            dressed = " dressed," if wardrobe else ""
            console.print(*tables(f"{args.rendered}{dressed} rendered clips of test subjects", [r for _, r in pairs]))
            for name, found in regions.items():
                console.print(calibration(name, found))
            record["regions"] = {name: np.mean(found, 0).tolist() for name, found in regions.items()}
        if args.real is not None:
            result = systems(
                real(args.real, args.reference), reconstructor, args.networks, args.refine, {}, args.ablate
            )
            record["real"] = result
            console.print(*tables(f"{args.real.name}, real, one view of four", [result]))
    console.print(f"weights {reconstructor.weights}", style="dim")
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
