"""Speed of the whole command on an idle machine and beside another process that keeps one core busy, in turns.

    python benchmarks/busy.py CLIP [--runs 3] [--end S] [--quality fast] [--spin]

Each run is a process of its own, ``kinflow-video CLIP --no-overlay``; frames/s counts everything from opening the clip, loading
the networks included, to the last written file. The other process does nothing but run a loop. The ratio, busy to idle, is
at least a half: one of two cores is gone, and what is left works. ``--spin`` measures the waiting that OpenMP does by default
as well: threads that spin while they wait, which kinflow's commands turn off (kinflow/cli/threads.py).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from reporting import Sheet, commit
from rich.console import Console

from kinflow.apps.bench_clip import bench_speed

SPIN = {"OMP_WAIT_POLICY": "ACTIVE"}


def frames_per_second(clip: str, arguments: list[str], environment: dict[str, str]) -> float:
    """Of one run of the command."""
    return float(bench_speed(clip, 1, arguments, environment)["frames_per_second"][0])


def beside_a_loop(clip: str, arguments: list[str], environment: dict[str, str]) -> float:
    """The same while another process keeps a core busy."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        return frames_per_second(clip, arguments, environment)
    finally:
        loop.kill()
        loop.wait()


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--end", default="2", help="s of the clip (default: 2)")
    p.add_argument("--quality", choices=("best", "fast"), default="best", help="landmark network: heavy or full")
    p.add_argument("--spin", action="store_true", help="also with threads that spin, OpenMP's default")
    args = p.parse_args()
    arguments = ["--end", args.end, "--quality", args.quality]
    ways = {"kinflow's choice": {}, **({"spinning": SPIN} if args.spin else {})}
    idle: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    loads = []
    for _ in range(args.runs):
        for way, environment in ways.items():
            loads.append(os.getloadavg()[0])
            idle[way].append(frames_per_second(args.clip, arguments, environment))
            busy[way].append(beside_a_loop(args.clip, arguments, environment))
    sheet = Sheet(
        f"{Path(args.clip).name}, {args.end} s, {args.quality}, {os.cpu_count()} cores ({platform.machine()}), {commit()}",
        ["threads that wait", "idle frames/s", "beside a loop", "ratio", "each"],
        notes=[f"load average before the runs: {min(loads):.1f} to {max(loads):.1f}; only below 1 is idle idle"],
    )
    for way in ways:
        ratios = [b / i for i, b in zip(idle[way], busy[way], strict=True)]
        medians = [f"{statistics.median(values):.1f}" for values in (idle[way], busy[way])]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        sheet.rows.append([way, *medians, f"{statistics.median(ratios):.2f}", each])
    sheet.show(Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
