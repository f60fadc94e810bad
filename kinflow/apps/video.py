"""Clip in, moving people out: perceive, reconstruct, and write the results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..body import Body
from ..cameras import intrinsics, project, read_intrinsics
from ..config import PipelineConfig, config_hash, to_dict
from ..devices import find_device
from ..errors import KinflowError, NobodyFoundError, OutputError, UsageError
from ..evidence import Evidence
from ..metrics import pck, torso_length
from ..motion import Motion
from ..perception import Perceiver
from ..perception.keypoints import read_keypoints
from ..reconstruction import Reconstructor
from ..records import atomic_write
from ..render import overlay, person_colour
from ..skeleton import BLAZEPOSE_TO_SMPL
from ..video import VideoWriter, open_clip

log = logging.getLogger(__name__)

Progress = Callable[[str, int, "int | None"], None]
"""Called with (stage, frames done, frames in all or None)."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run found: a Motion and the Evidence behind it for each person, and the run's own record."""

    motions: list[Motion]
    evidences: list[Evidence]
    info: dict[str, Any]
    body: Body


def reconstruct(clip: str | Path, **options: Any) -> list[Motion]:
    """Pose, shape and trajectory of every person in a clip, most seen first.

    Args:
        clip: a video file, an image, or a folder of numbered images.
        options: as of :func:`run`.

    Raises:
        VideoError: the clip cannot be read.
        NobodyFoundError: nobody was in view for long enough.
        UsageError, MissingAssetError: an option that does not fit, a body file that is not there.

    >>> people = reconstruct("clip.mp4", max_people=1)  # doctest: +SKIP
    >>> people[0].joints3d.shape  # doctest: +SKIP
    (230, 24, 3)
    """
    return run(clip, **options).motions


def run(
    clip: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    max_people: int | None = None,
    device: str = "auto",
    batch_size: int = 8,
    focal: float | None = None,
    fov: float | None = None,
    camera: str | Tensor | None = None,
    body: str = "open",
    body_path: str | Path | None = None,
    refine: bool = False,
    keypoints: str | Path | None = None,
    seed: int = 0,
    config: PipelineConfig | None = None,
    progress: Progress | None = None,
) -> Result:
    """Reconstruct the people of a clip and say how it went.

    Args:
        clip: a video file, an image, or a folder of numbered images.
        start, end: part of the clip to use, in seconds.
        max_people: keep the people seen longest; all by default.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
        batch_size: frames decoded and passed through the networks at a time.
        focal, fov: focal length in px, or field of view along the longer side in degrees.
        camera: camera matrix (3, 3) in px, or what :func:`kinflow.cameras.read_intrinsics` reads.
        body, body_path: "open", or a licensed model (smpl, smplh, smplx) and its file.
        refine: optimise pose, shape and trajectory once more under the training's losses.
        keypoints: 2D keypoints of another tool to use instead of kinflow's own detector
            (:func:`kinflow.perception.keypoints.read_keypoints`).
        seed: of the random draws behind ``joints3d_std``.
        config: further settings by part.
        progress: called as stages advance.

    Raises:
        VideoError, NobodyFoundError, UsageError, MissingAssetError: see :func:`reconstruct`.
    """
    config = config or PipelineConfig()
    if max_people is not None:
        if max_people < 1:
            raise UsageError(f"max_people: expected at least 1, got {max_people}.")
        config = dataclasses.replace(config, perception=dataclasses.replace(config.perception, max_people=max_people))
    if batch_size < 1:
        raise UsageError(f"batch_size: expected at least 1, got {batch_size}.")
    if camera is not None and (focal is not None or fov is not None):
        raise UsageError("focal, fov, intrinsics: expected one of them, got several. Leave the others out.")
    torch_device = find_device(device)
    model = load_body(body, body_path).to(torch_device)
    report = progress or (lambda stage, done, total: None)
    timings: dict[str, float] = {}

    reader = open_clip(clip, start=start, end=end, config=config.video)
    if isinstance(camera, (str, Path)):
        K = read_intrinsics(str(camera))
    elif camera is not None:
        K = camera
    else:
        K = intrinsics(reader.image_size, focal=focal, fov=fov)

    with _timed(timings, "load"):
        reconstructor = Reconstructor.load(body=model, device=torch_device)
        # What nobody reads is not computed: masks serve the refinement alone (a third of the landmark network's time).
        needed = dataclasses.replace(config.perception, masks=config.perception.masks and refine)
        perceiver = None if keypoints is not None else Perceiver(needed, torch_device)
    timestamps: list[np.ndarray] = []
    frame_ids: list[np.ndarray] = []
    timings["decode"] = timings["perceive"] = 0.0
    began = time.perf_counter()
    for batch in reader.batches(batch_size):
        timings["decode"] += time.perf_counter() - began
        timestamps.append(batch.timestamps)
        frame_ids.append(batch.frame_ids)
        with _timed(timings, "perceive"):
            if perceiver is not None:
                perceiver.update(batch.images, batch.timestamps, batch.frame_ids)
        report("perceive", sum(map(len, frame_ids)), reader.num_frames)
        began = time.perf_counter()
    all_times, all_ids = np.concatenate(timestamps), np.concatenate(frame_ids)
    report("perceive", len(all_ids), len(all_ids))
    if reader.damage:
        log.warning("%s", reader.damage)

    with _timed(timings, "perceive"):
        evidences: list[Evidence] = []
        if perceiver is not None:
            evidences = perceiver.finish()
        elif keypoints is not None:
            evidences = read_keypoints(keypoints, reader.image_size, all_times, all_ids)[:max_people]
    if not evidences:
        raise NobodyFoundError(
            f"{clip}: nobody was found in {len(all_ids)} frames. Use a clip in which a person is at least 60 px tall "
            "and in view for a while, or pass 2D keypoints with --keypoints."
        )
    with _timed(timings, "reconstruct"):
        report("reconstruct", 0, len(all_ids))
        motions = reconstructor.reconstruct(evidences, K, seed=seed)
        report("reconstruct", len(all_ids), len(all_ids))
    if refine:
        with _timed(timings, "refine"):
            motions = reconstructor.refine(
                motions, evidences, config.refine, config.losses, lambda d, n: report("refine", d, n), seed
            )
    info = _describe(clip, reader, all_times, K, motions, reconstructor, model, timings, config, seed)
    return Result(motions, evidences, info, model)


def load_body(name: str, path: str | Path | None) -> Body:
    """The open body, or a licensed one from the user's file.

    Raises:
        UsageError: a licensed body without its file, or a file for the open body.
    """
    if name == "open":
        if path is not None:
            raise UsageError(
                "body_path: the open body is packaged. Say which model the file is: --body smpl|smplh|smplx."
            )
        return Body.open()
    if path is None:
        raise UsageError(f"body: {name} is licensed and not part of kinflow. Pass your copy with --body-path FILE.")
    return Body.from_file(path, model_type=name)


def write(
    result: Result,
    clip: str | Path,
    out: str | Path,
    *,
    draw: bool = True,
    start: float | None = None,
    end: float | None = None,
    batch_size: int = 8,
    config: PipelineConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write person00.npz, person01.npz, ..., overlay.mp4 and run.json to ``out``; all of them or none.

    Results of an earlier run in ``out`` are replaced. Returns what run.json holds.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    out = Path(out)
    info = dict(result.info, timings=dict(result.info["timings"]))
    with staging(out) as stage:
        for motion, person in zip(result.motions, info["people"], strict=True):
            motion.save(stage / person["file"])
        if draw:
            with _timed(info["timings"], "overlay"):
                write_overlay(
                    result, clip, stage / "overlay.mp4", start=start, end=end, batch_size=batch_size, config=config,
                    progress=progress,
                )  # fmt: skip
        total = sum(info["timings"].values())
        info["timings"]["total"] = total
        info["frames_per_second"] = round(info["clip"]["frames"] / total, 2)
        info["timings"] = {k: round(v, 3) for k, v in info["timings"].items()}
        info["files"] = [p["file"] for p in info["people"]] + (["overlay.mp4"] if draw else []) + ["run.json"]
        with atomic_write(stage / "run.json") as stream:
            stream.write((json.dumps(info, indent=1) + "\n").encode())
    return info


def write_overlay(
    result: Result,
    clip: str | Path,
    path: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    batch_size: int = 8,
    config: PipelineConfig | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw each person's mesh over the frames, nearer people in front, and encode the video with the clip's own times."""
    config = config or PipelineConfig()
    report = progress or (lambda stage, done, total: None)
    reader = open_clip(clip, start=start, end=end, config=config.video)
    body, K = result.body, torch.from_numpy(result.motions[0].K)
    faces = body.faces  # drawn where they are
    rows = [{int(f): t for t, f in enumerate(m.frame_ids)} for m in result.motions]
    done = 0
    with VideoWriter(path, reader.image_size, reader.fps, config.video) as writer:
        for batch in reader.batches(batch_size):
            skinned: list[dict[int, Tensor]] = []
            for motion, lookup in zip(result.motions, rows, strict=True):
                wanted = [lookup[int(f)] for f in batch.frame_ids if int(f) in lookup]
                vertices = torch.from_numpy(motion.vertices(wanted, body)) if wanted else torch.empty(0)
                skinned.append({int(motion.frame_ids[t]): v for t, v in zip(wanted, vertices, strict=True)})
            for image, frame_id, timestamp in zip(batch.images, batch.frame_ids, batch.timestamps, strict=True):
                present = [(s[int(frame_id)], person_colour(i)) for i, s in enumerate(skinned) if int(frame_id) in s]
                drawn = overlay(image, present, faces, K, config.render) if present else image
                writer.write(drawn, timestamp)
                done += 1
            report("overlay", done, reader.num_frames)
    report("overlay", done, done)


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A temporary folder inside ``out`` whose files move into ``out`` when the block ends well, and vanish otherwise.

    Raises:
        OutputError: the place cannot be written, or the disk is full.
    """
    stage = _make_stage(out)
    try:
        yield stage
        for stale in [*out.glob("person[0-9][0-9]*.npz"), out / "overlay.mp4", out / "run.json"]:
            stale.unlink(missing_ok=True)
        for path in sorted(stage.iterdir()):
            path.replace(out / path.name)
    except OSError as error:
        if isinstance(error, KinflowError):
            raise
        raise OutputError(
            f"{out}: could not be written ({error.strerror}). Free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def check_writable(out: str | Path) -> None:
    """Find out before the work whether its results can be written; leaves nothing behind.

    Raises:
        OutputError: ``out`` is a file, or a folder that cannot be made or written.
    """
    out = Path(out)
    missing = [p for p in (out, *out.parents) if not p.exists()]
    shutil.rmtree(_make_stage(out))
    for folder in missing:
        folder.rmdir()


def _make_stage(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".kinflow-", dir=out))
    except OSError as error:
        raise OutputError(f"{out}: cannot write here ({error.strerror}). Choose another folder with -o.") from error


@contextlib.contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - began


def fit_to_keypoints(motion: Motion, body: Body, min_confidence: float = 0.5) -> dict[str, float | int | None]:
    """How well the reprojected body sits on the confident keypoints of its twelve limb joints, over the observed frames.

    Returns:
        ``pck``: share within 0.2 of the torso (mid-shoulder to mid-hip of the keypoints, px); ``pck_points``: how many
        counted; ``reprojection_px``: their median distance. None where no keypoint is confident.
    """
    rows = motion.observed
    limbs = sorted(BLAZEPOSE_TO_SMPL)
    with torch.no_grad():
        transl = torch.from_numpy(motion.transl[rows])
        parameters = (torch.from_numpy(motion.betas)[None], motion.pose_rotmat(rows), transl)
        landmarks = body.landmarks(*(p.to(body.device) for p in parameters)).cpu()
    pixels = project(landmarks, torch.from_numpy(motion.K))[:, limbs]
    keypoints = torch.from_numpy(motion.keypoints2d[rows])
    confidence = torch.from_numpy(motion.confidence[rows])[:, limbs]
    correct, counted = pck(pixels, keypoints[:, limbs], confidence, torso_length(keypoints), 0.2, min_confidence)
    if not counted.any():
        return {"pck": None, "pck_points": 0, "reprojection_px": None}
    distance = (pixels - keypoints[:, limbs]).norm(dim=-1)[confidence >= min_confidence]
    return {
        "pck": round(float(correct.sum() / counted.sum()), 4),
        "pck_points": int(counted.sum()),
        "reprojection_px": round(float(distance.median()), 2),
    }


def _describe(
    clip: str | Path,
    reader: Any,
    timestamps: np.ndarray,
    K: Tensor,
    motions: list[Motion],
    reconstructor: Reconstructor,
    body: Body,
    timings: dict[str, float],
    config: PipelineConfig,
    seed: int,
) -> dict[str, Any]:
    """The content of run.json."""
    people = []
    for i, motion in enumerate(motions):
        people.append(
            {
                "person_id": motion.person_id,
                "file": f"person{i:02d}.npz",
                "frames": len(motion),
                "observed": int(motion.observed.sum()),
                "first_s": round(float(motion.timestamps[0]), 3),
                "last_s": round(float(motion.timestamps[-1]), 3),
                "height_m": round(float(body.height(torch.from_numpy(motion.betas).to(body.device))), 3),
                "distance_m": round(float(np.median(motion.joints3d[motion.observed, 0, 2])), 2),
                **fit_to_keypoints(motion, body),
            }
        )
    return {
        "schema": "kinflow.run/1",
        "versions": {
            "kinflow": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "clip": {
            "path": str(clip),
            "image_size": list(reader.image_size),
            "frames": len(timestamps),
            "fps": round(float(reader.fps), 4),
            "start_s": round(float(timestamps[0]), 4),
            "end_s": round(float(timestamps[-1]), 4),
            "damage": reader.damage,
        },
        "camera": {"K": [[round(float(v), 4) for v in row] for row in K]},
        "body": motions[0].body,
        "weights": reconstructor.weights,
        "config": to_dict(config),
        "config_hash": config_hash(config),
        "seed": seed,
        "device": str(body.device),
        "timings": timings,
        "people": people,
    }
