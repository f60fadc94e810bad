"""From a folder of raw motion capture and its index to clips: read, drop, retarget, mask, resample."""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import KinflowError, MissingAssetError, ShapeError
from ..rotations import rotmat_to_rotvec
from ..skeleton import SMPL_REST_OFFSETS
from .amass import read_amass
from .asfamc import CMU_UNIT, read_asfamc
from .bvh import read_bvh
from .calibrate import flat_foot_pitch, hand_swing, level_feet, settle_hands
from .clips import MotionClip
from .deepmimic import read_deepmimic
from .mend import MB_TPOSE, has_bone_frames, to_world_frames
from .retarget import SmplMotion, retarget
from .rigs import RIGS
from .source import Array, SourceMotion, between
from .split import Split
from .validity import valid_frames
from .zero_pose import into_zero_pose

logger = logging.getLogger(__name__)

TARGET_FPS = 60.0
SCALES = {"cgspeed_daz": 0.01, "neo_fbx": 0.01, "rokoko60": 0.01, "fair_xsens27": 0.04}
"""Metres per unit by rig; CMU's unit for the others."""
CMU_HANDS = ("asfamc", "cgspeed_mb", "cgspeed_mb_expmap", "cgspeed_max", "asfnames_bvh")
"""Rigs whose hand bone is the CMU skeleton's own."""
MIN_STILL_FRAMES = 60
"""Samples that a subject must have for a correction of its own."""


@dataclass(frozen=True)
class IndexEntry:
    """One row of the index: paths relative to it, true frame rate, leading frames that are no motion, and the file of
    another index that holds the same trial in a worse conversion."""

    file: str
    asf: str
    subject: str
    description: str
    rig: str
    fps: float
    drop_first: int
    replaces: str = ""

    @property
    def name(self) -> str:
        """The clip's name: the path without its suffix."""
        return self.file.rsplit(".", 1)[0]


def read_index(path: Path) -> list[IndexEntry]:
    """Read ``INDEX.csv``. Raises MissingAssetError where there is none, ShapeError where a column is missing."""
    if not path.is_file():
        raise MissingAssetError(
            f"{path}: no index of clips; point --raw at the folder (or archive) that holds INDEX.csv."
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                IndexEntry(
                    file=row["file"],
                    asf=row["asf"],
                    subject=row["subject"],
                    description=row["description"],
                    rig=row["rig"],
                    fps=float(row["fps"]),
                    drop_first=int(row["drop_first"]),
                    replaces=row.get("replaces") or "",
                )
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise ShapeError(f"{path.name}: cannot be read as an index of clips ({error}).") from None


def read_source(root: Path, entry: IndexEntry) -> SourceMotion:
    """Read one clip of the index in metres, without its leading frames, at its true rate."""
    file = root / entry.file
    if entry.rig == "asfamc":
        motion = read_asfamc(root / entry.asf, file, fps=entry.fps)
    elif entry.rig == "deepmimic_humanoid3d":
        motion = read_deepmimic(file)
    else:
        motion = read_bvh(file, SCALES.get(entry.rig, CMU_UNIT), fps=entry.fps)
        if entry.rig == "cgspeed_mb" and has_bone_frames(motion):
            motion = to_world_frames(motion, MB_TPOSE)
    return motion.frames(entry.drop_first)


def read_indices(roots: Sequence[Path]) -> list[tuple[Path, IndexEntry]]:
    """Rows of ``INDEX.csv`` in each folder with that folder, without the files that a row of another replaces."""
    rows = [(root, entry) for root in roots for entry in read_index(root / "INDEX.csv")]
    replaced = {entry.replaces for _, entry in rows if entry.replaces}
    return [(root, entry) for root, entry in rows if entry.file not in replaced]


def prepare_clips(
    rows: Sequence[tuple[Path, IndexEntry]],
    split: Split,
    progress: Callable[[int, int, str], None] | None = None,
    target_fps: float = TARGET_FPS,
) -> list[MotionClip]:
    """Retarget the clips of one or several indices.

    Args:
        rows: folder of the index and row, as :func:`read_indices` gives them.
        split: where each subject belongs.
        progress: called with (number done, total, name) before each clip.
        target_fps: frames a second to resample to.

    Returns:
        Clips at ``target_fps``, or at their own rate where that is lower. Clips of rigs that kinflow does not know are
        left out with a warning; so are clips with an unreadable file.
    """
    unknown = sorted({e.rig for _, e in rows if e.rig not in RIGS})
    if unknown:
        count = sum(e.rig in unknown for _, e in rows)
        logger.warning("left out %d clips of unknown rigs: %s", count, ", ".join(unknown))
    rows = [(root, e) for root, e in rows if e.rig in RIGS]
    kept: list[tuple[IndexEntry, SmplMotion, np.ndarray]] = []
    habits: dict[tuple[str, str], list[dict[str, Array]]] = defaultdict(list)
    for i, (root, entry) in enumerate(rows):
        if progress:
            progress(i, len(rows), entry.name)
        try:
            source = read_source(root, entry)
        except (KinflowError, OSError) as error:
            logger.warning("left out %s: %s", entry.name, error)
            continue
        rig = RIGS[entry.rig]
        motion = retarget(source, rig, np.array(SMPL_REST_OFFSETS))
        samples = flat_foot_pitch(source, rig)
        if entry.rig in CMU_HANDS:
            samples |= {side: hand_swing(motion.rotmats, side)[0] for side in ("left", "right")}
            motion = replace(motion, rotmats=settle_hands(motion.rotmats, {"left": np.zeros(3), "right": np.zeros(3)}))
        habits[_person(entry)].append(samples)
        kept.append((entry, *_at_target_rate(motion, target_fps)))
    medians = _medians(habits)
    if progress:
        progress(len(rows), len(rows), "feet and hands")
    clips = []
    for entry, motion, valid in kept:
        own = medians[_person(entry)]
        rotmats = level_feet(motion.rotmats, {k: float(v) for k, v in own.items() if v.ndim == 0})
        rotmats = into_zero_pose(settle_hands(rotmats, {k: v for k, v in own.items() if v.ndim == 1}))
        clips.append(make_clip(replace(motion, rotmats=rotmats), valid, entry, split.of(entry.name, entry.subject)))
    return clips


def amass_files(folder: Path) -> list[Path]:
    """The npz files under a folder that may be AMASS sequences: all but its shapes."""
    shapes = ("shape", "neutral_stagei", "female_stagei", "male_stagei")
    return sorted(f for f in folder.rglob("*.npz") if f.stem not in shapes)


def amass_clips(
    folder: Path,
    split: str,
    progress: Callable[[int, int, str], None] | None = None,
    target_fps: float = TARGET_FPS,
) -> list[MotionClip]:
    """Clips of every AMASS sequence under a folder, all for one split; unreadable files are left out with a warning."""
    files = amass_files(folder)
    clips = []
    for i, file in enumerate(files):
        if progress:
            progress(i, len(files), file.stem)
        try:
            sequence = read_amass(file)
        except KinflowError as error:
            logger.warning("left out %s", error)
            continue
        entry = IndexEntry(
            f"amass/{sequence.name}.npz",
            "",
            f"amass/{sequence.subject}",
            file.stem,
            sequence.model,
            sequence.motion.fps,
            0,
        )
        clips.append(make_clip(*_at_target_rate(sequence.motion, target_fps), entry, split))
    return clips


def _at_target_rate(result: SmplMotion, target_fps: float) -> tuple[SmplMotion, np.ndarray]:
    """Mask at the source's rate, where flips are one frame long, then resample (lower rates than the target stay)."""
    valid = valid_frames(result)
    fps = min(target_fps, result.fps)
    rotmats, transl, valid = resample(result.rotmats, result.transl, valid, result.fps, fps)
    return replace(result, rotmats=rotmats, transl=transl, fps=fps), valid


def make_clip(motion: SmplMotion, valid: np.ndarray, entry: IndexEntry, split: str) -> MotionClip:
    """A clip of an index entry from its retargeted motion and mask (T,)."""
    rotvec = rotmat_to_rotvec(torch.from_numpy(motion.rotmats)).numpy().astype(np.float32)
    return MotionClip(
        name=entry.name,
        subject=entry.subject or entry.name,
        description=entry.description,
        fps=motion.fps,
        global_orient=rotvec[:, 0],
        body_pose=rotvec[:, 1:],
        transl=motion.transl.astype(np.float32),
        valid=valid,
        split=split,
        rig=entry.rig,
        leg_length=motion.leg_length,
    )


def resample(
    rotmats: Array, transl: Array, valid: np.ndarray, fps_from: float, fps_to: float
) -> tuple[Array, Array, np.ndarray]:
    """Rotations (T, J, 3, 3) by slerp, positions (T, 3) linearly, from one rate to another; the first frame stays.

    A new frame is valid where both of its neighbours are.
    """
    if len(rotmats) < 2 or abs(fps_from - fps_to) < 1e-3:
        return rotmats, transl, valid
    last = len(rotmats) - 1
    where = np.arange(int(np.floor(last * fps_to / fps_from + 1e-6)) + 1) * (fps_from / fps_to)
    where = np.minimum(where, last)
    nearest = np.rint(where)
    where = np.where(np.abs(where - nearest) < 1e-3, nearest, where)
    low = np.floor(where).astype(int)
    high = np.minimum(low + 1, last)
    part = where - low
    high = np.where(part == 0, low, high)
    between_rotmats = rotmats[low].copy()
    moving = part > 0
    if moving.any():
        between_rotmats[moving] = between(rotmats[low[moving]], rotmats[high[moving]], part[moving, None])
    between_transl = transl[low] + part[:, None] * (transl[high] - transl[low])
    return between_rotmats, between_transl, valid[low] & valid[high]


def _person(entry: IndexEntry) -> tuple[str, str]:
    return (entry.subject or entry.name, entry.rig)


def _medians(habits: dict[tuple[str, str], list[dict[str, Array]]]) -> dict[tuple[str, str], dict[str, Array]]:
    """Median of each kind of sample by subject and rig: foot pitch (degrees, clipped to 25) and hand swing ((3,) rad).

    A subject with too few samples gets the median over the rig's subjects.
    """
    pooled: dict[str, dict[str, list[Array]]] = defaultdict(lambda: defaultdict(list))
    for (_, rig), clips in habits.items():
        for clip in clips:
            for kind, values in clip.items():
                pooled[rig][kind].append(values)
    out: dict[tuple[str, str], dict[str, Array]] = {}
    for person, clips in habits.items():
        out[person] = {}
        for kind, everyone in pooled[person[1]].items():
            own = np.concatenate([c[kind] for c in clips])
            if len(own) < MIN_STILL_FRAMES:
                own = np.concatenate(everyone)
            if len(own) >= MIN_STILL_FRAMES:
                median = np.median(own, axis=0)
                out[person][kind] = np.clip(median, -25.0, 25.0) if median.ndim == 0 else median
    return out
