"""Protocols and scores on the miniature: truth scores 0 everywhere, known faults their closed-form values."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_motion import a_motion

from kinflow.datasets.miniature import write_3dpw, write_smpl
from kinflow.datasets.recording import Recording
from kinflow.datasets.threedpw import ThreeDPW
from kinflow.errors import FormatError, MissingAssetError, UsageError
from kinflow.evaluation.bodies import Bodies
from kinflow.evaluation.pooling import pool, pool_joints, worst
from kinflow.evaluation.predictions import Prediction, nobody, true_joints, true_parameters
from kinflow.evaluation.protocols import H36M_ROWS, LIMBS, LSP14, PROTOCOLS, Protocol, find_protocol
from kinflow.evaluation.scores import METRICS, Scores, score
from kinflow.evaluation.sightings import Poses2dEyes, match
from kinflow.evaluation.systems import assemble
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import SMPL_JOINTS

FRAMES = 40
D = torch.float64


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    write_smpl(root / "body")
    return write_3dpw(root, sequences=1, frames=FRAMES, images=False)


@pytest.fixture(scope="module")
def bodies(mini: Path) -> Bodies:
    return Bodies(mini / "body")


@pytest.fixture(scope="module")
def man(mini: Path) -> Recording:
    return ThreeDPW(mini).read("miniature_meeting_00")[0]


ALL = torch.ones(FRAMES, dtype=torch.bool)
STD = torch.full((FRAMES, 24, 2), 0.05)


def truth(recording: Recording, protocol: Protocol, bodies: Bodies) -> Prediction:
    if protocol.mesh is None:
        return Prediction(ALL, true_joints(recording), None, STD)
    assert recording.smpl is not None
    body = bodies.smpl("neutral" if protocol.mesh == "neutral" else recording.smpl.gender)
    return Prediction.of(true_parameters(recording, body), ALL, STD)


def with_joints(change: torch.Tensor | None, recording: Recording, std: torch.Tensor | None = None) -> Prediction:
    """official24's truth, joints (T, 24, 3) moved by ``change``."""
    joints = true_joints(recording)
    return Prediction(ALL, joints if change is None else joints + change, None, std)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_truth_as_the_prediction_scores_zero_on_everything(name: str, man: Recording, bodies: Bodies) -> None:
    protocol = PROTOCOLS[name]
    got = score(truth(man, protocol, bodies), man, protocol, bodies)
    expected = set(METRICS) - ({"pve"} if protocol.pve is None else set())
    assert set(got.metrics) == expected
    for key in expected - {"pck50", "auc", "nll", "cover50", "cover90", "sliding"}:
        assert got.mean(key) < 1e-4, key  # mm: rounding of float32 meshes
    assert got.mean("pck50") == got.mean("auc") == got.mean("cover50") == got.mean("cover90") == 100
    assert got.mean("nll") == pytest.approx(3 * (math.log(0.05) + 0.5 * math.log(2 * math.pi)))
    assert got.mean("sliding") < 10  # what stands by the threshold of 0.3 m/s may creep in truth too
    assert got.counted == got.found == (FRAMES - 3 if protocol.frames == "valid" else protocol.counts(man).sum())
    assert max(got.joints.values()) < 1e-4 and set(got.joints) == set(protocol.joints.names)
    assert all(a == pytest.approx(b, abs=1e-6) for a, b in got.bones.values())


def test_gaps_are_never_crossed(man: Recording, bodies: Bodies) -> None:
    """The truth jumps inside the invalid frames, and nothing is seen of it."""
    jump = torch.zeros(FRAMES, 24, 3, dtype=D)
    jump[FRAMES // 2 + 1 :, 5, 0] = 1.0  # one joint a metre off from the middle of the gap on
    got = score(with_joints(jump, man), man, PROTOCOLS["official24"], bodies)
    assert got.mean("accel") < 1e-9 and got.mean("jerk") < 1e-6
    assert np.isfinite(got.metrics["accel"]).sum() == FRAMES - 3 - 4  # two stretches, two frames less each
    assert np.isfinite(got.metrics["jerk"]).sum() == FRAMES - 3 - 6
    everywhere = dataclasses.replace(man, valid=np.ones(FRAMES, bool))
    assert score(with_joints(jump, everywhere), everywhere, PROTOCOLS["official24"], bodies).mean("accel") > 1


def test_offset_rotation_scale_and_jitter_score_their_closed_forms(man: Recording, bodies: Bodies) -> None:
    protocol = PROTOCOLS["official24"]
    joints = true_joints(man)
    used = torch.from_numpy(man.valid)

    offset = score(with_joints(torch.tensor([0.3, -0.2, 0.5], dtype=D), man), man, protocol, bodies)
    assert offset.mean("mpjpe") < 1e-9 and offset.mean("pa_mpjpe") < 1e-9 and offset.mean("w_mpjpe") > 0

    relative = joints - joints[:, :1]
    angle = 0.4
    turn = rotvec_to_rotmat(torch.tensor([0.0, 0.0, angle], dtype=D))
    turned = score(Prediction(ALL, joints[:, :1] + relative @ turn.T), man, protocol, bodies)
    chord = 2 * math.sin(angle / 2) * relative[..., :2].norm(dim=-1)  # about the view's axis
    assert turned.mean("mpjpe") == pytest.approx(1000 * chord[used].mean().item())
    assert turned.mean("pa_mpjpe") < 1e-9

    grown = score(Prediction(ALL, joints[:, :1] + 1.1 * relative), man, protocol, bodies)
    assert grown.mean("mpjpe") == pytest.approx(100 * relative[used].norm(dim=-1).mean().item())
    assert grown.mean("pa_mpjpe") < 1e-9
    assert grown.bones["thigh"][1] == pytest.approx(1.1 * grown.bones["thigh"][0])

    a = 0.01
    jitter = torch.zeros(FRAMES, 24, 3, dtype=D)
    jitter[::2, 1:, 1], jitter[1::2, 1:, 1] = a, -a  # all joints but the root, to and fro
    shaken = score(with_joints(jitter, man), man, protocol, bodies)
    assert shaken.mean("mpjpe") == pytest.approx(1000 * a * 23 / 24)
    assert shaken.mean("accel") == pytest.approx(4 * a * 30**2 * 23 / 24)
    assert shaken.mean("jerk") == pytest.approx(8 * a * 30**3 * 23 / 24)
    assert shaken.joints["pelvis"] == 0 and shaken.joints["head"] == pytest.approx(10)


def test_protocols_differ_as_documented(man: Recording, bodies: Bodies) -> None:
    """One prediction, the gendered mesh in the truth's pose: right under wham, off under vibe by the meshes' difference."""
    assert man.smpl is not None
    prediction = Prediction.of(true_parameters(man, bodies.smpl(man.smpl.gender)), ALL)
    wham = score(prediction, man, PROTOCOLS["wham"], bodies)
    vibe = score(prediction, man, PROTOCOLS["vibe"], bodies)
    assert wham.mean("mpjpe") < 1e-3 and wham.mean("pve") < 1e-3
    assert vibe.mean("mpjpe") > 5 and vibe.mean("pa_mpjpe") < vibe.mean("mpjpe")
    assert vibe.counted != wham.counted
    # Root-aligned or not: a mesh whose hips lie elsewhere about the origin.
    leaning = true_parameters(man, bodies.smpl("neutral"))
    sunk = dataclasses.replace(leaning, transl=leaning.transl + torch.tensor([0.0, 0.1, 0.0], dtype=D))
    for name in ("vibe", "wham"):  # a translation of the whole body is forgiven by both
        same, moved = (score(Prediction.of(p, ALL), man, PROTOCOLS[name], bodies) for p in (leaning, sunk))
        assert moved.mean("pve") == pytest.approx(same.mean("pve"), abs=1e-3)
    # Units: mm/frame^2 at 30 frames/s is 0.9 m/s^2.
    shaken = dataclasses.replace(leaning, pose_rotmat=leaning.pose_rotmat.clone())
    shaken.pose_rotmat[::2, 16] = shaken.pose_rotmat[::2, 16] @ rotvec_to_rotmat(torch.tensor([0.0, 0.1, 0.0], dtype=D))
    both = dataclasses.replace(man, confidence=np.ones_like(man.confidence), valid=np.ones(FRAMES, bool))
    neutral = dataclasses.replace(PROTOCOLS["wham"], mesh="neutral")
    accel = [score(Prediction.of(shaken, ALL), both, p, bodies).mean("accel") for p in (PROTOCOLS["vibe"], neutral)]
    assert accel[1] == pytest.approx(0.9 * accel[0]) and accel[1] > 1


def test_predicted_deviations_are_scored_about_the_pelvis(man: Recording, bodies: Bodies) -> None:
    std = 0.03
    noise = std * torch.randn(FRAMES, 24, 3, dtype=D)
    noise[:, 0] = 0.5  # the pelvis' own place is no matter
    noise[:, 1:] += 0.5
    got = score(with_joints(noise, man, torch.full((FRAMES, 24, 2), std)), man, PROTOCOLS["official24"], bodies)
    assert got.mean("cover50") == pytest.approx(50, abs=5.2) and got.mean("cover90") == pytest.approx(90, abs=3.1)
    sure = score(with_joints(noise, man, torch.full((FRAMES, 24, 2), std / 3)), man, PROTOCOLS["official24"], bodies)
    assert sure.mean("nll") > got.mean("nll") + 1


def test_missing_frames_joints_and_people(man: Recording, bodies: Bodies) -> None:
    protocol = PROTOCOLS["official24"]
    half = Prediction(torch.arange(FRAMES) < 10, true_joints(man))
    got = score(half, man, protocol, bodies)
    assert (got.counted, got.found) == (FRAMES - 3, 10) and np.isfinite(got.metrics["mpjpe"]).sum() == 10
    nothing = score(nobody(FRAMES), man, protocol, bodies)
    assert nothing.found == 0 and nothing.metrics == {} and math.isnan(nothing.mean("mpjpe"))
    for name in ("vibe", "wham"):
        assert score(nobody(FRAMES), man, PROTOCOLS[name], bodies).found == 0

    limbs = true_joints(man).clone()
    limbs[:, [i for i, name in enumerate(SMPL_JOINTS) if name not in LIMBS]] = torch.nan
    some = score(Prediction(ALL, limbs), man, protocol, bodies)
    assert set(some.joints) == set(LIMBS) and some.mean("mpjpe") < 1e-9 and "w_mpjpe" not in some.metrics
    of_mesh = score(Prediction(ALL, limbs), man, PROTOCOLS["wham"], bodies)
    assert set(of_mesh.joints) == set(LIMBS) and 0 < of_mesh.mean("pa_mpjpe") < 80 and "pve" not in of_mesh.metrics
    assert find_protocol("wham", "limbs").joints.names == tuple(n for n in LSP14 if n in LIMBS)
    full = score(truth(man, PROTOCOLS["wham"], bodies), man, find_protocol("wham", "limbs"), bodies)
    assert set(full.joints) == set(LIMBS) and full.mean("mpjpe") < 1e-4


def test_protocols_are_data() -> None:
    assert H36M_ROWS == (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
    assert sorted(PROTOCOLS["vibe"].joints.root_index) == [2, 3]
    text = PROTOCOLS["vibe"].describe()
    assert "neutral" in text and "mm/frame^2" in text and "not root-aligned" in text
    assert "gender" in PROTOCOLS["wham"].describe() and "m/s^2" in PROTOCOLS["wham"].describe()
    with pytest.raises(UsageError, match="vibe, wham, official24"):
        find_protocol("pare")
    with pytest.raises(UsageError, match="joints"):
        find_protocol("wham", "hands")


def test_files_that_a_protocol_needs(mini: Path, tmp_path: Path, man: Recording) -> None:
    assert Bodies(None).missing(PROTOCOLS["official24"]) == []
    assert "SMPL_NEUTRAL.pkl (https://" in Bodies(None).missing(PROTOCOLS["wham"])[0]
    lacking = Bodies(tmp_path).missing(PROTOCOLS["wham"])
    assert [line.split()[0] for line in lacking] == [
        "SMPL_NEUTRAL.pkl",
        "SMPL_MALE.pkl",
        "SMPL_FEMALE.pkl",
        "J_regressor_h36m.npy",
    ]
    assert len(Bodies(tmp_path).missing(PROTOCOLS["vibe"])) == 2
    assert Bodies(mini / "body").missing(PROTOCOLS["wham"]) == []
    with pytest.raises(MissingAssetError, match="--body-path"):
        Bodies(None).smpl("male")
    vertices = torch.zeros(1, 6890, 3)
    with pytest.raises(MissingAssetError, match="J_regressor"):
        Bodies(tmp_path).regress(vertices, H36M_ROWS)
    for value, message in (
        (np.zeros((17, 100)), "6890 vertices"),
        (np.zeros((3, 6890)), "17, V"),
        (np.array([{}]), "plain"),
    ):
        np.save(tmp_path / "J_regressor_h36m.npy", value, allow_pickle=True)
        with pytest.raises(FormatError, match=message):
            Bodies(tmp_path).regress(vertices, H36M_ROWS)


def some(sequence: str, errors: list[float], person: int = 0) -> Scores:
    values = {"mpjpe": np.array(errors), "pa_mpjpe": np.array(errors) / 2}
    return Scores(
        sequence, person, len(errors), len(errors), int(np.isfinite(errors).sum()), values, {"neck": errors[0]}, {}
    )


def test_pooling_by_hand() -> None:
    scores = [some("a", [10, 20, 30]), some("b", [40, math.nan]), some("c", [math.nan]), some("b", [1], 1)]
    pooled = pool(scores)
    assert list(pooled) == ["pa_mpjpe", "mpjpe"]
    assert (pooled["mpjpe"].frames, pooled["mpjpe"].people) == (5, 3)
    assert pooled["mpjpe"].frames_mean == pytest.approx(101 / 5) and pooled["mpjpe"].people_mean == pytest.approx(
        61 / 3
    )
    assert [s.name for s in worst(scores, count=2)] == ["b_0", "a_0"]
    assert pool_joints(scores[:2])["neck"] == pytest.approx((3 * 10 + 40) / 4)
    back = [Scores.of_record(json.loads(json.dumps(s.record()))) for s in scores[:2]]
    assert [s.record() for s in back] == [s.record() for s in scores[:2]]
    assert pool(back) == {k: v for k, v in pool(scores[:2]).items()}


def test_parameters_and_joints_agree_in_the_camera(mini: Path, bodies: Bodies) -> None:
    """A world pose is carried to the camera about the pelvis, not about the template's origin."""
    for recording in ThreeDPW(mini).read("miniature_meeting_00"):
        assert recording.smpl is not None
        mine = true_parameters(recording, bodies.smpl(recording.smpl.gender)).joints()
        assert (mine - true_joints(recording)).abs().max() < 1e-5


def test_people_are_told_apart_by_where_they_are(mini: Path) -> None:
    people = ThreeDPW(mini).read("miniature_meeting_00")
    seen = Poses2dEyes().see(people)
    assert seen.owners == [0, 1]
    away = dataclasses.replace(seen.evidences[0], keypoints2d=seen.evidences[0].keypoints2d + 100.0)
    owners, distances = match([*seen.evidences[::-1], away], people)
    assert owners == [1, 0, None] and max(distances[:2]) < 0.1
    later = dataclasses.replace(seen.evidences[0], frame_ids=seen.evidences[0].frame_ids + FRAMES)
    assert match([later], people)[0] == [None]


def test_of_several_motions_the_nearest_that_saw_counts(man: Recording) -> None:
    first, second = a_motion(6, 0), a_motion(6, 1)  # frames 10 to 15, of which 12 and 13 were filled
    second = dataclasses.replace(second, observed=~first.observed)
    got = assemble([first, second], man, None)
    assert got.found.nonzero()[:, 0].tolist() == list(range(10, 16))
    from_second = [
        t for t in range(10, 16) if torch.equal(got.joints3d[t].float(), torch.tensor(second.joints3d[t - 10]))
    ]
    assert from_second == [12, 13]
    assert assemble([], man, None).found.sum() == 0
