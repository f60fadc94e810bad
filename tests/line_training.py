"""A training of a second, for tests of the loop; also a program, since processes start the program anew: OUT DEVICES STOP_AFTER."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kinflow.config import TrainConfig
from kinflow.training.loop import fit
from kinflow.training.processes import launch

CONFIG = TrainConfig(steps=60, validate_every=20, log_every=10, warmup=5, lr=0.02, ema=0.9)


class Line:
    """Fit y = 2 x; can break off, as a user does with Ctrl-C. Half of the steps leave a parameter out."""

    def __init__(self, stop_after: int = 10**9) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.1), nn.Linear(8, 1))
        self.module.register_parameter("shift", nn.Parameter(torch.zeros(1)))
        self.left = stop_after

    def draw(self, rng: np.random.Generator) -> Tensor:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return torch.from_numpy(rng.standard_normal((16, 1))).float()

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        found = self.module(batch) + (self.module.shift if batch[0] > 0 else 0.0)
        loss = (found - 2 * batch).square().mean()
        return loss, {"rms": loss.detach().sqrt()}

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"score": float((module(x) - 2 * x).square().mean())}


if __name__ == "__main__":
    out, devices, stop_after = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    fabric = launch(CONFIG, devices=devices)
    task = Line(stop_after)
    try:
        fit(task, CONFIG, out, resume=True, fabric=fabric, progress=False)
    except KeyboardInterrupt:
        sys.exit(0)
    if fabric.is_global_zero:
        torch.save(task.module.state_dict(), out / "result.pt")
