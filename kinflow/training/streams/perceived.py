"""Clips that were rendered and perceived: their files, and the training windows drawn from them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...body import Body
from ...body.kinematics import full_pose
from ...errors import ConfigError, FormatError, MissingAssetError
from ...evidence import Evidence
from ...mocap.clips import load_clips
from ...perception.blazepose import CODE_SIZE, PYRAMID_SIZE
from ...reconstruction.observation import Observations
from ...records import atomic_write, open_npz
from ...rotations import mirror_rotmat, rotvec_to_rotmat
from ...skeleton import MIRROR_BLAZEPOSE, MIRROR_BODYPIX, MIRROR_SMPL
from ..poses import mirror_body
from .projected import ProjectedMotions, Sample, Supervision, foot_contacts_of, join, true_view

SCHEMA = "kinflow.perceived/1"
EVIDENCE = (
    "timestamps", "observed", "keypoints2d", "confidence", "world_landmarks", "has_world", "boxes_xyxy", "rois",
)  # fmt: skip
"""Fields of a clip that are the front end's, a row for every frame."""
SEEN = ("features", "code")
"""What the landmark network saw, where it was kept."""
_TRUTH = ("global_orient", "body_pose", "transl")
_SHAPES = {
    "timestamps": "", "observed": "", "keypoints2d": "33 2", "confidence": "33", "world_landmarks": "33 3",
    "has_world": "", "boxes_xyxy": "4", "rois": "4", "global_orient": "3", "body_pose": "23 3", "transl": "3",
}  # fmt: skip
_SEEN_SHAPES = {"features": f"33 {PYRAMID_SIZE}", "code": f"{CODE_SIZE}"}


@dataclasses.dataclass(frozen=True)
class PerceivedClip:
    """One rendered clip: the front end's evidence and the exact parameters, a row for every frame rendered.

    Attributes:
        timestamps: (T,) s. observed: (T,) bool. keypoints2d: (T, 33, 2) px. confidence: (T, 33).
        world_landmarks: (T, 33, 3) m. has_world: (T,) bool. boxes_xyxy, rois: (T, 4) px.
        global_orient: (T, 3) rad, body to camera. body_pose: (T, 23, 3) rad. transl: (T, 3) m, camera axes.
        betas: (10,). K: (3, 3) px. image_size: (2,) px.
        source: name of the captured clip.
        features: (T, 33, 48), code: (T, 1152) float16 as of :class:`kinflow.evidence.Evidence`, or None.
    """

    timestamps: np.ndarray
    observed: np.ndarray
    keypoints2d: np.ndarray
    confidence: np.ndarray
    world_landmarks: np.ndarray
    has_world: np.ndarray
    boxes_xyxy: np.ndarray
    rois: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    transl: np.ndarray
    betas: np.ndarray
    K: np.ndarray
    image_size: np.ndarray
    source: str
    features: np.ndarray | None = None
    code: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def pose_rotmat(self) -> Tensor:
        """Rotations (T, 24, 3, 3) of all joints, the pelvis' to the camera first."""
        return rotvec_to_rotmat(torch.from_numpy(np.concatenate((self.global_orient[:, None], self.body_pose), 1)))

    def evidence(self) -> Evidence:
        """What the front end saw, from the first sighting to the last."""
        seen = np.flatnonzero(self.observed)
        rows = slice(int(seen[0]), int(seen[-1]) + 1)
        kept = {n: value[rows] for n in (*EVIDENCE, *SEEN) if (value := getattr(self, n)) is not None}
        return Evidence(person_id=0, frame_ids=np.arange(rows.start, rows.stop), image_size=self.image_size, **kept)


def save_perceived(path: str | Path, clips: Sequence[PerceivedClip]) -> None:
    """Write clips to one npz (schema ``kinflow.perceived/1``): rows joined, clip i being ``offsets[i]:offsets[i+1]``."""
    arrays: dict[str, Any] = {n: np.concatenate([getattr(c, n) for c in clips]) for n in (*EVIDENCE, *_TRUTH)}
    arrays |= {name: np.stack([getattr(c, name) for c in clips]) for name in ("betas", "K", "image_size")}
    arrays |= {n: np.concatenate([getattr(c, n) for c in clips]) for n in SEEN if getattr(clips[0], n) is not None}
    with atomic_write(path) as stream:
        np.savez(
            stream,
            schema=SCHEMA,
            offsets=np.cumsum([0] + [len(c) for c in clips]),
            sources=np.array([c.source for c in clips]),
            **arrays,
        )


def load_perceived(path: str | Path) -> list[PerceivedClip]:
    """Read what :func:`save_perceived` wrote: one file, or a folder of them in order of their names.

    Raises:
        MissingAssetError: nothing there. FormatError: another schema, or a file that is damaged.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise MissingAssetError(f"{path}: no perceived clips. Make them with tools/render_and_perceive.py.")
    out = []
    for file in files:
        with open_npz(file) as npz:
            npz.schema(SCHEMA)
            offsets, sources = npz.numbers("offsets", "N"), npz.texts("sources")
            total, count = len(npz.numbers("timestamps", "T")), len(sources)
            shapes = _SHAPES | {name: shape for name, shape in _SEEN_SHAPES.items() if name in npz}
            data = {name: npz.numbers(name, f"{total} {shape}") for name, shape in shapes.items()}
            fixed = {"betas": f"{count} 10", "K": f"{count} 3 3", "image_size": f"{count} 2"}
            each = {name: npz.numbers(name, shape) for name, shape in fixed.items()}
        if (
            len(offsets) != count + 1
            or offsets.dtype.kind not in "iu"
            or [int(offsets[0]), int(offsets[-1])] != [0, total]
            or (np.diff(offsets) < 0).any()
            or not all(np.isfinite(v).all() for v in (*data.values(), *each.values()))
        ):
            raise FormatError(f"{file.name}: its clips and rows contradict each other. Make the file again.")
        for i, (a, b) in enumerate(itertools.pairwise(offsets)):
            rows = {name: value[a:b] for name, value in data.items()}
            one = {name: value[i] for name, value in each.items()}
            out.append(PerceivedClip(**rows, **one, source=sources[i]))
    return out


def asked_perceived(path: str | None) -> list[PerceivedClip]:
    """The clips that a training cannot do without.

    Raises:
        ConfigError: the setting names none. MissingAssetError, FormatError: as :func:`load_perceived`.
    """
    if path is None:
        raise ConfigError(
            "perceived: expected rendered and perceived clips, got none. Make them with tools/render_and_perceive.py."
        )
    return load_perceived(path)


def held_out_names(clips: Sequence[PerceivedClip], data: Path) -> set[str]:
    """Sources among ``clips`` that belong to the validation or test split of the prepared capture."""
    held = {c.name for split in ("validation", "test") for c in load_clips(data, split)}
    return {c.source for c in clips} & held


class PerceivedMotions:
    """Draws batches of :class:`~kinflow.training.streams.projected.Sample` from rendered and perceived clips."""

    def __init__(self, clips: Sequence[PerceivedClip], body: Body, frames: int, augment: bool = True) -> None:
        self.augment = augment
        self.clips = [c for c in clips if c.observed.sum() >= 4]
        self.body, self.frames = body, frames
        if not self.clips:
            raise MissingAssetError("perceived: expected clips with a person seen in them, got none.")

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, batch: int) -> Sample:
        """A batch of windows, a quarter of them at a lower frame rate than rendered."""
        rows = [self._row(rng) for _ in range(batch)]
        return self._sample(stacked(rows), rng)

    @torch.no_grad()
    def whole(self, clips: Sequence[PerceivedClip]) -> Sample:
        """Clips from their first frame on, as many frames as the windows have, as they are."""
        rows = [self._window(clip, np.arange(len(clip))[: self.frames]) for clip in clips]
        return self._sample(stacked(rows), np.random.default_rng(0))

    def _row(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        clip = self.clips[int(rng.integers(len(self.clips)))]
        stride = int(rng.integers(2, 4)) if rng.random() < 0.25 else 1
        keep = np.arange(int(rng.integers(stride)), len(clip), stride)
        begin = int(rng.integers(max(1, len(keep) - self.frames + 1)))
        return self._window(clip, keep[begin : begin + self.frames])

    def _window(self, clip: PerceivedClip, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Rows ``keep`` of a clip, the last one repeated up to the window's length."""
        valid = np.arange(self.frames) < len(keep)
        at = keep[np.minimum(np.arange(self.frames), len(keep) - 1)]
        row: dict[str, np.ndarray] = {f: getattr(clip, f)[at] for f in (
            "timestamps", "observed", "keypoints2d", "confidence", "world_landmarks", "has_world",
            "global_orient", "body_pose", "transl")}  # fmt: skip
        return {**row, "valid": valid, "betas": clip.betas, "K": clip.K}

    def _sample(self, data: dict[str, Tensor], rng: np.random.Generator) -> Sample:
        g = torch.Generator().manual_seed(int(rng.integers(2**62)))
        batch = len(data["betas"])
        data["root"], data["pose"] = (
            rotvec_to_rotmat(data["global_orient"]), rotvec_to_rotmat(data["body_pose"][:, :, :21])
        )  # fmt: skip
        if self.augment:
            data = mirror_and_roll(data, g)
        root, pose = data["root"], data["pose"]
        betas = data["betas"][:, None].expand(-1, root.shape[1], -1)
        landmarks = self.body.landmarks(betas, full_pose(pose, root), data["transl"])
        ray_to_camera, _ = true_view(landmarks, data["K"])
        hips = landmarks[..., [23, 24], :].mean(-2, keepdim=True)
        observed = data["observed"] & data["valid"]
        # At times the third dimension is withheld, as with keypoints from another tool.
        has_world = data["has_world"] & observed & (torch.rand(batch, 1, generator=g) >= (0.1 if self.augment else 0.0))
        times = data["timestamps"] - data["timestamps"][:, :1]
        obs = Observations(
            data["keypoints2d"], data["confidence"] * observed[..., None],
            torch.where(has_world[..., None, None], data["world_landmarks"], torch.zeros(())),
            has_world, observed, data["valid"], times, data["K"],
        )  # fmt: skip
        contacts, known = foot_contacts_of(landmarks, times)
        return Sample(
            obs, ray_to_camera.transpose(-1, -2) @ root, root, pose, data["betas"], data["transl"], data["K"],
            contacts, known, (landmarks - hips) @ ray_to_camera, Supervision.full(data["valid"]),
        )  # fmt: skip


def draw_both(
    rng: np.random.Generator, batch: int, share: float, perceived: PerceivedMotions, projected: ProjectedMotions
) -> Sample:
    """A batch of windows of one length, this share of them perceived and the others projected."""
    count = round(batch * share)
    parts = [projected.draw(rng, batch - count)] if count < batch else []
    parts += [perceived.draw(rng, count)] if count else []
    return join(parts)


def mirror_and_roll(data: dict[str, Tensor], g: torch.Generator, errors: bool = True) -> dict[str, Tensor]:
    """Half of the windows mirrored, the camera rolled a little, and (``errors``) little errors of its own for each draw.

    Joints (B, T, 24, 3) in camera axes and a mask's pixels (B, T, P, 2) with their parts and crops, where there are some, go
    along.
    """
    batch = len(data["betas"])
    flip = (torch.rand(batch, 1, 1, 1, generator=g) < 0.5).expand_as(data["keypoints2d"][..., :1])
    side, mirror = torch.tensor([-1.0, 1.0, 1.0]), list(MIRROR_BLAZEPOSE)
    centre = data["K"][:, None, None, :2, 2]
    about = data["keypoints2d"] - centre
    pixels = torch.where(flip, (about * side[:2])[:, :, mirror], about)
    world = torch.where(flip, (data["world_landmarks"] * side)[:, :, mirror], data["world_landmarks"])
    confidence = torch.where(flip[..., 0], data["confidence"][:, :, mirror], data["confidence"])
    row = flip[:, :1, 0, 0]
    root = torch.where(row[..., None, None], mirror_rotmat(data["root"]), data["root"])
    pose = torch.where(row[..., None, None, None], mirror_body(data["pose"]), data["pose"])
    transl = torch.where(row[..., None], data["transl"] * side, data["transl"])
    zero = torch.zeros(batch, 2)
    rolled = 0.4 * torch.randn(batch, 1, generator=g)
    turn = rotvec_to_rotmat(torch.cat((zero, rolled), -1))
    if errors:
        size = pixels.std((1, 2), correction=0).mean(-1)[:, None, None, None]
        pixels = pixels + 0.01 * size * torch.randn(pixels.shape, generator=g)
        world = world * (1 + 0.03 * torch.randn(batch, 1, 1, 1, generator=g))
        world = world + 0.004 * torch.randn(world.shape, generator=g)
    along: dict[str, Tensor] = {}
    if "joints" in data:
        left = list(MIRROR_SMPL)
        joints = torch.where(flip[:, :, :1], (data["joints"] * side)[:, :, left], data["joints"])
        known = torch.where(flip[:, :, :1, 0], data["joints_known"][:, :, left], data["joints_known"])
        along |= {"joints": torch.einsum("bij,btpj->btpi", turn, joints), "joints_known": known}
    if "pixels" in data:
        about = data["pixels"] - centre
        inside = torch.where(flip[:, :, :1], about * side[:2], about)
        along["pixels"] = torch.einsum("bij,btpj->btpi", turn[:, :2, :2], inside) + centre
        parts = torch.where(row[..., None] & data["labelled"][:, None, None], _other_side(data["parts"]), data["parts"])
        place, angle = data["crops"][..., None, :2] - centre, data["crops"][..., 3:]
        place = torch.einsum(
            "bij,btpj->btpi", turn[:, :2, :2], torch.where(row[..., None, None], place * side[:2], place)
        )
        turned = torch.where(row[..., None], -angle, angle) + rolled[:, None]
        along |= {"parts": parts, "crops": torch.cat(((place + centre)[:, :, 0], data["crops"][..., 2:3], turned), -1)}
    return {
        **data,
        **along,
        "keypoints2d": torch.einsum("bij,btpj->btpi", turn[:, :2, :2], pixels) + centre,
        "world_landmarks": torch.einsum("bij,btpj->btpi", turn, world),
        "confidence": confidence,
        "root": turn[:, None] @ root,
        "pose": pose,
        "transl": torch.einsum("bij,btj->bti", turn, transl),
    }


def _other_side(parts: Tensor) -> Tensor:
    """Left parts for right ones, any shape; -1 stays."""
    mirror = torch.tensor(MIRROR_BODYPIX)
    return torch.where(parts < 0, parts, mirror[parts.clamp_min(0)])


def stacked(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Windows' arrays as one batch, numbers in float32."""
    data = {name: torch.from_numpy(np.stack([r[name] for r in rows])) for name in rows[0]}
    return {k: v.float() if v.is_floating_point() else v for k, v in data.items()}
