"""Training of the reconstruction network on projected motion capture, rendered, perceived clips, and data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ... import losses, metrics
from ...assets.weights import load_weights
from ...body import Body
from ...body.kinematics import full_pose
from ...config import ReconstructorTrainingConfig
from ...dynamics import LatentDynamics, load_dynamics
from ...flow import PoseFlow, load_flow
from ...reconstruction.fingerprint import fingerprint
from ...reconstruction.gaussian import Gaussian
from ...reconstruction.lifting import Lifter, load_lifter
from ...reconstruction.network import Prediction, ReconstructionNetwork, Traces
from ...rotations import geodesic_distance, rotmat_to_rotvec
from ...timing import gather_time
from ..loop import FitResult
from ..run import Captured, Card, Training
from ..streams.borrowed import BorrowedErrors
from ..streams.perceived import PerceivedClip, PerceivedMotions, held_out_names, load_perceived
from ..streams.projected import ProjectedMotions, Sample, Stream
from ..streams.sources import Mixture, Shared, open_data_sets
from .alignment import alignment_terms, bounded, motion_terms

_CHART_BOUND = 8.0  # of its deviations; a pose beyond is none that a Gaussian should be stretched for
LIMBS = (1, 2, 4, 5, 7, 8, 16, 17, 18, 19, 20, 21)
"""SMPL joints of which BlazePose has a landmark."""
LIMB_LANDMARKS = (23, 24, 25, 26, 27, 28, 11, 12, 13, 14, 15, 16)


class ReconstructorTask:
    """Likelihood of the true poses, in the flow's chart, under filtered and smoothed Gaussians, root, joints, alignment, shape and contact.

    Where the pose is not known (windows of ``data_sets``, real clips among them), alignment with what is, the flow's prior,
    and over time the dynamics' likelihood.
    """

    def __init__(
        self,
        config: ReconstructorTrainingConfig,
        flow: PoseFlow,
        dynamics: LatentDynamics | None,
        body: Body,
        lifter: Lifter,
        projected: ProjectedMotions,
        perceived: PerceivedMotions | None,
        validation: Mapping[str, Sample],
        device: torch.device,
        data_sets: Mapping[str, Stream] | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.flow = flow.to(device).eval().requires_grad_(False)
        self.chart = self.flow.linear()
        self.body = body.to(device)
        # The dynamics' likelihood is asked for while the encoder is trained alone, too.
        self.dynamics = None if dynamics is None else dynamics.to(device).eval().requires_grad_(False)
        self.module = ReconstructionNetwork(config.model, dynamics if config.filter else None).to(device)
        self.module.filter.dynamics.eval()
        self.projected, self.perceived, self.data_sets = projected, perceived, dict(data_sets or {})
        own: Stream = projected if perceived is None else Shared(projected, perceived, config.perceived_share)
        weights = {name: one.weight for name, one in config.sources.data_sets.items()}
        weights["own"] = config.sources.own
        self.stream = Mixture({"own": own, **self.data_sets}, weights) if self.data_sets else own
        self.lifter = lifter.to(device).eval().requires_grad_(False)
        self.validation = {name: lifted(sample.to(device), self.lifter) for name, sample in validation.items()}

    def draw(self, rng: np.random.Generator) -> Sample:
        """One batch from all sources."""
        return self.stream.draw(rng, self.config.train.batch).to(self.device)

    def loss(self, sample: Sample) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Weighted sum of all terms, and the terms."""
        # Dropout in the dynamics' head belongs to their own training.
        self.module.filter.dynamics.eval()
        sample = lifted(sample, self.lifter)
        prediction, traces = self.module(sample.obs, dynamics=self.config.filter)
        with torch.autocast(self.device.type, enabled=False):
            terms = self._terms(sample, prediction, traces)
        weights = {name: getattr(self.config.losses, name.split(".")[0]) for name in terms}
        terms = {name: value for name, value in terms.items() if weights[name] > 0}
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return total, {**terms, "chart_std": prediction.chart.std.mean()}

    def _terms(self, sample: Sample, prediction: Prediction, traces: Traces) -> dict[str, Tensor]:
        """Terms by the name of their weight; what follows a point tells terms of one weight apart."""
        valid, known = sample.obs.valid, sample.obs.valid & sample.known.pose
        assert traces.behind is not None
        gaussians: dict[str, tuple[Gaussian, float]] = {"smoothed": (prediction.chart, 1.0)}
        if self.config.filter:
            gaussians |= {
                "filtered": (traces.ahead.filtered, 0.4),
                "backward": (traces.behind.filtered, 0.4),
                "predicted": (traces.ahead.predicted, 0.05),
                "predicted_back": (traces.behind.predicted, 0.05),
            }
        own = 0.2 if self.config.filter else 0.6
        frame = Gaussian(traces.frame.chart_mean, traces.frame.chart_log_var)
        gaussians |= {"frame": (frame, own), "frame_back": (traces.backward, own)}
        with torch.no_grad():
            true = self.chart.encode(sample.pose_rotmat)[0].clamp(-_CHART_BOUND, _CHART_BOUND)
        terms: dict[str, Tensor] = {}
        for name, (gaussian, weight) in gaussians.items():
            terms[f"posterior.{name}"] = weight * bounded_nll(true, gaussian, known)

        seen = known & sample.obs.observed
        canonical = prediction.canonical
        target = canonical.root_to_ray.transpose(-1, -2) @ sample.root_to_ray
        smooth_root = canonical.ray_to_camera.transpose(-1, -2) @ prediction.root_to_camera
        smooth_root = canonical.root_to_ray.transpose(-1, -2) @ smooth_root
        for name, root, log_var in (
            ("stream", traces.frame.root_rotmat, traces.frame.root_log_var),
            ("smooth", smooth_root, prediction.root_log_var),
        ):
            off = rotmat_to_rotvec(root.transpose(-1, -2) @ target)
            nll = losses.gaussian_nll(off, torch.zeros_like(off), log_var) / 3
            terms[f"posterior.root_{name}"] = 0.5 * losses.masked_mean(nll.clamp_max(20), seen)
            angle = losses.rotation_geodesic(root[..., None, :, :], target[..., None, :, :])
            terms[f"rotations.root_{name}"] = losses.masked_mean(angle, seen)

        for name, betas in (("smooth", prediction.betas), ("stream", traces.pooled)):
            nll = losses.gaussian_nll(sample.betas, *betas)
            terms[f"posterior.betas_{name}"] = 0.1 * losses.masked_mean(nll, sample.known.betas)
        terms["betas"] = losses.betas_prior(prediction.betas.mean).mean()
        for name, logits in (("smooth", prediction.contact_logits), ("stream", traces.frame.contact_logits)):
            bce = losses.contact_bce(logits, sample.contacts)
            terms[f"contacts.{name}"] = losses.masked_mean(bce, valid & sample.contacts_known[:, None])

        # A third of the windows is decoded as the streaming filter sees them.
        early = (torch.rand(len(seen), 1, 1, device=seen.device) < 1 / 3).expand(-1, *seen.shape[1:], 1)
        chart = torch.where(early, traces.ahead.filtered.mean, prediction.chart.mean)
        root = torch.where(early[..., None], traces.frame.root_rotmat, smooth_root)
        terms.update(self._decoded_terms(sample, prediction, chart, root))
        if self.data_sets:
            terms.update(motion_terms(sample, chart, self.dynamics, self.config.losses))
        return terms

    def _decoded_terms(self, sample: Sample, prediction: Prediction, chart: Tensor, root: Tensor) -> dict[str, Tensor]:
        """Losses on joints and landmarks, on a few successive frames of each window (posing bodies costs most)."""
        count = min(self.config.decoded, sample.obs.valid.shape[1])
        begin = torch.randint(sample.obs.valid.shape[1] - count + 1, (len(root), 1), device=root.device)
        begin = begin % (sample.obs.valid.sum(1, keepdim=True) - count + 1).clamp_min(1)  # not in what is padded
        rows = begin + torch.arange(count, device=root.device)

        def part(x: Tensor) -> Tensor:
            return gather_time(x, rows)

        valid, times = part(sample.obs.valid & sample.known.pose), part(sample.obs.timestamps)
        chart = part(chart)
        pose = self.chart.decode(chart)[0]
        root_ray = part(prediction.canonical.root_to_ray @ root)
        true_root, true_pose = part(sample.root_to_ray), part(sample.pose_rotmat)
        betas = prediction.betas.mean[:, None].expand(-1, count, -1)
        shape = torch.where(sample.known.betas[:, None], sample.betas, prediction.betas.mean.detach())
        true_betas = shape[:, None].expand(-1, count, -1)
        joints, landmarks = self.body.joints_and_landmarks(betas, full_pose(pose, root_ray), None)
        with torch.no_grad():
            true_joints, true_landmarks = self.body.joints_and_landmarks(
                true_betas, full_pose(true_pose, true_root), None
            )
        landmarks, joints = landmarks - joints[..., :1, :], joints - joints[..., :1, :]
        true_landmarks, true_joints = true_landmarks - true_joints[..., :1, :], true_joints - true_joints[..., :1, :]
        # A camera that looks along the ray, at unit focal length.
        away = part(sample.transl).norm(dim=-1).clamp_min(1.5)[..., None]
        away = torch.cat((torch.zeros_like(away), torch.zeros_like(away), away), -1)[..., None, :]
        seen_at = true_landmarks + away
        flat = seen_at[..., :2] / seen_at[..., 2:].clamp_min(0.1)
        size = 3 * flat.var(-2).sum(-1).sqrt().clamp_min(1e-3)
        unit = torch.eye(3, device=flat.device)
        reprojection = losses.keypoint_reprojection(
            landmarks + away, flat, torch.ones_like(flat[..., 0]), unit, size, self.config.losses.keypoint_scale
        )
        angles = losses.rotation_geodesic(pose, true_pose)
        accel = losses.acceleration(joints, times, true_joints, self.config.losses.acceleration_scale)
        others: dict[str, Tensor] = {}
        if self.data_sets:
            view = part(prediction.canonical.ray_to_camera)
            camera = view @ root_ray
            others = alignment_terms(sample, rows, pose, camera, view, betas, self.body, self.flow, self.config.losses)
        return {
            **others,
            "joints3d": losses.masked_mean(losses.joints3d(joints, true_joints), valid),
            "rotations": losses.masked_mean(angles, valid),
            "keypoints": losses.masked_mean(reprojection, valid),
            "acceleration": losses.masked_mean(accel, metrics.triplets_valid(valid)),
        }

    @torch.no_grad()
    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Errors on fixed windows of each stream: of the network, and of the world landmarks it was given."""
        scores: dict[str, float] = {}
        for name, sample in self.validation.items():
            values = evaluate(module, sample.to(self.device), self.chart, self.body, self.config.filter)  # type: ignore[arg-type]
            scores |= {f"{name}_{k}": v for k, v in values.items()}
        scores["score"] = sum(
            scores[f"{n}_pa_mpjpe"] + 0.5 * scores[f"{n}_mpjpe"] + 2 * scores[f"{n}_accel"] for n in self.validation
        ) / len(self.validation)
        return scores


@torch.no_grad()
def lifted(sample: Sample, lifter: Lifter) -> Sample:
    """World landmarks as the lifter hands them on."""
    seen = sample.obs.observed & sample.obs.valid
    out = lifter(sample.obs)
    known = dataclasses.replace(sample.known, world_std=out.log_std.exp() * seen[..., None, None])
    obs = dataclasses.replace(sample.obs, world=out.mean * seen[..., None, None], has_world=seen)
    return dataclasses.replace(sample, obs=obs, known=known)


def bounded_nll(x: Tensor, gaussian: Gaussian, valid: Tensor) -> Tensor:
    """Mean negative log-likelihood per coordinate; a frame far out pulls no more than in proportion to its distance."""
    nll = losses.gaussian_nll(x, gaussian.mean, gaussian.log_var) / x.shape[-1]
    return losses.masked_mean(bounded(nll), valid)


@torch.no_grad()
def evaluate(
    module: ReconstructionNetwork, sample: Sample, chart: PoseFlow, body: Body, dynamics: bool = True
) -> dict[str, float]:
    """Scores of raw network output (nothing smoothed afterwards), positions in mm, acceleration in m/s^2.

    ``raw_*`` are the same errors of the world landmarks in the input, over the joints they have, and ``limb_*`` the
    network's over those joints. ``coverage`` is the share of true coordinates within one standard deviation (0.683 if the
    Gaussians are honest).
    """
    prediction, traces = module(sample.obs, dynamics=dynamics)
    valid, seen = sample.obs.valid, sample.obs.valid & sample.obs.observed
    betas = prediction.betas.mean[:, None].expand(-1, valid.shape[1], -1)
    true_betas = sample.betas[:, None].expand(-1, valid.shape[1], -1)
    ray_to_camera = prediction.canonical.ray_to_camera
    root = ray_to_camera.transpose(-1, -2) @ prediction.root_to_camera
    true_joints = body.joints(true_betas, full_pose(sample.pose_rotmat, sample.root_to_ray), None)
    joints = body.joints(betas, full_pose(chart.decode(prediction.chart.mean)[0], root), None)
    streamed = body.joints(betas, full_pose(chart.decode(traces.ahead.filtered.mean)[0], root), None)
    triplets = metrics.triplets_valid(seen)
    times = sample.obs.timestamps
    true = chart.encode(sample.pose_rotmat)[0]
    inside = ((true - prediction.chart.mean).abs() < prediction.chart.std).float().mean(-1)
    out = {
        "pa_mpjpe": 1000 * losses.masked_mean(metrics.pa_mpjpe(joints, true_joints), seen),
        "mpjpe": 1000 * losses.masked_mean(metrics.mpjpe(joints, true_joints), seen),
        "unseen_pa_mpjpe": 1000 * losses.masked_mean(metrics.pa_mpjpe(joints, true_joints), valid & ~seen),
        "stream_pa_mpjpe": 1000 * losses.masked_mean(metrics.pa_mpjpe(streamed, true_joints), seen),
        "accel": losses.masked_mean(metrics.acceleration_error(joints, true_joints, times), triplets),
        "root_deg": torch.rad2deg(losses.masked_mean(geodesic_distance(root, sample.root_to_ray), seen)),
        "nll": bounded_nll(true, prediction.chart, seen),
        "coverage": losses.masked_mean(inside, seen),
    }
    contact_right = ((prediction.contact_logits > 0) == (sample.contacts > 0.5)).float().mean(-1)
    out["contact_accuracy"] = losses.masked_mean(contact_right, valid & sample.contacts_known[:, None])
    worlds = seen & sample.obs.has_world
    if bool(worlds.any()):
        raw, limbs, truth = sample.obs.world[..., LIMB_LANDMARKS, :], joints[..., LIMBS, :], true_joints[..., LIMBS, :]
        landmarks_truth = sample.landmarks_ray[..., LIMB_LANDMARKS, :]
        out |= {
            "raw_pa_mpjpe": 1000 * losses.masked_mean(metrics.pa_mpjpe(raw, landmarks_truth), worlds),
            "limb_pa_mpjpe": 1000 * losses.masked_mean(metrics.pa_mpjpe(limbs, truth), worlds),
            "raw_mpjpe": 1000 * losses.masked_mean(metrics.mpjpe(raw, landmarks_truth, (0, 1)), worlds),
            "limb_mpjpe": 1000 * losses.masked_mean(metrics.mpjpe(limbs, truth, (0, 1)), worlds),
            "raw_accel": losses.masked_mean(
                metrics.acceleration_error(raw, landmarks_truth, times), metrics.triplets_valid(worlds)
            ),
        }
    return {k: float(v) for k, v in out.items()}


def _build(config: ReconstructorTrainingConfig, captured: Captured, device: torch.device) -> ReconstructorTask:
    clips = [] if config.perceived is None else load_perceived(config.perceived)
    return task_on(clips, config, captured, device, load_flow(config.flow), load_lifter(config.lifter))


def task_on(
    clips: Sequence[PerceivedClip],
    config: ReconstructorTrainingConfig,
    captured: Captured,
    device: torch.device,
    flow: PoseFlow,
    lifter: Lifter,
) -> ReconstructorTask:
    """The task of learning from these clips and projected motion, and of being judged by motion that is held out."""
    scored = config.losses.dynamics > 0 and bool(config.sources.data_sets)
    dynamics = load_dynamics(config.dynamics) if config.filter or scored else None
    body = Body.open()
    frames = config.projection.frames
    data_sets = open_data_sets(config.sources, body, frames, device)
    hold = held_out_names(clips, captured.path) if clips else set()
    kept, unseen = [c for c in clips if c.source not in hold], [c for c in clips if c.source in hold]
    perceived = PerceivedMotions(kept, body, frames) if clips else None
    lender = BorrowedErrors(kept, body) if clips else None
    projected = ProjectedMotions(captured.training, body, config.projection, flow, lender)
    held_out = ProjectedMotions(captured.validation, body, config.projection, flow, lender)
    validation = {"projected": held_out.draw(np.random.default_rng(7), config.validation)}
    if unseen:
        stream = PerceivedMotions(unseen, body, frames, augment=False)
        validation["perceived"] = stream.draw(np.random.default_rng(8), min(config.validation, 3 * len(unseen)))
    task = ReconstructorTask(
        config, flow, dynamics, body, lifter, projected, perceived, validation, device, data_sets,
    )  # fmt: skip
    if config.init is not None:
        task.module.load_own_state(load_weights(config.init)[0])
    return task


def _card(task: ReconstructorTask, captured: Captured, result: FitResult) -> Card:
    rendered = "" if task.perceived is None else f" and {len(task.perceived.clips)} rendered, perceived clips"
    others = "".join(f"; {name} with weight {one.weight:g}" for name, one in task.config.sources.data_sets.items())
    others += f" beside {task.config.sources.own:g}" if others else ""
    return Card(
        "frame encoder, recurrence and heads; reads flow.safetensors and dynamics.safetensors",
        f"{captured.minutes:.0f} min of motion capture, projected{rendered}{others}",
        {"validation": ", ".join(f"{k} {v:.3g}" for k, v in result.scores.items())},
        {
            "lifter fingerprint": fingerprint(task.lifter),
            "flow fingerprint": fingerprint(task.flow),
            "dynamics fingerprint": fingerprint(task.module.filter.dynamics),
        },
    )


class OwnWeights(nn.Module):
    """The network without the dynamics it reads, for saving."""

    def __init__(self, network: ReconstructionNetwork) -> None:
        super().__init__()
        self.network = network

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        return self.network.own_state()


TRAINING = Training(
    "reconstructor", ReconstructorTrainingConfig, _build, _card, weights=lambda task: OwnWeights(task.module)
)
