"""Configurations of the networks, the losses and the refinement."""

from __future__ import annotations

import dataclasses
import typing

from ..errors import ConfigError


@dataclasses.dataclass(frozen=True)
class FlowConfig:
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
    layers: int = 8
    hidden: int = 160
    blocks: int = 1
    dropout: float = 0.1
    input_noise: float = 0.0
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

    latent_dim: int = 63
    hidden: int = 256
    ode_hidden: int = 192
    head_hidden: int = 384
    components: int = 3
    rank: int = 8
    solver: typing.Literal[
        "euler", "midpoint", "rk4", "heun2", "heun3", "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"
    ] = "midpoint"
    max_step: float = 0.1
    rtol: float = 1e-5
    atol: float = 1e-6
    adjoint: bool = False
    horizon: float = 0.25
    sigma_floor: float = 1e-3
    dropout: float = 0.1
    between: typing.Literal["ode", "cell"] = "ode"

    def __post_init__(self) -> None:
        """Raises ConfigError for a step or a tolerance that is not positive."""
        for name in ("max_step", "rtol", "atol"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"dynamics.{name}: expected a positive number, got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """The learned denoiser.

    Attributes:
        width: of the frames' tokens; hidden: of the feed-forward layers; layers, heads: of the transformer.
        dropout: in training only.
    """

    width: int = 192
    hidden: int = 512
    layers: int = 6
    heads: int = 6
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class FitLossConfig:
    """Weights of the losses of :mod:`kinflow.losses` when a motion is fitted to its evidence; 0 leaves a term out.

    Attributes:
        keypoints: reprojection of the landmarks, confidence-weighted and robust; keypoint_scale: residual, as a fraction
            of the person's size, that counts as an outlier.
        parts: alignment of the person mask with projected vertices; part_scale: likewise.
        landmarks: world landmarks in 3D, up to scale and shift; depth_weight: of their depth against the other axes.
        acceleration: of the joints in true time; acceleration_scale: m/s^2.
        smoothness: of z in true time.
        latent: the flow's prior on z; dynamics: the latent dynamics' likelihood of the motion.
        posterior: the network's own Gaussians over z and root.
        betas: prior on the shape.
        contact_velocity: sliding of feet in contact before a camera that stands still.
    """

    keypoints: float = 200.0
    keypoint_scale: float = 0.1
    parts: float = 4.0
    part_scale: float = 0.1
    landmarks: float = 2.0
    depth_weight: float = 0.3
    acceleration: float = 0.3
    acceleration_scale: float = 10.0
    smoothness: float = 0.05
    latent: float = 0.05
    dynamics: float = 0.02
    posterior: float = 0.5
    betas: float = 1.0
    contact_velocity: float = 0.0

    def __post_init__(self) -> None:
        _not_negative("fit losses", self)


@dataclasses.dataclass(frozen=True)
class TrainingLossConfig:
    """Weights of the losses of :mod:`kinflow.losses` when the reconstructor is trained; 0 leaves a term out.

    Attributes:
        keypoints: reprojection of the landmarks by a camera along the ray; keypoint_scale: residual, as a fraction of the
            person's size, that counts as an outlier.
        joints3d, rotations: known 3D joints (decoded, and lifted by the 2D-only path) and rotations (joints and root).
        acceleration: error of the joints' acceleration in true time; acceleration_scale: m/s^2.
        posterior: negative log-likelihood of the true z, root and shape under the network's Gaussians.
        betas: prior on the shape.
        contacts: cross-entropy of foot contact.
    """

    keypoints: float = 2.0
    keypoint_scale: float = 0.1
    joints3d: float = 4.0
    rotations: float = 1.0
    acceleration: float = 0.15
    acceleration_scale: float = 10.0
    posterior: float = 1.0
    betas: float = 0.1
    contacts: float = 0.1

    def __post_init__(self) -> None:
        _not_negative("training losses", self)


def _not_negative(name: str, weights: FitLossConfig | TrainingLossConfig) -> None:
    for key, value in dataclasses.asdict(weights).items():
        if value < 0:
            raise ConfigError(f"{name}: {key}: expected at least 0, got {value}. 0 leaves a term out.")


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Test-time optimisation.

    Attributes:
        iterations: of Adam, with a cosine step size; lr: of z; lr_root (rad), lr_transl (m), lr_betas: of the others.
        pixels: sampled from each frame's mask; vertices: projected for the alignment with it.
        window: frames of the pieces in which the dynamics' likelihood is taken.
        kernel: s, standard deviation of the Gaussian kernel through which corrections pass, so that none is rougher.
    """

    iterations: int = 60
    lr: float = 0.03
    lr_root: float = 0.01
    lr_transl: float = 0.02
    lr_betas: float = 0.05
    pixels: int = 128
    vertices: int = 256
    window: int = 16
    kernel: float = 0.08


@dataclasses.dataclass(frozen=True)
class ReconstructorConfig:
    """The frame encoder, the latent filter, and what turns their Gaussians into motion.

    Attributes:
        width: of the frame encoder's residual MLP; blocks: how many of them.
        recurrent: states of the encoder's recurrence, per direction.
        head_width: hidden units of the heads.
        lifter_width: of the 2D-only path, which stands in for world landmarks that nobody measured.
        dropout: inside the residual blocks, in training alone.
        root_inflation, transl_inflation: factors on the covariances of single frames, whose errors are alike in time.
        z_kernel: s, standard deviation of the Gaussian kernel that averages the offline latents by their precisions; 0
            leaves them.
        landmark_sigma: m, error of one landmark when the translation is solved.
        align: the short fit to the keypoints that ends every offline reconstruction; 0 iterations: none.
        align_losses: what that fit weighs.
        std_draws: samples of pose and root, half of them mirrored, from which the joints' standard deviations come.
        chunk: longest stretch of frames that is filtered at once; context: frames of warm-up at each side of it.
    """

    width: int = 384
    blocks: int = 3
    recurrent: int = 224
    head_width: int = 320
    lifter_width: int = 256
    dropout: float = 0.0
    root_inflation: float = 6.0
    transl_inflation: float = 4.0
    z_kernel: float = 0.05
    landmark_sigma: float = 0.05
    align: RefineConfig = dataclasses.field(
        default_factory=lambda: RefineConfig(
            iterations=8, lr=0.1, lr_root=0.03, lr_transl=0.04, lr_betas=0.1, kernel=0.12
        )
    )
    align_losses: FitLossConfig = dataclasses.field(
        default_factory=lambda: FitLossConfig(posterior=1.0, landmarks=1.0, parts=0.0, dynamics=0.0, smoothness=0.0)
    )
    std_draws: int = 8
    chunk: int = 64
    context: int = 32
