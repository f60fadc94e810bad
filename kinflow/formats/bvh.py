"""BVH: one person's skeleton and its joint angles, for animation tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..records import atomic_write
from ..skeleton import SMPL_JOINTS, SMPL_PARENTS
from .characters import Character, at_even_rate

__all__ = ["ORDER", "write_bvh"]

ORDER = "ZXY"
"""The axes of each joint's angles, turned from left to right about axes that turn along."""


def write_bvh(path: Path, person: Character) -> None:
    """Write one person: SMPL's 24 joints by name, metres, y up; zero angles are the T-pose.

    The root's offset is zero and its position channels are the pelvis' place, so that readers agree whether they add the two.
    Leaf joints end in sites that repeat their bone. The format knows one rate: uneven time stamps are resampled
    (:func:`~kinflow.formats.characters.at_even_rate`). Angles go on from frame to frame without jumps of full turns.

    Source: Meredith and Maddock, Motion Capture File Formats Explained (2001), section 2.

    Raises:
        OutputError: the file cannot be written.
    """
    person = at_even_rate(person, "BVH")
    lines = ["HIERARCHY"]
    order: list[int] = []
    _joint(0, person.offsets, 0, lines, order)
    lines += ["MOTION", f"Frames: {len(person)}", f"Frame Time: {1 / person.fps:.8f}"]
    angles = euler_without_jumps(person.pose_rotmat)[:, np.array(order)].reshape(len(person), -1)
    rows = np.concatenate((person.pelvis, angles), 1)
    with atomic_write(path) as stream:
        stream.write(("\n".join(lines) + "\n").encode())
        np.savetxt(stream, rows, "%.6f")


def _joint(joint: int, offsets: NDArray[Any], depth: int, lines: list[str], order: list[int]) -> None:
    """Append a joint and all below it, depth first; ``order`` collects the joints as their channels follow."""

    def add(text: str, more: int = 0) -> None:
        lines.append("\t" * (depth + more) + text)

    def place(offset: NDArray[Any]) -> str:
        return "OFFSET " + " ".join(f"{v:.6f}" for v in offset)

    order.append(joint)
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    add(f"{'JOINT' if joint else 'ROOT'} {SMPL_JOINTS[joint]}")
    add("{")
    add(place(offsets[joint] if joint else np.zeros(3)), 1)
    add(f"CHANNELS 3 {turns}" if joint else f"CHANNELS 6 Xposition Yposition Zposition {turns}", 1)
    children = [child for child, parent in enumerate(SMPL_PARENTS) if parent == joint]
    for child in children:
        _joint(child, offsets, depth + 1, lines, order)
    if not children:
        add("End Site", 1)
        add("{", 1)
        add(place(offsets[joint]), 2)
        add("}", 1)
    add("}")


def euler_without_jumps(rotmat: NDArray[Any]) -> NDArray[Any]:
    """Rotations (T, J, 3, 3) as angles (T, J, 3) in degrees about :data:`ORDER`, each frame's next to those of the one before.

    Of the two triples that mean a rotation, and their full turns, the nearest to the last frame's is taken.
    """
    import roma

    angles: NDArray[Any] = roma.rotmat_to_euler(ORDER, torch.from_numpy(rotmat), degrees=True).numpy()
    for now, last in zip(
        angles[1:], angles[:-1], strict=True
    ):  # rows of ``angles``, changed in place one after the other
        other = np.stack((now[:, 0] + 180, 180 - now[:, 1], now[:, 2] + 180), -1)
        steps = [(choice - last + 180) % 360 - 180 for choice in (now, other)]
        shorter = np.abs(steps[0]).sum(-1) <= np.abs(steps[1]).sum(-1)
        now[:] = last + np.where(shorter[:, None], steps[0], steps[1])
    return angles
