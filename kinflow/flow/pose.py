"""The kinematic normalizing flow: an exact density over the rotations of the body's 21 joints."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ..config import FlowConfig
from ..errors import check_shape
from ..skeleton import NUM_BODY
from .chart import RotationChart, Tail, Whitening
from .coupling import Coupling, Couplings, tree_masks
from .normal import standard_normal_log_prob

LATENT_DIM = 3 * NUM_BODY


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32: the flow's log-determinants need it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class PoseFlow(nn.Module):
    """Body pose <-> 63 standard normal latents, one to one, with exact volume change both ways.

    Joint rotations go through :class:`~kinflow.flow.chart.RotationChart`, a full-covariance whitening, a
    :class:`~kinflow.flow.chart.Tail` and coupling layers whose masks follow the kinematic tree. All parts keep float32
    under autocast and follow the module's dtype in float64. After Zanfir et al., "Weakly Supervised 3D Human Pose and
    Shape Reconstruction with Normalizing Flows" (ECCV 2020), sec. 3.1, on SO(3)^21 instead of R^(6 x 21).

    >>> flow = PoseFlow(FlowConfig(layers=2, hidden=8))
    >>> z, log_det = flow.encode(torch.eye(3).expand(5, 21, 3, 3))
    >>> z.shape, flow.decode(z)[0].shape
    (torch.Size([5, 63]), torch.Size([5, 21, 3, 3]))
    """

    latent_dim = LATENT_DIM

    def __init__(self, config: FlowConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FlowConfig()
        self.chart = RotationChart(NUM_BODY)
        self.whitening = Whitening(LATENT_DIM)
        self.tail = Tail(LATENT_DIM, config.tail)
        self.couplings = Couplings(
            Coupling(
                mask,
                config.hidden,
                config.blocks,
                config.dropout,
                config.log_scale_cap,
                config.bins if config.coupling == "spline" else 0,
                config.bound,
                config.input_noise,
            )
            for mask in tree_masks(config.layers, 3)
        )

    @torch.no_grad()
    def fit_chart(self, pose_rotmat: Tensor) -> None:
        """Set the joints' mean rotations and the whitening from training poses (N, 21, 3, 3)."""
        check_shape("pose_rotmat", pose_rotmat, f"N {NUM_BODY} 3 3")
        self.chart.fit(pose_rotmat)
        self.whitening.fit(self.chart(at_least_float32(pose_rotmat))[0].flatten(-2))

    @torch.no_grad()
    def linear(self) -> PoseFlow:
        """The same chart and whitening, with tails as they were before training and no coupling layers: 63 coordinates in
        which small rotations mean the same whatever the pose, for models of how poses change."""
        flow = PoseFlow(dataclasses.replace(self.config, layers=0))
        flow.chart.load_state_dict(self.chart.state_dict())
        flow.whitening.load_state_dict(self.whitening.state_dict())
        mean = self.whitening.mean
        return flow.to(device=mean.device, dtype=mean.dtype).eval().requires_grad_(False)

    def encode(self, pose_rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of poses.

        Args:
            pose_rotmat: (..., 21, 3, 3), rotations of SMPL joints 1 to 21 relative to their parents.

        Returns:
            z (..., 63) and log|dz / dHaar| (...), nats.

        Raises:
            ShapeError: another shape.
        """
        check_shape(
            "pose_rotmat", pose_rotmat, f"... {NUM_BODY} 3 3", "Give SMPL's body joints 1 to 21, without the hands."
        )
        with torch.autocast(pose_rotmat.device.type, enabled=False):
            u, log_det = self.chart(at_least_float32(pose_rotmat))
            z = self.whitening(u.flatten(-2))
            z, bent = self.tail(z)
            z, coupled = self.couplings(z)
        return z, log_det + self.whitening.log_det().to(z.dtype) + bent + coupled

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Poses of latents (..., 63): pose_rotmat (..., 21, 3, 3) and log|dHaar / dz| (...), nats.

        Raises:
            ShapeError: another shape.
        """
        check_shape("z", z, f"... {LATENT_DIM}")
        with torch.autocast(z.device.type, enabled=False):
            x, coupled = self.couplings.inverse(at_least_float32(z))
            x, bent = self.tail.inverse(x)
            rotmat, log_det = self.chart.inverse(self.whitening.inverse(x).unflatten(-1, (NUM_BODY, 3)))
        return rotmat, coupled - self.whitening.log_det().to(x.dtype) + bent + log_det

    def log_prob(self, pose_rotmat: Tensor) -> Tensor:
        """Log-density of poses (..., 21, 3, 3) -> (...), nats with respect to the Haar measure on SO(3)^21 (8 pi^2 each)."""
        z, log_det = self.encode(pose_rotmat)
        return standard_normal_log_prob(z) + log_det

    def sample(
        self, shape: tuple[int, ...], generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Poses (*shape, 21, 3, 3) drawn from the density; ``temperature`` scales the latents."""
        mean = self.whitening.mean
        z = torch.randn(*shape, LATENT_DIM, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.decode(temperature * z)[0]

    def forward(self, pose_rotmat: Tensor) -> Tensor:
        """The same as :meth:`log_prob`."""
        return self.log_prob(pose_rotmat)
