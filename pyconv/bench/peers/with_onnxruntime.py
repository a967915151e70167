"""ONNX Runtime: a session per layer, with weights as initializers, bound input and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def version() -> str:
    """Return the name and version."""
    import onnx  # noqa: F401 - needed to write the models
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def prepare(
    layer: dict[str, Any], arrays: dict[str, Any], threads: int, form: str
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a function that runs the layer, and one that returns the result."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Missing

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            _model(layer, arrays), options, providers=["CPUExecutionProvider"]
        )
    except Missing:
        raise NotImplementedError(f"has no kernel for it in {layer['dtype']}") from None
    binding = session.io_binding()
    inputs = [
        (name, onnxruntime.OrtValue.ortvalue_from_numpy(arrays[name]))
        for name in ("x", "offset", "mask")
        if arrays.get(name) is not None
    ]
    for name, value in inputs:
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    # Its first result is where all of them go.
    binding.bind_ortvalue_output("y", binding.get_outputs()[0])

    def run() -> None:
        session.run_with_iobinding(binding)

    def fetch() -> Any:
        run()
        return binding.copy_outputs_to_cpu()[0]

    return run, fetch


def _model(layer: dict[str, Any], arrays: dict[str, Any]) -> bytes:
    """Return the layer as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    element = TensorProto.FLOAT if layer["dtype"] == "float32" else TensorProto.DOUBLE
    per_call = [n for n in ("x", "offset", "mask") if arrays.get(n) is not None]
    fixed = [n for n in arrays if n not in per_call and arrays[n] is not None]
    attributes = {
        "strides": layer["stride"],
        "pads": layer["padding"] * 2,
        "dilations": layer["dilation"],
        "group": layer["groups"],
    }
    bias = ["bias"] if "bias" in fixed else []
    make = helper.make_node
    if layer["kind"] == "separable":
        nodes = [
            make("Conv", ["x", "depthwise"], ["between"], **attributes),
            make("Conv", ["between", "pointwise", *bias], ["y"]),
        ]
    elif layer["kind"] == "deformable":
        names = ["x", "weight", "offset", *(bias or [""])]
        names += ["mask"] if "mask" in per_call else []
        attributes["offset_group"] = layer["offset_groups"]
        nodes = [make("DeformConv", names, ["y"], **attributes)]
    elif layer["kind"] == "transposed":
        attributes["output_padding"] = layer["output_padding"]
        nodes = [make("ConvTranspose", ["x", "weight", *bias], ["y"], **attributes)]
    else:
        nodes = [make("Conv", ["x", "weight", *bias], ["y"], **attributes)]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(n, element, arrays[n].shape) for n in per_call],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(arrays[n], n) for n in fixed],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString()
