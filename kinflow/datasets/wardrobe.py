"""Clothes, hair and skins for rendered people, and photographs around them: looks nearer to real film.

The file is made by ``tools/build_wardrobe.py`` from public-domain assets and is not packaged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..body import Body
from ..body.files import BodyArrays
from ..errors import FormatError, check_shape
from ..records import atomic_write, open_npz
from ..render.texture import Texture

KINDS = ("suit", "shoes", "hair")
WORN = {"suit": 1.0, "shoes": 0.9, "hair": 0.85}
"""How often each kind is worn."""
DYED = {"suit": 0.6, "shoes": 0.4, "hair": 0.04}
"""How often its picture is dyed another colour."""


@dataclass(frozen=True)
class Garment:
    """Something worn, skinned like the body below it.

    Attributes:
        name: the asset's name.
        kind: one of :data:`KINDS`.
        template: (G, 3) m, at the open body's zero pose and mean shape.
        neighbours: (G, K) vertices of the open body; ``weights`` (G, K) of sum 1: skinning weights and shape directions
            are mixed from theirs.
        faces: (F, 3); ``face_uv`` (F, 3, 2) of their corners; ``picture`` (H, W, 3) uint8.
        hidden: (H,) vertices of the open body that nobody sees below it.
    """

    name: str
    kind: str
    template: NDArray[np.float32]
    neighbours: NDArray[np.int32]
    weights: NDArray[np.float32]
    faces: NDArray[np.int32]
    face_uv: NDArray[np.float32]
    picture: NDArray[np.uint8]
    hidden: NDArray[np.int32]


_ARRAYS = ("template", "neighbours", "weights", "faces", "face_uv", "picture", "hidden")


@dataclass(frozen=True)
class Panorama:
    """The whole sphere seen from a place: ``picture`` (H, 2 H, 3) uint8, up at the top, equirectangular."""

    name: str
    picture: NDArray[np.uint8]

    def seen(self, R_world2cam: Tensor, K: Tensor, image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as a camera turned by (3, 3) sees it; the world's y is up."""
        width, height = image_size
        x = (torch.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
        y = (torch.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
        rays = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width), torch.ones(height, width)), -1)
        away = torch.nn.functional.normalize(rays @ R_world2cam, dim=-1)
        grid = torch.stack((torch.atan2(away[..., 0], away[..., 2]) / np.pi, -2 * torch.asin(away[..., 1]) / np.pi), -1)
        image = torch.from_numpy(self.picture).permute(2, 0, 1)[None].float()
        sampled = torch.nn.functional.grid_sample(image, grid[None], padding_mode="border", align_corners=False)
        return sampled[0].permute(1, 2, 0).clamp(0, 255).round().byte().numpy()


@dataclass(frozen=True)
class Wardrobe:
    """What people are dressed in: see :meth:`dress`.

    Attributes:
        body_uv: (F, 3, 2) texture coordinates of the full open body's faces.
        skins: (S, S, 3) uint8 each.
        garments, panoramas: see there.
    """

    body_uv: NDArray[np.float32]
    skins: tuple[NDArray[np.uint8], ...]
    garments: tuple[Garment, ...]
    panoramas: tuple[Panorama, ...]

    def save(self, path: str | Path) -> None:
        """Write one npz (OutputError when that fails)."""
        arrays: dict[str, Any] = {"body_uv": self.body_uv}
        for n, skin in enumerate(self.skins):
            arrays[f"skin_{n}"] = skin
        for n, garment in enumerate(self.garments):
            arrays |= {f"garment_{n}_{name}": getattr(garment, name) for name in _ARRAYS}
        for n, panorama in enumerate(self.panoramas):
            arrays[f"panorama_{n}"] = panorama.picture
        contents = {
            "garments": [(g.name, g.kind) for g in self.garments],
            "panoramas": [p.name for p in self.panoramas],
            "skins": len(self.skins),
        }
        with atomic_write(path) as stream:
            np.savez_compressed(stream, contents=np.array(json.dumps(contents)), **arrays)

    @classmethod
    def open(cls, path: str | Path) -> Wardrobe:
        """Read a file of :meth:`save`.

        Raises:
            MissingAssetError, FormatError: no such file; not a wardrobe.
        """
        with open_npz(path) as file:
            try:
                contents = json.loads(file.text("contents"))
                return cls(
                    file["body_uv"],
                    tuple(file[f"skin_{n}"] for n in range(contents["skins"])),
                    tuple(
                        Garment(name, kind, *(file[f"garment_{n}_{key}"] for key in _ARRAYS))
                        for n, (name, kind) in enumerate(contents["garments"])
                    ),
                    tuple(Panorama(name, file[f"panorama_{n}"]) for n, name in enumerate(contents["panoramas"])),
                )
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(
                    f"{path}: not a wardrobe ({error!r}). Make it with tools/build_wardrobe.py."
                ) from error

    def photograph(
        self, R_world2cam: Tensor, K: Tensor, image_size: tuple[int, int], rng: np.random.Generator
    ) -> NDArray[np.uint8] | None:
        """A picture (H, W, 3) uint8 of one of the panoramas, horizon and all, as this camera sees it from a side that is
        drawn; at times mirrored. None where there are no panoramas."""
        if not self.panoramas:
            return None
        panorama = self.panoramas[int(rng.integers(len(self.panoramas)))]
        yaw = rng.uniform(-np.pi, np.pi)
        turn = torch.tensor([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        seen = panorama.seen(R_world2cam @ turn.float(), K, image_size)
        return np.ascontiguousarray(seen[:, ::-1]) if rng.random() < 0.5 else seen

    def dress(self, body: Body, rng: np.random.Generator) -> tuple[Body, Texture]:
        """Dress the full open body: a skin, a suit, most often shoes and hair, in colours of their own.

        Returns:
            A body whose mesh is what is seen (the same joints, betas and poses), and what its faces are painted with.
        """
        check_shape("body.faces", body.faces, f"{len(self.body_uv)} 3", "Wardrobes fit the full open body.")
        worn = [
            choices[int(rng.integers(len(choices)))]
            for kind in KINDS
            if (choices := [g for g in self.garments if g.kind == kind]) and rng.random() < WORN[kind]
        ]
        seen = np.ones(body.num_vertices, bool)
        for garment in worn:
            seen[garment.hidden] = False
        faces = body.faces.numpy()
        kept = seen[faces].any(1)
        points = [(_arrays(body), faces[kept])]
        uv, pictures = [self.body_uv[kept]], [_tinted(self.skins[int(rng.integers(len(self.skins)))], rng, 0.0)]
        picture_of = [np.zeros(kept.sum(), np.int64)]
        waist = float(body.joint_template[3, 1])  # shirts lie above it, trousers below
        for garment in worn:
            points.append((_garment_arrays(garment, body), garment.faces.astype(np.int64)))
            uv.append(garment.face_uv)
            piece = _below(garment, waist) if garment.kind == "suit" else np.zeros(len(garment.faces), np.int64)
            picture_of.append(len(pictures) + piece)
            pictures += [_tinted(garment.picture, rng, DYED[garment.kind]) for _ in range(1 + piece.max())]
        mesh, triangles = _joined(points)
        dressed = Body(
            BodyArrays(
                "dressed open body", body.provenance, mesh[0], mesh[1], triangles, mesh[2],
                body.joint_template.numpy(), body.joint_shapedirs.numpy(),
            )
        )  # fmt: skip
        return dressed, Texture(np.concatenate(uv), np.concatenate(picture_of), tuple(pictures))


def _below(garment: Garment, height: float) -> NDArray[np.int64]:
    """(F,) 1 for faces of pieces (shirt, trousers) whose middle lies below a height of the zero pose, else 0."""
    count = len(garment.template)
    edges = np.concatenate([garment.faces[:, pair] for pair in ((0, 1), (1, 2))])
    piece = np.arange(count)
    while True:  # the least number spreads over each piece
        least = np.minimum(piece[edges[:, 0]], piece[edges[:, 1]])
        before = piece.copy()
        for end in (0, 1):
            np.minimum.at(piece, edges[:, end], least)
        piece = piece[piece]
        if np.array_equal(piece, before):
            break
    sums = np.bincount(piece, garment.template[:, 1], count) / np.maximum(np.bincount(piece, minlength=count), 1)
    return (sums[piece[garment.faces[:, 0]]] < height).astype(np.int64)


_Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def _arrays(body: Body) -> _Arrays:
    return body.v_template.numpy(), body.shapedirs.numpy(), body.weights.numpy()


def _garment_arrays(garment: Garment, body: Body) -> _Arrays:
    _, shapedirs, weights = _arrays(body)
    mixed = [
        np.einsum("gk,gk...->g...", garment.weights, values[garment.neighbours]).astype(np.float32)
        for values in (shapedirs, weights)
    ]
    return garment.template, mixed[0], mixed[1]


def _joined(points: list[tuple[_Arrays, NDArray[np.int64]]]) -> tuple[_Arrays, NDArray[np.int64]]:
    """Meshes as one, without vertices that no face uses."""
    starts = np.cumsum([0, *(len(arrays[0]) for arrays, _ in points[:-1])])
    faces = np.concatenate([triangles + start for (_, triangles), start in zip(points, starts, strict=True)])
    used, faces = np.unique(faces, return_inverse=True)
    template, shapedirs, weights = (np.concatenate([arrays[i] for arrays, _ in points])[used] for i in range(3))
    return (template, shapedirs, weights), faces.reshape(-1, 3)


def _tinted(picture: NDArray[np.uint8], rng: np.random.Generator, dyed: float) -> NDArray[np.uint8]:
    """The picture brighter or darker and a little off its colour, or (a share ``dyed`` of the time) dyed: its shades in
    another colour, at times striped."""
    image = picture.astype(np.float32) / 255
    if rng.random() < dyed:
        grey = image.mean(-1, keepdims=True)
        grey = grey / max(float(np.quantile(grey, 0.9)), 0.05)
        colour = rng.uniform(0.05, 0.95, 3)
        image = grey * (colour.mean() + rng.random() ** 1.5 * (colour - colour.mean()))
        if rng.random() < 0.3:
            side = np.arange(picture.shape[int(rng.integers(2))]) * rng.uniform(20, 90) / picture.shape[0]
            stripes = np.where(np.sin(side) > rng.uniform(-0.7, 0.7), 1.0, rng.uniform(0.3, 0.8))
            image = image * (stripes[:, None, None] if rng.random() < 0.5 else stripes[None, :, None])
    image = image ** rng.uniform(0.8, 1.3) * rng.uniform(0.8, 1.15) * rng.uniform(0.93, 1.07, 3)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
