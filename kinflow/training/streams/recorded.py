"""Windows of other people's data sets: their own 2D keypoints, with whatever truth they have."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...body import Body
from ...body.kinematics import full_pose
from ...cameras import intrinsics
from ...datasets.recording import DataSet, Recording
from ...errors import MissingAssetError, UsageError
from ...reconstruction.geometry import solve_translation
from ...reconstruction.observation import Observations
from ...rotations import rotvec_to_rotmat
from ...skeleton import SMPL_JOINTS, keypoint_map
from .perceived import mirror_and_roll, stacked
from .projected import PIXELS, Sample, Supervision, foot_contacts_of, true_view

Array = NDArray[np.float32]

LEAST_POINTS = 6
"""Landmarks from which on a frame shows enough of a person."""
_HIPS = [SMPL_JOINTS.index("left_hip"), SMPL_JOINTS.index("right_hip")]
_TRIES = 200
_KEPT = 64
WHOLE = 1e9
"""px, side of a crop that holds any image."""


@dataclasses.dataclass(frozen=True)
class _Track:
    """One recording as training reads it, in camera axes; see :class:`~kinflow.training.streams.projected.Supervision`."""

    recording: Recording
    keypoints2d: Array
    confidence: Array
    root: Array
    pose: Array
    pose_known: NDArray[np.bool_]
    joints: Array
    joints_known: NDArray[np.bool_]
    K: Array
    seen: NDArray[np.intp]


class RecordedMotions:
    """Draws batches of :class:`~kinflow.training.streams.projected.Sample` from a data set.

    What is observed are its 2D keypoints, those that BlazePose has too. Where it has SMPL parameters, the pose is known, and
    the body stands where it projects onto the keypoints. SMPL's shape coefficients are not those of the open body: betas are
    never known. Sequences are drawn alike, whatever their length; each is read when it is first drawn.

    Args:
        data: the data set.
        body: gives landmarks.
        frames: of a window; what is shorter, such as a single image, is padded.
        K: (3, 3) px, where the data set does not say; without it, an ordinary camera's.
        augment: mirror, roll the camera, leave frames out.

    Raises:
        MissingAssetError: a data set without sequences.
    """

    def __init__(self, data: DataSet, body: Body, frames: int, K: Tensor | None = None, augment: bool = True) -> None:
        if not data.sequences:
            raise MissingAssetError(f"{data.name}: expected sequences, got none. Is this the data set's folder?")
        self.data, self.body, self.frames, self.K, self.augment = data, body, frames, K, augment
        self._tracks = functools.lru_cache(_KEPT)(self._read)

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch of windows, a quarter of them at a lower frame rate than recorded.

        Raises:
            KinflowError: a sequence that cannot be read.
            UsageError: nobody is seen well enough in any of many sequences.
        """
        data = stacked([self._row(rng) for _ in range(batch)])
        if self.augment:
            g = torch.Generator().manual_seed(int(rng.integers(2**62)))
            data = mirror_and_roll(data, g, errors=False)
        return sample_of(data, self.body)

    def _read(self, sequence: str) -> tuple[_Track, ...]:
        tracks = (self._track(recording) for recording in self.data.read(sequence))
        return tuple(track for track in tracks if len(track.seen))

    def _track(self, recording: Recording) -> _Track:
        frames = len(recording)
        if recording.keypoints2d is None or recording.confidence is None:
            raise UsageError(f"{recording.name}: expected 2D keypoints to train on, got none.")
        pairs = np.array(keypoint_map(recording.layout, "blazepose33"))
        points, confidence = np.zeros((frames, 33, 2), np.float32), np.zeros((frames, 33), np.float32)
        points[:, pairs[:, 1]] = recording.keypoints2d[:, pairs[:, 0]]
        confidence[:, pairs[:, 1]] = recording.confidence[:, pairs[:, 0]]
        turn = np.eye(3) if recording.T_world2cam is None else recording.T_world2cam[:, :3, :3]
        root, pose = np.zeros((frames, 3, 3), np.float32), np.zeros((frames, 21, 3, 3), np.float32)
        root[:], pose[:] = np.eye(3), np.eye(3)
        joints, known = np.zeros((frames, 24, 3), np.float32), np.zeros((frames, 24), bool)
        if recording.smpl is not None:
            truth = recording.smpl
            root[:] = turn @ rotvec_to_rotmat(torch.from_numpy(np.array(truth.global_orient, np.float64))).numpy()
            pose[:] = rotvec_to_rotmat(torch.from_numpy(np.array(truth.body_pose[:, :21], np.float64))).numpy()
        elif recording.joints3d is not None:
            rows = np.array(keypoint_map(recording.joint_names, "smpl24"))
            joints[:] = np.nan
            joints[:, rows[:, 1]] = recording.joints3d[:, rows[:, 0]]
            joints = (joints - joints[:, _HIPS].mean(1, keepdims=True)) @ np.swapaxes(turn, -1, -2)
            known = np.isfinite(joints).all(-1) & recording.valid[:, None]
            joints = np.where(known[..., None], joints, 0).astype(np.float32)
        if recording.K is not None:
            K = recording.K
        elif self.K is not None:
            K = self.K.numpy()
        elif recording.image_size is not None:
            K = intrinsics(recording.image_size).numpy()
        else:
            raise UsageError(f"{recording.name}: neither camera nor image size is known. Give one of them.")
        return _Track(
            recording, points, confidence, root, pose, recording.valid & (recording.smpl is not None), joints, known,
            np.asarray(K, np.float32), np.flatnonzero((confidence > 0).sum(1) >= LEAST_POINTS),
        )  # fmt: skip

    def _row(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        for _ in range(_TRIES):
            tracks = self._tracks(self.data.sequences[int(rng.integers(len(self.data.sequences)))])
            if tracks:
                break
        else:
            raise UsageError(
                f"{self.data.name}: expected people with {LEAST_POINTS} keypoints or more, found none in {_TRIES} sequences."
            )
        track = tracks[int(rng.integers(len(tracks)))]
        stride = int(rng.integers(2, 4)) if self.augment and rng.random() < 0.25 else 1
        # A window in which somebody is seen: it begins anywhere up to a frame that shows them.
        shown = int(track.seen[rng.integers(len(track.seen))])
        at = window_around(shown, len(track.recording), self.frames, stride, rng)
        valid = np.arange(self.frames) < len(at)
        at = at[np.minimum(np.arange(self.frames), len(at) - 1)]
        pixels, masked = self._mask(track, at, valid, rng)
        confidence = track.confidence[at] * valid[:, None]
        return {
            "timestamps": track.recording.timestamps[at] - track.recording.timestamps[at[0]],
            "valid": valid,
            "observed": valid & ((confidence > 0).sum(1) >= LEAST_POINTS),
            "keypoints2d": track.keypoints2d[at],
            "confidence": confidence,
            "world_landmarks": np.zeros((self.frames, 33, 3), np.float32),
            "has_world": np.zeros(self.frames, bool),
            "root": track.root[at],
            "pose": track.pose[at],
            "transl": np.zeros((self.frames, 3), np.float32),
            "pose_known": track.pose_known[at] & valid,
            "joints": track.joints[at],
            "joints_known": track.joints_known[at] & valid[:, None],
            "pixels": pixels,
            "masked": masked,
            "parts": np.zeros((self.frames, PIXELS), np.int64),
            "labelled": np.array(False),
            "crops": np.tile(np.array([0.0, 0.0, WHOLE, 0.0], np.float32), (self.frames, 1)),
            "betas": np.zeros(10, np.float32),
            "K": track.K,
        }

    @staticmethod
    def _mask(
        track: _Track, at: NDArray[np.intp], valid: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Pixels (T, P, 2) of the person's mask, and which frames have one."""
        pixels, masked = np.zeros((len(at), PIXELS, 2), np.float32), np.zeros(len(at), bool)
        if track.recording.mask is not None:
            for t in np.flatnonzero(valid):
                rows, columns = np.nonzero(track.recording.mask(int(at[t])))
                if len(rows):
                    pick = rng.integers(len(rows), size=PIXELS)
                    pixels[t], masked[t] = np.stack((columns[pick], rows[pick]), -1) + 0.5, True
        return pixels, masked


def window_around(shown: int, length: int, frames: int, stride: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Every ``stride``-th frame of a recording of ``length``, at most ``frames`` of them, with ``shown`` at a random place."""
    begin = shown - stride * int(rng.integers(min(frames, shown // stride + 1)))
    over = begin + stride * (frames - 1) - (length - 1)  # frames that it would reach beyond the end
    begin = max(shown % stride, begin - stride * max(0, -(-over // stride)))
    return np.arange(begin, length, stride)[:frames]


def sample_of(data: dict[str, Tensor], body: Body) -> Sample:
    """Windows with what is known of them; the body is placed where it projects onto the keypoints.

    Args:
        data: the window's arrays, (B, ...), by the names that :class:`RecordedMotions` gives them.
    """
    root, pose, confidence = data["root"], data["pose"], data["confidence"]
    K = data["K"]
    frames = root.shape[1]
    landmarks = body.landmarks(data["betas"][:, None].expand(-1, frames, -1), full_pose(pose, root), None)
    transl = solve_translation(landmarks, data["keypoints2d"], confidence, K[:, None]).mean
    transl = torch.cat((transl[..., :2], transl[..., 2:].clamp_min(0.5)), -1)
    landmarks = landmarks + transl[..., None, :]
    ray_to_camera, _ = true_view(landmarks, K)
    hips = landmarks[..., [23, 24], :].mean(-2, keepdim=True)
    observed, times = data["observed"], data["timestamps"]
    seen = observed[..., None]
    obs = Observations(
        torch.where(seen[..., None], data["keypoints2d"], torch.zeros(())), confidence * seen,
        data["world_landmarks"], data["has_world"] & observed, observed, data["valid"], times, K,
    )  # fmt: skip
    contacts, steady = foot_contacts_of(landmarks, times)
    known = Supervision(
        data["pose_known"], torch.zeros(len(K), dtype=torch.bool), data["joints"], data["joints_known"],
        data["pixels"], data["masked"], data["parts"], data["labelled"], data["crops"],
        torch.zeros(*observed.shape, 33, 2),
    )  # fmt: skip
    return Sample(
        obs, ray_to_camera.transpose(-1, -2) @ root, root, pose, data["betas"], transl, K, contacts,
        torch.zeros_like(steady),  # the cameras move, and where the body stands is solved frame by frame
        (landmarks - hips) @ ray_to_camera, known,
    )  # fmt: skip
