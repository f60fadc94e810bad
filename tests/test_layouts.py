"""The overlay's layouts, keypoints and sound."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from walking_people import a_walk, y_up

from kinflow.apps.layouts import LAYOUTS, WIDEST, Panels, SideView, check_layout, scaled
from kinflow.apps.options import RunOptions
from kinflow.apps.overlay import write_overlay
from kinflow.apps.results import Result
from kinflow.body import Body
from kinflow.cli.video import LAYOUTS as OFFERED
from kinflow.cli.video import main
from kinflow.clip import Clip
from kinflow.errors import OutputError, UsageError
from kinflow.formats.characters import characters, exported_root, file_axes
from kinflow.motion import Motion
from kinflow.render.lines import draw_keypoints, draw_lines
from kinflow.render.views import PAPER
from kinflow.video.sound import add_sound

RATE = 16000


def write_clip(
    path: Path, frames: int = 24, fps: int = 24, size: tuple[int, int] = (96, 64), codec: str | None = None
) -> Path:
    """Grey frames; with a codec, a tone whose pitch rises by the second beside them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"bf": "0"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=RATE, layout="mono") if codec else None
        for i in range(frames):
            image = np.full((size[1], size[0], 3), 90 + i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        if sound is not None:
            t = np.arange(RATE * frames // fps) / RATE
            tone = 0.5 * np.sin(2 * np.pi * np.where(t < 0.5, 400, 1600) * t)
            for k in range(0, len(t) - 1023, 1024):
                packed = (tone[None, k : k + 1024] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, k, Fraction(1, RATE)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def sound_of(path: Path) -> tuple[np.ndarray, float]:
    """Samples, and the time of the first, s."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0), 0.0
        frames = list(container.decode(audio=0))
    return np.concatenate([f.to_ndarray().astype(float).mean(0) for f in frames]), float(frames[0].time)


@pytest.fixture(scope="module")
def light_body() -> Body:
    return Body.open("light")


def seen_walk(body: Body, frames: int = 6, size: tuple[int, int] = (96, 64)) -> Motion:
    """Who walks in the middle of the picture, all keypoints in its upper left."""
    motion = a_walk(body, frames)
    K = np.array([[60, 0, size[0] / 2], [0, 60, size[1] / 2], [0, 0, 1]], np.float32)
    keypoints = np.broadcast_to(np.stack((np.linspace(4, 20, 33), np.full(33, 5.0)), -1), (frames, 33, 2))
    return dataclasses.replace(
        motion, K=K, keypoints2d=keypoints.astype(np.float32), confidence=np.ones((frames, 33), np.float32),
        frame_ids=np.arange(frames), image_size=np.array(size),
    )  # fmt: skip


# -- panels --------------------------------------------------------------------------------------------------------------


def test_sizes_of_panels() -> None:
    assert Panels.of("overlay", (5000, 3001)).size == (5000, 3001)  # as ever
    assert Panels.of("side-by-side", (96, 64)).size == (96 + 96 + 64, 64)
    assert Panels.of("original-overlay", (95, 61)).size == (190, 61)
    for layout in LAYOUTS:
        panels = Panels.of(layout, (1768, 994))
        width, height = panels.size
        assert width <= WIDEST + 4
        if len(panels.names) > 1:
            assert width % 2 == 0 and height % 2 == 0
            assert panels.frame[0] / panels.frame[1] == pytest.approx(1768 / 994, rel=5e-3)
    assert list(LAYOUTS) == list(OFFERED)  # the command's --help names them without importing torch


def test_scaled_frames_are_means() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 200
    small = scaled(image, (30, 20))
    assert small.shape == (20, 30, 3) and abs(int(small[10, 25, 0]) - 200) <= 2 and small[10, 4, 0] <= 2
    assert scaled(image, (60, 40)) is image


def test_an_unknown_layout_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, light_body: Body) -> None:
    with pytest.raises(UsageError, match=r"layout: expected one of overlay, original-overlay.*got 'mosaic'"):
        check_layout("mosaic")
    result = Result(None, RunOptions(), [], [], light_body, {"timings": {}})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mosaic"):
        result.write(tmp_path / "out", layout="mosaic")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["clip.mp4", "-o", "out", "--layout", "mosaic"])
    assert stopped.value.code == 2 and "'mosaic'" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--layout", "overlay"], ["--draw-keypoints"]])
def test_nothing_to_lay_out_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path, more: list[str]) -> None:
    assert main([str(write_clip(tmp_path / "a.mp4")), "-o", str(tmp_path / "out"), "--no-overlay", *more]) == 2
    assert "--no-overlay: there is nothing" in capsys.readouterr().err


# -- what is in them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_panel_shows_what_it_should(tmp_path: Path, light_body: Body, layout: str) -> None:
    clip = Clip.open(write_clip(tmp_path / "a.mp4", 8))
    write_overlay(tmp_path / "o.mp4", clip, [seen_walk(light_body)], light_body, layout=layout, keypoints=True)  # type: ignore[arg-type]
    drawn = pictures(tmp_path / "o.mp4").astype(int)
    panels = Panels.of(layout, (96, 64))  # type: ignore[arg-type]
    assert drawn.shape == (8, panels.size[1], panels.size[0], 3)
    left = 0
    for name in panels.names:
        width = panels.side[0] if name == "side" else panels.frame[0]
        panel, left = drawn[:, :, left : left + width], left + width
        blue = (panel[..., 2] - panel[..., 0] > 40).sum((1, 2))
        bright = (panel[:, :12, :30].min(-1) > 200).sum((1, 2))
        if name == "original":
            assert not blue.any() and not bright.any()
        elif name == "overlay":
            assert (blue[:6] > 100).all() and not blue[6:].any()
            assert (bright[[0, 1, 4, 5]] > 10).all() and not bright[[2, 3, 6, 7]].any()  # where observed
        else:
            assert (blue[:6] > 100).all() and not blue[6:].any() and np.median(panel) == pytest.approx(PAPER, abs=3)


def test_keypoints_are_optional(tmp_path: Path, light_body: Body) -> None:
    clip = Clip.open(write_clip(tmp_path / "a.mp4", 2))
    write_overlay(tmp_path / "o.mp4", clip, [seen_walk(light_body)], light_body)
    assert pictures(tmp_path / "o.mp4")[:, :12, :30].max() < 150


def test_from_the_side_people_stand_upright_where_the_exports_have_them(light_body: Body) -> None:
    motion = a_walk(light_body, 6)
    turn, shift = file_axes(motion, light_body)
    joints = np.einsum("tij,tnj->tni", turn, motion.joints3d) + shift[:, None]
    np.testing.assert_allclose(joints, y_up(motion.joints3d), atol=1e-5)
    np.testing.assert_allclose(joints, characters([motion], light_body)[0].joints(), atol=1e-4)
    size = (200, 160)
    view = SideView([motion], light_body, size)
    vertices = torch.from_numpy(motion.vertices([0], light_body))[0]
    blue = np.argwhere(np.abs(view.draw(int(motion.frame_ids[0]), {0: vertices}).astype(int) - PAPER).max(-1) > 8)
    at = view._views[int(motion.frame_ids[0])].pixels(torch.from_numpy(y_up(vertices.numpy())), size).numpy()
    np.testing.assert_allclose(blue.min(0)[::-1], at.min(0), atol=2)
    np.testing.assert_allclose(blue.max(0)[::-1] + 1, at.max(0), atol=2)
    # Nearer to the camera, which stands to the left, is further left; up is up.
    middle = torch.tensor([[0.0, 0.0, -4.0], [0.0, 0.0, -3.0], [0.0, 1.0, -4.0]])
    far, near, high = view._views[int(motion.frame_ids[0])].pixels(middle, size)
    assert near[0] < far[0] and high[1] < far[1]


def test_the_side_is_the_cameras_whatever_way_the_world_lies(light_body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    motion = a_walk(light_body, 6)
    vertices = torch.from_numpy(motion.vertices([0], light_body))[0]
    first = int(motion.frame_ids[0])
    expected = SideView([motion], light_body, (160, 120)).draw(first, {0: vertices}).astype(int)

    def turned(motion: Motion, body: Body) -> tuple[np.ndarray, np.ndarray]:
        turn, shift = exported_root(motion, body)
        pelvis = body.rest_joints(torch.tensor(motion.betas)).numpy()[0]
        quarter = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
        return quarter @ turn, (shift + pelvis) @ quarter.T - pelvis

    monkeypatch.setattr("kinflow.formats.characters.exported_root", turned)
    drawn = SideView([motion], light_body, (160, 120)).draw(first, {0: vertices}).astype(int)
    assert np.abs(drawn - expected).mean() < 0.5


def test_who_walks_far_is_followed(light_body: Body) -> None:
    motion = a_walk(light_body, 60, fps=10)
    far = dataclasses.replace(motion, transl=motion.transl + np.linspace(0, 30, 60)[:, None] * [0, 0, 1])
    with torch.no_grad():
        joints = light_body.joints(torch.tensor(far.betas), far.pose_rotmat(), torch.tensor(far.transl).float())
    far = dataclasses.replace(far, transl=far.transl.astype(np.float32), joints3d=joints.numpy())
    still, going = SideView([motion], light_body, (64, 64)), SideView([far], light_body, (64, 64))
    assert len(set(still._views.values())) == 1 and len(set(going._views.values())) > 40
    assert max(v.span for v in going._views.values()) < 20
    centres = [going._views[int(f)].centre[0] for f in far.frame_ids]
    assert (np.diff(centres) >= -1e-6).all() and centres[-1] - centres[0] > 15


def test_a_ground_is_drawn_where_there_is_one(light_body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    motion = a_walk(light_body, 6)
    assert (SideView([motion], light_body, (160, 160)).draw(int(motion.frame_ids[0]), {}) == round(PAPER)).all()
    monkeypatch.setattr("kinflow.apps.layouts.on_ground", lambda motions: True)
    drawn = SideView([motion], light_body, (160, 160)).draw(int(motion.frame_ids[0]), {})
    assert 0.01 < (drawn < 240).any(-1).mean() < 0.4


def test_nobody_and_one_frame(tmp_path: Path, light_body: Body) -> None:
    clip = Clip.open(write_clip(tmp_path / "a.mp4", 3))
    for motions in ([], [seen_walk(light_body)[1:2]], [seen_walk(light_body)[2:2]]):
        write_overlay(tmp_path / "o.mp4", clip, motions, light_body, layout="side-by-side", keypoints=True)
        assert pictures(tmp_path / "o.mp4").shape == (3, 64, 256, 3)


def test_lines_and_dots() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    draw_lines(image, np.array([[5, 10.5]]), np.array([[25, 10.5]]), (255, 0, 0), 3)
    assert (
        (image[9:12, 6:24, 0] == 255).all()
        and not image[:8].any()
        and not image[13:].any()
        and not image[..., 1:].any()
    )
    draw_lines(image, np.array([[-50.0, 5.0], [np.nan, 1]]), np.array([[90.0, 5.0], [3, 4]]), (0, 255, 0))
    assert (image[4:6, :, 1] > 100).all()
    before = image.copy()
    draw_keypoints(image, np.full((33, 2), 1e7), np.ones(33))
    draw_keypoints(image, np.full((33, 2), 8.0), np.zeros(33))
    assert (image == before).all()


# -- sound ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "name", "kept"), [("aac", "a.mp4", "aac"), ("pcm_s16le", "a.mov", "aac"), ("libopus", "a.mkv", "opus")])  # fmt: skip
@pytest.mark.parametrize(("start", "end"), [(None, None), (0.25, 0.9)])
def test_sound_is_kept(
    tmp_path: Path, light_body: Body, codec: str, name: str, kept: str, start: float | None, end: float | None
) -> None:
    clip = Clip.open(write_clip(tmp_path / name, codec=codec), start=start, end=end)
    write_overlay(tmp_path / "o.mp4", clip, [], light_body)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert [s.codec_context.name for s in container.streams.audio] == [kept]
        assert container.streams.video[0].frames == len(clip.timestamps)
    samples, first = sound_of(tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        rate = container.streams.audio[0].codec_context.sample_rate
    length = (end or 1.0) - (start or 0.0)
    assert first < 0.08 and len(samples) / rate == pytest.approx(length, abs=0.14)
    # The tone rises half a second into the clip: it must do so at the same picture here.
    times = first + np.arange(len(samples)) / rate
    crossings = np.signbit(samples[1:]) != np.signbit(samples[:-1])

    def pitch(a: float, b: float) -> float:
        inside = (times[1:] >= a) & (times[1:] < b)
        return float(crossings[inside].sum() / 2 / (b - a))

    rise = 0.5 - (start or 0.0)
    assert pitch(max(0.02, rise - 0.08), rise - 0.02) == pytest.approx(400, rel=0.2)
    assert pitch(rise + 0.02, rise + 0.2) == pytest.approx(1600, rel=0.2)


def test_without_sound_nothing_happens(tmp_path: Path, light_body: Body) -> None:
    clip = Clip.open(write_clip(tmp_path / "a.mp4"))
    write_overlay(tmp_path / "o.mp4", clip, [], light_body)
    assert sound_of(tmp_path / "o.mp4")[0].size == 0
    before = (tmp_path / "o.mp4").read_bytes()
    assert not add_sound(tmp_path / "o.mp4", tmp_path / "a.mp4", 0.0)
    assert not add_sound(tmp_path / "o.mp4", tmp_path, 0.0) and not add_sound(
        tmp_path / "o.mp4", tmp_path / "b.png", 0.0
    )
    assert (tmp_path / "o.mp4").read_bytes() == before


def test_sound_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, pictures_only = write_clip(tmp_path / "a.mp4", codec="aac"), write_clip(tmp_path / "o.mp4")

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kinflow.video.sound._mux", full)
    with pytest.raises(OutputError, match="No space left"):
        add_sound(pictures_only, clip, 0.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "o.mp4"]


def test_damaged_sound_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mp4").write_text("not a video")
    pictures_only = write_clip(tmp_path / "o.mp4")
    assert not add_sound(pictures_only, tmp_path / "a.mp4", 0.0)
    assert "left out" in caplog.messages[0]
