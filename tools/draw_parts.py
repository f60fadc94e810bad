"""Pictures of body parts: on the open body, and as BodyPix sees them in a clip.

    python tools/draw_parts.py --out docs/images              # body_surface.png
    python tools/draw_parts.py --out sheets CLIP ...          # and parts_<clip>.png: crops, and the parts over them

Left parts are blue, right ones red, the torso's front green and its back yellow; backs and inner sides are darker. Needs
matplotlib (the [test] extra has it).
"""

from __future__ import annotations

import argparse
import colorsys
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from kinflow.body import Body
from kinflow.body.surface import surface_parts
from kinflow.clip import Clip
from kinflow.config import PerceptionConfig
from kinflow.evidence import Evidence
from kinflow.perception import perceive
from kinflow.perception.crops import warp_crops
from kinflow.perception.parts import MAP_SIZE
from kinflow.render.figures import contact_sheet, save_figure
from kinflow.render.views import View, draw_mesh
from kinflow.skeleton import BODYPIX24

VIEW = View(span=1.9, centre=(0.0, -0.1, 0.0), lens=4.0)
SHADES = {"face": 0.02, "upper_arm": 0.07, "lower_arm": -0.04, "hand": 0.1, "upper_leg": 0.04, "lower_leg": -0.07, "foot": 0.12}  # fmt: skip
TILE = 4 * MAP_SIZE


def palette() -> np.ndarray:
    """(24, 3) colours, 0..255."""
    colours = []
    for name in BODYPIX24:
        if name.startswith("torso"):
            colour = colorsys.hsv_to_rgb(0.33 if name.endswith("front") else 0.14, 0.8, 0.9)
        else:
            hue = 0.6 if name.startswith("left") else 0.0
            shade = next(value for stem, value in SHADES.items() if stem in name)
            colour = colorsys.hsv_to_rgb((hue + shade) % 1, 0.8, 0.55 if name.endswith("back") else 1.0)
        colours.append(colour)
    return 255 * np.array(colours)


def draw_body(path: Path) -> None:
    body = Body.open("full")
    rest = body.vertices(torch.zeros(10), torch.eye(3).expand(24, 3, 3))[None]
    colours = torch.tensor(palette()[surface_parts(body).numpy()], dtype=torch.float32)
    views = [draw_mesh(rest, body.faces, replace(VIEW, yaw=yaw), (312, 332), colours)[0] for yaw in (0, 180, -90)]
    sheet = contact_sheet(np.stack(views), 3, above=["BodyPix's parts on the body", "from behind", "from the left"])
    print(save_figure(sheet, path, palette=None))


def draw_clip(source: Path, path: Path, count: int) -> None:
    clip = Clip.open(source)
    people = perceive(clip, config=PerceptionConfig(parts_interval_s=0.0), device="cpu")
    if not people:
        raise SystemExit(f"{source}: nobody is seen")
    chosen: list[tuple[int, Evidence, int]] = []
    for person in people:
        rows = np.flatnonzero(person.observed)
        rows = rows[np.linspace(0, len(rows) - 1, max(1, count // len(people))).astype(int)]
        chosen += [(int(person.frame_ids[t]), person, int(t)) for t in rows]
    wanted, frames = {frame for frame, _, _ in chosen}, {}
    for batch in clip.batches(8):
        frames |= {int(i): image.copy() for i, image in zip(batch.frame_ids, batch.images, strict=True) if i in wanted}
    tiles, titles, colours = [], [], palette()
    for frame, person, t in chosen:
        assert person.parts is not None and person.part_rois is not None
        crop = warp_crops([torch.from_numpy(frames[frame])], person.part_rois[t : t + 1], TILE)[0]
        plain = 255 * crop.permute(1, 2, 0).numpy()
        labels = person.parts[t].repeat(4, 0).repeat(4, 1).astype(int)
        over = np.where(labels[..., None] > 0, 0.4 * plain + 0.6 * colours[labels - 1], plain)
        tiles.append(np.concatenate([plain, over]).astype(np.uint8))
        titles.append(f"{frame}, person {person.person_id}")
    print(save_figure(contact_sheet(np.stack(tiles), 8, above=titles), path, palette=None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=16, help="frames a clip")
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    draw_body(args.out / "body_surface.png")
    for clip in args.clips:
        draw_clip(clip, args.out / f"parts_{clip.stem}.png", args.count)


if __name__ == "__main__":
    main()
