"""What PyAV and decord cost on the clips at hand, and whether they see the same: the figures behind ``video.decoder: auto``.

    python benchmarks/decoders.py CLIP [CLIP ...] [--runs 5] [--threads N]

The decoders take turns over each whole clip, opening included, through ``Clip.batches``, as every consumer reads. Processor
time is that of all threads. "same" compares every frame: its time to 0.01 ms, its index, and its pixels by their mean
difference in grey levels; "decord gave up" means that PyAV decoded the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from kinflow.clip import Clip
from kinflow.config import VideoConfig

DECODERS = ("pyav", "decord")


def read(path: Path, decoder: str, threads: int) -> tuple[float, float, int, str]:
    """Read a clip -> processor ms and wall ms a frame, frames, and what decoded it in the end."""
    began, busy = time.perf_counter(), time.process_time()
    clip = Clip.open(path, config=VideoConfig(decoder=decoder, threads=threads))
    frames = sum(len(batch) for batch in clip.batches(8))
    cost = time.process_time() - busy, time.perf_counter() - began
    return 1000 * cost[0] / frames, 1000 * cost[1] / frames, frames, clip.decoder


def same(path: Path, threads: int) -> str:
    """How the decoders' answers differ."""
    clips = [Clip.open(path, config=VideoConfig(decoder=d, threads=threads)) for d in DECODERS]
    worst = 0.0
    counts = [0, 0]
    readers = [clip.batches(1) for clip in clips]
    while True:
        ours, theirs = (next(reader, None) for reader in readers)
        counts = [c + (b is not None) for c, b in zip(counts, (ours, theirs), strict=True)]
        if ours is None or theirs is None:
            break
        if abs(ours.timestamps[0] - theirs.timestamps[0]) > 1e-5 or ours.frame_ids[0] != theirs.frame_ids[0]:
            return f"no: frame {ours.frame_ids[0]} at {ours.timestamps[0]:.4f} and {theirs.timestamps[0]:.4f} s"
        worst = max(worst, float(np.abs(ours.images.astype(np.int16) - theirs.images).mean()))
    if counts[0] != counts[1]:
        return f"no: {counts[0]} and {counts[1]} frames"
    return f"yes, pixels within {worst:.2f}"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", nargs="+", type=Path)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--threads", type=int, default=0)
    args = p.parse_args()
    table = Table(title=f"ms a frame: processor (wall), median of {args.runs} runs, in turns")
    for column in ("clip", "container, codec", "size", "frames", *DECODERS, "decord/PyAV", "same"):
        table.add_column(column, justify="left" if column in ("clip", "container, codec", "same") else "right")
    for path in args.clips:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            kind = f"{container.format.name.split(',')[0]}, {stream.codec_context.name}"
            size = f"{stream.width}x{stream.height}"
        runs: dict[str, list[tuple[float, float]]] = {d: [] for d in DECODERS}
        frames, by = 0, ""
        for _ in range(args.runs):
            for decoder in DECODERS:
                busy, wall, frames, by = read(path, decoder, args.threads)
                runs[decoder].append((busy, wall))
        medians = [[statistics.median(run[k] for run in runs[d]) for k in (0, 1)] for d in DECODERS]
        ratios = sorted(b[0] / a[0] for a, b in zip(*(runs[d] for d in DECODERS), strict=True))
        agree = same(path, args.threads) + ("; decord gave up" if by == "pyav" else "")
        table.add_row(
            path.name, kind, size, str(frames), *(f"{busy:.2f} ({wall:.2f})" for busy, wall in medians),
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})", agree,
        )  # fmt: skip
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
