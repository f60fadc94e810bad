"""Every export is read back by a reader that is not ours, and says what the motion says: joints to 1 mm."""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from numpy.typing import NDArray
from read_glb import Glb
from scipy.spatial.transform import Rotation
from smplx.utils import Struct
from walking_people import a_walk, y_up

from kinflow.body import Body
from kinflow.errors import UsageError
from kinflow.formats.bvh import euler_without_jumps
from kinflow.formats.characters import characters
from kinflow.formats.exports import export
from kinflow.formats.pose_files import read_pose_file
from kinflow.mocap.amass import read_amass
from kinflow.mocap.bvh import read_bvh
from kinflow.motion import Motion
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE, COCO17, SMPL_JOINTS, SMPL_PARENTS

FRAMES, FPS = 24, 24.0
NEAR = 1e-3
"""m, within which joints agree."""


@pytest.fixture(scope="module")
def off_centre() -> Body:
    """The open body with its pelvis off the origin at zero pose, as SMPL's."""
    moved = Body.open("light")
    shift = torch.tensor([0.02, -0.22, 0.03])
    moved.v_template += shift
    moved.joint_template += shift
    return moved


@pytest.fixture(scope="module")
def people(off_centre: Body) -> list[Motion]:
    """Two people; the second comes later and leaves before the first."""
    return [a_walk(off_centre, FRAMES, FPS), a_walk(off_centre, 8, FPS, person_id=1, start_s=0.25, heading=-0.5)]


def rows(motion: Motion) -> list[int]:
    return [0, len(motion) // 2, len(motion) - 1]


# -- GLB ---------------------------------------------------------------------------------------------------------------


def test_glb_by_the_specification(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    pytest.importorskip("pygltflib")
    (path,) = export(people, tmp_path, "glb", body=off_centre)
    glb = Glb(path)
    assert glb.data["asset"]["version"] == "2.0"
    for name, motion in zip(("person00", "person01"), people, strict=True):
        for row in rows(motion):
            vertices, joints, names = glb.skinned(name, motion.timestamps[row])
            assert tuple(names) == SMPL_JOINTS
            assert np.abs(joints - y_up(motion.joints3d[row])).max() < NEAR
            off = np.linalg.norm(vertices - y_up(motion.vertices(row, off_centre)), axis=-1)
            assert np.median(off) < 1e-5 and off.max() < 5e-3  # a few vertices hang on a fifth joint
        holder = glb.nodes[glb.node(name)]["extras"]
        np.testing.assert_allclose(holder["betas"], motion.betas, atol=1e-6)
        assert holder["body"] == "open" and holder["filled_in_s"] == [motion.timestamps[[2, 3]].tolist()]


def test_glb_hides_who_is_not_there(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    pytest.importorskip("pygltflib")
    glb = Glb(export(people, tmp_path, "glb", body=off_centre)[0])
    first, last = people[1].timestamps[[0, -1]]
    for time, there in ((0.0, False), (first - 0.01, False), (first, True), (last, True), (last + 1.1 / FPS, False)):
        extent = np.ptp(glb.skinned("person01", time)[0], axis=0).max()
        assert (extent > 1) if there else (extent < 1e-3)
        assert np.ptp(glb.skinned("person00", time)[0], axis=0).max() > 1


def test_glb_by_trimesh(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    pytest.importorskip("pygltflib")
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(export(people, tmp_path, "glb", body=off_centre)[0])
    assert {"person00", "person01", "person00_mesh", "person01_mesh"} <= set(scene.graph.nodes)
    assert len(scene.geometry) == 2
    mesh = scene.geometry["person00"]
    rest = off_centre.rest_vertices(torch.tensor(people[0].betas)).numpy()
    assert len(mesh.faces) == len(off_centre.faces)
    np.testing.assert_allclose(mesh.bounds, [rest.min(0), rest.max(0)], atol=1e-5)
    outwards = (np.array(mesh.vertex_normals) * (mesh.vertices - mesh.centroid)).sum(-1)
    assert (outwards > 0).mean() > 0.7


# -- BVH ---------------------------------------------------------------------------------------------------------------


def test_bvh_by_bvhio(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    bvhio = pytest.importorskip("bvhio")
    paths = export(people, tmp_path, "bvh", body=off_centre)
    assert [p.name for p in paths] == ["person00.bvh", "person01.bvh"]
    for path, motion in zip(paths, people, strict=True):
        container = bvhio.readAsBvh(str(path))
        assert container.FrameCount == len(motion) and container.FrameTime == pytest.approx(1 / FPS, abs=1e-6)
        root = bvhio.convertBvhToHierarchy(container.Root).loadRestPose(recursive=True)
        layout = {joint.Name: joint for joint, _, _ in root.layout()}
        assert set(SMPL_JOINTS) == set(layout)
        for row in rows(motion):
            root.loadPose(row)
            found = np.array([list(layout[name].PositionWorld) for name in SMPL_JOINTS])
            assert np.abs(found - y_up(motion.joints3d[row])).max() < NEAR


def test_bvh_by_our_own_reader_of_captures(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    source = read_bvh(export(people[:1], tmp_path, "bvh", body=off_centre)[0])
    found = source.positions()[:, [source.index(name) for name in SMPL_JOINTS]]
    assert np.abs(found - y_up(people[0].joints3d)).max() < NEAR
    assert sum(name.endswith("_end") for name in source.joints) == 5
    assert source.fps == pytest.approx(FPS, rel=1e-6)
    for joint in ("left_foot", "head"):  # end sites go on with their bone
        end, own = source.offsets[source.index(f"{joint}_end")], source.offsets[source.index(joint)]
        np.testing.assert_allclose(end, own, atol=1e-6)


def test_angles_turn_without_jumps_and_are_scipys() -> None:
    """Two full turns about an axis that tilts: the angles that the formula gives jump, ours do not."""
    turn = np.linspace(0, 4 * np.pi, 241)
    tilt = Rotation.from_rotvec(np.outer(0.6 * np.sin(turn / 2), [1, 0, 0]))
    tilt = tilt * Rotation.from_rotvec(np.outer(turn, [0, 1, 0]))
    spin = Rotation.from_euler("ZXY", np.stack((turn, 0 * turn + 0.3, -turn), -1))
    over = Rotation.from_rotvec(np.outer(turn + 0.01, [1, 0, 0]))  # the middle angle goes past a quarter turn
    rotmat = np.stack([r.as_matrix() for r in (tilt, spin, over)], 1)
    angles = euler_without_jumps(rotmat)
    assert np.abs(np.diff(angles, axis=0)).max() < 12
    for joint in range(3):
        back = Rotation.from_euler("ZXY", angles[:, joint], degrees=True).as_matrix()
        assert np.abs(back - rotmat[:, joint]).max() < 1e-9
    assert np.ptp(angles[:, 1, 0]) == pytest.approx(720, abs=1)
    assert np.ptp(angles[:, 2, 1]) == pytest.approx(720, abs=1)


# -- USD ---------------------------------------------------------------------------------------------------------------


def test_usd_by_pixars_library(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdSkel

    paths = export(people, tmp_path, "usd", body=off_centre)
    assert [p.name for p in paths] == ["people.usda", "people.usdz"]
    for path in paths:
        stage = Usd.Stage.Open(str(path))
        assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
        rate = stage.GetTimeCodesPerSecond()
        assert rate == pytest.approx(FPS)
        assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, FRAMES - 1)
        for name, motion in zip(("person00", "person01"), people, strict=True):
            prim = stage.GetPrimAtPath(f"/People/{name}")
            cache = UsdSkel.Cache()
            cache.Populate(UsdSkel.Root(prim), Usd.TraverseInstanceProxies())
            (binding,) = cache.ComputeSkelBindings(UsdSkel.Root(prim), Usd.TraverseInstanceProxies())
            query = cache.GetSkelQuery(binding.GetSkeleton())
            (skinning,) = binding.GetSkinningTargets()
            assert [t.split("/")[-1] for t in query.GetJointOrder()] == list(SMPL_JOINTS)
            assert [query.GetTopology().GetParent(j) for j in range(24)] == list(SMPL_PARENTS)
            for row in rows(motion):
                code = motion.timestamps[row] * rate
                joints = np.array([list(m.ExtractTranslation()) for m in query.ComputeJointSkelTransforms(code)])
                assert np.abs(joints - y_up(motion.joints3d[row])).max() < NEAR
                points = UsdGeom.Mesh(skinning.GetPrim()).GetPointsAttr().Get()
                assert skinning.ComputeSkinnedPoints(query.ComputeSkinningTransforms(code), points, code)
                off = np.array(points) - y_up(motion.vertices(row, off_centre))
                assert np.linalg.norm(off, axis=-1).max() < NEAR
                assert prim.GetAttribute("userProperties:observed").Get(code) == motion.observed[row]
            assert prim.GetCustomDataByKey("kinflow:body") == "open"
        late = UsdGeom.Imageable(stage.GetPrimAtPath("/People/person01"))
        seen = [late.ComputeVisibility(code) for code in (0, 5, 6, 13, 14, 23)]
        assert seen == ["invisible", "invisible", "inherited", "inherited", "invisible", "invisible"]


def test_usd_tells_two_names_that_it_cannot_tell_apart(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    pytest.importorskip("pxr")
    with pytest.raises(UsageError, match="names: USD has letters"):
        export(people, tmp_path, "usd", body=off_centre, names=["a b", "a-b"])


# -- parameters, by smplx ------------------------------------------------------------------------------------------------


def in_smplx(body: Body) -> smplx.SMPL:
    """smplx with our body's arrays: the joints ride along as vertices that the regressor picks."""
    joints, count = body.joint_template, body.num_vertices
    regressor = torch.zeros(24, count + 24)
    regressor[torch.arange(24), count + torch.arange(24)] = 1
    arrays = {
        "v_template": torch.cat((body.v_template, joints)), "shapedirs": torch.cat((body.shapedirs, body.joint_shapedirs)),
        "posedirs": torch.zeros(count + 24, 3, 207), "J_regressor": regressor, "f": body.faces,
        "weights": torch.cat((body.weights, torch.eye(24))), "kintree_table": torch.tensor([SMPL_PARENTS, range(24)]),
    }  # fmt: skip
    struct = Struct(**{k: v.numpy() for k, v in arrays.items()})
    return smplx.SMPL(model_path="", data_struct=struct, vertex_ids=defaultdict(int))


def smplx_joints(body: Body, rotvec: NDArray[np.float64], transl: NDArray[np.float64], betas: object) -> np.ndarray:
    frames = len(rotvec)
    pose = torch.tensor(rotvec.reshape(frames, -1), dtype=torch.float32)
    with torch.no_grad():
        out = in_smplx(body)(
            global_orient=pose[:, :3], body_pose=pose[:, 3:], transl=torch.tensor(transl, dtype=torch.float32),
            betas=torch.tensor(np.asarray(betas), dtype=torch.float32).reshape(1, -1)[:, :10].expand(frames, -1),
        )  # fmt: skip
    return out.joints[:, :24].numpy()


def test_smpl_parameters_by_smplx(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    for path, motion in zip(export(people, tmp_path, "smpl", body=off_centre), people, strict=True):
        with np.load(path) as npz:
            rotvec = np.concatenate((npz["global_orient"], npz["body_pose"]), 1)
            found = smplx_joints(off_centre, rotvec, npz["transl"], npz["betas"])
            assert npz["body"] == "open" and npz["gender"] == "neutral"
            np.testing.assert_array_equal(npz["observed"], motion.observed)
            np.testing.assert_array_equal(npz["timestamps"], motion.timestamps)
        assert np.abs(found - y_up(motion.joints3d)).max() < NEAR
        assert read_pose_file(path).kind == "smpl"  # kinflow-smooth takes it


def test_amass_by_smplx(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    for path, motion in zip(export(people, tmp_path, "amass", body=off_centre), people, strict=True):
        with np.load(path) as npz:
            poses, trans = npz["poses"], npz["trans"]
            assert poses.shape == (len(motion), 156) and npz["betas"].shape == (16,) and not poses[:, 66:].any()
            assert npz["mocap_framerate"] == pytest.approx(FPS) and npz["start_s"] == motion.timestamps[0]
            rotvec = np.concatenate((poses[:, :66], np.zeros((len(poses), 6))), 1)
            found = smplx_joints(off_centre, rotvec, trans, npz["betas"])
            assert npz["body"] == "open" and npz["gender"] == "neutral"
        up = y_up(motion.joints3d)
        z_up = np.stack((up[..., 0], -up[..., 2], up[..., 1]), -1)
        assert np.abs(found - z_up).max() < NEAR
        assert np.median(z_up[:, 15, 2] - z_up[:, 7, 2]) > 1  # heads above feet
        assert read_pose_file(path).kind == "amass"


def test_amass_by_our_reader_of_the_data_set(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    (path,) = export(people[:1], tmp_path, "amass", body=off_centre)
    rest = off_centre.rest_joints(torch.tensor(people[0].betas))
    found = read_amass(path, pelvis=tuple(rest[0].tolist()))
    assert found.model == "smplh" and found.motion.fps == pytest.approx(FPS)
    assert np.abs(found.motion.transl - y_up(people[0].joints3d[:, 0])).max() < NEAR
    root = Rotation.from_matrix(found.motion.rotmats[:, 0]) * Rotation.from_rotvec(people[0].global_orient).inv()
    half_turn = Rotation.from_rotvec([np.pi, 0, 0])
    assert (root * half_turn.inv()).magnitude().max() < 1e-3


# -- points --------------------------------------------------------------------------------------------------------------


def read_trc(path: Path) -> tuple[dict[str, str], list[str], np.ndarray]:
    """Header, marker names and rows, by OpenSim's description of the format."""
    lines = path.read_text().splitlines()
    assert lines[0].split("\t")[:3] == ["PathFileType", "4", "(X/Y/Z)"]
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    names = lines[3].split("\t")[2::3]
    assert lines[4].split("\t")[2:5] == ["X1", "Y1", "Z1"] and lines[5] == ""
    return header, names, np.array([[float(v) for v in line.split("\t")] for line in lines[6:]])


def test_trc(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    for path, motion in zip(export(people, tmp_path, "trc", body=off_centre), people, strict=True):
        header, names, values = read_trc(path)
        assert header["Units"] == "m" and int(header["NumFrames"]) == len(motion) == len(values)
        assert float(header["DataRate"]) == pytest.approx(FPS) and int(header["NumMarkers"]) == 24
        assert tuple(names) == SMPL_JOINTS
        np.testing.assert_array_equal(values[:, 0], np.arange(len(motion)) + 1)
        np.testing.assert_allclose(values[:, 1], motion.timestamps, atol=1e-6)
        assert np.abs(values[:, 2:].reshape(-1, 24, 3) - y_up(motion.joints3d)).max() < NEAR


def test_trc_by_opensim(tmp_path: Path, people: list[Motion], off_centre: Body) -> None:
    opensim = pytest.importorskip("opensim")  # 200 MB, hence no requirement of the tests
    path = export(people[:1], tmp_path, "trc", body=off_centre)[0]
    table = opensim.TimeSeriesTableVec3(str(path))
    assert table.getColumnLabels() == SMPL_JOINTS and table.getTableMetaDataString("Units") == "m"
    cells = [[table.getRowAtIndex(t).getElt(0, j) for j in range(24)] for t in range(FRAMES)]
    found = np.array([[[cell.get(axis) for axis in range(3)] for cell in row] for row in cells])
    assert np.abs(found - y_up(people[0].joints3d)).max() < NEAR
    np.testing.assert_allclose(table.getIndependentColumn(), people[0].timestamps, atol=1e-6)


@pytest.mark.parametrize(("joints", "names"), [("smpl24", SMPL_JOINTS), ("blazepose33", BLAZEPOSE), ("coco17", COCO17)])
def test_csv(tmp_path: Path, people: list[Motion], off_centre: Body, joints: str, names: tuple[str, ...]) -> None:
    (path,) = export(people[1:], tmp_path, "csv", body=off_centre, joints=joints)
    with path.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    motion = people[1]
    if joints == "smpl24":
        expected = motion.joints3d
    else:
        pose, transl = motion.pose_rotmat(), torch.tensor(motion.transl)
        marks = off_centre.landmarks(torch.tensor(motion.betas), pose, transl).numpy()
        expected = marks[:, [BLAZEPOSE.index(n) for n in names]]
    found = np.array([[[float(row[f"{n}_{a}"]) for a in "xyz"] for n in names] for row in table])
    assert np.abs(found - y_up(expected)).max() < NEAR
    assert [int(row["frame_id"]) for row in table] == motion.frame_ids.tolist()
    assert [row["observed"] == "1" for row in table] == motion.observed.tolist()
    np.testing.assert_allclose([float(row["time_s"]) for row in table], motion.timestamps, atol=1e-6)


# -- time ----------------------------------------------------------------------------------------------------------------


def test_a_rate_of_ones_own_turns_the_short_way(off_centre: Body) -> None:
    """Rows at 24 frames/s of a body that spins at 2 rad/s: at 60 they lie on the same spin, by scipy."""
    motion = a_walk(off_centre, FRAMES, FPS)
    spin = Rotation.from_rotvec(np.outer(2 * motion.timestamps, [0, 1, 0]))
    motion = dataclasses.replace(motion, global_orient=(spin * Rotation.from_rotvec([np.pi, 0, 0])).as_rotvec())
    (slow,), (fast,) = characters([motion], off_centre), characters([motion], off_centre, fps=60)
    assert len(fast) == 58 and fast.fps == 60 and fast.frame_ids is None
    np.testing.assert_allclose(fast.timestamps, np.arange(58) / 60, atol=1e-9)
    turned = Rotation.from_matrix(fast.pose_rotmat[:, 0]) * Rotation.from_matrix(slow.pose_rotmat[0, 0]).inv()
    angle = np.unwrap(turned.as_rotvec()[:, 1])
    np.testing.assert_allclose(angle, -2 * fast.timestamps, atol=1e-5)
    np.testing.assert_allclose(fast.pose_rotmat[::5][:10], slow.pose_rotmat[::2][:10], atol=1e-5)
    assert not fast.observed[4:9].any() and fast.observed[:3].all() and fast.observed[10:].all()


def test_everybody_shares_the_grid(people: list[Motion], off_centre: Body) -> None:
    first, second = characters(people, off_centre, fps=30)
    steps = (second.timestamps - first.timestamps[0]) * 30
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert second.timestamps[0] >= people[1].timestamps[0] and second.timestamps[-1] <= people[1].timestamps[-1]


def test_uneven_times_are_kept_where_they_can_be_and_told_where_not(
    tmp_path: Path, off_centre: Body, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pygltflib")
    motion = a_walk(off_centre, FRAMES, FPS, jitter_s=0.015)
    with caplog.at_level(logging.WARNING):
        glb, table = export([motion], tmp_path, "glb,csv", body=off_centre)
    assert not caplog.records
    for row in (5, 6):
        joints = Glb(glb).skinned("person00", motion.timestamps[row])[1]
        assert np.abs(joints - y_up(motion.joints3d[row])).max() < NEAR
    assert float(table.read_text().splitlines()[2].split(",")[0]) == pytest.approx(motion.timestamps[1], abs=1e-6)
    with caplog.at_level(logging.WARNING):
        (bvh,) = export([motion], tmp_path, "bvh", body=off_centre)
    assert "person00: BVH holds one rate" in caplog.text
    source = read_bvh(bvh)
    times = np.arange(len(source.rotmats)) / source.fps
    for axis in range(3):  # between rows the pelvis is where the line between them is
        line = np.interp(times, motion.timestamps, y_up(motion.joints3d[:, 0])[:, axis])
        assert np.abs(source.root_positions[:, axis] - line).max() < NEAR


def test_times_rounded_to_milliseconds_are_even(
    tmp_path: Path, off_centre: Body, caplog: pytest.LogCaptureFixture
) -> None:
    motion = a_walk(off_centre, FRAMES, 30)
    motion = dataclasses.replace(motion, timestamps=motion.timestamps.round(3))
    with caplog.at_level(logging.WARNING):
        (path,) = export([motion], tmp_path, "amass", body=off_centre)
    with np.load(path) as npz:
        assert len(npz["poses"]) == FRAMES and npz["mocap_framerate"] == pytest.approx(30, rel=2e-3)
    assert not caplog.records


# -- the mesh itself -------------------------------------------------------------------------------------------------------


def test_quaternions_never_jump(off_centre: Body) -> None:
    motion = a_walk(off_centre, FRAMES, FPS)
    spin = np.outer(np.linspace(0, 4 * np.pi, FRAMES), [0, 1, 0]).astype(np.float32)
    (person,) = characters([dataclasses.replace(motion, global_orient=spin)], off_centre)
    quat = person.quat_wxyz()
    assert (np.einsum("tjk,tjk->tj", quat[1:], quat[:-1]) > 0).all()
    back = Rotation.from_quat(np.roll(quat, -1, -1)[:, 0]).as_matrix()
    turned = np.diag([1.0, -1.0, -1.0]) @ rotvec_to_rotmat(torch.from_numpy(spin).double()).numpy()
    np.testing.assert_allclose(back, turned, atol=1e-6)
