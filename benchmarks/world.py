"""How well people are put into the world: rendered clips of known gravity, ground and camera, through the whole front end.

    python benchmarks/world.py --mocap data/mocap60.npz                          # the test split: the figures to report
    python benchmarks/world.py --mocap data/mocap60.npz --split validation --seed 7     # to choose settings by
    python benchmarks/world.py --mocap data/mocap60.npz --input truth            # the world stage alone, on true motion

``--input truth`` gives the world stage the true motion in camera axes; cameras that move are still told from the frames, by
true motion masked out. ``--camera truth`` hands it the true camera path as well, in axes and units that tell nothing. Clips are kept in ``--keep``, with what the
front end made of them, so that the world stage can be run again without it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from reporting import commit
from torch import Tensor
from world_scenes import FRAMES, KINDS, Person, WorldScene, draw_scenes, render

from kinflow import metrics
from kinflow.body import Body
from kinflow.clip import Clip
from kinflow.errors import KinflowError
from kinflow.mocap.clips import load_clips
from kinflow.motion import Motion
from kinflow.rotations import rotmat_to_quat_wxyz, rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS
from kinflow.world import World, locate, stand

ASKED = {
    "gravity deg": 5.0, "height %": 8.0, "WA-MPJPE mm": 90.0, "RTE %": 3.0, "sliding mm/frame": 5.0, "sinking cm": 2.0,
    "floating cm": 2.0,
}  # fmt: skip
_FEET = [SMPL_JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("ankle", "foot")]


def score(scene: WorldScene, world: World, motions: Sequence[Motion], body: Body) -> dict[str, float]:
    """One clip's figures, by the names of :data:`ASKED`; people of a clip are averaged."""
    camera = scene.T_world2cam[0]
    up, true_up = world.T_world2cam[0, :3, 1], camera[:3, 1]
    height = float(-camera[:3, 1] @ camera[:3, 3])
    out: dict[str, list[float]] = {key: [] for key in ASKED}
    out["gravity deg"].append(float(np.degrees(np.arccos(np.clip(up @ true_up, -1, 1)))))
    out["height %"].append(np.nan if world.height is None else 100 * abs(world.height - height) / height)
    for motion, person, truth in _paired(scene, motions, body):
        rows = motion.frame_ids
        motion = motion.in_world(body)
        mine = torch.from_numpy(motion.to_world(motion.joints3d)).double()
        true = truth[torch.from_numpy(rows.copy())].double()
        times = torch.tensor(motion.timestamps)
        out["WA-MPJPE mm"].append(1000 * float(metrics.world_mpjpe(mine, true, None).mean()))
        out["RTE %"].append(100 * float(metrics.root_translation_error(mine[:, 0], true[:, 0]).mean()))
        sliding = metrics.foot_sliding(mine[:, _FEET], true[:, _FEET], times)
        out["sliding mm/frame"].append(1000 * float(sliding.distance[sliding.standing].mean()))
        lowest = torch.from_numpy(motion.to_world(motion.vertices(None, body)))[..., 1].amin(1)
        true_lowest = body.vertices(person.betas, person.pose_rotmat, person.transl)[..., 1].amin(1)[rows]
        stands = true_lowest.abs() < 0.02
        out["sinking cm"].append(100 * float((-lowest).clamp_min(0).mean()))
        out["floating cm"].append(100 * float(lowest[stands].clamp_min(0).mean()))
    return {key: float(np.mean(values)) if values else np.nan for key, values in out.items()}


def _paired(scene: WorldScene, motions: Sequence[Motion], body: Body) -> Iterator[tuple[Motion, Person, Tensor]]:
    """Motions with the person whose pelvis is nearest in the picture."""
    truths = scene.truth(body)
    joints = scene.joints(body)
    for motion in motions:
        rows = motion.frame_ids
        away = [np.linalg.norm((motion.joints3d[:, 0] / motion.joints3d[:, :1, 2] - t.joints3d[rows, 0] / t.joints3d[rows][:, :1, 2])[:, :2], axis=1).mean() for t in truths]  # fmt: skip
        best = int(np.argmin(away))
        yield motion, scene.people[best], joints[best]


def perceived(scene: WorldScene, path: Path) -> list[Motion]:
    """What the front end makes of a rendered clip, kept beside it."""
    kept = sorted(path.parent.glob(f"{path.stem}_person*.npz"))
    if kept:
        return [Motion.load(p) for p in kept]
    from kinflow.apps.video import run

    result = run(Clip.open(path, camera=scene.K), max_people=len(scene.people), device="cpu", world=False)
    for i, motion in enumerate(result.motions):
        motion.save(path.with_name(f"{path.stem}_person{i:02d}.npz"))
    return result.motions


def known_path(scene: WorldScene, folder: Path) -> Path:
    """The true camera as a TUM file in axes of its own and half metres: gravity and scale are left to be found."""
    other = torch.eye(4, dtype=torch.float64)
    other[:3, :3] = rotvec_to_rotmat(torch.tensor([0.7, -0.3, 1.1], dtype=torch.float64))
    poses = torch.linalg.inv(torch.from_numpy(scene.T_world2cam))
    poses[:, :3, 3] *= 2
    poses = other @ poses
    quat = rotmat_to_quat_wxyz(poses[:, :3, :3])[:, [1, 2, 3, 0]]
    path = folder / f"{scene.name}_camera.txt"
    np.savetxt(path, torch.cat((torch.from_numpy(scene.timestamps)[:, None], poses[:, :3, 3], quat), 1).numpy())
    return path


def table(rows: dict[str, dict[str, float]]) -> str:
    """A line a clip, medians (gravity) and means by kind and in all, and medians of all."""
    lines = ["| clip | " + " | ".join(ASKED) + " |", "|---|" + "---|" * len(ASKED)]

    def line(name: str, values: dict[str, float]) -> str:
        return f"| {name} | " + " | ".join(f"{values[k]:.1f}" for k in ASKED) + " |"

    def pooled(chosen: Sequence[dict[str, float]]) -> dict[str, float]:
        table: NDArray[np.float64] = np.array([[r[k] for k in ASKED] for r in chosen])
        middle, mean = np.nanmedian(table, 0), np.nanmean(table, 0)
        return {k: float(middle[i] if k == "gravity deg" else mean[i]) for i, k in enumerate(ASKED)}

    lines += [line(name, values) for name, values in rows.items()]
    for kind in KINDS:
        chosen = [v for n, v in rows.items() if n.startswith(kind)]
        if chosen:
            lines.append(line(f"**{kind}**", pooled(chosen)))
    lines.append(line("**all** (gravity: median)", pooled(list(rows.values()))))
    lines.append(line("**medians**", {k: float(np.nanmedian([r[k] for r in rows.values()])) for k in ASKED}))
    lines.append("| asked | " + " | ".join(f"{v:g}" for v in ASKED.values()) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mocap", type=Path, required=True, help="prepared motion capture (tools/prepare_mocap.py)")
    p.add_argument("--split", default="test", choices=("validation", "test"))
    p.add_argument("--seed", type=int, default=13)
    p.add_argument("--clips", type=int, default=4, help="of each kind (default: 4)")
    p.add_argument("--kinds", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    p.add_argument(
        "--input", default="video", choices=("video", "truth"), help="motion: the front end's, or the true one"
    )
    p.add_argument(
        "--camera", default="auto", choices=("auto", "truth"), help="camera path: told from frames, or the true one"
    )
    p.add_argument("--keep", type=Path, help="folder of the clips and what the front end made of them")
    args = p.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    body = Body.open("light")
    print(f"commit {commit()}, {vars(args)}", flush=True)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            clips = load_clips(args.mocap, args.split)
            for scene in draw_scenes(clips, body, args.seed, args.clips):
                if scene.kind not in args.kinds.split(","):
                    continue
                path = folder / f"{args.split}{args.seed}_{scene.name}.mp4"
                needs_frames = args.input == "video" or (args.camera == "auto" and scene.kind != "static")
                if needs_frames and not path.is_file():
                    render(scene, body, path)
                motions = perceived(scene, path) if args.input == "video" else scene.truth(body)
                clip = Clip.open(path, camera=scene.K) if needs_frames else None
                camera = known_path(scene, folder) if args.camera == "truth" and scene.kind != "static" else "auto"
                world = locate(motions, clip, camera=camera)
                placed = stand(motions, world)
                rows[scene.name] = score(scene, world, placed, body)
                shown = ", ".join(f"{k} {v:.1f}" for k, v in rows[scene.name].items())
                print(f"{scene.name}: {shown} | {world.camera}, up +-{world.up_std_deg or 0:.1f} deg, height {world.height}, "
                      f"+-{world.height_std}, scales {[round(s, 3) for s in world.scales]} | {scene.people[0].source}", flush=True)  # fmt: skip
        except KinflowError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    print(f"\n{len(rows)} clips of {FRAMES} frames, {args.split} split, seed {args.seed}, {args.input} motion\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
