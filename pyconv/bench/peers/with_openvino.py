"""OpenVINO: a model compiled for the CPU, in float32 whatever the hardware would like better."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def version() -> str:
    """Return the name and version."""
    # Not its report to its makers, which forks a process at import.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return f"openvino {openvino.__version__.partition('-')[0]}"


def prepare(
    layer: dict[str, Any], arrays: dict[str, Any], threads: int, form: str
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a function that runs the layer, and one that returns the result."""
    import openvino

    if layer["dtype"] != "float32":
        raise NotImplementedError(f"computes {layer['dtype']} in float32")
    result, inputs = _graph(layer, arrays)
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
    }
    model = openvino.Model([result], list(inputs.values()), "layer")
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    for i, name in enumerate(inputs):
        request.set_input_tensor(i, openvino.Tensor(arrays[name], shared_memory=True))

    def run(lent: object = arrays) -> None:  # tensors do not keep alive what they share
        request.infer()

    def fetch() -> Any:
        run()
        return request.get_output_tensor().data.copy()

    return run, fetch


def _graph(layer: dict[str, Any], arrays: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the result's node, and the inputs' by name."""
    from openvino import opset8, opset13

    inputs = {
        name: opset13.parameter(list(arrays[name].shape), arrays[name].dtype, name)
        for name in ("x", "offset", "mask")
        if arrays.get(name) is not None
    }
    x, pads, groups = inputs["x"], layer["padding"], layer["groups"]
    where = (layer["stride"], pads, pads, layer["dilation"])
    kind = layer["kind"]
    if kind == "separable":
        y = opset13.group_convolution(x, _grouped(arrays["depthwise"], groups), *where)
        ones, zeros = [1] * len(pads), [0] * len(pads)
        y = opset13.convolution(y, arrays["pointwise"], ones, zeros, zeros, ones)
    elif kind == "deformable":
        # Without the padding, samples outside are moved to the border: another operator.
        y = opset8.deformable_convolution(
            x, inputs["offset"], arrays["weight"], *where, inputs.get("mask"), "explicit", groups,
            layer["offset_groups"], bilinear_interpolation_pad=True,
        )  # fmt: skip
    elif kind == "transposed":
        weight = arrays["weight"] if groups == 1 else _grouped(arrays["weight"], groups)
        name = "convolution_backprop_data" if groups == 1 else "group_convolution_backprop_data"
        y = getattr(opset13, name)(
            x, weight, layer["stride"], None, pads, pads, layer["dilation"],
            output_padding=layer["output_padding"],
        )  # fmt: skip
    elif groups == 1:
        y = opset13.convolution(x, arrays["weight"], *where)
    else:
        y = opset13.group_convolution(x, _grouped(arrays["weight"], groups), *where)
    bias = arrays.get("bias")
    if bias is not None:
        y = opset13.add(y, bias.reshape(1, -1, *[1] * len(pads)))
    return y, inputs


def _grouped(weight: Any, groups: int) -> Any:
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
