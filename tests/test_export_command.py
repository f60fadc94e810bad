"""kinflow-export and --export from outside: what cannot be meant is refused by name, and a bad run leaves nothing behind."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_glb import Glb
from walking_people import a_walk

import kinflow
from kinflow.apps.options import RunOptions
from kinflow.apps.results import Result
from kinflow.apps.staging import staging
from kinflow.body import Body
from kinflow.cli.export import main
from kinflow.cli.video import main as video_main
from kinflow.errors import MissingAssetError, ShapeError, UsageError
from kinflow.formats.characters import characters
from kinflow.formats.exports import FORMATS, check_formats, export
from kinflow.formats.points import JOINT_SETS
from kinflow.motion import Motion
from kinflow.skeleton import LAYOUTS

pytest.importorskip("pygltflib")
pytest.importorskip("pxr")
EVERY = ",".join(FORMATS)


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch, body: Body) -> None:
    """The light body in the place of the full one, which takes longer and shows no more."""
    monkeypatch.setattr(Body, "open", classmethod(lambda cls, resolution="light": body))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, body: Body) -> Path:
    """A result folder of two people."""
    folder = tmp_path_factory.mktemp("out")
    for i in range(2):
        a_walk(body, 6, person_id=i, start_s=0.1 * i).save(folder / f"person{i:02d}.npz")
    return folder


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run the command; expect exit ``code``, nothing on standard output, and one line that is returned."""
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kinflow-export: ") and err.count("\n") == 1
    return err


def test_a_folder_in_every_format(capsys: pytest.CaptureFixture[str], tmp_path: Path, results: Path) -> None:
    before = sorted(results.iterdir())
    assert main([str(results), "--to", EVERY, "-o", str(tmp_path / "new"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    each = [f"person{i:02d}{ending}" for ending in (".bvh", "_poses.npz", "_smpl.npz", ".trc", ".csv") for i in (0, 1)]
    assert sorted(told["files"]) == sorted([*each, "people.glb", "people.usda", "people.usdz"])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(told["files"])
    assert [p["name"] for p in told["people"]] == ["person00", "person01"] and told["body"] == "open"
    assert sorted(results.iterdir()) == before


def test_beside_the_source_and_over_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path, body: Body) -> None:
    a_walk(body, 5).save(tmp_path / "person00.npz")
    (tmp_path / "overlay.mp4").touch()
    for _ in range(2):
        assert main([str(tmp_path), "--to", "smpl,amass,csv", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    names = ["overlay.mp4", "person00.csv", "person00.npz", "person00_poses.npz", "person00_smpl.npz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_one_motion_has_its_files_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, body: Body) -> None:
    a_walk(body, 5).save(tmp_path / "my walk.npz")
    assert main([str(tmp_path / "my walk.npz"), "--to", "glb,usd,bvh,amass"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "written to" in told and "betas belong to kinflow's open body" in told
    assert Glb(tmp_path / "my walk.glb").node("my walk") >= 0
    assert {p.suffix for p in tmp_path.glob("my walk*")} == {".npz", ".glb", ".usda", ".usdz", ".bvh"}


def test_fps_and_joints_reach_the_files(tmp_path: Path, results: Path) -> None:
    arguments = [str(results), "--to", "csv", "-o", str(tmp_path), "--joints", "coco17", "--fps", "48", "--quiet"]
    assert main(arguments) == 0
    header, *rows = (tmp_path / "person00.csv").read_text().splitlines()
    assert header.split(",")[:3] == ["time_s", "observed", "nose_x"] and len(rows) == 11


# -- one frame, and none ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_one_frame_is_exported(tmp_path: Path, body: Body, name: str) -> None:
    motion = a_walk(body, 5)[2:3]
    for fps in (None, 30.0):
        for path in export([motion], tmp_path, name, fps=fps):
            assert path.stat().st_size > 500
    if name == "glb":
        (glb,) = (Glb(p) for p in tmp_path.iterdir())
        joints = glb.skinned("person00", 0.0)[1]
        assert np.abs(joints * [1, -1, -1] - motion.joints3d[0]).max() < 1e-3
    if name == "amass":
        with np.load(tmp_path / "person00_poses.npz") as npz:
            assert npz["poses"].shape == (1, 156) and npz["mocap_framerate"] == 30


def test_one_frame_beside_a_motion_has_its_rate(body: Body) -> None:
    still, walk = a_walk(body, 5)[2:3], a_walk(body, 5, person_id=1)
    assert characters([still], body)[0].fps == 1
    assert characters([still, walk], body)[0].fps == pytest.approx(24)


def test_shorter_than_a_step_of_the_new_rate(body: Body) -> None:
    short, long = a_walk(body, 3, start_s=0.1), a_walk(body, 48, person_id=1)
    first, second = characters([short, long], body, fps=2)
    assert len(first) == 1 and first.timestamps[0] == short.timestamps[0] and len(second) == 4


@pytest.mark.parametrize("name", FORMATS)
def test_no_frame_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path, body: Body, name: str) -> None:
    a_walk(body, 5)[3:3].save(tmp_path / "person00.npz")
    line = fails(capsys, 2, tmp_path, "--to", name, "-o", tmp_path / "new")
    assert "person00: expected at least one frame, got none" in line
    assert not (tmp_path / "new").exists()


# -- what cannot be meant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--to", "fbx"], f"export: expected some of {EVERY}, got 'fbx'"),
        (["--to", ""], "got ''"),
        (["--to", "glb,,bvh"], "got ''"),
        (["--to", "csv", "--joints", "openpose25"], "joints: expected one of smpl24"),
        (["--to", "csv", "--fps", "0"], "fps: expected frames a second above 0"),
        (["--to", "csv", "--fps", "nan"], "fps: expected"),
        (["--to", "csv", "--fps", "1e9"], "up to 1000, got 1000000000"),
        (["--to", "csv", "--body-path", "x.pkl"], "belong to the open body"),
        (["--to", "csv", "-o", ""], "out: expected a path"),
    ],
)
def test_options_that_cannot_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, results: Path, arguments: list[str], named: str
) -> None:
    place = [] if "-o" in arguments else ["-o", tmp_path / "new"]
    assert named in fails(capsys, 2, results, *arguments, *place)
    assert not list(tmp_path.iterdir())


def test_sources_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path, body: Body) -> None:
    assert "no such file" in fails(capsys, 3, tmp_path / "none", "--to", "csv")
    assert "no personNN.npz" in fails(capsys, 3, tmp_path, "--to", "csv")
    np.savez(tmp_path / "person00.npz", poses=np.zeros((3, 72)))
    assert "expected schema kinflow.motion/1" in fails(capsys, 2, tmp_path, "--to", "csv")
    motion = a_walk(body, 4)
    fields = {f.name: getattr(motion, f.name) for f in dataclasses.fields(Motion)}
    values: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    values["transl"] = np.full((4, 3), np.nan)
    np.savez(tmp_path / "person00.npz", schema=Motion.SCHEMA, **values)
    assert "transl: expected finite values" in fails(capsys, 2, tmp_path, "--to", "csv")
    early = dataclasses.replace(motion, timestamps=motion.timestamps - 1)
    early.save(tmp_path / "person00.npz")
    assert "timestamps: expected seconds from 0 on, got -1" in fails(capsys, 2, tmp_path, "--to", "csv")
    dataclasses.replace(motion, body="smplx").save(tmp_path / "person00.npz")
    assert "'smplx', which is licensed" in fails(capsys, 2, tmp_path, "--to", "csv")
    motion.save(tmp_path / "person01.npz")
    assert "belong to others" in fails(capsys, 2, tmp_path, "--to", "csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["person00.npz", "person01.npz"]


def test_unwritable_out_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path, results: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write" in fails(capsys, 1, results, "--to", "csv", "-o", tmp_path / "file")


def test_two_people_of_one_name(tmp_path: Path, body: Body) -> None:
    twice = [a_walk(body, 4), a_walk(body, 5)]
    with pytest.raises(UsageError, match="names: expected another for everyone, got person00 2 times"):
        export(twice, tmp_path, EVERY)
    assert not list(tmp_path.iterdir())
    assert len(export(twice, tmp_path, "csv", names=["she", "he"])) == 2
    for names, told in (
        (["one"], "one for each of 2 people"),
        (["a/b", "c"], "that a file can have"),
        (["", "c"], "''"),
    ):
        with pytest.raises(UsageError, match=told):
            export(twice, tmp_path, "csv", names=names)
    with pytest.raises(UsageError, match="at least one person"):
        export([], tmp_path, "csv")


def test_files_of_one_number_are_told_apart_by_their_names(tmp_path: Path, body: Body) -> None:
    """Two results in one folder, renamed by hand."""
    for i in range(2):
        a_walk(body, 4).save(tmp_path / f"person{i:02d}.npz")
    assert main([str(tmp_path), "--to", "glb,csv", "--quiet"]) == 0
    glb = Glb(tmp_path / "people.glb")
    assert glb.node("person00") != glb.node("person01")


def test_times_that_single_precision_cannot_tell_apart(tmp_path: Path, body: Body) -> None:
    motion = a_walk(body, 4, start_s=1e6)
    with pytest.raises(ShapeError, match="single precision"):
        export([motion], tmp_path, "glb")
    assert not list(tmp_path.iterdir())


def test_another_bodys_motion_is_told(body: Body, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    motion = a_walk(body, 4)
    with caplog.at_level(logging.WARNING):
        export([motion], tmp_path, "csv")
        assert not caplog.records
        export([dataclasses.replace(motion, joints3d=motion.joints3d + 0.02)], tmp_path, "csv")
    assert "person00: its joints3d lie up to 35 mm" in caplog.text
    with pytest.raises(UsageError, match="belongs to 'smpl', got the body 'open'"):
        export([dataclasses.replace(motion, body="smpl")], tmp_path, "csv")


# -- what is not installed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "module", "extra"), [("glb", "pygltflib", "glb"), ("usd", "pxr", "usd")])
def test_a_missing_library_is_three_with_the_line_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Path, name: str,
    module: str, extra: str,
) -> None:  # fmt: skip
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *more: None if n == module else found(n, *more))
    line = fails(capsys, 3, results, "--to", f"csv,{name}", "-o", tmp_path / "new")
    assert f"{module} is not installed. Run python -m pip install 'kinflow[{extra}]'" in line
    assert not list(tmp_path.iterdir())
    assert main([str(results), "--to", "csv", "-o", str(tmp_path / "new"), "--quiet"]) == 0
    assert video_main(["none.mp4", "-o", str(tmp_path / "video"), "--export", name, "--quiet"]) == 3
    assert f"kinflow[{extra}]" in capsys.readouterr().err and not (tmp_path / "video").exists()
    with pytest.raises(MissingAssetError):
        check_formats([name])


# -- kinflow-video --export, and Python ----------------------------------------------------------------------------------------


def test_video_refuses_an_unknown_export_before_it_reads_the_clip(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert video_main(["none.mp4", "-o", str(tmp_path / "out"), "--export", "glb,fbx", "--quiet"]) == 2
    assert "got 'fbx'" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_result_writes_its_exports(tmp_path: Path, body: Body) -> None:
    motion = a_walk(body, 5)
    info = {"timings": {"load": 1.0}, "clip": {"frames": 5}, "people": [{"file": "person00.npz"}]}
    result = Result(None, RunOptions(), [motion], [], body, info)  # type: ignore[arg-type]
    (tmp_path / "people.usdz").touch()  # of an earlier run
    told = result.write(tmp_path, draw=False, view=False, export="glb,bvh")
    names = ["people.glb", "person00.bvh", "person00.npz", "run.json"]
    assert sorted(told["files"]) == names == sorted(p.name for p in tmp_path.iterdir())
    assert told["timings"]["export"] > 0
    assert json.loads((tmp_path / "run.json").read_text()) == told
    with pytest.raises(UsageError, match="'fbx'"):
        result.write(tmp_path, draw=False, export=["fbx"])


def test_staging_takes_away_what_it_is_told_to(tmp_path: Path) -> None:
    for name in ("person00.npz", "person00.bvh", "notes.txt"):
        (tmp_path / name).touch()
    with staging(tmp_path, replaces=()) as stage:
        (stage / "person00.csv").touch()
    assert len(list(tmp_path.iterdir())) == 4
    with staging(tmp_path) as stage:
        (stage / "run.json").touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "run.json"]


def test_the_verb_is_public(tmp_path: Path, body: Body) -> None:
    assert kinflow.export is export
    assert [p.name for p in kinflow.export([a_walk(body, 4)], tmp_path, to=["CSV", "csv"])] == ["person00.csv"]


@pytest.mark.parametrize("joints", JOINT_SETS)
def test_points_of_every_joint_set(tmp_path: Path, body: Body, joints: str) -> None:
    """Those that the motion itself gives, under their names, y up before the camera."""
    motion = a_walk(body, 3)
    (path,) = kinflow.export([motion], tmp_path, to=["csv"], joints=joints)
    header, *rows = path.read_text().splitlines()
    names = [column.removesuffix("_x") for column in header.split(",") if column.endswith("_x")]
    assert tuple(names) == LAYOUTS[joints]
    values = np.array([[float(v) for v in row.split(",")] for row in rows])[:, -3 * len(names) :]
    np.testing.assert_allclose(np.abs(values.reshape(3, -1, 3)), np.abs(motion.keypoints3d(joints)), rtol=0, atol=1e-4)
