"""The oracles agree with torch and onnxruntime, where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

from . import oracles

SEEDS = range(40)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")


def tensors(torch, arrays):
    return [None if array is None else torch.from_numpy(array.copy()) for array in arrays]


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_is_that_of_torch(torch, seed):
    arrays, params = oracles.conv_problem(seed, padding_mode="zeros")
    x, w, b = tensors(torch, arrays)
    rank = w.ndim - 2
    sides = [side for pair in reversed(params["padding"]) for side in pair]
    x = torch.nn.functional.pad(x, sides)
    if params["flip"]:
        w = w.flip(tuple(range(2, w.ndim)))
    convolve = getattr(torch.nn.functional, f"conv{rank}d")
    y = convolve(x, w, b, params["stride"], 0, params["dilation"], params["groups"])
    oracles.assert_close(oracles.conv(*arrays, **params), y.numpy())


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_padding_modes_are_those_of_torch(torch, rank, mode):
    (x, w, b), _ = oracles.conv_problem(7, rank=rank)
    x = oracles.random((*x.shape[:2], *range(6, 6 + rank)), 8)
    padding = [(1, 2), (3, 0), (2, 4)][:rank]
    sides = [side for pair in reversed(padding) for side in pair]
    padded = torch.nn.functional.pad(torch.from_numpy(x), sides, mode=mode)
    groups = x.shape[1] // w.shape[1]
    y = getattr(torch.nn.functional, f"conv{rank}d")(padded, *tensors(torch, [w, b]), groups=groups)
    params = {"padding": padding, "padding_mode": mode, "groups": groups}
    oracles.assert_close(oracles.conv(x, w, b, **params), y.numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_transposed_is_that_of_torch(torch, seed):
    arrays, params = oracles.transposed_problem(seed)
    # torch has neither negative nor asymmetric padding here.
    params["padding"] = tuple((max(p, 0),) * 2 for p, _ in params["padding"])
    reach = [d * (k - 1) for d, k in zip(params["dilation"], arrays[1].shape[2:], strict=True)]
    params["padding"] = tuple(
        (min(p, r // 2),) * 2 for (p, _), r in zip(params["padding"], reach, strict=True)
    )
    x, w, b = tensors(torch, arrays)
    if params["flip"]:
        w = w.flip(tuple(range(2, w.ndim)))
    y = getattr(torch.nn.functional, f"conv_transpose{w.ndim - 2}d")(
        x,
        w,
        b,
        stride=params["stride"],
        padding=[p for p, _ in params["padding"]],
        output_padding=params["output_padding"],
        groups=params["groups"],
        dilation=params["dilation"],
    )
    oracles.assert_close(oracles.transposed(*arrays, **params), y.numpy())


@pytest.mark.parametrize("rank", [2, 3])
def test_samples_are_those_of_torch_grid_sample(torch, rank):
    image = oracles.random((2, 3, 5, 4, 6)[: 2 + rank], 1)
    size = np.array(image.shape[2:])
    points = np.random.default_rng(2).uniform(-2, size + 1, (2, 60, rank))
    # Normalised to [-1, 1] from first to last element, last axis first.
    grid = (2 * points / (size - 1) - 1)[..., ::-1].reshape(2, 60, *[1] * (rank - 1), rank)
    y = torch.nn.functional.grid_sample(
        *tensors(torch, [image, grid]), padding_mode="zeros", align_corners=True
    )
    for n, p in np.ndindex(2, 60):
        expected = y[n, :, p].numpy().reshape(3)
        np.testing.assert_allclose(oracles.sample(image[n], points[n, p]), expected, atol=1e-12)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_deformable_is_that_of_onnxruntime(seed, mask):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: cannot write a model")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    arrays, params = oracles.deformable_problem(seed, rank=2, mask=mask, integer=seed % 3 == 0)
    # onnxruntime accepts no negative padding; more padding here means more offsets.
    params["padding"] = tuple((max(p, 0), max(q, 0)) for p, q in params["padding"])
    x, _, w, b, _ = arrays
    n_taps, out = w.shape[2] * w.shape[3], oracles.out_size(x.shape[2:], w.shape[2:], **params)
    offset_groups = arrays[1].shape[1] // (2 * n_taps)
    offset = np.random.default_rng(seed).uniform(-3, 3, (len(x), offset_groups * 2 * n_taps, *out))
    scale = oracles.random((len(x), offset_groups * n_taps, *out), seed) if mask else None
    feeds = {"x": x, "w": w, "offset": offset, "b": b, "mask": scale}
    (top, bottom), (left, right) = params["padding"]
    node = onnx.helper.make_node(
        "DeformConv",
        ["x", "w", "offset", "b", "mask"] if mask else ["x", "w", "offset", "b"],
        ["y"],
        strides=params["stride"],
        dilations=params["dilation"],
        pads=[top, left, bottom, right],
        group=x.shape[1] // w.shape[1],
        offset_group=offset_groups,
        kernel_shape=w.shape[2:],
    )
    feeds = {name: array for name, array in feeds.items() if array is not None}
    double = onnx.TensorProto.DOUBLE
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "deformable",
            [
                onnx.helper.make_tensor_value_info(name, double, array.shape)
                for name, array in feeds.items()
            ],
            [onnx.helper.make_tensor_value_info("y", double, None)],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 19)],
        ir_version=9,
    )
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, feeds)
    oracles.assert_close(oracles.deformable(x, offset, w, b, scale, **params), y)
