"""USD: skinned, animated meshes of everybody with UsdSkel, as text (usda) or packed (usdz)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..body.surface import vertex_normals
from ..errors import UsageError
from ..records import atomic_write
from ..render import person_colour
from ..skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from .characters import Character

__all__ = ["write_usd"]

WHOLE = 1e-4
"""Time codes as near to a whole number are that number: viewers show whole frames."""


def write_usd(path: Path, people: Sequence[Character]) -> None:
    """Write everybody into one file, ``.usda`` or ``.usdz`` by its suffix: y up, one unit a metre.

    ``/People/NAME`` is a SkelRoot with ``skeleton``, ``animation`` and ``mesh``; joints are paths of SMPL's names, and both
    bind and rest pose are the body's zero pose. Time samples stand at the characters' own times: a time code is a time in
    seconds times ``timeCodesPerSecond``. A person who comes later or leaves earlier than others is invisible for that time;
    ``userProperties:observed`` tells the frames in which the person was seen from those filled in. Pose blend shapes of
    licensed bodies are left out.

    Source: Pixar, UsdSkel schemas (openusd.org).

    Raises:
        UsageError: two names that are the same among those that USD takes.
        OutputError: the file cannot be written.
    """
    from pxr import Sdf, Tf, Usd, UsdGeom, UsdUtils

    names = [Tf.MakeValidIdentifier(p.name) for p in people]
    if len(set(names)) < len(names):
        raise UsageError(
            f"names: USD has letters, digits and _ only, which makes {', '.join(names)} of them. Use others."
        )
    stage = Usd.Stage.CreateInMemory()
    rate = people[0].fps
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(rate)
    stage.SetFramesPerSecond(rate)
    first = min(_codes(p, rate)[0] for p in people)
    last = max(_codes(p, rate)[-1] for p in people)
    stage.SetStartTimeCode(first)
    stage.SetEndTimeCode(last)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/People").GetPrim())
    for name, person in zip(names, people, strict=True):
        codes = _codes(person, rate)
        prim = _add_person(stage, f"/People/{name}", person, codes)
        visibility = UsdGeom.Imageable(prim).CreateVisibilityAttr()
        if codes[0] > first or codes[-1] + 1 <= last:
            visibility.Set(UsdGeom.Tokens.inherited, codes[0])
            if codes[0] > first:
                visibility.Set(UsdGeom.Tokens.invisible, first)
            if codes[-1] + 1 <= last:
                visibility.Set(UsdGeom.Tokens.invisible, codes[-1] + 1)
    with tempfile.TemporaryDirectory() as folder:
        packed = path.suffix == ".usdz"
        layer = Path(folder) / (path.stem + (".usdc" if packed else ".usda"))
        stage.GetRootLayer().Export(str(layer))
        if packed:
            UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(layer.with_suffix(".usdz")))
            layer = layer.with_suffix(".usdz")
        with atomic_write(path) as stream:
            stream.write(layer.read_bytes())


def _codes(person: Character, rate: float) -> list[float]:
    codes = person.timestamps * rate
    whole = np.rint(codes)
    return [float(c) for c in np.where(np.abs(codes - whole) < WHOLE, whole, codes)]


def _add_person(stage: Any, path: str, person: Character, codes: list[float]) -> Any:
    from pxr import Gf, Sdf, UsdSkel, Vt

    holder = UsdSkel.Root.Define(stage, path)
    prim = holder.GetPrim()
    prim.SetCustomDataByKey("kinflow:person_id", person.person_id)
    prim.SetCustomDataByKey("kinflow:body", person.body.name)
    prim.SetCustomDataByKey("kinflow:betas", Vt.FloatArray([float(b) for b in person.betas]))
    observed = prim.CreateAttribute("userProperties:observed", Sdf.ValueTypeNames.Bool)

    tokens = Vt.TokenArray([_joint_path(j) for j in range(NUM_JOINTS)])
    skeleton = UsdSkel.Skeleton.Define(stage, f"{path}/skeleton")
    skeleton.CreateJointsAttr(tokens)
    skeleton.CreateBindTransformsAttr(_translations(person.rest_joints))
    skeleton.CreateRestTransformsAttr(_translations(person.offsets))

    animation = UsdSkel.Animation.Define(stage, f"{path}/animation")
    animation.CreateJointsAttr(tokens)
    animation.CreateScalesAttr(Vt.Vec3hArray([Gf.Vec3h(1, 1, 1)] * NUM_JOINTS))
    moves, turns = animation.CreateTranslationsAttr(), animation.CreateRotationsAttr()
    places = np.repeat(person.offsets[None], len(person), 0)
    places[:, 0] = person.pelvis
    for code, place, quat, seen in zip(
        codes, places.astype(np.float32), person.quat_wxyz().astype(np.float32), person.observed, strict=True
    ):
        moves.Set(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(place)), code)
        turns.Set(Vt.QuatfArray([Gf.Quatf(*(float(v) for v in q)) for q in quat]), code)
        observed.Set(bool(seen), code)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    _add_mesh(stage, f"{path}/mesh", person, skeleton.GetPath())
    return prim


def _add_mesh(stage: Any, path: str, person: Character, skeleton: Any) -> None:
    from pxr import Gf, UsdGeom, UsdSkel, Vt

    body = person.body
    vertices, faces = person.rest_vertices(), body.faces.cpu()
    normals = vertex_normals(torch.from_numpy(vertices), faces).numpy()
    mesh = UsdGeom.Mesh.Define(stage, path)
    points = Vt.Vec3fArray.FromNumpy(vertices.astype(np.float32))
    mesh.CreatePointsAttr(points)
    mesh.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(points))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(faces.numpy().astype(np.int32).reshape(-1)))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(normals.astype(np.float32)))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    linear = (np.array(person_colour(person.person_id)) / 255) ** 2.2
    mesh.CreateDisplayColorAttr(Vt.Vec3fArray([Gf.Vec3f(*linear.tolist())]))

    influences = int((body.weights > 0).sum(-1).max())
    weights, joints = (x.cpu().numpy() for x in body.weights.topk(influences, -1))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton])
    binding.CreateGeomBindTransformAttr(Gf.Matrix4d(1.0))
    binding.CreateJointIndicesPrimvar(False, influences).Set(Vt.IntArray.FromNumpy(joints.astype(np.int32).reshape(-1)))
    binding.CreateJointWeightsPrimvar(False, influences).Set(
        Vt.FloatArray.FromNumpy(weights.astype(np.float32).reshape(-1))
    )


def _translations(places: Any) -> Any:
    from pxr import Gf, Vt

    return Vt.Matrix4dArray([Gf.Matrix4d().SetTranslate(Gf.Vec3d(*place.tolist())) for place in places])


def _joint_path(joint: int) -> str:
    parent = SMPL_PARENTS[joint]
    return SMPL_JOINTS[joint] if parent < 0 else f"{_joint_path(parent)}/{SMPL_JOINTS[joint]}"
