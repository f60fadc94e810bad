"""Clip in, moving people out: perceive, reconstruct, and say how it went."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from ..body import Body
from ..cameras import Camera
from ..clip import Clip
from ..config import PerceptionConfig, VideoConfig
from ..devices import find_device, give_back_memory
from ..errors import NobodyFoundError, UsageError, check_type
from ..evidence import Evidence
from ..motion import Motion
from ..perception import Perceiver, Refused, read_keypoints, watch
from ..reconstruction import Reconstructor
from ..world import World, locate, standing
from .options import Progress, RunOptions
from .results import Result, describe, timed

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RunKeywords

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass
class Loaded:
    """Networks that runs have loaded, for those that follow them; empty to begin with."""

    perceivers: dict[tuple[PerceptionConfig, torch.device], Perceiver] = dataclasses.field(default_factory=dict)
    reconstructors: dict[tuple[str, str, str, torch.device], Reconstructor] = dataclasses.field(default_factory=dict)


def _spelt_out(function: F) -> F:
    """Give ``function`` the signature that its ``**keywords`` stand for: one keyword a field of :class:`RunOptions`."""
    signature = inspect.signature(function)
    kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    fields = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(RunOptions).parameters.values()]
    function.__signature__ = signature.replace(parameters=[*kept, *fields])  # type: ignore[attr-defined]
    return function


@_spelt_out
def reconstruct(
    path: str | os.PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    camera: Camera = None,
    progress: Progress | None = None,
    **options: Unpack[RunKeywords],
) -> list[Motion]:
    """Pose, shape and trajectory of every person in a clip, most seen first.

    Args:
        path: a video file, an image, or a folder of numbered images.
        start, end, camera: as of :meth:`kinflow.Clip.open`.
        progress: called as stages advance.
        options: the fields of :class:`kinflow.RunOptions`.

    Raises:
        VideoError: the clip cannot be read.
        NobodyFoundError: nobody was in view for long enough.
        UsageError, MissingAssetError: an option that does not fit, a body file that is not there.

    >>> people = reconstruct("clip.mp4", max_people=1)  # doctest: +SKIP
    >>> people[0].joints3d.shape  # doctest: +SKIP
    (230, 24, 3)
    """
    chosen = RunOptions(**options)
    clip = Clip.open(path, start=start, end=end, camera=camera, config=chosen.config.video)
    return run(clip, chosen, progress=progress).motions


@_spelt_out
def run(
    clip: Clip | str | os.PathLike[str],
    options: RunOptions | None = None,
    *,
    progress: Progress | None = None,
    loaded: Loaded | None = None,
    **keywords: Unpack[RunKeywords],
) -> Result:
    """Reconstruct the people of a clip and say how it went.

    Args:
        clip: an open clip, or the path of one to be read whole and without a known camera.
        options: how; fields given as keywords replace those of the record.
        progress: called as stages advance.
        loaded: keep what is loaded for the next run, or take it from the last: the same record for all of them.

    Raises:
        VideoError, NobodyFoundError, UsageError, MissingAssetError: see :func:`reconstruct`.

    >>> result = run(Clip.open("clip.mp4", end=4.0), refine=True)  # doctest: +SKIP
    >>> result.write("out")  # doctest: +SKIP
    """
    options = RunOptions() if options is None else options
    check_type("options", options, RunOptions, "Give single options as keywords.")
    options = dataclasses.replace(options, **keywords)
    clip = clip if isinstance(clip, Clip) else Clip.open(clip, config=options.config.video)
    options = _settled(options, clip)
    device = find_device(options.device)
    # Networks draw random weights before they load their own: the caller's random numbers shall not notice.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return _run(clip, options, device, progress, Loaded() if loaded is None else loaded)


def _run(clip: Clip, options: RunOptions, device: torch.device, progress: Progress | None, loaded: Loaded) -> Result:
    timings: dict[str, float] = {}
    with timed(timings, "load"):
        reconstructor = _reconstructor(options, device, loaded)
    seen = _evidences(clip, options, device, timings, progress, loaded)
    evidences = seen.evidences
    if clip.damage:
        log.warning("%s", clip.damage)
    if not evidences:
        raise NobodyFoundError(f"{clip.path}: {_why_nobody(seen, len(clip.frame_ids), options)}")
    give_back_memory()
    motions = _motions(evidences, clip, options, reconstructor, timings, progress)
    give_back_memory()
    world = None
    if options.world:
        motions, world = _placed(motions, clip, options, reconstructor.body, timings, progress)
    info = describe(
        clip, options, motions, reconstructor.body, reconstructor.weights, seen.runtime, timings, world, seen.refused
    )
    return Result(clip, options, motions, evidences, reconstructor.body, info)


def _reconstructor(options: RunOptions, device: torch.device, loaded: Loaded) -> Reconstructor:
    key = (options.body, str(options.body_path), str(options.weights), device)
    if key not in loaded.reconstructors:
        body = Body.open() if options.body_path is None else Body.from_file(options.body_path, model_type=options.body)
        loaded.reconstructors[key] = Reconstructor.load(options.weights, body.to(device), device)
    return loaded.reconstructors[key]


class _Seen(NamedTuple):
    """What was seen of each person; who is taken for none; how long at most, in s, those were seen who are left out for it; and
    what ran the networks.
    """

    evidences: list[Evidence]
    refused: Sequence[Refused] = ()
    too_short_s: float = 0.0
    runtime: str | None = None


def _settled(options: RunOptions, clip: Clip) -> RunOptions:
    """The options with every setting in its one place, ``config``, as run.json records them."""
    if options.config.video not in (clip.config, VideoConfig()):
        raise UsageError("config.video: other settings than the clip was opened with. Give them to Clip.open.")
    perception = options.config.perception
    if options.max_people is not None:
        perception = dataclasses.replace(perception, max_people=options.max_people)
    config = dataclasses.replace(options.config, video=clip.config, perception=perception)
    return dataclasses.replace(options, config=config)


def _evidences(
    clip: Clip,
    options: RunOptions,
    device: torch.device,
    timings: dict[str, float],
    progress: Progress | None,
    loaded: Loaded,
) -> _Seen:
    """What is seen of each person, by kinflow's own eyes or by another tool's."""
    perception = options.config.perception

    def report(done: int, total: int | None) -> None:
        if progress is not None:
            progress("perceive", done, total)

    began, waited = time.perf_counter(), clip.waited_s
    if options.keypoints is None:
        # What nobody reads is not computed: masks and part maps of every frame serve the refinement alone; they would add 5
        # and 11 ms to the 45 that a frame takes.
        needed: PerceptionConfig = dataclasses.replace(perception, masks=perception.masks and options.refine)
        if options.refine:
            needed = dataclasses.replace(needed, parts_interval_s=0.0)
        again = loaded.perceivers.get((needed, device))
        perceiver = watch(clip, needed, device, options.batch_size, report, again)
        loaded.perceivers[needed, device] = perceiver
        seen = _Seen(perceiver.finish(), perceiver.refused, perceiver.too_short_s, perceiver.runtime)
    else:
        done = 0
        for batch in clip.batches(options.batch_size):
            done += len(batch)
            report(done, clip.num_frames)
        seen = _Seen(read_keypoints(options.keypoints, clip)[: perception.max_people])
    report(len(clip.frame_ids), len(clip.frame_ids))
    timings["decode"] = clip.waited_s - waited
    timings["perceive"] = time.perf_counter() - began - timings["decode"]
    return seen


def _why_nobody(seen: _Seen, frames: int, options: RunOptions) -> str:
    too_short_s = seen.too_short_s
    if options.keypoints is not None:
        return f"{options.keypoints} shows nobody for long enough in its {frames} frames. Check that it belongs to the clip."
    if seen.refused:
        one = max(seen.refused, key=lambda r: r.observed)
        return (
            f"nobody was found in {frames} frames but what is taken for no person: from {one.first_s:.2f} to {one.last_s:.2f} s, "
            f"{one.why}. Set --set perception.least_agreement=0 to keep it."
        )
    if too_short_s:
        return (
            f"nobody was in view for long enough: {too_short_s:.2f} s at most, and perception.min_duration_s asks for "
            f"{options.config.perception.min_duration_s:g} s. Set it lower with --set perception.min_duration_s="
            f"{max(0.01, 0.9 * too_short_s):.2f}, or use more of the clip."
        )
    return (
        f"nobody was found in {frames} frames. Use a clip in which a person is at least 60 px tall and in view for a "
        "while, or pass 2D keypoints with --keypoints."
    )


def _motions(
    evidences: Sequence[Evidence],
    clip: Clip,
    options: RunOptions,
    reconstructor: Reconstructor,
    timings: dict[str, float],
    progress: Progress | None,
) -> list[Motion]:
    """The one place that calls the reconstruction."""
    frames = len(clip.frame_ids)
    report = progress or (lambda stage, done, total: None)
    with timed(timings, "reconstruct"):
        report("reconstruct", 0, frames)
        motions = reconstructor.reconstruct(evidences, clip.K, seed=options.seed)
        report("reconstruct", frames, frames)
    if options.refine:
        with timed(timings, "refine"):
            for i, evidence in enumerate(evidences):  # one by one, so that what a fit replaces is let go

                def fitted(done: int, total: int, before: int = i) -> None:
                    report("refine", before * total + done, len(evidences) * total)

                motions[i : i + 1] = reconstructor.refine(
                    motions[i : i + 1], [evidence], options.config.refine, options.config.losses, fitted, options.seed
                )
                give_back_memory()
    return motions


def _placed(
    motions: list[Motion],
    clip: Clip,
    options: RunOptions,
    body: Body,
    timings: dict[str, float],
    progress: Progress | None,
) -> tuple[list[Motion], World]:
    """Everybody in the world."""
    report = progress or (lambda stage, done, total: None)
    frames = len(clip.frame_ids)
    with timed(timings, "world"):
        report("world", 0, frames)
        world = locate(motions, clip, camera=options.camera_motion, up=options.up, body=body)
        give_back_memory()
        for i, motion in enumerate(standing(motions, world, body=body)):
            motions[i] = motion  # what is replaced is let go
            give_back_memory()
        report("world", frames, frames)
    return motions, world
