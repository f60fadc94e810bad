"""A convolution with the activation and residual that the networks put behind it, fused on CPUs where torch can."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv", "fuse_convolutions"]

log = logging.getLogger(__name__)

PRODUCT_PIXELS = 256  #: up to this size of map a 1x1 convolution runs as a plain matrix product (measured)


class Conv(nn.Conv2d):
    """Convolution with bias, padded to keep the size (``dilation * (kernel // 2)``) unless given, an optional residual, and an
    optional ReLU6.

    ``forward(x, residual) = act(conv(x) + residual)``. After :func:`fuse_convolutions` the same arithmetic runs as one oneDNN
    primitive; the weights are then fixed and gradients do not reach them.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
        padding: int | None = None,
        dilation: int = 1,
    ) -> None:
        if padding is None:
            padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups)
        self.act = act
        self._packed: Tensor | None = None
        self._matrix: Tensor | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if self._packed is not None:
            return self._fused(x, residual)
        y = super().forward(x)
        if residual is not None:
            y = y + residual
        return F.relu6(y) if self.act else y

    def _fused(self, x: Tensor, residual: Tensor | None) -> Tensor:
        if self._matrix is not None and self._is_product(x):
            return self._product(x, residual)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        ops: Any = torch.ops.mkldnn
        if residual is None:
            act, bounds = ("hardtanh", [0.0, 6.0]) if self.act else ("none", [])
            return ops._convolution_pointwise(x, self._packed, self.bias, *geometry, act, bounds, "")
        y = ops._convolution_pointwise.binary(
            x, residual, self._packed, self.bias, *geometry, "add", 1.0, None, [], None
        )
        return y.clamp_(0.0, 6.0) if self.act else y

    def _is_product(self, x: Tensor) -> bool:
        """Whether the convolution is one small matrix product, which is quicker without oneDNN's cost of a call."""
        height, width = x.shape[2:]
        if self.kernel_size == (1, 1):
            return height * width <= PRODUCT_PIXELS
        return self.kernel_size == (height, width)

    def _product(self, x: Tensor, residual: Tensor | None) -> Tensor:
        n, _, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, self._matrix.shape[0])  # type: ignore[union-attr]
        y = torch.addmm(self.bias, rows, self._matrix)  # type: ignore[arg-type]
        out = y.view(n, height // self.kernel_size[0], width // self.kernel_size[1], -1).permute(0, 3, 1, 2)
        if residual is not None:
            out += residual
        return out.clamp_(0.0, 6.0) if self.act else out

    def pack(self, batch: int, height: int, width: int) -> None:
        """Reorder the weights into oneDNN's own layout for inputs of this size; other sizes still work."""
        self._packed = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight.detach(),
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            [batch, self.in_channels, height, width],
        )
        if self.groups == 1 and self.stride == (1, 1) and self.padding == (0, 0):
            self._matrix = self.weight.detach().permute(2, 3, 1, 0).reshape(-1, self.out_channels).contiguous()

    def unpack(self) -> None:
        """Back to the plain convolution."""
        self._packed = self._matrix = None


def fuse_convolutions(module: nn.Module, example: Tensor) -> bool:
    """Fuse the convolutions of `module` for CPU inference, in place; False where this torch build cannot.

    Args:
        module: on the CPU, in the precision it shall run in; its weights must not change afterwards.
        example: an input of the size that will come, to learn the convolutions' input sizes from.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    sizes: dict[Conv, tuple[int, int, int]] = {}

    def note(conv: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(conv, Conv):
            sizes[conv] = (args[0].shape[0], args[0].shape[2], args[0].shape[3])

    hooks = [conv.register_forward_pre_hook(note) for conv in module.modules() if isinstance(conv, Conv)]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    try:
        for conv, size in sizes.items():
            conv.pack(*size)
        with torch.no_grad():
            module(example)
    except (RuntimeError, TypeError) as error:  # a build whose oneDNN lacks this primitive or this signature
        log.info("convolutions stay unfused: %s", str(error).splitlines()[0])
        for conv in sizes:
            conv.unpack()
        return False
    return True
