"""Labelled sheets of pictures, and stick figures in rows. matplotlib draws them; it is imported when one is asked for."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..body import Body
from ..errors import UsageError, check_shape
from ..records import atomic_write
from ..skeleton import BLAZEPOSE, SMPL_JOINTS, SMPL_PARENTS
from .views import OBLIQUE, PAPER, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, TRUNK = "#d55e00", "#0072b2", "#404040"
"""Colours of a stick figure's limbs."""

_EARS = [BLAZEPOSE.index("left_ear"), BLAZEPOSE.index("right_ear")]
_BONES = [(joint, parent) for joint, parent in enumerate(SMPL_PARENTS) if parent >= 0]
_DPI = 100


def new_figure(width: float, height: float, grey: float = 255.0) -> Figure:
    """An empty figure, sizes in px, on paper of a grey level.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "figures: matplotlib is not installed. Install it: python -m pip install matplotlib."
        ) from error
    return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=(grey / 255,) * 3)


def save_figure(figure: Figure, path: Path, palette: int | None = 128) -> Path:
    """Write a figure as JPEG or PNG, by the path's ending, under a temporary name first; returns ``path``.

    ``palette``: colours of a PNG. A few make the file a third as large; None keeps all.

    Raises:
        OutputError: it cannot be written.
    """
    from PIL import Image  # matplotlib needs it too

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, facecolor=figure.get_facecolor())
    with Image.open(drawn) as opened, atomic_write(path) as stream:
        image = opened.convert("RGB")
        if path.suffix == ".jpg":
            image.save(stream, "JPEG", quality=85, optimize=True)
        else:
            (image.quantize(palette) if palette else image).save(stream, "PNG", optimize=True)
    return path


# -- sheets ------------------------------------------------------------------------------------------------------------


class Marks(NamedTuple):
    """Points (P, 2) px over a picture, the edges between them, and the colours of both."""

    points: np.ndarray
    edges: Sequence[tuple[int, int]] = ()
    line: str = RIGHT
    dot: str = "navy"


def contact_sheet(
    images: np.ndarray,
    columns: int,
    title: str = "",
    above: Sequence[str] = (),
    beside: Sequence[str] = (),
    marks: Sequence[Sequence[Marks]] = (),
) -> Figure:
    """Pictures in rows, pixel for pixel.

    Args:
        images: (N, H, W, 3) uint8, row by row.
        columns: pictures a row.
        title: over everything.
        above, beside: a label for each column, and for each row.
        marks: what is drawn over each picture.

    Raises:
        ShapeError, UsageError: other images; matplotlib is not installed.
    """
    dims = check_shape("images", images, "N H W 3", "Pictures of one size, stacked.")
    rows, high, wide = -(-dims["N"] // columns), dims["H"], dims["W"]
    left, top = (150 if beside else 0), (34 if title else 0) + (28 if above else 6 if title else 0)
    width, height = left + columns * wide, top + rows * high
    blank = np.full((rows * columns - dims["N"], high, wide, 3), round(PAPER), np.uint8)
    sheet = rearrange(np.concatenate((images, blank)), "(r c) h w rgb -> (r h) (c w) rgb", c=columns)
    figure = new_figure(width, height, PAPER)
    figure.figimage(sheet, left, 0)
    figure.text(8 / width, 1 - 10 / height, title, fontsize=11, va="top")
    for c, text in enumerate(above):
        x = (left + (c + 0.5) * wide) / width
        figure.text(x, 1 - (top - 6) / height, text, fontsize=9, ha="center", va="bottom")
    for r, text in enumerate(beside):
        figure.text(8 / width, 1 - (top + (r + 0.5) * high) / height, text, fontsize=9, va="center")
    if marks:
        axis = figure.add_axes((0, 0, 1, 1), zorder=1, xlim=(0, width), ylim=(height, 0))
        axis.set_axis_off()
        for i, own in enumerate(marks):
            corner = (left + i % columns * wide, top + i // columns * high)
            for mark in own:
                at = mark.points + corner
                _add_lines(axis, [at[list(edge)] for edge in mark.edges], colors=mark.line, linewidths=1.0)
                axis.plot(*at.T, ".", color=mark.dot, markersize=3)
    return figure


def _add_lines(axis: Axes, lines: Sequence[np.ndarray], **style: Any) -> None:
    from matplotlib.collections import LineCollection

    axis.add_collection(LineCollection(lines, capstyle="round", **style), autolim=False)


# -- stick figures -----------------------------------------------------------------------------------------------------


def sticks(body: Body, pose_rotmat: Tensor, view: View = OBLIQUE) -> np.ndarray:
    """Stick figures of poses (..., 24, 3, 3), mean shape: (..., 25, 2) m, the 24 joints and the head's middle.

    As seen from ``view``, x to the right and y up; the lowest point is at y = 0, the pelvis at x = 0.
    """
    joints, landmarks = body.joints_and_landmarks(torch.zeros(10), pose_rotmat)
    points = view.turned(torch.cat((joints, landmarks[..., _EARS, :].mean(-2, keepdim=True)), -2))
    low = points[..., 1].amin(-1)
    return torch.stack((points[..., 0] - points[..., :1, 0], points[..., 1] - low[..., None]), -1).numpy()


@dataclasses.dataclass(frozen=True)
class Stick:
    """A stick figure (25, 2) m as :func:`sticks` gives it; left and right in two colours unless one is given."""

    points: np.ndarray
    colour: str | None = None
    width: float = 1.6
    alpha: float = 1.0


def draw_stick(axis: Axes, stick: Stick, x: float, stretch: float = 1.0) -> None:
    """Draw one with its pelvis at ``x``. ``stretch``: units of x to a metre."""
    at = stick.points * (stretch, 1.0) + (x, 0.0)
    ring = np.linspace(0, 2 * np.pi, 24)
    lines, colours = [at[24] + 0.1 * np.stack((stretch * np.cos(ring), np.sin(ring)), -1)], [TRUNK]
    for joint, parent in _BONES:
        name = SMPL_JOINTS[joint]
        lines.append(at[[parent, joint]])
        colours.append(LEFT if name.startswith("left") else RIGHT if name.startswith("right") else TRUNK)
    _add_lines(axis, lines, colors=stick.colour or colours, linewidths=stick.width, alpha=stick.alpha, clip_on=False)


@dataclasses.dataclass(frozen=True)
class StickRow:
    """A row of stick figures a metre apart.

    Attributes:
        label: beside it.
        sticks: by column, drawn one over the other.
        under: a line below some columns.
        note: a text in the row's free space, and the column in which its middle lies.
    """

    label: str
    sticks: Mapping[int, Sequence[Stick]]
    under: Mapping[int, str] = dataclasses.field(default_factory=dict)
    note: tuple[float, str] | None = None


def stick_rows(rows: Sequence[StickRow], captions: Sequence[str], shaded: Sequence[int], title: str) -> Figure:
    """Rows of stick figures, one below the other; ``shaded`` columns were seen by what is shown.

    Raises:
        UsageError: matplotlib is not installed.
    """
    columns = len(captions)
    height = 1.0 + 2.3 * len(rows) * 10 / columns
    figure = new_figure(1200, 100 * height)
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(0.105, 0.25 / height, 0.995, 1 - 0.75 / height, hspace=0.12)
    figure.suptitle(title, fontsize=10)
    for axis, row in zip(axes, rows, strict=True):
        axis.set(xlim=(-0.5, columns - 0.5), ylim=(-0.08, 2.0), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.axhline(-0.02, color="0.8", linewidth=0.8, zorder=0)
        axis.set_ylabel(row.label, rotation=0, ha="right", va="center", fontsize=10)
        for column, drawn in row.sticks.items():
            for stick in drawn:
                draw_stick(axis, stick, column)
        for column, text in row.under.items():
            axis.text(column, -0.1, text, ha="center", va="top", fontsize=8)
        if row.note:
            axis.text(row.note[0], 1.0, row.note[1], ha="center", va="center", fontsize=8, color="0.4")
    for column, text in enumerate(captions):
        axes[0].text(column, 2.0, text, ha="center", va="bottom", fontsize=9)
    for column in shaded:
        axes[0].axvspan(column - 0.5, column + 0.5, color="#f1f1ea", zorder=-1, linewidth=0)
        axes[0].text(column, -0.1, "seen", ha="center", va="top", fontsize=8, color="0.5")
    return figure


def curves_under_sticks(
    times: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, str]],
    figures: Mapping[float, np.ndarray],
    spans: Sequence[tuple[float, float, str]],
    title: str,
    unit: str,
) -> Figure:
    """Values over time, below the stick figures that they belong to.

    Args:
        times: (T,) s.
        curves: values (T,) and colour by label. The axis turns logarithmic away from 0 where one of them falls far below
            the last one's usual range.
        figures: points (25, 2) m by their time.
        spans: (start, stop, label) s of stretches that are set off.
        title, unit: over the figure, and of the values.

    Raises:
        UsageError: matplotlib is not installed.
    """
    last = float(times[-1])
    figure = new_figure(1200, 560)
    above, axis = figure.subplots(2, 1, height_ratios=(1, 2.2), sharex=True)
    figure.subplots_adjust(0.06, 0.09, 0.985, 0.91, hspace=0.04)
    figure.suptitle(title, fontsize=10)
    for label, (values, colour) in curves.items():
        axis.plot(times, values, color=colour, linewidth=1.3, label=label)
    usual = list(curves.values())[-1][0]
    low, high = np.quantile(usual, (0.01, 0.99))
    if min(float(v.min()) for v, _ in curves.values()) < usual.min() - 4 * (high - low):
        axis.set_yscale("symlog", linthresh=max(10.0, abs(low), abs(high)))
    for start, stop, label in spans:
        for part in (above, axis):
            part.axvspan(start, stop, color="0.9", zorder=0, linewidth=0)
        above.text((start + stop) / 2, 2.65, label, ha="center", va="top", fontsize=9)
    axis.set(xlabel="s", ylabel=unit, xlim=(0, last))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=9)
    above.set_axis_off()
    above.set_ylim(-0.05, 2.7)
    room = above.get_window_extent()
    for x, points in figures.items():
        draw_stick(above, Stick(points, width=1.3), x, stretch=(last / room.width) / (2.75 / room.height))
    return figure
