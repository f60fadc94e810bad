"""Gathers, neighbours, finite differences and windows in time, by closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from kinflow import timing

D = torch.float64


def uneven(batch: int, frames: int) -> Tensor:
    return (0.01 + 0.1 * torch.rand(batch, frames, dtype=D)).cumsum(1)


def test_gather_picks_frames_of_each_clip() -> None:
    x = torch.arange(2 * 5 * 3).reshape(2, 5, 3)
    index = torch.tensor([[4, 0], [2, 2]])
    assert timing.gather_time(x, index).tolist() == [[x[0, 4].tolist(), x[0, 0].tolist()], 2 * [x[1, 2].tolist()]]
    near = torch.randint(5, (2, 7, 4))
    assert torch.equal(timing.gather_time(x, near), x[torch.arange(2)[:, None, None], near])
    assert timing.gather_time(x[..., 0], near).shape == (2, 7, 4)


def test_reversal_within_length_is_its_own_inverse() -> None:
    index = timing.reverse_index(torch.tensor([3, 5]), 5)
    assert index.tolist() == [[2, 1, 0, 3, 4], [4, 3, 2, 1, 0]]
    x = torch.randn(2, 5, 4)
    assert torch.equal(timing.gather_time(timing.gather_time(x, index), index), x)


def test_neighbours_by_hand() -> None:
    valid = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)
    times = torch.tensor([[0.0, 1.0, 2.0, 4.0, 5.0, 7.0]]).expand(2, -1)
    before, after, share = timing.neighbours(times, valid)
    assert before.tolist() == [[1, 1, 1, 1, 4, 4], 6 * [3]] and after.tolist() == [[1, 1, 4, 4, 4, 4], 6 * [3]]
    assert share[0].tolist() == [0, 0, 0.25, 0.75, 0, 1]
    assert timing.to_nearest(times, valid).tolist() == [[1, 0, 1, 1, 0, 2], [4, 3, 2, 0, 1, 3]]
    assert timing.valid_before(valid).tolist() == [[-1, -1, 1, 1, 1, 4], [-1, -1, -1, -1, 3, 3]]
    assert timing.last_valid(valid).tolist() == [[4], [3]]
    assert timing.last_valid(torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[-1]]


def test_runs_by_hand() -> None:
    valid = np.array([0, 1, 1, 0, 0, 1], bool)
    assert timing.valid_runs(valid).tolist() == [[1, 3], [5, 6]]
    assert timing.valid_runs(~valid).tolist() == [[0, 1], [3, 5]]
    assert timing.valid_runs(np.zeros(4, bool)).shape == (0, 2)


def test_nearest_is_the_naive_one() -> None:
    times, valid = uneven(8, 20), torch.rand(8, 20) > 0.7
    valid[:, 5] = True
    lag = (times[:, :, None] - times[:, None, :]).abs().masked_fill(~valid[:, None, :], torch.inf)
    assert torch.equal(timing.to_nearest(times, valid), lag.amin(-1))


def test_differences_are_exact_for_lines_and_parabolas_at_uneven_times() -> None:
    t = uneven(3, 9)
    speed, bend, start = torch.randn(3, 4, 3, dtype=D)
    path = start + t[..., None, None] * speed
    torch.testing.assert_close(timing.velocity(path, t), speed.expand(3, 8, 4, 3), rtol=0, atol=1e-11)
    curve = path + t[..., None, None].square() * bend
    torch.testing.assert_close(timing.acceleration(curve, t), (2 * bend).expand(3, 7, 4, 3), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        timing.acceleration(curve[..., 0, :], t, dim=-2), (2 * bend[0]).expand(3, 7, 3), rtol=0, atol=1e-8
    )
    torch.testing.assert_close(timing.velocity(t, t, dim=-1), torch.ones(3, 8, dtype=D))


def test_differences_keep_the_type_and_lose_nothing_of_late_stamps() -> None:
    t = 1e6 + torch.arange(5, dtype=D) / 100  # float32 stamps would all be the same
    x = torch.arange(5, dtype=torch.float32)[:, None]
    found = timing.velocity(x, t, dim=-2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((4, 1), 100.0), rtol=1e-6, atol=0)
    standing = timing.velocity(torch.zeros(2, 1), torch.zeros(2), dim=-2)  # padding repeats a time
    assert standing.tolist() == [[0.0]]


@pytest.mark.parametrize("kind", [timing.Windows.fitted, timing.Windows.padded])
def test_windows_cover_a_clip_and_join_to_it(kind: object) -> None:
    for frames in (1, 9, 10, 11, 16, 17, 18, 40, 41):
        windows = kind(frames, 10, 3)  # type: ignore[operator]
        assert windows.starts[0] == 0 and windows.length == min(frames, 10)
        assert all(b <= a + windows.length - 3 for a, b in itertools.pairwise(windows.starts))
        assert windows.starts[-1] + windows.length >= frames
        assert len(windows.starts) == 1 or windows.starts[-2] + windows.length < frames
        x = torch.randn(2, frames, 2, dtype=D)
        parts = windows.cut(x)
        assert parts.shape == (2, len(windows.starts), windows.length, 2)
        back = windows.join(parts.unbind(1), lambda _, a, b: torch.lerp(a, b, 0.3))
        torch.testing.assert_close(back, x, rtol=0, atol=1e-14)


def test_fitted_windows_stay_inside_and_padded_ones_where_they_are() -> None:
    assert timing.Windows.fitted(11, 6, 2).starts == (0, 4, 5)
    assert timing.Windows.padded(11, 6, 2).starts == (0, 4, 8)
    for frames in range(11, 60):
        fitted, padded = timing.Windows.fitted(frames, 10, 3), timing.Windows.padded(frames, 10, 3)
        assert fitted.starts[-1] + 10 == frames
        assert padded.starts == timing.Windows.padded(200, 10, 3).starts[: len(padded.starts)]
        assert (padded.rows() >= frames).sum() == padded.starts[-1] + 10 - frames


def test_joining_fades_over_the_shared_frames_alone() -> None:
    windows = timing.Windows.padded(8, 5, 2)
    parts = [torch.zeros(1, 5), torch.ones(1, 5)]
    seen: list[tuple[int, int]] = []

    def fade(i: int, a: Tensor, b: Tensor) -> Tensor:
        seen.append((i, a.shape[1]))
        return torch.lerp(a, b, torch.tensor([0.25, 0.75]))

    assert windows.join(iter(parts), fade).tolist() == [[0, 0, 0, 0.25, 0.75, 1, 1, 1]]
    assert seen == [(1, 2)]
    with pytest.raises(ValueError):
        windows.join(parts[:1], fade)
