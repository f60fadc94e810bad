"""Coupling layers: one part of the vector moves by an amount read off the other part.

Affine couplings after Dinh et al., "Density estimation using Real NVP" (ICLR 2017); rational-quadratic splines after
Durkan et al., "Neural Spline Flows" (NeurIPS 2019), with linear tails.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..skeleton import BODY_INDEX_LEVELS, SMPL_JOINTS
from .normal import squash

_MIN_BIN = 1e-2  # smallest bin's share of the whole width or height
_MIN_SLOPE = 1e-2


def tree_masks(layers: int, per_joint: int) -> list[Tensor]:
    """Which of the body's numbers each coupling layer moves: bool (21 * per_joint,), by the kinematic tree, in turn.

    Children given their parents and parents given their children (odd and even depth); the limbs' ends given the trunk
    and the reverse; the left side given the right and the reverse; and, inside the joints, one axis given the others.
    """
    depth = torch.tensor([next(d for d, js in enumerate(BODY_INDEX_LEVELS) if j in js) for j in range(1, 22)])
    names = SMPL_JOINTS[1:22]
    distal = torch.tensor([n.split("_")[-1] in ("knee", "ankle", "foot", "elbow", "wrist", "head") for n in names])
    left = torch.tensor([n.startswith("left") or n in ("spine1", "spine3", "head") for n in names])
    axis = torch.arange(per_joint).repeat(21) % 2 == 0

    def joints(choice: Tensor) -> Tensor:
        return choice.repeat_interleave(per_joint)

    cycle = [joints(depth % 2 == 0), joints(depth % 2 == 1), axis, ~axis,
             joints(distal), joints(~distal), joints(left), joints(~left)]  # fmt: skip
    return [cycle[i % len(cycle)] for i in range(layers)]


class Conditioner(nn.Module):
    """Residual network (..., in) -> (..., out). Its input is squashed, so that far-out poses do not blow it up.

    In training its input is blurred by ``input_noise`` (standard deviation, whitened units), which keeps it from reading
    single poses off their exact numbers.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, blocks: int, dropout: float, input_noise: float = 0.0
    ) -> None:
        super().__init__()
        self.input_noise = input_noise
        self.first = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden)
            )
            for _ in range(blocks)
        )
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.input_noise > 0:
            x = x + self.input_noise * torch.randn_like(x)
        h = self.first(squash(x, 6.0))
        for block in self.blocks:
            h = h + block(h)
        return self.last(functional.silu(h))


class Coupling(nn.Module):
    """Affine coupling, followed by a rational-quadratic spline if ``bins`` > 0.

    Args:
        mask: bool (D,), true where the vector moves.
    """

    kept: Tensor
    moved: Tensor

    def __init__(
        self,
        mask: Tensor,
        hidden: int,
        blocks: int,
        dropout: float,
        log_scale_cap: float,
        bins: int = 0,
        bound: float = 5.0,
        input_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("moved", mask.nonzero().squeeze(-1), persistent=False)
        self.register_buffer("kept", (~mask).nonzero().squeeze(-1), persistent=False)
        self.bins, self.bound, self.cap = bins, bound, log_scale_cap
        each = 2 + (3 * bins - 1 if bins else 0)
        self.conditioner = Conditioner(len(self.kept), len(self.moved) * each, hidden, blocks, dropout, input_noise)

    def _parameters_of(self, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.conditioner(kept).unflatten(-1, (len(self.moved), -1))
        return out[..., 0], self.cap * torch.tanh(out[..., 1] / self.cap), out[..., 2:]

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        order = torch.cat((self.kept, self.moved)).argsort()
        return torch.cat((kept, moved), -1)[..., order]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y (..., D) and log|det dy/dx| (...)."""
        kept, moved = x[..., self.kept], x[..., self.moved]
        shift, log_scale, spline = self._parameters_of(kept)
        moved = moved * log_scale.exp() + shift
        log_det = log_scale.sum(-1)
        if self.bins:
            moved, more = spline_forward(moved, spline, self.bound)
            log_det = log_det + more.sum(-1)
        return self._join(kept, moved), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., D) and log|det dx/dy| (...)."""
        kept, moved = y[..., self.kept], y[..., self.moved]
        shift, log_scale, spline = self._parameters_of(kept)
        log_det = -log_scale.sum(-1)
        if self.bins:
            moved, more = spline_inverse(moved, spline, self.bound)
            log_det = log_det + more.sum(-1)
        return self._join(kept, (moved - shift) * torch.exp(-log_scale)), log_det


class Couplings(nn.ModuleList):
    """Coupling layers one after another."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (..., D) through all of them, and log|det| (...)."""
        log_det = z.new_zeros(z.shape[:-1])
        for coupling in self:
            z, more = coupling(z)
            log_det = log_det + more
        return z, log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The way back, last layer first, and its log|det| (...)."""
        log_det = z.new_zeros(z.shape[:-1])
        for coupling in reversed(self):
            z, more = coupling.inverse(z)  # type: ignore[operator]
            log_det = log_det + more
        return z, log_det


def _knots(parameters: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Knots' x and y (..., bins + 1) and slopes (..., bins + 1) from (..., 3 bins - 1) free numbers; zero: identity."""
    bins = (parameters.shape[-1] + 1) // 3
    edges = []
    for raw in (parameters[..., :bins], parameters[..., bins : 2 * bins]):
        share = _MIN_BIN + (1 - _MIN_BIN * bins) * torch.softmax(raw, -1)
        inner = bound * (2 * share.cumsum(-1)[..., :-1] - 1)
        edge = torch.full_like(inner[..., :1], bound)
        edges.append(torch.cat((-edge, inner, edge), -1))
    offset = torch.log(torch.expm1(torch.tensor(1 - _MIN_SLOPE, dtype=parameters.dtype)))
    slopes = _MIN_SLOPE + functional.softplus(parameters[..., 2 * bins :] + offset)
    one = torch.ones_like(slopes[..., :1])
    return edges[0], edges[1], torch.cat((one, slopes, one), -1)


def _bin(value: Tensor, edges: Tensor, others: Tensor, slopes: Tensor) -> tuple[Tensor, ...]:
    """The bin that ``value`` falls into along ``edges``: its start and width along both axes, and its two slopes."""
    index = (value[..., None] >= edges[..., 1:-1]).sum(-1, keepdim=True)

    def take(table: Tensor, i: Tensor) -> Tensor:
        return table.gather(-1, i).squeeze(-1)

    a, b = take(edges, index), take(others, index)
    return a, take(edges, index + 1) - a, b, take(others, index + 1) - b, take(slopes, index), take(slopes, index + 1)


def spline_forward(x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic spline of x (...), parameters (..., 3 bins - 1) (Durkan et al., eqs. 4 and 5).

    Identity outside [-bound, bound]. Returns y and log dy/dx, elementwise.
    """
    xs, ys, slopes = _knots(parameters, bound)
    inside = x.abs() < bound
    x_in = torch.where(inside, x, torch.zeros_like(x))
    x0, width, y0, height, d0, d1 = _bin(x_in, xs, ys, slopes)
    t = (x_in - x0) / width
    s = height / width
    bow = t * (1 - t)
    denominator = s + (d1 + d0 - 2 * s) * bow
    y = y0 + height * (s * t * t + d0 * bow) / denominator
    log_slope = 2 * s.log() + (d1 * t * t + 2 * s * bow + d0 * (1 - t).square()).log() - 2 * denominator.log()
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def spline_inverse(y: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Inverse of :func:`spline_forward` (eqs. 6 to 8): x and log dx/dy, elementwise."""
    xs, ys, slopes = _knots(parameters, bound)
    inside = y.abs() < bound
    y_in = torch.where(inside, y, torch.zeros_like(y))
    y0, height, x0, width, d0, d1 = _bin(y_in, ys, xs, slopes)
    s = height / width
    rise = y_in - y0
    bend = d1 + d0 - 2 * s
    a = height * (s - d0) + rise * bend
    b = height * d0 - rise * bend
    c = -s * rise
    t = (2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt())).clamp(0, 1)
    bow = t * (1 - t)
    log_slope = 2 * s.log() + (d1 * t * t + 2 * s * bow + d0 * (1 - t).square()).log() - 2 * (s + bend * bow).log()
    return torch.where(inside, x0 + t * width, y), torch.where(inside, -log_slope, torch.zeros_like(y))
