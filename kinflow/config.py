"""Configurations: frozen dataclasses that hold every default, and a strict reader of YAML overrides.

Defaults live here, so an installed wheel runs from any folder; the files in ``configs/`` and ``--set key=value`` only
override. An unknown key, or a value of the wrong type, is an error that names the nearest known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import ConfigError

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """The kinematic normalizing flow.

    Attributes:
        representation: "chart" (rotation vectors relative to each joint's mean: 63 latents, exact density) or "rot6d"
            (Zanfir et al.'s RealNVP on the 6D form: 126 latents, a lower bound of the density).
        coupling: "spline" (rational-quadratic inside ``bound``, linear outside) or "affine".
        layers: coupling layers; their masks follow the kinematic tree in turn.
        hidden: width of each layer's conditioner; blocks: its residual blocks; dropout: in training only.
        bins, bound: of the spline, in whitened units.
        log_scale_cap: largest absolute log-scale of one coupling.
        tail: whitened units beyond which the density's tails turn from Gaussian to exponential.
        gram_schmidt_spread: standard deviation of the randomised Gram-Schmidt lengths ("rot6d" alone).
    """

    representation: typing.Literal["chart", "rot6d"] = "chart"
    coupling: typing.Literal["spline", "affine"] = "spline"
    layers: int = 8
    hidden: int = 160
    blocks: int = 1
    dropout: float = 0.1
    bins: int = 8
    bound: float = 5.0
    log_scale_cap: float = 1.5
    tail: float = 4.0
    gram_schmidt_spread: float = 0.25


@dataclasses.dataclass(frozen=True)
class DynamicsConfig:
    """The recurrent latent dynamics.

    Attributes:
        latent_dim: 63 for the flow's chart.
        hidden: size of the hidden state; ode_hidden: width of the vector field.
        head_hidden: width of the predictive head.
        components: Gaussians in the predictive mixture; 1 is a plain Gaussian.
        rank: of each predictive covariance's low-rank part.
        solver, max_step: torchdiffeq's fixed-step method and the longest step in seconds; a longer interval is cut into
            equal steps, each clip's by itself.
        horizon: seconds over which an extrapolated velocity dies out.
        sigma_floor: smallest predictive standard deviation along each axis, in latent units.
        dropout: in the predictive head, in training only.
    """

    latent_dim: int = 63
    hidden: int = 256
    ode_hidden: int = 192
    head_hidden: int = 384
    components: int = 3
    rank: int = 8
    solver: typing.Literal["euler", "midpoint", "rk4"] = "midpoint"
    max_step: float = 0.1
    horizon: float = 0.25
    sigma_floor: float = 1e-3
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class ReconstructorConfig:
    """The frame encoder and the latent filter.

    Attributes:
        width, blocks: of the frame encoder's residual MLP; recurrent: states of its recurrence, per direction.
        head_width: hidden units of the heads; lifter_width: of the 2D-only path.
        trunk_features: size of the front end's trunk features to read; 0 leaves them out.
        dropout: inside the residual blocks, in training.
        root_drift: spectral density of the root's angular acceleration, rad^2/s^3; transl_drift: of its linear one, m^2/s^3.
        root_inflation, transl_inflation: factors on the covariances of single frames, whose errors are alike in time.
        landmark_sigma: m, error of one landmark when the translation is solved.
        std_draws: samples of the latent from which the joints' standard deviations come.
        chunk, context: longest stretch of frames filtered at once, and the frames of warm-up at each side of it.
    """

    width: int = 384
    blocks: int = 3
    recurrent: int = 224
    head_width: int = 320
    lifter_width: int = 256
    trunk_features: int = 0
    dropout: float = 0.0
    root_drift: float = 30.0
    transl_drift: float = 10.0
    root_inflation: float = 4.0
    transl_inflation: float = 4.0
    landmark_sigma: float = 0.05
    std_draws: int = 8
    chunk: int = 64
    context: int = 32


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses of :mod:`kinflow.losses`, per frame; 0 leaves a term out. Defaults are those of refinement.

    Attributes:
        keypoints: reprojection of the landmarks, confidence-weighted and robust; keypoint_scale: residual, as a fraction
            of the person's size, that counts as an outlier.
        parts: alignment of the person mask (or of part labels) with projected vertices; part_scale: likewise.
        landmarks: world landmarks in 3D, up to scale and shift; depth_weight: of their depth against the other axes.
        joints3d, rotations: known 3D joints and rotations (training).
        acceleration: of the joints in true time; acceleration_scale: m/s^2.
        smoothness: of z in true time.
        latent: the flow's prior on z; dynamics: the latent dynamics' likelihood of the motion.
        posterior: the network's own Gaussians over z and root (refinement), or its likelihood of the truth (training).
        betas: prior on the shape; contacts: foot contact (training); contact_velocity: sliding of feet in contact before a
            camera that stands still.
    """

    keypoints: float = 200.0
    keypoint_scale: float = 0.1
    parts: float = 4.0
    part_scale: float = 0.1
    landmarks: float = 2.0
    depth_weight: float = 0.3
    joints3d: float = 0.0
    rotations: float = 0.0
    acceleration: float = 0.3
    acceleration_scale: float = 10.0
    smoothness: float = 0.05
    latent: float = 0.05
    dynamics: float = 0.02
    posterior: float = 0.5
    betas: float = 1.0
    contacts: float = 0.0
    contact_velocity: float = 0.0


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Test-time optimisation.

    Attributes:
        iterations: of Adam, with a cosine step size; lr: of z; lr_root (rad), lr_transl (m), lr_betas: of the others.
        pixels: sampled from each frame's mask; vertices: projected for the alignment with it.
        window: frames of the pieces in which the dynamics' likelihood is taken.
        smooth: s, standard deviation of the kernel through which corrections pass, so that none is rougher.
    """

    iterations: int = 60
    lr: float = 0.03
    lr_root: float = 0.01
    lr_transl: float = 0.02
    lr_betas: float = 0.05
    pixels: int = 128
    vertices: int = 256
    window: int = 16
    smooth: float = 0.08


@dataclasses.dataclass(frozen=True)
class PerceptionConfig:
    """Detection, landmarks and tracking. Times are seconds, so that they mean the same at every frame rate.

    Attributes:
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
        min_duration_s: people seen for less time in all are dropped; never more than half of the clip is asked for.
        look_back_s: a person who is found is followed back this far to where they came into view.
        precision: of the networks. bfloat16 is a third faster on some CPUs and dear (measured): landmarks move by 0.25 px of
            the crop in the median, world landmarks by 9 cm, masks agree to an IoU of 0.93.
        batch_people: regions that go through the landmark network at once, of one or of several frames.
        look_ahead_s: how far ahead a person's region is predicted to fill such a batch; 0 looks at one frame at a time,
            None does so on CPUs, where batches gain nothing.
        masks: keep a person mask per frame; features: keep pooled trunk features per frame.
    """

    max_people: int | None = None
    detector_interval_s: float = 0.4
    search_interval_s: float = 0.15
    tile_interval_s: float = 0.4
    tile_scales: tuple[float, ...] = (1.0, 0.5)
    detection_threshold: float = 0.5
    tile_threshold: float = 0.65
    nms_iou: float = 0.3
    landmark_threshold: float = 0.5
    min_roi_px: float = 40.0
    memory_s: float = 1.2
    min_duration_s: float = 0.6
    look_back_s: float = 1.5
    precision: typing.Literal["float32", "bfloat16"] = "float32"
    batch_people: int = 4
    look_ahead_s: float | None = None
    masks: bool = True
    features: bool = True


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """Decoding and encoding.

    Attributes:
        decoder: "pyav" or "decord". PyAV is the default by measurement: on the project's clips it needs less processor
            time per frame (4 of 5) and decord stops at times inside VP9 streams. Both give the same pixels; with
            "decord", PyAV takes over what decord cannot read.
        threads: decoding threads; 0 lets the library choose.
        image_fps: frames per second of a folder of images, which carries no time of its own.
        prefetch_mb: how many MiB of decoded frames may wait.
        crf: quality of written H.264, 0 (lossless) to 51; preset: x264's speed preset.
    """

    decoder: str = "pyav"
    threads: int = 0
    image_fps: float = 30.0
    prefetch_mb: int = 64
    crf: int = 20
    preset: str = "veryfast"


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Rasteriser and overlay.

    Attributes:
        opacity: of the mesh over the frame, 0..1.
        near: m; faces that reach nearer to the camera are left out.
        keypoint_radius: of a drawn keypoint, in parts of the image's longer side.
        min_confidence: keypoints under it are not drawn.
    """

    opacity: float = 0.8
    near: float = 0.05
    keypoint_radius: float = 0.003
    min_confidence: float = 0.5


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What every training has in common: :func:`kinflow.training.loop.fit`.

    Attributes:
        seed: of weights and data; steps: at most so many; minutes: and at most so long (0: no limit). The learning rate
            follows a cosine over whichever ends first.
        batch: clips or poses a step; lr, weight_decay: AdamW's; warmup: steps of linear rise; grad_clip: of the norm.
        ema: decay of the averaged weights, which are the ones validated and kept.
        validate_every: steps between validations; patience: validations without a better score before it stops (0: off).
        threads: torch's CPU threads (0: leave); precision: "fp32" or "bf16" (autocast around the loss; the flow stays fp32).
        log_every: steps between lines of ``log.csv``.
    """

    seed: int = 0
    steps: int = 20000
    minutes: float = 0.0
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    grad_clip: float = 1.0
    ema: float = 0.999
    validate_every: int = 500
    patience: int = 0
    threads: int = 0
    precision: typing.Literal["fp32", "bf16"] = "fp32"
    log_every: int = 50


@dataclasses.dataclass(frozen=True)
class FlowTrainingConfig:
    """``kinflow-train flow``.

    Attributes:
        noise: rad, standard deviation of the rotation noise added to each training joint; it widens directions in which
            the capture does not vary. mirror, exchange: probabilities of left-right mirroring and of taking the upper
            body from another pose.
        jitter: largest standard deviation (rad) of further, whole-pose noise, drawn per pose from 0 up to this with
            probability jitter_share.
        bounds_samples: importance samples of the "rot6d" representation's bound in validation.
    """

    model: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(batch=512, steps=12000))
    noise: float = 0.01
    jitter: float = 0.1
    jitter_share: float = 0.2
    mirror: float = 0.5
    exchange: float = 0.15
    bounds_samples: int = 16


@dataclasses.dataclass(frozen=True)
class DynamicsTrainingConfig:
    """``kinflow-train dynamics``.

    Attributes:
        flow: path of the flow's weights; None: the packaged ones.
        frames: length of a training window. fps: range of frame rates (drawn log-uniformly); rate_jitter: standard
            deviation of the time stamps' jitter as a share of the interval.
        drop: probability that a window has gaps; drop_share: largest share of its frames dropped.
        noise: rad, standard deviation of rotation noise, given to a share noise_share of windows.
        dequantise: rad, of noise that every window gets, in validation too, so that a joint that the capture does not
            move has a density at all.
        root_share: share of windows that get the root's motion; time_warp: largest change of speed, as a log.
    """

    model: DynamicsConfig = dataclasses.field(default_factory=DynamicsConfig)
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(batch=64, steps=8000))
    flow: str | None = None
    frames: int = 48
    fps: tuple[float, float] = (10.0, 60.0)
    rate_jitter: float = 0.1
    drop: float = 0.3
    drop_share: float = 0.3
    noise: float = 0.02
    noise_share: float = 0.2
    dequantise: float = 0.002
    mirror: float = 0.5
    exchange: float = 0.1
    root_share: float = 0.5
    time_warp: float = 0.25


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Errors given to projected motion capture: :mod:`kinflow.training.noise`.

    Attributes:
        jitter2d: range of the keypoints' standard deviation, as a fraction of the person's size; bias2d: of each
            landmark's constant offset.
        world: range of the world landmarks' standard deviation across the ray, m (2.6 times that along it).
        depth_scale: range by which depth is compressed; lean: of the torso, m per m; depth_flips: of a limb, per second.
        occlusion: most occlusions of one group of landmarks per second; outliers: share of single points; swaps of left
            and right, and fits in which everything is worse, per second.
    """

    jitter2d: tuple[float, float] = (0.003, 0.018)
    bias2d: float = 0.008
    world: tuple[float, float] = (0.004, 0.022)
    depth_scale: tuple[float, float] = (0.65, 1.1)
    lean: float = 0.1
    depth_flips: float = 0.05
    occlusion: float = 0.15
    outliers: float = 0.004
    swaps: float = 0.04
    fits: float = 0.06


@dataclasses.dataclass(frozen=True)
class ProjectionConfig:
    """The stream of projected motion capture: :mod:`kinflow.training.projected`.

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
    """

    noise: NoiseConfig = dataclasses.field(default_factory=NoiseConfig)
    frames: int = 32
    fps: tuple[float, float] = (5.0, 60.0)
    jitter: float = 0.15
    time_warp: float = 0.25
    mirror: float = 0.5
    exchange: float = 0.15
    perturb: float = 0.35
    perturb_std: float = 0.3
    sampled: float = 0.12
    tilt: float = 0.15
    tumble: float = 0.04
    pitch: float = 14.0
    roll: float = 7.0
    wide: float = 0.25
    focal: tuple[float, float] = (0.5, 2.5)
    focal_error: float = 0.15
    size: tuple[float, float] = (0.2, 1.3)
    off_centre: float = 0.22
    world: float = 0.85
    coco: float = 0.5
    gaps: float = 0.25


@dataclasses.dataclass(frozen=True)
class ReconstructorTrainingConfig:
    """``kinflow-train reconstructor``.

    Attributes:
        model, losses, projection: network, weights of the losses, and the projected stream.
        flow, dynamics: paths of trained weights; None: the packaged ones.
        perceived: folder of rendered and perceived clips; None: projected motion capture alone; perceived_share: their
            share of each batch.
        init: weights to start from; None: from scratch.
        filter: run the latent filter; false trains the encoder alone, for the first part of a training.
        scored: frames of each window whose latents enter the likelihood; decoded: successive frames that are decoded by
            the flow for the losses on joints.
        validation: windows of the validation split.
    """

    model: ReconstructorConfig = dataclasses.field(default_factory=ReconstructorConfig)
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(batch=32, steps=20000, lr=8e-4, ema=0.997, validate_every=200, precision="bf16")
    )
    losses: LossConfig = dataclasses.field(
        default_factory=lambda: LossConfig(
            keypoints=2.0, keypoint_scale=0.1, parts=0.0, landmarks=0.0, joints3d=4.0, rotations=1.0, acceleration=0.15,
            smoothness=0.0, latent=0.0, dynamics=0.0, posterior=1.0, betas=0.1, contacts=0.1,
        )  # fmt: skip
    )
    projection: ProjectionConfig = dataclasses.field(default_factory=ProjectionConfig)
    flow: str | None = None
    dynamics: str | None = None
    perceived: str | None = None
    perceived_share: float = 0.5
    init: str | None = None
    filter: bool = True
    scored: int = 12
    decoded: int = 6
    validation: int = 96


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Everything ``kinflow-video`` does, by part."""

    video: VideoConfig = dataclasses.field(default_factory=VideoConfig)
    perception: PerceptionConfig = dataclasses.field(default_factory=PerceptionConfig)
    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    render: RenderConfig = dataclasses.field(default_factory=RenderConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain nested dictionaries."""
    return dataclasses.asdict(config)


def config_hash(config: Any) -> str:
    """Twelve hexadecimal digits that change whenever a value does."""
    text = json.dumps(to_dict(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def from_dict(cls: type[C], values: dict[str, Any], _path: str = "") -> C:
    """Build a configuration from (nested) overrides; what is not named keeps its default.

    Raises:
        ConfigError: unknown key or wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{_path}{key}"
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f" Did you mean {_path}{near[0]}?" if near else f" Known: {', '.join(sorted(fields)) or 'none'}."
            raise ConfigError(f"{name}: no such setting.{hint}")
        out[key] = _coerce(name, value, hints[key])
    return cls(**out)


def load_config(cls: type[C], yaml_path: str | Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Defaults, then a YAML file, then ``key.sub=value`` overrides (values are read as YAML).

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong type, or an override without ``=``.
    """
    values: dict[str, Any] = {}
    if yaml_path is not None:
        try:
            values = yaml.safe_load(Path(yaml_path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{yaml_path}: cannot be read ({error.strerror}).") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{yaml_path}: not YAML ({str(error).splitlines()[0]}).") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{yaml_path}: expected settings as 'key: value', got {type(values).__name__}.")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: expected key=value, for example perception.max_people=2.")
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {parent} is a value, not a group.")
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: {text!r} is not a YAML value.") from error
    return from_dict(cls, values)


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """Check ``value`` against the type ``hint``; an int where a float is wanted, or a list for a tuple, is fine."""
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: expected a group of settings, got {value!r}.")
        return from_dict(typing.cast(type, hint), value, f"{name}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _coerce(name, value, next(a for a in args if a is not type(None)))
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{name}: expected one of {', '.join(map(str, args))}, got {value!r}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}: expected a list, got {value!r}.")
        if args[-1:] != (Ellipsis,) and len(args) != len(value):
            raise ConfigError(f"{name}: expected {len(args)} values, got {len(value)}.")
        kinds = [args[0]] * len(value) if args[-1:] == (Ellipsis,) else args
        return tuple(_coerce(f"{name}[{i}]", v, k) for i, (v, k) in enumerate(zip(value, kinds, strict=True)))
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{name}: expected float, got {value!r}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name}: expected {hint.__name__}, got {value!r}.")
    return value
