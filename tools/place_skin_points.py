"""Find the skin points of the joint sets on the open body, and write them into its files.

    python tools/place_skin_points.py

Crown, tips of the toes and heels (kinflow.body.joint_sets.SKIN_POINTS). tools/build_open_body.py does the same when it builds
the body; this adds them to files that are there, and changes no other array in them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from kinflow.assets import asset_path
from kinflow.body.joint_sets import SKIN_CARRIERS, SKIN_POINTS, crown
from kinflow.records import atomic_write
from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS

BIG_TOE = np.radians(15.0)
"""The big toe's tip is the furthest point of the foot, seen so far inwards from straight ahead."""
SMALL_TOE = 0.83
"""The small toe's tip is the outermost point at this share of the foot's length. The mesh has no toes, but a toecap."""


def skin_vertices(arrays: dict[str, NDArray]) -> NDArray[np.int64]:
    """Numbers (7,) of the vertices of the full mesh that the skin points are."""
    template, labels = arrays["v_template"].astype(np.float64), arrays["weights"].argmax(1)
    anatomical = arrays["J_template"][arrays["landmark_joints"]] + arrays["landmark_anatomical_offsets"]
    out = []
    for name in SKIN_POINTS:
        side, _, point = name.partition("_")
        outwards = 1.0 if side == "left" else -1.0
        if name == "head_top":
            out.append(crown(template, arrays["J_template"][SMPL_JOINTS.index("head")]))
            continue
        heel = anatomical[BLAZEPOSE.index(f"{side}_heel")]
        toecap = np.flatnonzero(labels == SMPL_JOINTS.index(f"{side}_foot"))
        foot = template[toecap]
        if point == "heel":
            out.append(int(np.linalg.norm(template - heel, axis=1).argmin()))
        elif point == "big_toe":
            along = foot[:, 2] * np.cos(BIG_TOE) - outwards * foot[:, 0] * np.sin(BIG_TOE)
            out.append(int(toecap[along.argmax()]))
        else:
            there = heel[2] + SMALL_TOE * (foot[:, 2].max() - heel[2])
            band = np.abs(foot[:, 2] - there) < 0.006
            out.append(int(toecap[band][(outwards * foot[band, 0]).argmax()]))
    return np.array(out)


def skin_arrays(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """``skin_offsets`` (7, 3) and ``skin_shapedirs`` (7, 3, 10) m in the frames of the joints that carry the points, and
    ``skin_vertex_ids`` (7,), from the full mesh' arrays."""
    ids, carriers = skin_vertices(arrays), list(SKIN_CARRIERS)
    return {
        "skin_vertex_ids": ids.astype(np.int32),
        "skin_offsets": arrays["v_template"][ids] - arrays["J_template"][carriers],
        "skin_shapedirs": arrays["shapedirs"][ids] - arrays["J_shapedirs"][carriers],
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found: dict[str, NDArray] = {}
    for file in ("open_body.npz", "open_body_light.npz"):  # the full mesh first: its points are those of both
        path = asset_path(file)
        with np.load(path, allow_pickle=False) as npz:
            arrays = dict(npz)
        found = found or skin_arrays(arrays)
        with atomic_write(path) as stream:
            np.savez_compressed(stream, **(arrays | found))
    for name, carrier, offset in zip(SKIN_POINTS, SKIN_CARRIERS, found["skin_offsets"], strict=True):
        print(f"{name:16s} {np.round(arrays['J_template'][carrier] + offset, 3)} m, carried by {SMPL_JOINTS[carrier]}")


if __name__ == "__main__":
    main()
