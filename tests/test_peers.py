"""Results and gradients are those of torch, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import pyconv

from . import calls, oracles
from .test_backward import array_at, entries, grad_for

torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
F = torch.nn.functional

torch.set_num_threads(1)  # its threads and those of pyconv would wait for one another

#: What `torch.nn.functional.pad` calls the padding modes it has.
MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}


def rank_of(call):
    return len(call.explicit["padding"])


def plain(call, key):
    """An image of a call as torch takes it: channels first, batched."""
    array = call.arrays[key]
    array = torch.from_numpy(array.copy()).requires_grad_()
    image = array.movedim(-1, -1 - rank_of(call)) if call.channels_last else array
    return array, image if image.ndim == rank_of(call) + 2 else image[None]


def like(call, y):
    """A result of torch in the layout of a call."""
    y = y if call.arrays["x"].ndim == rank_of(call) + 2 else y[0]
    return y.movedim(-1 - rank_of(call), -1) if call.channels_last else y


def padded(x, pads, mode):
    """Negative and asymmetric padding too; torch itself cannot crop away what it is to pad."""
    x = F.pad(x, [max(side, 0) for pair in reversed(pads) for side in pair], mode=MODES[mode])
    crop = (slice(max(-before, 0), -max(-after, 0) or None) for before, after in pads)
    return x[(slice(None), slice(None), *crop)]


def leaf(array):
    return None if array is None else torch.from_numpy(array.copy()).requires_grad_()


def flipped(weight, flip):
    return weight.flip(tuple(range(2, weight.ndim))) if flip else weight


def convolve(x, weight, bias, params, rank, groups):
    """One convolution by torch; `params` are explicit."""
    weight = weight.reshape(*weight.shape[:2], *weight.shape[2:] or [1] * rank)
    x = padded(x, params["padding"], params["padding_mode"])
    function = getattr(F, f"conv{rank}d")
    return function(
        x,
        flipped(weight, params["flip"]),
        bias,
        params["stride"],
        0,
        params.get("dilation", 1),
        groups,
    )


def by_torch(call):
    """The leaves, by entry, and the result."""
    rank, params = rank_of(call), call.explicit
    given, x = plain(call, "x")
    leaves = {("x", None): given}
    for entry in entries(call):
        if entry[0] != "x":
            leaves[entry] = leaf(array_at(call.arrays, entry))
    bias = leaves.get(("bias", None))
    if call.name == "transposed":
        y = transpose(x, leaves["weight", None], bias, params, rank)
    elif call.name == "depthwise_separable":
        y = convolve(x, leaves["depthwise", None], None, params, rank, x.shape[1])
        plain_params = {"padding": [(0, 0)] * rank, "padding_mode": "zeros", "stride": 1}
        y = convolve(y, leaves["pointwise", None], bias, {**plain_params, "flip": False}, rank, 1)
    elif call.name == "spatially_separable":
        y = x
        for a in range(rank):
            own = {
                key: [oracles.per_axis(params[key], rank)[b] if a == b else 1 for b in range(rank)]
                for key in ("stride", "dilation")
            }
            own["padding"] = [params["padding"][b] if a == b else (0, 0) for b in range(rank)]
            last = bias if a == rank - 1 else None
            y = convolve(
                y, leaves["axis_weights", a], last, {**params, **own}, rank, params["groups"]
            )
    else:
        groups = x.shape[1] if call.name == "depthwise" else params["groups"]
        y = convolve(x, leaves["weight", None], bias, params, rank, groups)
    return leaves, like(call, y)


def transpose(x, weight, bias, params, rank):
    """Uncropped by torch; then cropped, or padded with the zeros that no tap reaches."""
    function = getattr(F, f"conv_transpose{rank}d")
    y = function(
        x,
        flipped(weight, params["flip"]),
        None,
        params["stride"],
        0,
        0,
        params["groups"],
        params["dilation"],
    )
    extra = oracles.per_axis(params["output_padding"], rank)
    sides = [(-p, e - q) for (p, q), e in zip(params["padding"], extra, strict=True)]
    y = padded(y, sides, "zeros")
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def is_of_torch(call):
    """Whether torch pads like this: not symmetric, and no more than it allows."""
    mode = call.explicit.get("padding_mode", "zeros")
    if mode == "zeros":
        return True
    x, rank = call.arrays["x"], rank_of(call)
    size = x.shape[-1 - rank : -1] if call.channels_last else x.shape[x.ndim - rank :]
    sides = [max(pair) for pair in call.explicit["padding"]]
    if min(min(pair) for pair in call.explicit["padding"]) < 0:
        return False
    room = {"reflect": -1, "circular": 0, "replicate": 999, "symmetric": -999}[mode]
    return all(side <= n + room for side, n in zip(sides, size, strict=True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", [name for name in calls.OPERATORS if name != "deformable"])
def test_results_and_gradients(name, dtype):
    tolerance = {"float64": 1e-11, "float32": 1e-4}[dtype]

    @calls.examples(60)
    @given(calls.calls(name, (dtype,)).filter(is_of_torch))
    def test(call):
        leaves, theirs = by_torch(call)
        ours = call.run()
        assert ours.shape == tuple(theirs.shape)
        scale = 1 + float(call.magnitude().max())
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=tolerance * scale)
        grad = grad_for(call)
        theirs.backward(torch.from_numpy(grad))
        gradients = call.backward(grad)
        for entry, tensor in leaves.items():
            wanted = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
            atol = tolerance * (scale + np.abs(wanted).max())
            np.testing.assert_allclose(
                array_at(gradients, entry), wanted, rtol=0, atol=atol, err_msg=str(entry)
            )

    test()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("rule", ["same", "valid"])
def test_padding_by_name(rank, rule):
    """The strings that torch knows, with kernels of even size."""
    call = calls.fixed(
        "standard",
        (2, 3, *(7, 8, 9)[:rank]),
        (4, 3, *(4, 3, 2)[:rank]),
        padding=rule,
        dilation=2 if rule == "same" else 1,
        dtype="float64",
    )
    x, weight, bias = (leaf(array) for array in call.arrays.values())
    function = getattr(F, f"conv{rank}d")
    theirs = function(x, weight, bias, 1, rule, call.params["dilation"]).detach().numpy()
    np.testing.assert_allclose(call.run(), theirs, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_modules(rank):
    """Integer padding, output padding and output size have torch's meaning."""
    size = (6, 5, 4)[:rank]
    call = calls.fixed(
        "transposed", (2, 4, *size), (4, 3, *[4] * rank), stride=3, padding=2, groups=2,
        output_padding=2, dtype="float64",
    )  # fmt: skip
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(
        4, 6, 4, stride=3, padding=2, output_padding=2, groups=2, dtype=torch.float64
    )
    module.weight.data = torch.from_numpy(call.arrays["weight"])
    module.bias.data = torch.from_numpy(call.arrays["bias"])
    theirs = module(torch.from_numpy(call.arrays["x"])).detach().numpy()
    np.testing.assert_allclose(call.run(), theirs, atol=1e-12)
    args, kwargs = call.arguments()
    del kwargs["output_padding"]
    wanted = [3 * n - 2 for n in size]
    ours = call.operator(*args, **kwargs, output_size=tuple(wanted))
    theirs = module(torch.from_numpy(call.arrays["x"]), output_size=wanted).detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("name", ["standard", "depthwise"])
def test_tensors_are_taken_as_they_are(name):
    """Without a copy, channels last in memory included."""
    weights = {"standard": (4, 3, 3, 3), "depthwise": (6, 1, 3, 3)}[name]
    call = calls.fixed(name, (2, 3, 9, 8), weights, padding=1)
    tensors = [torch.from_numpy(array) for array in call.arrays.values()]
    tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    assert calls.same_bits(pyconv.get(name)(*tensors, padding=1), call.run())


def test_deformable_is_grid_sample():
    """A kernel of one tap without weights: sampling, and its gradients, between integers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 5))
    points = rng.integers(-2, 7, (2, 2, 6, 5)) + rng.uniform(0.1, 0.9, (2, 2, 6, 5))
    offset = points - np.stack(np.meshgrid(np.arange(6), np.arange(5), indexing="ij"))
    weight, grad = np.eye(3)[..., None, None], rng.standard_normal((2, 3, 6, 5))
    op = pyconv.get("deformable")
    image, at = leaf(x), leaf(points)
    # Normalised to [-1, 1] from first to last element, x before y.
    ends = torch.tensor([5.0, 4.0], dtype=torch.float64).reshape(2, 1, 1)
    grid = (2 * at / ends - 1).flip(1).movedim(1, -1)
    theirs = F.grid_sample(image, grid, padding_mode="zeros", align_corners=True)
    np.testing.assert_allclose(op(x, offset, weight), theirs.detach().numpy(), atol=1e-12)
    theirs.backward(torch.from_numpy(grad))
    gradients = op.backward(grad, x, offset, weight)
    np.testing.assert_allclose(gradients["x"], image.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(gradients["offset"], at.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_deformable_is_that_of_torchvision(seed):
    vision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    (x, offset, weight, bias, mask), params = oracles.deformable_problem(
        seed, rank=2, mask=seed % 2 == 0
    )
    # One padding per axis, and offsets for it.
    params["padding"] = tuple((max(p, 0),) * 2 for p, _ in params["padding"])
    out = oracles.out_size(x.shape[2:], weight.shape[2:], **params)
    rng = np.random.default_rng(seed)
    shape = (*offset.shape[:2], *out)
    offset = rng.integers(-3, 4, shape) + rng.uniform(0.1, 0.9, shape)
    mask = None if mask is None else rng.uniform(0, 1, (*mask.shape[:2], *out))
    arrays = dict(zip(("x", "offset", "weight", "bias", "mask"),
                      (x, offset, weight, bias, mask), strict=True))  # fmt: skip
    leaves = {key: leaf(array) for key, array in arrays.items()}
    theirs = vision.ops.deform_conv2d(
        leaves["x"], leaves["offset"], leaves["weight"], leaves["bias"], params["stride"],
        [p for p, _ in params["padding"]], params["dilation"], leaves["mask"],
    )  # fmt: skip
    op = pyconv.get("deformable")
    ours = op(*arrays.values(), **params)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-10)
    grad = rng.standard_normal(ours.shape)
    theirs.backward(torch.from_numpy(grad))
    for key, gradient in op.backward(grad, *arrays.values(), **params).items():
        np.testing.assert_allclose(gradient, leaves[key].grad.numpy(), atol=1e-9, err_msg=key)
