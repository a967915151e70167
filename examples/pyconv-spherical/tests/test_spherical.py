"""Spherical convolution keeps pyconv's contract, and does the same from pole to pole."""

import subprocess
import sys

import numpy as np
import pytest
from pyconv_spherical import OPERATOR, coordinates, spherical_conv

import pyconv
from pyconv.testing import OperatorSuite


class TestSpherical(OperatorSuite):
    @pytest.fixture
    def op(self):
        return OPERATOR


def problem(dtype=np.float64, size=(12, 20)):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 24, *size)).astype(dtype)
    weight = rng.standard_normal((6, 24, 3, 5)).astype(dtype)
    return x, weight, rng.standard_normal(6).astype(dtype)


def test_it_is_found():
    info = pyconv.available()["spherical"]
    assert (info.status, info.distribution) == ("ok", "pyconv-spherical")
    assert pyconv.get("equirectangular") is pyconv.get("spherical")


@pytest.mark.parametrize("params", [{}, {"stride": (2, 4)}, {"dilation": (3, 2)}])
def test_it_is_a_sampled_convolution(params):
    x, weight, bias = problem()
    given = {k: v if isinstance(v, tuple) else (v, v) for k, v in params.items()}
    points = coordinates(x.shape[2:], weight.shape[2:], **given)
    wrap = ("zeros", "circular")
    expected = pyconv.sampled_conv(x, points, weight, bias, padding_mode=wrap)
    y = spherical_conv(x, weight, bias, **params)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-11)
    grad = np.random.default_rng(1).standard_normal(y.shape)
    mine = OPERATOR.backward(grad, x, weight, bias, **params)
    theirs = pyconv.get("sampled").backward(grad, x, points, weight, bias, padding_mode=wrap)
    for name, gradient in mine.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=0, atol=1e-10)


def test_turning_the_sphere_turns_the_result():
    x, weight, bias = problem()
    y = spherical_conv(x, weight, bias)
    turned = spherical_conv(np.roll(x, 7, axis=-1), weight, bias)
    np.testing.assert_array_equal(turned, np.roll(y, 7, axis=-1))


def test_at_the_equator_it_is_a_convolution():
    """There the tangent plane is nearly the image."""
    smooth = np.cos(np.linspace(0, 2 * np.pi, 400, endpoint=False))
    x = np.broadcast_to(smooth, (1, 1, 200, 400)) * np.hanning(200)[:, np.newaxis]
    weight = np.random.default_rng(0).standard_normal((1, 1, 3, 3))
    y = spherical_conv(x, weight)
    expected = pyconv.conv(x, weight, padding=1, padding_mode="circular")
    np.testing.assert_allclose(y[..., 95:105, :], expected[..., 95:105, :], atol=1e-3)


def test_a_constant_image_stays_constant():
    y = spherical_conv(np.ones((1, 9, 16)), np.full((1, 1, 5, 5), 1 / 25), dilation=2)
    np.testing.assert_allclose(y, 1)


OTHER_INTERFACE = """
import ctypes
import pyconv.kernels
memory = (ctypes.c_ssize_t * 8)(64, 2)
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
text = b"pyconv.kernels.C_API"
pyconv.kernels.C_API = new(ctypes.cast(memory, ctypes.c_void_p), text, None) if {there} else None
try:
    import pyconv_spherical
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(("there", "message"), [(1, "it has version 2"), (0, "it has none")])
def test_another_interface_is_refused(there, message):
    """What `import_kernels` says when the installed pyconv has another version."""
    program = OTHER_INTERFACE.format(there=there)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert message in done.stdout
    assert "build it again" in done.stdout
