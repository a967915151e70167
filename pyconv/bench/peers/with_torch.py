"""PyTorch: its functions on channels-first or on channels-last tensors, gradients off.

Channels first, oneDNN may bring the weights into its own order at each call. Channels last they
can be brought there once, by the operators that `torch.compile` uses when it freezes a model; of
the function and these, whichever is faster on the layer counts. Deformable convolution is
torchvision's.

Gradients are those of `torch.ops.aten.convolution_backward`, which autograd calls, asked for no
others than are wanted; those of deformable convolution are what autograd makes of a result kept.
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
        for name in ("x", "weight", "depthwise", "pointwise", "grad"):
            if name in tensors:
                tensors[name] = tensors[name].contiguous(memory_format=form)
    if layer["needs"]:
        run = _gradients(layer, tensors, last)
        return run, lambda: {name: _numpy(g) for name, g in run().items()}
    x = tensors["x"]
    function = _function(layer, tensors, last)
    return lambda: function(x), lambda: _numpy(function(x))


def _numpy(tensor: Any) -> Any:
    return tensor.contiguous().numpy()


def _function(layer: dict[str, Any], t: dict[str, Any], last: bool) -> Callable[[Any], Any]:
    """Return the layer as a function of x."""
    kind, x, bias = layer["kind"], t["x"], t.get("bias")
    if kind == "separable":
        stages = _stages(layer)
        first = _convolution(stages[0], x, t["depthwise"], None, last)
        second = _convolution(stages[1], first(x), t["pointwise"], bias, last)
        return lambda x: second(first(x))
    if kind == "deformable":
        return _deformable(layer, t, last)
    return _convolution(layer, x, t["weight"], bias, last)


def _stages(layer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the depthwise and the pointwise convolution that a separable layer is made of."""
    first = {**layer, "kind": "convolution"}
    ones, zeros = [1] * len(layer["kernel"]), [0] * len(layer["kernel"])
    alone = {"groups": 1, "stride": ones, "padding": zeros, "dilation": ones}
    return first, {**first, **alone}


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


# ---- gradients ---------------------------------------------------------------------------------


def _gradients(layer: dict[str, Any], t: dict[str, Any], last: bool) -> Callable[[], Any]:
    """Return a function that computes the gradients that are needed, by name."""
    needs, grad = layer["needs"], t["grad"]
    if layer["kind"] == "deformable":
        return _deformable_gradients(layer, t, last)
    if layer["kind"] == "separable":
        return _separable_gradients(layer, t, last)
    backward = _backward(layer, t["x"], t["weight"], needs)
    return lambda: {n: g for n, g in zip(_OPERANDS, backward(grad), strict=True) if n in needs}


_OPERANDS = ("x", "weight", "bias")


def _backward(layer: dict[str, Any], x: Any, weight: Any, needs: Any) -> Callable[[Any], Any]:
    """Return a convolution's gradients, None for those not needed, as a function of grad."""
    import torch

    backward = torch.ops.aten.convolution_backward
    stride, padding, dilation, groups = _parameters(layer)
    transposed, extra = layer["kind"] == "transposed", layer["output_padding"]
    mask = [name in needs for name in _OPERANDS]
    outputs = [weight.shape[1] * groups if transposed else weight.shape[0]]
    return lambda grad: backward(
        grad, x, weight, outputs, stride, padding, dilation, transposed, extra, groups, mask
    )


def _separable_gradients(layer: dict[str, Any], t: dict[str, Any], last: bool) -> Callable[[], Any]:
    """Return a function that goes back through both stages, with the result of the first kept."""
    (need,), grad = layer["needs"], t["grad"]
    first, second = _stages(layer)
    middle = _convolution(first, t["x"], t["depthwise"], None, last)(t["x"])
    if need == "pointwise":
        weight = _backward(second, middle, t["pointwise"], ("weight",))
        return lambda: {need: weight(grad)[1]}
    through = _backward(second, middle, t["pointwise"], ("x",))
    which = 0 if need == "x" else 1
    back = _backward(first, t["x"], t["depthwise"], (_OPERANDS[which],))
    return lambda: {need: back(through(grad)[0])[which]}


def _deformable_gradients(
    layer: dict[str, Any], t: dict[str, Any], last: bool
) -> Callable[[], Any]:
    """Return a function that goes back through a result that has been computed once."""
    import torch

    function, needs, grad = _deformable(layer, t, last), layer["needs"], t["grad"]
    wanted = [t[name].requires_grad_() for name in needs]
    with torch.enable_grad():
        y = function(t["x"])
    return lambda: dict(
        zip(needs, torch.autograd.grad(y, wanted, grad, retain_graph=True), strict=True)
    )
