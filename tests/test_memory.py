"""Memory: the workspace promise, nothing left behind, no crash without it; threads and forks."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pyconv

from . import calls
from .calls import fixed

MIB = 2**20
DEFAULT = 32 * MIB
SENTINEL = -77.25
OPERATORS = pytest.mark.parametrize("name", calls.OPERATORS)
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
#: The address sanitizer keeps what is freed, and shadows the rest.
SANITIZED = pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="sanitized")

# One or more calls of each operator that want more workspace than a few kilobytes.
CALLS = {
    "standard": [
        fixed("standard", (2, 20, 30, 31), (40, 20, 3, 3), padding=1),
        fixed("standard", (2, 3, 3000), (3, 3, 9), padding="same"),
        fixed("standard", (2, 5, 40, 31), (7, 5, 3, 3), padding=2, stride=2, padding_mode="reflect"),
        fixed("standard", (2, 20, 10, 11), (40, 20, 3, 3), padding=1, flip=True, dtype="float64"),
        fixed("standard", (1, 20, 30, 31), (13, 20, 3, 3), layout="channels_last", dtype="float16"),
    ],
    "pointwise": [fixed("pointwise", (2, 200, 20, 31), (100, 200))],
    "grouped": [fixed("grouped", (2, 24, 20, 31), (24, 8, 3, 3), groups=3)],
    "depthwise": [
        fixed("depthwise", (2, 24, 40, 31), (48, 1, 5, 5), padding=2),
        fixed("depthwise", (2, 24, 40, 31), (24, 1, 5, 5), padding=2, layout="channels_last"),
        fixed("depthwise", (2, 24, 400), (24, 1, 31), stride=2, dtype="float16"),
    ],
    "depthwise_separable": [
        fixed("depthwise_separable", (2, 24, 40, 31), (48, 1, 3, 3), (30, 48), padding=1),
        fixed(
            "depthwise_separable", (2, 24, 40, 31), (24, 1, 3, 3), (30, 24), padding=1,
            padding_mode="symmetric", dtype="float64",
        ),
    ],
    "spatially_separable": [
        fixed("spatially_separable", (2, 8, 60, 41), (8, 8, 5, 1), (6, 8, 1, 5), padding=2),
        fixed(
            "spatially_separable", (1, 4, 20, 21, 22), (6, 4, 3, 1, 1), (5, 6, 1, 3, 1),
            (4, 5, 1, 1, 3), padding=1, padding_mode="circular",
        ),
    ],
    "dilated": [
        fixed("dilated", (2, 20, 30, 31), (40, 20, 3, 3), padding="same", dilation=4),
        fixed(
            "dilated", (2, 4, 30, 31), (4, 4, 3, 3), padding="same", dilation=4,
            algorithm="zero_insertion",
        ),
        fixed(
            "dilated", (2, 4, 30, 31), (4, 4, 3, 3), padding="same", dilation=4,
            algorithm="subsample",
        ),
    ],
    "transposed": [
        fixed("transposed", (2, 20, 15, 16), (20, 10, 5, 4), stride=2, padding=1),
        fixed("transposed", (2, 20, 15, 16), (20, 10, 4, 4), stride=3, padding=2, dtype="float16"),
        fixed("transposed", (2, 20, 15, 16), (20, 10, 2, 2), stride=3),
        fixed("transposed", (2, 20, 15, 16), (20, 1, 5, 4), stride=2, padding=1, groups=20),
        fixed(
            "transposed", (2, 20, 15, 16), (20, 10, 5, 4), stride=2, padding=1, algorithm="col2im"
        ),
    ],
    "deformable": [
        fixed("deformable", (2, 8, 20, 21), (12, 8, 3, 3), padding=1),
        fixed(
            "deformable", (2, 8, 20, 21), (12, 4, 3, 3), padding=1, layout="channels_last",
            offset_groups=2, dtype="float16",
        ),
    ],
}  # fmt: skip


def plan_of(call, **extra):
    args, kwargs = call.arguments(skip=call.operator.per_call)
    return call.operator.plan(call.arrays["x"].shape, *args, **{**kwargs, **extra})


def run_script(script, *arguments, timeout=120, **environment):
    """Run Python code in a process of its own; returns what it printed."""
    paths = [*sys.path, os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert process.returncode == 0, f"exit status {process.returncode}\n{process.stderr[-2000:]}"
    return process.stdout


# --- the promise, as plans tell it --------------------------------------------------------------

#: Shapes of x, of the weights, and parameters, too large to be allocated in passing.
PLANNED = {
    "1-D": ("standard", (1, 1, 10**7), (1, 1, 5), {"padding": "same"}),
    "1-D channels": ("standard", (4, 48, 10**6), (64, 48, 9), {"padding": "same"}),
    "2-D": ("standard", (1, 1, 4096, 4096), (1, 1, 3, 3), {"padding": 1}),
    "512 channels": ("standard", (32, 512, 56, 56), (512, 512, 3, 3), {"padding": 1}),
    "3-D": ("standard", (1, 32, 128, 128, 128), (32, 32, 3, 3, 3), {"padding": 1}),
    "large kernel": ("standard", (1, 3, 1024, 1024), (8, 3, 101, 101), {"padding": "same"}),
    "reflect": ("standard", (1, 8, 10**6), (8, 8, 31), {"padding": 15, "padding_mode": "reflect"}),
    "pointwise": ("pointwise", (8, 2048, 64, 64), (2048, 2048, 1, 1), {}),
    "grouped": ("grouped", (8, 512, 64, 64), (512, 64, 3, 3), {"groups": 8}),
    "depthwise": ("depthwise", (8, 512, 256, 256), (512, 1, 7, 7), {"padding": 3}),
    "depthwise, large kernel": ("depthwise", (1, 2, 10**6), (2, 1, 20_001), {}),
    "depthwise, last": (
        "depthwise", (8, 256, 256, 512), (512, 1, 3, 3), {"layout": "channels_last"},
    ),
    "dilated": ("dilated", (1, 64, 512, 512), (64, 64, 3, 3), {"dilation": 64, "padding": "same"}),
    "transposed": ("transposed", (8, 256, 128, 128), (256, 128, 4, 4), {"stride": 2}),
    "transposed, col2im": (
        "transposed", (8, 256, 128, 128), (256, 128, 4, 4), {"stride": 2, "algorithm": "col2im"},
    ),
    "deformable": ("deformable", (8, 256, 128, 128), (256, 256, 3, 3), {"padding": 1}),
    "deformable 3-D": ("deformable", (1, 16, 64, 64, 64), (16, 16, 3, 3, 3), {"padding": 1}),
    "separable": (
        "depthwise_separable", (8, 256, 256, 256), (256, 1, 3, 3), (256, 256), {"padding": 1},
    ),
    "separable, 1-D": (
        "depthwise_separable", (1, 2, 10**7), (4, 1, 5), (3, 4), {"padding": "same"},
    ),
    "separable, reflect": (
        "depthwise_separable", (1, 64, 512, 512), (64, 1, 3, 3), (64, 64),
        {"padding": 1, "padding_mode": "reflect"},
    ),
    "spatially separable": (
        "spatially_separable", (1, 16, 2048, 2048), (16, 16, 9, 1), (16, 16, 1, 9), {"padding": 4},
    ),
    "spatially separable 3-D": (
        "spatially_separable", (1, 8, 256, 256, 256), (8, 8, 5, 1, 1), (8, 8, 1, 5, 1),
        (8, 8, 1, 1, 5), {"padding": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("key", PLANNED)
def test_plans_keep_the_promise(key, dtype):
    name, x, *weights, params = PLANNED[key]
    weights = [np.broadcast_to(np.zeros((), dtype), shape) for shape in weights]
    for threads in (1, 2, 64):
        for budget in (None, 8 * MIB, MIB):
            try:
                plan = pyconv.get(name).plan(
                    x, *weights, **params, threads=threads, max_workspace=budget
                )
            except ValueError as error:
                assert budget is not None, error
                assert "max_workspace" in str(error)
            else:
                assert 0 <= plan.workspace_bytes <= (budget or DEFAULT)


# --- the promise, as the system sees it ---------------------------------------------------------

MEASURE = """
import contextlib, json, sys
import numpy as np, pyconv

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def filled(shape):
    array = np.empty(shape, dtype)
    array[...] = 0.5
    return array

def growth(function):
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak so far is forgotten
    before = status("VmRSS")
    result = function()
    return status("VmHWM") - before, result

name, dtype, ways, shapes, params = json.loads(sys.argv[1])
op = pyconv.get(name)
small = np.ones((1, 32, 48, 48), np.float32), np.ones((32, 32, 3, 3), np.float32)
pyconv.conv(*small, threads=2)  # threads and their stacks
arrays = [filled(shape) for shape in shapes]
result = filled(op.output_shape(*shapes, **params))
for way in ways:
    if way == "forward":
        grown, _ = growth(lambda: op(*arrays, **params, threads=2, out=result))
    else:
        needs = None if way == "backward" else way
        backward = lambda: op.backward(result, *arrays, **params, threads=2, needs=needs)
        grown, gradients = growth(backward)
        for gradient in gradients.values():
            parts = gradient if isinstance(gradient, tuple) else (gradient,)
            grown -= sum(part.nbytes for part in parts)
        del gradients, gradient, parts
    print(way, grown)
"""


def large(name, *shapes, ways=("forward", "backward"), dtype="float32", **params):
    return name, dtype, ways, shapes, params


def deformed(x, weight, *, layout="channels_first", **more):
    """Shapes of offset and mask for padding "same"."""
    rank, taps = len(weight) - 2, int(np.prod(weight[2:]))
    n, inner = x[0], x[1:-1] if layout == "channels_last" else x[2:]
    channels = [rank * taps, taps]
    offset, mask = (
        (n, *inner, c) if layout == "channels_last" else (n, c, *inner) for c in channels
    )
    shapes = (x, offset, weight, (weight[0],), mask)
    return large("deformable", *shapes, padding="same", layout=layout, **more)


LINE, PLANE = (1, 1, 10**7), (1, 1, 4096, 4096)
FORWARD = ("forward",)
# Mostly one channel of a large image, where a buffer as large as the image shows.
MEASURED = {
    "1-D": large("standard", LINE, (1, 1, 5), (1,)),
    "1-D, reflect": large("standard", LINE, (1, 1, 5), padding="same", padding_mode="reflect"),
    "1-D, 16 bits": large("standard", (1, 2, 10**7), (2, 2, 5), (2,), dtype="float16"),
    "2-D": large("standard", PLANE, (1, 1, 3, 3), (1,)),
    "2-D, circular": large("standard", PLANE, (1, 1, 3, 3), padding=1, padding_mode="circular"),
    "much replicated": large(
        "standard", (1, 1, 4), (1, 1, 3), padding=4_000_000, padding_mode="replicate"
    ),
    "much reflected": large(
        "standard", (1, 1, 1000, 1000), (1, 1, 3, 3), padding=1500, padding_mode="reflect"
    ),
    "512 channels": large("standard", (1, 512, 28, 28), (512, 512, 3, 3), (512,), padding=1),
    "512 channels, 16 bits": large(
        "standard", (1, 512, 28, 28), (512, 512, 3, 3), (512,), padding=1, dtype="float16"
    ),
    "large flipped weights": large("standard", (1, 1024, 5, 5), (1024, 1024, 3, 3), flip=True),
    "depthwise": large("depthwise", PLANE, (2, 1, 5, 5), (2,)),
    "depthwise, last": large(
        "depthwise", (1, 1024, 1024, 8), (8, 1, 3, 3), (8,), layout="channels_last", padding=1
    ),
    "depthwise, large kernel": large("depthwise", (1, 2, 200_000), (2, 1, 20_001), (2,)),
    "dilated": large("dilated", LINE, (1, 1, 5), dilation=1000, padding="same"),
    "subsampled": large(
        "dilated", PLANE, (1, 1, 3, 3), dilation=8, algorithm="subsample", ways=FORWARD
    ),
    "transposed": large("transposed", (1, 16, 512, 512), (16, 8, 4, 4), (8,), stride=2),
    "transposed, 16 bits": large(
        "transposed", (1, 16, 512, 512), (16, 8, 4, 4), (8,), stride=2, dtype="float16"
    ),
    "transposed, large flipped weights": large(
        "transposed", (1, 1024, 5, 5), (1024, 1024, 3, 3), flip=True
    ),
    "col2im": large(
        "transposed", (1, 16, 512, 512), (16, 8, 4, 4), (8,), stride=2, algorithm="col2im",
        ways=FORWARD,
    ),
    "col2im, 1-D": large(
        "transposed", (1, 1, 5_000_000), (1, 1, 5), stride=2, algorithm="col2im", ways=FORWARD
    ),
    "col2im, long gaps": large(
        "transposed", (1, 2, 10_000), (2, 2, 1), (2,), stride=1000, algorithm="col2im",
        ways=FORWARD,
    ),
    "col2im, large flipped weights": large(
        "transposed", (1, 1024, 5, 5), (1024, 1024, 3, 3), flip=True, algorithm="col2im",
        ways=FORWARD,
    ),
    "separable": large(
        "depthwise_separable", (1, 4, 1500, 1500), (8, 1, 3, 3), (4, 8), (4,), padding=1
    ),
    "separable, reflect": large(
        "depthwise_separable", LINE, (1, 1, 5), (1, 1), padding="same", padding_mode="reflect"
    ),
    "separable, 16 bits": large(
        "depthwise_separable", (1, 2, 2000, 2000), (2, 1, 3, 3), (2, 2), padding=1, dtype="float16"
    ),
    "separable, last": large(
        "depthwise_separable", (1, 512, 512, 8), (8, 1, 3, 3), (8, 8), layout="channels_last"
    ),
    "separable, large mix": large(
        "depthwise_separable", (1, 3000, 3, 3), (3000, 1, 3, 3), (3000, 3000)
    ),
    "spatially separable": large(
        "spatially_separable", PLANE, (1, 1, 5, 1), (1, 1, 1, 5), padding="same"
    ),
    "spatially separable, 1-D": large(
        "spatially_separable", LINE, (1, 1, 5), padding="same", padding_mode="symmetric"
    ),
    "spatially separable, 16 bits": large(
        "spatially_separable", (1, 1, 2048, 2048), (2, 1, 5, 1), (1, 2, 1, 5), padding="same",
        dtype="float16",
    ),
    "deformable": deformed((1, 1, 1000, 1000), (1, 1, 3, 3)),
    "deformable, 16 bits": deformed(
        (1, 1, 2500, 2500), (1, 1, 1, 1), dtype="float16", ways=("forward", "x", "offset")
    ),
    "deformable, channels": deformed((1, 64, 100, 100), (64, 64, 3, 3)),
    "deformable, last": deformed((1, 300, 300, 8), (8, 8, 3, 3), layout="channels_last"),
    "deformable, large flipped weights": deformed(
        (1, 1024, 4, 4), (1024, 1024, 3, 3), flip=True, ways=("x", "weight")
    ),
}  # fmt: skip


@LINUX
@SANITIZED
@pytest.mark.parametrize("key", MEASURED)
def test_peak(key):
    """The process grows by the workspace at most, whatever the size of the image."""
    found = dict(line.split() for line in run_script(MEASURE, json.dumps(MEASURED[key])).splitlines())
    assert set(found) == set(MEASURED[key][2])
    most = {way: int(grown) / MIB for way, grown in found.items() if int(grown) > DEFAULT + 3 * MIB}
    assert not most, f"MiB: {most}"


# --- little workspace ---------------------------------------------------------------------------

BUDGETS = (1, 500, 4000, 6000, 8000, 12_000, 24_000, 48_000, 100_000, 200_000, 400_000, 10**6)


def with_least(function, name, budget):
    """``function(max_workspace)``, with the least that the error names if ``budget`` is too small.

    None where the algorithm refuses the shape for want of workspace.
    """
    try:
        return function(budget)
    except ValueError as error:
        text = str(error)
    assert text.startswith(f"{name}: "), text
    if "algorithm must not be" in text:
        return None
    found = re.search(r"max_workspace must be at least (\d+) ", text)
    assert found, text
    assert text.endswith(f"; got {budget}"), f"not what was given, {budget}: {text}"
    least = int(found[1])
    assert budget < least < MIB * 4, text
    try:
        return function(least)
    except ValueError as error:
        raise AssertionError(f"the least workspace is not enough: {text}, then {error}") from None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "i"), [(name, i) for name, those in CALLS.items() for i in range(len(those))]
)
class TestLittleWorkspace:
    def test_forward(self, name, i, threads):
        """The same bits, or an error that says how much it takes and leaves ``out`` alone."""
        call = CALLS[name][i]
        y = call.run(threads=threads)
        out = np.empty_like(y)
        problems = []

        def forward(budget):
            out[...] = SENTINEL
            return call.run(threads=threads, max_workspace=budget, out=out)

        def planned(budget):
            out[...] = SENTINEL
            plan = plan_of(call, threads=threads, max_workspace=budget)
            assert plan.workspace_bytes <= budget
            return plan(*(call.arrays[key] for key in call.operator.per_call), out=out)

        for budget in BUDGETS:
            for way in (forward, planned):
                try:
                    way(budget)
                except ValueError:
                    if not (out == SENTINEL).all():
                        problems.append(f"{budget}, {way.__name__}: out was written to")
                try:
                    result = with_least(way, name, budget)
                    assert result is None or calls.same_bits(result, y), "other bits"
                except AssertionError as error:
                    problems.append(f"{budget}, {way.__name__}: {error}")
        assert not problems, "\n".join(problems)

    def test_backward(self, name, i, threads):
        call = CALLS[name][i]
        y = call.run()
        gradients = call.backward(y, threads=threads)
        problems = []
        for budget in BUDGETS:
            try:
                found = with_least(
                    lambda b: call.backward(y, threads=threads, max_workspace=b), name, budget
                )
                for key, value in gradients.items():
                    pairs = zip(_parts(found[key]), _parts(value), strict=True)
                    assert all(calls.same_bits(a, b) for a, b in pairs), f"other bits of {key}"
            except AssertionError as error:
                problems.append(f"{budget}: {error}")
        assert not problems, "\n".join(problems)


def _parts(value):
    return value if isinstance(value, tuple) else (value,)


# --- no memory ----------------------------------------------------------------------------------

STARVE = """
import resource, sys
import numpy as np, pyconv

def ones(*shape):  # however large, of four bytes
    return np.broadcast_to(np.float32(1), shape)

name = sys.argv[1]
op = pyconv.get(name)
pad, wide = {"padding": 15_000}, (1, 2, 30_000, 30_000)  # a result of 7 GB and more
x, weight, params = {
    "pointwise": (ones(1, 2, 9, 9), [ones(2, 2, 1, 1)], pad),
    "grouped": (ones(1, 2, 9, 9), [ones(2, 2, 3, 3)], {**pad, "groups": 1}),
    "depthwise": (ones(1, 2, 9, 9), [ones(2, 1, 3, 3)], pad),
    "depthwise_separable": (ones(1, 2, 9, 9), [ones(2, 1, 3, 3), ones(2, 2)], pad),
    "spatially_separable": (ones(1, 2, 9, 9), [ones(2, 2, 3, 1), ones(2, 2, 1, 3)], pad),
    "dilated": (ones(1, 2, 9, 9), [ones(2, 2, 3, 3)], {**pad, "dilation": 2}),
    "transposed": (ones(1, 2, 2000, 2000), [ones(2, 2, 3, 3)], {"stride": 15}),
    "deformable": (ones(*wide), [ones(2, 2, 1, 1)], {}),
}.get(name, (ones(1, 2, 9, 9), [ones(2, 2, 3, 3)], pad))
between = [ones(1, 2, *wide[2:])] if name == "deformable" else []
plan = op.plan(x.shape, *weight, **params, threads=1)
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, -1))
grad = np.broadcast_to(np.float32(1), plan.output_shape)
ways = {
    "call": lambda: op(x, *between, *weight, **params, threads=1),
    "plan": lambda: plan(x, *between),
}
if name == "deformable":
    ways["backward"] = lambda: op.backward(grad, x, *between, *weight, threads=1, needs="x")
for way, function in ways.items():
    try:
        function()
    except MemoryError as error:
        assert str(error), way
    else:
        raise SystemExit(f"{way}: 7 GB were found in 3")
"""


@LINUX
@SANITIZED
@OPERATORS
def test_no_memory_for_the_result(name):
    run_script(STARVE, name)


STARVE_WORKSPACE = """
import resource
import numpy as np, pyconv

f = np.float32
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

x, w = np.ones((1, 16, 300, 300), f), np.ones((16, 8, 4, 4), f)
op = pyconv.get("transposed")
options = {"stride": 2, "algorithm": "col2im", "threads": 1}
out = op(x, w, **options, max_workspace=2**20)
expected = out.copy()
out[...] = -77.25
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 8 * 2**20, -1))
try:
    op(x, w, **options, out=out, max_workspace=400 * 2**20)
except MemoryError as error:
    assert str(error), repr(error)
else:
    raise SystemExit("the workspace was found")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert (out == -77.25).all(), "out was written to"
op(x, w, **options, out=out, max_workspace=2**20)
assert (out == expected).all()
"""


@LINUX
@SANITIZED
def test_no_memory_for_the_workspace():
    run_script(STARVE_WORKSPACE)


# --- more elements than 32 bits count -----------------------------------------------------------

MANY = 2**31 + 12


def broadcast(*shape, dtype=np.float32):
    return np.broadcast_to(np.asarray(0.5, dtype), shape)


def ones(*shape):
    return np.ones(shape, np.float32)


#: Operator, weights and parameters for a line of so many elements, read at three or so places.
LINES = {
    "standard": ([(3, 2, 5)], {}),
    "pointwise": ([(3, 2, 1)], {}),
    "grouped": ([(4, 1, 5)], {"groups": 2}),
    "depthwise": ([(4, 1, 5)], {}),
    "depthwise_separable": ([(4, 1, 5), (3, 4)], {}),
    "spatially_separable": ([(3, 2, 5)], {}),
    "dilated": ([(3, 2, 3)], {"dilation": 2**29}),
}


@pytest.mark.parametrize("layout", calls.LAYOUTS)
@pytest.mark.parametrize("name", LINES)
def test_more_than_2_31_elements(name, layout):
    """Inputs that only look large: every element is 0.5."""
    weights, params = LINES[name]
    x = broadcast(1, MANY, 2) if layout == "channels_last" else broadcast(1, 2, MANY)
    params = {**params, "stride": 2**30, "layout": layout}
    op = pyconv.get(name)
    terms = np.prod([shape[1] for shape in weights]) * weights[0][2]
    y = op(x, *map(lambda shape: ones(*shape), weights), **params)
    assert y.size in (2 * weights[-1][0], 3 * weights[-1][0])
    np.testing.assert_array_equal(y, np.full_like(y, terms / 2))
    if len(weights) > 1 or name == "spatially_separable":
        return
    grad = np.ones_like(y)
    found = op.backward(grad, x, ones(*weights[0]), **params, needs="weight")["weight"]
    positions = y.size // weights[0][0]
    np.testing.assert_array_equal(found, np.full_like(found, positions / 2))


def test_more_than_2_31_elements_in_two_axes():
    side = 2**16 + 1
    y = pyconv.conv(broadcast(1, 2, side, side), ones(3, 2, 3, 3), stride=2**15, padding=1)
    assert y.shape == (1, 3, 3, 3)
    inside = np.array([2, 3, 2])  # taps
    np.testing.assert_array_equal(y[0, 0], np.outer(inside, inside).astype(np.float32))


def test_a_batch_of_more_than_2_31_elements():
    y = pyconv.conv(broadcast(2**27 + 1, 16, 1)[:: 2**26], ones(1, 16, 1))
    np.testing.assert_array_equal(y, np.full((3, 1, 1), 8.0, np.float32))


def test_deformable_samples_beyond_2_31():
    """In double precision, so that coordinates can tell those elements apart."""
    x = broadcast(1, 1, MANY, dtype=np.float64)
    last = MANY - 1.0
    offset = np.array([[[last, last + 0.5, last + 1, -0.5, np.inf]]])
    offset -= np.arange(5) * 2**29
    y = pyconv.deformable_conv(x[..., : 2**31 + 4], offset, np.ones((1, 1, 1)), stride=2**29)
    np.testing.assert_array_equal(y[0, 0], [0, 0, 0, 0.25, 0])
    offset = offset - 8.0
    y = pyconv.deformable_conv(x[..., : 2**31 + 4], offset, np.ones((1, 1, 1)), stride=2**29)
    np.testing.assert_array_equal(y[0, 0], [0.5, 0.25, 0, 0, 0])


def test_a_long_sum():
    """The gradient of a bias over more elements than a float32, or an int, counts."""
    n = 2**31 + 4
    grad = broadcast(1, 1, n)
    x = broadcast(1, 1, n)
    weight = np.ones((1, 1, 1), np.float32)
    op = pyconv.get("standard")
    found = op.backward(grad, x, weight, np.zeros(1, np.float32), needs="bias")["bias"]
    assert found[0] == np.float32(n / 2)


# --- nothing stays behind -----------------------------------------------------------------------


@OPERATORS
def test_references(name):
    """No reference to an array is kept, by results nor by errors."""
    call = CALLS[name][0]
    call = call.map(np.copy)
    arrays = [part for value in call.arrays.values() for part in _parts(value)]
    y = call.run()
    counts = [sys.getrefcount(array) for array in arrays]
    for _ in range(3):
        call.run(out=y)
        call.backward(y)
        plan_of(call)
        with pytest.raises(ValueError, match="max_workspace"):
            call.run(max_workspace=1, out=y, algorithm="direct")
        with pytest.raises(ValueError, match="out"):
            call.run(out=y[:0])
    gc.collect()
    assert [sys.getrefcount(array) for array in arrays] == counts


LEAK = """
import sys
import numpy as np, pyconv

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

op = pyconv.get(sys.argv[1])
calls = []
for case in op.cases():
    args, kwargs = [], dict(case.params)
    for key, shape in case.shapes.items():
        if shape is not None and isinstance(shape[0], tuple):
            args += [np.ones(part, np.float32) for part in shape]
        elif key == "bias" and "axis_weights" in case.shapes:
            kwargs[key] = np.ones(shape, np.float32)
        else:
            args.append(None if shape is None else np.ones(shape, np.float32))
    calls.append((args, kwargs))

def again(times):
    for i in range(times):
        args, kwargs = calls[i % len(calls)]
        y = op(*args, **kwargs)
        op.backward(y, *args, **kwargs)
        try:
            op(*args, **kwargs, max_workspace=1)
        except ValueError:
            pass
        try:
            op(*args, **kwargs, out=y[:0])
        except ValueError:
            pass

again(200)
before = status("VmRSS")
again(1000)
print(status("VmRSS") - before)
"""


@LINUX
@SANITIZED
@OPERATORS
def test_leaks(name):
    """A thousand calls, gradients and errors: a lost block of 1 kB in each would show."""
    assert int(run_script(LEAK, name, PYCONV_NUM_THREADS="2")) < 900_000


# --- threads, forks, pickles --------------------------------------------------------------------

#: A call of each that takes a tenth of a second or so.
SLOW = {
    "standard": fixed("standard", (2, 64, 128, 128), (64, 64, 3, 3)),
    "pointwise": fixed("pointwise", (4, 256, 96, 96), (256, 256)),
    "grouped": fixed("grouped", (2, 64, 160, 160), (64, 32, 3, 3), groups=2),
    "depthwise": fixed("depthwise", (2, 32, 256, 256), (32, 1, 9, 9)),
    "depthwise_separable": fixed("depthwise_separable", (2, 32, 256, 256), (32, 1, 9, 9), (32, 32)),
    "spatially_separable": fixed("spatially_separable", (1, 32, 256, 256), (32, 32, 5, 1), (32, 32, 1, 5)),
    "dilated": fixed("dilated", (2, 64, 128, 128), (64, 64, 3, 3), dilation=2),
    "transposed": fixed("transposed", (2, 64, 64, 64), (64, 64, 4, 4), stride=2),
    "deformable": fixed("deformable", (1, 32, 96, 96), (32, 32, 3, 3)),
}  # fmt: skip


def longest_silence(function):
    """Seconds that ``function`` takes, and the longest that another thread stood still in them."""
    done, gaps = threading.Event(), []

    def watch():
        last = time.perf_counter()
        while not done.is_set():
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    function()
    taken = time.perf_counter() - start
    done.set()
    watcher.join()
    return taken, max(gaps)


@OPERATORS
def test_the_gil_is_released(name):
    """Python goes on in another thread while a convolution runs."""
    call = SLOW[name]
    y = call.run(threads=1)
    for function in (lambda: call.run(threads=1, out=y), lambda: call.backward(y, threads=1)):
        for _ in range(5):  # a busy machine may stop the other thread as well
            taken, gap = longest_silence(function)
            if gap < 0.5 * taken:
                break
        else:
            raise AssertionError(f"nothing else ran for {gap:.3f} s of {taken:.3f} s")


def test_all_operators_at_the_same_time():
    """Every operator, forward and backward, with one thread or two each, from eight threads."""
    tasks = [call for those in CALLS.values() for call in those] * 2
    ways = [(call, threads) for call in tasks for threads in (1, 2)]
    expected = {id(call): (call.run(), None) for call in tasks}
    expected = {
        key: (y, next(c for c in tasks if id(c) == key).backward(y))
        for key, (y, _) in expected.items()
    }

    def work(way):
        call, threads = way
        y, gradients = expected[id(call)]
        assert calls.same_bits(call.run(threads=threads), y)
        found = call.backward(y, threads=threads)
        for key, value in gradients.items():
            for a, b in zip(_parts(found[key]), _parts(value), strict=True):
                assert calls.same_bits(a, b)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, ways))


FORK = """
import os, signal
import numpy as np, pyconv

rng = np.random.default_rng(0)
x, w = rng.standard_normal((4, 32, 40, 40)), rng.standard_normal((32, 32, 3, 3))
offset = rng.standard_normal((4, 18, 38, 38))
each, mix = rng.standard_normal((32, 1, 3, 3)), rng.standard_normal((32, 32))
rows, columns = rng.standard_normal((32, 32, 3, 1)), rng.standard_normal((32, 32, 1, 3))

def everything():
    results = [
        pyconv.conv(x, w), pyconv.pointwise_conv(x, mix), pyconv.grouped_conv(x, w, groups=1),
        pyconv.depthwise_conv(x, each), pyconv.depthwise_separable_conv(x, each, mix),
        pyconv.spatially_separable_conv(x, rows, columns), pyconv.dilated_conv(x, w, dilation=2),
        pyconv.transposed_conv(x, w, stride=2), pyconv.deformable_conv(x, offset, w),
    ]
    gradients = pyconv.get("deformable").backward(results[-1], x, offset, w)
    return b"".join(a.tobytes() for a in (*results, *gradients.values()))

plan = pyconv.get("standard").plan(x.shape, w, threads=2)
with pyconv.threads(2):
    expected = everything()
    for generation in range(2):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            ok = everything() == expected and plan(x).tobytes() == pyconv.conv(x, w).tobytes()
            if generation == 1 and ok:  # and its own child
                inner = os.fork()
                if inner == 0:
                    os._exit(0 if everything() == expected else 4)
                ok = os.waitpid(inner, 0)[1] == 0
            os._exit(0 if ok else 3)
        assert os.waitpid(child, 0)[1] == 0, "the child failed or hung"
    assert everything() == expected  # the parent goes on in parallel
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_a_parallel_call():
    run_script(FORK)


@OPERATORS
def test_pickle_and_copy(name):
    op = pyconv.get(name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(op, protocol)) is op
    assert copy.copy(op) is op
    assert copy.deepcopy(op) is op
    script = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).name)"
    assert run_script(script, pickle.dumps(op).hex()).strip() == name
