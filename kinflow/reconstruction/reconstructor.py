"""Evidence in, motion out: the network, the flow, the body and the camera put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..assets import asset_path
from ..assets.weights import load_weights
from ..body import Body
from ..body.kinematics import full_pose
from ..config import FitLossConfig, ReconstructorConfig, RefineConfig, from_dict
from ..devices import find_device
from ..dynamics import LatentDynamics, load_dynamics
from ..errors import ConfigError, FormatError, ShapeError, UsageError, check_shape, check_type
from ..evidence import Evidence
from ..flow import PoseFlow, load_flow
from ..motion import Motion
from ..rotations import rotvec_to_rotmat
from ..tracks import ROOT, TRANSL, smooth
from .batching import collate, cut, grouped
from .deviations import JointDeviations, load_deviations
from .fingerprint import fingerprint
from .gaussian import Gaussian
from .geometry import solve_translation
from .lifting import Lifter, lift, load_lifter
from .network import Prediction, ReconstructionNetwork
from .parameters import Parameters, motion_of
from .refine import Progress, Refiner, check_people

_PIECE = 512
"""Frames that the body is placed in at once."""


@dataclasses.dataclass
class _Person:
    """One person's network output, chunks joined (tensors (T, ...))."""

    chart: Tensor
    chart_std: Tensor
    root: Tensor
    root_log_var: Tensor
    betas: Tensor
    contacts: Tensor


class Reconstructor:
    """People's motion from their evidence.

    Frames are read by the encoder, filtered in the flow's chart by the recurrent dynamics in both directions of time, and
    placed before the full-frame camera. People do not influence each other, and the same input
    gives the same output.

    Args:
        config: architecture, and how its output becomes motion.
        body: the body to place; parameters in the Motion belong to it.
        lifter, flow, dynamics: trained parts.
        deviations: calibrated for them; None: those of the landmarks as they are.

    Attributes:
        weights: name -> configuration hash and fingerprint of everything loaded, for the record of a run.
    """

    def __init__(
        self,
        config: ReconstructorConfig,
        body: Body,
        lifter: Lifter,
        flow: PoseFlow,
        dynamics: LatentDynamics | None = None,
        deviations: JointDeviations | None = None,
    ) -> None:
        self.config = config
        self.body = body
        self.lifter = lifter.eval().requires_grad_(False)
        self.flow = flow.eval().requires_grad_(False)
        self.chart = self.flow.linear()
        self.network = ReconstructionNetwork(config, dynamics).eval()
        self.deviations = (deviations or JointDeviations()).eval()
        self.weights: dict[str, Any] = {}
        self.to(body.v_template.device)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        body: Body | None = None,
        device: torch.device | str | None = None,
    ) -> Reconstructor:
        """The trained reconstructor.

        Args:
            path: weights written by ``kinflow-train reconstructor``; the packaged ones by default.
            body: the open body by default.
            device: the body's by default.

        Raises:
            MissingAssetError: weights that are not there.
            FormatError: weights of another network, or that do not belong together (the flow was trained anew since).
        """
        path = asset_path("reconstructor.safetensors") if path is None else path
        state, values, meta = load_weights(path)
        body = body if body is not None else Body.open()
        check_type("body", body, Body)
        lifter, flow, dynamics, deviations = load_lifter(), load_flow(), load_dynamics(), load_deviations()
        prints = {"flow": fingerprint(flow), "dynamics": fingerprint(dynamics)}
        for part, value in prints.items():
            known = meta["card"].get(f"{part} fingerprint")
            if known is not None and known != value:
                raise FormatError(f"{path}: trained with {part} {known}, got {value}. Train the reconstructor anew.")
        try:
            config = from_dict(ReconstructorConfig, values)
            out = cls(config, body, lifter, flow, dynamics, deviations)
            out.network.load_own_state(state)
        except (ConfigError, RuntimeError) as error:
            raise FormatError(f"{path}: expected weights of a reconstructor, got others ({error}).") from error
        # By the hash alone weights that were adapted would pass for those that they came from.
        own = {
            "network": fingerprint(out.network),
            "lifter": fingerprint(lifter),
            "deviations": fingerprint(deviations),
        }
        out.weights = {"reconstructor": meta["config_hash"], **own, **prints}
        return out.to(device) if device is not None else out

    def to(self, device: torch.device | str) -> Reconstructor:
        """Move all parts; returns itself."""
        self.body = self.body.to(device)
        self.lifter = self.lifter.to(device)
        self.flow = self.flow.to(device)
        self.chart = self.chart.to(device)
        self.network = self.network.to(device)
        self.deviations = self.deviations.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def reconstruct(
        self, evidences: Sequence[Evidence], K: Tensor | np.ndarray, *, streaming: bool = False, seed: int = 0
    ) -> list[Motion]:
        """Reconstruct every person.

        Args:
            evidences: one record per person.
            K: (3, 3) camera matrix, px.
            streaming: each frame from the frames up to it alone (pose, root and contacts; shape and the root's and
                translation's smoothing still use all), without the short fit that ends an offline reconstruction.
            seed: of the draws behind ``joints3d_std`` and of the pixels that the fit takes from masks.

        Returns:
            One Motion per Evidence, in the same order, with a row for each of its rows.

        Raises:
            ShapeError: no camera matrix, or one of another shape.
            UsageError: what is no evidence, or a person who was never observed.
        """
        try:
            K = torch.as_tensor(np.asarray(K), dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise ShapeError(f"K: expected a camera matrix (3, 3) in px, got {type(K).__name__} ({error}).") from None
        check_shape("K", K, "3 3")
        check_type("evidences", evidences, Sequence, "Give a list with one Evidence a person.")
        for i, evidence in enumerate(evidences):
            check_type(f"evidences[{i}]", evidence, Evidence)
            if not evidence.observed.any():
                raise UsageError(
                    f"evidence of person {evidence.person_id}: no frame is observed. Leave this person out."
                )
        # Whatever served its turn is let go person by person: of long clips it would be as large as the records.
        lifted = self.lift(evidences, K)[::-1]
        people = self._predict(lifted[::-1], K, streaming)[::-1]
        offline = not streaming and self.config.align.iterations > 0
        fitter = self.refiner(self.config.align, self.config.align_losses) if offline else None
        motions = []
        while people:
            evidence = lifted.pop()
            motion = self._place(people.pop(), evidence, K, seed)
            motions.append(motion if fitter is None else fitter.fit(motion, evidence, seed=seed))
        return motions

    def refiner(self, config: RefineConfig | None = None, losses: FitLossConfig | None = None) -> Refiner:
        """What fits motions to their evidence with these parts, by the defaults of ``--refine``."""
        dynamics = self.network.filter.dynamics
        return Refiner(self.flow, dynamics, self.body, config or RefineConfig(), losses or FitLossConfig())

    def refine(
        self,
        motions: Sequence[Motion],
        evidences: Sequence[Evidence],
        config: RefineConfig | None = None,
        losses: FitLossConfig | None = None,
        progress: Progress | None = None,
        seed: int = 0,
    ) -> list[Motion]:
        """Fit motions to their evidence: :meth:`kinflow.reconstruction.refine.Refiner.fit_all`."""
        check_people(motions, evidences)
        lifted = [self.lift([e], m.K)[0] for e, m in zip(evidences, motions, strict=True)]
        return self.refiner(config, losses).fit_all(motions, lifted, progress, seed)

    def lift(self, evidences: Sequence[Evidence], K: Tensor | np.ndarray) -> list[Evidence]:
        """Evidence with its world landmarks put right: :func:`kinflow.reconstruction.lifting.lift`."""
        return lift(self.lifter, evidences, torch.tensor(np.asarray(K), dtype=torch.float32))

    # -- parts --------------------------------------------------------------------------------------------------------

    def _predict(self, evidences: Sequence[Evidence], K: Tensor, streaming: bool) -> list[_Person]:
        """Run the network over all people's chunks, chunks of like length together."""
        config = self.config
        chunks = cut([len(e) for e in evidences], config.chunk, config.context)
        people = [_empty(len(e), self.device) for e in evidences]
        shapes: list[list[tuple[Tensor, Tensor, float]]] = [[] for _ in evidences]
        # On CPUs batches of people gain nothing (measured), and the fit makes tenths of a millimetre of their rounding.
        for group in grouped(chunks, together=self.device.type != "cpu"):
            obs = collate(evidences, group, K, torch.float32).to(self.device)
            prediction, _ = self.network(obs, streaming)
            if not streaming:
                prediction = prediction._replace(chart=self.network.fill_gaps(prediction.chart, obs))
            for row, chunk in enumerate(group):
                keep = slice(chunk.keep_from - chunk.start, chunk.keep_to - chunk.start)
                rows = _rows(prediction, row, keep)
                for name in _PER_FRAME:
                    getattr(people[chunk.person], name)[chunk.keep_from : chunk.keep_to] = getattr(rows, name)
                seen = float(evidences[chunk.person].observed[chunk.keep_from : chunk.keep_to].sum())
                shapes[chunk.person].append((prediction.betas.mean[row], prediction.betas.log_var[row], seen))
        for person, found in zip(people, shapes, strict=True):
            weight = torch.stack([n * torch.exp(-v) for _, v, n in found])
            means = torch.stack([m for m, _, _ in found])
            person.betas = (weight * means).sum(0) / weight.sum(0).clamp_min(1e-9)
        return people

    def _place(self, person: _Person, evidence: Evidence, K: Tensor, seed: int) -> Motion:
        """Smooth the root, solve for the translation, smooth it, and put everything into a record."""
        config = self.config
        observed = evidence.observed
        covariance = torch.diag_embed(person.root_log_var.double().exp()) * config.root_inflation
        root, root_cov = smooth(
            person.root.double().cpu().numpy(), covariance.cpu().numpy(), evidence.timestamps, observed,
            ROOT,
        )  # fmt: skip
        pose = self.chart.decode(person.chart)[0]
        orient = torch.from_numpy(root).to(pose)
        means, covariances = [], []
        for rows in torch.arange(len(evidence)).split(_PIECE):
            betas = person.betas.expand(len(rows), -1)
            local = self.body.landmarks(betas, full_pose(pose[rows], orient[rows]), None)
            solved = solve_translation(
                local.double(),
                torch.from_numpy(evidence.keypoints2d[rows]).to(self.device).double(),
                torch.from_numpy(evidence.confidence[rows]).to(self.device).double(),
                K.to(self.device).double(),
                config.landmark_sigma,
            )
            means.append(solved.mean.cpu().numpy())
            covariances.append(solved.covariance.cpu().numpy())
        transl, transl_cov = smooth(
            np.concatenate(means), np.concatenate(covariances) * config.transl_inflation, evidence.timestamps,
            observed, TRANSL,
        )  # fmt: skip
        placed = Parameters(pose, orient, torch.from_numpy(transl).to(pose), person.betas, person.contacts)
        chart = Gaussian(person.chart, 2 * person.chart_std.log())
        std = self._joint_std(placed, chart, evidence, root_cov, transl_cov, torch.Generator().manual_seed(seed))
        reach90 = self.deviations.reach90.cpu().numpy()
        return motion_of(placed, std, reach90, evidence, K.numpy(), self.flow, self.body)

    def _joint_std(
        self,
        parameters: Parameters,
        chart: Gaussian,
        evidence: Evidence,
        root_cov: np.ndarray,
        transl_cov: np.ndarray,
        generator: torch.Generator,
    ) -> np.ndarray:
        """Standard deviations (T, 24, 2) m of the joints about the pelvis, and of its own place, across the ray and along it.

        Of frames that were not seen the deviations come from those before and after, and from draws of pose and root,
        whose spread grows with the gap.

        Args:
            root_cov: (T, 3, 3) rad^2, of the root in the pelvis' axes. transl_cov: (T, 3, 3) m^2.
        """
        seen = evidence.observed
        assert evidence.world_std is not None  # lifted
        place = place_deviations(parameters.transl.cpu().numpy(), transl_cov)
        known = torch.from_numpy(evidence.world_std[seen]).to(self.device)
        std = self.deviations(known, torch.from_numpy(place[seen]).to(known)).cpu().numpy()
        if seen.all():
            return std
        out = np.empty((len(seen), *std.shape[1:]), np.float32)
        out[seen] = std
        rows = np.flatnonzero(~seen)
        after = np.searchsorted(times := evidence.timestamps[seen], evidence.timestamps[rows]).clip(1, len(times) - 1)
        before = after - 1 if len(times) > 1 else after * 0
        share = (evidence.timestamps[rows] - times[before]) / np.maximum(
            times[after % len(times)] - times[before], 1e-9
        )
        share = share.clip(0, 1)[:, None, None]
        around = (1 - share) * std[before] + share * std[after % len(times)]
        drawn = self._drawn_std(parameters, chart, torch.from_numpy(rows).to(self.device), root_cov[rows], generator)[
            ..., None
        ]
        drawn = np.concatenate((np.broadcast_to(place[rows, None], (len(rows), 1, 2)), drawn.repeat(2, -1)[:, 1:]), 1)
        out[rows] = np.sqrt(around**2 + drawn**2)
        return out

    def _drawn_std(
        self, parameters: Parameters, chart: Gaussian, rows: Tensor, root_cov: np.ndarray, generator: torch.Generator
    ) -> np.ndarray:
        """Standard deviation (R, 24) m of the joints about the pelvis in some rows, an axis, by draws of pose and root."""
        mean, std, pairs = chart.mean[rows], chart.std[rows], max(1, self.config.std_draws // 2)
        root = parameters.root[rows]
        half = torch.randn(pairs, 1, mean.shape[-1], generator=generator).to(mean)
        turn = torch.randn(pairs, 1, 3, generator=generator).to(mean)
        noise, turn = torch.cat((half, -half)), torch.cat((turn, -turn))  # in pairs: the mean is exact to first order
        total = torch.zeros(len(mean), 24, dtype=mean.dtype, device=mean.device)
        factor = torch.from_numpy(cholesky(root_cov)).to(mean)
        for part in torch.arange(len(mean), device=mean.device).split(_PIECE // 4):
            pose = self.chart.decode(mean[part] + noise * std[part])[0]
            turned = rotvec_to_rotmat(torch.einsum("tij,nkj->nti", factor[part], turn))
            betas = parameters.betas.expand(*pose.shape[:2], -1)
            joints = self.body.joints(betas, full_pose(pose, root[part] @ turned), None)
            joints = joints - joints[..., :1, :]
            total[part] = (joints - joints.mean(0)).square().sum((0, -1)) / (3 * len(noise))
        return np.sqrt(total.cpu().numpy())


def cholesky(covariance: np.ndarray) -> np.ndarray:
    """Lower factor of covariances (..., D, D), in float64, also where rounding left them singular or indefinite.

    Eigenvalues are held above 1e-12 of the largest; a sound covariance passes as it is.
    """
    covariance = np.asarray(covariance, np.float64)
    values, vectors = np.linalg.eigh((covariance + covariance.swapaxes(-1, -2)) / 2)
    least = np.maximum(1e-12 * values[..., -1:], 1e-24)
    raised = (vectors * np.maximum(values, least)[..., None, :]) @ vectors.swapaxes(-1, -2)
    sound = np.all(values >= least, -1, keepdims=True)[..., None]
    return np.linalg.cholesky(np.where(sound, covariance, raised))


def place_deviations(transl: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard deviations (T, 2) m of positions (T, 3) with covariances (T, 3, 3), across the ray to them and along it."""
    ray = transl.astype(np.float64)
    ray = ray / np.maximum(np.linalg.norm(ray, axis=-1, keepdims=True), 1e-9)
    along = np.einsum("ti,tij,tj->t", ray, covariance, ray)
    across = (np.trace(covariance, axis1=-2, axis2=-1) - along) / 2
    return np.sqrt(np.stack((across, along), -1).clip(1e-8)).astype(np.float32)


_PER_FRAME = {"chart": (63,), "chart_std": (63,), "root": (3, 3), "root_log_var": (3,), "contacts": (4,)}


def _empty(frames: int, device: torch.device) -> _Person:
    """Room for a whole person; pieces kept until all are there would hold the memory between them too."""
    rows = {name: torch.empty(frames, *shape, device=device) for name, shape in _PER_FRAME.items()}
    return _Person(betas=torch.zeros(10, device=device), **rows)


def _rows(prediction: Prediction, row: int, keep: slice) -> _Person:
    return _Person(
        prediction.chart.mean[row, keep],
        prediction.chart.std[row, keep],
        prediction.root_to_camera[row, keep],
        prediction.root_log_var[row, keep],
        prediction.betas.mean[row],
        torch.sigmoid(prediction.contact_logits[row, keep]),
    )


def reconstruct(
    evidences: Sequence[Evidence],
    K: Tensor | np.ndarray,
    *,
    reconstructor: Reconstructor | None = None,
    body: Body | None = None,
    device: torch.device | str | None = None,
    streaming: bool = False,
    seed: int = 0,
) -> list[Motion]:
    """People's motion from their evidence: from what was seen of each to pose, shape and trajectory.

    Args:
        evidences: one record per person.
        K: (3, 3) camera matrix, px.
        reconstructor: one that is loaded already, with its body and on its device; the packaged one by default.
        body: for the packaged one; the open body by default.
        device: for the packaged one: "auto" (the default: CUDA where there is one), "cpu", "cuda:1", ...
        streaming, seed: as of :meth:`Reconstructor.reconstruct`.

    Returns:
        One Motion per Evidence, in the same order, with a row for each of its rows.

    Raises:
        ShapeError: no camera matrix, or one of another shape.
        UsageError: what is no evidence, a person who was never observed, a device that is not there, or body or device beside a reconstructor.
    """
    if reconstructor is None:
        device = find_device("auto" if device is None else device)
        reconstructor = Reconstructor.load(body=body, device=device)
    elif body is not None or device is not None:
        raise UsageError("body, device: expected none beside a reconstructor, got some. Load it with them.")
    check_type("reconstructor", reconstructor, Reconstructor)
    return reconstructor.reconstruct(evidences, K, streaming=streaming, seed=seed)
