"""What the latent dynamics cost by solver: closed-form steps against torchdiffeq, side by side in one run.

    python benchmarks/dynamics_cost.py [--runs 5] [--frames 300]

Times ``log_prob`` of the packaged dynamics (random latents at uneven time stamps around 30 Hz, one thread), forward and
forward with backward.
The solvers take turns, run by run, so that a busy machine slows all of them alike. dopri5, which integrates clip by
clip, runs over a fifteenth of the frames, and its times are multiplied by that.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import torch
import torchdiffeq
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinflow.config import DynamicsConfig
from kinflow.dynamics import LatentDynamics, load_dynamics
from kinflow.dynamics.solver import through_torchdiffeq

ADAPTIVE_SHARE = 15


class Unhurried(LatentDynamics):
    """The dynamics with every solver in torchdiffeq, also those with a closed form."""

    def _pass_time(self, hidden: Tensor, dt: Tensor, most: int | None = None) -> Tensor:
        return through_torchdiffeq(self.field, hidden, dt, self.config)


def ways() -> dict[str, LatentDynamics]:
    """The packaged dynamics under each solver to compare; the first is the fast path of the packaged configuration."""
    packaged = load_dynamics()

    def under(kind: type[LatentDynamics] = LatentDynamics, **settings: object) -> LatentDynamics:
        model = kind(dataclasses.replace(packaged.config, **settings))  # type: ignore[arg-type]
        model.load_state_dict(packaged.state_dict())
        return model.eval()

    return {
        "midpoint, closed form": under(),
        "midpoint, torchdiffeq": under(Unhurried),
        "midpoint, adjoint": under(adjoint=True),
        "rk4, closed form": under(solver="rk4"),
        "rk4, torchdiffeq": under(Unhurried, solver="rk4"),
        "dopri5": under(solver="dopri5"),
        "dopri5, adjoint": under(solver="dopri5", adjoint=True),
    }


def seconds(model: LatentDynamics, z: Tensor, times: Tensor, backward: bool) -> float:
    """One evaluation."""
    began = time.perf_counter()
    with torch.set_grad_enabled(backward):
        total = model.log_prob(z, times).sum()
    if backward:
        model.zero_grad()
        total.backward()
    return time.perf_counter() - began


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--frames", type=int, default=300)
    args = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = ways()
    table = Table(
        "solver", "clips", "forward s", "ratio", "with backward s", "ratio", title=f"{args.frames} frames a clip"
    )
    for clips in (8, 1):
        z = 0.1 * torch.randn(clips, args.frames, DynamicsConfig().latent_dim)
        times = (0.02 + torch.rand(clips, args.frames, dtype=torch.float64) / 37.5).cumsum(1)
        taken: dict[tuple[str, bool], list[float]] = {(name, way): [] for name in models for way in (False, True)}
        for _ in range(args.runs):
            for (name, backward), values in taken.items():
                share = ADAPTIVE_SHARE if name.startswith("dopri5") else 1
                part = slice(args.frames // share)
                values.append(share * seconds(models[name], z[:, part], times[:, part], backward))
        medians = {key: statistics.median(values) for key, values in taken.items()}
        first = next(iter(models))
        for name in models:
            pair = [(medians[name, way], medians[name, way] / medians[first, way]) for way in (False, True)]
            table.add_row(name, str(clips), *(text for s, r in pair for text in (f"{s:.3f}", f"{r:.1f}")))
    console = Console()
    console.print(table)
    console.print(
        f"torch {torch.__version__}, torchdiffeq {torchdiffeq.__version__}, one thread, median of {args.runs}"
    )


if __name__ == "__main__":
    main()
