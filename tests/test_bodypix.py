"""BodyPix in torch against its original file, and the maps that are made of its answer.

The golden file is written by tests/golden/make_bodypix.py.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from kinflow.assets import asset_path
from kinflow.body import Body
from kinflow.cameras import Focal, intrinsics, project
from kinflow.datasets.synthetic import random_look, render_frames
from kinflow.errors import MissingAssetError, ShapeError, UsageError
from kinflow.evidence import Evidence
from kinflow.perception.bodypix import PartOutput
from kinflow.perception.crops import crop_to_frame, warp_crops
from kinflow.perception.parts import MAP_SIZE, MARGIN, PART_SIZE, SKULL, facing, mask_agreement, part_maps, upright_roi
from kinflow.perception.runtimes import PART_ASSET, load_bodypix
from kinflow.rotations import rotvec_to_rotmat
from kinflow.skeleton import BODYPIX24

HERE = Path(__file__).parent / "golden"
ORIGINAL = "networks/bodypix_mobilenet_x050_stride8.onnx"  #: of the shared data


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    sys.path.insert(0, str(HERE))
    try:
        return importlib.import_module("make_bodypix")
    finally:
        sys.path.remove(str(HERE))


def _picture(maker: ModuleType, size: int) -> torch.Tensor:
    return 2 * torch.from_numpy(maker.synthetic_person(size)).permute(2, 0, 1)[None] - 1


def test_golden(maker: ModuleType) -> None:
    with torch.inference_mode():
        output = load_bodypix()(_picture(maker, maker.SIZE))
    with np.load(HERE / "bodypix.npz") as golden:
        for name in golden.files:
            found = getattr(output, name).numpy().reshape(golden[name].shape)
            np.testing.assert_allclose(found, golden[name], atol=2e-3, rtol=2e-3, err_msg=name)  # stored in float16


@pytest.mark.parametrize("size", [129, 257, 265])
def test_agrees_with_the_original(maker: ModuleType, shared_data: Path, size: int) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    if not (shared_data / ORIGINAL).is_file():
        pytest.skip(f"the shared data lack {ORIGINAL}")
    for picture in (_picture(maker, size), 2 * torch.rand(1, 3, size, size) - 1):
        expected = maker.run(shared_data / ORIGINAL, picture[0].permute(1, 2, 0).contiguous().numpy())
        with torch.inference_mode():
            output = load_bodypix()(picture)
        for name, wanted in expected.items():
            found = getattr(output, name).numpy().reshape(wanted.shape)
            np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=1e-4, err_msg=name)


def test_without_keypoints_the_rest_is_the_same(maker: ModuleType) -> None:
    network, picture = load_bodypix(), _picture(maker, 129)
    with torch.inference_mode():
        whole, part = network(picture), network(picture, with_keypoints=False)
    assert part.heatmaps is None and part.offsets is None
    assert torch.equal(whole.mask, part.mask) and torch.equal(whole.parts, part.parts)


def test_sizes_are_checked() -> None:
    with pytest.raises(ShapeError, match="8 n"):
        load_bodypix()(torch.zeros(1, 3, 256, 256))
    with pytest.raises(ShapeError, match="image"):
        load_bodypix()(torch.zeros(1, 3, 257, 129))


def test_missing_weights_name_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kinflow.assets.FOLDER", tmp_path)
    with pytest.raises(MissingAssetError, match=r"perception\.parts=false"):
        load_bodypix()


def test_weights_have_a_card() -> None:
    card = asset_path(PART_ASSET).with_suffix(".md").read_text()
    assert "Apache-2.0" in card and "sha256" in card


# -- the crop and the maps ----------------------------------------------------------------------------------------------


def _leaning(angle: float, lean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of somebody 210 px tall about (300, 400), turned clockwise, whose torso leans; one is unsure and far away."""

    def turned(points: np.ndarray, by: float) -> np.ndarray:
        cos, sin = math.cos(by), math.sin(by)
        return points @ np.array([[cos, sin], [-sin, cos]])

    points = np.zeros((33, 2))
    points[[11, 12]], points[[23, 24]] = [[20, -60], [-20, -60]], [[15, 0], [-15, 0]]
    points[[0, 7, 8]] = [[0, -88], [8, -90], [-8, -90]]
    points = turned(points, lean)
    points[[27, 28]] = [[10, 110], [-10, 110]]
    points = turned(points, angle) + [300, 400]
    points[15] = [0, 0]
    return points, np.where(np.arange(33) == 15, 0.01, 0.9)


@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0, 3.0])
def test_the_crop_shows_people_upright_and_whole(angle: float) -> None:
    points, confidence = _leaning(angle)
    roi = upright_roi(points, confidence)
    assert abs(math.remainder(roi[3] - angle, 2 * math.pi)) < 1e-9
    height = 110 + 90 + SKULL * 30
    assert roi[2] == pytest.approx((1 + 2 * MARGIN) * height)  # the unsure landmark is left out, the skull is not
    corners = crop_to_frame(np.array([[[0.5, 0.0], [0.5, 1.0]]]), roi[None])[0]
    middle = points[[27, 28]].mean(0)
    up = (points[[11, 12]].mean(0) - middle) / 170
    np.testing.assert_allclose(corners, middle + np.outer([height * (1 + MARGIN), -height * MARGIN], up), atol=1e-9)


def test_the_crop_lies_between_torso_and_body_where_ankles_are_sure() -> None:
    points, confidence = _leaning(0.3, lean=0.8)
    body = points[[11, 12]].mean(0) - points[[27, 28]].mean(0)
    whole = math.atan2(body[0], -body[1])
    assert upright_roi(points, confidence)[3] == pytest.approx(0.5 * (1.1 + whole))
    assert upright_roi(points, np.where(np.arange(33) == 28, 0.2, confidence))[3] == pytest.approx(1.1)


def test_maps_label_the_likeliest_part_where_somebody_is() -> None:
    cells = (PART_SIZE - 1) // 8 + 1
    mask, parts = torch.full((2, cells, cells), -9.0), torch.full((2, 24, cells, cells), -9.0)
    mask[0, :, : cells // 2] = 9.0
    parts[0, BODYPIX24.index("torso_front")], parts[0, BODYPIX24.index("torso_back")] = 2.0, 1.0
    parts[1] = 9.0  # parts of nobody
    rois = np.array([[300.0, 200.0, 100.0, 0.3]] * 2)
    labels, confidence, regions = part_maps(PartOutput(mask, parts, None, None), rois, (640, 480))
    assert labels.shape == confidence.shape == (2, MAP_SIZE, MAP_SIZE) and labels.dtype == confidence.dtype == np.uint8
    assert (labels[0, :, : MAP_SIZE // 2 - 1] == 1 + BODYPIX24.index("torso_front")).all()
    assert abs(int(confidence[0, 5, 5]) - 255 * torch.sigmoid(torch.tensor(2.0)).item()) < 1
    assert not labels[0, :, MAP_SIZE // 2 + 1 :].any() and not labels[1].any() and not confidence[1].any()
    np.testing.assert_allclose(regions, rois * [1, 1, 8 * cells / PART_SIZE, 1])


def test_maps_lie_where_the_network_saw_them() -> None:
    """A cell of the output is centred on every eighth pixel: at px 8 k + 0.5 of the crop."""
    cells = (PART_SIZE - 1) // 8 + 1
    mask = torch.full((1, cells, cells), -40.0)
    row, column = 9, 20
    mask[0, row - 2 : row + 3, column - 2 : column + 3] = 40.0
    roi = np.array([[300.0, 200.0, float(PART_SIZE), 0.4]])
    labels, _, regions = part_maps(PartOutput(mask, torch.zeros(1, 24, cells, cells), None, None), roi, (640, 480))
    seen = (np.stack(np.nonzero(labels[0])[::-1], -1) + 0.5).mean(0) / MAP_SIZE
    expected = (8 * np.array([column, row]) + 0.5) / PART_SIZE
    where, wanted = (crop_to_frame(p[None, None], r)[0, 0] for p, r in ((seen, regions), (expected, roi)))
    assert np.linalg.norm(where - wanted) < 4  # of cells of 8 px


def test_nobody_is_seen_outside_the_frame() -> None:
    cells = (PART_SIZE - 1) // 8 + 1
    everywhere = PartOutput(torch.full((1, cells, cells), 9.0), torch.zeros(1, 24, cells, cells), None, None)
    roi = np.array([[0.0, 50.0, 40.0, 0.0]])  # its left half lies left of the frame
    labels, confidence, _ = part_maps(everywhere, roi, (100, 100))
    half = MAP_SIZE // 2
    assert labels[0, :, half:].all() and not labels[0, :, :half].any() and not confidence[0, :, :half].any()


# -- what is read from the maps -------------------------------------------------------------------------------------------


def _evidence(parts: np.ndarray, confidence: np.ndarray, masks: np.ndarray | None = None) -> Evidence:
    """Evidence (T rows) with these maps; both crops are 96 px wide, BlazePose's a quarter of it further left."""
    steps = len(parts)
    zeros = np.zeros
    return Evidence(
        person_id=0, frame_ids=np.arange(steps), timestamps=np.arange(steps) / 30.0, observed=np.ones(steps, bool),
        keypoints2d=zeros((steps, 33, 2)), confidence=zeros((steps, 33)), world_landmarks=zeros((steps, 33, 3)),
        has_world=zeros(steps, bool), boxes_xyxy=zeros((steps, 4)), rois=np.tile([76.0, 100, 96, 0], (steps, 1)),
        image_size=np.array([200, 200]), masks=masks, parts=parts, part_confidence=confidence,
        part_rois=np.tile([100.0, 100, 96, 0], (steps, 1)),
    )  # fmt: skip


def test_facing() -> None:
    parts, confidence = np.zeros((4, 48, 48), np.uint8), np.full((4, 48, 48), 255, np.uint8)
    front, back = (1 + BODYPIX24.index(name) for name in ("torso_front", "torso_back"))
    parts[0, :20, :20] = front
    parts[1, :20, :20], parts[1, 20:, 20:] = back, 1 + BODYPIX24.index("left_face")
    parts[2, :10, :], parts[2, 10:20, :] = front, back
    confidence[2, :10] = 85
    found = facing(_evidence(parts, confidence))
    np.testing.assert_allclose(found, [404 / 408, 4 / 408, (160 + 4) / (640 + 8), 0.5])
    with pytest.raises(UsageError, match=r"perception\.parts_interval_s=0"):
        facing(dataclasses.replace(_evidence(parts, confidence), parts=None))


def test_mask_agreement_is_counted_where_both_look() -> None:
    """The crops share 72 px: the left three quarters of the part map, the right three quarters of the mask."""
    parts, masks = np.zeros((3, 48, 48), np.uint8), np.zeros((3, 64, 64), np.uint8)
    parts[0, :, 12:], masks[0, :, 32:] = 1, 255  # px 76 to 148 against 76 to 124
    parts[1, :, 6:12], masks[1, :, 16:32] = 1, 255  # px 64 to 76 against 52 to 76
    evidence = _evidence(parts, parts, masks)
    np.testing.assert_allclose(mask_agreement(evidence), [1.0, 0.5, 0.0])
    edge = dataclasses.replace(evidence, image_size=np.array([70, 200]))  # the second: px 64 to 70 against 52 to 70
    np.testing.assert_allclose(mask_agreement(edge)[1], 1 / 3)
    with pytest.raises(UsageError, match=r"perception\.masks=true"):
        mask_agreement(dataclasses.replace(evidence, masks=None))


def test_a_rendered_body_is_seen_from_the_side_that_it_shows() -> None:
    body, size = Body.open("light"), (240, 320)
    betas, K = torch.zeros(1, 10), intrinsics(size, Focal(400.0))
    rest = body.vertices(betas, torch.eye(3).expand(1, 24, 3, 3))[0].numpy()
    look = random_look(size, body.part_labels.numpy(), rest, np.random.default_rng(3))
    pose = rotvec_to_rotmat(torch.zeros(2, 24, 3))
    pose[:, 16], pose[:, 17] = (rotvec_to_rotmat(torch.tensor([0, 0, a])) for a in (-1.1, 1.1))  # arms hang
    pose[:, 0] = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, -1.0, -1.0], [-1.0, -1.0, 1.0])])
    transl = torch.tensor([[0.0, 0.1, 3.0]]).expand(2, 3)
    images = render_frames(body.vertices(betas, pose, transl), body.faces, K, size, look)
    points = project(body.landmarks(betas, pose, transl), K).numpy().astype(np.float64)
    rois = np.stack([upright_roi(p, np.full(33, 0.9)) for p in points])
    crops = 2 * warp_crops([torch.from_numpy(i) for i in images], rois, PART_SIZE) - 1
    with torch.inference_mode():
        parts, confidence, _ = part_maps(load_bodypix()(crops), rois, size)
    towards, away = facing(_evidence(parts, confidence))
    assert towards > 0.8 and away < 0.2
    for labels, mirrored in zip(parts, (False, True), strict=True):
        _, columns = np.nonzero(np.isin(labels, [1 + i for i, name in enumerate(BODYPIX24) if name.startswith("left")]))
        _, others = np.nonzero(np.isin(labels, [1 + i for i, name in enumerate(BODYPIX24) if name.startswith("right")]))
        assert (columns.mean() < others.mean()) == mirrored
