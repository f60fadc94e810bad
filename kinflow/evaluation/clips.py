"""A clip whose 3D is known at some points: scores of what was reconstructed from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import metrics
from ..errors import FormatError, UsageError
from ..records import open_npz
from ..skeleton import BLAZEPOSE, LAYOUTS
from .protocols import LIMBS

KINDS: dict[str, str] = {"marks": "blazepose33", "joints": "smpl24", **{name: name for name in LAYOUTS}}
"""What a reference's points are -> the joint set of the body that they are compared with: marked points with points that are
marked alike, joint centres with joint centres."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """Known points of one person of a clip.

    Attributes:
        points: (T, P, 3) m in the camera's axes, NaN where not known. names: of the P points.
        frame_ids: (T,) increasing numbers of the clip's frames, from 0.
        kind: a key of :data:`KINDS`: ``marks`` are BlazePose's, ``joints`` SMPL's; or a joint set by its name.
        K: (3, 3) px, or None where the file has none.
    """

    points: NDArray[np.float64]
    names: tuple[str, ...]
    frame_ids: NDArray[np.int64]
    kind: str
    K: NDArray[np.float64] | None


def read_reference(path: str | Path) -> Reference:
    """Read ``points`` (T, P, 3) and ``names`` (P), or ``blazepose33`` (T, 33, 3); ``frame_ids`` (T), ``kind`` and ``K`` may be
    there too (without them: every frame, marks, unknown).

    Raises:
        MissingAssetError: no such file.
        FormatError, ShapeError: not such an npz, names of nothing, or frames that do not increase.
    """
    path = Path(path)
    with open_npz(path) as npz:
        if "points" in npz:
            points, names = npz.numbers("points", "T P 3").astype(np.float64), tuple(npz.texts("names"))
        else:
            points, names = npz.numbers("blazepose33", "T 33 3").astype(np.float64), BLAZEPOSE
        kind = npz.text("kind") if "kind" in npz else "marks"
        ids = npz.numbers("frame_ids", "T").astype(np.int64) if "frame_ids" in npz else np.arange(len(points))
        K = npz.numbers("K", "3 3").astype(np.float64) if "K" in npz else None
    if kind not in KINDS:
        raise FormatError(f"{path.name}: kind: expected one of {', '.join(KINDS)}, got {kind!r}.")
    unknown = [name for name in names if name not in LAYOUTS[KINDS[kind]]]
    if unknown or len(names) != points.shape[1]:
        raise FormatError(
            f"{path.name}: names: expected {points.shape[1]} names of {kind}, got {len(names)}"
            f"{f', among them {unknown[0]!r}' if unknown else ''}. They are those of kinflow.skeleton."
        )
    if len(ids) != len(points) or not (np.diff(ids) > 0).all():
        raise FormatError(f"{path.name}: frame_ids: expected {len(points)} increasing numbers.")
    return Reference(points, names, ids, kind, K)


@dataclasses.dataclass(frozen=True)
class ClipScores:
    """Mean scores over the frames in which the person was seen and the reference is known.

    Attributes:
        pa_mpjpe, mpjpe: mm. accel: m/s^2. Each the mean over ``frames`` (accel: over stretches of frames in a row).
        found: share of the reference's frames that were seen.
        points: how many are compared.
    """

    pa_mpjpe: float
    mpjpe: float
    accel: float
    frames: int
    found: float
    points: int


def score_points(
    points: Tensor,
    names: Sequence[str],
    frame_ids: NDArray[np.int64],
    seen: NDArray[np.bool_],
    timestamps: NDArray[np.float64],
    reference: Reference,
    limbs: bool = True,
) -> ClipScores:
    """Score points (T', J, 3) m of the ``names`` J that were found in frames ``frame_ids`` (T',) where ``seen`` (T',).

    MPJPE moves the hips' middles onto each other, or the points' means where the reference has no hips.

    Args:
        timestamps: (T',) s of the frames.
        limbs: compare the twelve limb points alone.

    Raises:
        UsageError: fewer than three points or not one frame in common.
    """
    shared = [n for n in reference.names if n in names and (not limbs or n in LIMBS)]
    if len(shared) < 3:
        raise UsageError(
            f"reference: expected at least 3 points to compare, got {', '.join(shared) or 'none'}. Use all points."
        )
    truth_rows = np.searchsorted(reference.frame_ids, frame_ids)
    common = seen & np.isin(frame_ids, reference.frame_ids)
    truth = np.full((len(frame_ids), len(shared), 3), np.nan)
    index = [reference.names.index(name) for name in shared]
    truth[common] = reference.points[truth_rows[common]][:, index]
    use = common & np.isfinite(truth).all((1, 2))
    if not use.any():
        raise UsageError("reference: not one of its frames shows the person. Check that it belongs to the clip.")
    mine = points[:, [list(names).index(name) for name in shared]].double()
    goal = torch.from_numpy(np.where(use[:, None, None], truth, 0.0))
    hips = tuple(i for i, name in enumerate(shared) if name in ("left_hip", "right_hip"))
    root = hips if len(hips) == 2 else tuple(range(len(shared)))
    at = torch.from_numpy(use)
    whole = metrics.successive_valid(at, 3) & (
        torch.from_numpy(frame_ids[2:] - frame_ids[:-2] == 2) if len(use) > 2 else True
    )
    accel = torch.zeros(0)
    if bool(whole.any()):
        relative = [x - x[:, list(root)].mean(1, keepdim=True) for x in (mine, goal)]
        accel = metrics.acceleration_error(relative[0], relative[1], torch.tensor(timestamps))[whole]
    return ClipScores(
        pa_mpjpe=1000 * float(metrics.pa_mpjpe(mine[at], goal[at]).mean()),
        mpjpe=1000 * float(metrics.mpjpe(mine[at], goal[at], root).mean()),
        accel=float(accel.mean()) if len(accel) else float("nan"),
        frames=int(use.sum()),
        found=float(use.sum() / np.isfinite(reference.points[:, index]).all((1, 2)).sum()),
        points=len(shared),
    )
