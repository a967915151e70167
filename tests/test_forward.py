"""Values of every operator against two independent oracles, plain loops and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv

from . import calls, oracles
from .calls import Call


def check(call):
    """The result is that of both oracles, as exactly as promised."""
    y = call.run()
    loops, scipy = call.expected("loops"), call.expected("scipy")
    assert y.dtype == call.dtype
    assert y.flags.c_contiguous
    if call.integral:
        np.testing.assert_array_equal(y, loops.astype(y.dtype))
        np.testing.assert_array_equal(y, scipy.astype(y.dtype))
        return
    magnitude = call.magnitude()
    elementwise = call.params["algorithm"] in ("direct", "zero_insertion", "subsample", "phase")
    for expected in (loops, scipy):
        calls.assert_promise(y, expected, magnitude, call.terms, elementwise=elementwise)


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_values(name):
    @calls.examples(150)
    @given(calls.calls(name))
    def test(call):
        check(call)

    test()
