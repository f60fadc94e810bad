"""What ``kinflow-bench 3dpw`` does: says what is missing, puts system, data and protocol together, and measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ..body import Body
from ..config import PipelineConfig
from ..datasets.threedpw import HOME, SPLITS, ThreeDPW
from ..devices import find_device
from ..errors import MissingAssetError, UsageError
from ..evaluation.benchmark import Summary, run_benchmark
from ..evaluation.bodies import Bodies
from ..evaluation.protocols import Protocol, find_protocol
from ..evaluation.report import can_plot
from ..evaluation.sightings import Eyes, FileEyes, Poses2dEyes, VideoEyes
from ..evaluation.systems import KinflowSystem, System, TruthSystem
from ..reconstruction import Reconstructor
from .options import LARGEST_BATCH, Progress

SYSTEMS = ("kinflow", "truth", "truth-neutral")


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Options of a benchmark on a data set of sequences.

    Attributes:
        root, split: the data set's folder, and which part of it.
        out: folder of the results; results that are there are gone on from.
        protocol: a name of :data:`kinflow.evaluation.PROTOCOLS`. joints: "all" of its joints, or its twelve "limbs".
        system: one of :data:`SYSTEMS`.
        evidence: "video", "poses2d", or a folder with one keypoint file a sequence.
        body_path: folder with SMPL's files and the joint regressor.
        device: as of :func:`kinflow.devices.find_device`.
        batch_size: frames decoded at a time. batch_clips: sequences that go through the networks together.
        limit: only so many sequences.
        plots: whether to draw pictures.
        config: of perception.

    Raises:
        UsageError: numbers out of range, an unknown split or protocol.
    """

    root: Path
    out: Path
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
        if self.split not in SPLITS:
            raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}.")
        if not 1 <= self.batch_size <= LARGEST_BATCH:
            raise UsageError(f"batch_size: expected 1 to {LARGEST_BATCH} frames, got {self.batch_size}.")
        if self.batch_clips < 1:
            raise UsageError(f"batch_clips: expected at least 1, got {self.batch_clips}.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit: expected at least 1, got {self.limit}.")
        if self.system not in SYSTEMS:
            raise UsageError(f"system: expected one of {', '.join(SYSTEMS)}, got {self.system!r}.")
        find_protocol(self.protocol, self.joints)


def missing(options: BenchOptions) -> list[str]:
    """What a run lacks, all of it at once, each with where it is to be had."""
    protocol = find_protocol(options.protocol, options.joints)
    lacks = []
    if not (options.root / "sequenceFiles" / options.split).is_dir():
        lacks.append(
            f"{options.root / 'sequenceFiles' / options.split}: sequenceFiles.zip from {HOME} (behind a licence form)"
        )
    if options.system == "kinflow" and options.evidence == "video" and not (options.root / "imageFiles").is_dir():
        lacks.append(f"{options.root / 'imageFiles'}: imageFiles.zip from {HOME}; --evidence poses2d needs no images")
    lacks += Bodies(options.body_path).missing(protocol, neutral=options.system == "truth-neutral")
    if options.plots and not can_plot():
        lacks.append("matplotlib for the plots: pip install 'kinflow[bench]', or --no-plots")
    return lacks


def bench_3dpw(
    options: BenchOptions, progress: Progress | None = None, tell: Callable[[str], None] | None = None
) -> Summary:
    """Measure on 3DPW.

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
    protocol = find_protocol(options.protocol, options.joints)
    device = find_device(options.device)
    bodies = Bodies(options.body_path, device)
    system = _system(options, protocol, bodies, progress)
    data = ThreeDPW(options.root, options.split, images=system.needs_images)
    if tell is not None:
        for line in _up_front(options, protocol, data):
            tell(line)
    return run_benchmark(
        data, options.split, system, protocol, bodies, options.out, limit=options.limit, batch_clips=options.batch_clips,
        progress=progress,
    )  # fmt: skip


def _system(options: BenchOptions, protocol: Protocol, bodies: Bodies, progress: Progress | None) -> System:
    if options.system.startswith("truth"):
        return TruthSystem(protocol, bodies, options.system == "truth-neutral")
    device = bodies.device
    body = Body.open() if options.body_path is None else bodies.smpl("neutral")
    reconstructor = Reconstructor.load(body=body.to(device), device=device)
    eyes: Eyes
    if options.evidence == "video":
        report = None if progress is None else lambda done, total: progress("perceive", done, total)
        eyes = VideoEyes(options.config.perception, device, options.batch_size, report)
    elif options.evidence == "poses2d":
        eyes = Poses2dEyes()
    else:
        eyes = FileEyes(Path(options.evidence))
    return KinflowSystem(reconstructor, eyes)


def _up_front(options: BenchOptions, protocol: Protocol, data: ThreeDPW) -> list[str]:
    lines = [protocol.describe()]
    if data.missing:
        known = len(data.sequences) + len(data.missing)
        lines.append(
            f"{len(data.missing)} of {known} sequences of {options.split} are not there: {', '.join(data.missing)}."
        )
    if protocol.mesh is None and options.system == "kinflow" and options.body_path is None:
        lines.append(
            "predicted are the open body's 24 joints, which lie a little off SMPL's: the table says where (bone lengths); "
            "--body-path predicts on SMPL itself."
        )
    return lines
