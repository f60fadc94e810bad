"""The open body and its kinematics: a naive twin, smplx, equivariance, gradients, landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kinflow.assets import asset_path
from kinflow.body import Body
from kinflow.body.files import read_open
from kinflow.body.kinematics import forward_kinematics, full_pose, skin, skin_one_shape
from kinflow.errors import MissingAssetError, ShapeError, UsageError
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import (
    BLAZEPOSE,
    BLAZEPOSE_TO_SMPL,
    MIRROR_BLAZEPOSE,
    MIRROR_SMPL,
    SMPL_JOINTS,
    SMPL_PARENTS,
    SMPL_REST_OFFSETS,
)

J = SMPL_JOINTS.index
L = BLAZEPOSE.index


@pytest.fixture
def random_pose() -> Tensor:
    return rotvec_to_rotmat(0.6 * torch.randn(4, 24, 3, dtype=torch.float64))


def identity(*lead: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.eye(3, dtype=dtype).expand(*lead, 24, 3, 3)


def naive(body: Body, betas: Tensor, rotmat: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices and joints of one body, joint by joint and vertex by vertex in 4x4 matrices."""
    rest_vertices, rest_joints = body.rest_vertices(betas), body.rest_joints(betas)
    world: list[Tensor] = []
    for j, parent in enumerate(SMPL_PARENTS):
        local = torch.eye(4, dtype=rotmat.dtype)
        local[:3, :3] = rotmat[j]
        local[:3, 3] = rest_joints[j] - (rest_joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ local if parent >= 0 else local)
    vertices = []
    for v, w in zip(rest_vertices, body.weights, strict=True):
        vertices.append(sum(w[j] * (world[j][:3, :3] @ (v - rest_joints[j]) + world[j][:3, 3]) for j in range(24)))
    return torch.stack(vertices), torch.stack([m[:3, 3] for m in world])


# -- the asset -----------------------------------------------------------------------------------------------------


def test_the_zero_pose_is_smpls(full: Body) -> None:
    joints = full.rest_joints(torch.zeros(10, dtype=torch.float64))
    assert joints[0].norm() < 2e-3, "the pelvis lies at the origin"
    assert joints[J("left_wrist"), 0] > 0.5, "the subject's left is +x"
    assert joints[J("head"), 1] > 0.5 > joints[J("left_knee"), 1], "y is up"
    for side in ("left", "right"):
        for name, child in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
            bone = joints[J(f"{side}_{child}")] - joints[J(f"{side}_{name}")]
            smpls = torch.tensor(SMPL_REST_OFFSETS[J(f"{side}_{child}")], dtype=torch.float64)
            assert torch.cosine_similarity(bone, smpls, dim=0) > np.cos(np.deg2rad(1.0)), f"{side} {name}"
            assert abs(bone.norm() / smpls.norm() - 1) < 0.03, f"{side} {name}"
        assert joints[J(f"{side}_foot"), 2] - joints[J(f"{side}_ankle"), 2] > 0.1, "toes towards +z"
    mirrored = joints[list(MIRROR_SMPL)] * torch.tensor((-1.0, 1, 1))
    torch.testing.assert_close(joints, mirrored, atol=1e-3, rtol=0)


def test_mesh_is_closed_and_faces_outwards(full: Body, light: Body) -> None:
    for body in (full, light):
        faces = body.faces
        edges = torch.cat([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
        key = edges[:, 0] * body.num_vertices + edges[:, 1]
        back = edges[:, 1] * body.num_vertices + edges[:, 0]
        assert len(key.unique()) == len(key), "every directed edge once"
        assert torch.equal(key.sort().values, back.sort().values), "every edge has its twin: closed and oriented"
        corners = body.v_template[faces]
        volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
        assert 0.04 < volume < 0.10, "positive, in cubic metres of an adult"
        assert set(faces.unique().tolist()) == set(range(body.num_vertices))
    assert (full.num_vertices, len(full.faces)) == (12272, 24540)


def test_weights_and_parts(full: Body, light: Body) -> None:
    for body in (full, light):
        torch.testing.assert_close(
            body.weights.sum(1), torch.ones(body.num_vertices, dtype=torch.float64), atol=1e-6, rtol=0
        )
        assert (body.weights >= 0).all() and ((body.weights > 0).sum(1) <= 6).all()
        assert set(body.part_labels.tolist()) == set(range(24)), "every part has vertices"
        mean = body.v_template[body.part_labels == J("left_knee")].mean(0)
        assert mean[0] > 0.05 and -0.9 < mean[1] < -0.4, "the left shank moves with the left knee"


def test_light_mesh_is_a_part_of_the_full_one(full: Body, light: Body, random_pose: Tensor) -> None:
    betas = torch.randn(10, dtype=torch.float64)
    with np.load(asset_path("open_body_light.npz")) as file:
        ids = torch.from_numpy(file["full_vertex_ids"]).long()
    assert torch.equal(full.v_template[ids], light.v_template)
    assert torch.equal(full.part_labels[ids], light.part_labels)
    torch.testing.assert_close(full.vertices(betas, random_pose, vertex_ids=ids), light.vertices(betas, random_pose))
    torch.testing.assert_close(full.landmarks(betas, random_pose), light.landmarks(betas, random_pose))
    # The thin surface stays near the full one.
    middle = light.v_template[light.faces[::5]].mean(1)
    assert torch.cdist(middle, full.v_template).amin(1).max() < 0.03


def test_first_shape_coefficient_is_stature(full: Body) -> None:
    def stature(*values: float) -> float:
        betas = torch.zeros(10, dtype=torch.float64)
        betas[: len(values)] = torch.tensor(values)
        y = full.rest_vertices(betas)[:, 1]
        return float(y.max() - y.min())

    assert stature() == pytest.approx(1.70, abs=0.03)
    assert stature(1.0) - stature() == pytest.approx(0.09, abs=0.02)
    assert stature(-2.0) == pytest.approx(stature() - 2 * (stature(1.0) - stature()), abs=0.005)
    for k in range(1, 10):
        assert stature(*([0.0] * k), 1.0) == pytest.approx(stature(), abs=0.005)


def test_landmarks_lie_where_their_names_say(full: Body) -> None:
    zero = torch.zeros(10, dtype=torch.float64)
    joints = full.rest_joints(zero)
    arrays = read_open()
    assert arrays.landmark_anatomical_offsets is not None and arrays.landmark_offsets is not None
    points = joints[full.landmark_joints] + torch.from_numpy(arrays.landmark_anatomical_offsets)
    for landmark, joint in BLAZEPOSE_TO_SMPL.items():
        # The landmark's name is anatomy's; joints lie where SMPL has them, some centimetres beside it.
        off = (points[landmark] - joints[joint]).norm()
        assert off < (0.06 if "hip" in SMPL_JOINTS[joint] else 0.04), SMPL_JOINTS[joint]
    mirrored = points[list(MIRROR_BLAZEPOSE)] * torch.tensor((-1.0, 1, 1))
    torch.testing.assert_close(points, mirrored, atol=2e-3, rtol=0)
    assert points[L("nose")].argmax() == 1 and points[L("nose"), 2] > points[L("left_ear"), 2] + 0.08
    order = [points[L(n), 0] for n in ("left_eye_inner", "left_eye", "left_eye_outer", "left_ear")]
    assert sorted(order) == order and order[0] > 0
    assert points[L("left_eye"), 1] > points[L("nose"), 1] > points[L("mouth_left"), 1] > joints[J("neck"), 1]
    assert points[L("left_heel"), 2] < joints[J("left_ankle"), 2] - 0.03
    assert points[L("left_foot_index"), 2] > joints[J("left_foot"), 2] + 0.03
    assert points[L("left_thumb"), 2] > points[L("left_pinky"), 2] + 0.03, "palms down, thumbs forward"
    calibration = torch.from_numpy(arrays.landmark_offsets - arrays.landmark_anatomical_offsets)
    assert calibration.norm(dim=-1).max() < 0.06, "BlazePose sees landmarks within centimetres of their names' places"
    # On the skin where they are points of the skin, for other shapes too.
    for betas in (zero, torch.tensor([1.5, -2.0, 1.5] + [0.0] * 7, dtype=torch.float64)):
        skin_ids = [
            L(n)
            for n in BLAZEPOSE
            if any(s in n for s in ("nose", "eye", "ear", "mouth", "heel", "foot_index")) and "knee" not in n
        ]
        shaped = full.landmarks(betas, identity()) - calibration
        distance = torch.cdist(shaped[skin_ids], full.rest_vertices(betas)).amin(1)
        assert distance.max() < 0.012


# -- kinematics and skinning ---------------------------------------------------------------------------------------


def test_equals_the_naive_twin(light: Body, random_pose: Tensor) -> None:
    betas = torch.randn(10, dtype=torch.float64)
    vertices, joints = naive(light, betas, random_pose[0])
    torch.testing.assert_close(light.vertices(betas, random_pose[0]), vertices, atol=1e-9, rtol=0)
    torch.testing.assert_close(light.joints(betas, random_pose[0]), joints, atol=1e-9, rtol=0)


def test_equals_smplx(full: Body) -> None:
    """smplx on the same arrays, in float32 as users run it: within 1e-5 m."""
    import smplx
    from smplx.utils import Struct

    with np.load(asset_path("open_body.npz")) as file:
        count = len(file["v_template"])
        regressor = np.zeros((24, count))
        regressor[file["J_regressor_rows"], file["J_regressor_columns"]] = file["J_regressor_values"]
        data = Struct(
            v_template=file["v_template"], shapedirs=file["shapedirs"], weights=file["weights"], f=file["faces"],
            posedirs=np.zeros((count, 3, 207)), J_regressor=regressor,
            kintree_table=np.stack((file["kintree_parents"], np.arange(24))),
        )  # fmt: skip
    for dtype, body in ((torch.float32, Body.open()), (torch.float64, full)):
        model = smplx.SMPL(model_path="", data_struct=data, dtype=dtype, batch_size=3)  # fmt: skip
        betas = torch.randn(3, 10, dtype=dtype)
        rotvec = 0.7 * torch.randn(3, 24, 3, dtype=dtype)
        transl = torch.randn(3, 3, dtype=dtype)
        theirs = model(betas=betas, global_orient=rotvec[:, 0], body_pose=rotvec[:, 1:].flatten(1), transl=transl)
        rotmat = rotvec_to_rotmat(rotvec)
        vertices, joints = body(betas, rotmat, transl)
        assert (vertices - theirs.vertices).abs().max() < 1e-5
        assert (joints - theirs.joints[:, :24]).abs().max() < 1e-5


def test_equivariance(light: Body, random_pose: Tensor) -> None:
    """Turning the root about its own place turns everything; translation moves everything."""
    betas = torch.randn(10, dtype=torch.float64)
    turn = rotvec_to_rotmat(torch.randn(3, dtype=torch.float64))
    shift = torch.randn(4, 3, dtype=torch.float64)
    root = light.rest_joints(betas)[0]
    turned = random_pose.clone()
    turned[:, 0] = turn @ random_pose[:, 0]
    for method in (light.joints, light.landmarks, light.vertices):
        before = method(betas, random_pose)
        torch.testing.assert_close(method(betas, turned), (before - root) @ turn.T + root)
        torch.testing.assert_close(method(betas, random_pose, shift), before + shift[:, None])


def test_bone_lengths_do_not_change_with_pose(light: Body, random_pose: Tensor) -> None:
    betas = torch.randn(10, dtype=torch.float64)
    joints, rest = light.joints(betas, random_pose), light.rest_joints(betas)
    parents = list(SMPL_PARENTS[1:])
    posed = (joints[:, 1:] - joints[:, parents]).norm(dim=-1)
    torch.testing.assert_close(posed, (rest[1:] - rest[parents]).norm(dim=-1).expand_as(posed))


def test_leading_dimensions_broadcast(light: Body) -> None:
    betas = torch.randn(3, 1, 10, dtype=torch.float64)
    rotmat = rotvec_to_rotmat(torch.randn(3, 5, 24, 3, dtype=torch.float64))
    transl = torch.randn(5, 3, dtype=torch.float64)
    for method, size in ((light.joints, 24), (light.landmarks, 33), (light.vertices, light.num_vertices)):
        result = method(betas, rotmat, transl)
        assert result.shape == (3, 5, size, 3)
        torch.testing.assert_close(result[2, 4], method(betas[2, 0], rotmat[2, 4], transl[4]))
    many = light.vertices(torch.zeros(7, 1, 10, dtype=torch.float64), identity(1))
    assert many.shape == (7, 1, light.num_vertices, 3)
    assert light.joints(betas[:0, 0], rotmat[:0, 0]).shape == (0, 24, 3)
    assert light.vertices(betas[:0, 0], rotmat[:0, 0]).shape == (0, light.num_vertices, 3)


def test_one_shape_path_equals_the_general_one(light: Body, random_pose: Tensor) -> None:
    betas = torch.randn(10, dtype=torch.float64)
    shared = light.vertices(betas.expand(4, 10), random_pose)  # expanded: one shape
    torch.testing.assert_close(shared, light.vertices(betas.repeat(4, 1), random_pose))
    rotations, positions = forward_kinematics(random_pose, light.joint_template)
    rest = (light.v_template, light.weights, rotations, positions, light.joint_template)
    torch.testing.assert_close(skin(*rest), skin_one_shape(*rest))


def test_chosen_vertices(light: Body, random_pose: Tensor) -> None:
    ids = torch.tensor((5, 1999, 0, 5))
    for betas in (torch.randn(10, dtype=torch.float64), torch.randn(4, 10, dtype=torch.float64)):
        chosen = light.vertices(betas, random_pose, vertex_ids=ids)
        torch.testing.assert_close(chosen, light.vertices(betas, random_pose)[..., ids, :])


def test_gradients(light: Body) -> None:
    betas = torch.zeros(2, 10, dtype=torch.float64, requires_grad=True)
    rotvec = torch.zeros(2, 24, 3, dtype=torch.float64, requires_grad=True)
    transl = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    rotmat = rotvec_to_rotmat(rotvec)
    total = sum(((m(betas, rotmat, transl) - 0.3) ** 2).sum() for m in (light.joints, light.landmarks, light.vertices))
    for gradient in torch.autograd.grad(total, (betas, rotvec, transl)):
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    ids = torch.tensor((0, 700, 1500))

    def points(b: Tensor, r: Tensor, t: Tensor) -> Tensor:
        rotmat = rotvec_to_rotmat(r)
        return torch.cat((light.landmarks(b, rotmat, t)[:, ::8], light.vertices(b, rotmat, t, vertex_ids=ids)), 1)

    inputs = [0.3 * torch.randn(1, *size, dtype=torch.float64, requires_grad=True) for size in ((10,), (24, 3), (3,))]
    assert torch.autograd.gradcheck(points, tuple(inputs), fast_mode=True)


def test_float32_and_module_duties(random_pose: Tensor, light: Body) -> None:
    body = Body.open("light")
    assert not list(body.parameters()) and body.name == "open" and "CC0" in body.provenance
    betas = torch.randn(10)
    result = body.vertices(betas, random_pose.float())
    assert result.dtype == torch.float32
    assert (result - light.vertices(betas.double(), random_pose)).abs().max() < 2e-6
    assert body.double().dtype == torch.float64


def test_arm_raised_towards_the_camera_side(full: Body) -> None:
    """Handedness: rotating the left shoulder by +90 degrees about z lifts the left arm."""
    rotvec = torch.zeros(24, 3, dtype=torch.float64)
    rotvec[J("left_shoulder"), 2] = np.pi / 2
    joints = full.joints(torch.zeros(10, dtype=torch.float64), rotvec_to_rotmat(rotvec))
    assert joints[J("left_wrist"), 1] > joints[J("left_shoulder"), 1] + 0.4
    rotvec = torch.zeros(24, 3, dtype=torch.float64)
    rotvec[J("right_knee"), 0] = np.pi / 2
    joints = full.joints(torch.zeros(10, dtype=torch.float64), rotvec_to_rotmat(rotvec))
    assert joints[J("right_ankle"), 2] < -0.3, "knees bend backwards about +x"


def test_skin_does_not_tear(full: Body) -> None:
    """Walking, an arm up, a deep knee bend: no edge of the mesh stretches beyond reason, and volume stays."""

    def posed(**degrees: tuple[float, float, float]) -> Tensor:
        rotvec = torch.zeros(24, 3, dtype=torch.float64)
        for name, value in degrees.items():
            rotvec[J(name)] = torch.deg2rad(torch.tensor(value, dtype=torch.float64))
        return rotvec_to_rotmat(rotvec)

    poses = (
        posed(left_hip=(-30, 0, 0), right_hip=(20, 0, 0), right_knee=(40, 0, 0), left_shoulder=(0, 0, -70)),
        posed(left_collar=(0, 0, 20), left_shoulder=(0, 0, 65)),
        posed(left_hip=(-105, 0, 10), right_hip=(-105, 0, -10), left_knee=(115, 0, 0), right_knee=(115, 0, 0)),
    )
    zero = torch.zeros(10, dtype=torch.float64)
    edges = torch.cat([full.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])

    def lengths(vertices: Tensor) -> Tensor:
        return (vertices[edges[:, 0]] - vertices[edges[:, 1]]).norm(dim=-1)

    def volume(vertices: Tensor) -> Tensor:
        a, b, c = vertices[full.faces].unbind(1)
        return (a * torch.linalg.cross(b, c)).sum() / 6

    rest = full.rest_vertices(zero)
    for rotmat in poses:
        vertices = full.vertices(zero, rotmat)
        grown = lengths(vertices) - lengths(rest)
        assert grown.max() < 0.04, "no edge grows by more than 4 cm"
        assert 0.90 < volume(vertices) / volume(rest) < 1.05


# -- bad input -----------------------------------------------------------------------------------------------------


def test_errors_name_the_argument(light: Body, random_pose: Tensor) -> None:
    with pytest.raises(ShapeError, match="betas"):
        light.joints(torch.zeros(9, dtype=torch.float64), random_pose)
    with pytest.raises(ShapeError, match="pose_rotmat"):
        light.joints(torch.zeros(10, dtype=torch.float64), random_pose[:, 1:])
    with pytest.raises(ShapeError, match="transl"):
        light.joints(torch.zeros(10, dtype=torch.float64), random_pose, torch.zeros(4, dtype=torch.float64))
    with pytest.raises(UsageError, match="resolution"):
        Body.open("tiny")
    with pytest.raises(MissingAssetError):
        Body.from_file("no/such/file.pkl")


def test_a_full_pose_has_its_root_first_and_resting_hands() -> None:
    body, root = (rotvec_to_rotmat(torch.randn(*shape, 3, dtype=torch.float64)) for shape in ((2, 5, 21), (2, 5)))
    eye = torch.eye(3, dtype=torch.float64).expand(2, 5, 3, 3)
    whole = full_pose(body, root)
    torch.testing.assert_close(whole[..., 0, :, :], root)
    torch.testing.assert_close(whole[..., 1:22, :, :], body)
    for joint in (22, 23):
        torch.testing.assert_close(whole[..., joint, :, :], eye)
    torch.testing.assert_close(full_pose(body)[..., 0, :, :], eye)
