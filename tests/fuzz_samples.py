"""Small intact files of every kind that kinflow reads, as bytes by name, and the readers of those that no command reads."""

from __future__ import annotations

import atexit
import functools
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import joblib
import numpy as np
import torch
from PIL import Image
from walker import rotvecs, walk

from kinflow.assets.weights import save_weights
from kinflow.body.body import Body
from kinflow.config import DenoiserConfig, DynamicsConfig, FlowConfig
from kinflow.denoiser import Denoiser, load_denoiser
from kinflow.dynamics import LatentDynamics, load_dynamics
from kinflow.evidence import Evidence
from kinflow.flow import PoseFlow, load_flow
from kinflow.mocap.amass import read_amass
from kinflow.mocap.clips import MotionClip, load_clips, save_clips
from kinflow.motion import Motion
from kinflow.prior import MotionPrior
from kinflow.training.streams.perceived import PerceivedClip, load_perceived, save_perceived

FRAMES, FPS, SIZE = 12, 24.0, (64, 48)
Files = dict[str, bytes]


@functools.cache
def folder() -> Path:
    """Where samples are made; gone at exit."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-samples-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _saved(name: str, save: Callable[[Path], Any]) -> bytes:
    path = folder() / name
    save(path)
    return path.read_bytes()


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


# -- clips -------------------------------------------------------------------------------------------------------------


@functools.cache
def _frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (
        np.linspace(0, 200, SIZE[0])[None, None, :, None] + rng.integers(0, 50, (FRAMES, SIZE[1], SIZE[0], 3))
    ).astype(np.uint8)


def _encoded(name: str, codec: str) -> bytes:
    def save(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=24)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for image in _frames():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())

    return _saved(name, save)


@functools.cache
def mp4() -> Files:
    return {"clip.mp4": _encoded("clip.mp4", "libx264")}


@functools.cache
def webm() -> Files:
    return {"clip.webm": _encoded("clip.webm", "libvpx"), "nine.webm": _encoded("nine.webm", "libvpx-vp9")}


@functools.cache
def images() -> Files:
    out = {}
    for name in ("one.jpg", "one.png"):
        stream = io.BytesIO()
        Image.fromarray(_frames()[0]).save(stream, "JPEG" if name.endswith("jpg") else "PNG")
        out[name] = stream.getvalue()
    return out


@functools.cache
def clip_file() -> Path:
    """An intact clip, for inputs that stand beside one."""
    path = folder() / "intact.mp4"
    path.write_bytes(mp4()["clip.mp4"])
    return path


# -- npz ---------------------------------------------------------------------------------------------------------------


@functools.cache
def _walk() -> tuple[np.ndarray, np.ndarray]:
    steps = walk(FRAMES, FPS)
    return rotvecs(steps).numpy(), steps.transl.numpy()


@functools.cache
def _rows() -> dict[str, np.ndarray]:
    """What evidence and motion have in common."""
    return {
        "timestamps": np.arange(FRAMES) / FPS,
        "observed": np.ones(FRAMES, bool),
        "keypoints2d": np.full((FRAMES, 33, 2), 20, np.float32),
        "confidence": np.ones((FRAMES, 33), np.float32),
        "boxes_xyxy": np.zeros((FRAMES, 4), np.float32),
    }


def _seen() -> dict[str, np.ndarray]:
    rows = {"world_landmarks": np.zeros((FRAMES, 33, 3)), "has_world": np.ones(FRAMES, bool)}
    return {**_rows(), **rows, "rois": np.zeros((FRAMES, 4))}


@functools.cache
def evidence() -> Files:
    record = Evidence(person_id=0, frame_ids=np.arange(FRAMES), image_size=np.array(SIZE), **_seen())
    return {"evidence.npz": _saved("evidence.npz", record.save)}


@functools.cache
def motion() -> Files:
    rotvec, transl = _walk()
    record = Motion(
        person_id=0, body="open", frame_ids=np.arange(FRAMES), betas=np.zeros(10), global_orient=rotvec[:, 0],
        body_pose=rotvec[:, 1:], transl=transl, joints3d=np.zeros((FRAMES, 24, 3)), joints3d_std=np.ones((FRAMES, 24)),
        z=np.zeros((FRAMES, 63)), contacts=np.zeros((FRAMES, 4)),
        K=np.array([[80, 0, 32], [0, 80, 24], [0, 0, 1]]), image_size=np.array(SIZE), **_rows(),
    )  # fmt: skip
    return {"motion.npz": _saved("motion.npz", record.save)}


@functools.cache
def amass() -> Files:
    rotvec, transl = _walk()
    poses = np.zeros((FRAMES, 156))
    poses[:, :66] = rotvec[:, :22].reshape(FRAMES, -1)
    return {
        "walk_poses.npz": _npz(
            poses=poses, trans=transl, betas=np.zeros(16), gender="male", mocap_framerate=np.array(FPS)
        )
    }


@functools.cache
def poses() -> Files:
    rotvec, transl = _walk()
    smpl = {"global_orient": rotvec[:, 0], "body_pose": rotvec[:, 1:], "transl": transl, "betas": np.zeros(10)}
    return {
        **amass(),
        **motion(),
        "smpl.npz": _npz(**smpl, fps=np.array(FPS), frame_ids=np.arange(FRAMES), valid=np.ones(FRAMES, bool)),
    }


@functools.cache
def trackers() -> Files:
    """A pickle as WHAM and VIBE write it, and a torch file as GVHMR does."""
    rotvec, transl = _walk()
    flat = {"pose": rotvec[:, :24].reshape(FRAMES, -1), "trans": transl, "frame_ids": np.arange(FRAMES)}
    side = {"body_pose": rotvec[:, 1:22].reshape(FRAMES, -1), "global_orient": rotvec[:, 0], "transl": transl}
    groups = {f"smpl_params_{k}": {n: torch.from_numpy(v.copy()) for n, v in side.items()} for k in ("global", "incam")}
    return {
        "wham_output.pkl": _saved("wham_output.pkl", lambda path: joblib.dump({0: flat}, path)),
        "hmr4d_results.pt": _saved("hmr4d_results.pt", lambda path: torch.save(groups, path)),
    }


@functools.cache
def mocap() -> Files:
    rotvec, transl = _walk()
    parts = (rotvec[:, 0], rotvec[:, 1:], transl, np.ones(FRAMES, bool))
    clips = [MotionClip(name, "7", "a walk", FPS, *parts, "train", "asfamc", 0.8) for name in ("a", "b")]
    return {"mocap.npz": _saved("mocap.npz", lambda path: save_clips(path, clips))}


@functools.cache
def perceived() -> Files:
    rotvec, transl = _walk()
    clip = PerceivedClip(
        **_seen(), global_orient=rotvec[:, 0], body_pose=rotvec[:, 1:], transl=transl, betas=np.zeros(10),
        K=np.eye(3), image_size=np.array(SIZE), source="walk",
    )  # fmt: skip
    return {"perceived.npz": _saved("perceived.npz", lambda path: save_perceived(path, [clip, clip]))}


@functools.cache
def body() -> Files:
    """A model file in SMPL's layout, of twenty vertices."""
    rng = np.random.default_rng(0)
    parents = [2**32 - 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    arrays = {
        "v_template": rng.normal(size=(20, 3)),
        "shapedirs": rng.normal(size=(20, 3, 10)),
        "posedirs": rng.normal(size=(20, 3, 207)),
        "J_regressor": np.full((24, 20), 0.05),
        "weights": np.full((20, 24), 1 / 24),
        "kintree_table": np.array([parents, range(24)]).astype(np.int64),
        "f": rng.integers(0, 20, (12, 3)),
    }
    return {"SMPL_NEUTRAL.npz": _npz(**arrays)}


# -- texts -------------------------------------------------------------------------------------------------------------


@functools.cache
def keypoints() -> Files:
    person = [[20.0 + i % 5, 10.0 + i % 7, 0.9] for i in range(33)]
    flat = [v for point in person for v in point]
    coco = [{"image_id": f, "category_id": 1, "keypoints": flat[:51], "score": 0.9} for f in range(FRAMES)]
    annotations = {
        "images": [{"id": f, "file_name": f"{f:04d}.jpg"} for f in range(FRAMES)],
        "annotations": [{"id": f, "image_id": f, "keypoints": flat[:51]} for f in range(FRAMES)],
    }
    marks = [{"x": x / SIZE[0], "y": y / SIZE[1], "z": 0.0, "visibility": v} for x, y, v in person]
    mediapipe = [{"pose_landmarks": [marks], "pose_world_landmarks": [marks]} for _ in range(FRAMES)]
    mmpose = {
        "instance_info": [
            {
                "frame_id": f + 1,
                "instances": [{"keypoints": [p[:2] for p in person[:17]], "keypoint_scores": [0.9] * 17}],
            }
            for f in range(FRAMES)
        ]
    }
    return {
        "clip_000000000003_keypoints.json": _json({"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat[:75]}]}),
        "coco.json": _json(coco),
        "annotations.json": _json(annotations),
        "mediapipe.json": _json(mediapipe),
        "mmpose.json": _json(mmpose),
    }  # fmt: skip


@functools.cache
def yamls() -> Files:
    found = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    return {f"{p.stem}-{p.stem}.yaml": p.read_bytes() for p in found}


@functools.cache
def settings() -> Files:
    texts = [
        "perception.max_people=2", "perception.tile_scales=[1.0, 0.5]", "perception.detection_threshold=0.5",
        "perception.batch_people=4", "perception.look_ahead_s=0.2", "perception.runtime=torch", "video.crf=20",
        "video.preset=fast", "video.prefetch_mb=64", "video.threads=1", "video.image_fps=30.0", "render.opacity=0.8",
        "render.near=0.05", "refine.iterations=10", "refine.lr=1e-3", "losses.keypoints=200.0", "losses.part_scale=0.1",
    ]  # fmt: skip
    return {f"{i}.txt": text.encode() for i, text in enumerate(texts)}


@functools.cache
def cameras() -> Files:
    K = np.array([[80.5, 0, 32], [0, 81, 24], [0, 0, 1]])
    plain = io.BytesIO()
    np.save(plain, K)
    rows = "\n".join(" ".join(map(str, row)) for row in K)
    return {
        "K.npy": plain.getvalue(),
        "K.npz": _npz(K=K),
        "K.json": _json({"K": K.tolist(), "name": "left"}),
        "four.json": _json({"fx": 80.5, "fy": 81, "cx": 32, "cy": 24}),
        "rows.json": _json(K.tolist()),
        "K.txt": f"intrinsic:\n{rows}\ndistortion:\n-0.04 1.37\n".encode(),
    }


def camera_strings() -> Files:
    return {"string": b"80.5,81,32,24"}


# -- weights -----------------------------------------------------------------------------------------------------------


@functools.cache
def weights() -> Files:
    torch.manual_seed(0)
    networks: dict[str, Callable[[], tuple[Any, Any]]] = {
        "flow": lambda: (PoseFlow(c := FlowConfig(layers=2, hidden=8, dropout=0.0)), c),
        "dynamics": lambda: (
            LatentDynamics(c := DynamicsConfig(hidden=8, ode_hidden=8, head_hidden=8, components=2, rank=2)),
            c,
        ),
        "denoiser": lambda: (Denoiser(c := DenoiserConfig(width=12, hidden=8, layers=1, heads=2)), c),
    }
    out = {}
    for name, build in networks.items():
        module, config = build()
        out[f"{name}.safetensors"] = _saved(
            f"{name}.safetensors", lambda path, m=module, c=config: save_weights(path, m, c, {"what": "small"})
        )
    return out


@functools.cache
def prior() -> MotionPrior:
    return MotionPrior.load()


# -- readers -----------------------------------------------------------------------------------------------------------


def load_motion(path: Path) -> Any:
    return Motion.load(path)


def load_evidence(path: Path) -> Any:
    return Evidence.load(path)


def load_amass(path: Path) -> Any:
    return read_amass(path)


def load_mocap(path: Path) -> Any:
    return load_clips(path)


def load_perceived_clips(path: Path) -> Any:
    return load_perceived(path)


def load_body(path: Path) -> Any:
    return Body.from_file(path)


def load_network(path: Path) -> Any:
    return {"flow": load_flow, "dynamics": load_dynamics, "denoiser": load_denoiser}[path.stem](path)
