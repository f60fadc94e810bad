"""EMDB (Kaufmann et al., ICCV 2023): people outdoors and indoors with electromagnetic sensors, and the camera's own path.

The data set is not part of kinflow and has its own licence; https://eth-ait.github.io/emdb/ has it behind a form.
``P0/09_outdoor_walk/P0_09_outdoor_walk_data.pkl`` and so on hold the truth, ``images/00000.jpg`` beside them the frames.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, MissingAssetError, ShapeError, UsageError
from ..skeleton import SMPL_JOINTS
from .pickles import finite_array, load_numpy_pickle
from .recording import Recording, SmplTruth

FPS = 30.0
HOME = "https://eth-ait.github.io/emdb/"
SUBSETS = ("all", "1", "2")
"""EMDB 1 measures pose before the camera, EMDB 2 paths in the world."""


class Emdb:
    """EMDB, or one of its two benchmarks, as a :class:`~kinflow.datasets.recording.DataSet`; a sequence is one person.

    Args:
        root: the folder that holds ``P0``, ``P1``, ...
        subset: ``"1"`` or ``"2"``: the sequences of that benchmark; ``"all"``. Which these are is written in the files, so that
            a subset opens them all.
        images: whether the frames are needed.

    Raises:
        UsageError: no such subset.
        MissingAssetError: no sequences.
    """

    name = "emdb"
    missing: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike[str], subset: str = "all", images: bool = False) -> None:
        if subset not in SUBSETS:
            raise UsageError(f"subset: expected one of {', '.join(SUBSETS)}, got {subset!r}.")
        self.root, self.images = Path(root), images
        files = sorted(self.root.glob("P*/*/*_data.pkl"))
        if not files:
            raise MissingAssetError(f"{self.root}: no P*/*/*_data.pkl; is this EMDB's folder? It is at {HOME}.")
        self._files = {path.stem.removesuffix("_data"): path for path in files}
        self.sequences = tuple(name for name in self._files if subset == "all" or self._belongs(name, subset))

    def _belongs(self, name: str, subset: str) -> bool:
        """A file that cannot be read stays in, so that reading it tells so."""
        try:
            data = load_numpy_pickle(self._files[name])
        except FormatError:
            return True
        return not isinstance(data, dict) or bool(data.get(f"emdb{subset}", True))

    def read(self, sequence: str) -> list[Recording]:
        """The person of a sequence.

        Raises:
            MissingAssetError: no such sequence, or no images.
            FormatError: damaged, it asks for more than arrays, or another number of images than frames.
            ShapeError: a field is missing, of another shape or not finite; the message names it.
        """
        if sequence not in self._files:
            raise MissingAssetError(f"{sequence}: no sequence of that name in {self.root}.")
        path = self._files[sequence]
        data = load_numpy_pickle(path)
        fields = _Fields(path.name, data)
        frames = int(fields.number("n_frames"))
        if frames < 1:
            raise ShapeError(f"{path.name}: n_frames: expected at least 1, got {frames}.")
        gender = str(fields.of("gender"))
        if gender not in ("male", "female", "neutral"):
            raise ShapeError(f"{path.name}: gender: expected male, female or neutral, got {gender!r}.")
        root = fields.array("smpl.poses_root", (frames, 3))
        body = fields.array("smpl.poses_body", (frames, 69)).reshape(frames, 23, 3)
        betas = fields.array("smpl.betas", (None,))
        if len(betas) < 10:
            raise ShapeError(f"{path.name}: smpl.betas: expected at least 10 values, got {len(betas)}.")
        keypoints = fields.array("kp2d", (frames, 24, 2))
        return [
            Recording(
                dataset=self.name,
                sequence=sequence,
                person=0,
                timestamps=np.arange(frames) / FPS,
                frame_ids=np.arange(frames),
                valid=fields.array("good_frames_mask", (frames,)).astype(bool),
                images=_images(path.parent / "images", frames) if self.images else (),
                image_size=(int(fields.number("camera.width")), int(fields.number("camera.height"))),
                K=fields.array("camera.intrinsics", (3, 3)),
                T_world2cam=fields.array("camera.extrinsics", (frames, 4, 4)),
                keypoints2d=keypoints,
                confidence=np.ones((frames, 24)),
                layout=SMPL_JOINTS,
                smpl=SmplTruth(root, body, betas[:10], fields.array("smpl.trans", (frames, 3)), gender),
            )
        ]


def _images(folder: Path, frames: int) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise MissingAssetError(f"{folder}: no images; they are in the downloads at {HOME}.")
    there = sorted(folder.glob("*.jpg"))
    if [path.name for path in there] != [f"{i:05d}.jpg" for i in range(frames)]:
        raise FormatError(
            f"{folder}: expected 00000.jpg to {frames - 1:05d}.jpg, got {len(there)} images. Download them again."
        )
    return tuple(there)


class _Fields:
    """Nested fields of a pickle by dotted names, checked."""

    def __init__(self, name: str, data: Any) -> None:
        self.name, self.data = name, data

    def of(self, key: str) -> Any:
        value = self.data
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise ShapeError(f"{self.name}: the field {key} is missing.")
            value = value[part]
        return value

    def array(self, key: str, shape: tuple[int | None, ...]) -> Any:
        return finite_array(self.name, key, self.of(key), shape)

    def number(self, key: str) -> float:
        return float(self.array(key, ()))
