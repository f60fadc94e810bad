"""kinflow-smooth from outside: every layout goes in and comes out in place; every bad input ends with one line."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from walker import rotvecs, walk

import kinflow
from kinflow.apps.smooth import SmoothingConfig, jitter, smooth_body, smooth_pose_file
from kinflow.body import Body
from kinflow.cli.smooth import main, parser
from kinflow.errors import FormatError
from kinflow.flow import load_flow
from kinflow.formats.pose_files import read_pose_file, write_pose_file
from kinflow.motion import Motion
from kinflow.prior import MotionPrior
from kinflow.rotations import geodesic_distance, rotmat_to_rotvec, rotvec_to_rotmat

Array = NDArray[Any]
FRAMES, FPS = 24, 24.0


@pytest.fixture(scope="module")
def walker() -> tuple[Array, Array]:
    """Rotation vectors (T, 24, 3) and translation (T, 3), without noise."""
    steps = walk(FRAMES, FPS)
    return rotvecs(steps).numpy(), steps.transl.numpy()


@pytest.fixture(scope="module")
def noisy(walker: tuple[Array, Array]) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    rotvec, transl = walker
    turned = rotvec_to_rotmat(torch.from_numpy(rotvec)) @ rotvec_to_rotmat(
        torch.from_numpy(rng.normal(0, 0.07, rotvec.shape).astype(np.float32))
    )
    return rotmat_to_rotvec(turned).numpy(), transl + rng.normal(0, 0.02, transl.shape).astype(np.float32)


@pytest.fixture(scope="module")
def halfway() -> MotionPrior:
    """Stands in where the prior's own work is not what is tested: turns every joint halfway to rest."""

    def halve(body_pose: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.cat((body_pose[:, :, :21] / 2, torch.zeros_like(body_pose[:, :, :2])), 2)

    prior = MotionPrior.load()
    prior.denoise = prior.infill = halve  # type: ignore[method-assign]
    return prior


def layouts(rotvec: Array, transl: Array) -> dict[str, dict[str, Array]]:
    """The same motion as every kind of file that is read."""
    count = len(rotvec)
    flat = rotvec.reshape(count, -1)
    matrices = rotvec_to_rotmat(torch.from_numpy(rotvec)).numpy()
    fingers = np.full((count, 90), 0.1, np.float32)
    quarter = rotvec_to_rotmat(torch.tensor([math.pi / 2, 0.0, 0.0]))
    elsewhere = rotmat_to_rotvec(quarter @ torch.from_numpy(matrices[:, 0])).numpy()
    rest = {"betas": np.zeros(10, np.float32), "fps": np.float64(FPS)}
    return {
        "amass smplh": {"poses": np.concatenate((flat[:, :66], fingers), 1).astype(np.float64), "trans": transl, "mocap_framerate": np.array(FPS), "gender": np.array("male"), "dmpls": np.ones((count, 8))},
        "amass smplx": {"poses": np.concatenate((flat[:, :66], fingers, fingers[:, :9]), 1), "trans": transl, "mocap_frame_rate": np.array(FPS), "root_orient": flat[:, :3], "pose_body": flat[:, 3:66]},
        "amass smpl": {"poses": flat, "trans": transl, "mocap_framerate": np.array(FPS)},
        "69": {"global_orient": flat[:, :3], "body_pose": flat[:, 3:], "transl": transl, **rest},
        "63": {"global_orient": flat[:, :3], "body_pose": flat[:, 3:66], "transl": transl, **rest},
        "23, 3": {"global_orient": rotvec[:, :1], "body_pose": rotvec[:, 1:], "transl": transl, **rest},
        "21, 3": {"body_pose": rotvec[:, 1:22], **rest},
        "24, 3, 3": {"pred_rotmat": matrices, "pred_trans": transl[:, None], **rest},
        "23, 3, 3": {"global_orient": matrices[:, :1], "body_pose": matrices[:, 1:], "transl": transl, **rest},
        "21, 3, 3": {"global_orient": matrices[:, 0], "body_pose": matrices[:, 1:22], "transl": transl, **rest},
        "smpl_pose": {"smpl_pose": flat, "trans": transl, **rest},
        "two worlds": {"pose": flat, "trans": transl, "pose_world": np.concatenate((elsewhere, flat[:, 3:]), 1), "trans_world": 2 * transl, "frame_ids": np.arange(count), **rest},
        "two people": {"body_pose": np.stack((flat[:, 3:], flat[::-1, 3:])), "global_orient": np.stack((flat[:, :3], flat[::-1, :3])), "transl": np.stack((transl, transl)), "betas": np.zeros((2, 10)), "fps": np.float64(FPS)},
    }  # fmt: skip


NAMES = tuple(layouts(np.zeros((2, 24, 3), np.float32), np.zeros((2, 3), np.float32)))


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_drops_into_place(
    tmp_path: Path, noisy: tuple[Array, Array], name: str, halfway: MotionPrior
) -> None:
    arrays = layouts(*noisy)[name]
    np.savez(tmp_path / "in.npz", **arrays)
    file = read_pose_file(tmp_path / "in.npz")
    people = 2 if name == "two people" else 1
    assert file.body_rotmat.shape == (people, FRAMES, 21, 3, 3) and file.people == people
    assert file.kind == ("amass" if name.startswith("amass") else "smpl")
    assert file.fps == pytest.approx(FPS) and not file.missing.any()
    expected = rotvec_to_rotmat(torch.from_numpy(noisy[0][:, 1:22])).numpy()
    assert np.abs(file.body_rotmat[0] - expected).max() < 1e-5
    result = smooth_pose_file(file, halfway)
    write_pose_file(file, tmp_path / "out.npz", result.body_rotmat, result.roots, result.translations)
    with np.load(tmp_path / "out.npz") as out:
        assert out.files == list(arrays)
        for key, value in arrays.items():
            assert out[key].dtype == np.asarray(value).dtype and out[key].shape == np.asarray(value).shape
            if key in ("betas", "gender", "dmpls", "fps", "frame_ids", "mocap_framerate", "mocap_frame_rate"):
                assert np.array_equal(out[key], value)
        if name.startswith("amass smplh"):
            assert np.array_equal(out["poses"][:, 66:], arrays["poses"][:, 66:])  # fingers
    again = read_pose_file(tmp_path / "out.npz")
    half = rotvec_to_rotmat(torch.from_numpy(noisy[0][:, 1:22]) / 2).numpy()
    assert np.abs(again.body_rotmat[0] - half).max() < 1e-4
    for key, value in again.roots.items():
        off = geodesic_distance(torch.from_numpy(value), torch.from_numpy(file.roots[key]))
        assert 1e-4 < off.mean() < 0.15
    for key, moved in again.translations.items():
        assert 1e-4 < np.abs(moved - file.translations[key]).mean() < 0.05


def test_unchanged_poses_come_back_unchanged(tmp_path: Path, noisy: tuple[Array, Array]) -> None:
    arrays = layouts(*noisy)["amass smplh"]
    np.savez_compressed(tmp_path / "in.npz", **arrays)
    file = read_pose_file(tmp_path / "in.npz")
    write_pose_file(file, tmp_path / "out.npz", file.body_rotmat, file.roots, file.translations)
    with np.load(tmp_path / "out.npz") as out:
        for key, value in arrays.items():
            assert np.array_equal(out[key], value)


def test_body_only_leaves_the_root(tmp_path: Path, noisy: tuple[Array, Array], halfway: MotionPrior) -> None:
    arrays = layouts(*noisy)["69"]
    arrays["body_pose"] = arrays["body_pose"].copy()
    arrays["body_pose"][5] = np.nan
    np.savez(tmp_path / "in.npz", **arrays)
    file = read_pose_file(tmp_path / "in.npz")
    result = smooth_pose_file(file, halfway, SmoothingConfig(root=False))
    write_pose_file(file, tmp_path / "out.npz", result.body_rotmat, result.roots, result.translations)
    there = np.arange(FRAMES) != 5
    with np.load(tmp_path / "out.npz") as out:
        for key in ("global_orient", "transl"):
            assert np.array_equal(out[key][there], arrays[key][there])
        assert np.allclose(out["transl"][5], (arrays["transl"][4] + arrays["transl"][6]) / 2, atol=1e-5)
        assert np.isfinite(out["body_pose"]).all()


def test_the_prior_cleans_and_fills(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, walker: tuple[Array, Array], noisy: tuple[Array, Array]
) -> None:
    arrays = layouts(*noisy)["amass smplh"]
    arrays["poses"][10:14] = np.nan
    np.savez(tmp_path / "in.npz", **arrays)
    assert main([str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz"), "--noise", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "amass" and told["missing"] == told["filled"] == 4 and told["frames"] == FRAMES
    assert told["acceleration_after"] < 0.7 * told["acceleration_before"]
    assert 0.5 < told["change_deg"] < 8
    out = read_pose_file(tmp_path / "out.npz")
    assert not out.missing.any()
    truth = rotvec_to_rotmat(torch.from_numpy(walker[0]).double())
    before = rotvec_to_rotmat(torch.from_numpy(noisy[0]).double())
    after = torch.from_numpy(out.body_rotmat[0])
    seen = ~((torch.arange(FRAMES) >= 10) & (torch.arange(FRAMES) < 14))
    raw = geodesic_distance(before[seen, 1:22], truth[seen, 1:22]).mean()
    clean = geodesic_distance(after[seen], truth[seen, 1:22]).mean()
    filled = geodesic_distance(after[~seen], truth[~seen, 1:22]).mean()
    print(
        f"degrees off: noisy {math.degrees(raw):.2f}, clean {math.degrees(clean):.2f}, filled {math.degrees(filled):.2f}"
    )
    assert clean < 0.45 * raw and filled < 0.06
    root = torch.from_numpy(next(iter(out.roots.values()))[0])
    assert geodesic_distance(root, truth[:, 0]).mean() < 0.8 * geodesic_distance(before[:, 0], truth[:, 0]).mean()
    moved = np.abs(out.translations["trans"][0] - walker[1]).mean()
    assert moved < 0.8 * np.abs(noisy[1] - walker[1]).mean()
    assert np.isfinite(out.array("poses")).all()  # fingers of filled frames are held


def test_fill_only_and_keep(tmp_path: Path, noisy: tuple[Array, Array], halfway: MotionPrior) -> None:
    arrays = layouts(*noisy)["69"]
    arrays["body_pose"] = arrays["body_pose"].copy()
    arrays["body_pose"][5:8, 3] = np.nan
    np.savez(tmp_path / "in.npz", **arrays)
    gap = np.zeros(FRAMES, bool)
    gap[5:8] = True
    file = read_pose_file(tmp_path / "in.npz")
    assert np.array_equal(file.missing[0], gap)
    for fill, still, finite in (("only", ~gap, True), ("keep", gap, False)):
        result = smooth_pose_file(file, halfway, SmoothingConfig(fill=fill))
        write_pose_file(
            file, tmp_path / "out.npz", result.body_rotmat, result.roots, result.translations, keep=result.keep
        )
        with np.load(tmp_path / "out.npz") as out:
            for key in ("body_pose", "global_orient", "transl"):
                assert np.array_equal(out[key][still], arrays[key][still], equal_nan=True)
            assert np.isfinite(out["body_pose"]).all() == finite
            assert not np.allclose(out["body_pose"][~still], arrays["body_pose"][~still])


def a_motion(rotvec: Array, transl: Array) -> Motion:
    count = len(rotvec)
    with torch.no_grad():
        joints = Body.open("light").joints(
            torch.zeros(10), rotvec_to_rotmat(torch.from_numpy(rotvec)), torch.from_numpy(transl)
        )
    observed = np.ones(count, bool)
    observed[8:11] = False
    return Motion(
        person_id=3, body="open", frame_ids=np.arange(count), timestamps=0.2 + np.arange(count) / FPS, observed=observed,
        betas=np.zeros(10), global_orient=rotvec[:, 0], body_pose=rotvec[:, 1:], transl=transl, joints3d=joints.numpy(),
        joints3d_std=np.zeros((count, 24)), z=np.zeros((count, 63)),
        contacts=np.zeros((count, 4)), keypoints2d=np.zeros((count, 33, 2)), confidence=np.zeros((count, 33)),
        boxes_xyxy=np.zeros((count, 4)), K=np.eye(3), image_size=np.array([640, 480]),
    )  # fmt: skip


def test_a_motion_of_our_own_stays_one(tmp_path: Path, noisy: tuple[Array, Array], halfway: MotionPrior) -> None:
    a_motion(*noisy).save(tmp_path / "person00.npz")
    file = read_pose_file(tmp_path / "person00.npz")
    assert file.kind == "kinflow" and file.missing.sum() == 3
    result = smooth_pose_file(file, halfway)
    write_pose_file(file, tmp_path / "out.npz", result.body_rotmat, result.roots, result.translations, result.replaced)
    before, after = Motion.load(tmp_path / "person00.npz"), Motion.load(tmp_path / "out.npz")
    assert after.person_id == 3 and np.array_equal(after.observed, before.observed)
    assert np.array_equal(after.timestamps, before.timestamps)
    # What follows from the pose follows it.
    joints = Body.open("light").joints(torch.zeros(10), after.pose_rotmat(), after.transl)
    assert np.abs(joints.numpy() - after.joints3d).max() < 2e-3
    with torch.no_grad():
        z = load_flow().encode(after.pose_rotmat()[:, 1:22])[0].numpy()
    assert np.abs(z - after.z).max() < 0.05
    assert not np.allclose(after.body_pose, before.body_pose, atol=1e-3)
    assert isinstance(kinflow.Motion.load(tmp_path / "out.npz"), Motion)


def test_legs_stay_bent_in_the_world(tmp_path: Path, noisy: tuple[Array, Array], halfway: MotionPrior) -> None:
    motion = a_motion(*noisy)
    bent = motion.body_pose.copy()
    bent[:, 3] += 0.2  # the left knee
    placed = dataclasses.replace(
        motion, body_pose_world=bent, global_orient_world=motion.global_orient, transl_world=motion.transl,
        T_world2cam=np.tile(np.eye(4), (len(motion), 1, 1)),
    )  # fmt: skip
    placed.save(tmp_path / "person00.npz")
    file = read_pose_file(tmp_path / "person00.npz")
    result = smooth_pose_file(file, halfway)
    write_pose_file(file, tmp_path / "out.npz", result.body_rotmat, result.roots, result.translations, result.replaced)
    after = Motion.load(tmp_path / "out.npz")
    assert after.body_pose_world is not None and not np.allclose(after.body_pose, motion.body_pose, atol=1e-3)

    def apart(one: Motion, other: Array) -> Tensor:
        return geodesic_distance(*(rotvec_to_rotmat(torch.tensor(pose)).double() for pose in (one.body_pose, other)))

    torch.testing.assert_close(apart(after, after.body_pose_world), apart(motion, bent), atol=1e-3, rtol=0)


def test_pieces_join_without_a_seam(walker: tuple[Array, Array], halfway: MotionPrior) -> None:
    rotmat = rotvec_to_rotmat(torch.from_numpy(walker[0][:, 1:22]).double()).numpy()
    times, valid = np.arange(FRAMES) / FPS, np.ones(FRAMES, bool)
    valid[7:19] = False  # longer than a piece
    config = SmoothingConfig(chunk=8, overlap=3)
    out = smooth_body(rotmat, times, valid, halfway, config)
    half = rotvec_to_rotmat(torch.from_numpy(walker[0][:, 1:22] / 2).double()).numpy()
    assert np.abs(out - half).max() < 1e-5


def test_jitter_is_told_from_motion() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(400)[:, None] / 30
    path = np.concatenate((np.sin(3 * t), 1.2 * t, np.cos(2 * t)), 1)
    found = jitter(path + rng.normal(0, [0.01, 0.02, 0.05], (400, 3)), np.ones(400, bool))
    assert np.allclose(found, [0.01, 0.02, 0.05], rtol=0.25)


def test_help_teaches() -> None:
    text = parser().format_help()
    for word in ("--noise", "--fps", "--fill", "--device", "--quiet", "--json", "AMASS", "examples", "exit codes"):
        assert word in text


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 1 and lines[0].startswith("kinflow-smooth:")
    return lines[0]


def bad_files(rotvec: Array, transl: Array) -> dict[str, tuple[dict[str, Any], str]]:
    """What is wrong, and a word of the message it must bring."""
    flat = rotvec.reshape(len(rotvec), -1)
    fine = {"poses": flat, "trans": transl, "mocap_framerate": np.array(30.0)}
    stamped = {"body_pose": rotvec[:, 1:], "timestamps": np.arange(len(flat)) / 30}
    back = stamped["timestamps"].copy()
    back[5] = back[4]
    unequal = {"pose": flat, "pose_world": flat + 0.1, "fps": np.array(30.0)}
    stretched = 1.3 * rotvec_to_rotmat(torch.from_numpy(rotvec)).numpy()
    return {
        "other joint count": (fine | {"poses": flat[:, :51]}, "Bring other skeletons"),
        "joints last": ({"body_pose": rotvec.swapaxes(1, 2), "fps": np.array(30.0)}, "(T, 21|23, 3)"),
        "no pose": ({"trans": transl, "betas": np.zeros(10)}, "body_pose"),
        "lengths differ": (fine | {"trans": transl[:-1]}, "trans"),
        "all NaN": (fine | {"poses": np.full_like(flat, np.nan)}, "at least one valid frame"),
        "all unseen": (stamped | {"observed": np.zeros(len(flat), bool)}, "at least one valid frame"),
        "time stands still": (stamped | {"timestamps": back}, "strictly increasing"),
        "time is NaN": (stamped | {"timestamps": np.full(len(flat), np.nan)}, "strictly increasing"),
        "times too few": (stamped | {"timestamps": back[:-1]}, "timestamps"),
        "empty": (fine | {"poses": flat[:0], "trans": transl[:0]}, "at least two frames"),
        "one frame": (fine | {"poses": flat[:1], "trans": transl[:1]}, "at least two frames"),
        "rate of zero": (fine | {"mocap_framerate": np.array(0.0)}, "--fps"),
        "no rate": ({"poses": flat, "trans": transl}, "--fps"),
        "integers": (fine | {"poses": flat.astype(int)}, "floating point"),
        "no rotations": ({"pred_rotmat": stretched, "fps": np.array(30.0)}, "rotation matrices"),
        "two bodies": (unequal, "same body pose"),
        "pickled": (fine | {"poses": np.array([{"a": 1}], dtype=object)}, "pickled"),
    }


@pytest.mark.parametrize("name", tuple(bad_files(np.zeros((9, 24, 3), np.float32), np.zeros((9, 3), np.float32))))
def test_bad_files_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, noisy: tuple[Array, Array], name: str
) -> None:
    arrays, word = bad_files(*noisy)[name]
    np.savez(tmp_path / "in.npz", **arrays)
    line = fails(capsys, 2, tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--quiet")
    assert word in line and "in.npz" in line
    assert [p.name for p in tmp_path.iterdir()] == ["in.npz"]


def test_bad_arguments_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, noisy: tuple[Array, Array]
) -> None:
    source, out = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, **layouts(*noisy)["69"])
    assert "no such file" in fails(capsys, 3, tmp_path / "none.npz", "-o", out)
    assert "input itself" in fails(capsys, 2, source, "-o", source)
    assert "noise" in fails(capsys, 2, source, "-o", out, "--noise", 0)
    assert "chunk" in fails(capsys, 2, source, "-o", out, "--chunk", 1)
    assert "fps" in fails(capsys, 2, source, "-o", out, "--fps", -1)
    assert "device" in fails(capsys, 2, source, "-o", out, "--device", "abacus")
    assert "folder" in fails(capsys, 1, source, "-o", tmp_path)
    (tmp_path / "text.npz").write_text("not an archive")
    assert "text.npz: the file: expected plain arrays" in fails(capsys, 2, tmp_path / "text.npz", "-o", out)
    (tmp_path / "cut.npz").write_bytes(source.read_bytes()[:300])
    assert "cut.npz" in fails(capsys, 2, tmp_path / "cut.npz", "-o", out)
    with pytest.raises(SystemExit) as stopped:
        main([str(source), "-o", str(out), "--fill", "perhaps"])
    assert stopped.value.code == 2
    capsys.readouterr()
    assert not out.exists()


def test_unwritable_out_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path, noisy: tuple[Array, Array]) -> None:
    rotvec, transl = noisy
    np.savez(tmp_path / "in.npz", **layouts(rotvec[:4], transl[:4])["69"])
    (tmp_path / "file").touch()
    assert "cannot write" in fails(capsys, 1, tmp_path / "in.npz", "-o", tmp_path / "file" / "out.npz", "--quiet")


def test_long_rotation_vectors_are_wrapped_and_told(tmp_path: Path, noisy: tuple[Array, Array]) -> None:
    arrays = layouts(*noisy)["69"]
    plain = read_like(tmp_path, arrays)
    root = arrays["global_orient"].astype(np.float64)
    longer = root * (1 + 2 * np.pi / np.linalg.norm(root, axis=-1, keepdims=True))
    wrapped = read_like(tmp_path, arrays | {"global_orient": longer})
    assert any("wrapped" in note for note in wrapped.notes)
    assert np.abs(wrapped.roots["global_orient"] - plain.roots["global_orient"]).max() < 1e-5


def read_like(folder: Path, arrays: dict[str, Any]) -> Any:
    np.savez(folder / "wrap.npz", **arrays)
    return read_pose_file(folder / "wrap.npz")


def test_pickled_extras_are_carried_unread(tmp_path: Path, noisy: tuple[Array, Array]) -> None:
    """Some releases keep python objects beside the poses; nobody has to unpickle them to copy them."""
    arrays = layouts(*noisy)["amass smpl"]
    np.savez(tmp_path / "in.npz", labels=np.array([{"marker": 1}], dtype=object), **arrays)
    file = read_pose_file(tmp_path / "in.npz")
    write_pose_file(file, tmp_path / "out.npz", file.body_rotmat, file.roots, file.translations)
    with zipfile.ZipFile(tmp_path / "in.npz") as old, zipfile.ZipFile(tmp_path / "out.npz") as new:
        assert old.read("labels.npy") == new.read("labels.npy")
    with pytest.raises(FormatError, match="labels"):
        file.array("labels")


def test_frame_numbers_are_times(tmp_path: Path, noisy: tuple[Array, Array]) -> None:
    """Frames that a tracker dropped leave a gap in time."""
    ids = np.r_[np.arange(12), np.arange(20, 20 + FRAMES - 12)]
    file = read_like(tmp_path, layouts(*noisy)["69"] | {"frame_ids": ids})
    assert np.allclose(file.timestamps, ids / FPS)
