"""Writes blazepose_*.npz: what LiteRT makes of a synthetic picture of a person, for tests/test_blazepose.py.

    python tests/golden/make_blazepose.py --source mediapipe-0.10.21-...whl --heavy pose_landmark_heavy.tflite

Needs ai-edge-litert and the tflite files: two in mediapipe's wheel, heavy in the npm package @mediapipe/pose.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TFLITE = "mediapipe/modules/pose_{0}/pose_{0}{1}.tflite"
ANCHORS = 40  #: so many of the highest-scoring anchors are kept
STRIDE = 8  #: every so many-th mask pixel is kept

#: Bones (x0, y0, x1, y1, thickness, colour) of a figure in the unit square.
FIGURE = (
    (0.43, 0.30, 0.33, 0.52, 0.045, (190, 60, 50)),
    (0.57, 0.30, 0.66, 0.52, 0.045, (190, 60, 50)),
    (0.33, 0.52, 0.35, 0.62, 0.030, (225, 180, 150)),
    (0.66, 0.52, 0.64, 0.62, 0.030, (225, 180, 150)),
    (0.46, 0.30, 0.46, 0.55, 0.090, (190, 60, 50)),
    (0.54, 0.30, 0.54, 0.55, 0.090, (190, 60, 50)),
    (0.46, 0.55, 0.44, 0.88, 0.060, (40, 50, 90)),
    (0.54, 0.55, 0.56, 0.88, 0.060, (40, 50, 90)),
    (0.44, 0.90, 0.42, 0.92, 0.040, (60, 40, 30)),
    (0.56, 0.90, 0.58, 0.92, 0.040, (60, 40, 30)),
    (0.50, 0.20, 0.50, 0.27, 0.040, (225, 180, 150)),
    (0.50, 0.14, 0.50, 0.19, 0.075, (225, 180, 150)),
    (0.50, 0.11, 0.50, 0.12, 0.078, (70, 45, 30)),
    (0.475, 0.165, 0.475, 0.166, 0.012, (30, 20, 20)),
    (0.525, 0.165, 0.525, 0.166, 0.012, (30, 20, 20)),
    (0.485, 0.205, 0.515, 0.205, 0.010, (170, 70, 70)),
)


def synthetic_person(size: int) -> np.ndarray:
    """(size, size, 3) float32 in [0, 1]: a figure of thick bones, shaded, before a soft background."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    image = np.stack([0.55 + 0.2 * y, 0.6 + 0.1 * x, 0.65 - 0.2 * y], -1)
    for x0, y0, x1, y1, thickness, colour in FIGURE:
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-12)
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1)
        distance = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) / thickness
        cover = np.clip((1.0 - distance) * thickness * size, 0, 1)[..., None]
        shade = (1.0 - 0.35 * np.clip(distance, 0, 1) ** 2)[..., None]
        image = image * (1 - cover) + cover * shade * (np.array(colour) / 255.0)
    return image.astype(np.float32)


def run(data: bytes, image: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    outputs = [interpreter.get_tensor(o["index"]).copy() for o in interpreter.get_output_details()]
    return {o.shape: o for o in outputs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="mediapipe wheel")
    parser.add_argument("--heavy", type=Path, required=True, help="pose_landmark_heavy.tflite")
    args = parser.parse_args()
    with zipfile.ZipFile(args.source) as wheel:
        detection = run(wheel.read(TFLITE.format("detection", "")), synthetic_person(224) * 2 - 1)
        full = wheel.read(TFLITE.format("landmark", "_full"))
    logits = detection[1, 2254, 1].reshape(-1)
    top = np.sort(np.argsort(-logits, kind="stable")[:ANCHORS])
    np.savez_compressed(
        HERE / "blazepose_detector.npz",
        anchors=top.astype(np.int16),
        boxes=detection[1, 2254, 12][0, top],
        logits=logits[top],
    )
    for name, data in (("full", full), ("heavy", args.heavy.read_bytes())):
        landmark = run(data, synthetic_person(256))
        heatmaps = landmark[1, 64, 64, 39][0]
        np.savez_compressed(
            HERE / f"blazepose_{name}.npz",
            landmarks=landmark[1, 195].reshape(39, 5),
            score=landmark[1, 1].reshape(()),
            mask=landmark[1, 256, 256, 1][0, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE, 0],
            heatmap_peaks=heatmaps.reshape(-1, 39).max(0),
            heatmap_sites=heatmaps.reshape(-1, 39).argmax(0).astype(np.int16),
            world=landmark[1, 117].reshape(39, 3),
        )


if __name__ == "__main__":
    main()
