"""Speed of the whole command and of its stages, side by side with MediaPipe Pose in one run.

    python benchmarks/speed.py CLIP [--mediapipe-python PYTHON] [--runs 3] [--quality best]

Each run is a process of its own: ``kinflow-video CLIP --no-overlay`` and MediaPipe Pose (video mode, frames read with
OpenCV) take turns, both with the landmark network full, or heavy (``--quality best``; MediaPipe downloads it when it lacks it). Frames/s counts everything from opening the clip, loading the networks included, to the last
written file; the start of the Python interpreter is left out for both. MediaPipe follows one person; ``--max-people``
says how many kinflow may follow. Since mediapipe 0.10.21 needs numpy below 2, it usually lives in a virtual environment
of its own: name its interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from rich.console import Console
from rich.table import Table

MEDIAPIPE = """
import json, resource, sys, time
import cv2, mediapipe
began = time.perf_counter()
capture = cv2.VideoCapture(sys.argv[1])
frames = found = 0
with mediapipe.solutions.pose.Pose(model_complexity=int(sys.argv[2])) as pose:
    while True:
        ok, image = capture.read()
        if not ok:
            break
        found += pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).pose_landmarks is not None
        frames += 1
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"frames": frames, "found": found, "seconds": seconds, "peak_mb": peak}))
"""

KINFLOW = """
import json, resource, sys, tempfile
from kinflow.cli.video import main
with tempfile.TemporaryDirectory() as out:
    code = main([sys.argv[1], "-o", out, "--no-overlay", "--quiet", *sys.argv[2:]])
    if code:
        sys.exit(code)
    info = json.load(open(out + "/run.json"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"frames": info["clip"]["frames"], "found": len(info["people"]), "seconds": info["timings"]["total"],
                  "stages": info["timings"], "peak_mb": peak}))
"""


def measure(python: str, program: str, arguments: list[str]) -> dict[str, Any] | None:
    """Run ``program`` in a process of its own; its last line of output is its result, None when it failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as script:
        script.write(program)
    try:
        done = subprocess.run([python, script.name, *arguments], capture_output=True, text=True, check=False)
    finally:
        os.unlink(script.name)
    if done.returncode:
        Console(stderr=True).print(f"[red]{done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
        return None
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument(
        "--max-people", type=int, default=1, help="people kinflow may follow (default: 1, as MediaPipe does)"
    )
    p.add_argument("--quality", choices=("best", "fast"), default="fast", help="landmark network: heavy or full")
    p.add_argument("--mediapipe-python", default=sys.executable, help="interpreter that has mediapipe 0.10.21")
    args = p.parse_args()
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(args.runs):
        flags = ["--max-people", str(args.max_people), "--quality", args.quality]
        result = measure(sys.executable, KINFLOW, [args.clip, *flags])
        if result is None:
            return 1
        ours.append(result)
        peer = measure(args.mediapipe_python, MEDIAPIPE, [args.clip, "2" if args.quality == "best" else "1"])
        if peer is not None:
            theirs.append(peer)
    table = Table(
        title=f"{args.clip}, quality {args.quality}, {ours[0]['frames']} frames, {os.cpu_count()} cores ({platform.machine()})"
    )
    for column in ("", "frames/s median", "min", "max", "peak MB"):
        table.add_column(column, justify="left" if not column else "right")
    for name, results in (("kinflow-video", ours), ("MediaPipe Pose", theirs)):
        if results:
            rates = [r["frames"] / r["seconds"] for r in results]
            row = [f"{f(rates):.1f}" for f in (statistics.median, min, max)]
            table.add_row(name, *row, f"{max(r['peak_mb'] for r in results):.0f}")
    console = Console()
    console.print(table)
    for stage in ours[0]["stages"]:
        console.print(f"  {stage}: {statistics.median(r['stages'][stage] for r in ours):.2f} s")
    if theirs:
        ratios = [
            (a["frames"] / a["seconds"]) / (b["frames"] / b["seconds"]) for a, b in zip(ours, theirs, strict=True)
        ]
        console.print(
            f"ratio kinflow / MediaPipe: median {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        )
    else:
        console.print("MediaPipe is not installed for this interpreter: no ratio (see --mediapipe-python)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
