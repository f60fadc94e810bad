"""BlazePose in torch against LiteRT running MediaPipe's own files on real frames.

Needs the shared clips, ai-edge-litert, and the tflite files: an installed mediapipe, or its wheel named by the environment
variable KINFLOW_BLAZEPOSE_WHEEL (pip download mediapipe==0.10.21 --no-deps); the wheel lacks pose_landmark_heavy.tflite,
which is in the shared data.
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from kinflow.perception.blazepose import DETECTOR_SIZE, LANDMARK_SIZE, Variant
from kinflow.perception.crops import box_iou, letterbox, warp_crops
from kinflow.perception.detection import decode_detections, weighted_nms
from kinflow.perception.landmarks import refine_landmarks
from kinflow.perception.runtimes import load_detector, load_landmarker

FRAMES = {
    "walk_past.mp4": (0, 90, 150),
    "room_walk_sit.mp4": (0, 120),
    "dancer_square.mp4": (30,),
    "squats_5fps.mp4": (10,),
}
DETECTION = "mediapipe/modules/pose_detection/pose_detection.tflite"
FULL = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"
HEAVY = "networks/pose_landmark_heavy.tflite"  #: of the shared data


def _of_mediapipe(name: str) -> bytes:
    wheel = os.environ.get("KINFLOW_BLAZEPOSE_WHEEL")
    if wheel:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        pytest.skip("no mediapipe installed and KINFLOW_BLAZEPOSE_WHEEL names no wheel of it")
    return (Path(spec.origin).parent.parent / name).read_bytes()


class LiteRT:
    def __init__(self, data: bytes) -> None:
        interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
        self._run = interpreter.Interpreter(model_content=data, num_threads=1)
        self._run.allocate_tensors()

    def __call__(self, image: torch.Tensor) -> dict[tuple[int, ...], np.ndarray]:
        """(3, S, S) to the outputs by shape."""
        self._run.set_tensor(
            self._run.get_input_details()[0]["index"], image[None].permute(0, 2, 3, 1).contiguous().numpy()
        )
        self._run.invoke()
        outputs = (self._run.get_tensor(o["index"]) for o in self._run.get_output_details())
        return {o.shape: o.copy() for o in outputs}


@pytest.fixture(scope="module")
def frames(shared_clips: Path) -> list[torch.Tensor]:
    found = []
    for name, indices in FRAMES.items():
        with av.open(str(shared_clips / name)) as clip:
            for i, frame in enumerate(clip.decode(video=0)):
                if i in indices:
                    found.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                if i >= max(indices):
                    break
    return found


@pytest.fixture(scope="module")
def found(frames: list[torch.Tensor]) -> list[tuple[torch.Tensor, Any]]:
    """(frame, the torch detector's input and detections in its px, the mapping to px of the frame)."""
    network = load_detector()
    rows = []
    for frame in frames:
        height, width = frame.shape[:2]
        image, scale, dx, dy = letterbox(frame, (0, 0, width, height), DETECTOR_SIZE)
        with torch.inference_mode():
            boxes, logits = network(image[None])
        ours = weighted_nms(decode_detections(boxes[0].numpy(), logits[0].numpy(), 0.5), 0.3)
        rows.append((frame, image, ours, (scale, dx, dy)))
    return rows


def test_detector_boxes(found: list[Any]) -> None:
    reference, count = LiteRT(_of_mediapipe(DETECTION)), 0
    for _, image, ours, _ in found:
        outputs = reference(image)
        theirs = weighted_nms(decode_detections(outputs[1, 2254, 12][0], outputs[1, 2254, 1][0, :, 0], 0.5), 0.3)
        count += len(theirs)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert box_iou(a.box_xyxy[None], b.box_xyxy[None])[0, 0] >= 0.99
            np.testing.assert_allclose(a.keypoints, b.keypoints, atol=0.5)
            assert abs(a.score - b.score) < 1e-3
    assert count >= len(FRAMES)


@pytest.mark.parametrize("variant", ["full", "heavy"])
def test_landmarks_and_masks(found: list[Any], shared_data: Path, variant: Variant) -> None:
    if variant == "full":
        data = _of_mediapipe(FULL)
    elif (shared_data / HEAVY).is_file():
        data = (shared_data / HEAVY).read_bytes()
    else:
        pytest.skip(f"the shared data lack {HEAVY}")
    reference, network = LiteRT(data), load_landmarker(variant)
    tried = 0
    for frame, _, ours, mapping in found:
        for detection in ours[:1]:
            crop = warp_crops([frame], detection.mapped(*mapping).roi[None], LANDMARK_SIZE)
            with torch.inference_mode():
                output = network(crop)
            expected = reference(crop[0])
            landmarks = torch.from_numpy(expected[1, 195].reshape(1, 39, 5))
            heatmaps = torch.from_numpy(expected[1, 64, 64, 39]).permute(0, 3, 1, 2)
            assert abs(output.score.item() - expected[1, 1].item()) < 1e-3
            if output.score < 0.5:
                continue
            tried += 1
            assert (output.landmarks[..., :2] - landmarks[..., :2]).norm(dim=-1).max() < 0.5
            refined = refine_landmarks(output.landmarks[..., :2] / LANDMARK_SIZE, output.heatmaps)
            assert (
                refined - refine_landmarks(landmarks[..., :2] / LANDMARK_SIZE, heatmaps)
            ).abs().max() * LANDMARK_SIZE < 0.5
            assert (output.heatmaps - heatmaps).abs().max() < 0.01
            assert np.abs(output.world.numpy() - expected[1, 117].reshape(1, 39, 3)).max() < 1e-3
            mask, wanted = output.mask.numpy()[0] > 0, expected[1, 256, 256, 1][0, :, :, 0] > 0
            assert (mask & wanted).sum() >= 0.99 * (mask | wanted).sum()
    assert tried >= 4
