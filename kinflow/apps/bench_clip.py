"""What ``kinflow-bench clip`` and ``speed`` do: a clip with known points scored, and the whole command timed."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..clip import Clip
from ..errors import KinflowError, UsageError
from ..evaluation.clips import KINDS, ClipScores, Reference, read_reference, score_points
from ..evidence import Evidence
from ..perception import perceive
from ..skeleton import LAYOUTS
from .options import Progress, RunOptions
from .results import Result
from .video import run


def bench_clip(
    path: str | Path,
    reference: str | Path,
    options: RunOptions | None = None,
    *,
    known_camera: bool = False,
    limbs: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Reconstruct a clip and score its most seen person.

    Args:
        path: the clip. reference: what :func:`kinflow.evaluation.clips.read_reference` reads.
        options: of the run.
        known_camera: give the reference's camera matrix to the reconstruction.
        limbs: compare the twelve limb points alone.

    Returns:
        ``{"clip", "reference", "systems": {name: scores}, "weights", "config_hash"}``; the systems are kinflow and, for marks,
        the landmark network's own world landmarks.

    Raises:
        VideoError, NobodyFoundError, UsageError, MissingAssetError: as of :func:`kinflow.run`.
        FormatError: the reference does not fit.
    """
    truth = read_reference(reference)
    if known_camera and truth.K is None:
        raise UsageError(f"known_camera: {Path(reference).name} has no K. Leave it out.")
    options = options or RunOptions()
    clip = Clip.open(path, camera=truth.K if known_camera else None, config=options.config.video)
    result = run(clip, options, progress=progress)
    given = _as_given(clip, options, result.evidences[0]) if KINDS[truth.kind] == "blazepose33" else None
    return {
        "clip": str(path),
        "reference": str(reference),
        "kind": truth.kind,
        "systems": {name: dataclasses.asdict(s) for name, s in _scores(result, given, truth, limbs).items()},
        "weights": result.info["weights"],
        "config_hash": result.info["config_hash"],
    }


def _as_given(clip: Clip, options: RunOptions, evidence: Evidence) -> Evidence:
    """The most seen person's evidence as the landmark network gives it: frames that it saw in the mirror are looked at once more."""
    perception = options.config.perception
    if options.keypoints is not None or not perception.mirrors:
        return evidence
    plain = dataclasses.replace(perception, mirror=False, masks=False)
    people = perceive(clip, config=plain, device=options.device, batch_size=options.batch_size)
    return people[0] if people else evidence


def _scores(result: Result, given: Evidence | None, truth: Reference, limbs: bool) -> dict[str, ClipScores]:
    motion, body = result.motions[0], result.body
    joint_set = KINDS[truth.kind]
    names = LAYOUTS[joint_set]
    points = torch.from_numpy(motion.keypoints3d(joint_set, body=body))
    out = {"kinflow": score_points(points, names, motion.frame_ids, motion.observed, motion.timestamps, truth, limbs)}
    if given is not None and (seen := given.observed & given.has_world).any():
        world = torch.from_numpy(np.array(given.world_landmarks))
        out["world landmarks"] = score_points(world, names, given.frame_ids, seen, given.timestamps, truth, limbs)
    return out


def bench_speed(
    path: str | Path, runs: int, arguments: list[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Time ``kinflow-video`` without its overlay, each run in a process of its own.

    Args:
        path: the clip. runs: how many. arguments: further ones of ``kinflow-video``. environment: variables set besides.

    Returns:
        Frames a second of each run, from opening the clip (loading the networks included) to the last written file, the stages'
        median seconds, and the machine.

    Raises:
        UsageError: no run asked for.
        KinflowError: the command failed; its own line.
    """
    if runs < 1:
        raise UsageError(f"runs: expected at least 1, got {runs}.")
    records = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as out:
            command = [
                sys.executable,
                "-m",
                "kinflow.cli.video",
                str(path),
                "-o",
                out,
                "--no-overlay",
                "--quiet",
                *arguments,
            ]
            variables = {**os.environ, **(environment or {})}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                failed = KinflowError(lines[-1].removeprefix("kinflow-video: ") if lines else "kinflow-video failed.")
                failed.exit_code = done.returncode
                raise failed
            records.append(json.loads((Path(out) / "run.json").read_text(encoding="utf-8")))
    stages = [k for k in records[0]["timings"] if k != "total"]
    return {
        "clip": str(path),
        "frames": records[0]["clip"]["frames"],
        "image_size": records[0]["clip"]["image_size"],
        "people": len(records[0]["people"]),
        "frames_per_second": [r["frames_per_second"] for r in records],
        "stages_s": {k: round(statistics.median(r["timings"][k] for r in records), 3) for k in stages},
        "weights": records[0]["weights"],
        "config_hash": records[0]["config_hash"],
        "device": records[0]["device"],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
    }
