"""Smoothing of whole pose files with the motion prior: what ``kinflow-smooth`` does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..body import Body
from ..body.kinematics import full_pose
from ..errors import UsageError
from ..flow import load_flow
from ..formats.pose_files import Array, PoseFile
from ..metrics import acceleration_magnitude, triplets_valid
from ..prior import MotionPrior
from ..rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat, slerp
from ..skeleton import NUM_BODY, NUM_JOINTS, SMPL_PARENTS
from ..timing import Windows, neighbours
from ..tracks import ROOT, TRANSL, OrnsteinUhlenbeck
from ..tracks import smooth as smooth_track
from .lock_feet import AXES, lock_feet

FILL = ("missing", "only", "keep")


@dataclasses.dataclass(frozen=True)
class SmoothingConfig:
    """How much is smoothed, and in what pieces.

    Attributes:
        noise_deg: standard deviation of the rotations' noise about each axis, degrees, root and body alike.
        transl_noise_m: of the translation's noise per axis, m; None: estimated from each file's own jitter.
        fill: "missing": fill missing frames and smooth the others; "only": fill them and leave the others as they are;
            "keep": smooth, and leave missing frames as they are in the file.
        root: whether root orientation and translation are smoothed as well.
        chunk: frames that go through the prior at once; memory grows with it, not with the file.
        overlap: frames that neighbouring pieces share; one fades into the other there.
        lock_feet: bend the legs so that feet that stand stay where they stand; up: which axis of the file's world is up, one of
            :data:`kinflow.apps.lock_feet.AXES`; None: z, for AMASS alone.
    """

    noise_deg: float = 3.0
    transl_noise_m: float | None = None
    fill: str = "missing"
    root: bool = True
    chunk: int = 600
    overlap: int = 60
    lock_feet: bool = False
    up: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_deg) and 0 < self.noise_deg <= 60):
            raise UsageError(f"noise: expected degrees above 0 and up to 60, got {self.noise_deg}.")
        if self.transl_noise_m is not None and not (math.isfinite(self.transl_noise_m) and self.transl_noise_m > 0):
            raise UsageError(f"transl_noise: expected metres above 0, got {self.transl_noise_m}.")
        if self.fill not in FILL:
            raise UsageError(f"fill: expected one of {', '.join(FILL)}, got {self.fill!r}.")
        if not 0 < 2 * self.overlap <= self.chunk:
            raise UsageError(
                f"chunk, overlap: expected an overlap above 0 and at most half of the chunk, got {self.chunk} and "
                f"{self.overlap}."
            )
        if self.up is not None and self.up not in AXES:
            raise UsageError(f"up: expected one of {', '.join(AXES)}, got {self.up!r}.")
        if self.up is not None and not self.lock_feet:
            raise UsageError("up: it says where feet stand; give --lock-feet as well, or leave it out.")
        if self.lock_feet and self.fill == "only":
            raise UsageError(
                "lock_feet: legs change in all frames, but fill 'only' leaves those that are there as they are."
            )


@dataclasses.dataclass(frozen=True)
class Smoothed:
    """New poses for a :class:`~kinflow.formats.pose_files.PoseFile`, shaped as its own, and how they differ.

    Attributes:
        body_rotmat, roots, translations: as in the file's record.
        replaced: further arrays that follow from the pose (kinflow's joints3d, z and pose in the world).
        keep: (P, T) frames that stay as they are in the file.
        filled: number of missing frames that were filled.
        change_deg: mean angle between old and new joint rotations over the frames that were there.
        root_change_deg, transl_change_m: the same of the root; None where the file has none.
        sliding: how far parts of feet that stand move from frame to frame, mm, before and after their feet were locked, the mean
            over people; None where they were not.
        acceleration: mean joint acceleration before and after, m/s^2, of the open body's mean shape; over frames whose
            neighbours were there too. NaN where there is no such frame.
    """

    body_rotmat: Array
    roots: dict[str, Array]
    translations: dict[str, Array]
    replaced: dict[str, Array]
    keep: NDArray[np.bool_]
    filled: int
    change_deg: float
    root_change_deg: float | None
    transl_change_m: float | None
    acceleration: tuple[float, float]
    sliding: tuple[float, float] | None = None


def smooth_pose_file(
    file: PoseFile,
    prior: MotionPrior,
    config: SmoothingConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Smoothed:
    """Smooth and fill everybody in a pose file.

    Body pose goes through :meth:`MotionPrior.denoise` (or ``infill``), in overlapping pieces; root orientation and
    translation through a Kalman smoother at the true time stamps.

    Args:
        file: what was read.
        prior: on the device that is to do the work.
        config: see :class:`SmoothingConfig`.
        progress: called with (frames done, frames in all).
    """
    config = config or SmoothingConfig()
    total = file.missing.size
    done = 0

    def report(frames: int) -> None:
        nonlocal done
        done += frames
        if progress is not None:
            progress(min(done, total), total)

    only = config.fill == "only"
    # "only" leaves seen frames alone; "keep" leaves the missing ones.
    keep = ~file.missing if only else file.missing & (config.fill == "keep")
    body = file.body_rotmat.copy()
    for p in range(file.people):
        if only and not file.missing[p].any():
            report(file.missing.shape[1])
            continue
        body[p] = smooth_body(body[p], file.timestamps, ~file.missing[p], prior, config, report)
    roots = {k: v.copy() for k, v in file.roots.items()}
    translations = {k: v.copy() for k, v in file.translations.items()}
    if config.root:
        trust = 0.01 if only else 1.0  # seen frames that stay as they are also hold the curve between them
        for p in range(file.people):
            seen = ~file.missing[p]
            for value in roots.values():
                variance = np.full(3, trust * math.radians(config.noise_deg) ** 2)
                value[p] = _smooth_root(value[p], variance, file.timestamps, seen, ROOT)
            for value in translations.values():
                noise = config.transl_noise_m
                std = jitter(value[p], seen) if noise is None else np.full(3, noise)
                value[p] = _smooth_root(value[p], trust * std**2, file.timestamps, seen, TRANSL)
    else:
        # Missing frames have nothing to be left at.
        for p in range(file.people):
            _bridge(roots, translations, file, p)
    sliding = _locked(file, prior, config, body, roots, translations) if config.lock_feet else None
    old = ~file.missing & keep
    body[old] = file.body_rotmat[old]
    for key in roots:
        roots[key][old] = file.roots[key][old]
    for key in translations:
        translations[key][old] = file.translations[key][old]
    replaced = (
        _derived(file, prior, body, roots, translations, keep, config.lock_feet) if file.kind == "kinflow" else {}
    )
    there = ~file.missing
    return Smoothed(
        body,
        roots,
        translations,
        replaced,
        keep,
        0 if config.fill == "keep" else int(file.missing.sum()),
        _mean_angle(file.body_rotmat[there], body[there]),
        _mean_angle(*(np.concatenate([r[there] for r in side.values()]) for side in (file.roots, roots)))
        if roots
        else None,
        float(
            np.mean(
                [np.linalg.norm(translations[k] - file.translations[k], axis=-1)[there].mean() for k in translations]
            )
        )
        if translations
        else None,
        (
            _acceleration(file, file.body_rotmat, file.roots, file.translations),
            _acceleration(file, body, roots, translations),
        ),
        sliding,
    )


def smooth_body(
    rotmat: Array,
    timestamps: Array,
    valid: NDArray[np.bool_],
    prior: MotionPrior,
    config: SmoothingConfig,
    report: Callable[[int], None] | None = None,
) -> Array:
    """One person's body pose (T, 21, 3, 3), smoothed in overlapping pieces that fade into each other.

    Pieces are joined on the geodesic between them, so that no seam shows. A piece without a valid frame reaches as far as
    the nearest ones.
    """
    device, dtype = prior.flow.whitening.mean.device, prior.flow.whitening.mean.dtype
    windows = Windows.fitted(len(rotmat), config.chunk, config.overlap)

    def piece(start: int) -> Tensor:
        stop = start + windows.length
        first, last = _reach(valid, start, stop)
        pose = rotmat_to_rotvec(torch.from_numpy(rotmat[first:last])).to(device, dtype)[None]
        times = torch.from_numpy(timestamps[first:last] - timestamps[first]).to(device)
        mask = torch.from_numpy(valid[first:last]).to(device)[None]
        if config.fill == "only":
            result = pose if bool(mask.all()) else prior.infill(pose, times, valid=mask)
        else:
            result = prior.denoise(pose, times, noise=math.radians(config.noise_deg), valid=mask)
        if report is not None:
            report(stop - start - (config.overlap if start else 0))
        return rotvec_to_rotmat(result[:, start - first : stop - first, :NUM_BODY].detach().double().cpu())

    def fade(_: int, earlier: Tensor, later: Tensor) -> Tensor:
        shared = later.shape[1]
        return slerp(earlier, later, (torch.arange(shared, dtype=torch.float64)[:, None] + 0.5) / shared)

    return windows.join(map(piece, windows.starts), fade)[0].numpy()


def jitter(values: Array, seen: NDArray[np.bool_], least: float = 0.002, most: float = 0.2) -> Array:
    """Standard deviation (3,) of the noise in positions (T, 3) m, told from their third differences.

    Motion is smooth over four frames, noise is not: a third difference of white noise has 20 times its variance. The
    median keeps jumps out.
    """
    third = np.diff(values, 3, axis=0)
    whole = seen[3:] & seen[2:-1] & seen[1:-2] & seen[:-3]
    if not whole.any():
        return np.full(3, 0.01)
    return np.clip(1.4826 * np.median(np.abs(third[whole]), 0) / math.sqrt(20), least, most)


# -- parts ---------------------------------------------------------------------------------------------------------------


def _locked(
    file: PoseFile,
    prior: MotionPrior,
    config: SmoothingConfig,
    body: Array,
    roots: dict[str, Array],
    translations: dict[str, Array],
) -> tuple[float, float]:
    """Bend everybody's legs to their contacts, in place; how far standing feet slid before and slide after, mm."""
    up = config.up or ("z" if file.kind == "amass" else None)
    if up is None:
        raise UsageError(
            f"up: {file.path.name} does not say which way is up. Give --up: y for most worlds, -y for a level camera."
        )
    if not (roots and translations):
        raise UsageError(
            f"lock_feet: {file.path.name} has no root orientation or no translation, so its feet have no place."
        )
    root, transl = (
        next((v for k, v in d.items() if "world" in k), next(iter(d.values()))) for d in (roots, translations)
    )
    slides = []
    for p in range(file.people):
        there = ~file.missing[p] | (config.fill == "missing")
        body[p], slid = lock_feet(body[p], root[p], transl[p], file.timestamps, there, up, prior)
        slides.append(slid)
    before, after = np.nanmean(np.array(slides), 0) if np.isfinite(slides).any() else (math.nan, math.nan)
    return float(before), float(after)


def _smooth_root(
    value: Array, variance: Array, times: Array, seen: NDArray[np.bool_], wander: OrnsteinUhlenbeck
) -> Array:
    covariance = np.broadcast_to(np.diag(variance), (len(value), 3, 3))
    return smooth_track(value, covariance, times, seen, wander)[0]


def _bridge(roots: dict[str, Array], translations: dict[str, Array], file: PoseFile, p: int) -> None:
    """Fill missing frames of person ``p``'s root alone: straight lines and geodesics between the frames that are there."""
    missing = file.missing[p]
    before, after, share = neighbours(torch.from_numpy(file.timestamps)[None], torch.from_numpy(~missing)[None])
    i, j, at = before[0].numpy()[missing], after[0].numpy()[missing], share[0].numpy()[missing]
    for value in translations.values():
        value[p, missing] = (1 - at[:, None]) * value[p, i] + at[:, None] * value[p, j]
    for value in roots.values():
        value[p, missing] = slerp(*(torch.from_numpy(x) for x in (value[p, i], value[p, j], at))).numpy()


def _reach(valid: NDArray[np.bool_], start: int, stop: int) -> tuple[int, int]:
    """The piece, grown until it holds the nearest valid frame on each side where it has none of its own."""
    if valid[start:stop].any():
        return start, stop
    before, after = np.flatnonzero(valid[:start]), np.flatnonzero(valid[stop:])
    return (int(before[-1]) if len(before) else start), (stop + int(after[0]) + 1 if len(after) else stop)


def _mean_angle(a_rotmat: Array, b_rotmat: Array) -> float:
    return math.degrees(float(geodesic_distance(torch.from_numpy(a_rotmat), torch.from_numpy(b_rotmat)).mean()))


def _acceleration(file: PoseFile, body: Array, roots: dict[str, Array], translations: dict[str, Array]) -> float:
    root = next(iter(roots.values()), None)
    transl = next(iter(translations.values()), None)
    model = Body.open("light")
    turn, place = (None if x is None else torch.from_numpy(x).float() for x in (root, transl))
    with torch.no_grad():
        joints = model.joints(torch.zeros(10), full_pose(torch.from_numpy(body).float(), turn), place)
    joints = joints.double()
    whole = triplets_valid(torch.from_numpy(~file.missing))
    if not bool(whole.any()):
        return math.nan
    times = torch.from_numpy(file.timestamps)
    return float(acceleration_magnitude(joints, times.expand(file.people, -1))[whole].mean())


def _derived(
    file: PoseFile,
    prior: MotionPrior,
    body: Array,
    roots: dict[str, Array],
    translations: dict[str, Array],
    keep: NDArray[np.bool_],
    locked: bool,
) -> dict[str, Array]:
    """kinflow's arrays that follow from the pose, of one person: joints3d, z and the pose in the world.

    Bone lengths are those of the file's own joints, so that no body model is needed, whichever it was. In the world legs stay bent
    by as much as they were, or as they are now where their feet were ``locked``.
    """
    replaced: dict[str, Array] = {}
    if "body_pose_world" in file.keys:
        stored = file.array("body_pose_world")
        poses = (file.array("body_pose"), stored)  # of all frames, those that were filled in too
        was, bent = (rotvec_to_rotmat(torch.from_numpy(v[:, :NUM_BODY].astype(np.float64))) for v in poses)
        bent, now = was.mT @ bent, torch.from_numpy(body[0])
        fresh = stored.copy()
        fresh[:, :NUM_BODY] = rotmat_to_rotvec(now if locked else now @ bent).numpy()
        replaced["body_pose_world"] = np.where(keep[0, :, None, None], stored, fresh)
    if "z" in file.keys:
        stored = file.array("z")
        with torch.no_grad():
            z = load_flow().encode(torch.from_numpy(body[0]).float())[0].numpy()
        replaced["z"] = np.where(keep[0, :, None], stored, z.astype(stored.dtype))
    if "joints3d" in file.keys and roots and translations:
        stored = file.array("joints3d")
        (root_key, root), (transl_key, transl) = next(iter(roots.items())), next(iter(translations.items()))
        there = ~file.missing[0]
        was = stored[there].astype(np.float64)
        joints = np.empty(stored.shape)
        joints[:, 0] = transl[0] + np.median(was[:, 0] - file.translations[transl_key][0, there], 0)
        turns_was, turns = [file.roots[root_key][0, there]], [root[0]]
        for j in range(1, NUM_JOINTS):
            parent = SMPL_PARENTS[j]
            bone = turns_was[parent].swapaxes(-1, -2) @ (was[:, j] - was[:, parent])[..., None]
            joints[:, j] = joints[:, parent] + (turns[parent] @ np.median(bone, 0))[..., 0]
            local_was, local = (
                (pose[:, j - 1] if j <= NUM_BODY else np.eye(3)) for pose in (file.body_rotmat[0, there], body[0])
            )
            turns_was.append(turns_was[parent] @ local_was)
            turns.append(turns[parent] @ local)
        replaced["joints3d"] = np.where(keep[0, :, None, None], stored, joints.astype(stored.dtype))
    return replaced
