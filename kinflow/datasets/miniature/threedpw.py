"""A miniature of 3DPW: the layout of its files, byte for byte the same kinds of file, a few rendered frames."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import UsageError
from ...records import atomic_write
from ...rotations import rotmat_to_rotvec
from ..threedpw import MANIFEST, SPLITS, image_path
from .scenes import Scene, openpose18, scene, write_jpg

NAMES = tuple(f"miniature_{('meeting', 'walking')[i % 2]}_{i // 2:02d}" for i in range(32))
MOST_FRAMES = 3000


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2 with byte strings as python 2 wrote them."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, obj: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)  # type: ignore[attr-defined]

    def save_str(self, obj: str) -> None:
        self.save_bytes(obj.encode("latin1"))

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str


def python2_pickle(data: Any) -> bytes:
    """``data`` as python 2's pickle wrote it in protocol 2: byte strings, and numpy under its name of that time."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(data)
    return buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def sequence_fields(scene: Scene, name: str) -> dict[str, Any]:
    """The fields of a sequence file.

    The first person's camera pose is not valid in three frames; of the last person nothing is detected in two.
    """
    rng = np.random.default_rng(scene.seed)
    frames = len(scene.T_world2cam)
    fields: dict[str, list[Any]] = {key: [] for key in (
        "poses", "trans", "betas", "betas_clothed", "jointPositions", "poses2d", "genders", "campose_valid", "poses_60Hz",
        "trans_60Hz", "v_template_clothed",
    )}  # fmt: skip
    for number, person in enumerate(scene.people):
        body = person.body()
        points, confidence = openpose18(scene, person, rng)
        valid = np.ones(frames, np.int64)
        if number == 0:
            valid[frames // 2 : frames // 2 + 3] = 0
        if number == len(scene.people) - 1:
            points[frames // 4 : frames // 4 + 2], confidence[frames // 4 : frames // 4 + 2] = 0, 0
        poses = rotmat_to_rotvec(person.pose_rotmat).numpy().reshape(frames, 72)
        joints = body.joints(person.betas, person.pose_rotmat, person.transl)
        fields["poses"].append(poses)
        fields["trans"].append(person.transl.numpy())
        fields["betas"].append(np.append(person.betas.numpy(), np.zeros(290)))  # 3DPW keeps 300 or 10
        fields["betas_clothed"].append(person.betas.numpy())
        fields["jointPositions"].append(joints.numpy().reshape(frames, 72))
        fields["poses2d"].append(np.concatenate((points, confidence[..., None]), -1).transpose(0, 2, 1).copy())
        fields["genders"].append({"male": "m", "female": "f"}[person.gender])
        fields["campose_valid"].append(valid)
        fields["poses_60Hz"].append(np.repeat(poses, 2, 0))
        fields["trans_60Hz"].append(np.repeat(person.transl.numpy(), 2, 0))
        fields["v_template_clothed"].append(body.v_template.numpy())
    return {
        **fields,
        "sequence": name,
        "cam_poses": scene.T_world2cam.numpy(),
        "cam_intrinsics": scene.K.numpy(),
        "img_frame_ids": np.arange(frames) * 2,
        "texture_maps": [],
    }


def write_3dpw(
    root: str | Path,
    sequences: int = 2,
    frames: int = 45,
    split: str = "test",
    images: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a miniature of one split; returns ``root``.

    Args:
        root: folder that gets ``sequenceFiles``, ``imageFiles`` and a manifest.
        sequences: how many, 1 to 32; the first has two people, and so has every other.
        frames: of each, at 30 frames/s.
        images: whether to render the frames.
        progress: called with (sequences done, sequences).

    Raises:
        UsageError: numbers out of range.
        OutputError: the folder cannot be written.
    """
    if not 1 <= sequences <= len(NAMES):
        raise UsageError(f"sequences: expected 1 to {len(NAMES)}, got {sequences}.")
    if not 8 <= frames <= MOST_FRAMES:
        raise UsageError(f"frames: expected 8 to {MOST_FRAMES}, got {frames}.")
    if split not in SPLITS:
        raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    root = Path(root)
    for number, name in enumerate(NAMES[:sequences]):
        film = scene(frames, 2 - number % 2, number)
        with atomic_write(root / "sequenceFiles" / split / f"{name}.pkl") as stream:
            stream.write(python2_pickle(sequence_fields(film, name)))
        for index, image in enumerate(film.frames() if images else ()):
            write_jpg(image_path(root, name, index), image)
        if progress is not None:
            progress(number + 1, sequences)
    with atomic_write(root / MANIFEST) as stream:
        stream.write(json.dumps({"miniature": True, "splits": {split: sorted(NAMES[:sequences])}}, indent=1).encode())
    return root
