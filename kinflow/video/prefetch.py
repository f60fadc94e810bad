"""Decoding ahead of whoever consumes the frames, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator

from .sources import Frame


def prefetch(frames: Iterator[Frame], size: int) -> Generator[Frame, None, None]:
    """Run ``frames`` in a thread that stays at most ``size`` items ahead; closing the generator stops the thread."""
    box: queue.Queue[Frame | BaseException | None] = queue.Queue(maxsize=size)
    stop = threading.Event()

    def put(item: Frame | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                box.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for frame in frames:
                if not put(frame):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    worker = threading.Thread(target=work, name="kinflow-decode", daemon=True)
    worker.start()
    try:
        while (item := box.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join(timeout=10)
