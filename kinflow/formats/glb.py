"""GLB: skinned, animated meshes of everybody in one binary glTF 2.0 file, for Blender, Unreal, Unity and the web."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import __version__
from ..body.surface import vertex_normals
from ..errors import ShapeError
from ..records import atomic_write
from ..render import person_colour
from ..skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from ..timing import valid_runs
from .characters import Character

__all__ = ["INFLUENCES", "write_glb"]

INFLUENCES = 4
"""Joints that move a vertex in glTF's first set of weights, the only one that most viewers read."""
HIDDEN = 1e-5
"""Scale of a person who is not in the picture: too small to be seen, and not zero, which engines divide by."""


def write_glb(path: Path, people: Sequence[Character]) -> None:
    """Write everybody into one file: y up, one unit a metre, key frames at the characters' own times.

    Each person is a node of their name, which holds the joints, and a mesh NAME_mesh that is skinned to them. Joints are
    named as in :data:`kinflow.skeleton.SMPL_JOINTS`; their rest pose is the body's zero pose. A person who comes later or
    leaves earlier than others is scaled to nothing for that time. The nodes' extras say whose body it is, the betas, and the
    times between which the motion was filled in. Pose blend shapes of licensed bodies are left out: glTF skins linearly.

    Source: Khronos Group, glTF 2.0 Specification, sections 3.7.3 (skins) and 3.11 (animations).

    Raises:
        ShapeError: frames so late or close that glTF's single precision cannot tell their times apart.
        OutputError: the file cannot be written.
    """
    import pygltflib

    file = _File(pygltflib)
    first = min(float(p.timestamps[0]) for p in people)
    last = max(float(p.timestamps[-1]) for p in people)
    for person in people:
        file.add_person(person, first, last)
    with atomic_write(path) as stream:
        stream.write(file.bytes())


class _File:
    """A glTF under construction; all arrays go into one buffer."""

    def __init__(self, gltf: Any) -> None:
        self._gltf = gltf
        self._blob = bytearray()
        self._animation = gltf.Animation(name="motion")
        self.root = gltf.GLTF2(
            asset=gltf.Asset(version="2.0", generator=f"kinflow {__version__}"), scene=0, scenes=[gltf.Scene(nodes=[])]
        )
        self._shared: dict[tuple[int, str], int] = {}

    def bytes(self) -> bytes:
        if self._animation.channels:
            self.root.animations = [self._animation]
        self.root.buffers = [self._gltf.Buffer(byteLength=len(self._blob))]
        self.root.set_binary_blob(bytes(self._blob))
        return b"".join(self.root.save_to_bytes())

    # -- people ------------------------------------------------------------------------------------------------------------

    def add_person(self, person: Character, first: float, last: float) -> None:
        gltf, root = self._gltf, self.root
        times = person.timestamps.astype(np.float32)
        if not (np.diff(times) > 0).all():
            raise ShapeError(
                f"{person.name}: timestamps: expected steps that single precision can tell apart, as glTF has it, got "
                f"{np.diff(person.timestamps).min():g} s at {person.timestamps[-1]:g} s. Resample with fps."
            )
        holder = len(root.nodes)
        joints = list(range(holder + 1, holder + 1 + NUM_JOINTS))
        children: dict[int, list[int]] = {j: [] for j in range(-1, NUM_JOINTS)}
        for joint, parent in enumerate(SMPL_PARENTS):
            children[parent].append(joints[joint])
        root.nodes.append(gltf.Node(name=person.name, children=children[-1], extras=_extras(person)))
        quat_xyzw = np.roll(person.quat_wxyz(), -1, -1)
        for joint, offset in enumerate(person.offsets):
            place = person.pelvis[0] if joint == 0 else offset
            root.nodes.append(
                gltf.Node(
                    name=SMPL_JOINTS[joint], children=children[joint], translation=place.tolist(),
                    rotation=quat_xyzw[0, joint].tolist(),
                )
            )  # fmt: skip
        inverse = np.tile(np.eye(4), (NUM_JOINTS, 1, 1))
        inverse[:, 3, :3] = -person.rest_joints  # column-major: the last row of numpy's is glTF's last column
        root.skins.append(
            gltf.Skin(
                name=person.name, joints=joints, skeleton=joints[0], inverseBindMatrices=self._floats(inverse, "MAT4")
            )
        )
        root.nodes.append(
            gltf.Node(name=f"{person.name}_mesh", mesh=self._mesh(person), skin=len(root.skins) - 1)
        )  # at the scene's root: a skinned mesh's own place counts for nothing
        root.scenes[0].nodes += [holder, len(root.nodes) - 1]
        self._animate(person, times, quat_xyzw, holder, joints, (first, last))

    def _animate(
        self,
        person: Character,
        times: NDArray[np.float32],
        quat_xyzw: NDArray[Any],
        holder: int,
        joints: list[int],
        scene: tuple[float, float],
    ) -> None:
        clock = self._floats(times[:, None], "SCALAR", bounds=True)
        self._channel(joints[0], "translation", clock, self._floats(person.pelvis, "VEC3"))
        for joint, node in enumerate(joints):
            self._channel(node, "rotation", clock, self._floats(quat_xyzw[:, joint], "VEC4"))
        keys = [(float(person.timestamps[0]), 1.0)]
        gone = float(person.timestamps[-1]) + 1 / person.fps
        if keys[0][0] > scene[0]:
            keys.insert(0, (scene[0], HIDDEN))
        if gone <= scene[1]:
            keys.append((gone, HIDDEN))
        if len(keys) > 1:
            when = self._floats(np.array([[t] for t, _ in keys]), "SCALAR", bounds=True)
            size = self._floats(np.array([[s] * 3 for _, s in keys]), "VEC3")
            self._channel(holder, "scale", when, size, "STEP")

    def _channel(self, node: int, path: str, clock: int, values: int, interpolation: str = "LINEAR") -> None:
        gltf, animation = self._gltf, self._animation
        animation.samplers.append(gltf.AnimationSampler(input=clock, output=values, interpolation=interpolation))
        target = gltf.AnimationChannelTarget(node=node, path=path)
        animation.channels.append(gltf.AnimationChannel(sampler=len(animation.samplers) - 1, target=target))

    def _mesh(self, person: Character) -> int:
        gltf, root, body = self._gltf, self.root, person.body
        vertices = person.rest_vertices()
        normals = vertex_normals(torch.from_numpy(vertices), body.faces.cpu()).numpy()
        normals[(normals == 0).all(-1)] = (0.0, 1.0, 0.0)  # of vertices without a face; glTF asks for unit length
        attributes = gltf.Attributes(
            POSITION=self._floats(vertices, "VEC3", gltf.ARRAY_BUFFER, bounds=True),
            NORMAL=self._floats(normals, "VEC3", gltf.ARRAY_BUFFER),
            JOINTS_0=self._once(person, "joints"),
            WEIGHTS_0=self._once(person, "weights"),
        )
        colour = (np.array(person_colour(person.person_id)) / 255) ** 2.2  # glTF's factors are linear
        root.materials.append(
            gltf.Material(
                name=person.name,
                pbrMetallicRoughness=gltf.PbrMetallicRoughness(
                    baseColorFactor=[*colour.round(4).tolist(), 1.0], metallicFactor=0.0, roughnessFactor=0.8
                ),
                alphaCutoff=None,
            )
        )
        primitive = gltf.Primitive(
            attributes=attributes, indices=self._once(person, "faces"), material=len(root.materials) - 1
        )
        root.meshes.append(gltf.Mesh(name=person.name, primitives=[primitive]))
        return len(root.meshes) - 1

    # -- arrays ------------------------------------------------------------------------------------------------------------

    def _once(self, person: Character, what: str) -> int:
        """An accessor of what all people of one body share."""
        key = (id(person.body), what)
        if key not in self._shared:
            gltf, body = self._gltf, person.body
            weights, joints = (x.cpu().numpy() for x in body.weights.topk(INFLUENCES, -1))
            if what == "faces":
                small = body.num_vertices < 2**16 - 1
                indices = body.faces.cpu().numpy().reshape(-1, 1).astype(np.uint16 if small else np.uint32)
                kind = gltf.UNSIGNED_SHORT if small else gltf.UNSIGNED_INT
                self._shared[key] = self._accessor(indices, "SCALAR", kind, gltf.ELEMENT_ARRAY_BUFFER)
            elif what == "joints":
                joints = np.where(weights > 0, joints, 0).astype(np.uint8)  # glTF: unused ones are joint 0
                self._shared[key] = self._accessor(joints, "VEC4", gltf.UNSIGNED_BYTE, gltf.ARRAY_BUFFER)
            else:
                weights = weights.astype(np.float64)
                self._shared[key] = self._floats(weights / weights.sum(-1, keepdims=True), "VEC4", gltf.ARRAY_BUFFER)
        return self._shared[key]

    def _floats(self, values: NDArray[Any], kind: str, target: int | None = None, bounds: bool = False) -> int:
        return self._accessor(values.astype(np.float32), kind, self._gltf.FLOAT, target, bounds)

    def _accessor(
        self, values: NDArray[Any], kind: str, component: int, target: int | None = None, bounds: bool = False
    ) -> int:
        gltf, root = self._gltf, self.root
        self._blob += b"\0" * (-len(self._blob) % 4)
        data = np.ascontiguousarray(values).tobytes()
        view = gltf.BufferView(buffer=0, byteOffset=len(self._blob), byteLength=len(data), target=target)
        self._blob += data
        root.bufferViews.append(view)
        accessor = gltf.Accessor(
            bufferView=len(root.bufferViews) - 1, byteOffset=0, componentType=component, count=len(values), type=kind
        )
        if bounds:
            accessor.min, accessor.max = values.min(0).tolist(), values.max(0).tolist()
        root.accessors.append(accessor)
        return len(root.accessors) - 1


def _extras(person: Character) -> dict[str, Any]:
    times = person.timestamps
    return {
        "person_id": person.person_id,
        "body": person.body.name,
        "betas": [round(float(b), 6) for b in person.betas],
        "filled_in_s": [[float(times[a]), float(times[b - 1])] for a, b in valid_runs(~person.observed)],
    }
