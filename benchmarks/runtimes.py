"""Frames/s of the front end's networks on one core, torch and OpenVINO in turns.

    python benchmarks/runtimes.py [--rounds 50] [--threads 1]

One image at a time, as the front end does on CPUs. What counts is processor time, the best and the median of the rounds, so
that other work on the machine disturbs little; the ratio is between neighbours in the same round. Decoding, cropping and
tracking are left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from kinflow.config import PerceptionConfig
from kinflow.perception.blazepose import DETECTOR_SIZE, LANDMARK_SIZE
from kinflow.perception.parts import PART_SIZE
from kinflow.perception.runtimes import load_networks

RUNTIMES = ("torch", "openvino")


def processor_seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def cases(landmarks: str) -> dict[str, list[Callable[[], Any]]]:
    """What is timed: a call for each runtime."""
    networks = [
        load_networks(PerceptionConfig(landmarks=landmarks, runtime=runtime), torch.device("cpu"))  # type: ignore[arg-type]
        for runtime in RUNTIMES
    ]
    crop = torch.rand(1, 3, LANDMARK_SIZE, LANDMARK_SIZE).contiguous(memory_format=torch.channels_last)  # as warp_crops
    frame = torch.rand(1, 3, DETECTOR_SIZE, DETECTOR_SIZE)
    found: dict[str, list[Callable[[], Any]]] = {
        f"{landmarks}, with mask": [lambda n=n: n.landmark(crop, True) for n in networks],
        f"{landmarks}, without": [lambda n=n: n.landmark(crop, False) for n in networks],
    }
    if landmarks == "heavy":
        found["detector"] = [lambda n=n: n.detect(frame) for n in networks]
        square = torch.rand(1, 3, PART_SIZE, PART_SIZE).contiguous(memory_format=torch.channels_last)
        found["body parts"] = [lambda n=n: n.segment(square) for n in networks]
    return found


@torch.inference_mode()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=50)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    table = Table(
        title=f"frames per second of processor time; {args.threads} threads; {machine}; commit {commit or '?'}"
    )
    for column in (
        "network",
        *[f"{r} {what}" for r in RUNTIMES for what in ("median", "best")],
        "ratio median (5..95 %)",
    ):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, calls in [*cases("heavy").items(), *cases("full").items()]:
        for call in calls:
            call()
        rounds = [[processor_seconds(call) for call in calls] for _ in range(args.rounds)]
        rates = [f"{1 / pick(r):.1f}" for r in zip(*rounds, strict=True) for pick in (statistics.median, min)]
        ratios = sorted(torch_s / other_s for torch_s, other_s in rounds)
        low, high = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
        table.add_row(name, *rates, f"{statistics.median(ratios):.2f} ({low:.2f}..{high:.2f})")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
