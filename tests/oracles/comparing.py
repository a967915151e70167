"""How close two float64 results have to be."""

from __future__ import annotations

import numpy as np


def assert_close(actual, expected):
    """Equal up to the rounding of float64 sums of a few hundred terms of size one."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11 * (1 + np.abs(expected).max()))
