"""What other trackers leave behind, in the files that they write: VIBE's, PARE's, WHAM's and AIST++'s pickles, GVHMR's torch
file.

Read to named arrays of one person, without running anything in them, and written as an npz that
:mod:`kinflow.formats.pose_files` takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..datasets.pickles import load_numpy_pickle
from ..errors import FormatError, MissingAssetError, ShapeError, UsageError
from ..records import atomic_write, reading

ENDINGS = (".pkl", ".pickle", ".pt", ".pth")
_SIDES = ("smpl_params_global", "smpl_params_incam")
"""GVHMR's groups: the pose in the world, and before the camera."""


def read_tracker_file(path: str | os.PathLike[str], person: str | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of one person in a tracker's file, by the names that they have there.

    A pickle holds arrays (AIST++, brought to metres by its own scale), or one such dict for each person (VIBE, PARE, WHAM). A torch file holds tensors, or GVHMR's groups:
    those of the world keep their names, root orientation and translation before the camera become ``global_orient_incam`` and
    ``transl_incam``.

    Args:
        person: which, by the tracker's own number or name; may be left out where there is but one.

    Raises:
        MissingAssetError: no such file.
        FormatError: damaged, or it holds other things than arrays.
        UsageError: several people and none chosen, or one who is not there.
        ShapeError: no arrays in it.
    """
    path = Path(path)
    data = load_numpy_pickle(path) if path.suffix in (".pkl", ".pickle") else _tensors(path)
    if not isinstance(data, Mapping):
        raise FormatError(f"{path.name}: expected named arrays or people, got a {type(data).__name__}.")
    if set(_SIDES) & set(data):
        data = _sides(data)
    people = {str(name): value for name, value in data.items() if isinstance(value, Mapping)}
    if people and len(people) == len(data):
        names = ", ".join(people)
        if person is None and len(people) > 1:
            raise UsageError(f"person: {path.name} holds {len(people)} people: {names}. Choose one with --person.")
        if person is not None and person not in people:
            raise UsageError(f"person: {path.name} has no {person!r}, but {names}.")
        data = people[person] if person is not None else next(iter(people.values()))
    elif person is not None:
        raise UsageError(f"person: {path.name} holds one person without a name. Leave --person out.")
    arrays = {
        str(name): np.asarray(value) for name, value in data.items() if isinstance(value, (np.ndarray, float, int))
    }
    arrays = {name: value for name, value in arrays.items() if value.dtype.kind in "biuf"}
    if "smpl_scaling" in arrays and "smpl_trans" in arrays:  # AIST++'s scenes are not in metres
        with reading(path, "smpl_scaling"):
            arrays["smpl_trans"] = arrays["smpl_trans"] / arrays["smpl_scaling"]
            arrays["smpl_scaling"] = np.ones_like(arrays["smpl_scaling"])
    if not arrays:
        raise ShapeError(f"{path.name}: expected arrays of body pose, got {', '.join(map(str, data)) or 'nothing'}.")
    return arrays


def unpack_tracker_file(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], person: str | None = None
) -> Path:
    """Write the arrays of :func:`read_tracker_file` to an npz of the same name in ``folder``.

    Raises: as there; OutputError: it cannot be written.
    """
    out = Path(folder) / f"{Path(path).stem}.npz"
    arrays = read_tracker_file(path, person)
    with atomic_write(out) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stubs take names for options
    return out


def _tensors(path: Path) -> Any:
    """A torch file's tensors as arrays, groups as dicts."""
    if not path.is_file():
        raise MissingAssetError(f"{path}: no such file.")
    try:
        return _arrays(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever damaged archives lead to
        reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise FormatError(
            f"{path.name}: cannot be read as tensors ({reason}). Copy the file again, or save tensors alone in it."
        ) from None


def _arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().float().numpy() if value.dtype in (torch.bfloat16, torch.half) else value.detach().numpy()
    return {k: _arrays(v) for k, v in value.items()} if isinstance(value, dict) else value


def _sides(data: Mapping[Any, Any]) -> dict[str, Any]:
    world, camera = (dict(data.get(side, {})) for side in _SIDES)
    if not world:
        return camera
    return {**world, **{f"{k}_incam": camera[k] for k in ("global_orient", "transl") if k in camera}}
