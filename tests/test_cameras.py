"""Projection, rays and intrinsics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kinflow.cameras import Camera, FieldOfView, Focal, camera_matrix, intrinsics, project, rays, read_intrinsics
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
    wide = intrinsics((400, 300), FieldOfView(90))
    assert wide[0, 0].item() == pytest.approx(200) and wide[0, 2] == 200 and wide[1, 2] == 150
    assert intrinsics((400, 300), Focal(321))[1, 1] == 321
    for lens, bad in ((Focal, 0), (Focal, -5), (Focal, math.nan), (FieldOfView, 200), (FieldOfView, math.nan)):
        with pytest.raises(UsageError, match=r"focal|fov"):
            lens(bad)
    with pytest.raises(UsageError):
        intrinsics((0, 300))


def test_camera_matrix_takes_every_form_of_camera(tmp_path: Path) -> None:
    size, K = (400, 300), torch.tensor([[500.0, 0, 190], [0, 510, 155], [0, 0, 1]])
    np.save(tmp_path / "K.npy", K.numpy())
    for camera in (K, K.double().numpy(), "500,510,190,155", tmp_path / "K.npy", str(tmp_path / "K.npy")):
        torch.testing.assert_close(camera_matrix(camera, size), K, rtol=0, atol=0)
    assert torch.equal(camera_matrix(None, size), intrinsics(size))
    assert torch.equal(camera_matrix(Focal(7), size), intrinsics(size, Focal(7)))
    for bad in (torch.eye(4), torch.zeros(3, 3), np.full((3, 3), np.nan)):
        with pytest.raises(UsageError, match="not a camera matrix"):
            camera_matrix(bad, size)


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (Focal(1e-9), "focal: .*180 degrees"),
        (Focal(1e9), "focal: .*px of|focal: .*degrees"),
        (torch.eye(3), "got the identity"),
        ("1,1,0,0", "got the identity"),
        ("1e-6,1e-6,200,150", "intrinsics 1e-6.*degrees"),
        ("500,1e7,200,150", "degrees"),
        ("500,500,1e9,150", "principal point"),
        (torch.tensor([[5e2, 0, -1e6], [0, 5e2, 0], [0, 0, 1]]), "K: .*principal point"),
        (np.array([["a"] * 3] * 3), "camera: K"),
        (np.zeros((500, 500)), r"an array \(500, 500\)"),
    ],
)
def test_cameras_that_no_clip_has_are_refused_by_name(camera: Camera, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        camera_matrix(camera, (400, 300))


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
