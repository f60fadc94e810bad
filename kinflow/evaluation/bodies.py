"""The licensed files that a protocol needs: SMPL's meshes and the field's joint regressor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..body import Body
from ..errors import FormatError, MissingAssetError
from ..records import reading
from .protocols import Protocol

SMPL_HOME = "https://smpl.is.tue.mpg.de"
NEUTRAL_HOME = "https://smplify.is.tue.mpg.de"
REGRESSOR = "J_regressor_h36m.npy"
REGRESSOR_HOME = "the data of SPIN (github.com/nkolot/SPIN) or VIBE (github.com/mkocabas/VIBE)"


class Bodies:
    """SMPL by gender, and the H36M regressor, read when they are first asked for.

    Args:
        folder: ``--body-path``: holds ``SMPL_NEUTRAL``, ``SMPL_MALE``, ``SMPL_FEMALE`` (``.pkl`` or ``.npz``) and
            ``J_regressor_h36m.npy``.
        device: where the meshes are computed.
    """

    def __init__(self, folder: Path | None, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)
        self._bodies: dict[str, Body] = {}
        self._regressor: Tensor | None = None

    def missing(self, protocol: Protocol, neutral: bool = False) -> list[str]:
        """What the protocol, or a system on SMPL's ``neutral`` body, needs and the folder lacks, each with where it is to be had."""
        if protocol.mesh is None and not neutral:
            return []
        if self.folder is None:
            return [
                f"protocol {protocol.name} needs --body-path FOLDER with SMPL_NEUTRAL.pkl ({NEUTRAL_HOME}), SMPL_MALE.pkl "
                f"and SMPL_FEMALE.pkl ({SMPL_HOME}) and {REGRESSOR} ({REGRESSOR_HOME}); on 3DPW official24 needs none of them"
            ]
        genders = ("neutral", "male", "female") if protocol.mesh == "gendered" else ("neutral",)
        lacks = [
            f"SMPL_{gender.upper()}.pkl or .npz in {self.folder} ({NEUTRAL_HOME if gender == 'neutral' else SMPL_HOME})"
            for gender in genders
            if not any(
                (place / f"SMPL_{gender.upper()}{ending}").is_file()
                for place in (self.folder, self.folder / "smpl")
                for ending in (".npz", ".pkl")
            )
        ]
        if protocol.joints.regressor_rows is not None and not (self.folder / REGRESSOR).is_file():
            lacks.append(f"{REGRESSOR} in {self.folder} (from {REGRESSOR_HOME})")
        return lacks

    def smpl(self, gender: str) -> Body:
        """SMPL of a gender, float32, on the device.

        Raises:
            MissingAssetError, FormatError, UsageError: as of :meth:`kinflow.body.Body.from_file`.
        """
        if gender not in self._bodies:
            if self.folder is None:
                raise MissingAssetError(f"body_path: SMPL ({gender}) is needed. Give its folder with --body-path.")
            self._bodies[gender] = Body.from_file(self.folder, gender, "smpl").to(self.device)
        return self._bodies[gender]

    def regress(self, vertices: Tensor, rows: tuple[int, ...]) -> Tensor:
        """Joints (..., J, 3) of posed vertices (..., V, 3), by rows of the H36M regressor.

        Raises:
            MissingAssetError, FormatError: no regressor, or one of other vertices.
        """
        if self._regressor is None:
            self._regressor = self._read_regressor().to(self.device)
        if self._regressor.shape[1] != vertices.shape[-2]:
            raise FormatError(
                f"{REGRESSOR}: expected {vertices.shape[-2]} vertices, those of the mesh, got {self._regressor.shape[1]}. "
                "It belongs to SMPL: use SMPL's files."
            )
        return self._regressor[list(rows)].to(vertices.dtype) @ vertices

    def _read_regressor(self) -> Tensor:
        path = (self.folder or Path()) / REGRESSOR
        if not path.is_file():
            raise MissingAssetError(f"{path}: no such file. It is in {REGRESSOR_HOME}.")
        with reading(path):
            value = np.load(path, allow_pickle=False).astype(np.float32)
        if value.ndim != 2 or value.shape[0] != 17 or not np.isfinite(value).all():
            raise FormatError(f"{path.name}: expected finite numbers (17, V), got {value.shape}. Download it again.")
        return torch.from_numpy(value)
