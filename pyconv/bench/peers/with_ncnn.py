"""ncnn: a net per layer, in float32; it has no batches, so a batch is a run per image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Numbers of the parameters of its convolution layers, by axis: width, height, depth.
_KERNEL, _DILATION, _STRIDE = (1, 11, 21), (2, 12, 22), (3, 13, 23)
_BEFORE, _AFTER, _EXTRA = (4, 14, 24), (15, 16, 17), (18, 19, 20)


def version() -> str:
    """Return the name and version."""
    import ncnn

    return f"ncnn {ncnn.__version__}"


def prepare(
    layer: dict[str, Any], arrays: dict[str, Any], threads: int, form: str
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a function that runs the layer, and one that returns the result."""
    import ncnn
    import numpy as np

    if layer["dtype"] != "float32":
        raise NotImplementedError("has no float64")
    inputs = [name for name in ("x", "offset", "mask") if arrays.get(name) is not None]
    net = _net(layer, arrays, inputs, threads)
    images = [
        [(name, ncnn.Mat(np.ascontiguousarray(arrays[name][i])).clone()) for name in inputs]
        for i in range(len(arrays["x"]))
    ]

    def run() -> list[Any]:
        results = []
        for image in images:
            extractor = net.create_extractor()
            for name, mat in image:
                extractor.input(name, mat)
            code, result = extractor.extract("y")
            if code:
                raise RuntimeError(f"ncnn ended with code {code}")
            results.append(result)
        return results

    return run, lambda: np.stack([np.array(result) for result in run()])


def _net(layer: dict[str, Any], arrays: dict[str, Any], inputs: list[str], threads: int) -> Any:
    import ncnn

    net = ncnn.Net()
    option = net.opt
    option.num_threads = threads
    option.use_vulkan_compute = False
    option.use_winograd_convolution = layer["winograd"]
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(option, f"use_{name}", False)
    lines, weights = _layers(layer, arrays, inputs)
    blobs = len(inputs) + len(lines)
    top = [f"Input {name} 0 1 {name}" for name in inputs]
    text = ["7767517", f"{len(lines) + len(inputs)} {blobs}", *top, *lines]
    with tempfile.TemporaryDirectory() as folder:
        model, values = Path(folder, "layer.param"), Path(folder, "layer.bin")
        model.write_text("\n".join(text) + "\n")
        values.write_bytes(b"".join(weights))
        if net.load_param(str(model)) or net.load_model(str(values)):
            raise RuntimeError("ncnn cannot load the net")
    return net


def _layers(
    layer: dict[str, Any], arrays: dict[str, Any], inputs: list[str]
) -> tuple[list[str], list[bytes]]:
    """Return the lines of the net and the contents of its weight file."""
    rank, groups, kind = len(layer["kernel"]), layer["groups"], layer["kind"]
    bias = arrays.get("bias")
    if kind == "separable":
        plain = {**layer, "groups": 1, "kernel": [1] * rank, "stride": [1] * rank}
        plain |= {"padding": [0] * rank, "dilation": [1] * rank}
        depthwise, pointwise = arrays["depthwise"], arrays["pointwise"]
        lines = [
            _line("ConvolutionDepthWise", layer, ["x"], "between", depthwise, None),
            _line("Convolution", plain, ["between"], "y", pointwise, bias),
        ]
        return lines, [*_values(depthwise, None), *_values(pointwise, bias)]
    weight, extra = arrays["weight"], layer["output_padding"]
    if kind == "deformable":
        if layer["offset_groups"] != 1:
            raise NotImplementedError("has one group of offsets only")
        if rank != 2 or groups != 1:
            raise NotImplementedError("has it in 2-D and without groups only")
        line = _line("DeformableConv2D", layer, inputs, "y", weight, bias)
    elif kind == "transposed":
        name = "DeconvolutionDepthWise" if groups > 1 else "Deconvolution"
        # (C, O/groups, ...) to (O, C/groups, ...), group by group
        weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        weight = weight.swapaxes(1, 2)
        weight = weight.reshape(-1, *weight.shape[2:])
        line = _line(name, layer, ["x"], "y", weight, bias)
        line += "".join(f" {_EXTRA[a]}={n}" for a, n in enumerate(reversed(extra)) if n)
    else:
        name = "ConvolutionDepthWise" if groups > 1 else "Convolution"
        line = _line(name, layer, ["x"], "y", weight, bias)
    return [line], _values(weight, bias)


def _line(
    name: str, layer: dict[str, Any], inputs: list[str], output: str, weight: Any, bias: Any
) -> str:
    rank = len(layer["kernel"])
    numbers = {0: len(weight), 5: int(bias is not None), 6: weight.size}
    for axis in range(rank):
        at = rank - 1 - axis  # the width is the last axis here
        numbers[_KERNEL[axis]] = layer["kernel"][at]
        numbers[_DILATION[axis]] = layer["dilation"][at]
        numbers[_STRIDE[axis]] = layer["stride"][at]
        numbers[_BEFORE[axis]] = numbers[_AFTER[axis]] = layer["padding"][at]
    if name.endswith("DepthWise"):
        numbers[7] = layer["groups"]
    if rank != 2:
        name += f"{rank}D"
    joined = " ".join(f"{key}={value}" for key, value in numbers.items())
    return f"{name} {output} {len(inputs)} 1 {' '.join(inputs)} {output} {joined}"


def _values(weight: Any, bias: Any) -> list[bytes]:
    """Return weights, after a word that says they are plain float32, and the bias."""
    return [bytes(4), weight.tobytes(), b"" if bias is None else bias.tobytes()]
