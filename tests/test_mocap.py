"""Motion-capture readers, retargeting, masks, the prepared file and the split, on small sources made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from kinflow.errors import ConfigError, FormatError, MissingAssetError, OutputError, ShapeError, UsageError
from kinflow.mocap.asfamc import CMU_UNIT, read_asf, read_asfamc
from kinflow.mocap.bvh import read_bvh
from kinflow.mocap.calibrate import hand_swing, level_feet, settle_hands
from kinflow.mocap.clips import MotionClip, load_clips, save_clips
from kinflow.mocap.mend import MB_TPOSE, has_bone_frames, to_world_frames
from kinflow.mocap.prepare import resample
from kinflow.mocap.retarget import REST_OFFSETS, SmplMotion, retarget, smpl_forward, twist_about
from kinflow.mocap.rigs import CGSPEED_MB, CMU_ASF, RIGS
from kinflow.mocap.source import SourceMotion, between, euler_to_rotmat
from kinflow.mocap.split import load_split
from kinflow.mocap.validity import hinge_flexion, valid_frames
from kinflow.skeleton import SMPL_JOINTS

J = {name: i for i, name in enumerate(SMPL_JOINTS)}

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 10 0
    CHANNELS 3 Yrotation Zrotation Xrotation
    End Site
    {
      OFFSET 0 5 0
    }
  }
  JOINT Leg
  {
    OFFSET 4 0 0
    CHANNELS 1 Xrotation
    End Site
    {
      OFFSET 0 -5 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.02
0 0 0 0 0 0 0 0 0 0
1 2 3 10 20 30 40 50 60 90
"""

ASF = """:version 1.10
:units
  length 0.45
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
:bonedata
 begin
  id 1
  name thigh
  direction 0 -1 0
  length 4
  axis 0 0 20 XYZ
  dof rx ry rz
  limits (-1 1)
         (-1 1)
         (-1 1)
 end
 begin
  id 2
  name shin
  direction 0 -1 0
  length 3
  axis 0 0 20 XYZ
  dof rx
 end
:hierarchy
 begin
  root thigh
  thigh shin
 end
"""
AMC = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
thigh 0 0 0
shin 0
2
root 1 2 3 10 20 30
thigh 5 6 7
shin 90
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_bvh_reads_any_channel_order(tmp_path: Path) -> None:
    motion = read_bvh(write(tmp_path / "a.bvh", BVH), scale=0.1)
    assert motion.joints == ("Hips", "Spine", "Spine_end", "Leg", "Leg_end")
    assert motion.fps == pytest.approx(50)
    np.testing.assert_allclose(motion.root_positions[1], [0.1, 0.2, 0.3])
    expected = Rotation.from_euler("ZXY", [10, 20, 30], degrees=True).as_matrix()
    np.testing.assert_allclose(motion.rotmats[1, 0], expected, atol=1e-12)
    spine = Rotation.from_euler("YZX", [40, 50, 60], degrees=True).as_matrix()
    positions = motion.positions()
    np.testing.assert_allclose(positions[1, 1], [0.1, 0.2, 0.3] + expected @ [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(positions[1, 2], positions[1, 1] + expected @ spine @ [0, 0.5, 0], atol=1e-12)
    # A hinge of 90 degrees about x takes the leg's end from -y to -z of the hips.
    np.testing.assert_allclose(positions[1, 4] - positions[1, 3], expected @ [0, 0, -0.5], atol=1e-12)
    assert read_bvh(tmp_path / "a.bvh", fps=25).fps == 25


@pytest.mark.parametrize(
    "change, message",
    [
        (("HIERARCHY", "NOTHING"), "BVH"),
        (("Frames: 2", "Frames: 3"), "rows"),
        (("1 2 3 10", "1 2 x 10"), "not a number"),
        (("CHANNELS 1 Xrotation", "CHANNELS 1 Wrotation"), "channel"),
        (("ROOT Hips\n{", "ROOT Hips\n"), "HIERARCHY"),
        (("Frame Time: 0.02", "Frame Time: 0"), "Frame Time"),
    ],
)
def test_bvh_says_what_is_wrong(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        read_bvh(write(tmp_path / "a.bvh", BVH.replace(*change)))


def test_asfamc_against_the_formula(tmp_path: Path) -> None:
    motion = read_asfamc(write(tmp_path / "a.asf", ASF), write(tmp_path / "a.amc", AMC))
    assert motion.joints == ("root", "thigh", "shin", "shin_end")
    positions = motion.positions() / CMU_UNIT
    np.testing.assert_allclose(positions[0], [[1, 2, 3], [1, 2, 3], [1, -2, 3], [1, -5, 3]], atol=1e-12)
    axis = Rotation.from_euler("xyz", [0, 0, 20], degrees=True).as_matrix()
    turn = Rotation.from_euler("xyz", [5, 6, 7], degrees=True).as_matrix()  # lower case: fixed axes, Rz Ry Rx
    root = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    thigh = root @ axis @ turn @ axis.T
    np.testing.assert_allclose(positions[1, 2], [1, 2, 3] + thigh @ [0, -4, 0], atol=1e-12)
    shin = thigh @ axis @ Rotation.from_euler("x", 90, degrees=True).as_matrix() @ axis.T
    np.testing.assert_allclose(positions[1, 3], positions[1, 2] + shin @ [0, -3, 0], atol=1e-12)


def test_asfamc_says_what_is_wrong(tmp_path: Path) -> None:
    asf = write(tmp_path / "a.asf", ASF)
    for text, message in (
        (AMC.replace("shin 90", "shin 90 1"), "line 11"),
        (AMC.replace("shin 90", "arm 90"), "arm"),
        (AMC.replace("shin 90", "shin y"), "line 11"),
        (AMC.replace(":DEGREES", ":RADIANS"), "radians"),
        (AMC.replace("thigh 5 6 7\n", ""), "order"),
        ("", "frames"),
    ):
        with pytest.raises(ShapeError, match=message):
            read_asfamc(asf, write(tmp_path / "b.amc", text))
    with pytest.raises(ShapeError, match=r"hierarchy|bonedata"):
        read_asf(write(tmp_path / "b.asf", ASF.split(":hierarchy")[0]))


def test_euler_against_scipy() -> None:
    rng = np.random.default_rng(0)
    for order in ("ZYX", "ZXY", "XYZ", "YXZ"):
        angles = rng.uniform(-180, 180, (20, 3))
        expected = Rotation.from_euler(order, angles, degrees=True).as_matrix()
        np.testing.assert_allclose(euler_to_rotmat(angles, order), expected, atol=1e-12)


def test_between_and_twist_against_scipy() -> None:
    a, b = Rotation.random(2, random_state=1)
    halfway = a * Rotation.from_rotvec(0.3 * (a.inv() * b).as_rotvec())
    np.testing.assert_allclose(between(a.as_matrix(), b.as_matrix(), 0.3), halfway.as_matrix(), atol=1e-10)
    axis = np.array([0.0, 0.6, 0.8])
    about = Rotation.from_rotvec(1.1 * axis)
    np.testing.assert_allclose(twist_about(about.as_matrix(), axis), about.as_matrix(), atol=1e-10)
    np.testing.assert_allclose(twist_about(about.as_matrix(), axis, 0.5), (about**0.5).as_matrix(), atol=1e-10)
    swing = Rotation.from_rotvec([0.7, 0.0, 0.0])  # at a right angle to the axis: nothing to take away
    np.testing.assert_allclose(twist_about((swing * about).as_matrix(), axis), about.as_matrix(), atol=1e-10)


def mb_skeleton(turns: dict[str, np.ndarray]) -> SourceMotion:
    """The MotionBuilder rig in its zero pose, one frame, with local rotations for some joints."""
    spread = np.deg2rad(20)
    rows: list[tuple[str, str | None, tuple[float, float, float]]] = [
        ("Hips", None, (0, 0, 0)),
        ("LowerBack", "Hips", (0, 0, 0)),
        ("Spine", "LowerBack", (0, 0.12, 0)),
        ("Spine1", "Spine", (0, 0.12, 0)),
        ("Neck", "Spine1", (0, 0, 0)),
        ("Neck1", "Neck", (0, 0.09, 0)),
        ("Head", "Neck1", (0, 0.09, 0)),
    ]
    for side, s in (("Left", 1.0), ("Right", -1.0)):
        leg = (s * 0.4 * np.sin(spread), -0.4 * np.cos(spread), 0.0)
        rows += [
            (f"{side}UpLeg", "Hips", (s * 0.1, -0.1, 0.04)),
            (f"{side}Leg", f"{side}UpLeg", leg),
            (f"{side}Foot", f"{side}Leg", leg),
            (f"{side}ToeBase", f"{side}Foot", (0.0, -0.03, 0.12)),
            (f"{side}Shoulder", "Spine1", (0, 0, 0)),
            (f"{side}Arm", f"{side}Shoulder", (s * 0.18, 0.05, 0)),
            (f"{side}ForeArm", f"{side}Arm", (s * 0.28, 0, 0)),
            (f"{side}Hand", f"{side}ForeArm", (s * 0.2, 0, 0)),
            (f"{side}FingerBase", f"{side}Hand", (0, 0, 0)),
            (f"{side}HandIndex1", f"{side}FingerBase", (s * 0.05, 0, 0)),
        ]
    names = tuple(r[0] for r in rows)
    rotmats = np.stack([turns.get(n, np.eye(3)) for n in names])[None]
    parents = tuple(-1 if r[1] is None else names.index(r[1]) for r in rows)
    return SourceMotion("mb", names, parents, np.array([r[2] for r in rows]), rotmats, np.array([[0.0, 1.0, 0.0]]), 120)


def turn(axis: str, degrees: float) -> np.ndarray:
    return euler_to_rotmat(np.array([degrees]), axis)


def test_tpose_of_the_rig_is_smpls_tpose() -> None:
    """Legs brought together by 20 degrees: straight limbs, nothing turned but the twist of the arms, feet and head."""
    result = retarget(mb_skeleton({"LeftUpLeg": turn("Z", -20), "RightUpLeg": turn("Z", 20)}), CGSPEED_MB)
    for joint in ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "spine1", "spine3", "left_collar"):
        np.testing.assert_allclose(result.rotmats[0, J[joint]], np.eye(3), atol=1e-12)
    joints = smpl_forward(result.rotmats, result.transl)[0]
    rest = smpl_forward(np.broadcast_to(np.eye(3), (1, 24, 3, 3)), result.transl)[0]
    for joint in ("left_elbow", "left_wrist", "right_wrist", "left_ankle", "right_ankle"):
        np.testing.assert_allclose(joints[J[joint]], rest[J[joint]], atol=1e-9)
    assert result.leg_length == pytest.approx(0.8)
    middle = 0.5 * (joints[J["left_hip"]] + joints[J["right_hip"]])
    np.testing.assert_allclose(middle, [0, 0.9, 0.04], atol=1e-12)  # the middle of the hips is the source's


def test_raised_left_arm_and_bent_right_knee_stay_on_their_sides() -> None:
    source = mb_skeleton(
        {
            "LeftUpLeg": turn("Z", -20),
            "RightUpLeg": turn("Z", 20),
            "LeftArm": turn("Z", 60),
            "RightArm": turn("Z", 80),
            "RightLeg": turn("Z", -20) @ turn("X", 70) @ turn("Z", 20),  # about the knee's line in the spread zero pose
        }
    )
    result = retarget(source, CGSPEED_MB)
    joints = smpl_forward(result.rotmats, result.transl)[0]
    assert joints[J["left_wrist"], 1] > joints[J["head"], 1] > joints[J["right_wrist"], 1]
    assert joints[J["left_wrist"], 0] > 0 > joints[J["right_wrist"], 0]
    assert joints[J["right_ankle"], 1] > joints[J["left_ankle"], 1] + 0.2
    assert joints[J["right_ankle"], 2] < joints[J["left_ankle"], 2] - 0.2  # a knee bends backward
    assert hinge_flexion(result.rotmats, "right_knee")[0] == pytest.approx(70, abs=1e-6)
    assert hinge_flexion(result.rotmats, "left_knee")[0] == pytest.approx(0, abs=1e-6)


def test_elbows_bend_forward() -> None:
    """CMU's elbow line is 30 degrees off: bending about it must come out as a bend about SMPL's vertical, hands ahead."""
    bends = {}
    for side, s in (("Left", 1.0), ("Right", -1.0)):
        line = np.array([0.0, -s * np.cos(np.pi / 6), s * 0.5])
        bends[f"{side}ForeArm"] = Rotation.from_rotvec(np.deg2rad(80) * line).as_matrix()
    result = retarget(mb_skeleton(bends), CGSPEED_MB)
    joints = smpl_forward(result.rotmats, result.transl)[0]
    for side in ("left", "right"):
        assert hinge_flexion(result.rotmats, f"{side}_elbow")[0] == pytest.approx(80, abs=1)
        assert joints[J[f"{side}_wrist"], 2] > joints[J[f"{side}_elbow"], 2] + 0.15


def test_heading_and_place_carry_over() -> None:
    rng = np.random.default_rng(3)
    source = mb_skeleton({})
    world = Rotation.random(random_state=4).as_matrix()
    moved = replace(source, rotmats=source.rotmats.copy(), root_positions=rng.normal(size=(1, 3)))
    moved.rotmats[:, 0] = world
    a, b = retarget(source, CGSPEED_MB), retarget(moved, CGSPEED_MB)
    np.testing.assert_allclose(b.rotmats[:, 0], world @ a.rotmats[:, 0], atol=1e-12)
    np.testing.assert_allclose(b.rotmats[:, 1:], a.rotmats[:, 1:], atol=1e-12)
    relative = a.transl - source.root_positions
    np.testing.assert_allclose(b.transl, moved.root_positions + relative @ world.T, atol=1e-12)


def test_missing_joint_is_named() -> None:
    source = mb_skeleton({})
    with pytest.raises(UsageError, match="no joint"):
        retarget(source, CMU_ASF)


def test_rigs_follow_smpl_joints_only() -> None:
    for rig in RIGS.values():
        assert set(rig.follow) <= set(SMPL_JOINTS) and set(rig.zero) <= set(rig.follow)
        assert {"pelvis", "left_hip", "right_hip", "left_knee", "right_elbow", "head"} <= set(rig.follow)
        for zero in (*rig.zero.values(), rig.world):
            np.testing.assert_allclose(zero @ zero.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(zero) == pytest.approx(1)


def test_bone_frames_are_brought_back() -> None:
    """A detour that turned every joint's frame along its bone is undone with the help of the T-pose in frame 0."""
    chain = SourceMotion(
        "chain",
        ("Hips", "LeftUpLeg", "LeftLeg", "LeftLeg_end"),
        (-1, 0, 1, 2),
        np.array([[0, 0, 0], [0.1, -0.1, 0], [0.13, -0.37, 0], [0.0, -0.4, 0.1]]),
        np.stack([np.eye(3)] * 12).reshape(3, 4, 3, 3),
        np.zeros((3, 3)),
        30.0,
    )
    rotmats = chain.rotmats.copy()
    rotmats[0, 1] = MB_TPOSE["LeftUpLeg"]
    rotmats[1:, :3] = Rotation.random(6, random_state=2).as_matrix().reshape(2, 3, 3, 3)
    chain = replace(chain, rotmats=rotmats)
    # Frames whose y axis is the bone to the child.
    along = np.stack([np.eye(3)] * 4)
    for j in range(3):
        y = chain.offsets[j + 1] / np.linalg.norm(chain.offsets[j + 1])
        x = np.cross(y, [0.0, 0.0, 1.0])
        x /= np.linalg.norm(x)
        along[j] = np.stack([x, y, np.cross(x, y)], -1)
    turned = chain.global_rotmats() @ along
    local = turned.copy()
    offsets = chain.offsets.copy()
    for j in range(1, 4):
        local[:, j] = np.swapaxes(turned[:, j - 1], -1, -2) @ turned[:, j]
        offsets[j] = along[j - 1].T @ chain.offsets[j]
    detour = replace(chain, rotmats=local, offsets=offsets)
    np.testing.assert_allclose(detour.positions(), chain.positions(), atol=1e-12)
    assert has_bone_frames(detour) and not has_bone_frames(chain)
    back = to_world_frames(detour, MB_TPOSE)
    np.testing.assert_allclose(back.positions(), chain.positions(), atol=1e-12)
    np.testing.assert_allclose(back.rotmats[:, :3], chain.rotmats[:, :3], atol=1e-12)


def still(frames: int = 60, fps: float = 120.0) -> SmplMotion:
    return SmplMotion(np.broadcast_to(np.eye(3), (frames, 24, 3, 3)).copy(), np.zeros((frames, 3)), 0.8, fps)


def test_flips_and_impossible_joints_are_masked() -> None:
    assert valid_frames(still()).all()
    flip = still()
    flip.rotmats[30, J["left_hip"]] = turn("Y", 170)
    bad = np.flatnonzero(~valid_frames(flip))
    assert 30 in bad and 0 < len(bad) < 12 and bad.min() >= 25 and bad.max() <= 35
    backward = still()
    backward.rotmats[:, J["left_elbow"]] = turn("Y", 60)  # a left elbow bends about -y
    assert not valid_frames(backward).any()
    forward = still()
    forward.rotmats[:, J["left_elbow"]] = turn("Y", -120)
    assert valid_frames(forward).all()
    jump = still()
    jump.transl[40:] = [2.0, 0.0, 0.0]
    assert not valid_frames(jump)[39:41].any() and valid_frames(jump)[:35].all()


def test_short_stretches_between_flips_are_masked() -> None:
    motion = still(120)
    motion.rotmats[[50, 60], J["right_hip"]] = turn("Y", 170)
    valid = valid_frames(motion)
    assert not valid[49:62].any() and valid[:45].all() and valid[66:].all()


def test_resample_by_slerp() -> None:
    angles = np.arange(13) * 10.0
    rotmats = np.broadcast_to(np.eye(3), (13, 24, 3, 3)).copy()
    rotmats[:, 5] = euler_to_rotmat(angles[:, None], "X")
    transl = angles[:, None] * np.array([0.01, 0.0, 0.02])
    valid = np.ones(13, bool)
    valid[6] = False
    out, place, ok = resample(rotmats, transl, valid, 120.0, 80.0)
    expected = np.arange(9) * 15.0
    np.testing.assert_allclose(out[:, 5], euler_to_rotmat(expected[:, None], "X"), atol=1e-10)
    np.testing.assert_allclose(place[:, 2], expected * 0.02, atol=1e-12)
    np.testing.assert_array_equal(ok, [True, True, True, True, False, True, True, True, True])
    halved, _, _ = resample(rotmats, transl, valid, 120.0, 60.0)
    np.testing.assert_array_equal(halved, rotmats[::2])


def test_level_feet_turns_feet_alone() -> None:
    rotmats = Rotation.random(48, random_state=5).as_matrix().reshape(2, 24, 3, 3)
    out = level_feet(rotmats, {"left_ankle": -4.0, "left_foot": 6.0})
    others = [j for j in range(24) if j not in (J["left_ankle"], J["left_foot"])]
    np.testing.assert_array_equal(out[:, others], rotmats[:, others])
    # A foot that was 4 degrees toes-down in the world is level afterwards.
    down = still(1)
    down.rotmats[0, J["left_ankle"]] = turn("X", 4.0)  # +x takes the toes down
    np.testing.assert_allclose(
        level_feet(down.rotmats, {"left_ankle": -4.0})[0, J["left_ankle"]], np.eye(3), atol=1e-12
    )


def test_hands_settle_and_flipped_hands_follow_the_forearm() -> None:
    rest = np.array([0.0, 0.3, 0.4])
    motion = still(3)
    twist = turn("X", 25.0)
    motion.rotmats[0, J["left_wrist"]] = Rotation.from_rotvec(rest).as_matrix() @ twist
    motion.rotmats[1, J["left_wrist"]] = turn("Z", 170.0)
    motion.rotmats[2, J["left_wrist"]] = turn("X", 170.0)
    swing, about = hand_swing(motion.rotmats, "left")
    np.testing.assert_allclose(swing[0], rest, atol=1e-9)
    np.testing.assert_allclose(about[0], twist, atol=1e-9)
    out = settle_hands(motion.rotmats, {"left": rest})
    np.testing.assert_allclose(out[0, J["left_wrist"]], twist, atol=1e-9)
    np.testing.assert_allclose(out[1:, J["left_wrist"]], np.stack([np.eye(3)] * 2), atol=1e-9)


def clip(name: str, frames: int = 5, split: str = "train") -> MotionClip:
    rng = np.random.default_rng(len(name))
    pose = rng.normal(size=(frames, 23, 3)).astype(np.float32)
    pose[:, 21:] = 0
    return MotionClip(
        name=name,
        subject="7",
        description="walk, ünicode",
        fps=60.0,
        global_orient=rng.normal(size=(frames, 3)).astype(np.float32),
        body_pose=pose,
        transl=rng.normal(size=(frames, 3)).astype(np.float32),
        valid=np.arange(frames) != 2,
        split=split,
        rig="asfamc",
        leg_length=0.8,
    )


def test_prepared_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mocap.npz"
    clips = [clip("a", 5), clip("bb", 9, "test")]
    save_clips(path, clips)
    assert [p.name for p in path.parent.iterdir()] == ["mocap.npz"]
    back = load_clips(path)
    assert [c.name for c in back] == ["a", "bb"]
    for one, two in zip(clips, back, strict=True):
        for field in ("global_orient", "body_pose", "transl", "valid"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
        assert (one.fps, one.split, one.rig, one.description) == (two.fps, two.split, two.rig, two.description)
    assert [c.name for c in load_clips(path, "test")] == ["bb"]
    assert load_clips(path, "validation") == []
    with np.load(path, allow_pickle=False) as file:
        assert str(file["schema"]) == "kinflow.mocap/1" and file["body_pose"].dtype == np.float32


def test_prepared_file_bad_input(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="prepare_mocap"):
        load_clips(tmp_path / "none.npz")
    with pytest.raises(UsageError, match="split"):
        load_clips(tmp_path / "none.npz", "tests")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FormatError, match=r"text\.npz"):
        load_clips(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(FormatError, match="schema"):
        load_clips(tmp_path / "other.npz")
    with pytest.raises(UsageError, match="unique"):
        save_clips(tmp_path / "x.npz", [clip("a"), clip("a")])
    with pytest.raises(OutputError):
        save_clips(tmp_path / "text.npz" / "x.npz", [clip("a")])


def test_clip_views() -> None:
    one = clip("a", 6)
    assert len(one) == 6 and one.seconds == pytest.approx(0.1)
    assert one.valid_runs() == [(0, 2), (3, 6)] and one.valid_runs(3) == [(3, 6)]
    assert len(one.frames(1, 4)) == 3
    with pytest.raises(UsageError, match="split"):
        replace(one, split="dev")
    with pytest.raises(ShapeError):
        replace(one, transl=one.transl[:-1])


def test_split_file(tmp_path: Path) -> None:
    split = load_split()
    assert split.of("cmu/cgspeed_daz/60_01", "60") == split.of("cmu/cgspeed_daz/61_01", "61")
    assert split.of("other_deepmimic/humanoid3d_walk", "") == "train"
    assert split.of("cmu/cgspeed_mb_expmap/x_walking_extra_52", "") == split.subjects["55"]  # that subject's walk
    with pytest.raises(ConfigError, match="names neither"):
        split.of("cmu/new/99_01", "99")
    with pytest.raises(ConfigError, match="named in"):
        load_split(write(tmp_path / "s.yaml", "train: {subjects: ['1']}\ntest: {subjects: ['1']}\n"))
    with pytest.raises(ConfigError, match="expected the keys"):
        load_split(write(tmp_path / "t.yaml", "dev: {subjects: ['1']}\n"))
    with pytest.raises(MissingAssetError):
        load_split(tmp_path / "none.yaml")


def test_rest_skeleton_is_a_tpose() -> None:
    joints = smpl_forward(np.broadcast_to(np.eye(3), (1, 24, 3, 3)), np.zeros((1, 3)))[0]
    assert joints[J["left_wrist"], 0] > 0 > joints[J["right_wrist"], 0]
    assert joints[J["left_foot"], 2] > 0.1 and joints[J["head"], 1] > 0.5
    assert np.ptp(joints[[J["left_shoulder"], J["left_elbow"], J["left_wrist"]], 1]) == 0
    assert REST_OFFSETS.shape == (24, 3) and torch.from_numpy(REST_OFFSETS).dtype == torch.float64
