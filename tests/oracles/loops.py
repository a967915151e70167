"""The operators as plain loops over elements."""

from __future__ import annotations

import itertools
import math

import numpy as np

from .arguments import add_bias, batched, crop, like, out_size, pairs, per_axis, take, weight


def source_index(i, h, mode):
    """Which element of an axis of extent ``h`` padded position ``i`` shows; -1 for a zero."""
    if 0 <= i < h:
        return i
    if mode == "replicate":
        return 0 if i < 0 else h - 1
    if mode == "circular":
        return i % h
    if mode == "symmetric":  # ... 1 0 | 0 1 2 | 2 1 ...
        i %= 2 * h
        return i if i < h else 2 * h - 1 - i
    if mode == "reflect":  # ... 2 1 | 0 1 2 | 1 0 ...
        if h == 1:
            return 0
        i %= 2 * (h - 1)
        return i if i < h else 2 * (h - 1) - i
    return -1


def conv(
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
    """Convolution: one output element at a time, each from the patch it sees."""
    w = weight(w, flip)
    n_outputs, members, *kernel = w.shape
    rank = len(kernel)
    image = batched(x, rank, layout)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    size, padding = image.shape[2:], pairs(padding, rank)
    out = out_size(size, kernel, stride, padding, dilation)
    y = np.zeros((len(image), n_outputs, *out))
    for position in np.ndindex(*out):
        seen = [
            [source_index(i * s + t * d - p, h, padding_mode) for t in range(k)]
            for i, s, d, (p, _), h, k in zip(
                position, stride, dilation, padding, size, kernel, strict=True
            )
        ]
        patch = take(image, seen)
        for o in range(n_outputs):
            g = o // (n_outputs // groups)
            product = patch[:, g * members : (g + 1) * members] * w[o]
            y[(slice(None), o, *position)] = product.sum(axis=tuple(range(1, product.ndim)))
    return like(add_bias(y, b), x, rank, layout)


def transposed(
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
    """Transposed convolution: every input element stamps its kernel on a canvas, then cropped."""
    w = weight(w, flip)
    n_inputs, members, *kernel = w.shape
    rank = len(kernel)
    image = batched(x, rank, layout)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    size = image.shape[2:]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    canvas = np.zeros(
        (
            len(image),
            members * groups,
            *((h - 1) * s + r for h, s, r in zip(size, stride, reach, strict=True)),
        )
    )
    for position in np.ndindex(*size):
        stamp = [
            slice(i * s, i * s + r, d)
            for i, s, r, d in zip(position, stride, reach, dilation, strict=True)
        ]
        for c in range(n_inputs):
            g = c // (n_inputs // groups)
            values = image[(slice(None), c, *position)]
            canvas[(slice(None), slice(g * members, (g + 1) * members), *stamp)] += (
                values.reshape(-1, *[1] * (rank + 1)) * w[c]
            )
    y = crop(canvas, pairs(padding, rank), per_axis(output_padding, rank))
    return like(add_bias(y, b), x, rank, layout)


def sample(image, point):
    """``image`` (C, *S) at one point, by the definition: hats around the corners that exist."""
    size = image.shape[1:]
    total = np.zeros(len(image))
    if any(not math.isfinite(v) or v <= -1 or v >= h for v, h in zip(point, size, strict=True)):
        return total
    for corner in itertools.product(*((math.floor(v), math.floor(v) + 1) for v in point)):
        if all(0 <= i < h for i, h in zip(corner, size, strict=True)):
            hat = math.prod(1 - abs(v - i) for v, i in zip(point, corner, strict=True))
            total += hat * image[(slice(None), *corner)]
    return total


def deformable(
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
    """Deformable convolution: every tap of every output element is sampled on its own."""
    w = weight(w)
    n_outputs, members, *kernel = w.shape
    rank, taps = len(kernel), list(itertools.product(*map(range, kernel)))
    image, shift, scale = (batched(a, rank, layout) for a in (x, offset, mask))
    batch, n_inputs, *size = image.shape
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    padding = pairs(padding, rank)
    out = out_size(size, kernel, stride, padding, dilation)
    if shift.shape[2:] != out:
        raise ValueError(f"offset is for an output of {shift.shape[2:]}, not {out}")
    n_offset_groups = shift.shape[1] // (rank * len(taps))
    share = n_inputs // n_offset_groups  # channels that move together
    groups = n_inputs // members if members else 1
    y = np.zeros((batch, n_outputs, *out))
    for n, position in itertools.product(range(batch), np.ndindex(*out)):
        patch = np.zeros((n_inputs, *kernel))
        for d, (tap, t) in itertools.product(range(n_offset_groups), enumerate(taps)):
            first = d * rank * len(taps) + rank * tap
            moved = shift[(n, slice(first, first + rank), *position)]
            point = [
                position[a] * stride[a] + t[a] * dilation[a] - padding[a][0] + float(moved[a])
                for a in range(rank)
            ]
            values = sample(image[n, d * share : (d + 1) * share], point)
            if scale is not None:
                values = values * scale[(n, d * len(taps) + tap, *position)]
            patch[(slice(d * share, (d + 1) * share), *t)] = values
        for o in range(n_outputs):
            g = o // (n_outputs // groups)
            y[(n, o, *position)] = np.sum(patch[g * members : (g + 1) * members] * w[o])
    return like(add_bias(y, b), x, rank, layout)
