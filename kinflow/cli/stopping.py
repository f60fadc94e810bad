"""SIGINT and SIGTERM as exceptions, so that a command puts away what it began and ends with its own exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["EXIT_CODES", "stop_signals"]

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
RETRY_S = 0.05


@contextlib.contextmanager
def stop_signals(received: list[int]) -> Iterator[None]:
    """While the block runs, both signals raise KeyboardInterrupt in it, and are appended to ``received``.

    An exception amid an import is at times swallowed, or comes out as an ImportError, so a signal then waits for the import's
    end. A signal that is ignored (SIGINT, in a shell's background) stays so. Only the main thread can do this; in others
    nothing changes.
    """
    retries: list[threading.Timer] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            retries.append(threading.Timer(RETRY_S, os.kill, (os.getpid(), number)))
            retries[-1].daemon = True
            retries[-1].start()
            return
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {s: signal.getsignal(s) for s in EXIT_CODES}
    try:
        for number, handler in earlier.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        for retry in retries:
            retry.cancel()
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
