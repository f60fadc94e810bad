"""Shading, and people drawn over frames."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from kinflow.body.surface import vertex_normals
from kinflow.config import RenderConfig
from kinflow.errors import ShapeError, UsageError
from kinflow.render import PALETTE, overlay, person_colour, shade

K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])


def box(size: tuple[float, float, float], centre: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """A closed box: vertices (8, 3), faces (12, 3), counter-clockwise seen from outside."""
    signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=torch.float64)
    faces = [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]  # fmt: skip
    return signs * torch.tensor(size) / 2 + torch.tensor(centre), torch.tensor(faces)


def test_vertex_normals_point_outwards() -> None:
    vertices, faces = box((1, 1, 1), (0, 0, 0))
    normals = vertex_normals(vertices, faces)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(8, dtype=torch.float64))
    assert ((normals * vertices).sum(-1) > 0.7).all()
    both = vertex_normals(torch.stack((vertices, 2 * vertices)), faces)
    torch.testing.assert_close(both[1], normals)


def test_shade_against_hand_worked_values() -> None:
    colours = torch.full((3, 3), 100.0)
    normals = torch.tensor([[0.0, -2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])  # up, down, towards the camera
    lit = shade(normals, colours, light=(0.0, -1.0, 0.0), ambient=0.4, diffuse=0.6)
    torch.testing.assert_close(lit[:, 0], torch.tensor([100.0, 20.0, 30.0]))


def test_the_nearer_person_hides_the_other() -> None:
    image = np.full((48, 64, 3), 128, np.uint8)
    wide, faces = box((1.6, 0.3, 0.2), (0, 0, 3.0))
    tall, _ = box((0.3, 1.2, 0.2), (0, 0, 2.0))
    config = RenderConfig(opacity=1.0)
    red, blue = (255, 0, 0), (0, 0, 255)
    for meshes in ([(wide, red), (tall, blue)], [(tall.numpy(), blue), (wide.float(), red)]):
        drawn = overlay(image, meshes, faces, K, config)
        assert drawn[24, 32, 2] > 100 and drawn[24, 32, 0] == 0  # where they cross
        assert drawn[24, 20, 0] > 100 and drawn[24, 20, 2] == 0
    far = tall + torch.tensor([0, 0, 2.0])
    assert overlay(image, [(wide, red), (far, blue)], [faces, faces.numpy()], K, config)[24, 32, 0] > 100
    assert (image == 128).all()


def test_only_the_mesh_is_touched_and_the_frame_shines_through() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    mesh, faces = box((0.5, 0.5, 0.2), (0, 0, 2.0))
    solid, half = (overlay(image, [(mesh, PALETTE[0])], faces, K, RenderConfig(opacity=o)) for o in (1.0, 0.5))
    touched = (solid != image).any(-1)
    assert touched[24, 32] and not touched[:, :15].any() and not touched[:8].any()
    np.testing.assert_array_equal(half[~touched], image[~touched])
    mean = (image[touched].astype(float) + solid[touched]) / 2
    assert np.abs(half[touched] - mean).max() <= 1


def test_nothing_to_draw() -> None:
    image = np.full((48, 64, 3), 9, np.uint8)
    mesh, faces = box((0.5, 0.5, 0.2), (0, 0, -2.0))
    for drawn in (overlay(image, [], faces, K), overlay(image, [(mesh, PALETTE[0])], faces, K)):
        np.testing.assert_array_equal(drawn, image)
        assert drawn is not image


def test_bad_arguments() -> None:
    image = np.full((48, 64, 3), 9, np.uint8)
    mesh, faces = box((0.5, 0.5, 0.2), (0, 0, 2.0))
    with pytest.raises(ShapeError, match="image"):
        overlay(image[..., 0], [(mesh, PALETTE[0])], faces, K)
    with pytest.raises(ShapeError, match="uint8"):
        overlay(image / 255, [(mesh, PALETTE[0])], faces, K)
    with pytest.raises(ShapeError, match=r"meshes\[0\]"):
        overlay(image, [(mesh[None], PALETTE[0])], faces, K)
    with pytest.raises(UsageError, match="faces"):
        overlay(image, [(mesh, PALETTE[0])], [faces, faces], K)


def test_colours_differ_and_come_round() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert person_colour(0) == person_colour(len(PALETTE)) == PALETTE[0]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(RenderConfig)])
def test_no_field_of_the_config_is_without_effect(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value changes the picture, or cannot be had and says so."""
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer.mesh.rasterize_meshes", None)
    image = np.full((48, 64, 3), 128, np.uint8)
    mesh, faces = box((0.5, 0.5, 0.2), (0, 0, 2.0))
    other = dataclasses.replace(RenderConfig(), **{field: {"opacity": 0.3, "near": 2.5, "backend": "pytorch3d"}[field]})

    def drawn(config: RenderConfig) -> np.ndarray:
        return overlay(image, [(mesh, PALETTE[0])], faces, K, config)

    if field == "backend":
        with pytest.raises(UsageError, match="pytorch3d is not installed"):
            drawn(other)
    else:
        assert (drawn(other) != drawn(RenderConfig())).any()


def test_the_backend_reaches_the_overlay() -> None:
    pytest.importorskip("pytorch3d", reason="pytorch3d is not installed")
    image = np.full((48, 64, 3), 128, np.uint8)
    (wide, faces), (tall, _) = box((1.6, 0.3, 0.2), (0, 0, 3.0)), box((0.3, 1.2, 0.2), (0, 0, 2.0))
    meshes = [(wide, PALETTE[0]), (tall, PALETTE[1])]
    ours, theirs = (overlay(image, meshes, faces, K, RenderConfig(backend=b)) for b in ("torch", "pytorch3d"))
    assert (ours != image).any()
    assert (np.abs(ours.astype(int) - theirs).max(-1) <= 2).mean() > 0.98


@pytest.mark.parametrize("resolution", ["full", "light"])
def test_the_open_body_is_closed_and_winds_outwards(resolution: str) -> None:
    from kinflow.body import Body
    from kinflow.cameras import Focal, intrinsics
    from kinflow.render import rasterise

    body = Body.open(resolution)
    pose = torch.eye(3).repeat(24, 1, 1)
    pose[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # upright, facing the camera
    vertices = body.vertices(torch.zeros(10), pose, torch.tensor([0.0, 0.3, 3.0]))[None]
    camera = intrinsics((160, 160), Focal(200.0))
    every = rasterise(vertices, body.faces, camera, (160, 160))
    outer = rasterise(vertices, body.faces, camera, (160, 160), cull_backfaces=True)
    covered = every.face_index >= 0
    assert covered.sum() > 1500
    assert ((outer.face_index >= 0) == covered).float().mean() > 0.999
    assert (outer.face_index == every.face_index)[covered].float().mean() > 0.99
