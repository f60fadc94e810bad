"""Configurations of the trainings."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated

from ..errors import ConfigError
from .networks import (
    DenoiserConfig,
    DynamicsConfig,
    FlowConfig,
    LifterConfig,
    ReconstructorConfig,
    SidesConfig,
    TrainingLossConfig,
    WeakLossConfig,
)
from .ranges import Config, Count, CountOrNone, Frames, Magnitude, Positive, Range, Rate, Share, Span, Threads, Weight


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """What every training has in common: :func:`kinflow.training.loop.fit`.

    Attributes:
        seed: of weights and data; steps: at most so many (0: none, the weights are validated, finished and written as they
            came); minutes: and at most so long (0: no limit). The learning rate follows a cosine over whichever ends first.
        batch: clips or poses a step; lr, weight_decay: AdamW's; warmup: steps of linear rise; grad_clip: of the norm.
        ema: decay of the averaged weights, which are the ones validated and kept.
        validate_every: steps between validations; patience: validations without a better score before it stops (0: off).
        threads: torch's CPU threads (0: leave); precision: "fp32", "bf16" (autocast around the loss; the flow stays fp32) or
            "auto", bf16 where that is the faster one.
        log_every: steps between lines of ``log.csv``.
    """

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    steps: Annotated[int, Range(0, 10**9)] = 20000
    minutes: Magnitude = 0.0
    batch: Count = 256
    lr: Positive = 1e-3
    weight_decay: Magnitude = 1e-2
    warmup: CountOrNone = 200
    grad_clip: Positive = 1.0
    ema: Rate = 0.999
    validate_every: Count = 500
    patience: CountOrNone = 0
    threads: Threads = 0
    precision: typing.Literal["auto", "fp32", "bf16"] = "fp32"
    log_every: Count = 50


@dataclasses.dataclass(frozen=True)
class FlowTrainingConfig(Config):
    """``kinflow-train flow``.

    Attributes:
        noise: rad, standard deviation of the rotation noise added to each training joint; it widens directions in which
            the capture does not vary. mirror, exchange: probabilities of left-right mirroring and of taking the upper
            body from another pose.
        jitter: largest standard deviation (rad) of further, whole-pose noise, drawn per pose from 0 up to this with
            probability jitter_share.
        shares: share of poses whose rotations are shared out among neighbouring joints in another tracker's way
            (:mod:`kinflow.training.shares`).
        bounds_samples: importance samples of the "rot6d" representation's bound in validation.
        init: weights to start from (of the same model); None: from scratch.
    """

    model: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(batch=512, steps=12000))
    noise: Magnitude = 0.01
    jitter: Magnitude = 0.1
    jitter_share: Share = 0.2
    mirror: Share = 0.5
    exchange: Share = 0.15
    shares: Share = 0.0
    bounds_samples: Count = 16
    init: str | None = None


@dataclasses.dataclass(frozen=True)
class DynamicsTrainingConfig(Config):
    """``kinflow-train dynamics``.

    Attributes:
        flow: path of the flow's weights; None: the packaged ones.
        space: coordinates of the flow's "chart", without the coupling layers, where noise of one size is the same whatever the
            pose; or its "latents", for comparison: nothing of the package reads dynamics of those.
        frames: length of a training window. fps: range of frame rates (drawn log-uniformly); rate_jitter: standard
            deviation of the time stamps' jitter as a share of the interval.
        drop: probability that a window has gaps; drop_share: largest share of its frames dropped.
        noise: rad, standard deviation of rotation noise, given to a share noise_share of windows; exchange: share whose
            upper body is another motion's.
        shares: share of windows whose rotations are shared out among neighbouring joints in another tracker's way, one a window
            (:mod:`kinflow.training.shares`).
        dequantise: rad, of noise that every window gets, in validation too, so that a joint that the capture does not
            move has a density at all.
        root_share: share of windows that get the root's motion; time_warp: largest change of speed, as a log.
        ahead: weight of the likelihood of later frames when those between are unseen, without which the forecasts of a
            model that is trained on the next frame alone soon drift; ahead_count: such pairs a window.
        init: weights to start from; None: from scratch.
    """

    model: DynamicsConfig = dataclasses.field(default_factory=DynamicsConfig)
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(batch=64, steps=8000))
    flow: str | None = None
    space: typing.Literal["chart", "latents"] = "chart"
    frames: Frames = 48
    fps: Span = (10.0, 120.0)
    rate_jitter: Share = 0.15
    drop: Share = 0.3
    drop_share: Share = 0.3
    noise: Magnitude = 0.02
    noise_share: Share = 0.2
    dequantise: Magnitude = 0.002
    mirror: Share = 0.5
    exchange: Share = 0.3
    shares: Share = 0.0
    root_share: Share = 0.5
    time_warp: Magnitude = 0.25
    ahead: Weight = 0.3
    ahead_count: CountOrNone = 8
    init: str | None = None


@dataclasses.dataclass(frozen=True)
class DenoiserTrainingConfig(Config):
    """``kinflow-train denoiser``.

    Attributes:
        frames: length of a training window. fps: range of frame rates (drawn log-uniformly); rate_jitter: standard
            deviation of the time stamps' jitter as a share of the interval.
        noise: range of the rotation noise's standard deviation about each axis, rad, drawn log-uniformly; told_error:
            largest error, as a log, of the level that the network is told.
        correlated: share of windows whose noise is correlated over time. outliers: share of joints that are far off.
        drops: largest share of frames dropped at random; gaps, future: shares of windows with one gap, and with nothing
            valid after some frame; gap: range of their lengths in s.
        swaps: share of windows in which left and right are exchanged for a while, unannounced.
        exchange, shares, reverse: shares of windows with the upper body of another motion, with rotations shared out among
            neighbouring joints in another tracker's way (:mod:`kinflow.training.shares`), and run backwards.
        init: weights to start from; None: from scratch.
        angle, position, acceleration: weights of the errors of joint angles, positions and their second differences, each
            relative to the regression's.
    """

    model: DenoiserConfig = dataclasses.field(default_factory=DenoiserConfig)
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(batch=24, steps=12000, lr=6e-4, ema=0.998, precision="auto")
    )
    frames: Frames = 64
    fps: Span = (10.0, 120.0)
    rate_jitter: Share = 0.15
    time_warp: Magnitude = 0.3
    mirror: Share = 0.5
    exchange: Share = 0.15
    shares: Share = 0.0
    reverse: Share = 0.0
    noise: Span = (0.003, 0.22)
    told_error: Magnitude = 0.2
    correlated: Share = 0.1
    outliers: Share = 0.01
    drops: Share = 0.25
    gaps: Share = 0.4
    future: Share = 0.25
    gap: Span = (0.1, 1.3)
    swaps: Share = 0.12
    angle: Weight = 1.0
    position: Weight = 0.7
    acceleration: Weight = 0.3
    init: str | None = None


@dataclasses.dataclass(frozen=True)
class NoiseConfig(Config):
    """Errors given to projected motion capture: :mod:`kinflow.training.streams.noise`.

    Attributes:
        jitter2d: range of the keypoints' standard deviation, as a fraction of the person's size; bias2d: of each
            landmark's constant offset.
        world: range of the world landmarks' standard deviation across the ray, m (2.6 times that along it).
        depth_scale: range by which depth is compressed; lean: of the torso, m per m; depth_flips: of a limb, per second.
        occlusion: most occlusions of one group of landmarks per second; outliers: share of single points; swaps of left
            and right, and fits in which everything is worse, per second.
    """

    jitter2d: Span = (0.003, 0.018)
    bias2d: Magnitude = 0.008
    world: Span = (0.004, 0.022)
    depth_scale: Span = (0.65, 1.1)
    lean: Magnitude = 0.1
    depth_flips: Magnitude = 0.05
    occlusion: Magnitude = 0.15
    outliers: Share = 0.004
    swaps: Magnitude = 0.04
    fits: Magnitude = 0.06


@dataclasses.dataclass(frozen=True)
class ProjectionConfig(Config):
    """The stream of projected motion capture: :mod:`kinflow.training.streams.projected`.

    Attributes:
        noise: of the front end.
        frames: length of a window; fps: range of frame rates, drawn log-uniformly; jitter: of the time stamps, as a share
            of the interval; time_warp: largest change of speed, as a log.
        mirror, exchange: probabilities of mirroring, and of legs taken from another clip.
        perturb: probability of slow random turns added to all joints; perturb_std: largest standard deviation, rad.
        sampled: share of windows whose poses wander through the flow's samples instead.
        tilt: probability that the whole body is tilted; tumble: that it is turned anyhow.
        pitch, roll: degrees, standard deviation of the camera's in the usual case; wide: probability of a wide draw.
        focal: range of the focal length over the image's diagonal; focal_error: standard deviation of the log of the
            error of the focal length that the network is told.
        size: range of the person's height over the image's; off_centre: standard deviation of the person's place, as a
            fraction of the image.
        world: probability of world landmarks; coco: that a window without them has COCO's points alone.
        gaps: probability of a stretch in which the person is not detected.
        borrowed: share of windows whose errors are those of rendered, perceived people who stand alike, where there are
            such clips.
    """

    noise: NoiseConfig = dataclasses.field(default_factory=NoiseConfig)
    frames: Frames = 32
    fps: Span = (5.0, 60.0)
    jitter: Share = 0.15
    time_warp: Magnitude = 0.25
    mirror: Share = 0.5
    exchange: Share = 0.15
    perturb: Share = 0.35
    perturb_std: Magnitude = 0.3
    sampled: Share = 0.12
    tilt: Share = 0.15
    tumble: Share = 0.04
    pitch: Magnitude = 14.0
    roll: Magnitude = 7.0
    wide: Share = 0.25
    focal: Span = (0.5, 2.5)
    focal_error: Magnitude = 0.15
    size: Span = (0.2, 1.3)
    off_centre: Magnitude = 0.22
    world: Share = 0.85
    coco: Share = 0.5
    gaps: Share = 0.25
    borrowed: Share = 0.8


@dataclasses.dataclass(frozen=True)
class LifterTrainingConfig(Config):
    """``kinflow-train lifter``.

    Attributes:
        perceived: rendered and perceived clips (tools/render_and_perceive.py): a file, or a folder of them.
        perceived_share: of the windows of each batch; the others are projected motion capture with their errors.
        projection: the stream of projected motion capture.
        likelihood: weight of the Gaussian likelihood, which fits the standard deviations, beside the distance.
        flow: path of trained weights, for the windows that wander through its samples; None: the packaged ones.
        init: weights to start from; None: from scratch.
        blend: what is validated and kept is the mean of ``init`` and of what was learned from there on, this share of it the
            latter. Below 1 what ``init`` knew of clips that are not here is kept; 1 keeps what was learned alone.
    """

    model: LifterConfig = dataclasses.field(default_factory=LifterConfig)
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(batch=128, steps=6000, weight_decay=0.05, ema=0.998)
    )
    perceived: str | None = None
    perceived_share: Share = 0.15
    projection: ProjectionConfig = dataclasses.field(
        default_factory=lambda: ProjectionConfig(
            frames=4, fps=(4.0, 10.0), exchange=0.35, wide=0.4, gaps=0.0, borrowed=0.95
        )
    )
    likelihood: Weight = 0.02
    flow: str | None = None
    init: str | None = None
    blend: Share = 1.0


@dataclasses.dataclass(frozen=True)
class SidesTrainingConfig(Config):
    """``kinflow-train sides``.

    Attributes:
        perceived: rendered and perceived clips (tools/render_and_perceive.py): a file, or a folder of them.
        perceived_share: of the windows of each batch; the others are projected motion capture with their errors.
        projection: the stream of projected motion capture.
        exchanged: share of the windows in which left and right are exchanged for a run of frames, by half as often for a second
            one, and so on.
        noise: of limbs exchanged so, in sizes of the person and, in depth too, in 2 m: who is confused is seen badly.
    """

    model: SidesConfig = dataclasses.field(default_factory=SidesConfig)
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(batch=64, steps=6000, weight_decay=0.01, ema=0.998)
    )
    perceived: str | None = None
    perceived_share: Share = 0.4
    projection: ProjectionConfig = dataclasses.field(
        default_factory=lambda: ProjectionConfig(frames=20, fps=(6.0, 60.0), gaps=0.0, coco=0.0, world=0.9, sampled=0.0)
    )
    exchanged: Share = 0.5
    noise: Magnitude = 0.02


@dataclasses.dataclass(frozen=True)
class DataSetConfig(Config):
    """A data set that a training draws from too; the two settings belong together.

    Attributes:
        path: the data set's folder or file, as docs/datasets.md has it; None: not used.
        weight: of its windows, against those of the other sources.
    """

    path: str | None = None
    weight: Weight = 0.0


@dataclasses.dataclass(frozen=True)
class FramesDataSetConfig(DataSetConfig):
    """A preprocessed npz of single frames, which holds neither the cameras nor the frame rate.

    Attributes:
        fps: frames a second that the images' numbers count. focal: px, and image_size (width, height), of the cameras.
    """

    fps: Positive = 50.0
    focal: Positive = 1145.0
    image_size: Annotated[tuple[int, int], Range(1, 100_000)] = (1000, 1000)


@dataclasses.dataclass(frozen=True)
class ClipsConfig(DataSetConfig):
    """Real clips without 3D: :mod:`kinflow.training.streams.footage`.

    Attributes:
        path: a video, or a folder of them. cache: folder for what was seen in them; None: a hidden one beside each clip.
    """

    cache: str | None = None


@dataclasses.dataclass(frozen=True)
class SourcesConfig(Config):
    """What the reconstructor's batches are drawn from: :mod:`kinflow.training.streams.sources`.

    Attributes:
        own: weight of motion capture and of the perceived clips together (``perceived_share`` is the clips' part of it).
        threedpw: 3DPW, its training split; emdb: EMDB, all of it. Both with known poses.
        h36m, mpi_inf_3dhp: Human3.6M and MPI-INF-3DHP as npz; poses where they are fitted, else 3D joints.
        coco: COCO 2017, its training split: keypoints and masks alone.
        clips: anybody's videos, of which nothing but what perception sees in them is known.
    """

    own: Weight = 1.0
    threedpw: DataSetConfig = dataclasses.field(default_factory=DataSetConfig)
    emdb: DataSetConfig = dataclasses.field(default_factory=DataSetConfig)
    h36m: FramesDataSetConfig = dataclasses.field(default_factory=FramesDataSetConfig)
    mpi_inf_3dhp: FramesDataSetConfig = dataclasses.field(
        default_factory=lambda: FramesDataSetConfig(fps=25.0, focal=1497.0, image_size=(2048, 2048))
    )
    coco: DataSetConfig = dataclasses.field(default_factory=DataSetConfig)
    clips: ClipsConfig = dataclasses.field(default_factory=ClipsConfig)

    @property
    def data_sets(self) -> dict[str, DataSetConfig]:
        """Those that are used, by name."""
        return {name: one for name, one in self._all() if one.path is not None}

    def _all(self) -> list[tuple[str, DataSetConfig]]:
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "own"]

    def check(self) -> None:
        """That something is drawn, and each data set has a path and a weight or neither.

        Raises:
            ConfigError: naming the setting.
        """
        for name, one in self._all():
            if one.path is None and one.weight > 0:
                raise ConfigError(
                    f"sources.{name}.path: expected the data set's folder or file, got none for a weight of {one.weight:g}."
                )
            if one.path is not None and one.weight == 0:
                raise ConfigError(f"sources.{name}.weight: expected one above 0, or no path, got 0 for {one.path}.")
        if self.own == 0 and not self.data_sets:
            raise ConfigError("sources.own: expected a weight above 0 where there is no other source, got 0.")


@dataclasses.dataclass(frozen=True)
class ReconstructorTrainingConfig(Config):
    """``kinflow-train reconstructor``.

    Attributes:
        model, losses, projection: network, weights of the losses, and the projected stream.
        lifter, flow, dynamics: paths of trained weights; None: the packaged ones.
        perceived: folder of rendered and perceived clips; None: projected motion capture alone; perceived_share: their
            share beside it.
        sources: data sets beside those two, and the weights of all.
        init: weights to start from; None: from scratch.
        filter: run the filter; false trains the encoder alone, for the first part of a training.
        decoded: successive frames of each window whose bodies are posed for the losses on joints.
        validation: windows of the validation split.
    """

    model: ReconstructorConfig = dataclasses.field(default_factory=ReconstructorConfig)
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            batch=32, steps=20000, lr=8e-4, ema=0.997, validate_every=200, precision="auto"
        )
    )
    losses: TrainingLossConfig = dataclasses.field(default_factory=TrainingLossConfig)
    projection: ProjectionConfig = dataclasses.field(default_factory=ProjectionConfig)
    lifter: str | None = None
    flow: str | None = None
    dynamics: str | None = None
    perceived: str | None = None
    perceived_share: Share = 0.5
    sources: SourcesConfig = dataclasses.field(default_factory=SourcesConfig)
    init: str | None = None
    filter: bool = True
    decoded: Count = 12
    validation: Count = 96


@dataclasses.dataclass(frozen=True)
class AdaptationConfig(Config):
    """``kinflow-train adapt``: :mod:`kinflow.training.adaptation`.

    Attributes:
        losses: weights of the terms of clips.
        projection: noise, cameras and windows of what is rehearsed; ``frames`` is the length of the clips' windows too.
        rehearsal: share of each batch that is rehearsed; motions: of 4 s, drawn from the prior for it; holding: weight of
            how far the network is from what it said of them before.
        held_out: share of each person's frames, the last ones, that are judged by and not learnt from.
        price: of a nat a frame under the motion prior that is lost there, as a share of the alignment's loss. The fit that ends
            a reconstruction loses up to 24 (measured), and halves the alignment's loss or more.
        decoded: successive frames of a window that are decoded for the losses of single frames.
    """

    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            batch=32, steps=150, lr=2e-4, warmup=10, ema=0.95, validate_every=25, log_every=5
        )
    )
    losses: WeakLossConfig = dataclasses.field(default_factory=WeakLossConfig)
    projection: ProjectionConfig = dataclasses.field(default_factory=ProjectionConfig)
    rehearsal: Share = 0.5
    motions: Count = 64
    holding: Weight = 1.0
    held_out: Annotated[float, Range(0.05, 0.5)] = 0.25
    price: Magnitude = 0.01
    decoded: Count = 6
