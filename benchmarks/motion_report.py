"""Tables and plots of the over-time benchmark's results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reporting import Sheet
from rich.console import Console

Results = dict[str, Any]


def cell(value: Results, form: str = ".2f", scale: float = 1.0) -> str:
    """Mean, standard error over clips and, in brackets, standard deviation over seeds."""
    text = f"{value['mean'] * scale:{form}}"
    if "se" in value:
        text += f" ± {value['se'] * scale:{form}}"
    if "seed_std" in value:
        text += f" ({value['seed_std'] * scale:{form}})"
    return text


def _likelihood(results: Results) -> list[Sheet]:
    rates = list(results)
    peers = list(next(iter(results.values())))
    return [
        Sheet("One-step predictive likelihood, nats a frame", ["model", *rates],
              [[p, *(cell(results[r][p]["nats"], ".1f") for r in rates)] for p in peers]),
        Sheet("Gap: kinflow minus each peer, nats a frame", ["peer", *rates],
              [[p, *(cell(results[r][p]["gap"], ".1f") for r in rates)] for p in peers if p != "kinflow"]),
    ]  # fmt: skip


def _estimates(title: str, results: Results, metrics: tuple[str, ...]) -> list[Sheet]:
    names = {"deg": "angle, deg", "mm": "position, mm", "acc": "acceleration, m/s^2"}
    sheets = []
    for metric in metrics:
        models = list(next(iter(results.values())))
        rows = []
        for condition, found in results.items():
            own = found["kinflow"][metric]
            saved = f"{cell(own['reduction'], '.0f', 100)} % ({own['best_peer']})" if "reduction" in own else ""
            rows.append(
                [condition, *(cell(found[m][metric], ".1f" if metric == "mm" else ".2f") for m in models), saved]
            )
        sheets.append(Sheet(f"{title}: {names[metric]}", ["", *models, "kinflow below the best"], rows))
    return sheets


def _agreement(results: Results) -> list[Sheet]:
    columns = [
        "ahead",
        "error, deg",
        "from the mean of rates, deg",
        "over the error",
        "widest pair, deg",
        "over the error",
    ]
    rows = [
        [
            ahead,
            cell(found["error"]),
            cell(found["off"]),
            cell(found["off / error"], ".1%"),
            cell(found["widest"]),
            cell(found["widest / error"], ".1%"),
        ]
        for ahead, found in results.items()
    ]
    return [Sheet("Frame-rate agreement of forecasts from one past", columns, rows)]


def _detection(results: Results) -> list[Sheet]:
    kinds = list(next(iter(results.values())))
    return [
        Sheet(title, ["rate", *kinds], [[r, *(cell(found[k][key], ".3f") for k in kinds)] for r, found in results.items()])
        for key, title in (("auc", "Real against broken motion, AUC"), ("paired", "The same, share of windows above their own corruption"))
    ]  # fmt: skip


def _calibration(results: Results) -> list[Sheet]:
    rows = []
    for rate, found in results.items():
        row = [rate]
        for level in ("50", "90"):
            row += [cell(found[level], ".1%"), f"{found[level]['worst_latent']:.1%}"]
        rows.append(row)
    columns = ["rate", "inside 50 %", "worst latent off by", "inside 90 %", "worst latent off by"]
    return [Sheet("Calibration of one-step predictions, per latent", columns, rows)]


def _batch(results: Results) -> list[Sheet]:
    rows = [
        [k, *(f"{v[c]:.2g}" for c in ("largest_difference", "largest_value", "relative"))] for k, v in results.items()
    ]
    columns = ["prior", "largest difference, nats a frame", "largest value", "relative"]
    return [Sheet("A clip alone against the same clip in a padded batch", columns, rows)]


def _cost(results: Results) -> list[Sheet]:
    rows = [[k, f"{v['seconds']['mean']:.2f} ± {v['seconds']['se']:.2f}"] for k, v in results.items()]
    return [Sheet("log_prob and gradient, 8 clips of 300 frames, 2 threads (± range)", ["model", "s"], rows)]


SHEETS: dict[str, Callable[[Results], list[Sheet]]] = {
    "likelihood": _likelihood,
    "denoise": lambda r: _estimates("Denoising", r, ("deg", "mm", "acc")),
    "infill": lambda r: _estimates("Gaps in 2.5 s at 30 Hz", r, ("deg", "mm", "acc")),
    "forecast": lambda r: _estimates("Forecasts from 1.5 s at 30 Hz", r, ("deg", "mm")),
    "agreement": _agreement,
    "detection": _detection,
    "calibration": _calibration,
    "batch": _batch,
    "cost": _cost,
}


def report(
    results: Results, console: Console | None = None, markdown: Path | None = None, plots: Path | None = None
) -> None:
    """Tables of each task to ``console`` and to a file, and plots into a folder; each where given."""
    sheets = [sheet for name, found in results.items() for sheet in SHEETS[name](found)]
    if console is not None:
        for sheet in sheets:
            sheet.show(console)
    if markdown is not None:
        markdown.write_text("\n".join(sheet.markdown() for sheet in sheets))
    if plots is not None:
        draw(results, plots)


def draw(results: Results, out: Path) -> None:
    """PNG plots, one a task that has one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def lines(axis: Any, xs: list[float], values: dict[str, list[Results]], x: str, y: str) -> None:
        for name, each in values.items():
            axis.errorbar(xs, [v["mean"] for v in each], [v["se"] for v in each], label=name, capsize=2,
                          linewidth=2.5 if name == "kinflow" else 1.2, zorder=3 if name == "kinflow" else 2)  # fmt: skip
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.grid(alpha=0.3)

    def save(figure: Any, name: str) -> None:
        figure.tight_layout()
        figure.savefig(out / f"motion_{name}.png", dpi=110)
        plt.close(figure)

    if "likelihood" in results:
        found = results["likelihood"]
        figure, axis = plt.subplots(figsize=(11, 4.5))
        peers = [p for p in next(iter(found.values())) if p != "kinflow"]
        for i, peer in enumerate(peers):
            at = [j + (i - len(peers) / 2) * 0.8 / len(peers) for j in range(len(found))]
            gaps = [f[peer]["gap"] for f in found.values()]
            axis.bar(
                at, [g["mean"] for g in gaps], 0.8 / len(peers), yerr=[g["se"] for g in gaps], label=peer, align="edge"
            )
        axis.set_xticks(range(len(found)), list(found))
        axis.set_ylabel("nats a frame that kinflow lies above")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
        save(figure, "likelihood")
    if "denoise" in results:
        rows: dict[str, list[tuple[float, Results]]] = {}
        for condition, row in results["denoise"].items():
            rate, kind, degrees = condition.split(", ")
            rows.setdefault(f"{rate}, {kind}", []).append((float(degrees.split()[0]), row))
        figure, axes = plt.subplots(2, len(rows), figsize=(3.4 * len(rows), 6.5), squeeze=False)
        for column, (title, own) in enumerate(rows.items()):
            for line, (metric, label) in enumerate(
                (("deg", "joint angle error, deg"), ("acc", "acceleration error, m/s²"))
            ):
                models = [m for m in own[0][1] if m != "noisy"]
                lines(axes[line, column], [d for d, _ in own], {m: [r[m][metric] for _, r in own] for m in models},
                      "noise about each axis, deg", label)  # fmt: skip
            axes[0, column].set_title(title)
        axes[0, 0].legend(fontsize=8)
        save(figure, "denoise")
    for task, x, unit in (("infill", "gap, s", 1.0), ("forecast", "ahead, ms", 1.0)):
        if task in results:
            found = results[task]
            xs = [float(k.split()[0]) * unit for k in found]
            figure, axes = plt.subplots(1, 2, figsize=(10, 4))
            for axis, metric, label in zip(
                axes, ("deg", "mm"), ("joint angle error, deg", "joint position error, mm"), strict=True
            ):
                lines(
                    axis, xs, {m: [f[m][metric] for f in found.values()] for m in next(iter(found.values()))}, x, label
                )
            # What runs away is cut off, so that the others can be told apart.
            for axis, metric in zip(axes, ("deg", "mm"), strict=True):
                level = min(v[metric]["mean"] for v in list(found.values())[-1].values())
                axis.set_ylim(0, 1.6 * level)
            axes[0].legend(fontsize=8)
            save(figure, task)
    if "calibration" in results:
        found = results["calibration"]
        figure, axis = plt.subplots(figsize=(7, 3.5))
        for level, colour in (("50", "tab:blue"), ("90", "tab:orange")):
            axis.boxplot([f[level]["latents"] for f in found.values()], positions=range(len(found)), widths=0.4,
                         boxprops={"color": colour}, whis=(0, 100))  # fmt: skip
            axis.axhspan(int(level) / 100 - 0.05, int(level) / 100 + 0.05, color=colour, alpha=0.15)
        axis.set_xticks(range(len(found)), list(found))
        axis.set_ylabel("share inside, each latent")
        save(figure, "calibration")
