"""3DPW sequences (von Marcard et al., ECCV 2018): SMPL poses of people filmed outdoors with a moving camera.

The data set is not part of kinflow and has its own licence; https://virtualhumans.mpi-inf.mpg.de/3DPW/ has it behind a form.
``sequenceFiles/SPLIT/NAME.pkl`` are python-2 pickles, read without running anything in them (:mod:`kinflow.datasets.pickles`);
``imageFiles/NAME/image_00000.jpg`` and so on are the frames.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, MissingAssetError, ShapeError, UsageError
from ..skeleton import OPENPOSE18, SMPL_JOINTS
from .pickles import finite_array, load_numpy_pickle
from .recording import Recording, SmplTruth

FPS = 30.0
SPLITS = ("train", "validation", "test")
HOME = "https://virtualhumans.mpi-inf.mpg.de/3DPW/"
TEST_SEQUENCES = (
    "downtown_arguing_00", "downtown_bar_00", "downtown_bus_00", "downtown_cafe_00", "downtown_car_00",
    "downtown_crossStreets_00", "downtown_downstairs_00", "downtown_enterShop_00", "downtown_rampAndStairs_00",
    "downtown_runForBus_00", "downtown_runForBus_01", "downtown_sitOnStairs_00", "downtown_stairs_00",
    "downtown_upstairs_00", "downtown_walkBridge_01", "downtown_walkUphill_00", "downtown_walking_00",
    "downtown_warmWelcome_00", "downtown_weeklyMarket_00", "downtown_windowShopping_00", "flat_guitar_01",
    "flat_packBags_00", "office_phoneCall_00", "outdoors_fencing_01",
)  # fmt: skip
"""The published test split: 24 sequences with 37 tracked people."""
MANIFEST = "manifest.json"
"""Beside ``sequenceFiles``, in miniatures: which sequences each split has, in place of the published ones."""

_Float = NDArray[np.float64]


@dataclass(frozen=True)
class Actor:
    """One tracked person of a sequence, N frames at 30 Hz, in the sequence's world (y up, metres).

    Attributes:
        poses: (N, 72) rad, SMPL's 24 rotation vectors, the first the root's in the world.
        trans: (N, 3) m, SMPL's translation (of the template's origin, not of the pelvis).
        betas: (10,) of the gendered SMPL model.
        joints3d: (N, 24, 3) m, SMPL joints in the world.
        keypoints2d: (N, 18, 2) px in OpenPose's COCO order, and confidence (N, 18), 0 where not found.
        confidence: see above.
        gender: ``"male"`` or ``"female"``.
        campose_valid: (N,) bool, the camera is aligned to this person.
    """

    poses: _Float
    trans: _Float
    betas: _Float
    joints3d: _Float
    keypoints2d: _Float
    confidence: _Float
    gender: str
    campose_valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Sequence3DPW:
    """One sequence.

    Attributes:
        name: as its image folder is called.
        actors: the tracked people.
        T_world2cam: (N, 4, 4) camera poses, OpenCV axes.
        K: (3, 3) px.
        frame_ids: (N,) number of each frame in the 60 Hz motion.
        fps: 30.
    """

    name: str
    actors: tuple[Actor, ...]
    T_world2cam: _Float
    K: _Float
    frame_ids: NDArray[np.int64]
    fps: float = FPS

    def __len__(self) -> int:
        return len(self.T_world2cam)


def read_3dpw(path: str | os.PathLike[str]) -> Sequence3DPW:
    """Read one ``sequenceFiles/SPLIT/NAME.pkl``.

    Raises:
        MissingAssetError: no such file.
        FormatError: damaged, or it asks for more than arrays.
        ShapeError: a field is missing, of another shape or not finite, or frame numbers do not increase; the message names it.
    """
    path = Path(path)
    data = load_numpy_pickle(path)
    if not isinstance(data, dict):
        raise ShapeError(f"{path.name}: expected a dict of fields, got {type(data).__name__}.")

    def field(key: str) -> Any:
        if key not in data:
            raise ShapeError(f"{path.name}: the field {key!r} is missing.")
        return data[key]

    array = functools.partial(finite_array, path.name)
    cameras = array("cam_poses", field("cam_poses"), (None, 4, 4))
    frames = len(cameras)
    if not frames:
        raise ShapeError(f"{path.name}: cam_poses: expected at least one frame, got none.")
    lists = ("poses", "trans", "betas", "jointPositions", "poses2d", "genders", "campose_valid")
    for key in lists:
        if not isinstance(field(key), (list, tuple, np.ndarray)):
            raise ShapeError(
                f"{path.name}: {key}: expected a list, one entry an actor, got {type(field(key)).__name__}."
            )
    counts = {key: len(field(key)) for key in lists}
    if len(set(counts.values())) != 1 or not counts["poses"]:
        raise ShapeError(f"{path.name}: expected one entry an actor in each list, got {counts}.")
    actors = []
    for i in range(counts["poses"]):
        gender = {"m": "male", "f": "female"}.get(str(field("genders")[i]))
        if gender is None:
            raise ShapeError(f"{path.name}: genders: expected 'm' or 'f', got {field('genders')[i]!r}.")
        betas = array("betas", field("betas")[i], (None,))
        if len(betas) < 10:
            raise ShapeError(f"{path.name}: betas: expected at least 10 values, got {len(betas)}.")
        keypoints = array("poses2d", field("poses2d")[i], (frames, 3, 18))
        actors.append(
            Actor(
                poses=array("poses", field("poses")[i], (frames, 72)),
                trans=array("trans", field("trans")[i], (frames, 3)),
                betas=betas[:10],
                joints3d=array("jointPositions", field("jointPositions")[i], (frames, 72)).reshape(frames, 24, 3),
                keypoints2d=np.moveaxis(keypoints[:, :2], 1, 2).copy(),
                confidence=keypoints[:, 2].copy(),
                gender=gender,
                campose_valid=array("campose_valid", field("campose_valid")[i], (frames,), bool),
            )
        )
    ids = array("img_frame_ids", field("img_frame_ids"), (frames,), np.int64)
    if not (np.diff(ids) > 0).all():
        at = int(np.argmax(np.diff(ids) <= 0))
        raise ShapeError(
            f"{path.name}: img_frame_ids: expected increasing numbers, got {ids[at]} before {ids[at + 1]}."
        )
    return Sequence3DPW(
        name=str(data.get("sequence", path.stem)),
        actors=tuple(actors),
        T_world2cam=cameras,
        K=array("cam_intrinsics", field("cam_intrinsics"), (3, 3)),
        frame_ids=ids,
    )


def sequence_files(root: str | os.PathLike[str], split: str = "test") -> list[Path]:
    """The sequence files of a split, by name, under the folder that holds ``sequenceFiles``.

    Raises:
        UsageError: no such split.
        MissingAssetError: no files there.
    """
    if split not in SPLITS:
        raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    files = sorted((Path(root) / "sequenceFiles" / split).glob("*.pkl"))
    if not files:
        raise MissingAssetError(
            f"{Path(root) / 'sequenceFiles' / split}: no .pkl files; is this 3DPW's folder? sequenceFiles.zip is at {HOME}."
        )
    return files


def image_path(root: str | os.PathLike[str], sequence: str, frame: int) -> Path:
    """``imageFiles/NAME/image_%05d.jpg`` of a sequence's frame (0-based row of its arrays)."""
    return Path(root) / "imageFiles" / sequence / f"image_{frame:05d}.jpg"


class ThreeDPW:
    """One split of 3DPW as a :class:`~kinflow.datasets.recording.DataSet`.

    Args:
        root: the folder that holds ``sequenceFiles`` and ``imageFiles``.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        images: whether the frames are needed; without them nobody looks for the files.

    Raises:
        UsageError: no such split.
        MissingAssetError: no sequence files.
    """

    name = "3dpw"

    def __init__(self, root: str | os.PathLike[str], split: str = "test", images: bool = False) -> None:
        self.root, self.split, self.images = Path(root), split, images
        self._files = {path.stem: path for path in sequence_files(root, split)}
        self.sequences = tuple(self._files)
        self.missing = tuple(name for name in self._expected() if name not in self._files)

    def _expected(self) -> tuple[str, ...]:
        manifest = self.root / MANIFEST
        if not manifest.is_file():
            return TEST_SEQUENCES if self.split == "test" else ()
        try:
            names = json.loads(manifest.read_text(encoding="utf-8"))["splits"][self.split]
            return tuple(str(name) for name in names)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise FormatError(
                f"{manifest}: expected a miniature's list of sequences ({error!r}). Make it anew."
            ) from None

    def read(self, sequence: str) -> list[Recording]:
        """The tracked people of a sequence.

        Raises:
            MissingAssetError: no such sequence.
            FormatError, ShapeError: as of :func:`read_3dpw`; fewer images than poses, or none.
        """
        if sequence not in self._files:
            raise MissingAssetError(f"{sequence}: no sequence file in {self.root / 'sequenceFiles' / self.split}.")
        data = read_3dpw(self._files[sequence])
        images = self._images(sequence, len(data)) if self.images else ()
        frames = np.arange(len(data))
        return [
            Recording(
                dataset=self.name,
                sequence=sequence,
                person=number,
                timestamps=frames / data.fps,
                frame_ids=frames,
                valid=actor.campose_valid,
                images=images,
                K=data.K,
                T_world2cam=data.T_world2cam,
                keypoints2d=actor.keypoints2d,
                confidence=actor.confidence,
                layout=OPENPOSE18,
                smpl=SmplTruth(
                    actor.poses[:, :3],
                    actor.poses[:, 3:].reshape(-1, 23, 3),
                    actor.betas,
                    actor.trans,
                    actor.gender,
                ),
                joints3d=actor.joints3d,
                joint_names=SMPL_JOINTS,
            )
            for number, actor in enumerate(data.actors)
        ]

    def _images(self, sequence: str, frames: int) -> tuple[Path, ...]:
        folder = self.root / "imageFiles" / sequence
        if not folder.is_dir():
            raise MissingAssetError(f"{folder}: no images; imageFiles.zip is at {HOME}.")
        there = {path.name for path in folder.glob("image_*.jpg")}
        paths = tuple(image_path(self.root, sequence, frame) for frame in range(frames))
        absent = [path.name for path in paths if path.name not in there]
        if absent or len(there) != frames:
            what = f"{absent[0]} and {len(absent) - 1} more are missing" if absent else "more images than poses"
            raise FormatError(
                f"{folder.name}: images: expected {frames}, one a pose, got {len(there)} ({what}). Download them again."
            )
        return paths
