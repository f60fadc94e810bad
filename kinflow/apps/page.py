"""view.html beside a run's results: which film goes into it, and how small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..body import Body
from ..clip import Clip
from ..config import VideoConfig
from ..formats.view_html import write_view_html
from ..motion import Motion
from ..video import VideoWriter
from ..video.sound import add_sound
from .layouts import scaled

__all__ = ["write_page"]

AS_IT_IS = 3_000_000
"""Bytes up to which an overlay goes into the page as it is."""
LARGEST = 8_000_000
"""Bytes of a film in the page, a third more as text: with two people for a minute the page stays below 15 MB."""
LONGEST_S = 240.0
"""Of longer clips a small film is not even tried."""
PIXELS, CRF, CRF_AGAIN = 400_000, 27, 33
"""Of a small film: of its pictures, and quality at the first try and the second."""


def write_page(
    path: Path,
    motions: Sequence[Motion],
    body: Body,
    *,
    title: str,
    names: Sequence[str],
    overlay: Path | None,
    begin: float,
    columns: tuple[int, int] | None = None,
) -> None:
    """Write view.html, with the overlay in it where it can be made small enough, else with a reference to the one beside it.

    Args:
        path: the page.
        motions, body, title, names: as of :func:`~kinflow.formats.view_html.write_view_html`.
        overlay: the overlay's video; None: no film.
        begin: time of its first picture, s from the clip's first frame.
        columns: from where to where, in px, the picture is the overlay, where other panels stand beside it: the page shows
            that part, it has views of its own.
    """
    small = path.with_name(".film.mp4")
    film = overlay
    try:
        if overlay is not None and (columns or overlay.stat().st_size > AS_IT_IS):
            film = small if _made_small(overlay, small, columns) else overlay
        embed = film is not None and (film == small or film.stat().st_size <= AS_IT_IS)
        write_view_html(path, motions, body, title=title, names=names, film=film, embed=embed, begin=begin)
    finally:
        small.unlink(missing_ok=True)


def _made_small(source: Path, target: Path, columns: tuple[int, int] | None) -> bool:
    """Whether a version of a film could be written that is no larger than :data:`LARGEST`."""
    for crf in (CRF, CRF_AGAIN):
        clip = Clip.open(source)
        if clip.num_frames is not None and clip.num_frames / clip.fps > LONGEST_S:
            return False
        (left, right), height = columns or (0, clip.image_size[0]), clip.image_size[1]
        width = right - left
        share = min(1.0, math.sqrt(PIXELS / (width * height)))
        size = (max(2, 2 * round(width * share / 2)), max(2, 2 * round(height * share / 2)))
        with VideoWriter(target, size, clip.fps, VideoConfig(crf=crf)) as writer:
            for batch in clip.batches(8):
                for image, timestamp in zip(batch.images, batch.timestamps, strict=True):
                    writer.write(scaled(image[:, left:right], size), timestamp)
        add_sound(target, source, 0.0)
        if target.stat().st_size <= LARGEST:
            return True
    return False
