"""Results that appear all together or not at all, whatever ends the run, and what killed runs left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import KinflowError, OutputError

__all__ = ["RESULTS", "check_writable", "staging"]

RESULTS = (
    *("person[0-9][0-9]*.npz", "overlay.mp4", "view.html", "run.json", "people.glb", "people.usda", "people.usdz"),
    *("person[0-9][0-9].bvh", "person[0-9][0-9].trc", "person[0-9][0-9].csv"),
)
"""What a run leaves in a folder, its exports too: the next run's results never stand beside an earlier one's."""

_PREFIX = ".kinflow-"
_NAME = re.compile(rf"{re.escape(_PREFIX)}(\d+)-\w+")  #: of a stage: the process that writes it, and letters of chance
_stages: set[Path] = set()  #: this process' own


@contextlib.contextmanager
def staging(out: Path, replaces: Sequence[str] = RESULTS) -> Iterator[Path]:
    """A temporary folder inside ``out`` whose files move into ``out`` when the block ends well, and vanish otherwise.

    A process that is killed outright leaves its folder behind: the next one to write there removes it.

    Args:
        replaces: patterns of the files in ``out`` that go when the new ones come.

    Raises:
        OutputError: the place cannot be written, or the disk is full.
    """
    with _stage_in(out) as stage:
        try:
            yield stage
            for stale in {path for pattern in replaces for path in out.glob(pattern)}:
                stale.unlink(missing_ok=True)
            for path in sorted(stage.iterdir()):
                path.replace(out / path.name)
        except OSError as error:
            if isinstance(error, KinflowError):
                raise
            raise OutputError(
                f"{out}: could not be written ({error.strerror}). Free space or choose another folder."
            ) from error


def check_writable(out: str | Path) -> None:
    """Find out before the work whether its results can be written; leaves nothing behind, nor what killed runs left.

    Raises:
        OutputError: ``out`` is a file, or a folder that cannot be made or written.
    """
    with _stage_in(Path(out)):
        pass


@contextlib.contextmanager
def _stage_in(out: Path) -> Iterator[Path]:
    """A folder of this process' in ``out``; afterwards it is gone, and ``out`` too where it was made for it and is empty."""
    made = [p for p in (out, *out.parents) if not p.exists()]
    stage: Path | None = None
    try:
        try:
            with _undisturbed():
                out.mkdir(parents=True, exist_ok=True)
                _remove_stale(out)
                stage = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=out))
                _stages.add(stage)
        except OSError as error:
            raise OutputError(f"{out}: cannot write here ({error.strerror}). Choose another folder with -o.") from error
        yield stage
    finally:
        with _undisturbed():
            if stage is not None:
                shutil.rmtree(stage, ignore_errors=True)
                _stages.discard(stage)
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come in the block take effect at its end: half a clearing-up would leave the other half.

    Python calls handlers in the main thread alone, so nothing needs to be done in others.
    """
    came: list[int] = []
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        earlier = {n: handler for n in (signal.SIGINT, signal.SIGTERM) if callable(handler := signal.getsignal(n))}
    try:
        for number in earlier:
            signal.signal(number, lambda n, _: came.append(n))
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _remove_stale(out: Path) -> None:
    for path in out.glob(f"{_PREFIX}*"):
        name = _NAME.fullmatch(path.name)
        if name and path not in _stages and not _another_runs(int(name[1])):
            shutil.rmtree(path, ignore_errors=True)


def _another_runs(pid: int) -> bool:
    """Whether a process of this number runs that is not this one (numbers come again, in containers soon)."""
    if pid == os.getpid():
        return False
    if os.name == "nt":  # os.kill ends the process there, whatever the signal
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
