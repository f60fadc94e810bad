"""Retargeting of real clips, one or two of each rig: bones point where the source's point, left is left."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from kinflow.mocap.clips import load_clips
from kinflow.mocap.prepare import IndexEntry, prepare_clips, read_index, read_source
from kinflow.mocap.retarget import SmplMotion, retarget, smpl_forward, world_motion
from kinflow.mocap.rigs import RIGS, Rig
from kinflow.mocap.source import SourceMotion
from kinflow.mocap.split import load_split
from kinflow.mocap.validity import hinge_flexion, valid_frames
from kinflow.mocap.zero_pose import into_zero_pose
from kinflow.rotations import log_so3
from kinflow.skeleton import SMPL_JOINTS

J = {name: i for i, name in enumerate(SMPL_JOINTS)}
LIMBS = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
)
WALKS = (
    "cmu/asfamc/35_01",
    "cmu/cgspeed_mb/07_01",
    "cmu/cgspeed_mb_expmap/12_01",
    "other_deepmimic/humanoid3d_walk",
)
CLIPS = (
    *WALKS,
    "cmu/cgspeed_mb/49_08",
    "cmu/cgspeed_max/131_01",
    "cmu/asfnames_bvh/16_01",
    "cmu/cgspeed_daz/13_42",
    "cmu/cgspeed_daz/13_18",
    "cmu/neo_fbx/85_04",
    "other_animateddrawings/wave_hello",
)


@pytest.fixture(scope="session")
def raw(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips above, their skeletons and the index, out of the archive."""
    archive = shared_data / "mocap" / "cmu_mocap_raw.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive.name}: not in the shared data")
    folder = tmp_path_factory.mktemp("mocap")
    wanted = {f"pack/{c}" for c in CLIPS} | {"pack/INDEX", "pack/cmu/asfamc/35"}
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            if member.isfile() and member.name.rsplit(".", 1)[0] in wanted:
                tar.extract(member, folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
    return folder / "pack"


@pytest.fixture(scope="session")
def entries(raw: Path) -> dict[str, IndexEntry]:
    return {e.name: e for e in read_index(raw / "INDEX.csv") if e.name in CLIPS}


@pytest.fixture(scope="session")
def retargeted(raw: Path, entries: dict[str, IndexEntry]) -> dict[str, SmplMotion]:
    return {name: retarget(read_source(raw, e), RIGS[e.rig]) for name, e in entries.items()}


def test_every_rig_is_tested(entries: dict[str, IndexEntry]) -> None:
    assert {e.rig for e in entries.values()} == set(RIGS)


def bone_direction_errors(motion: SourceMotion, rig: Rig, result: SmplMotion) -> dict[str, np.ndarray]:
    """Angles in degrees (T,) between the source's limb bones and the result's in a plain T-pose body, by upper joint."""
    motion = rig.mend(motion) if rig.mend is not None else motion
    _, positions = world_motion(motion, rig)
    mine = smpl_forward(result.rotmats, result.transl)
    errors = {}
    for a, b in LIMBS:
        theirs = positions[:, motion.index(rig.points[b])] - positions[:, motion.index(rig.points[a])]
        ours = mine[:, J[b]] - mine[:, J[a]]
        cosine = (theirs * ours).sum(-1) / np.linalg.norm(theirs, axis=-1) / np.linalg.norm(ours, axis=-1)
        errors[a] = np.rad2deg(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return errors


@pytest.mark.parametrize("name", CLIPS)
def test_limb_bones_point_as_in_the_source(
    raw: Path, entries: dict[str, IndexEntry], retargeted: dict[str, SmplMotion], name: str
) -> None:
    """Within 5 degrees in the median, but for the bent rest shape of one figure's knees and elbows."""
    entry = entries[name]
    rig = RIGS[entry.rig]
    errors = bone_direction_errors(read_source(raw, entry), rig, retargeted[name])
    for joint, angles in errors.items():
        limit = 20.0 if joint in rig.by_design else 5.0
        assert np.median(angles) < limit, f"{name} {joint}: {np.median(angles):.1f} degrees"
    if not rig.by_design:
        assert max(np.median(a) for a in errors.values()) < 0.1


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_is_a_walk(retargeted: dict[str, SmplMotion], name: str) -> None:
    motion = retargeted[name]
    joints = smpl_forward(motion.rotmats, motion.transl)
    ahead = motion.rotmats[:, 0, :, 2] * [1, 0, 1]
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    left = np.cross([0.0, 1.0, 0.0], ahead)

    def along(joint: str, direction: np.ndarray) -> np.ndarray:
        return ((joints[:, J[joint]] - joints[:, 0]) * direction).sum(-1)

    # It goes the way it faces, upright, left side on the left.
    path = motion.transl[-1] - motion.transl[0]
    assert path @ ahead.mean(0) > 0.9 * np.linalg.norm(path[[0, 2]])
    assert 0.8 < np.linalg.norm(path) / (len(joints) / motion.fps) < 2.0
    assert (joints[:, J["head"], 1] > joints[:, 0, 1] + 0.4).all()
    for joint in ("hip", "shoulder", "wrist", "ankle"):
        assert np.median(along(f"left_{joint}", left) - along(f"right_{joint}", left)) > 0.05
    # Arms swing against the legs, and with the other side's leg.
    swing = along("left_wrist", ahead) - along("right_wrist", ahead)
    step = along("left_ankle", ahead) - along("right_ankle", ahead)
    assert np.corrcoef(swing, step)[0, 1] < -0.7
    # Knees bend backward only; toes point ahead; standing feet are near the ground.
    for side in ("left", "right"):
        assert np.percentile(hinge_flexion(motion.rotmats, f"{side}_knee"), 1) > -3
        assert np.median(along(f"{side}_foot", ahead) - along(f"{side}_ankle", ahead)) > 0.08
    lowest = joints[:, [J["left_foot"], J["right_foot"]], 1].min(-1)
    assert -0.1 < np.median(lowest) < 0.12


def test_tpose_of_a_z_up_rig(retargeted: dict[str, SmplMotion]) -> None:
    """Files with z up, facing -y; the clip starts in a T-pose."""
    motion = retargeted["other_animateddrawings/wave_hello"]
    joints = smpl_forward(motion.rotmats, motion.transl)
    assert np.abs(joints[0, J["left_wrist"], 1] - joints[0, J["right_wrist"], 1]) < 0.2
    assert np.ptp(joints[0, [J["left_wrist"], J["right_wrist"]]] @ motion.rotmats[0, 0, :, 0]) > 1.0


def test_inverted_elbows_are_masked(retargeted: dict[str, SmplMotion]) -> None:
    """13_18 (boxing) has both elbows bent backward throughout."""
    assert valid_frames(retargeted["cmu/cgspeed_daz/13_18"]).mean() < 0.01
    assert valid_frames(retargeted["cmu/asfamc/35_01"]).all()


def test_cartwheel_that_came_through_fbx(retargeted: dict[str, SmplMotion]) -> None:
    """49_08's frames lie along the bones; brought back, it is a plausible cartwheel: upside down once, arms straight."""
    motion = retargeted["cmu/cgspeed_mb/49_08"]
    joints = smpl_forward(motion.rotmats, motion.transl)
    assert (joints[:, J["head"], 1] < joints[:, 0, 1]).any() and joints[0, J["head"], 1] > joints[0, 0, 1]
    assert valid_frames(motion).mean() > 0.6


def test_prepared_clips(raw: Path, entries: dict[str, IndexEntry]) -> None:
    chosen = [entries[n] for n in ("cmu/asfamc/35_01", "cmu/cgspeed_mb/07_01", "cmu/neo_fbx/85_04")]
    clips = prepare_clips([(raw, entry) for entry in chosen], load_split())
    assert [c.fps for c in clips] == [60.0, 60.0, 30.0]
    assert [c.split for c in clips] == ["train", "train", "train"]
    assert clips[1].seconds == pytest.approx(316 / 120, abs=0.02)  # 317 frames less the T-pose
    for clip in clips:
        for values in (clip.global_orient, clip.body_pose, clip.transl):
            assert values.dtype == np.float32 and np.isfinite(values).all()
        assert np.abs(clip.body_pose[:, 21:]).max() < 1e-9
        assert 0.75 < clip.leg_length < 0.95
    # A walker's hands rest straight, which in SMPL's zero pose they are not quite.
    straight = log_so3(into_zero_pose(np.broadcast_to(np.eye(3), (1, 24, 3, 3)).copy()))[0, [20, 21], 1:]
    assert np.abs(np.median(clips[0].body_pose[:, [19, 20], 1:], axis=0) - straight).max() < 0.1


@pytest.mark.slow
def test_command_writes_the_file(raw: Path, entries: dict[str, IndexEntry], tmp_path: Path) -> None:
    """The tool on a folder of the clips above; an index that names more is no reason to stop."""
    tool = Path(__file__).parents[1] / "tools" / "prepare_mocap.py"
    out = tmp_path / "mocap.npz"
    lines = (raw / "INDEX.csv").read_text(encoding="utf-8").splitlines()
    keep = [lines[0]] + [line for line in lines if line.split(".")[0] in CLIPS]
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "INDEX.csv").write_text("\n".join(keep), encoding="utf-8")
    for child in raw.iterdir():
        if child.is_dir():
            (folder / child.name).symlink_to(child)
    run = subprocess.run(
        [sys.executable, str(tool), "--raw", str(folder), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "NSF EIA-0196217" in " ".join(run.stdout.split()) and "validation" in run.stdout
    assert len(load_clips(out)) == len(CLIPS)
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".npz", ".part")] == ["mocap.npz"]
    wrong = subprocess.run(
        [sys.executable, str(tool), "--raw", str(tmp_path / "none"), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 3 and "no such folder" in wrong.stderr
