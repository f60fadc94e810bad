"""Licensed files: miniatures of SMPL, SMPL-H and SMPL-X in the layouts of the released files, against smplx."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smplx
import torch
from scipy import sparse
from smplx.utils import Struct

from kinflow.body import Body
from kinflow.body.files import read_open
from kinflow.body.licensed import FINGERS, FIRST_HAND, JOINT_COUNTS
from kinflow.errors import MissingAssetError, UsageError
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BLAZEPOSE, BLAZEPOSE_TO_SMPL, SMPL_PARENTS

COUNTS = {kind: joints for joints, kind in JOINT_COUNTS.items()}


def parents(kind: str) -> list[int]:
    if kind == "smpl":
        return list(SMPL_PARENTS)
    body = list(SMPL_PARENTS[:22]) + ([15, 15, 15] if kind == "smplx" else [])
    for first, wrist in zip(FIRST_HAND[kind], (20, 21), strict=True):
        for finger in range(5):
            body += [wrist, first + 3 * finger, first + 3 * finger + 1]
    return body


def miniature(kind: str, vertices: int = 300, coefficients: int = 10, seed: int = 0) -> dict[str, Any]:
    """A random model with the released file's keys, shapes and types."""
    rng = np.random.default_rng(seed)
    joints = COUNTS[kind]
    weights = rng.random((vertices, joints)) ** 4
    regressor = np.where(rng.random((joints, vertices)) < 20 / vertices, rng.random((joints, vertices)), 0)
    regressor[:, 0] += 0.1
    tree = np.array(parents(kind)).astype(np.uint32 if kind == "smpl" else np.int64)
    return {
        "v_template": rng.normal(0, 0.3, (vertices, 3)),
        "shapedirs": rng.normal(0, 0.02, (vertices, 3, coefficients)),
        "posedirs": rng.normal(0, 0.01, (vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack((tree, np.arange(joints).astype(tree.dtype))),
        "f": rng.integers(0, vertices, (500, 3)).astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def through_smplx(data: dict[str, Any], betas: torch.Tensor, rotvec: torch.Tensor, transl: torch.Tensor) -> Any:
    """smplx's own skinning of all joints, those beyond kinflow's at identity."""
    joints = data["weights"].shape[1]
    full = torch.zeros(len(rotvec), joints, 3, dtype=torch.float64)
    body = 24 if joints == 24 else 22
    full[:, :body] = rotvec[:, :body]
    as_tensor = {
        k: torch.as_tensor(np.asarray(v), dtype=torch.float64) for k, v in data.items() if not isinstance(v, str)
    }
    tree = as_tensor["kintree_table"][0].long()
    tree[0] = -1
    vertices, posed = smplx.lbs.lbs(
        betas, full.flatten(1), as_tensor["v_template"][None].expand(len(betas), -1, -1),
        as_tensor["shapedirs"][:, :, :10], as_tensor["posedirs"].flatten(0, 1).T, as_tensor["J_regressor"], tree,
        as_tensor["weights"],
    )  # fmt: skip
    return vertices + transl[:, None], posed + transl[:, None]


def calibration() -> torch.Tensor:
    """(33, 3) from the anatomical place to where BlazePose sees a landmark, in its joint's frame."""
    arrays = read_open("light")
    assert arrays.landmark_offsets is not None and arrays.landmark_anatomical_offsets is not None
    return torch.from_numpy(arrays.landmark_offsets - arrays.landmark_anatomical_offsets)


@pytest.fixture
def arguments() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.randn(3, 10, dtype=torch.float64),
        0.5 * torch.randn(3, 24, 3, dtype=torch.float64),
        torch.randn(3, 3, dtype=torch.float64),
    )


def write(data: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **data)
    else:
        with path.open("wb") as file:
            pickle.dump(data | {"J_regressor": sparse.csc_matrix(data["J_regressor"])}, file, protocol=2)
    return path


@pytest.mark.parametrize("ending", [".npz", ".pkl"])
@pytest.mark.parametrize("kind", ["smpl", "smplh", "smplx"])
def test_equals_smplx(kind: str, ending: str, tmp_path: Path, arguments: tuple[torch.Tensor, ...]) -> None:
    data = miniature(kind, coefficients={"smpl": 10, "smplh": 16, "smplx": 400}[kind])
    if kind == "smplx":  # the released npz holds name tables that need pickle: they are never touched
        data["joint2num"] = np.array({"Pelvis": 0}, dtype=object)
    path = write(data, tmp_path / f"model{ending}")
    body = Body.from_file(path).double()
    assert body.name == kind
    assert body.v_template.dtype == torch.float64
    data = {key: np.asarray(value, np.float32) if key in ("v_template", "shapedirs", "posedirs", "weights") else value
            for key, value in data.items() if key != "joint2num"}  # fmt: skip
    betas, rotvec, transl = arguments
    vertices, joints = through_smplx(data, betas, rotvec, transl)
    rotmat = rotvec_to_rotmat(rotvec)
    ours, ours_joints = body(betas, rotmat, transl)
    assert (ours - vertices).abs().max() < 1e-5
    first = joints.shape[1] if kind == "smpl" else 22
    assert (ours_joints[:, :first] - joints[:, :first]).abs().max() < 1e-5
    if kind != "smpl":
        for place, start in zip((22, 23), FIRST_HAND[kind], strict=True):
            middle = joints[:, start + 3 * FINGERS.index("middle")]
            assert (ours_joints[:, place] - middle).abs().max() < 1e-5
    shared = body.vertices(betas[:1].expand(3, 10), rotmat, transl)
    assert (shared[1] - body.vertices(betas[0], rotmat[1], transl[1])).abs().max() < 1e-9
    ids = torch.tensor((3, 1, 2))
    assert (body.vertices(betas, rotmat, transl, vertex_ids=ids) - ours[:, ids]).abs().max() < 1e-9


def test_equals_the_module_that_smplx_builds(tmp_path: Path, arguments: tuple[torch.Tensor, ...]) -> None:
    """The released SMPL layout (6,890 vertices) through smplx's own class: vertices and 24 joints within 1e-5 m."""
    data = miniature("smpl", vertices=6890)
    body = Body.from_file(write(data, tmp_path / "SMPL_NEUTRAL.pkl"), model_type="smpl")
    model = smplx.SMPL(model_path="", data_struct=Struct(**data), batch_size=3)
    betas, rotvec, transl = (a.float() for a in arguments)
    theirs = model(betas=betas, global_orient=rotvec[:, 0], body_pose=rotvec[:, 1:].flatten(1), transl=transl)
    vertices, joints = body(betas, rotvec_to_rotmat(rotvec), transl)
    assert (vertices - theirs.vertices).abs().max() < 1e-5
    assert (joints - theirs.joints[:, :24]).abs().max() < 1e-5
    # Landmarks: smplx's named vertices at rest, the joints themselves for the limbs, all finite.
    rest = body.landmarks(betas[0], torch.eye(3).expand(24, 3, 3)) - calibration()
    named = model(betas=betas[:1].expand(3, 10)).joints[0]
    for offset, name in enumerate(("nose", "right_eye", "left_eye", "right_ear", "left_ear")):
        torch.testing.assert_close(rest[BLAZEPOSE.index(name)], named[24 + offset], atol=1e-5, rtol=0)
    assert torch.isfinite(rest).all()
    for landmark, joint in BLAZEPOSE_TO_SMPL.items():
        torch.testing.assert_close(rest[landmark], body.rest_joints(betas[0])[joint], atol=1e-5, rtol=0)


def test_finger_joints_serve_as_knuckles(tmp_path: Path) -> None:
    data = miniature("smplh", vertices=6890, seed=1)
    data["posedirs"] = data["posedirs"].astype(np.float32)
    body = Body.from_file(write(data, tmp_path / "model.npz"))
    points = body.landmarks(torch.zeros(10), torch.eye(3).expand(24, 3, 3)) - calibration()
    joints = data["J_regressor"] @ data["v_template"]
    for side, first in zip(("left", "right"), FIRST_HAND["smplh"], strict=True):
        for finger, phalanx in (("index", 0), ("pinky", 0), ("thumb", 1)):
            row = first + 3 * FINGERS.index(finger) + phalanx
            np.testing.assert_allclose(points[BLAZEPOSE.index(f"{side}_{finger}")].numpy(), joints[row], atol=1e-5)


def test_open_body_written_as_smpl_keeps_its_hands(tmp_path: Path) -> None:
    """SMPL has no finger joints: knuckles come from the open body's, scaled to the hand."""
    open_body = Body.open("light")
    data = miniature("smpl", vertices=6890)
    joints = open_body.joint_template.numpy()
    data["v_template"][:24] = 1.2 * joints  # joint j is vertex j
    data["J_regressor"] = np.eye(24, 6890)
    zero = torch.zeros(10), torch.eye(3).expand(24, 3, 3)
    points = Body.from_file(write(data, tmp_path / "m.npz")).landmarks(*zero) - calibration()
    expected = 1.2 * (open_body.landmarks(*zero) - calibration())
    for name in ("left_index", "right_pinky", "left_thumb"):
        torch.testing.assert_close(points[BLAZEPOSE.index(name)], expected[BLAZEPOSE.index(name)], atol=1e-5, rtol=0)


def test_folder_and_gender(tmp_path: Path) -> None:
    (tmp_path / "smpl").mkdir()
    write(miniature("smpl"), tmp_path / "smpl" / "SMPL_FEMALE.pkl")
    assert "female" in Body.from_file(tmp_path, gender="female").provenance
    with pytest.raises(MissingAssetError, match=r"SMPL_NEUTRAL\.pkl"):
        Body.from_file(tmp_path)
    with pytest.raises(UsageError, match="gender"):
        Body.from_file(tmp_path, gender="f")


@pytest.fixture
def chumpy() -> Iterator[types.ModuleType]:
    """A module that pickles as chumpy's arrays do: a leaf with ``x``, a selection with ``a`` and ``idxs``."""
    root, reordering = types.ModuleType("chumpy"), types.ModuleType("chumpy.reordering")
    for module, name in ((root, "Ch"), (reordering, "Select")):
        cls = type(name, (), {"__module__": module.__name__, "__init__": lambda self, **k: self.__dict__.update(k)})
        setattr(module, name, cls)
    root.reordering = reordering  # type: ignore[attr-defined]
    sys.modules.update({"chumpy": root, "chumpy.reordering": reordering})
    yield root
    del sys.modules["chumpy"], sys.modules["chumpy.reordering"]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_old_pickles_with_chumpy_arrays(chumpy: Any, tmp_path: Path, protocol: int) -> None:
    data = miniature("smpl", vertices=60)
    plain = Body.from_file(write(data, tmp_path / "plain.npz"))
    count = data["shapedirs"].size
    old = data | {
        "v_template": chumpy.Ch(x=data["v_template"]),
        "shapedirs": chumpy.reordering.Select(
            a=chumpy.Ch(x=np.concatenate((data["shapedirs"].ravel(), np.zeros(9)))),
            idxs=np.arange(count),
            preferred_shape=data["shapedirs"].shape,
        ),
        "J_regressor": sparse.csr_matrix(data["J_regressor"]),
    }
    with (tmp_path / "old.pkl").open("wb") as file:
        pickle.dump(old, file, protocol=protocol)
    for name in ("chumpy", "chumpy.reordering"):  # not installed where it is read
        sys.modules[name] = None  # type: ignore[assignment]
    body = Body.from_file(tmp_path / "old.pkl")
    for name in ("v_template", "shapedirs", "joint_template", "joint_shapedirs", "weights"):
        torch.testing.assert_close(getattr(body, name), getattr(plain, name))


class _Harmful:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "made"
    with (tmp_path / "model.pkl").open("wb") as file:
        pickle.dump(miniature("smpl", vertices=30) | {"v_template": _Harmful(str(trap))}, file)
    with pytest.raises(UsageError, match="not admitted"):
        Body.from_file(tmp_path / "model.pkl")
    assert not trap.exists()


def test_bad_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be read"):
        Body.from_file(path)
    path.write_bytes(b"no pickle at all")
    with pytest.raises(UsageError, match="cannot be read"):
        Body.from_file(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UsageError, match="dictionary"):
        Body.from_file(path)
    data = miniature("smpl", vertices=30)
    del data["weights"]
    with pytest.raises(UsageError, match="weights missing"):
        Body.from_file(write(data, tmp_path / "part.npz"))
    data = miniature("smpl", vertices=30, coefficients=4)
    with pytest.raises(UsageError, match="10 shape coefficients"):
        Body.from_file(write(data, tmp_path / "few.npz"))
    good = write(miniature("smplh", vertices=30), tmp_path / "good.npz")
    with pytest.raises(UsageError, match="smplh model, not smpl"):
        Body.from_file(good, model_type="smpl")
    with pytest.raises(UsageError, match="model_type"):
        Body.from_file(good, model_type="star")
    truncated = tmp_path / "cut.npz"
    truncated.write_bytes(good.read_bytes()[:-2000])
    with pytest.raises(UsageError, match="cannot be read"):
        Body.from_file(truncated)
    with pytest.raises(UsageError, match="none of SMPL's"):
        Body.from_file(good).landmarks(torch.zeros(10), torch.eye(3).expand(24, 3, 3))
