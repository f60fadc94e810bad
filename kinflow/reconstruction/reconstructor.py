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
from ..config import LossConfig, ReconstructorConfig, RefineConfig, from_dict
from ..dynamics import LatentDynamics, load_dynamics
from ..errors import ShapeError, UsageError, check_shape
from ..evidence import Evidence
from ..flow import PoseFlow, load_flow
from ..motion import Motion
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..tracks import smooth
from .batching import collate, cut
from .fingerprint import fingerprint
from .geometry import solve_translation
from .network import Prediction, ReconstructionNetwork
from .pose import full_pose
from .refine import Progress, refine_motions

_GROUP = 16
"""Chunks that go through the network at once."""


@dataclasses.dataclass
class _Person:
    """One person's network output, chunks joined (tensors (T, ...))."""

    z: Tensor
    z_std: Tensor
    root: Tensor
    root_log_var: Tensor
    betas: Tensor
    contacts: Tensor


class Reconstructor:
    """People's motion from their evidence.

    Frames are read by the encoder, filtered in the flow's latent by the recurrent dynamics in both directions of time,
    decoded by the flow, and placed before the full-frame camera. People do not influence each other, and the same input
    gives the same output.

    Args:
        config: architecture and smoothing.
        body: the body to place; parameters in the Motion belong to it.
        flow, dynamics: trained parts.

    Attributes:
        weights: name -> configuration hash and fingerprint of everything loaded, for the record of a run.
    """

    def __init__(
        self, config: ReconstructorConfig, body: Body, flow: PoseFlow, dynamics: LatentDynamics | None = None
    ) -> None:
        self.config = config
        self.body = body
        self.flow = flow.eval().requires_grad_(False)
        self.network = ReconstructionNetwork(config, dynamics).eval()
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
            ShapeError: weights that do not belong together (the flow was trained anew since).
        """
        path = asset_path("reconstructor.safetensors") if path is None else path
        state, values, meta = load_weights(path)
        flow, dynamics = load_flow(), load_dynamics()
        prints = {"flow": fingerprint(flow), "dynamics": fingerprint(dynamics)}
        for part, value in prints.items():
            known = meta["card"].get(f"{part} fingerprint")
            if known is not None and known != value:
                raise ShapeError(f"{path}: trained with {part} {known}, got {value}. Train the reconstructor anew.")
        out = cls(from_dict(ReconstructorConfig, values), body if body is not None else Body.open(), flow, dynamics)
        out.network.load_own_state(state)
        out.weights = {"reconstructor": meta["config_hash"], **prints}
        return out.to(device) if device is not None else out

    def to(self, device: torch.device | str) -> Reconstructor:
        """Move all parts; returns itself."""
        self.body = self.body.to(device)
        self.flow = self.flow.to(device)
        self.network = self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def reconstruct(
        self, evidences: Sequence[Evidence], K: Tensor | np.ndarray, streaming: bool = False
    ) -> list[Motion]:
        """Reconstruct every person.

        Args:
            evidences: one record per person.
            K: (3, 3) camera matrix, px.
            streaming: each frame from the frames up to it alone (pose, root and contacts; shape and the root's and
                translation's smoothing still use all), without the short fit that ends an offline reconstruction.

        Returns:
            One Motion per Evidence, in the same order, with a row for each of its rows.

        Raises:
            ShapeError: a camera matrix of another shape.
            UsageError: a person who was never observed.
        """
        K = torch.as_tensor(np.asarray(K), dtype=torch.float32)
        check_shape("K", K, "3 3")
        for evidence in evidences:
            if not evidence.observed.any():
                raise UsageError(
                    f"evidence of person {evidence.person_id}: no frame is observed. Leave this person out."
                )
        motions = [
            self._place(person, evidence, K)
            for person, evidence in zip(self._predict(evidences, K, streaming), evidences, strict=True)
        ]
        if streaming or not self.config.align.iterations:
            return motions
        return self.refine(motions, evidences, self.config.align, self.config.align_losses)

    def refine(
        self,
        motions: Sequence[Motion],
        evidences: Sequence[Evidence],
        config: RefineConfig | None = None,
        losses: LossConfig | None = None,
        progress: Progress | None = None,
    ) -> list[Motion]:
        """Fit motions to their evidence under the losses of training: see :func:`kinflow.reconstruction.refine.refine_motions`."""
        return refine_motions(
            motions, evidences, self.flow, self.network.filter.dynamics, self.body,
            config or RefineConfig(), losses or LossConfig(), progress, self.finish,
        )  # fmt: skip

    # -- parts --------------------------------------------------------------------------------------------------------

    def _predict(self, evidences: Sequence[Evidence], K: Tensor, streaming: bool) -> list[_Person]:
        """Run the network over all people's chunks, chunks of like length together."""
        config = self.config
        chunks = cut([len(e) for e in evidences], config.chunk, config.context)
        order = sorted(range(len(chunks)), key=lambda i: chunks[i].stop - chunks[i].start)
        parts: dict[int, _Person] = {}
        shapes: list[list[tuple[Tensor, Tensor, float]]] = [[] for _ in evidences]
        for at in range(0, len(order), _GROUP):
            group = [chunks[i] for i in order[at : at + _GROUP]]
            obs = collate(evidences, group, K, torch.float32, features=config.trunk_features > 0).to(self.device)
            prediction, _ = self.network(obs, streaming)
            if not streaming:
                prediction = prediction._replace(z=self.network.fill_gaps(prediction.z, obs))
            for row, i in enumerate(order[at : at + _GROUP]):
                chunk = chunks[i]
                keep = slice(chunk.keep_from - chunk.start, chunk.keep_to - chunk.start)
                parts[i] = _rows(prediction, row, keep)
                seen = float(evidences[chunk.person].observed[chunk.keep_from : chunk.keep_to].sum())
                shapes[chunk.person].append((prediction.betas.mean[row], prediction.betas.log_var[row], seen))
        people = []
        for person in range(len(evidences)):
            rows = [parts[i] for i, c in enumerate(chunks) if c.person == person]
            joined = {
                f.name: torch.cat([getattr(r, f.name) for r in rows])
                for f in dataclasses.fields(_Person)
                if f.name != "betas"
            }
            weight = torch.stack([n * torch.exp(-v) for _, v, n in shapes[person]])
            means = torch.stack([m for m, _, _ in shapes[person]])
            people.append(_Person(betas=(weight * means).sum(0) / weight.sum(0).clamp_min(1e-9), **joined))
        return people

    def _place(self, person: _Person, evidence: Evidence, K: Tensor) -> Motion:
        """Smooth the root, solve for the translation, smooth it, and put everything into a record."""
        config = self.config
        observed = evidence.observed
        covariance = torch.diag_embed(person.root_log_var.double().exp()) * config.root_inflation
        root, root_cov = smooth(
            person.root.double().cpu().numpy(), covariance.cpu().numpy(), evidence.timestamps, observed,
            config.root_drift, rate_std=2.0,
        )  # fmt: skip
        pose = self.flow.decode(person.z)[0]
        orient = torch.from_numpy(root).to(pose)
        betas = person.betas.expand(len(pose), -1)
        local = self.body.landmarks(betas, full_pose(orient, pose), None)
        solved = solve_translation(
            local.double(),
            torch.from_numpy(evidence.keypoints2d).to(self.device).double(),
            torch.from_numpy(evidence.confidence).to(self.device).double(),
            K.to(self.device).double(),
            config.landmark_sigma,
        )
        transl, transl_cov = smooth(
            solved.mean.cpu().numpy(), solved.covariance.cpu().numpy() * config.transl_inflation, evidence.timestamps,
            observed, config.transl_drift, rate_std=1.5,
        )  # fmt: skip
        return self.finish(
            evidence, K, person.betas, orient, person.z, torch.from_numpy(transl).to(pose), person.z_std,
            person.contacts, root_cov, transl_cov,
        )  # fmt: skip

    @torch.no_grad()
    def finish(
        self,
        evidence: Evidence,
        K: Tensor,
        betas: Tensor,
        root: Tensor,
        z: Tensor,
        transl: Tensor,
        z_std: Tensor,
        contacts: Tensor,
        root_cov: np.ndarray | None = None,
        transl_cov: np.ndarray | None = None,
        joints3d_std: np.ndarray | None = None,
    ) -> Motion:
        """Make the record of one person from its parameters (tensors (T, ...)); see :class:`kinflow.motion.Motion`."""
        pose = self.flow.decode(z)[0]
        rotmats = full_pose(root, pose)
        joints = self.body.joints(betas.expand(len(z), -1), rotmats, transl)
        if joints3d_std is None:
            joints3d_std = self._joint_std(betas, root, z, z_std, root_cov)
            if transl_cov is not None:
                ray = transl.double().cpu().numpy()
                ray = ray / np.maximum(np.linalg.norm(ray, axis=-1, keepdims=True), 1e-9)
                joints3d_std[:, 0] = np.sqrt(np.einsum("ti,tij,tj->t", ray, transl_cov, ray).clip(1e-8))
        zeros = torch.zeros_like(rotmats[:, 22:, 0])
        return Motion(
            person_id=evidence.person_id,
            body=self.body.name,
            frame_ids=evidence.frame_ids,
            timestamps=evidence.timestamps,
            observed=evidence.observed,
            betas=_numpy(betas),
            global_orient=_numpy(rotmat_to_rotvec(root)),
            body_pose=_numpy(torch.cat((rotmat_to_rotvec(pose), zeros), 1)),
            transl=_numpy(transl),
            joints3d=_numpy(joints),
            joints3d_std=joints3d_std,
            z=_numpy(z),
            z_std=_numpy(z_std),
            contacts=_numpy(contacts),
            keypoints2d=evidence.keypoints2d,
            confidence=evidence.confidence,
            boxes_xyxy=evidence.boxes_xyxy,
            K=_numpy(K),
            image_size=evidence.image_size,
        )

    def _joint_std(
        self, betas: Tensor, root: Tensor, z: Tensor, z_std: Tensor, root_cov: np.ndarray | None
    ) -> np.ndarray:
        """Standard deviation (T, 24) m of the joints about the pelvis, per axis, by draws of z and of the root."""
        draws = self.config.std_draws
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(max(1, draws // 2), 1, z.shape[-1], generator=generator).to(z)
        turn = torch.randn(max(1, draws // 2), 1, 3, generator=generator).to(z)
        noise, turn = torch.cat((half, -half)), torch.cat((turn, -turn))  # in pairs: the mean is exact to first order
        total = torch.zeros(*z.shape[:1], 24, dtype=z.dtype, device=z.device)
        factor = torch.zeros(len(z), 3, 3).to(z) if root_cov is None else torch.linalg.cholesky(
            torch.from_numpy(root_cov).to(z) + 1e-10 * torch.eye(3).to(z)
        )  # fmt: skip
        for rows in torch.arange(len(z), device=z.device).split(512):
            pose = self.flow.decode(z[rows] + noise * z_std[rows])[0]
            orient = root[rows] @ rotvec_to_rotmat(torch.einsum("tij,nkj->nti", factor[rows], turn))
            joints = self.body.joints(betas.expand(*pose.shape[:2], -1), full_pose(orient, pose), None)
            joints = joints - joints[..., :1, :]
            total[rows] = (joints - joints.mean(0)).square().sum((0, -1)) / (3 * len(noise))
        return np.sqrt(total.cpu().numpy())


def _rows(prediction: Prediction, row: int, keep: slice) -> _Person:
    return _Person(
        prediction.z.mean[row, keep],
        prediction.z.std[row, keep],
        prediction.root_to_camera[row, keep],
        prediction.root_log_var[row, keep],
        prediction.betas.mean[row],
        torch.sigmoid(prediction.contact_logits[row, keep]),
    )


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
