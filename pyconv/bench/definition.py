"""Gradients as their definitions have them, in NumPy, tap by tap: slow beside pyconv, and apart.

Nothing here is pyconv's: shapes come from the arrays, geometry from the layer's description (see
`pyconv.bench.peers`). With ``magnitudes``, every factor is replaced by its absolute value: a bound
of what each gradient is a sum of.

A convolution takes a "wide" array to a "narrow" one: for each tap, the narrow positions see a
window of the wide array. A transposed convolution goes from narrow to wide, with the same windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def gradients(
    layer: dict[str, Any], arrays: dict[str, Any], *, magnitudes: bool = False
) -> dict[str, Array]:
    """Return the gradients that a layer needs.

    Parameters
    ----------
    layer : dict
        Its description, of a ``kind``.
    arrays : dict of str to ndarray
        By name, ``grad`` among them, in the dtype to compute in.
    magnitudes : bool
        Of absolute values, offsets excepted.
    """
    if magnitudes:
        arrays = {n: a if a is None or n == "offset" else np.abs(a) for n, a in arrays.items()}
    kind, grad, x = layer["kind"], arrays["grad"], arrays["x"]
    found = {"bias": grad.sum(axis=(0, *range(2, grad.ndim)))}
    if kind == "deformable":
        found |= _deformable(layer, arrays, magnitudes)
    elif kind == "separable":
        first = _Windows(layer, layer["groups"], grad.shape[2:])
        depthwise, shape = arrays["depthwise"], arrays["pointwise"].shape
        mixing = arrays["pointwise"].reshape(shape[:2])
        middle = first.narrow(x, depthwise)
        products = np.tensordot(_flat(grad), _flat(middle), ((0, 2), (0, 2)))
        found["pointwise"] = products.reshape(shape)
        through = (mixing.T @ _flat(grad)).reshape(middle.shape)
        found["x"] = first.wide(through, depthwise, x.shape)
        found["depthwise"] = first.weight(x, through, depthwise.shape)
    else:
        weight = arrays["weight"]
        narrow, wide = (x, grad) if kind == "transposed" else (grad, x)
        windows = _Windows(layer, layer["groups"], narrow.shape[2:])
        if "weight" in layer["needs"]:
            found["weight"] = windows.weight(wide, narrow, weight.shape)
        if "x" in layer["needs"] and kind == "transposed":
            found["x"] = windows.narrow(grad, weight)
        elif "x" in layer["needs"]:
            found["x"] = windows.wide(grad, weight, x.shape)
    return {name: found[name] for name in layer["needs"]}


def _at(indices: Iterable[Any]) -> Any:
    """Return the key of the last axes that has these indices."""
    return (Ellipsis, *indices)


def _flat(array: Array) -> Array:
    """Return (N, C, positions)."""
    return array.reshape(*array.shape[:2], -1)


class _Windows:
    """What the narrow positions see of a wide array, for each tap.

    Weights are (narrow channels, wide channels / groups, *kernel).
    """

    def __init__(self, layer: dict[str, Any], groups: int, extents: Sequence[int]) -> None:
        self.groups, self.extents = groups, tuple(extents)
        self.kernel, self.before = layer["kernel"], layer["padding"]
        self.stride, self.dilation = layer["stride"], layer["dilation"]

    def narrow(self, wide: Array, weight: Array) -> Array:
        """Return the sums over taps and wide channels."""
        padded = self._padded(wide)
        by_group = weight.reshape(self.groups, -1, *weight.shape[1:])
        total: Any = 0
        for tap, window in self._taps():
            total = total + by_group[_at(tap)] @ self._split(padded[_at(window)])
        result: Array = total.reshape(len(wide), len(weight), *self.extents)
        return result

    def wide(self, narrow: Array, weight: Array, shape: Sequence[int]) -> Array:
        """Return what the narrow elements add to the wide ones."""
        padded = self._padded(np.zeros(shape))
        by_group = weight.reshape(self.groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        split = self._split(narrow)
        for tap, window in self._taps():
            part = by_group[_at(tap)] @ split
            padded[_at(window)] += part.reshape(*shape[:2], *self.extents)
        return padded[_at(self._inner(shape[2:]))]

    def weight(self, wide: Array, narrow: Array, shape: Sequence[int]) -> Array:
        """Return the sums over images and positions."""
        padded, split = self._padded(wide), self._split(narrow)
        result = np.zeros(shape)
        for tap, window in self._taps():
            seen = self._split(padded[_at(window)]).swapaxes(2, 3)
            result[_at(tap)] = (split @ seen).sum(axis=0).reshape(shape[:2])
        return result

    def _taps(self) -> Iterator[tuple[tuple[int, ...], list[slice]]]:
        for tap in np.ndindex(*self.kernel):
            yield (
                tap,
                [
                    slice(t * d, t * d + (n - 1) * s + 1, s)
                    for t, d, n, s in zip(
                        tap, self.dilation, self.extents, self.stride, strict=True
                    )
                ],
            )

    def _split(self, array: Array) -> Array:
        """Return (N, groups, C / groups, positions)."""
        return array.reshape(len(array), self.groups, array.shape[1] // self.groups, -1)

    def _inner(self, extents: Sequence[int]) -> list[slice]:
        return [slice(b, b + extent) for b, extent in zip(self.before, extents, strict=True)]

    def _padded(self, wide: Array) -> Array:
        """Return a copy with as many zeros as the windows reach for."""
        reach = [
            max((n - 1) * s + (k - 1) * d + 1, b + extent)
            for n, s, k, d, b, extent in zip(
                self.extents, self.stride, self.kernel, self.dilation, self.before,
                wide.shape[2:], strict=True,
            )
        ]  # fmt: skip
        padded = np.zeros((*wide.shape[:2], *reach))
        padded[_at(self._inner(wide.shape[2:]))] = wide
        return padded


def _deformable(
    layer: dict[str, Any], arrays: dict[str, Any], magnitudes: bool
) -> dict[str, Array]:
    """Return the gradients of a deformable convolution, groups of weights aside."""
    x, offset, weight, grad = (arrays[n] for n in ("x", "offset", "weight", "grad"))
    mask, rank, parts = arrays.get("mask"), len(layer["kernel"]), layer["offset_groups"]
    taps, extents = list(np.ndindex(*layer["kernel"])), grad.shape[2:]
    axes = list(zip(layer["stride"], layer["padding"], layer["dilation"], strict=True))
    images, channels = x.shape[:2]
    flat, dy = x.reshape(images, parts, channels // parts, -1), _flat(grad)
    shifts = offset.reshape(images, parts, len(taps), rank, -1)
    masks = (np.ones_like(shifts[..., 0, :]) if mask is None
             else mask.reshape(images, parts, len(taps), -1))  # fmt: skip
    found = {
        "x": np.zeros_like(flat), "offset": np.zeros_like(shifts), "mask": np.zeros_like(masks),
        "weight": np.zeros_like(weight),
    }  # fmt: skip
    for number, tap in enumerate(taps):
        start = np.meshgrid(
            *(np.arange(n) * s - b + t * d
              for n, (s, b, d), t in zip(extents, axes, tap, strict=True)),
            indexing="ij",
        )  # fmt: skip
        kernel = weight[_at(tap)]
        for n in range(images):
            samples = np.zeros((parts, channels // parts, dy.shape[-1]))
            back = (kernel.T @ dy[n]).reshape(samples.shape)  # gradient of masked samples
            for g in range(parts):
                points = [begin.ravel() + shifts[n, g, number, a] for a, begin in enumerate(start)]
                for index, factor, slopes, seen in _corners(points, x.shape[2:], magnitudes):
                    corner = flat[n, g][:, index]
                    samples[g][:, seen] += factor * corner
                    dot = (back[g][:, seen] * corner).sum(axis=0) * masks[n, g, number, seen]
                    for a, slope in enumerate(slopes):
                        found["offset"][n, g, number, a, seen] += slope * dot
                    _add(
                        found["x"][n, g],
                        index,
                        back[g][:, seen] * (factor * masks[n, g, number, seen]),
                    )
            found["mask"][n, :, number] = (back * samples).sum(axis=1)
            masked = samples * masks[n, :, number, None]
            found["weight"][_at(tap)] += dy[n] @ masked.reshape(channels, -1).T
    return {name: value.reshape(arrays[name].shape) for name, value in found.items()
            if arrays.get(name) is not None}  # fmt: skip


def _corners(
    points: Sequence[Array], size: Sequence[int], magnitudes: bool
) -> Iterator[tuple[Array, Array, list[Array], Array]]:
    """Yield, for each corner around the points, those that see it, and how.

    Yields
    ------
    index : ndarray
        The flat index of the corner, for the points that have it inside the array.
    factor : ndarray
        Its share in their samples.
    slopes : list of ndarray
        The derivative of the share along each axis.
    seen : ndarray of int
        Which points.
    """
    inside = np.logical_and.reduce(
        [(v > -1) & (v < extent) for v, extent in zip(points, size, strict=True)]
    )
    below = [np.floor(v).astype(np.int64) for v in points]
    for corner in itertools.product((0, 1), repeat=len(size)):
        at = [low + step for low, step in zip(below, corner, strict=True)]
        exists = [(i >= 0) & (i < extent) for i, extent in zip(at, size, strict=True)]
        seen = np.flatnonzero(np.logical_and.reduce([inside, *exists]))
        shares: list[Any] = [1 - np.abs(v[seen] - i[seen]) for v, i in zip(points, at, strict=True)]
        slopes: list[Any] = []
        for a, step in enumerate(corner):
            others = math.prod(shares[:a] + shares[a + 1 :], start=np.ones(len(seen)))
            slopes.append(others if step or magnitudes else -others)
        index = np.ravel_multi_index([i[seen] for i in at], size)
        yield index, math.prod(shares[1:], start=shares[0]), slopes, seen


def _add(target: Array, index: Array, values: Array) -> None:
    """Add columns of values to columns of the target, which may be the same ones several times."""
    if not len(index):
        return
    order = np.argsort(index, kind="stable")
    first = np.flatnonzero(np.diff(index[order], prepend=-1))
    target[:, index[order][first]] += np.add.reduceat(values[:, order], first, axis=1)
