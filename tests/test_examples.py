"""The examples do what they say: on a synthetic walk with known truth, and on shared clips where those are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from walker import walk

from kinflow import timing
from kinflow.body import Body
from kinflow.cameras import intrinsics, project
from kinflow.formats.pose_files import read_pose_file
from kinflow.prior import LiveFilter, MotionPrior

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import fit_keypoints  # noqa: E402
import live_filter  # noqa: E402

LIMBS = live_filter.LIMBS


def around_hips(landmarks: Tensor) -> Tensor:
    return landmarks - landmarks[..., live_filter.HIPS, :].mean(-2, keepdim=True)


# -- the loss inside an optimiser -----------------------------------------------------------------------------------------


def test_the_prior_helps_a_fit_to_keypoints(prior: MotionPrior, body: Body) -> None:
    steps = walk(16, 16)
    K = intrinsics((480, 360))
    joints, landmarks = body.joints_and_landmarks(torch.zeros(10), steps.pose_rotmat, steps.transl)
    pixels = project(landmarks, K)
    pixels = pixels + 2 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    seen = fit_keypoints.Keypoints(pixels, torch.ones(16, 33), steps.timestamps, K)

    def outcome(weight: float) -> tuple[float, float, float]:
        found = fit_keypoints.fit(seen, prior, body, weight, steps=45)
        off = (found.joints - found.joints[:, :1]) - (joints - joints[:, :1])
        return (
            float(off.norm(dim=-1).mean()),
            fit_keypoints.acceleration(found, seen, body)[0],
            fit_keypoints.reprojection(found, seen),
        )

    without, with_prior = outcome(0.0), outcome(1.0)
    print(f"joints off by {1000 * without[0]:.0f} mm without, {1000 * with_prior[0]:.0f} mm with the prior")
    print(
        f"acceleration {without[1]:.1f} and {with_prior[1]:.1f} m/s^2, reprojection {without[2]:.1f}, {with_prior[2]:.1f} px"
    )
    assert with_prior[0] < 0.97 * without[0] and with_prior[1] < 0.5 * without[1]
    assert with_prior[2] < 8


def test_fit_from_a_file_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], body: Body) -> None:
    steps = walk(6, 12)
    pixels = project(body.landmarks(torch.zeros(10), steps.pose_rotmat, steps.transl), intrinsics((480, 360)))
    arrays = {
        "keypoints2d": pixels.numpy(),
        "confidence": np.ones((6, 33), np.float32),
        "timestamps": steps.timestamps.numpy(),
        "image_size": np.array([480, 360]),
    }
    np.savez(tmp_path / "seen.npz", **arrays)
    out = tmp_path / "fit.npz"
    assert fit_keypoints.main([str(tmp_path / "seen.npz"), "-o", str(out), "--steps", "4"]) == 0
    assert capsys.readouterr().out.count("reprojection") == 2
    assert read_pose_file(out).body_rotmat.shape == (1, 6, 21, 3, 3)  # kinflow-smooth takes it
    del arrays["image_size"]
    np.savez(tmp_path / "seen.npz", **arrays)
    assert fit_keypoints.main([str(tmp_path / "seen.npz")]) == 2
    assert "image_size" in capsys.readouterr().err
    assert fit_keypoints.main([str(tmp_path / "none.npz")]) == 3


# -- real clips -------------------------------------------------------------------------------------------------------------


def test_both_on_a_real_clip(
    shared_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prior: MotionPrior, body: Body
) -> None:
    clip = str(shared_clips / "room_walk_sit.mp4")
    seen = fit_keypoints.read(clip, 0.0, 0.6)
    without, with_prior = (fit_keypoints.fit(seen, prior, body, weight, steps=30) for weight in (0.0, 1.0))
    jitter = [fit_keypoints.acceleration(f, seen, body) for f in (without, with_prior)]
    far = [fit_keypoints.reprojection(f, seen) for f in (without, with_prior)]
    tall = float((seen.keypoints2d.amax(1) - seen.keypoints2d.amin(1)).norm(dim=-1).median())
    print(
        f"room: acceleration {jitter[0][0]:.1f} -> {jitter[1][0]:.1f} m/s^2, in the body's axes {jitter[0][1]:.1f} -> "
        f"{jitter[1][1]:.1f}, reprojection {far[0]:.1f} -> {far[1]:.1f} px of {tall:.0f}"
    )
    # The prior speaks of the body in its own axes; the root, which it leaves to the fit, may take some of the jitter over.
    assert jitter[1][1] < 0.7 * jitter[0][1] and jitter[1][0] < 1.15 * jitter[0][0] and far[1] < 0.05 * tall

    assert seen.world is not None
    live, times = LiveFilter(prior, body), seen.timestamps
    raw = around_hips(seen.world)
    found = torch.stack(
        [live.landmarks(float(t), p, c).landmarks for p, c, t in zip(raw, seen.confidence, times, strict=True)]
    )
    shake = [float(timing.acceleration(x[:, LIMBS].double(), times).norm(dim=-1).mean()) for x in (raw, found)]
    moved = float((found - raw)[:, LIMBS].norm(dim=-1).mean())
    print(f"room live: acceleration {shake[0]:.1f} -> {shake[1]:.1f} m/s^2, limbs moved by {1000 * moved:.0f} mm")
    assert shake[1] < 0.9 * shake[0] and moved < 0.08


def test_the_live_example_runs(shared_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "live.npz"
    threads = torch.get_num_threads()
    try:
        code = live_filter.main([str(shared_clips / "squats_5fps.mp4"), "--end", "1.5", "-o", str(out)])
    finally:
        torch.set_num_threads(threads)
    assert code == 0
    told = capsys.readouterr().out
    assert "latency" in told and "raw" in told
    assert read_pose_file(out).people == 1
