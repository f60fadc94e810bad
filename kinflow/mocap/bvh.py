"""BVH files: a hierarchy of joints and one row of channels a frame."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import ShapeError
from .source import SourceMotion, euler_to_rotmat


def read_bvh(path: str | os.PathLike[str], scale: float = 1.0, fps: float | None = None) -> SourceMotion:
    """Read a BVH file; any order of the rotation channels, any joint may carry positions (only the root's are used).

    Args:
        path: the file.
        scale: metres per unit of the file.
        fps: true rate where the header's is known to be wrong; default ``1 / Frame Time``.

    Returns:
        The skeleton and motion in the file's own axes; end sites are joints named ``<parent>_end``.

    Raises:
        ShapeError: the file is not a BVH file, or rows are missing; the message says where.

    Source: Meredith and Maddock, Motion Capture File Formats Explained (2001), section 2.
    """
    path = Path(path)
    text = path.read_text(encoding="latin-1")
    head, mark, tail = text.partition("MOTION")
    if not mark or "HIERARCHY" not in head:
        raise ShapeError(f"{path.name}: expected a BVH file with HIERARCHY and MOTION, found none.")
    joints, parents, offsets, channels = _hierarchy(head.split(), path.name)
    words = tail.split(maxsplit=5)
    if len(words) < 5 or words[0] != "Frames:" or words[2:4] != ["Frame", "Time:"]:
        raise ShapeError(f"{path.name}: expected 'Frames:' and 'Frame Time:' after MOTION.")
    num_frames, frame_time = int(words[1]), float(words[4])
    width = sum(len(c) for c in channels)
    try:
        values = np.array(words[5].split() if len(words) > 5 else [], dtype=np.float64)
    except ValueError as error:
        raise ShapeError(f"{path.name}: a channel value is not a number ({error}).") from None
    if values.size != num_frames * width:
        raise ShapeError(f"{path.name}: expected {num_frames} rows of {width} values, got {values.size} values.")
    if not frame_time > 0 and fps is None:
        raise ShapeError(f"{path.name}: expected a positive Frame Time, got {frame_time}; pass fps.")
    rows = values.reshape(num_frames, width)

    rotmats = np.broadcast_to(np.eye(3), (num_frames, len(joints), 3, 3)).copy()
    root = np.broadcast_to(np.asarray(offsets[0]), (num_frames, 3)).copy()
    column = 0
    for j, names in enumerate(channels):
        order = [n[0] for n in names if n.endswith("rotation")]
        where = [column + i for i, n in enumerate(names) if n.endswith("rotation")]
        if order:
            rotmats[:, j] = euler_to_rotmat(rows[:, where], "".join(order))
        if j == 0:
            for i, n in enumerate(names):
                if n.endswith("position"):
                    root[:, "XYZ".index(n[0])] = rows[:, column + i]
        column += len(names)
    rest = np.asarray(offsets, dtype=np.float64) * scale
    rest[0] = 0.0
    rate = float(fps) if fps is not None else 1.0 / frame_time
    return SourceMotion(path.stem, tuple(joints), tuple(parents), rest, rotmats, root * scale, rate)


def _hierarchy(tokens: list[str], name: str) -> tuple[list[str], list[int], list[list[float]], list[list[str]]]:
    joints: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    i = 0
    try:
        while i < len(tokens):
            word = tokens[i]
            if word in ("ROOT", "JOINT", "End"):
                joints.append(joints[stack[-1]] + "_end" if word == "End" else tokens[i + 1])
                parents.append(stack[-1] if stack else -1)
                offsets.append([0.0, 0.0, 0.0])
                channels.append([])
                i += 2
            elif word == "{":
                stack.append(len(joints) - 1)
                i += 1
            elif word == "}":
                stack.pop()
                i += 1
            elif word == "OFFSET":
                offsets[stack[-1]] = [float(t) for t in tokens[i + 1 : i + 4]]
                i += 4
            elif word == "CHANNELS":
                count = int(tokens[i + 1])
                channels[stack[-1]] = tokens[i + 2 : i + 2 + count]
                i += 2 + count
            elif word == "HIERARCHY":
                i += 1
            else:
                raise ValueError(f"unexpected word {word!r}")
    except (IndexError, ValueError) as error:
        raise ShapeError(f"{name}: the HIERARCHY cannot be read ({error}).") from None
    known = {axis + kind for axis in "XYZ" for kind in ("rotation", "position")}
    if not joints or stack or any(set(c) - known for c in channels):
        raise ShapeError(f"{name}: the HIERARCHY has no root, an open brace or an unknown channel.")
    return joints, parents, offsets, channels
