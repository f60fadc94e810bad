"""The 3DPW reader on a miniature in the data set's exact layout, pickled as python 2 did."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinflow.body import Body
from kinflow.datasets.miniature import write_3dpw, write_smpl
from kinflow.datasets.miniature.threedpw import python2_pickle
from kinflow.datasets.recording import Recording, shard
from kinflow.datasets.threedpw import TEST_SEQUENCES, ThreeDPW, image_path, read_3dpw, sequence_files
from kinflow.errors import FormatError, MissingAssetError, ShapeError, UsageError
from kinflow.rotations import rotvec_to_rotmat
from kinflow.video.images import read_image


def dump(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_pickle(data))
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
        ({"img_frame_ids": [0, 2, 2, 4]}, "increasing numbers, got 2 before 2"),
        ({"trans": [np.full((4, 3), np.nan)] * 2}, "trans: expected finite"),
        ({"cam_poses": np.zeros((0, 4, 4))}, "at least one frame"),
        ({"genders": 1}, "genders: expected a list"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        read_3dpw(dump(tmp_path / "a.pkl", miniature(**changes)))


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    whole = dump(tmp_path / "a.pkl", miniature()).read_bytes()
    (tmp_path / "a.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"a\.pkl: cannot be read"):
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


# -- the miniature --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    write_smpl(root / "body")
    return write_3dpw(root, sequences=2, frames=12)


def smpl_joints(recording: Recording, folder: Path) -> np.ndarray:
    """(T, 24, 3) of the recording's parameters on the body of its gender."""
    truth = recording.smpl
    assert truth is not None
    body = Body.from_file(folder, truth.gender, "smpl").double()
    rotvec = np.concatenate((truth.global_orient[:, None], truth.body_pose), 1)
    joints = body.joints(
        torch.from_numpy(truth.betas), rotvec_to_rotmat(torch.from_numpy(rotvec)), torch.from_numpy(truth.transl)
    )
    return joints.numpy()


def test_the_written_miniature_is_in_the_documented_layout(mini: Path) -> None:
    path = mini / "sequenceFiles/test/miniature_meeting_00.pkl"
    assert b"cnumpy.core.multiarray\n_reconstruct" in path.read_bytes() and path.read_bytes()[:2] == b"\x80\x02"
    with path.open("rb") as file:
        fields = pickle.load(file, encoding="latin1")  # as the field reads it
    assert set(fields) >= {"poses", "trans", "betas", "poses2d", "genders", "jointPositions", "campose_valid", "cam_poses",
                           "cam_intrinsics", "img_frame_ids", "sequence", "texture_maps"}  # fmt: skip
    assert fields["genders"] == ["m", "f"] and fields["poses2d"][0].shape == (12, 3, 18)
    assert fields["poses"][0].flags.writeable and fields["cam_poses"].shape == (12, 4, 4)


def test_parameters_joints_pixels_and_images_agree(mini: Path) -> None:
    data = ThreeDPW(mini, "test", images=True)
    assert data.sequences == ("miniature_meeting_00", "miniature_walking_00") and data.missing == ()
    first, second = data.read("miniature_meeting_00")
    assert (first.name, second.name, len(first)) == ("miniature_meeting_00_0", "miniature_meeting_00_1", 12)
    for recording in (first, second):
        assert recording.joints3d is not None and recording.K is not None and recording.T_world2cam is not None
        np.testing.assert_allclose(smpl_joints(recording, mini / "body"), recording.joints3d, atol=1e-6)
        to_camera = recording.T_world2cam
        hips = recording.joints3d[:, 1:3].mean(1)
        in_camera = np.einsum("tij,tj->ti", to_camera[:, :3, :3], hips) + to_camera[:, :3, 3]
        pixels = in_camera @ recording.K.T
        keypoints = recording.keypoints2d
        assert keypoints is not None and recording.confidence is not None
        left, right = (recording.layout.index(f"{side}_hip") for side in ("left", "right"))
        seen = (recording.confidence[:, [left, right]] > 0).all(1)
        away = keypoints[seen][:, [left, right]].mean(1) - (pixels[:, :2] / pixels[:, 2:])[seen]
        assert seen.any() and np.abs(away).max() < 8  # marked points lie off the joints' centres
        assert (in_camera[:, 2] > 2).all()
    image = read_image(first.images[0])
    assert image.shape == (480, 360, 3)
    # The person's own pixels differ from frame to frame, the background only by noise: it moves where the joints are.
    moved = np.abs(image.astype(int) - read_image(first.images[11])).sum(-1) > 120
    rows = np.nonzero(moved)[0]
    assert 90 < rows.mean() < 350 and len(rows) > 200
    assert not first.valid.all() and first.valid.sum() == 9
    assert (second.confidence == 0).all(1).sum() == 2  # type: ignore[union-attr]


def test_shards_are_disjoint_and_whole(mini: Path) -> None:
    data = ThreeDPW(mini)
    parts = [shard(data, i, 2) for i in range(2)]
    assert sorted(parts[0] + parts[1]) == list(data.sequences) and len(parts[0]) == 1
    with pytest.raises(UsageError, match="shard"):
        shard(data, 2, 2)


def test_what_is_missing_is_told_file_by_file(mini: Path, tmp_path: Path) -> None:
    root = write_3dpw(tmp_path, sequences=1, frames=8, images=False)
    assert ThreeDPW(root).read("miniature_meeting_00")[0].images == ()
    with pytest.raises(MissingAssetError, match=r"miniature_meeting_00: no images; imageFiles\.zip is at https"):
        ThreeDPW(root, images=True).read("miniature_meeting_00")
    folder = root / "imageFiles/miniature_meeting_00"
    folder.mkdir(parents=True)
    for frame in (0, 1, 3, 4, 5, 6, 7):
        (folder / f"image_{frame:05d}.jpg").touch()
    with pytest.raises(FormatError, match=r"expected 8, one a pose, got 7 \(image_00002\.jpg"):
        ThreeDPW(root, images=True).read("miniature_meeting_00")
    for frame in (2, 8):
        (folder / f"image_{frame:05d}.jpg").touch()
    with pytest.raises(FormatError, match=r"got 9 \(more images than poses\)"):
        ThreeDPW(root, images=True).read("miniature_meeting_00")
    with pytest.raises(MissingAssetError, match="none_00: no sequence file"):
        ThreeDPW(root).read("none_00")
    (root / "manifest.json").unlink()
    assert ThreeDPW(root).missing == TEST_SEQUENCES and len(TEST_SEQUENCES) == 24
    (root / "manifest.json").write_text(json.dumps({"splits": {}}))
    with pytest.raises(FormatError, match=r"manifest\.json"):
        ThreeDPW(root)


def test_a_recording_checks_itself() -> None:
    good: dict[str, Any] = {"dataset": "d", "sequence": "s", "person": 0, "timestamps": np.arange(3.0),
                            "frame_ids": np.arange(3), "valid": np.ones(3, bool)}  # fmt: skip
    assert Recording(**good).name == "s_0"
    for change, message in (
        ({"valid": np.ones(2, bool)}, "s_0: valid"),
        ({"timestamps": np.array([0.0, 0, 1])}, "increasing"),
        ({"images": (Path("a.jpg"),)}, "images: expected 3"),
        ({"keypoints2d": np.zeros((3, 2, 2)), "layout": ("nose",)}, "keypoints2d"),
    ):
        with pytest.raises(ShapeError, match=message):
            Recording(**(good | change))
