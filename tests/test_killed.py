"""Ended by a signal at any moment, a run leaves nothing but what it should; the next one is complete, and nothing is stale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinflow.apps import staging
from kinflow.cli.command import new_parser, run_command
from kinflow.video import VideoWriter

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="waits for a process' signal handlers")

FILES = ["overlay.mp4", "person00.npz", "run.json", "view.html"]
STUBBED = """
import sys, stub_front_end
stub_front_end.install()
from kinflow.cli.video import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames; who is seen in them, the stub says."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, (128, 96), 30) as video:
        for k in range(10):
            video.write(np.full((96, 128, 3), k, np.uint8))
    return path


def started(clip: Path, out: Path) -> subprocess.Popen[str]:
    """The command, from the moment on at which it heeds signals."""

    def heed_interrupts() -> None:  # a test run started in the background hands down that they are ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", STUBBED, str(clip), "-o", str(out), "--quiet"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed_interrupts)
    status = Path(f"/proc/{run.pid}/status")
    while run.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.005)
    return run


def whole(clip: Path, out: Path) -> float:
    """Run to the end and check what is there; returns the seconds."""
    began = time.perf_counter()
    run = started(clip, out)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert json.loads((out / "run.json").read_text())["files"]
    return time.perf_counter() - began


def kill_and_check(number: signal.Signals, clip: Path, out: Path, seconds: float) -> None:
    began = time.time()
    run = started(clip, out)
    time.sleep(seconds)
    run.send_signal(number)
    _, err = run.communicate(timeout=120)
    done = run.returncode == 0  # the signal came too late
    if (
        run.returncode == -number and number != signal.SIGKILL
    ):  # so late that the interpreter was ending: all is written
        done = (out / "run.json").stat().st_mtime > began
    if number == signal.SIGKILL:
        assert done or run.returncode == -signal.SIGKILL
        return
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143}
    assert done or (run.returncode == codes[number] and err.count("\n") == 1 and "nothing was written" in err), err
    assert not list(out.glob(".*")), f"{number.name} after {seconds:.2f} s"


def campaign(clip: Path, out: Path, moments: int) -> None:
    seconds = whole(clip, out)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for k in range(moments):
            kill_and_check(number, clip, out, seconds * k / moments)
    whole(clip, out)


def test_killed_and_run_again(clip: Path, tmp_path: Path) -> None:
    campaign(clip, tmp_path / "out", 2)


@pytest.mark.slow
def test_killed_at_ten_moments_and_run_again(clip: Path, tmp_path: Path) -> None:
    campaign(clip, tmp_path / "out", 10)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_import_is_not_broken_off_by_a_signal(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A module that takes KeyboardInterrupt for a missing part, as some do, would swallow it."""
    (tmp_path / "stubborn.py").write_text(
        "import os, time\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    for _ in range(100): time.sleep(0.001)\n"
        "except BaseException: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stubborn", raising=False)
    reached = []

    def action(_: object) -> None:
        import stubborn  # noqa: F401

        for _ in range(1000):
            time.sleep(0.001)
        reached.append("the end")

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run_command(new_parser("tool", "A tool."), action, []) == code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not reached and capsys.readouterr().err == "tool: interrupted; nothing was written.\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_folders_of_dead_processes_go_and_those_of_living_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        names = {pid: f".kinflow-{pid}-abc" for pid in (dead.pid, alive.pid, os.getpid())}
        for name in names.values():
            (tmp_path / name).mkdir()
            (tmp_path / name / "person00.npz").touch()
        with staging.staging(tmp_path) as mine, staging.staging(tmp_path) as other:
            # Its own number on a folder that it did not make: a number come again.
            assert {p.name for p in tmp_path.iterdir()} == {names[alive.pid], mine.name, other.name}
            (mine / "a").touch()
            (other / "b").touch()
        assert {p.name for p in tmp_path.iterdir()} == {names[alive.pid], "a", "b"}
    finally:
        alive.communicate(b"\n")


def test_a_folder_made_for_results_that_failed_goes_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging.staging(tmp_path / "new" / "out") as stage:
        (stage / "run.json").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("amid", ["mkdtemp", "rmtree"])
def test_a_signal_amid_making_or_clearing_waits_for_its_end(
    amid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"mkdtemp": staging.tempfile, "rmtree": staging.shutil}[amid]
    real = getattr(module, amid)

    def interrupted(*args: Any, **options: Any) -> Any:
        made = real(*args, **options) if amid == "mkdtemp" else None
        signal.raise_signal(signal.SIGINT)
        return made if amid == "mkdtemp" else real(*args, **options)

    monkeypatch.setattr(module, amid, interrupted)
    with pytest.raises(KeyboardInterrupt):
        staging.check_writable(tmp_path / "new" / "out")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir()) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
