"""``kinflow-bench 3dpw`` on the miniature: figures, resuming, batches, and everything that can be wrong with data and arguments."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_reconstructor import untrained

from kinflow.body import Body
from kinflow.cli import bench
from kinflow.datasets.miniature import write_3dpw, write_smpl
from kinflow.datasets.miniature.threedpw import python2_pickle
from kinflow.datasets.threedpw import ThreeDPW, read_3dpw
from kinflow.evaluation import systems
from kinflow.evaluation.report import PLOTS
from kinflow.reconstruction import Reconstructor

FRAMES = 20
Run = Callable[..., int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    write_smpl(root / "body")
    return write_3dpw(root, sequences=2, frames=FRAMES, images=False)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to damage; the body files stay where they are."""
    shutil.copytree(made / "sequenceFiles", tmp_path / "mini/sequenceFiles")
    shutil.copy(made / "manifest.json", tmp_path / "mini")
    return tmp_path / "mini"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reconstructor that costs little."""

    def load(body: Body, device: Any) -> Reconstructor:
        return untrained(body)

    monkeypatch.setattr(Reconstructor, "load", staticmethod(load))


def run(root: Path, out: Path, *more: str, protocol: str = "official24", system: str = "truth") -> int:
    return bench.main(["3dpw", "--root", str(root), "-o", str(out), "--protocol", protocol, "--system", system,
                       "--quiet", "--no-plots", *more])  # fmt: skip


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def figures(out: Path) -> dict[str, float]:
    return {k: m["frames_mean"] for k, m in summary(out)["metrics"].items()}


SEQUENCES = "sequenceFiles/test"
FIRST, SECOND = "miniature_meeting_00", "miniature_walking_00"


@pytest.mark.parametrize("protocol", ["vibe", "wham", "official24"])
def test_the_truth_scores_zero(made: Path, tmp_path: Path, protocol: str) -> None:
    assert run(made, tmp_path, "--body-path", str(made / "body"), protocol=protocol) == 0
    found = summary(tmp_path)
    assert (found["sequences"], found["people"]) == (2, 3) and found["frames_found"] == found["frames_counted"] > 40
    assert all(found["metrics"][k]["frames_mean"] < 1e-3 for k in ("pa_mpjpe", "mpjpe", "accel", "w_mpjpe", "rte"))
    assert ("pve" in found["metrics"]) == (protocol != "official24")
    text = (tmp_path / "table.md").read_text()
    assert f"protocol {protocol} (" in text and f"{SECOND}_0" in text and "Worst by PA-MPJPE" in text


def test_what_the_choice_of_protocol_is_worth(made: Path, tmp_path: Path) -> None:
    """The truth's parameters on the neutral mesh: the table of docs/benchmark.md, on fewer frames."""
    found = {}
    for protocol in ("vibe", "wham", "official24"):
        out = tmp_path / protocol
        assert run(made, out, "--body-path", str(made / "body"), protocol=protocol, system="truth-neutral") == 0
        found[protocol] = figures(out)
    assert found["vibe"]["mpjpe"] < 1e-3 and found["vibe"]["pve"] < 1e-3
    for protocol in ("wham", "official24"):
        assert 15 < found[protocol]["mpjpe"] < 25 and 5 < found[protocol]["pa_mpjpe"] < 10
    assert 18 < found["wham"]["pve"] < 30


def test_kinflow_on_2d_keypoints_and_what_is_written(
    made: Path, tmp_path: Path, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["3dpw", "--root", str(made), "-o", str(tmp_path), "--protocol", "official24", "--evidence", "poses2d"]
    assert bench.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "the open body's 24 joints" in err and "protocol official24" in out and "Where the joint sets lie" in out
    assert all((tmp_path / name).stat().st_size > 5000 for name in PLOTS)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines[0]["schema"] == "kinflow.bench/1" and lines[0]["settings"]["evidence"] == "poses2d"
    assert [line["sequence"] for line in lines[1:]] == [FIRST, SECOND]
    person = lines[1]["people"][1]
    assert (
        person["found"] > 0
        and len(person["metrics"]["mpjpe"]) == FRAMES
        and set(person["joints"]) >= {"pelvis", "head"}
    )
    assert bench.main([*arguments, "--json"]) == 0  # again: nothing is left to do, and the same is said
    assert json.loads(capsys.readouterr().out) == summary(tmp_path)


def test_protocols_of_meshes_predict_on_smpl(made: Path, tmp_path: Path, small: None) -> None:
    assert (
        run(
            made,
            tmp_path,
            "--body-path",
            str(made / "body"),
            "--evidence",
            "poses2d",
            protocol="wham",
            system="kinflow",
        )
        == 0
    )
    assert summary(tmp_path)["settings"]["body"] == "smpl" and figures(tmp_path)["pve"] > 1


def test_in_batches_and_one_by_one_the_same(made: Path, tmp_path: Path, small: None) -> None:
    for clips in ("1", "2"):
        assert run(made, tmp_path / clips, "--evidence", "poses2d", "--batch-clips", clips, system="kinflow") == 0
    one, two = (figures(tmp_path / clips) for clips in ("1", "2"))
    assert one.keys() == two.keys()
    # Within 1e-5 m, and lengths are in mm here: 40 steps of the fit take rounding in the batch's matrices that far.
    assert all(one[k] == pytest.approx(two[k], rel=1e-5, abs=1e-2) for k in one)


def without_times(out: Path) -> tuple[str, dict[str, Any]]:
    timed = ("seconds", "frames_per_second")
    return (out / "table.md").read_text(), {k: v for k, v in summary(out).items() if k not in timed}


def test_what_was_broken_off_goes_on(
    made: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--evidence", "poses2d"]
    assert run(made, tmp_path / "whole", *more, system="kinflow") == 0
    observe, seen = systems.KinflowSystem.observe, []

    def interrupted(self: systems.KinflowSystem, people: Any) -> Any:
        seen.append(people[0].sequence)
        if people[0].sequence == SECOND:
            raise KeyboardInterrupt
        return observe(self, people)

    monkeypatch.setattr(systems.KinflowSystem, "observe", interrupted)
    assert run(made, tmp_path / "half", *more, system="kinflow") == 130
    assert "run the same command again" in capsys.readouterr().err
    assert len((tmp_path / "half/results.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "half/results.jsonl").open("a") as file:
        file.write('{"sequence": "miniature_walking_00", "peo')  # as a kill amid writing leaves it
    seen.clear()
    monkeypatch.setattr(
        systems.KinflowSystem, "observe", lambda self, people: seen.append(people[0].sequence) or observe(self, people)
    )
    assert run(made, tmp_path / "half", *more, system="kinflow") == 0
    assert seen == [SECOND]
    assert without_times(tmp_path / "half") == without_times(tmp_path / "whole")


def damage(root: Path, **fields: Any) -> None:
    """Write the second sequence anew with other fields."""
    path = root / SEQUENCES / f"{SECOND}.pkl"
    with path.open("rb") as file:
        data = pickle.load(file, encoding="latin1")
    path.write_bytes(python2_pickle(data | fields))


def truncate(root: Path) -> None:
    path = root / SEQUENCES / f"{SECOND}.pkl"
    path.write_bytes(path.read_bytes()[:1000])


def malicious(root: Path) -> None:
    (root / SEQUENCES / f"{SECOND}.pkl").write_bytes(f"cos\nsystem\n(S'touch {root}/mark'\ntR.".encode())


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda root: (root / SEQUENCES / f"{SECOND}.pkl").unlink(), f"{SECOND}: no file"),
    "truncated": (truncate, "cannot be read as a pickle of arrays"),
    "malicious": (malicious, "asks for os.system"),
    "no valid frame": (lambda root: damage(root, campose_valid=[np.zeros(FRAMES)]), "none of its 20 frames counts"),
    "ids": (lambda root: damage(root, img_frame_ids=np.zeros(FRAMES, int)), "img_frame_ids: expected increasing"),
    "lengths": (lambda root: damage(root, poses=[np.zeros((7, 72))]), "poses: expected shape"),
    "not finite": (lambda root: damage(root, trans=[np.full((FRAMES, 3), np.nan)]), "trans: expected finite"),
}


@pytest.mark.parametrize("fault", list(WRONG))
def test_one_bad_sequence_is_told_and_the_rest_goes_on(
    root: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, told = WRONG[fault]
    spoil(root)
    assert run(root, tmp_path / "out") == 6
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and "Traceback" not in err
    found = summary(tmp_path / "out")
    assert found["people"] == 2 and len(found["left_out"]) == 1 and told.split(": ")[-1] in found["left_out"][0][1]
    assert f"Left out:\n\n- {SECOND}" in (tmp_path / "out/table.md").read_text()
    assert not (root / "mark").exists()


def test_a_mended_sequence_is_tried_again(root: Path, made: Path, tmp_path: Path) -> None:
    truncate(root)
    assert run(root, tmp_path / "out") == 6
    shutil.copy(made / SEQUENCES / f"{SECOND}.pkl", root / SEQUENCES)
    assert run(root, tmp_path / "out") == 0
    assert summary(tmp_path / "out")["people"] == 3


def test_images_that_do_not_fit_the_poses(root: Path, tmp_path: Path, small: None) -> None:
    folder = root / "imageFiles" / FIRST
    folder.mkdir(parents=True)
    for frame in range(FRAMES - 1):
        (folder / f"image_{frame:05d}.jpg").touch()
    assert run(root, tmp_path / "out", "--limit", "1", system="kinflow") == 6
    assert "expected 20, one a pose, got 19 (image_00019.jpg" in summary(tmp_path / "out")["left_out"][0][1]


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--protocol", "pare"], 2, "protocol: expected one of vibe, wham, official24, got 'pare'"),
        (["--split", "dev"], 2, "split"),
        (["--joints", "hands"], 2, "joints"),
        (["--limit", "0"], 2, "limit: expected at least 1"),
        (["--batch-clips", "0"], 2, "batch_clips"),
        (["--batch-size", "0"], 2, "batch_size"),
        (["--device", "abacus"], 2, "device"),
        (["--system", "vibe"], 2, "system: expected one of"),
        (["--set", "perception.landmarks=best"], 2, "landmarks"),
        (["--protocol", "wham"], 3, "SMPL_NEUTRAL.pkl (https://smplify.is.tue.mpg.de)"),
        (["--protocol", "wham", "--body-path", "none"], 3, "J_regressor_h36m.npy in none"),
        (["--split", "train"], 3, "sequenceFiles.zip from https://virtualhumans.mpi-inf.mpg.de/3DPW/"),
        (["--system", "kinflow"], 3, "imageFiles.zip from https://virtualhumans.mpi-inf.mpg.de/3DPW/"),
        (["--system", "kinflow", "--evidence", "none"], 3, "evidence: no folder none"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be(
    made: Path, tmp_path: Path, more: list[str], code: int, told: str, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, tmp_path / "out", *more) == code
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_of_other_settings_and_damaged_ones(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, tmp_path, "--limit", "1") == 0
    assert run(made, tmp_path, "--limit", "1", "--joints", "limbs") == 2
    assert "results of another protocol, meaning" in capsys.readouterr().err
    assert run(made, tmp_path) == 0 and summary(tmp_path)["people"] == 3  # more sequences are no other setting
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    (tmp_path / "results.jsonl").write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    assert run(made, tmp_path) == 2
    assert "line 2 is damaged" in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text("\n".join([lines[0], json.dumps({"sequence": FIRST})]) + "\n")
    assert run(made, tmp_path, "--limit", "1") == 2
    assert "not of this version" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(made, tmp_path / "file") == 1


def test_a_group_that_fails_is_looked_at_one_by_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinflow.errors import ShapeError

    predict = systems.TruthSystem.predict

    def picky(self: systems.TruthSystem, observed: Any) -> Any:
        if any(people[0].sequence == SECOND for people in observed):
            raise ShapeError("the second one is odd.")
        return predict(self, observed)

    monkeypatch.setattr(systems.TruthSystem, "predict", picky)
    assert run(made, tmp_path, "--batch-clips", "2") == 6
    assert summary(tmp_path)["left_out"] == [[SECOND, "the second one is odd."]] and summary(tmp_path)["people"] == 2


def test_from_video(tmp_path: Path) -> None:
    """Rendered frames through the whole of it: the person is found, and told from nobody else."""
    root = write_3dpw(tmp_path / "mini", sequences=1, frames=20)
    assert run(root, tmp_path / "out", "--set", "perception.landmarks=full", system="kinflow") == 0
    found = summary(tmp_path / "out")
    assert found["people"] == 2 and found["frames_found"] > 0.8 * found["frames_counted"]
    assert found["metrics"]["pa_mpjpe"]["frames_mean"] < 120 and found["settings"]["landmarks"] == "full"
    assert run(root, tmp_path / "out", system="kinflow") == 2  # another network's results are not mixed with these


def test_keypoints_of_another_tool(made: Path, tmp_path: Path, small: None) -> None:
    """A COCO file a sequence: people are told apart by where the truth projects."""
    folder = tmp_path / "keypoints"
    folder.mkdir()
    data = ThreeDPW(made)
    order = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]  # COCO's 17 in OpenPose's 18
    people = data.read(FIRST)
    results = [
        {"image_id": int(t), "keypoints": np.c_[p.keypoints2d[t], p.confidence[t]][order].ravel().tolist(), "score": 1.0}  # type: ignore[index]
        for t in range(FRAMES) for p in people[::-1]
    ]  # fmt: skip
    (folder / f"{FIRST}.json").write_text(json.dumps(results))
    assert run(made, tmp_path / "out", "--evidence", str(folder), system="kinflow") == 6
    found = summary(tmp_path / "out")
    assert found["people"] == 2 and found["frames_found"] >= 30
    assert "neither a folder nor a .json" in found["left_out"][0][1]
    own = tmp_path / "own"
    assert run(made, own, "--evidence", "poses2d", "--limit", "1", system="kinflow") == 0
    assert figures(own)["pa_mpjpe"] == pytest.approx(figures(tmp_path / "out")["pa_mpjpe"], rel=0.2)
    assert len(read_3dpw(made / SEQUENCES / f"{FIRST}.pkl").actors) == 2
