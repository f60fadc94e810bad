"""Configurations of what turns a clip into motion: perception, video, rendering."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated

from .networks import FitLossConfig, RefineConfig
from .ranges import Config, Count, CountOrNone, Magnitude, Positive, Range, Share, Threads


@dataclasses.dataclass(frozen=True)
class PerceptionConfig(Config):
    """Detection, landmarks and tracking. Times are seconds, so that they mean the same at every frame rate.

    Attributes:
        landmarks: the landmark network. "heavy" places the limbs better, the more so where people turn or bend: on a real
            clip seen by four cameras its keypoints triangulate to within 35 mm, those of "full" to within 87 mm (PA-MPJPE,
            measured). "full" is about three times as fast.
        max_people: at most so many are followed at once and reported; None: no limit.
        detector_interval_s: the whole frame is searched this often while someone is followed, ...
        search_interval_s: ... and this often while nobody is.
        tile_interval_s: this often one tile of each scale is searched too, in turn, for people too small in the whole
            frame; a large number turns it off after the first frame, in which all tiles are searched.
        tile_scales: sides of the tiles relative to the frame's shorter side.
        detection_threshold: least score of a detection in the whole frame or where somebody was lost; tile_threshold: in a
            tile.
        nms_iou: overlap above which detections are one.
        landmark_threshold: least pose score of a sighting.
        min_roi_px: smaller regions are ignored.
        memory_s: a person may be out of sight this long and stay the same person.
        reunion_s: who comes back within this time where they may have gone meanwhile, in the same clothes, is the same person
            still; read with ``parts``.
        missed_interval_s: this often BodyPix looks at the whole frame for people whom neither the detector nor a track has;
            0 does without. Read with ``parts``.
        least_agreement: BodyPix takes at least this share of the body that the landmarks draw for a person, in the median over
            the track, or it shows none; 0 keeps everything. Read with ``parts``.
        min_duration_s: people seen for less time in all are dropped; never more than half of the clip is asked for.
        look_back_s: a person who is found is followed back this far to where they came into view.
        landmark_interval_s: the landmark network looks at people this often at least; frames between two looks are told by them
            where people move evenly and nothing else needs a look (:mod:`kinflow.perception.between`). 0 looks at every frame,
            and so does everything that is kept of every frame: masks, features, and maps with ``parts_interval_s`` 0.
        mirror: the landmark network sees every second frame in the mirror. What it gets wrong of a pose it gets wrong as long as
            somebody holds it; of the mirrored pose that is something else, and once motion is fitted to both the two cancel
            in part, for no time at all (docs/perception.md). Of landmarks as they are it makes jitter. Who moves fast is
            seen as they are. Read where ``landmark_interval_s`` is 0.
        sides: once the clip has ended, left and right are exchanged where the landmark network took one for the other for some
            frames (:mod:`kinflow.perception.sides`).
        precision: of the networks. bfloat16 is a third faster on some CPUs and dear (measured): landmarks move by 0.25 px of
            the crop in the median, world landmarks by 9 cm, masks agree to an IoU of 0.93.
        runtime: what runs the networks. "auto" is OpenVINO (``pip install kinflow[fast]``) on CPUs in float32 where it is
            installed, else torch; the same results up to rounding, see :mod:`kinflow.perception.runtimes`.
        batch_people: regions that go through the landmark network at once, of one or of several frames.
        look_ahead_s: how far ahead a person's region is predicted to fill such a batch; 0 looks at one frame at a time,
            None does so on CPUs, where batches gain nothing.
        masks: keep a person mask per frame.
        parts: BodyPix looks at people (:mod:`kinflow.perception.parts`): who is somebody, who stays the same, and who is
            missed is told with it.
        parts_interval_s: it looks at each of them this often, and in every frame while one may be taken for another; 0: in every
            frame, and the maps are kept, as ``--refine`` needs them. That takes about as long as the network "full" without
            masks, a quarter of "heavy"; at the default interval a few percent.
        features: keep what the landmark network saw, its decoder's features at the keypoints and its last hidden layer
            (5.4 kB a frame and person).
    """

    landmarks: typing.Literal["heavy", "full"] = "heavy"
    max_people: Count | None = None
    detector_interval_s: Magnitude = 0.4
    search_interval_s: Magnitude = 0.15
    tile_interval_s: Magnitude = 0.4
    tile_scales: Annotated[tuple[float, ...], Range(0.05, 1)] = (1.0, 0.5)
    detection_threshold: Share = 0.5
    tile_threshold: Share = 0.65
    nms_iou: Share = 0.3
    landmark_threshold: Share = 0.5
    min_roi_px: Magnitude = 40.0
    memory_s: Magnitude = 1.2
    reunion_s: Magnitude = 2.5
    missed_interval_s: Magnitude = 0.6
    least_agreement: Share = 0.25
    min_duration_s: Magnitude = 0.6
    look_back_s: Magnitude = 1.5
    landmark_interval_s: Magnitude = 0.0
    mirror: bool = True
    sides: bool = True
    precision: typing.Literal["float32", "bfloat16"] = "float32"
    runtime: typing.Literal["auto", "torch", "openvino"] = "auto"
    batch_people: Annotated[int, Range(1, 1024)] = 4
    look_ahead_s: Magnitude | None = None
    masks: bool = True
    parts: bool = True
    parts_interval_s: Magnitude = 0.3
    features: bool = False

    @property
    def mirrors(self) -> bool:
        """Whether frames are seen in the mirror: by turns nobody would seem to move evenly, where frames are passed over."""
        return self.mirror and self.landmark_interval_s == 0


@dataclasses.dataclass(frozen=True)
class VideoConfig(Config):
    """Decoding and encoding.

    Attributes:
        decoder: "pyav", "decord", or "auto", which takes decord where it costs less and is safe by measurement
            (docs/video.md): in every pass but the first over an undamaged clip of at most 320x240 px. Both give the same
            pixels and times; PyAV takes over what decord cannot read. decord alone does not notice damaged frames.
        threads: decoding threads; 0 lets the library choose.
        image_fps: frames per second of a folder of images, which carries no time of its own.
        prefetch_mb: how many MiB of decoded frames may wait.
        crf: quality of written H.264, 0 (lossless) to 51; preset: x264's speed preset.
    """

    decoder: typing.Literal["auto", "pyav", "decord"] = "auto"
    threads: Threads = 0
    image_fps: Positive = 30.0
    prefetch_mb: CountOrNone = 64
    crf: Annotated[int, Range(0, 51)] = 20
    preset: typing.Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
    ] = "veryfast"


RenderBackend = typing.Literal["auto", "torch", "pytorch3d"]
"""Rasterisers, and "auto": pytorch3d on CUDA where it is installed, else torch."""


@dataclasses.dataclass(frozen=True)
class RenderConfig(Config):
    """Rasteriser and overlay.

    Attributes:
        opacity: of the mesh over the frame, 0..1.
        near: m; faces that reach nearer to the camera are left out.
        backend: "torch"; "pytorch3d", which must then be installed; or "auto": pytorch3d on CUDA where it is installed,
            else torch.
    """

    opacity: Share = 0.8
    near: Positive = 0.05
    backend: RenderBackend = "auto"


@dataclasses.dataclass(frozen=True)
class PipelineConfig(Config):
    """Everything ``kinflow-video`` does, by part."""

    video: VideoConfig = dataclasses.field(default_factory=VideoConfig)
    perception: PerceptionConfig = dataclasses.field(default_factory=PerceptionConfig)
    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    losses: FitLossConfig = dataclasses.field(default_factory=FitLossConfig)
    render: RenderConfig = dataclasses.field(default_factory=RenderConfig)
