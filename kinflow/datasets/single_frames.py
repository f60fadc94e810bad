"""Human3.6M (Ionescu et al., PAMI 2014) and MPI-INF-3DHP (Mehta et al., 3DV 2017) as the field keeps them preprocessed: an npz of
single frames, since SPIN (Kolotouros et al., ICCV 2019).

Neither data set is part of kinflow; both have licences of their own. Per frame the npz holds ``imgname``, ``part`` (N, 24, 3):
pixels and visibility, ``S`` (N, 24, 4): metres about the pelvis in camera axes and whether known, and optionally ``pose`` (N, 72),
``shape`` (N, 10) and ``has_smpl`` (N,).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, MissingAssetError, UsageError
from ..records import open_npz
from .recording import Recording, SmplTruth

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck_lsp", "head_top", "pelvis_mpii", "thorax_mpii",
    "spine_h36m", "jaw_h36m", "head_h36m", "nose", "left_eye", "right_eye", "left_ear", "right_ear",
)  # fmt: skip
"""The 24 points of ``part`` and ``S``."""
_NUMBER = re.compile(r"^(.*?)[_/]?(?:frame_|img_)?(\d+)\.(?:jpe?g|png)$")


class SingleFrames:
    """One npz as a :class:`~kinflow.datasets.recording.DataSet`; a sequence is what one camera filmed: frames whose names differ in
    the last number alone.

    Args:
        path: the npz.
        name: of the data set, ``"h36m"`` or ``"mpi_inf_3dhp"``.
        fps: frames a second that the numbers in the names count: 50 in Human3.6M, 25 or 50 in MPI-INF-3DHP by sequence.
        image_root: folder that the names are relative to; without it recordings have no images.

    Raises:
        MissingAssetError: no such file.
        FormatError: not such an npz, or names without numbers.
        UsageError: a frame rate that is none.
    """

    missing: tuple[str, ...] = ()

    def __init__(
        self, path: str | os.PathLike[str], name: str, fps: float, image_root: str | os.PathLike[str] | None = None
    ) -> None:
        if not (np.isfinite(fps) and fps > 0):
            raise UsageError(f"fps: expected frames a second above 0, got {fps}.")
        self.path, self.name, self.fps = Path(path), name, fps
        self.image_root = None if image_root is None else Path(image_root)
        with open_npz(self.path) as npz:
            self._names = npz.texts("imgname")
        self._rows: dict[str, list[tuple[int, int]]] = {}
        for row, image in enumerate(self._names):
            found = _NUMBER.match(image)
            if found is None:
                raise FormatError(f"{self.path.name}: imgname: expected names that end in a number, got {image!r}.")
            self._rows.setdefault(found[1], []).append((int(found[2]), row))
        self.sequences = tuple(sorted(self._rows))

    def read(self, sequence: str) -> list[Recording]:
        """The one person of a sequence, in the order of the frames' numbers.

        Raises:
            MissingAssetError: no such sequence, or images that are not there.
            FormatError, ShapeError: members of other kinds or shapes, or a frame twice.
        """
        if sequence not in self._rows:
            raise MissingAssetError(f"{sequence}: no sequence of that name in {self.path.name}.")
        pairs = sorted(self._rows[sequence])
        numbers, rows = (np.array(column) for column in zip(*pairs, strict=True))
        if (np.diff(numbers) == 0).any():
            raise FormatError(f"{self.path.name}: {sequence}: a frame is there twice. Keep one of each.")
        count = str(len(self._names))
        with open_npz(self.path) as npz:
            part = npz.numbers("part", f"{count} 24 3")[rows].astype(np.float64)
            points = npz.numbers("S", f"{count} 24 4")[rows].astype(np.float64) if "S" in npz else None
            smpl = self._smpl(npz.numbers("pose", f"{count} 72"), npz.numbers("shape", f"{count} 10"), rows) if (
                "pose" in npz and "shape" in npz
            ) else None  # fmt: skip
            if smpl is not None and "has_smpl" in npz and not npz.numbers("has_smpl", count)[rows].all():
                smpl = None
        images: tuple[Path, ...] = ()
        if self.image_root is not None:
            images = tuple(self.image_root / self._names[row] for row in rows)
            absent = [image for image in images if not image.is_file()]
            if absent:
                raise MissingAssetError(
                    f"{absent[0]}: no such image, and {len(absent) - 1} more of {sequence} are missing."
                )
        joints = None if points is None else np.where(points[..., 3:] > 0, points[..., :3], np.nan)
        return [
            Recording(
                dataset=self.name,
                sequence=sequence,
                person=0,
                timestamps=numbers / self.fps,
                frame_ids=numbers,
                valid=np.ones(len(rows), bool),
                images=images,
                keypoints2d=part[..., :2],
                confidence=part[..., 2].clip(0, 1),
                layout=JOINTS,
                smpl=smpl,
                joints3d=joints,
                joint_names=JOINTS if joints is not None else (),
            )
        ]

    @staticmethod
    def _smpl(pose: NDArray[np.float64], shape: NDArray[np.float64], rows: NDArray[np.int64]) -> SmplTruth:
        """Fitted parameters; one shape for the sequence, the mean of its frames'."""
        pose = pose[rows].astype(np.float64)
        return SmplTruth(pose[:, :3], pose[:, 3:].reshape(-1, 23, 3), shape[rows].astype(np.float64).mean(0), None)
