"""Shapes, padding rules, layouts: what every oracle starts from and ends with."""

from __future__ import annotations

import numpy as np

PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")


def per_axis(value, rank):
    """An int, or one per axis, as a tuple."""
    return (value,) * rank if np.ndim(value) == 0 else tuple(int(v) for v in value)


def pairs(padding, rank):
    """An int, an int per axis or a pair per axis, as a tuple of pairs."""
    sides = padding if np.ndim(padding) == 2 else [(p, p) for p in per_axis(padding, rank)]
    return tuple((int(before), int(after)) for before, after in sides)


def pads(rule, size, kernel, stride=1, dilation=1):
    """Pairs of a convolution for a string rule; anything else is passed to `pairs`."""
    rank = len(size)
    if not isinstance(rule, str):
        return pairs(rule, rank)
    result = []
    for h, k, s, d in zip(
        size, kernel, per_axis(stride, rank), per_axis(dilation, rank), strict=True
    ):
        reach = d * (k - 1) + 1
        total = max(0, (-(-h // s) - 1) * s + reach - h)  # so that out = ceil(h / s)
        result.append(
            {
                "valid": (0, 0),
                "full": (reach - 1, reach - 1),
                "causal": (reach - 1, 0),
                "same": (total // 2, total - total // 2),
                "same_lower": (total - total // 2, total // 2),
            }[rule]
        )
    return tuple(result)


def transposed_pads(rule, size, kernel, stride=1, dilation=1, output_size=None):
    """Pairs and output padding of a transposed convolution, one per axis each.

    ``rule`` is "valid", "same", "same_lower" or explicit padding; ``size`` is the input's extent.
    """
    rank = len(size)
    wanted = [None] * rank if output_size is None else per_axis(output_size, rank)
    explicit = [(0, 0)] * rank if isinstance(rule, str) else pairs(rule, rank)
    sides, extra = [], []
    for h, k, s, d, n, pair in zip(
        size,
        kernel,
        per_axis(stride, rank),
        per_axis(dilation, rank),
        wanted,
        explicit,
        strict=True,
    ):
        reach = d * (k - 1) + 1
        if rule == "valid" and n is None:
            n = h * s + max(reach - s, 0)
        if rule in ("same", "same_lower"):
            n = h * s if n is None else n
            total = max(0, (h - 1) * s + reach - n)
            small, large = total // 2, total - total // 2
            pair = (small, large) if rule == "same" else (large, small)
        bare = (h - 1) * s + reach - sum(pair)
        sides.append(pair)
        extra.append(0 if n is None else n - bare)
    return tuple(sides), tuple(extra)


def out_size(size, kernel, stride=1, padding=0, dilation=1):
    """Output extent of a convolution on each axis."""
    rank = len(size)
    each = zip(
        size,
        kernel,
        per_axis(stride, rank),
        pairs(padding, rank),
        per_axis(dilation, rank),
        strict=True,
    )
    out = tuple((h + p + q - (d * (k - 1) + 1)) // s + 1 for h, k, s, (p, q), d in each)
    if min(out) <= 0:
        raise ValueError(f"the oracle was asked for an output of size {out}")
    return out


def batched(array, rank, layout):
    """float64, batched and channels first."""
    if array is None:
        return None
    array = np.asarray(array, dtype=np.float64)
    if array.ndim == rank + 1:
        array = array[np.newaxis]
    return np.moveaxis(array, -1, 1) if layout == "channels_last" else array


def like(y, x, rank, layout):
    """The layout and batching of ``x``."""
    y = np.moveaxis(y, 1, -1) if layout == "channels_last" else y
    return np.ascontiguousarray(y[0] if np.ndim(x) == rank + 1 else y)


def weight(w, flip=False):
    """float64; reversed along the spatial axes if asked."""
    w = np.asarray(w, dtype=np.float64)
    return w[(slice(None), slice(None), *[slice(None, None, -1)] * (w.ndim - 2))] if flip else w


def add_bias(y, b):
    if b is None:
        return y
    return y + np.asarray(b, dtype=np.float64).reshape(1, -1, *[1] * (y.ndim - 2))


def take(array, indices):
    """Elements at ``indices``, one list per spatial axis (the last ones); -1 takes a zero."""
    lead = array.ndim - len(indices)
    with_zero = np.pad(array, [(0, 0)] * lead + [(0, 1)] * len(indices))  # at index -1
    everything = [np.arange(extent) for extent in array.shape[:lead]]
    return with_zero[np.ix_(*everything, *(np.asarray(i, dtype=np.intp) for i in indices))]


def crop(canvas, padding, output_padding):
    """Drop ``padding`` at the ends of the spatial axes; keep ``output_padding`` more at the end."""
    rows = []
    for extent, (before, after), extra in zip(
        canvas.shape[2:], padding, output_padding, strict=True
    ):
        positions = range(before, extent - after + extra)
        rows.append([i if 0 <= i < extent else -1 for i in positions])
    return take(canvas, rows)
