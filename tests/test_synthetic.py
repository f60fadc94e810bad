"""Rendered clips: they show what was asked for, the same for the same seed, and survive being written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinflow.clip import Clip
from kinflow.datasets.synthetic import Look, background, clothes, join, random_look, render_clip, render_frames
from kinflow.errors import ShapeError, UsageError
from kinflow.skeleton import SMPL_JOINTS

K = torch.tensor([[80.0, 0, 48], [0, 80, 40], [0, 0, 1]])
SIZE = (96, 80)


def barrel() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """A closed upright octagonal barrel of the height of a person; parts from shoes to head, bottom up."""
    levels, around = 17, 8
    angle = torch.arange(around) * 2 * torch.pi / around
    ring = torch.stack((0.25 * torch.sin(angle), torch.zeros(around), 0.25 * torch.cos(angle)), -1)
    heights = torch.linspace(0.0, 1.7, levels)
    vertices = torch.cat([ring + torch.tensor([0, float(h), 0]) for h in heights])
    faces = []
    for i in range(levels - 1):
        for j in range(around):
            a, b = i * around + j, i * around + (j + 1) % around
            faces += [[a, b, b + around], [a, b + around, a + around]]
    faces += [[0, j + 1, j] for j in range(1, around - 1)]
    top = (levels - 1) * around
    faces += [[top, top + j, top + j + 1] for j in range(1, around - 1)]
    names = ["left_foot", "left_knee", "left_hip", "spine1", "spine3", "left_elbow", "neck", "head"]
    part = np.repeat([SMPL_JOINTS.index(names[min(7, i * 8 // levels)]) for i in range(levels)], around)
    return vertices, torch.tensor(faces), part


def moving(frames: int = 20) -> torch.Tensor:
    """The barrel in camera axes, going to the right."""
    vertices, _, _ = barrel()
    upright = vertices * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0, 0.85, 2.5])
    return upright + torch.linspace(-0.6, 0.6, frames)[:, None, None] * torch.tensor([1.0, 0, 0])


def look(seed: int = 0) -> Look:
    vertices, _, parts = barrel()
    return random_look(SIZE, parts, vertices, np.random.default_rng(seed))


def test_the_mesh_is_where_it_was_put() -> None:
    plain = replace(
        look(), colours=np.full((136, 3), 200.0), background=np.zeros((80, 96, 3), np.uint8), noise=0.0, blur=0.0
    )
    images = render_frames(moving(), barrel()[1], K, SIZE, plain)
    assert images.shape == (20, 80, 96, 3) and images.dtype == np.uint8
    for image, vertices in zip(images, moving(), strict=True):
        columns = np.flatnonzero(image.any((0, 2)))
        x = 80 * vertices[:, 0] / vertices[:, 2] + 48
        assert abs(columns[0] - float(x.min())) < 1.5 and abs(columns[-1] + 1 - float(x.max())) < 1.5


def test_same_seed_same_picture() -> None:
    faces = barrel()[1]
    first, again, other = (render_frames(moving(3), faces, K, SIZE, look(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_noise_has_the_strength_asked_for_and_changes_from_frame_to_frame() -> None:
    flat = replace(look(), background=np.full((80, 96, 3), 128, np.uint8), noise=4.0)
    away = moving() + torch.tensor([50.0, 0, 0])
    images = render_frames(away, barrel()[1], K, SIZE, flat).astype(float)
    assert images.std() == pytest.approx(4.0, rel=0.1)
    assert abs(images[0] - images[1:]).mean() > 1


def test_blur_keeps_the_light() -> None:
    sharp = replace(look(), noise=0.0, blur=0.0, background=np.zeros((80, 96, 3), np.uint8))
    images = [
        render_frames(moving(2), barrel()[1], K, SIZE, replace(sharp, blur=b)).astype(float) for b in (0.0, 0.6, 0.8)
    ]
    edges = [np.abs(np.diff(i, axis=2)).max() for i in images]
    assert edges[0] > edges[1] > edges[2]
    assert images[2].mean() == pytest.approx(images[0].mean(), rel=0.02)


def test_clothes() -> None:
    vertices, _, parts = barrel()
    landmarks = torch.zeros(33, 3)
    landmarks[:, 1], landmarks[:, 2] = 1.65, 0.25
    landmarks[2, 0], landmarks[5, 0] = 0.1, -0.1
    landmarks[9, 0], landmarks[10, 0] = 0.05, -0.05
    seen = set()
    for seed in range(20):
        colours = clothes(parts, vertices, np.random.default_rng(seed), landmarks)
        assert colours.shape == (136, 3) and colours.dtype == np.float32
        assert colours.min() >= 0 and colours.max() <= 255
        shirt = colours[parts == SMPL_JOINTS.index("spine3")]
        trousers = colours[parts == SMPL_JOINTS.index("left_hip")]
        assert (shirt[0] != trousers[0]).any()
        seen.add(tuple(shirt[0]))
    assert len(seen) == 20


def test_backgrounds() -> None:
    for seed in range(12):
        image = background((33, 21), np.random.default_rng(seed))
        assert image.shape == (21, 33, 3) and image.dtype == np.uint8


def test_two_people() -> None:
    faces = barrel()[1]
    red = replace(
        look(),
        colours=np.tile([220.0, 0, 0], (136, 1)),
        background=np.zeros((80, 96, 3), np.uint8),
        noise=0.0,
        blur=0.0,
    )
    blue = replace(red, colours=np.tile([0.0, 0, 220], (136, 1)))
    behind = moving(4) + torch.tensor([0.2, 0.0, 1.0])
    vertices, triangles, both = join([(moving(4), faces, red), (behind, faces, blue)])
    images = render_frames(vertices, triangles, K, SIZE, both)
    assert vertices.shape == (4, 272, 3) and images[..., 0].max() > 100 and images[..., 2].max() > 100
    hidden = (images[..., 0] > 0) & (images[..., 2] > 0)
    assert not hidden.any()
    alone = render_frames(moving(4), faces, K, SIZE, red)
    np.testing.assert_array_equal(images[..., 0], alone[..., 0])  # the nearer one is whole
    with pytest.raises(UsageError, match="people"):
        join([])


def test_written_clip(tmp_path: Path) -> None:
    faces, path = barrel()[1], tmp_path / "walk.mp4"
    render_clip(path, moving(), faces, K, SIZE, look(), fps=25)
    images = render_frames(moving(), faces, K, SIZE, look())
    (batch,) = Clip.open(path).batches(50)
    np.testing.assert_allclose(batch.timestamps, np.arange(20) / 25, atol=1e-4)
    assert np.abs(batch.images.astype(int) - images).mean() < 6
    times = np.cumsum(np.linspace(0.02, 0.1, 20))
    render_clip(path, moving(), faces, K, SIZE, look(), timestamps=times)
    (batch,) = Clip.open(path).batches(50)
    np.testing.assert_allclose(batch.timestamps, times - times[0], atol=1e-4)


def test_bad_arguments() -> None:
    faces = barrel()[1]
    with pytest.raises(ShapeError, match="vertices"):
        render_frames(moving()[0], faces, K, SIZE, look())
    with pytest.raises(ShapeError, match="colours"):
        render_frames(moving(), faces, K, SIZE, replace(look(), colours=np.zeros((3, 3))))
    with pytest.raises(ShapeError, match="background"):
        render_frames(moving(), faces, K, (50, 50), look())
    assert render_frames(moving()[:0], faces, K, SIZE, look()).shape == (0, 80, 96, 3)
