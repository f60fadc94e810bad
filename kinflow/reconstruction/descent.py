"""Descent with Adam and a cosine step size: Kingma & Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), alg. 1;
Loshchilov & Hutter, "SGDR" (ICLR 2017), eq. (5).

The same steps as those of torch.optim.Adam with CosineAnnealingLR (a test), which import torch's compiler: 2.6 s of a core,
more than a short clip's whole fit takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_BETAS = (0.9, 0.95)
_EPS = 1e-6
"""Gradients below it are rounding, which Adam would otherwise blow up to whole steps."""


def descend(
    loss: Callable[[int], Tensor],
    free: Sequence[Tensor],
    rates: Sequence[float],
    iterations: int,
    report: Callable[[int], None] | None = None,
) -> None:
    """Move tensors downhill, in place.

    Args:
        loss: of the iteration's number; a scalar that depends on ``free``, which require gradients.
        free: what moves. rates: step size of each at the beginning; it falls to zero by half a cosine.
        iterations: how many. report: called with the iterations done.
    """
    first = [torch.zeros_like(x) for x in free]
    second = [torch.zeros_like(x) for x in free]
    with torch.enable_grad():
        for iteration in range(iterations):
            for x in free:
                x.grad = None
            loss(iteration).backward()  # type: ignore[no-untyped-call]  # autograd.grad knows no checkpoints
            share = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
            grown = [1 - beta ** (iteration + 1) for beta in _BETAS]
            with torch.no_grad():
                for x, rate, m, v in zip(free, rates, first, second, strict=True):
                    if (gradient := x.grad) is None:
                        continue
                    m.lerp_(gradient, 1 - _BETAS[0])
                    v.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
                    x.addcdiv_(m, (v / grown[1]).sqrt_().add_(_EPS), value=-share * rate / grown[0])
            if report is not None:
                report(iteration + 1)
