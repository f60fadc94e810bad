"""Tables and plots of the single-pose benchmark's results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peers.poses.estimates import LIMBS, Poses
from peers.poses.mixture import MixturePrior
from peers.poses.training import NOISE
from pose_tasks import COST_POSES, NOISES, OWN, Contestant, Errors, Sizes
from reporting import Sheet
from torch import Tensor

from kinflow.evaluation.motion_windows import by_clip

TASKS = {
    "hidden limbs": [f"{limb}, {unit}" for limb in LIMBS for unit in ("deg", "mm")],
    "noisy rotations": [f"{deg:g} deg noise, {unit}" for deg in NOISES for unit in ("deg", "mm")],
    "2D keypoints": ["2D fit, mm", "2D fit, deg"],
}
HEADLINES = {"hidden limbs": "both arms, mm", "noisy rotations": "10 deg noise, deg", "2D keypoints": "2D fit, mm"}


def cell(errors: Errors, key: str, clip: Tensor, digits: int = 2) -> str:
    """mean ± standard error over clips (seeds' standard deviation)."""
    mean, error = by_clip(errors.mean(key), clip)
    seeds = errors.seeds(key)
    spread = "" if seeds is None else f" ({seeds:.{digits}f})"
    return f"{mean:.{digits}f} ± {error:.{digits}f}{spread}"


def record(errors: Errors, clip: Tensor) -> dict[str, Any]:
    """For the JSON file."""
    out = {}
    for key, values in errors.values.items():
        mean, error = by_clip(errors.mean(key), clip)
        out[key] = {"mean": mean, "clip_error": error, "seeds": [float(v.mean()) for v in values]}
    return out


def likelihood_report(rows: dict[str, Errors], contestants: list[Contestant], test: Poses, sizes: Sizes) -> Sheet:
    """Held-out likelihoods, and what kinflow's flow gains on each, pose by pose."""
    report = Sheet(
        f"Held-out poses, nats a pose ({len(test.clip)} poses of {len(test.clip.unique())} clips, {sizes.rate:g} Hz)",
        ["prior", *(c for key in rows[OWN].values for c in (key, f"{OWN} gains")), "poses won", "settings"],
        notes=[
            "± standard error over clips, in brackets the seeds' standard deviation; poses won: with noise. ≥: a lower "
            f"bound, {sizes.vae_samples} (VAE) or {sizes.flow_samples} (6D) importance samples.",
            f"Networks learn with noise of {NOISE:g} rad, and mixtures get the floor that validates best under it. The "
            "last pair gives mixtures the floor that validates best without noise: joints that the capture never moves "
            "then decide, and the figure grows without limit as the floor falls.",
        ],
    )
    for contestant in contestants:
        name, errors = contestant.name, rows[contestant.name]
        bound = "≥ " if contestant.priors[0].bound else ""
        cells = [name]
        for key in errors.values:
            mean, error = by_clip(rows[OWN].mean(key) - errors.mean(key), test.clip)
            cells += [bound + cell(errors, key, test.clip), "" if name == OWN else f"{mean:+.2f} ± {error:.2f}"]
        first = next(iter(errors.values))
        won = float((rows[OWN].mean(first) > errors.mean(first)).double().mean())
        report.rows.append([*cells, "" if name == OWN else f"{won:.0%}", contestant.about])
    return report


def task_report(task: str, rows: dict[str, Errors], preferred: dict[str, str], test: Poses, sizes: Sizes) -> Sheet:
    """One task's table, with the difference to kinflow's flow pose by pose."""
    keys, headline = TASKS[task], HEADLINES[task]
    own = rows[preferred[f"{OWN}: {task}"]]
    report = Sheet(
        f"{task[0].upper()}{task[1:]} ({len(test.clip)} test poses, {sizes.steps} evaluations)",
        ["prior", *keys, f"less {OWN}: {headline}"],
        notes=["* the mode that validation prefers. Last column: error less that of the preferred "
               f"{OWN}, pose by pose; positive: {OWN} is nearer to the truth."],
    )  # fmt: skip
    for name, errors in rows.items():
        if keys[0] not in errors.values:
            continue
        star = "*" if name in [v for k, v in preferred.items() if k.endswith(task)] else ""
        mean, error = by_clip(errors.mean(headline) - own.mean(headline), test.clip)
        gap = "" if errors is own else f"{mean:+.2f} ± {error:.2f}"
        report.rows.append([name + star, *(cell(errors, k, test.clip, 1) for k in keys), gap])
    return report


def cost_report(milliseconds: dict[str, float], contestants: list[Contestant]) -> Sheet:
    """Time for density and gradient, and the size, of every prior."""
    report = Sheet(
        f"log_prob and gradient of {COST_POSES} poses, {torch.get_num_threads()} threads",
        ["prior", "ms", "parameters"],
        notes=["Bounds with one sample. The median of a few runs; other work on the machine shows in it."],
    )
    for contestant in contestants:
        prior = contestant.priors[0]
        numbers = sum(p.numel() for p in prior.parameters())
        if isinstance(prior, MixturePrior):
            numbers = prior.weights.numel() + prior.means.numel() + prior.means.shape[0] * 63 * 64 // 2
        report.rows.append([contestant.name, f"{milliseconds[contestant.name]:.0f}", f"{numbers:,}"])
    return report


def write(out: Path, results: dict[str, Any], reports: list[Sheet], header: list[str]) -> None:
    """``poses.json``, ``poses.md``, ``poses_likelihood.png`` and ``poses_tasks.png``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "poses.json").write_text(json.dumps(results, indent=1))
    text = "\n\n".join(["# Priors over single poses", *header, *(r.markdown() for r in reports)])
    (out / "poses.md").write_text(text)

    def pick(rows: dict[str, Any], key: str) -> dict[str, tuple[float, float]]:
        return {name: (r[key]["mean"], r[key]["clip_error"]) for name, r in rows.items() if key in r}

    keys = list(results["likelihood"][OWN])
    bars(out / "poses_likelihood.png", "Held-out likelihood", "nats a pose",
         {key: pick(results["likelihood"], key) for key in keys})  # fmt: skip
    bars(out / "poses_tasks.png", "Estimates with single-pose priors", "error",
         {key: pick(results["estimates"], key) for key in HEADLINES.values()})  # fmt: skip


def bars(path: Path, title: str, unit: str, series: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Bar chart: panel -> bar -> (value, standard error), panels side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(series), figsize=(4.2 * len(series), 4.5), squeeze=False, sharey=True)
    for axis, (panel, values) in zip(axes[0], series.items(), strict=True):
        names = list(values)[::-1]
        colours = ["tab:orange" if "kinflow flow" in n else "tab:blue" for n in names]
        axis.barh(names, [values[n][0] for n in names], xerr=[values[n][1] for n in names], color=colours)
        low = min(0.0, min(v for v, _ in values.values()))
        axis.set_xlim(left=low)
        axis.set_title(panel, fontsize=9)
        axis.set_xlabel(unit)
        axis.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
