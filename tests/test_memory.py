"""The workspace: what a call takes beyond arguments and results, as the system counts it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyconv

LIMIT = 32 * 2**20
#: Code and tables that a first call brings in, and what the allocator keeps.
OVERHEAD = 2 * 2**20

X = (1, 1, 10_000_000)
CASES = {
    "long line, reflected": ("standard", [X, (1, 1, 5)], {"padding": 2, "padding_mode": "reflect"}),
    "pads longer than the line": (
        "standard", [(1, 1, 100), (1, 1, 5)], {"padding": 4_000_000, "padding_mode": "replicate"},
    ),
    "pads as long as the line": (
        "standard", [(1, 1, 5_000_000), (1, 1, 5)],
        {"padding": 4_000_000, "padding_mode": "circular"},
    ),
    "wide pads in 2-D": (
        "standard", [(1, 1, 1600, 1600), (1, 1, 3, 3)], {"padding": 1500, "padding_mode": "reflect"}
    ),
    "wide pads in 3-D": (
        "standard", [(1, 1, 3, 3, 3), (1, 1, 3, 3, 3)], {"padding": 90, "padding_mode": "circular"}
    ),
    "many samples": (
        "standard", [(64, 16, 100, 100), (8, 16, 3, 3)],
        {"padding": 2, "padding_mode": "symmetric"},
    ),
    "a large image": ("standard", [(1, 64, 400, 400), (64, 64, 3, 3)], {"padding": 1}),
    "large weights, flipped": (
        "standard", [(1, 1500, 7, 7), (1500, 1500, 3, 3)], {"padding": 1, "flip": True},
    ),
    "many channels": (
        "depthwise", [(1, 1_000_000, 4), (1_000_000, 1, 3)],
        {"padding": 1, "padding_mode": "reflect"},
    ),
    "many inputs of one output": (
        "pointwise", [(1, 3_000_000, 2), (1, 3_000_000)], {"padding": 1, "padding_mode": "reflect"},
    ),
    "separable, reflected": (
        "depthwise_separable", [X, (1, 1, 5), (1, 1)], {"padding": 2, "padding_mode": "reflect"},
    ),
    "separable, from the other end": (
        "spatially_separable", [(1, 1, 2, 4_000_000), (1, 1, 2, 1), (1, 1, 1, 5)],
        {"padding": 2, "padding_mode": "circular"},
    ),
    "a large mix": (
        "depthwise_separable", [(1, 3000, 9, 9), (3000, 1, 3, 3), (3000, 3000)], {"padding": 1},
    ),
    "large axis weights": (
        "spatially_separable", [(2, 1500, 9, 9), (1500, 1500, 3, 1), (1500, 1500, 1, 3)],
        {"padding": 1},
    ),
    "col2im, flipped": (
        "transposed", [(1, 1000, 7, 7), (1000, 1000, 3, 3)],
        {"stride": 2, "flip": True, "algorithm": "col2im"},
    ),
    "col2im, long rows": (
        "transposed", [(1, 4, 9000), (4, 4, 9)], {"stride": 1000, "algorithm": "col2im"},
    ),
    "col2im, a large image": (
        "transposed", [(1, 16, 400, 400), (16, 8, 4, 4)], {"stride": 2, "algorithm": "col2im"},
    ),
    "phases": ("transposed", [(1, 16, 400, 400), (16, 8, 4, 4)], {"stride": 2}),
    "deformable, flipped": (
        "deformable", [(1, 1000, 7, 7), (1, 18, 7, 7), (1000, 1000, 3, 3), None, (1, 9, 7, 7)],
        {"padding": 1, "flip": True},
    ),
    "deformable": (
        "deformable", [(1, 32, 250, 250), (1, 18, 250, 250), (32, 32, 3, 3)], {"padding": 1},
    ),
    "deformable, one large float16 plane": (
        "deformable", [(1, 1, 3000, 3000), (1, 2, 100, 100), (1, 1, 1, 1)], {"stride": 30},
    ),
    "subsampled": (
        "dilated", [(1, 16, 500, 500), (16, 16, 3, 3)],
        {"padding": 4, "dilation": 4, "algorithm": "subsample"},
    ),
}  # fmt: skip


def resident(field):
    """A line of this process's memory figures, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def taken(make):
    """By how much the resident memory of this process grew at most, beyond what `make` returns."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what there is now
    before = resident("VmRSS")
    results = make()
    return resident("VmHWM") - before - sum(array.nbytes for array in results)


def values(shape, dtype, rng):
    """An array whose pages are all there, of numbers that are cheap to make."""
    array = np.full(shape, 0.5, dtype)
    some = array.reshape(-1)[: 2**16]
    some[...] = rng.standard_normal(some.size) / 8
    return array


def measure(key):
    """The bytes that the call of a case and each of its gradients take."""
    name, shapes, params = CASES[key]
    op, rng = pyconv.get(name), np.random.default_rng(0)
    dtype = np.dtype(np.float16 if "float16" in key else np.float32)
    arrays = [None if shape is None else values(shape, dtype, rng) for shape in shapes]
    out = values(op.output_shape(*shapes, **params), dtype, rng)
    grad = out.copy()

    def forward():
        op(*arrays, out=out, **params)
        return []

    figures = {"forward": taken(forward)}
    for needed in op.array_names:

        def backward(needed=needed):
            gradient = op.backward(grad, *arrays, needs=needed, **params)[needed]
            return gradient if isinstance(gradient, tuple) else [gradient]

        try:
            figures[needed] = taken(backward)
        except ValueError as error:
            if "name arrays that were given" not in str(error):
                raise
    return figures


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process its peak"
)
@pytest.mark.parametrize("key", CASES)
def test_resident_memory(key):
    """In a process of its own, which has nothing to reuse."""
    script = Path(__file__)
    code = (
        "import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('test_memory', {str(script)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"print(json.dumps(module.measure({key!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert "forward" in figures
    assert "x" in figures
    excess = {what: size for what, size in figures.items() if size > LIMIT + OVERHEAD}
    assert not excess, f"more than {LIMIT} bytes of workspace: {excess}"


SMALL = {
    "standard": ([(2, 6, 40, 37), (8, 6, 3, 3), (8,)], {"padding": 1}),
    "standard, reflected": (
        [(2, 6, 40, 37), (8, 6, 3, 3), (8,)], {"padding": 3, "padding_mode": "reflect"}
    ),
    "grouped": ([(2, 6, 40, 37), (8, 3, 3, 3), (8,)], {"groups": 2}),
    "depthwise": ([(2, 6, 40, 37), (12, 1, 5, 3), (12,)], {"stride": 2, "padding": 1}),
    "pointwise": ([(2, 6, 40, 37), (9, 6), (9,)], {}),
    "depthwise_separable": ([(2, 6, 40, 37), (6, 1, 3, 3), (9, 6), (9,)], {"padding": 1}),
    "spatially_separable": (
        [(2, 4, 9, 11, 13), (6, 4, 3, 1, 1), (5, 6, 1, 3, 1), (4, 5, 1, 1, 5)],
        {"padding": 2, "padding_mode": "circular"},
    ),
    "dilated": ([(2, 6, 40, 37), (8, 6, 3, 3), (8,)], {"dilation": (3, 2)}),
    "dilated, without taps in the padding": (
        [(2, 6, 40, 37), (8, 6, 3, 3), (8,)], {"dilation": 20, "padding": 20}
    ),
    "dilated, subsampled": (
        [(2, 6, 40, 37), (8, 6, 3, 3), (8,)],
        {"dilation": (3, 2), "padding": 4, "algorithm": "subsample"},
    ),
    "dilated, zeros inserted": (
        [(2, 6, 40, 37), (8, 6, 3, 3), (8,)], {"dilation": 3, "algorithm": "zero_insertion"}
    ),
    "transposed": ([(2, 6, 20, 17), (6, 8, 4, 3), (8,)], {"stride": (3, 2)}),
    "transposed, col2im": (
        [(2, 6, 20, 17), (6, 8, 4, 3), (8,)], {"stride": (3, 2), "algorithm": "col2im"}
    ),
    "transposed, holes": ([(2, 6, 20, 17), (6, 8, 2, 3), (8,)], {"stride": (3, 5)}),
    "deformable": ([(2, 6, 20, 17), (2, 18, 20, 17), (8, 6, 3, 3), (8,)], {"padding": 1}),
    "deformable, many channels": (
        [(5, 20, 20, 17), (5, 18, 20, 17), (8, 20, 3, 3), (8,)], {"padding": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", SMALL)
def test_small_workspaces(key):
    """Each is kept to, with the same bits; or refused, and then nothing has been written."""
    shapes, params = SMALL[key]
    op, rng = pyconv.get(key.partition(",")[0]), np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    expected = op(*arrays, **params)
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    gradients = op.backward(grad, *arrays, **params)
    refused = accepted = 0
    for threads in (1, 3):
        before = accepted
        for exponent in range(48):  # steps of half an octave, from 1 byte to 11 MiB
            budget = int(2 ** (exponent / 2))
            how = {**params, "max_workspace": budget, "threads": threads}
            out = np.full(expected.shape, 7, np.float32)
            try:
                op(*arrays, out=out, **how)
            except ValueError as error:
                refused += 1
                assert str(error).startswith(f"{op.name}: "), error
                assert "max_workspace" in str(error), error
                assert (out == 7).all(), f"{budget} bytes: refused after writing"
                assert accepted == before, f"{budget} bytes: refused, unlike fewer"
                continue
            accepted += 1
            np.testing.assert_array_equal(out, expected, err_msg=f"{budget} bytes")
            later = list(op.per_call)
            fixed = [a for a, name in zip(arrays, order(op, arrays), strict=True)
                     if name not in later]  # fmt: skip
            if exponent % 6 == 0:
                plan = op.plan(shapes[0], *fixed, **how)
                assert plan.workspace_bytes <= budget
            if exponent % 8 == 0:
                check_gradients(op, grad, arrays, how, gradients)
    assert refused
    assert accepted


def order(op, arrays):
    """Names of the arrays of a call, a variadic argument's repeated."""
    if op.name == "spatially_separable":
        return ["x"] + ["axis_weights"] * (len(arrays) - 1)
    return op.array_names[: len(arrays)]


def check_gradients(op, grad, arrays, how, expected):
    """Those within a small workspace, unless it is refused; sums may be in another order."""
    try:
        found = op.backward(grad, *arrays, **how)
    except ValueError as error:
        assert "max_workspace" in str(error), error
        return
    for name, gradient in found.items():
        pairs = zip(gradient, expected[name], strict=True) if isinstance(gradient, tuple) else [
            (gradient, expected[name])]  # fmt: skip
        for got, wanted in pairs:
            scale = float(np.abs(wanted).max())
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * scale, err_msg=name)
