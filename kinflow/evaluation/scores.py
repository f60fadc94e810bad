"""Scores of one person: every metric of a protocol, frame by frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import metrics
from ..datasets.recording import Recording
from ..errors import UsageError
from ..reconstruction.geometry import ray_rotmat
from ..skeleton import SMPL_JOINTS
from .bodies import Bodies
from .predictions import Parameters, Prediction, to_world, true_joints, true_parameters
from .protocols import Protocol

_PIECE = 128
"""Frames whose meshes are held at once."""
_FEET = tuple(SMPL_JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("ankle", "foot"))
BONES = {
    "thigh": ("hip", "knee"), "shin": ("knee", "ankle"), "upper arm": ("shoulder", "elbow"), "forearm": ("elbow", "wrist"),
    "hips apart": ("hip", "hip"), "shoulders apart": ("shoulder", "shoulder"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is printed.

    Attributes:
        title: its name in the field. unit: of what is stored. what: one line.
    """

    title: str
    unit: str
    what: str


METRICS: dict[str, Metric] = {
    "pa_mpjpe": Metric("PA-MPJPE", "mm", "joint error after a similarity alignment of each frame"),
    "mpjpe": Metric("MPJPE", "mm", "joint error after both roots were moved onto each other"),
    "pve": Metric("PVE", "mm", "vertex error"),
    "accel": Metric("Accel", "", "acceleration error of root-relative joints"),
    "jerk": Metric("Jerk", "m/s^3", "jerk error of root-relative joints"),
    "pck50": Metric("PCK@50", "%", "joints within 50 mm of the truth, root-relative"),
    "auc": Metric("AUC", "%", "mean of PCK over thresholds from 0 to 200 mm"),
    "w_mpjpe": Metric("W-MPJPE", "mm", "24 joints in the world, each 100 frames aligned by their first two"),
    "wa_mpjpe": Metric("WA-MPJPE", "mm", "24 joints in the world, each 100 frames aligned as a whole"),
    "rte": Metric("RTE", "%", "pelvis' path after one rigid alignment, of the path's length"),
    "sliding": Metric("Foot sliding", "mm/frame", "ankles and feet that stand in truth (slower than 0.3 m/s)"),
    "nll": Metric("NLL", "nats", "of the joints' errors about the pelvis under the predicted deviations, a joint"),
    "cover50": Metric("in 50 %", "%", "joints inside the ball that should hold half of them"),
    "cover90": Metric("in 90 %", "%", "joints inside the ball that should hold nine tenths of them"),
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """One person's scores over T frames.

    Attributes:
        sequence, person: whose.
        frames: T. counted: frames that count under the protocol. found: those of them that have a prediction.
        metrics: by key of :data:`METRICS`, (T,) in its unit, NaN where it is not defined: frames that do not count or were not
            found, differences that would cross a gap.
        joints: by joint, its mean error in mm (as in MPJPE).
        bones: by name of :data:`BONES`, mean length in m in the truth and in the prediction.
    """

    sequence: str
    person: int
    frames: int
    counted: int
    found: int
    metrics: dict[str, NDArray[np.float64]]
    joints: dict[str, float]
    bones: dict[str, tuple[float, float]]

    @property
    def name(self) -> str:
        return f"{self.sequence}_{self.person}"

    def mean(self, key: str) -> float:
        """Mean over the frames in which a metric is defined; NaN where there are none."""
        values = self.metrics.get(key, np.empty(0))
        values = values[np.isfinite(values)]
        return float(values.mean()) if len(values) else float("nan")

    def record(self) -> dict[str, Any]:
        """For a line of JSON: values to 4 decimals, null where not defined."""

        def rounded(values: NDArray[np.float64]) -> list[float | None]:
            return [round(v, 4) if np.isfinite(v) else None for v in values.tolist()]

        return {
            **{k: getattr(self, k) for k in ("sequence", "person", "frames", "counted", "found")},
            "metrics": {k: rounded(v) for k, v in self.metrics.items()},
            "joints": {k: round(v, 4) for k, v in self.joints.items()},
            "bones": {k: [round(a, 4), round(b, 4)] for k, (a, b) in self.bones.items()},
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Scores:
        """The inverse of :meth:`record`."""
        values = {k: np.array(v, np.float64) for k, v in record["metrics"].items()}  # null becomes NaN
        bones = {k: (float(a), float(b)) for k, (a, b) in record["bones"].items()}
        plain = {k: record[k] for k in ("sequence", "person", "frames", "counted", "found")}
        return cls(**plain, metrics=values, joints=dict(record["joints"]), bones=bones)


@torch.no_grad()
def score(prediction: Prediction, recording: Recording, protocol: Protocol, bodies: Bodies) -> Scores:
    """Score one person under a protocol.

    Args:
        prediction: over the recording's frames.
        recording: with the truth that the protocol takes: SMPL parameters, or the 24 joints.
        protocol: what is compared.
        bodies: the meshes and the regressor that the protocol needs.

    Raises:
        UsageError: a prediction without SMPL parameters under a protocol of meshes, unless limbs alone are compared.
        ShapeError, MissingAssetError, FormatError: a truth or files that the protocol needs are not there.
    """
    counted = torch.from_numpy(protocol.counts(recording))
    use = counted & prediction.found
    rows = use.nonzero()[:, 0]
    truth24, mine, truth, pve = _points(prediction, recording, protocol, bodies, rows)
    out = {key: np.full(len(recording), np.nan) for key in METRICS}
    known = (
        torch.isfinite(mine).all(-1).all(0) if len(rows) else torch.ones(len(protocol.joints.names), dtype=torch.bool)
    )
    joints: dict[str, float] = {}
    if len(rows):
        names = tuple(name for name, has in zip(protocol.joints.names, known.tolist(), strict=True) if has)
        compared = protocol.joints if bool(known.all()) else protocol.joints.subset(names)
        mine, truth = mine[:, known], truth[:, known]
        errors = metrics.joint_errors(mine, truth, compared.root_index)
        joints = dict(zip(compared.names, (1000 * errors.mean(0)).tolist(), strict=True))
        per_frame = {
            "mpjpe": 1000 * errors.mean(-1), "pa_mpjpe": 1000 * metrics.pa_mpjpe(mine, truth),
            "pck50": 100 * metrics.pck3d(errors), "auc": 100 * metrics.auc3d(errors),
        }  # fmt: skip
        if pve is not None:
            per_frame["pve"] = 1000 * pve
        for key, values in per_frame.items():
            out[key][rows.numpy()] = values.numpy()
        times = torch.from_numpy(recording.timestamps)
        _in_time(out, mine, truth, compared.root_index, times, use, protocol)
        joints24 = prediction.joints3d[rows].double()
        if bool(torch.isfinite(joints24).all()):
            if prediction.placed:
                _in_world(out, joints24, truth24, recording, times, use)
            if prediction.joints3d_std is not None:
                _deviations(out, joints24, truth24, prediction.joints3d_std[rows].double(), rows)
    kept = {key: values for key, values in out.items() if np.isfinite(values).any()}
    return Scores(
        recording.sequence, recording.person, len(recording), int(counted.sum()), len(rows), kept, joints,
        _bones(prediction.joints3d[rows].double(), truth24),
    )  # fmt: skip


def _points(
    prediction: Prediction, recording: Recording, protocol: Protocol, bodies: Bodies, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The truth's 24 joints, the protocol's joints of prediction and truth (F, J, 3), and the vertex error (F,) of frames ``rows``."""
    if protocol.mesh is None:
        truth24 = true_joints(recording)[rows].double()
        index = [SMPL_JOINTS.index(name) for name in protocol.joints.names]
        return truth24, prediction.joints3d[rows][:, index].double(), truth24[:, index], None
    gender = "neutral" if protocol.mesh == "neutral" or recording.smpl is None else recording.smpl.gender
    true = true_parameters(recording, bodies.smpl(gender))
    truth24 = true.joints()[rows].double()
    mine = prediction.parameters
    empty = torch.zeros(0, len(protocol.joints.names), 3, dtype=torch.float64)
    if mine is None:
        truth = torch.cat([empty, *(_posed(true, protocol, bodies, part)[1].cpu() for part in rows.split(_PIECE))])
        return truth24, _by_name(prediction, protocol, rows), truth, None
    pieces = [_compare_meshes(mine, true, protocol, bodies, part) for part in rows.split(_PIECE)] if len(rows) else []
    if not pieces:
        return truth24, empty, empty, None
    joints, truth, pve = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return truth24, joints, truth, pve


def _posed(parameters: Parameters, protocol: Protocol, bodies: Bodies, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices and the protocol's joints about the template's origin, and the translation (F, 1, 3) of some frames."""
    betas, pose, transl = parameters.rows(rows)
    vertices = parameters.body.vertices(betas, pose).double()
    if protocol.joints.regressor_rows is None:
        index = [SMPL_JOINTS.index(name) for name in protocol.joints.names]
        joints = parameters.body.joints(betas, pose)[:, index].double()
    else:
        joints = bodies.regress(vertices, protocol.joints.regressor_rows)
    return vertices, joints, transl.double()[:, None]


def _compare_meshes(
    mine: Parameters, true: Parameters, protocol: Protocol, bodies: Bodies, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    vertices, joints, transl = _posed(mine, protocol, bodies, rows)
    true_vertices, truth, true_transl = _posed(true, protocol, bodies, rows)
    if vertices.shape != true_vertices.shape:
        raise UsageError(
            f"protocol {protocol.name}: expected a prediction on SMPL's mesh of {true_vertices.shape[-2]} vertices, got "
            f"{vertices.shape[-2]}. Predict with SMPL's neutral body, or use official24."
        )
    if protocol.pve == "root":
        index = list(protocol.joints.root_index)
        pve = metrics.pve(vertices, true_vertices, joints[:, index].mean(-2), truth[:, index].mean(-2))
    else:
        pve = metrics.pve(vertices, true_vertices)
    return (joints + transl).cpu(), (truth + true_transl).cpu(), pve.cpu()


def _by_name(prediction: Prediction, protocol: Protocol, rows: Tensor) -> Tensor:
    """The protocol's joints among the prediction's 24, NaN where those have none."""
    joints = prediction.joints3d[rows].double()
    out = joints.new_full((len(rows), len(protocol.joints.names), 3), torch.nan)
    for i, name in enumerate(protocol.joints.names):
        if name in SMPL_JOINTS and name != "neck":  # SMPL's neck is another place than LSP's
            out[:, i] = joints[:, SMPL_JOINTS.index(name)]
    return out


def _spread(values: Tensor, use: Tensor) -> Tensor:
    """Values of the frames ``use`` (F, ...) at their places among all T, zeros elsewhere."""
    out = values.new_zeros(len(use), *values.shape[1:])
    out[use] = values
    return out


def _in_time(
    out: dict[str, NDArray[np.float64]],
    mine: Tensor,
    truth: Tensor,
    root: tuple[int, ...],
    times: Tensor,
    use: Tensor,
    protocol: Protocol,
) -> None:
    """Acceleration and jerk of root-relative joints, written at the second frame of those that each needs."""
    index = list(root)
    mine, truth = (_spread(x - x[:, index].mean(1, keepdim=True), use) for x in (mine, truth))
    fps = 1 / float(times.diff().median()) if len(times) > 1 else float("nan")
    whole = metrics.successive_valid(use, 3)
    if bool(whole.any()):
        error = metrics.acceleration_error(mine, truth, times)[whole]
        out["accel"][1:-1][whole.numpy()] = protocol.acceleration(error.numpy(), fps)
    whole = metrics.successive_valid(use, 4)
    if bool(whole.any()):
        out["jerk"][1:-2][whole.numpy()] = metrics.jerk_error(mine, truth, times)[whole].numpy()


def _in_world(
    out: dict[str, NDArray[np.float64]], mine: Tensor, truth: Tensor, recording: Recording, times: Tensor, use: Tensor
) -> None:
    """World metrics, camera axes carried to the world by the data set's own camera path."""
    every = [to_world(_spread(x, use), recording) for x in (mine, truth)]
    mine, truth = every[0][use], every[1][use]
    if len(mine) < 2:
        return
    at = use.numpy()
    out["w_mpjpe"][at] = 1000 * metrics.world_mpjpe(mine, truth).numpy()
    out["wa_mpjpe"][at] = 1000 * metrics.world_mpjpe(mine, truth, None).numpy()
    rte = 100 * metrics.root_translation_error(mine[:, 0], truth[:, 0])
    if bool(torch.isfinite(rte).all()):
        out["rte"][at] = rte.numpy()
    sliding = metrics.foot_sliding(every[0][:, _FEET], every[1][:, _FEET], times)
    standing = sliding.standing & metrics.successive_valid(use, 2)[:, None]
    some = standing.any(1)
    mean = 1000 * (sliding.distance * standing).sum(1) / standing.sum(1)
    out["sliding"][1:][some.numpy()] = mean[some].numpy()


def _deviations(out: dict[str, NDArray[np.float64]], mine: Tensor, truth: Tensor, std: Tensor, rows: Tensor) -> None:
    """How honest deviations (F, 24, 2) are, in axes that look along the ray to the predicted pelvis."""
    error = ((mine - mine[:, :1]) - (truth - truth[:, :1])) @ ray_rotmat(mine[:, 0])
    error, std = error[:, 1:], std[:, 1:, [0, 0, 1]].clamp_min(1e-6)
    out["nll"][rows.numpy()] = metrics.gaussian_nll(error, std).mean(-1).numpy()
    for level in (50, 90):
        inside = metrics.covered(error, std, level / 100).double()
        out[f"cover{level}"][rows.numpy()] = 100 * inside.mean(-1).numpy()


def _bones(mine: Tensor, truth: Tensor) -> dict[str, tuple[float, float]]:
    """Mean bone lengths of truth and prediction, left and right together, in m."""
    if not len(mine) or not bool(torch.isfinite(mine).all()):
        return {}

    def length(joints: Tensor, ends: tuple[str, str]) -> float:
        sides = [("left", "right")] if ends[0] == ends[1] else [("left", "left"), ("right", "right")]
        pairs = [[SMPL_JOINTS.index(f"{s}_{e}") for s, e in zip(side, ends, strict=True)] for side in sides]
        return float(torch.stack([(joints[:, a] - joints[:, b]).norm(dim=-1) for a, b in pairs]).mean())

    return {name: (length(truth, ends), length(mine, ends)) for name, ends in BONES.items()}
