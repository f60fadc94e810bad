"""Write the packaged BodyPix weights from its ONNX file.

    python tools/import_bodypix.py bodypix_mobilenet_x050_stride8.onnx

The file is that of keijiro/BodyPixBarracuda. Needs the `onnx` package at tool time only. Writes bodypix.safetensors and its
card to kinflow/assets. Heads that kinflow does not use (part offsets, long offsets, displacements) are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from kinflow.perception.bodypix import BodyPix

ASSETS = Path(__file__).resolve().parent.parent / "kinflow" / "assets"
HEADS = {"mask_out": "segments", "part_out": "part_heatmaps", "heatmap_out": "heatmaps", "offset_out": "short_offsets"}
log = logging.getLogger("import_bodypix")

CARD = """# bodypix

Weights of BodyPix 2 (MobileNetV1 0.5, output stride 8) as `kinflow.perception.bodypix.BodyPix` reads them; {dtype} as stored there, {count} parameters.

* Source: github keijiro/BodyPixBarracuda@c27657ce, `{file}`, sha256 `{sha256}`; the heads of part offsets, long offsets and displacements are left out
* Licence: Apache-2.0, Copyright Google (see NOTICE)
* Paper: Papandreou et al., PersonLab, arXiv 1803.08225; parts and their order: tfjs-models, body-pix
* Made by: `python tools/import_bodypix.py FILE`; agreement with the original is held by `tests/test_bodypix.py`
"""


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The file's constants under the module's names, checked for shape."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]

    def head(output: str) -> onnx.NodeProto:
        node = made_by[output]
        while node.op_type != "Conv":
            node = made_by[node.input[0]]
        return node

    module = BodyPix()
    order = ["stem", *[f"trunk.{i}" for i in range(len(module.trunk))]]
    named = dict(zip(order, convolutions, strict=False)) | {name: head(output) for name, output in HEADS.items()}
    state = {
        f"{name}.{kind}": torch.from_numpy(constants[node.input[k]].copy())
        for name, node in named.items()
        for k, kind in ((1, "weight"), (2, "bias"))
    }
    for key, wanted in module.state_dict().items():
        if key not in state or state[key].shape != wanted.shape:
            found = tuple(state[key].shape) if key in state else "nothing"
            raise SystemExit(f"{path.name}: {key}: expected {tuple(wanted.shape)}, the file has {found}")
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="bodypix_mobilenet_x050_stride8.onnx")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    state = state_dict(args.file)
    digest = hashlib.sha256(args.file.read_bytes()).hexdigest()
    target = args.out / "bodypix.safetensors"
    partial = target.with_suffix(".partial")
    save_file(state, partial, metadata={"source": args.file.name, "sha256": digest, "licence": "Apache-2.0"})
    partial.replace(target)
    count, dtype = sum(v.numel() for v in state.values()), str(state["stem.weight"].dtype).removeprefix("torch.")
    target.with_suffix(".md").write_text(CARD.format(dtype=dtype, count=count, file=args.file.name, sha256=digest))
    log.info("%s: %d tensors, %d bytes", target.name, len(state), target.stat().st_size)


if __name__ == "__main__":
    main()
