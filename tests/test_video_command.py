"""kinflow-video from outside: every bad input ends with one line, the right exit code, and no half-written files."""

from __future__ import annotations

import argparse
import configparser
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

import kinflow
from kinflow import assets
from kinflow.apps.options import RunOptions
from kinflow.cli.command import new_parser, run_command
from kinflow.cli.train import parser as train_parser
from kinflow.cli.video import main, parser
from kinflow.config import (
    DenoiserTrainingConfig,
    DynamicsTrainingConfig,
    FlowTrainingConfig,
    PipelineConfig,
    ReconstructorTrainingConfig,
    load_config,
)
from kinflow.errors import NobodyFoundError, OutputError, UsageError

COMMAND = [sys.executable, "-m", "kinflow.cli.video"]


def write_video(path: Path, frames: np.ndarray, fps: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def empty_room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with nobody in it."""
    noise = np.random.default_rng(0).integers(90, 110, (12, 120, 160, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("clips") / "room.mp4", noise)


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run the command; expect exit ``code``, nothing on standard output, and one line that is returned."""
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("kinflow-video:")]
    assert out == "" and len(lines) == 1 and "Traceback" not in err
    return lines[0]


def test_help_teaches() -> None:
    text = parser().format_help()
    for flag in [
        "--out",
        "--start",
        "--end",
        "--max-people",
        "--device",
        "--batch-size",
        "--focal",
        "--fov",
        "--intrinsics",
        "--body",
        "--body-path",
        "--quality",
        "--refine",
        "--no-overlay",
        "--no-view",
        "--layout",
        "--draw-keypoints",
        "--export",
        "--keypoints",
        "--seed",
        "--set",
        "--quiet",
        "--json",
    ]:
        assert flag in text
    assert "exit codes" in text and "examples" in text


def test_help_names_settings_that_exist() -> None:
    named = re.findall(r"\b[a-z_]+(?:\.[a-z_0-9]+)+=[^\s;,]+", parser().format_help())
    assert named
    load_config(PipelineConfig, overrides=named)
    named = re.findall(r"\b[a-z_]+(?:\.[a-z_0-9]+)+=[^\s;,]+", train_parser().format_help())
    assert named
    for config in (FlowTrainingConfig, DynamicsTrainingConfig, DenoiserTrainingConfig, ReconstructorTrainingConfig):
        load_config(config, overrides=named)


@pytest.mark.parametrize("command", ["video", "view", "export", "smooth", "train"])
def test_every_command_tells_its_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"kinflow.cli.{command}").main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"kinflow-{command} {kinflow.__version__}\n"


def test_the_package_lists_its_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "kinflow"], capture_output=True, text=True, check=True)
    scripts = configparser.ConfigParser()
    scripts.read(Path(__file__).parents[1] / "setup.cfg")
    names = re.findall(r"^(kinflow-\w+) =", scripts["options.entry_points"]["console_scripts"], re.MULTILINE)
    assert names and sorted(re.findall(r"^  (kinflow-\w+)", done.stdout, re.MULTILINE)) == sorted(names)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("size: expected 3,\n got 4."), 2, "tool: size: expected 3, got 4."),
        (OutputError("out: the disk is full."), 1, "tool: out: the disk is full."),
        (PermissionError(13, "Permission denied", "x"), 1, "tool: [Errno 13] Permission denied: 'x'. Free space"),
        (KeyboardInterrupt(), 130, "tool: gone."),
    ],
)
def test_errors_end_a_command_with_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def action(args: argparse.Namespace) -> None:
        raise error

    assert run_command(new_parser("tool", "A tool."), action, [], interrupted="gone.") == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(new_parser("tool", "A tool."), lambda args: print(1 / 0), [])


def test_usage_errors_are_two(capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_room: Path) -> None:
    for arguments in ([], ["clip.mp4"], ["clip.mp4", "-o", "x", "--focal", "1", "--fov", "2"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    capsys.readouterr()
    out = tmp_path / "out"
    assert "no such setting" in fails(capsys, 2, empty_room, "-o", out, "--set", "nonsense=1")
    assert "--end" in fails(capsys, 2, empty_room, "-o", out, "--start", 3, "--end", 1)
    assert "device" in fails(capsys, 2, empty_room, "-o", out, "--device", "abacus", "--quiet")
    assert "max_people" in fails(capsys, 2, empty_room, "-o", out, "--max-people", 0, "--quiet")
    assert "batch_size" in fails(capsys, 2, empty_room, "-o", out, "--batch-size", 0, "--quiet")
    assert "focal" in fails(capsys, 2, empty_room, "-o", out, "--focal", -5, "--quiet")
    assert "intrinsics" in fails(capsys, 2, empty_room, "-o", out, "--intrinsics", "1,2", "--quiet")
    assert "seed" in fails(capsys, 2, empty_room, "-o", out, "--seed", -1, "--quiet")
    assert "fov" in fails(capsys, 2, empty_room, "-o", out, "--fov", 200, "--quiet")
    assert "licensed" in fails(capsys, 2, empty_room, "-o", out, "--body", "smpl", "--quiet")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--end", "0"], "end: expected seconds above 0"),
        (["--start", "0.51", "--end", "0.52"], "no frame of room.mp4 lies between"),
        (["--focal", "1e-9"], "focal: expected a focal length"),
        (["--intrinsics", "1,1,0,0"], "got the identity"),
        (["--intrinsics", "nan,500,80,60"], "not a camera matrix"),
        (["--device", "meta"], "device: 'meta' is not to be had"),
        (["--batch-size", "1000000"], "batch_size: expected 1 to 1024"),
        (["--seed", str(2**64)], "seed: expected"),
        (["--set", "perception.batch_people=0"], "perception.batch_people: expected 1 to 1024, got 0"),
        (["--set", "perception.max_people=0"], "perception.max_people: expected 1"),
        (["--set", "perception.landmark_threshold=.nan"], "perception.landmark_threshold: expected 0 to 1, got nan"),
        (["--set", "perception.tile_scales=[0.0]"], "perception.tile_scales[0]: expected 0.05 to 1"),
        (["--set", "video.preset=hasty"], "video.preset: expected one of ultrafast"),
        (["--set", "video.crf=999"], "video.crf: expected 0 to 51"),
        (["--set", "render.opacity=7"], "render.opacity: expected 0 to 1"),
        (["-o", ""], "--out: expected a folder"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_room: Path, arguments: list[str], named: str
) -> None:
    assert named in fails(capsys, 2, empty_room, "-o", tmp_path / "out", *arguments, "--quiet")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["walk"]])
def test_a_full_standard_output_is_one(arguments: list[str]) -> None:
    """ "walk" stands for a command that prints what it found."""
    code = (
        "import sys; from kinflow.cli.command import new_parser, run_command; p = new_parser('tool', 'A tool.'); "
        "p.add_argument('clip'); sys.exit(run_command(p, lambda a: print('x' * 10), sys.argv[1:]))"
    )
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered
        )
    assert done.returncode == 1
    assert done.stderr.startswith("tool: standard output: could not be written") and done.stderr.count("\n") == 1


def test_quality_chooses_the_networks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_room: Path
) -> None:
    asked = []

    def run(clip: object, options: RunOptions, **more: object) -> None:
        asked.append((options.config.perception.landmarks, options.config.perception.parts))
        raise NobodyFoundError("nobody")

    monkeypatch.setattr("kinflow.apps.video.run", run)
    room = (empty_room, "-o", tmp_path / "out", "--quiet")
    for more in [(), ("--quality", "best"), ("--quality", "fast")]:
        fails(capsys, 5, *room, *more)
    fails(capsys, 5, *room, "--set", "perception.landmarks=full")
    fails(capsys, 5, *room, "--quality", "fast", "--set", "perception.landmarks=full")
    fails(capsys, 5, *room, "--quality", "fast", "--set", "perception.parts=true")
    best, fast = ("heavy", True), ("full", False)
    assert asked == [best, best, fast, ("full", True), fast, ("full", True)]
    line = fails(capsys, 2, *room, "--quality", "fast", "--set", "perception.landmarks=heavy")
    assert "--quality fast" in line and "perception.landmarks=heavy" in line


def test_missing_weights_are_three(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_room: Path
) -> None:
    folder = tmp_path / "assets"
    folder.mkdir()
    for file in assets.FOLDER.iterdir():
        if "heavy" not in file.name:
            (folder / file.name).symlink_to(file)
    monkeypatch.setattr(assets, "FOLDER", folder)
    line = fails(capsys, 3, empty_room, "-o", tmp_path / "out", "--quiet")
    assert "blazepose_landmark_heavy" in line and "perception.landmarks=full" in line
    fails(capsys, 5, empty_room, "-o", tmp_path / "out", "--quiet", "--quality", "fast")


def test_missing_model_file_is_three(capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_room: Path) -> None:
    line = fails(
        capsys, 3, empty_room, "-o", tmp_path / "out", "--body", "smpl", "--body-path", tmp_path / "no.pkl", "--quiet"
    )
    assert "no.pkl" in line


def test_unreadable_clips_are_four(capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_room: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(empty_room.read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no images here")
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("pipe.mp4", "text.mp4", "empty.mp4", "cut.mp4", "folder", "sound.m4a", "missing.mp4"):
        line = fails(capsys, 4, tmp_path / name, "-o", tmp_path / "out", "--quiet")
        assert name in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(12, 120, 160, 3), (1, 64, 64, 3), (3, 8, 8, 3), (3, 61, 47, 3)])
def test_nobody_is_five(capsys: pytest.CaptureFixture[str], tmp_path: Path, shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(1).integers(60, 80, shape, dtype=np.uint8)
    folder = tmp_path / "frames"  # images keep odd sizes that H.264 does not
    folder.mkdir()
    for i, image in enumerate(frames):
        from PIL import Image

        Image.fromarray(image).save(folder / f"{i:03d}.png")
    assert "nobody" in fails(capsys, 5, folder, "-o", tmp_path / "out", "--quiet")
    assert not (tmp_path / "out").exists()


def test_unwritable_out_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_room: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write" in fails(capsys, 1, empty_room, "-o", tmp_path / "file" / "out")
    assert "cannot write" in fails(capsys, 1, empty_room, "-o", tmp_path / "file")


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3000, 48, 64, 3), dtype=np.uint8)
    clip = write_video(tmp_path / "long.mp4", noise, 30)
    out = tmp_path / "out"

    def heed_interrupts() -> None:  # a test run started in the background hands down that they are ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [*COMMAND, str(clip), "-o", str(out)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    time.sleep(6)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; nothing was written" in err and "Traceback" not in err
    assert not out.exists()


def test_earlier_results_survive_a_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_room: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"old": True}))
    fails(capsys, 5, empty_room, "-o", out, "--quiet")
    assert [p.name for p in out.iterdir()] == ["run.json"]
