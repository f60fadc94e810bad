"""Licensed body files: SMPL, SMPL-H and SMPL-X (.pkl or .npz), read without running any code in them.

The released pickles hold numpy arrays, scipy sparse matrices and, in the oldest, chumpy arrays. The reader admits just
these, rebuilds the last two from their state (neither scipy nor chumpy is imported), and refuses anything else. The
arrays then go through smplx, which is what the field reads these files with.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, KinflowError, MissingAssetError, UsageError, check_shape
from ..records import open_npz
from ..skeleton import BLAZEPOSE, BLAZEPOSE_TO_SMPL, NUM_JOINTS, SMPL_JOINTS
from .files import BodyArrays, read_open
from .joint_sets import SKIN_CARRIERS, SKIN_POINTS, crown

JOINT_COUNTS = {24: "smpl", 52: "smplh", 55: "smplx"}
TOPOLOGIES = {6890: "smplh", 10475: "smplx"}
"""Vertex counts of the released meshes -> the name under which smplx keeps their landmark vertices."""

# Where the joints that kinflow does not turn begin, by model: the three finger chains' names in the files' order.
FIRST_HAND = {"smplh": (22, 37), "smplx": (25, 40)}
FINGERS = ("index", "middle", "pinky", "ring", "thumb")
REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


def read_licensed(path: Path, gender: str = "neutral", model_type: str | None = None) -> BodyArrays:
    """A file of the SMPL family as arrays; see :meth:`kinflow.Body.from_file`."""
    if gender not in ("neutral", "male", "female"):
        raise UsageError(f"gender: expected neutral, male or female, got {gender!r}.")
    if model_type is not None and model_type not in JOINT_COUNTS.values():
        raise UsageError(f"model_type: expected one of {', '.join(JOINT_COUNTS.values())}, got {model_type!r}.")
    if path.is_dir():
        path = _in_folder(path, gender, model_type)
    if not path.is_file():
        raise MissingAssetError(f"body_path: no file {path}. Give the model file that you downloaded (.pkl or .npz).")
    data = _load(path)
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise UsageError(f"body_path: {path.name} is no SMPL model: {', '.join(missing)} missing.")
    try:
        arrays = {key: _dense(data[key]) for key in REQUIRED}
    except KinflowError:
        raise
    except Exception as error:  # matrices whose parts contradict each other
        raise FormatError(f"body_path: {path.name} is damaged ({error}). Download it again.") from error
    _check(arrays, path)
    joints = arrays["weights"].shape[-1]
    found = JOINT_COUNTS.get(joints)
    if found is None or arrays["shapedirs"].ndim != 3 or arrays["shapedirs"].shape[-1] < 10:
        raise UsageError(
            f"body_path: {path.name} has {joints} joints and shapedirs {arrays['shapedirs'].shape}; expected 24 (SMPL), "
            "52 (SMPL-H) or 55 (SMPL-X) joints and at least 10 shape coefficients."
        )
    if model_type is not None and model_type != found:
        raise UsageError(f"body_path: {path.name} is a {found} model, not {model_type}. Pass --body {found}.")
    return _fold(arrays, found, f"{found} ({gender}), {path.name}: licensed by the user, no part of kinflow.")


def _check(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Raises FormatError for shapes that contradict each other, values that are no finite numbers, or indices of nothing."""
    vertices, joints = arrays["weights"].shape if arrays["weights"].ndim == 2 else (-1, -1)
    v, j = str(vertices), str(joints)
    shapes = {
        "v_template": f"{v} 3", "shapedirs": f"{v} 3 S", "posedirs": f"{v} 3 {9 * (joints - 1)}", "weights": f"{v} {j}",
        "J_regressor": f"{j} {v}", "kintree_table": f"2 {j}", "f": "F 3",
    }  # fmt: skip
    for key, shape in shapes.items():
        check_shape(f"body_path: {path.name}: {key}", arrays[key], shape, "Download it again.")
        if arrays[key].dtype.kind not in "iuf" or not np.isfinite(arrays[key]).all():
            raise FormatError(f"body_path: {path.name}: {key}: expected finite numbers. Download it again.")
    parents, faces = arrays["kintree_table"][0].astype(np.int64)[1:], arrays["f"].astype(np.int64)
    if (parents < 0).any() or (parents > np.arange(joints - 1)).any() or (faces < 0).any() or (faces >= vertices).any():
        raise FormatError(f"body_path: {path.name}: faces or parents of what does not exist. Download it again.")


def _in_folder(folder: Path, gender: str, model_type: str | None) -> Path:
    """The file of a folder laid out as smplx expects it: SMPL_NEUTRAL.pkl and so on, or smpl/SMPL_NEUTRAL.pkl."""
    for kind in [model_type] if model_type else list(JOINT_COUNTS.values()):
        for place in (folder, folder / kind):
            for ending in (".npz", ".pkl"):
                if (place / f"{kind.upper()}_{gender.upper()}{ending}").is_file():
                    return place / f"{kind.upper()}_{gender.upper()}{ending}"
    name = (model_type or "smpl").upper()
    raise MissingAssetError(f"body_path: {folder} holds no {name}_{gender.upper()}.pkl or .npz. Give the file itself.")


# -- reading -------------------------------------------------------------------------------------------------------


class _State:
    """Stands for an object of a class that is not imported: keeps the state it was saved with."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


class _Sparse(_State):
    """A scipy sparse matrix in compressed columns or rows."""

    layout: str
    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    _shape: tuple[int, int]


class _Chumpy(_State):
    """A chumpy array: a leaf holds ``x``; a selection holds the array it selects from, indices and a shape."""


def _reconstruct(cls: type, base: type, state: Any) -> Any:
    """What ``copyreg._reconstructor`` does for plain objects, limited to the stand-ins above."""
    if not issubclass(cls, _State):
        raise pickle.UnpicklingError(f"object of type {cls.__name__}")
    return cls.__new__(cls)


_CORE = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
_NUMPY: dict[str, Any] = {
    "_reconstruct": importlib.import_module(f"{_CORE}.multiarray")._reconstruct,
    "scalar": importlib.import_module(f"{_CORE}.multiarray").scalar,
    "_frombuffer": importlib.import_module(f"{_CORE}.numeric")._frombuffer,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Admits numpy arrays, and stand-ins for scipy's sparse matrices and chumpy's arrays."""

    def find_class(self, module: str, name: str) -> Any:
        root = module.split(".")[0]
        if root == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        if root == "scipy" and name in ("csc_matrix", "csr_matrix", "csc_array", "csr_array"):
            return type(name, (_Sparse,), {"layout": name[:3]})
        if root == "chumpy":
            return type(name, (_Chumpy,), {})
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return _reconstruct
        if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
            return object
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding="latin1": text.encode("latin1")
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is not admitted")


def _load(path: Path) -> dict[str, Any]:
    try:
        if zipfile.is_zipfile(path):
            # Entries that need pickle (name tables of SMPL-X) are none of those that are read here.
            with open_npz(path) as npz:
                return {key: npz.numbers(key) for key in REQUIRED if key in npz}
        with path.open("rb") as stream:
            data = _Unpickler(stream, encoding="latin1").load()
    except KinflowError:
        raise
    except Exception as error:  # damaged pickles raise whatever the objects in them raise
        raise FormatError(
            f"body_path: {path.name} cannot be read as a body model ({error}). Download it again, or convert it to .npz."
        ) from error
    if not isinstance(data, dict):
        raise UsageError(f"body_path: {path.name} holds no dictionary of arrays. Give an SMPL model file.")
    return data


def _dense(value: Any) -> np.ndarray:
    if isinstance(value, _Sparse):
        rows, columns = value._shape
        matrix = np.zeros((rows, columns))
        outer = np.repeat(np.arange(len(value.indptr) - 1), np.diff(value.indptr))
        place = (value.indices, outer) if value.layout == "csc" else (outer, value.indices)
        np.add.at(matrix, place, value.data)
        return matrix
    if isinstance(value, _Chumpy):
        if hasattr(value, "x"):
            return _dense(value.x)
        if hasattr(value, "a") and hasattr(value, "idxs"):
            picked = _dense(value.a).ravel()[_dense(value.idxs)]
            return picked.reshape(value.preferred_shape) if hasattr(value, "preferred_shape") else picked
        raise UsageError(f"body_path: a chumpy {type(value).__name__} cannot be read. Convert the file to .npz first.")
    return np.asarray(value)


# -- to 24 joints --------------------------------------------------------------------------------------------------


def _fold(arrays: dict[str, np.ndarray], kind: str, provenance: str) -> BodyArrays:
    """Fold the joints that stay at identity into their nearest ancestor among the first 22 (24 for SMPL).

    A joint at identity moves rigidly with its parent, so its skinning weight can be added to its parent's, and its
    pose blend shapes vanish: exact.
    """
    import smplx
    from smplx.utils import Struct

    with contextlib.redirect_stdout(io.StringIO()):  # smplx prints a notice on files with 10 coefficients
        model = smplx.SMPL(
            model_path="", data_struct=Struct(**{**arrays, "shapedirs": arrays["shapedirs"][:, :, :10]}),
            create_betas=False, create_global_orient=False, create_body_pose=False, create_transl=False,
        )  # fmt: skip
    template = arrays["v_template"].astype(np.float64)
    shapedirs = arrays["shapedirs"][:, :, :10].astype(np.float64)
    regressor = arrays["J_regressor"].astype(np.float64)
    parents = model.parents.tolist()
    kept = NUM_JOINTS if kind == "smpl" else NUM_JOINTS - 2
    weights = np.zeros((len(template), NUM_JOINTS))
    for joint in range(len(parents)):
        ancestor = joint
        while ancestor >= kept:
            ancestor = parents[ancestor]
        weights[:, ancestor] += arrays["weights"][:, joint]
    if kind == "smpl":
        rows = list(range(NUM_JOINTS))
    else:
        middle = FINGERS.index("middle") * 3
        rows = list(range(kept)) + [first + middle for first in FIRST_HAND[kind]]
    all_joints = (regressor @ template, np.einsum("jv,vck->jck", regressor, shapedirs))
    joint_template, joint_shapedirs = all_joints[0][rows], all_joints[1][rows]
    carriers = offsets = directions = skin_offsets = skin_directions = None
    if len(template) in TOPOLOGIES:
        carriers, offsets, directions = _landmarks(template, shapedirs, all_joints, rows, kind)
        skin_offsets, skin_directions = _skin_points(template, shapedirs, joint_template, joint_shapedirs)
    return BodyArrays(
        name=kind, provenance=provenance, v_template=template, shapedirs=shapedirs,
        faces=np.asarray(arrays["f"]).astype(np.int64), weights=weights, joint_template=joint_template,
        joint_shapedirs=joint_shapedirs,
        posedirs=arrays["posedirs"].astype(np.float64)[:, :, : 9 * (kept - 1)],
        landmark_joints=carriers, landmark_offsets=offsets, landmark_shapedirs=directions,
        skin_offsets=skin_offsets, skin_shapedirs=skin_directions,
    )  # fmt: skip


def _skin_points(
    template: np.ndarray, shapedirs: np.ndarray, joint_template: np.ndarray, joint_shapedirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The joint sets' points of the skin: toes and heels are the vertices that smplx names, the crown is the highest one."""
    from smplx.vertex_ids import vertex_ids

    ids = vertex_ids[TOPOLOGIES[len(template)]]
    named = {"big_toe": "BigToe", "small_toe": "SmallToe", "heel": "Heel"}
    vertices = [
        crown(template, joint_template[SMPL_JOINTS.index("head")])
        if name == "head_top"
        else ids[name[0].upper() + named[name.partition("_")[2]]]
        for name in SKIN_POINTS
    ]
    carriers = list(SKIN_CARRIERS)
    return template[vertices] - joint_template[carriers], shapedirs[vertices] - joint_shapedirs[carriers]


def _landmarks(
    template: np.ndarray,
    shapedirs: np.ndarray,
    all_joints: tuple[np.ndarray, np.ndarray],
    rows: list[int],
    kind: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """BlazePose's landmarks: limb joints, smplx's own landmark vertices (nose, eyes, ears, heels, big toes), finger
    joints where the model has them; the rest of the face and SMPL's knuckles are carried over from the open body."""
    from smplx.vertex_ids import vertex_ids

    ids = vertex_ids[TOPOLOGIES[len(template)]]
    named = {"nose": "nose"}
    for side, s in (("left", "l"), ("right", "r")):
        named |= {f"{side}_eye": f"{s}eye", f"{side}_ear": f"{s}ear"}
        named |= {f"{side}_heel": f"{s.upper()}Heel", f"{side}_foot_index": f"{s.upper()}BigToe"}
    body = read_open("light")
    if body.landmark_joints is None or body.landmark_offsets is None or body.landmark_shapedirs is None:
        raise MissingAssetError("open_body_light.npz has no landmarks. Install the package again.")
    if body.landmark_anatomical_offsets is None:
        raise MissingAssetError("open_body_light.npz has no anatomical landmarks. Install the package again.")
    anatomical = body.landmark_anatomical_offsets
    carriers = body.landmark_joints.astype(np.int64)
    joints = np.concatenate((all_joints[0][..., None], all_joints[1]), -1)[rows]  # (24, 3, 11)
    points = np.full((len(BLAZEPOSE), 3, 11), np.nan)
    for landmark, joint in BLAZEPOSE_TO_SMPL.items():
        points[landmark] = joints[joint]
    for name, vertex in named.items():
        index = ids[vertex]
        points[BLAZEPOSE.index(name)] = np.concatenate((template[index][:, None], shapedirs[index]), -1)

    # Face: the affine map that takes the open body's nose, eyes and ears to this one's, as weights of these five.
    known = [BLAZEPOSE.index(n) for n in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")]
    homogeneous = np.concatenate((anatomical, np.ones((len(BLAZEPOSE), 1))), -1)
    for landmark, name in enumerate(BLAZEPOSE):
        if ("eye" in name or "mouth" in name) and landmark not in known:
            share = np.linalg.lstsq(homogeneous[known].T, homogeneous[landmark], rcond=None)[0]
            points[landmark] = np.einsum("k,kcb->cb", share, points[known])

    for hand, side in enumerate(("left", "right")):
        wrist, knuckle = SMPL_JOINTS.index(f"{side}_wrist"), SMPL_JOINTS.index(f"{side}_hand")
        size = np.linalg.norm(joints[knuckle, :, 0] - joints[wrist, :, 0])
        scale = size / np.linalg.norm(body.joint_template[knuckle] - body.joint_template[wrist])
        for finger, phalanx in (("pinky", 0), ("index", 0), ("thumb", 1)):
            landmark = BLAZEPOSE.index(f"{side}_{finger}")
            if kind == "smpl":
                offset = anatomical[landmark][:, None], body.landmark_shapedirs[landmark]
                points[landmark] = joints[wrist] + scale * np.concatenate(offset, -1)
            else:
                row = FIRST_HAND[kind][hand] + 3 * FINGERS.index(finger) + phalanx
                points[landmark] = np.concatenate((all_joints[0][row][:, None], all_joints[1][row]), -1)
    offsets = points - joints[carriers]
    # What BlazePose sees lies off the anatomical place by what was measured on the open body.
    return carriers, offsets[..., 0] + body.landmark_offsets - anatomical, offsets[..., 1:]
