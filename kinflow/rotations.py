"""Rotations: conversions between their forms, exponential map and logarithm, slerp, geodesic distance.

A rotation vector (rad) is the default form and has no suffix; every other form carries its suffix: ``_rotmat``
(..., 3, 3), ``_rot6d`` (..., 6) the first two **columns** concatenated (Zhou et al., CVPR 2019), ``_quat_wxyz`` (..., 4).
All functions are batched over leading dimensions, differentiable, and keep dtype and device; only :func:`exp_so3` and
:func:`log_so3` are numpy's.

``roma`` is imported where it is called: it loads ``torch._dynamo``, half of the time that ``import kinflow.prior`` took.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def rotvec_to_rotmat(rotvec: Tensor) -> Tensor:
    """(..., 3) rad -> (..., 3, 3). Exponential map by Rodrigues' formula; smooth at zero."""
    # Written out: roma's goes through sin/cos of a norm whose gradient at 0 needs a branch; the two series below are
    # functions of the squared angle alone, hence smooth at zero in every derivative.
    x, y, z = rotvec.unbind(-1)
    angle2 = (rotvec * rotvec).sum(-1)
    small = angle2 < 1e-8
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / safe)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    outer = rotvec[..., :, None] * rotvec[..., None, :]
    return eye + a[..., None, None] * skew + b[..., None, None] * (outer - angle2[..., None, None] * eye)


def wrap_rotvec(rotvec: Tensor) -> Tensor:
    """The same rotations (..., 3) with angles of at most pi."""
    angle = torch.linalg.vector_norm(rotvec, dim=-1, keepdim=True)
    turns = torch.round(angle / (2 * torch.pi))
    return torch.where(turns > 0, rotvec * (1 - 2 * torch.pi * turns / angle.clamp_min(1e-12)), rotvec)


def rotmat_to_rotvec(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) rad, with angle in [0, pi]. Finite gradients at 0 and pi."""
    return quat_wxyz_to_rotvec(rotmat_to_quat_wxyz(rotmat))


def rotmat_to_quat_wxyz(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4) unit quaternion, real part first and not negative.

    Read off the largest of the four components (Shepperd, "Quaternion from rotation matrix", 1978), without branches, so
    that it can be exported.
    """
    a, b, c = rotmat.unbind(-2)
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = a.unbind(-1), b.unbind(-1), c.unbind(-1)
    w, x, y, z = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
    wx, wy, wz, xy, xz, yz = m21 - m12, m02 - m20, m10 - m01, m10 + m01, m02 + m20, m21 + m12
    rows = torch.stack((w, wx, wy, wz, wx, x, xy, xz, wy, xy, y, yz, wz, xz, yz, z), -1).unflatten(-1, (4, 4))
    largest = torch.stack((w, x, y, z), -1).argmax(-1)[..., None, None].expand(*rotmat.shape[:-2], 1, 4)
    quat = torch.nn.functional.normalize(rows.gather(-2, largest).squeeze(-2), dim=-1)
    return torch.where(quat[..., :1] < 0, -quat, quat)


def quat_wxyz_to_rotmat(quat_wxyz: Tensor) -> Tensor:
    """(..., 4) unit quaternion, real part first -> (..., 3, 3)."""
    import roma

    return roma.unitquat_to_rotmat(torch.cat((quat_wxyz[..., 1:], quat_wxyz[..., :1]), -1))


def quat_wxyz_to_rotvec(quat_wxyz: Tensor) -> Tensor:
    """(..., 4) unit quaternion, real part first -> (..., 3) rad with angle in [0, pi]."""
    quat = torch.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)
    imag = quat[..., 1:]
    norm2 = (imag * imag).sum(-1, keepdim=True)
    small = norm2 < 1e-12
    norm = torch.where(small, torch.ones_like(norm2), norm2).sqrt()
    scale = torch.where(small, 2 + norm2 / 3, 2 * torch.atan2(norm, quat[..., :1]) / norm)
    return scale * imag


def rotmat_to_rot6d(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6): the first two columns, concatenated."""
    return torch.cat((rotmat[..., :, 0], rotmat[..., :, 1]), -1)


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt on the two columns (Zhou et al., CVPR 2019, eq. 15)."""
    a, b = rot6d[..., :3], rot6d[..., 3:]
    x = torch.nn.functional.normalize(a, dim=-1)
    y = torch.nn.functional.normalize(b - (x * b).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack((x, y, torch.linalg.cross(x, y)), -1)


def slerp(a_rotmat: Tensor, b_rotmat: Tensor, share: Tensor) -> Tensor:
    """The rotation a ``share`` (...) of the way, 0 to 1, along the shortest turn from ``a`` (..., 3, 3) to ``b`` (..., 3, 3)."""
    return a_rotmat @ rotvec_to_rotmat(share[..., None] * rotmat_to_rotvec(a_rotmat.mT @ b_rotmat))


def nearest_rotmat(matrix: Tensor) -> Tensor:
    """The rotation nearest to a matrix (..., 3, 3) in the Frobenius norm; of a mean of rotations: their chordal mean."""
    import roma

    return roma.special_procrustes(matrix)


def geodesic_distance(a_rotmat: Tensor, b_rotmat: Tensor) -> Tensor:
    """Angle in rad between two rotations (..., 3, 3) -> (...), in [0, pi], accurate and differentiable at small angles."""
    relative = a_rotmat.transpose(-1, -2) @ b_rotmat
    twice_sin = torch.stack(
        (
            relative[..., 2, 1] - relative[..., 1, 2],
            relative[..., 0, 2] - relative[..., 2, 0],
            relative[..., 1, 0] - relative[..., 0, 1],
        ),
        -1,
    )
    sin2 = (twice_sin * twice_sin).sum(-1)
    sin = torch.where(sin2 > 0, sin2, torch.ones_like(sin2)).sqrt() * (sin2 > 0)
    return torch.atan2(sin, relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


def so3_log_jacobian_logdet(rotvec: Tensor) -> Tensor:
    """log |d(Haar) / d(Lebesgue)| of the exponential map at rotation vectors (..., 3) -> (...), in nats.

    With Haar measure of total mass 8 pi^2 (the measure for which the exponential map is an isometry at zero):
    ``log(2 (1 - cos a) / a^2)``, a the angle. A density on rotation vectors is turned into one on rotations by
    subtracting this (Chirikjian, Stochastic Models, Information Theory, and Lie Groups, vol. 2, sec. 10.6).
    """
    angle2 = (rotvec * rotvec).sum(-1)
    small = angle2 < 1e-4
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    half = safe.sqrt() / 2
    # 2 (1 - cos a) / a^2 = (sin(a/2) / (a/2))^2
    exact = 2 * torch.log(torch.abs(torch.sin(half) / half).clamp_min(torch.finfo(rotvec.dtype).tiny))
    return torch.where(small, -angle2 / 12 - angle2 * angle2 / 1440, exact)


def mirror_rotmat(rotmat: Tensor) -> Tensor:
    """Reflect rotations (..., 3, 3) in the plane x = 0 (left and right of a body that faces z)."""
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=rotmat.dtype, device=rotmat.device)
    return flip[:, None] * rotmat * flip


# -- one rotation at a time -----------------------------------------------------------------------------------------------


def exp_so3(rotvec: Array) -> Array:
    """:func:`rotvec_to_rotmat` in numpy, (..., 3) -> (..., 3, 3): for loops over single frames, where it takes a sixth of
    the time (42 against 248 us a call)."""
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    small = angle < 1e-6
    safe = np.where(small, 1.0, angle)
    k = np.zeros((*rotvec.shape[:-1], 3, 3))
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -rotvec[..., 2], rotvec[..., 1], -rotvec[..., 0]
    k[..., 1, 0], k[..., 2, 0], k[..., 2, 1] = rotvec[..., 2], -rotvec[..., 1], rotvec[..., 0]
    return (
        np.eye(3)
        + np.where(small, 1.0, np.sin(safe) / safe) * k
        + np.where(small, 0.5, (1 - np.cos(safe)) / safe**2) * (k @ k)
    )


def log_so3(rotmat: Array) -> Array:
    """:func:`rotmat_to_rotvec` in numpy, (..., 3, 3) -> (..., 3) with angle in [0, pi]."""
    twice = np.stack(
        (
            rotmat[..., 2, 1] - rotmat[..., 1, 2],
            rotmat[..., 0, 2] - rotmat[..., 2, 0],
            rotmat[..., 1, 0] - rotmat[..., 0, 1],
        ),
        -1,
    )
    sin, cos = np.linalg.norm(twice, axis=-1), np.trace(rotmat, axis1=-2, axis2=-1) - 1  # twice each
    angle = np.arctan2(sin, cos)
    # Near a half turn the antisymmetric part vanishes; the axis is then a column of the symmetric part less cos I.
    square = rotmat + np.swapaxes(rotmat, -1, -2) - cos[..., None, None] * np.eye(3)
    column = np.argmax(np.diagonal(square, axis1=-2, axis2=-1), -1)
    axis = np.take_along_axis(square, column[..., None, None], -1)[..., 0]
    axis = axis / np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-12)
    axis = np.where((axis * twice).sum(-1, keepdims=True) < 0, -axis, axis)
    factor = np.where(sin < 1e-9, 0.5, angle / np.where(sin < 1e-9, 1.0, sin))
    return np.where((angle > 3.0)[..., None], axis * angle[..., None], twice * factor[..., None])
