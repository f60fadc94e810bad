"""A torch module as an OpenVINO model, written down while it runs once.

OpenVINO's own converter takes 3 s for the heavy landmark network, this a tenth of it (measured), and leaves nothing on disk.
Only the dozen functions that the packaged networks call are known; another one is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["openvino_model"]


def openvino_model(network: nn.Module, example: Tensor, *arguments: Any) -> Any:
    """``network(example, *arguments)`` as an ``openvino.Model`` with the example's shape.

    Args:
        network: in float32 on the CPU, its convolutions not fused.
        example: the input; its values do not matter.
        arguments: what else ``forward`` takes; fixed in the model.
    Returns:
        The model. Its outputs are the tensors that the network returns, in order, without those that are None.
    Raises:
        NotImplementedError: the network calls a function that is not known here.
    """
    import openvino

    image = openvino.opset13.parameter(list(example.shape), np.float32)
    recorder = _Recorder(example, image)
    with torch.inference_mode(), recorder:
        outputs = network(example, *arguments)
    return openvino.Model([recorder.node(output) for output in outputs if output is not None], [image])


class _Recorder(TorchFunctionMode):
    """Writes down each torch function that takes a tensor computed from the input."""

    def __init__(self, example: Tensor, image: Any) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Any]] = {
            id(example): (example, image)
        }  # the tensors stay alive: ids are theirs

    def node(self, value: Any) -> Any:
        """The node that computes this tensor; other values as they are."""
        if isinstance(value, list | tuple):
            return [self.node(item) for item in value]
        return self._known[id(value)][1] if id(value) in self._known else value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _convolved(*args) if func is torch.conv2d else func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            if func not in _WRITTEN:
                raise NotImplementedError(f"{getattr(func, '__name__', func)}: not known to {__name__}.")
            node = _WRITTEN[func](result, *[self.node(arg) for arg in args], **(kwargs or {}))
            self._known[id(result)] = (result, node)
        return result


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    _: int,
) -> Tensor:
    """Zeros in the shape of a convolution's result: of the tensors in between nothing but the shape is read."""
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    return x.new_zeros(len(x), len(weight), *sizes)


def _ops() -> Any:
    from openvino import opset13

    return opset13


def _convolution(
    out: Tensor, x: Any, weight: Tensor, bias: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    ops, kernel = _ops(), weight.detach().contiguous().numpy()
    if groups == 1:
        y = ops.convolution(x, ops.constant(kernel), stride, padding, padding, dilation)
    else:
        kernel = kernel.reshape(groups, -1, *kernel.shape[1:])
        y = ops.group_convolution(x, ops.constant(kernel), stride, padding, padding, dilation)
    return ops.add(y, ops.constant(bias.detach().numpy().reshape(1, -1, 1, 1)))


def _max_pool(out: Tensor, x: Any, size: int, **_: Any) -> Any:
    return _ops().max_pool(x, [size] * 2, [1, 1], [0, 0], [0, 0], [size] * 2).output(0)


def _interpolate(out: Tensor, x: Any, **_: Any) -> Any:
    """Bilinear with half-pixel centres, the default of both."""
    size = np.array(out.shape[2:], np.int64)
    return _ops().interpolate(x, size, "linear_onnx", "sizes", axes=np.array([2, 3], np.int64))


def _pad(out: Tensor, x: Any, amounts: tuple[int, ...], **_: Any) -> Any:
    """Zeros; torch counts dimensions from the last."""
    first = [0] * (out.ndim - len(amounts) // 2)
    before, after = (np.array(first + list(amounts[i::2])[::-1], np.int64) for i in (0, 1))
    return _ops().pad(x, before, after, "constant")


def _reshape(out: Tensor, x: Any, *_: Any) -> Any:
    return _ops().reshape(x, np.array(out.shape, np.int64), False)


_WRITTEN: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _convolution,
    torch.Tensor.add: lambda out, x, y: _ops().add(x, y),
    torch.cat: lambda out, xs, dim: _ops().concat(xs, dim),
    torch.sigmoid: lambda out, x: _ops().sigmoid(x),
    torch.Tensor.float: lambda out, x: x,
    torch.Tensor.mean: lambda out, x, dims: _ops().reduce_mean(x, np.array(dims, np.int64)),
    torch.Tensor.permute: lambda out, x, dims: _ops().transpose(x, np.array(dims, np.int64)),
    torch.Tensor.reshape: _reshape,
    torch.Tensor.__getitem__: _reshape,  # the networks only drop a dimension of one
    F.interpolate: _interpolate,
    F.max_pool2d: _max_pool,
    F.pad: _pad,
    F.relu6: lambda out, x, inplace: _ops().clamp(x, 0.0, 6.0),
}
