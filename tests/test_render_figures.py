"""Meshes from chosen sides, sheets of pictures, stick figures."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kinflow.body import Body
from kinflow.body.kinematics import full_pose
from kinflow.errors import ShapeError, UsageError
from kinflow.render.figures import (
    Marks,
    Stick,
    StickRow,
    contact_sheet,
    curves_under_sticks,
    new_figure,
    save_figure,
    stick_rows,
    sticks,
)
from kinflow.render.views import FRONT, OBLIQUE, PAPER, SIDE, TOP, View, draw_bodies, draw_mesh
from kinflow.skeleton import SMPL_JOINTS

REST = full_pose(torch.eye(3).expand(1, 21, 3, 3))


# -- views -------------------------------------------------------------------------------------------------------------


def test_sides_of_a_scene() -> None:
    left, up, ahead = torch.eye(3)  # of a body that faces +z
    right_of_picture, up_in_picture, to_viewer = torch.eye(3)
    for view, seen in (
        (FRONT, (right_of_picture, up_in_picture, to_viewer)),
        (SIDE, (to_viewer, up_in_picture, -right_of_picture)),
        (TOP, (right_of_picture, to_viewer, -up_in_picture)),
    ):
        torch.testing.assert_close(view.turned(torch.stack((left, up, ahead))), torch.stack(seen), atol=1e-6, rtol=0)


def test_pixels_of_a_view_by_hand() -> None:
    view = View(span=2.0, centre=(0.5, 1.0, 0.0), lens=5.0)
    points = torch.tensor([[0.5, 1.0, 0.0], [0.5, 2.0, 0.0], [1.5, 1.0, 0.0], [1.5, 1.0, 5.0]])
    expected = torch.tensor([[30.0, 20.0], [30.0, 0.0], [50.0, 20.0], [70.0, 20.0]])  # twice as near: twice as large
    torch.testing.assert_close(view.pixels(points, (60, 40)), expected)


@pytest.mark.parametrize("view", [FRONT, SIDE, TOP, OBLIQUE])
@pytest.mark.parametrize("size", [(60, 40), (40, 90)])
def test_a_fitted_view_just_shows_everything(view: View, size: tuple[int, int]) -> None:
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor((1.0, 0.3, 2.0))
    points += torch.tensor((3.0, -1.0, 8.0))
    at = view.fitted(points, size, margin=0.0).pixels(points, size) / torch.tensor(size) - 0.5
    assert float(at.abs().max()) == pytest.approx(0.5, abs=1e-4)
    at = view.fitted(points, size, margin=0.1).pixels(points, size) / torch.tensor(size) - 0.5
    assert 0.38 < float(at.abs().max()) < 0.45


def test_meshes_lie_where_the_view_says(body: Body) -> None:
    vertices = body.vertices(torch.zeros(10), torch.cat((REST, REST)))
    size = (80, 100)
    tint = torch.tensor([[[200.0, 80.0, 80.0]], [[80.0, 80.0, 200.0]]])
    for view in (FRONT, SIDE, TOP):
        view = view.fitted(vertices, size)
        images = draw_mesh(vertices, body.faces, view, size, tint)
        assert images.shape == (2, 100, 80, 3) and images.dtype == np.uint8
        drawn = (images != round(PAPER)).any(-1)
        assert (drawn[0] == drawn[1]).all()
        row, column = drawn[0].nonzero()
        at = view.pixels(vertices[0], size)
        low, high = at.amin(0), at.amax(0)
        np.testing.assert_allclose((column.min(), row.min()), low, atol=1.6)
        np.testing.assert_allclose((column.max() + 1, row.max() + 1), high, atol=1.6)
        inside = images[:, int(at[:, 1].mean()), int(at[:, 0].mean())].astype(int)
        assert inside[0, 0] > inside[0, 2] and inside[1, 2] > inside[1, 0]


def test_each_vertex_may_have_a_colour_and_the_floor_a_shadow(body: Body) -> None:
    vertices = body.vertices(torch.zeros(10), REST)
    low = float(vertices[..., 1].min())
    halves = torch.where(vertices[0, :, :1] > 0, torch.tensor((255.0, 0, 0)), torch.tensor((0.0, 0, 255)))
    view = dataclasses.replace(OBLIQUE, span=2.4)
    plain, dark = (draw_mesh(vertices, body.faces, view, (90, 90), halves, floor=f)[0] for f in (None, low))
    red, blue = (plain[..., a].astype(int) - plain[..., b] > 40 for a, b in ((0, 2), (2, 0)))
    assert red.sum() > 100 and blue.sum() > 100
    assert red.nonzero()[1].mean() > blue.nonzero()[1].mean()  # its left is at the viewer's right
    changed = (plain != dark).any(-1).nonzero()[0]
    feet = view.pixels(torch.tensor([[0.0, low, 0.0]]), (90, 90))[0, 1]
    assert len(changed) > 30 and abs(changed.mean() - float(feet)) < 6


def test_sticks_stand_on_the_floor_with_left_to_the_viewers_right(body: Body) -> None:
    points = sticks(body, REST[0])
    left, right, head = (SMPL_JOINTS.index(n) for n in ("left_wrist", "right_wrist", "head"))
    assert points.shape == (25, 2)
    assert points[:, 1].min() == pytest.approx(0.0, abs=1e-6)
    assert points[left, 0] > 0.3 > -0.3 > points[right, 0]
    assert points[head, 1] > 1.2


def test_bodies_are_upright_and_inside_the_picture(body: Body) -> None:
    images = draw_bodies(body, REST, torch.tensor([[86, 180, 233]]), 80)
    assert images.dtype == np.uint8 and images.shape[:2] == (1, 80)
    coloured = (np.ptp(images[0].astype(int), axis=-1) > 20).nonzero()
    assert 10 < coloured[0].min() < 25 and 68 < coloured[0].max() < 79
    assert coloured[1].min() > 0 and coloured[1].max() < images.shape[2] - 1


# -- figures -----------------------------------------------------------------------------------------------------------


def pixels(figure: object, path: Path) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    with image.open(save_figure(figure, path, palette=None)) as opened:  # type: ignore[arg-type]
        return np.asarray(opened.convert("RGB"))


@pytest.fixture
def _matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="figures need matplotlib")


@pytest.mark.usefixtures("_matplotlib")
def test_a_sheet_holds_its_pictures_pixel_for_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (5, 12, 200, 3), dtype=np.uint8)
    for title, above, beside in (
        ("", (), ()),
        ("title", "ab", ("one", "two", "three")),
        ("", "ab", ()),
        ("title", (), ()),
    ):
        sheet = pixels(contact_sheet(images, 2, title, above, beside), tmp_path / "sheet.png")
        left, top = sheet.shape[1] - 400, sheet.shape[0] - 36
        for i, image in enumerate(images):
            y, x = top + i // 2 * 12, left + i % 2 * 200
            np.testing.assert_array_equal(sheet[y : y + 12, x : x + 200], image)
        assert (sheet[top + 24 :, left + 200 :] == round(PAPER)).all()  # no sixth picture
        assert bool(top and sheet[:top].std() > 3) == bool(title or above)
        assert bool(left and sheet[top:, :left].std() > 3) == bool(beside)


@pytest.mark.usefixtures("_matplotlib")
def test_marks_lie_on_their_picture(tmp_path: Path) -> None:
    images = np.full((2, 100, 100, 3), 255, np.uint8)
    mark = Marks(np.array([[20.0, 30.0], [80.0, 30.0]]), [(0, 1)], "red", "blue")
    sheet = pixels(contact_sheet(images, 2, marks=[[], [mark]]), tmp_path / "sheet.png").astype(int)
    assert (sheet[:, :110] == 255).all()
    row, column = (sheet[..., 0] - sheet[..., 1] > 100).nonzero()  # the line
    assert abs(row.mean() - 29.5) < 1 and column.min() > 118 and column.max() < 182
    dots = sheet[..., 2] - sheet[..., 0] > 100
    assert dots[30, 120] and dots[30, 180] and not dots[30, 150]


@pytest.mark.usefixtures("_matplotlib")
def test_rows_of_sticks_and_curves(tmp_path: Path, body: Body) -> None:
    points = sticks(body, REST[0])
    rows = [StickRow("a", {0: [Stick(points)], 1: [Stick(points, "#00ff00", 5.0)]}, {1: "under"}, (2.0, "note"))]
    drawn = pixels(stick_rows(rows, ["p", "q", "r"], [0], "title"), tmp_path / "rows.png").astype(int)
    green = (drawn[..., 1] - drawn[..., [0, 2]].max(-1) > 100).nonzero()[1]
    assert len(green) > 200 and abs(green.mean() / drawn.shape[1] - (0.105 + 0.89 * 0.5)) < 0.02
    times = np.linspace(0, 4, 50)
    for fall in (0.0, 5000.0):
        broken = np.sin(times) - fall * (times > 2)
        curves = {"broken": (broken, "#ff0000"), "usual": (np.sin(times), "#0000ff")}
        figure = curves_under_sticks(times, curves, {1.0: points}, [(2.0, 3.0, "here")], "title", "nats")
        assert figure.axes[1].get_yscale() == ("symlog" if fall else "linear")
        assert pixels(figure, tmp_path / "curves.png").std() > 3


@pytest.mark.usefixtures("_matplotlib")
def test_formats(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    figure = contact_sheet(np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8), 1)
    for name, kind, mode in (("a.jpg", "JPEG", "RGB"), ("a.png", "PNG", "P")):
        with image.open(save_figure(figure, tmp_path / name)) as opened:
            assert (opened.format, opened.mode, opened.size) == (kind, mode, (64, 64))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "a.png"]
    with pytest.raises(ShapeError, match="images"):
        contact_sheet(np.zeros((64, 64, 3), np.uint8), 1)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="python -m pip install matplotlib"):
        new_figure(10, 10)
