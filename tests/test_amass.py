"""AMASS sequences in their exact layouts, made here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kinflow.errors import FormatError, MissingAssetError, UsageError
from kinflow.mocap.amass import SMPL_PELVIS, read_amass
from kinflow.mocap.clips import load_clips
from kinflow.mocap.prepare import amass_clips

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import prepare_mocap


def sequence(width: int, frames: int = 12, **changes: object) -> dict[str, object]:
    rng = np.random.default_rng(width)
    poses = np.zeros((frames, width))
    poses[:, :66] = 0.1 * rng.normal(size=66)
    poses[:, :3] = Rotation.from_euler("x", 90, degrees=True).as_rotvec()  # upright where z is up, facing -y
    poses[:, 66:] = 0.5
    data: dict[str, object] = {
        "poses": poses,
        "trans": np.tile([1.0, 2.0, 0.9], (frames, 1)),
        "betas": rng.normal(size=16),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
        "dmpls": np.zeros((frames, 8)),
    }
    data.update(changes)
    return {k: v for k, v in data.items() if v is not None}


def save(path: Path, data: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **data)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("width, model", [(72, "smpl"), (156, "smplh"), (165, "smplx")])
def test_all_layouts_and_axes(tmp_path: Path, width: int, model: str) -> None:
    data = sequence(width)
    got = read_amass(save(tmp_path / "CMU" / "01" / "01_01_poses.npz", data))
    assert (got.name, got.subject, got.model, got.gender) == ("CMU/01/01_01_poses", "CMU/01", model, "female")
    assert got.motion.fps == 120 and got.betas.shape == (16,)
    np.testing.assert_allclose(got.motion.rotmats[:, 0], np.broadcast_to(np.eye(3), (12, 3, 3)), atol=1e-12)
    body = Rotation.from_rotvec(data["poses"][:, 3:66].reshape(-1, 3)).as_matrix().reshape(12, 21, 3, 3)  # type: ignore[index]
    np.testing.assert_allclose(got.motion.rotmats[:, 1:22], body, atol=1e-12)
    np.testing.assert_array_equal(got.motion.rotmats[:, 22:], np.broadcast_to(np.eye(3), (12, 2, 3, 3)))
    x, y, z = np.array([1.0, 2.0, 0.9]) + SMPL_PELVIS
    np.testing.assert_allclose(got.motion.transl[0], [x, z, -y])


def test_smplx_spelling_and_bytes(tmp_path: Path) -> None:
    data = sequence(165, mocap_framerate=None, mocap_frame_rate=np.array(59.94), gender=np.array(b"male"), betas=None)
    got = read_amass(save(tmp_path / "a_stageii.npz", data))
    assert got.motion.fps == pytest.approx(59.94) and got.gender == "male" and got.betas.shape == (0,)


def test_objects_under_other_keys_do_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", sequence(156, labels_obs=np.array([{"x": 1}], dtype=object)))
    assert read_amass(path).model == "smplh"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"poses": np.zeros((12, 150))}, "156"),
        ({"trans": np.zeros((11, 3))}, "trans"),
        ({"mocap_framerate": None}, "frame_rate"),
        ({"poses": np.full((12, 156), np.nan)}, "finite"),
        ({"poses": None}, "poses"),
        ({"poses": np.array([{"x": 1}], dtype=object)}, "cannot be read"),
    ],
)
def test_bad_sequences(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_amass(save(tmp_path / "a.npz", sequence(156, **changes)))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError):
        read_amass(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FormatError):
        read_amass(tmp_path / "text.npz")


def test_folder_to_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "CMU" / "01" / "a_poses.npz", sequence(156))
    save(tmp_path / "CMU" / "01" / "shape.npz", {"betas": np.zeros(16)})
    save(tmp_path / "CMU" / "02" / "b_poses.npz", {"x": np.zeros(3)})
    clips = amass_clips(tmp_path, "validation")
    assert [c.name for c in clips] == ["amass/CMU/01/a_poses"]
    assert clips[0].fps == 60 and len(clips[0]) == 6 and clips[0].split == "validation"
    assert clips[0].subject == "amass/CMU/01" and "b_poses" in caplog.text


def test_a_folder_of_amass_is_raw_motion_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out.npz"
    for name in ("BMLmovi/Subject_1/walk_poses", "BMLmovi/Subject_2/run_poses"):
        save(raw / f"{name}.npz", sequence(156))
    save(raw / "BMLmovi/Subject_1/shape.npz", {"betas": np.zeros(16)})
    save(raw / "BMLmovi/Subject_2/notes.npz", {"text": np.array("nothing")})
    assert prepare_mocap.main(["--raw", str(raw), "--out", str(out), "--amass-split", "validation"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 .npz files are AMASS sequences, all for validation" in told
    assert "mocap.cs.cmu.edu" not in told  # thanks are due where its data are in
    assert [c.name for c in load_clips(out, "validation")] == [
        "amass/BMLmovi/Subject_1/walk_poses",
        "amass/BMLmovi/Subject_2/run_poses",
    ]


def test_what_is_no_motion_capture_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    command = ["--raw", str(raw), "--out", str(tmp_path / "out.npz")]
    assert prepare_mocap.main(command) == 3
    assert "neither an INDEX.csv beside its folders nor AMASS" in (told := capsys.readouterr().err)
    assert "found no files" in told
    for name in ("a.txt", "b.txt", "c.mp4"):
        (raw / name).touch()
    assert prepare_mocap.main(command) == 3
    assert "found 2 .txt, 1 .mp4" in capsys.readouterr().err
    save(raw / "notes.npz", {"text": np.array("nothing")})
    assert prepare_mocap.main(command) == 3
    assert "none of 1 .npz files is an AMASS sequence" in capsys.readouterr().err
    assert prepare_mocap.main([*command, "--split", "split.yaml"]) == 2
    assert "--split" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
