"""What a run found, looked at from all sides: overlay, front, side and top at equal times, one sheet a person.

    python tools/draw_motion.py OUT [--columns 8] [--person 0]      # needs matplotlib (the [test] extra has it)

An overlay looks right while the body leans, faces backwards or sits in mid-air; from the side and from above that shows.
OUT is a folder that kinflow-video wrote; OUT/personNN_views.png are written. The views are in the camera's axes, level where
the camera was: "side" looks from the camera's left, "top" from above with the camera below the picture's lower edge. "world"
is the side again, of people who were put into the world: gravity is down, and the shadow lies on the ground.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from kinflow.body import Body
from kinflow.clip import Clip
from kinflow.errors import KinflowError, MissingAssetError, UsageError
from kinflow.motion import Motion
from kinflow.perception.crops import warp_crops
from kinflow.render.figures import contact_sheet, save_figure
from kinflow.render.views import FRONT, PAPER, SIDE, TOP, View, draw_mesh

HEIGHT = 220
SKIN = torch.tensor((204.0, 184.0, 168.0))
VIEWS = {"front": FRONT, "side": SIDE, "top": TOP}


def equally_spaced(observed: np.ndarray, columns: int) -> list[int]:
    """Rows, equally spaced among those in which somebody is seen (T,)."""
    seen = np.flatnonzero(observed)
    return seen[np.linspace(0, len(seen) - 1, min(columns, len(seen))).round().astype(int)].tolist()


def overlay_frames(out: Path, times: Sequence[float]) -> dict[float, np.ndarray]:
    """The overlay's frames (H, W, 3) at times of the clip, read in one pass; none where there is no overlay.

    The overlay begins at 0 where the run did, at ``start_s`` of its record.
    """
    path = out / "overlay.mp4"
    if not path.is_file():
        return {}
    start = float(json.loads((out / "run.json").read_text(encoding="utf-8"))["clip"]["start_s"])
    overlay, wanted = Clip.open(path), np.unique(times)
    numbers = np.abs(overlay.timestamps[:, None] + start - wanted).argmin(0)
    found: dict[float, np.ndarray] = {}
    first = 0
    for batch in overlay.batches(16):
        for time, number in zip(wanted.tolist(), numbers - first, strict=True):
            if 0 <= number < len(batch):
                found[time] = batch.images[number].copy()
        first += len(batch)
        if first > numbers.max():
            break
    return found


def overlay_crops(frames: Mapping[float, np.ndarray], motion: Motion, rows: Sequence[int]) -> np.ndarray:
    """The overlay around the person at some rows of the motion (N, H, H, 3); paper where there is no overlay."""
    out = np.full((len(rows), HEIGHT, HEIGHT, 3), round(PAPER), np.uint8)
    low, high = motion.boxes_xyxy[rows, :2], motion.boxes_xyxy[rows, 2:]
    side = 1.25 * float((high - low).max())
    for i, time in enumerate(motion.timestamps[rows].tolist()):
        if time in frames:
            roi = np.array([[*(low[i] + high[i]) / 2, side, 0.0]])
            crop = warp_crops([torch.from_numpy(frames[time])], roi, HEIGHT)
            out[i] = (255 * crop[0]).round().byte().permute(1, 2, 0).numpy()
    return out


def pictures(body: Body, motion: Motion, rows: Sequence[int], view: View) -> np.ndarray:
    """The body alone (N, H, H, 3), in one scale, its pelvis in the middle."""
    at = torch.tensor(rows)
    betas = torch.from_numpy(np.array(motion.betas)).expand(len(rows), -1)
    rotmats, transl = motion.pose_rotmat()[at], torch.from_numpy(np.array(motion.transl))[at]
    vertices, pelvis = body.vertices(betas, rotmats, transl), body.joints(betas, rotmats, transl)[:, :1]
    scene: Tensor = (vertices - pelvis) * torch.tensor([1.0, -1.0, -1.0])
    reach = 2.15 * float(scene.norm(dim=-1).max())
    return draw_mesh(scene, body.faces, View(view.yaw, view.pitch, reach), (HEIGHT, HEIGHT), SKIN)


def world_pictures(body: Body, motion: Motion, rows: Sequence[int], view: View) -> np.ndarray:
    """The body in the world (N, H, H, 3): upright as it was, over the ground with its shadow; it moves up and down, not along."""
    motion = motion[rows].in_world(body)
    vertices = torch.from_numpy(motion.to_world(motion.vertices(None, body)))
    pelvis = torch.from_numpy(motion.to_world(motion.joints3d))[:, :1]
    middle = torch.cat(
        (pelvis[..., :1], pelvis[..., 1:2].mean(0, keepdim=True).expand_as(pelvis[..., :1]), pelvis[..., 2:]), -1
    )
    reach = 2.15 * float((vertices - pelvis).norm(dim=-1).max())
    floor = None if motion.ground is None else -float(middle[0, 0, 1])
    return draw_mesh(
        vertices - middle, body.faces, View(view.yaw, view.pitch, reach), (HEIGHT, HEIGHT), SKIN, floor=floor
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; returns the exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path, help="folder that kinflow-video wrote")
    p.add_argument("--columns", type=int, default=8, help="times, equally spaced over the frames seen (default: 8)")
    p.add_argument("--person", type=int, help="this one alone (default: everybody)")
    p.add_argument("--body-path", type=Path, help="the licensed body file that the run used, if any")
    args = p.parse_args(argv)
    try:
        files = sorted(args.out.glob("person[0-9][0-9].npz"))
        if args.person is not None:
            files = [f for f in files if f.stem == f"person{args.person:02d}"]
        if not files:
            raise MissingAssetError(f"{args.out}: no person files here. Give a folder that kinflow-video wrote.")
        body = Body.open("light") if args.body_path is None else Body.from_file(args.body_path)
        people = {file: Motion.load(file) for file in files}
        chosen: dict[Path, list[int]] = {}
        for file, motion in people.items():
            if args.body_path is None and motion.body != body.name:
                raise UsageError(f"{file.name}: its parameters are of the body {motion.body!r}. Give --body-path.")
            chosen[file] = equally_spaced(motion.observed, args.columns)
        frames = overlay_frames(args.out, [people[f].timestamps[row] for f, rows in chosen.items() for row in rows])
        for file, motion in people.items():
            rows = chosen[file]
            parts = [overlay_crops(frames, motion, rows)]
            parts += [pictures(body, motion, rows, view) for view in VIEWS.values()]
            if motion.placed:
                parts.append(world_pictures(body, motion, rows, SIDE))
            titles = ("overlay", *VIEWS, *(["world"] if motion.placed else []))
            times = [f"{motion.timestamps[r]:.2f} s, frame {motion.frame_ids[r]}" for r in rows]
            sheet = contact_sheet(np.concatenate(parts), len(rows), file.stem, times, titles)
            print(save_figure(sheet, file.with_name(f"{file.stem}_views.png"), palette=None))
    except KinflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
