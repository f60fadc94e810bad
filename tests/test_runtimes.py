"""Runtimes give what the torch modules give, and the choice between them says what it does."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from kinflow.config import PerceptionConfig
from kinflow.errors import MissingAssetError, ShapeError, UsageError
from kinflow.perception import Perceiver, runtimes
from kinflow.perception.blazepose import DETECTOR_SIZE, LANDMARK_SIZE, LANDMARKERS, LandmarkOutput, Variant
from kinflow.perception.parts import PART_SIZE
from kinflow.perception.runtimes import load_detector, load_landmarker, load_networks

CPU = torch.device("cpu")
with_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed (pip install kinflow[fast])"
)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("maker", Path(__file__).parent / "golden" / "make_blazepose.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(maker: ModuleType, size: int) -> torch.Tensor:
    """(3, 3, size, size): a figure, the same mirrored and dimmed, noise."""
    figure = torch.from_numpy(maker.synthetic_person(size)).permute(2, 0, 1)
    return torch.stack([figure, 0.6 * figure.flip(-1), torch.rand_like(figure)])


@with_openvino
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("variant", list(LANDMARKERS))
def test_openvino_landmarks_are_torchs(maker: ModuleType, variant: Variant, with_mask: bool) -> None:
    crops = pictures(maker, LANDMARK_SIZE)
    networks = load_networks(PerceptionConfig(landmarks=variant, runtime="openvino"), CPU)
    assert networks.runtime == "openvino"
    with torch.inference_mode():
        expected, found = load_landmarker(variant)(crops, with_mask), networks.landmark(crops, with_mask)
    assert (found.mask is None) == (not with_mask)
    bounds = {"landmarks": 0.02, "score": 1e-5, "mask": 2e-3, "heatmaps": 2e-3, "world": 1e-4, "code": 1e-3, "pyramid": 1e-3}  # fmt: skip
    for name in LandmarkOutput._fields:
        wanted, got = getattr(expected, name), getattr(found, name)
        if wanted is not None:
            assert got.shape == wanted.shape and got.dtype == torch.float32
            if name == "mask":  # its logits reach -480: compared as probabilities
                wanted, got = wanted.sigmoid(), got.sigmoid()
            assert (got - wanted).abs().max() < bounds[name], name


@with_openvino
def test_openvino_detections_are_torchs(maker: ModuleType) -> None:
    images = 2 * pictures(maker, DETECTOR_SIZE) - 1
    with torch.inference_mode():
        expected = load_detector()(images)
        found = load_networks(PerceptionConfig(runtime="openvino"), CPU).detect(images)
    for wanted, got in zip(expected, found, strict=True):
        torch.testing.assert_close(got, wanted, atol=5e-3, rtol=0)


@with_openvino
def test_openvino_parts_are_torchs(maker: ModuleType) -> None:
    images = 2 * pictures(maker, PART_SIZE) - 1
    both = [load_networks(PerceptionConfig(landmarks="full", runtime=r), CPU).segment for r in ("torch", "openvino")]  # type: ignore[arg-type]
    with torch.inference_mode():
        expected, found = (segment(images) for segment in both)  # type: ignore[misc]
    assert found.heatmaps is None and found.offsets is None
    torch.testing.assert_close(found.mask, expected.mask, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.parts, expected.parts, atol=1e-3, rtol=0)
    assert load_networks(PerceptionConfig(landmarks="full", parts=False), CPU).segment is None


@with_openvino
def test_openvino_checks_shapes() -> None:
    networks = load_networks(PerceptionConfig(landmarks="full", runtime="openvino"), CPU)
    with pytest.raises(ShapeError, match="224"):
        networks.detect(torch.zeros(1, 3, 256, 256))
    with pytest.raises(ShapeError, match="256"):
        networks.landmark(torch.zeros(3, 256, 256))


@with_openvino
def test_models_are_compiled_once() -> None:
    config = PerceptionConfig(landmarks="full")
    load_networks(config, CPU)
    before = runtimes._compiled.cache_info()
    networks = load_networks(config, CPU)
    assert networks.runtime == "openvino"
    after = runtimes._compiled.cache_info()
    assert after.misses == before.misses and after.hits == before.hits + 3


@with_openvino
def test_a_perceiver_sees_the_same_in_both(maker: ModuleType) -> None:
    figure = (255 * maker.synthetic_person(240)).astype(np.uint8)
    # Six frames: through the region that each frame hands to the next, rounding grows two- to fourfold a frame.
    frames = np.full((6, 320, 640, 3), (150, 155, 150), np.uint8)
    for k, frame in enumerate(frames):
        frame[40:280, 100 + 2 * k : 340 + 2 * k] = figure
    seen = []
    for runtime in ("torch", "openvino"):
        perceiver = Perceiver(PerceptionConfig(landmarks="full", runtime=runtime, parts_interval_s=0.0))  # type: ignore[arg-type]
        perceiver.update(frames, np.arange(6) / 30, np.arange(6))
        seen += perceiver.finish()
    one, other = seen
    assert one.observed.all() and other.observed.all()
    np.testing.assert_allclose(other.keypoints2d, one.keypoints2d, atol=0.1)
    np.testing.assert_allclose(other.world_landmarks, one.world_landmarks, atol=1e-3)
    assert (other.parts == one.parts).mean() > 0.995


def test_auto_without_openvino_is_torch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = PerceptionConfig(landmarks="full")
    assert load_networks(config, CPU).runtime == "torch"
    assert not caplog.records
    with pytest.raises(UsageError, match=r"kinflow\[fast\]"):
        load_networks(dataclasses.replace(config, runtime="openvino"), CPU)


def test_openvino_is_for_cpus_and_float32() -> None:
    config = PerceptionConfig(runtime="openvino", precision="bfloat16")
    with pytest.raises(UsageError, match="bfloat16"):
        load_networks(config, CPU)
    with pytest.raises(UsageError, match="cuda"):
        load_networks(dataclasses.replace(config, precision="float32"), torch.device("cuda"))
    assert load_networks(dataclasses.replace(config, runtime="auto", landmarks="full"), CPU).runtime == "torch"


def test_auto_falls_back_and_says_so_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise OSError("libopenvino.so:\n undefined symbol")

    monkeypatch.setattr(runtimes, "_obstacle", lambda *_: "")
    monkeypatch.setattr(runtimes, "_compiled", broken)
    runtimes._warn_once.cache_clear()
    config = PerceptionConfig(landmarks="full")
    with caplog.at_level(logging.WARNING):
        assert load_networks(config, CPU).runtime == load_networks(config, CPU).runtime == "torch"
    (record,) = caplog.records
    assert "torch runs instead" in record.message and "undefined symbol" in record.message
    with pytest.raises(OSError, match="undefined symbol"):
        load_networks(dataclasses.replace(config, runtime="openvino"), CPU)


def test_missing_weights_are_no_reason_to_fall_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kinflow.assets.FOLDER", tmp_path)
    for runtime in ("auto", "torch"):
        with pytest.raises(MissingAssetError, match="Install the package again"):
            load_networks(PerceptionConfig(runtime=runtime, landmarks="full"), CPU)  # type: ignore[arg-type]


@with_openvino
def test_an_unknown_function_is_named() -> None:
    from kinflow.perception.openvino_graph import openvino_model

    with pytest.raises(NotImplementedError, match="tanh"):
        openvino_model(nn.Tanh(), torch.zeros(1, 3, 4, 4))
