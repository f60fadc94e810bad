"""Render the open body in captured motion, run the front end over the frames, keep its output with the exact 3D.

    python tools/render_and_perceive.py --mocap data/mocap.npz --out data/perceived --shards 40

Shards that exist are kept, so a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kinflow.body import Body
from kinflow.config import PerceptionConfig
from kinflow.datasets.wardrobe import Wardrobe
from kinflow.devices import find_device
from kinflow.mocap.clips import MotionClip, load_clips
from kinflow.render.figures import contact_sheet, save_figure
from kinflow.training.streams.perceived import save_perceived
from kinflow.training.streams.render_and_perceive import draw_scene, film_scene, make_shard

log = logging.getLogger("render_and_perceive")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mocap", type=Path, default=Path("data/mocap.npz"))
    p.add_argument("--out", type=Path, default=Path("data/perceived"))
    p.add_argument("--split", default="train", choices=("train", "validation"))
    p.add_argument("--shards", type=int, default=40)
    p.add_argument("--first", type=int, default=0, help="number of the first shard (several processes share the work)")
    p.add_argument("--stride", type=int, default=1, help="from one shard's number to the next one's")
    p.add_argument("--minutes", type=float, help="no shard is begun after these")
    p.add_argument("--device", default="cpu", help="of the perception networks: auto, cpu or cuda")
    p.add_argument("--clips", type=int, default=16, help="clips a shard")
    p.add_argument(
        "--frames", type=int, default=20, help="frames a clip: short, varied clips teach more than long, alike ones"
    )
    p.add_argument(
        "--plain", action="store_true",
        help="motions as captured, at rates of video: what deviations are calibrated on (default: as training has them)",
    )  # fmt: skip
    p.add_argument(
        "--wardrobe", type=Path,
        help="clothes, hair, skins and photographs (tools/build_wardrobe.py); without it bodies are painted",
    )  # fmt: skip
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--landmarks", choices=("heavy", "full"), default="heavy", help="the landmark network")
    p.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the perception networks")
    p.add_argument("--features", action="store_true", help="keep what the landmark network saw, 5.4 kB a frame")
    p.add_argument(
        "--sheet", type=Path, help="only draw 24 such people into a picture, to look at; nothing is perceived"
    )
    args = p.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    clips = load_clips(args.mocap, args.split)
    config = PerceptionConfig(landmarks=args.landmarks, precision=args.precision, features=args.features)
    wardrobe = None if args.wardrobe is None else Wardrobe.open(args.wardrobe)
    if args.sheet is not None:
        draw_sheet(args.sheet, clips, args.first, not args.plain, wardrobe)
        return
    device, started = find_device(args.device), time.perf_counter()
    for shard in range(args.first, args.first + args.stride * args.shards, args.stride):
        if args.minutes is not None and time.perf_counter() - started > 60 * args.minutes:
            break
        path = args.out / f"{args.split}_{shard:04d}.npz"
        if path.exists():
            continue
        began = time.perf_counter()
        seed = shard + (0 if args.split == "train" else 1_000_000) + (2_000_000 if args.plain else 0)
        made = make_shard(clips, args.clips, args.frames, seed, config, device, not args.plain, wardrobe)
        save_perceived(path, made)
        log.info("%s: %.1f frames/s", path, sum(map(len, made)) / (time.perf_counter() - began))


def draw_sheet(
    path: Path, clips: Sequence[MotionClip], seed: int, varied: bool, wardrobe: Wardrobe | None, count: int = 24
) -> None:
    """One frame of each of ``count`` scenes, side by side."""
    rng = np.random.default_rng(seed)
    bodies = Body.open("light"), Body.open("full")
    frames: list[np.ndarray] = []
    with torch.no_grad():
        while len(frames) < count:
            scene = draw_scene(clips, bodies[0], rng, 4, varied)
            if scene is not None:
                frames.append(film_scene(scene, bodies, rng, wardrobe)[0])
    side = max(max(f.shape[:2]) for f in frames)
    tiles = np.full((count, side, side, 3), 255, np.uint8)
    for tile, frame in zip(tiles, frames, strict=True):
        tile[: frame.shape[0], : frame.shape[1]] = frame
    save_figure(contact_sheet(tiles, count // 3), path)


if __name__ == "__main__":
    main()
