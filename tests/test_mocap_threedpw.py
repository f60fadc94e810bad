"""The 3DPW reader on a miniature in the data set's exact layout, pickled as python 2 did."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from kinflow.datasets.threedpw import image_path, load_numpy_pickle, read_3dpw, sequence_files
from kinflow.errors import MissingAssetError, ShapeError, UsageError


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2 with byte strings as python 2 wrote them, and the module names of its numpy."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, obj: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)

    def save_str(self, obj: str) -> None:
        self.save_bytes(obj.encode("latin1"))

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str


def dump(path: Path, data: Any) -> Path:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core", b"numpy.core"))
    return path


def miniature(frames: int = 4, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {
        "sequence": "downtown_mini_00",
        "poses": [rng.normal(size=(frames, 72)) for _ in range(2)],
        "trans": [rng.normal(size=(frames, 3)) for _ in range(2)],
        "betas": [rng.normal(size=300), rng.normal(size=10)],
        "betas_clothed": [rng.normal(size=10)] * 2,
        "jointPositions": [rng.normal(size=(frames, 72)) for _ in range(2)],
        "poses2d": [rng.normal(size=(frames, 3, 18)) for _ in range(2)],
        "genders": ["m", "f"],
        "campose_valid": [np.ones(frames, np.int64), np.array([1] * (frames - 1) + [0])],
        "cam_poses": np.tile(np.eye(4), (frames, 1, 1)),
        "cam_intrinsics": np.array([[1900.0, 0, 540], [0, 1900, 960], [0, 0, 1]]),
        "img_frame_ids": np.arange(frames) * 2,
        "texture_maps": [],
    }
    data.update(changes)
    return {k: v for k, v in data.items() if v is not None}


def test_miniature(tmp_path: Path) -> None:
    data = miniature()
    path = dump(tmp_path / "sequenceFiles" / "test" / "downtown_mini_00.pkl", data)
    assert b"_codecs" not in path.read_bytes()  # as python 2 wrote: no helper but numpy's
    got = read_3dpw(path)
    assert (got.name, len(got), got.fps, len(got.actors)) == ("downtown_mini_00", 4, 30.0, 2)
    np.testing.assert_array_equal(got.frame_ids, [0, 2, 4, 6])
    np.testing.assert_array_equal(got.K, data["cam_intrinsics"])
    first, second = got.actors
    np.testing.assert_array_equal(first.poses, data["poses"][0])
    assert first.betas.shape == (10,) and (first.gender, second.gender) == ("male", "female")
    np.testing.assert_array_equal(second.joints3d[2, 5], data["jointPositions"][1][2, 15:18])
    np.testing.assert_array_equal(first.keypoints2d[1, 7], data["poses2d"][0][1, :2, 7])
    np.testing.assert_array_equal(first.confidence[3], data["poses2d"][0][3, 2])
    assert second.campose_valid.tolist() == [True, True, True, False]
    assert sequence_files(tmp_path, "test") == [path]
    assert image_path(tmp_path, got.name, 7).name == "image_00007.jpg"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cam_poses": np.zeros((4, 3, 4))}, "cam_poses"),
        ({"poses": [np.zeros((3, 72))] * 2}, "poses"),
        ({"poses2d": [np.zeros((4, 18, 3))] * 2}, "poses2d"),
        ({"genders": ["m", "x"]}, "genders"),
        ({"betas": [np.zeros(9)] * 2}, "betas"),
        ({"trans": [np.zeros((4, 3))]}, "actor"),
        ({"jointPositions": None}, "jointPositions"),
        ({"img_frame_ids": ["a", "b", "c", "d"]}, "img_frame_ids"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        read_3dpw(dump(tmp_path / "a.pkl", miniature(**changes)))


class Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("exit 1",)


def test_code_in_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"poses": Harm()}, protocol=2))
    with pytest.raises(ShapeError, match="only numpy"):
        load_numpy_pickle(path)
    path.write_bytes(b"cnumpy\nload\n.")  # a function of numpy that is no array
    with pytest.raises(ShapeError, match=r"numpy\.load"):
        load_numpy_pickle(path)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    whole = dump(tmp_path / "a.pkl", miniature()).read_bytes()
    (tmp_path / "a.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShapeError, match="cannot be read"):
        read_3dpw(tmp_path / "a.pkl")
    with pytest.raises(MissingAssetError):
        read_3dpw(tmp_path / "none.pkl")
    with pytest.raises(MissingAssetError, match="3DPW"):
        sequence_files(tmp_path)
    with pytest.raises(UsageError, match="split"):
        sequence_files(tmp_path, "dev")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1], protocol=2))
    with pytest.raises(ShapeError, match="dict"):
        read_3dpw(tmp_path / "list.pkl")
