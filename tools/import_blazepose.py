"""Write the packaged BlazePose weights from MediaPipe's tflite files.

    python tools/import_blazepose.py --source mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl
    python tools/import_blazepose.py                     # from the installed mediapipe
    python tools/import_blazepose.py --heavy mediapipe-pose-0.5.1675469404.tgz    # npm pack @mediapipe/pose@0.5.1675469404

The detector and the landmark network "full" come out of mediapipe's wheel; "heavy", which it lacks, out of the npm package
@mediapipe/pose or as a file pose_landmark_heavy.tflite. Needs the `tflite` package (flatbuffer schema) at tool time only.
Writes blazepose_*.safetensors and their cards to kinflow/assets. Sparse constants (DENSIFY) are decoded here.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from kinflow.perception.blazepose import LANDMARKERS, PoseDetector, PoseLandmarker, Variant

ASSETS = Path(__file__).resolve().parent.parent / "kinflow" / "assets"
log = logging.getLogger("import_blazepose")


class Origin(NamedTuple):
    """Where a network comes from."""

    package: str
    path: str  #: inside the package


ORIGINS = {
    "blazepose_detector": Origin("mediapipe 0.10.21", "mediapipe/modules/pose_detection/pose_detection.tflite"),
    "blazepose_landmark_full": Origin("mediapipe 0.10.21", "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"),
    "blazepose_landmark_heavy": Origin("npm @mediapipe/pose 0.5.1675469404", "package/pose_landmark_heavy.tflite"),
}


def read_tflite(source: Path | None, name: str) -> bytes:
    """One of MediaPipe's files: from a wheel, an npm package or the file itself, else from the installed mediapipe."""
    path = ORIGINS[name].path
    if source is None:
        spec = importlib.util.find_spec("mediapipe")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "mediapipe is not installed; pass --source WHEEL (pip download mediapipe==0.10.21 --no-deps)"
            )
        return (Path(spec.origin).parent.parent / path).read_bytes()
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as wheel:
                return wheel.read(path)
        if tarfile.is_tarfile(source):
            with tarfile.open(source) as package:
                return package.extractfile(path).read()  # type: ignore[union-attr]
    except KeyError:
        raise SystemExit(f"{source}: holds no {path}; it is in {ORIGINS[name].package}") from None
    return source.read_bytes()


class Graph:
    """The constants of a tflite file and its convolutions in graph order."""

    def __init__(self, data: bytes) -> None:
        import tflite

        self._tflite = tflite
        self._model = tflite.Model.GetRootAs(data, 0)
        self._graph = self._model.Subgraphs(0)
        self._names = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
        self._origin = {}  # a DEQUANTIZE or DENSIFY output -> its input
        for op, inputs, outputs in self._operators():
            if op in ("DEQUANTIZE", "DENSIFY"):
                self._origin[outputs[0]] = inputs[0]

    def _operators(self) -> Iterator[tuple[str, list[int], list[int]]]:
        for k in range(self._graph.OperatorsLength()):
            op = self._graph.Operators(k)
            code = self._model.OperatorCodes(op.OpcodeIndex())
            name = self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            yield name, op.InputsAsNumpy().tolist(), op.OutputsAsNumpy().tolist()

    def constant(self, index: int) -> np.ndarray:
        """A constant tensor, dense, in its stored precision."""
        while index in self._origin:
            index = self._origin[index]
        tensor = self._graph.Tensors(index)
        shape = tuple(tensor.ShapeAsNumpy().tolist())
        dtype = {self._tflite.TensorType.FLOAT16: np.float16, self._tflite.TensorType.FLOAT32: np.float32}[
            tensor.Type()
        ]
        values = self._model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype)
        sparsity = tensor.Sparsity()
        return values.reshape(shape) if sparsity is None else self._densify(values, shape, sparsity)

    def _densify(self, values: np.ndarray, shape: tuple[int, ...], sparsity: object) -> np.ndarray:
        """Leading dimensions dense, the last one compressed (CSR), no blocks: the one layout these files use."""
        meta = [sparsity.DimMetadata(i) for i in range(sparsity.DimMetadataLength())]  # type: ignore[attr-defined]
        order = sparsity.TraversalOrderAsNumpy().tolist()  # type: ignore[attr-defined]
        dense, csr = self._tflite.DimensionType.DENSE, self._tflite.DimensionType.SPARSE_CSR
        formats = [m.Format() for m in meta]
        if order != list(range(len(shape))) or formats != [dense] * (len(shape) - 1) + [csr]:
            raise SystemExit(f"sparse constant of an unknown layout: order {order}, formats {formats}, shape {shape}")
        segments = _index_vector(self._tflite, meta[-1].ArraySegmentsType(), meta[-1].ArraySegments())
        columns = _index_vector(self._tflite, meta[-1].ArrayIndicesType(), meta[-1].ArrayIndices())
        out = np.zeros((int(np.prod(shape[:-1])), shape[-1]), values.dtype)
        rows = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
        out[rows, columns] = values[: len(columns)]
        return out.reshape(shape)

    def convolutions(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(weight in torch's layout, bias) of each convolution."""
        found = []
        for op, inputs, _ in self._operators():
            if op == "CONV_2D":  # (out, h, w, in)
                found.append((self.constant(inputs[1]).transpose(0, 3, 1, 2), self.constant(inputs[2])))
            elif op == "DEPTHWISE_CONV_2D":  # (1, h, w, channels)
                found.append((self.constant(inputs[1]).transpose(3, 0, 1, 2), self.constant(inputs[2])))
        return found


def _index_vector(tflite: object, kind: int, table: object) -> np.ndarray:
    names = {v: k for k, v in vars(tflite.SparseIndexVector).items() if isinstance(v, int)}  # type: ignore[attr-defined]
    vector = getattr(tflite, names[kind])()
    vector.Init(table.Bytes, table.Pos)  # type: ignore[attr-defined]
    return vector.ValuesAsNumpy().astype(np.int64)


def _blocks(prefix: str, count: int, start: int = 0) -> list[str]:
    return [f"{prefix}.{i}.{part}" for i in range(start, count) for part in ("expand", "depthwise", "project")]


def _pair(*prefixes: str) -> list[str]:
    return [f"{prefix}.{part}" for prefix in prefixes for part in ("depthwise", "pointwise")]


STEM = ["stem.conv", "stem.depthwise", "stem.project"]


def _branch_after_expand(stage: str, count: int, *sides: str) -> list[str]:
    """A stage whose input also feeds `sides`: the graph lists them behind the stage's first expansion."""
    return [f"{stage}.0.expand", *_pair(*sides), *_blocks(stage, count)[1:]]


DETECTOR_ORDER = [
    *STEM, *_blocks("stage1", 2), *_blocks("stage2", 2),
    *_branch_after_expand("stage3", 6, "skip28"), *_branch_after_expand("stage4", 4, "skip14"),
    "top.expand", "top.depthwise",
    "lateral14", *_pair("fuse14.0", "fuse14.1"), "lateral28", *_pair("fuse28.0", "fuse28.1"),
    *[name for head in ("head28", "head14", "head7") for name in _pair(f"{head}.score", f"{head}.box")],
]  # fmt: skip


def landmark_order(network: PoseLandmarker) -> list[str]:
    """Names of the landmark network's convolutions in the graph's order."""
    descent = [
        name
        for i, level in enumerate(LANDMARKERS[network.variant].descent)
        for name in _pair(*[f"descent.{i}.{k}" for k in range(1 + level[1])])
    ]
    sides = [[f"sides.{i}"] for i in range(len(network.sides))] or [[], []]
    return [
        *STEM, *_branch_after_expand("stage1", len(network.stage1), "skip128"),
        *_branch_after_expand("stage2", len(network.stage2), "skip64"),
        *_branch_after_expand("stage3", len(network.stage3), "skip32", *sides[0]),
        *_branch_after_expand("stage4", len(network.stage4), "skip16", *sides[1]),
        "top.expand", "top.depthwise", *_pair("lateral8"), *descent[:2],
        *_pair("mask64", "mask128.0", "mask128.1", "mask256.0", "mask256.1"), "mask_out",
        *descent[2:], "heatmap_out", *_pair("regress8"),
        *_pair(*[f"regress4.{i}" for i in range(len(network.regress4))]),
        *_pair(*[f"regress2.{i}" for i in range(len(network.regress2))]), "landmark_out", "world_out", "score_out",
    ]  # fmt: skip


def state_dict(module: torch.nn.Module, order: list[str], graph: Graph) -> dict[str, torch.Tensor]:
    """The graph's constants under the module's names, checked for shape."""
    convolutions = graph.convolutions()
    wanted = module.state_dict()
    if len(convolutions) != len(order) or 2 * len(order) != len(wanted):
        raise SystemExit(
            f"{len(convolutions)} convolutions in the file, {len(order)} named: not the file this tool knows"
        )
    state = {}
    for name, (weight, bias) in zip(order, convolutions, strict=True):
        for key, value in ((f"{name}.weight", weight), (f"{name}.bias", bias)):
            if tuple(wanted[key].shape) != value.shape:
                raise SystemExit(f"{key}: expected {tuple(wanted[key].shape)}, the file has {value.shape}")
            state[key] = torch.from_numpy(np.array(value, order="C"))
    return state


CARD = """# {name}

Weights of MediaPipe's `{file}` as `{module}` reads them; constants as stored there ({dtypes}), {count} parameters.

* Source: {package}, `{path}`, sha256 `{sha256}`
* Licence: Apache-2.0, Copyright The MediaPipe Authors (see NOTICE)
* Paper: Bazarevsky et al., BlazePose: On-device Real-time Body Pose tracking, arXiv 2006.10204
* Training data, scores and intended use: MediaPipe's model card "BlazePose GHUM 3D"
* Made by: `python tools/import_blazepose.py`; agreement with the original is held by `tests/test_blazepose_litert.py`
"""


def write(name: str, module: torch.nn.Module, order: list[str], data: bytes, folder: Path) -> None:
    """Weights and card of one network."""
    origin = ORIGINS[name]
    state = state_dict(module, order, Graph(data))
    digest = hashlib.sha256(data).hexdigest()
    target = folder / f"{name}.safetensors"
    partial = target.with_suffix(".partial")
    save_file(state, partial, metadata={"source": origin.path, "sha256": digest, "licence": "Apache-2.0"})
    partial.replace(target)
    card = CARD.format(
        name=name, file=Path(origin.path).name, module=f"kinflow.perception.blazepose.{type(module).__name__}",
        dtypes=", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in state.values()})),
        count=sum(v.numel() for v in state.values()), package=origin.package, path=origin.path, sha256=digest,
    )  # fmt: skip
    target.with_suffix(".md").write_text(card)
    log.info("%s: %d tensors, %d bytes", target.name, len(state), target.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="mediapipe wheel; default: the installed mediapipe")
    parser.add_argument("--heavy", type=Path, help="pose_landmark_heavy.tflite, or the npm package's tarball; alone: write this network only")  # fmt: skip
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sources: dict[Variant, Path | None] = {}
    if args.source is not None or args.heavy is None:
        data = read_tflite(args.source, "blazepose_detector")
        write("blazepose_detector", PoseDetector(), DETECTOR_ORDER, data, args.out)
        sources["full"] = args.source
    if args.heavy is not None:
        sources["heavy"] = args.heavy
    for variant, source in sources.items():
        name, network = f"blazepose_landmark_{variant}", PoseLandmarker(variant)
        write(name, network, landmark_order(network), read_tflite(source, name), args.out)


if __name__ == "__main__":
    main()
