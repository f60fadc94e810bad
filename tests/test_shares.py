"""Shares among neighbouring joints: every way keeps the limbs' directions, and moves what it says by what it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinflow.body.kinematics import forward_kinematics, full_pose
from kinflow.rotations import geodesic_distance, rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS, SMPL_PARENTS, SMPL_REST_OFFSETS
from kinflow.training import shares as of_shares
from kinflow.training.poses import mirror_body
from kinflow.training.shares import KINDS, Shares, reshare

REST = torch.tensor(SMPL_REST_OFFSETS, dtype=torch.float64)
TWISTED = tuple(f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"))
MOVED = {
    "rhythm": ("left_collar", "right_collar", "left_shoulder", "right_shoulder"),
    "collars": ("left_collar", "right_collar", "left_shoulder", "right_shoulder"),
    "spine": ("spine1", "spine2", "spine3"),
    "posture": ("spine1", "spine2", "spine3"),
    "neck": ("neck", "head"),
    "feet": ("left_ankle", "right_ankle", "left_foot", "right_foot"),
    "toes": ("left_foot", "right_foot"),
    "hinges": TWISTED,
    "twist": TWISTED,
}


def poses(clips: int = 3, frames: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return rotvec_to_rotmat(0.5 * torch.randn(clips, frames, 21, 3, generator=generator, dtype=torch.float64))


def drawn(clips: int = 3) -> Shares:
    return Shares.draw(clips, torch.Generator().manual_seed(1))


def world(rotmat: Tensor) -> tuple[Tensor, Tensor]:
    rest = torch.zeros(24, 3, dtype=torch.float64)
    for j in range(1, 24):
        rest[j] = rest[SMPL_PARENTS[j]] + REST[j]
    return forward_kinematics(full_pose(rotmat), rest)


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_limbs_keep_their_directions(kind: str) -> None:
    pose = poses()
    made = reshare(pose, drawn().alone(KINDS if kind == "all" else (kind,)))
    torch.testing.assert_close(made @ made.mT, torch.eye(3, dtype=torch.float64).expand_as(made))
    before, after = world(pose)[1], world(made)[1]
    for name in ("knee", "ankle", "elbow", "wrist", "hand", *(["foot"] if kind not in ("feet", "all") else [])):
        for side in ("left", "right"):
            j = SMPL_JOINTS.index(f"{side}_{name}")
            p = SMPL_PARENTS[j]
            torch.testing.assert_close(after[..., j, :] - after[..., p, :], before[..., j, :] - before[..., p, :])
    kept = ["head", "left_wrist", "right_wrist"]
    kept += [] if kind in ("neck", "all") else ["neck"]
    kept += [] if kind in ("feet", "all") else ["left_ankle", "right_ankle"]
    kept += ["left_foot", "right_foot"] if kind == "feet" else []
    for name in kept:
        j = SMPL_JOINTS.index(name)
        torch.testing.assert_close(world(made)[0][..., j, :, :], world(pose)[0][..., j, :, :])
    moved = geodesic_distance(pose, made).amax((0, 1)) > 1e-5
    names = {SMPL_JOINTS[j + 1] for j in torch.nonzero(moved)[:, 0].tolist()}
    assert names == (set().union(*MOVED.values()) if kind == "all" else set(MOVED[kind]))


def test_a_clip_has_its_own_way_in_all_its_frames() -> None:
    pose = poses(2, 1).expand(2, 4, 21, 3, 3)
    made = reshare(pose, drawn(2))
    torch.testing.assert_close(made, made[:, :1].expand_as(made))
    assert float(geodesic_distance(made[0], reshare(pose, drawn(2))[1]).max()) > 0.01
    single = reshare(pose[:, 0], drawn(2))  # poses without time
    torch.testing.assert_close(single, made[:, 0])
    nothing = Shares(*(torch.zeros_like(v) for v in vars(drawn(2)).values()))
    torch.testing.assert_close(reshare(pose, nothing), pose)


def test_how_far_it_goes() -> None:
    full = Shares(**{name: torch.ones_like(value) for name, value in vars(drawn(1)).items()})
    rest = torch.eye(3, dtype=torch.float64).expand(1, 21, 3, 3)
    toes = reshare(rest, full.alone(("toes",)))[0, SMPL_JOINTS.index("left_foot") - 1]
    assert float(geodesic_distance(toes, torch.eye(3, dtype=torch.float64))) == pytest.approx(
        math.hypot(*of_shares.TOES)
    )
    twist = reshare(rest, full.alone(("twist",)))[0, SMPL_JOINTS.index("left_hip") - 1]
    assert float(geodesic_distance(twist, torch.eye(3, dtype=torch.float64))) == pytest.approx(of_shares.TWIST[0])
    hinged = reshare(rest, full.alone(("hinges",)))[
        0
    ]  # above and below alike: the hinge's axis turns, a straight limb does not
    for name, angle in zip(("hip", "knee", "ankle"), (1, 0, 1), strict=True):
        turned = geodesic_distance(hinged[SMPL_JOINTS.index(f"left_{name}") - 1], torch.eye(3, dtype=torch.float64))
        assert float(turned) == pytest.approx(angle * of_shares.HINGES[0], abs=0.1)
    # An arm that hangs straight down has come down by a quarter turn: the collar takes RHYTHM of that more.
    hanging = torch.zeros(1, 21, 3, dtype=torch.float64)
    bone = REST[SMPL_JOINTS.index("left_elbow")]
    swing = torch.linalg.cross(bone, torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
    angle = torch.acos(-bone[1] / bone.norm())
    hanging[0, SMPL_JOINTS.index("left_shoulder") - 1] = swing / swing.norm() * angle
    collar = reshare(rotvec_to_rotmat(hanging), full.alone(("rhythm",)))[0, SMPL_JOINTS.index("left_collar") - 1]
    turned = geodesic_distance(collar, torch.eye(3, dtype=torch.float64))
    assert float(turned) == pytest.approx(of_shares.RHYTHM * float(angle))


def test_the_mirror_image_has_the_same_way() -> None:
    pose, way = poses(), drawn()
    torch.testing.assert_close(
        reshare(mirror_body(pose), way.mirrored()), mirror_body(reshare(pose, way)), atol=2e-3, rtol=0
    )


def test_some_ways_wander() -> None:
    times = (torch.arange(40, dtype=torch.float64) / 30).expand(200, -1)
    ways = Shares.draw(200, torch.Generator().manual_seed(0), times)
    pose = poses(200, 1).expand(200, 40, 21, 3, 3)
    moved = geodesic_distance(reshare(pose, ways)[:, 1:], reshare(pose, ways)[:, :-1]).amax((1, 2))
    assert float(moved.min()) < 0.01 < 0.1 < float(moved.median())
    spread = ways.twist.std(1).amax((1, 2))
    assert float(spread.max()) < 3 * of_shares.WANDER and float(ways.twist.mean(1).abs().max()) > 0.8
    assert reshare(pose, ways.alone(())).allclose(pose)
