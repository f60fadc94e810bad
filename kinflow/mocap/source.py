"""The common form of every motion-capture source: a skeleton of any names, and its motion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ShapeError, UsageError, check_shape
from ..rotations import slerp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SourceMotion:
    """A skeleton and its motion, as a file holds them.

    Attributes:
        name: the file's stem.
        joints: J names; a chain's end is a joint too, named ``<parent>_end``, and never turns.
        parents: J indices, parents first; the root's is -1.
        offsets: (J, 3) m, from the parent joint, in the parent's frame.
        rotmats: (T, J, 3, 3) rotation of a joint relative to its parent.
        root_positions: (T, 3) m in the file's own world axes.
        fps: frames a second.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Array
    rotmats: Array
    root_positions: Array
    fps: float

    def __post_init__(self) -> None:
        joints = len(self.joints)
        check_shape("offsets", self.offsets, f"{joints} 3")
        frames = check_shape("rotmats", self.rotmats, f"T {joints} 3 3")["T"]
        check_shape("root_positions", self.root_positions, f"{frames} 3")
        if len(self.parents) != joints or any(p >= i for i, p in enumerate(self.parents)):
            raise ShapeError("parents: expected one index a joint, each smaller than the joint's own.")

    def index(self, joint: str) -> int:
        """Index of a joint by name. Raises UsageError where the skeleton has none of that name."""
        if joint not in self.joints:
            raise UsageError(f"{self.name}: the skeleton has no joint {joint!r}; it has {', '.join(self.joints)}.")
        return self.joints.index(joint)

    def global_rotmats(self) -> Array:
        """(T, J, 3, 3) rotation of each joint relative to the world."""
        out = np.empty_like(self.rotmats)
        for j, parent in enumerate(self.parents):
            out[:, j] = self.rotmats[:, j] if parent < 0 else out[:, parent] @ self.rotmats[:, j]
        return out

    def positions(self, global_rotmats: Array | None = None) -> Array:
        """(T, J, 3) m, joint positions in the file's world axes, by forward kinematics."""
        turned = self.global_rotmats() if global_rotmats is None else global_rotmats
        out = np.empty(self.rotmats.shape[:2] + (3,))
        for j, parent in enumerate(self.parents):
            out[:, j] = self.root_positions if parent < 0 else out[:, parent] + turned[:, parent] @ self.offsets[j]
        return out

    def frames(self, start: int, stop: int | None = None) -> SourceMotion:
        """The motion's frames from ``start`` to before ``stop``."""
        return replace(self, rotmats=self.rotmats[start:stop], root_positions=self.root_positions[start:stop])


def euler_to_rotmat(angles_deg: Array, order: str) -> Array:
    """Intrinsic Euler angles in degrees (..., k) and their axes, e.g. ``"ZYX"``, -> (..., 3, 3).

    The product is from left to right, ``Rz Ry Rx`` for ``"ZYX"``, acting on column vectors (BVH's rule).
    """
    if angles_deg.shape[-1] != len(order) or set(order) - set("XYZ"):
        raise ShapeError(f"angles_deg: expected one angle for each of {order!r}, got {angles_deg.shape[-1]}.")
    out = np.broadcast_to(np.eye(3), angles_deg.shape[:-1] + (3, 3))
    for i, axis in enumerate(order):
        a = np.deg2rad(angles_deg[..., i])
        turn = np.zeros(a.shape + (3, 3))
        k = "XYZ".index(axis)
        m, n = (k + 1) % 3, (k + 2) % 3
        turn[..., k, k] = 1.0
        turn[..., m, m] = turn[..., n, n] = np.cos(a)
        turn[..., n, m] = np.sin(a)
        turn[..., m, n] = -np.sin(a)
        out = out @ turn
    return np.ascontiguousarray(out)


def between(a_rotmat: Array, b_rotmat: Array, part: float | Array) -> Array:
    """:func:`kinflow.rotations.slerp` of arrays; ``part`` is broadcast."""
    return slerp(
        torch.from_numpy(a_rotmat), torch.from_numpy(b_rotmat), torch.as_tensor(part, dtype=torch.float64)
    ).numpy()
