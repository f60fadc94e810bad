"""view.html: what is in it, and that a browser shows it as the motions have it."""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import os
import queue
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from walking_people import a_walk, y_up

from kinflow.apps import page
from kinflow.apps.layouts import Panels
from kinflow.apps.options import RunOptions
from kinflow.apps.page import write_page
from kinflow.apps.results import Result
from kinflow.body import Body
from kinflow.cameras import project
from kinflow.clip import Clip
from kinflow.errors import OutputError, UsageError
from kinflow.formats.characters import characters
from kinflow.formats.view_html import write_view_html
from kinflow.motion import Motion
from kinflow.render import person_colour
from kinflow.video import VideoWriter

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def people() -> list[Motion]:
    """Two walkers of unlike shape, the second comes later; a camera whose axis is off the picture's middle."""
    body = Body.open("light")
    K = np.array([[700, 0, 300], [0, 710, 260], [0, 0, 1]], np.float32)
    walks = [a_walk(body, 24), a_walk(body, 20, person_id=1, start_s=0.25, heading=-0.4)]
    return [dataclasses.replace(w, K=K, image_size=np.array([640, 480])) for w in walks]


def film(path: Path, frames: int = 24, size: tuple[int, int] = (128, 96)) -> Path:
    with VideoWriter(path, size, 24) as video:
        for i in range(frames):
            video.write(np.full((size[1], size[0], 3), 60 + 5 * i, np.uint8))
    return path


def data_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


# -- what is in it ---------------------------------------------------------------------------------------------------------


def test_what_the_page_holds(tmp_path: Path, people: list[Motion], body: Body) -> None:
    write_view_html(tmp_path / "view.html", people, body, title="<b>a & b</script>", names=["<!--<script>", "b"])
    text, data = (tmp_path / "view.html").read_text(), data_of(tmp_path / "view.html")
    assert "<title>&lt;b&gt;a &amp; b" in text and "{{" not in text.replace("{{title}}", "{{")
    assert text.count("</script>") == 2  # no name can end an element
    assert not re.search(r"(https?:)?//[a-z]+\.[a-z]", re.sub(r"^ *//.*$", "", text, flags=re.MULTILINE))  # no network
    assert [p["name"] for p in data["people"]] == ["<!--<script>", "b"] and data["parents"][:4] == [-1, 0, 0, 0]
    assert data["span"] == pytest.approx([people[0].timestamps[0], people[1].timestamps[-1]])
    assert data["film"]["src"] is None and data["film"]["embedded"] is None
    for motion, told, person in zip(people, data["people"], characters(people, body), strict=True):
        assert tuple(told["colour"]) == person_colour(motion.person_id)
        np.testing.assert_allclose(numbers(told["times"], "<f4"), motion.timestamps, atol=1e-6)
        np.testing.assert_array_equal(numbers(told["observed"], "u1") == 1, motion.observed)
        quat = numbers(told["quaternions"], "<i2").reshape(-1, 24, 4) / 32767
        np.testing.assert_allclose(quat, person.quat_wxyz(), atol=2e-5)
        positions = numbers(told["positions"], "<u2").reshape(-1, 3) / 65535 * told["extent"] + np.array(told["low"])
        np.testing.assert_allclose(positions, person.rest_vertices(), atol=5e-5)
        np.testing.assert_allclose(
            numbers(told["std"], "<u2") / 1e4, motion.joints3d_std[:, 1:].mean(-1).clip(0), atol=1e-4
        )
    weights = numbers(data["weights"], "u1").reshape(-1, 4)
    assert (weights.sum(1) >= 253).all() and len(numbers(data["camera"]["times"], "<f4")) == 1
    assert not data["ground"]["known"] and "No ground is known" in data["note"]


def test_nobody_and_one_frame(tmp_path: Path, people: list[Motion], body: Body) -> None:
    write_view_html(tmp_path / "view.html", [people[0][:0], people[1][3:4]], body)
    (one,) = data_of(tmp_path / "view.html")["people"]
    assert one["name"] == "person01" and tuple(one["colour"]) == person_colour(1)
    write_view_html(tmp_path / "view.html", [], body)
    assert data_of(tmp_path / "view.html")["people"] == []


def test_a_camera_that_moves_has_a_row_a_frame(
    tmp_path: Path, people: list[Motion], body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a world frame will have it: the axes of the files turn against the camera's from frame to frame."""

    def root(motion: Motion, body: Body) -> tuple[np.ndarray, np.ndarray]:
        t = motion.timestamps
        pelvis = body.rest_joints(torch.tensor(motion.betas)).numpy()[0]
        cos, sin, nil, one = np.cos(t), np.sin(t), np.zeros_like(t), np.ones_like(t)
        turn = np.stack((cos, nil, sin, nil, one, nil, -sin, nil, cos), -1).reshape(-1, 3, 3)
        place = np.stack((t, nil + 1.5, nil), -1)
        own = motion.pose_rotmat()[:, 0].double().numpy()
        return turn @ own, np.einsum("tij,tj->ti", turn, motion.transl + pelvis) + place - pelvis

    monkeypatch.setattr("kinflow.formats.characters.exported_root", root)
    write_view_html(tmp_path / "view.html", people, body)
    camera = data_of(tmp_path / "view.html")["camera"]
    times = numbers(camera["times"], "<f4")
    assert len(times) == len(set(np.concatenate([p.timestamps for p in people]).round(6)))
    places = numbers(camera["places"], "<f4").reshape(-1, 3)
    np.testing.assert_allclose(places, np.stack((times, 0 * times + 1.5, 0 * times), -1), atol=1e-4)


@pytest.mark.parametrize(("most", "largest", "embedded"), [(10**7, 10**7, True), (100, 10**7, True), (100, 50, False)])
def test_a_film_is_embedded_where_it_fits(
    tmp_path: Path,
    people: list[Motion],
    body: Body,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    largest: int,
    embedded: bool,
) -> None:
    for name, value in (("AS_IT_IS", most), ("LARGEST", largest), ("PIXELS", 2000)):
        monkeypatch.setattr(page, name, value)
    overlay = film(tmp_path / "overlay.mp4")
    write_page(tmp_path / "view.html", people, body, title="a", names=["a", "b"], overlay=overlay, begin=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["overlay.mp4", "view.html"]
    told = data_of(tmp_path / "view.html")
    assert told["film"]["begin"] == 0.5
    if not embedded:
        assert told["film"] == {"src": "overlay.mp4", "embedded": None, "begin": 0.5} and "overlay.mp4" in told["note"]
        return
    assert told["film"]["src"] is None
    inside = base64.b64decode(told["film"]["embedded"])
    assert (inside == overlay.read_bytes()) == (most > 100)
    (tmp_path / "inside.mp4").write_bytes(inside)
    clip = Clip.open(tmp_path / "inside.mp4")
    assert len(clip.timestamps) == 24 and clip.image_size == ((128, 96) if most > 100 else (52, 38))


def test_the_film_is_the_overlay_alone(tmp_path: Path, people: list[Motion], body: Body) -> None:
    with VideoWriter(tmp_path / "overlay.mp4", (160, 48), 24) as video:
        for _ in range(3):
            video.write(
                np.repeat(np.array([40, 200, 90], np.uint8), [64, 64, 32])[None, :, None].repeat(48, 0).repeat(3, 2)
            )
    columns = Panels.of("side-by-side", (64, 48)).overlay_columns
    assert columns == (64, 128) and Panels.of("overlay", (64, 48)).overlay_columns is None
    write_page(
        tmp_path / "view.html", people, body, title="a", names=["a", "b"], overlay=tmp_path / "overlay.mp4", begin=0.0,
        columns=columns,
    )  # fmt: skip
    (tmp_path / "inside.mp4").write_bytes(base64.b64decode(data_of(tmp_path / "view.html")["film"]["embedded"]))
    (batch,) = Clip.open(tmp_path / "inside.mp4").batches(8)
    assert batch.images.shape == (3, 48, 64, 3) and abs(int(np.median(batch.images)) - 200) < 5


def test_a_minute_of_two_people_is_small(tmp_path: Path, body: Body) -> None:
    """What is beside the film, whose own limit is :data:`kinflow.apps.page.LARGEST`."""
    two = [a_walk(body, 1800, 30.0, person_id=i) for i in range(2)]
    write_view_html(tmp_path / "view.html", two, body)
    size = (tmp_path / "view.html").stat().st_size
    print(f"view.html of a minute and two people without a film: {size / 1e6:.2f} MB")
    assert size + 4 / 3 * page.LARGEST < 15e6


def test_the_page_comes_with_the_results(tmp_path: Path, people: list[Motion], body: Body) -> None:
    info = {
        "timings": {"load": 1.0},
        "clip": {"frames": 24},
        "people": [{"file": "person00.npz"}, {"file": "person01.npz"}],
    }
    clip = Clip.open(film(tmp_path / "walk.mp4", size=(640, 480)))
    result = Result(clip, RunOptions(), people, [], body, info)
    told = result.write(tmp_path / "out")
    assert told["files"] == ["person00.npz", "person01.npz", "overlay.mp4", "view.html", "run.json"]
    assert "view" in told["timings"] and data_of(tmp_path / "out/view.html")["title"] == "walk.mp4"
    assert data_of(tmp_path / "out/view.html")["film"]["embedded"]
    told = result.write(tmp_path / "out", draw=False)
    assert not (tmp_path / "out/overlay.mp4").exists() and not data_of(tmp_path / "out/view.html")["film"]["embedded"]
    result.write(tmp_path / "out", draw=False, view=False)
    assert not (tmp_path / "out/view.html").exists()


def test_what_cannot_be(tmp_path: Path, people: list[Motion], body: Body) -> None:
    with pytest.raises(UsageError, match="belongs to 'smpl'"):
        write_view_html(tmp_path / "view.html", [dataclasses.replace(people[0], body="smpl")], body)
    (tmp_path / "file").touch()
    with pytest.raises((OutputError, OSError)):
        write_view_html(tmp_path / "file" / "view.html", people, body)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- in a browser ----------------------------------------------------------------------------------------------------------

PROBE = """
(async () => {
  const wait = (ms) => new Promise((r) => setTimeout(r, ms));
  const k = window.kinflow, out = {}, gl = k.scene.gl, canvas = document.getElementById("scene");
  const pixels = () => {
    const all = new Uint8Array(4 * canvas.width * canvas.height);
    gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, all);
    const boxes = k.people.map(() => [1e9, 1e9, -1, -1, 0]);
    for (let i = 0; i < all.length; i += 4) {
      const [r, g, b] = all.subarray(i, i + 3);
      const person = b > r + 50 ? 0 : r > b + 60 ? 1 : -1;  // blue and orange
      if (person < 0 || person >= boxes.length) continue;
      const x = (i / 4) % canvas.width + 0.5, y = canvas.height - Math.floor(i / 4 / canvas.width) - 0.5, box = boxes[person];
      boxes[person] = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y), box[4] + 1];
    }
    return boxes;
  };
  const drag = (dx) => {
    const at = (kind, x, buttons) => canvas.dispatchEvent(new PointerEvent(kind, { pointerId: 1, clientX: x, clientY: 200, buttons, bubbles: true }));
    at("pointerdown", 200, 1); at("pointermove", 200 + dx, 1); at("pointerup", 200 + dx, 0);
  };
  try {
    for (let i = 0; i < 300 && !k.state().film.ready; i++) await wait(100);
    out.film = k.state().film;
    out.size = [canvas.width, canvas.height];
    out.joints = k.people.map((_, p) => [0, 7].map((row) => k.jointAt(p, row)));
    out.projected = k.people.map((_, p) => k.pixelsAt(p, 7));
    k.seek(k.people[0].times[7]); await wait(300);
    out.sought = [k.state().now, k.state().film.time];
    k.setView("camera"); out.camera = pixels();
    k.setView("orbit"); out.orbit = pixels(); out.before = k.state().orbit;
    drag(150); out.dragged = pixels(); out.after = k.state().orbit;
    canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -400, cancelable: true })); out.zoomed = k.state().orbit;
    k.setView("camera"); drag(1); out.left = k.state().view; k.setView("side"); out.side = k.state().orbit;
    document.querySelector("#legend input").click(); out.hidden = pixels(); document.querySelector("#legend input").click();
    k.seek(k.data.span[0]); out.alone = pixels(); out.legend = document.getElementById("legend").textContent;
    HTMLMediaElement.prototype.play = () => Promise.reject(new Error("not now"));  // the page's own clock, then
    document.getElementById("play").click();
    for (let i = 0; i < 300 && k.state().now < 0.15; i++) await wait(10);
    out.played = k.state(); document.getElementById("play").click(); out.paused = k.state();
    k.play(); for (let i = 0; i < 300 && k.state().playing; i++) await wait(100); out.ended = k.state();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" })); out.stepped = k.state().now;
    const plot = document.getElementById("plot"), box = plot.getBoundingClientRect();
    plot.dispatchEvent(new PointerEvent("pointerdown", { clientX: box.left + box.width / 2, clientY: box.top + 20, buttons: 1 }));
    out.scrubbed = k.state().now;
    document.getElementById("follow").click(); document.getElementById("curve").value = "confidence"; k.seek(0.5);
  } catch (fault) { window.faults.push(String(fault.stack || fault)); }
  out.faults = window.faults;
  tell(out);
})();
"""


class Told(http.server.BaseHTTPRequestHandler):
    """Takes what the page tells; nothing else of this machine is open to the browser."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.told.put(json.loads(body))  # type: ignore[attr-defined]

    def log_message(self, *arguments: object) -> None:
        pass


def opened(page_path: Path, folder: Path, probe: str) -> dict[str, Any]:
    """What a script tells that runs at the end of a page, in a headless browser without a network."""
    found = [b for b in (os.environ.get("KINFLOW_BROWSER"), *map(shutil.which, BROWSERS)) if b]
    if not found:
        pytest.skip("no Chromium or Chrome is here to open view.html; install one, or name it in KINFLOW_BROWSER")
    with http.server.HTTPServer(("127.0.0.1", 0), Told) as server:
        server.told = queue.Queue()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = page_path.read_text(encoding="utf-8")
        listen = f"""window.faults = []; onerror = (m, s, line) => faults.push(m + " line " + line);
          onunhandledrejection = (e) => faults.push(String(e.reason)); console.error = (m) => faults.push(String(m));
          tell = (out) => fetch("http://127.0.0.1:{server.server_port}/", {{ method: "POST", mode: "no-cors", body: JSON.stringify(out) }});"""
        text = text.replace("<head>", f"<head><script>{listen}</script>", 1)
        copy = page_path.with_name("probed.html")
        copy.write_text(text.replace("</body>", f"<script>{probe}</script></body>", 1), encoding="utf-8")
        command = [
            found[0], "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1000,800", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", copy.as_uri(),
        ]  # fmt: skip
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return dict(server.told.get(timeout=300))  # type: ignore[attr-defined]
        except queue.Empty:
            pytest.fail("the page told nothing in five minutes")
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, people: list[Motion]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    body = Body.open("light")
    write_page(
        folder / "view.html", people, body, title="a", names=["a", "b"], overlay=film(folder / "o.mp4"), begin=0.0
    )
    return opened(folder / "view.html", folder, PROBE)


def test_it_loads_without_errors(shown: dict[str, Any]) -> None:
    assert shown["faults"] == []
    assert shown["film"]["ready"] and shown["film"]["width"] == 128


def test_joints_are_the_motions(shown: dict[str, Any], people: list[Motion]) -> None:
    for motion, told, pixels in zip(people, shown["joints"], shown["projected"], strict=True):
        np.testing.assert_allclose(told, y_up(motion.joints3d[[0, 7]]), atol=5e-4)
        expected = project(torch.tensor(motion.joints3d[7]).double(), torch.tensor(motion.K).double()).numpy()
        np.testing.assert_allclose(pixels, expected, atol=0.2)


def test_the_clips_camera_shows_people_where_it_saw_them(shown: dict[str, Any], people: list[Motion]) -> None:
    body = Body.open("light")
    (width, height), (w, h) = shown["size"], (640, 480)
    share = min(width / w, height / h)
    for motion, (left, top, right, bottom, count) in zip(people, shown["camera"], strict=True):
        row = int(np.abs(motion.timestamps - people[0].timestamps[7]).argmin())
        vertices = torch.from_numpy(motion.vertices([row], body)[0])
        at = project(vertices, torch.tensor(motion.K)).numpy()
        at = (at - [w / 2, h / 2]) * share + [width / 2, height / 2]
        np.testing.assert_allclose([left, top], at.min(0).clip(0), atol=4)
        np.testing.assert_allclose([right, bottom], at.max(0).clip(None, [width, height]), atol=4)
        assert count > 500


def test_it_turns_zooms_and_hides(shown: dict[str, Any]) -> None:
    assert all(box[4] > 300 for box in (*shown["orbit"], *shown["dragged"]))
    assert shown["orbit"] != shown["dragged"]
    assert shown["after"]["yaw"] == pytest.approx(shown["before"]["yaw"] - 150 * 0.008)
    assert shown["zoomed"]["distance"] < shown["after"]["distance"]
    assert shown["left"] == "orbit" and shown["side"]["yaw"] == pytest.approx(np.pi / 2, abs=0.5)
    assert shown["hidden"][0][4] == 0 and shown["hidden"][1][4] > 300
    assert shown["alone"][1][4] == 0 and "b not in view" in shown["legend"]  # who comes later


def test_it_plays_scrubs_and_steps(shown: dict[str, Any], people: list[Motion]) -> None:
    first, last = people[0].timestamps[0], people[1].timestamps[-1]
    assert shown["sought"] == pytest.approx([people[0].timestamps[7]] * 2, abs=0.01)
    assert shown["played"]["playing"] and first + 0.1 < shown["played"]["now"] < last
    assert not shown["paused"]["playing"]
    assert not shown["ended"]["playing"] and shown["ended"]["now"] == pytest.approx(last)
    assert shown["stepped"] < last - 0.01
    assert shown["scrubbed"] == pytest.approx((first + last) / 2, abs=0.1)


def test_a_page_without_anybody_loads(tmp_path: Path, body: Body) -> None:
    write_view_html(tmp_path / "view.html", [], body)
    probe = """setTimeout(() => { kinflow.play(); kinflow.setView("camera"); kinflow.step(1);
      tell({ faults, legend: document.getElementById("legend").textContent });
    }, 500);"""
    assert opened(tmp_path / "view.html", tmp_path, probe) == {"faults": [], "legend": "nobody was found"}
