"""Pictures of the open body for docs/body.md.

python tools/draw_open_body.py --out docs/images       # needs matplotlib (the [test] extra has it)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from kinflow.body import Body
from kinflow.render import rasterise, vertex_normals
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE_EDGES, SMPL_JOINTS, SMPL_PARENTS

SKIN = (0.80, 0.72, 0.66)
FOCAL = 4.0  # in image heights: a long lens, so that proportions are read off without perspective


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


def view(points: Tensor, yaw: float, size: tuple[int, int], height: float, centre: float) -> tuple[Tensor, Tensor]:
    """World points (..., 3) into a camera that looks at a standing body turned by ``yaw`` degrees -> camera, K."""
    turn = rotvec_to_rotmat(torch.tensor((0.0, float(np.deg2rad(yaw)), 0.0)))
    flip = torch.tensor((1.0, -1.0, -1.0))
    camera = (points @ turn.T) * flip + torch.tensor((0.0, centre, FOCAL * height))
    focal = FOCAL * size[1]
    K = torch.tensor(((focal, 0, size[0] / 2), (0, focal, size[1] / 2), (0, 0, 1.0)))
    return camera, K


def draw(axis: plt.Axes, body: Body, rotmat: Tensor, betas: Tensor | None = None, yaw: float = 0.0,
         colours: Tensor | None = None, size: tuple[int, int] = (520, 560), lines: str = "", ground: bool = False, height: float = 1.9,
         centre: float = -0.1) -> None:  # fmt: skip
    betas = torch.zeros(10) if betas is None else betas
    vertices = body.vertices(betas, rotmat)
    joints, landmarks = body.joints_and_landmarks(betas, rotmat)
    if ground:  # stand all on one floor
        shift = torch.tensor((0.0, -0.96 - float(vertices[:, 1].min()), 0.0))
        vertices, joints, landmarks = vertices + shift, joints + shift, landmarks + shift
    camera, K = view(vertices, yaw, size, height, centre)
    fragments = rasterise(camera[None], body.faces, K, size)
    face, weights = fragments.face_index[0], fragments.barycentric[0]
    normals = vertex_normals(camera[None], body.faces)[0]
    seen = face >= 0
    corners = body.faces[face[seen]]
    normal = torch.nn.functional.normalize((normals[corners] * weights[seen][..., None]).sum(1), dim=-1)
    light = torch.nn.functional.normalize(torch.tensor((-0.4, -0.6, -1.0)), dim=0)
    shade = 0.35 + 0.65 * (normal @ light).clamp_min(0)
    base = torch.tensor(SKIN).expand(len(shade), 3) if colours is None else colours[corners[:, 0]]
    image = torch.ones(size[1], size[0], 3)
    image[seen] = (base * shade[:, None]).clamp(0, 1)
    axis.imshow(image.numpy(), extent=(0, size[0], size[1], 0))
    axis.set_axis_off()

    def project(points: Tensor) -> np.ndarray:
        place, _ = view(points, yaw, size, height, centre)
        return ((place / place[..., 2:]) @ K.T)[..., :2].numpy()

    if "joints" in lines:
        at = project(joints)
        for j, p in enumerate(SMPL_PARENTS):
            if p >= 0:
                axis.plot(*at[[j, p]].T, color="tab:red", linewidth=1.2)
        axis.plot(*at.T, ".", color="darkred", markersize=4)
    if "landmarks" in lines:
        at = project(landmarks)
        for a, b in BLAZEPOSE_EDGES:
            axis.plot(*at[[a, b]].T, color="tab:blue", linewidth=0.8)
        axis.plot(*at.T, ".", color="navy", markersize=4)


def save(figure: plt.Figure, path: Path) -> None:
    figure.subplots_adjust(0, 0, 1, 0.93, 0, 0)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    print(path)


def sheet(columns: int, titles: list[str]) -> tuple[plt.Figure, list[plt.Axes]]:
    figure, axes = plt.subplots(1, columns, figsize=(columns * 3.9, 4.5))
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=11)
    return figure, list(axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    body, light = Body.open("full"), Body.open("light")
    palette = torch.tensor(plt.get_cmap("tab20")(np.arange(24) % 20)[:, :3], dtype=torch.float32)

    figure, axes = sheet(3, ["T-pose: SMPL's 24 joints", "from the subject's left", "BlazePose's 33 landmarks"])
    draw(axes[0], body, T_POSE, lines="joints")
    draw(axes[1], body, T_POSE, yaw=-90, lines="joints")
    draw(axes[2], body, T_POSE, lines="landmarks")
    save(figure, out / "body_t_pose.png")

    figure, axes = sheet(4, ["betas[0] = -2", "mean", "betas[0] = +2", "betas[5] = +3"])
    for axis, (index, value) in zip(axes, ((0, -2.0), (0, 0.0), (0, 2.0), (5, 3.0)), strict=True):
        betas = torch.zeros(10)
        betas[index] = value
        draw(axis, body, T_POSE, betas, ground=True, height=2.05, centre=0.0)
    save(figure, out / "body_shapes.png")

    figure, axes = sheet(3, ["walking", "from the side, with joints", "from behind"])
    draw(axes[0], body, WALK, yaw=-30)
    draw(axes[1], body, WALK, yaw=-90, lines="joints")
    draw(axes[2], body, WALK, yaw=150)
    save(figure, out / "body_walking.png")

    figure, axes = sheet(4, ["arm raised", "from behind", "deep knee bend", "the same, obliquely"])
    draw(axes[0], body, ARM_UP, height=2.3, centre=0.1)
    draw(axes[1], body, ARM_UP, yaw=180, height=2.3, centre=0.1)
    draw(axes[2], body, SQUAT, yaw=-90)
    draw(axes[3], body, SQUAT, yaw=-35)
    save(figure, out / "body_poses.png")

    figure, axes = sheet(3, ["24 part labels", "light mesh (2,000 vertices)", "light mesh, walking"])
    draw(axes[0], body, T_POSE, colours=palette[body.part_labels])
    draw(axes[1], light, T_POSE, lines="landmarks")
    draw(axes[2], light, WALK, yaw=-30)
    save(figure, out / "body_parts.png")


if __name__ == "__main__":
    main()
