"""EMDB, single frames, COCO's persons and AMASS on miniatures in their own layouts; what is wrong is told file by file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinflow.body import Body
from kinflow.cameras import project
from kinflow.datasets.amass import Amass, split_of
from kinflow.datasets.coco import CocoPersons, _unpacked
from kinflow.datasets.emdb import Emdb
from kinflow.datasets.inspection import inspect
from kinflow.datasets.miniature import others, write_amass, write_coco, write_emdb, write_single_frames
from kinflow.datasets.miniature.scenes import scene
from kinflow.datasets.miniature.smpl import gendered
from kinflow.datasets.recording import Recording
from kinflow.datasets.single_frames import JOINTS, SingleFrames
from kinflow.errors import FormatError, KinflowError, MissingAssetError, ShapeError, UsageError
from kinflow.evaluation.predictions import true_parameters
from kinflow.perception.keypoints import keypoint_map
from kinflow.rotations import rotvec_to_rotmat

ROOT = Path(__file__).parents[1]


def body_of(recording: Recording) -> Body:
    assert recording.smpl is not None
    return Body(gendered(recording.smpl.gender), torch.float64)


# -- EMDB -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_emdb(tmp_path_factory.mktemp("emdb"), frames=9)


def test_emdb_parameters_project_onto_its_keypoints(emdb: Path) -> None:
    data = Emdb(emdb, images=True)
    assert data.sequences == ("P0_00_mini_walk", "P1_01_mini_stroll")
    for name in data.sequences:
        (recording,) = data.read(name)
        joints = true_parameters(recording, body_of(recording)).joints()
        assert recording.K is not None and recording.keypoints2d is not None
        pixels = project(joints, torch.from_numpy(recording.K)).numpy()
        np.testing.assert_allclose(pixels, recording.keypoints2d, atol=1e-3)
        assert recording.image_size == (360, 480) and len(recording.images) == 9 and recording.valid.sum() == 7
    assert Emdb(emdb, "1").sequences == ("P0_00_mini_walk",) and Emdb(emdb, "2").sequences == ("P1_01_mini_stroll",)


def emdb_with(root: Path, emdb: Path, **fields: Any) -> Emdb:
    """Its first sequence with other fields (dots go down)."""
    source = emdb / "P0/00_mini_walk/P0_00_mini_walk_data.pkl"
    data = pickle.loads(source.read_bytes())
    for key, value in fields.items():
        inside = data
        *path, last = key.split("__")
        for part in path:
            inside = inside[part]
        inside.pop(last) if value is None else inside.update({last: value})
    target = root / source.relative_to(emdb)
    target.parent.mkdir(parents=True)
    target.write_bytes(pickle.dumps(data))
    return Emdb(root)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"smpl__trans": None}, r"smpl\.trans is missing"),
        ({"smpl__poses_body": np.zeros((3, 69))}, r"smpl\.poses_body: expected shape \(9, 69\)"),
        ({"camera__extrinsics": np.full((9, 4, 4), np.inf)}, "extrinsics: expected finite"),
        ({"gender": "m"}, "gender"),
        ({"n_frames": 0}, "n_frames"),
        ({"smpl__betas": np.zeros(3)}, "betas"),
        ({"camera__width": "wide"}, "width cannot be read"),
    ],
)
def test_emdb_names_what_does_not_fit(tmp_path: Path, emdb: Path, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ShapeError, match=told):
        emdb_with(tmp_path, emdb, **fields).read("P0_00_mini_walk")


def test_emdb_that_is_damaged_or_missing(tmp_path: Path, emdb: Path) -> None:
    data = emdb_with(tmp_path, emdb)
    with pytest.raises(MissingAssetError, match="images"):
        Emdb(tmp_path, images=True).read("P0_00_mini_walk")
    path = tmp_path / "P0/00_mini_walk/P0_00_mini_walk_data.pkl"
    (path.parent / "images").mkdir()
    (path.parent / "images/00000.jpg").touch()
    with pytest.raises(FormatError, match="got 1 images"):
        Emdb(tmp_path, images=True).read("P0_00_mini_walk")
    path.write_bytes(path.read_bytes()[:500])
    assert Emdb(tmp_path, "2").sequences == data.sequences  # to be told when it is read
    with pytest.raises(FormatError, match="P0_00_mini_walk_data"):
        data.read("P0_00_mini_walk")
    with pytest.raises(MissingAssetError, match="no sequence"):
        data.read("P9")
    with pytest.raises(UsageError, match="subset"):
        Emdb(emdb, "3")
    with pytest.raises(MissingAssetError, match="EMDB"):
        Emdb(tmp_path / "none")


# -- single frames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fps", "step"), [("h36m", 50.0, 5), ("mpi_inf_3dhp", 25.0, 10)])
def test_single_frames_become_sequences(tmp_path: Path, kind: str, fps: float, step: int) -> None:
    data = SingleFrames(write_single_frames(tmp_path / "a.npz", kind, frames=6), kind, fps)
    assert len(data.sequences) == 2 and data.name == kind
    (recording,) = data.read(data.sequences[0])
    np.testing.assert_allclose(np.diff(recording.timestamps), step / fps)
    assert recording.frame_ids[0] == 1 and recording.joints3d is not None and recording.smpl is not None
    body, truth = body_of(recording_with_gender(recording)), recording.smpl
    rotvec = np.concatenate((truth.global_orient[:, None], truth.body_pose), 1)
    joints = body.joints(torch.from_numpy(truth.betas), rotvec_to_rotmat(torch.from_numpy(rotvec))).numpy()
    index = [JOINTS.index(name) for name in ("left_knee", "right_wrist", "left_ankle")]
    mine = joints[:, [4, 21, 7]] - joints[:, :1]
    np.testing.assert_allclose(mine, recording.joints3d[:, index], atol=1e-6)
    assert np.isnan(recording.joints3d[:, JOINTS.index("nose")]).all()
    assert (recording.confidence[:, JOINTS.index("nose")] == 0).all()  # type: ignore[index]
    assert truth.transl is None
    pairs = dict(keypoint_map(recording.layout, "blazepose33"))
    assert pairs[JOINTS.index("left_wrist")] == 15 and JOINTS.index("neck_lsp") not in pairs


def recording_with_gender(recording: Recording) -> Recording:
    import dataclasses

    assert recording.smpl is not None
    return dataclasses.replace(recording, smpl=dataclasses.replace(recording.smpl, gender="male"))


def test_single_frames_that_do_not_fit(tmp_path: Path) -> None:
    path = write_single_frames(tmp_path / "a.npz", frames=3, smpl=False)
    data = SingleFrames(path, "h36m", 50)
    assert data.read(data.sequences[0])[0].smpl is None
    with pytest.raises(MissingAssetError, match="2 more"):
        SingleFrames(path, "h36m", 50, tmp_path).read(data.sequences[0])
    with np.load(path) as npz:
        arrays = dict(npz)

    def changed(**fields: Any) -> SingleFrames:
        np.savez(tmp_path / "b.npz", **(arrays | fields))
        return SingleFrames(tmp_path / "b.npz", "h36m", 50)

    with pytest.raises(FormatError, match="end in a number"):
        changed(imgname=np.array(["walking.jpg"] * 6))
    twice = changed(imgname=np.array([arrays["imgname"][0]] * 6))
    with pytest.raises(FormatError, match="twice"):
        twice.read(twice.sequences[0])
    with pytest.raises(ShapeError, match="part"):
        changed(part=arrays["part"][:, :17]).read(data.sequences[0])
    with pytest.raises(UsageError, match="fps"):
        SingleFrames(path, "h36m", 0)
    with pytest.raises(MissingAssetError):
        SingleFrames(tmp_path / "none.npz", "h36m", 50)


# -- COCO -----------------------------------------------------------------------------------------------------------------


def test_coco_keypoints_masks_and_images_agree(tmp_path: Path) -> None:
    data = CocoPersons(write_coco(tmp_path), "val", images=True)
    assert data.sequences == ("000000000001", "000000000002")
    first, second = data.read("000000000001")
    film = scene(8, 2, 1)
    for recording, person, exact in ((first, film.people[0], False), (second, film.people[1], True)):
        assert recording.mask is not None and recording.confidence is not None and recording.keypoints2d is not None
        mask, truth = recording.mask(0), others.silhouette(film, person)
        assert mask.shape == (480, 360)
        overlap = (mask & truth).sum() / (mask | truth).sum()
        assert overlap == 1.0 if exact else overlap > 0.6  # the outline fills what is between arms and legs
        seen = recording.confidence[0] > 0
        x, y = recording.keypoints2d[0][seen].astype(int).T
        assert mask[y, x].mean() > 0.8
        assert recording.confidence[0, 3:5].tolist() == [0.5, 0.0]
    assert len(first.images) == 1 and first.images[0].is_file() and len(first) == 1


def test_cocos_run_lengths() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((7, 5)) > 0.5
    from kinflow.datasets.coco import _mask

    np.testing.assert_array_equal(_mask({"size": [7, 5], "counts": others.run_lengths(mask)}, (5, 7), 0), mask)
    # 6 1 40 4 5 4 5 4 21, written by COCO's own tools.
    assert _unpacked("61X13mN000`0") == [6, 1, 40, 4, 5, 4, 5, 4, 21]
    square = _mask([[1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]], (5, 5), 0)
    assert square.sum() == 6 and square[1:3, 1:4].all()
    for damaged in ([["a"]], {"counts": [3]}, {}):
        with pytest.raises(FormatError, match="segmentation"):
            _mask(damaged, (5, 7), 0)


def test_coco_that_does_not_fit(tmp_path: Path) -> None:
    root = write_coco(tmp_path, images=1)
    with pytest.raises(MissingAssetError, match="annotations_trainval2017"):
        CocoPersons(root, "train")
    with pytest.raises(UsageError, match="split"):
        CocoPersons(root, "test")
    (root / "val2017/000000000001.jpg").unlink()
    with pytest.raises(MissingAssetError, match=r"val2017\.zip"):
        CocoPersons(root, "val", images=True).read("000000000001")
    path = root / "annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"] = [1, 2]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="image 000000000001"):
        CocoPersons(root, "val").read("000000000001")
    path.write_text('{"images": 3}')
    with pytest.raises(FormatError, match="person_keypoints_val2017"):
        CocoPersons(root, "val")


# -- AMASS ----------------------------------------------------------------------------------------------------------------


def test_amass_splits_rates_and_axes(tmp_path: Path) -> None:
    root = write_amass(tmp_path, frames=12)
    assert {s: Amass(root, s).sequences for s in ("train", "validation", "test")} == {
        "train": ("CMU/01/01_01_poses",),
        "validation": ("HumanEva/S1/Walking_1_stageii",),
        "test": ("SSM_synced/20160330/walk_poses",),
    }
    assert split_of("ACCAD/a/b") == "train" and len(Amass(root).sequences) == 3
    for number, name in enumerate(Amass(root).sequences):
        (recording,) = Amass(root).read(name)
        person = scene(12, 1, number).people[0]
        truth = recording.smpl
        assert truth is not None and truth.transl is not None
        assert truth.gender == ("male", "female", "neutral")[number]
        turned = rotvec_to_rotmat(torch.from_numpy(truth.global_orient))
        np.testing.assert_allclose(turned, person.pose_rotmat[:, 0], atol=1e-9)
        np.testing.assert_allclose(truth.transl, person.transl, atol=0.025)  # the body's own pelvis is not in the file
    (recording,) = Amass(root).read("CMU/01/01_01_poses")
    assert 1 / np.diff(recording.timestamps)[0] == pytest.approx(others.AMASS_RATE, abs=1e-9)
    with pytest.raises(UsageError, match="split"):
        Amass(root, "dev")
    with pytest.raises(MissingAssetError):
        Amass(tmp_path / "none")


# -- all of them ----------------------------------------------------------------------------------------------------------


class Half:
    """A data set of two sequences, the second of which is damaged, and a third that is missing."""

    name, sequences, missing = "half", ("good", "bad"), ("gone",)

    def read(self, sequence: str) -> list[Recording]:
        if sequence == "bad":
            raise FormatError("bad.pkl: damaged.")
        return [Recording("half", sequence, 0, np.arange(3.0), np.arange(3), np.array([True, True, False]))]


def test_a_manifest_tells_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    steps: list[int] = []
    found = inspect(Half(), lambda done, total: steps.append(done))
    assert found.sequences == {"good": {"people": 1, "frames": 3, "valid": 2, "seconds": 2.0}} and steps == [1, 2]
    assert found.faults == {"gone": "no such file", "bad": "bad.pkl: damaged."}
    found.save(tmp_path / "manifest.json")
    assert json.loads((tmp_path / "manifest.json").read_text())["schema"] == "kinflow.dataset/1"


def test_the_tools_write_and_look_through_a_miniature(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)

    made = run("tools/make_miniature.py", "amass", "--out", str(tmp_path / "amass"), "--frames", "8")
    assert made.returncode == 0, made.stderr
    (tmp_path / "amass/CMU/01/01_01_poses.npz").write_bytes(b"no npz")
    looked = run(
        "tools/prepare_dataset.py", "amass", "--root", str(tmp_path / "amass"), "--out", str(tmp_path / "m.json")
    )
    assert looked.returncode == 6 and "CMU/01/01_01_poses: 01_01_poses.npz" in looked.stdout
    assert looked.stderr.count("\n") == 1 and len(json.loads((tmp_path / "m.json").read_text())["sequences"]) == 2
    assert issubclass(FormatError, KinflowError)
