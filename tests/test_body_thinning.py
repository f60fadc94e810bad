"""The mesh thinning that makes the light body."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def thinning() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "mesh_thinning.py"
    spec = importlib.util.spec_from_file_location("mesh_thinning", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ellipsoid(rows: int = 16, columns: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh, faces counter-clockwise seen from outside."""
    polar = np.linspace(0, np.pi, rows + 1)[1:-1]
    azimuth = np.arange(columns) * 2 * np.pi / columns
    p, a = np.meshgrid(polar, azimuth, indexing="ij")
    ring = np.stack((np.sin(p) * np.cos(a), 0.5 * np.sin(p) * np.sin(a), 2 * np.cos(p)), -1).reshape(-1, 3)
    points = np.concatenate((ring, [[0, 0, 2.0], [0, 0, -2.0]]))
    north, south = len(points) - 2, len(points) - 1
    faces = []
    for c in range(columns):
        d = (c + 1) % columns
        faces.append((north, c, d))
        last = (rows - 2) * columns
        faces.append((south, last + d, last + c))
        for r in range(rows - 2):
            i, j, k, m = (x * columns + y for x, y in ((r, c), (r + 1, c), (r + 1, d), (r, d)))
            faces += [(i, j, k), (i, k, m)]
    return points, np.array(faces)


def volume(points: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = points[faces].swapaxes(0, 1)
    return float((a * np.cross(b, c)).sum() / 6)


def test_thinned_mesh_is_closed_and_keeps_its_volume(thinning: ModuleType) -> None:
    points, faces = ellipsoid()
    kept, thin = thinning.thin_out(points, faces, (points[:, 2] > 0).astype(int), 120)
    assert len(kept) == 120 and len(set(kept.tolist())) == 120
    assert len(thin) == 2 * 120 - 4, "Euler: still one closed surface"
    edges = {(f[i], f[(i + 1) % 3]) for f in thin.tolist() for i in range(3)}
    assert len(edges) == 3 * len(thin) and all((b, a) in edges for a, b in edges)
    assert volume(points[kept], thin) == pytest.approx(volume(points, faces), rel=0.05)


def test_nothing_to_thin(thinning: ModuleType) -> None:
    points, faces = ellipsoid(4, 6)
    kept, thin = thinning.thin_out(points, faces, np.zeros(len(points), int), len(points))
    assert kept.tolist() == list(range(len(points)))
    assert volume(points[kept], thin) == pytest.approx(volume(points, faces))


def test_flat_ground_goes_first(thinning: ModuleType) -> None:
    """A cube with subdivided sides keeps its corners' volume when the sides are thinned."""
    n = 6
    grid = np.arange(n + 1)
    index: dict[tuple[int, int, int], int] = {}
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (0, n):
            for i in range(n):
                for j in range(n):
                    quad = []
                    for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1)):
                        corner = [0, 0, 0]
                        corner[axis], corner[u], corner[v] = side, int(grid[i + di]), int(grid[j + dj])
                        quad.append(index.setdefault((corner[0], corner[1], corner[2]), len(index)))
                    if side == 0:
                        quad.reverse()
                    faces += [quad[:3], [quad[0], quad[2], quad[3]]]
    points = np.array(list(index), float) / n
    mesh = np.array(faces)
    assert volume(points, mesh) == pytest.approx(1)
    kept, thin = thinning.thin_out(points, mesh, np.zeros(len(points), int), 60)
    assert volume(points[kept], thin) == pytest.approx(1, abs=0.02)
