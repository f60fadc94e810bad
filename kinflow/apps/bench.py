"""What ``kinflow-bench 3dpw`` and ``emdb`` do: say what is missing, put system, data and protocol together, and measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ..body import Body
from ..config import PipelineConfig
from ..datasets import emdb, threedpw
from ..datasets.recording import DataSet
from ..devices import find_device
from ..errors import MissingAssetError, UsageError
from ..evaluation.baselines import MeanPose, PerFrame, WorldLandmarks
from ..evaluation.benchmark import Summary, run_benchmark
from ..evaluation.bodies import Bodies
from ..evaluation.foreign import FileSystem
from ..evaluation.protocols import Protocol, find_protocol
from ..evaluation.report import can_plot
from ..evaluation.sightings import Eyes, FileEyes, Poses2dEyes, VideoEyes
from ..evaluation.systems import KinflowSystem, System, TruthSystem
from ..flow import load_flow
from ..reconstruction import Reconstructor
from .options import LARGEST_BATCH, Progress

SPLITS = {"3dpw": threedpw.SPLITS, "emdb": emdb.SUBSETS}
SYSTEMS = ("kinflow", "mean-pose", "world-landmarks", "per-frame", "truth", "truth-neutral")
"""And any folder with another tool's SMPL parameters (:mod:`kinflow.evaluation.foreign`)."""
SEEING = SYSTEMS[:4]
"""Those that look at evidence."""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Options of a benchmark on a data set of sequences.

    Attributes:
        root, out: the data set's folder, and that of the results; results that are there are gone on from.
        dataset: "3dpw" or "emdb".
        split: which part of it: of 3DPW "train", "validation" or "test"; of EMDB its benchmark "1" or "2", or "all".
        protocol: a name of :data:`kinflow.evaluation.protocols.OF_DATA_SET`. joints: "all" of its joints, or its "limbs".
        system: one of :data:`SYSTEMS`, or a folder with another tool's SMPL parameters.
        evidence: "video", "poses2d" (3DPW), or a folder with one keypoint file a sequence.
        body_path: folder with SMPL's files and the joint regressor.
        device: as of :func:`kinflow.devices.find_device`.
        batch_size: frames decoded at a time. batch_clips: sequences that go through the networks together.
        limit: only so many sequences.
        plots: whether to draw pictures.
        config: of perception.

    Raises:
        UsageError: numbers out of range, an unknown split, protocol or system.
    """

    root: Path
    out: Path
    dataset: Literal["3dpw", "emdb"] = "3dpw"
    split: str = "test"
    protocol: str = "wham"
    joints: str = "all"
    system: str = "kinflow"
    evidence: str = "video"
    body_path: Path | None = None
    device: str = "auto"
    batch_size: int = 8
    batch_clips: int = 1
    limit: int | None = None
    plots: bool = True
    config: PipelineConfig = dataclasses.field(default_factory=PipelineConfig)

    def __post_init__(self) -> None:
        if self.split not in SPLITS[self.dataset]:
            raise UsageError(f"split: expected one of {', '.join(SPLITS[self.dataset])}, got {self.split!r}.")
        if not 1 <= self.batch_size <= LARGEST_BATCH:
            raise UsageError(f"batch_size: expected 1 to {LARGEST_BATCH} frames, got {self.batch_size}.")
        if self.batch_clips < 1:
            raise UsageError(f"batch_clips: expected at least 1, got {self.batch_clips}.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit: expected at least 1, got {self.limit}.")
        if self.system not in SYSTEMS and not Path(self.system).is_dir():
            raise UsageError(
                f"system: expected one of {', '.join(SYSTEMS)}, or a folder of predictions, got {self.system!r}."
            )
        if self.dataset == "emdb" and self.evidence == "poses2d":
            raise UsageError(
                "evidence: EMDB's 2D points are the truth's projection, no detections. Use video or a folder."
            )
        self.rules()

    def rules(self) -> Protocol:
        """The protocol itself."""
        return find_protocol(self.protocol, self.joints, self.dataset)

    @property
    def looks(self) -> bool:
        """Whether frames are decoded."""
        return self.system in SEEING and self.evidence == "video"


def missing(options: BenchOptions) -> list[str]:
    """What a run lacks, all of it at once, each with where it is to be had."""
    lacks = []
    if options.dataset == "3dpw":
        files, images = options.root / "sequenceFiles" / options.split, options.root / "imageFiles"
        if not files.is_dir():
            lacks.append(f"{files}: sequenceFiles.zip from {threedpw.HOME} (behind a licence form)")
        if options.looks and not images.is_dir():
            lacks.append(f"{images}: imageFiles.zip from {threedpw.HOME}; --evidence poses2d needs no images")
    elif not options.root.is_dir():
        lacks.append(f"{options.root}: EMDB from {emdb.HOME} (behind a licence form)")
    lacks += Bodies(options.body_path).missing(options.rules(), neutral=options.system == "truth-neutral")
    if options.plots and not can_plot():
        lacks.append("matplotlib for the plots: pip install 'kinflow[bench]', or --no-plots")
    return lacks


def bench_sequences(
    options: BenchOptions, progress: Progress | None = None, tell: Callable[[str], None] | None = None
) -> Summary:
    """Measure on a data set of sequences.

    Args:
        options: what, how, and where to.
        progress: called with ("sequences" or "perceive", done, all).
        tell: called with each line that should be known up front.

    Raises:
        MissingAssetError: something is missing, all of it named.
        UsageError, FormatError, OutputError: as of :func:`kinflow.evaluation.benchmark.run_benchmark`.
    """
    if lacks := missing(options):
        raise MissingAssetError(f"missing: {'; '.join(lacks)}.")
    rules = options.rules()
    bodies = Bodies(options.body_path, find_device(options.device))
    system = _system(options, rules, bodies, progress)
    data: DataSet
    if options.dataset == "3dpw":
        data = threedpw.ThreeDPW(options.root, options.split, images=system.needs_images)
    else:
        data = emdb.Emdb(options.root, options.split, images=system.needs_images)
    if tell is not None:
        for line in _up_front(options, rules, data):
            tell(line)
    return run_benchmark(
        data, options.split, system, rules, bodies, options.out, limit=options.limit, batch_clips=options.batch_clips,
        progress=progress,
    )  # fmt: skip


def _system(options: BenchOptions, rules: Protocol, bodies: Bodies, progress: Progress | None) -> System:
    if options.system in ("truth", "truth-neutral"):
        return TruthSystem(rules, bodies, options.system == "truth-neutral")
    device = bodies.device
    body = (Body.open() if options.body_path is None else bodies.smpl("neutral")).to(device)
    if options.system not in SYSTEMS:
        return FileSystem(Path(options.system), body)
    eyes: Eyes
    if options.evidence == "video":
        report = None if progress is None else lambda done, total: progress("perceive", done, total)
        perception = options.config.perception
        if options.system == "world-landmarks":  # as the network gives them
            perception = dataclasses.replace(perception, mirror=False)
        eyes = VideoEyes(perception, device, options.batch_size, report)
    elif options.evidence == "poses2d":
        eyes = Poses2dEyes()
    else:
        eyes = FileEyes(Path(options.evidence))
    if options.system == "mean-pose":
        return MeanPose(eyes, body, load_flow())
    if options.system == "world-landmarks":
        return WorldLandmarks(eyes)
    reconstructor = Reconstructor.load(body=body, device=device)
    return PerFrame(eyes, reconstructor) if options.system == "per-frame" else KinflowSystem(reconstructor, eyes)


def _up_front(options: BenchOptions, rules: Protocol, data: DataSet) -> list[str]:
    lines = [rules.describe()]
    if data.missing:
        known = len(data.sequences) + len(data.missing)
        lines.append(
            f"{len(data.missing)} of {known} sequences of {options.split} are not there: {', '.join(data.missing)}."
        )
    if options.body_path is None and options.system in SEEING and options.system != "world-landmarks":
        lines.append(
            "predicted are the open body's 24 joints, which lie a little off SMPL's: the table says where (bone lengths); "
            "--body-path predicts on SMPL itself."
        )
    return lines
