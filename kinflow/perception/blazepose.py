"""The BlazePose networks as torch modules: a person detector, and a landmark network in two sizes, heavy and full.

Architecture of ``pose_detection.tflite``, ``pose_landmark_full.tflite`` and ``pose_landmark_heavy.tflite`` (MediaPipe,
Apache-2.0), written out from their graphs; the weights are imported by ``tools/import_blazepose.py``. Source: Bazarevsky et
al., "BlazePose: On-device Real-time Body Pose tracking" (arXiv 2006.10204); MediaPipe ``modules/pose_detection`` and
``modules/pose_landmark``.

Inputs are float tensors (N, 3, H, W), RGB. Everything is batched, differentiable, and runs on any torch device.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinflow.errors import check_shape
from kinflow.perception.convolution import Conv

__all__ = [
    "DETECTOR_SIZE",
    "LANDMARKERS",
    "LANDMARK_SIZE",
    "LandmarkNetwork",
    "LandmarkOutput",
    "PoseDetector",
    "PoseLandmarker",
    "Variant",
]

DETECTOR_SIZE = 224
LANDMARK_SIZE = 256
NUM_POINTS = 39
CODE_SIZE = 4 * 288
PYRAMID_SIZE = 48

Block = tuple[int, int, int, int]  #: an inverted bottleneck: outputs, expanded, kernel, stride
Variant = Literal["heavy", "full"]


class LandmarkNetwork(NamedTuple):
    """Widths and depths in which the landmark networks differ."""

    stem: int  #: channels at 128 x 128
    stage1: tuple[Block, ...]  #: at 64 x 64
    stage2: tuple[Block, ...]  #: at 32 x 32
    stage3: tuple[Block, ...]  #: at 16 x 16
    stage4: tuple[Block, ...]  #: at 8 x 8
    top: int  #: channels of the trunk's last map, at 8 x 8
    descent: tuple[tuple[int, int], ...]  #: width, residual blocks at 32, 16, 8, down from the decoder's map; or none
    regress: tuple[int, int]  #: residual blocks at 4 x 4 and at 2 x 2


LANDMARKERS: dict[Variant, LandmarkNetwork] = {
    "full": LandmarkNetwork(
        stem=16,
        stage1=((24, 64, 3, 2), (24, 144, 3, 1)),
        stage2=((32, 144, 5, 2), (32, 192, 5, 1)),
        stage3=((64, 192, 3, 2), *[(64, 384, 3, 1)] * 2, (88, 384, 5, 1), *[(88, 528, 5, 1)] * 2),
        stage4=((144, 528, 5, 2), *[(144, 864, 5, 1)] * 3),
        top=864,
        descent=(),
        regress=(4, 5),
    ),
    "heavy": LandmarkNetwork(
        stem=24,
        stage1=((32, 96, 3, 2), (32, 128, 3, 1), *[(32, 192, 3, 1)] * 2),
        stage2=((56, 192, 5, 2), *[(56, 336, 5, 1)] * 3),
        stage3=((112, 336, 3, 2), *[(112, 672, 3, 1)] * 5, (160, 672, 5, 1), *[(160, 960, 5, 1)] * 5),
        stage4=((272, 960, 5, 2), *[(272, 1632, 5, 1)] * 7),
        top=1632,
        descent=((96, 6), (192, 7), (288, 7)),
        regress=(7, 7),
    ),
}


class LandmarkOutput(NamedTuple):
    """What the landmark network says of N crops; coordinates are those of the 256 x 256 crop."""

    landmarks: Tensor  #: (N, 39, 5) x px, y px, z px, visibility logit, presence logit
    score: Tensor  #: (N,) probability that the crop shows a person
    mask: Tensor | None  #: (N, 256, 256) person logit, or None where it was not asked for
    heatmaps: Tensor  #: (N, 39, 64, 64) logits
    world: Tensor  #: (N, 39, 3) metres, hip-centred, axes of the (rotated) crop
    code: Tensor  #: (N, 1152) the last hidden layer: landmarks and world landmarks are linear in it
    pyramid: Tensor  #: (N, 48, 64, 64) decoder features, the input of the heatmap and mask heads


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _depth_to_space(x: Tensor) -> Tensor:
    """TFLite's DEPTH_TO_SPACE with block 2: the block index is the slow part of the channel, unlike pixel_shuffle."""
    return rearrange(x, "n (i j c) h w -> n c (h i) (w j)", i=2, j=2)


class Separable(nn.Module):
    """Depthwise 3x3, then 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, depth_act: bool = True, act: bool = True) -> None:
        super().__init__()
        self.depthwise = Conv(inputs, inputs, 3, stride, groups=inputs, act=depth_act)
        self.pointwise = Conv(inputs, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class SeparableResidual(nn.Module):
    """relu6(x + separable(x))."""

    def __init__(self, width: int, depth_act: bool = True) -> None:
        super().__init__()
        self.depthwise = Conv(width, width, 3, groups=width, act=depth_act)
        self.pointwise = Conv(width, width, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x), residual=x)


class SeparableDown(nn.Module):
    """relu6(maxpool(x) + separable(x)) at half resolution; the padding is TFLite's SAME: one row below, one right.

    Where it widens, zeros stand for the maximum in the new channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = Conv(inputs, inputs, 3, 2, groups=inputs, act=True, padding=0)
        self.pointwise = Conv(inputs, outputs, 1, act=True)
        self.wider = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        largest = F.max_pool2d(x, 2)
        if self.wider:
            largest = F.pad(largest, (0, 0, 0, 0, 0, self.wider))
        return self.pointwise(self.depthwise(F.pad(x, (0, 1, 0, 1))), residual=largest)


def _down(inputs: int, outputs: int, residuals: int) -> nn.Sequential:
    """To half resolution, then residual blocks."""
    return nn.Sequential(SeparableDown(inputs, outputs), *[SeparableResidual(outputs) for _ in range(residuals)])


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise k x k, linear 1x1 projection; residual where the shape allows."""

    def __init__(self, inputs: int, outputs: int, expanded: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.expand = Conv(inputs, expanded, 1, act=True)
        self.depthwise = Conv(expanded, expanded, kernel, stride, groups=expanded, act=True)
        self.project = Conv(expanded, outputs, 1, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.expand(x)), residual=x if self.residual else None)


class Stem(nn.Module):
    """3x3 stride 2, depthwise 3x3, linear 1x1: (N, 3, S, S) -> (N, outputs, S/2, S/2)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(3, 24, 3, 2, act=True)
        self.depthwise = Conv(24, 24, 3, groups=24, act=True)
        self.project = Conv(24, outputs, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.conv(x)))


def _stage(inputs: int, *blocks: Block) -> nn.Sequential:
    """Inverted bottlenecks, one after the other."""
    modules = []
    for outputs, expanded, kernel, stride in blocks:
        modules.append(InvertedBottleneck(inputs, outputs, expanded, kernel, stride))
        inputs = outputs
    return nn.Sequential(*modules)


class _Top(nn.Module):
    """The trunk's last block: expansion and depthwise without projection."""

    def __init__(self, inputs: int, expanded: int) -> None:
        super().__init__()
        self.expand = Conv(inputs, expanded, 1, act=True)
        self.depthwise = Conv(expanded, expanded, 3, groups=expanded, act=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(self.expand(x))


class _Head(nn.Module):
    """Boxes and scores from one feature map: depthwise 3x3 stride 2, then 1x1, for each of the two."""

    def __init__(self, inputs: int, anchors: int) -> None:
        super().__init__()
        self.score = Separable(inputs, anchors, 2, depth_act=False, act=False)
        self.box = Separable(inputs, anchors * 12, 2, depth_act=False, act=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes = rearrange(self.box(x), "n (a c) h w -> n (h w a) c", c=12)
        return boxes, rearrange(self.score(x), "n a h w -> n (h w a)")


class PoseDetector(nn.Module):
    """Person detector. Its anchors and their decoding are in :mod:`kinflow.perception.detection`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(16)
        self.stage1 = _stage(16, (24, 64, 3, 2), (24, 144, 3, 1))
        self.stage2 = _stage(24, (40, 144, 5, 2), (40, 240, 5, 1))
        self.stage3 = _stage(
            40, (80, 240, 3, 2), (80, 480, 3, 1), (80, 480, 3, 1), (112, 480, 5, 1), (112, 672, 5, 1), (112, 672, 5, 1)
        )
        self.stage4 = _stage(112, (192, 672, 5, 2), *[(192, 1152, 5, 1)] * 3)
        self.top = _Top(192, 1152)
        self.skip28 = Separable(40, 96, depth_act=False)
        self.skip14 = Separable(112, 192, depth_act=False)
        self.lateral14 = Conv(1152, 192, 1, act=False)
        self.fuse14 = nn.Sequential(*[SeparableResidual(192, depth_act=False) for _ in range(2)])
        self.lateral28 = Conv(192, 96, 1, act=False)
        self.fuse28 = nn.Sequential(*[SeparableResidual(96, depth_act=False) for _ in range(2)])
        self.head28 = _Head(24, 2)
        self.head14 = _Head(48, 2)
        self.head7 = _Head(288, 6)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Raw boxes and scores of the 2,254 anchors.

        Args:
            image: (N, 3, 224, 224) RGB in [-1, 1].
        Returns:
            boxes (N, 2254, 12): centre, size, four keypoints, in px of the input relative to the anchor's centre;
            logits (N, 2254).
        Raises:
            ShapeError: the input has another shape.
        """
        check_shape("image", image, f"N 3 {DETECTOR_SIZE} {DETECTOR_SIZE}", "letterbox the frame")
        at28 = self.stage2(self.stage1(self.stem(image)))
        at14 = self.stage3(at28)
        top = self.top(self.stage4(at14))
        # A 1x1 convolution commutes with bilinear resizing (its weights sum to one), so it runs at the lower resolution.
        fused14 = self.fuse14(self.skip14(at14) + F.relu6(_upsample(self.lateral14(top))))
        fused28 = self.fuse28(self.skip28(at28) + F.relu6(_upsample(self.lateral28(fused14))))
        heads = (
            self.head28(_depth_to_space(fused28)),
            self.head14(_depth_to_space(fused14)),
            self.head7(_depth_to_space(top)),
        )
        return torch.cat([h[0] for h in heads], 1), torch.cat([h[1] for h in heads], 1)


class PoseLandmarker(nn.Module):
    """Landmark network: 33 body landmarks and 6 auxiliary points of one person in a square crop.

    Args:
        variant: "heavy" (13.8 M parameters) sees turned and bent people better; "full" (3.2 M) is several times as fast.
            A network's widths and depths are in :data:`LANDMARKERS`; inputs and outputs are the same.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        net = LANDMARKERS[variant]
        at64, at32, at16, at8 = (stage[-1][0] for stage in (net.stage1, net.stage2, net.stage3, net.stage4))
        self.stem = Stem(net.stem)
        self.stage1 = _stage(net.stem, *net.stage1)
        self.stage2 = _stage(at64, *net.stage2)
        self.stage3 = _stage(at32, *net.stage3)
        self.stage4 = _stage(at16, *net.stage4)
        self.top = _Top(at8, net.top)
        self.skip128 = Separable(net.stem, 8)
        self.skip64 = Separable(at64, 48)
        self.skip32 = Separable(at32, 48)
        self.skip16 = Separable(at16, 48)
        self.lateral8 = Separable(net.top, 48)
        self.mask64 = Separable(48, 8)
        self.mask128 = nn.Sequential(*[SeparableResidual(8) for _ in range(2)])
        self.mask256 = nn.Sequential(*[SeparableResidual(8) for _ in range(2)])
        self.mask_out = Conv(8, 1, 3, act=False)
        self.heatmap_out = Conv(48, NUM_POINTS, 1, act=False)
        widths = [48, *[width for width, _ in net.descent]]
        self.descent = nn.ModuleList(
            _down(above, *level) for above, level in zip(widths[:-1], net.descent, strict=True)
        )
        self.sides = nn.ModuleList(Separable(at, width) for at, width in zip((at32, at16), widths[1:-1], strict=False))
        self.regress8 = Separable(net.top, 288)
        self.regress4 = _down(288, 288, net.regress[0])
        self.regress2 = _down(288, 288, net.regress[1])
        self.landmark_out = Conv(288, NUM_POINTS * 5, 2, act=False, padding=0)
        self.world_out = Conv(288, NUM_POINTS * 3, 2, act=False, padding=0)
        self.score_out = Conv(288, 1, 2, act=False, padding=0)

    def forward(self, crop: Tensor, with_mask: bool = True) -> LandmarkOutput:
        """Landmarks, score, mask, heatmaps, world landmarks, last hidden layer and decoder features of N crops.

        Args:
            crop: (N, 3, 256, 256) RGB in [0, 1].
            with_mask: compute the 256 x 256 mask (about a third of full's time on a CPU).
        Raises:
            ShapeError: the input has another shape.
        """
        check_shape("crop", crop, f"N 3 {LANDMARK_SIZE} {LANDMARK_SIZE}", "warp the region of interest to 256 x 256")
        at128 = self.stem(crop)
        at64 = self.stage1(at128)
        at32 = self.stage2(at64)
        at16 = self.stage3(at32)
        top = self.top(self.stage4(at16))

        pyramid = _upsample(self.lateral8(top)) + self.skip16(at16)
        pyramid = _upsample(pyramid) + self.skip32(at32)
        pyramid = _upsample(pyramid) + self.skip64(at64)
        mask = self._mask(pyramid, at128) if with_mask else None

        trunk = self.regress8(top)
        if self.descent:  # heavy reads the pose off the decoder's map too
            levels = (self.sides[0](at32), self.sides[1](at16), trunk)
            trunk = pyramid
            for down, side in zip(self.descent, levels, strict=True):
                trunk = down(trunk) + side
        pose = self.regress2(self.regress4(trunk))
        return LandmarkOutput(
            landmarks=self.landmark_out(pose).reshape(-1, NUM_POINTS, 5).float(),
            score=torch.sigmoid(self.score_out(pose).float()).reshape(-1),
            mask=mask,
            heatmaps=self.heatmap_out(pyramid),
            world=self.world_out(pose).reshape(-1, NUM_POINTS, 3).float(),
            code=pose.float().reshape(-1, CODE_SIZE),
            pyramid=pyramid,
        )

    def _mask(self, pyramid: Tensor, at128: Tensor) -> Tensor:
        mask = self.mask128(_upsample(self.mask64(pyramid)) + self.skip128(at128))
        return self.mask_out(self.mask256(_upsample(mask)))[:, 0].float()
