"""What BodyPix sees of renders whose facing is known, and of clips, beside BlazePose.

    python benchmarks/parts.py --mocap data/mocap.npz [--images 300] [CLIP ...]

Renders: the open body in captured motion of the validation split, its crop from the true landmarks. The facing is the cosine
between the chest's forward direction and the way to the camera; "right" is whether the likelier side is the one shown. Labels
are compared with the part of the vertex that is visible there. Clips: frames in which the front, the back is the likelier side,
and how far BodyPix' and BlazePose's masks agree.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from kinflow.body import Body
from kinflow.body.surface import surface_parts
from kinflow.cameras import project
from kinflow.clip import Clip
from kinflow.config import PerceptionConfig
from kinflow.datasets.synthetic import random_look, render_frames
from kinflow.mocap.clips import load_clips
from kinflow.perception import perceive
from kinflow.perception.crops import frame_to_crop, warp_crops
from kinflow.perception.parts import MAP_SIZE, PART_SIZE, facing, facing_of, mask_agreement, part_maps, upright_roi
from kinflow.perception.runtimes import Segment, load_networks
from kinflow.render import visible_points
from kinflow.training.streams.render_and_perceive import Scene, draw_scene

EDGES = (-1.0, -0.8, -0.5, -0.2, 0.2, 0.5, 0.8, 1.0)
CHEST = (0, 3, 6, 9)  #: joints from the root to the chest


def seen_of(scene: Scene, body: Body, segment: Segment, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(true facing, probability of the front, share of labels that agree) of the scene's frames in which the body is in view."""
    betas, size = scene.betas[None], scene.image_size
    rest = torch.eye(3).expand(1, 24, 3, 3)
    known = [x(betas, rest, None)[0].numpy() for x in (body.vertices, body.landmarks)]
    look = random_look(size, body.part_labels.numpy(), known[0], rng, known[1])
    vertices = body.vertices(betas, scene.pose_rotmat, scene.transl)
    images = render_frames(vertices, body.faces, scene.K, size, look)
    points = project(body.landmarks(betas, scene.pose_rotmat, scene.transl), scene.K).numpy().astype(np.float64)
    places = project(vertices, scene.K).numpy().astype(np.float64)
    seen, labels = visible_points(vertices, body.faces, scene.K, size, cull_backfaces=True), surface_parts(body).numpy()
    rows = []
    for t, image in enumerate(images):
        inside = ((points[t] >= 0) & (points[t] < size)).all(-1)
        if inside.sum() < 25:
            continue
        roi = upright_roi(points[t], np.where(inside, 0.9, 0.1))[None]
        crop = 2 * warp_crops([torch.from_numpy(image)], roi, PART_SIZE) - 1
        parts, confidence, region = part_maps(segment(crop), roi, size)
        ids = body.faces[seen.face[seen.batch == t]].unique().numpy()
        cell = np.floor(frame_to_crop(places[t, ids][None], region)[0] * MAP_SIZE).astype(int)
        ids, cell = ids[(good := ((cell >= 0) & (cell < MAP_SIZE)).all(-1))], cell[good]
        found = parts[0, cell[:, 1], cell[:, 0]]
        chest = torch.linalg.multi_dot([scene.pose_rotmat[t, i] for i in CHEST])[:, 2]
        towards = float(-chest @ scene.transl[t] / scene.transl[t].norm())
        agree = float((found[found > 0] == labels[ids][found > 0] + 1).mean()) if (found > 0).any() else 0.0
        rows.append((towards, float(facing_of(parts, confidence)[0]), agree))
    return rows


@torch.inference_mode()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mocap", type=Path, help="prepared motion capture; without it no renders")
    p.add_argument("--images", type=int, default=300)
    p.add_argument("--seed", type=int, default=5)
    p.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    args = p.parse_args()
    torch.set_num_threads(1)
    config, console = PerceptionConfig(parts_interval_s=0.0), Console(width=120)
    if args.mocap is not None:
        rng, body = np.random.default_rng(args.seed), Body.open("light")
        clips, segment = load_clips(args.mocap, "validation"), load_networks(config, torch.device("cpu")).segment
        assert segment is not None  # parts are on by default
        rows: list[tuple[float, float, float]] = []
        while len(rows) < args.images:
            scene = draw_scene(clips, body, rng, 3)
            if scene is not None:
                rows += seen_of(scene, body, segment, rng)
        true, front, agree = np.array(rows).T
        table = Table(
            title=f"{len(rows)} renders, seed {args.seed}; labels that agree with the body's: {agree.mean():.2f}"
        )
        for column in ("cosine of the chest's way to the camera", "images", "mean P(front)", "right"):
            table.add_column(column, justify="right")
        for low, high in itertools.pairwise(EDGES):
            within = (true >= low) & (true < high)
            if within.any():
                right = ((front > 0.5) == (true > 0))[within].mean()
                table.add_row(
                    f"{low:.1f} .. {high:.1f}", str(within.sum()), f"{front[within].mean():.2f}", f"{right:.2f}"
                )
        console.print(table)
    table = Table(title="clips")
    for column in ("clip", "person", "frames", "front", "back", "IoU of the masks, median (10 %)"):
        table.add_column(column, justify="left" if column == "clip" else "right")
    for path in args.clips:
        for person in perceive(Clip.open(path), config=config, device="cpu"):
            front, agree = facing(person)[person.observed], mask_agreement(person)[person.observed]
            counts = [len(front), int((front > 0.5).sum()), int((front < 0.5).sum())]
            table.add_row(path.name, *map(str, (person.person_id, *counts)), f"{np.median(agree):.2f} ({np.quantile(agree, 0.1):.2f})")  # fmt: skip
    if args.clips:
        console.print(table)


if __name__ == "__main__":
    main()
