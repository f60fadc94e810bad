"""What a system has to be better than: one pose for everybody, the landmark network's own 3D, and each frame on its own."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..body import Body
from ..body.kinematics import full_pose
from ..datasets.recording import Recording
from ..errors import UsageError
from ..evidence import Evidence
from ..flow import PoseFlow
from ..motion import Motion
from ..reconstruction import Reconstructor
from ..reconstruction.geometry import solve_translation
from ..skeleton import BLAZEPOSE, SMPL_JOINTS
from .predictions import Parameters, Prediction, nobody
from .protocols import LIMBS
from .sightings import Eyes, Seen
from .systems import assemble

_TOGETHER = 256
"""Single frames that go through the networks in one call."""


def _of_person(seen: Seen, number: int) -> list[Evidence]:
    """A person's evidence, the nearest last."""
    mine = [(d, e) for owner, d, e in zip(seen.owners, seen.distances, seen.evidences, strict=True) if owner == number]
    return [evidence for _, evidence in sorted(mine, key=lambda pair: -pair[0])]


def _rows(evidence: Evidence, recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """The evidence's rows in which the person was observed, and which of the recording's frames they are."""
    at = np.flatnonzero(evidence.observed & np.isin(evidence.frame_ids, recording.frame_ids))
    return at, np.searchsorted(recording.frame_ids, evidence.frame_ids[at])


class _EvidenceSystem(abc.ABC):
    """A baseline that sees what kinflow sees."""

    name: str

    def __init__(self, eyes: Eyes, **settings: Any) -> None:
        self._eyes, self.needs_images = eyes, eyes.needs_images
        self.settings: dict[str, Any] = {"evidence": eyes.name, **eyes.settings, **settings}

    def observe(self, people: list[Recording]) -> Seen:
        return self._eyes.see(people)

    def predict(self, observed: Sequence[Seen]) -> list[list[Prediction]]:
        return [[self._of(seen, number) for number in range(len(seen.people))] for seen in observed]

    def notes(self, observed: Seen) -> tuple[str, ...]:
        return observed.notes

    @abc.abstractmethod
    def _of(self, seen: Seen, number: int) -> Prediction:
        """The prediction of one of the people."""


class MeanPose(_EvidenceSystem):
    """The flow's mean pose on the mean body, upright and facing the camera, put onto the keypoints of each frame.

    Args:
        eyes: where the evidence comes from. body: to be posed. flow: whose mean it is.
    """

    name = "mean-pose"

    def __init__(self, eyes: Eyes, body: Body, flow: PoseFlow) -> None:
        super().__init__(eyes, body=body.name)
        self._body = body
        facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        with torch.no_grad():
            pose = flow.decode(torch.zeros(1, 63, device=next(flow.parameters()).device))[0].cpu()
        self._pose = full_pose(pose, facing[None])[0]

    @torch.no_grad()
    def _of(self, seen: Seen, number: int) -> Prediction:
        recording = seen.people[number]
        frames = len(recording)
        found, transl = torch.zeros(frames, dtype=torch.bool), torch.zeros(frames, 3, dtype=torch.float64)
        betas = torch.zeros(10, device=self._body.device, dtype=self._body.dtype)
        marks = self._body.landmarks(betas, self._pose.to(betas)).double().cpu()
        K = torch.from_numpy(seen.K)
        for evidence in _of_person(seen, number):
            at, rows = _rows(evidence, recording)
            points, confidence = (
                torch.from_numpy(getattr(evidence, k)[at]).double() for k in ("keypoints2d", "confidence")
            )
            transl[rows] = solve_translation(marks.expand(len(at), -1, -1), points, confidence, K).mean
            found[rows] = True
        return Prediction.of(
            Parameters(self._body, torch.zeros(10), self._pose.expand(frames, -1, -1, -1), transl), found
        )


class WorldLandmarks(_EvidenceSystem):
    """BlazePose's world landmarks as the network gives them: the twelve limb points, about the hips' middle.

    They are marked points of the body's surface where the truth has joint centres, which alone is worth some centimetres.
    """

    name = "world-landmarks"

    def _of(self, seen: Seen, number: int) -> Prediction:
        recording = seen.people[number]
        prediction = nobody(len(recording))
        joints = torch.full_like(prediction.joints3d, torch.nan)
        for evidence in _of_person(seen, number):
            if not evidence.has_world.any():
                raise UsageError(
                    f"{recording.name}: expected world landmarks, got 2D keypoints alone. Use --evidence video."
                )
            at, rows = _rows(evidence, recording)
            world = torch.from_numpy(evidence.world_landmarks[at])
            for name in LIMBS:
                joints[rows, SMPL_JOINTS.index(name)] = world[:, BLAZEPOSE.index(name)]
            prediction.found[rows] = True
        known = torch.isfinite(joints[prediction.found]).all(-1).all(0) if prediction.found.any() else None
        if known is not None:
            joints[:, known] = joints[:, known].nan_to_num()
        return dataclasses.replace(prediction, joints3d=joints, placed=False)


class PerFrame(_EvidenceSystem):
    """kinflow's frame encoder on every frame alone: no recurrence, no dynamics, no smoothing, no fit.

    Args:
        eyes: where the evidence comes from. reconstructor: whose encoder it is.
    """

    name = "per-frame"

    def __init__(self, eyes: Eyes, reconstructor: Reconstructor) -> None:
        super().__init__(eyes, body=reconstructor.body.name, weights=dict(reconstructor.weights))
        self._reconstructor = reconstructor

    def _of(self, seen: Seen, number: int) -> Prediction:
        recording = seen.people[number]
        motions: list[Motion] = []
        for evidence in _of_person(seen, number):
            at, _ = _rows(evidence, recording)
            singles = [one_frame(evidence, row) for row in at.tolist()]
            for begin in range(0, len(singles), _TOGETHER):
                motions += self._reconstructor.reconstruct(singles[begin : begin + _TOGETHER], seen.K, streaming=True)
        return assemble(motions, recording, self._reconstructor.body)


def one_frame(evidence: Evidence, row: int) -> Evidence:
    """The evidence of one frame alone."""
    cut = {
        f.name: value[row : row + 1]
        for f in dataclasses.fields(evidence)
        if f.metadata["shape"][:1] == "T" and (value := getattr(evidence, f.name)) is not None
    }
    return dataclasses.replace(evidence, **cut)
