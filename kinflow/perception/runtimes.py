"""What runs the networks: torch anywhere, OpenVINO faster on CPUs.

A runtime is two functions, :class:`Networks`, with the inputs and outputs of the torch modules. Both compute in float32 from
the packaged weights and differ by rounding only (tests/test_runtimes.py). OpenVINO comes with ``pip install kinflow[fast]``.
Frames per second of one core, best of 60 in turns on a busy Xeon with AVX-512 (benchmarks/runtimes.py), and the median ratio
of neighbours:

======================  =====  ========  =====
network                 torch  OpenVINO  ratio
======================  =====  ========  =====
heavy, with mask         15.6      23.2   1.54
heavy, without           17.4      25.8   1.55
full, with mask          40.1      62.7   1.57
full, without            55.4      86.5   1.63
detector                 56.8     113.2   2.07
======================  =====  ========  =====

BodyPix, in a later run in which torch and OpenVINO ran heavy at 14.3 and 22.0: 63 and 89 at the median, ratio 1.40.

In another run LiteRT, which always computes the mask, and onnxruntime were no faster, but for onnxruntime without the mask:
heavy 24.0 with OpenVINO, 19.8 with onnxruntime, 19.3 with LiteRT; without the mask 25.9 and 26.0; detector 114, 97 and 98.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from kinflow.assets import asset_path
from kinflow.config import PerceptionConfig
from kinflow.errors import KinflowError, UsageError, check_shape
from kinflow.perception.blazepose import (
    DETECTOR_SIZE,
    LANDMARK_SIZE,
    LandmarkOutput,
    PoseDetector,
    PoseLandmarker,
    Variant,
)
from kinflow.perception.bodypix import BodyPix, PartOutput
from kinflow.perception.convolution import fuse_convolutions
from kinflow.perception.openvino_graph import openvino_model
from kinflow.perception.parts import PART_SIZE

__all__ = ["Networks", "load_bodypix", "load_detector", "load_landmarker", "load_networks"]

log = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)

DETECTOR_ASSET = "blazepose_detector.safetensors"
PART_ASSET = "bodypix.safetensors"
LANDMARK_ASSET = "blazepose_landmark_{}.safetensors"  #: by variant


class Detect(Protocol):
    """See :meth:`kinflow.perception.blazepose.PoseDetector.forward`."""

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]: ...


class Landmark(Protocol):
    """See :meth:`kinflow.perception.blazepose.PoseLandmarker.forward`."""

    def __call__(self, crop: Tensor, with_mask: bool = True) -> LandmarkOutput: ...


class Segment(Protocol):
    """See :meth:`kinflow.perception.bodypix.BodyPix.forward`; keypoints are not computed."""

    def __call__(self, image: Tensor) -> PartOutput: ...


class Networks(NamedTuple):
    """The front end's networks, ready to run on float32 images. One thread at a time may call them."""

    detect: Detect
    landmark: Landmark
    runtime: str  #: "torch" or "openvino"
    segment: Segment | None = None  #: where parts are asked for


def load_networks(config: PerceptionConfig, device: torch.device) -> Networks:
    """The networks in the runtime that the configuration asks for.

    "auto" is OpenVINO where it is installed, the device is a CPU and the precision float32, else torch. Should OpenVINO fail
    to load, torch takes its place and a warning says so, once.

    Raises:
        MissingAssetError: the installation lacks a network's weights.
        UsageError: "openvino" is asked for and cannot be had.
    """
    obstacle = _obstacle(config, device)
    if config.runtime == "openvino":
        if obstacle:
            raise UsageError(f"perception.runtime: openvino {obstacle}, or set perception.runtime=auto.")
        return _in_openvino(config)
    if config.runtime == "auto" and not obstacle:
        try:
            return _in_openvino(config)
        except KinflowError:
            raise
        except Exception as error:  # whatever a foreign library raises on a machine it does not fit
            _warn_once(f"OpenVINO does not load, torch runs instead: {' '.join(str(error).split())[:200]}")
    return _in_torch(config, device)


def load_detector() -> PoseDetector:
    """The torch module with its packaged weights, for inference, in float32.

    Raises:
        MissingAssetError: the installation lacks the file.
    """
    return _with_weights(PoseDetector, asset_path(DETECTOR_ASSET))


def load_landmarker(variant: Variant) -> PoseLandmarker:
    """The torch module with its packaged weights, for inference, in float32.

    Raises:
        MissingAssetError: the installation lacks the file.
    """
    return _with_weights(lambda: PoseLandmarker(variant), _landmark_weights(variant))


def load_bodypix() -> BodyPix:
    """The torch module with its packaged weights, for inference, in float32.

    Raises:
        MissingAssetError: the installation lacks the file.
    """
    return _with_weights(BodyPix, _part_weights())


def _part_weights() -> Path:
    return asset_path(PART_ASSET, "Install the package again, or set perception.parts=false.")


def _landmark_weights(variant: Variant) -> Path:
    other = "full" if variant == "heavy" else "heavy"
    remedy = f"Install the package again, or set perception.landmarks={other}."
    return asset_path(LANDMARK_ASSET.format(variant), remedy)


def _with_weights(build: Callable[[], N], weights: Path, memory_format: torch.memory_format = torch.channels_last) -> N:
    state = safetensors.torch.load_file(weights)
    with torch.device("meta"):  # drawing random weights that are overwritten takes as long as reading the file
        network = build()
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=memory_format)  # type: ignore[call-overload,no-any-return]


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


# --- torch ---------------------------------------------------------------------------------------------------------------


def _in_torch(config: PerceptionConfig, device: torch.device) -> Networks:
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32

    def prepared(network: nn.Module, size: int) -> nn.Module:
        network = network.to(device, dtype)
        if device.type == "cpu":
            fuse_convolutions(network, torch.zeros(1, 3, size, size, dtype=dtype))
        return network

    def laid_out(images: Tensor) -> Tensor:
        return images.to(dtype).contiguous(memory_format=torch.channels_last)

    detector = prepared(load_detector(), DETECTOR_SIZE)
    landmarker = prepared(load_landmarker(config.landmarks), LANDMARK_SIZE)
    bodypix = prepared(load_bodypix(), PART_SIZE) if config.parts else None
    return Networks(
        lambda image: detector(laid_out(image)),
        lambda crop, with_mask=True: landmarker(laid_out(crop), with_mask),
        "torch",
        None if bodypix is None else lambda image: bodypix(laid_out(image), False),
    )


# --- OpenVINO ------------------------------------------------------------------------------------------------------------


def _obstacle(config: PerceptionConfig, device: torch.device) -> str:
    """Why OpenVINO cannot run the networks here, and what to do about it; empty where it can."""
    if device.type != "cpu":
        return f"runs on CPUs only and the device is {device}. Use --device cpu"
    if config.precision != "float32":
        return f"runs in float32 and perception.precision is {config.precision}. Set it to float32"
    if importlib.util.find_spec("openvino") is None:
        return "is not installed. Run pip install kinflow[fast]"
    return ""


def _in_openvino(config: PerceptionConfig) -> Networks:
    threads = torch.get_num_threads()
    return Networks(
        _OpenvinoDetector(threads),
        _OpenvinoLandmarker(config.landmarks, threads, config.masks),
        "openvino",
        _OpenvinoBodyPix(threads) if config.parts else None,
    )


class _OpenvinoDetector:
    def __init__(self, threads: int) -> None:
        self._run = _Request(_compiled("detector", asset_path(DETECTOR_ASSET), threads))

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        check_shape("image", image, f"N 3 {DETECTOR_SIZE} {DETECTOR_SIZE}", "letterbox the frame")
        boxes, logits = self._run(image)
        return boxes, logits


class _OpenvinoBodyPix:
    def __init__(self, threads: int) -> None:
        self._run = _Request(_compiled("bodypix", _part_weights(), threads, False))

    def __call__(self, image: Tensor) -> PartOutput:
        check_shape("image", image, f"N 3 {PART_SIZE} {PART_SIZE}", "warp the region of interest to it")
        mask, parts = self._run(image)
        return PartOutput(mask, parts, None, None)


class _OpenvinoLandmarker:
    """Two models, with the mask and without it; the one not expected to be used is compiled when it is."""

    def __init__(self, variant: Variant, threads: int, masks: bool) -> None:
        self._variant: Variant = variant
        self._threads = threads
        self._run = {masks: self._request(masks)}

    def _request(self, with_mask: bool) -> _Request:
        return _Request(_compiled(self._variant, _landmark_weights(self._variant), self._threads, with_mask))

    def __call__(self, crop: Tensor, with_mask: bool = True) -> LandmarkOutput:
        check_shape("crop", crop, f"N 3 {LANDMARK_SIZE} {LANDMARK_SIZE}", "warp the region of interest to 256 x 256")
        if with_mask not in self._run:
            self._run[with_mask] = self._request(with_mask)
        outputs = iter(self._run[with_mask](crop))
        absent = () if with_mask else ("mask",)
        return LandmarkOutput(*[None if name in absent else next(outputs) for name in LandmarkOutput._fields])  # type: ignore[arg-type]


class _Request:
    """A compiled model with buffers of its own. Images go through one by one: on a CPU a batch gains nothing (measured)."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, images: Tensor) -> list[Tensor]:
        rows = []
        for image in images.float().contiguous().split(1):
            outputs = self._request.infer([image.numpy()], share_inputs=True)
            rows.append([torch.from_numpy(values) for values in outputs.values()])
        return [torch.cat(column) for column in zip(*rows, strict=True)]


@functools.cache
def _compiled(name: Variant | Literal["detector", "bodypix"], weights: Path, threads: int, *arguments: bool) -> Any:
    """A network compiled for so many threads, with further arguments of its ``forward``; once a process."""
    import openvino

    build: Callable[[], nn.Module]
    if name == "detector":
        build, size = PoseDetector, DETECTOR_SIZE
    elif name == "bodypix":
        build, size = BodyPix, PART_SIZE
    else:
        build, size = functools.partial(PoseLandmarker, name), LANDMARK_SIZE
    network = _with_weights(build, weights, torch.contiguous_format)
    model = openvino_model(network, torch.zeros(1, 3, size, size), *arguments)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice on CPUs that have it is bfloat16
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # processes side by side would all be pinned to the same cores
    }
    return openvino.Core().compile_model(model, "CPU", settings)
