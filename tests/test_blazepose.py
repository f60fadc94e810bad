"""The BlazePose modules on their own: golden outputs of LiteRT on a synthetic picture, fusion, gradients, errors.

The golden file is written by tests/golden/make_blazepose.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from kinflow.assets import asset_path
from kinflow.errors import MissingAssetError, ShapeError
from kinflow.perception.blazepose import (
    CODE_SIZE,
    DETECTOR_SIZE,
    LANDMARK_SIZE,
    LANDMARKERS,
    LandmarkOutput,
    PoseDetector,
    PoseLandmarker,
    Variant,
)
from kinflow.perception.convolution import Conv, fuse_convolutions
from kinflow.perception.runtimes import DETECTOR_ASSET, LANDMARK_ASSET, load_detector, load_landmarker

HERE = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_blazepose", HERE / "make_blazepose.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def detections() -> dict[str, np.ndarray]:
    with np.load(HERE / "blazepose_detector.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=list(LANDMARKERS))
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param


@pytest.fixture(scope="module")
def golden(variant: Variant) -> dict[str, np.ndarray]:
    with np.load(HERE / f"blazepose_{variant}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def detector() -> PoseDetector:
    return load_detector()


@pytest.fixture(scope="module")
def landmarker(variant: Variant) -> PoseLandmarker:
    return load_landmarker(variant)


def _picture(maker: ModuleType, size: int) -> torch.Tensor:
    return torch.from_numpy(maker.synthetic_person(size)).permute(2, 0, 1)[None]


def _compare(output: LandmarkOutput, golden: dict[str, np.ndarray], px: float, metres: float, logit: float) -> None:
    difference = np.abs(output.landmarks[0].numpy() - golden["landmarks"])
    assert difference[:, :2].max() < px
    assert abs(output.score.item() - golden["score"]) < 0.01
    np.testing.assert_allclose(output.world[0].numpy(), golden["world"], atol=metres)
    sites = torch.from_numpy(golden["heatmap_sites"].astype(np.int64))
    peaks = output.heatmaps[0].float().reshape(39, -1).gather(1, sites[:, None])[:, 0]
    np.testing.assert_allclose(peaks.numpy(), golden["heatmap_peaks"], atol=logit)
    assert output.mask is not None
    mask, wanted = output.mask[0, 4::8, 4::8].numpy() > 0, golden["mask"] > 0
    assert (mask & wanted).sum() >= 0.99 * (mask | wanted).sum()


def test_golden_detector(maker: ModuleType, detections: dict[str, np.ndarray], detector: PoseDetector) -> None:
    with torch.inference_mode():
        boxes, logits = detector(_picture(maker, DETECTOR_SIZE) * 2 - 1)
    assert boxes.shape == (1, 2254, 12) and logits.shape == (1, 2254)
    np.testing.assert_allclose(boxes[0, detections["anchors"]].numpy(), detections["boxes"], atol=0.05)
    np.testing.assert_allclose(logits[0, detections["anchors"]].numpy(), detections["logits"], atol=0.01)


def test_golden_landmarks(maker: ModuleType, golden: dict[str, np.ndarray], landmarker: PoseLandmarker) -> None:
    with torch.inference_mode():
        output = landmarker(_picture(maker, LANDMARK_SIZE))
    assert output.score > 0.5
    _compare(output, golden, px=0.05, metres=1e-3, logit=0.01)


def test_fused_is_the_same_network(maker: ModuleType, golden: dict[str, np.ndarray], variant: Variant) -> None:
    fused = load_landmarker(variant)
    picture = _picture(maker, LANDMARK_SIZE).contiguous(memory_format=torch.channels_last)
    if not fuse_convolutions(fused, picture):
        pytest.skip("this torch build has no oneDNN fusion")
    with torch.inference_mode():
        _compare(fused(picture), golden, px=0.05, metres=1e-3, logit=0.01)
        pair = fused(torch.cat([picture, picture.flip(-1)]))
    np.testing.assert_allclose(pair.landmarks[0].numpy(), golden["landmarks"], atol=0.05)


def test_bfloat16_stays_close(maker: ModuleType, golden: dict[str, np.ndarray], variant: Variant) -> None:
    network = load_landmarker(variant).to(torch.bfloat16)
    with torch.inference_mode():
        output = network(_picture(maker, LANDMARK_SIZE).to(torch.bfloat16))
    assert np.abs(output.landmarks[0, :, :2].numpy() - golden["landmarks"][:, :2]).mean() < 3.0
    assert abs(output.score.item() - golden["score"]) < 0.1


def test_batch_mates_do_not_matter(maker: ModuleType, landmarker: PoseLandmarker) -> None:
    picture = _picture(maker, LANDMARK_SIZE)
    other = torch.rand(2, 3, LANDMARK_SIZE, LANDMARK_SIZE)
    with torch.inference_mode():
        alone, together = landmarker(picture), landmarker(torch.cat([other, picture]))
    torch.testing.assert_close(together.landmarks[2:], alone.landmarks, atol=5e-3, rtol=0)
    torch.testing.assert_close(together.code[2:], alone.code, atol=1e-3, rtol=0)


def test_without_mask(maker: ModuleType, landmarker: PoseLandmarker) -> None:
    with torch.inference_mode():
        output = landmarker(_picture(maker, LANDMARK_SIZE), with_mask=False)
    assert output.mask is None and output.code.shape == (1, CODE_SIZE) and output.pyramid.shape == (1, 48, 64, 64)


def test_gradients_reach_picture_and_weights(maker: ModuleType, variant: Variant) -> None:
    network = PoseLandmarker(variant)
    network.load_state_dict(load_landmarker(variant).state_dict())
    picture = _picture(maker, LANDMARK_SIZE).requires_grad_()
    output = network(picture)
    assert output.mask is not None
    loss = (
        output.world.square().sum() + output.score.sum() + output.heatmaps.square().mean() + output.mask.square().mean()
    )
    (loss + output.landmarks.square().mean()).backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_fused_convolution(act: bool, residual: bool) -> None:
    conv = Conv(8, 8, 3, groups=8, act=act)
    x = 5 * torch.randn(2, 8, 9, 7).contiguous(memory_format=torch.channels_last)
    extra = 5 * torch.randn_like(x) if residual else None
    with torch.no_grad():
        expected = conv(x, extra)
        if not fuse_convolutions(conv, x):
            pytest.skip("this torch build has no oneDNN fusion")
        torch.testing.assert_close(conv(x, extra), expected, atol=1e-5, rtol=1e-5)


def test_wrong_sizes_are_named(detector: PoseDetector) -> None:
    with pytest.raises(ShapeError, match="224"):
        detector(torch.zeros(1, 3, 256, 256))
    with pytest.raises(ShapeError, match="256"):
        PoseLandmarker("full")(torch.zeros(3, 256, 256))


@pytest.mark.parametrize("asset", [DETECTOR_ASSET, *[LANDMARK_ASSET.format(variant) for variant in LANDMARKERS]])
def test_weights_have_a_card(asset: str) -> None:
    assert asset_path(asset).stat().st_size <= (28 if "heavy" in asset else 16) * 2**20
    card = asset_path(asset).with_suffix(".md").read_text()
    assert "Apache-2.0" in card and "sha256" in card


def test_missing_weights_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinflow.assets.FOLDER", tmp_path)
    with pytest.raises(MissingAssetError, match=r"blazepose_landmark_heavy.*perception\.landmarks=full"):
        load_landmarker("heavy")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda(maker: ModuleType, golden: dict[str, np.ndarray], variant: Variant) -> None:
    network = load_landmarker(variant).cuda()
    with torch.inference_mode():
        output = network(_picture(maker, LANDMARK_SIZE).cuda())
    assert np.abs(output.landmarks[0, :, :2].cpu().numpy() - golden["landmarks"][:, :2]).max() < 0.5


def test_a_build_that_cannot_fuse_stays_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Conv, batch: int, height: int, width: int) -> None:
        raise RuntimeError("no such primitive")

    conv, x = Conv(4, 4, 1), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        expected = conv(x)
        monkeypatch.setattr(Conv, "pack", refuse)
        assert not fuse_convolutions(conv, x)
        torch.testing.assert_close(conv(x), expected)
