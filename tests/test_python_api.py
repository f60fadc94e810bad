"""What is called with something that cannot be meant says so by name."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

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


def test_type_checkers_see_the_public_names() -> None:
    """Names handed on lazily are invisible to them and to the API page, unless imported under TYPE_CHECKING as well."""
    tree = ast.parse(Path(kinflow.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If))
    seen = {a.name: f"kinflow.{n.module}" for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == kinflow._PUBLIC
