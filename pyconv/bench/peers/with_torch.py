"""PyTorch: its functions on channels-first or on channels-last tensors, gradients off.

Channels first, oneDNN may bring the weights into its own order at each call. Channels last they
can be brought there once, by the operators that `torch.compile` uses when it freezes a model; of
the function and these, whichever is faster on the layer counts. Deformable convolution is
torchvision's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def version() -> str:
    """Return the name and version."""
    import torch

    try:
        import torchvision
    except ImportError:
        return f"torch {torch.__version__}"
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def prepare(
    layer: dict[str, Any], arrays: dict[str, Any], threads: int, form: str
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a function that runs the layer, and one that returns the result."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
    rank, last = len(layer["kernel"]), form == "channels_last"
    if last:
        if rank == 1:
            raise NotImplementedError("has no channels-last format in 1-D")
        form = torch.channels_last if rank == 2 else torch.channels_last_3d
        for name in ("x", "weight", "depthwise", "pointwise"):
            if name in tensors:
                tensors[name] = tensors[name].contiguous(memory_format=form)
    x = tensors["x"]
    function = _function(layer, tensors, last)
    return lambda: function(x), lambda: function(x).contiguous().numpy()


def _function(layer: dict[str, Any], t: dict[str, Any], last: bool) -> Callable[[Any], Any]:
    """Return the layer as a function of x."""
    kind, x, bias = layer["kind"], t["x"], t.get("bias")
    if kind == "separable":
        ones, zeros = [1] * len(layer["kernel"]), [0] * len(layer["kernel"])
        mix = {"kind": "convolution", "groups": 1, "stride": ones, "padding": zeros}
        first = _convolution({**layer, "kind": "convolution"}, x, t["depthwise"], None, last)
        second = _convolution({**mix, "dilation": ones}, first(x), t["pointwise"], bias, last)
        return lambda x: second(first(x))
    if kind == "deformable":
        return _deformable(layer, t, last)
    return _convolution(layer, x, t["weight"], bias, last)


def _convolution(
    layer: dict[str, Any], x: Any, weight: Any, bias: Any, last: bool
) -> Callable[[Any], Any]:
    from torch.nn import functional

    stride, padding, dilation, groups = _parameters(layer)
    rank = weight.ndim - 2
    if layer["kind"] == "transposed":
        extra = layer["output_padding"]
        transposed = getattr(functional, f"conv_transpose{rank}d")

        def plain(x: Any) -> Any:
            return transposed(x, weight, bias, stride, padding, extra, groups, dilation)
    else:
        convolution = getattr(functional, f"conv{rank}d")

        def plain(x: Any) -> Any:
            return convolution(x, weight, bias, stride, padding, dilation, groups)

    if not last:
        return plain
    try:
        packed = _prepacked(layer, x, weight, bias)
        return min(plain, packed, key=lambda function: _seconds(function, x))
    except (AttributeError, RuntimeError):  # not for this dtype or layer, not in this build
        return plain


def _parameters(layer: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(layer[name] for name in ("stride", "padding", "dilation", "groups"))


def _prepacked(layer: dict[str, Any], x: Any, weight: Any, bias: Any) -> Callable[[Any], Any]:
    """Return a function that runs oneDNN on weights in the order it likes for this x."""
    import torch

    ops, shape = torch.ops.mkldnn, list(x.shape)
    stride, padding, dilation, groups = _parameters(layer)
    end: tuple[Any, ...] = ("none", [], "")  # nothing is fused
    if layer["kind"] == "transposed":
        extra = layer["output_padding"]
        packed = ops._reorder_convolution_transpose_weight(
            weight, padding, extra, stride, dilation, groups, shape
        )
        return lambda x: ops._convolution_transpose_pointwise(
            x, packed, bias, padding, extra, stride, dilation, groups, *end
        )
    packed = ops._reorder_convolution_weight(weight, padding, stride, dilation, groups, shape)
    return lambda x: ops._convolution_pointwise(
        x, packed, bias, padding, stride, dilation, groups, *end
    )


def _seconds(function: Callable[[Any], Any], x: Any) -> float:
    """Return the time of the fastest of a few runs."""
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        function(x)
        best = min(best, time.perf_counter() - begin)
    return best


def _deformable(layer: dict[str, Any], t: dict[str, Any], last: bool) -> Callable[[Any], Any]:
    if last:
        raise NotImplementedError("torchvision has it channels first only")
    if len(layer["kernel"]) != 2:
        raise NotImplementedError("torchvision has it in 2-D only")
    try:
        from torchvision.ops import deform_conv2d
    except ImportError:
        raise NotImplementedError("torchvision is not installed") from None
    stride, padding, dilation, _ = _parameters(layer)
    return lambda x: deform_conv2d(
        x, t["offset"], t["weight"], t.get("bias"), stride, padding, dilation, t.get("mask")
    )
