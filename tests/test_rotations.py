"""Rotation conversions against scipy, at zero and at pi, with gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from kinflow import rotations as rot


def random_rotvecs(n: int = 500, angle: float = math.pi - 1e-6) -> torch.Tensor:
    axis = torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64), dim=-1)
    return axis * (torch.rand(n, 1, dtype=torch.float64) * angle)


def test_agrees_with_scipy() -> None:
    rotvec = random_rotvecs()
    oracle = Rotation.from_rotvec(rotvec.numpy())
    rotmat = torch.from_numpy(oracle.as_matrix())
    torch.testing.assert_close(rot.rotvec_to_rotmat(rotvec), rotmat, atol=1e-13, rtol=0)
    torch.testing.assert_close(rot.rotmat_to_rotvec(rotmat), rotvec, atol=1e-7, rtol=0)
    quat = torch.from_numpy(oracle.as_quat(canonical=True))[:, [3, 0, 1, 2]]
    torch.testing.assert_close(rot.rotmat_to_quat_wxyz(rotmat), quat, atol=1e-13, rtol=0)
    torch.testing.assert_close(rot.quat_wxyz_to_rotmat(quat), rotmat, atol=1e-13, rtol=0)
    torch.testing.assert_close(
        rot.geodesic_distance(torch.eye(3).double(), rotmat), rotvec.norm(dim=-1), atol=1e-7, rtol=0
    )


def test_rot6d_is_the_first_two_columns() -> None:
    rotmat = rot.rotvec_to_rotmat(random_rotvecs())
    rot6d = rot.rotmat_to_rot6d(rotmat)
    assert torch.equal(rot6d[:, :3], rotmat[:, :, 0]) and torch.equal(rot6d[:, 3:], rotmat[:, :, 1])
    torch.testing.assert_close(rot.rot6d_to_rotmat(rot6d), rotmat, atol=1e-13, rtol=0)
    scaled = torch.cat((2 * rot6d[:, :3], 3 * rot6d[:, 3:] + rot6d[:, :3]), -1)
    torch.testing.assert_close(rot.rot6d_to_rotmat(scaled), rotmat, atol=1e-12, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-3, math.pi - 1e-7, math.pi])
def test_round_trip_and_gradients_at_the_ends(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64), dim=-1)
    rotvec = (axis * angle).requires_grad_()
    back = rot.rotmat_to_rotvec(rot.rotvec_to_rotmat(rotvec))
    np.testing.assert_allclose(
        Rotation.from_rotvec(back.detach().numpy()).as_matrix(),
        Rotation.from_rotvec(rotvec.detach().numpy()).as_matrix(),
        atol=1e-9,
    )
    for value in (
        back.sum(),
        rot.geodesic_distance(torch.eye(3).double(), rot.rotvec_to_rotmat(rotvec)).sum(),
        rot.so3_log_jacobian_logdet(rotvec).sum(),
        rot.slerp(rot.rotvec_to_rotmat(rotvec), torch.eye(3).double(), torch.tensor(0.3).double()).sum(),
    ):
        (gradient,) = torch.autograd.grad(value, rotvec, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_haar_jacobian_by_finite_differences() -> None:
    rotvec = random_rotvecs(50)
    step = 1e-5
    columns = []
    for axis in range(3):
        d = torch.zeros(3, dtype=torch.float64)
        d[axis] = step
        relative = rot.rotvec_to_rotmat(rotvec - d).mT @ rot.rotvec_to_rotmat(rotvec + d)
        columns.append(rot.rotmat_to_rotvec(relative) / (2 * step))
    logdet = torch.linalg.slogdet(torch.stack(columns, -1)).logabsdet
    torch.testing.assert_close(rot.so3_log_jacobian_logdet(rotvec), logdet, atol=1e-5, rtol=0)


def test_haar_volume_is_eight_pi_squared() -> None:
    radius = torch.linspace(0, math.pi, 20001, dtype=torch.float64)[1:]
    rotvec = torch.stack((radius, 0 * radius, 0 * radius), -1)
    shell = 4 * math.pi * radius**2 * rot.so3_log_jacobian_logdet(rotvec).exp()
    assert torch.trapezoid(shell, radius).item() == pytest.approx(8 * math.pi**2, rel=1e-4)


def test_mirror_reflects_points() -> None:
    rotmat = rot.rotvec_to_rotmat(random_rotvecs(20))
    point = torch.randn(20, 3, 1, dtype=torch.float64)
    flip = torch.tensor([-1.0, 1, 1], dtype=torch.float64)[:, None]
    torch.testing.assert_close(rot.mirror_rotmat(rotmat) @ (flip * point), flip * (rotmat @ point))


@pytest.mark.parametrize(
    "angle", [0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1.0, 3.0, math.pi - 1e-5, math.pi - 1e-7, math.pi - 1e-10, math.pi]
)
def test_numpy_exponential_and_logarithm_agree_with_scipy(angle: float) -> None:
    rng = np.random.default_rng(0)
    axis = np.concatenate((rng.normal(size=(40, 3)), np.eye(3), -np.eye(3)))
    rotvec = angle * axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    oracle = Rotation.from_rotvec(rotvec)
    np.testing.assert_allclose(rot.exp_so3(rotvec), oracle.as_matrix(), atol=1e-14)
    found = rot.log_so3(oracle.as_matrix())
    if angle == math.pi:  # either axis is right
        np.testing.assert_allclose(Rotation.from_rotvec(found).as_matrix(), oracle.as_matrix(), atol=1e-14)
    else:
        np.testing.assert_allclose(found, rotvec, atol=2e-14)  # just short of a half turn as well
        np.testing.assert_allclose(found, oracle.as_rotvec(), atol=2e-14)


def test_numpy_and_torch_are_the_same_maps() -> None:
    rotvec = random_rotvecs(200, math.pi - 1e-3)
    rotmat = rot.rotvec_to_rotmat(rotvec)
    np.testing.assert_allclose(rot.exp_so3(rotvec.numpy()), rotmat.numpy(), atol=1e-14)
    np.testing.assert_allclose(rot.log_so3(rotmat.numpy()), rot.rotmat_to_rotvec(rotmat).numpy(), atol=1e-11)


def test_slerp_agrees_with_scipy_and_takes_the_short_way() -> None:
    a, b = rot.rotvec_to_rotmat(random_rotvecs(20)), rot.rotvec_to_rotmat(random_rotvecs(20))
    share = torch.rand(20, dtype=torch.float64)
    found = rot.slerp(a, b, share)
    for i in range(20):
        between = Slerp([0, 1], Rotation.from_matrix(np.stack((a[i], b[i]))))(share[i]).as_matrix()
        np.testing.assert_allclose(found[i].numpy(), between, atol=1e-12)
    torch.testing.assert_close(rot.geodesic_distance(a, found), share * rot.geodesic_distance(a, b), atol=1e-9, rtol=0)
    torch.testing.assert_close(rot.slerp(a, b, torch.zeros(20).double()), a, atol=0, rtol=0)
    torch.testing.assert_close(rot.slerp(a, b, torch.ones(20).double()), b, atol=1e-12, rtol=0)


def test_nearest_rotation_is_the_mean_of_a_symmetric_cloud() -> None:
    centre = rot.rotvec_to_rotmat(random_rotvecs(4))
    off = 0.3 * torch.randn(50, 4, 3, dtype=torch.float64)
    cloud = torch.cat((centre @ rot.rotvec_to_rotmat(off), centre @ rot.rotvec_to_rotmat(-off)))
    torch.testing.assert_close(rot.nearest_rotmat(cloud.mean(0)), centre, atol=1e-12, rtol=0)
    flipped = torch.diag(torch.tensor([1.0, 1.0, -0.5], dtype=torch.float64))  # never a reflection
    torch.testing.assert_close(rot.nearest_rotmat(flipped), torch.eye(3).double(), atol=1e-12, rtol=0)
