"""The overlay: each person's mesh over the frames of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..body import Body
from ..clip import Clip
from ..config import RenderConfig
from ..motion import Motion
from ..render import overlay, person_colour
from ..render.ground import draw_grid, grid_opacity
from ..video import VideoWriter
from .options import Progress


def write_overlay(
    path: Path,
    clip: Clip,
    motions: Sequence[Motion],
    body: Body,
    *,
    config: RenderConfig | None = None,
    batch_size: int = 8,
    ground: bool = False,
    progress: Progress | None = None,
) -> None:
    """Draw each person's mesh over the frames, nearer people in front, and encode the video with the clip's own times.

    With ``ground``, a grid of metres on the ground lies under them, in the frames in which somebody tells where it is.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    config = config or RenderConfig()
    rows = [{int(f): t for t, f in enumerate(m.frame_ids)} for m in motions]
    cameras = {
        int(f): m.T_world2cam[t] for m in motions if m.T_world2cam is not None for t, f in enumerate(m.frame_ids)
    }
    lines: tuple[np.ndarray, Tensor] | None = None
    done = 0
    with VideoWriter(path, clip.image_size, clip.fps, clip.config) as writer:
        for batch in clip.batches(batch_size):
            skinned: list[dict[int, Tensor]] = []
            for motion, lookup in zip(motions, rows, strict=True):
                wanted = [lookup[int(f)] for f in batch.frame_ids if int(f) in lookup]
                vertices = torch.from_numpy(motion.vertices(wanted, body)) if wanted else torch.empty(0)
                skinned.append({int(motion.frame_ids[t]): v for t, v in zip(wanted, vertices, strict=True)})
            for image, frame_id, timestamp in zip(batch.images, batch.frame_ids, batch.timestamps, strict=True):
                present = [(s[int(frame_id)], person_colour(i)) for i, s in enumerate(skinned) if int(frame_id) in s]
                camera = cameras.get(int(frame_id)) if ground else None
                if camera is not None:
                    if lines is None or not np.array_equal(lines[0], camera):  # once, of a camera that stands still
                        lines = camera, grid_opacity(camera, clip.K.numpy(), clip.image_size)
                    image = draw_grid(image, lines[1])
                drawn = overlay(image, present, body.faces, clip.K, config) if present else image
                writer.write(drawn, timestamp)
                done += 1
            if progress is not None:
                progress("overlay", done, clip.num_frames)
    if progress is not None:
        progress("overlay", done, done)
