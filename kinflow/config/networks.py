"""Configurations of the networks, the losses and the refinement."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated

from ..errors import ConfigError
from .ranges import Config, Count, CountOrNone, Frames, Layers, Magnitude, Positive, Range, Rate, Weight, Width


@dataclasses.dataclass(frozen=True)
class FlowConfig(Config):
    """The kinematic normalizing flow.

    Attributes:
        representation: "chart" (rotation vectors relative to each joint's mean: 63 latents, exact density) or "rot6d"
            (Zanfir et al.'s RealNVP on the 6D form: 126 latents, a lower bound of the density).
        coupling: "spline" (rational-quadratic inside ``bound``, linear outside) or "affine".
        layers: coupling layers; their masks follow the kinematic tree in turn.
        hidden: width of each layer's conditioner; blocks: its residual blocks; dropout: in training only; input_noise:
            standard deviation of the blur of their input in training, in whitened units ("chart" alone).
        bins, bound: of the spline, in whitened units.
        log_scale_cap: largest absolute log-scale of one coupling.
        tail: whitened units beyond which the density's tails turn from Gaussian to exponential.
        gram_schmidt_spread: standard deviation of the randomised Gram-Schmidt lengths ("rot6d" alone).
    """

    representation: typing.Literal["chart", "rot6d"] = "chart"
    coupling: typing.Literal["spline", "affine"] = "spline"
    layers: Annotated[int, Range(0, 256)] = 8
    hidden: Width = 160
    blocks: Annotated[int, Range(0, 256)] = 1
    dropout: Rate = 0.1
    input_noise: Magnitude = 0.0
    bins: Annotated[int, Range(2, 256)] = 8
    bound: Positive = 5.0
    log_scale_cap: Positive = 1.5
    tail: Positive = 4.0
    gram_schmidt_spread: Positive = 0.25


@dataclasses.dataclass(frozen=True)
class DynamicsConfig(Config):
    """The recurrent latent dynamics.

    Attributes:
        latent_dim: 63 for the flow's chart.
        hidden: size of the hidden state; ode_hidden: width of the vector field.
        head_hidden: width of the predictive head.
        components: Gaussians in the predictive mixture; 1 is a plain Gaussian.
        rank: of each predictive covariance's low-rank part.
        solver: Runge-Kutta method, by torchdiffeq's name, that moves the hidden state between frames. "euler",
            "midpoint" and "rk4" (steps of equal length) have a closed form here, which is the fast path and the one that
            can be exported; "heun2", "heun3" (steps of equal length) and the adaptive "dopri5", "dopri8", "bosh3",
            "fehlberg2" and "adaptive_heun", which integrate clip by clip, run in torchdiffeq.
        max_step: s, longest step of the methods with steps of equal length, and longest stretch that the adjoint goes
            back at once; a longer interval is cut into equal parts, each clip's by itself.
        rtol, atol: relative and absolute error, in units of the hidden state, that an adaptive method allows a step.
        adjoint: take gradients by integrating back in time (torchdiffeq's odeint_adjoint, with any solver) from the
            states at every max_step, instead of through all that the steps computed: less memory across long gaps.
        horizon: seconds over which an extrapolated velocity dies out.
        sigma_floor: smallest predictive standard deviation along each axis, in latent units.
        dropout: in the predictive head, in training only.
        between: what the hidden state does between frames: move by the neural ODE, or rest ("cell": a plain gated cell,
            which is told the time step).
    """

    latent_dim: Width = 63
    hidden: Width = 256
    ode_hidden: Width = 192
    head_hidden: Width = 384
    components: Layers = 3
    rank: Annotated[int, Range(0, 256)] = 8
    solver: typing.Literal[
        "euler", "midpoint", "rk4", "heun2", "heun3", "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"
    ] = "midpoint"
    max_step: Positive = 0.1
    rtol: Positive = 1e-5
    atol: Positive = 1e-6
    adjoint: bool = False
    horizon: Positive = 0.25
    sigma_floor: Positive = 1e-3
    dropout: Rate = 0.1
    between: typing.Literal["ode", "cell"] = "ode"


@dataclasses.dataclass(frozen=True)
class DenoiserConfig(Config):
    """The learned denoiser.

    Attributes:
        width: of the parts' tokens; hidden: of the feed-forward layers; layers, heads: of the transformer.
        overview: numbers about the whole body that every part is told; mix: that parts tell each other in every layer.
        dropout: in training only.
    """

    width: Width = 128
    hidden: Width = 384
    layers: Layers = 6
    heads: Layers = 4
    overview: Width = 32
    mix: Width = 16
    dropout: Rate = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ConfigError(f"heads: expected a divisor of width ({self.width}), got {self.heads}.")


@dataclasses.dataclass(frozen=True)
class FitLossConfig(Config):
    """Weights of the losses of :mod:`kinflow.losses` when a motion is fitted to its evidence; 0 leaves a term out.

    Attributes:
        keypoints: reprojection of the landmarks, confidence-weighted and robust; keypoint_scale: residual, as a fraction
            of the person's size, that counts as an outlier.
        parts: alignment of the body parts, or of the person mask, with projected vertices; part_scale: likewise.
        landmarks: lifted landmarks in 3D, by their standard deviations.
        acceleration: of the joints in true time; acceleration_scale: m/s^2.
        smoothness: of the pose in the flow's chart in true time.
        latent: the flow's prior on its latents; dynamics: their likelihood of the motion.
        start: the way from the start, of the pose in the flow's chart and of the root.
        betas: prior on the shape.
        contact_velocity: sliding of feet in contact before a camera that stands still.
    """

    keypoints: Weight = 200.0
    keypoint_scale: Positive = 0.1
    parts: Weight = 4.0
    part_scale: Positive = 0.1
    landmarks: Weight = 8.0
    acceleration: Weight = 12.0
    acceleration_scale: Positive = 10.0
    smoothness: Weight = 0.05
    latent: Weight = 0.05
    dynamics: Weight = 0.02
    start: Weight = 0.02
    betas: Weight = 1.0
    contact_velocity: Weight = 0.0


@dataclasses.dataclass(frozen=True)
class WeakLossConfig(Config):
    """Weights of the losses of :mod:`kinflow.losses` on windows of which no pose is known; 0 leaves a term out.

    Attributes:
        keypoints: reprojection of the landmarks onto the keypoints seen, confidence-weighted and robust; keypoint_scale:
            residual, as a fraction of the person's size, that counts as an outlier.
        parts: alignment of projected vertices with the body parts seen, or with the person's mask; part_scale: likewise.
        landmarks: lifted landmarks in 3D by their standard deviations, nats a landmark.
        latent: the flow's prior on its latents, nats a latent; dynamics: their likelihood of whole windows, nats a coordinate.
        smoothness: of the pose in the flow's chart in true time.
        betas: prior on the shape.
    """

    keypoints: Weight = 2.0
    keypoint_scale: Positive = 0.1
    parts: Weight = 0.5
    part_scale: Positive = 0.1
    landmarks: Weight = 0.1
    latent: Weight = 0.1
    dynamics: Weight = 0.01
    smoothness: Weight = 0.0005
    betas: Weight = 0.1


@dataclasses.dataclass(frozen=True)
class TrainingLossConfig(WeakLossConfig):
    """Weights of the losses when the reconstructor is trained: those of windows without poses, and of known poses.

    Attributes:
        keypoints: reprojection by a camera along the ray where the pose is known, too; keypoint_scale: likewise.
        betas: prior on the shape, in all windows.
        joints3d, rotations: known 3D joints, decoded, and rotations (joints and root).
        acceleration: error of the joints' acceleration in true time; acceleration_scale: m/s^2.
        posterior: negative log-likelihood of the true pose in the chart, root and shape under the network's Gaussians.
        contacts: cross-entropy of foot contact.
    """

    joints3d: Weight = 4.0
    rotations: Weight = 1.0
    acceleration: Weight = 0.15
    acceleration_scale: Positive = 10.0
    posterior: Weight = 1.0
    contacts: Weight = 0.1


@dataclasses.dataclass(frozen=True)
class RefineConfig(Config):
    """Test-time optimisation.

    Attributes:
        iterations: of Adam, with a cosine step size; lr: of the pose in the chart; lr_root (rad), lr_transl (m), lr_betas: of the others.
        pixels: sampled from each frame's part map or mask; vertices: projected for the alignment with it.
        window: frames of the pieces in which the dynamics' likelihood is taken.
        kernel: s, standard deviation of the Gaussian kernel through which corrections pass, so that none is rougher.
    """

    iterations: CountOrNone = 60
    lr: Magnitude = 0.03
    lr_root: Magnitude = 0.01
    lr_transl: Magnitude = 0.02
    lr_betas: Magnitude = 0.05
    pixels: Count = 128
    vertices: Count = 256
    window: Frames = 16
    kernel: Magnitude = 0.08


@dataclasses.dataclass(frozen=True)
class SidesConfig(Config):
    """What tells left and right over time: :mod:`kinflow.perception.sides`.

    Attributes:
        width: of its layers. dropout: of what it knows of a frame, in training alone.
    """

    width: Width = 96
    dropout: Rate = 0.0


@dataclasses.dataclass(frozen=True)
class LifterConfig(Config):
    """What puts the front end's landmarks right in 3D: :mod:`kinflow.reconstruction.lifting`.

    Attributes:
        by_parts: networks that look at each part of the body by itself, which do better on motions that nobody learned from; whole:
            networks that look at all of it at once. The mean of all of them is taken: the two kinds err differently.
        part_width: of the residual MLP of each part; whole_width: of one of the whole body; blocks: how many of them, each.
        overview: numbers that each part is told of the whole body.
        dropout: inside the residual blocks, in training alone.
    """

    by_parts: Annotated[int, Range(0, 64)] = 2
    whole: Annotated[int, Range(0, 64)] = 1
    part_width: Width = 152
    whole_width: Width = 384
    blocks: Annotated[int, Range(0, 256)] = 3
    overview: Width = 32
    dropout: Rate = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.by_parts + self.whole:
            raise ConfigError("by_parts: expected a network at least of one kind, got none of by_parts and of whole.")


@dataclasses.dataclass(frozen=True)
class TiltConfig(Config):
    """The density of up in the pelvis' frame: :mod:`kinflow.flow.tilt`.

    Attributes:
        width: hidden units a layer; layers: how many.
        components: von Mises-Fisher densities in the mixture, beside the uniform one.
    """

    width: Width = 96
    layers: Layers = 2
    components: Annotated[int, Range(1, 64)] = 3


@dataclasses.dataclass(frozen=True)
class ReconstructorConfig(Config):
    """The frame encoder, the filter in the flow's chart, and what turns their Gaussians into motion.

    Attributes:
        width: of the frame encoder's residual MLP; blocks: how many of them.
        recurrent: states of the encoder's recurrence, per direction.
        head_width: hidden units of the heads.
        dropout: inside the residual blocks, in training alone.
        root_inflation, transl_inflation: factors on the covariances of single frames, whose errors are alike in time.
        pose_kernel: s, standard deviation of the Gaussian kernel that averages the offline poses by their precisions; 0
            leaves them.
        landmark_sigma: m, error of one landmark when the translation is solved.
        align: the short fit to the keypoints that ends every offline reconstruction; 0 iterations: none.
        align_losses: what that fit weighs.
        std_draws: samples of pose and root, half of them mirrored, from which the joints' standard deviations come.
        chunk: longest stretch of frames that is filtered at once; context: frames of warm-up at each side of it.
    """

    width: Width = 384
    blocks: Annotated[int, Range(0, 256)] = 3
    recurrent: Width = 224
    head_width: Width = 320
    dropout: Rate = 0.0
    root_inflation: Positive = 6.0
    transl_inflation: Positive = 4.0
    pose_kernel: Magnitude = 0.05
    landmark_sigma: Positive = 0.05
    align: RefineConfig = dataclasses.field(
        default_factory=lambda: RefineConfig(
            iterations=80, lr=0.15, lr_root=0.03, lr_transl=0.04, lr_betas=0.1, kernel=0.05
        )
    )
    align_losses: FitLossConfig = dataclasses.field(
        default_factory=lambda: FitLossConfig(
            parts=0.0,
            smoothness=0.0,
            latent=0.0,
            dynamics=0.0,
            start=0.01,
        )
    )
    std_draws: Annotated[int, Range(2, 4096)] = 8
    chunk: Count = 64
    context: CountOrNone = 32
