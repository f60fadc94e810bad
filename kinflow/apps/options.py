"""What can be chosen about a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..config import PipelineConfig
from ..errors import UsageError, check_type
from ..world import check_camera_motion, direction

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    class RunKeywords(TypedDict, total=False):
        """The fields of :class:`RunOptions` as keywords."""

        max_people: int | None
        device: str
        batch_size: int
        body: BodyName
        body_path: str | Path | None
        weights: str | Path | None
        refine: bool
        keypoints: str | Path | None
        seed: int
        world: bool
        camera_motion: str | Path
        up: tuple[float, float, float] | None
        config: PipelineConfig


LARGEST_BATCH = 1024
"""Frames: 2.6 GiB of 1280x720 px, beyond which nothing gets faster."""

BodyName = Literal["open", "smpl", "smplh", "smplx"]

Progress = Callable[[str, int, "int | None"], None]
"""Called with (stage, frames done, frames in all or None)."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of :func:`kinflow.run`.

    Attributes:
        max_people: keep the people seen longest; None: as ``config.perception.max_people`` says, everyone by default.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
        batch_size: frames decoded and passed through the networks at a time.
        body, body_path: "open", or a licensed model (smpl, smplh, smplx) and its file.
        weights: the reconstructor's, as ``kinflow-train reconstructor`` or ``kinflow-train adapt`` wrote them; None: the
            packaged ones.
        refine: optimise pose, shape and trajectory once more under the training's losses.
        keypoints: 2D keypoints of another tool to use instead of kinflow's own detector
            (:func:`kinflow.perception.read_keypoints`).
        seed: of the random draws behind ``joints3d_std``.
        world: put people into the world (:func:`kinflow.place`), for their files and exports.
        camera_motion: how the camera moves, for the world: "auto", "static", "moving", or a file of its poses (COLMAP text,
            TUM, 3DPW's layout).
        up: which way is up in the first frame's camera axes, where that is known.
        config: further settings by part. A :class:`kinflow.Clip` that is open already brings its own ``video`` part.

    Raises:
        UsageError: a number out of range or none, another kind of value, a licensed body without its file, or a file for the open body.
    """

    max_people: int | None = None
    device: str = "auto"
    batch_size: int = 8
    body: BodyName = "open"
    body_path: str | Path | None = None
    weights: str | Path | None = None
    refine: bool = False
    keypoints: str | Path | None = None
    seed: int = 0
    world: bool = True
    camera_motion: str | Path = "auto"
    up: tuple[float, float, float] | None = None
    config: PipelineConfig = dataclasses.field(default_factory=PipelineConfig)

    def __post_init__(self) -> None:
        check_type("config", self.config, PipelineConfig)
        check_type("refine", self.refine, bool)
        check_type("world", self.world, bool)
        check_camera_motion(self.camera_motion)
        if self.up is not None:
            direction(self.up)
        if not self.world and (self.up is not None or str(self.camera_motion) != "auto"):
            raise UsageError(
                "world: expected the world with camera_motion or up, which nothing else asks for. Leave one out."
            )
        for name in ("max_people", "batch_size", "seed"):
            if name != "max_people" or self.max_people is not None:
                check_type(name, getattr(self, name), Integral)
        if self.max_people is not None and self.max_people < 1:
            raise UsageError(f"max_people: expected at least 1, got {self.max_people}.")
        if not 1 <= self.batch_size <= LARGEST_BATCH:
            raise UsageError(f"batch_size: expected 1 to {LARGEST_BATCH} frames, got {self.batch_size}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed: expected a whole number from 0 on, below 2**63, got {self.seed}.")
        if self.body == "open" and self.body_path is not None:
            raise UsageError(
                "body_path: the open body is packaged. Say which model the file is: --body smpl|smplh|smplx."
            )
        if self.body != "open" and self.body_path is None:
            raise UsageError(
                f"body: {self.body} is licensed and not part of kinflow. Pass your copy with --body-path FILE."
            )
