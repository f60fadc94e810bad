"""Named points of a body, for the formats that hold points: every joint set that the body carries."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..errors import UsageError
from ..skeleton import LAYOUTS
from .characters import Character

__all__ = ["JOINT_SETS", "points"]

JOINT_SETS: tuple[str, ...] = tuple(LAYOUTS)
"""The joint sets by name."""


def points(person: Character, joint_set: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Names of K points, and their places (T, K, 3) m.

    Raises:
        UsageError: an unknown set, or landmarks of a body file for which none are known.
    """
    check_joint_set(joint_set)
    return LAYOUTS[joint_set], person.keypoints(joint_set)


def check_joint_set(joint_set: str) -> None:
    """Raises UsageError for a set that is not of :data:`JOINT_SETS`."""
    if joint_set not in JOINT_SETS:
        raise UsageError(f"joints: expected one of {', '.join(JOINT_SETS)}, got {joint_set!r}.")
