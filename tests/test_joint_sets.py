"""Joint sets: names in the orders the field publishes, and places against independent ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_motion import a_motion
from smplx.vertex_ids import vertex_ids
from test_body_files import miniature, through_smplx, write
from torch import Tensor

from kinflow.assets import asset_path
from kinflow.body import Body
from kinflow.body.joint_sets import SKIN_CARRIERS, SKIN_POINTS
from kinflow.errors import ShapeError, UsageError
from kinflow.evaluation.protocols import H36M_ROWS, LSP14
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import LAYOUTS, MIRROR_SMPL, SMPL_JOINTS

PUBLISHED = {
    # github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md, POSE_BODY_25_BODY_PARTS
    "body25": "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist MidHip RHip RKnee RAnkle LHip LKnee LAnkle REye LEye "
    "REar LEar LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel",
    # the same, POSE_COCO_BODY_PARTS
    "openpose18": "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist RHip RKnee RAnkle LHip LKnee LAnkle REye LEye REar "
    "LEar",
    # github.com/Fang-Haoshu/Halpe-FullBody, README
    "halpe26": "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee RKnee LAnkle RAnkle "
    "Head Neck Hip LBigToe RBigToe LSmallToe RSmallToe LHeel RHeel",
    # cocodataset.org, person_keypoints annotations
    "coco17": "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee RKnee LAnkle RAnkle",
    # Pose2Mesh (ECCV 2020) and I2L-MeshNet; Martinez et al. (ICCV 2017) keep the same 17 of 32
    "h36m17": "Pelvis R_Hip R_Knee R_Ankle L_Hip L_Knee L_Ankle Torso Neck Nose Head_top L_Shoulder L_Elbow L_Wrist R_Shoulder "
    "R_Elbow R_Wrist",
}  # fmt: skip
OTHER_WORDS = {
    "halpe26": {"head": "head_top", "hip": "mid_hip"},
    "h36m17": {"torso": "spine", "neck": "thorax", "nose": "jaw"},
}
L = {name: points.index for name, points in LAYOUTS.items()}
SETS = tuple(LAYOUTS)


@pytest.fixture
def posed() -> tuple[Tensor, Tensor, Tensor]:
    kind = torch.float64
    return (torch.randn(10, dtype=kind), rotvec_to_rotmat(0.5 * torch.randn(4, 24, 3, dtype=kind)), torch.randn(4, 3, dtype=kind))  # fmt: skip


def zero() -> tuple[Tensor, Tensor]:
    return torch.zeros(10, dtype=torch.float64), torch.eye(3, dtype=torch.float64).expand(24, 3, 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_in_the_published_order(name: str) -> None:
    words = []
    for word in PUBLISHED[name].split():
        snake = re.sub(r"(?<=[a-z])_?(?=[A-Z])", "_", re.sub(r"^([LR])_?(?=[A-Z])", r"\1_", word)).lower()
        side = {"l_": "left_", "r_": "right_"}.get(snake[:2])
        snake = snake if side is None else side + snake[2:]
        words.append(OTHER_WORDS.get(name, {}).get(snake, snake))
    assert tuple(words) == LAYOUTS[name]


def test_the_regressors_rows_are_h36m_with_the_left_leg_first() -> None:
    rows = [LAYOUTS["h36m17"][i] for i in (0, 4, 5, 6, 1, 2, 3, *range(7, 17))]
    assert tuple({"thorax": "neck"}.get(rows[i], rows[i]) for i in H36M_ROWS) == LSP14


def test_the_bodys_own_points(light: Body, posed: tuple[Tensor, Tensor, Tensor]) -> None:
    joints, marks = light.joints_and_landmarks(*posed)
    torch.testing.assert_close(light.keypoints("smpl24", *posed), joints)
    torch.testing.assert_close(light.keypoints("blazepose33", *posed), marks, atol=1e-12, rtol=0)
    sets = {name: light.keypoints(name, *posed) for name in SETS}
    at = L["blazepose33"]
    for name in ("coco17", "openpose18", "body25", "halpe26"):
        for i, point in enumerate(LAYOUTS[name]):
            if "toe" not in point and "heel" not in point and point in LAYOUTS["blazepose33"]:
                torch.testing.assert_close(sets[name][:, i], marks[:, at(point)], msg=f"{name} {point}")
        for middle, of in (("neck", "shoulder"), ("mid_hip", "hip")):
            if middle in LAYOUTS[name]:
                expected = (marks[:, at(f"left_{of}")] + marks[:, at(f"right_{of}")]) / 2
                torch.testing.assert_close(sets[name][:, L[name](middle)], expected)
    for point in SKIN_POINTS:  # one place whatever the set's order
        found = [sets[n][:, L[n](point)] for n in ("body25", "halpe26", "h36m17") if point in LAYOUTS[n]]
        for other in found[1:]:
            torch.testing.assert_close(other, found[0])


def test_points_of_the_skin_are_posed_vertices(full: Body, light: Body, posed: tuple[Tensor, Tensor, Tensor]) -> None:
    with np.load(asset_path("open_body.npz")) as file:
        ids = torch.from_numpy(file["skin_vertex_ids"]).long()
    rows = [L["halpe26"](name) for name in SKIN_POINTS]
    betas = posed[0]
    rest = full.keypoints("halpe26", betas, zero()[1])[rows]
    torch.testing.assert_close(rest, full.rest_vertices(betas)[ids], atol=1e-6, rtol=0)  # any shape, exactly
    skinned = full.vertices(*posed, vertex_ids=ids)
    assert (full.keypoints("halpe26", *posed)[:, rows] - skinned).norm(dim=-1).max() < 0.003  # heels: 1 % is the shin's
    for name in SETS:
        torch.testing.assert_close(light.keypoints(name, *posed), full.keypoints(name, *posed))
    head, big, small, heel = rest[0], rest[1], rest[2], rest[3]
    assert head[1] > full.rest_vertices(betas)[:, 1].max() - 0.003
    assert big[2] > small[2] > heel[2] and 0 < heel[0] < small[0] and 0 < big[0] < small[0]
    assert 0.04 < (big - small).norm() < 0.09 and 0.2 < (big - heel).norm() < 0.32


@pytest.mark.parametrize("name", SETS)
def test_left_and_right_are_mirror_images(light: Body, name: str) -> None:
    """A mirrored pose has mirrored points: recipes and offsets treat both sides alike."""
    rotmat = rotvec_to_rotmat(0.4 * torch.randn(3, 24, 3, dtype=torch.float64))
    flip = torch.diag(torch.tensor((-1.0, 1, 1), dtype=torch.float64))
    mirrored = flip @ rotmat[:, list(MIRROR_SMPL)] @ flip
    names = LAYOUTS[name]

    def other(point: str) -> int:
        swapped = point.replace("left", "right") if "left" in point else point.replace("right", "left")
        return names.index(swapped)

    betas = torch.zeros(10, dtype=torch.float64)
    here, there = light.keypoints(name, betas, rotmat), light.keypoints(name, betas, mirrored)
    torch.testing.assert_close(there[:, [other(p) for p in names]] @ flip, here, atol=4e-3, rtol=0)


def test_human36m_has_its_skeletons_proportions(light: Body) -> None:
    """Against the data set's own skeleton (mm, one for all subjects), by as much as docs/body.md admits."""
    points = light.keypoints("h36m17", *zero())
    at = L["h36m17"]

    def length(a: str, b: str) -> float:
        return 1000 * float((points[at(a)] - points[at(b)]).norm())

    published = {
        ("pelvis", "left_hip"): (132.9, 5), ("left_hip", "left_knee"): (442.9, 35), ("left_knee", "left_ankle"): (454.2, 57),
        ("pelvis", "spine"): (233.4, 15), ("spine", "thorax"): (257.1, 25), ("thorax", "jaw"): (121.1, 30),
        ("thorax", "left_shoulder"): (151.0, 30), ("left_shoulder", "left_elbow"): (278.9, 25),
        ("left_elbow", "left_wrist"): (251.7, 5), ("pelvis", "head_top"): (726.6, 20),
    }  # fmt: skip
    for (a, b), (expected, within) in published.items():
        assert length(a, b) == pytest.approx(expected, abs=within), f"{a} to {b}"
    hips = points[[at("left_hip"), at("right_hip")]]
    torch.testing.assert_close(hips.mean(0), points[at("pelvis")], atol=1e-3, rtol=0)  # root and hips in one line
    joints = light.joints(*zero())
    for point in ("left_knee", "right_ankle", "left_shoulder", "right_elbow", "left_wrist"):
        torch.testing.assert_close(points[at(point)], joints[SMPL_JOINTS.index(point)])


@pytest.mark.parametrize("name", SETS)
def test_shapes_equivariance_and_types(light: Body, body: Body, name: str) -> None:
    betas = torch.randn(3, 1, 10, dtype=torch.float64)
    rotmat = rotvec_to_rotmat(0.4 * torch.randn(3, 5, 24, 3, dtype=torch.float64))
    transl = torch.randn(5, 3, dtype=torch.float64)
    found = light.keypoints(name, betas, rotmat, transl)
    assert found.shape == (3, 5, len(LAYOUTS[name]), 3)
    torch.testing.assert_close(found[2, 4], light.keypoints(name, betas[2, 0], rotmat[2, 4], transl[4]))
    torch.testing.assert_close(found, light.keypoints(name, betas, rotmat) + transl[:, None])
    single = body.keypoints(name, betas.float(), rotmat.float(), transl.float())
    assert single.dtype == torch.float32 and (single - found).abs().max() < 5e-6


def test_gradients(light: Body) -> None:
    inputs = [0.3 * torch.randn(1, *size, dtype=torch.float64, requires_grad=True) for size in ((10,), (24, 3), (3,))]

    def points(betas: Tensor, rotvec: Tensor, transl: Tensor) -> Tensor:
        return torch.cat(
            [light.keypoints(n, betas, rotvec_to_rotmat(rotvec), transl) for n in ("halpe26", "h36m17")], 1
        )

    assert torch.autograd.gradcheck(points, tuple(inputs), fast_mode=True)


def test_a_licensed_body_has_them_at_its_own_vertices(tmp_path: Path) -> None:
    """A miniature in SMPL's layout: toes, heels and crown follow smplx's skinning of the vertices that smplx names."""
    data = miniature("smpl", vertices=6890)
    data["posedirs"][:] = 0
    named = vertex_ids["smplh"]
    ids = [5] + [named[s + p] for s in "LR" for p in ("BigToe", "SmallToe", "Heel")]
    data["v_template"][5] = data["J_regressor"][SMPL_JOINTS.index("head")] @ data["v_template"] + (0, 3, 0)
    data["weights"][ids] = np.eye(24)[list(SKIN_CARRIERS)]  # each moves with one joint, as the points do
    body = Body.from_file(write(data, tmp_path / "SMPL_NEUTRAL.npz")).double()
    rotvec = 0.5 * torch.randn(3, 24, 3, dtype=torch.float64)
    betas, transl = torch.randn(3, 10, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    vertices, joints = through_smplx(data, betas, rotvec, transl)
    pose = rotvec_to_rotmat(rotvec)
    halpe, h36m = (body.keypoints(name, betas, pose, transl) for name in ("halpe26", "h36m17"))
    rows = [L["halpe26"](name) for name in SKIN_POINTS]
    torch.testing.assert_close(halpe[:, rows], vertices[:, ids], atol=1e-5, rtol=0)
    for point, joint in (("pelvis", "pelvis"), ("spine", "spine2"), ("right_knee", "right_knee")):
        expected = joints[:, SMPL_JOINTS.index(joint)]
        torch.testing.assert_close(h36m[:, L["h36m17"](point)], expected, atol=1e-5, rtol=0)
    hips = joints[:, 0] + 0.94 * (joints[:, 1] - joints[:, 2])
    torch.testing.assert_close(h36m[:, L["h36m17"]("left_hip")], hips, atol=1e-5, rtol=0)


def test_an_unknown_mesh_has_its_joints_alone(tmp_path: Path) -> None:
    body = Body.from_file(write(miniature("smpl", vertices=30), tmp_path / "m.npz"))
    arguments = torch.zeros(10), torch.eye(3).expand(24, 3, 3)
    torch.testing.assert_close(body.keypoints("smpl24", *arguments), body.joints(*arguments))
    with pytest.raises(UsageError, match="none of SMPL's"):
        body.keypoints("coco17", *arguments)
    with pytest.raises(UsageError, match="joint_set: expected one of smpl24, blazepose33, coco17"):
        body.keypoints("coco", *arguments)
    with pytest.raises(ShapeError, match="betas"):
        body.keypoints("smpl24", torch.zeros(9), arguments[1])


def test_of_a_motion(body: Body) -> None:
    motion = a_motion(6)
    for name in SETS:
        found = motion.keypoints3d(name)
        expected = body.keypoints(name, motion.betas, motion.pose_rotmat(), motion.transl)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    whole = motion.keypoints3d("coco17", body=body)
    assert motion.keypoints3d("coco17", 3, body).shape == (17, 3)
    for rows in (slice(1, 4), [0, 5], motion.observed):
        np.testing.assert_allclose(motion.keypoints3d("coco17", rows, body), whole[rows], atol=1e-6)
    with pytest.raises(UsageError, match="joint_set"):
        motion.keypoints3d("coco", body=body)
    with pytest.raises(UsageError, match="frames"):
        motion.keypoints3d("coco17", 6, body)


def test_a_motion_on_another_body_is_refused(tmp_path: Path, body: Body) -> None:
    other = Body.from_file(write(miniature("smpl", vertices=30), tmp_path / "m.npz"))
    motion = a_motion(2)
    for call in (lambda b: motion.keypoints3d("smpl24", body=b), lambda b: motion.vertices(body=b)):
        with pytest.raises(ShapeError, match="belongs to 'open', got 'smpl'"):
            call(other)
