"""Other tools under test: SMPL parameters that they wrote, an npz or pickle of arrays a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..body import Body
from ..datasets.pickles import load_numpy_pickle
from ..datasets.recording import Recording
from ..errors import FormatError, MissingAssetError, ShapeError, check_shape
from ..records import open_npz, reading
from ..rotations import nearest_rotmat, rotvec_to_rotmat
from .predictions import Parameters, Prediction, nobody

LAYOUT = """\
global_orient (T, 3) or (T, 1, 3, 3) and body_pose (T, 69), (T, 23, 3) or (T, 23, 3, 3), or pose (T, 72), (T, 24, 3) or \
(T, 24, 3, 3); betas (10) or (T, 10); transl (T, 3), may be absent; frame_ids (T), where it is not every frame; all in camera \
axes"""
_ENDINGS = (".npz", ".pkl")


@dataclasses.dataclass(frozen=True)
class _Tool:
    """What was read of one recording."""

    recording: Recording
    arrays: dict[str, NDArray[Any]] | None


class FileSystem:
    """Predictions in a folder: ``SEQUENCE_PERSON.npz`` or ``.pkl``, persons numbered as in the data set.

    Args:
        folder: where they are.
        body: that the parameters belong to.

    Raises:
        MissingAssetError: no such folder.
    """

    needs_images = False

    def __init__(self, folder: Path, body: Body) -> None:
        if not folder.is_dir():
            raise MissingAssetError(
                f"system: no folder {folder}. Give one with SEQUENCE_PERSON.npz files, or a system's name."
            )
        self.folder, self._body, self.name = folder, body, folder.name
        self.settings: dict[str, Any] = {"predictions": folder.name, "body": body.name}

    def observe(self, people: list[Recording]) -> list[_Tool]:
        """Raises MissingAssetError where nobody of the sequence has a file, FormatError and ShapeError for files that do not fit."""
        tools = []
        for person in people:
            paths = [self.folder / f"{person.name}{ending}" for ending in _ENDINGS]
            path = next((p for p in paths if p.is_file()), None)
            tools.append(_Tool(person, None if path is None else _read(path)))
        if all(tool.arrays is None for tool in tools):
            raise MissingAssetError(
                f"{self.folder / people[0].sequence}_0.npz: no such file, nor any other of this sequence."
            )
        return tools

    def predict(self, observed: Sequence[list[_Tool]]) -> list[list[Prediction]]:
        return [[self._of(tool) for tool in tools] for tools in observed]

    def _of(self, tool: _Tool) -> Prediction:
        frames = len(tool.recording)
        if tool.arrays is None:
            return nobody(frames)
        arrays = tool.arrays
        ids = tool.recording.frame_ids
        if not np.isin(arrays["frame_ids"], ids).all():
            raise ShapeError(
                f"{tool.recording.name}: expected frames among the recording's {ids[0]} to {ids[-1]}, got "
                f"{arrays['frame_ids'][0]} to {arrays['frame_ids'][-1]}. Give frame_ids, numbers of its images from 0."
            )
        rows = np.searchsorted(ids, arrays["frame_ids"])
        found = torch.zeros(frames, dtype=torch.bool)
        found[rows] = True
        pose, betas, transl = (
            torch.eye(3).repeat(frames, 24, 1, 1).double(),
            torch.zeros(frames, 10),
            torch.zeros(frames, 3),
        )
        pose[rows] = torch.from_numpy(arrays["pose_rotmat"])
        betas[rows] = torch.from_numpy(arrays["betas"]).float()
        transl[rows] = torch.from_numpy(arrays["transl"]).float()
        prediction = Prediction.of(Parameters(self._body, betas, pose, transl), found)
        return prediction if arrays["placed"].item() else dataclasses.replace(prediction, placed=False)

    def notes(self, observed: list[_Tool]) -> tuple[str, ...]:
        return tuple(f"{tool.recording.name}: no file" for tool in observed if tool.arrays is None)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Rotations (T, 24, 3, 3), betas (T, 10), transl (T, 3) and frame_ids (T) of a file."""
    found: Mapping[str, Any]
    if path.suffix == ".npz":
        with open_npz(path) as npz:
            found = {key: npz.numbers(key) for key in _KEYS if key in npz}
    else:
        data = load_numpy_pickle(path)
        if not isinstance(data, dict):
            raise FormatError(f"{path.name}: expected a dict of arrays, got {type(data).__name__}. Write {LAYOUT}.")
        with reading(path):  # lists of lists of any shape
            found = {key: np.asarray(data[key]) for key in _KEYS if key in data}
    numbers = {}
    for key, value in found.items():
        if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise FormatError(f"{path.name}: {key}: expected finite numbers, got {value.dtype} {value.shape}.")
        numbers[key] = value
    if "pose" in numbers:
        pose = _rotations(path, "pose", numbers["pose"], 24)
    elif "global_orient" in numbers and "body_pose" in numbers:
        parts = [_rotations(path, k, numbers[k], n) for k, n in (("global_orient", 1), ("body_pose", 23))]
        if len(parts[0]) != len(parts[1]):
            raise ShapeError(
                f"{path.name}: body_pose: expected {len(parts[0])} frames as global_orient has, got {len(parts[1])}."
            )
        pose = np.concatenate(parts, 1)
    else:
        raise FormatError(f"{path.name}: expected {LAYOUT}; got {', '.join(numbers) or 'none of these'}.")
    frames = len(pose)
    betas = np.atleast_2d(numbers.get("betas", np.zeros(10)).astype(np.float64))
    if betas.ndim != 2 or betas.shape[1] < 10 or len(betas) not in (1, frames):
        raise ShapeError(f"{path.name}: betas: expected (10) or ({frames}, 10), got {numbers['betas'].shape}.")
    betas = np.broadcast_to(betas[:, :10], (frames, 10)).copy()
    transl = numbers.get("transl")
    if transl is not None:
        check_shape(f"{path.name}: transl", transl, f"{frames} 3")
    ids = numbers.get("frame_ids", np.arange(frames))
    check_shape(f"{path.name}: frame_ids", ids, str(frames))
    if not (np.diff(ids) > 0).all():
        raise ShapeError(f"{path.name}: frame_ids: expected increasing numbers.")
    return {
        "pose_rotmat": pose, "betas": betas, "frame_ids": ids.astype(np.int64),
        "transl": np.zeros((frames, 3)) if transl is None else transl.astype(np.float64),
        "placed": np.array(transl is not None),
    }  # fmt: skip


_KEYS = ("pose", "global_orient", "body_pose", "betas", "transl", "frame_ids")


def _rotations(path: Path, key: str, value: NDArray[Any], joints: int) -> NDArray[np.float64]:
    """(T, joints, 3, 3) of rotation vectors or matrices."""
    frames = len(value) if value.ndim else 0
    if value.ndim and value.size == frames * joints * 3:
        return rotvec_to_rotmat(torch.from_numpy(value.astype(np.float64).reshape(frames, joints, 3))).numpy()
    if value.ndim and value.size == frames * joints * 9 and frames:
        matrices = torch.from_numpy(value.astype(np.float64).reshape(frames, joints, 3, 3))
        proper = nearest_rotmat(matrices)
        if float((proper - matrices).abs().max()) < 1e-2:
            return proper.numpy()
        raise ShapeError(f"{path.name}: {key}: expected rotations, got matrices that are none.")
    raise ShapeError(f"{path.name}: {key}: expected (T, {3 * joints}) or (T, {joints}, 3, 3), got {value.shape}.")
