"""``kinflow-bench clip``, ``speed`` and ``prior``: closed forms, what is printed, and what cannot be."""

from __future__ import annotations

import json
import math
import subprocess
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_motion import a_motion
from swings import save_swings

from kinflow.apps import bench_clip
from kinflow.body import Body
from kinflow.cli import bench
from kinflow.config import PerceptionConfig
from kinflow.errors import FormatError, KinflowError, UsageError
from kinflow.evaluation import prior as figures
from kinflow.evaluation.clips import Reference, read_reference, score_points
from kinflow.evaluation.motion_windows import windows
from kinflow.evaluation.protocols import LIMBS
from kinflow.mocap.clips import MotionClip, save_clips
from kinflow.rotations import rotmat_to_rotvec
from kinflow.skeleton import BLAZEPOSE, H36M17, SMPL_JOINTS
from kinflow.training.poses import read_captures

T = 9
TIMES = np.arange(T) / 30


def reference(**changes: Any) -> Reference:
    points = np.random.default_rng(0).normal(size=(T, 33, 3))
    return Reference(
        **({"points": points, "names": BLAZEPOSE, "frame_ids": np.arange(T), "kind": "marks", "K": None} | changes)
    )


def test_known_points_score_their_closed_forms() -> None:
    truth = reference()
    points, seen = torch.from_numpy(truth.points), np.ones(T, bool)
    same = score_points(points + 1.0, BLAZEPOSE, np.arange(T), seen, TIMES, truth)
    assert same.mpjpe < 1e-9 and same.pa_mpjpe < 1e-9 and same.accel < 1e-9
    assert (same.points, same.frames, same.found) == (12, T, 1.0)
    limbs = [BLAZEPOSE.index(name) for name in LIMBS]
    moved = points.clone()
    moved[:, BLAZEPOSE.index("left_wrist"), 0] += 0.12
    assert score_points(moved, BLAZEPOSE, np.arange(T), seen, TIMES, truth).mpjpe == pytest.approx(120 / len(limbs))
    assert score_points(moved, BLAZEPOSE, np.arange(T), seen, TIMES, truth, limbs=False).mpjpe == pytest.approx(
        120 / 33
    )
    shaken = points.clone()
    shaken[::2, BLAZEPOSE.index("left_wrist"), 0] += 0.01
    shaken[1::2, BLAZEPOSE.index("left_wrist"), 0] -= 0.01
    assert score_points(shaken, BLAZEPOSE, np.arange(T), seen, TIMES, truth).accel == pytest.approx(4 * 0.01 * 900 / 12)


def test_gaps_and_frames_that_are_not_known() -> None:
    truth = reference()
    truth.points[4, BLAZEPOSE.index("left_knee")] = np.nan
    points = torch.from_numpy(np.nan_to_num(truth.points)) + torch.zeros(T, 33, 3)
    points[5:] += torch.randn(33, 3)  # what jumps across the gap is no acceleration
    seen = np.ones(T, bool)
    seen[0] = False
    got = score_points(points, BLAZEPOSE, np.arange(T), seen, TIMES, truth)
    assert got.frames == T - 2 and got.found == pytest.approx((T - 2) / (T - 1))
    assert got.accel < 1e-9
    apart = score_points(points[::2], BLAZEPOSE, np.arange(T)[::2], np.ones(5, bool), TIMES[::2], truth)
    assert math.isnan(apart.accel)  # no three frames in a row
    with pytest.raises(UsageError, match="not one of its frames"):
        score_points(points, BLAZEPOSE, np.arange(T) + 100, seen, TIMES, truth)
    with pytest.raises(UsageError, match="at least 3 points"):
        score_points(points, SMPL_JOINTS[:4], np.arange(T), seen, TIMES, truth)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"points": np.zeros((3, 2, 3)), "names": np.array(["nose", "tail"])}, "among them 'tail'"),
        ({"points": np.zeros((3, 2, 3)), "names": np.array(["nose"])}, "expected 2 names"),
        (
            {"points": np.zeros((3, 1, 3)), "names": np.array(["nose"]), "kind": "voxels"},
            "kind: expected one of marks, joints, smpl24",
        ),
        ({"blazepose33": np.zeros((3, 33, 3)), "frame_ids": np.array([0, 2, 1])}, "increasing"),
        ({"blazepose33": np.zeros((3, 33, 3)), "frame_ids": np.arange(2)}, "frame_ids"),
        ({"verts": np.zeros(3)}, "blazepose33"),
    ],
)
def test_references_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(FormatError, match=told):
        read_reference(tmp_path / "r.npz")


def test_a_clip_is_scored_by_its_most_seen_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A motion that is its own reference, marks and joints alike."""
    motion, body = a_motion(T), Body.open("light")
    parameters = (torch.tensor(motion.betas).expand(T, -1), motion.pose_rotmat(), torch.tensor(motion.transl))
    joints, marks = body.joints_and_landmarks(*parameters)
    hips = marks[:, [23, 24]].mean(1, keepdim=True)
    evidence = types.SimpleNamespace(
        observed=motion.observed, has_world=np.ones(T, bool), world_landmarks=(marks - hips).numpy(),
        frame_ids=motion.frame_ids, timestamps=motion.timestamps,
    )  # fmt: skip
    result = types.SimpleNamespace(
        motions=[motion], evidences=[evidence], body=body, info={"weights": {}, "config_hash": "0"}
    )
    opened: list[Any] = []
    monkeypatch.setattr(bench_clip, "run", lambda clip, options, progress: result)
    looked: list[bool] = []

    def perceived(clip: object, config: PerceptionConfig, **_: object) -> list[Any]:
        looked.append(config.mirror)
        return [evidence]

    monkeypatch.setattr(bench_clip, "perceive", perceived)
    monkeypatch.setattr(bench_clip.Clip, "open", lambda path, camera, config: opened.append(camera))
    np.savez(tmp_path / "marks.npz", blazepose33=marks.numpy(), frame_ids=motion.frame_ids, K=np.diag([500.0, 500, 1]))
    np.savez(
        tmp_path / "joints.npz",
        points=joints.numpy(),
        names=np.array(SMPL_JOINTS),
        kind="joints",
        frame_ids=motion.frame_ids,
    )
    base = ["clip", "walk.mp4", "--reference", str(tmp_path / "marks.npz")]
    assert bench.main([*base, "--json", "-o", str(tmp_path / "f.json"), "--known-camera"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info == json.loads((tmp_path / "f.json").read_text()) and opened[-1][0, 0] == 500
    assert info["systems"]["kinflow"]["mpjpe"] < 1e-3 and info["systems"]["world landmarks"]["mpjpe"] < 1e-3
    assert info["systems"]["kinflow"]["frames"] == T - 2
    assert looked == [False]  # the network's own landmarks are those of frames as they are
    assert bench.main(["clip", "walk.mp4", "--reference", str(tmp_path / "joints.npz"), "--points", "all"]) == 0
    text = capsys.readouterr().out
    assert "| kinflow | 0.0 | 0.0 |" in text and "| 24 |" in text and "world landmarks" not in text
    points, names = body.keypoints("h36m17", *parameters).numpy()[..., 1:, :], np.array(H36M17[1:])
    np.savez(tmp_path / "h36m.npz", points=points, names=names, kind="h36m17", frame_ids=motion.frame_ids)
    assert bench.main(["clip", "walk.mp4", "--reference", str(tmp_path / "h36m.npz"), "--points", "all"]) == 0
    text = capsys.readouterr().out
    assert "| kinflow | 0.0 | 0.0 |" in text and "| 16 |" in text and "world landmarks" not in text
    assert bench.main(["clip", "w.mp4", "--reference", str(tmp_path / "joints.npz"), "--known-camera", "--quiet"]) == 2
    assert bench.main(["clip", "w.mp4", "--reference", str(tmp_path / "none.npz"), "--quiet"]) == 3


def test_speed_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rates = iter((10.0, 12.0, 8.0))
    commands = []

    def done(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        record = {"clip": {"frames": 60, "image_size": [64, 48]}, "people": [{}], "frames_per_second": next(rates),
                  "timings": {"perceive": 2.0, "total": 6.0}, "weights": {}, "config_hash": "0", "device": "cpu"}  # fmt: skip
        (Path(command[command.index("-o") + 1]) / "run.json").write_text(json.dumps(record))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", done)
    assert bench.main(["speed", "walk.mp4", "--quality", "fast", "--max-people", "1"]) == 0
    out = capsys.readouterr().out
    assert (
        "60 frames of 64x48 px, 1 people" in out
        and "median 10.0, 8.0 to 12.0 in 3 runs" in out
        and "perceive 2.00" in out
    )
    assert commands[0][1:4] == ["-m", "kinflow.cli.video", "walk.mp4"] and commands[0][-2:] == ["--max-people", "1"]
    assert bench.main(["speed", "walk.mp4", "--runs", "0"]) == 2
    failed = subprocess.CompletedProcess([], 4, "", "kinflow-video: walk.mp4: no such file.\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    capsys.readouterr()
    assert bench.main(["speed", "walk.mp4"]) == 4
    assert capsys.readouterr().err == "kinflow-bench: walk.mp4: no such file.\n"


def save_long_swings(path: Path) -> Path:
    """Two people to test on, 6 s each, at 60 frames/s."""
    clips = []
    for i in range(2):
        t = np.arange(360)[:, None, None] / 60
        pose = (0.3 * np.sin(4 * t + np.random.default_rng(i).uniform(0, 6, (1, 23, 3)))).astype(np.float32)
        pose[:, 21:] = 0
        still = np.zeros((360, 3), np.float32)
        clips.append(MotionClip(f"c{i}", f"s{i}", "swings", 60.0, still, pose, still, np.ones(360, bool), "test"))
    save_clips(path, clips)
    return path


class Oracle:
    """A prior that knows the windows it is asked about: every estimate is the truth."""

    def __init__(self, rotmat: torch.Tensor) -> None:
        self.truth = rotmat

    def _pose(self, count: int, at: int) -> torch.Tensor:
        body = rotmat_to_rotvec(self.truth[at : at + count])
        return torch.cat((body, torch.zeros(*body.shape[:2], 2, 3)), 2)

    def denoise(self, rotmat: torch.Tensor, times: torch.Tensor, noise: float) -> torch.Tensor:
        return self._pose(len(rotmat), 0)

    def infill(self, rotmat: torch.Tensor, times: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert (~valid).any(1).all() and valid[:, [0, -1]].all()
        return self._pose(len(rotmat), 0)


def test_the_priors_figures_on_motion_that_is_known(tmp_path: Path) -> None:
    save_long_swings(tmp_path / "mocap.npz")
    captures = read_captures(tmp_path / "mocap.npz", "test")
    truth = windows(captures, "30 Hz", 4)
    oracle: Any = Oracle(truth.rotmat)
    for found in (figures._denoise(truth, 5.0, oracle), figures._infill(truth, 0.5, oracle)):
        by = {(f.of, f.unit): f.mean for f in found}
        assert by["kinflow", "degrees"] < 0.1 and by["kinflow", "mm"] < 0.5
        assert all(by[other, "degrees"] > by["kinflow", "degrees"] for other in {f.of for f in found} - {"kinflow"})
    noisy = {f.unit: f.mean for f in figures._denoise(truth, 5.0, oracle) if f.of == "as given"}
    assert noisy["degrees"] == pytest.approx(5 * math.sqrt(8 / math.pi), rel=0.03)  # mean length of three axes' noise


def test_prior_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_long_swings(tmp_path / "mocap.npz")
    arguments = ["prior", "--data", str(tmp_path / "mocap.npz"), "--windows", "2", "-o", str(tmp_path / "p.json")]
    assert bench.main([*arguments, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "| forecast, 30 Hz | 400 ms | mm |" in out and "| one-step likelihood | jittered |" in out
    record = json.loads((tmp_path / "p.json").read_text())
    assert record["split"] == "test" and len(record["figures"]) > 30
    assert bench.main(["prior", "--data", str(tmp_path / "none.npz")]) == 3
    assert bench.main([*arguments, "--windows", "1"]) == 2
    save_swings(tmp_path / "short.npz")
    capsys.readouterr()
    assert bench.main(["prior", "--data", str(tmp_path / "short.npz"), "--windows", "2", "--quiet"]) == 2
    assert "expected a stretch of 3 s of valid frames" in capsys.readouterr().err
    assert issubclass(FormatError, KinflowError)
