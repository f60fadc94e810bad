"""Records check themselves, and come back from disk as they went."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kinflow.errors import FormatError, MissingAssetError, OutputError, ShapeError, check_shape
from kinflow.evidence import Evidence
from kinflow.records import atomic_write
from kinflow.skeleton import BODYPIX24


def evidence(frames: int = 4, **changes: object) -> Evidence:
    values: dict[str, object] = {
        "person_id": 0,
        "frame_ids": np.arange(frames),
        "timestamps": np.arange(frames) / 25,
        "observed": np.ones(frames, bool),
        "keypoints2d": np.random.default_rng(0).normal(size=(frames, 33, 2)),
        "confidence": np.ones((frames, 33)),
        "world_landmarks": np.zeros((frames, 33, 3)),
        "has_world": np.ones(frames, bool),
        "boxes_xyxy": np.zeros((frames, 4)),
        "rois": np.zeros((frames, 4)),
        "image_size": np.array([640, 480]),
    }
    return Evidence(**{**values, **changes})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    before = evidence(masks=np.zeros((4, 64, 64), np.uint8))
    after = Evidence.load(before.save(tmp_path / "e.npz"))
    for field in dataclasses.fields(Evidence):
        a, b = getattr(before, field.name), getattr(after, field.name)
        assert (a is None and b is None) or (np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype)
    assert after.person_id == 0 and after.features is None and len(after) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints2d": np.zeros((4, 32, 2))}, "keypoints2d: expected shape"),
        ({"confidence": np.zeros((5, 33))}, "confidence: expected T = 4 as in frame_ids, got 5"),
        ({"confidence": np.full((4, 33), np.nan)}, "confidence: expected finite values, got 132"),
        ({"timestamps": np.zeros(4)}, "strictly increasing"),
        ({"observed": None}, "observed: expected an array"),
        ({"observed": np.array(["a"] * 4)}, "observed: expected bool"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        evidence(**changes)


def test_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError):
        Evidence.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(FormatError, match="cannot be read"):
        Evidence.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(FormatError, match="expected schema"):
        Evidence.load(tmp_path / "other.npz")
    np.savez(tmp_path / "part.npz", schema=Evidence.SCHEMA, person_id=1)
    with pytest.raises(FormatError, match="lacks frame_ids"):
        Evidence.load(tmp_path / "part.npz")
    np.savez(tmp_path / "pickle.npz", schema=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="cannot be read"):
        Evidence.load(tmp_path / "pickle.npz")


def test_a_record_s_file_with_wrong_contents_is_named(tmp_path: Path) -> None:
    """Sound npz files of other arrays: the file is at fault, not a caller's array."""
    good = {f.name: getattr(evidence(), f.name) for f in dataclasses.fields(Evidence)}
    good = {k: v for k, v in good.items() if v is not None} | {"schema": Evidence.SCHEMA}
    for changes, message in (
        ({"keypoints2d": np.zeros((4, 32, 2))}, "keypoints2d: expected shape"),
        ({"confidence": np.full((4, 33), np.nan)}, "confidence: expected finite"),
        ({"person_id": np.arange(2)}, "person_id: expected one whole number"),
        ({"person_id": "one"}, "person_id"),
    ):
        np.savez(tmp_path / "e.npz", **{**good, **changes})
        with pytest.raises(FormatError, match=rf"e\.npz: .*{message}"):
            Evidence.load(tmp_path / "e.npz")


def test_damaged_bytes_are_a_format_error(tmp_path: Path) -> None:
    evidence().save(tmp_path / "whole.npz")
    whole, rng = (tmp_path / "whole.npz").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 4):
            data[at] = rng.integers(256)
        (tmp_path / "e.npz").write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        try:
            Evidence.load(tmp_path / "e.npz")
        except FormatError:
            refused += 1
    assert refused > 150


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a") as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"
    with pytest.raises(OutputError, match="cannot write here"), atomic_write(tmp_path / "a" / "b"):
        pass


def test_check_shape() -> None:
    assert check_shape("x", np.zeros((2, 5, 23, 3)), "... T 23 3") == {"T": 5}
    with pytest.raises(ShapeError, match=r"x: expected shape \(T, T\), got \(2, 3\)\. Make it square"):
        check_shape("x", np.zeros((2, 3)), "T T", "Make it square.")
    with pytest.raises(ShapeError, match="got list"):
        check_shape("x", [1], "1")


def test_the_page_names_the_fields_of_evidence() -> None:
    page = (Path(__file__).parents[1] / "docs" / "perception.md").read_text()
    for row in Evidence.describe():
        assert f"| `{row[0]}` | {row[1]} | {row[2]} | {row[3]} |" in page
    for number, name in enumerate(BODYPIX24, 1):
        assert f"{number} {name}" in page
