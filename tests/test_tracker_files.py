"""Other trackers' own files: pickles and torch files in their published layouts, what is damaged, and what is ambiguous."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from walker import rotvecs, walk

from kinflow.cli.smooth import main
from kinflow.datasets.pickles import load_numpy_pickle
from kinflow.errors import FormatError, ShapeError, UsageError
from kinflow.formats.pose_files import read_pose_file
from kinflow.formats.tracker_files import read_tracker_file, unpack_tracker_file
from kinflow.rotations import rotvec_to_rotmat

joblib = pytest.importorskip("joblib", reason="joblib comes with scikit-learn: pip install 'kinflow[test]'")

Array = NDArray[Any]
FRAMES = 16


@pytest.fixture(scope="module")
def walked() -> tuple[Array, Array]:
    steps = walk(FRAMES, 30.0)
    return rotvecs(steps).numpy().astype(np.float32), steps.transl.numpy().astype(np.float32)


def person(rotvec: Array, transl: Array, kind: str) -> dict[str, Any]:
    """One person as a tracker has them."""
    ids, flat = np.arange(3, 3 + len(rotvec)), rotvec.reshape(len(rotvec), 72)
    body = {"betas": np.zeros((len(ids), 10), np.float32), "verts": np.zeros((len(ids), 40, 3), np.float32)}
    if kind == "wham":
        return {"pose": flat, "trans": transl, "pose_world": flat, "trans_world": transl, **body, "frame_ids": ids}
    pose = flat if kind == "vibe" else rotvec_to_rotmat(torch.from_numpy(rotvec)).numpy()
    return {"pred_cam": np.ones((len(ids), 3), np.float32), "pose": pose, **body, "bboxes": np.ones((len(ids), 4)),
            "joints2d": None, "frame_ids": ids}  # fmt: skip


def gvhmr(rotvec: Array, transl: Array) -> dict[str, Any]:
    def side(root: Array) -> dict[str, torch.Tensor]:
        arrays = {"body_pose": rotvec[:, 1:22].reshape(-1, 63), "global_orient": root, "transl": transl}
        return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}

    return {
        "smpl_params_global": side(rotvec[:, 0]), "smpl_params_incam": side(rotvec[:, 0] * 0.5),
        "K_fullimg": torch.eye(3).expand(len(rotvec), 3, 3), "net_outputs": {"model_output": {"pred_x": torch.ones(1)}},
    }  # fmt: skip


def write(path: Path, walked: tuple[Array, Array], kind: str) -> Path:
    if kind == "gvhmr":
        torch.save(gvhmr(*walked), path)
    else:
        people: dict[int, Any] = defaultdict(dict)  # as WHAM has it
        people[0] = person(*walked, kind)
        joblib.dump(people if kind == "wham" else dict(people), path)
    return path


@pytest.mark.parametrize("kind", ["vibe", "pare", "wham", "gvhmr"])
def test_every_tracker_is_read(tmp_path: Path, walked: tuple[Array, Array], kind: str) -> None:
    path = write(tmp_path / ("hmr4d_results.pt" if kind == "gvhmr" else f"{kind}_output.pkl"), walked, kind)
    file = read_pose_file(unpack_tracker_file(path, tmp_path), fps=30)
    truth = rotvec_to_rotmat(torch.from_numpy(walked[0])).numpy()
    np.testing.assert_allclose(file.body_rotmat[0], truth[:, 1:22], atol=1e-5)
    assert file.fps == pytest.approx(30) and not file.missing.any()
    for root in file.roots.values():
        assert root.shape == (1, FRAMES, 3, 3)
    if kind == "gvhmr":
        assert set(file.roots) == {"global_orient", "global_orient_incam"}
        np.testing.assert_allclose(file.roots["global_orient"][0], truth[:, 0], atol=1e-5)
        half = rotvec_to_rotmat(torch.from_numpy(walked[0][:, 0] * 0.5)).numpy()
        np.testing.assert_allclose(file.roots["global_orient_incam"][0], half, atol=1e-5)
        assert set(file.translations) == {"transl", "transl_incam"}
    if kind == "wham":
        assert set(file.roots) == {"pose", "pose_world"} and set(file.translations) == {"trans", "trans_world"}


def test_aist_is_brought_to_metres(tmp_path: Path, walked: tuple[Array, Array]) -> None:
    rotvec, transl = walked
    dance = {
        "smpl_poses": rotvec.reshape(-1, 72),
        "smpl_trans": 90 * transl,
        "smpl_scaling": np.array([90.0], np.float32),
    }
    joblib.dump({**dance, "smpl_loss": 1.5}, tmp_path / "gBR.pkl")
    arrays = read_tracker_file(tmp_path / "gBR.pkl")
    np.testing.assert_allclose(arrays["smpl_trans"], transl, rtol=1e-5, atol=1e-6)
    assert arrays["smpl_scaling"] == 1 and arrays["smpl_loss"] == 1.5


def test_joblib_is_read_as_it_reads_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    value = {
        "floats": rng.random((3, 5)), "fortran": np.asfortranarray(rng.random((4, 2)).astype(np.float32)),
        "big": np.array([1, 2], ">i4"), "empty": np.zeros((0, 3)), "flags": np.array([True, False]),
        "nested": [np.arange(3), {"deep": np.float32(2.5)}], "text": "a",
    }  # fmt: skip
    for protocol in (2, 4, 5):
        joblib.dump(value, tmp_path / "a.pkl", protocol=protocol)
        got, known = load_numpy_pickle(tmp_path / "a.pkl"), joblib.load(tmp_path / "a.pkl")
        for key in ("floats", "fortran", "big", "empty", "flags"):
            np.testing.assert_array_equal(got[key], known[key])
            assert got[key].dtype.newbyteorder("=") == known[key].dtype  # joblib turns bytes round
        np.testing.assert_array_equal(got["nested"][0], np.arange(3))
        assert got["nested"][1]["deep"] == 2.5 and got["text"] == "a"
    data = (tmp_path / "a.pkl").read_bytes()
    for cut in (len(data) // 3, len(data) // 2, len(data) - 3):
        (tmp_path / "a.pkl").write_bytes(data[:cut])
        with pytest.raises(FormatError):
            load_numpy_pickle(tmp_path / "a.pkl")
    joblib.dump({"a": np.array([{}, None], object)}, tmp_path / "objects.pkl")
    with pytest.raises(FormatError, match="objects"):
        load_numpy_pickle(tmp_path / "objects.pkl")


def test_several_people_are_chosen_among(tmp_path: Path, walked: tuple[Array, Array]) -> None:
    path = tmp_path / "vibe_output.pkl"
    other = person(walked[0][::-1].copy(), walked[1], "vibe")
    joblib.dump({1: person(*walked, "vibe"), 7: other}, path)
    with pytest.raises(UsageError, match=r"holds 2 people: 1, 7\. Choose one with --person"):
        read_tracker_file(path)
    with pytest.raises(UsageError, match="has no '2', but 1, 7"):
        read_tracker_file(path, "2")
    np.testing.assert_array_equal(read_tracker_file(path, "7")["pose"], other["pose"])
    with pytest.raises(UsageError, match="one person without a name"):
        read_tracker_file(write(tmp_path / "a.pt", walked, "gvhmr"), "0")


def test_what_is_no_tracker_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(FormatError, match=r"bad\.pt: cannot be read as tensors"):
        read_tracker_file(tmp_path / "bad.pt")
    torch.save([torch.ones(3)], tmp_path / "list.pt")
    with pytest.raises(FormatError, match="got a list"):
        read_tracker_file(tmp_path / "list.pt")
    torch.save({"name": "nothing"}, tmp_path / "text.pt")
    with pytest.raises(ShapeError, match="expected arrays of body pose, got name"):
        read_tracker_file(tmp_path / "text.pt")


def test_the_command_takes_them(
    tmp_path: Path, walked: tuple[Array, Array], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path / "wham_output.pkl", walked, "wham"), tmp_path / "clean.npz"
    assert main([str(path), "-o", str(out), "--fps", "30", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["input"] == str(path) and told["frames"] == FRAMES and any("verts" in n for n in told["notes"])
    with np.load(out) as made:
        assert made["pose"].shape == (FRAMES, 72) and made["frame_ids"][0] == 3
    assert main([str(path), "-o", str(out)]) == 2 and "--fps" in capsys.readouterr().err
    assert main([str(path), "-o", str(out), "--fps", "30", "--person", "4"]) == 2
    assert "has no '4', but 0" in capsys.readouterr().err
    assert main([str(out), "-o", str(tmp_path / "b.npz"), "--fps", "30", "--person", "0"]) == 2
    assert "an npz is smoothed whole" in capsys.readouterr().err
    assert main([str(tmp_path / "none.pkl"), "-o", str(out), "--fps", "30"]) == 3
    assert main([str(path), "-o", str(path), "--fps", "30"]) == 2  # never over the input
