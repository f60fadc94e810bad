"""The reconstruction network: observations of people in, Gaussians over pose, root, shape and contact out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import DynamicsConfig, ReconstructorConfig
from ..dynamics import LatentDynamics
from ..timing import gather_time, reverse_index
from .encoder import COORDINATES, HEAD_SIZE, Estimate, SequenceEncoder, head, read_head
from .filter import ChartFilter, Pass
from .gaussian import Gaussian, fuse, fuse_over_prior
from .kernel import kernel_of
from .observation import Canonical, Observations, canonicalise, flatten_view, time_steps


class Prediction(NamedTuple):
    """What the network says of every frame.

    Attributes:
        chart: (B, T, 63) Gaussian over the pose in the flow's chart (:meth:`kinflow.flow.PoseFlow.linear`).
        root_to_camera: (B, T, 3, 3) pelvis rotation; root_log_var: (B, T, 3) rad^2 in the pelvis' axes.
        betas: (B, 10) Gaussian over the shape, pooled over the person's frames.
        contact_logits: (B, T, 4).
        canonical: the frame everything was seen in.
    """

    chart: Gaussian
    root_to_camera: Tensor
    root_log_var: Tensor
    betas: Gaussian
    contact_logits: Tensor
    canonical: Canonical


class Traces(NamedTuple):
    """Everything in between, for training: the frames' own estimates and the filter's passes.

    Attributes:
        frame: the streaming head's estimate (has seen frames up to t).
        backward: Gaussian evidence of the backward direction.
        ahead, behind: passes of the filter in either direction, in the order of time.
        pooled: streaming betas, pooled.
    """

    frame: Estimate
    backward: Gaussian
    ahead: Pass
    behind: Pass | None
    pooled: Gaussian


class ReconstructionNetwork(nn.Module):
    """Frame encoder -> recurrent states -> observed Gaussians -> filter both ways -> fused estimate.

    ``filter.dynamics`` are the packaged dynamics and no part of this network's own weights.
    """

    def __init__(self, config: ReconstructorConfig, dynamics: LatentDynamics | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = SequenceEncoder(config)
        width, recurrent = config.width, config.recurrent
        self.stream_head = head(width + recurrent, config.head_width, HEAD_SIZE)
        self.backward_head = head(width + recurrent, config.head_width, 2 * COORDINATES)
        self.fusion_head = head(width + 2 * recurrent + 2 * COORDINATES, config.head_width, HEAD_SIZE, zero=True)
        self.filter = ChartFilter(dynamics if dynamics is not None else LatentDynamics(DynamicsConfig()), COORDINATES)
        for parameter in self.filter.dynamics.parameters():
            parameter.requires_grad_(False)

    def own_state(self) -> dict[str, Tensor]:
        """The weights without those of the dynamics."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("filter.dynamics.")}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`own_state` gave; the dynamics stay."""
        own = {k: v for k, v in self.filter.dynamics.state_dict(prefix="filter.dynamics.").items()}
        self.load_state_dict({**state, **own})

    def forward(self, obs: Observations, streaming: bool = False, dynamics: bool = True) -> tuple[Prediction, Traces]:
        """Predict every frame.

        Args:
            streaming: use frames up to t alone for the estimate of frame t (its shape: frames up to the last); the
                backward pass is left out.
            dynamics: false, for the first part of training, lets the frames' own Gaussians stand in for the filter's.
        """
        obs.check()
        device = obs.K.device.type
        seen = obs.observed & obs.valid
        # Rotations and the filter keep full precision where the network's matrices run in bfloat16.
        with torch.autocast(device, enabled=False):
            canonical = canonicalise(obs, flatten_view(obs), obs.world * (seen & obs.has_world)[..., None, None])
            dt = time_steps(obs.timestamps)
        states = self.encoder(canonical.features, obs, dt)
        frame_out = self.stream_head(torch.cat((states.code, states.forward), -1))
        with torch.autocast(device, enabled=False):
            frame = read_head(frame_out)
            evidence = Gaussian(frame.chart_mean, frame.chart_log_var)
            pooled = pool_betas(frame, seen)
            if streaming:
                ahead = self.filter(evidence, seen, dt, torch.zeros_like(seen[:, 0], dtype=torch.long))
                prediction = _prediction(ahead.filtered, frame, pooled, canonical)
                return prediction, Traces(frame, evidence, ahead, None, pooled)
        backward_out = self.backward_head(torch.cat((states.code, states.backward), -1))
        with torch.autocast(device, enabled=False):
            backward = _read_gaussian(backward_out)
            if dynamics:
                ahead, behind = self._both_ways(evidence, backward, seen, obs.valid, dt)
                fused = fuse_over_prior(ahead.filtered, behind.predicted)
            else:
                ahead, behind = Pass(evidence, evidence), Pass(backward, backward)
                fused = fuse(evidence, backward)
        inputs = (states.code, states.forward, states.backward, fused.mean, fused.log_var)
        fusion_out = self.fusion_head(torch.cat([x.to(states.code.dtype) for x in inputs], -1))
        with torch.autocast(device, enabled=False):
            estimate = _correct(fusion_out, fused, frame)
            kernel = kernel_of(obs.timestamps, self.config.pose_kernel, obs.valid)
            pose = kernel.average(Gaussian(estimate.chart_mean, estimate.chart_log_var))
            prediction = _prediction(pose, estimate, pool_betas(estimate, seen), canonical)
        return prediction, Traces(frame, backward, ahead, behind, pooled)

    @torch.no_grad()
    def fill_gaps(self, pose: Gaussian, obs: Observations) -> Gaussian:
        """Poses in the chart of the frames not observed, from the fused ones around them, by the dynamics in both directions."""
        seen, dt = obs.observed & obs.valid, time_steps(obs.timestamps)
        if bool((seen | ~obs.valid).all()):
            return pose
        index = reverse_index(obs.valid.sum(1), seen.shape[1])
        dt_back = gather_time(torch.cat((dt[:, 1:], dt[:, :1]), 1), index)
        ahead, before = self.filter.bridge(pose, seen, dt)
        mirrored = Gaussian(gather_time(pose.mean, index), gather_time(pose.log_var, index))
        behind, after = self.filter.bridge(mirrored, gather_time(seen, index), dt_back)
        behind = Gaussian(gather_time(behind.mean, index), gather_time(behind.log_var, index))
        bridged = fuse_over_prior(ahead, behind)
        # The two are less independent than fusing takes them to be, and must not push each other beyond both.
        low, high = torch.minimum(ahead.mean, behind.mean), torch.maximum(ahead.mean, behind.mean)
        bridged = bridged._replace(mean=bridged.mean.clamp(low, high))
        # The uncertainty of the estimates at both ends, much the same error, comes on top.
        ends = torch.minimum(before, gather_time(after, index)).log()
        return pose.where(seen, bridged._replace(log_var=torch.logaddexp(bridged.log_var, ends).clamp_max(0.0)))

    def _both_ways(self, ahead: Gaussian, back: Gaussian, seen: Tensor, valid: Tensor, dt: Tensor) -> tuple[Pass, Pass]:
        """Both directions as one batch: forward sequences, and the same reversed in time."""
        index = reverse_index(valid.sum(1), valid.shape[1])
        dt_back = gather_time(torch.cat((dt[:, 1:], dt[:, :1]), 1), index)
        both = Gaussian(
            torch.cat((ahead.mean, gather_time(back.mean, index))),
            torch.cat((ahead.log_var, gather_time(back.log_var, index))),
        )
        direction = torch.arange(2, device=seen.device).repeat_interleave(len(seen))
        out = self.filter(both, torch.cat((seen, gather_time(seen, index))), torch.cat((dt, dt_back)), direction)
        parts = [[Gaussian(*(h.chunk(2)[side] for h in g)) for g in out] for side in (0, 1)]
        behind = [Gaussian(gather_time(g.mean, index), gather_time(g.log_var, index)) for g in parts[1]]
        return Pass(*parts[0]), Pass(*behind)


def _prediction(pose: Gaussian, estimate: Estimate, betas: Gaussian, canonical: Canonical) -> Prediction:
    root = canonical.root_to_camera @ estimate.root_rotmat.to(canonical.root_to_ray.dtype)
    return Prediction(pose, root, estimate.root_log_var, betas, estimate.contact_logits, canonical)


def _read_gaussian(out: Tensor) -> Gaussian:
    full = read_head(torch.cat((out, out.new_zeros(*out.shape[:-1], HEAD_SIZE - 2 * COORDINATES)), -1))
    return Gaussian(full.chart_mean, full.chart_log_var)


def _correct(out: Tensor, fused: Gaussian, frame: Estimate) -> Estimate:
    """What both directions together say (out (..., HEAD_SIZE)), as a correction of the fused pose and the streaming head."""
    base = torch.cat((fused.mean, fused.log_var), -1)
    out = out.to(base.dtype)
    change = read_head(torch.cat((base + out[..., : 2 * COORDINATES], out[..., 2 * COORDINATES :]), -1))
    return Estimate(
        change.chart_mean,
        change.chart_log_var,
        frame.root_rotmat @ change.root_rotmat,
        change.root_log_var,
        frame.betas_mean + change.betas_mean,
        change.betas_log_var,
        frame.contact_logits + change.contact_logits,
    )


def pool_betas(estimate: Estimate, seen: Tensor) -> Gaussian:
    """One shape per person from every frame's evidence (B, T, 10) -> (B, 10), with the prior N(0, I) counted once.

    Errors of one person's frames are alike, so the frames' precisions weigh their means but are averaged, not added: a
    longer clip is not more certain than its frames.
    """
    weight = torch.where(seen[..., None], torch.exp(-estimate.betas_log_var), torch.zeros_like(estimate.betas_log_var))
    total = weight.sum(1)
    mean = (weight * estimate.betas_mean).sum(1) / total.clamp_min(1e-6)
    precision = total / seen.sum(1).clamp_min(1)[:, None]
    return Gaussian(mean * precision / (1 + precision), -torch.log1p(precision))
