"""Projection, rays and intrinsics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kinflow.cameras import intrinsics, project, rays, read_intrinsics
from kinflow.errors import UsageError


def test_hand_worked_projection() -> None:
    K = torch.tensor([[100.0, 0, 50], [0, 200, 40], [0, 0, 1]])
    points = torch.tensor([[0.0, 0, 2], [1, 0, 2], [0, 1, 4]])
    assert project(points, K).tolist() == [[50, 40], [100, 40], [50, 90]]


def test_rays_invert_projection_with_skew() -> None:
    K = torch.tensor([[900.0, 3, 320], [0, 880, 230], [0, 0, 1]], dtype=torch.float64)
    points = torch.randn(4, 7, 3, dtype=torch.float64) + torch.tensor([0.0, 0, 6])
    torch.testing.assert_close(rays(project(points, K), K), points[..., :2] / points[..., 2:])
    homogeneous = points @ K.T
    torch.testing.assert_close(project(points, K), homogeneous[..., :2] / homogeneous[..., 2:])


def test_behind_the_camera_is_finite() -> None:
    points = torch.tensor([[1.0, 1, -1], [0, 0, 0]], requires_grad=True)
    pixels = project(points, intrinsics((640, 480)))
    pixels.sum().backward()
    assert torch.isfinite(pixels).all() and torch.isfinite(points.grad).all()  # type: ignore[arg-type]


def test_intrinsics() -> None:
    assert intrinsics((400, 300))[0, 0] == 500  # the diagonal
    wide = intrinsics((400, 300), fov=90)
    assert wide[0, 0].item() == pytest.approx(200) and wide[0, 2] == 200 and wide[1, 2] == 150
    assert intrinsics((400, 300), focal=321)[1, 1] == 321
    for bad in ({"focal": 0}, {"focal": math.nan}, {"fov": 200}, {"fov": 60, "focal": 500}):
        with pytest.raises(UsageError):
            intrinsics((400, 300), **bad)
    with pytest.raises(UsageError):
        intrinsics((0, 300))


def test_reads_every_form_of_camera_matrix(tmp_path: Path) -> None:
    K = np.array([[900.5, 0, 366.9], [0, 902.6, 363.7], [0, 0, 1]])
    np.save(tmp_path / "K.npy", K)
    np.savez(tmp_path / "K.npz", K=K)
    (tmp_path / "a.json").write_text(json.dumps({"K": K.tolist()}))
    (tmp_path / "b.json").write_text(json.dumps({"fx": 900.5, "fy": 902.6, "cx": 366.9, "cy": 363.7}))
    (tmp_path / "c.json").write_text(json.dumps(K.tolist()))
    rows = "\n".join(" ".join(map(str, r)) for r in K)
    (tmp_path / "c0.dat").write_text(f"intrinsic:\n{rows}\ndistortion:\n-0.04 1.37 -0.002 0.001 -5.6\n")
    for source in ("K.npy", "K.npz", "a.json", "b.json", "c.json", "c0.dat"):
        np.testing.assert_allclose(read_intrinsics(str(tmp_path / source)), K, rtol=1e-6)
    np.testing.assert_allclose(read_intrinsics("900.5,902.6,366.9,363.7"), K, rtol=1e-6)


@pytest.mark.parametrize("source", ["nowhere.txt", "1,2,3", "0,0,1,1", "nan,1,1,1"])
def test_bad_camera_matrix(source: str) -> None:
    with pytest.raises(UsageError, match="intrinsics"):
        read_intrinsics(source)
