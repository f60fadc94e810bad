"""The embeddable face of flow, dynamics and denoiser."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from pathlib import Path

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser, load_denoiser
from ..denoiser.forecast import forecast as expected_future
from ..denoiser.windows import denoise_clip, meet
from ..dynamics import LatentDynamics, Predictive, State, load_dynamics
from ..dynamics.root import root_motion
from ..errors import ShapeError, UsageError, check_shape, check_type
from ..flow import PoseFlow, load_flow
from ..flow.tilt import TiltDensity, load_tilt
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..timing import last_valid
from .contacts import foot_contacts
from .core import LogProbCore, motion_log_prob
from .inputs import (
    body_rotmat,
    clip_inputs,
    in_order,
    root_inputs,
    takes_numbers,
    tensor_of,
    time_stamps,
    up_vectors,
    with_hands,
)

RANGE = -20.0
"""Nats of the flow below which a pose is none that people take: of 5,120 held-out poses the least likely have -13 (0.1 %) and -27. Drawn motions stay above."""
REDRAWS, HALVINGS = 8, 6
"""How often a step that leaves that range is drawn anew, and then how often its way from the last pose is halved."""
_EXACT = 0.002  # rad: noise that motion capture is taken to have where a user says that there is none


class MotionPrior(nn.Module):
    """Exact log-density of human motion at its true time stamps, with what follows from it.

    A motion is ``body_pose``: (B, T, 23, 3) rotation vectors in rad of SMPL's body joints, relative to their parents;
    21 joints (without the hands) and rotation matrices (..., 3, 3) are taken as well, and so is one motion (T, 23, 3)
    without the batch's axis, whose answers come without it. Its time is ``timestamps`` (T,) or (B, T) in s, strictly
    increasing, or ``fps``. ``valid`` (B, T) marks the frames that were observed: the others are integrated through.
    Clips of a batch do not influence each other, and nothing is kept between calls. All of these may be tensors, numpy
    arrays or lists; answers are tensors in the prior's own precision (float64 after ``prior.double()``).

    Densities are in nats with respect to the Haar measure on SO(3)^21, each factor of total 8 pi^2.

    Attributes:
        flow: the density of single poses, and of a motion's first frame. chart: its coordinates without the coupling
            layers, (..., 21, 3, 3) <-> (..., 63). dynamics: how the coordinates go on. denoiser: for past and future at once.
        tilt: the density of up in the pelvis' frame, given the pose; None: this prior knows nothing of gravity.
    """

    def __init__(
        self, flow: PoseFlow, dynamics: LatentDynamics, denoiser: Denoiser, tilt: TiltDensity | None = None
    ) -> None:
        super().__init__()
        for name, part, kind in (
            ("flow", flow, PoseFlow), ("dynamics", dynamics, LatentDynamics), ("denoiser", denoiser, Denoiser),
        ):  # fmt: skip
            check_type(name, part, kind, "MotionPrior.load() gives the packaged prior.")
        if tilt is not None:
            check_type("tilt", tilt, TiltDensity, "MotionPrior.load() gives the packaged prior.")
        self.flow, self.chart, self.dynamics, self.denoiser = flow, flow.linear(), dynamics, denoiser
        self.tilt = tilt

    @classmethod
    def load(
        cls,
        flow: str | Path | None = None,
        dynamics: str | Path | None = None,
        denoiser: str | Path | None = None,
    ) -> MotionPrior:
        """The packaged prior, or one from files written by ``kinflow-train``; in evaluation mode, without gradients of
        its own parameters.

        Raises:
            MissingAssetError: a file is not there.
            FormatError: one holds other weights, or is damaged.
        """
        return (
            cls(
                load_flow(flow),
                load_dynamics(dynamics),
                load_denoiser(denoiser),
                copy.deepcopy(load_tilt()),
            )
            .eval()
            .requires_grad_(False)
        )

    # -- density ------------------------------------------------------------------------------------------------------

    @takes_numbers
    def log_prob(
        self,
        body_pose: Tensor,
        timestamps: Tensor | None = None,
        *,
        fps: float | None = None,
        valid: Tensor | None = None,
        global_orient: Tensor | None = None,
        transl: Tensor | None = None,
        up: Tensor | None = None,
    ) -> Tensor:
        """log p(pose_t | the valid poses before it); the sum over t is the motion's log-density.

        With ``up`` it is log p(pose_t, up_t | the valid poses before it), for trackers that know gravity: how the body leans
        counts as well. Given its pose, a frame's tilt is taken as independent of the others, so that a lean that lasts counts
        in every frame; nats are then with respect to area on the unit sphere, too.

        Args:
            body_pose: (B, T, 23 or 21, 3) rad, or (B, T, 23 or 21, 3, 3).
            timestamps: (T,) or (B, T) s; or give ``fps``.
            valid: (B, T) bool; None: all frames.
            global_orient: (B, T, 3) rad and ``transl`` (B, T, 3) m: the root in a world with y up. Where both are given,
                body pose is conditioned on the root's motion. Frames that are not valid may hold anything here, too.
            up: (B, T, 3) unit vectors, the direction against gravity in the pelvis' frame: the second row of the root's
                rotation matrix where it leads to a world with y up. Frames that are not valid may hold anything.

        Returns:
            (B, T) nats a frame; 0 where not valid. Differentiable.

        Raises:
            ShapeError: shapes, values or time stamps that do not fit; ``up`` that is no unit vector in some valid frame.
            UsageError: ``up`` for a prior without a density of tilt.
        """
        rotmat, times, valid = clip_inputs(body_pose, timestamps, fps, valid)
        root = self._root(global_orient, transl, times, valid, rotmat.dtype)
        nats = motion_log_prob(self.flow, self.chart, self.dynamics, rotmat, times, valid, root)
        if up is None:
            return nats
        if self.tilt is None:
            raise UsageError("up: this prior has no density of tilt. MotionPrior.load() has one; or leave up out.")
        up = up_vectors(up, valid, rotmat.dtype)
        return nats + torch.where(valid, self.tilt(rotmat).log_prob(up), torch.zeros_like(nats))

    @takes_numbers
    def plausibility(
        self,
        body_pose: Tensor,
        timestamps: Tensor | None = None,
        *,
        fps: float | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """One number a clip, by which broken motion is told from real: the mean of :meth:`log_prob` plus its least.

        The mean alone sees what is wrong throughout (jitter, frames out of order), but a left-right swap of two frames in
        a minute only at its least. Lower is worse; compare clips of the same frame rate. The first two valid frames, which
        have no velocity before them, are left out where there are more.

        Returns:
            (B,) nats. Differentiable.

        Raises:
            ShapeError: inputs that do not fit, as in :meth:`log_prob`.
        """
        if valid is None:
            valid = torch.ones(body_pose.shape[:2], dtype=torch.bool, device=body_pose.device)
        nats = self.log_prob(body_pose, timestamps, fps=fps, valid=valid)
        rank = valid.cumsum(1)
        counted = valid & ((rank > 2) | (rank[:, -1:] <= 2))
        mean = torch.where(counted, nats, torch.zeros_like(nats)).sum(1) / counted.sum(1)
        return mean + nats.masked_fill(~counted, float("inf")).amin(1)

    def forward(self, body_pose: Tensor, timestamps: Tensor) -> Tensor:
        """The same as :meth:`log_prob` of body pose at time stamps."""
        return self.log_prob(body_pose, timestamps)

    def core(self, longest: float = 0.5) -> LogProbCore:
        """:meth:`log_prob` of rotation matrices as one graph that ``torch.export`` takes.

        Args:
            longest: s, the longest interval between successive frames that it is made for.
        """
        check_type("longest", longest, Real)
        return LogProbCore(self.flow, self.chart, self.dynamics, longest)

    def encode(self, body_pose: Tensor) -> Tensor:
        """Latents (..., 63) of poses (..., 23 or 21, 3) or (..., 23 or 21, 3, 3)."""
        like = self.flow.whitening.mean
        return self.flow.encode(body_rotmat(tensor_of("body_pose", body_pose, like, like.dtype)))[0]

    def decode(self, z: Tensor) -> Tensor:
        """Poses (..., 23, 3) in rad of latents (..., 63); the hands are at rest."""
        like = self.flow.whitening.mean
        z = tensor_of("z", z, like, like.dtype)
        check_shape("z", z, f"... {like.shape[-1]}", "Give latents as encode returns them.")
        return with_hands(rotmat_to_rotvec(self.flow.decode(z)[0]))

    # -- draws --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        timestamps: Tensor,
        samples: int = 1,
        *,
        temperature: float = 0.6,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Motions drawn from the prior.

        Args:
            timestamps: (T,) s, strictly increasing.
            samples: N.
            temperature: scales the draws' spread; at 1 it is that of the density itself. An error of one step feeds the next,
                so steps that would leave the range of human poses (:data:`RANGE`) are drawn anew.

        Returns:
            (N, T, 23, 3) rad.

        Raises:
            ShapeError: time stamps that are not increasing. UsageError: ``samples`` below 1, a temperature that is no
            number.
        """
        check_type("samples", samples, Integral)
        if samples < 1:
            raise UsageError(f"samples: expected how many motions to draw, at least 1, got {samples}.")
        _check_draws(temperature, generator)
        timestamps = tensor_of("timestamps", timestamps, self.dynamics.start, torch.float64)
        check_shape("timestamps", timestamps, "T", "One time in seconds a frame.")
        times = in_order(
            time_stamps(timestamps, None, 1, len(timestamps)), torch.ones_like(timestamps[None], dtype=torch.bool)
        )
        times = times.expand(samples, -1)
        first = self.flow.sample((samples, 1), generator, temperature)
        x = self.chart.encode(first)[0]
        state = self.dynamics.update(self.dynamics.initial_state((samples,)), x[:, 0])
        later = self._roll(state, times[:, :1], times[:, 1:], temperature, generator)
        return self._poses(torch.cat((x, later), 1))

    @takes_numbers
    @torch.no_grad()
    def forecast(
        self,
        body_pose: Tensor,
        timestamps: Tensor,
        future: Tensor,
        samples: int = 0,
        *,
        valid: Tensor | None = None,
        temperature: float = 0.6,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What comes after a motion.

        The expected motion (``samples`` = 0) is the denoiser's, which looks at the last 2 s at 12 frames/s whatever the
        rate of recording, so that it does not depend on that rate, and is trusted against the last pose as far as held-out
        motion says: the calmer somebody is and the further ahead, the less. Draws are the dynamics'.

        Args:
            body_pose: (B, T, 23 or 21, 3) rad or matrices, at ``timestamps`` (T,) or (B, T) s.
            future: (F,) or (B, F) s, increasing, after each clip's last valid frame.
            samples: draws a clip; 0: the expected motion.
            temperature: of the draws, see :meth:`sample`.

        Returns:
            (B, F, 23, 3) rad, or (B, N, F, 23, 3) with ``samples`` = N > 0.

        Raises:
            ShapeError: inputs that do not fit. UsageError: ``samples`` below 0.
        """
        rotmat, times, valid = clip_inputs(body_pose, timestamps, None, valid)
        check_type("future", future, Tensor, "Give the times to forecast, in seconds.")
        check_type("samples", samples, Integral)
        if samples < 0:
            raise UsageError(f"samples: expected how many motions to draw, or 0 for the expected one, got {samples}.")
        _check_draws(temperature, generator)
        size = len(rotmat)
        ahead = future.expand(size, -1) if future.dim() == 1 else future
        ahead = time_stamps(ahead, None, size, ahead.shape[-1]).to(times.device)
        end = times.gather(1, last_valid(valid))
        if not bool((torch.diff(torch.cat((end, ahead), 1), dim=1) > 0).all()):
            raise ShapeError(
                "future: expected increasing times after the last valid frame. Times are in seconds, on the same clock."
            )
        if samples:
            # Behind its last valid frame a clip's time stands still: what is there may be padding, and draws start before it.
            state = self._filter(self.chart.encode(rotmat)[0], times.minimum(end), valid)
            state = State(*(x.repeat_interleave(samples, 0) for x in state))
            x = self._roll(
                state, end.repeat_interleave(samples, 0), ahead.repeat_interleave(samples, 0), temperature, generator
            )
            return self._poses(x).unflatten(0, (size, samples))
        made = expected_future(self.denoiser, rotmat, times, valid, ahead, self._noise(rotmat, _EXACT))
        return with_hands(rotmat_to_rotvec(made))

    # -- estimates ----------------------------------------------------------------------------------------------------

    @takes_numbers
    @torch.no_grad()
    def infill(
        self, body_pose: Tensor, timestamps: Tensor | None = None, *, fps: float | None = None, valid: Tensor
    ) -> Tensor:
        """Fill the frames that are not valid from those that are, before and after.

        Frames further than 1.5 s from every valid one lie on the shortest turn between their valid neighbours.

        Args:
            valid: (B, T) bool; poses of the other frames are not looked at, only their time stamps.

        Returns:
            (B, T, 23, 3) rad; valid frames as they were given.

        Raises:
            ShapeError: inputs that do not fit, or a clip without a valid frame.
        """
        rotmat, times, valid = clip_inputs(body_pose, timestamps, fps, valid)
        filled = denoise_clip(self.denoiser, rotmat, times, valid, self._noise(rotmat, _EXACT))
        return with_hands(rotmat_to_rotvec(meet(filled, rotmat, times, valid)))

    @takes_numbers
    @torch.no_grad()
    def denoise(
        self,
        body_pose: Tensor,
        timestamps: Tensor | None = None,
        *,
        fps: float | None = None,
        noise: Tensor | float = 0.05,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The motion behind noisy rotations. Left and right exchanged for a while is put right as well.

        Args:
            noise: rad, standard deviation of the noise about each axis of each joint, one or (B,); trained for 0.003 to
                0.22 (12 degrees).
            valid: (B, T) bool; the other frames are filled in.

        Returns:
            (B, T, 23, 3) rad.

        Raises:
            ShapeError: inputs that do not fit. UsageError: ``noise`` not positive.
        """
        rotmat, times, valid = clip_inputs(body_pose, timestamps, fps, valid)
        level = self._noise(rotmat, noise)
        if not bool(((level > 0) & (level <= torch.pi / 2)).all()):
            raise UsageError(f"noise: expected rad, above 0 and up to pi/2, got {noise}. 3 degrees are 0.05 rad.")
        return with_hands(rotmat_to_rotvec(denoise_clip(self.denoiser, rotmat, times, valid, level)))

    @takes_numbers
    @torch.no_grad()
    def contacts(
        self,
        body_pose: Tensor,
        global_orient: Tensor,
        transl: Tensor,
        timestamps: Tensor | None = None,
        *,
        fps: float | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """How likely each part of the feet stands on the ground: low and slow, over a tenth of a second.

        The body is the open one of mean shape. The ground is level, at the height at which the clip's lowest soles mostly
        are; it need not be 0.

        Args:
            body_pose, timestamps, fps, valid: as in :meth:`log_prob`.
            global_orient: (B, T, 3) rad and transl (B, T, 3) m, the root in a world with y up.

        Returns:
            (B, T, 4) of left heel, left toe, right heel, right toe; 0 in frames that are not valid.

        Raises:
            ShapeError: inputs that do not fit, as in :meth:`log_prob`.
        """
        rotmat, times, valid = clip_inputs(body_pose, timestamps, fps, valid)
        orient, place = root_inputs(global_orient, transl, times, valid, rotmat.dtype)
        clips = zip(rotmat, rotvec_to_rotmat(orient), place, times, valid, strict=True)
        return torch.stack([foot_contacts(*clip) for clip in clips]).to(rotmat.dtype)

    # -- parts --------------------------------------------------------------------------------------------------------

    @staticmethod
    def _noise(rotmat: Tensor, noise: Tensor | float) -> Tensor:
        level = tensor_of("noise", noise, rotmat).to(rotmat.dtype)
        if level.dim() > 1 or (level.dim() == 1 and len(level) != len(rotmat)):
            raise ShapeError(f"noise: expected one angle or ({len(rotmat)},), got {tuple(level.shape)}.")
        return level.expand(len(rotmat))

    def _root(
        self, global_orient: Tensor | None, transl: Tensor | None, times: Tensor, valid: Tensor, dtype: torch.dtype
    ) -> Tensor | None:
        if global_orient is None and transl is None:
            return None
        if global_orient is None or transl is None:
            raise UsageError("global_orient, transl: expected both or neither, got one. Leave the other out as well.")
        orient, place = root_inputs(global_orient, transl, times, valid, dtype)
        return root_motion(rotvec_to_rotmat(orient), place, times, valid).to(dtype)

    def _filter(self, z: Tensor, times: Tensor, valid: Tensor) -> State:
        state = self.dynamics.initial_state((len(z),))
        for t in range(z.shape[1]):
            if t:
                state = self.dynamics.advance(state, times[:, t] - times[:, t - 1])
            state = self.dynamics.update(state, z[:, t], valid=valid[:, t])
        return state

    def _roll(
        self, state: State, here: Tensor, times: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Coordinates (B, F, 63) drawn one after the other at ``times`` (B, F), from a state at time ``here`` (B, 1)."""
        steps, out = torch.diff(times, dim=1, prepend=here), []
        least = self._pose_nats(state.z).clamp(max=RANGE)
        for t in range(times.shape[1]):
            state = self.dynamics.advance(state, steps[:, t])
            x = self._within(self.dynamics.predict(state), state.z, least, temperature, generator)
            state = self.dynamics.update(state, x)
            out.append(x)
        return torch.stack(out, 1) if out else state.z.new_zeros(len(here), 0, state.z.shape[-1])

    def _within(
        self, predicted: Predictive, last: Tensor, least: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draws (B, 63) of a prediction whose poses have ``least`` (B,) nats: drawn anew where they have fewer, and where that
        does not help, so far from the last ones as they may go."""
        x = predicted.sample(generator, temperature)
        out = self._pose_nats(x) < least
        for _ in range(REDRAWS):
            if not bool(out.any()):
                return x
            other = predicted.sample(generator, temperature)
            taken = out & (self._pose_nats(other) >= least)
            x, out = torch.where(taken[:, None], other, x), out & ~taken
        for _ in range(HALVINGS):
            if not bool(out.any()):
                return x
            x = torch.where(out[:, None], (x + last) / 2, x)
            out = out & (self._pose_nats(x) < least)
        return torch.where(out[:, None], last, x)

    def _pose_nats(self, x: Tensor) -> Tensor:
        """The flow's density (...) of the poses at coordinates (..., 63)."""
        return self.flow.log_prob(self.chart.decode(x)[0])

    def _poses(self, x: Tensor) -> Tensor:
        """Coordinates (..., 63) -> (..., 23, 3) rad."""
        return with_hands(rotmat_to_rotvec(self.chart.decode(x)[0]))


def _check_draws(temperature: float, generator: torch.Generator | None) -> None:
    check_type("temperature", temperature, Real)
    if generator is not None:
        check_type("generator", generator, torch.Generator)
