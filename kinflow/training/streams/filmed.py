"""Windows of real clips without any 3D: what perception saw, to be agreed with (Zanfir et al., ECCV 2020, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...body import Body
from ...cameras import intrinsics
from ...evidence import Evidence
from ...reconstruction.target import part_pixels
from .footage import Footage
from .perceived import mirror_and_roll, stacked
from .projected import PIXELS, Sample
from .recorded import WHOLE, sample_of, window_around


class FilmedMotions:
    """Draws batches of :class:`~kinflow.training.streams.projected.Sample` from real clips.

    Each clip is drawn as often as any other, of its people each by the frames in which they are seen. The camera is the one
    that a reconstruction takes for a clip of which nothing is known: its focal length is the image's diagonal.

    Args:
        footage: what was seen of the clips.
        body: gives landmarks.
        frames: of a window; what is shorter is padded.
        augment: mirror, roll the camera, leave frames out.
    """

    def __init__(self, footage: Sequence[Footage], body: Body, frames: int, augment: bool = True) -> None:
        self.footage, self.body, self.frames, self.augment = list(footage), body, frames, augment
        self._shares = []
        for clip in self.footage:
            seen = np.array([e.observed.sum() for e in clip.people], float)
            self._shares.append(seen / seen.sum())

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch of windows, a quarter of them at a lower frame rate than filmed."""
        data = stacked([self._row(rng) for _ in range(batch)])
        if self.augment:
            data = mirror_and_roll(data, torch.Generator().manual_seed(int(rng.integers(2**62))), errors=False)
        return sample_of(data, self.body)

    @torch.no_grad()
    def whole(self) -> Sample:
        """All people from their first frame to their last, cut into windows as they are; pixels of parts are the same each time."""
        rng, rows = np.random.default_rng(0), []
        for person in (e for clip in self.footage for e in clip.people):
            for first in range(0, len(person), self.frames):
                at = np.arange(first, min(first + self.frames, len(person)))
                if person.observed[at].any():
                    rows.append(self._window(person, at, rng))
        return sample_of(stacked(rows), self.body)

    def _row(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        number = int(rng.integers(len(self.footage)))
        people, share = self.footage[number].people, self._shares[number]
        person = people[int(rng.choice(len(people), p=share))]
        stride = int(rng.integers(2, 4)) if self.augment and rng.random() < 0.25 else 1
        shown = int(rng.choice(np.flatnonzero(person.observed)))
        at = window_around(shown, len(person), self.frames, stride, rng)
        return self._window(person, at, rng)

    def _window(self, person: Evidence, at: NDArray[np.intp], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Rows ``at`` of a person, the last one repeated up to the window's length."""
        frames = self.frames
        valid = np.arange(frames) < len(at)
        at = at[np.minimum(np.arange(frames), len(at) - 1)]
        observed = person.observed[at] & valid
        pixels, parts = np.zeros((frames, PIXELS, 2), np.float32), np.full((frames, PIXELS), -1, np.int64)
        crops = np.tile(np.array([0.0, 0.0, WHOLE, 0.0], np.float32), (frames, 1))
        labelled = person.parts is not None and person.part_rois is not None
        if person.parts is not None and person.part_rois is not None:
            crops = person.part_rois[at]
            pixels, parts = part_pixels(person.parts[at] * observed[:, None, None], crops, PIXELS, rng)
            parts = parts.astype(np.int64)  # they look things up
        none = np.zeros((frames, 3, 3), np.float32) + np.eye(3, dtype=np.float32)
        width, height = (int(v) for v in person.image_size)
        return {
            "timestamps": person.timestamps[at] - person.timestamps[at[0]],
            "valid": valid,
            "observed": observed,
            "keypoints2d": person.keypoints2d[at],
            "confidence": person.confidence[at] * valid[:, None],
            "world_landmarks": person.world_landmarks[at],
            "has_world": person.has_world[at] & valid,
            "root": none,
            "pose": np.repeat(none[:, None], 21, 1),
            "transl": np.zeros((frames, 3), np.float32),
            "pose_known": np.zeros(frames, bool),
            "joints": np.zeros((frames, 24, 3), np.float32),
            "joints_known": np.zeros((frames, 24), bool),
            "pixels": pixels,
            "masked": (parts >= 0).any(1),
            "parts": parts,
            "labelled": np.array(labelled),
            "crops": crops,
            "betas": np.zeros(10, np.float32),
            "K": intrinsics((width, height)).numpy(),
        }
