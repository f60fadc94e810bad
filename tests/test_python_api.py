"""What is called with something that cannot be meant says so by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import kinflow
from kinflow.errors import UsageError


@pytest.mark.parametrize("value", [None, 5, 2.5, b"clip.mp4", ["clip.mp4"]], ids=repr)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (kinflow.reconstruct, "clip"),
        (kinflow.run, "clip"),
        (kinflow.Clip.open, "clip"),
        (kinflow.Motion.load, "path"),
        (kinflow.Evidence.load, "path"),
        (kinflow.Body.from_file, "path"),
    ],
)
def test_what_is_no_path_is_named(call: Callable[[object], object], name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected the path of a file or folder, got "):
        call(value)


def test_weights_that_are_no_path_are_named() -> None:
    with pytest.raises(UsageError, match="weights: expected the path"):
        kinflow.MotionPrior.load(flow=5)  # type: ignore[arg-type]
