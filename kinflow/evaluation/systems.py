"""Systems under test: kinflow, and the truth itself as a check of the harness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..datasets.recording import Recording
from ..motion import Motion
from ..reconstruction import Reconstructor
from .bodies import Bodies
from .predictions import Parameters, Prediction, nobody, true_joints, true_parameters
from .protocols import Protocol as Rules
from .sightings import Eyes, Seen


class System(Protocol):
    """What is measured: looks at sequences one by one, and answers for several at once.

    Attributes:
        name: as it is printed.
        needs_images: whether it looks at the frames.
        settings: what its figures depend on, for the record.
    """

    name: str
    needs_images: bool
    settings: dict[str, Any]

    def observe(self, people: list[Recording]) -> Any:
        """What it sees of one sequence; raises a KinflowError of that sequence."""

    def predict(self, observed: Sequence[Any]) -> list[list[Prediction]]:
        """For each sequence a prediction a person, in their order, the same alone as in company."""

    def notes(self, observed: Any) -> tuple[str, ...]:
        """What should be told of one sequence."""


class TruthSystem:
    """The data set's own truth: scores 0 (and 100 %) on everything, or the harness is wrong.

    Args:
        rules: the protocol whose truth it is.
        bodies: SMPL's files, where the protocol or ``neutral`` needs them.
        neutral: put the true parameters on the neutral mesh whatever the protocol's truth is; what that scores is what the
            choice of protocol is worth.
    """

    needs_images = False

    def __init__(self, rules: Rules, bodies: Bodies, neutral: bool = False) -> None:
        self._rules, self._bodies, self._neutral = rules, bodies, neutral
        self.name = "truth-neutral" if neutral else "truth"
        self.settings: dict[str, Any] = {}

    def observe(self, people: list[Recording]) -> list[Recording]:
        return people

    def predict(self, observed: Sequence[list[Recording]]) -> list[list[Prediction]]:
        return [[self._of(person) for person in people] for people in observed]

    def _of(self, recording: Recording) -> Prediction:
        found = torch.ones(len(recording), dtype=torch.bool)
        if self._rules.mesh is None and not self._neutral:
            return Prediction(found, true_joints(recording))
        gendered = self._rules.mesh == "gendered" and not self._neutral
        gender = recording.smpl.gender if gendered and recording.smpl is not None else "neutral"
        return Prediction.of(true_parameters(recording, self._bodies.smpl(gender)), found)

    def notes(self, observed: Any) -> tuple[str, ...]:
        return ()


class KinflowSystem:
    """kinflow's reconstruction from some evidence.

    Args:
        reconstructor: with the body that predictions are to be on.
        eyes: where the evidence comes from.
        seed: of the draws behind the predicted deviations.
    """

    name = "kinflow"

    def __init__(self, reconstructor: Reconstructor, eyes: Eyes, seed: int = 0) -> None:
        self._reconstructor, self._eyes, self._seed = reconstructor, eyes, seed
        self.needs_images = eyes.needs_images
        body = reconstructor.body
        self.settings: dict[str, Any] = {
            "evidence": eyes.name, **eyes.settings, "body": body.name, "weights": dict(reconstructor.weights), "seed": seed,
            "camera": "the data set's K",
        }  # fmt: skip

    def observe(self, people: list[Recording]) -> Seen:
        return self._eyes.see(people)

    def predict(self, observed: Sequence[Seen]) -> list[list[Prediction]]:
        """Clips that share a camera matrix go through the networks together."""
        motions: list[list[Motion | None]] = [[None] * len(seen.evidences) for seen in observed]
        cameras: dict[bytes, list[int]] = {}
        for i, seen in enumerate(observed):
            cameras.setdefault(seen.K.tobytes(), []).append(i)
        for group in cameras.values():
            wanted = [(i, e) for i in group for e, owner in enumerate(observed[i].owners) if owner is not None]
            if not wanted:
                continue
            found = self._reconstructor.reconstruct(
                [observed[i].evidences[e] for i, e in wanted], observed[group[0]].K, seed=self._seed
            )
            for (i, e), motion in zip(wanted, found, strict=True):
                motions[i][e] = motion
        return [
            [self._join(seen, mine, number) for number in range(len(seen.people))]
            for seen, mine in zip(observed, motions, strict=True)
        ]

    def _join(self, seen: Seen, motions: list[Motion | None], number: int) -> Prediction:
        """One person's prediction of all motions that are theirs: where several cover a frame, the nearest one in the image
        that was observed there, else the nearest one that was filled in."""
        mine = [
            (distance, motion)
            for owner, distance, motion in zip(seen.owners, seen.distances, motions, strict=True)
            if owner == number and motion is not None
        ]
        mine.sort(key=lambda pair: -pair[0])  # the nearest last, over the others
        return assemble([motion for _, motion in mine], seen.people[number], self._reconstructor.body)

    def notes(self, observed: Seen) -> tuple[str, ...]:
        return observed.notes


def assemble(motions: Sequence[Motion], recording: Recording, body: Any) -> Prediction:
    """Motions of one person as a prediction over a recording's frames; of those that cover a frame the last one counts, observed
    frames before filled ones."""
    frames = len(recording)
    if not motions:
        return nobody(frames)
    found = np.zeros(frames, bool)
    pose = np.tile(np.eye(3), (frames, 24, 1, 1))
    arrays = {"betas": np.zeros((frames, 10)), "transl": np.zeros((frames, 3)), "joints3d": np.zeros((frames, 24, 3)),
              "joints3d_std": np.ones((frames, 24, 2))}  # fmt: skip
    for observed in (False, True):
        for motion in motions:
            rows = np.searchsorted(recording.frame_ids, motion.frame_ids)
            kept = np.isin(motion.frame_ids, recording.frame_ids) & (motion.observed | (not observed))
            at, rows = kept.nonzero()[0], rows[kept]
            found[rows] = True
            pose[rows] = motion.pose_rotmat(at).numpy()
            arrays["betas"][rows] = motion.betas
            arrays["joints3d_std"][rows] = motion.deviations()[at]
            for name in ("transl", "joints3d"):
                arrays[name][rows] = getattr(motion, name)[at]
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    parameters = Parameters(body, tensors["betas"], torch.from_numpy(pose), tensors["transl"])
    return Prediction(torch.from_numpy(found), tensors["joints3d"], parameters, tensors["joints3d_std"])
