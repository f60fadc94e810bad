"""Baselines, other tools' files and EMDB in the harness, on miniatures."""

from __future__ import annotations

import json
import pickle
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_reconstructor import untrained

from kinflow.apps import bench as benching
from kinflow.body import Body
from kinflow.cli import bench
from kinflow.config import PerceptionConfig, PipelineConfig
from kinflow.datasets.miniature import write_3dpw, write_emdb, write_smpl
from kinflow.datasets.threedpw import ThreeDPW
from kinflow.errors import KinflowError, UsageError
from kinflow.evaluation.baselines import MeanPose, PerFrame, WorldLandmarks, one_frame
from kinflow.evaluation.bodies import Bodies
from kinflow.evaluation.foreign import FileSystem
from kinflow.evaluation.predictions import true_joints, true_parameters
from kinflow.evaluation.protocols import LIMBS, PROTOCOLS
from kinflow.evaluation.scores import score
from kinflow.evaluation.sightings import Poses2dEyes, Seen
from kinflow.flow import load_flow
from kinflow.rotations import rotmat_to_rotvec
from kinflow.skeleton import BLAZEPOSE, SMPL_JOINTS

FRAMES = 12
FIRST, SECOND = "miniature_meeting_00", "miniature_walking_00"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    write_smpl(root / "body")
    return write_3dpw(root, sequences=2, frames=FRAMES, images=False)


def run(root: Path, out: Path, *more: str, subject: str = "3dpw") -> int:
    return bench.main([subject, "--root", str(root), "-o", str(out), "--quiet", "--no-plots", *more])


def figures(out: Path) -> dict[str, float]:
    summary = json.loads((out / "summary.json").read_text())
    return {k: m["frames_mean"] for k, m in summary["metrics"].items()}


# -- other tools' files ---------------------------------------------------------------------------------------------------


def write_truth(made: Path, folder: Path) -> None:
    """Everyone's truth on the neutral body, as three tools would write it."""
    folder.mkdir()
    body = Bodies(made / "body").smpl("neutral")
    for name in (FIRST, SECOND):
        for recording in ThreeDPW(made).read(name):
            p = true_parameters(recording, body)
            rotvec, betas, transl = rotmat_to_rotvec(p.pose_rotmat).numpy(), p.betas.numpy(), p.transl.numpy()
            base = folder / recording.name
            if recording.name == f"{FIRST}_0":
                np.savez(f"{base}.npz", global_orient=rotvec[:, 0], body_pose=rotvec[:, 1:], betas=betas, transl=transl)
            elif recording.name == f"{FIRST}_1":
                data = {
                    "pose": p.pose_rotmat.numpy(),
                    "betas": np.tile(betas, (FRAMES, 1)),
                    "frame_ids": np.arange(FRAMES),
                }
                Path(f"{base}.pkl").write_bytes(pickle.dumps(data))
            else:
                rows = np.arange(2, 9)
                np.savez(
                    f"{base}.npz", pose=rotvec[rows].reshape(-1, 72), betas=betas, transl=transl[rows], frame_ids=rows
                )


def test_other_tools_parameters_are_scored_as_they_are(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    write_truth(made, folder)
    arguments = ["--system", str(folder), "--protocol", "vibe", "--body-path", str(made / "body")]
    assert run(made, tmp_path / "out", *arguments) == 0
    found = figures(tmp_path / "out")
    assert found["mpjpe"] < 1e-3 and found["pve"] < 1e-2 and found["accel"] < 1e-2 and found["rte"] < 1e-3
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["metrics"]["w_mpjpe"]["people"] == 2  # the one without a translation is nowhere in the world
    (folder / f"{FIRST}_1.pkl").unlink()
    assert run(made, tmp_path / "one", *arguments) == 0
    assert f"{FIRST}_1: no file" in (tmp_path / "one/table.md").read_text()
    (folder / f"{SECOND}_0.npz").unlink()
    assert run(made, tmp_path / "two", *arguments) == 6


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"verts": np.zeros((12, 3))}, "expected global_orient"),
        ({"pose": np.zeros((12, 24))}, r"pose: expected \(T, 72\)"),
        ({"pose": np.zeros((12, 24, 3, 3))}, "rotations, got matrices"),
        ({"pose": np.full((12, 72), np.nan)}, "pose: expected finite"),
        ({"pose": np.zeros((12, 72)), "betas": np.zeros((3, 10))}, "betas"),
        ({"pose": np.zeros((12, 72)), "betas": np.zeros(4)}, "betas"),
        ({"pose": np.zeros((12, 72)), "transl": np.zeros((3, 3))}, "transl"),
        ({"pose": np.zeros((12, 72)), "frame_ids": np.zeros(12)}, "frame_ids: expected increasing"),
        ({"pose": np.zeros((13, 72))}, "frames among the recording's 0 to 11"),
        ({"global_orient": np.zeros((12, 3)), "body_pose": np.zeros((11, 69))}, "body_pose: expected 12 frames"),
    ],
)
def test_files_that_do_not_fit_are_named(made: Path, tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / f"{FIRST}_0.npz", **arrays)
    system = FileSystem(tmp_path, Body.open("light"))
    people = ThreeDPW(made).read(FIRST)
    with pytest.raises(KinflowError, match=told):
        system.predict([system.observe(people)])
    (tmp_path / f"{FIRST}_0.npz").unlink()
    (tmp_path / f"{FIRST}_0.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(KinflowError, match="dict of arrays"):
        system.observe(people)
    (tmp_path / f"{FIRST}_0.pkl").write_bytes(pickle.dumps({"pose": [[1.0], [1.0, 2.0]]}))
    with pytest.raises(KinflowError, match=f"{FIRST}_0.pkl"):
        system.observe(people)


# -- baselines ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(made: Path) -> Seen:
    return Poses2dEyes().see(ThreeDPW(made).read(FIRST))


class Given:
    """Eyes that have seen already."""

    name, needs_images = "given", False

    def __init__(self, seen: Seen) -> None:
        self._seen, self.settings = seen, dict[str, Any]()

    def see(self, people: Any) -> Seen:
        return self._seen


def test_the_mean_pose_stands_where_the_person_stands(seen: Seen) -> None:
    body = Body.open("light")
    system = MeanPose(Given(seen), body, load_flow())
    (predictions,) = system.predict([system.observe(seen.people)])
    for prediction, recording in zip(predictions, seen.people, strict=True):
        truth = true_joints(recording)
        assert prediction.found.sum() >= FRAMES - 2
        away = (prediction.joints3d - truth)[prediction.found][:, 0].norm(dim=-1)
        assert away.max() < 1.0 and away[:, None][..., :2].mean() < 0.6  # m, mostly along the depth
        relative = prediction.joints3d[prediction.found] - prediction.joints3d[prediction.found][:, :1]
        assert (relative - relative[0]).abs().max() < 1e-5  # the same in every frame
        assert relative[0, 15, 1] < -0.5  # the head above the pelvis, y down


def test_world_landmarks_are_the_networks_own(seen: Seen) -> None:
    """Evidence whose world landmarks are the truth's limbs about the hips scores zero on the limbs."""
    import dataclasses

    recording = seen.people[0]
    truth = true_joints(recording).float()
    hips = truth[:, [1, 2]].mean(1, keepdim=True)
    world = torch.zeros(FRAMES, 33, 3)
    for name in LIMBS:
        world[:, BLAZEPOSE.index(name)] = (truth - hips)[:, SMPL_JOINTS.index(name)]
    evidence = seen.evidences[0]
    at = evidence.frame_ids
    given = dataclasses.replace(seen, evidences=[
        dataclasses.replace(evidence, world_landmarks=world.numpy()[at], has_world=np.ones(len(at), bool)), *seen.evidences[1:]
    ])  # fmt: skip
    system = WorldLandmarks(Given(given))
    with pytest.raises(UsageError, match="--evidence video"):
        system.predict([given])  # the second person has 2D alone
    alone = dataclasses.replace(
        given, people=given.people[:1], evidences=given.evidences[:1], owners=[0], distances=[0.0]
    )
    ((prediction,),) = system.predict([alone])
    rules = PROTOCOLS["official24"]
    got = score(prediction, recording, rules, Bodies(None))
    assert set(got.joints) == set(LIMBS) and max(got.joints.values()) < 1e-3 and "w_mpjpe" not in got.metrics
    limbs = score(prediction, recording, PROTOCOLS["wham"], bodies_of(recording))
    assert set(limbs.joints) == set(LIMBS)


def bodies_of(recording: Any) -> Bodies:
    """SMPL by the open body alone: what the miniature's files are made from."""
    from kinflow.datasets.miniature.smpl import gendered

    class Open(Bodies):
        def smpl(self, gender: str) -> Body:
            return Body(gendered(gender, "light"))

        def regress(self, vertices: torch.Tensor, rows: tuple[int, ...]) -> torch.Tensor:
            return vertices[..., : len(rows), :]

    return Open(None)


def test_each_frame_alone(seen: Seen) -> None:
    """The answer for a frame does not depend on the others."""
    import dataclasses

    reconstructor = untrained(Body.open("light"))
    ((whole, _),) = PerFrame(Given(seen), reconstructor).predict([seen])
    evidence = seen.evidences[0]
    row = 5
    single = one_frame(evidence, row)
    assert len(single) == 1 and single.timestamps[0] == evidence.timestamps[row]
    alone = dataclasses.replace(seen, evidences=[single], owners=[0], distances=[0.0])
    ((one, nobody),) = PerFrame(Given(alone), reconstructor).predict([alone])
    frame = int(evidence.frame_ids[row])
    assert one.found.nonzero().tolist() == [[frame]] and not nobody.found.any()
    torch.testing.assert_close(one.joints3d[frame], whole.joints3d[frame], atol=1e-5, rtol=0)


@pytest.mark.parametrize("system", ["mean-pose", "per-frame"])
def test_baselines_run_in_the_same_harness(
    made: Path, tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinflow.reconstruction import Reconstructor

    load: Callable[..., Reconstructor] = lambda body, device: untrained(body)  # noqa: E731
    monkeypatch.setattr(Reconstructor, "load", staticmethod(load))
    assert run(made, tmp_path, "--system", system, "--protocol", "official24", "--evidence", "poses2d") == 0
    assert figures(tmp_path)["pa_mpjpe"] > 50


# -- EMDB -----------------------------------------------------------------------------------------------------------------


def test_emdb_truth_scores_zero_and_options_are_checked(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_emdb(tmp_path / "emdb", frames=10, images=False)
    smpl = ["--body-path", str(made / "body")]
    assert run(root, tmp_path / "out", "--system", "truth", "--split", "all", *smpl, subject="emdb") == 0
    found = figures(tmp_path / "out")
    assert all(found[k] < 1e-3 for k in ("pa_mpjpe", "mpjpe", "pve", "accel", "w_mpjpe", "wa_mpjpe", "rte"))
    assert run(root, tmp_path / "one", "--system", "truth", *smpl, subject="emdb") == 0
    assert json.loads((tmp_path / "one/summary.json").read_text())["sequences"] == 1  # of benchmark 1
    for more, code, told in (
        (["--protocol", "wham"], 2, "expected one of emdb24"),
        (["--evidence", "poses2d"], 2, "no detections"),
        (["--split", "test"], 2, "split"),
        ([], 3, "SMPL_MALE.pkl"),
    ):
        assert run(root, tmp_path / "bad", *more, subject="emdb") == code
        assert told in capsys.readouterr().err
    assert run(tmp_path / "none", tmp_path / "bad", "--system", "truth", *smpl, subject="emdb") == 3
    assert "https://eth-ait.github.io/emdb/" in capsys.readouterr().err


def test_the_networks_own_landmarks_are_of_frames_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kinflow sees by turns in the mirror, its baseline does not."""
    looked: list[bool] = []

    def eyes(config: PerceptionConfig, *_: object) -> Given:
        looked.append(config.mirror)
        return Given(None)  # type: ignore[arg-type]

    monkeypatch.setattr(benching, "VideoEyes", eyes)
    bodies = types.SimpleNamespace(device=torch.device("cpu"))
    for name in ("world-landmarks", "mean-pose"):
        options = types.SimpleNamespace(
            system=name, body_path=None, evidence="video", config=PipelineConfig(), batch_size=8
        )
        benching._system(options, None, bodies, None)  # type: ignore[arg-type]
    assert looked == [False, True]
