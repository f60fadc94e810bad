"""Render and perceive: what the real front end makes of people whose 3D is known.

The open body is rendered in captured motion (random shape, clothes, light, background, camera), the perception networks
run on the frames as they would on a clip, and their output is kept with the exact parameters. A network trained on such
pairs learns the front end's true errors: its biases, its confusions of depth, and how they last over time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...body import Body
from ...cameras import Focal, intrinsics, project
from ...config import PerceptionConfig
from ...datasets.synthetic import background, random_look, render_frames
from ...datasets.wardrobe import Wardrobe
from ...errors import ShapeError
from ...evidence import Evidence
from ...mocap.clips import MotionClip
from ...perception import Perceiver
from ...rotations import mirror_rotmat, rotmat_to_rotvec, rotvec_to_rotmat
from ...skeleton import MIRROR_SMPL
from ..poses import exchange
from .perceived import EVIDENCE, SEEN, PerceivedClip


@dataclasses.dataclass(frozen=True)
class Scene:
    """Exact parameters of one clip to render (tensors); rotations are body to camera."""

    pose_rotmat: Tensor  # (T, 24, 3, 3)
    transl: Tensor  # (T, 3)
    betas: Tensor  # (10,)
    K: Tensor  # (3, 3)
    image_size: tuple[int, int]
    timestamps: np.ndarray  # (T,)
    source: str
    R_world2cam: Tensor  # (3, 3), the world's y up


RATES = (6, 8, 10, 12, 15, 15, 20, 24, 30, 30, 60)
"""Frames a second of rendered clips: mostly low, for successive frames that differ teach more."""
VIDEO_RATES = (10, 15, 20, 24, 30, 30, 30, 60)
EXCHANGED = 0.35
"""Share of clips with the upper body of one motion on the legs of another."""
LYING = 0.06
"""Share of clips seen by a camera of any roll: people who lie, hang and tumble."""
PHOTOGRAPHED = 0.75
"""Share of dressed clips before a photograph."""
HIDDEN = 0.2
"""Share of dressed clips in which something stands before a part of the person."""


def draw_stretch(
    clips: Sequence[MotionClip], rng: np.random.Generator, frames: int, fps: float
) -> tuple[MotionClip, Tensor, Tensor, int] | None:
    """A stretch of valid frames at about a rate, mirrored at times; None where the one drawn is too short or broken.

    Returns:
        The clip, its rotations (T, 24, 3, 3) and path (T, 3) m in the world, and the step between its frames.
    """
    clip = clips[int(rng.choice(len(clips), p=_shares(clips)))]
    step = max(1, round(clip.fps / fps))
    if len(clip) < (frames - 1) * step + 1:
        step = max(1, (len(clip) - 1) // (frames - 1))
    span = (frames - 1) * step + 1
    if len(clip) < span:
        return None
    at = int(rng.integers(len(clip) - span + 1))
    rows = slice(at, at + span, step)
    if not clip.valid[at : at + span].all():
        return None
    rotvec = torch.from_numpy(np.concatenate((clip.global_orient[rows, None], clip.body_pose[rows]), 1))
    pose, path = rotvec_to_rotmat(rotvec), torch.from_numpy(clip.transl[rows])
    if rng.random() < 0.5:
        pose, path = mirror_rotmat(pose)[:, list(MIRROR_SMPL)], path * torch.tensor([-1.0, 1, 1])
    return clip, pose, path, step


def draw_scene(
    clips: Sequence[MotionClip],
    body: Body,
    rng: np.random.Generator,
    frames: int,
    varied: bool = True,
    fps: float | None = None,
) -> Scene | None:
    """Draw a stretch of motion, a body and a camera that sees it; None when the stretch drawn has invalid frames.

    Args:
        varied: as training has it; otherwise motion as captured, at rates of video, and no camera of any roll.
        fps: about the rate of the frames; None draws one.
    """
    fps = float(rng.choice(RATES if varied else VIDEO_RATES)) if fps is None else fps
    drawn = draw_stretch(clips, rng, frames, fps)
    if drawn is None:
        return None
    clip, pose, path, step = drawn
    if varied and rng.random() < EXCHANGED:  # somebody else's arms and trunk on these legs
        other = draw_stretch(clips, rng, frames, fps)
        if other is not None:
            pose[:, 1:22] = exchange(other[1][:, 1:22], pose[:, 1:22])
    betas = torch.from_numpy(rng.normal(size=10).astype(np.float32) * rng.uniform(0.3, 1.2))

    # A camera around the middle of the path: any side, mostly about level, sometimes high, low or rolled.
    width, height = (int(v) for v in rng.choice([[320, 320], [384, 288], [288, 384], [426, 240]]))
    K = intrinsics(
        (width, height), Focal(float(np.hypot(width, height) * np.exp(rng.uniform(np.log(0.6), np.log(2.2)))))
    )
    roll = rng.uniform(-np.pi, np.pi) if varied and rng.random() < LYING else rng.normal(0, 0.22)
    turn = _rotation(2, roll) @ _rotation(0, np.clip(rng.normal(0.15, 0.35), -0.8, 1.3)) @ _rotation(
        1, rng.uniform(-np.pi, np.pi)
    )  # fmt: skip
    to_camera = _rotation(0, np.pi) @ turn  # world (y up) -> camera (y down, z forward)
    relative = path - path.mean(0)
    pose = torch.cat((to_camera @ pose[:, :1], pose[:, 1:]), 1)
    moved = relative @ to_camera.T
    joints = body.joints(betas[None], pose, None)
    joints = joints - joints[:, :1] + moved[:, None]
    fill = rng.uniform(0.45, 1.05)  # how much of the frame the motion takes; above 1 it leaves it
    offset = torch.from_numpy(rng.uniform(-0.2, 0.2, 2).astype(np.float32)) * torch.tensor([width, height]) / K[0, 0]
    for distance in np.geomspace(0.8, 40, 60):
        centre = torch.cat((offset * distance, torch.tensor([float(distance)])))
        if float((joints + centre)[..., 2].min()) < 0.4:
            continue
        pixels = project(joints + centre, K)
        reach = (pixels.amax((0, 1)) - pixels.amin((0, 1))) / torch.tensor([width, height])
        if float(reach.max()) <= fill:
            break
    transl = moved + centre - body.joints(betas[None], pose, None)[:, 0]
    return Scene(pose, transl, betas, K, (width, height), np.arange(frames) * step / clip.fps, clip.name, to_camera)


def film_scene(
    scene: Scene, bodies: tuple[Body, Body], rng: np.random.Generator, wardrobe: Wardrobe | None = None
) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of a scene.

    Args:
        bodies: the light and the full open body.
        wardrobe: dresses the full body and gives photographs to stand before; without one the light body is painted
            vertex by vertex and stands before drawn backgrounds.
    """
    light, full = bodies
    identity, betas = torch.eye(3).expand(1, 24, 3, 3), scene.betas[None]
    rest = light.vertices(betas, identity, None)[0].numpy()
    landmarks = light.landmarks(betas, identity, None)[0].numpy()
    look = random_look(scene.image_size, light.part_labels.numpy(), rest, rng, landmarks)
    if wardrobe is None:
        vertices = light.vertices(betas, scene.pose_rotmat, scene.transl)
        return render_frames(vertices, light.faces, scene.K, scene.image_size, look)
    body, texture = wardrobe.dress(full, rng)
    look = dataclasses.replace(look, colours=texture)
    if (
        rng.random() < PHOTOGRAPHED
        and (photograph := wardrobe.photograph(scene.R_world2cam, scene.K, scene.image_size, rng)) is not None
    ):
        look = dataclasses.replace(look, background=photograph)
    vertices = body.vertices(betas, scene.pose_rotmat, scene.transl)
    images = render_frames(vertices, body.faces, scene.K, scene.image_size, look)
    if rng.random() < HIDDEN:
        stand_before(images, project(light.joints(betas, scene.pose_rotmat, scene.transl), scene.K).numpy(), rng)
    return graded(images, rng)


def stand_before(images: np.ndarray, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Put a still, upright thing before a part of the person; in place.

    Args:
        images: (T, H, W, 3) uint8.
        pixels: (T, 24, 2) px, the joints.
    """
    height, width = images.shape[1:3]
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    size = (high - low) * rng.uniform(0.12, 0.5, 2) + 2
    centre = pixels[int(rng.integers(len(pixels))), int(rng.integers(24))] + rng.normal(size=2) * 0.1 * (high - low)
    x0, y0 = np.clip(centre - size / 2, 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(centre + size / 2, (x0 + 1, y0 + 1), (width, height)).astype(int)
    thing = background((x1 - x0, y1 - y0), rng)
    images[:, y0:y1, x0:x1] = thing


def graded(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frames with another exposure, contrast and white balance."""
    tone = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.15))
    table = (255 * np.clip(tone * np.exp(rng.normal(0, 0.06, 3)), 0, 1)).astype(np.uint8)
    return np.stack([table[images[..., c], c] for c in range(3)], -1)


def perceive_scene(
    scene: Scene,
    bodies: tuple[Body, Body],
    perceiver: Perceiver,
    rng: np.random.Generator,
    wardrobe: Wardrobe | None = None,
) -> PerceivedClip | None:
    """Film a scene (see :func:`film_scene`) and run the front end over it; None when it found nobody, or not in half of
    the frames."""
    images = film_scene(scene, bodies, rng, wardrobe)
    frame_ids = np.arange(len(images))
    perceiver.update(images, scene.timestamps, frame_ids)
    found = perceiver.finish()
    if not found or found[0].observed.sum() < len(images) / 2:
        return None
    rotvec = rotmat_to_rotvec(scene.pose_rotmat).numpy()
    padded = pad_evidence(found[0], scene.timestamps, frame_ids)
    return PerceivedClip(
        **padded,
        global_orient=rotvec[:, 0],
        body_pose=rotvec[:, 1:],
        transl=scene.transl.numpy(),
        betas=scene.betas.numpy(),
        K=scene.K.numpy(),
        image_size=np.array(scene.image_size),
        source=scene.source,
    )


def pad_evidence(evidence: Evidence, timestamps: np.ndarray, frame_ids: np.ndarray) -> dict[str, Any]:
    """A person's rows spread over all frames of the clip; zeros, and not observed, where there is none."""
    at = np.searchsorted(frame_ids, evidence.frame_ids)
    out: dict[str, Any] = {"timestamps": np.asarray(timestamps, np.float64)}
    for name in (*EVIDENCE[1:], *SEEN):
        value = getattr(evidence, name)
        if value is None:
            out[name] = None
            continue
        full = np.zeros((len(frame_ids), *value.shape[1:]), value.dtype)
        full[at] = value
        out[name] = full
    return out


def make_shard(
    clips: Sequence[MotionClip],
    count: int,
    frames: int,
    seed: int,
    config: PerceptionConfig,
    device: torch.device | str = "cpu",
    varied: bool = True,
    wardrobe: Wardrobe | None = None,
) -> list[PerceivedClip]:
    """Render and perceive ``count`` clips; the same seed gives the same clips. ``device``: of the perception networks;
    ``varied``: as of :func:`draw_scene`; ``wardrobe``: as of :func:`film_scene`."""
    rng = np.random.default_rng(seed)
    bodies = Body.open("light"), Body.open("full")
    # One large person in view: no search for small ones, and a new search only where the person is lost. What the front end
    # confuses is left as it is, for the networks that learn from these clips to see.
    one = dataclasses.replace(
        config,
        max_people=1,
        masks=False,
        parts=False,
        sides=False,
        tile_interval_s=1e6,
        detector_interval_s=1e6,
        landmark_interval_s=0.0,
    )
    perceiver = Perceiver(one, device)
    out: list[PerceivedClip] = []
    tries = 0
    with torch.no_grad():
        while len(out) < count:
            tries += 1
            if tries > 20 * count:
                raise ShapeError(f"clips: {tries} draws gave {len(out)} usable scenes. Check the prepared motion file.")
            scene = draw_scene(clips, bodies[0], rng, frames, varied)
            if scene is None:
                continue
            perceiver.reset()
            clip = perceive_scene(scene, bodies, perceiver, rng, wardrobe)
            if clip is not None:
                out.append(clip)
    return out


def _shares(clips: Sequence[MotionClip]) -> np.ndarray:
    """Probability of drawing from each clip: by the root of its length, so that a few long dances do not rule."""
    weight = np.sqrt([c.seconds for c in clips])
    return weight / weight.sum()


def _rotation(axis: int, angle: float) -> Tensor:
    rotvec = torch.zeros(3)
    rotvec[axis] = float(angle)
    return rotvec_to_rotmat(rotvec)
