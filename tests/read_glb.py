"""A reader of animated GLB files that shares nothing with the writer: struct, json and scipy, by the glTF 2.0 specification."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Glb:
    """The JSON (``data``) and the arrays of a file."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        magic, version, length = struct.unpack("<4sII", content[:12])
        assert magic == b"glTF" and version == 2 and length == len(content)
        size, kind = struct.unpack("<I4s", content[12:20])
        assert kind == b"JSON"
        self.data = json.loads(content[20 : 20 + size])
        rest = content[20 + size :]
        size, kind = struct.unpack("<I4s", rest[:8])
        assert kind == b"BIN\0"
        self._binary = rest[8 : 8 + size]
        self.nodes: list[dict[str, Any]] = self.data["nodes"]
        self.parent = {c: i for i, n in enumerate(self.nodes) for c in n.get("children", [])}

    def array(self, accessor: int) -> np.ndarray:
        a = self.data["accessors"][accessor]
        view = self.data["bufferViews"][a["bufferView"]]
        start = view.get("byteOffset", 0) + a.get("byteOffset", 0)
        values = np.frombuffer(self._binary, TYPES[a["componentType"]], a["count"] * WIDTH[a["type"]], start)
        return values.reshape(a["count"], -1)

    def node(self, name: str) -> int:
        (found,) = (i for i, n in enumerate(self.nodes) if n["name"] == name)
        return found

    def animated(self, node: int, path: str, time: float) -> np.ndarray | None:
        """The value of an animation channel at a time, held at the ends; None where there is no such channel."""
        for animation in self.data["animations"]:
            for channel in animation["channels"]:
                if (channel["target"]["node"], channel["target"]["path"]) == (node, path):
                    sampler = animation["samplers"][channel["sampler"]]
                    keys, values = self.array(sampler["input"])[:, 0].astype(float), self.array(sampler["output"])
                    time = float(np.clip(time, keys[0], keys[-1]))
                    if len(keys) == 1 or sampler["interpolation"] == "STEP":
                        return values[np.searchsorted(keys, time, "right") - 1]
                    if path == "rotation":
                        return Slerp(keys, Rotation.from_quat(values))([time]).as_quat()[0]
                    return np.array([np.interp(time, keys, column) for column in values.T])
        return None

    def world(self, node: int, time: float) -> np.ndarray:
        """(4, 4) of a node at a time."""
        rest = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}
        now = {k: self.animated(node, k, time) for k in rest}
        t, r, s = (self.nodes[node].get(k, rest[k]) if now[k] is None else now[k] for k in rest)
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(r).as_matrix() * np.asarray(s)
        matrix[:3, 3] = t
        return self.world(self.parent[node], time) @ matrix if node in self.parent else matrix

    def skinned(self, name: str, time: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Vertices (V, 3) and joints (24, 3) of a person at a time, and the joints' names."""
        mesh = self.nodes[self.node(f"{name}_mesh")]
        skin = self.data["skins"][mesh["skin"]]
        world = np.stack([self.world(j, time) for j in skin["joints"]])
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)  # columns first
        attributes = self.data["meshes"][mesh["mesh"]]["primitives"][0]["attributes"]
        rest, joints, weights = (self.array(attributes[k]) for k in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
        moves = np.einsum("vk,vkab->vab", weights.astype(float), (world @ inverse)[joints])
        vertices = np.einsum("vab,vb->va", moves, np.concatenate((rest, np.ones((len(rest), 1))), 1))[:, :3]
        return vertices, world[:, :3, 3], [self.nodes[j]["name"] for j in skin["joints"]]
