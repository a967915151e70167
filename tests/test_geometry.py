"""Shapes, padding and residue classes against literal enumeration."""

import re
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pyconv import geometry
from pyconv.geometry import Axis

STRIDES = st.integers(1, 6)
KERNELS = st.integers(1, 5)
PADS = st.tuples(st.integers(-4, 7), st.integers(-4, 7))


@st.composite
def any_axis(draw):
    """Any axis at all: nothing ties `out` to the rest, as for output_padding >= stride."""
    sizes = st.integers(0, 14)
    before, after = draw(PADS)
    return Axis(
        size=draw(sizes),
        kernel=draw(KERNELS),
        stride=draw(STRIDES),
        dilation=draw(STRIDES),
        before=before,
        after=after,
        out=draw(sizes),
    )


def conv_axis(size, kernel, stride=1, padding=((0, 0),), dilation=1, padding_mode="zeros"):
    (axis,) = geometry.conv_axes(
        "standard", (size,), (kernel,), (stride,), padding, (dilation,), padding_mode
    )
    return axis


def transposed_axis(
    size, kernel, stride=1, padding=((0, 0),), dilation=1, output_padding=0, output_size=None
):
    (axis,) = geometry.transposed_axes(
        "transposed",
        (size,),
        (kernel,),
        (stride,),
        padding,
        (dilation,),
        output_padding,
        output_size,
    )
    return axis


def count_outputs(extent, kernel, stride, dilation):
    """Place the kernel at 0, stride, 2 * stride, ... while all its taps are inside `extent`."""
    starts = range(0, extent, stride)
    return sum(start + dilation * (kernel - 1) < extent for start in starts)


def pads(axis):
    return axis.before, axis.after


# Convolution


@given(st.integers(0, 14), KERNELS, STRIDES, PADS, STRIDES)
def test_explicit_padding_counts_kernel_positions(size, kernel, stride, pad, dilation):
    expected = count_outputs(size + sum(pad), kernel, stride, dilation)
    if expected == 0:
        with pytest.raises(
            ValueError, match=r"^standard: output axis 0 must be positive; got floor"
        ):
            conv_axis(size, kernel, stride, (pad,), dilation)
        return
    axis = conv_axis(size, kernel, stride, (pad,), dilation)
    assert axis == Axis(size, kernel, stride, dilation, *pad, out=expected)
    assert 0 <= axis.slack < stride


@given(st.integers(1, 14), KERNELS, STRIDES, STRIDES)
def test_valid_is_no_padding(size, kernel, stride, dilation):
    assume(count_outputs(size, kernel, stride, dilation))
    assert conv_axis(size, kernel, stride, "valid", dilation) == conv_axis(
        size, kernel, stride, dilation=dilation
    )


@given(st.integers(1, 30), KERNELS, STRIDES, STRIDES)
def test_same_is_the_least_padding_that_gives_ceil(size, kernel, stride, dilation):
    upper = conv_axis(size, kernel, stride, "same", dilation)
    lower = conv_axis(size, kernel, stride, "same_lower", dilation)
    assert upper.out == lower.out == len(range(0, size, stride))
    assert pads(lower) == pads(upper)[::-1]
    assert 0 <= upper.after - upper.before <= 1
    total = upper.before + upper.after
    assert total == 0 or count_outputs(size + total - 1, kernel, stride, dilation) < upper.out


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (8, 3, 2, 1, (0, 1)),  # TensorFlow and ONNX; PyTorch's padding=1 would be (1, 1)
        (7, 3, 2, 1, (1, 1)),
        (5, 4, 1, 1, (1, 2)),
        (5, 2, 1, 3, (1, 2)),
        (9, 1, 4, 1, (0, 0)),
    ],
)
def test_same_as_tensorflow_has_it(size, kernel, stride, dilation, expected):
    assert pads(conv_axis(size, kernel, stride, "same", dilation)) == expected


@given(st.integers(1, 14), KERNELS, STRIDES)
def test_full_keeps_every_output_that_touches_the_input(size, kernel, dilation):
    axis = conv_axis(size, kernel, 1, "full", dilation)
    touching = {i - dilation * t for i in range(size) for t in range(kernel)}
    assert (-axis.before, axis.out - axis.before - 1) == (min(touching), max(touching))
    assert axis.out == np.convolve(np.ones(size), np.ones(axis.reach), "full").size


@given(st.integers(1, 14), KERNELS, STRIDES, STRIDES)
def test_causal_output_ends_at_its_own_input(size, kernel, stride, dilation):
    axis = conv_axis(size, kernel, stride, "causal", dilation)
    assert axis.out == len(range(0, size, stride))
    assert axis.after == 0
    assert dilation * (kernel - 1) - axis.before == 0


def test_axes_are_independent():
    axes = geometry.conv_axes("standard", (9, 8), (3, 2), (1, 3), ((1, 0), (0, -2)), (2, 1))
    assert axes == (conv_axis(9, 3, 1, ((1, 0),), 2), conv_axis(8, 2, 3, ((0, -2),), 1))


@pytest.mark.parametrize("padding", ["same", "same_lower", "causal", "valid", ((0, 0),)])
def test_empty_input_gives_no_output(padding):
    with pytest.raises(ValueError, match="output axis 0 must be positive; got floor"):
        conv_axis(0, 3, 2, padding)


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("pad", [(0, 9), (9, 0), (-1, 9), (9, 9)])
@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [
        ("zeros", "constant"),
        ("reflect", "reflect"),
        ("replicate", "edge"),
        ("circular", "wrap"),
        ("symmetric", "symmetric"),
    ],
)
def test_padding_modes_refuse_what_numpy_refuses(mode, numpy_mode, size, pad):
    try:
        np.pad(np.zeros(size), np.maximum(pad, 0), mode=numpy_mode)
    except ValueError:
        with pytest.raises(ValueError, match=f"^standard: padding_mode must be 'zeros'.*{mode}"):
            conv_axis(size, 1, padding=(pad,), padding_mode=mode)
    else:
        axis = conv_axis(size, 1, padding=(pad,), padding_mode=mode)
        assert axis.out == size + sum(pad)


# Messages


def test_message_shows_the_formula_with_its_numbers():
    message = (
        "standard: output axis 0 must be positive; got floor((3 + 0 + 0 - 5) / 1) + 1 = -1 "
        "(input 3, padding 0 + 0, kernel 5 at dilation 1, stride 1)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        conv_axis(3, 5)


def test_transposed_message_shows_the_formula_with_its_numbers():
    message = (
        "transposed: output axis 0 must be positive; got (2 - 1) * 2 - (3 + 4) + 3 + 1 = -1 "
        "(input 2, padding 3 + 4, kernel 3 at dilation 1, stride 2)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        transposed_axis(2, 3, 2, ((3, 4),), output_padding=1)


@given(st.integers(1, 14), KERNELS, STRIDES, PADS, STRIDES, st.integers(0, 5))
def test_formulas_are_right(size, kernel, stride, pad, dilation, extra):
    if count_outputs(size + sum(pad), kernel, stride, dilation):
        left, right = conv_axis(size, kernel, stride, (pad,), dilation).formula.split(" = ")
        assert eval(left, {"floor": np.floor}) == int(right)
    if extra < max(stride, dilation) and (size - 1) * stride - sum(pad) > 0:
        axis = transposed_axis(size, kernel, stride, (pad,), dilation, extra)
        left, right = axis.adjoint_formula.split(" = ")
        assert eval(left) == int(right) == axis.size
        assert axis.slack == extra


@pytest.mark.parametrize("function", [conv_axis, transposed_axis])
def test_empty_kernel(function):
    with pytest.raises(ValueError, match="kernel axis 0 must have at least one tap; got 0"):
        function(5, 0)


def test_causal_needs_one_axis():
    with pytest.raises(ValueError, match=r"^dilated: padding must .* one spatial axis .*'causal'"):
        geometry.conv_axes("dilated", (5, 5), (3, 3), (1, 1), "causal", (1, 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: conv_axis(10**30, 3),
        lambda: conv_axis(5, 2**40, padding="same", dilation=2**31 - 1),
        lambda: conv_axis(5, 2**40, padding="full", dilation=2**31 - 1),
        lambda: transposed_axis(2**40, 3, 2**31 - 1),
        lambda: transposed_axis(10**30, 3, padding="same"),
    ],
)
def test_extents_that_would_overflow(call):
    with pytest.raises(ValueError, match=r"below 2\*\*62"):
        call()


def test_large_extents_are_exact():
    axis = conv_axis(2**60 + 1, 3, 2, "same")
    assert (axis.out, pads(axis)) == (2**59 + 1, (1, 1))
    assert transposed_axis(2**59 + 1, 3, 2, ((1, 1),)).size == 2**60 + 1


# Transposed convolution


@given(st.integers(0, 9), KERNELS, STRIDES, PADS, STRIDES, st.integers(0, 7))
def test_transposed_explicit_padding_as_pytorch(size, kernel, stride, pad, dilation, extra):
    expected = (size - 1) * stride - sum(pad) + dilation * (kernel - 1) + 1 + extra
    if extra > 0 and extra >= max(stride, dilation):
        with pytest.raises(ValueError, match=r"output_padding must be less than max\(stride"):
            transposed_axis(size, kernel, stride, (pad,), dilation, extra)
    elif expected <= 0:
        with pytest.raises(ValueError, match="output axis 0 must be positive"):
            transposed_axis(size, kernel, stride, (pad,), dilation, extra)
    else:
        axis = transposed_axis(size, kernel, stride, (pad,), dilation, extra)
        assert axis == Axis(expected, kernel, stride, dilation, *pad, out=size)
        if size > 0 and extra < stride:
            assert conv_axis(expected, kernel, stride, (pad,), dilation) == axis


@given(st.integers(1, 9), KERNELS, STRIDES, STRIDES)
def test_transposed_strings_as_jax(size, kernel, stride, dilation):
    reach = dilation * (kernel - 1) + 1
    axis = transposed_axis(size, kernel, stride, "valid", dilation)
    assert axis.size == size * stride + max(reach - stride, 0)
    assert axis == conv_axis(axis.size, kernel, stride, "valid", dilation)
    for padding in ("same", "same_lower"):
        axis = transposed_axis(size, kernel, stride, padding, dilation)
        assert axis.size == size * stride
        assert axis == conv_axis(axis.size, kernel, stride, padding, dilation)


def test_transposed_documented_sizes():
    # JAX and Keras make 21 of 7 with one tap at stride 3, PyTorch 19.
    assert transposed_axis(7, 1, 3, "valid").size == 21
    assert transposed_axis(7, 1, 3).size == 19
    # onnxruntime gives 23 here.
    assert transposed_axis(8, 2, 3, "same").size == 24


@given(
    st.integers(1, 6),
    KERNELS,
    st.integers(1, 4),
    st.one_of(PADS.map(lambda pad: (pad,)), st.sampled_from(["valid", "same", "same_lower"])),
    st.integers(1, 4),
)
def test_output_size_is_legal_exactly_if_it_maps_back(size, kernel, stride, padding, dilation):
    for wanted in range(1, 70):
        try:
            forward = conv_axis(wanted, kernel, stride, padding, dilation)
        except ValueError:
            forward = None
        if forward is not None and forward.out == size:
            axis = transposed_axis(size, kernel, stride, padding, dilation, 0, wanted)
            assert axis == forward
            assert axis.slack >= 0
        else:
            with pytest.raises(ValueError, match=r"^transposed: output_size must .*; got \d+$"):
                transposed_axis(size, kernel, stride, padding, dilation, 0, wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 3, 2), "be from 7 to 8 on spatial axis 0, the sizes that .* maps back to 3; got 99"),
        ((3, 3, 1), "be 5 on spatial axis 0, the only size that .* maps back to 3; got 99"),
        ((3, 3, 2, "same"), "be from 5 to 6 on spatial axis 0"),
        ((1, 1, 1, ((3, 3),)), "be left out: spatial axis 0 has no positive size"),
        ((0, 3, 2, "same"), "be left out: spatial axis 0 has no positive size"),
    ],
)
def test_output_size_message_has_the_legal_range(arguments, message):
    with pytest.raises(ValueError, match=f"^transposed: output_size must {message}"):
        transposed_axis(*arguments, output_size=99)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ((7,), ValueError),
        (0, ValueError),
        (-7, ValueError),
        (10**30, ValueError),
        (7.0, TypeError),
        (True, TypeError),
        ("7", TypeError),
        ((7, None), TypeError),
    ],
)
def test_output_size_of_the_wrong_kind(wrong, error):
    with pytest.raises(error, match=r"^transposed: output_size must be an integer"):
        geometry.transposed_axes(
            "transposed", (3, 3), (3, 3), (2, 2), "same", (1, 1), output_size=wrong
        )


@pytest.mark.parametrize("wrong", [-1, (1, -1), (0,), 10**30])
def test_output_padding_of_the_wrong_value(wrong):
    with pytest.raises(ValueError, match=r"^transposed: output_padding must be"):
        geometry.transposed_axes(
            "transposed", (3, 3), (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), wrong
        )


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("dilation", [1, 4])
def test_output_padding_limit(stride, dilation):
    least = transposed_axis(4, 3, stride, dilation=dilation).size
    limit = max(stride, dilation)
    for extra in range(limit):
        assert transposed_axis(4, 3, stride, ((0, 0),), dilation, extra).size == least + extra
    if limit > 1:
        with pytest.raises(ValueError, match=f"output_padding must be less than .* = {limit} on"):
            transposed_axis(4, 3, stride, ((0, 0),), dilation, limit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"output_size": 8, "output_padding": 1},
            "output_padding must be 0 together with output_s",
        ),
        ({"padding": "same", "output_padding": 1}, "must be 0 together with padding='same'"),
        ({"padding": "valid", "output_padding": 1}, "must be 0 together with padding='valid'"),
        ({"padding": "full"}, "padding must be .* for a transposed convolution; got 'full'"),
        ({"padding": "causal"}, "padding must be .* for a transposed convolution; got 'causal'"),
    ],
)
def test_transposed_combinations_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        transposed_axis(3, 3, 2, **options)


# Residue classes


@given(any_axis())
@example(Axis(size=12, kernel=4, stride=6, dilation=4, before=1, after=0, out=3))
def test_adjoint_phases_list_every_pair(axis):
    expected = {i: set() for i in range(axis.size)}
    for i in range(axis.size):
        for t in range(axis.kernel):
            output, rest = divmod(i + axis.before - axis.dilation * t, axis.stride)
            if rest == 0:
                expected[i].add((t, output))
    phases = geometry.adjoint_phases(axis)
    found = {}
    for p in phases:
        assert p.step == axis.stride
        for q in range(p.count):
            i = p.start + q * p.step
            assert i not in found
            found[i] = {
                (p.tap_start + j * p.tap_step, q + j * p.dilation + p.offset) for j in range(p.taps)
            }
    assert found == expected
    assert [p.start for p in phases] == sorted(p.start for p in phases)
    assert geometry.adjoint_phases(axis, empty=False) == tuple(p for p in phases if p.taps)


@given(any_axis(), st.randoms(use_true_random=False))
def test_adjoint_phases_compute_the_adjoint(axis, random):
    weight = [random.randint(-9, 9) for _ in range(axis.kernel)]
    grad = [random.randint(-9, 9) for _ in range(axis.out)]
    expected = [0] * axis.size
    for output in range(axis.out):
        for t in range(axis.kernel):
            i = output * axis.stride + t * axis.dilation - axis.before
            if 0 <= i < axis.size:
                expected[i] += weight[t] * grad[output]
    result = [None] * axis.size
    for p in geometry.adjoint_phases(axis):
        for q in range(p.count):
            reads = [q + j * p.dilation + p.offset for j in range(p.taps)]
            result[p.start + q * p.step] = sum(
                weight[p.tap_start + j * p.tap_step] * grad[output]
                for j, output in enumerate(reads)
                if 0 <= output < axis.out
            )
    assert result == expected


def test_adjoint_phases_of_a_huge_stride():
    axis = transposed_axis(2, 3, 2**31 - 1)
    phases = geometry.adjoint_phases(axis, empty=False)
    assert [(p.start, p.count, p.taps) for p in phases] == [(0, 2, 1), (1, 2, 1), (2, 2, 1)]


@given(any_axis())
def test_subsample_phases_read_the_same_inputs(axis):
    found = Counter()
    for s in geometry.subsample_phases(axis):
        assert 0 <= s.residue < axis.dilation
        for q in range(s.count):
            output = s.start + q * s.step
            found[output] += 1
            for t in range(axis.kernel):
                index = s.residue + axis.dilation * (q * s.stride + t + s.offset)
                assert index == output * axis.stride + t * axis.dilation - axis.before
    assert found == Counter(range(axis.out))


def brute_force_valid_taps(axis):
    return sum(
        0 <= output * axis.stride + t * axis.dilation - axis.before < axis.size
        for output in range(axis.out)
        for t in range(axis.kernel)
    )


@given(any_axis())
def test_valid_taps_counts_pairs_inside(axis):
    assert geometry.valid_taps(axis) == brute_force_valid_taps(axis)


@given(
    size=st.integers(0, 60),
    kernel=st.integers(1, 40),
    stride=st.integers(1, 20),
    dilation=st.integers(1, 20),
    before=st.integers(-30, 60),
    out=st.integers(0, 60),
)
def test_valid_taps_of_larger_axes(size, kernel, stride, dilation, before, out):
    axis = Axis(size, kernel, stride, dilation, before, 0, out)
    assert geometry.valid_taps(axis) == brute_force_valid_taps(axis)


def test_valid_taps_takes_no_time():
    axis = conv_axis(2**40, 2**40 - 1, padding="full")
    begin = time.perf_counter()
    assert geometry.valid_taps(axis) == axis.size * axis.kernel
    assert time.perf_counter() - begin < 1


@given(any_axis())
def test_tap_ranges_have_the_taps_that_read_inside(axis):
    ranges = geometry.tap_ranges(axis)
    assert [output for lo, hi, _, _ in ranges for output in range(lo, hi)] == [*range(axis.out)]
    for lo, hi, first, last in ranges:
        for output in range(lo, hi):
            at = output * axis.stride - axis.before
            inside = [t for t in range(axis.kernel) if 0 <= at + t * axis.dilation < axis.size]
            assert inside == [*range(first, last)]
