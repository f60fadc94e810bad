"""What a run found, and the files it becomes: records of people, overlay, run.json; all of them or none."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import __version__
from ..body import Body
from ..cameras import project
from ..clip import Clip
from ..config import config_hash, to_dict
from ..errors import check_path
from ..evidence import Evidence
from ..flow.normal import usualness
from ..formats.exports import check_formats
from ..formats.exports import export as export_motions
from ..metrics import pck, torso_length
from ..motion import Motion
from ..perception import Refused
from ..records import atomic_write
from ..skeleton import BLAZEPOSE_TO_SMPL
from ..world import World
from .layouts import Panels, check_layout
from .options import Progress, RunOptions
from .overlay import write_overlay
from .page import write_page
from .staging import staging

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    from .layouts import Layout

    class WriteKeywords(TypedDict, total=False):
        """What :meth:`Result.write` takes beside the folder and the progress."""

        draw: bool
        layout: Layout
        keypoints: bool
        ground: bool
        view: bool
        export: str | Sequence[str]


_PIECE = 512  # frames that the body is posed in at once


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run found.

    Attributes:
        clip: what it looked at.
        options: how.
        motions: one Motion a person, most seen first.
        evidences: the Evidence behind each.
        body: the body that the motions' parameters belong to, on the run's device.
        info: the run's own record, the content of run.json (docs/output.md).
    """

    clip: Clip
    options: RunOptions
    motions: list[Motion]
    evidences: list[Evidence]
    body: Body
    info: dict[str, Any]

    def write(
        self,
        out: str | Path,
        *,
        draw: bool = True,
        layout: Layout = "overlay",
        keypoints: bool = False,
        view: bool = True,
        ground: bool = False,
        export: str | Sequence[str] = (),
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Write person00.npz, person01.npz, ..., overlay.mp4 (with ``draw``), view.html (with ``view``) and run.json to ``out``;
        all or none.

        Results of an earlier run in ``out`` are replaced. Returns what run.json holds.

        Args:
            out: the folder.
            draw: whether the overlay is drawn.
            layout: what stands beside it in the picture: "overlay" (nothing), "original-overlay", "overlay-side",
                "side-by-side" (the frame as it was, the overlay, the people from the side).
            keypoints: draw the detected 2D keypoints over it.
            view: whether view.html is written, people in 3D beside the overlay (docs/view.md).
            ground: draw a grid of metres on the ground into it.
            export: formats to write as well, by :func:`kinflow.formats.exports.export`: ``"glb,bvh"`` or a list.
            progress: called as the overlay advances.

        Raises:
            UsageError: an unknown format or layout.
            MissingAssetError: a format's library is not installed.
            OutputError: the folder cannot be written, or the disk is full.
        """
        out = check_path("out", out)
        formats = check_formats(export) if export else ()
        check_layout(layout)
        info = dict(self.info, timings=dict(self.info["timings"]))
        with staging(out) as stage:
            for motion, person in zip(self.motions, info["people"], strict=True):
                motion.save(stage / person["file"])
            if draw:
                with timed(info["timings"], "overlay"):
                    write_overlay(
                        stage / "overlay.mp4", self.clip, self.motions, self.body, config=self.options.config.render,
                        layout=layout, keypoints=keypoints, batch_size=self.options.batch_size, ground=ground,
                        progress=progress,
                    )  # fmt: skip
            names = [Path(p["file"]).stem for p in info["people"]]
            if view:
                with timed(info["timings"], "view"):
                    write_page(
                        stage / "view.html", self.motions, self.body, title=self.clip.path.name, names=names,
                        overlay=stage / "overlay.mp4" if draw else None, begin=float(self.clip.timestamps[0]),
                        columns=Panels.of(layout, self.clip.image_size).overlay_columns,
                    )  # fmt: skip
            exported: list[str] = []
            if formats:
                with timed(info["timings"], "export"):
                    paths = export_motions(self.motions, stage, formats, body=self.body, names=names)
                    exported = [path.name for path in paths]
            total = sum(info["timings"].values())
            info["timings"]["total"] = total
            info["frames_per_second"] = round(info["clip"]["frames"] / total, 2)
            info["timings"] = {k: round(v, 3) for k, v in info["timings"].items()}
            info["files"] = [p["file"] for p in info["people"]] + (["overlay.mp4"] if draw else [])
            info["files"] += ["view.html"] if view else []
            info["files"] += [*exported, "run.json"]
            with atomic_write(stage / "run.json") as stream:
                stream.write((json.dumps(info, indent=1) + "\n").encode())
        return info


@contextlib.contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds of the block to ``timings[stage]``."""
    began = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - began


def fit_to_keypoints(
    motion: Motion, body: Body, min_confidence: float = 0.5, threshold: float = 0.2
) -> dict[str, float | int | None]:
    """How well the reprojected body sits on the confident keypoints of its twelve limb joints, over the observed frames.

    Returns:
        ``pck``: share within ``threshold`` of the torso (mid-shoulder to mid-hip of the keypoints, px); ``pck_points``: how many
        counted; ``reprojection_px``: their median distance. None where no keypoint is confident.
    """
    rows = motion.observed
    limbs = sorted(BLAZEPOSE_TO_SMPL)
    pieces = [
        motion.keypoints3d("blazepose33", piece, body)[:, limbs]
        for piece in np.array_split(np.flatnonzero(rows), len(motion) // _PIECE + 1)
    ]
    pixels = project(torch.from_numpy(np.concatenate(pieces)), torch.tensor(motion.K))
    keypoints = torch.from_numpy(motion.keypoints2d[rows])
    confidence = torch.from_numpy(motion.confidence[rows])[:, limbs]
    correct, counted = pck(pixels, keypoints[:, limbs], confidence, torso_length(keypoints), threshold, min_confidence)
    if not counted.any():
        return {"pck": None, "pck_points": 0, "reprojection_px": None}
    distance = (pixels - keypoints[:, limbs]).norm(dim=-1)[confidence >= min_confidence]
    return {
        "pck": round(float(correct.sum() / counted.sum()), 4),
        "pck_points": int(counted.sum()),
        "reprojection_px": round(float(distance.median()), 2),
    }


def doubts(motion: Motion, min_confidence: float = 0.5) -> dict[str, float]:
    """What the reprojection does not show, told by the observed frames themselves.

    Returns:
        ``plausible``: share of them whose pose is among the 99 % most usual ones to the prior
        (:func:`~kinflow.flow.normal.usualness`); ``low_confidence``: share in which the limbs' keypoints have a
        mean confidence below ``min_confidence``.
    """
    confidence = motion.confidence[motion.observed][:, sorted(BLAZEPOSE_TO_SMPL)].mean(-1)
    return {
        "plausible": round(float((usualness(motion.z[motion.observed]) > 0.01).mean()), 4),
        "low_confidence": round(float((confidence < min_confidence).mean()), 4),
    }


def describe(
    clip: Clip,
    options: RunOptions,
    motions: Sequence[Motion],
    body: Body,
    weights: Mapping[str, Any],
    runtime: str | None,
    timings: dict[str, float],
    world: World | None = None,
    refused: Sequence[Refused] = (),
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
                "height_m": round(float(body.height(torch.tensor(motion.betas).to(body.device))), 3),
                "distance_m": round(float(np.median(motion.joints3d[motion.observed, 0, 2])), 2),
                **fit_to_keypoints(motion, body),
                **doubts(motion),
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
            "path": str(clip.path),
            "image_size": list(clip.image_size),
            "frames": len(clip.timestamps),
            "fps": round(float(clip.fps), 4),
            "start_s": round(float(clip.timestamps[0]), 4),
            "end_s": round(float(clip.timestamps[-1]), 4),
            "damage": clip.damage,
            "decoder": clip.decoder,
        },
        "camera": {"K": [[round(float(v), 4) for v in row] for row in clip.K]},
        "world": None if world is None else world.describe(),
        "body": motions[0].body,
        "weights": dict(weights),
        "config": to_dict(options.config),
        "config_hash": config_hash(options.config),
        "seed": options.seed,
        "device": str(body.device),
        "runtime": runtime,
        "timings": timings,
        "people": people,
        "refused": [
            {
                "first_s": round(one.first_s, 3),
                "last_s": round(one.last_s, 3),
                "observed": one.observed,
                "box_xyxy": one.box_xyxy,
                "why": one.why,
            }
            for one in refused
        ],
    }
