"""Least squares over chains: unknowns that are tied to their next two neighbours, solved for a whole clip at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_shape


def solve_chain(diagonal: Tensor, next_one: Tensor, next_two: Tensor, right: Tensor) -> Tensor:
    """Solve H x = b for positive definite H that couples frames up to two apart.

    Cyclic reduction (Hockney, 1965) on pairs of frames: every second pair is eliminated at a time, all of them in one batched
    step, so that T frames take log2(T) steps.

    Args:
        diagonal: (..., T, 3, 3) blocks H[t, t]. next_one: (..., T, 3, 3) blocks H[t, t + 1], the last one ignored.
        next_two: (..., T, 3, 3) blocks H[t, t + 2], the last two ignored.
        right: (..., T, 3).

    Returns:
        (..., T, 3).
    """
    frames, width = check_shape("right", right, "... T D").values()
    for name, value in (("diagonal", diagonal), ("next_one", next_one), ("next_two", next_two)):
        check_shape(name, value, f"... {frames} {width} {width}")
    if frames % 2:  # one more frame that nothing depends on
        eye = torch.eye(width).to(right).expand(*right.shape[:-2], 1, width, width)
        zero = torch.zeros_like(eye)
        next_one = torch.cat((_without_last(next_one, 1), zero), -3)
        next_two = torch.cat((_without_last(next_two, 2), zero), -3)
        diagonal, right = torch.cat((diagonal, eye), -3), torch.cat((right, torch.zeros_like(right[..., :1, :])), -2)
    else:
        next_one, next_two = _without_last(next_one, 1), _without_last(next_two, 2)
    zero = torch.zeros_like(diagonal[..., ::2, :, :])
    within = torch.cat(
        (
            torch.cat((diagonal[..., ::2, :, :], next_one[..., ::2, :, :]), -1),
            torch.cat((next_one[..., ::2, :, :].mT, diagonal[..., 1::2, :, :]), -1),
        ),
        -2,
    )
    onward = torch.cat(
        (
            torch.cat((next_two[..., ::2, :, :], zero), -1),
            torch.cat((next_one[..., 1::2, :, :], next_two[..., 1::2, :, :]), -1),
        ),
        -2,
    )
    pairs = right.unflatten(-2, (-1, 2)).flatten(-2)
    return _reduced(within, onward, pairs).unflatten(-1, (2, width)).flatten(-3, -2)[..., :frames, :]


def _without_last(blocks: Tensor, count: int) -> Tensor:
    """Blocks with the last ``count`` set to zero: what they would tie to lies beyond the chain."""
    out = blocks.clone()
    out[..., max(0, blocks.shape[-3] - count) :, :, :] = 0
    return out


def _reduced(within: Tensor, onward: Tensor, right: Tensor) -> Tensor:
    """Solve a block tridiagonal system: blocks (..., N, D, D) of the diagonal and of the next one (the last is zero)."""
    count, width = right.shape[-2:]
    if count == 1:
        return torch.linalg.solve(within, right[..., None])[..., 0]
    if count % 2 == 0:  # so that every odd one has a neighbour on both sides
        eye = torch.eye(width).to(right).expand(*right.shape[:-2], 1, width, width)
        within, onward = torch.cat((within, eye), -3), torch.cat((onward, torch.zeros_like(eye)), -3)
        right = torch.cat((right, torch.zeros_like(right[..., :1, :])), -2)
    to_odd, from_odd = onward[..., :-1:2, :, :], onward[..., 1::2, :, :]  # even -> odd, odd -> next even
    odd, b_odd = within[..., 1::2, :, :], right[..., 1::2, :]
    # What each eliminated block hands to its two neighbours: odd^-1 (coupling to the left, to the right, right side).
    solved = torch.linalg.solve(odd, torch.cat((to_odd.mT, from_odd, b_odd[..., None]), -1))
    left, onto, alone = solved[..., :width], solved[..., width : 2 * width], solved[..., 2 * width :]
    even, b_even = within[..., ::2, :, :].clone(), right[..., ::2, :].clone()
    even[..., :-1, :, :] -= to_odd @ left
    even[..., 1:, :, :] -= from_odd.mT @ onto
    b_even[..., :-1, :] -= (to_odd @ alone)[..., 0]
    b_even[..., 1:, :] -= (from_odd.mT @ alone)[..., 0]
    coupling = torch.cat((-(to_odd @ onto), torch.zeros_like(even[..., :1, :, :])), -3)
    kept = (count + 1) // 2  # without the one that only fills up
    x_even = _reduced(even[..., :kept, :, :], coupling[..., :kept, :, :], b_even[..., :kept, :])
    x_even = torch.cat((x_even, torch.zeros_like(b_even[..., kept:, :])), -2)
    x_odd = alone[..., 0] - (left @ x_even[..., :-1, :, None])[..., 0] - (onto @ x_even[..., 1:, :, None])[..., 0]
    out = torch.empty_like(right)
    out[..., ::2, :], out[..., 1::2, :] = x_even, x_odd
    return out[..., :count, :]
