"""How a figure comes about, as data: figures of different protocols are not comparable, so each is printed with its own.

``vibe`` and ``wham`` follow what the evaluation code of VIBE (Kocabas et al., CVPR 2020) and WHAM (Shin et al., CVPR 2024)
computes on 3DPW; ``official24`` takes that data set's own joints; ``emdb24`` follows WHAM's code on EMDB. In all of them differences in time are taken inside stretches
of frames that count, never across a gap or a sequence's end; docs/benchmark.md says where the originals do otherwise.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..datasets.recording import Recording
from ..errors import UsageError
from ..skeleton import SMPL_JOINTS

LSP14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
H36M_ROWS = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""Rows of ``J_regressor_h36m.npy`` that are LSP's 14 joints, in LSP's order."""
LIMBS = tuple(
    f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
"""The twelve joints that every joint set names."""


@dataclasses.dataclass(frozen=True)
class JointSet:
    """The joints that are compared.

    Attributes:
        name: as it is printed.
        names: of its J joints.
        root: joints whose mean is moved to the origin.
        regressor_rows: rows of the H36M regressor over the posed mesh that they are, or None for SMPL's own 24 joints.
    """

    name: str
    names: tuple[str, ...]
    root: tuple[str, ...]
    regressor_rows: tuple[int, ...] | None = None

    @property
    def root_index(self) -> tuple[int, ...]:
        return tuple(self.names.index(name) for name in self.root)

    def subset(self, names: tuple[str, ...]) -> JointSet:
        """Only those of ``names`` that it has, with the hips' middle as root where its own is not among them."""
        kept = [i for i, name in enumerate(self.names) if name in names]
        root = self.root if all(name in names for name in self.root) else ("left_hip", "right_hip")
        rows = None if self.regressor_rows is None else tuple(self.regressor_rows[i] for i in kept)
        return JointSet(f"{self.name}, {len(kept)} of its joints", tuple(self.names[i] for i in kept), root, rows)


_LSP = JointSet("LSP's 14 joints by the H36M regressor", LSP14, ("left_hip", "right_hip"), H36M_ROWS)
_SMPL = JointSet("SMPL's 24 joints", SMPL_JOINTS, ("pelvis",))
_SMPL_HIPS = JointSet("SMPL's 24 joints", SMPL_JOINTS, ("left_hip", "right_hip"))

Mesh = Literal["neutral", "gendered"]
Frames = Literal["keypoints", "valid"]
Pve = Literal["origin", "root"]
AccelerationUnit = Literal["mm/frame^2", "m/s^2"]

_SAID = {
    "neutral": "neutral SMPL mesh with the truth's pose and its (gendered) shape coefficients",
    "gendered": "SMPL mesh of each person's gender",
    None: "the data set's own joint positions, no mesh",
    "keypoints": "frames with more than 6 limb keypoints of confidence above 0.3",
    "valid": "frames that the data set marks as valid",
    "origin": "PVE: both meshes at SMPL's template origin, not root-aligned",
    "root": "PVE: both meshes root-aligned",
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is compared, and how.

    Attributes:
        name: of the protocol.
        joints: the joints, and the root that is taken away for MPJPE, PVE and differences in time.
        mesh: which mesh the truth is: ``neutral``, ``gendered``, or None: the joints of the file, and no PVE.
        frames: which frames count: ``keypoints`` or ``valid``.
        pve: how meshes are put onto each other: at the template's ``origin``, at the joints' ``root``, or None.
        acceleration_unit: of the acceleration error.
        source: whose it is.
    """

    name: str
    joints: JointSet
    mesh: Mesh | None
    frames: Frames
    pve: Pve | None
    acceleration_unit: AccelerationUnit
    source: str

    def counts(self, recording: Recording) -> NDArray[np.bool_]:
        """Which frames (T,) of a recording count."""
        if self.frames == "valid" or recording.confidence is None:
            return recording.valid.copy()
        limbs = [i for i, name in enumerate(recording.layout) if name in LIMBS]
        return (recording.confidence[:, limbs] > 0.3).sum(1) > 6

    def acceleration(self, metres_per_s2: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
        """The acceleration error in this protocol's unit."""
        return metres_per_s2 * (1000 / fps**2 if self.acceleration_unit == "mm/frame^2" else 1)

    def describe(self) -> str:
        """One paragraph, to be printed with every figure."""
        parts = [
            f"protocol {self.name} ({self.source}): {self.joints.name}, root = {' and '.join(self.joints.root)}",
            f"truth: {_SAID[self.mesh]}",
            _SAID[self.frames],
            *([_SAID[self.pve]] if self.pve else []),
            f"acceleration in {self.acceleration_unit}, inside stretches of frames that count",
        ]
        return "; ".join(parts) + "."


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("vibe", _LSP, "neutral", "keypoints", "origin", "mm/frame^2", "VIBE, CVPR 2020"),
        Protocol("wham", _LSP, "gendered", "valid", "root", "m/s^2", "WHAM, CVPR 2024"),
        Protocol("official24", _SMPL, None, "valid", None, "m/s^2", "3DPW's own joints"),
        Protocol("emdb24", _SMPL_HIPS, "gendered", "valid", "root", "m/s^2", "WHAM's evaluation of EMDB"),
    )
}
OF_DATA_SET = {"3dpw": ("vibe", "wham", "official24"), "emdb": ("emdb24",)}
"""Which protocols a data set is measured by."""
JointChoice = Literal["all", "limbs"]


def find_protocol(name: str, joints: str = "all", dataset: str | None = None) -> Protocol:
    """The protocol of a name; ``joints="limbs"`` compares the twelve limb joints alone, as those have that know no others.

    Raises:
        UsageError: a name that is none, or none for this data set.
    """
    names = tuple(PROTOCOLS) if dataset is None else OF_DATA_SET[dataset]
    if name not in names:
        raise UsageError(f"protocol: expected one of {', '.join(names)}, got {name!r}.")
    if joints not in typing.get_args(JointChoice):
        raise UsageError(f"joints: expected all or limbs, got {joints!r}.")
    protocol = PROTOCOLS[name]
    return protocol if joints == "all" else dataclasses.replace(protocol, joints=protocol.joints.subset(LIMBS))
