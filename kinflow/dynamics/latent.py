"""Latent dynamics: p(z_1 .. z_T) at the frames' true time stamps, as a recurrence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import DynamicsConfig
from ..errors import ShapeError, check_shape
from ..flow.normal import squash, standard_normal_log_prob
from ..timing import gather_time, valid_before
from .field import DecayField
from .predictive import Predictive
from .solver import flow_over

ROOT_DIM = 6
_ROOT_SCALE = (3.0, 3.0, 3.0, 1.0, 1.0, 1.0)  # rad/s and m/s that count as one


class State(NamedTuple):
    """What the recurrence carries from frame to frame, for any batch shape.

    Attributes:
        hidden: (..., H).
        z: (..., D) last observed latent; zeros before the first.
        velocity: (..., D) last observed difference per second; zeros before the second.
        elapsed: (...,) seconds since the last observation.
        seen: (...,) number of observations so far, 0, 1 or 2 (and more).
    """

    hidden: Tensor
    z: Tensor
    velocity: Tensor
    elapsed: Tensor
    seen: Tensor


class Histories(NamedTuple):
    """What each frame of a batch knows of the frames before it.

    Attributes:
        z: (B, T, D), zeros where not valid.
        dt: (B, T) s from the previous frame.
        velocity_here: (B, T, D) difference per second that the frame would bring.
        z_last, velocity: (B, T, D) the last valid latent before the frame, and that one's velocity.
        elapsed: (B, T) s since then.
        seen: (B, T) frames seen before, 0, 1 or 2.
    """

    z: Tensor
    dt: Tensor
    velocity_here: Tensor
    z_last: Tensor
    velocity: Tensor
    elapsed: Tensor
    seen: Tensor


class LatentDynamics(nn.Module):
    """A recurrence in continuous time: the hidden state moves by a neural ODE between frames, is updated by a gated cell
    at each observed frame, and gives the distribution of the next latent.

    The first observed latent of a motion has the flow's base density N(0, I). Each later one has a
    :class:`~kinflow.dynamics.predictive.Predictive` around the last latent plus a velocity that dies out, with a spread
    that grows with the time since. Together with the flow this is an exact likelihood of a whole motion.

    >>> model = LatentDynamics(DynamicsConfig(hidden=8, ode_hidden=8, head_hidden=8))
    >>> times = torch.arange(5) / 30.0
    >>> model.log_prob(torch.zeros(2, 5, 63), times.expand(2, 5)).shape
    torch.Size([2, 5])
    """

    root_scale: Tensor

    def __init__(self, config: DynamicsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DynamicsConfig()
        dim, hidden, k, rank = config.latent_dim, config.hidden, config.components, config.rank
        self.field = DecayField(hidden, config.ode_hidden)
        self.inputs = nn.Linear(2 * dim + ROOT_DIM + 3, 3 * hidden)
        self.recur = nn.Linear(hidden, 3 * hidden)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.head_in = nn.Linear(hidden + 2 * dim + 3, config.head_hidden)
        self.head_mid = nn.Linear(config.head_hidden, config.head_hidden)
        self.head_drop = nn.Dropout(config.dropout)
        self.head_out = nn.Linear(config.head_hidden, 2 * dim + k * (2 + dim) + dim * rank)
        with torch.no_grad():
            self.head_out.weight.mul_(0.1)
            self.head_out.bias.zero_()
        self.log_spread = nn.Parameter(torch.full((dim,), -2.0))
        self.log_scale = nn.Parameter(torch.linspace(-0.7, 0.7, k) if k > 1 else torch.zeros(1))
        self.spread_power = nn.Parameter(torch.ones(dim))
        self.basis_below = nn.Parameter(torch.zeros(dim, dim))
        self.register_buffer("root_scale", torch.tensor(_ROOT_SCALE), persistent=False)

    # -- step by step -------------------------------------------------------------------------------------------------

    def initial_state(self, batch_shape: tuple[int, ...] | int = ()) -> State:
        """The state before anything was seen."""
        shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
        zeros = self.start.new_zeros(*shape, self.config.latent_dim)
        flat = self.start.new_zeros(shape)
        return State(torch.tanh(self.start).expand(*shape, -1), zeros, zeros, flat, flat)

    def advance(self, state: State, dt: Tensor | float) -> State:
        """Let time pass, unobserved.

        Args:
            dt: seconds, not negative, of the state's batch shape or one for all.

        Raises:
            ShapeError: negative or not finite.
        """
        step = torch.as_tensor(dt, dtype=state.elapsed.dtype, device=state.elapsed.device).expand(state.elapsed.shape)
        if step.numel() and not bool(((step >= 0) & torch.isfinite(step)).all()):
            raise ShapeError("dt: expected finite seconds, not negative. Sort the frames by time.")
        flat = state.hidden.reshape(-1, state.hidden.shape[-1])
        hidden = self._pass_time(flat, step.reshape(-1))
        return state._replace(hidden=hidden.reshape(state.hidden.shape), elapsed=state.elapsed + step)

    def predict(self, state: State) -> Predictive:
        """Distribution of the latent now: (...,) of Gaussian mixtures. Before the first observation it is N(0, I)."""
        predictive = self._head(state.hidden, state.z, state.velocity, state.elapsed, state.seen)
        return self._first_frame(predictive, state.seen)

    def update(self, state: State, z: Tensor, root: Tensor | None = None, valid: Tensor | None = None) -> State:
        """Take in a latent observed now.

        Args:
            z: (..., D).
            root: (..., 6) angular velocity (rad/s) and linear velocity (m/s) of the root, both in the heading frame.
            valid: (...,) bool; where false, the state stays as it is and ``z`` is not looked at.
        """
        gap = state.elapsed.clamp_min(1e-4)[..., None]
        z_in = z if valid is None else torch.where(valid[..., None], z, state.z)
        velocity = torch.where((state.seen > 0)[..., None], (z_in - state.z) / gap, torch.zeros_like(z_in))
        fresh = self._cell_input(z_in, velocity, state.elapsed, state.seen, root)
        hidden = self._cell(fresh, state.hidden)
        new = State(hidden, z_in, velocity, torch.zeros_like(state.elapsed), (state.seen + 1).clamp(max=2))
        if valid is None:
            return new
        return State(
            *(
                torch.where(valid[..., None] if a.dim() > valid.dim() else valid, a, b)
                for a, b in zip(new, state, strict=True)
            )
        )

    # -- whole sequences ----------------------------------------------------------------------------------------------

    def log_prob(
        self,
        z: Tensor,
        timestamps: Tensor,
        valid: Tensor | None = None,
        root: Tensor | None = None,
        most_steps: int | None = None,
    ) -> Tensor:
        """log p(z_t | valid z before t), nats in latent units; their sum over t is the motion's log-density.

        Args:
            z: (B, T, D).
            timestamps: (B, T) s, strictly increasing within the valid frames (float64 keeps long clips exact).
            valid: (B, T) bool; a frame that is not valid is integrated through and counts 0. None: all are.
            root: (B, T, 6) root motion at each frame, see :meth:`update`; None: unknown.
            most_steps: of the solver between two frames; None: as many as the longest interval asks for.

        Returns:
            (B, T).

        Raises:
            ShapeError: shapes or time stamps that do not fit.
        """
        valid, histories, before, _ = self._run(z, timestamps, valid, root, most_steps)
        return self._score(z, valid, self._predict_all(histories, before), histories.seen)

    def log_prob_ahead(
        self,
        z: Tensor,
        timestamps: Tensor,
        valid: Tensor | None,
        root: Tensor | None,
        start: Tensor,
        target: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`log_prob`, and how likely later frames are when everything after an earlier one is unseen.

        Args:
            z, timestamps, valid, root: as in :meth:`log_prob`.
            start, target: (B, K) frame numbers, start < target, both of valid frames.

        Returns:
            (B, T), and (B, K): log p(z_target | valid z up to and with start).
        """
        valid, histories, before, after = self._run(z, timestamps, valid, root)
        one = self._score(z, valid, self._predict_all(histories, before), histories.seen)

        ahead = (gather_time(timestamps, target) - gather_time(timestamps, start)).to(z.dtype)
        hidden = self._pass_time(gather_time(after, start).flatten(0, 1), ahead.flatten()).unflatten(0, start.shape)
        seen = (gather_time(histories.seen, start) + 1).clamp(max=2)
        here = gather_time(histories.z, start)
        predictive = self._head(hidden, here, gather_time(histories.velocity_here, start), ahead, seen)
        return one, predictive.log_prob(gather_time(z, target))

    def predictions(
        self, z: Tensor, timestamps: Tensor, valid: Tensor | None = None, root: Tensor | None = None
    ) -> Predictive:
        """What each frame is predicted to be from the valid ones before it, (B, T) of Gaussian mixtures; arguments as of
        :meth:`log_prob`. Each motion's first valid frame, and those before it, are predicted from nothing."""
        _, histories, before, _ = self._run(z, timestamps, valid, root)
        return self._first_frame(self._predict_all(histories, before), histories.seen)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _run(
        self, z: Tensor, timestamps: Tensor, valid: Tensor | None, root: Tensor | None, most: int | None = None
    ) -> tuple[Tensor, Histories, Tensor, Tensor]:
        """The recurrence: valid, histories, and the hidden state (B, T, H) before and after each frame is taken in."""
        sizes = check_shape("z", z, f"B T {self.config.latent_dim}")
        check_shape("timestamps", timestamps, f"{sizes['B']} {sizes['T']}")
        if valid is None:
            valid = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
        check_shape("valid", valid, f"{sizes['B']} {sizes['T']}")
        if root is not None:
            check_shape("root", root, f"{sizes['B']} {sizes['T']} {ROOT_DIM}")
        histories = self._histories(z, timestamps, valid)
        fresh = self._cell_input(histories.z, histories.velocity_here, histories.elapsed, histories.seen, root)
        hidden = torch.tanh(self.start).expand(z.shape[0], -1)
        before, after = [], []
        for t in range(z.shape[1]):
            if t:
                hidden = self._pass_time(hidden, histories.dt[:, t], most)
            before.append(hidden)
            hidden = torch.where(valid[:, t, None], self._cell(fresh[:, t], hidden), hidden)
            after.append(hidden)
        return valid, histories, torch.stack(before, 1), torch.stack(after, 1)

    def _pass_time(self, hidden: Tensor, dt: Tensor, most: int | None = None) -> Tensor:
        """The hidden state (N, H) after dt (N,) s without an observation."""
        if self.config.between == "cell":
            return hidden
        return flow_over(self.field, hidden, dt, self.config, most)

    def _predict_all(self, histories: Histories, hidden: Tensor) -> Predictive:
        return self._head(hidden, histories.z_last, histories.velocity, histories.elapsed, histories.seen)

    @staticmethod
    def _score(z: Tensor, valid: Tensor, predictive: Predictive, seen: Tensor) -> Tensor:
        normal = standard_normal_log_prob(z)
        safe = torch.where(valid[..., None], z, predictive.means[..., 0, :].detach())
        later = predictive.log_prob(safe)
        return torch.where(valid, torch.where(seen > 0, later, normal), torch.zeros_like(later))

    @staticmethod
    def _histories(z: Tensor, timestamps: Tensor, valid: Tensor) -> Histories:
        """What each frame knows of the frames before it."""
        z = torch.where(valid[..., None], z, torch.zeros_like(z))
        # The gaps are taken before the cast, so that time stamps in float64 lose nothing.
        dt = torch.diff(timestamps, dim=1, prepend=timestamps[:, :1])
        if not torch.compiler.is_exporting() and not bool((dt[:, 1:] > 0).all()):
            raise ShapeError(
                "timestamps: expected strictly increasing seconds. Sort the frames and drop repeated ones."
            )
        dt = dt.to(z.dtype)

        # Last valid frame strictly before each frame, and the one before that.
        before = valid_before(valid)
        count = torch.cumsum(valid, 1) - valid.long()
        known = before >= 0
        last = before.clamp_min(0)

        elapsed = torch.where(known, timestamps - gather_time(timestamps, last), timestamps - timestamps[:, :1]).to(
            z.dtype
        )
        z_last = torch.where(known[..., None], gather_time(z, last), torch.zeros_like(z))
        velocity_here = torch.where(
            known[..., None], (z - z_last) / elapsed.clamp_min(1e-4)[..., None], torch.zeros_like(z)
        )
        velocity = torch.where(known[..., None], gather_time(velocity_here, last), torch.zeros_like(z))
        seen = count.clamp(max=2).to(z.dtype)

        return Histories(z, dt, velocity_here, z_last, velocity, elapsed, seen)

    def _cell_input(self, z: Tensor, velocity: Tensor, elapsed: Tensor, seen: Tensor, root: Tensor | None) -> Tensor:
        flags = torch.stack((self._log_time(elapsed), seen / 2, torch.full_like(seen, float(root is not None))), -1)
        root = z.new_zeros(*z.shape[:-1], ROOT_DIM) if root is None else root / self.root_scale.to(root.dtype)
        return self.inputs(torch.cat((squash(z, 4.0), squash(velocity / 4, 4.0), squash(root, 3.0), flags), -1))

    def _cell(self, fresh: Tensor, hidden: Tensor) -> Tensor:
        """Gated recurrent unit (Cho et al., 2014) on inputs already multiplied by their weights."""
        reset, keep, new = fresh.chunk(3, -1)
        past_reset, past_keep, past_new = self.recur(hidden).chunk(3, -1)
        keep = torch.sigmoid(keep + past_keep)
        return keep * hidden + (1 - keep) * torch.tanh(new + torch.sigmoid(reset + past_reset) * past_new)

    @staticmethod
    def _log_time(elapsed: Tensor) -> Tensor:
        return torch.log(elapsed.clamp_min(1e-3) * 30) / 2

    def _head(self, hidden: Tensor, z: Tensor, velocity: Tensor, elapsed: Tensor, seen: Tensor) -> Predictive:
        config = self.config
        dim, k, rank = config.latent_dim, config.components, config.rank
        flags = torch.stack((self._log_time(elapsed), seen / 2, elapsed.clamp(max=2.0)), -1)
        x = torch.cat((hidden, squash(z, 4.0), squash(velocity / 4, 4.0), flags), -1)
        x = functional.silu(self.head_in(x))
        x = self.head_drop(x + functional.silu(self.head_mid(x)))
        out = self.head_out(x).to(z.dtype)
        keep, logits, sizes, widths, shift, low = out.split((dim, k, k, dim, k * dim, dim * rank), -1)
        drift, log_level = self._baseline(velocity, elapsed)
        log_level = log_level + self.log_spread
        # The head scales the extrapolated velocity and shifts each component's mean in units of the spread.
        mean = z + 2 * torch.sigmoid(keep) * drift
        means = mean[..., None, :] + log_level.exp()[..., None, :] * squash(shift.unflatten(-1, (k, dim)), 20.0)
        std = config.sigma_floor + torch.exp(log_level + 6 * torch.tanh(widths / 6))
        low_rank = std[..., None] * squash(low.unflatten(-1, (dim, rank)), 20.0)
        scale = torch.exp(self.log_scale + 3 * torch.tanh(sizes / 3))
        basis = torch.eye(dim, dtype=z.dtype, device=z.device) + self.basis_below.tril(-1).to(z.dtype)
        return Predictive(torch.log_softmax(logits, -1), means, scale, std, low_rank, basis)

    def _baseline(self, velocity: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        """Displacement of a velocity that dies out over the horizon, and the log of how the spread grows with time."""
        tau = elapsed.clamp_min(1e-3)[..., None]
        reach = self.config.horizon * -torch.expm1(-tau / self.config.horizon)
        return reach * velocity, self.spread_power.clamp(0.3, 3) * torch.log(reach / 0.03)

    @torch.no_grad()
    def fit_baseline(self, z: Tensor, timestamps: Tensor, valid: Tensor) -> None:
        """Start where a constant-velocity Gaussian would be: fit the spread's growth, level and correlations.

        Args:
            z (B, T, D), timestamps (B, T), valid (B, T): training motions at the frame rates to be met.
        """
        _, _, _, last, velocity, elapsed, seen = self._histories(z, timestamps, valid)
        use = valid & (seen >= 2)
        drift, _ = self._baseline(velocity, elapsed)
        residual = (z - last - drift)[use].double()
        reach = torch.log(self.config.horizon * -torch.expm1(-elapsed[use].double() / self.config.horizon) / 0.03)
        size = torch.log(residual.abs() + 1e-4)
        centred = reach - reach.mean()
        power = (centred[:, None] * size).sum(0) / centred.square().sum().clamp_min(1e-9)
        self.spread_power.copy_(power.clamp(0.5, 2.5))
        scaled = residual / torch.exp(self.spread_power.double() * reach[:, None])
        # Weights keep a few abrupt moves from setting the scale of all.
        norm = (scaled / scaled.abs().median(0).values.clamp_min(1e-6)).square().mean(-1, keepdim=True).sqrt()
        scaled = scaled / norm * norm.clamp(max=2 * float(norm.median()))
        factor = torch.linalg.cholesky(torch.cov(scaled.T) + 1e-8 * torch.eye(z.shape[-1], dtype=torch.float64))
        self.log_spread.copy_(factor.diagonal().log())
        self.basis_below.copy_((factor / factor.diagonal()).tril(-1))

    @staticmethod
    def _first_frame(predictive: Predictive, seen: Tensor) -> Predictive:
        """N(0, I) in those rows where nothing was seen."""
        none = seen == 0
        if not bool(none.any()):
            return predictive
        eye = torch.eye(predictive.basis.shape[-1], dtype=predictive.basis.dtype, device=predictive.basis.device)
        one, two = none[..., None], none[..., None, None]
        return Predictive(
            torch.where(one, -math.log(predictive.log_weight.shape[-1]), predictive.log_weight),
            torch.where(two, torch.zeros_like(predictive.means), predictive.means),
            torch.where(one, torch.ones_like(predictive.scale), predictive.scale),
            torch.where(one, torch.ones_like(predictive.std), predictive.std),
            torch.where(two, torch.zeros_like(predictive.low_rank), predictive.low_rank),
            torch.where(two, eye, predictive.basis),
        )
