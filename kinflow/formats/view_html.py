"""view.html: people in 3D in one page that any browser opens, without a network and without Python."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..assets import asset_path
from ..body import Body
from ..body.surface import vertex_normals
from ..errors import UsageError
from ..motion import Motion
from ..records import atomic_write
from ..render import person_colour
from ..rotations import rotmat_to_quat_wxyz
from ..skeleton import BLAZEPOSE_TO_SMPL, SMPL_PARENTS
from .characters import Character, file_axes, ground_height, on_ground, one_by_one

__all__ = ["write_view_html"]

INFLUENCES = 4
"""Joints that move a vertex."""
SCRIPTS = ("view_scene.js", "view_page.js")
_STILL_M = 1e-4
_PIECE = 2**20  # characters written at once

Array = NDArray[Any]


def write_view_html(
    path: Path,
    motions: Sequence[Motion],
    body: Body,
    *,
    title: str = "people",
    names: Sequence[str] | None = None,
    film: Path | None = None,
    embed: bool = True,
    begin: float = 0.0,
) -> None:
    """Write the page: everybody's mesh, posed in the browser, in the axes of the exports (docs/view.md).

    Of the open body the light mesh is shown. Rotations are quaternions of 16 bits a number (below 0.01 degrees), vertices at
    rest shares of 1/65535 of their extent.

    Args:
        path: the page.
        motions: of one clip; those without a frame are left out, and a page without anybody says so.
        body: that they belong to.
        title: of the page.
        names: one a motion; person00 and so on by default.
        film: an mp4 to show beside the people.
        embed: put the film into the page; else the page names it, and it must lie beside it.
        begin: time of the film's first picture, s from the clip's first frame.

    Raises:
        UsageError: a mesh of more than 65,535 vertices; motions of another body.
        OutputError: the file cannot be written.
    """
    names = [f"person{m.person_id:02d}" for m in motions] if names is None else list(names)
    kept = [(m, name, number) for number, (m, name) in enumerate(zip(motions, names, strict=True)) if len(m)]
    shown = Body.open("light") if body.name == "open" else body
    shown_motions = [m for m, _, _ in kept]
    people = one_by_one(shown_motions, shown, [n for _, n, _ in kept]) if kept else iter(())
    if len(shown.v_template) > 65_535:
        raise UsageError(f"body: expected a mesh of at most 65,535 vertices, got {len(shown.v_template)}.")
    each = [
        _person(person, motion, person_colour(number)) for person, (motion, _, number) in zip(people, kept, strict=True)
    ]
    known = on_ground(shown_motions)
    source = None if film is None else film.name
    joints, weights = _influences(shown)
    data = {
        "schema": "kinflow.view/1",
        "title": title,
        "span": _span(shown_motions),
        "parents": list(SMPL_PARENTS),
        "faces": _packed(shown.faces.cpu().numpy(), np.uint16),
        "joints": _packed(joints, np.uint8),
        "weights": _packed(weights, np.uint8),
        "people": each,
        "camera": _camera(shown_motions, shown),
        "ground": {"known": known, "height": ground_height(shown_motions, shown)},
        "film": {
            "src": source if not embed else None,
            "embedded": base64.b64encode(film.read_bytes()).decode() if film is not None and embed else None,
            "begin": begin,
        },
        "note": _note(known, source if not embed else None),
    }
    page = asset_path("view.html").read_text(encoding="utf-8")
    scripts = "\n".join(asset_path(name).read_text(encoding="utf-8") for name in SCRIPTS)
    # "<" would end the element that holds the data, wherever a name or path has it. The data, which is long, is in memory once.
    told = (part.replace("<", "\\u003c") for part in json.JSONEncoder().iterencode(data))
    filled = {"title": [html.escape(title)], "data": told, "scripts": [scripts]}
    parts = re.split(r"\{\{(\w+)\}\}", page)  # text, name, text, ...
    with atomic_write(path) as stream:
        for text in itertools.chain.from_iterable(filled[p] if i % 2 else [p] for i, p in enumerate(parts)):
            for at in range(0, len(text), _PIECE):
                stream.write(text[at : at + _PIECE].encode())


def _person(person: Character, motion: Motion, colour: tuple[int, int, int]) -> dict[str, Any]:
    vertices = person.rest_vertices()
    low, extent = vertices.min(0), np.maximum(np.ptp(vertices, 0), 1e-9)
    normals = vertex_normals(torch.from_numpy(vertices), person.body.faces.cpu()).numpy()
    std = np.nan_to_num(motion.joints3d_std[:, 1:].astype(np.float64).mean(-1))
    confidence = motion.confidence[:, sorted(BLAZEPOSE_TO_SMPL)].mean(-1)
    return {
        "name": person.name,
        "colour": colour,
        "times": _packed(person.timestamps, np.float32),
        "observed": _packed(person.observed, np.uint8),
        "quaternions": _packed(np.rint(person.quat_wxyz() * 32767), np.int16),
        "pelvis": _packed(person.pelvis, np.float32),
        "offsets": _packed(person.offsets, np.float32),
        "std": _packed(np.rint(1e4 * std).clip(0, 65_535), np.uint16),
        "confidence": _packed(np.rint(255 * np.nan_to_num(confidence).clip(0, 1)), np.uint8),
        "low": low.tolist(),
        "extent": extent.tolist(),
        "positions": _packed(np.rint((vertices - low) / extent * 65_535), np.uint16),
        "normals": _packed(np.rint(127 * normals), np.int8),
    }


def _influences(body: Body) -> tuple[Array, Array]:
    """The joints (V, 4) that move each vertex most, and how much, of 255."""
    weights = body.weights.detach().cpu().numpy().astype(np.float64)
    joints = np.argsort(-weights, 1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(weights, joints, 1)
    return joints, np.rint(255 * kept / kept.sum(1, keepdims=True))


def _camera(motions: Sequence[Motion], body: Body) -> dict[str, Any]:
    """The clip's camera in the page's axes: one row where it stands still."""
    if not motions:
        K, size, rows = np.eye(3), [1, 1], {0.0: (np.eye(3), np.zeros(3))}
    else:
        K, size, rows = motions[0].K, motions[0].image_size.tolist(), {}
        for motion in motions:
            for time, turn, place in zip(motion.timestamps, *file_axes(motion, body), strict=True):
                rows.setdefault(round(float(time), 6), (turn, place))
    times = np.array(sorted(rows))
    turns, places = (np.stack([rows[t][i] for t in times]) for i in (0, 1))
    if np.abs(places - places[0]).max() < _STILL_M and np.abs(turns - turns[0]).max() < _STILL_M:
        times, turns, places = times[:1], turns[:1], places[:1]
    quat = rotmat_to_quat_wxyz(torch.from_numpy(turns)).numpy()
    flips = (quat[1:] * quat[:-1]).sum(-1) < 0
    quat[1:][np.logical_xor.accumulate(flips, 0)] *= -1
    return {
        "K": np.asarray(K, np.float64).tolist(),
        "size": size,
        "times": _packed(times, np.float32),
        "places": _packed(places, np.float32),
        "quaternions": _packed(np.rint(quat * 32767), np.int16),
    }


def _span(motions: Sequence[Motion]) -> list[float]:
    if not motions:
        return [0.0, 0.0]
    return [min(float(m.timestamps[0]) for m in motions), max(float(m.timestamps[-1]) for m in motions)]


def _note(ground: bool, beside: str | None) -> str:
    parts = [] if ground else ["No ground is known: up is the camera's up, and the grid lies below the lowest foot."]
    if beside is not None:
        parts.append(f"The film is {beside}, which must lie beside this page.")
    parts.append("Drag to turn, wheel to come nearer, right button or Shift to move, space to play.")
    return " ".join(parts)


def _packed(values: Any, kind: type) -> str:
    """Numbers as little-endian bytes, as browsers' typed arrays have them, in base64."""
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes()).decode()
