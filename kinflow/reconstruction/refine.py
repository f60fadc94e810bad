"""Test-time optimisation: pose, root, translation and shape fitted to one clip's evidence under the training losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import losses
from ..body import Body
from ..body.kinematics import full_pose
from ..body.surface import surface_parts
from ..cameras import project
from ..config import FitLossConfig, RefineConfig
from ..dynamics import LatentDynamics
from ..errors import UsageError, check_type
from ..evidence import Evidence
from ..flow import PoseFlow
from ..motion import Motion
from ..rotations import rotvec_to_rotmat
from ..skeleton import FEET, NUM_BODY
from .contacts import contact_probability
from .descent import descend
from .kernel import Kernel, kernel_of
from .parameters import Parameters, motion_of
from .target import Target, gather_target, inside_crops

Progress = Callable[[int, int], None]
_ROOT_STD = 0.07  # rad, how far the network's root is trusted
_CHART_STD = 0.3  # likewise, of the pose in the flow's whitened chart
_PIECE = 256  # frames that the body is posed in at once
_LIMB_ENDS = (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
_EXTREMITY = 0.3  # weight of landmarks of face, hands and feet, many and close together, against those


@dataclasses.dataclass(frozen=True)
class Variables:
    """What is optimised.

    Attributes:
        chart: (T, 63) the pose in the flow's whitened chart, in which all directions are about alike and from which a pose
            is had without the coupling layers: the flow's prior alone pays for them.
        turn: (T, 3) rad, of the root against the start's.
        transl: (T, 3) m. betas: (10,).
    """

    chart: Tensor
    turn: Tensor
    transl: Tensor
    betas: Tensor


@dataclasses.dataclass(frozen=True)
class Start(Parameters):
    """Where a fit begins.

    Attributes:
        chart: (T, 63) of its poses, as of :class:`Variables`.
    """

    chart: Tensor


class _Posed(NamedTuple):
    """Latents (T, 63) where the flow's prior needs them, else (T, 0), joints (T, 24, 3) and feet (T, 4, 3) in m, and the losses (T,) of
    keypoints, world landmarks and parts."""

    z: Tensor
    joints: Tensor
    feet: Tensor
    reprojection: Tensor
    alignment: Tensor
    parts: Tensor


@dataclasses.dataclass(frozen=True)
class Refiner:
    """Fits motions to their evidence, starting from themselves.

    Attributes:
        flow, dynamics: give the likelihood of poses and motions.
        body: to which the motions belong.
        config: the optimisation; weights: what it weighs.
    """

    flow: PoseFlow
    dynamics: LatentDynamics
    body: Body
    config: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    weights: FitLossConfig = dataclasses.field(default_factory=FitLossConfig)

    def fit_all(
        self, motions: Sequence[Motion], evidences: Sequence[Evidence], progress: Progress | None = None, seed: int = 0
    ) -> list[Motion]:
        """Fit each motion to its evidence.

        Args:
            progress: called with (iterations done, of how many).
            seed: of the pixels drawn from part maps or masks, for each person anew, so that company changes nothing.

        Raises:
            UsageError: motions and evidences that do not belong together.
        """
        check_people(motions, evidences)
        total = len(motions) * self.config.iterations
        out = []
        for person, (motion, evidence) in enumerate(zip(motions, evidences, strict=True)):
            done = person * self.config.iterations
            report = None if progress is None else (lambda i, done=done: progress(done + i, total))
            out.append(self.fit(motion, evidence, report, seed))
        return out

    def fit(
        self, motion: Motion, evidence: Evidence, report: Callable[[int], None] | None = None, seed: int = 0
    ) -> Motion:
        """Fit one motion; ``report`` is called with the iterations done.

        Raises:
            UsageError: motion and evidence of different frames.
        """
        config, device = self.config, self.body.device
        target = gather_target(motion, evidence, config.pixels if self.weights.parts > 0 else 0, device, seed)
        start = self.start(motion)
        # What is optimised is a correction that is even in time, added to the start.
        free = Variables(torch.zeros_like(start.chart), torch.zeros_like(start.transl), torch.zeros_like(start.transl),
                         torch.zeros_like(start.betas))  # fmt: skip
        kernel = kernel_of(target.timestamps[None], config.kernel)
        moving = [x.requires_grad_() for x in (free.chart, free.turn, free.transl, free.betas)]

        def loss(iteration: int) -> Tensor:
            offset = (iteration * 17) % config.window
            return self.objective(corrected(start, free, kernel), start, target, offset)[0]

        rates = (config.lr, config.lr_root, config.lr_transl, config.lr_betas)
        descend(loss, moving, rates, config.iterations, report)
        with torch.no_grad():
            v = corrected(start, free, kernel)
            fitted = Parameters(
                self._chart.decode(v.chart)[0],
                start.root @ rotvec_to_rotmat(v.turn),
                v.transl,
                v.betas,
                contact_probability(self._posed(v, start, target).feet, target.timestamps),
            )
        return motion_of(fitted, motion.deviations(), motion.joints3d_reach90, evidence, motion.K, self.flow, self.body)

    def start(self, motion: Motion) -> Start:
        """A motion's own parameters, on the body's device."""

        def tensor(name: str) -> Tensor:
            return torch.tensor(getattr(motion, name), device=self.body.device)

        root = rotvec_to_rotmat(tensor("global_orient"))
        pose = rotvec_to_rotmat(tensor("body_pose")[:, :NUM_BODY])
        with torch.no_grad():
            chart = self._chart.encode(pose)[0]
        return Start(pose, root, tensor("transl"), tensor("betas"), tensor("contacts"), chart)

    def objective(
        self, v: Variables, start: Start, target: Target, offset: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its terms (scalars, unweighted), each a mean over the frames it applies to.

        A term of weight 0, or of which the evidence has nothing, is left out.

        Args:
            v: where it is taken.
            start: the motion that was reconstructed, of which the fit stays within reach.
            target: the evidence.
            offset: frame at which the windows of the dynamics' likelihood begin.

        Raises:
            UsageError: nothing is left to fit to.
        """
        w = self.weights
        posed = self._posed(v, start, target)
        terms: dict[str, Tensor] = {}
        if w.keypoints > 0:
            terms["keypoints"] = losses.masked_mean(posed.reprojection, target.observed)
        if w.start > 0:
            off = (v.chart - start.chart).square().sum(-1) / _CHART_STD**2
            turned = (v.turn / _ROOT_STD).square().sum(-1)
            terms["start"] = (0.5 * off + 0.5 * turned).mean()
        if w.latent > 0:
            terms["latent"] = losses.latent_nll(posed.z).mean()
        if w.betas > 0:
            terms["betas"] = losses.betas_prior(v.betas)
        if w.landmarks > 0 and target.world_std is not None and bool(target.has_world.any()):
            terms["landmarks"] = losses.masked_mean(posed.alignment, target.has_world & target.observed)
        if w.parts > 0 and target.silhouette is not None:
            terms["parts"] = losses.masked_mean(posed.parts, target.observed & target.silhouette.seen)
        if len(v.chart) > 1:
            if w.smoothness > 0:
                terms["smoothness"] = losses.latent_smoothness(v.chart, target.timestamps).mean()
            if w.dynamics > 0:
                terms["dynamics"] = self._dynamics_nll(v.chart, target.timestamps, offset)
            if w.contact_velocity > 0:
                terms["contact_velocity"] = losses.contact_velocity(
                    posed.feet, start.contacts, target.timestamps
                ).mean()
        if len(v.chart) > 2 and w.acceleration > 0:
            terms["acceleration"] = losses.acceleration(
                posed.joints, target.timestamps, scale=w.acceleration_scale
            ).mean()
        if not terms:
            raise UsageError("losses: expected a weight above 0 whose term the evidence supports, got none.")
        return torch.stack([getattr(w, name) * value for name, value in terms.items()]).sum(), terms

    def _posed(self, v: Variables, start: Start, target: Target) -> _Posed:
        """The body at every frame, and the losses of single frames.

        A frame's part of the graph takes some 150 kB, the result 0.5: long motions are cut into pieces that are computed once
        more for the gradient.
        """
        w = self.weights

        def piece(chart: Tensor, turn: Tensor, transl: Tensor, betas: Tensor, rows: slice) -> _Posed:
            pose = self._chart.decode(chart)[0]
            rotmats = full_pose(pose, start.root[rows] @ rotvec_to_rotmat(turn))
            z = self.flow.encode(pose)[0] if w.latent > 0 else chart[:, :0]
            joints, landmarks = self.body.joints_and_landmarks(betas.expand(len(chart), -1), rotmats, transl)
            confidence = target.confidence[rows]
            reprojection = losses.keypoint_reprojection(
                landmarks, target.keypoints2d[rows], confidence, target.K, target.size_px[rows], w.keypoint_scale
            )
            in_ray = (landmarks - transl[:, None]) @ target.ray_to_camera[rows]
            alignment = torch.zeros_like(reprojection)
            if target.world_std is not None:
                weight = landmark_weights(confidence)
                alignment = losses.landmark_alignment(in_ray, target.world[rows], target.world_std[rows], weight)
            parts = torch.zeros_like(reprojection)
            if w.parts > 0 and target.silhouette is not None:
                shown = target.silhouette
                known = self._vertex_parts if shown.labelled else torch.zeros_like(self._vertex_parts)
                vertices = self.body.vertices(
                    betas.expand(len(chart), -1), rotmats, transl, vertex_ids=self._vertex_ids
                )
                vertices = project(vertices, target.K)
                parts = losses.part_alignment(
                    vertices, known, shown.pixels[rows], shown.parts[rows], target.size_px[rows], w.part_scale,
                    inside_crops(vertices.detach(), shown.rois[rows]),
                )  # fmt: skip
            return _Posed(z, joints, landmarks[:, list(FEET)], reprojection, alignment, parts)

        pieces = []
        for first in range(0, len(v.chart), _PIECE):
            rows = slice(first, first + _PIECE)
            arguments = (v.chart[rows], v.turn[rows], v.transl[rows], v.betas, rows)
            if len(v.chart) > _PIECE and torch.is_grad_enabled():
                pieces.append(_Posed(*checkpoint(piece, *arguments, use_reentrant=True, preserve_rng_state=False)))
            else:
                pieces.append(piece(*arguments))
        return _Posed(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))

    def _dynamics_nll(self, chart: Tensor, timestamps: Tensor, offset: int) -> Tensor:
        """Per frame, in windows whose borders move with ``offset`` so that no seam stays unjoined."""
        window = self.config.window
        usable = (len(chart) - offset) // window if len(chart) > window else 0
        if usable:
            rows = slice(offset, offset + usable * window)
            chart = rearrange(chart[rows], "(n w) d -> n w d", w=window)
            timestamps = rearrange(timestamps[rows], "(n w) -> n w", w=window)
        else:
            chart, timestamps = chart[None], timestamps[None]
        # The recurrence's graph takes 80 kB a frame, and windows do not see each other.
        at_once = max(1, 2 * _PIECE // window)
        pieces = list(zip(chart.split(at_once), timestamps.split(at_once), strict=True))
        if len(pieces) == 1:
            return losses.dynamics_nll(self.dynamics.log_prob(chart, timestamps)).mean()
        parts = [
            checkpoint(self.dynamics.log_prob, *piece, use_reentrant=True, preserve_rng_state=False) for piece in pieces
        ]
        return losses.dynamics_nll(torch.cat(parts)).mean()

    @cached_property
    def _chart(self) -> PoseFlow:
        return self.flow.linear()

    @cached_property
    def _vertex_ids(self) -> Tensor:
        count = self.body.num_vertices
        return torch.linspace(0, count - 1, self.config.vertices, device=self.body.device).round().long().unique()

    @cached_property
    def _vertex_parts(self) -> Tensor:
        return surface_parts(self.body)[self._vertex_ids]


def landmark_weights(confidence: Tensor) -> Tensor:
    """Of world landmarks (..., 33) against each other, whatever their confidence: it is of their place in the image."""
    weight = torch.full_like(confidence, _EXTREMITY)
    weight[..., list(_LIMB_ENDS)] = 1.0
    return weight


def check_people(motions: Sequence[Motion], evidences: Sequence[Evidence]) -> None:
    """Raises UsageError: anything but one Evidence for each Motion."""
    for name, records, kind in (("motions", motions, Motion), ("evidences", evidences, Evidence)):
        check_type(name, records, Sequence, f"Give a list with one {kind.__name__} a person.")
        for i, record in enumerate(records):
            check_type(f"{name}[{i}]", record, kind)
    if len(motions) != len(evidences):
        raise UsageError(f"evidences: expected one for each of {len(motions)} motions, got {len(evidences)}.")


def corrected(start: Start, free: Variables, kernel: Kernel) -> Variables:
    """The start with corrections averaged in time by ``kernel``."""
    change, turn, transl = (kernel(x[None])[0] for x in (free.chart, free.turn, free.transl))
    return Variables(start.chart + change, turn, start.transl + transl, start.betas + free.betas)
