"""The live filter on a synthetic walk with known truth: landmarks and rotations, gaps, types, bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from walker import rotvecs, walk

from kinflow.body import Body
from kinflow.errors import ShapeError, UsageError
from kinflow.prior import LiveFilter, MotionPrior
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import live as benchmark  # noqa: E402

LIMBS = benchmark.LIMBS


def noisy_walk(body: Body, frames: int, fps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks around the hips (T, 33, 3), true and with noise twice as large in depth; time stamps."""
    steps = walk(frames, fps)
    truth = benchmark.around_hips(body.landmarks(torch.zeros(10), steps.pose_rotmat))
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.03, 0.03, 0.06])
    return truth, benchmark.around_hips(truth + noise), steps.timestamps


def test_it_beats_raw_landmarks(prior: MotionPrior, body: Body) -> None:
    truth, raw, times = noisy_walk(body, 36, 30)
    live = LiveFilter(prior, body)
    results = [live.landmarks(t, points.numpy(), np.ones(33)) for points, t in zip(raw, times.tolist(), strict=True)]
    found = torch.stack([r.landmarks for r in results])

    def off(points: Tensor) -> float:
        return float((points - truth)[10:, LIMBS].norm(dim=-1).mean())

    shake = [benchmark.acceleration(x, times) for x in (raw, found)]
    behind = benchmark.lag(truth, found, times)
    print(
        f"limbs off by {1000 * off(raw):.0f} mm raw, {1000 * off(found):.0f} mm filtered; acceleration {shake}, lag {behind}"
    )
    assert off(found) < 0.48 * off(raw) and shake[1] < 0.2 * shake[0] and behind < 0.02
    assert results[0].body_pose.shape == (23, 3) and all(r.observed for r in results)
    # The pose it returns is the body it draws.
    last = results[-1]
    pose = rotvec_to_rotmat(torch.cat((last.global_orient[None], last.body_pose)))
    drawn = benchmark.around_hips(body.landmarks(torch.zeros(10), pose)) * last.size
    assert (drawn - last.landmarks).abs().max() < 1e-3


def test_it_finds_the_size_and_follows_any_axes(prior: MotionPrior, body: Body) -> None:
    truth, _, times = noisy_walk(body, 12, 30)
    live, turned = LiveFilter(prior, body), LiveFilter(prior, body)
    axes = rotvec_to_rotmat(torch.tensor([0.5, -1.0, 2.0]))
    for points, t in zip(truth, times.tolist(), strict=True):
        a = live.landmarks(t, 1.2 * points + 3.0, std=(0.03, 0.03, 0.03))
        b = turned.landmarks(t, 1.2 * points @ axes.T, std=(0.03, 0.03, 0.03))
    assert 1.1 < a.size < 1.25 and abs(a.size - b.size) < 1e-3
    assert (a.landmarks @ axes.T - b.landmarks).abs().max() < 2e-3
    assert (a.body_pose - b.body_pose).abs().max() < 2e-2


@pytest.mark.parametrize("oriented", [True, False])
def test_it_filters_rotations(prior: MotionPrior, oriented: bool) -> None:
    steps = walk(30, 30)
    true = rotvec_to_rotmat(rotvecs(steps))[:, :22]
    noise = 0.08 * torch.randn(30, 22, 3, generator=torch.Generator().manual_seed(0))
    raw = true @ rotvec_to_rotmat(noise)
    live = LiveFilter(prior)
    results = [
        live.rotations(t, raw[i, 1:], rotvecs(steps)[i, 0] if oriented else None, std=0.08)
        for i, t in enumerate(steps.timestamps.tolist())
    ]
    body = rotvec_to_rotmat(torch.stack([r.body_pose for r in results]))[:, :21]
    off = [float(geodesic_distance(x[10:], true[10:, 1:]).mean()) for x in (raw[:, 1:], body)]
    shake = [float(geodesic_distance(x[10:-1], x[11:]).mean()) for x in (raw[:, 1:], body)]
    print(f"off by {off[0]:.3f} raw, {off[1]:.3f} filtered; from frame to frame {shake[0]:.3f}, {shake[1]:.3f} rad")
    assert off[1] < 0.8 * off[0] and shake[1] < 0.5 * shake[0]
    if oriented:
        root = rotvec_to_rotmat(torch.stack([r.global_orient for r in results]))
        assert float(geodesic_distance(root[5:], true[5:, 0]).max()) < 1e-6
    else:
        assert torch.equal(results[-1].global_orient, torch.zeros(3)) and results[-1].size == 1


def test_it_bridges_gaps_and_forgets(prior: MotionPrior, body: Body) -> None:
    truth, raw, times = noisy_walk(body, 24, 30)
    live = LiveFilter(prior, body)
    for i in range(20):
        points = None if 14 <= i < 18 else raw[i].clone()
        if i == 9:
            assert points is not None
            points[5] = torch.nan  # a broken frame counts as none
        result = live.landmarks(float(times[i]), points)
        assert result.observed == (points is not None and i != 9)
        assert torch.isfinite(result.body_pose).all()
        if i in (9, 17):
            assert (result.landmarks - truth[i])[LIMBS].norm(dim=-1).mean() < 0.15
    turned = raw[20] * torch.tensor([-1.0, 1.0, -1.0])  # someone facing the other way, after a while
    result = live.landmarks(float(times[20]) + 5, turned)
    assert (result.landmarks - turned)[LIMBS].norm(dim=-1).mean() < 0.06


def test_state_is_in_the_object_alone(prior: MotionPrior, body: Body) -> None:
    _, raw, times = noisy_walk(body, 6, 30)
    alone, one, other = (LiveFilter(prior, body) for _ in range(3))
    for i, t in enumerate(times.tolist()):
        expected = alone.landmarks(t, raw[i])
        found = one.landmarks(t, raw[i])
        other.landmarks(2 * t, raw[5 - i])
    assert torch.equal(found.body_pose, expected.body_pose)
    one.reset()  # starts over, its clock too
    again = [one.landmarks(t, raw[i]) for i, t in enumerate(times.tolist())]
    assert torch.equal(again[-1].body_pose, expected.body_pose)


def test_it_follows_the_priors_type_and_leaves_the_body(body: Body) -> None:
    double = MotionPrior.load().double()
    live = LiveFilter(double, body)
    assert live.landmarks(0.0, torch.randn(33, 3)).body_pose.dtype == torch.float64
    assert live.rotations(0.1, np.zeros((21, 3))).global_orient.dtype == torch.float64
    assert body.v_template.dtype == torch.float32


def test_it_names_bad_input(prior: MotionPrior, body: Body) -> None:
    live = LiveFilter(prior, body)
    live.landmarks(0.0, None)
    for timestamp in (0.0, -1.0, float("nan")):
        with pytest.raises(ShapeError, match="timestamp"):
            live.landmarks(timestamp, None)
    with pytest.raises(ShapeError, match="points"):
        live.landmarks(0.1, np.zeros((17, 3)))
    with pytest.raises(ShapeError, match="visibility"):
        live.landmarks(0.1, np.zeros((33, 3)), np.ones(17))
    with pytest.raises(ShapeError, match="body_pose"):
        live.rotations(0.1, np.zeros((17, 3)))
    with pytest.raises(ShapeError, match="one frame"):
        live.rotations(0.1, np.zeros((2, 23, 3)))
    with pytest.raises(UsageError, match="std"):
        live.rotations(0.1, np.zeros((23, 3)), std=0.0)
    with pytest.raises(UsageError, match="std"):
        live.landmarks(0.1, np.zeros((33, 3)), std=(0.1, 0.1, -0.1))
    with pytest.raises(UsageError, match="iterations"):
        LiveFilter(prior, body, iterations=0)


def test_lag_and_acceleration_by_closed_form() -> None:
    times = torch.arange(60, dtype=torch.float64) / 30
    wave = torch.sin(4 * times)[:, None, None].expand(60, 33, 3)
    late = torch.sin(4 * (times - 0.033))[:, None, None].expand(60, 33, 3)
    assert benchmark.lag(wave, late, times) == pytest.approx(0.033, abs=0.002)
    assert benchmark.lag(wave, wave, times) == pytest.approx(0.0, abs=0.001)
    falling = (times.square() * 4.9)[:, None, None] * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert benchmark.acceleration(falling.expand(60, 33, 3), times) == pytest.approx(9.8)


def test_the_benchmark_runs(tmp_path: Path) -> None:
    steps = walk(150, 60)
    from kinflow.mocap.clips import MotionClip, save_clips

    pose = rotvecs(steps).numpy()
    clip = MotionClip(
        "walk", "nobody", "", 60.0, pose[:, 0], pose[:, 1:], steps.transl.numpy(), np.ones(150, bool), "train"
    )
    save_clips(tmp_path / "mocap.npz", [clip])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "live.py"), "--data", str(tmp_path / "mocap.npz"), "--clips", "1",
         "--seconds", "1", "--rates", "15"], capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(kind in done.stdout for kind in benchmark.KINDS)
