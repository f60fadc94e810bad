"""Packaged files: the open body, network weights."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingAssetError

FOLDER = Path(__file__).parent


def asset_path(name: str, remedy: str = "Install the package again.") -> Path:
    """Path of a packaged file; `remedy` ends the message where it is not there.

    Raises:
        MissingAssetError: the installation lacks it.
    """
    path = FOLDER / name
    if not path.is_file():
        raise MissingAssetError(f"{name}: missing from this installation of kinflow. {remedy}")
    return path
