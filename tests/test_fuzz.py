"""Three hundred damaged inputs of all kinds: one line and the right exit code, no traceback, no hang, nothing left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import KINDS, Kind, attempt, fine, stubs

from kinflow.errors import UsageError

PER_KIND = 19
FOUND = {"pose npz": [142]}
"""Further cases that once ended badly."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the watchdog needs interval timers")


@pytest.fixture(scope="module", autouse=True)
def _stubbed() -> Iterator[None]:
    with stubs():
        yield


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_damaged_inputs_end_well(kind: Kind) -> None:
    wrong = [
        (i, *said) for i in [*range(PER_KIND), *FOUND.get(kind.name, [])] if not fine((said := attempt(kind, i))[0])
    ]
    assert not wrong, "\n".join(f"{kind.name} {i}: {outcome}\n{said}" for i, outcome, said in wrong)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_the_intact_inputs_are_accepted(kind: Kind) -> None:
    intact = Kind(kind.name, kind.files, kind.run, kind.codes, lambda data, rng: data)
    for i in range(len(kind.files())):
        outcome, said = attempt(intact, i)
        assert outcome == "accepted", said


def _reads(action: object) -> Kind:
    return Kind("broken", lambda: {"x": b"abc"}, action, (0, 2))  # type: ignore[arg-type]


def test_the_judge_sees_what_is_wrong() -> None:
    def leave(path: Path, out: Path) -> int:
        (path.parent / ".part").touch()
        return 0

    def mute(path: Path, out: Path) -> int:
        return 2

    def stuck(path: Path, out: Path) -> int:
        time.sleep(10)
        return 0

    def raw(path: Path, out: Path) -> int:
        raise UsageError("not caught")

    assert attempt(_reads(leave), 0)[0] == "leftovers"
    assert attempt(_reads(mute), 0)[0] == "not one line"
    assert attempt(_reads(stuck), 0, 0.2)[0] == "hang"
    assert attempt(_reads(raw), 0)[0] == "traceback"
    assert attempt(_reads(lambda path, out: 4), 0)[0] == "wrong exit code 4"
