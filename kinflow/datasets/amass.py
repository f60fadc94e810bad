"""AMASS (Mahmood et al., ICCV 2019) as recordings: SMPL parameters without a camera.

The data set is not part of kinflow and has its own licence; https://amass.is.tue.mpg.de has it behind a form, a folder a sub-set:
``CMU/01/01_01_poses.npz`` or ``CMU/01/01_01_stageii.npz``. :mod:`kinflow.mocap.amass` has the layout.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from ..errors import MissingAssetError, UsageError
from ..mocap.amass import SMPL_PELVIS, read_amass
from ..rotations import rotmat_to_rotvec
from .recording import Recording, SmplTruth

HOME = "https://amass.is.tue.mpg.de"
SPLITS: dict[str, tuple[str, ...]] = {
    "validation": ("HumanEva", "HDM05", "MPI_HDM05", "SFU", "MoSh", "MPI_mosh"),
    "test": ("Transitions", "Transitions_mocap", "SSM", "SSM_synced"),
}
"""Sub-sets of AMASS' own split, under their names of both releases; every other one is ``train``."""


class Amass:
    """AMASS, or one split of it, as a :class:`~kinflow.datasets.recording.DataSet`; a sequence is one person's.

    Args:
        root: the folder that holds the sub-sets.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.

    Raises:
        UsageError: no such split.
        MissingAssetError: no sequences.
    """

    name = "amass"
    missing: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike[str], split: str = "all") -> None:
        if split not in ("train", "all", *SPLITS):
            raise UsageError(f"split: expected train, validation, test or all, got {split!r}.")
        self.root = Path(root)
        files = sorted([*self.root.rglob("*_poses.npz"), *self.root.rglob("*_stageii.npz")])
        if not files:
            raise MissingAssetError(f"{self.root}: no *_poses.npz or *_stageii.npz; AMASS is at {HOME}.")
        names = {path.relative_to(self.root).with_suffix("").as_posix(): path for path in files}
        self._files = {name: path for name, path in names.items() if split in ("all", split_of(name))}
        self.sequences = tuple(self._files)

    def read(self, sequence: str) -> list[Recording]:
        """One sequence, in a world with y up.

        Raises:
            MissingAssetError: no such sequence.
            FormatError, ShapeError: as of :func:`kinflow.mocap.amass.read_amass`.
        """
        if sequence not in self._files:
            raise MissingAssetError(f"{sequence}: no sequence of that name in {self.root}.")
        data = read_amass(self._files[sequence])
        motion = data.motion
        rotvec = rotmat_to_rotvec(torch.from_numpy(motion.rotmats)).numpy()
        frames = len(rotvec)
        betas = np.zeros(10)
        betas[: min(10, len(data.betas))] = data.betas[:10]
        transl = motion.transl - np.asarray(SMPL_PELVIS)  # the pelvis that the reader put in
        gender = data.gender if data.gender in ("male", "female") else "neutral"
        return [
            Recording(
                dataset=self.name,
                sequence=sequence,
                person=0,
                timestamps=np.arange(frames) / motion.fps,
                frame_ids=np.arange(frames),
                valid=np.ones(frames, bool),
                smpl=SmplTruth(rotvec[:, 0], rotvec[:, 1:], betas, transl, gender),
            )
        ]


def split_of(sequence: str) -> str:
    """The split of ``SUBSET/SUBJECT/SEQUENCE``."""
    subset = sequence.split("/")[0]
    return next((split for split, names in SPLITS.items() if subset in names), "train")
