"""Dressed people: garments that move with the body, pictures on their faces, photographs with a true horizon."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kinflow.body import Body
from kinflow.cameras import intrinsics, project
from kinflow.datasets.synthetic import Look, join, render_frames
from kinflow.datasets.wardrobe import Garment, Panorama, Wardrobe
from kinflow.errors import FormatError, ShapeError, UsageError
from kinflow.render import visible_points
from kinflow.render.texture import Texture, join_textures
from kinflow.rotations import rotvec_to_rotmat
from kinflow.training.streams.render_and_perceive import Scene, film_scene, graded, stand_before

SIZE = (96, 72)
RED, GREEN, BLUE = (
    np.full((8, 8, 3), 0, np.uint8) + np.array(c, np.uint8) for c in ((250, 0, 0), (0, 250, 0), (0, 0, 250))
)


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.open("full")


@pytest.fixture(scope="module")
def wardrobe(body: Body) -> Wardrobe:
    """A sleeve 2 cm off the left forearm, in two pieces; a red skin; a panorama of blue sky over green ground."""
    template = body.v_template.numpy()
    forearm = np.flatnonzero((body.weights[:, 18] > 0.99).numpy())
    row_of = np.full(len(template), -1)
    row_of[forearm] = np.arange(len(forearm))
    faces = row_of[body.faces.numpy()]
    faces = faces[(faces >= 0).all(1)].astype(np.int32)
    sleeve = Garment(
        "sleeve", "suit", template[forearm] + np.array([0, 0.02, 0], np.float32), forearm[:, None].astype(np.int32),
        np.ones((len(forearm), 1), np.float32), faces, np.full((len(faces), 3, 2), 0.5, np.float32), GREEN,
        forearm.astype(np.int32),
    )  # fmt: skip
    sky = np.concatenate((np.tile(BLUE, (4, 16, 1)), np.tile(GREEN, (4, 16, 1))))
    uv = np.full((len(body.faces), 3, 2), 0.5, np.float32)
    return Wardrobe(uv, (RED,), (sleeve,), (Panorama("meadow", sky),))


def test_what_is_worn_moves_with_the_body(body: Body, wardrobe: Wardrobe) -> None:
    dressed, texture = wardrobe.dress(body, np.random.default_rng(0))
    assert len(texture.face_uv) == len(dressed.faces) and int(dressed.faces.max()) == dressed.num_vertices - 1
    sleeve = torch.from_numpy(np.flatnonzero(texture.face_picture > 0))
    own = dressed.faces[sleeve].unique()
    garment = wardrobe.garments[0]
    assert len(own) == len(np.unique(garment.faces))
    betas = torch.randn(10, generator=torch.Generator().manual_seed(1))
    pose = rotvec_to_rotmat(torch.randn(24, 3, generator=torch.Generator().manual_seed(2)) * 0.5)
    torch.testing.assert_close(dressed.joints(betas, pose), body.joints(betas, pose))
    skin = body.vertices(betas, pose)[torch.from_numpy(garment.neighbours[np.unique(garment.faces), 0]).long()]
    away = dressed.vertices(betas, pose)[own] - skin
    torch.testing.assert_close(away.norm(dim=-1), torch.full((len(own),), 0.02), atol=2e-4, rtol=0)  # carried rigidly
    turned = dressed.transforms(betas, pose)[0][18] @ torch.tensor([0, 0.02, 0])
    torch.testing.assert_close(away, turned.expand_as(away), atol=2e-3, rtol=0)


def test_what_is_covered_is_left_out(body: Body, wardrobe: Wardrobe) -> None:
    texture = wardrobe.dress(body, np.random.default_rng(0))[1]
    hidden = np.zeros(body.num_vertices, bool)
    hidden[wardrobe.garments[0].hidden] = True
    covered = int(hidden[body.faces.numpy()].all(1).sum())
    assert covered > 50 and (texture.face_picture == 0).sum() == len(body.faces) - covered
    with pytest.raises(ShapeError, match="full open body"):
        wardrobe.dress(Body.open("light"), np.random.default_rng(0))


def test_shirt_and_trousers_are_dyed_apart(body: Body, wardrobe: Wardrobe) -> None:
    low = dataclasses.replace(wardrobe.garments[0], template=wardrobe.garments[0].template - np.float32([0, 1.5, 0]))
    both = wardrobe.garments[0]
    suit = dataclasses.replace(
        both, template=np.concatenate((both.template, low.template)), faces=np.concatenate((both.faces, low.faces + len(both.template))),
        neighbours=np.tile(both.neighbours, (2, 1)), weights=np.tile(both.weights, (2, 1)), face_uv=np.tile(both.face_uv, (2, 1, 1)),
    )  # fmt: skip
    texture = dataclasses.replace(wardrobe, garments=(suit,)).dress(body, np.random.default_rng(4))[1]
    assert len(texture.pictures) == 3
    count = len(both.faces)
    assert (texture.face_picture[-2 * count : -count] == 1).all() and (texture.face_picture[-count:] == 2).all()


def test_pictures_lie_where_their_coordinates_say() -> None:
    """A square seen head-on: its picture upright, unmirrored, its texels where they belong."""
    corners = torch.tensor([[[-1.0, 1, 4], [1, 1, 4], [1, -1, 4], [-1, -1, 4]]])  # y down: bottom row first
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)[faces.numpy()]
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    K = torch.tensor([[128.0, 0, 32], [0, 128, 32], [0, 0, 1]])
    texture = Texture(uv, np.zeros(2, np.int64), (picture,))
    seen = visible_points(corners, faces, K, (64, 64))
    image = torch.zeros(64, 64, 3)
    image[seen.row, seen.column] = texture.colours(seen)
    np.testing.assert_allclose(image.numpy(), picture, atol=0.51)
    far = visible_points(corners * torch.tensor([1.0, 1, 16]), faces, K, (64, 64))  # 4 px wide: each a mean of texels
    assert len(far.face) == 16
    small = picture.reshape(4, 16, 4, 16, 3).mean((1, 3)).reshape(16, 3)
    order = torch.argsort(far.row * 64 + far.column)
    np.testing.assert_allclose(texture.colours(far)[order].numpy(), small, atol=40)
    assert np.abs(texture.colours(far)[order].numpy() - small).mean() < 15


def test_joined_textures_keep_their_pictures() -> None:
    uv = np.zeros((2, 3, 2), np.float32)
    first, second = Texture(uv, np.array([0, 1]), (RED, GREEN)), Texture(uv, np.array([0, 0]), (BLUE,))
    both = join_textures([first, second])
    assert both.face_picture.tolist() == [0, 1, 2, 2]
    assert [p[0, 0].argmax() for p in both.pictures] == [0, 1, 2]


def test_the_horizon_of_a_photograph_is_the_camera_s(wardrobe: Wardrobe) -> None:
    K = intrinsics(SIZE)
    level = torch.diag(torch.tensor([1.0, -1, -1]))  # looks along -z, the world's y is up
    rng = np.random.default_rng(0)
    seen = wardrobe.photograph(level, K, SIZE, rng)
    assert seen is not None and (seen[:30, :, 2] > 200).all() and (seen[42:, :, 1] > 200).all()
    down = rotvec_to_rotmat(torch.tensor([0.2, 0, 0])) @ level
    assert float((down @ torch.tensor([0.0, 0, -1]))[1]) < 0  # what is level lies in the upper half of its image
    horizon = SIZE[1] / 2 - float(K[1, 1]) * np.tan(0.2)
    blue = wardrobe.photograph(down, K, SIZE, rng)[:, 48, 2] > 125  # type: ignore[index]
    assert abs(blue.sum() - horizon) <= 2
    rolled = rotvec_to_rotmat(torch.tensor([0, 0, np.pi / 2])) @ level
    column = wardrobe.photograph(rolled, K, SIZE, rng)[36, :, 2] > 125  # type: ignore[index]
    up = rolled @ torch.tensor([0.0, 1, 0])
    assert column[:40].all() == (up[0] < 0) and column[56:].all() == (up[0] > 0)
    assert dataclasses.replace(wardrobe, panoramas=()).photograph(level, K, SIZE, rng) is None


def test_a_wardrobe_comes_back_from_its_file(tmp_path: Path, wardrobe: Wardrobe) -> None:
    wardrobe.save(tmp_path / "a.npz")
    again = Wardrobe.open(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.garments[0].faces, wardrobe.garments[0].faces)
    np.testing.assert_array_equal(again.skins[0], wardrobe.skins[0])
    assert again.garments[0].kind == "suit" and again.panoramas[0].name == "meadow"
    np.savez(tmp_path / "b.npz", contents=np.array("{}"))
    with pytest.raises(FormatError, match="build_wardrobe"):
        Wardrobe.open(tmp_path / "b.npz")


def test_filmed_in_a_wardrobe(body: Body, wardrobe: Wardrobe) -> None:
    """The person is where the parameters say, in what is worn; meshes with pictures are joined with their like alone."""
    light = Body.open("light")
    pose = torch.eye(3).expand(2, 24, 3, 3).clone()
    pose[:, 0] = torch.diag(torch.tensor([1.0, -1, -1]))
    K = intrinsics(SIZE)
    scene = Scene(
        pose, torch.tensor([[0.0, 0, 3.4]]).expand(2, 3), torch.zeros(10), K, SIZE, np.arange(2) / 30, "still",
        torch.diag(torch.tensor([1.0, -1, -1])),
    )  # fmt: skip
    for seed in range(3):
        images = film_scene(scene, (light, body), np.random.default_rng(seed), wardrobe)
        assert images.shape == (2, 72, 96, 3) and images.dtype == np.uint8
    dressed, texture = wardrobe.dress(body, np.random.default_rng(0))
    vertices = dressed.vertices(scene.betas[None], pose, scene.transl)
    black = Look(texture, np.zeros((72, 96, 3), np.uint8), noise=0.0)
    image = render_frames(vertices, dressed.faces, K, SIZE, black)[0].astype(int)
    u, v = project(light.joints(scene.betas, pose[0], scene.transl[0]), K)[3].round().int().tolist()
    assert image[v, u, 0] > 60 and image[v, u, 1:].max() < 40  # red skin on the trunk
    points, triangles, both = join([(vertices, dressed.faces, black)] * 2)
    twice = render_frames(points, triangles, K, SIZE, both)[0].astype(int)
    assert np.abs(twice - image).max() <= 1
    painted = dataclasses.replace(black, colours=np.zeros((dressed.num_vertices, 3), np.float32))
    with pytest.raises(UsageError, match="all meshes or on none"):
        join([(vertices, dressed.faces, black), (vertices, dressed.faces, painted)])
    with pytest.raises(ShapeError, match="texture"):
        render_frames(vertices, dressed.faces[:-1], K, SIZE, black)


def test_what_stands_before_and_the_grading() -> None:
    images = np.full((3, 60, 80, 3), 7, np.uint8)
    stand_before(images, np.full((3, 24, 2), 30.0) + np.arange(24)[:, None], np.random.default_rng(0))
    changed = (images != 7).any(-1)
    assert changed.any() and np.array_equal(changed[0], changed[2]) and changed[0].sum() < 60 * 80 / 2
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    out = graded(ramp, np.random.default_rng(1)).reshape(256, 3).astype(int)
    assert (np.diff(out, axis=0) >= 0).all() and (out[0] == 0).all() and not np.array_equal(out, ramp.reshape(256, 3))
