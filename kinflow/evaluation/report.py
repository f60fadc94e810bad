"""What is written of a benchmark: a Markdown table, a summary in JSON, and plots."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..records import atomic_write
from .benchmark import Summary
from .pooling import pool, pool_joints, worst
from .scores import METRICS

WORST = 5
PLOTS = ("error_over_time.png", "per_joint.png", "histogram.png")


def units(summary: Summary) -> dict[str, str]:
    """Unit of each metric; the acceleration's is the protocol's."""
    return {key: m.unit or str(summary.header["protocol"]["acceleration_unit"]) for key, m in METRICS.items()}


def summary_record(summary: Summary) -> dict[str, Any]:
    """``summary.json``: the pooled figures with their counts, without single frames."""
    unit = units(summary)
    counted, found = (sum(getattr(s, k) for s in summary.scores) for k in ("counted", "found"))
    return {
        **summary.header,
        "people": len(summary.scores),
        "sequences": len({s.sequence for s in summary.scores}),
        "frames_counted": counted,
        "frames_found": found,
        "metrics": {
            key: {
                "unit": unit[key], "frames_mean": _rounded(p.frames_mean), "frames": p.frames,
                "people_mean": _rounded(p.people_mean), "people": p.people, "people_error": _rounded(p.people_error),
            }
            for key, p in pool(summary.scores).items()
        },
        "joints_mm": {k: _rounded(v) for k, v in pool_joints(summary.scores).items()},
        "bones_m": {k: [_rounded(a), _rounded(b)] for k, (a, b) in bones(summary).items()},
        "worst": [{"name": s.name, "pa_mpjpe_mm": _rounded(s.mean("pa_mpjpe"))} for s in worst(summary.scores, count=WORST)],
        "left_out": [list(pair) for pair in summary.left_out],
        "notes": [list(pair) for pair in summary.notes],
        "seconds": round(summary.seconds, 2),
        "frames_per_second": _rounded(summary.frames / summary.seconds) if summary.seconds else None,
    }  # fmt: skip


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def bones(summary: Summary) -> dict[str, tuple[float, float]]:
    """Mean bone lengths in m over people, in the truth and as predicted."""
    out = {}
    for name in {name: 0 for s in summary.scores for name in s.bones}:
        pairs = np.array([s.bones[name] for s in summary.scores if name in s.bones])
        out[name] = (float(pairs[:, 0].mean()), float(pairs[:, 1].mean()))
    return out


def markdown(summary: Summary) -> str:
    """The tables of a run, with what they mean."""
    return "\n".join(_lines(summary)) + "\n"


def _lines(summary: Summary) -> Iterator[str]:
    header, scores, unit = summary.header, summary.scores, units(summary)
    counted, found = (sum(getattr(s, k) for s in scores) for k in ("counted", "found"))
    yield f"# {header['system']} on {header['dataset']} ({header['split']}), protocol {header['protocol']['name']}"
    yield ""
    yield header["meaning"]
    yield ""
    settings = "; ".join(f"{k}: {_text(v)}" for k, v in header["settings"].items())
    yield f"kinflow {header['kinflow']}" + (f"; {settings}." if settings else ".")
    share = f" ({100 * found / counted:.1f} %)" if counted else ""
    yield f"{len({s.sequence for s in scores})} sequences, {len(scores)} people; found in {found} of {counted} frames that count{share}."
    yield "Figures are over the frames found: compare only systems that found about as many."
    yield ""
    yield "| metric | unit | over frames | frames | over people | people |"
    yield "|---|---|---:|---:|---:|---:|"
    pooled = pool(scores)
    for key, p in pooled.items():
        spread = f" ± {p.people_error:.2f}" if math.isfinite(p.people_error) else ""
        yield f"| {METRICS[key].title} | {unit[key]} | {p.frames_mean:.2f} | {p.frames} | {p.people_mean:.2f}{spread} | {p.people} |"
    yield ""
    yield from (f"- {METRICS[key].title}: {METRICS[key].what}." for key in pooled)
    yield ""
    shown = [key for key in ("pa_mpjpe", "mpjpe", "pve", "accel") if key in pooled]
    yield "| person | found / counted | " + " | ".join(METRICS[k].title for k in shown) + " |"
    yield "|---|---:|" + "---:|" * len(shown)
    for s in scores:
        cells = (f"{s.mean(k):.1f}" if math.isfinite(s.mean(k)) else "-" for k in shown)
        yield f"| {s.name} | {s.found} / {s.counted} | " + " | ".join(cells) + " |"
    yield ""
    ranked = ", ".join(f"{s.name} ({s.mean('pa_mpjpe'):.1f} mm)" for s in worst(scores, count=WORST))
    yield f"Worst by PA-MPJPE: {ranked or 'nobody'}."
    yield ""
    if lengths := bones(summary):
        yield "Where the joint sets lie, in m as mean over people (a difference here is error of the body, not of the pose):"
        yield ""
        yield "| | " + " | ".join(lengths) + " |"
        yield "|---|" + "---:|" * len(lengths)
        for i, row in enumerate(("truth", "predicted")):
            yield f"| {row} | " + " | ".join(f"{pair[i]:.3f}" for pair in lengths.values()) + " |"
        yield ""
    for title, pairs in (("Left out", summary.left_out), ("Notes", summary.notes)):
        if pairs:
            yield f"{title}:"
            yield ""
            yield from (f"- {name}: {text}" for name, text in pairs)
            yield ""


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_report(summary: Summary, out: Path, plots: bool = True) -> dict[str, Any]:
    """Write ``table.md``, ``summary.json`` and, with ``plots``, three pictures to ``out``; returns what ``summary.json`` holds.

    Raises:
        UsageError: plots without matplotlib.
        OutputError: the folder cannot be written.
    """
    if plots and not can_plot():
        raise UsageError(
            "plots: matplotlib is not installed. pip install 'kinflow[bench]', or leave them out with --no-plots."
        )
    record = summary_record(summary)
    with atomic_write(out / "table.md") as stream:
        stream.write(markdown(summary).encode())
    with atomic_write(out / "summary.json") as stream:
        stream.write((json.dumps(record, indent=1) + "\n").encode())
    if plots:
        _plot(summary, out)
    return record


def _plot(summary: Summary, out: Path) -> None:
    from matplotlib.figure import Figure  # an extra; without pyplot no display is looked for

    def save(figure: Figure, name: str) -> None:
        figure.tight_layout()
        with atomic_write(out / name) as stream:
            figure.savefig(stream, format="png", dpi=120)

    title = f"{summary.header['system']}, {summary.header['dataset']}, protocol {summary.header['protocol']['name']}"
    figure = Figure((9, 4))
    axes = figure.subplots()
    for s in worst(summary.scores, count=WORST):
        axes.plot(s.metrics["pa_mpjpe"], lw=0.8, label=s.name)
    axes.set(title=f"{title}: the {WORST} worst", xlabel="frame", ylabel="PA-MPJPE, mm", ylim=(0, None))
    if axes.lines:
        axes.legend(fontsize=7)
    save(figure, PLOTS[0])

    joints = pool_joints(summary.scores)
    figure = Figure((6, max(2.5, 0.25 * len(joints))))
    axes = figure.subplots()
    axes.barh(list(joints)[::-1], list(joints.values())[::-1])
    axes.set(title=title, xlabel="MPJPE, mm")
    save(figure, PLOTS[1])

    figure = Figure((7, 4))
    axes = figure.subplots()
    for key in ("pa_mpjpe", "mpjpe"):
        values = np.concatenate([np.empty(0), *(s.metrics[key] for s in summary.scores if key in s.metrics)])
        values = values[np.isfinite(values)]
        if len(values):
            top = float(np.quantile(values, 0.99)) * 1.2 + 1e-6
            axes.hist(np.minimum(values, top), bins=60, range=(0, top), alpha=0.6, label=METRICS[key].title)
    axes.set(title=title, xlabel="mm (the last bar holds what is beyond)", ylabel="frames")
    if axes.patches:
        axes.legend()
    save(figure, PLOTS[2])
