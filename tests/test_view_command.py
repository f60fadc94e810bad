"""kinflow-view: recordings are read back with rerun's own reader; what cannot be shown is refused by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from walking_people import a_walk, y_up

from kinflow.apps import view
from kinflow.apps.view import view_result
from kinflow.body import Body
from kinflow.cli.view import main
from kinflow.errors import MissingAssetError
from kinflow.formats.characters import characters
from kinflow.motion import Motion
from kinflow.video import VideoWriter

needs_rerun = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="rerun is not installed: pip install 'kinflow[view]'"
)


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch, body: Body) -> None:
    """The light body in the place of the full one, which takes longer and shows no more."""
    monkeypatch.setattr(Body, "open", classmethod(lambda cls, resolution="light": body))


@pytest.fixture(scope="module")
def people() -> list[Motion]:
    body = Body.open("light")
    return [
        dataclasses.replace(
            a_walk(body, 6, person_id=i, start_s=0.25 * i), image_size=np.array([64, 48]), contacts=np.full((6, 4), 0.25)
        )
        for i in range(2)
    ]  # fmt: skip


@pytest.fixture
def results(tmp_path: Path, people: list[Motion]) -> Path:
    """What kinflow-video leaves of a clip that begins at half a second."""
    folder = tmp_path / "out"
    folder.mkdir()
    for i, person in enumerate(people):
        person.save(folder / f"person{i:02d}.npz")
    with VideoWriter(folder / "overlay.mp4", (64, 48), 24) as video:
        for i in range(12):
            video.write(np.full((48, 64, 3), 20 * i, np.uint8))
    (folder / "run.json").write_text(json.dumps({"clip": {"path": "somewhere/walk.mp4", "start_s": 0.5}}))
    return folder


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run the command; expect exit ``code``, nothing on standard output, and one line that is returned."""
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kinflow-view: ") and err.count("\n") == 1
    return err


class Recording:
    """An .rrd file as rerun's reader gives it."""

    def __init__(self, path: Path) -> None:
        from rerun.chunk import RrdReader

        self.rows: dict[str, list[tuple[float | None, dict[str, Any]]]] = {}
        for chunk in RrdReader(path).stream().to_chunks():
            batch = chunk.to_record_batch()
            columns = {}
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                # Durations are nanoseconds, which Python's own have not; scalar by scalar, as wide integers.
                columns[name] = column.cast("int64").to_pylist() if name == "time" else column.to_pylist()
            for i in range(batch.num_rows):
                time = columns["time"][i] * 1e-9 if "time" in columns else None
                values = {n.rpartition(":")[2]: v[i] for n, v in columns.items() if n != "time" and v[i] is not None}
                self.rows.setdefault(chunk.entity_path, []).append((time, values))

    def over_time(self, entity: str, component: str) -> dict[float, np.ndarray]:
        found = [(t, v[component]) for t, v in self.rows[entity] if t is not None and component in v]
        return {t: np.array(v) for t, v in sorted(found, key=lambda row: row[0])}

    def static(self, entity: str, component: str) -> np.ndarray:
        (value,) = (v[component] for t, v in self.rows[entity] if t is None and component in v)
        return np.array(value)


@pytest.fixture
def saved(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Recording:
    assert main([str(results), "--save", str(tmp_path / "new" / "walk.rrd"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["film"] and told["bodies"] == "mesh" and [p["frames"] for p in told["people"]] == [6, 6]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["walk.rrd"]
    return Recording(tmp_path / "new" / "walk.rrd")


@needs_rerun
def test_people_are_where_the_exports_have_them(saved: Recording, people: list[Motion], body: Body) -> None:
    for name, motion, person in zip(("person00", "person01"), people, characters(people, body), strict=True):
        joints = saved.over_time(f"/world/people/{name}/joints", "positions")
        np.testing.assert_allclose(list(joints), motion.timestamps, atol=1e-6)
        np.testing.assert_allclose(np.stack(list(joints.values())), y_up(motion.joints3d), atol=1e-5)
        bodies = saved.over_time(f"/world/people/{name}/body", "vertex_positions")
        expected = y_up(motion.vertices(None, body))
        np.testing.assert_allclose(np.stack(list(bodies.values())), expected, atol=1e-4)
        faces = saved.static(f"/world/people/{name}/body", "triangle_indices")
        np.testing.assert_array_equal(faces, body.faces.numpy())
        # Gone a frame after the last.
        (gone,) = saved.over_time(f"/world/people/{name}", "is_recursive")
        assert gone == pytest.approx(motion.timestamps[-1] + 1 / person.fps)


@needs_rerun
def test_what_the_camera_saw(saved: Recording, people: list[Motion]) -> None:
    np.testing.assert_allclose(saved.static("/world/camera/image", "resolution").ravel(), [64, 48])
    K = saved.static("/world/camera/image", "image_from_camera").reshape(3, 3).T  # column by column
    np.testing.assert_allclose(K, people[0].K, atol=1e-6)
    np.testing.assert_allclose(saved.static("/world/camera", "translation").ravel(), 0, atol=1e-6)
    np.testing.assert_allclose(saved.static("/world/camera", "mat3x3").reshape(3, 3), np.diag([1, -1, -1]), atol=1e-6)
    grid = saved.static("/world/grid", "strips")  # no ground is known
    assert np.ptp(grid[..., 1]) == 0 and grid[0, 0, 1] < min(y_up(p.joints3d)[..., 1].min(1).mean() for p in people)
    frames = saved.over_time("/world/camera/image/film", "timestamp")
    np.testing.assert_allclose(list(frames), 0.5 + np.arange(12) / 24, atol=1e-4)
    np.testing.assert_allclose([float(v[0]) * 1e-9 for v in frames.values()], np.arange(12) / 24, atol=1e-4)
    points = saved.over_time("/world/camera/image/keypoints/person00", "positions")
    for row, time in enumerate(people[0].timestamps):
        seen = (people[0].confidence[row] >= 0.5) & people[0].observed[row]
        at = points[min(points, key=lambda t: abs(t - time))]
        np.testing.assert_allclose(at.reshape(-1, 2), people[0].keypoints2d[row][seen], atol=1e-5)


@needs_rerun
def test_curves(saved: Recording, people: list[Motion]) -> None:
    def curve(path: str) -> np.ndarray:
        return np.concatenate(list(saved.over_time(path, "scalars").values()))

    for name, motion in zip(("person00", "person01"), people, strict=True):
        np.testing.assert_allclose(
            curve(f"/plots/uncertainty/{name}"), 100 * motion.joints3d_std[:, 1:].mean(-1), rtol=1e-5
        )
        np.testing.assert_allclose(curve(f"/plots/contacts/{name}/right\\ toe"), 0.25)
        np.testing.assert_allclose(curve(f"/plots/feet/{name}/left\\ foot"), -motion.joints3d[:, 10, 1], atol=1e-4)
        plausible = curve(f"/plots/plausibility/{name}")
        assert ((plausible >= 0) & (plausible <= 1)).all()
        assert len(curve(f"/plots/confidence/{name}")) == 6


@needs_rerun
def test_capsules_stand_between_the_joints(results: Path, tmp_path: Path, people: list[Motion]) -> None:
    info = view_result(results, save=tmp_path / "a.rrd", bodies="capsules")
    assert info["bodies"] == "capsules"
    recording = Recording(tmp_path / "a.rrd")
    body = "/world/people/person00/body"
    (starts, *_), (lengths, *_), (turns, *_), (radii, *_) = (
        list(recording.over_time(body, c).values()) for c in ("translations", "lengths", "quaternions", "radii")
    )
    joints = y_up(people[0].joints3d[0])
    np.testing.assert_allclose(starts[:3], joints[[0, 0, 0]], atol=1e-4)
    x, y, z, w = turns.T
    ends = starts + lengths[:, None] * np.stack((2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)), -1)
    np.testing.assert_allclose(ends, joints[1:], atol=1e-4)
    assert ((radii >= 0.02) & (radii <= 0.12)).all() and radii[3] > 0.04  # a thigh is no finger


@needs_rerun
def test_many_frames_are_capsules_by_themselves(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MESH_FRAMES", 11)
    assert view_result(results, save=tmp_path / "a.rrd")["bodies"] == "capsules"


@needs_rerun
def test_one_frame_one_person_and_who_has_none(
    results: Path, tmp_path: Path, people: list[Motion], caplog: pytest.LogCaptureFixture
) -> None:
    people[0][1:2].save(results / "person00.npz")
    people[1][:0].save(results / "person01.npz")
    info = view_result(results, save=tmp_path / "a.rrd")
    assert [p["name"] for p in info["people"]] == ["person00"] and "person01: has no frame" in caplog.text
    assert len(Recording(tmp_path / "a.rrd").over_time("/world/people/person00/joints", "positions")) == 1
    assert view_result(results / "person00.npz", save=tmp_path / "b.rrd")["film"]


@needs_rerun
def test_an_overlay_with_panels_is_no_film(results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VideoWriter(results / "overlay.mp4", (128, 48), 24) as video:
        video.write(np.zeros((48, 128, 3), np.uint8))
    assert not view_result(results, save=tmp_path / "a.rrd")["film"]
    assert "other panels" in caplog.text
    (results / "overlay.mp4").unlink()
    assert not view_result(results, save=tmp_path / "a.rrd")["film"]


@needs_rerun
def test_without_save_the_viewer_opens(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rerun as rr

    spawned: list[bool] = []
    monkeypatch.setattr(rr.RecordingStream, "spawn", lambda self, **more: spawned.append("default_blueprint" in more))
    assert main([str(results), "--quiet"]) == 0
    assert spawned == [True]


# -- in a browser, and what cannot be --------------------------------------------------------------------------------------


def test_html_opens_the_page_and_writes_it_if_need_be(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # it needs no rerun
    assert main([str(results), "--html", "--json"]) == 0
    page = results / "view.html"
    assert opened == [page.as_uri()] and json.loads(capsys.readouterr().out)["file"] == str(page)
    assert '"begin": 0.5' in page.read_text() and "walk.mp4" in page.read_text()
    page.write_text("as it was")
    assert main([str(results), "--html", "--quiet"]) == 0 and page.read_text() == "as it was"


def test_a_missing_extra_is_three(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = fails(capsys, MissingAssetError.exit_code, results, "--save", "a.rrd")
    assert "pip install 'kinflow[view]'" in line and "--html" in line


@needs_rerun
@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["nowhere"], 3, "nowhere"),
        (["."], 3, "no personNN.npz"),
        (["out", "--save", "a.mp4"], 2, "ends in .rrd"),
        (["out", "--save", ""], 2, "save: expected a path"),
        (["out", "--html", "--save", "a.rrd"], 2, "--html"),
        (["out", "--html", "--bodies", "mesh"], 2, "--html"),
        (["out/person00.npz", "--html"], 2, "whole folder"),
        (["out", "--save", "a.rrd", "--body-path", "x.pkl"], 2, "belong to the open body"),
        (["out", "--save", "out/person00.npz/a.rrd"], 1, "cannot write here"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, named: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert named in fails(capsys, code, *arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@needs_rerun
def test_nobody_with_a_frame_is_told(tmp_path: Path, people: list[Motion], capsys: pytest.CaptureFixture[str]) -> None:
    people[0][:0].save(tmp_path / "person00.npz")
    assert "at least one person with a frame" in fails(capsys, 2, tmp_path, "--save", tmp_path / "a.rrd", "--quiet")
