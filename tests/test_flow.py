"""The kinematic flow: exact inverse, exact volume change, a density that integrates to one, sane tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kinflow.config import FlowConfig
from kinflow.errors import ShapeError
from kinflow.flow import PoseFlow, Rot6dFlow, build_flow
from kinflow.flow.chart import RotationChart, Tail, Whitening, ball_to_space, space_to_ball
from kinflow.flow.coupling import spline_forward, spline_inverse, tree_masks
from kinflow.flow.normal import standard_normal_log_prob, usualness
from kinflow.rotations import rotvec_to_rotmat, so3_log_jacobian_logdet

VARIANTS = ({"coupling": "spline", "bins": 5}, {"coupling": "affine"})


def poses(count: int, spread: float = 0.4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return rotvec_to_rotmat(spread * torch.randn(count, 21, 3, generator=generator, dtype=torch.float64))


def make(**settings: object) -> PoseFlow:
    """A flow that is far from the identity, in float64."""
    flow = PoseFlow(FlowConfig(**{"layers": 4, "hidden": 12, "dropout": 0.0, **settings})).double().eval()  # type: ignore[arg-type]
    flow.fit_chart(poses(500))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return flow


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda v: v["coupling"])
def test_inverse_both_ways(settings: dict[str, object]) -> None:
    flow, rotmat = make(**settings), poses(40, seed=2)
    z, log_det = flow.encode(rotmat)
    back, log_det_back = flow.decode(z)
    torch.testing.assert_close(back, rotmat, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-7)
    again = flow.encode(flow.decode(2 * torch.randn_like(z))[0])[0]
    assert torch.isfinite(again).all()


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda v: v["coupling"])
def test_log_det_against_autograd(settings: dict[str, object]) -> None:
    """d z / d (a small turn of each joint on its right) is the Jacobian with respect to Haar measure."""
    flow, rotmat = make(**settings), poses(2, seed=3)
    for pose in rotmat:
        zero = torch.zeros(63, dtype=torch.float64)
        jacobian = torch.func.jacfwd(
            lambda turn, pose=pose: flow.encode(pose @ rotvec_to_rotmat(turn.unflatten(-1, (21, 3))))[0]
        )(zero)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], flow.encode(pose)[1], rtol=0, atol=1e-7)


def test_spline_against_autograd_and_inverse() -> None:
    x = torch.linspace(-7, 7, 201, dtype=torch.float64, requires_grad=True)
    parameters = 1.5 * torch.randn(201, 3 * 6 - 1, dtype=torch.float64)
    y, log_slope = spline_forward(x, parameters, 5.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.log(), log_slope, rtol=0, atol=1e-10)
    back, log_slope_back = spline_inverse(y, parameters, 5.0)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=0, atol=1e-8)
    assert torch.equal(y[x.abs() >= 5], x[x.abs() >= 5])


def test_radial_stretch_and_tail_against_autograd() -> None:
    w = torch.nn.functional.normalize(torch.randn(30, 3, dtype=torch.float64), dim=-1)
    w = w * torch.linspace(0, math.pi - 1e-3, 30, dtype=torch.float64)[:, None]
    u, log_det = ball_to_space(w)
    back, log_det_back = space_to_ball(u)
    torch.testing.assert_close(back, w, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-9)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda v: ball_to_space(v)[0]))(w)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det, rtol=0, atol=1e-8)
    huge = torch.tensor([[1e12, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    inside, log_det = space_to_ball(huge)
    assert inside.norm(dim=-1).max() <= math.pi + 1e-12 and torch.isfinite(log_det).all()

    tail = Tail(1, 3.0).double()
    x = torch.linspace(-1000, 1000, 101, dtype=torch.float64)[:, None].requires_grad_()
    y, log_det = tail(x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0].log().squeeze(-1), log_det, rtol=0, atol=1e-9)
    torch.testing.assert_close(tail.inverse(y)[0], x, rtol=1e-9, atol=1e-9)
    assert (torch.diff(y.squeeze(-1)) > 0).all()


def test_one_joint_density_integrates_to_one() -> None:
    """Quadrature of exp(log_prob) over SO(3), for one joint through chart, whitening and tail."""
    chart, whitening, tail = RotationChart(1).double(), Whitening(3).double(), Tail(3, 2.0).double()
    data = rotvec_to_rotmat(
        torch.tensor([0.9, -1.2, 0.4], dtype=torch.float64) + 0.9 * torch.randn(4000, 1, 3, dtype=torch.float64)
    )
    chart.fit(data)
    whitening.fit(chart(data)[0].flatten(-2))

    def log_prob(rotmat: Tensor) -> Tensor:
        u, log_det = chart(rotmat)
        y, more = tail(whitening(u.flatten(-2)))
        return standard_normal_log_prob(y) + log_det + more + whitening.log_det()

    # Spherical coordinates of the rotation vector, about the identity (not about the density's own mean).
    radius, radius_weight = np.polynomial.legendre.leggauss(64)
    cosine, cosine_weight = np.polynomial.legendre.leggauss(48)
    radius, radius_weight = (radius + 1) * math.pi / 2, radius_weight * math.pi / 2
    azimuth = (np.arange(96) + 0.5) / 96 * 2 * math.pi
    r, c, a = (torch.from_numpy(g) for g in np.meshgrid(radius, cosine, azimuth, indexing="ij"))
    s = (1 - c * c).sqrt()
    w = torch.stack((r * s * a.cos(), r * s * a.sin(), r * c), -1)
    weight = torch.from_numpy(radius_weight[:, None, None] * cosine_weight[:, None] * np.full(96, 2 * math.pi / 96))
    haar = weight * r.square() * so3_log_jacobian_logdet(w).exp()
    assert abs(float(haar.sum()) - 8 * math.pi**2) < 1e-6
    with torch.no_grad():
        total = float((haar * log_prob(rotvec_to_rotmat(w).unsqueeze(-3)).exp()).sum())
    assert abs(total - 1) < 1e-3


def test_whitening_makes_unit_covariance() -> None:
    flow = PoseFlow(FlowConfig(layers=1, hidden=4, tail=1e2)).double()
    rotmat = poses(3000)
    flow.fit_chart(rotmat)
    y = flow.whitening(flow.chart(rotmat)[0].flatten(-2))
    torch.testing.assert_close(torch.cov(y.T), torch.eye(63, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("representation", ("chart", "rot6d"))
def test_all_parameters_get_gradients(representation: str) -> None:
    flow = build_flow(FlowConfig(representation=representation, layers=8, hidden=8, bins=4))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    flow(poses(6).float()).mean().backward()
    without = [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda v: v["coupling"])
def test_far_out_poses_are_unlikely_not_broken(settings: dict[str, object]) -> None:
    flow = make(**settings).float()
    rotvec = torch.nn.functional.normalize(torch.randn(64, 21, 3), dim=-1) * math.pi
    rotvec[0] = 0
    rotvec[1] = torch.tensor([math.pi, 0.0, 0.0])
    rotvec.requires_grad_()
    log_prob = flow.log_prob(rotvec_to_rotmat(rotvec))
    (gradient,) = torch.autograd.grad(log_prob.sum(), rotvec)
    assert torch.isfinite(log_prob).all() and torch.isfinite(gradient).all()
    assert log_prob[2:].max() < flow.log_prob(poses(50, seed=5).float()).min()


def test_decoding_far_latents_stays_a_rotation() -> None:
    flow = make().float()
    rotmat, log_det = flow.decode(30 * torch.randn(50, 63))
    torch.testing.assert_close(rotmat @ rotmat.mT, torch.eye(3).expand_as(rotmat), rtol=0, atol=1e-4)
    assert torch.isfinite(log_det).all()


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    flow, rotmat = make().float(), poses(8, seed=6).float()
    expected = flow.log_prob(rotmat)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(flow.log_prob(rotmat), expected)
    assert flow.log_prob(rotmat.bfloat16()).dtype == torch.float32


def test_masks_follow_the_tree() -> None:
    masks = tree_masks(8, 3)
    assert all(m.shape == (63,) and 0 < m.sum() < 63 for m in masks)
    assert all(bool((a ^ b).all()) for a, b in zip(masks[::2], masks[1::2], strict=True))
    per_joint = masks[0].unflatten(0, (21, 3))
    assert bool((per_joint.all(1) | ~per_joint.any(1)).all())


def test_rot6d_lift_volume_and_bound() -> None:
    """The lift's volume against autograd; importance samples tighten the bound; decoding gives the pose back."""
    flow = Rot6dFlow(FlowConfig(representation="rot6d", layers=2, hidden=8)).double()
    rotmat = poses(200, seed=7)
    flow.fit_chart(rotmat)
    one = rotmat[0]

    def lifted(x: Tensor) -> Tensor:
        return flow.lift(one @ rotvec_to_rotmat(x[:63].unflatten(-1, (21, 3))), x[63:].unflatten(-1, (21, 3)))[0]

    noise = torch.randn(21, 3, dtype=torch.float64)
    at = torch.cat((torch.zeros(63, dtype=torch.float64), noise.flatten()))
    volume = torch.linalg.slogdet(torch.func.jacfwd(lifted)(at))[1]
    # The Jacobian is in the noise; the returned number is in the noise's probability.
    torch.testing.assert_close(
        flow.lift(one, noise)[1], volume - standard_normal_log_prob(noise.flatten()), rtol=0, atol=1e-8
    )

    generator = torch.Generator().manual_seed(0)
    single = flow.log_prob(rotmat[:20], 1, generator).mean()
    assert flow.log_prob(rotmat[:20], 64, generator).mean() > single
    z, _ = flow.encode(rotmat, torch.randn(200, 21, 3, dtype=torch.float64))
    torch.testing.assert_close(flow.decode(z)[0], rotmat, rtol=0, atol=1e-9)


def test_wrong_shapes_are_named() -> None:
    flow = PoseFlow(FlowConfig(layers=1, hidden=4))
    with pytest.raises(ShapeError, match=r"pose_rotmat.*21"):
        flow.encode(torch.eye(3).expand(23, 3, 3))
    with pytest.raises(ShapeError, match="z: expected"):
        flow.decode(torch.zeros(5, 60))


def test_usualness_falls_with_the_length_of_latents() -> None:
    along = np.zeros((400, 63))
    along[:, 7] = np.sqrt(np.linspace(0, 300, 400))
    share = usualness(along)
    assert share[0] == 1 and share[-1] == 0 and (np.diff(share) <= 0).all()
    at = np.zeros((2, 1, 63))
    at[:, 0, 3] = np.sqrt([62.7, 153.9])
    np.testing.assert_allclose(usualness(at), [[0.5], [0.01]], atol=1e-12)
