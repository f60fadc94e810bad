"""A benchmark: a system over a data set under a protocol, sequence by sequence, whatever becomes of single ones."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..datasets.recording import DataSet, Recording
from ..errors import FormatError, KinflowError, UsageError
from .bodies import Bodies
from .journal import Journal
from .protocols import Protocol
from .scores import Scores, score
from .systems import System

Progress = Callable[[str, int, "int | None"], None]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a benchmark found.

    Attributes:
        header: what the figures depend on.
        scores: of everyone who was scored.
        left_out: (name, why) of sequences and people that were not.
        notes: (sequence, note) of what should be told of others.
        seconds: that the sequences took, reading and scoring included; frames: theirs.
    """

    header: dict[str, Any]
    scores: list[Scores]
    left_out: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    seconds: float
    frames: int


def header_of(data: DataSet, split: str, system: System, protocol: Protocol) -> dict[str, Any]:
    """What figures depend on, for the first line of the results."""
    return {
        "kinflow": __version__, "dataset": data.name, "split": split, "system": system.name, "settings": system.settings,
        "protocol": dataclasses.asdict(protocol), "meaning": protocol.describe(),
    }  # fmt: skip


def run_benchmark(
    data: DataSet,
    split: str,
    system: System,
    protocol: Protocol,
    bodies: Bodies,
    out: Path,
    *,
    limit: int | None = None,
    batch_clips: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Measure, going on from what ``out/results.jsonl`` holds already.

    Args:
        data, split: what is measured on, and how its part is called.
        system, protocol, bodies: what is measured, and how.
        out: folder of the results.
        limit: only so many sequences, the first by name.
        batch_clips: sequences that a system answers for at once; the figures are the same whatever it is.
        progress: called with ("sequences", done, all).

    Raises:
        UsageError: numbers out of range, results of other settings in ``out``.
        OutputError: ``out`` cannot be written.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected at least 1, got {limit}.")
    if batch_clips < 1:
        raise UsageError(f"batch_clips: expected at least 1, got {batch_clips}.")
    names = data.sequences[:limit]
    header = header_of(data, split, system, protocol)
    journal = Journal(out / "results.jsonl", header)
    report = progress or (lambda stage, done, total: None)
    report("sequences", 0, len(names))
    for begin in range(0, len(names), batch_clips):
        group = names[begin : begin + batch_clips]
        if not all(name in journal.lines for name in group):  # a group is always the same, so that a resumed run is too
            for line in _measure(data, group, system, protocol, bodies):
                if line["sequence"] not in journal.lines:
                    journal.write(line)
        report("sequences", begin + len(group), len(names))
    missing = () if limit is not None else data.missing
    return _summary(header, [journal.lines[name] for name in names], missing)


def _measure(
    data: DataSet, names: Sequence[str], system: System, protocol: Protocol, bodies: Bodies
) -> list[dict[str, Any]]:
    """The lines of some sequences."""
    lines: dict[str, dict[str, Any]] = {}
    people: dict[str, list[Recording]] = {}
    observed: dict[str, Any] = {}
    began = time.perf_counter()
    for name in names:
        try:
            people[name] = data.read(name)
            observed[name] = system.observe(people[name])
        except KinflowError as error:
            lines[name] = {"sequence": name, "error": str(error)}
    seen = list(observed)
    try:
        answers = dict(zip(seen, system.predict([observed[name] for name in seen]), strict=True))
    except KinflowError:  # whose fault it was is found one by one
        answers = {}
    for name in seen:
        try:
            answer = answers[name] if name in answers else system.predict([observed[name]])[0]
            line: dict[str, Any] = {
                "sequence": name,
                "people": [],
                "left_out": [],
                "notes": list(system.notes(observed[name])),
            }
            for prediction, recording in zip(answer, people[name], strict=True):
                if protocol.counts(recording).any():
                    line["people"].append(score(prediction, recording, protocol, bodies).record())
                else:
                    line["left_out"].append(
                        [recording.name, f"none of its {len(recording)} frames counts ({protocol.name})"]
                    )
            lines[name] = line
        except KinflowError as error:
            lines[name] = {"sequence": name, "error": str(error)}
    for name in names:
        lines[name]["seconds"] = round((time.perf_counter() - began) / len(names), 3)
    return [lines[name] for name in names]


def _summary(header: dict[str, Any], lines: Sequence[dict[str, Any]], missing: Sequence[str]) -> Summary:
    scores: list[Scores] = []
    left_out = [(name, "no file") for name in missing]
    notes = []
    try:
        for line in lines:
            if "error" in line:
                left_out.append((line["sequence"], line["error"]))
                continue
            scores += [Scores.of_record(record) for record in line["people"]]
            left_out += [(name, why) for name, why in line["left_out"]]
            notes += [(line["sequence"], note) for note in line["notes"]]
        seconds = float(sum(line["seconds"] for line in lines))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"results.jsonl: a line is not of this version ({error!r}). Remove the file.") from None
    notes += [(s.name, "nobody was found who could be this person") for s in scores if not s.found]
    frames = {s.sequence: s.frames for s in scores}
    return Summary(header, scores, left_out, notes, seconds, sum(frames.values()))
