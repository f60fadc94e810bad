"""BodyPix's parts on the body: known vertices, left and right, front and back, both meshes."""

from __future__ import annotations

import pytest
import torch

from kinflow.body import Body
from kinflow.body.surface import surface_parts
from kinflow.skeleton import BODYPIX24, SMPL_JOINTS


@pytest.fixture(scope="module")
def light() -> Body:
    return Body.open("light")


def at(body: Body, x: float, y: float, z: float) -> str:
    """The part of the vertex nearest to a point of the T-pose."""
    nearest = (body.v_template - torch.tensor([x, y, z])).norm(dim=-1).argmin()
    return BODYPIX24[int(surface_parts(body)[nearest])]


def between(body: Body, first: str, second: str, share: float = 0.5) -> torch.Tensor:
    joint = {name: body.joint_template[i] for i, name in enumerate(SMPL_JOINTS)}
    return joint[first] + share * (joint[second] - joint[first])


@pytest.mark.parametrize("resolution", ["light", "full"])
def test_points_that_one_can_name(resolution: str) -> None:
    body = Body.open(resolution)
    spine = between(body, "spine1", "spine3")
    for z, name in ((0.2, "torso_front"), (-0.2, "torso_back")):
        assert at(body, 0.05, float(spine[1]), z) == at(body, -0.05, float(spine[1]), z) == name
    buttock = between(body, "left_hip", "left_knee", 0.1)
    assert at(body, float(buttock[0]), float(buttock[1]), -0.3) == "left_upper_leg_back"
    for sign, side in ((1, "left"), (-1, "right")):
        head = between(body, "head", "head")
        assert at(body, sign * 0.2, float(head[1]) + 0.05, float(head[2])) == f"{side}_face"
        for segment, stem in ((("hip", "knee"), "upper_leg"), (("knee", "ankle"), "lower_leg")):
            x, y, z = between(body, *[f"{side}_{name}" for name in segment]).tolist()
            assert at(body, x, y, z + 0.2) == f"{side}_{stem}_front"
            assert at(body, x, y, z - 0.2) == f"{side}_{stem}_back"
        for segment, stem in ((("shoulder", "elbow"), "upper_arm"), (("elbow", "wrist"), "lower_arm")):
            x, y, z = between(body, *[f"{side}_{name}" for name in segment], 0.6).tolist()
            assert at(body, x, y - 0.1, z + 0.1) == f"{side}_{stem}_back"  # the inner side
            assert at(body, x, y + 0.1, z - 0.1) == f"{side}_{stem}_front"
        assert at(body, *between(body, f"{side}_wrist", f"{side}_hand", 0.9).tolist()) == f"{side}_hand"
        assert at(body, *(between(body, f"{side}_foot", f"{side}_foot")).tolist()) == f"{side}_foot"
    x, y, z = between(body, "neck", "neck").tolist()
    assert at(body, x, y - 0.04, z + 0.1) == "torso_front" and at(body, x, y - 0.04, z - 0.1) == "torso_back"


def test_every_part_has_vertices_and_left_mirrors_right(light: Body) -> None:
    parts, v = surface_parts(light), light.v_template
    counts = torch.bincount(parts, minlength=24)
    assert counts.min() >= 10 and 0.7 < counts[12] / counts[13] < 1.4
    mirror = torch.tensor([BODYPIX24.index(_other(name)) for name in BODYPIX24])
    distance, opposite = torch.cdist(v * torch.tensor([-1.0, 1, 1]), v).min(-1)
    paired = (v[:, 0].abs() > 0.01) & (distance < 1e-3)
    assert paired.float().mean() > 0.5
    assert (parts[opposite] == mirror[parts])[paired].float().mean() > 0.99


def _other(name: str) -> str:
    return name.replace("left", "right") if "left" in name else name.replace("right", "left")


def test_the_light_mesh_is_labelled_as_the_full_one(light: Body) -> None:
    full = Body.open()
    nearest = torch.cdist(light.v_template, full.v_template).argmin(-1)
    assert (surface_parts(full)[nearest] == surface_parts(light)).float().mean() > 0.93
