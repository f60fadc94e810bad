"""The paper's variant: RealNVP on the 6D rotation form, made a density by a randomised Gram-Schmidt.

The 6D numbers of a rotation lie on a 3-dimensional surface of R^6, where a plain negative log-likelihood has no lower
bound. So each rotation is lifted to all of R^6 by what Gram-Schmidt removes: two lengths and a shear,

    a = s1 c1,   b = k c1 + s2 c2,      da db = s1^2 s2 ds1 ds2 dk dHaar

(c1, c2 the rotation's first two columns; Haar measure of total 8 pi^2). With s1, s2, k drawn from a known density q,
log p(R) >= E_q[log p(a, b) + 2 log s1 + log s2 - log q(s1, s2, k)], and importance sampling tightens the bound
(idea: arXiv 2507.12138).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import FlowConfig
from ..errors import check_shape
from ..rotations import rot6d_to_rotmat
from ..skeleton import NUM_BODY
from .chart import Whitening
from .coupling import Coupling, Couplings, tree_masks
from .normal import standard_normal_log_prob
from .pose import at_least_float32


class Rot6dFlow(nn.Module):
    """Body pose, lifted to R^126, <-> 126 standard normal latents (Zanfir et al., ECCV 2020, sec. 3.1)."""

    latent_dim = 6 * NUM_BODY

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.spread = config.gram_schmidt_spread
        self.whitening = Whitening(self.latent_dim)
        bins = config.bins if config.coupling == "spline" else 0
        self.couplings = Couplings(
            Coupling(mask, config.hidden, config.blocks, config.dropout, config.log_scale_cap, bins, config.bound)
            for mask in tree_masks(config.layers, 6)
        )

    def lift(self, pose_rotmat: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """6D numbers (..., 126) of poses (..., 21, 3, 3) under Gram-Schmidt noise (..., 21, 3), standard normal.

        Returns also log(da db / (dHaar dq)) (...): the volume of the lift less the noise's log-density.
        """
        log_s1, log_s2, shear = (self.spread * noise).unbind(-1)
        c1, c2 = pose_rotmat[..., 0], pose_rotmat[..., 1]
        a = log_s1.exp()[..., None] * c1
        b = shear[..., None] * c1 + log_s2.exp()[..., None] * c2
        # q's density in (s1, s2, k): normal in (log s1, log s2, k), so divided by s1 s2 and spread^3.
        log_q = standard_normal_log_prob(noise) - 3 * math.log(self.spread) - log_s1 - log_s2
        return torch.cat((a, b), -1).flatten(-2), (2 * log_s1 + log_s2 - log_q).sum(-1)

    @torch.no_grad()
    def fit_chart(self, pose_rotmat: Tensor) -> None:
        """Set the whitening from training poses (N, 21, 3, 3), lifted with noise."""
        check_shape("pose_rotmat", pose_rotmat, f"N {NUM_BODY} 3 3")
        rotmat = at_least_float32(pose_rotmat)
        self.whitening.fit(self.lift(rotmat, torch.randn_like(rotmat[..., 0]))[0])

    def encode(self, pose_rotmat: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (..., 126) and log|dz / (dHaar dq)| (...) of poses (..., 21, 3, 3).

        Args:
            noise: (..., 21, 3) Gram-Schmidt noise; zeros where not given (the orthonormal 6D form itself).
        """
        check_shape(
            "pose_rotmat", pose_rotmat, f"... {NUM_BODY} 3 3", "Give SMPL's body joints 1 to 21, without the hands."
        )
        with torch.autocast(pose_rotmat.device.type, enabled=False):
            rotmat = at_least_float32(pose_rotmat)
            x, log_det = self.lift(rotmat, torch.zeros_like(rotmat[..., 0]) if noise is None else noise)
            z, coupled = self.couplings(self.whitening(x))
        return z, log_det + self.whitening.log_det().to(z.dtype) + coupled

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """pose_rotmat (..., 21, 3, 3) of latents (..., 126), and log|d(6D) / dz| (...). Many latents give one pose."""
        check_shape("z", z, f"... {self.latent_dim}")
        with torch.autocast(z.device.type, enabled=False):
            x, log_det = self.couplings.inverse(at_least_float32(z))
            rotmat = rot6d_to_rotmat(self.whitening.inverse(x).unflatten(-1, (NUM_BODY, 6)))
        return rotmat, log_det - self.whitening.log_det().to(x.dtype)

    def log_prob(self, pose_rotmat: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Stochastic lower bound of the log-density (...), nats with respect to the Haar measure on SO(3)^21.

        Args:
            samples: importance samples; the bound tightens with their number.
        """
        check_shape("pose_rotmat", pose_rotmat, f"... {NUM_BODY} 3 3")
        rotmat = at_least_float32(pose_rotmat)
        noise = torch.randn(samples, *rotmat.shape[:-1], generator=generator, dtype=rotmat.dtype, device=rotmat.device)
        z, log_det = self.encode(rotmat.expand(samples, *rotmat.shape), noise)
        return torch.logsumexp(standard_normal_log_prob(z) + log_det, 0) - math.log(samples)

    def sample(
        self, shape: tuple[int, ...], generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Poses (*shape, 21, 3, 3) drawn from the density; ``temperature`` scales the latents."""
        mean = self.whitening.mean
        z = torch.randn(*shape, self.latent_dim, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.decode(temperature * z)[0]

    def forward(self, pose_rotmat: Tensor) -> Tensor:
        """The same as :meth:`log_prob`."""
        return self.log_prob(pose_rotmat)
