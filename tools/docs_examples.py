"""For ``mkdocs build``: examples in docstrings become blocks of code, which the Google style knows under a heading alone."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", re.MULTILINE)


class ExampleBlocks(griffe.Extension):
    """Puts a fence around each run of lines that begins with a prompt."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            text = re.sub(r"\s*# doctest: \+SKIP", "", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
