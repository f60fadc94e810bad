"""The fit's own Adam against torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from kinflow.reconstruction.descent import descend

D = torch.float64


def bowl(x: Tensor, y: Tensor, iteration: int) -> Tensor:
    return (
        (3 * x - 1).square().sum() + torch.cos(x).sum() + (y * x[:2] - 0.1 * iteration).square().mean() + 1e-9 * x.sum()
    )


def test_the_steps_are_those_of_torch() -> None:
    def begin() -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(0)
        return torch.randn(5, generator=g, dtype=D).requires_grad_(), torch.randn(
            2, generator=g, dtype=D
        ).requires_grad_()

    mine, theirs, done = begin(), begin(), []
    descend(lambda i: bowl(*mine, i), mine, (0.1, 0.02), 30, done.append)
    optimiser = torch.optim.Adam(
        [{"params": [x], "lr": lr} for x, lr in zip(theirs, (0.1, 0.02), strict=True)], betas=(0.9, 0.95), eps=1e-6
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 30)
    for iteration in range(30):
        optimiser.zero_grad()
        bowl(*theirs, iteration).backward()
        optimiser.step()
        schedule.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert done == list(range(1, 31))


def test_what_the_loss_does_not_know_stays() -> None:
    x, y = torch.ones(3, dtype=D, requires_grad=True), torch.ones(3, dtype=D, requires_grad=True)
    descend(lambda _: x.square().sum(), (x, y), (0.1, 0.1), 5)
    assert bool((x < 1).all()) and y.tolist() == [1, 1, 1]
