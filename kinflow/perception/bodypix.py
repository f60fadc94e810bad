"""BodyPix as a torch module: which part of the body each pixel of a person shows, front and back, left and right.

The MobileNetV1 0.5 variant with output stride 8 of BodyPix 2 (Apache-2.0, Google); the weights are imported by
``tools/import_bodypix.py``. Source: Papandreou et al., "PersonLab" (arXiv 1803.08225), whose heads it shares; Howard et al.,
"MobileNets" (arXiv 1704.04861); the parts' order is that of tfjs-models' ``body-pix``.

Input is a float tensor (N, 3, S, S), RGB. Everything is batched, differentiable, and runs on any torch device.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from kinflow.errors import ShapeError, check_shape
from kinflow.perception.convolution import Conv
from kinflow.skeleton import BODYPIX24, COCO17

__all__ = ["PART_STRIDE", "BodyPix", "PartOutput"]

PART_STRIDE = 8  #: px of the image a cell of the output

#: outputs, stride, dilation of the separable convolutions: from the seventh on a stride of 2 is taken as a dilation instead
_BLOCKS = (
    (32, 1, 1), (64, 2, 1), (64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 1, 1), (256, 1, 2),
    (256, 1, 2), (256, 1, 2), (256, 1, 2), (256, 1, 2), (256, 1, 2), (256, 1, 2),
)  # fmt: skip


class PartOutput(NamedTuple):
    """What BodyPix says of N images; cell (row, column) lies at px (8 column, 8 row), counted from pixel centres."""

    mask: Tensor  #: (N, h, w) logit of a person
    parts: Tensor  #: (N, 24, h, w) logits of :data:`~kinflow.skeleton.BODYPIX24`, of each part by itself
    heatmaps: Tensor | None  #: (N, 17, h, w) logits of :data:`~kinflow.skeleton.COCO17`; or None, where not asked for
    offsets: Tensor | None  #: (N, 34, h, w) px from the cell to the keypoint: 17 times y, then 17 times x; or None


class BodyPix(nn.Module):
    """MobileNetV1 of half width, dilated from a stride of 8 on, with four heads of 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 16, 3, 2)
        layers, width = [], 16
        for outputs, stride, dilation in _BLOCKS:
            layers += [Conv(width, width, 3, stride, groups=width, dilation=dilation), Conv(width, outputs, 1)]
            width = outputs
        self.trunk = nn.Sequential(*layers)
        self.mask_out = Conv(width, 1, 1, act=False)
        self.part_out = Conv(width, len(BODYPIX24), 1, act=False)
        self.heatmap_out = Conv(width, len(COCO17), 1, act=False)
        self.offset_out = Conv(width, 2 * len(COCO17), 1, act=False)

    def forward(self, image: Tensor, with_keypoints: bool = True) -> PartOutput:
        """Segment N images.

        Args:
            image: (N, 3, S, S) RGB in [-1, 1], S = 8 n + 1; such sizes need no uneven padding, and h = w = n + 1.
            with_keypoints: whether to compute heatmaps and offsets.
        Raises:
            ShapeError: of another shape or size.
        """
        side = check_shape("image", image, "N 3 S S", "cut out a square of 8 n + 1 px")["S"]
        if side % PART_STRIDE != 1:
            raise ShapeError(f"image: expected a side of 8 n + 1 px, got {side}. Cut out a square of that size.")
        x = self.trunk(self.stem(image))
        return PartOutput(
            self.mask_out(x)[:, 0],
            self.part_out(x),
            self.heatmap_out(x) if with_keypoints else None,
            self.offset_out(x) if with_keypoints else None,
        )
