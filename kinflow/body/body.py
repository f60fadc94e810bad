"""The body as a module: joints, joint sets and vertices from shape, pose and translation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError, check_path, check_shape
from ..skeleton import BLAZEPOSE, NUM_JOINTS
from .files import BodyArrays, read_open
from .joint_sets import SKIN_CARRIERS, set_weights
from .kinematics import forward_kinematics, skin, skin_one_shape
from .licensed import read_licensed

NUM_BETAS = 10


class Body(nn.Module):
    """A body in SMPL's format: 24 joints, 10 shape coefficients, linear blend skinning.

    At zero pose a T-pose: y up, facing +z, the subject's left at +x, metres. Every method takes

    * ``betas`` (..., 10): shape coefficients of unit variance; on the open body ``betas[0]`` is stature;
    * ``pose_rotmat`` (..., 24, 3, 3): each joint's rotation relative to its parent, the root's first;
    * ``transl`` (..., 3) m, or None: added to everything. As with SMPL it is not the root joint's place, which lies
      at ``transl`` plus the root joint's own rest position;

    whose leading dimensions broadcast; numpy arrays are taken in the body's own type. Buffers follow ``.to(...)``; results have the inputs' dtype where that agrees
    with the buffers'. Everything is differentiable.

    Source: Loper et al., SMPL: A Skinned Multi-Person Linear Model, SIGGRAPH Asia 2015, eq. (2)-(7).

    >>> body = Body.open("light")
    >>> pose = torch.eye(3).expand(5, 24, 3, 3)
    >>> body.joints(torch.zeros(10), pose).shape
    torch.Size([5, 24, 3])
    """

    v_template: Tensor
    shapedirs: Tensor
    weights: Tensor
    faces: Tensor
    part_labels: Tensor
    joint_template: Tensor
    joint_shapedirs: Tensor
    posedirs: Tensor | None
    landmark_joints: Tensor
    landmark_offsets: Tensor
    landmark_shapedirs: Tensor
    skin_joints: Tensor
    skin_offsets: Tensor
    skin_shapedirs: Tensor

    def __init__(self, arrays: BodyArrays, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.name = arrays.name
        self.provenance = arrays.provenance

        def buffer(name: str, value: np.ndarray | None, kind: torch.dtype) -> None:
            tensor = None if value is None else torch.as_tensor(np.ascontiguousarray(value)).to(kind)
            self.register_buffer(name, tensor, persistent=False)

        buffer("v_template", arrays.v_template, dtype)
        buffer("shapedirs", arrays.shapedirs, dtype)
        buffer("weights", arrays.weights, dtype)
        buffer("posedirs", arrays.posedirs, dtype)
        buffer("faces", arrays.faces, torch.int64)
        buffer("part_labels", arrays.weights.argmax(1), torch.int64)
        buffer("joint_template", arrays.joint_template, dtype)
        buffer("joint_shapedirs", arrays.joint_shapedirs, dtype)
        has = arrays.landmark_joints is not None
        buffer("landmark_joints", arrays.landmark_joints, torch.int64)
        buffer("landmark_offsets", arrays.landmark_offsets if has else None, dtype)
        buffer("landmark_shapedirs", arrays.landmark_shapedirs if has else None, dtype)
        buffer("skin_joints", np.array(SKIN_CARRIERS), torch.int64)
        buffer("skin_offsets", arrays.skin_offsets if has else None, dtype)
        buffer("skin_shapedirs", arrays.skin_shapedirs if has else None, dtype)

    @classmethod
    def open(cls, resolution: str = "full") -> Body:
        """The packaged open body: ``full`` (12,272 vertices) or ``light`` (about 2,000, a subset of them).

        Raises:
            UsageError: an unknown resolution.
            MissingAssetError: the installation lacks the file.
        """
        return cls(read_open(resolution))

    @classmethod
    def from_file(cls, path: str | Path, gender: str = "neutral", model_type: str | None = None) -> Body:
        """A licensed SMPL, SMPL-H or SMPL-X file (.pkl or .npz), loaded through smplx.

        Args:
            path: the model file.
            gender: ``neutral``, ``male`` or ``female``; only kept in the name, the file itself decides the shape.
            model_type: ``smpl``, ``smplh`` or ``smplx``; told from the number of joints where not given.

        The finger, jaw and eye joints of SMPL-H and SMPL-X, which kinflow never turns, are folded into their parents
        (exact); joints 22 and 23 are the middle fingers' knuckles.

        Raises:
            MissingAssetError: no such file.
            UsageError: not a model of the SMPL family.
        """
        return cls(read_licensed(check_path("path", path), gender, model_type))

    @property
    def num_vertices(self) -> int:
        return self.v_template.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.v_template.dtype

    @property
    def device(self) -> torch.device:
        return self.v_template.device

    # -- rest --------------------------------------------------------------------------------------------------

    def rest_joints(self, betas: Tensor) -> Tensor:
        """Joints at zero pose: betas (..., 10) -> (..., 24, 3) m."""
        return _linear(self.joint_template, self.joint_shapedirs, self._tensor(betas))

    def rest_vertices(self, betas: Tensor) -> Tensor:
        """Vertices at zero pose: betas (..., 10) -> (..., V, 3) m."""
        return _linear(self.v_template, self.shapedirs, self._tensor(betas))

    def height(self, betas: Tensor) -> Tensor:
        """Stature at zero pose, floor to crown: betas (..., 10) -> (...) m."""
        rest = self.rest_vertices(betas)[..., 1]
        return rest.amax(-1) - rest.amin(-1)

    # -- posed -------------------------------------------------------------------------------------------------

    def transforms(self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """World rotations (..., 24, 3, 3) and positions (..., 24, 3) m of the joints."""
        betas, pose_rotmat, transl = self._checked(betas, pose_rotmat, transl)
        rotations, positions = forward_kinematics(pose_rotmat, self.rest_joints(betas))
        return rotations, positions if transl is None else positions + transl[..., None, :]

    def joints(self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None) -> Tensor:
        """The 24 joints (..., 24, 3) m."""
        return self.transforms(betas, pose_rotmat, transl)[1]

    def landmarks(self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None) -> Tensor:
        """BlazePose's 33 landmarks (..., 33, 3) m, in the order of :data:`kinflow.skeleton.BLAZEPOSE`.

        Raises:
            UsageError: a body file of unknown topology, for which no landmarks are defined.
        """
        return self.joints_and_landmarks(betas, pose_rotmat, transl)[1]

    def joints_and_landmarks(
        self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Joints (..., 24, 3) m and landmarks (..., 33, 3) m with one pass of forward kinematics.

        A landmark is carried rigidly by one joint, at an offset in that joint's frame that is linear in ``betas``.
        """
        self._check_landmarks()
        rotations, positions = self.transforms(betas, pose_rotmat, transl)
        offsets = _linear(self.landmark_offsets, self.landmark_shapedirs, self._tensor(betas))
        return positions, _carried(rotations, positions, self.landmark_joints, offsets)

    def keypoints(self, joint_set: str, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None) -> Tensor:
        """The points (..., N, 3) m of a joint set, each where its annotators mark it; no mesh is computed.

        Args:
            joint_set: ``coco17``, ``body25``, ``openpose18``, ``halpe26``, ``h36m17``, ``smpl24`` or ``blazepose33``: names and
                order are :data:`kinflow.skeleton.LAYOUTS`'. docs/body.md says where each point lies, and how surely.
            betas, pose_rotmat, transl: see the class.

        Each point is a weighted mean of joints, landmarks, and points of the skin that one joint carries rigidly, linear in
        ``betas`` in that joint's frame.

        Raises:
            UsageError: an unknown set, or a set other than ``smpl24`` of a body file of unknown topology.

        >>> body = Body.open("light")
        >>> body.keypoints("coco17", torch.zeros(10), torch.eye(3).expand(5, 24, 3, 3)).shape
        torch.Size([5, 17, 3])
        """
        weights = set_weights(joint_set)
        if joint_set == "smpl24":
            return self.joints(betas, pose_rotmat, transl)
        self._check_landmarks()
        rotations, positions = self.transforms(betas, pose_rotmat, transl)
        betas = self._tensor(betas)
        offsets = torch.cat(
            (
                _linear(self.landmark_offsets, self.landmark_shapedirs, betas),
                _linear(self.skin_offsets, self.skin_shapedirs, betas),
            ),
            -2,
        )
        carriers = torch.cat((self.landmark_joints, self.skin_joints))
        points = torch.cat((positions, _carried(rotations, positions, carriers, offsets)), -2)
        return torch.tensor(weights, dtype=points.dtype, device=points.device) @ points

    def vertices(
        self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None, vertex_ids: Tensor | None = None
    ) -> Tensor:
        """Skinned vertices (..., V, 3) m.

        Args:
            betas, pose_rotmat, transl: see the class.
            vertex_ids: (V',) indices; only these are computed. All by default.
        """
        betas, pose_rotmat, transl = self._checked(betas, pose_rotmat, transl)
        rotations, positions = self.transforms(betas, pose_rotmat)
        lead = rotations.shape[:-3]
        template, shapedirs, weights = self.v_template, self.shapedirs, self.weights
        if vertex_ids is not None:
            template, shapedirs, weights = template[vertex_ids], shapedirs[vertex_ids], weights[vertex_ids]
        shape = _one_shape(betas)
        if self.posedirs is None and shape is not None:
            rest = _linear(template, shapedirs, shape)
            rows = (rotations.reshape(-1, NUM_JOINTS, 3, 3), positions.reshape(-1, NUM_JOINTS, 3))
            skinned = skin_one_shape(rest, weights, *rows, self.rest_joints(shape))
            skinned = skinned.reshape(*lead, *skinned.shape[-2:])
        else:
            rest = _linear(template, shapedirs, betas)
            if self.posedirs is not None:
                posedirs = self.posedirs if vertex_ids is None else self.posedirs[vertex_ids]
                eye = torch.eye(3, dtype=pose_rotmat.dtype, device=pose_rotmat.device)
                feature = (pose_rotmat[..., 1 : 1 + posedirs.shape[-1] // 9, :, :] - eye).flatten(-3)
                rest = rest + (feature @ posedirs.flatten(0, 1).T).unflatten(-1, (-1, 3))
            skinned = skin(rest, weights, rotations, positions, self.rest_joints(betas))
        return skinned if transl is None else skinned + transl[..., None, :]

    def forward(self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vertices (..., V, 3) and joints (..., 24, 3), m."""
        return self.vertices(betas, pose_rotmat, transl), self.joints(betas, pose_rotmat, transl)

    def _check_landmarks(self) -> None:
        if self.landmark_joints is None:
            raise UsageError(
                f"{self.name}: this mesh of {self.num_vertices} vertices is none of SMPL's, so that the places of the "
                f"{len(BLAZEPOSE)} landmarks are not known. Use the released model file."
            )

    def _tensor(self, value: Tensor) -> Tensor:
        if isinstance(value, np.ndarray):  # a copy: the arrays of a Motion are read-only
            return torch.tensor(value, dtype=self.dtype, device=self.device)
        return value

    def _checked(
        self, betas: Tensor, pose_rotmat: Tensor, transl: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        check_shape("betas", betas, f"... {NUM_BETAS}")
        check_shape(
            "pose_rotmat", pose_rotmat, "... 24 3 3", "Give 24 matrices, the root's first (rotvec_to_rotmat helps)."
        )
        if transl is not None:
            check_shape("transl", transl, "... 3")
        return self._tensor(betas), self._tensor(pose_rotmat), None if transl is None else self._tensor(transl)


def _linear(template: Tensor, directions: Tensor, betas: Tensor) -> Tensor:
    """template (K, 3) + directions (K, 3, 10) . betas (..., 10) -> (..., K, 3), as one matrix product."""
    return template + (betas @ directions.flatten(0, 1).T).unflatten(-1, template.shape)


def _carried(rotations: Tensor, positions: Tensor, carriers: Tensor, offsets: Tensor) -> Tensor:
    """Points (..., K, 3) at ``offsets`` (..., K, 3) in the frames of the joints ``carriers`` (K,)."""
    turned = (rotations.index_select(-3, carriers) @ offsets[..., None])[..., 0]
    return positions.index_select(-2, carriers) + turned


def _one_shape(betas: Tensor) -> Tensor | None:
    """The one shape (10,) that a batch shares by broadcasting or expansion, or None where there may be several."""
    for size, stride in zip(betas.shape[:-1], betas.stride()[:-1], strict=True):
        if size > 1 and stride != 0:
            return None
    if betas.numel() == 0:
        return None
    return betas[(0,) * (betas.dim() - 1)]
