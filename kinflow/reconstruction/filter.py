"""The filter: the pose through time in the flow's chart, predicted by the recurrent dynamics and corrected by observations.

In the chart noise has one size whatever the pose; the coupling layers, which make latents of it, stretch it by 0.4 to 150
(measured), and one Gaussian over latents fits neither what was seen nor what is predicted.

At each frame the dynamics' hidden state is carried over the true time step by its neural ODE and predicts a Gaussian
over the coordinates; the frame's observed Gaussian is fused with it by their precisions; the state is then updated with the result.
Frames without observation are integrated through. It runs backward over the reversed motion as well; the two passes are
fused by :func:`~kinflow.reconstruction.gaussian.fuse_over_prior`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..dynamics import LatentDynamics, State
from .gaussian import Gaussian, Information, absorb, evidence_of, soft_max, standard

_TRUST_UNIT = 10.0  # nats that one of the trust parameters is worth, so that they learn as fast as they need
_FIRST_WIDENING = 7.0
_LARGEST_VAR = 0.95  # of a prediction: what was seen before is worth something for as long as it is remembered


class Pass(NamedTuple):
    """Predicted (before the frame is seen) and filtered (after) Gaussians over the chart, (B, T, 63) each."""

    predicted: Gaussian
    filtered: Gaussian


class ChartFilter(nn.Module):
    """Filter with one :class:`~kinflow.dynamics.LatentDynamics` and, for each direction, its own trust in it.

    The dynamics were trained on exact poses; the filter feeds them uncertain ones, and the backward pass runs them on
    reversed time. Both make their predictions too narrow, so each direction learns two numbers per coordinate: by how much
    the predicted variance grows, and how much of the last frame's own uncertainty is handed on.
    """

    DIRECTIONS = 2

    def __init__(self, dynamics: LatentDynamics, coordinates: int) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.widen = nn.Parameter(torch.zeros(self.DIRECTIONS, 2, coordinates))
        self.hand_on = nn.Parameter(torch.zeros(self.DIRECTIONS, 2, coordinates))
        with torch.no_grad():
            self.widen[:, 0] = _FIRST_WIDENING / _TRUST_UNIT

    def forward(
        self, observed: Gaussian, seen: Tensor, dt: Tensor, direction: Tensor, learn_dynamics: bool = False
    ) -> Pass:
        """Run over (B, T, D) observed Gaussians.

        Args:
            observed: what each frame's posterior is by itself; the prior in it is divided out.
            seen: (B, T) bool; where false the evidence is ignored.
            dt: (B, T) s, step to the frame before; the first is not used.
            direction: (B,) int, 0 forward in time, 1 for sequences that come reversed.
            learn_dynamics: let gradients reach the dynamics' parameters. By default they stay as trained by likelihood
                on motions, and their predictions enter as constants.
        """
        batch, steps, _ = observed.mean.shape
        evidence = evidence_of(observed)
        widen, hand_on = _TRUST_UNIT * self.widen[direction], _TRUST_UNIT * self.hand_on[direction]
        state = self.dynamics.initial_state((batch,))
        carried = torch.full_like(observed.mean[:, 0], -math.inf)  # log-variance of the last update
        predicted: list[Gaussian] = []
        filtered: list[Gaussian] = []
        for t in range(steps):
            with torch.set_grad_enabled(learn_dynamics and torch.is_grad_enabled()):
                if t:
                    state = self.dynamics.advance(state, dt[:, t])
                raw = predict(self.dynamics, state)
            log_step = 0.5 * torch.log(dt[:, t] * 30)[:, None]
            wide = raw.log_var.to(observed.mean.dtype) + widen[:, 0] + widen[:, 1] * log_step
            more = carried + hand_on[:, 0] + hand_on[:, 1] * log_step
            log_var = torch.logaddexp(wide, more) if t else wide
            log_var = soft_max(log_var, math.log(_LARGEST_VAR))
            # Under the marginal N(0, I) a wider prediction has a shorter mean: the mean's own variance is 1 - v.
            shorter = ((1 - log_var.exp()) / (1 - raw.log_var.to(log_var.dtype).exp().clamp_max(_LARGEST_VAR))).sqrt()
            prediction = Gaussian(raw.mean.to(observed.mean.dtype) * shorter.clamp_max(1.0), log_var)
            prediction = standard(prediction.mean).where(torch.isinf(carried[:, 0]), prediction)
            here = Information(evidence.vector[:, t], evidence.precision[:, t])
            fused = absorb(prediction, here).where(seen[:, t], prediction)
            carried = torch.where(seen[:, t, None], fused.log_var, carried)
            predicted.append(prediction)
            filtered.append(fused)
            with torch.set_grad_enabled(learn_dynamics and torch.is_grad_enabled()):
                z = fused.mean if learn_dynamics else fused.mean.detach()
                state = self.dynamics.update(state, z, valid=seen[:, t])
        return Pass(_stack(predicted), _stack(filtered))

    @torch.no_grad()
    def bridge(self, estimate: Gaussian, seen: Tensor, dt: Tensor) -> tuple[Gaussian, Tensor]:
        """One direction of filling gaps: what the dynamics say of every frame given the estimates at ``seen`` frames.

        The estimates are as even in time as the motions that the dynamics learned from, so the predictions are taken as they
        are, as if the estimates were exact; before the first of them the prediction is N(0, I).

        Returns:
            Predictions (B, T, D), and the variance (B, T, D) of the last estimate before each frame (1 for none).
        """
        state = self.dynamics.initial_state((len(seen),))
        variance = torch.ones_like(estimate.mean[:, 0])
        predicted, carried = [], []
        for t in range(seen.shape[1]):
            if t:
                state = self.dynamics.advance(state, dt[:, t])
            predicted.append(predict(self.dynamics, state))
            carried.append(variance)
            state = self.dynamics.update(state, estimate.mean[:, t], valid=seen[:, t])
            variance = torch.where(seen[:, t, None], estimate.log_var[:, t].exp(), variance)
        return _stack(predicted), torch.stack(carried, 1)


def _stack(frames: list[Gaussian]) -> Gaussian:
    return Gaussian(torch.stack([g.mean for g in frames], 1), torch.stack([g.log_var for g in frames], 1))


def predict(dynamics: LatentDynamics, state: State) -> Gaussian:
    """Mean and marginal variances (B, D) of the dynamics' mixture; N(0, I) for people of whom nothing was seen yet."""
    # The dynamics predict first frames and later ones apart; a batch of people here may hold both.
    new = state.seen == 0
    mixture = dynamics.predict(state._replace(seen=state.seen.clamp_min(1)))
    later = Gaussian(mixture.mean, torch.log(mixture.variance().clamp_min(1e-8)))
    return standard(later.mean).where(new, later)
