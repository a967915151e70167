"""Kernels, colour mixes and offset fields by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyconv.cli.output import UsageError

AnyArray = np.ndarray[Any, Any]


def _binomial(size: int) -> AnyArray:
    """Return a row of Pascal's triangle that sums to 1: a small Gaussian."""
    row = np.ones(1)
    for _ in range(size - 1):
        row = np.convolve(row, [0.5, 0.5])
    return row


def _gaussian(size: int) -> AnyArray:
    # The kernel reaches 2.5 standard deviations to each side.
    row = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (size / 5)) ** 2)
    row /= row.sum()
    return np.outer(row, row)


def _box(size: int) -> AnyArray:
    return np.full((size, size), 1 / size**2)


def _identity(size: int) -> AnyArray:
    kernel = np.zeros((size, size))
    kernel[size // 2, size // 2] = 1
    return kernel


def _bilinear(size: int) -> AnyArray:
    """Return the tent that interpolates linearly when upsampling by ``size // 2``."""
    stride = max(1, size // 2)
    row = np.maximum(0, 1 - np.abs(np.arange(size) - (size - 1) / 2) / stride)
    return np.outer(row, row)


def _sobel_x(size: int) -> AnyArray:
    # Smooth across the edge's direction, differentiate along it.
    smooth = _binomial(size)
    return np.outer(smooth, np.convolve(_binomial(size - 2), [-1, 0, 1]))


def _laplacian(size: int) -> AnyArray:
    second = np.convolve(_binomial(size - 2), [1, -2, 1])
    row = np.convolve(_binomial(size - 2), [0, 1, 0])
    return np.outer(second, row) + np.outer(row, second)


def _sharpen(size: int) -> AnyArray:
    weights: AnyArray = 3 * _identity(size) - 2 * _gaussian(size)
    return weights


def _emboss(size: int) -> AnyArray:
    along = np.arange(size) - size // 2
    slope = along[:, None] + along[None, :]
    weights: AnyArray = slope * 8 / np.abs(slope).sum() + _identity(size)
    return weights


# Name: the function of the size, the smallest size, and the size by default.
_KERNELS: dict[str, tuple[Callable[[int], AnyArray], int, int]] = {
    "identity": (_identity, 1, 3),
    "box": (_box, 1, 9),
    "gaussian": (_gaussian, 1, 15),
    "bilinear": (_bilinear, 1, 4),
    "sharpen": (_sharpen, 3, 3),
    "emboss": (_emboss, 3, 3),
    "laplacian": (_laplacian, 3, 3),
    "sobel-x": (_sobel_x, 3, 3),
    "sobel-y": (lambda size: _sobel_x(size).T, 3, 3),
}
KERNELS = tuple(_KERNELS)
"""The kernels that have a name."""


def kernel(name: str, size: int | None = None) -> AnyArray:
    """Return a two-dimensional kernel by name, for correlation."""
    make, minimum, default = _KERNELS[name]
    size = default if size is None else size
    # A kernel with a middle has an odd size.
    if size < minimum or (minimum == 3 and size % 2 == 0):
        rule = f"an odd number >= {minimum}" if minimum == 3 else f">= {minimum}"
        raise UsageError(f"--size of the kernel {name} must be {rule}; got {size}")
    return make(size)


def separated(name: str, weights: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return the column and the row whose product is a kernel."""
    left, values, right = np.linalg.svd(weights)
    if len(values) > 1 and values[1] > 1e-6 * values[0]:
        raise UsageError(f"the kernel {name} is no product of a column and a row")
    column, row = left[:, 0] * np.sqrt(values[0]), right[0] * np.sqrt(values[0])
    # The decomposition leaves the sign open: both factors may come out negative.
    return (column, row) if column.sum() >= 0 else (-column, -row)


_MIXES: dict[str, AnyArray] = {
    "sepia": np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]]),
    "luma": np.array([[0.299, 0.587, 0.114]]),
    "swap": np.eye(3)[::-1],
    "opponent": np.array([[1, 1, 1], [1.5, -1.5, 0], [0.75, 0.75, -1.5]]) / 3,
}
MIXES = ("identity", *_MIXES)
"""The colour mixes that have a name: each output channel as a sum of input channels."""


def mix(name: str, channels: int) -> AnyArray:
    """Return a matrix of shape (output channels, channels) by name."""
    if name == "identity":
        return np.eye(channels)
    matrix = _MIXES[name]
    if channels == 1:
        matrix = matrix.sum(axis=1, keepdims=True)  # grey: three equal channels
    if channels in (1, 3):
        return matrix
    raise UsageError(f"the mix {name} is for images of 1 or 3 channels; got {channels}")


def _swirl(v: AnyArray, u: AnyArray) -> tuple[AnyArray, AnyArray]:
    radius = np.hypot(v, u)
    angle = 2.2 * np.maximum(0, 1 - radius) ** 2
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * v + sine * u, cosine * u - sine * v


def _lens(v: AnyArray, u: AnyArray) -> tuple[AnyArray, AnyArray]:
    # Shrink the coordinates near the middle: a magnifying glass.
    scale = 1 - 0.6 * np.maximum(0, 1 - v**2 - u**2)
    return scale * v, scale * u


def _wave(v: AnyArray, u: AnyArray) -> tuple[AnyArray, AnyArray]:
    return v + 0.05 * np.sin(12 * u), u + 0.05 * np.sin(12 * v)


_FIELDS: dict[str, Callable[[AnyArray, AnyArray], tuple[AnyArray, AnyArray]]] = {
    "swirl": _swirl,
    "lens": _lens,
    "wave": _wave,
    "zero": lambda v, u: (v, u),
}
FIELDS = tuple(_FIELDS)
"""The offset fields that have a name."""


def displacement(name: str, size: Sequence[int], out: Sequence[int]) -> AnyArray:
    """Return how far from its own place each output pixel looks.

    Parameters
    ----------
    name : str
        One of `FIELDS`.
    size : (int, int)
        The height and width of the image: what the displacement is measured in.
    out : (int, int)
        The height and width of the result.

    Returns
    -------
    ndarray, shape (2, *out)
        Displacement down and to the right, in pixels of the image.
    """
    # In units of half the image's shorter side, from its middle.
    unit = min(size) / 2
    place = [
        ((np.arange(n_out) + 0.5) * n / n_out - n / 2) / unit
        for n, n_out in zip(size, out, strict=True)
    ]
    v, u = np.meshgrid(*place, indexing="ij")
    moved_v, moved_u = _FIELDS[name](v, u)
    return np.stack([moved_v - v, moved_u - u]) * unit
