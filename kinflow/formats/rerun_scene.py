"""People, camera, film and curves over time as rerun takes them: to a file, or to its viewer."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..body import Body
from ..errors import MissingAssetError
from ..flow.normal import usualness
from ..motion import Motion
from ..render import person_colour
from ..rotations import rotmat_to_quat_wxyz
from ..skeleton import BLAZEPOSE_TO_SMPL, SMPL_JOINTS, SMPL_PARENTS
from .characters import Character, characters, file_axes, ground_height, on_ground

__all__ = ["TIMELINE", "Bodies", "Film", "check_rerun", "log_people", "show", "store"]

Bodies = Literal["mesh", "capsules"]
Film = tuple[Path, float]
"""A video in the clip's own picture, and the time of its first frame, s."""
TIMELINE = "time"
"""Seconds from the clip's first frame."""

CONTACTS = ("left heel", "left toe", "right heel", "right toe")
FEET = {"left": SMPL_JOINTS.index("left_foot"), "right": SMPL_JOINTS.index("right_foot")}
CONFIDENT = 0.5
"""Keypoints below it are not shown, as in the overlay."""
GRID_M = 2
"""How far the grid reaches beyond people and camera."""
EYE_YAW, EYE_PITCH = 0.6, 0.22
"""Where the viewer first stands, rad from the camera and above the people."""
_PIECE = 256  # frames that the body is posed in at once
_SHADES = (1.0, 0.75, 0.55, 0.35)  # of a person's colour, for several curves of theirs

Array = NDArray[Any]


def check_rerun() -> None:
    """Raises MissingAssetError: rerun is not installed; the message has the line that installs it."""
    if importlib.util.find_spec("rerun") is None:
        raise MissingAssetError(
            "view: rerun-sdk is not installed. Run python -m pip install 'kinflow[view]', or open view.html instead: "
            "kinflow-view OUT --html."
        )


def store(path: Path, title: str, motions: Sequence[Motion], body: Body, **more: Any) -> None:
    """Write a recording (.rrd); arguments after the title are those of :func:`log_people`. The folder must exist.

    The file appears under its name when it is complete.
    """
    import rerun as rr

    partial = path.with_name(f".{path.name}.part")
    try:
        recording = _recording(rr, title)
        recording.save(str(partial), default_blueprint=_blueprint(motions, body))
        log_people(recording, motions, body, **more)
        recording.flush()
        recording.disconnect()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def show(title: str, motions: Sequence[Motion], body: Body, **more: Any) -> None:
    """Open rerun's viewer, a process of its own, on the scene; arguments as for :func:`store`."""
    import rerun as rr

    recording = _recording(rr, title)
    recording.spawn(default_blueprint=_blueprint(motions, body))
    log_people(recording, motions, body, **more)
    recording.flush()
    recording.disconnect()


def log_people(
    recording: Any,
    motions: Sequence[Motion],
    body: Body,
    *,
    names: Sequence[str] | None = None,
    film: Film | None = None,
    bodies: Bodies = "mesh",
) -> None:
    """Log everybody: bodies and joints in the axes of the exports, the camera with the film and the keypoints, and curves.

    Args:
        recording: rerun's RecordingStream.
        motions: of one clip, each with a frame at least.
        body: that they belong to. Of the open body the light mesh is shown.
        names: one a motion.
        film: what the camera saw.
        bodies: "mesh", 50 kB a frame of the open body, or "capsules", 3 kB.

    Raises:
        UsageError, ShapeError: motions of another body, or without a frame.
    """
    import rerun as rr

    shown = Body.open("light") if body.name == "open" else body
    people = characters(motions, shown, names=names)
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
    grid = rr.LineStrips3D(_grid(people, ground_height(motions, shown)), colors=[190, 190, 190], radii=0.003)
    recording.log("world/ground" if on_ground(motions) else "world/grid", grid, static=True)
    _log_camera(rr, recording, motions, shown)
    if film is not None:
        _log_film(rr, recording, *film)
    for number, (motion, person) in enumerate(zip(motions, people, strict=True)):
        colour = person_colour(number)
        _log_body(rr, recording, person, colour, bodies)
        _log_keypoints(rr, recording, motion, person, colour)
        _log_curves(rr, recording, motion, person, colour)


def _recording(rr: Any, title: str) -> Any:
    recording = rr.RecordingStream("kinflow")  # an identity of its own: viewers join recordings of one
    recording.set_log_time_enabled(False)
    recording.set_log_tick_enabled(False)
    recording.send_recording_name(title)
    return recording


def _blueprint(motions: Sequence[Motion], body: Body) -> Any:
    """What the viewer shows where, and from where it looks at the people: as view.html does."""
    import rerun.blueprint as rrb

    def curves(name: str, origin: str, **more: Any) -> Any:
        return rrb.TimeSeriesView(name=name, origin=origin, **more)

    at = []
    for motion in motions:
        turn, shift = file_axes(motion, body)
        at.append(np.einsum("tij,tj->ti", turn, motion.joints3d[:, 0]) + shift)
    low, high = np.concatenate(at).min(0), np.concatenate(at).max(0)
    middle, distance = (low + high) / 2, min(60.0, 3.2 + 0.95 * float(np.linalg.norm(high - low)))
    towards = file_axes(motions[0], body)[1][0] - middle  # the camera
    yaw = float(np.arctan2(towards[0], towards[2])) + EYE_YAW
    away = np.array([np.sin(yaw) * np.cos(EYE_PITCH), np.sin(EYE_PITCH), np.cos(yaw) * np.cos(EYE_PITCH)])
    eye = rrb.EyeControls3D(position=middle + distance * away, look_target=middle, eye_up=[0.0, 1.0, 0.0])
    share = rrb.ScalarAxis(range=(0.0, 1.0))

    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Vertical(
                rrb.Spatial3DView(
                    name="people", origin="world", background=[247, 247, 247], line_grid=False, eye_controls=eye
                ),
                rrb.Spatial2DView(name="camera", origin="world/camera/image"),
            ),
            rrb.Vertical(
                curves("uncertainty, cm", "plots/uncertainty"),
                curves("plausibility", "plots/plausibility", axis_y=share),
                curves("height of feet, m", "plots/feet"),
                curves("contacts", "plots/contacts", axis_y=share),
            ),
            column_shares=[3, 2],
        ),
        rrb.TimePanel(timeline=TIMELINE, play_state="playing", loop_mode="all"),
        collapse_panels=True,
    )


def _grid(people: Sequence[Character], height: float) -> list[list[list[float]]]:
    """Lines a metre apart, below the people and the camera."""
    at = np.concatenate([np.zeros((1, 3)), *[p.pelvis for p in people]])[:, [0, 2]]
    (left, back), (right, front) = np.floor(at.min(0)) - GRID_M, np.ceil(at.max(0)) + GRID_M
    across = [[[x, height, back], [x, height, front]] for x in np.arange(left, right + 1)]
    return across + [[[left, height, z], [right, height, z]] for z in np.arange(back, front + 1)]


def _log_camera(rr: Any, recording: Any, motions: Sequence[Motion], body: Body) -> None:
    """The pinhole, where it stands at each time, and the path that it took."""
    rows: dict[float, tuple[Array, Array]] = {}
    for motion in motions:
        for time, turn, place in zip(motion.timestamps, *file_axes(motion, body), strict=True):
            rows.setdefault(round(float(time), 6), (turn, place))
    times = sorted(rows)
    turns, places = np.stack([rows[t][0] for t in times]), np.stack([rows[t][1] for t in times])
    still = np.abs(places - places[0]).max() < 1e-4 and np.abs(turns - turns[0]).max() < 1e-4
    width, height = motions[0].image_size.tolist()
    recording.log(
        "world/camera/image",
        rr.Pinhole(
            image_from_camera=motions[0].K, resolution=[width, height], camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=0.5,
        ),
        static=True,
    )  # fmt: skip
    if still:
        recording.log("world/camera", rr.Transform3D(translation=places[0], mat3x3=turns[0]), static=True)
        return
    quat_xyzw = np.roll(rotmat_to_quat_wxyz(torch.from_numpy(turns)).numpy(), -1, -1)
    recording.send_columns(
        "world/camera", _clock(rr, times), rr.Transform3D.columns(translation=places, quaternion=quat_xyzw)
    )
    recording.log("world/camera_path", rr.LineStrips3D([places], colors=[90, 90, 90]), static=True)


def _log_film(rr: Any, recording: Any, path: Path, begin: float) -> None:
    film = rr.AssetVideo(path=path)
    recording.log("world/camera/image/film", film, static=True)
    stamps = film.read_frame_timestamps_nanos()
    recording.send_columns(
        "world/camera/image/film", _clock(rr, begin + stamps * 1e-9), rr.VideoFrameReference.columns_nanos(stamps)
    )


def _log_body(rr: Any, recording: Any, person: Character, colour: tuple[int, int, int], bodies: Bodies) -> None:
    root = f"world/people/{rr.escape_entity_path_part(person.name)}"
    bones = [(child, parent) for child, parent in enumerate(SMPL_PARENTS) if parent >= 0]
    radii = _radii(person, bones) if bodies == "capsules" else None
    joints = person.joints()
    if bodies == "mesh":  # said once: it would be half of each frame
        faces = rr.Mesh3D.from_fields(triangle_indices=person.body.faces.cpu().numpy())
        recording.log(f"{root}/body", faces, static=True)
    for start in range(0, len(person), _PIECE):
        rows = slice(start, start + _PIECE)
        vertices = _vertices(person, rows) if bodies == "mesh" else None
        for i, time in enumerate(person.timestamps[rows]):
            recording.set_time(TIMELINE, duration=float(time))
            at = joints[start + i]
            # Filled in, not seen: paler.
            tint = [*colour, 255] if person.observed[start + i] else [*[(c + 2 * 255) // 3 for c in colour], 255]
            if vertices is not None:
                normals = _normals(vertices[i], person.body)
                mesh = rr.Mesh3D.from_fields(vertex_positions=vertices[i], vertex_normals=normals, albedo_factor=tint)
                recording.log(f"{root}/body", mesh)
            else:
                recording.log(f"{root}/body", _capsules(rr, at, bones, radii, tint))
            recording.log(f"{root}/joints", rr.Points3D(at, radii=0.012, colors=tint))
    recording.set_time(TIMELINE, duration=float(person.timestamps[-1]) + 1 / person.fps)
    recording.log(root, rr.Clear(recursive=True))


def _vertices(person: Character, rows: slice) -> Array:
    body = person.body
    betas = torch.tensor(person.betas, dtype=body.dtype, device=body.device)
    pose, transl = (torch.from_numpy(v[rows]).to(body.device, body.dtype) for v in (person.pose_rotmat, person.transl))
    with torch.no_grad():
        return body.vertices(betas, pose, transl).cpu().numpy()


def _normals(vertices: Array, body: Body) -> Array:
    from ..body.surface import vertex_normals

    return vertex_normals(torch.from_numpy(vertices), body.faces.cpu()).numpy()


def _radii(person: Character, bones: Sequence[tuple[int, int]]) -> Array:
    """Of a capsule for each bone (23,) m: how far the skin that moves with its upper joint is from it, in the middle."""
    rest, vertices = person.rest_joints, person.rest_vertices()
    owner = person.body.weights.detach().cpu().numpy().argmax(1)
    radii = []
    for child, parent in bones:
        along = rest[child] - rest[parent]
        points = vertices[owner == parent] - rest[parent]
        share = (points @ along / max(float(along @ along), 1e-9)).clip(0, 1)
        far = np.linalg.norm(points - share[:, None] * along, axis=-1)
        radii.append(float(np.median(far)) if len(far) else 0.03)
    return np.clip(radii, 0.02, 0.12)


def _capsules(rr: Any, joints: Array, bones: Sequence[tuple[int, int]], radii: Array | None, tint: list[int]) -> Any:
    """Rerun's capsules stand on their first end and reach along z."""
    starts = joints[[parent for _, parent in bones]]
    along = joints[[child for child, _ in bones]] - starts
    lengths = np.linalg.norm(along, axis=-1)
    unit = along / np.maximum(lengths, 1e-9)[:, None]
    # The shortest turn from z to u has the quaternion (z x u, 1 + z . u).
    quat = np.stack((-unit[:, 1], unit[:, 0], 0 * lengths, 1 + unit[:, 2]), -1)
    quat[unit[:, 2] < -1 + 1e-6] = (1.0, 0.0, 0.0, 0.0)
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    return rr.Capsules3D(
        lengths=lengths, radii=radii, translations=starts, quaternions=quat, colors=[tint] * len(bones),
        fill_mode="solid",
    )  # fmt: skip


def _log_keypoints(rr: Any, recording: Any, motion: Motion, person: Character, colour: tuple[int, int, int]) -> None:
    path = f"world/camera/image/keypoints/{rr.escape_entity_path_part(person.name)}"
    for row, time in enumerate(motion.timestamps):
        recording.set_time(TIMELINE, duration=float(time))
        seen = (motion.confidence[row] >= CONFIDENT) & motion.observed[row]
        recording.log(path, rr.Points2D(motion.keypoints2d[row][seen], radii=-3.0, colors=colour))
    recording.set_time(TIMELINE, duration=float(motion.timestamps[-1]) + 1 / person.fps)
    recording.log(path, rr.Clear(recursive=True))


def _log_curves(rr: Any, recording: Any, motion: Motion, person: Character, colour: tuple[int, int, int]) -> None:
    heights = {f"{side} foot": person.joints()[:, joint, 1] for side, joint in FEET.items()}
    curves = {
        "uncertainty": {"": 100 * motion.joints3d_std[:, 1:].mean(-1)},
        "confidence": {"": motion.confidence[:, sorted(BLAZEPOSE_TO_SMPL)].mean(-1)},
        "plausibility": {"": usualness(motion.z)},
        "feet": heights,
        "contacts": {name: motion.contacts[:, i] for i, name in enumerate(CONTACTS)},
    }
    name = rr.escape_entity_path_part(person.name)
    for plot, lines in curves.items():
        for shade, (line, values) in zip(_SHADES, lines.items(), strict=False):
            path = f"plots/{plot}/{name}" + (f"/{rr.escape_entity_path_part(line)}" if line else "")
            style = rr.SeriesLines(colors=[round(c * shade) for c in colour], names=f"{person.name} {line}".strip())
            recording.log(path, style, static=True)
            recording.send_columns(
                path, _clock(rr, motion.timestamps), rr.Scalars.columns(scalars=np.asarray(values, np.float64))
            )


def _clock(rr: Any, times: Any) -> list[Any]:
    return [rr.TimeColumn(TIMELINE, duration=np.asarray(times, np.float64))]
