"""How far joints may be off: calibrated regions hold what they promise, and say more where less was seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from small_reconstructor import evidence_of, observations, untrained

from kinflow.assets import asset_path
from kinflow.body import Body
from kinflow.errors import FormatError, UsageError
from kinflow.metrics import covered
from kinflow.motion import GAUSSIAN_REACH, Motion
from kinflow.reconstruction.deviations import LEVELS, JointDeviations, inside, load_deviations
from kinflow.reconstruction.reconstructor import place_deviations
from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS

D = torch.float64


def test_errors_of_a_known_law_are_met() -> None:
    """Errors of 1.7 across and 2.3 along times the root of what was said: powers, and regions on errors that had no say."""
    g = torch.Generator().manual_seed(0)
    base = torch.log(0.05 * torch.exp(0.5 * torch.randn(8000, 24, 2, generator=g, dtype=D)))
    size = torch.tensor([1.7, 1.7, 2.3], dtype=D) * (0.5 * base).exp()[..., [0, 0, 1]]
    error = size * torch.randn(8000, 24, 3, generator=g, dtype=D)
    deviations = JointDeviations().double()
    deviations.fit(base[::2], error[::2])
    # log|error| of a normal law has a spread of 1.1 (along), 0.6 (across): over 4,000 frames and a spread of 0.5 of what is said,
    # a slope's standard error is 0.036 and 0.02.
    assert (deviations.power - 0.5).abs().amax(0).tolist() < [0.08, 0.13]
    for space_or_depth in inside(error[1::2], deviations.scaled(base[1::2]), deviations.reach90):
        for level, share in zip(LEVELS, space_or_depth, strict=True):
            assert (share - level).abs().max() < 0.04


def test_heavy_tails_are_met_at_both_levels() -> None:
    """Student's law of 3 degrees of freedom: nine tenths of it reach 1.40 times as far beyond its half as a Gaussian's."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    error = 0.03 * torch.distributions.StudentT(3.0).sample((12000, 24, 3)).double()
    base = torch.randn(12000, 24, 2, generator=g, dtype=D) * 0.1 - 3
    deviations = JointDeviations().double()
    deviations.fit(base[::2], error[::2])
    for region in inside(error[1::2], deviations.scaled(base[1::2]), deviations.reach90):
        for level, share in zip(LEVELS, region, strict=True):
            assert (share - level).abs().max() < 0.03
    law = scipy.stats.t(3)
    expected = 0.674490 * law.ppf(0.95) / law.ppf(0.75)
    assert expected == pytest.approx(2.075, abs=1e-3)
    assert float(deviations.reach90[:, 1].mean()) == pytest.approx(expected, rel=0.02)


def test_regions_of_a_motion(tmp_path: Path) -> None:
    reconstructor = untrained(Body.open("light"))
    obs = observations(reconstructor.body, steps=5)
    reconstructor.deviations.reach90[3] = torch.tensor([4.0, 2.0])
    (motion,) = reconstructor.reconstruct([evidence_of(obs, 0)], obs.K[0])
    std = motion.deviations()
    half, nine = motion.regions(0.5), motion.regions()
    np.testing.assert_allclose(half[0], 1.538172 * std, rtol=1e-5)
    np.testing.assert_allclose(half[1], 0.674490 * std[..., 1], rtol=1e-5)
    np.testing.assert_allclose(nine[0][:, 3], 4 * std[:, 3], rtol=1e-5)
    np.testing.assert_allclose(nine[1][:, 3], 2 * std[:, 3, 1], rtol=1e-5)
    np.testing.assert_allclose(nine[0][:, 4], 2.500278 * std[:, 4], rtol=1e-5)
    motion.save(tmp_path / "a.npz")
    np.testing.assert_array_equal(Motion.load(tmp_path / "a.npz").regions()[0], nine[0])
    bare = dataclasses.replace(motion, joints3d_reach90=None)
    np.testing.assert_allclose(bare.regions()[0], 2.500278 * std, rtol=1e-5)
    with pytest.raises(UsageError, match=r"0\.5, 0\.9, got 0\.7"):
        motion.regions(0.7)


def test_too_few_errors_are_refused() -> None:
    with pytest.raises(UsageError, match="100 frames or more, got 7"):
        JointDeviations().fit(torch.zeros(7, 24, 2), torch.zeros(7, 24, 3))


def test_a_joint_takes_the_deviations_of_the_landmarks_about_it() -> None:
    world, place = torch.full((1, 33, 2), 0.02), torch.tensor([[0.01, 0.3]])
    world[:, BLAZEPOSE.index("left_wrist")] = torch.tensor([0.05, 0.2])
    std = JointDeviations()(world, place)[0]
    torch.testing.assert_close(std[SMPL_JOINTS.index("pelvis")], place[0])
    torch.testing.assert_close(std[SMPL_JOINTS.index("left_wrist")], torch.tensor([0.05, 0.2]))
    others = [i for i, name in enumerate(SMPL_JOINTS) if name not in ("pelvis", "left_wrist")]
    torch.testing.assert_close(std[others], torch.full((22, 2), 0.02))


def test_place_across_and_along_the_ray() -> None:
    """A covariance of 0.2 m along a slanting ray and 0.01 m across it."""
    ray = np.array([3.0, 0.0, 4.0]) / 5
    covariance = 0.01**2 * np.eye(3) + (0.2**2 - 0.01**2) * np.outer(ray, ray)
    np.testing.assert_allclose(place_deviations(5 * ray[None], covariance[None]), [[0.01, 0.2]], rtol=1e-5)


def test_frames_not_seen_are_less_sure_than_those_around_them() -> None:
    reconstructor = untrained(Body.open("light"))
    obs = observations(reconstructor.body, steps=24)
    (motion,) = reconstructor.reconstruct([evidence_of(obs, 0, slice(8, 16))], obs.K[0])
    std = motion.deviations()
    assert std.shape == (24, 24, 2) and np.isfinite(std).all()
    assert (std[8:16] >= np.minimum(std[7], std[16])).all() and (std[8:16] > np.maximum(std[7], std[16])).mean() > 0.8


def test_the_regions_are_those_of_the_metric() -> None:
    g = torch.Generator().manual_seed(2)
    error, std = torch.randn(500, 3, generator=g, dtype=D), 0.5 + torch.rand(500, 2, generator=g, dtype=D)
    space, _ = inside(error, std, torch.tensor(GAUSSIAN_REACH[0.9]))
    for level, share in zip(LEVELS, space, strict=True):
        assert share == covered(error, std[:, [0, 0, 1]], level).double().mean()


def test_packaged_deviations_and_others() -> None:
    deviations = load_deviations()
    assert deviations.log_scale.shape == (24, 2) and bool((deviations.power > 0).all())
    with pytest.raises(FormatError, match="joint deviations"):
        load_deviations(asset_path("lifter.safetensors"))
