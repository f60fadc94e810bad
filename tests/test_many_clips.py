"""Many clips at once: a folder each, past what fails, and what is finished is not done again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kinflow
from kinflow.apps import many
from kinflow.apps.many import clip_folders, find_clips
from kinflow.cli.video import main
from kinflow.errors import NobodyFoundError, UsageError
from kinflow.perception import perceiver
from kinflow.reconstruction import Reconstructor
from kinflow.video import VideoWriter


def a_clip(path: Path, grey: int = 100) -> Path:
    """Ten frames; who is seen in them the stub says, in white ones nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, (128, 96), 30) as video:
        for _ in range(10):
            video.write(np.full((96, 128, 3), grey, np.uint8))
    return path


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Two clips, one that is none, and one without anybody."""
    folder = tmp_path / "takes"
    a_clip(folder / "take2.mp4")
    a_clip(folder / "take10.mp4")
    a_clip(folder / "white.mp4", 255)
    (folder / "broken.mp4").write_text("this is not a video")
    (folder / "notes.txt").write_text("neither is this")
    (folder / "._take2.mp4").write_text("what some systems leave on foreign disks")
    return folder


def outcomes(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> dict[str, dict[str, Any]]:
    """Run the command; expect exit ``code``; what it tells, by the folders' names."""
    assert main([*map(str, arguments), "--no-overlay", "--json"]) == code
    told = json.loads(capsys.readouterr().out)["clips"]
    return {Path(o["folder"]).name: o for o in told}


# -- which clips, and where to -------------------------------------------------------------------------------------------


def test_a_folder_of_videos_is_many_clips(takes: Path) -> None:
    clips, several = find_clips([takes])
    assert several and [c.name for c in clips] == ["broken.mp4", "take2.mp4", "take10.mp4", "white.mp4"]
    assert find_clips([takes / "take2.mp4"]) == ([takes / "take2.mp4"], False)
    assert find_clips([takes, takes / "take2.mp4", takes / "../takes/take10.mp4"])[0] == clips
    one = takes.parent / "one"
    a_clip(one / "a.mp4")
    assert find_clips([one]) == ([one / "a.mp4"], True)


def test_a_folder_of_images_stays_one_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "001.png").touch()
    assert find_clips([tmp_path]) == ([tmp_path], False) and not caplog.messages
    (tmp_path / "film.mp4").touch()
    assert find_clips([tmp_path]) == ([tmp_path], False)
    assert "1 images and 1 videos" in caplog.messages[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert find_clips([empty]) == ([empty], False)


def test_clips_of_one_name_are_named_apart(tmp_path: Path) -> None:
    def names(*clips: str) -> list[str]:
        return [f.name for f in clip_folders([tmp_path / c for c in clips], tmp_path)]

    assert names("a/walk.mp4", "run.mp4") == ["walk", "run"]
    assert names("walk.mp4", "walk.mov", "run.mp4") == ["walk-mp4", "walk-mov", "run"]
    assert names("a/walk.mp4", "b/walk.mp4") == ["a-walk", "b-walk"]
    assert names("a/Walk.mp4", "b/walk.mp4") == ["a-Walk", "b-walk"]
    assert names("a/walk.mp4", "a/walk.mov", "b/walk.mp4") == ["a-walk", "walk-mov", "b-walk"]
    with pytest.raises(UsageError, match=r"day1.a.walk\.mp4 and .*day2.a.walk\.mp4 would both be written"):
        names("day1/a/walk.mp4", "day2/a/walk.mp4")
    assert len(set(names("a/walk.mp4", "b/walk.mp4", "a-walk.mp4"))) == 3


# -- the command ---------------------------------------------------------------------------------------------------------


def test_past_what_fails_and_not_twice(
    stubbed: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, takes: Path
) -> None:
    out = tmp_path / "out"
    first = outcomes(capsys, 6, takes, "-o", out)
    assert {k: o["status"] for k, o in first.items()} == {
        "broken": "failed", "take2": "done", "take10": "done", "white": "failed",
    }  # fmt: skip
    assert "broken.mp4" in first["broken"]["error"] and "nobody" in first["white"]["error"]
    assert all("\n" not in o["error"] for o in first.values() if o["error"])
    assert sorted(p.name for p in out.iterdir()) == ["take10", "take2"]
    assert sorted(p.name for p in (out / "take2").iterdir()) == ["person00.npz", "run.json", "view.html"]
    assert len(kinflow.Motion.load(out / "take2/person00.npz")) == 10
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}

    again = outcomes(capsys, 6, takes, "-o", out)
    assert [o["status"] for o in again.values()] == ["failed", "kept", "kept", "failed"]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    assert again["take2"]["info"] == first["take2"]["info"]

    (takes / "broken.mp4").unlink()
    a_clip(takes / "white.mp4")
    (out / "take10/person00.npz").unlink()  # not complete any more
    mended = outcomes(capsys, 0, takes, "-o", out)
    assert {k: o["status"] for k, o in mended.items()} == {"take2": "kept", "take10": "done", "white": "done"}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ([], True), (["--quiet"], True), (["--seed", "1"], False), (["--end", "0.2"], False), (["--fov", "70"], False),
        (["--set", "perception.nms_iou=0.2"], False), (["--export", "csv"], False), (["--max-people", "1"], False),
        ("touched", False), ("lost", False), ("from before there were many", False),
    ],
    ids=str,
)  # fmt: skip
def test_other_options_are_done_anew(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    change: list[str] | str,
    kept: bool,
) -> None:
    @dataclasses.dataclass
    class Written:
        """In the place of a result: run.json alone."""

        info: dict[str, Any]

        def write(self, folder: Path, **more: Any) -> dict[str, Any]:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").write_text(json.dumps(self.info))
            return self.info

    found: dict[str, Any] = {"people": [], "clip": {"frames": 10}, "files": ["run.json"]}
    monkeypatch.setattr(many, "run", lambda *a, **more: Written(found))
    clips = a_clip(tmp_path / "a.mp4"), a_clip(tmp_path / "b.mp4")
    outcomes(capsys, 0, *clips, "-o", tmp_path / "out")
    path = tmp_path / "out/a/run.json"
    if change == "touched":
        a_clip(clips[0], 90)
    elif change == "lost":
        path.unlink()
    elif isinstance(change, str):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "request"}))
    more = change if isinstance(change, list) else []
    told = outcomes(capsys, 0, *clips, "-o", tmp_path / "out", *more)
    assert told["a"]["status"] == ("kept" if kept else "done")
    assert told["b"]["status"] == ("done" if more and not kept else "kept")


def test_networks_are_loaded_once(
    stubbed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls: list[str] = []
    load, networks = Reconstructor.load, perceiver.load_networks
    monkeypatch.setattr(Reconstructor, "load", lambda *a, **more: calls.append("body") or load(*a, **more))
    monkeypatch.setattr(perceiver, "load_networks", lambda *a: calls.append("eyes") or networks(*a))
    clips = [a_clip(tmp_path / f"{name}.mp4", grey) for name, grey in (("a", 100), ("b", 100), ("c", 255))]
    told = outcomes(capsys, 6, *clips, "-o", tmp_path / "many")
    assert sorted(calls) == ["body", "eyes"]
    assert main([str(clips[1]), "-o", str(tmp_path / "alone"), "--no-overlay", "--quiet"]) == 0
    alone, with_others = (kinflow.Motion.load(tmp_path / f / "person00.npz") for f in ("alone", "many/b"))
    np.testing.assert_array_equal(alone.joints3d, with_others.joints3d)
    np.testing.assert_array_equal(alone.joints3d_std, with_others.joints3d_std)
    assert told["c"]["status"] == "failed"  # what the networks saw of the clip before is forgotten
    assert "request" not in json.loads((tmp_path / "alone/run.json").read_text())


def test_a_table_at_the_end(
    stubbed: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, takes: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([str(takes), "-o", str(tmp_path / "out"), "--no-overlay"]) == 6
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    names = ["clip", "broken", "take2", "take10", "white"]
    assert [name for name in rows if name in names] == names  # long messages go over several lines
    assert rows["take2"][1:3] == ["1", "10"] and rows["take2"][4] == "done" and rows["broken"][4] == "failed:"
    last = err.splitlines()[-1]
    assert last.startswith("kinflow-video: 2 of 4 clips failed: broken.mp4, white.mp4.") and "Traceback" not in err
    assert main([str(takes), "-o", str(tmp_path / "out"), "--no-overlay", "--quiet"]) == 6
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "nobody" in err


def test_a_fault_of_ours_stops_one_clip(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(clip: kinflow.Clip, *arguments: Any, **more: Any) -> None:
        if clip.path.stem == "a":
            raise ZeroDivisionError("by zero\nindeed")
        raise NobodyFoundError("nobody")

    monkeypatch.setattr(many, "run", run)
    told = outcomes(capsys, 6, a_clip(tmp_path / "a.mp4"), a_clip(tmp_path / "b.mp4"), "-o", tmp_path / "out")
    assert "not foreseen: ZeroDivisionError: by zero indeed" in told["a"]["error"]
    assert told["b"]["error"] == "nobody"


def test_interrupted_it_says_what_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "run", run)
    clips = [str(a_clip(tmp_path / "a.mp4")), str(a_clip(tmp_path / "b.mp4"))]
    assert main([*clips, "-o", str(tmp_path / "out"), "--quiet"]) == 130
    assert "what was finished stays" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--keypoints", "op.json"], 2, "keypoints: they belong to one clip, got 2"),
        (["--device", "abacus"], 2, "device: 'abacus'"),
        (["--body", "smpl", "--body-path", "no.pkl"], 3, "no.pkl"),
        (["--fov", "400"], 2, "fov: expected degrees"),
    ],
)
def test_what_no_clip_can_do_is_told_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], code: int, named: str
) -> None:
    clips = [str(a_clip(tmp_path / "a.mp4")), str(a_clip(tmp_path / "b.mp4"))]
    assert main([*clips, "-o", str(tmp_path / "out"), "--quiet", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and named in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
