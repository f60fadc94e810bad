"""Writes bodypix.npz: what OpenVINO makes of BodyPix' original file on a synthetic picture, for tests/test_bodypix.py.

    python tests/golden/make_bodypix.py bodypix_mobilenet_x050_stride8.onnx

Needs openvino; the file is that of keijiro/BodyPixBarracuda.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from make_blazepose import synthetic_person

HERE = Path(__file__).parent
SIZE = 129
OUTPUTS = {"mask": "segments", "parts": "part_heatmaps", "heatmaps": "heatmaps", "offsets": "short_offsets"}


def run(file: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """The file's outputs (c, h, w) by our names for an image (S, S, 3) in [-1, 1]."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(file))
    model.reshape([1, *image.shape])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {key.get_any_name(): value for key, value in compiled([image[None]]).items()}
    return {ours: found[theirs][0].transpose(2, 0, 1) for ours, theirs in OUTPUTS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="bodypix_mobilenet_x050_stride8.onnx")
    found = run(parser.parse_args().file, 2 * synthetic_person(SIZE) - 1)
    np.savez_compressed(HERE / "bodypix.npz", **{name: value.astype(np.float16) for name, value in found.items()})


if __name__ == "__main__":
    main()
