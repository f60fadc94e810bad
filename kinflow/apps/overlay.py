"""The overlay: each person's mesh over the frames of the clip, and what one likes to see beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ..render.lines import draw_keypoints
from ..video import VideoWriter
from ..video.sound import add_sound
from .layouts import Layout, Panels, SideView, check_layout, scaled
from .options import Progress


def write_overlay(
    path: Path,
    clip: Clip,
    motions: Sequence[Motion],
    body: Body,
    *,
    config: RenderConfig | None = None,
    layout: Layout = "overlay",
    keypoints: bool = False,
    batch_size: int = 8,
    ground: bool = False,
    progress: Progress | None = None,
) -> None:
    """Draw each person's mesh over the frames, nearer people in front, and encode the video with the clip's own times and
    its sound.

    Args:
        path: the mp4.
        clip, motions, body: what is drawn.
        config: opacity and rasteriser.
        layout: what stands beside the overlay, of :data:`~kinflow.apps.layouts.LAYOUTS`.
        keypoints: draw the landmarks that the motions were fitted to, those of confidence 0.5 and more, over the overlay.
        batch_size: frames at a time.
        ground: a grid of metres on the ground lies under them, in the frames in which somebody tells where it is.
        progress: called as frames are done.

    Raises:
        UsageError: no such layout.
        OutputError: the file cannot be written, or the disk is full.
    """
    config = config or RenderConfig()
    panels = Panels.of(check_layout(layout), clip.image_size)
    shrunk = np.array(panels.frame) / clip.image_size
    K = torch.as_tensor(clip.K) * torch.tensor([*shrunk, 1.0], dtype=torch.float32)[:, None]
    standing = [m.in_world(body) if m.placed else m for m in motions]
    side = SideView(standing, body, panels.side, config) if "side" in panels.names else None
    rows = [{int(f): t for t, f in enumerate(m.frame_ids)} for m in motions]
    cameras = {
        int(f): m.T_world2cam[t] for m in motions if m.T_world2cam is not None for t, f in enumerate(m.frame_ids)
    }
    lines: tuple[np.ndarray, Tensor] | None = None
    done, begin = 0, 0.0
    with VideoWriter(path, panels.size, clip.fps, clip.config) as writer:
        for batch in clip.batches(batch_size):
            skinned = _skinned(motions, rows, batch.frame_ids, body)
            upright = _skinned(standing, rows, batch.frame_ids, body) if side is not None else []
            for image, frame_id, timestamp in zip(batch.images, batch.frame_ids, batch.timestamps, strict=True):
                number = int(frame_id)
                present = {i: s[number] for i, s in enumerate(skinned) if number in s}
                picture = beneath = scaled(image, panels.frame)
                camera = cameras.get(number) if ground else None
                if camera is not None:
                    if lines is None or not np.array_equal(lines[0], camera):  # once, of a camera that stands still
                        lines = camera, grid_opacity(camera, K.numpy(), panels.frame)
                    beneath = draw_grid(picture, lines[1])
                drawn = overlay(beneath, [(v, person_colour(i)) for i, v in present.items()], body.faces, K, config)
                if keypoints:
                    for person in present:
                        motion, row = motions[person], rows[person][number]
                        if motion.observed[row]:
                            draw_keypoints(drawn, motion.keypoints2d[row] * shrunk, motion.confidence[row])
                shown = {"original": picture, "overlay": drawn}
                if side is not None:
                    shown["side"] = side.draw(number, {i: s[number] for i, s in enumerate(upright) if number in s})
                begin = begin if done else float(timestamp)
                writer.write(np.concatenate([shown[name] for name in panels.names], 1), timestamp)
                done += 1
            if progress is not None:
                progress("overlay", done, clip.num_frames)
    add_sound(path, clip.path, begin)
    if progress is not None:
        progress("overlay", done, done)


def _skinned(
    motions: Sequence[Motion], rows: Sequence[Mapping[int, int]], frame_ids: np.ndarray, body: Body
) -> list[dict[int, Tensor]]:
    """Of each motion its vertices (V, 3) m by the number of the frame, of those frames that it has."""
    skinned: list[dict[int, Tensor]] = []
    for motion, lookup in zip(motions, rows, strict=True):
        wanted = [lookup[int(f)] for f in frame_ids if int(f) in lookup]
        vertices = torch.from_numpy(motion.vertices(wanted, body)) if wanted else torch.empty(0)
        skinned.append({int(motion.frame_ids[t]): v for t, v in zip(wanted, vertices, strict=True)})
    return skinned
