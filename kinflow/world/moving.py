"""The path of a camera that moves: its turns from the background, with people masked out, its steps from people's feet.

Corners are followed from a key frame until too few are left (Lucas-Kanade, OpenCV). A camera that only turns (a pan, a
tripod, a zoom) moves them by a homography of its rotation, fitted robustly. Where that leaves parallax, the camera goes
somewhere: then its rotation comes from two views (essential matrix) and the points between them, and its steps from the
people: a foot that stands does not move, so that what it seems to move is the camera's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clip import Clip
from ..errors import MissingAssetError
from ..motion import Motion
from ..rotations import exp_so3, log_so3
from .camera_files import CameraPath
from .verticals import Lines

log = logging.getLogger(__name__)

Array = NDArray[Any]

LONGER_SIDE = 640
"""Px that frames are looked at in."""
CORNERS = 300
LEFT = 0.55
"""A key frame serves until less than this share of its corners is left, or for so many frames:"""
LONGEST = 30
FEWEST = 24
"""Corners below which a background tells nothing."""
PARALLAX = 0.8
"""Px of :data:`LONGER_SIDE`: median miss of a pure rotation over a key frame's span from which the camera is taken to go
somewhere; ZOOMED: so does one whose picture grows or shrinks by more, for going forwards does so too. Feet that stand then tell
that a lens that zooms goes nowhere."""
ZOOMED = 0.02
TWO_VIEWS = 4.0
"""Px: parallax that two views need to tell rotation better than a pure rotation does, whose error is of its size."""
STILL_DEG = 0.25
"""A camera that never turns by more, and shows no parallax, stands still."""
GLANCE_S = 0.25
"""Frames so far apart are enough to see that a camera stands still, where all that could be motion is below CLEARLY of what is."""
CLEARLY = 0.5
BEYOND = 0.12
"""Boxes are masked with so much of their size around them."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Corners followed from a key frame on: ``points (n, P, 2)`` px in its n frames, of those that were never lost."""

    points: Array


@dataclasses.dataclass(frozen=True)
class Turned:
    """How a camera turned over a window: ``rotmat (n, 3, 3)`` first frame's axes to each frame's; ``zoom (n,)``; mean miss of a
    pure rotation at the end, px of :data:`LONGER_SIDE`."""

    rotmat: Array
    zoom: Array
    miss: float


def watch_background(clip: Clip, motions: Sequence[Motion], *, asked: bool, lines: Lines | None = None) -> CameraPath:
    """The camera's path in its first frame's axes, told from the frames of a clip.

    Args:
        motions: whose boxes are masked out.
        asked: whether the user says that it moves; otherwise it may turn out to stand still.
        lines: collects what of the frames runs straight, on the way.

    Returns:
        A path; its places are zero for a camera that only turns. ``metric`` is False, with the places all zero, for one that goes
        somewhere: ``kinflow.world.steps`` finds its steps.

    Raises:
        MissingAssetError: OpenCV is not installed, and was asked for.
    """
    frames = len(clip.frame_ids)
    if importlib.util.find_spec("cv2") is None:
        if asked:
            raise MissingAssetError(
                "camera moving: opencv is not installed. Run python -m pip install 'kinflow[world]', or give --camera static or a "
                "file of camera poses."
            )
        return CameraPath.static(frames, ("camera taken as static: to tell, install kinflow[world] (OpenCV)",))
    K = clip.K.double().numpy()
    if not asked and _clearly_still(clip, motions, K, lines):
        return CameraPath.static(frames)
    rotmat = np.tile(np.eye(3), (frames, 1, 1))
    misses, zooms, blind, corners, at = [], [], 0, [], 0
    for window in follow(clip, motions, lines):
        count = len(window.points)
        onward = slice(at + 1, at + count)
        corners.append(_rays(window.points, K))
        if window.points.shape[1] < FEWEST:
            blind += count - 1
            rotmat[onward] = rotmat[at]
        else:
            turned = turn_of(window, K, max(clip.image_size))
            rotmat[onward] = turned.rotmat[1:] @ rotmat[at]
            misses.append(turned.miss)
            zooms.append(np.abs(np.log(turned.zoom)).max())
        at += count - 1
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = rotmat
    notes = []
    if blind > 0.2 * max(1, frames - 1):
        notes.append(
            f"the background shows too few corners in {blind} of {frames} frames to tell how the camera turns; there it is taken "
            "as still. Give --camera a file of its poses"
        )
    grown = max(zooms, default=0.0)
    goes = bool(misses) and (float(np.median(misses)) > PARALLAX or grown > ZOOMED)
    angle = float(np.degrees(np.linalg.norm(log_so3(rotmat), axis=-1)).max())
    if not goes and angle < STILL_DEG and not asked:
        return CameraPath.static(frames, tuple(notes))
    return CameraPath(poses, "moving", metric=not goes, notes=tuple(notes), corners=tuple(corners) if goes else ())


def _clearly_still(clip: Clip, motions: Sequence[Motion], K: Array, lines: Lines | None) -> bool:
    """Whether a few frames a second leave no doubt that the camera stands still; ``lines`` see what they would of all."""
    turn, misses = np.eye(3), []
    for window in follow(clip, motions, lines, GLANCE_S):
        if window.points.shape[1] < FEWEST:
            return False
        turned = turn_of(window, K, max(clip.image_size))
        misses.append(turned.miss)
        angles = np.degrees(np.linalg.norm(log_so3(turned.rotmat @ turn), axis=-1))
        turn = turned.rotmat[-1] @ turn
        grown = np.abs(np.log(turned.zoom)).max()
        if angles.max() > CLEARLY * STILL_DEG or turned.miss > CLEARLY * PARALLAX or grown > CLEARLY * ZOOMED:
            return False
    return bool(misses)


def _rays(points: Array, K: Array) -> Array:
    """Unit rays (..., 3) to points (..., 2) px."""
    rays = np.concatenate(((points - K[:2, 2]) / np.array([K[0, 0], K[1, 1]]), np.ones((*points.shape[:-1], 1))), -1)
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def _opencv() -> Any:
    """The library, whose own annotations name arrays of its own kind."""
    import cv2

    return cv2


# -- corners --------------------------------------------------------------------------------------------------------------


def look_for_lines(clip: Clip, motions: Sequence[Motion], lines: Lines) -> None:
    """Let ``lines`` see the background where nobody asks how it moves; nothing without OpenCV."""
    if importlib.util.find_spec("cv2") is not None:
        for _ in _looked_at(clip, motions, lines):
            pass


def _looked_at(
    clip: Clip, motions: Sequence[Motion], lines: Lines | None, every_s: float = 0.0
) -> Iterator[tuple[Array, Array, float]]:
    """Frames ``every_s`` apart in grey and small, 255 where they are background, and by what they were shrunk."""
    cv2 = _opencv()

    shrink = min(1.0, LONGER_SIDE / max(clip.image_size))
    row, due = -1, -np.inf
    for batch in clip.batches(8):
        for image, time, frame_id in zip(batch.images, batch.timestamps, batch.frame_ids.tolist(), strict=True):
            row += 1
            wanted, ruled = time >= due, lines is not None and lines.due(row)
            if not wanted and not ruled:
                continue
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else grey
            mask = _mask(grey.shape, _boxes(motions, frame_id), shrink)
            if lines is not None and ruled:
                lines.look(row, grey, mask, shrink)
            if wanted:
                due = time + every_s
                yield grey, mask, shrink


def follow(clip: Clip, motions: Sequence[Motion], lines: Lines | None = None, every_s: float = 0.0) -> Iterator[Window]:
    """Yield windows over a clip's frames ``every_s`` apart: each begins with the last frame of the one before. Positions are px of
    the full frame."""
    before: Array | None = None
    track: list[Array] = []
    kept = np.empty((0, 2), np.float32)
    shrink = 1.0
    for grey, mask, shrink in _looked_at(clip, motions, lines, every_s):
        if before is None:
            kept = _corners(grey, mask)
            track = [kept]
        else:
            moved, alive = _flow(before, grey, kept)
            inside = mask[moved[:, 1].round().astype(int).clip(0, len(mask) - 1),
                          moved[:, 0].round().astype(int).clip(0, mask.shape[1] - 1)] > 0  # fmt: skip
            alive &= inside
            track = [points[alive] for points in (*track, moved)]
            kept = track[-1]
            if len(track) > LONGEST or len(kept) < LEFT * CORNERS * 0.5 or len(kept) < LEFT * len(alive):
                yield Window(np.stack(track).astype(np.float64) / shrink)
                kept = _corners(grey, mask)
                track = [kept]
        before = grey
    if len(track) > 1:
        yield Window(np.stack(track).astype(np.float64) / shrink)


def _boxes(motions: Sequence[Motion], frame_id: int) -> list[Array]:
    """Boxes px around those who are seen in a frame, and all their keypoints."""
    out = []
    for motion in motions:
        row = int(np.searchsorted(motion.frame_ids, frame_id))
        if row < len(motion) and motion.frame_ids[row] == frame_id and motion.observed[row]:
            box, points = motion.boxes_xyxy[row], motion.keypoints2d[row]
            out.append(np.concatenate((np.minimum(box[:2], points.min(0)), np.maximum(box[2:], points.max(0)))))
    return out


def _mask(shape: tuple[int, ...], boxes: Sequence[Array], shrink: float) -> NDArray[np.uint8]:
    """255 where there is background."""
    mask = np.full(shape, 255, np.uint8)
    for box in boxes:
        size = (box[2:] - box[:2]) * BEYOND
        x0, y0 = np.floor((box[:2] - size) * shrink).astype(int).clip(0)
        x1, y1 = np.ceil((box[2:] + size) * shrink).astype(int).clip(0)
        mask[y0:y1, x0:x1] = 0
    return mask


def _corners(grey: Array, mask: Array) -> Array:
    cv2 = _opencv()

    found = cv2.goodFeaturesToTrack(grey, CORNERS, 0.01, 7, mask=mask)
    return np.empty((0, 2), np.float32) if found is None else found.reshape(-1, 2).astype(np.float32)


def _flow(before: Array, now: Array, points: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Points followed into the next frame, and which of them come back to where they were when followed back."""
    cv2 = _opencv()

    if not len(points):
        return points, np.zeros(0, bool)
    options: dict[str, Any] = {"winSize": (21, 21), "maxLevel": 3}
    moved, there, _ = cv2.calcOpticalFlowPyrLK(before, now, points[:, None], None, **options)
    back, again, _ = cv2.calcOpticalFlowPyrLK(now, before, moved, None, **options)
    off = np.linalg.norm(back[:, 0] - points, axis=1)
    return moved[:, 0], (there[:, 0] > 0) & (again[:, 0] > 0) & (off < 0.7)


# -- rotations ------------------------------------------------------------------------------------------------------------


def turn_of(window: Window, K: Array, longer_side: int) -> Turned:
    """How the camera turned over a window: as a pure rotation, or, where that leaves parallax, from two views and between."""
    rays = (window.points - K[:2, 2]) / np.array([K[0, 0], K[1, 1]])
    px = np.sqrt(K[0, 0] * K[1, 1]) * min(1.0, LONGER_SIDE / longer_side)
    rotmat, zoom = [np.eye(3)], [1.0]
    miss = 0.0
    for now in rays[1:]:
        turn, factor, miss = fit_rotation(rays[0], now, rotmat[-1], zoom[-1], 1 / px)
        rotmat.append(turn)
        zoom.append(factor)
    turned = Turned(np.stack(rotmat), np.array(zoom), miss * px)
    if turned.miss <= TWO_VIEWS:
        return turned
    between = _two_views(rays, 1 / px)
    return turned if between is None else dataclasses.replace(turned, rotmat=between)


def fit_rotation(
    first: Array, now: Array, start: Array, zoom: float, pixel: float, iterations: int = 8
) -> tuple[Array, float, float]:
    """The rotation, and the change of focal length, that carry rays (P, 2) of one frame best onto another's.

    Gauss-Newton with Cauchy weights. Returns rotation (3, 3), zoom, and the median miss in the rays' unit.
    """
    homogeneous = np.concatenate((first, np.ones((len(first), 1))), 1)
    turn, miss = start, 0.0
    for _ in range(iterations):
        seen = homogeneous @ turn.T
        x, y = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
        off = zoom * np.stack((x, y), 1) - now
        size = np.linalg.norm(off, axis=1)
        miss = float(np.median(size))
        weight = 1 / (1 + (size / max(2 * miss, pixel)) ** 2)
        # A small turn w moves (X, Y, Z) by w x (X, Y, Z).
        zero = np.zeros_like(x)
        jacobian = np.stack(
            (
                np.stack((-x * y, 1 + x * x, -y, x / zoom + zero), 1) * zoom,
                np.stack((-(1 + y * y), x * y, x, y / zoom + zero), 1) * zoom,
            ),
            1,
        )
        normal = np.einsum("p,pki,pkj->ij", weight, jacobian, jacobian)
        normal += np.diag([0, 0, 0, 1e-3 * normal[3, 3] + 1e-12]) + 1e-12 * np.eye(4)
        step = np.linalg.solve(normal, -np.einsum("p,pki,pk->i", weight, jacobian, off))
        turn, zoom = exp_so3(step[:3]) @ turn, zoom + float(step[3])
        if np.abs(step).max() < 1e-8:
            break
    return turn, zoom, miss


def _two_views(rays: Array, pixel: float) -> Array | None:
    """Rotations (n, 3, 3) over a window whose camera goes somewhere; None where two views do not tell them.

    First and last frame give the essential matrix and points in space, those the frames between (PnP).
    """
    cv2 = _opencv()

    eye = np.eye(3)
    essential, inliers = cv2.findEssentialMat(rays[0], rays[-1], eye, cv2.RANSAC, 0.9999, pixel)
    if essential is None or essential.shape != (3, 3):
        return None
    count, turn, shift, mask = cv2.recoverPose(essential, rays[0], rays[-1], eye, mask=inliers)
    good = mask[:, 0] > 0
    if count < FEWEST or good.sum() < 0.4 * len(good):
        return None
    placed = cv2.triangulatePoints(np.eye(3, 4), np.hstack((turn, shift)), rays[0][good].T, rays[-1][good].T)
    points = (placed[:3] / placed[3]).T
    sound = np.isfinite(points).all(1) & (points[:, 2] > 0.5)
    points, seen = np.ascontiguousarray(points[sound]), rays[:, good][:, sound]
    if len(points) < FEWEST:
        return None
    out, end = [eye], log_so3(turn)
    for number in range(1, len(rays)):
        share = number / (len(rays) - 1)
        turned, moved = (share * end)[:, None].copy(), (share * shift).copy()
        ok, turned, moved = cv2.solvePnP(
            points,
            np.ascontiguousarray(seen[number]),
            eye,
            None,
            turned,
            moved,
            useExtrinsicGuess=True,
            flags=cv2.SOLVEPNP_ITERATIVE,
        )
        out.append(exp_so3(turned[:, 0]) if ok else exp_so3(share * end))
    return np.stack(out)
