"""The operators' definitions, written to be read: slow, obvious, for any dtype.

Three functions define every built-in operator; the others are special cases of them (a depthwise
convolution is `correlate` with as many groups as channels) or compositions. They are what
``Operator.reference`` calls, and what fast kernels are checked against.

Arrays are in canonical form: ``channels_first`` and batched. Nothing is checked here, and shapes
are not worked out here: ``axes`` holds one `pyconv.geometry.Axis` per spatial axis.

The arithmetic is that of the arrays' common dtype, one rounding per operation, in the order of the
loops below. For results that are exact, pass integers, or object arrays of ``int`` or
`fractions.Fraction`; for results to compare a float32 kernel with, pass float64.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv.geometry import Axis

__all__ = ["correlate", "correlate_transposed", "deform"]

AnyArray = np.ndarray[Any, Any]

#: What `numpy.pad` calls each padding mode.
_NUMPY_PAD_MODES: dict[str, Any] = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


def correlate(
    x: AnyArray,
    weight: AnyArray,
    bias: AnyArray | None,
    axes: Sequence[Axis],
    groups: int = 1,
    padding_mode: str = "zeros",
    flip: bool = False,
) -> AnyArray:
    """Correlate each output channel's kernels with the channels of its group.

    For output channel ``o`` of group ``g``, output position ``i`` (one index per spatial axis)::

        y[n, o, i] = bias[o] + sum over c, t of  padded[n, g*C/groups + c, i*stride + t*dilation]
                                                 * weight[o, c, t]

    where ``padded`` is `x` with ``before`` and ``after`` more samples at the ends of each axis
    (fewer, where they are negative).

    Parameters
    ----------
    x : ndarray, shape (N, C, *S)
        Input.
    weight : ndarray, shape (O, C / groups, *k)
        Kernels. ``flip=True`` reverses each of them along every spatial axis.
    bias : ndarray, shape (O,), or None
        Added to each output channel.
    axes : sequence of Axis
        The geometry of each spatial axis.
    groups : int
        Output channel ``o`` sees the input channels of group ``o // (O / groups)`` only.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        Where padding samples come from: `numpy.pad` with the same (or the corresponding) mode.
    flip : bool
        Convolution in the mathematical sense, instead of correlation.

    Returns
    -------
    ndarray, shape (N, O, *out)
        In the common dtype of the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv.geometry import Axis
    >>> axis = Axis(size=4, kernel=2, stride=1, dilation=1, before=1, after=0, out=4)
    >>> x, weight = np.array([[[1, 2, 4, 8]]]), np.array([[[-1, 1]]])
    >>> correlate(x, weight, None, [axis])
    array([[[1, 1, 2, 4]]])
    """
    padded = _pad(x, axes, padding_mode)
    weight = _flipped(weight, flip)
    y = np.zeros((len(x), len(weight), *(axis.out for axis in axes)), _common(x, weight, bias))
    for t in _taps(axes):
        window = [
            slice(tap * a.dilation, tap * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
            for tap, a in zip(t, axes, strict=True)
        ]
        y += _mix(_at(padded, window), _at(weight, t), groups)
    return _plus_bias(y, bias)


def correlate_transposed(
    x: AnyArray,
    weight: AnyArray,
    bias: AnyArray | None,
    axes: Sequence[Axis],
    groups: int = 1,
    flip: bool = False,
) -> AnyArray:
    """Apply the adjoint of `correlate` with zero padding: a transposed convolution.

    Every input sample adds a scaled kernel to the output, and what falls outside is dropped. For
    input channel ``c`` of group ``g``, input position ``i``, and tap ``t``::

        y[n, g*O/groups + o, i*stride + t*dilation - before] += x[n, c, i] * weight[c, o, t]

    Parameters
    ----------
    x : ndarray, shape (N, C, *S)
        Input.
    weight : ndarray, shape (C, O / groups, *k)
        Kernels. ``flip=True`` reverses each of them along every spatial axis.
    bias : ndarray, shape (O,), or None
        Added to each output channel.
    axes : sequence of Axis
        The geometry of the forward convolution whose adjoint this is: the input's extent is
        ``axis.out`` and the output's is ``axis.size``.
    groups : int
        Input channel ``c`` adds to the output channels of group ``c // (C / groups)`` only.
    flip : bool
        The adjoint of `correlate` with ``flip=True``.

    Returns
    -------
    ndarray, shape (N, O, *size)
        In the common dtype of the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv.geometry import Axis
    >>> axis = Axis(size=5, kernel=3, stride=2, dilation=1, before=0, after=0, out=2)
    >>> correlate_transposed(np.array([[[1, 10]]]), np.array([[[1, 2, 3]]]), None, [axis])
    array([[[ 1,  2, 13, 20, 30]]])
    """
    channels = weight.shape[1] * groups
    weight = _output_first(_flipped(weight, flip), groups)
    y = np.zeros((len(x), channels, *(axis.size for axis in axes)), _common(x, weight, bias))
    for t in _taps(axes):
        sources, targets = [], []
        for tap, axis in zip(t, axes, strict=True):
            i = np.arange(axis.out)
            target = i * axis.stride + tap * axis.dilation - axis.before
            inside = (target >= 0) & (target < axis.size)
            sources.append(i[inside])
            targets.append(target[inside])
        contribution = _mix(x, _at(weight, t), groups)
        # Within one tap no two input positions share a target, so += loses nothing.
        y[_box(y, targets)] += contribution[_box(contribution, sources)]
    return _plus_bias(y, bias)


def deform(
    x: AnyArray,
    offset: AnyArray,
    weight: AnyArray,
    bias: AnyArray | None,
    mask: AnyArray | None,
    axes: Sequence[Axis],
) -> AnyArray:
    """Correlate with samples of `x` taken where the offsets say: a deformable convolution.

    With ``K`` taps, of which ``t`` is number ``tap`` in C order, and ``r`` spatial axes numbered
    ``a``, for input channel ``c`` of offset group ``d``, and output channel ``o`` of group ``g``::

        v[a]         = i[a]*stride + t[a]*dilation - before + offset[n, d*r*K + r*tap + a, i]
        sample[c, t] = mask[n, d*K + tap, i] * (x[n, c] interpolated at v)
        y[n, o, i]   = bias[o] + sum over c, t of  sample[g*C/groups + c, t] * weight[o, c, t]

    Interpolation is linear along each axis between the two nearest array elements; elements
    outside the array count as 0, and the whole sample is 0 unless ``-1 < v[a] < size`` on every
    axis, which NaN and the infinities are not.

    Parameters
    ----------
    x : ndarray, shape (N, C, *S)
        Input.
    offset : ndarray, shape (N, G * r * K, *out)
        Displacements, in elements, axis order as in the array. ``G`` follows from the shape.
    weight : ndarray, shape (O, C / groups, *k)
        Kernels. ``groups`` follows from the shape.
    bias : ndarray, shape (O,), or None
        Added to each output channel.
    mask : ndarray, shape (N, G * K, *out), or None
        Factors for the samples.
    axes : sequence of Axis
        The geometry of each spatial axis.

    Returns
    -------
    ndarray, shape (N, O, *out)
        In the common dtype of the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv.geometry import Axis
    >>> axis = Axis(size=3, kernel=1, stride=1, dilation=1, before=0, after=0, out=3)
    >>> x, weight = np.array([[[1.0, 2.0, 4.0]]]), np.ones((1, 1, 1))
    >>> offset = np.array([[[0.5, -1.5, 0.25]]])
    >>> deform(x, offset, weight, None, None, [axis])
    array([[[1.5, 0.5, 3. ]]])
    """
    rank, n_taps = len(axes), math.prod(axis.kernel for axis in axes)
    origin = np.meshgrid(*(np.arange(a.out) * a.stride - a.before for a in axes), indexing="ij")
    places = [origin[a] + t[a] * axes[a].dilation for t in _taps(axes) for a in range(rank)]
    groups = offset.shape[1] // (rank * n_taps)
    points = np.array(places * groups) + offset  # of a finer type than the result may be
    dtype = _common(x, offset, weight, bias, mask)
    return _correlate_at(x, points, weight, bias, mask, (False,) * rank, dtype)


def sampled(
    x: AnyArray,
    points: AnyArray,
    weight: AnyArray,
    bias: AnyArray | None,
    mask: AnyArray | None,
    wrap: Sequence[bool],
) -> AnyArray:
    """Correlate with samples of `x` taken at given points.

    This is `deform`, with ``v[a] = points[n, d*r*K + r*tap + a, i]``.

    Parameters
    ----------
    x : ndarray, shape (N, C, *S)
        Input.
    points : ndarray, shape (N, G * r * K, *out)
        Coordinates, in elements.
    weight, bias, mask
        See `deform`.
    wrap : sequence of bool
        For each axis, whether its ends meet: then every finite coordinate is inside, and the
        element after the last is the first.

    Returns
    -------
    ndarray, shape (N, O, *out)
        In the common dtype of the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0, 4.0]]]), np.ones((1, 1, 1))
    >>> points = np.array([[[0.5, 2.5, -4.0]]])
    >>> sampled(x, points, weight, None, None, [False])
    array([[[1.5, 2. , 0. ]]])
    >>> sampled(x, points, weight, None, None, [True])
    array([[[1.5, 2.5, 4. ]]])
    """
    dtype = _common(x, points, weight, bias, mask)
    return _correlate_at(x, points, weight, bias, mask, wrap, dtype)


def _correlate_at(
    x: AnyArray,
    points: AnyArray,
    weight: AnyArray,
    bias: AnyArray | None,
    mask: AnyArray | None,
    wrap: Sequence[bool],
    dtype: np.dtype[Any],
) -> AnyArray:
    """`sampled`, in a dtype that need not be that of the points."""
    channels, rank, out = x.shape[1], len(wrap), points.shape[2:]
    n_taps = math.prod(weight.shape[2:])
    offset_groups = points.shape[1] // (rank * n_taps)
    groups = channels // weight.shape[1] if channels else 1
    y = np.zeros((len(x), len(weight), *out), dtype)
    for tap, t in enumerate(np.ndindex(*weight.shape[2:])):
        samples = np.zeros((len(x), channels, *out), y.dtype)
        for n, d in itertools.product(range(len(x)), range(offset_groups)):
            v = points[n, (d * n_taps + tap) * rank : (d * n_taps + tap + 1) * rank]
            members = slice(channels * d // offset_groups, channels * (d + 1) // offset_groups)
            samples[n, members] = _sample(x[n, members], list(v), wrap)
            if mask is not None:
                samples[n, members] *= mask[n, d * n_taps + tap]
        y += _mix(samples, _at(weight, t), groups)
    return _plus_bias(y, bias)


def _mix(samples: AnyArray, factors: AnyArray, groups: int) -> AnyArray:
    """Sum over each group's channels: what one tap adds.

    ``mixed[n, o] = sum over c of  samples[n, g*C/groups + c] * factors[o, c]``, ``g`` the group of
    ``o``; `samples` is (N, C, ...), `factors` (O, C / groups).
    """
    outputs, members = factors.shape
    mixed = np.zeros((len(samples), outputs, *samples.shape[2:]), _common(samples, factors))
    for o in range(outputs):
        first = o // (outputs // groups) * members
        for c in range(members):
            mixed[:, o] += samples[:, first + c] * factors[o, c]
    return mixed


def _sample(image: AnyArray, points: Sequence[AnyArray], wrap: Sequence[bool]) -> AnyArray:
    """Interpolate ``image`` (C, *S) at ``points``, one array of coordinates per spatial axis.

    Each of the 2**r corners around a point weighs ``1 - |v[a] - corner[a]|``, multiplied over axes.
    """
    size = image.shape[1:]
    along = list(zip(points, size, wrap, strict=True))
    with np.errstate(invalid="ignore"):  # NaN fails both comparisons, as it should
        inside = np.logical_and.reduce(
            [np.isfinite(v) if round_ else (v > -1) & (v < extent) for v, extent, round_ in along]
        ).astype(bool)
    # Coordinates that are not inside may not fit an integer; their samples stay 0.
    points = [np.mod(v[inside], extent) if round_ else v[inside] for v, extent, round_ in along]
    below = [np.floor(v).astype(np.int64) for v in points]
    total = np.zeros((len(image), len(below[0])), np.result_type(image, *points))
    for corner in itertools.product((0, 1), repeat=len(size)):
        index = [
            (low + step) % extent if round_ else low + step
            for low, step, extent, round_ in zip(below, corner, size, wrap, strict=True)
        ]
        factor = np.ones(len(below[0]), np.result_type(*points))
        for v, low, step in zip(points, below, corner, strict=True):
            factor = factor * (v - low if step else 1 - (v - low))
        exists = np.logical_and.reduce(
            [(i >= 0) & (i < extent) for i, extent in zip(index, size, strict=True)]
        )
        total[:, exists] += factor[exists] * _at(image, [i[exists] for i in index])
    result = np.zeros((len(image), *inside.shape), total.dtype)
    result[:, inside] = total
    return result


def _pad(x: AnyArray, axes: Sequence[Axis], padding_mode: str) -> AnyArray:
    """Pad the spatial axes of ``x``; then crop where padding is negative."""
    widths = [(max(axis.before, 0), max(axis.after, 0)) for axis in axes]
    shape = (*x.shape[:2], *(n + sum(w) for n, w in zip(x.shape[2:], widths, strict=True)))
    if math.prod(shape) * x.itemsize > sys.maxsize:  # NumPy has a ValueError for this
        raise MemoryError(f"a padded input of shape {shape} is more than any array holds")
    padded = np.pad(x, [(0, 0), (0, 0), *widths], mode=_NUMPY_PAD_MODES[padding_mode])
    kept = [
        slice(max(-axis.before, 0), extent - max(-axis.after, 0))
        for axis, extent in zip(axes, padded.shape[2:], strict=True)
    ]
    return _at(padded, kept)


def _taps(axes: Sequence[Axis]) -> np.ndindex:
    """Every tap of the kernel, as one index per axis, in C order."""
    return np.ndindex(*(axis.kernel for axis in axes))


def _at(array: AnyArray, indices: Sequence[Any]) -> AnyArray:
    """Index the spatial axes, which are the last ones."""
    key: tuple[Any, ...] = (Ellipsis, *indices)
    result: AnyArray = array[key]
    return result


def _flipped(weight: AnyArray, flip: bool) -> AnyArray:
    return np.flip(weight, axis=tuple(range(2, weight.ndim))) if flip else weight


def _output_first(weight: AnyArray, groups: int) -> AnyArray:
    """Transposed weight (C, O / groups, *k) as the (O, C / groups, *k) of a convolution."""
    inputs, members, *kernel = weight.shape
    split = weight.reshape(groups, inputs // groups, members, *kernel).swapaxes(1, 2)
    merged: AnyArray = split.reshape(groups * members, inputs // groups, *kernel)
    return merged


def _box(array: AnyArray, indices: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
    """Index for all of the first two axes of ``array`` and ``indices`` of the spatial ones."""
    return np.ix_(np.arange(array.shape[0]), np.arange(array.shape[1]), *indices)


def _common(*arrays: AnyArray | None) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.result_type(*(a.dtype for a in arrays if a is not None))
    return dtype


def _plus_bias(y: AnyArray, bias: AnyArray | None) -> AnyArray:
    if bias is not None:
        y += bias.reshape(-1, *[1] * (y.ndim - 2))
    return y
