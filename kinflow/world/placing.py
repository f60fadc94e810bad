"""Out of the camera: people on the ground, in one world for all of a clip."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..body import Body
from ..clip import Clip
from ..errors import ShapeError, UsageError, check_type
from ..motion import Motion
from ..rotations import rotmat_to_rotvec, rotvec_to_rotmat
from ..skeleton import NUM_BODY
from .camera_files import CameraPath, read_camera_path
from .floor import along_floor
from .gravity import Ground, basis, find_ground
from .leaning import leaning, righted
from .legs import bend, posed, with_legs
from .person import Person, pieces
from .steps import carried, moved_to, scaled
from .trajectory import solve_path
from .verticals import Lines

log = logging.getLogger(__name__)

Array = NDArray[Any]

PASSES = 3
"""Rounds of a path, then of legs bent to it."""
FLOOR_TOLD = 0.8
"""Share of the steps of a camera that the ground before it is to tell, or people's feet are asked."""
SHORT_S = 0.25
"""Less of people than this in all is no motion, and its ground a guess."""

CameraMotion = str | os.PathLike[str]
"""``"auto"``, ``"static"``, ``"moving"``, or a file of camera poses."""


@dataclasses.dataclass(frozen=True)
class World:
    """Where a clip's camera stands: gravity-aligned axes, x to the first camera's right, y up, z towards it, metres.

    The origin is on the ground below the first frame's camera, which so looks along -z.

    Attributes:
        frame_ids: (N,) of the clip's frames.
        T_world2cam: (N, 4, 4).
        camera: how its motion was told: ``static``, ``moving``, or the file's layout.
        up_from: ``people``, ``given``, ``file``, or ``assumed`` where nothing told it.
        up_std_deg: standard deviation of up, degrees; None where it is assumed.
        height: of the first frame's camera over the ground, m; height_std: its standard deviation. None: no ground.
        scale: metres a unit of the camera's path; None where it does not move or is in metres.
        scales: one a person, by which its distance is off as seen from the ground.
        notes: what a user should know, a line each.
    """

    frame_ids: NDArray[np.int64]
    T_world2cam: Array
    camera: str
    up_from: str
    up_std_deg: float | None
    height: float | None
    height_std: float | None
    scale: float | None
    scales: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What run.json says of it."""

        def rounded(value: float | None) -> float | None:
            return None if value is None else round(float(value), 3)

        up = self.T_world2cam[0, :3, 1]
        return {
            "camera": self.camera,
            "up_from": self.up_from,
            "up": [round(float(v), 4) for v in up],
            "up_std_deg": rounded(self.up_std_deg),
            "camera_height_m": rounded(self.height),
            "camera_height_std_m": rounded(self.height_std),
            "path_scale": rounded(self.scale),
            "notes": list(self.notes),
        }


def place(
    motions: Sequence[Motion],
    clip: Clip | None = None,
    *,
    camera: CameraMotion = "auto",
    up: Sequence[float] | None = None,
    body: Body | None = None,
) -> list[Motion]:
    """Put people into the world: the same motions with their fields of the world filled in.

    Args:
        motions: of one clip.
        clip: it; needed where the camera may move. Without one it is static.
        camera: ``"auto"``, ``"static"``, ``"moving"``, or a file of camera poses (:func:`~kinflow.world.camera_files.read_camera_path`).
        up: which way is up in the first frame's camera axes, where that is known: (3,).
        body: that the motions belong to; the open one by default.

    Raises:
        UsageError: nobody, motions of several bodies, or an ``up`` that is no direction.
        FormatError: a camera file that does not belong to the clip, or is none.
        MissingAssetError: no such file, or a moving camera where OpenCV is not installed.

    >>> people = place(kinflow.reconstruct("clip.mp4"), kinflow.Clip.open("clip.mp4"))  # doctest: +SKIP
    >>> people[0].transl_world.shape  # doctest: +SKIP
    (210, 3)
    """
    return stand(motions, locate(motions, clip, camera=camera, up=up, body=body), body=body)


# -- the camera -----------------------------------------------------------------------------------------------------------


def locate(
    motions: Sequence[Motion],
    clip: Clip | None = None,
    *,
    camera: CameraMotion = "auto",
    up: Sequence[float] | None = None,
    body: Body | None = None,
) -> World:
    """Where the camera is in the world; arguments and errors as of :func:`place`."""
    body = _body(motions, body)
    given = None if up is None else direction(up)
    ids = _frame_ids(motions, clip)
    lines = None if clip is None else Lines(clip.K.double().numpy(), clip.timestamps)
    path = _camera_path(camera, motions, clip, len(ids), lines)
    held = torch.from_numpy(path.T_ref2cam[0, :3, :3].copy())
    upright = None if lines is None else lines.segments(path.T_ref2cam)
    notes = list(path.notes)
    people = [(Person.sampled if path.metric else Person.of)(m, body) for m in motions]
    known = None
    if given is not None:
        known = torch.from_numpy(path.T_ref2cam[0, :3, :3].T @ given)
    elif path.up is not None:
        known = torch.from_numpy(path.up)
    scale = None
    if not path.metric:
        path, scale, told = _in_metres(path, people, ids, known)
        notes += told
    seconds = sum(p.observed_s for p in people)
    found: Ground | None = None
    if seconds >= SHORT_S or known is not None or any(int(p.observed.sum()) for p in people):
        found = find_ground([p.sighted(path, ids) for p in people], known, upright, held)
    ones = (1.0,) * len(people)
    if found is None:
        found = Ground(torch.from_numpy(-path.T_ref2cam[0, 1, :3]), None, 0.0, None, ones, 0.0)
        source, std = "assumed", None
        notes.append("nobody's pose tells which way is up: the camera is taken as level; --up says better")
    else:
        source = "people" if known is None else ("file" if given is None else "given")
        std = found.up_std_deg if known is None else None
        if seconds < SHORT_S:
            notes.append(f"{seconds:.2f} s of people tell gravity and ground by their poses alone, roughly")
    if found.offset is None:
        notes.append(
            f"no ground was found: feet that stand are seen in {100 * found.share:.0f} % of the frames; heights are relative"
        )
    for note in notes:
        log.warning("world: %s", note)
    return _world(path, found, ids, source, std, scale, notes, people)


def _world(
    path: CameraPath, found: Ground, ids: NDArray[np.int64], source: str, std: float | None, scale: float | None,
    notes: Sequence[str], people: Sequence[Person],
) -> World:  # fmt: skip
    """Axes and origin of the world, from up and ground in the reference's axes."""
    first = path.T_ref2cam[0]
    y = found.up.numpy()
    z = -first[2, :3]  # backwards, as the first camera looks
    z = z - (z @ y) * y
    if np.linalg.norm(z) < 0.05:  # it looks straight up or down: what is upwards in the image is forwards
        z = first[1, :3] * np.sign(first[2, :3] @ y) * -1
        z = z - (z @ y) * y
    z = z / np.linalg.norm(z)
    centre = -first[:3, :3].T @ first[:3, 3]
    offset = found.offset
    if offset is None:  # heights from the lowest soles on, so that viewers have something to stand on
        lows = torch.cat([(p.world_soles(path, ids) @ found.up).amin((1, 2)) for p in people])
        offset = -float(lows.quantile(0.05))
    height = float(centre @ y) + offset
    T_ref2world = np.eye(4)
    T_ref2world[:3, :3] = np.stack((np.cross(y, z), y, z))
    T_ref2world[:3, 3] = -T_ref2world[:3, :3] @ (centre - height * y)
    known = found.offset is not None
    return World(
        ids, path.T_ref2cam @ np.linalg.inv(T_ref2world), path.source, source, std, height if known else None,
        found.offset_std if known else None, scale, found.scales, tuple(notes),
    )  # fmt: skip


def _in_metres(
    path: CameraPath, people: Sequence[Person], ids: NDArray[np.int64], known: Tensor | None
) -> tuple[CameraPath, float | None, tuple[str, ...]]:
    """A path whose places are not known, or in unknown units, in metres; its scale; and what to tell of it."""
    sightings = [p.sighted(path, ids) for p in people]
    unplaced = not path.T_ref2cam[:, :3, 3].any()
    if not unplaced:  # in unknown units: no plane before there are metres
        sightings = [dataclasses.replace(s, feet=torch.zeros_like(s.feet)) for s in sightings]
    # Without places everything is about the camera, and the ground is that far below it, as long as it is carried level.
    found = find_ground(sightings, known, camera=torch.from_numpy(path.T_ref2cam[0, :3, :3].copy()))
    up = found.up if found is not None else torch.from_numpy(-path.T_ref2cam[0, 1, :3])
    x, _ = basis(up)
    to_y_up = torch.stack((x, up, torch.linalg.cross(x, up)))
    stepping = [p.stepping(path, ids, to_y_up) for p in people]
    if unplaced and found is not None and found.offset is not None and path.corners:
        places, turns, told = along_floor(path.corners, path.T_ref2cam[:, :3, :3], up.numpy(), found.offset)
        if told >= FLOOR_TOLD:
            poses = path.T_ref2cam.copy()
            poses[:, :3, :3] = turns
            return moved_to(dataclasses.replace(path, T_ref2cam=poses), torch.from_numpy(places)), None, ()
    if unplaced:
        return carried(path, stepping, to_y_up), None, ()
    path, scale = scaled(path, stepping, to_y_up)
    if scale is None:
        return path, None, ("nobody's feet tell the scale of the camera's path: it is taken as metres",)
    return path, scale, ()


def _camera_path(
    camera: CameraMotion, motions: Sequence[Motion], clip: Clip | None, frames: int, lines: Lines | None
) -> CameraPath:
    from .moving import look_for_lines, watch_background

    if clip is not None and lines is not None and camera not in ("auto", "moving"):
        look_for_lines(clip, motions, lines)
    if camera == "static" or (camera == "auto" and clip is None):
        return CameraPath.static(frames)
    if camera in ("auto", "moving"):
        if clip is None:
            raise UsageError("camera: expected the clip whose camera moves, got none. Give it, or camera='static'.")
        return watch_background(clip, motions, asked=camera == "moving", lines=lines)
    return read_camera_path(camera, frames)


# -- the people -----------------------------------------------------------------------------------------------------------


def stand(motions: Sequence[Motion], world: World, *, body: Body | None = None) -> list[Motion]:
    """Solve everybody's path in a world: the motions with their fields of the world filled in.

    Raises:
        ShapeError: frames that the world does not have.
    """
    return list(standing(motions, world, body=body))


def standing(motions: Sequence[Motion], world: World, *, body: Body | None = None) -> Iterator[Motion]:
    """:func:`stand`, person by person, for those who let go of a motion once they have it."""
    body = _body(motions, body)
    for motion, scale in zip(motions, world.scales, strict=True):
        yield _stood(motion, Person.of(motion, body), world, scale)


def _stood(motion: Motion, person: Person, world: World, scale: float) -> Motion:
    at = np.searchsorted(world.frame_ids, person.frame_ids).clip(max=len(world.frame_ids) - 1)
    if not np.array_equal(world.frame_ids[at], person.frame_ids):
        raise ShapeError("motions: frames that the clip of this world does not have. Place them with their own clip.")
    cameras = torch.from_numpy(world.T_world2cam[at])
    if world.up_from != "assumed":
        up = cameras[:, :3, 1].contiguous()
        person = righted(person, leaning(person, up, world.up_std_deg or 0.0), up)
        motion = person.motion
    turn = cameras[:, :3, :3].mT
    centres = -(turn @ cameras[:, :3, 3:])[..., 0]
    seen = (turn @ (scale * person.pelvis)[..., None])[..., 0] + centres
    rays, depth = torch.nn.functional.normalize(seen - centres, dim=-1), scale * person.pelvis.norm(dim=-1)
    certainty = torch.tensor(np.where(person.observed, 1.0, 0.1))
    limbs, ground = person.limbs(turn, seen), world.height is not None
    # Told by speeds before the camera: they say nothing where it moves itself.
    still = np.ptp(world.T_world2cam, axis=0).max() < 1e-6
    contacts = torch.tensor(motion.contacts).double() if still else None
    bent = limbs.rotmat
    for _ in range(PASSES):  # the path is the legs', the legs' bends are the path's
        soles = posed(limbs._replace(rotmat=bent)).soles - seen[:, None, None]
        solved = solve_path(
            seen, rays, depth, soles, person.timestamps, certainty=certainty, contacts=contacts, ground=ground
        )
        bent = bend(
            limbs._replace(pelvis=solved.pelvis), seen, rays, solved.contacts, person.timestamps, begin=bent,
            certainty=certainty, ground=ground,
        )  # fmt: skip
    root = rotmat_to_rotvec(turn @ rotvec_to_rotmat(torch.tensor(motion.global_orient, dtype=torch.float64)))
    placed = world.height is not None
    std = np.array([np.deg2rad(world.up_std_deg or 0.0), world.height_std or 0.0], np.float32)
    return dataclasses.replace(
        motion,
        global_orient_world=root.numpy(),
        transl_world=(solved.pelvis - person.rest_pelvis).numpy(),
        body_pose_world=_bent(motion, bent),
        T_world2cam=cameras.numpy(),
        ground=np.array([0.0, 1.0, 0.0, 0.0]) if placed else None,
        ground_std=std if placed and world.up_std_deg is not None else None,
        contacts=solved.contacts.numpy(),
    )


def _bent(motion: Motion, legs: Tensor) -> Array:
    """The motion's ``body_pose`` with hips, knees and ankles (T, 2, 3, 3, 3)."""
    body_pose = motion.body_pose.copy()
    for rows in pieces(motion):
        turned = with_legs(motion.pose_rotmat(rows)[:, 1 : 1 + NUM_BODY].double(), legs[rows])
        body_pose[rows, :NUM_BODY] = rotmat_to_rotvec(turned).numpy()
    return body_pose


# -- checks ---------------------------------------------------------------------------------------------------------------


def _body(motions: Sequence[Motion], body: Body | None) -> Body:
    if not motions:
        raise UsageError("motions: expected at least one person, got none.")
    for motion in motions:
        check_type("motions", motion, Motion)
        if not len(motion) or not motion.observed.any():
            raise ShapeError("motions: expected at least one observed frame of each person, got none. Leave it out.")
    if body is None:
        if any(m.body != "open" for m in motions):
            raise UsageError(f"body: the motions belong to {motions[0].body!r}. Pass body=Body.from_file(PATH).")
        return Body.open("light")
    check_type("body", body, Body)
    for motion in motions:
        if motion.body != body.name:
            raise UsageError(f"body: a motion belongs to {motion.body!r}, got {body.name!r}. Pass its own.")
    return body


def direction(up: Sequence[float]) -> Array:
    """A unit vector (3,) of three numbers. Raises UsageError: they are none, or all zero."""
    try:
        value = np.asarray(up, np.float64)
    except (TypeError, ValueError):
        value = np.empty(0)
    if value.shape != (3,) or not np.isfinite(value).all() or np.linalg.norm(value) < 1e-6:
        raise UsageError(f"up: expected a direction X,Y,Z in camera axes (a level camera's is 0,-1,0), got {up!r}.")
    return value / np.linalg.norm(value)


def _frame_ids(motions: Sequence[Motion], clip: Clip | None) -> NDArray[np.int64]:
    if clip is not None:
        return clip.frame_ids
    return np.unique(np.concatenate([m.frame_ids for m in motions]))
