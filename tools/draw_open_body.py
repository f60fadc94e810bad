"""Pictures of the open body for docs/body.md.

python tools/draw_open_body.py --out docs/images       # needs matplotlib (the [test] extra has it)
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from kinflow.body import Body
from kinflow.render.figures import Marks, contact_sheet, save_figure
from kinflow.render.views import View, draw_mesh
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE, BLAZEPOSE_EDGES, LAYOUTS, SMPL_JOINTS, SMPL_PARENTS

SKIN = torch.tensor((204.0, 184.0, 168.0))
SIZE = (312, 332)
VIEW = View(span=1.9, centre=(0.0, -0.1, 0.0), lens=4.0)
_TRUNK = {  # chains of named points, beside those of the limbs
    "coco17": ("nose left_eye left_ear", "nose right_eye right_ear", "left_shoulder right_shoulder", "left_hip right_hip",
               "left_shoulder left_hip", "right_shoulder right_hip"),
    "body25": ("nose left_eye left_ear", "nose right_eye right_ear", "nose neck mid_hip", "left_shoulder neck right_shoulder",
               "left_hip mid_hip right_hip"),
    "halpe26": ("nose left_eye left_ear", "nose right_eye right_ear", "head_top neck mid_hip",
                "left_shoulder neck right_shoulder", "left_hip mid_hip right_hip"),
    "h36m17": ("pelvis spine thorax jaw head_top", "left_shoulder thorax right_shoulder", "left_hip pelvis right_hip"),
}  # fmt: skip
_LIMBS = ("shoulder elbow wrist", "hip knee ankle heel", "ankle big_toe small_toe")


def edges_of(joint_set: str) -> list[tuple[int, int]]:
    """Lines to draw between a joint set's points."""
    names = LAYOUTS[joint_set]
    if names == SMPL_JOINTS:
        return [(joint, parent) for joint, parent in enumerate(SMPL_PARENTS) if parent >= 0]
    if names == BLAZEPOSE:
        return list(BLAZEPOSE_EDGES)
    chains = [chain.split() for chain in _TRUNK[joint_set]]
    chains += [[f"{side}_{point}" for point in chain.split()] for chain in _LIMBS for side in ("left", "right")]
    pairs = [pair for chain in chains for pair in itertools.pairwise(chain)]
    return [(names.index(a), names.index(b)) for a, b in pairs if a in names and b in names]


def pose(**degrees: tuple[float, float, float]) -> Tensor:
    """Rotation matrices (24, 3, 3) from rotation vectors in degrees by joint name."""
    rotvec = torch.zeros(24, 3)
    for name, value in degrees.items():
        rotvec[SMPL_JOINTS.index(name)] = torch.deg2rad(torch.tensor(value))
    return rotvec_to_rotmat(rotvec)


ARMS_DOWN = {"left_shoulder": (0, 0, -70), "right_shoulder": (0, 0, 70), "left_elbow": (0, -15, 0), "right_elbow": (0, 15, 0)}  # fmt: skip
T_POSE = pose()
WALK = pose(
    left_hip=(-28, 0, 0), left_knee=(12, 0, 0), left_ankle=(8, 0, 0), right_hip=(18, 0, 0), right_knee=(32, 0, 0),
    right_ankle=(-8, 0, 0), right_foot=(-20, 0, 0), spine1=(4, -4, 0), spine2=(0, 4, 0), spine3=(0, 6, 0),
    left_shoulder=(25, 12, -66), right_shoulder=(-25, 12, 66), left_elbow=(0, -25, 0), right_elbow=(0, 40, 0),
)  # fmt: skip
ARM_UP = pose(**{**ARMS_DOWN, "left_collar": (0, 0, 20), "left_shoulder": (0, 0, 65), "left_elbow": (0, -20, 0)})
SQUAT = pose(
    pelvis=(25, 0, 0), left_hip=(-105, 0, 10), right_hip=(-105, 0, -10), left_knee=(115, 0, 0), right_knee=(115, 0, 0),
    left_ankle=(-32, 0, 0), right_ankle=(-32, 0, 0), spine1=(10, 0, 0), left_shoulder=(0, -80, 0),
    right_shoulder=(0, 80, 0), neck=(-15, 0, 0),
)  # fmt: skip


def picture(
    body: Body, rotmat: Tensor, view: View = VIEW, betas: Tensor | None = None, colours: Tensor = SKIN, lines: str = "",
    ground: bool = False,
) -> tuple[np.ndarray, list[Marks]]:  # fmt: skip
    """One body (H, W, 3), and the points of the joint set ``lines`` over it; ``ground``: all stand on one floor."""
    betas = torch.zeros(10) if betas is None else betas
    vertices = body.vertices(betas, rotmat)
    transl = torch.tensor((0.0, -0.96 - float(vertices[:, 1].min()) if ground else 0.0, 0.0))
    vertices = vertices + transl
    marks = []
    if lines:
        points = view.pixels(body.keypoints(lines, betas, rotmat, transl), SIZE).numpy()
        colours_of_lines = ("tab:red", "darkred") if lines in ("smpl24", "h36m17") else ("tab:blue", "navy")
        marks = [Marks(points, edges_of(lines), *colours_of_lines)]
    return draw_mesh(vertices[None], body.faces, view, SIZE, colours)[0], marks


def save(
    path: Path, pictures: Sequence[tuple[np.ndarray, list[Marks]]], titles: Sequence[str], columns: int = 0
) -> None:
    images, marks = zip(*pictures, strict=True)
    print(
        save_figure(
            contact_sheet(np.stack(images), columns or len(images), above=titles, marks=marks), path, palette=None
        )
    )


def turned(yaw: float, view: View = VIEW) -> View:
    return replace(view, yaw=yaw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    body, light = Body.open("full"), Body.open("light")
    palette = torch.tensor(matplotlib.colormaps["tab20"](np.arange(24) % 20)[:, :3] * 255, dtype=torch.float32)

    shown = [
        picture(body, T_POSE, lines="smpl24"),
        picture(body, T_POSE, turned(-90), lines="smpl24"),
        picture(body, T_POSE, lines="blazepose33"),
    ]
    save(
        out / "body_t_pose.png",
        shown,
        ["SMPL's zero pose, its 24 joints", "from the subject's left", "BlazePose's 33 landmarks"],
    )

    sets = {"coco17": "coco17", "body25": "body25", "halpe26": "halpe26", "h36m17": "h36m17, approximate"}
    stand, near = pose(**ARMS_DOWN), replace(VIEW, span=1.85, centre=(0.0, -0.1, 0.0))
    shown = [picture(body, stand, turned(yaw, near), lines=name) for yaw in (-25, -90) for name in sets]
    save(out / "body_joint_sets.png", shown, list(sets.values()), columns=4)

    titles, shown = ["betas[0] = -2", "mean", "betas[0] = +2", "betas[5] = +3"], []
    for index, value in ((0, -2.0), (0, 0.0), (0, 2.0), (5, 3.0)):
        shown.append(
            picture(body, T_POSE, replace(VIEW, span=2.05, centre=(0, 0, 0)), value * torch.eye(10)[index], ground=True)
        )
    save(out / "body_shapes.png", shown, titles)

    shown = [
        picture(body, WALK, turned(-30)),
        picture(body, WALK, turned(-90), lines="smpl24"),
        picture(body, WALK, turned(150)),
    ]
    save(out / "body_walking.png", shown, ["walking", "from the side, with joints", "from behind"])

    high = replace(VIEW, span=2.3, centre=(0, 0.1, 0))
    shown = [
        picture(body, ARM_UP, high),
        picture(body, ARM_UP, turned(180, high)),
        picture(body, SQUAT, turned(-90)),
        picture(body, SQUAT, turned(-35)),
    ]
    save(out / "body_poses.png", shown, ["arm raised", "from behind", "deep knee bend", "the same, obliquely"])

    shown = [
        picture(body, T_POSE, colours=palette[body.part_labels]),
        picture(light, T_POSE, lines="blazepose33"),
        picture(light, WALK, turned(-30)),
    ]
    save(out / "body_parts.png", shown, ["24 part labels", "light mesh (2,000 vertices)", "light mesh, walking"])


if __name__ == "__main__":
    main()
