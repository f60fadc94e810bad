"""Pose files of other tools, read and written back in place: AMASS, SMPL parameters as trackers write them, and kinflow's own.

A file is an npz of named arrays. Those that hold body pose, root orientation or root translation are found by name and
shape and taken as rotations; all others are carried over byte by byte, never unpacked, so that what is written drops
into the place of what was read.
"""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import MissingAssetError, OutputError, ShapeError, UsageError
from ..records import Npz, atomic_write, open_npz, reading
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import NUM_BODY

Array = NDArray[Any]

POSE_KEYS = (
    "poses", "fullpose", "full_pose", "pose", "smpl_pose", "smpl_poses", "pose_world", "pose_cam", "pred_rotmat",
    "body_pose", "pose_body",
)  # fmt: skip
"""Arrays of joint rotations, with or without the root, told apart by their number of joints."""
ROOT_KEYS = ("global_orient", "root_orient", "global_orient_incam")
TRANSL_KEYS = ("transl", "trans", "trans_world", "trans_cam", "smpl_trans", "pred_trans", "transl_incam")
RATE_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps", "frame_rate", "framerate")
TIME_KEYS = ("timestamps",)
FRAME_KEYS = ("frame_ids", "frame_id", "frames")
SEEN_KEYS = ("observed", "valid")
DERIVED_KEYS = ("joints3d", "joints", "smpl_joints", "verts", "vertices", "joints2d", "keypoints3d", "contacts", "z")
"""Arrays that usually follow from the pose; they are left as they are unless whoever writes the file replaces them."""

_BODY_COUNTS = (21, 23)
_FULL_COUNTS = (24, 22, 52, 55)  # SMPL; SMPL-X's body; SMPL+H; SMPL-X
_LAYOUTS = (
    "body pose as (T, 63|69), (T, 21|23, 3) or (T, 21|23, 3, 3), or with the root as (T, 66|72|156|165), "
    "(T, 22|24|52|55, 3) or (T, 22|24|52|55, 3, 3)"
)


class Slot(NamedTuple):
    """Where an array keeps joint rotations.

    Attributes:
        key: the array's name.
        lead: its leading dimensions, (T,) or (P, T).
        joints: rotations a frame.
        matrices: whether they are 3x3 matrices rather than rotation vectors.
    """

    key: str
    lead: tuple[int, ...]
    joints: int
    matrices: bool

    @property
    def first_body(self) -> int | None:
        """Index of SMPL's joint 1, or None where the array holds the root alone."""
        return {1: None, 21: 0, 23: 0}.get(self.joints, 1)

    @property
    def has_root(self) -> bool:
        return self.joints not in _BODY_COUNTS


@dataclasses.dataclass(frozen=True)
class PoseFile:
    """What a pose file says, P people (1 where it has no such dimension) and T frames, in the file's own world.

    Attributes:
        path: of the file.
        kind: "amass", "smpl" or "kinflow".
        timestamps: (T,) s, strictly increasing.
        body_rotmat: (P, T, 21, 3, 3) rotations of SMPL joints 1 to 21 relative to their parents; identity where missing.
        roots: by array name, (P, T, 3, 3) rotations of the pelvis.
        translations: by array name, (P, T, 3) m.
        missing: (P, T) frames with NaN or inf in them, or marked as not seen.
        notes: what a user should be told about the input.
        slots: the arrays that hold rotations.
        keys: names of all arrays.
    """

    path: Path
    kind: str
    timestamps: Array
    body_rotmat: Array
    roots: dict[str, Array]
    translations: dict[str, Array]
    missing: NDArray[np.bool_]
    notes: tuple[str, ...]
    slots: tuple[Slot, ...]
    keys: tuple[str, ...]

    @property
    def people(self) -> int:
        return len(self.missing)

    @property
    def fps(self) -> float:
        """Mean frame rate, Hz."""
        return float((len(self.timestamps) - 1) / (self.timestamps[-1] - self.timestamps[0]))

    def array(self, key: str) -> Array:
        """One array of the file as it stands there."""
        with open_npz(self.path) as npz:
            return npz[key]


# -- reading ------------------------------------------------------------------------------------------------------------


def read_pose_file(path: str | os.PathLike[str], fps: float | None = None) -> PoseFile:
    """Read a pose file.

    Args:
        path: an npz.
        fps: frames a second, for files that do not say; it replaces a rate that the file states.

    Raises:
        MissingAssetError: no such file.
        FormatError: not an npz, damaged, or pickled.
        ShapeError: no body pose in it, other joint counts, shapes that contradict each other, matrices that are no
            rotations, time stamps that do not increase, fewer than two frames, no valid frame.
        UsageError: no frame rate, or one that is not positive.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such file.")
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise UsageError(f"fps: expected frames a second above 0, got {fps}.")
    with open_npz(path) as npz:
        keys = npz.keys
        slots, arrays = _find_rotations(npz, path)
        lead = slots[0].lead
        if lead[-1] < 2:
            raise ShapeError(
                f"{path.name}: {slots[0].key}: expected at least two frames, got {lead[-1]}. Nothing can be smoothed in it."
            )
        people = lead[0] if len(lead) == 2 else 1
        translations = {}
        for key in TRANSL_KEYS:
            if key in keys:
                value = _numbers(npz, key, path)
                if value.shape[: len(lead)] != lead or value.size != 3 * int(np.prod(lead)):
                    raise ShapeError(
                        f"{path.name}: {key}: expected shape ({_text(lead)}, 3) as {slots[0].key} has frames, "
                        f"got {value.shape}. Cut both to the same frames."
                    )
                translations[key] = value.reshape(people, lead[-1], 3).astype(np.float64)
        seen = _seen(npz, lead, path)
        notes: list[str] = []
        timestamps = _timestamps(npz, lead[-1], fps, path, notes)
        kind = _kind(npz, keys)
        if kind == "kinflow":  # arrays that whoever smooths computes anew, of one person
            if len(lead) != 1:
                raise ShapeError(f"{path.name}: {slots[0].key}: expected one person's frames (T), got ({_text(lead)}).")
            for key, rest in (("z", "63"), ("joints3d", "24 3"), ("body_pose_world", "23 3")):
                if key in npz:
                    npz.numbers(key, f"{lead[0]} {rest}")

    bad = ~seen
    for value in [*arrays.values(), *translations.values()]:
        bad |= ~np.isfinite(value.reshape(people, lead[-1], -1)).all(-1)
    if bad.all(1).any():
        who = f" of person {int(np.argmax(bad.all(1)))}" if people > 1 else ""
        raise ShapeError(
            f"{path.name}: expected at least one valid frame, got {lead[-1]} frames{who} that all hold NaN or are marked "
            "as not seen. There is nothing to go by."
        )
    rotmats = {}
    wrapped = 0
    for slot in slots:
        rotmats[slot.key], over = _to_rotmat(
            arrays[slot.key].reshape(people, lead[-1], slot.joints, -1), slot, bad, path
        )
        wrapped += over
    if wrapped:
        notes.append(f"{wrapped} rotation vectors were longer than pi; they are wrapped (the same rotations).")
    bodies = {s.key: _body_part(rotmats[s.key], s) for s in slots if s.first_body is not None}
    (first, body), *others = bodies.items()
    for key, other in others:
        off = np.abs(other - body).max()
        if off > 1e-2:
            raise ShapeError(
                f"{path.name}: expected the same body pose in {first} and {key}, got a difference of {off:.2g} in their "
                "matrices. Keep one of them in the file."
            )
    for key, value in translations.items():
        translations[key] = np.where(bad[..., None], 0.0, value)
    roots = {s.key: rotmats[s.key][:, :, 0] for s in slots if s.has_root}
    stale = [k for k in DERIVED_KEYS if k in keys and kind != "kinflow"]
    if stale:
        notes.append(f"{', '.join(stale)}: left as they were, although they follow from the pose; compute them anew.")
    return PoseFile(
        path, kind, timestamps, body, roots, translations, bad, tuple(notes), tuple(slots), keys,
    )  # fmt: skip


def _numbers(npz: Npz, key: str, path: Path) -> Array:
    value = npz[key]
    if value.dtype.kind != "f":
        raise ShapeError(f"{path.name}: {key}: expected floating point, got {value.dtype}. Save it as float32.")
    return value


def _find_rotations(npz: Npz, path: Path) -> tuple[list[Slot], dict[str, Array]]:
    slots: list[Slot] = []
    arrays: dict[str, Array] = {}
    for key in POSE_KEYS:
        if key in npz:
            arrays[key] = _numbers(npz, key, path)
            slots.append(_pose_slot(key, arrays[key].shape, path))
    if not slots:
        raise ShapeError(
            f"{path.name}: expected body pose under one of {', '.join(POSE_KEYS)}, got {', '.join(npz.keys) or 'nothing'}. "
            f"Name it body_pose: {_LAYOUTS}."
        )
    lead = slots[0].lead
    for slot in slots[1:]:
        if slot.lead != lead:
            raise ShapeError(
                f"{path.name}: {slot.key}: expected ({_text(lead)}) frames as in {slots[0].key}, got ({_text(slot.lead)}). "
                "Cut both to the same frames."
            )
    for key in ROOT_KEYS:
        if key in npz:
            arrays[key] = value = _numbers(npz, key, path)
            size = value.size / max(1, int(np.prod(lead)))
            if value.shape[: len(lead)] != lead or size not in (3, 9):
                raise ShapeError(
                    f"{path.name}: {key}: expected shape ({_text(lead)}, 3) or ({_text(lead)}, 3, 3) as {slots[0].key} "
                    f"has frames, got {value.shape}. Cut both to the same frames."
                )
            slots.append(Slot(key, lead, 1, size == 9))
    return slots, arrays


def _pose_slot(key: str, shape: tuple[int, ...], path: Path) -> Slot:
    for count in (*_BODY_COUNTS, *_FULL_COUNTS):
        for tail, matrices in (((count, 3, 3), True), ((count, 3), False), ((3 * count,), False)):
            lead = shape[: len(shape) - len(tail)]
            if shape[len(lead) :] == tail and len(lead) in (1, 2):
                return Slot(key, lead, count, matrices)
    raise ShapeError(
        f"{path.name}: {key}: expected {_LAYOUTS}, people first where there are several; got {shape}. Bring other "
        "skeletons to SMPL's joints first."
    )


def _seen(npz: Npz, lead: tuple[int, ...], path: Path) -> NDArray[np.bool_]:
    people, frames = (lead[0], lead[1]) if len(lead) == 2 else (1, lead[0])
    for key in SEEN_KEYS:
        if key in npz:
            value = npz[key]
            if value.dtype.kind not in "bui" or value.shape not in ((frames,), lead):
                raise ShapeError(
                    f"{path.name}: {key}: expected booleans ({_text(lead)}), got {value.dtype} {value.shape}."
                )
            return np.broadcast_to(value.astype(bool), (people, frames)).copy()
    return np.ones((people, frames), bool)


def _timestamps(npz: Npz, frames: int, fps: float | None, path: Path, notes: list[str]) -> Array:
    for key in TIME_KEYS:
        if key in npz:
            if fps is not None:
                raise UsageError(f"fps: {path.name} has {key} of its own, got {fps} as well. Leave --fps out.")
            times = npz[key]
            if times.shape != (frames,) or times.dtype.kind not in "fiu":
                raise ShapeError(f"{path.name}: {key}: expected ({frames}) seconds, got {times.dtype} {times.shape}.")
            return _increasing(times.astype(np.float64), key, "seconds", path)
    for key in RATE_KEYS:
        if key in npz:
            value = npz[key]
            stated = float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in "fiu" else np.nan
            if fps is not None:
                notes.append(f"{key}: the file says {stated:g} frames/s; --fps {fps:g} is used instead.")
                break
            if not (np.isfinite(stated) and stated > 0):
                raise ShapeError(
                    f"{path.name}: {key}: expected frames a second above 0, got {value}. Give the true rate with --fps."
                )
            fps = stated
            break
    if fps is None:
        raise UsageError(
            f"fps: {path.name} does not say how many frames a second it has (none of {', '.join(RATE_KEYS)}). "
            "Give it with --fps."
        )
    for key in FRAME_KEYS:
        if key in npz:
            ids = npz[key]
            if ids.shape == (frames,) and ids.dtype.kind in "iu":
                return _increasing(ids.astype(np.float64), key, "frame numbers", path) / fps
    return np.arange(frames) / fps


def _increasing(values: Array, key: str, what: str, path: Path) -> Array:
    steps = np.diff(values)
    if not (np.isfinite(values).all() and (steps > 0).all()):
        at = int(np.argmax(~(steps > 0)))
        raise ShapeError(
            f"{path.name}: {key}: expected finite, strictly increasing {what}, got {values[at]:g} then {values[at + 1]:g} "
            f"at row {at}. Sort the frames and drop repeated ones."
        )
    return values


def _kind(npz: Npz, keys: tuple[str, ...]) -> str:
    if "schema" in keys and npz.text("schema").startswith("kinflow.motion/"):
        return "kinflow"
    return "amass" if "poses" in keys and {"mocap_framerate", "mocap_frame_rate"} & set(keys) else "smpl"


def _to_rotmat(value: Array, slot: Slot, bad: NDArray[np.bool_], path: Path) -> tuple[Array, int]:
    """(P, T, J, 3 or 9) -> rotations (P, T, J, 3, 3) with the identity in bad frames, and how many vectors exceed pi."""
    if not slot.matrices:
        rotvec = np.where(bad[..., None, None], 0.0, value.astype(np.float64))
        over = int((np.linalg.norm(rotvec, axis=-1) > np.pi + 1e-3).sum())
        return rotvec_to_rotmat(torch.from_numpy(rotvec)).numpy(), over
    rotmat = value.astype(np.float64).reshape(*value.shape[:-1], 3, 3)
    rotmat = np.where(bad[..., None, None, None], np.eye(3), rotmat)
    off = np.abs(rotmat @ rotmat.swapaxes(-1, -2) - np.eye(3)).max()
    if off > 0.02 or not (np.linalg.det(rotmat) > 0).all():
        raise ShapeError(
            f"{path.name}: {slot.key}: expected rotation matrices, got some that are {off:.2g} away from orthonormal or "
            "mirror. Normalise them first."
        )
    u, _, v = np.linalg.svd(rotmat)  # single precision leaves them a little off
    return u @ v, 0


def _body_part(rotmat: Array, slot: Slot) -> Array:
    first = slot.first_body or 0
    return rotmat[:, :, first : first + NUM_BODY]


# -- writing ------------------------------------------------------------------------------------------------------------


def write_pose_file(
    source: PoseFile,
    out: str | os.PathLike[str],
    body_rotmat: Array,
    roots: Mapping[str, Array],
    translations: Mapping[str, Array],
    replaced: Mapping[str, Array] | None = None,
    keep: NDArray[np.bool_] | None = None,
) -> Path:
    """Write the file anew with other poses, by a temporary name and a rename.

    Names, order, types and shapes are those of ``source``; arrays without a part in the pose are copied byte by byte.

    Args:
        source: what was read.
        out: the new file.
        body_rotmat, roots, translations: as in :class:`PoseFile`.
        replaced: further arrays with new values, of the shape they have in the file.
        keep: (P, T) frames whose values stay exactly as they are in the file.

    Raises:
        UsageError: ``out`` is the file that was read.
        OutputError: it cannot be written.
    """
    out = Path(out)
    check_output(source.path, out)
    keep = np.zeros_like(source.missing) if keep is None else keep
    new = dict(replaced or {})
    for slot in source.slots:
        value = source.array(slot.key)
        rows = value.reshape(*keep.shape, slot.joints, *((3, 3) if slot.matrices else (3,)))
        fresh = rows.copy()
        parts: list[tuple[int, Array, Array]] = []
        if slot.has_root:
            parts.append((0, source.roots[slot.key][:, :, None], roots[slot.key][:, :, None]))
        if slot.first_body is not None:
            parts.append((slot.first_body, source.body_rotmat, body_rotmat))
        for first, was, now in parts:
            here = fresh[:, :, first : first + was.shape[2]]
            # What did not turn keeps its very numbers, whichever of its forms the file has.
            turned = (was != now).any((-1, -2)) | source.missing[..., None]
            here[turned] = _form(now[turned], slot.matrices)
        _hold(fresh, ~source.missing, source.missing & ~keep)
        new[slot.key] = _keep(rows, fresh, keep).reshape(value.shape)
    for key, moved in translations.items():
        value = source.array(key)
        rows = value.reshape(*keep.shape, 3)
        new[key] = _keep(rows, moved.astype(value.dtype), keep).reshape(value.shape)
    with atomic_write(out) as stream, zipfile.ZipFile(source.path) as old, zipfile.ZipFile(stream, "w") as fresh_zip:
        for member in old.infolist():
            key = member.filename.removesuffix(".npy")
            with reading(source.path, key):
                data = _npy(new[key]) if key in new else old.read(member)
            fresh_zip.writestr(zipfile.ZipInfo(member.filename), data, compress_type=member.compress_type)
    return out


def check_output(source: Path, out: Path) -> None:
    """Find out before the work whether the result may and can be written.

    Raises:
        UsageError: ``out`` is the file that is read.
        OutputError: it is a folder, or its folder cannot be made or written.
    """
    if out.is_dir():
        raise OutputError(f"{out}: expected a file to write, got a folder. Name the file, too.")
    if out.exists() and os.path.samefile(source, out):
        raise UsageError(f"out: {out} is the input itself. Choose another name; the original is worth keeping.")
    folder = next(p for p in out.absolute().parents if p.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OutputError(f"{out}: cannot write here ({folder}). Choose another folder with -o.")


def _form(rotmat: Array, matrices: bool) -> Array:
    return rotmat if matrices else rotmat_to_rotvec(torch.from_numpy(np.ascontiguousarray(rotmat))).numpy()


def _hold(rows: Array, seen: NDArray[np.bool_], filled: NDArray[np.bool_]) -> None:
    """In filled frames, joints that nobody fills (fingers, jaw) and that are NaN stay as in the nearest seen frame."""
    for p, t in zip(*np.nonzero(filled), strict=True):
        lost = ~np.isfinite(rows[p, t].reshape(rows.shape[2], -1)).all(-1)
        if lost.any():
            known = np.flatnonzero(seen[p])
            rows[p, t, lost] = rows[p, known[np.abs(known - t).argmin()], lost]


def _keep(old: Array, new: Array, keep: NDArray[np.bool_]) -> Array:
    return np.where(keep.reshape(*keep.shape, *[1] * (old.ndim - 2)), old, new)


def _npy(value: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, value, allow_pickle=False)
    return stream.getvalue()


def _text(lead: tuple[int, ...]) -> str:
    return ", ".join(map(str, lead))
