"""Acclaim files: a skeleton (.asf) and its motion (.amc), as the CMU database gives them out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ShapeError
from .source import Array, SourceMotion, euler_to_rotmat

CMU_UNIT = 2.54 / 45.0
"""Metres per unit of a CMU file: inches at ``:units length 0.45``."""


@dataclass(frozen=True)
class AsfBone:
    """One bone: unit ``direction`` (3,) and ``length`` (file units) at zero pose, axis frame (3, 3), degrees of freedom."""

    name: str
    direction: Array
    length: float
    axis_rotmat: Array
    dof: tuple[str, ...]


@dataclass(frozen=True)
class AsfSkeleton:
    """Bones by name and each bone's parent (``"root"`` for the topmost), parents first; order of the root's values."""

    bones: dict[str, AsfBone]
    parents: dict[str, str]
    root_order: tuple[str, ...]
    degrees: bool


def read_asf(path: str | os.PathLike[str]) -> AsfSkeleton:
    """Read an Acclaim skeleton. Raises ShapeError where a section is missing or a line cannot be read."""
    path = Path(path)
    section, bones, links = "", {}, []
    root_order: tuple[str, ...] = ("TX", "TY", "TZ", "RX", "RY", "RZ")
    degrees = True
    bone: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            if words[0].startswith(":"):
                section = words[0]
            elif section == ":units" and words[0] == "angle":
                degrees = words[1].startswith("deg")
            elif section == ":root" and words[0] == "order":
                root_order = tuple(w.upper() for w in words[1:])
            elif section == ":bonedata":
                if words[0] == "begin":
                    bone = {}
                elif words[0] == "end":
                    made = _bone(bone, degrees)
                    bones[made.name] = made
                elif words[0][0].isalpha():
                    bone[words[0]] = words[1:]
            elif section == ":hierarchy" and words[0] not in ("begin", "end"):
                links += [(child, words[0]) for child in words[1:]]
        except (KeyError, IndexError, ValueError) as error:
            raise ShapeError(f"{path.name}, line {number}: cannot be read as Acclaim ASF ({error}).") from None
    if not bones or not links or any(child not in bones for child, _ in links):
        raise ShapeError(f"{path.name}: expected an ASF file with :bonedata and a :hierarchy of those bones.")
    parents: dict[str, str] = {}
    waiting = list(links)
    while waiting:
        ready = [(c, p) for c, p in waiting if p == "root" or p in parents]
        if not ready:
            raise ShapeError(f"{path.name}: the :hierarchy does not lead to the root.")
        parents.update(ready)
        waiting = [link for link in waiting if link not in ready]
    return AsfSkeleton(bones, parents, root_order, degrees)


def _bone(fields: dict[str, list[str]], degrees: bool) -> AsfBone:
    direction = np.array([float(v) for v in fields["direction"][:3]])
    axis = np.array([float(v) for v in fields["axis"][:3]])
    order = fields["axis"][3] if len(fields["axis"]) > 3 else "XYZ"
    axis = axis if degrees else np.rad2deg(axis)
    dof = tuple(w.lower() for w in fields.get("dof", []))
    # Acclaim's "XYZ" turns about fixed axes, x first: the product is Rz Ry Rx.
    frame = euler_to_rotmat(axis[::-1], order.upper()[::-1])
    return AsfBone(fields["name"][0], direction, float(fields["length"][0]), frame, dof)


def read_asfamc(
    asf_path: str | os.PathLike[str], amc_path: str | os.PathLike[str], scale: float = CMU_UNIT, fps: float = 120.0
) -> SourceMotion:
    """Read a motion and its skeleton.

    A bone becomes the joint at its start, turned by ``C M C^T`` (C the bone's axis frame, M the product ``Rz Ry Rx`` of its
    degrees of freedom), so all frames are world-aligned at zero pose; a bone without children gets a joint
    ``<bone>_end``.

    Args:
        asf_path: the skeleton.
        amc_path: the motion.
        scale: metres per unit.
        fps: frames a second (the file does not say).

    Raises:
        ShapeError: a line that cannot be read, or a bone that the skeleton does not have.
    """
    skeleton = read_asf(asf_path)
    path = Path(amc_path)
    columns, rows = _amc_rows(path, skeleton)

    joints, parents, offsets = ["root"], [-1], [np.zeros(3)]
    for child, parent in skeleton.parents.items():
        joints.append(child)
        parents.append(joints.index(parent))
        above = skeleton.bones.get(parent)
        offsets.append(np.zeros(3) if above is None else above.direction * above.length)
    for leaf in [b for b in skeleton.parents if b not in skeleton.parents.values()]:
        joints.append(leaf + "_end")
        parents.append(joints.index(leaf))
        offsets.append(skeleton.bones[leaf].direction * skeleton.bones[leaf].length)

    rotmats = np.broadcast_to(np.eye(3), (len(rows), len(joints), 3, 3)).copy()
    unit = 1.0 if skeleton.degrees else 180.0 / np.pi
    root = rows[:, columns["root"]]
    order = skeleton.root_order
    turns = [i for i, name in enumerate(order) if name.startswith("R")]
    rotmats[:, 0] = euler_to_rotmat(root[:, turns[::-1]] * unit, "".join(order[i][1] for i in turns[::-1]))
    position = root[:, [order.index(n) for n in ("TX", "TY", "TZ")]]
    for name, where in columns.items():
        if name == "root":
            continue
        bone = skeleton.bones[name]
        order_xyz = "".join(d[1].upper() for d in bone.dof)
        turn = euler_to_rotmat(rows[:, where][:, ::-1] * unit, order_xyz[::-1])
        rotmats[:, joints.index(name)] = bone.axis_rotmat @ turn @ bone.axis_rotmat.T
    return SourceMotion(
        path.stem, tuple(joints), tuple(parents), np.asarray(offsets) * scale, rotmats, position * scale, float(fps)
    )


def _amc_rows(path: Path, skeleton: AsfSkeleton) -> tuple[dict[str, slice], Array]:
    columns: dict[str, slice] = {}
    rows: list[list[float]] = []
    width = 0
    radians_asked = False
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            radians_asked = radians_asked or words[0].upper() == ":RADIANS"
            continue
        if len(words) == 1 and words[0].isdigit():
            rows.append([])
            continue
        try:
            values = [float(w) for w in words[1:]]
        except ValueError as error:
            raise ShapeError(f"{path.name}, line {number}: cannot be read as Acclaim AMC ({error}).") from None
        name = words[0]
        expected = (
            len(skeleton.root_order)
            if name == "root"
            else len(skeleton.bones[name].dof)
            if name in skeleton.bones
            else -1
        )
        if not rows or len(values) != expected:
            raise ShapeError(f"{path.name}, line {number}: {name!r} does not fit the skeleton ({expected} values).")
        if len(rows) == 1:
            columns[name] = slice(width, width + len(values))
            width += len(values)
        elif name not in columns or len(rows[-1]) != columns[name].start:
            raise ShapeError(f"{path.name}, line {number}: the order of bones differs from the first frame's.")
        rows[-1] += values
    if not rows or "root" not in columns or any(len(r) != width for r in rows):
        raise ShapeError(f"{path.name}: expected frames of {width} values each, the root's among them.")
    if radians_asked == skeleton.degrees:
        raise ShapeError(f"{path.name}: the motion and the skeleton disagree about degrees or radians.")
    return columns, np.asarray(rows, dtype=np.float64)
