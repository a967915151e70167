"""Calls of the nine operators: their arrays, and what the oracles say they give.

A `Call` runs an operator of pyconv and, apart from it, its oracles. The strategies at the end draw
calls for `hypothesis`; everything about a call is drawn except the values of its arrays, which come
from a seed. Values are normal deviates, or small integers: sums of products of those have no
rounding, so that results have to be right to the last bit whatever the order of the additions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import pyconv

from . import oracles

OPERATORS = (
    "standard",
    "pointwise",
    "grouped",
    "depthwise",
    "depthwise_separable",
    "spatially_separable",
    "dilated",
    "transposed",
    "deformable",
)
LAYOUTS = ("channels_first", "channels_last")
DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
#: Smallest positive value: what lies between 0 and it is rounded by up to half of it.
SMALLEST = {"float64": 0.0, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}

#: The images of a call: arrays that have its layout and its batch axis.
IMAGES = ("x", "offset", "mask")


def examples(count):
    """Settings of a hypothesis test: the same examples everywhere and every time."""
    return settings(max_examples=count, derandomize=True, deadline=None, database=None)


@dataclass(frozen=True)
class Call:
    """A call of an operator. ``explicit`` has the parameters as the oracles take them."""

    name: str
    arrays: dict  # by argument, in call order; None if absent, a tuple for axis_weights
    params: dict
    explicit: dict
    integral: bool = False  # no rounding, whatever the order

    def __repr__(self):
        shapes = {
            key: None if value is None else _each(np.shape, value)
            for key, value in self.arrays.items()
        }
        return f"<{self.name} {shapes} {self.dtype.name} {self.params}>"

    @property
    def operator(self):
        return pyconv.get(self.name)

    @property
    def dtype(self):
        return self.arrays["x"].dtype

    @property
    def channels_last(self):
        return self.params.get("layout") == "channels_last"

    def arguments(self, skip=()):
        """Positional and keyword arguments, without those in ``skip``."""
        args, kwargs = [], dict(self.params)
        for key, value in self.arrays.items():
            if key in skip:
                continue
            if key == "axis_weights":
                args += value
            elif key == "bias" and "axis_weights" in self.arrays:
                kwargs[key] = value
            else:
                args.append(value)
        return args, kwargs

    def run(self, **extra):
        args, kwargs = self.arguments()
        return self.operator(*args, **{**kwargs, **extra})

    def backward(self, grad, **extra):
        args, kwargs = self.arguments()
        return self.operator.backward(grad, *args, **{**kwargs, **extra})

    def run_plan(self, **extra):
        """The result of a plan."""
        later = self.operator.per_call
        args, kwargs = self.arguments(skip=later)
        plan = self.operator.plan(self.arrays["x"].shape, *args, **{**kwargs, **extra})
        return plan(*(self.arrays[key] for key in later))

    def map(self, function, keys=None):
        """The call with other arrays: ``function`` applied to each of them (or of ``keys``)."""
        arrays = {
            key: value
            if value is None or (keys is not None and key not in keys)
            else _each(function, value)
            for key, value in self.arrays.items()
        }
        return replace(self, arrays=arrays)

    def put(self, key, value):
        """The call with one other array."""
        return replace(self, arrays={**self.arrays, key: value})

    def astype(self, dtype):
        return self.map(lambda array: array.astype(dtype))

    def with_params(self, **params):
        """The call with parameters that the oracles do not know: algorithm, max_workspace."""
        return replace(self, params={**self.params, **params})

    def sample(self, n):
        """The call for one of the samples of the batch, as a batch of one."""
        return self.map(lambda array: array[n : n + 1], IMAGES)

    def expected(self, kind="loops"):
        """The result in float64 by the oracle of this kind: "loops" or "scipy"."""
        return _ORACLES[self.name](self, kind)

    def magnitude(self):
        """What the error is measured in: the call with the absolute values of its arrays."""
        keys = [key for key in self.arrays if key != "offset"]
        return self.map(lambda array: np.abs(array.astype(np.float64)), keys).expected("scipy")

    @property
    def algorithms(self):
        """The algorithms that take the call: Winograd's is for small kernels."""
        known = self.operator.algorithms
        if "winograd" in known:
            kernel = self.arrays["weight"].shape[2:]
            strides = oracles.per_axis(self.explicit.get("stride", 1), len(kernel))
            dilations = oracles.per_axis(self.explicit.get("dilation", 1), len(kernel))
            adjoint = self.name == "transposed" and max(strides) > 1
            if adjoint or not winograd_takes(kernel, strides, dilations):
                known = tuple(name for name in known if name != "winograd")
        return known

    @property
    def terms(self):
        """Number of rounded products in a chain, one per stage of a composition."""
        arrays = self.arrays
        if self.name == "transposed":
            weight = arrays["weight"]
            groups = self.params.get("groups", 1)
            return (weight.shape[0] // groups * math.prod(weight.shape[2:]),)
        if self.name == "spatially_separable":
            return tuple(math.prod(weight.shape[1:]) for weight in arrays["axis_weights"])
        if self.name == "depthwise_separable":
            return math.prod(arrays["depthwise"].shape[1:]), arrays["pointwise"].shape[1]
        return (math.prod(arrays["weight"].shape[1:]),)


def winograd_takes(kernel, strides, dilations):
    """Whether Winograd's algorithm is for a kernel, which has taps along one of the last axes."""
    taps = list(zip(kernel, strides, strict=True))[-2:]
    dilated = any(k > 1 < s and d > 1 for (k, s), d in zip(taps, dilations[-2:], strict=True))
    return (
        not dilated
        and any(k > 1 for k, _ in taps)
        and (taps[-1][0] > 1 or taps[-1][1] == 1)
        and all(k == 1 or (s == 1 and k <= 5) or (s == 2 and k in (3, 4)) for k, s in taps)
    )


def _each(function, value):
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


# --- oracles ------------------------------------------------------------------------------------


def _conv(call, kind):
    x, weight, bias = call.arrays.values()
    if weight.ndim == 2:  # pointwise, without kernel axes
        rank = len(call.explicit["padding"])
        weight = weight.reshape(*weight.shape, *[1] * rank)
    params = dict(call.explicit)
    if call.name == "depthwise":
        params["groups"] = x.shape[-1] if call.channels_last else x.shape[1 - weight.ndim]
    convolve = {"loops": oracles.conv, "scipy": oracles.scipy_conv}[kind]
    return convolve(x, weight, bias, **params)


def _separable(call, kind):
    convolve = {"loops": oracles.conv, "scipy": oracles.scipy_conv}[kind]
    return oracles.separable(*call.arrays.values(), convolve=convolve, **call.explicit)


def _spatially_separable(call, kind):
    x, weights, bias = call.arrays.values()
    convolve = {"loops": oracles.conv, "scipy": oracles.scipy_conv}[kind]
    return oracles.spatially_separable(x, *weights, b=bias, convolve=convolve, **call.explicit)


def _transposed(call, kind):
    function = {"loops": oracles.transposed, "scipy": oracles.scipy_transposed}[kind]
    return function(*call.arrays.values(), **call.explicit)


def _deformable(call, kind):
    x, offset, weight, bias, mask = call.arrays.values()
    params = dict(call.explicit)
    if params.pop("flip"):  # of the weights alone
        weight = np.flip(weight, tuple(range(2, weight.ndim)))
    function = {"loops": oracles.deformable, "scipy": oracles.scipy_deformable}[kind]
    return function(x, offset, weight, bias, mask, **params)


_ORACLES = {
    "standard": _conv,
    "pointwise": _conv,
    "grouped": _conv,
    "depthwise": _conv,
    "depthwise_separable": _separable,
    "spatially_separable": _spatially_separable,
    "dilated": _conv,
    "transposed": _transposed,
    "deformable": _deformable,
}


# --- how close ----------------------------------------------------------------------------------


def assert_promise(actual, expected, magnitude, terms, *, elementwise):
    """``actual`` is ``expected``, which is exact up to float64, within the promised error.

    Element by element it grows like the square root of the terms; otherwise it is 32 roundoffs of
    the largest magnitude. 16-bit results are computed in float32 and rounded once.
    """
    name = actual.dtype.name
    assert actual.shape == expected.shape
    # In float64 the oracle rounds as well.
    unit = 2 * ROUNDOFF[name] if name == "float64" else ROUNDOFF["float32"]
    if elementwise:
        error = unit * sum(2 + 2 * math.sqrt(count) for count in terms) * magnitude
    else:
        error = np.broadcast_to(32 * unit * np.max(magnitude, initial=0), expected.shape)
    if name in ("float16", "bfloat16"):
        error = error + ROUNDOFF[name] * (np.abs(expected) + error)
    error = error + SMALLEST[name]
    assert np.isfinite(expected).all()
    off = np.abs(actual.astype(np.float64) - expected)
    if not np.all(off <= error):
        worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off - error)), off.shape)
        raise AssertionError(
            f"at {tuple(map(int, worst))}: {actual[worst]} instead of {expected[worst]}, off by "
            f"{off[worst]:.3g}; {error[worst]:.3g} is allowed; {np.sum(~(off <= error))} of "
            f"{off.size} are off"
        )


def assert_near_reference(op, actual, arrays, params, slack=30):
    """``actual`` is about what the operator's definition gives in float64 for a call's arrays."""
    expected = op.reference(*(a.astype(np.float64) for a in arrays), **params)
    tolerance = 4e-3 if actual.dtype == np.float16 else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * slack)


def same_bits(a, b):
    """Whether arrays have the same shape, dtype and bits."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


# --- values -------------------------------------------------------------------------------------


def values(rng, shape, integral):
    """Normal deviates or integers from -3 to 3, in float64."""
    if integral:
        return rng.integers(-3, 4, shape).astype(np.float64)
    return rng.standard_normal(shape)


def placed(array, layout, batched):
    """A batched, channels-first image in the layout and with the batch axis of a call."""
    array = array if batched else array[0]
    array = np.moveaxis(array, 1 if batched else 0, -1) if layout == "channels_last" else array
    return np.ascontiguousarray(array)


def distinct(sizes):
    """Raise sizes until no two axes have the same, so that mixed-up axes show."""
    sizes = list(sizes)
    for a in range(1, len(sizes)):
        while sizes[a] in sizes[:a]:
            sizes[a] += 1
    return tuple(sizes)


# --- strategies ---------------------------------------------------------------------------------


def _per_axis(draw, rank, low, high):
    """An int, or one per axis."""
    one = st.integers(low, high)
    return draw(st.one_of(one, st.tuples(*[one] * rank)))


def _explicit_padding(draw, rank, low, high):
    """An int, one per axis or a pair per axis."""
    one = st.integers(low, high)
    return draw(st.one_of(one, st.tuples(*[one] * rank), st.tuples(*[st.tuples(one, one)] * rank)))


@dataclass
class _Drawn:
    """What all operators have in common."""

    rank: int
    batched: bool
    n: int
    layout: str
    integral: bool
    dtype: np.dtype
    rng: np.random.Generator
    bias: bool

    def image(self, channels, size):
        array = values(self.rng, (self.n, channels, *size), self.integral)
        return placed(array, self.layout, self.batched)

    def weight(self, *shape):
        return values(self.rng, shape, self.integral)

    def bias_of(self, outputs):
        return values(self.rng, outputs, self.integral) if self.bias else None

    def call(self, name, arrays, params, explicit):
        both = {"layout": self.layout}
        return Call(name, arrays, params | both, explicit | both, self.integral).astype(self.dtype)


def _common(draw, dtypes, ranks=(1, 2, 3)):
    batch = draw(st.sampled_from([2, 1, 3, None]))
    return _Drawn(
        rank=draw(st.sampled_from(ranks)),
        batched=batch is not None,
        n=batch or 1,
        layout=draw(st.sampled_from(LAYOUTS)),
        integral=draw(st.booleans()),
        dtype=DTYPES[draw(st.sampled_from(dtypes))],
        rng=np.random.default_rng(draw(st.integers(0, 999))),
        bias=draw(st.booleans()),
    )


def _conv_geometry(
    draw, rank, *, kernels=None, strides=(1, 3), dilations=(1, 3), modes=oracles.PADDING_MODES
):
    """Kernel, size, and the parameters as pyconv and as the oracles take them."""
    if kernels is None:
        kernels = (1, 5 - rank)
    kernel = draw(st.tuples(*[st.integers(*kernels)] * rank))
    stride = _per_axis(draw, rank, *strides)
    dilation = _per_axis(draw, rank, *dilations)
    rules = ["explicit"] * 3 + ["valid", "same", "same_lower", "full"] + ["causal"] * (rank == 1)
    rule = draw(st.sampled_from(rules))
    padding = _explicit_padding(draw, rank, -2, 4) if rule == "explicit" else rule
    steps = oracles.per_axis(dilation, rank)
    reach = [d * (k - 1) + 1 for d, k in zip(steps, kernel, strict=True)]
    least = [1] * rank
    if rule == "explicit":
        sides = oracles.pairs(padding, rank)
        least = [max(1, r - p - q) for r, (p, q) in zip(reach, sides, strict=True)]
    elif rule == "valid":
        least = reach
    size = distinct(n + draw(st.integers(0, 4)) for n in least)
    params = {"stride": stride, "padding": padding, "dilation": dilation}
    params["padding_mode"] = draw(st.sampled_from(modes))
    explicit = {**params, "padding": oracles.pads(padding, size, kernel, stride, dilation)}
    return kernel, size, params, explicit


def _both(params, explicit, **more):
    return params | more, explicit | more


@st.composite
def conv_calls(draw, name, dtypes=tuple(DTYPES)):
    """Calls of the operators that are a convolution with one weight."""
    d = _common(draw, dtypes)
    algorithms = pyconv.get(name).algorithms
    algorithm = draw(st.sampled_from(algorithms))
    if d.integral and algorithm in ("auto", "winograd", "fft"):
        algorithm = "direct"
    kernels = (1, 1) if name == "pointwise" else (2, 5) if algorithm == "winograd" else None
    strides = (1, 1) if algorithm == "winograd" else (1, 3)
    dilations = (1, 1) if name == "pointwise" else (1, 4) if name == "dilated" else (1, 3)
    kernel, size, params, explicit = _conv_geometry(
        draw, d.rank, kernels=kernels, strides=strides, dilations=dilations
    )
    if name == "pointwise":
        del params["dilation"], explicit["dilation"]
    if algorithm == "subsample":  # refuses other padding modes
        params["padding_mode"] = explicit["padding_mode"] = "zeros"
    flip = draw(st.booleans())
    params, explicit = _both(params, explicit, flip=flip)
    params["algorithm"] = algorithm
    groups = draw(st.integers(1, 4 if name == "depthwise" else 3))
    members = 1 if name == "depthwise" else draw(st.sampled_from([2, 1, 3, 5]))
    outputs = draw(st.sampled_from([2, 1, 3, 7]))
    if name != "depthwise":
        params, explicit = _both(params, explicit, groups=groups)
    weight = d.weight(groups * outputs, members, *kernel)
    if name == "pointwise" and d.batched and draw(st.booleans()):
        weight = weight.reshape(weight.shape[:2])
    arrays = {
        "x": d.image(groups * members, size),
        "weight": weight,
        "bias": d.bias_of(groups * outputs),
    }
    return d.call(name, arrays, params, explicit)


@st.composite
def depthwise_separable_calls(draw, dtypes=tuple(DTYPES)):
    d = _common(draw, dtypes)
    kernel, size, params, explicit = _conv_geometry(draw, d.rank)
    params, explicit = _both(params, explicit, flip=draw(st.booleans()))
    params["algorithm"] = "direct" if d.integral else draw(st.sampled_from(["auto", "direct"]))
    channels, multiplier, outputs = draw(st.tuples(*[st.integers(1, 4)] * 3))
    pointwise = d.weight(outputs, channels * multiplier)
    if draw(st.booleans()):
        pointwise = pointwise.reshape(*pointwise.shape, *[1] * d.rank)
    arrays = {
        "x": d.image(channels, size),
        "depthwise": d.weight(channels * multiplier, 1, *kernel),
        "pointwise": pointwise,
        "bias": d.bias_of(outputs),
    }
    return d.call("depthwise_separable", arrays, params, explicit)


@st.composite
def spatially_separable_calls(draw, dtypes=tuple(DTYPES)):
    d = _common(draw, dtypes)
    kernel, size, params, explicit = _conv_geometry(draw, d.rank)
    groups = draw(st.integers(1, 2))
    params, explicit = _both(params, explicit, flip=draw(st.booleans()), groups=groups)
    params["algorithm"] = "direct" if d.integral else draw(st.sampled_from(["auto", "direct"]))
    channels = [groups * draw(st.integers(1, 3)) for _ in range(d.rank + 1)]
    weights = tuple(
        d.weight(
            channels[a + 1],
            channels[a] // groups,
            *(k if other == a else 1 for other, k in enumerate(kernel)),
        )
        for a in range(d.rank)
    )
    arrays = {
        "x": d.image(channels[0], size),
        "axis_weights": weights,
        "bias": d.bias_of(channels[-1]),
    }
    return d.call("spatially_separable", arrays, params, explicit)


@st.composite
def transposed_calls(draw, dtypes=tuple(DTYPES)):
    d = _common(draw, dtypes)
    rank = d.rank
    kernel = draw(st.tuples(*[st.integers(1, 5 - rank)] * rank))
    stride, dilation = _per_axis(draw, rank, 1, 4 if rank < 3 else 3), _per_axis(draw, rank, 1, 3)
    steps = list(
        zip(
            oracles.per_axis(stride, rank),
            oracles.per_axis(dilation, rank),
            kernel,
            strict=True,
        )
    )
    rule = draw(st.sampled_from(["explicit"] * 2 + ["valid", "same", "same_lower"]))
    padding = _explicit_padding(draw, rank, -2, 4) if rule == "explicit" else rule
    least = [1] * rank
    if rule == "explicit":
        sides = oracles.pairs(padding, rank)
        least = [
            max(1, -(-(p + q - d * (k - 1)) // s) + 1)
            for (s, d, k), (p, q) in zip(steps, sides, strict=True)
        ]
    size = distinct(n + draw(st.integers(0, 3)) for n in least)
    params = {"stride": stride, "padding": padding, "dilation": dilation}
    ending = draw(st.sampled_from(["plain", "output_size", "output_padding"]))
    explicit_pads, extra = oracles.transposed_pads(padding, size, kernel, stride, dilation)
    if ending == "output_size":
        wanted = []
        for a, (s, d_, k) in enumerate(steps):
            room = draw(st.integers(0, s - 1))
            if rule in ("same", "same_lower"):
                wanted.append((size[a] - 1) * s + 1 + room)
            else:
                wanted.append((size[a] - 1) * s + d_ * (k - 1) + 1 - sum(explicit_pads[a]) + room)
        params["output_size"] = tuple(wanted)
        explicit_pads, extra = oracles.transposed_pads(
            padding, size, kernel, stride, dilation, output_size=tuple(wanted)
        )
    elif ending == "output_padding" and rule == "explicit":
        extra = tuple(draw(st.integers(0, max(s, d_) - 1)) for s, d_, _ in steps)
        params["output_padding"] = extra
    groups = draw(st.integers(1, 3))
    params, explicit = _both(params, params, flip=draw(st.booleans()), groups=groups)
    explicit |= {"padding": explicit_pads, "output_padding": extra}
    explicit.pop("output_size", None)
    algorithm = draw(st.sampled_from(["auto", "direct", "phase", "col2im"]))
    params["algorithm"] = "direct" if d.integral and algorithm == "auto" else algorithm
    members, outputs = draw(st.sampled_from([2, 1, 3, 5])), draw(st.sampled_from([2, 1, 3, 7]))
    arrays = {
        "x": d.image(groups * members, size),
        "weight": d.weight(groups * members, outputs, *kernel),
        "bias": d.bias_of(groups * outputs),
    }
    return d.call("transposed", arrays, params, explicit)


#: How the offsets of a deformable call are drawn.
OFFSETS = ("fractional", "integer", "far", "not finite")


@st.composite
def deformable_calls(draw, dtypes=tuple(DTYPES), offsets=OFFSETS):
    """Offsets are multiples of 1/4, exact in every dtype, or any number 0.1 away from integers."""
    d = _common(draw, dtypes)
    rank = d.rank
    kernel, size, params, explicit = _conv_geometry(
        draw, rank, kernels=(1, 3 if rank < 3 else 2), modes=("zeros",)
    )
    del explicit["padding_mode"]
    params, explicit = _both(params, explicit, flip=draw(st.booleans()))
    params["algorithm"] = "direct" if d.integral else draw(st.sampled_from(["auto", "direct"]))
    groups, offset_groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels = math.lcm(groups, offset_groups) * draw(st.integers(1, 2))
    outputs = groups * draw(st.integers(1, 3))
    out = oracles.out_size(size, kernel, params["stride"], explicit["padding"], params["dilation"])
    taps = math.prod(kernel)
    shape = (d.n, offset_groups * rank * taps, *out)
    kind = draw(st.sampled_from(offsets))
    offset = d.rng.integers(-3, 4, shape).astype(np.float64)
    if kind != "integer":
        offset += d.rng.integers(1, 4, shape) / 4 if d.integral else d.rng.uniform(0.1, 0.9, shape)
    if kind in ("far", "not finite"):
        odd = {"far": [1e4, -1e4, 30.25, -40.5], "not finite": [np.nan, np.inf, -np.inf]}[kind]
        where = d.rng.random(shape) < 0.2
        offset[where] = d.rng.choice(odd, np.count_nonzero(where))
    mask = None
    if draw(st.booleans()):
        mask_shape = (d.n, offset_groups * taps, *out)
        mask = placed(values(d.rng, mask_shape, d.integral), d.layout, d.batched)
    arrays = {
        "x": d.image(channels, size),
        "offset": placed(offset, d.layout, d.batched),
        "weight": d.weight(outputs, channels // groups, *kernel),
        "bias": d.bias_of(outputs),
        "mask": mask,
    }
    return d.call("deformable", arrays, params, explicit)


def calls(name, dtypes=tuple(DTYPES)):
    """Calls of any operator."""
    return {
        "depthwise_separable": depthwise_separable_calls,
        "spatially_separable": spatially_separable_calls,
        "transposed": transposed_calls,
        "deformable": deformable_calls,
    }.get(name, lambda dtypes: conv_calls(name, dtypes))(dtypes)


# --- calls of a given shape ---------------------------------------------------------------------

#: Parameters that the oracles have no use for.
_UNKNOWN_TO_ORACLES = ("algorithm", "max_workspace", "threads")


def fixed(
    name,
    x,
    *weights,
    dtype="float32",
    integral=False,
    bias=True,
    mask=True,
    offset_groups=1,
    **params,
):
    """The call for these shapes; that of ``x`` is channels first and has a batch axis.

    ``mask`` and ``offset_groups`` are for deformable calls.
    """
    rng = np.random.default_rng(0)
    layout = params.get("layout", "channels_first")
    rank, size, kernel = len(x) - 2, x[2:], weights[0][2:]
    if name == "spatially_separable":
        kernel = [weight[2 + a] for a, weight in enumerate(weights)]
    steps = [params.get(key, 1) for key in ("stride", "dilation")]
    explicit = {k: v for k, v in params.items() if k not in _UNKNOWN_TO_ORACLES}
    if name == "transposed":
        pads, extra = oracles.transposed_pads(params.get("padding", 0), size, kernel, *steps)
        explicit |= {"padding": pads, "output_padding": params.get("output_padding", extra)}
    else:
        explicit["padding"] = oracles.pads(
            params.get("padding", 0), size, kernel or [1] * rank, *steps
        )
    arrays = {"x": placed(values(rng, x, integral), layout, True)}
    drawn = tuple(values(rng, shape, integral) for shape in weights)
    outputs = weights[-1][0]
    if name == "transposed":
        outputs = weights[0][1] * params.get("groups", 1)
    if name == "spatially_separable":
        arrays["axis_weights"] = drawn
    elif name == "depthwise_separable":
        arrays["depthwise"], arrays["pointwise"] = drawn
    elif name == "deformable":
        explicit.setdefault("flip", False)
        out = oracles.out_size(size, kernel, steps[0], explicit["padding"], steps[1])
        taps = math.prod(kernel)
        offset = rng.integers(-8, 9, (x[0], offset_groups * rank * taps, *out)) / 4 + 0.125
        arrays |= {"offset": placed(offset, layout, True), "weight": drawn[0]}
    else:
        arrays["weight"] = drawn[0]
    arrays["bias"] = values(rng, outputs, integral) if bias else None
    if name == "deformable":
        scale = values(rng, (x[0], offset_groups * taps, *out), integral)
        arrays["mask"] = placed(scale, layout, True) if mask else None
    return Call(name, arrays, params, explicit, integral).astype(DTYPES[dtype])
