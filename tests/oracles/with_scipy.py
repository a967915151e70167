"""The operators through SciPy.

SciPy knows neither channels, groups nor strides: it does one channel of one output, densely, and
the rest is summed and subsampled here. ``method="direct"``, because "auto" may take an FFT.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import scipy.signal

from .arguments import add_bias, batched, crop, like, out_size, pairs, per_axis, weight

#: padding mode -> what `scipy.ndimage` calls it.
NDIMAGE_MODES = {
    "zeros": "grid-constant",
    "reflect": "mirror",
    "replicate": "nearest",
    "circular": "grid-wrap",
    "symmetric": "reflect",
}


def _spread(array, steps):
    """Insert ``step - 1`` zeros between the elements of every axis."""
    spread = np.zeros([(n - 1) * step + 1 for n, step in zip(array.shape, steps, strict=True)])
    spread[tuple(slice(None, None, step) for step in steps)] = array
    return spread


def scipy_conv(
    x,
    w,
    b=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    padding_mode="zeros",
    flip=False,
    layout="channels_first",
):
    """Convolution by `scipy.signal.correlate`, padded by `scipy.ndimage.map_coordinates`."""
    w = weight(w, flip)
    rank = w.ndim - 2
    image = batched(x, rank, layout)
    padding = pairs(padding, rank)
    grid = np.meshgrid(
        *(
            np.arange(-p, h + q, dtype=float)
            for h, (p, q) in zip(image.shape[2:], padding, strict=True)
        ),
        indexing="ij",
    )

    def one(plane, kernel):
        padded = np.zeros(grid[0].shape)
        if plane.size:  # order 0 at integer points: nothing is interpolated
            padded = scipy.ndimage.map_coordinates(
                plane, grid, order=0, mode=NDIMAGE_MODES[padding_mode]
            )
        return scipy.signal.correlate(padded, kernel, mode="valid", method="direct")

    y = _conv_by_planes(image, w, stride, padding, dilation, groups, one)
    return like(add_bias(y, b), x, rank, layout)


def ndimage_conv(
    x,
    w,
    b=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    padding_mode="zeros",
    flip=False,
    layout="channels_first",
):
    """Convolution by `scipy.ndimage.correlate`, which pads by itself.

    Its result has the input's size, so it has no answer (ValueError) where padding is negative or
    ``before + after >= reach``. A tap of weight 0 is skipped: a NaN under it vanishes.
    """
    w = weight(w, flip)
    rank = w.ndim - 2
    image = batched(x, rank, layout)
    padding, steps = pairs(padding, rank), per_axis(dilation, rank)
    reach = [d * (k - 1) + 1 for d, k in zip(steps, w.shape[2:], strict=True)]
    if any(min(pair) < 0 or sum(pair) >= r for pair, r in zip(padding, reach, strict=True)):
        raise ValueError(f"scipy.ndimage.correlate cannot pad {padding} for kernels of {reach}")

    def one(plane, kernel):
        # Element i of the result has tap 0 at i - reach // 2 - origin, which is to be i - before.
        origin = [before - r // 2 for (before, _), r in zip(padding, reach, strict=True)]
        mode = NDIMAGE_MODES[padding_mode].removeprefix("grid-")  # the filters' names
        return scipy.ndimage.correlate(plane, kernel, mode=mode, origin=origin)

    y = _conv_by_planes(image, w, stride, padding, dilation, groups, one)
    return like(add_bias(y, b), x, rank, layout)


def _conv_by_planes(image, w, stride, padding, dilation, groups, one):
    """Sum ``one(plane, dense kernel)``, stride 1, over the channels of each group; subsample."""
    n_outputs, members, *kernel = w.shape
    rank = len(kernel)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    out = out_size(image.shape[2:], kernel, stride, padding, dilation)
    kept = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(out, stride, strict=True))
    y = np.zeros((len(image), n_outputs, *out))
    for n, o, c in np.ndindex(len(image), n_outputs, members):
        plane = image[n, o // (n_outputs // groups) * members + c]
        y[n, o] += one(plane, _spread(w[o, c], dilation))[kept]
    return y


def scipy_transposed(
    x,
    w,
    b=None,
    *,
    stride=1,
    padding=0,
    output_padding=0,
    dilation=1,
    groups=1,
    flip=False,
    layout="channels_first",
):
    """Transposed convolution by `scipy.signal.convolve` of the zero-stuffed input."""
    w = weight(w, flip)
    n_inputs, members, *kernel = w.shape
    rank = len(kernel)
    image = batched(x, rank, layout)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    extents = [
        (h - 1) * s + d * (k - 1) + 1
        for h, s, d, k in zip(image.shape[2:], stride, dilation, kernel, strict=True)
    ]
    canvas = np.zeros((len(image), members * groups, *extents))
    for n, c, o in np.ndindex(len(image), n_inputs, members):
        canvas[n, c // (n_inputs // groups) * members + o] += scipy.signal.convolve(
            _spread(image[n, c], stride), _spread(w[c, o], dilation), mode="full", method="direct"
        )
    y = crop(canvas, pairs(padding, rank), per_axis(output_padding, rank))
    return like(add_bias(y, b), x, rank, layout)


def scipy_deformable(
    x,
    offset,
    w,
    b=None,
    mask=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    layout="channels_first",
):
    """Deformable convolution by `scipy.ndimage.map_coordinates`, then one product per group."""
    w = weight(w)
    n_outputs, members, *kernel = w.shape
    rank, n_taps = len(kernel), int(np.prod(kernel))
    image, shift, scale = (batched(a, rank, layout) for a in (x, offset, mask))
    batch, n_inputs, *size = image.shape
    groups = max(n_inputs // max(members, 1), 1)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    padding = pairs(padding, rank)
    out = out_size(size, kernel, stride, padding, dilation)

    # Where the taps are without offsets, one axis at a time: (rank, *kernel, *out), taps in a row.
    still = np.stack(
        np.broadcast_arrays(
            *(
                (dilation[a] * np.arange(kernel[a])).reshape(_along(a, 2 * rank))
                + (stride[a] * np.arange(out[a]) - padding[a][0]).reshape(
                    _along(rank + a, 2 * rank)
                )
                for a in range(rank)
            )
        )
    ).reshape(rank, n_taps, *out)
    shift = shift.reshape(batch, -1, n_taps, rank, *out)  # (N, G, K, rank, *out)
    points = still + np.moveaxis(shift, 3, 2)  # (N, G, rank, K, *out)

    columns = np.zeros((batch, n_inputs, n_taps, *out))
    for n, c in np.ndindex(batch, n_inputs):
        columns[n, c] = _interpolate(image[n, c], points[n, c * points.shape[1] // n_inputs])
    if scale is not None:
        scale = scale.reshape(batch, points.shape[1], n_taps, *out)
        columns *= np.repeat(scale, n_inputs // points.shape[1], axis=1)
    y = np.einsum(
        "ngck...,gock->ngo...",
        columns.reshape(batch, groups, members, n_taps, *out),
        w.reshape(groups, n_outputs // groups, members, n_taps),
    ).reshape(batch, n_outputs, *out)
    return like(add_bias(y, b), x, rank, layout)


def _along(axis, rank):
    """Shape that lays a vector along one of ``rank`` axes."""
    return [-1 if a == axis else 1 for a in range(rank)]


def _interpolate(plane, points):
    # SciPy casts a coordinate to an integer before it looks whether it is near the array.
    points = np.where(np.isfinite(points).all(axis=0), points, -9.0)
    ends = np.reshape(plane.shape, (-1, *[1] * (points.ndim - 1)))
    points = np.clip(points, -9.0, ends + 9.0)
    # Plain "constant" would not interpolate between the edge and the zeros beyond it.
    return scipy.ndimage.map_coordinates(plane, points, order=1, mode="grid-constant", cval=0.0)
