"""The rasteriser against a slow twin, closed forms, and its own promises."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor

from kinflow.cameras import Focal, intrinsics, project
from kinflow.errors import ShapeError, UsageError
from kinflow.render import part_mask, rasterise, rasteriser, silhouette, visible_points

K = torch.tensor([[40.0, 0.5, 16.3], [0.0, 42.0, 11.8], [0.0, 0.0, 1.0]], dtype=torch.float64)
SIZE = (33, 23)


def sphere(rings: int = 12, segments: int = 16, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """Vertices (V, 3) and faces (F, 3), counter-clockwise seen from outside."""
    vertices = [[0.0, radius, 0.0], [0.0, -radius, 0.0]]
    for i in range(1, rings):
        for j in range(segments):
            polar, around = math.pi * i / rings, 2 * math.pi * j / segments
            flat = radius * math.sin(polar)
            vertices.append([flat * math.sin(around), radius * math.cos(polar), flat * math.cos(around)])

    def at(i: int, j: int) -> int:
        return 0 if i == 0 else 1 if i == rings else 2 + (i - 1) * segments + j % segments

    faces = []
    for i in range(rings):
        for j in range(segments):
            a, b, c, d = at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)
            faces += [[a, b, c]] * (i < rings - 1) + [[a, c, d]] * (i > 0)
    return torch.tensor(vertices, dtype=torch.float64), torch.tensor(faces)


def twin(
    vertices: Tensor, faces: Tensor, camera: Tensor, size: tuple[int, int], near: float = 0.05
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One mesh, pixel by pixel and face by face: the ray's three volumes have one sign inside the face."""
    width, height = size
    drawn = [(f, t, np.cross(t, np.roll(t, -1, 0))) for f, t in enumerate(vertices.numpy()[faces.numpy()])]
    index = np.full((height, width), -1)
    weights = np.zeros((height, width, 3))
    depth = np.full((height, width), np.inf)
    inverse = np.linalg.inv(camera.numpy())
    for row in range(height):
        for column in range(width):
            ray = inverse @ (column + 0.5, row + 0.5, 1.0)
            for f, corners, (ab, bc, ca) in drawn:
                volumes = np.array([ray @ bc, ray @ ca, ray @ ab])
                if corners[:, 2].min() < near or not ((volumes > 0).all() or (volumes < 0).all()):
                    continue
                w = volumes / volumes.sum()
                z = w @ corners[:, 2]
                if z < depth[row, column]:
                    index[row, column], weights[row, column], depth[row, column] = f, w, z
    return index, weights, depth


def soup(batch: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Triangles of many sizes, some behind the camera, some outside the picture."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(batch, count, 1, 3, generator=generator, dtype=torch.float64) * 2 - 1
    centre[..., 2] = centre[..., 2] * 2 + 1.8
    spread = torch.rand(count, 1, 1, generator=generator, dtype=torch.float64) ** 3
    corners = centre + spread * torch.randn(batch, count, 3, 3, generator=generator, dtype=torch.float64)
    return corners.reshape(batch, count * 3, 3), torch.arange(count * 3).reshape(count, 3)


@pytest.mark.parametrize("seed", range(3))
def test_against_the_twin(seed: int) -> None:
    vertices, faces = soup(2, 25, seed)
    cameras = torch.stack((K, K + torch.tensor([[3.0, 0, 2], [0, -2, 1], [0, 0, 0]], dtype=torch.float64)))
    seen = rasterise(vertices, faces, cameras, SIZE)
    assert seen.face_index.shape == (2, 23, 33) and seen.barycentric.shape == (2, 23, 33, 3)
    for b in range(2):
        index, weights, depth = twin(vertices[b], faces, cameras[b], SIZE)
        assert (index >= 0).any()
        np.testing.assert_array_equal(seen.face_index[b].numpy(), index)
        np.testing.assert_allclose(seen.barycentric[b].numpy(), weights, atol=1e-9)
        np.testing.assert_allclose(seen.depth[b].numpy(), depth, rtol=1e-9)


def test_single_precision_is_near_double() -> None:
    vertices, faces = soup(1, 60, 5)
    double, single = (rasterise(vertices.to(t), faces, K, SIZE) for t in (torch.float64, torch.float32))
    same = double.face_index == single.face_index
    assert same.float().mean() > 0.99 and single.depth.dtype == torch.float32
    both = same & (double.face_index >= 0)
    torch.testing.assert_close(single.depth[both].double(), double.depth[both], rtol=1e-4, atol=1e-4)


def test_points_found_project_to_their_pixels() -> None:
    vertices, faces = sphere()
    vertices = vertices + torch.tensor([0.1, -0.05, 4.0])
    seen = visible_points(vertices[None], faces, K, SIZE)
    points = (vertices[faces[seen.face]] * seen.barycentric[..., None]).sum(1)
    pixels = torch.stack((seen.column, seen.row), -1) + 0.5
    inside = (seen.barycentric > 0).all(-1)
    assert inside.float().mean() > 0.98
    torch.testing.assert_close(project(points, K)[inside], pixels[inside].double(), atol=1e-8, rtol=0)
    torch.testing.assert_close(points[:, 2], seen.depth)


def test_depth_of_a_tilted_plane() -> None:
    normal, distance = torch.tensor([0.2, -0.15, 0.9], dtype=torch.float64), 2.5  # normal . p = distance
    rays = torch.tensor([[-1.0, -1, 1], [3, -1, 1], [-1, 3, 1]], dtype=torch.float64)
    vertices = rays * (distance / (rays @ normal))[:, None]
    assert (vertices[:, 2] > 0).all()
    seen = rasterise(vertices[None], torch.tensor([[0, 1, 2]]), K, SIZE)
    column, row = torch.meshgrid(torch.arange(33) + 0.5, torch.arange(23) + 0.5, indexing="xy")
    pixel = torch.stack((column, row, torch.ones_like(row)), -1).double()
    expected = distance / (pixel @ torch.linalg.inv(K).T @ normal)
    covered = seen.face_index[0] >= 0
    assert covered.float().mean() > 0.5
    torch.testing.assert_close(seen.depth[0][covered], expected[covered])


def test_depth_of_a_sphere() -> None:
    vertices, faces = sphere(120, 160, 0.8)
    camera = intrinsics((96, 96), Focal(90.0), dtype=torch.float64)
    seen = rasterise((vertices + torch.tensor([0.0, 0, 3.0]))[None], faces, camera, (96, 96), cull_backfaces=True)
    grid = (torch.arange(96, dtype=torch.float64) + 0.5 - 48) / 90
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    # |t (x, y, 1) - (0, 0, 3)| = 0.8
    a, b, c = x**2 + y**2 + 1, torch.full_like(x, -6.0), 9 - 0.64
    root = b**2 - 4 * a * c
    hit = root > 0
    wide = root > 0.3
    depth = (-b - root.clamp_min(0).sqrt()) / (2 * a)
    covered = seen.face_index[0] >= 0
    assert (covered & ~hit).sum() == 0 and (hit & ~covered).sum() < 0.02 * hit.sum()
    torch.testing.assert_close(seen.depth[0][wide], depth[wide], atol=1e-3, rtol=0)
    # seen from outside, without the culling nothing changes; the other way round only the far half is left
    assert torch.equal(
        seen.face_index, rasterise((vertices + torch.tensor([0.0, 0, 3.0]))[None], faces, camera, (96, 96)).face_index
    )
    inner = rasterise(
        (vertices + torch.tensor([0.0, 0, 3.0]))[None], faces.flip(1), camera, (96, 96), cull_backfaces=True
    )
    assert (inner.depth[0][wide] > 3.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faces_share_edges_without_gap_or_overlap(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    n = 9
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, n), torch.linspace(-1, 1, n), indexing="xy"), -1)
    grid = grid + 0.08 * torch.randn(n, n, 2, generator=generator).clamp(-1.2, 1.2) * (
        grid.abs().amax(-1, keepdim=True) < 1
    )
    vertices = torch.cat((grid.reshape(-1, 2), torch.ones(n * n, 1)), -1).to(dtype)
    i = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).flatten()
    faces = torch.cat((torch.stack((i, i + 1, i + n), -1), torch.stack((i + 1, i + n + 1, i + n), -1)))
    camera = torch.tensor([[32.0, 0, 32], [0, 32, 32], [0, 0, 1]])
    count = torch.zeros(64, 64, dtype=torch.int64)
    for face in faces:
        count += silhouette(vertices[None], face[None], camera, (64, 64))[0]
    assert (count == 1).all()


def test_nothing_behind_the_camera() -> None:
    vertices, faces = sphere()
    assert (rasterise((vertices - torch.tensor([0, 0, 4.0]))[None], faces, K, SIZE).face_index == -1).all()
    around = rasterise(vertices[None], faces, K, SIZE)  # the camera stands inside
    assert (around.face_index >= 0).all() and (around.depth > 0.05).all() and around.barycentric.isfinite().all()
    vertices[5] = torch.nan
    broken = rasterise((vertices + torch.tensor([0, 0, 4.0]))[None], faces, K, SIZE)
    assert (broken.face_index >= 0).any() and not (faces[broken.face_index[broken.face_index >= 0]] == 5).any()


def test_empty_pixels() -> None:
    vertices = torch.tensor([[[-0.1, -0.1, 1.0], [0.1, -0.1, 1.0], [0.0, 0.1, 1.0]]])
    seen = rasterise(vertices, torch.tensor([[0, 1, 2]]), K, SIZE)
    empty = seen.face_index < 0
    assert empty.any() and not empty.all()
    assert torch.isinf(seen.depth[empty]).all() and (seen.barycentric[empty] == 0).all()
    torch.testing.assert_close(seen.barycentric.sum(-1), (~empty).float())


def test_small_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = soup(3, 40, 9)
    whole = rasterise(vertices, faces, K, SIZE)
    monkeypatch.setattr(rasteriser, "_CHUNK", 7)
    for ours, theirs in zip(rasterise(vertices, faces, K, SIZE), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_batch_mates_do_not_matter() -> None:
    vertices, faces = soup(3, 40, 11)
    together = rasterise(vertices, faces, K, SIZE)
    for b in range(3):
        for ours, theirs in zip(rasterise(vertices[b : b + 1], faces, K, SIZE), together, strict=True):
            assert torch.equal(ours[0], theirs[b])


def test_gradients_reach_the_vertices() -> None:
    vertices = torch.tensor([[[-0.6, -0.5, 2.0], [0.7, -0.4, 2.5], [0.1, 0.6, 1.5]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])

    def values(v: Tensor) -> tuple[Tensor, Tensor]:
        seen = visible_points(v, faces, K, SIZE)
        return seen.barycentric[::9], seen.depth[::9]

    assert torch.autograd.gradcheck(values, (vertices.requires_grad_(),), eps=1e-7, atol=1e-4)


def test_part_mask() -> None:
    vertices, faces = sphere()
    labels = (vertices[:, 0] > 0).long() + 3
    seen = rasterise((vertices + torch.tensor([0.0, 0, 5.0]))[None], faces, K, SIZE)
    parts = part_mask(seen, faces, labels)
    assert set(parts.unique().tolist()) == {-1, 3, 4}
    assert ((parts >= 0) == (seen.face_index >= 0)).all()
    assert (parts[0, :, :14] != 4).all() and (parts[0, :, 20:] != 3).all()


def test_bad_arguments() -> None:
    vertices, faces = sphere()
    with pytest.raises(ShapeError, match="vertices"):
        rasterise(vertices, faces, K, SIZE)
    with pytest.raises(ShapeError, match="faces"):
        rasterise(vertices[None], faces[:, :2], K, SIZE)
    with pytest.raises(ShapeError, match="K"):
        rasterise(vertices[None], faces, K.expand(2, 3, 3), SIZE)
    with pytest.raises(UsageError, match="image_size"):
        rasterise(vertices[None], faces, K, (0, 5))
    with pytest.raises(UsageError, match="floating"):
        rasterise(vertices[None].long(), faces, K, SIZE)
    with pytest.raises(UsageError, match="backend"):
        rasterise(vertices[None], faces, K, SIZE, backend="abacus")


def test_auto_is_pytorch3d_on_cuda_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for there, expected in ((True, "pytorch3d"), (False, "torch")):
        monkeypatch.setattr(rasteriser, "installed", lambda there=there: there)
        assert rasteriser.chosen_backend("auto", cuda) == expected
        assert rasteriser.chosen_backend("auto", cpu) == "torch"
        assert all(rasteriser.chosen_backend(b, cuda) == b for b in ("torch", "pytorch3d"))


def test_fragments_and_points_say_the_same() -> None:
    vertices, faces = soup(2, 25, 3)
    whole = rasterise(vertices, faces, K, SIZE)
    points = visible_points(vertices, faces, K, SIZE)
    for ours, theirs in zip(points.fragments(2, SIZE), whole, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(points.fragments(2, SIZE).points().fragments(2, SIZE), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_pytorch3d_without_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def rasterize_meshes(*_: object, **__: object) -> None:
        raise RuntimeError("Not compiled with GPU support.")

    fake = types.SimpleNamespace(rasterize_meshes=rasterize_meshes, Meshes=lambda *_: None)
    for name in ("pytorch3d", "pytorch3d.structures", "pytorch3d.renderer", "pytorch3d.renderer.mesh"):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer.mesh.rasterize_meshes", fake)
    vertices, faces = sphere()
    with pytest.raises(UsageError, match="built without CUDA"):
        rasterise(vertices[None], faces, K, SIZE, backend="pytorch3d")


def test_without_pytorch3d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer.mesh.rasterize_meshes", None)
    vertices, faces = sphere()
    with pytest.raises(UsageError, match="pytorch3d is not installed"):
        rasterise(vertices[None], faces, K, SIZE, backend="pytorch3d")


@pytest.mark.parametrize("size", [(40, 28), (28, 40), (32, 32)])
@pytest.mark.parametrize("cull", [False, True])
def test_pytorch3d_agrees(size: tuple[int, int], cull: bool) -> None:
    pytest.importorskip("pytorch3d", reason="pytorch3d is not installed")
    vertices, faces = sphere()
    both = torch.stack((vertices + torch.tensor([0.2, 0.1, 4]), 0.7 * vertices + torch.tensor([-0.3, 0, 3]))).float()
    cameras = torch.stack((K, K + torch.diag(torch.tensor([5.0, 4, 0])))).float()
    ours = rasterise(both, faces, cameras, size, cull_backfaces=cull)
    theirs = rasterise(both, faces, cameras, size, cull_backfaces=cull, backend="pytorch3d")
    same = ours.face_index == theirs.face_index
    assert same.float().mean() > 0.98
    hit = same & (ours.face_index >= 0)
    assert hit.any()
    torch.testing.assert_close(ours.depth[hit], theirs.depth[hit], atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.barycentric[hit], theirs.barycentric[hit], atol=1e-2, rtol=0)
    around = rasterise(vertices[None].float(), faces, cameras[0], size, cull_backfaces=cull)  # the camera stands inside
    other = rasterise(vertices[None].float(), faces, cameras[0], size, cull_backfaces=cull, backend="pytorch3d")
    assert (around.face_index == other.face_index).float().mean() > 0.98


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees() -> None:
    vertices, faces = soup(2, 40, 4)
    here = rasterise(vertices, faces, K, SIZE)
    there = rasterise(vertices.cuda(), faces.cuda(), K.cuda(), SIZE)
    assert torch.equal(here.face_index, there.face_index.cpu())
    torch.testing.assert_close(here.depth, there.depth.cpu())
