"""Random calls, reproducible from a seed, with sizes that differ from one another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .arguments import PADDING_MODES, out_size


@dataclass
class Problem:
    """A call: ``oracle(*arrays.values(), **params)``."""

    arrays: dict[str, np.ndarray | None]
    params: dict = field(default_factory=dict)

    def __iter__(self):
        return iter((list(self.arrays.values()), self.params))


def random(shape, seed=0, dtype=np.float64):
    """Normal deviates."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _distinct(sizes):
    """Raise sizes until no two axes have the same, so that mixed-up axes show."""
    sizes = list(sizes)
    for a in range(1, len(sizes)):
        while sizes[a] in sizes[:a]:
            sizes[a] += 1
    return tuple(sizes)


def _geometry(rng, rank):
    """Kernel, and stride, padding and dilation as keywords."""
    kernel = tuple(int(k) for k in rng.integers(1, 5, rank))
    steps = {
        name: tuple(int(v) for v in rng.integers(1, 4, rank)) for name in ("stride", "dilation")
    }
    padding = tuple((int(p), int(q)) for p, q in rng.integers(-1, 5, (rank, 2)))
    return kernel, {**steps, "padding": padding}


def _forward_size(rng, kernel, params):
    """A size that gives an output, and is not cropped away."""
    least = [
        max(1, d * (k - 1) + 1 - p - q, -p + 1, -q + 1)
        for k, d, (p, q) in zip(kernel, params["dilation"], params["padding"], strict=True)
    ]
    return _distinct(int(n + rng.integers(0, 5)) for n in least)


def conv_problem(seed, rank=None, *, bias=True, padding_mode=None):
    """A call of `conv` with everything drawn: rank 1 to 3, unequal sizes, asymmetric padding."""
    rng = np.random.default_rng([1, seed])
    rank = int(rng.integers(1, 4)) if rank is None else rank
    kernel, params = _geometry(rng, rank)
    groups, members, outputs = (int(v) for v in rng.integers(1, 4, 3))
    size = _forward_size(rng, kernel, params)
    arrays = {
        "x": rng.standard_normal((int(rng.integers(1, 4)), groups * members, *size)),
        "w": rng.standard_normal((groups * outputs, members, *kernel)),
        "b": rng.standard_normal(groups * outputs) if bias else None,
    }
    params |= {
        "groups": groups,
        "padding_mode": padding_mode or str(rng.choice(PADDING_MODES)),
        "flip": bool(rng.integers(2)),
    }
    return Problem(arrays, params)


def transposed_problem(seed, rank=None, *, bias=True):
    """A call of `transposed` with everything drawn."""
    rng = np.random.default_rng([2, seed])
    rank = int(rng.integers(1, 4)) if rank is None else rank
    kernel, params = _geometry(rng, rank)
    groups, members, outputs = (int(v) for v in rng.integers(1, 4, 3))
    steps = list(zip(params["stride"], params["dilation"], params["padding"], strict=True))
    params["output_padding"] = tuple(int(rng.integers(0, max(s, d))) for s, d, _ in steps)
    least = [
        max(1, -(-(p + q - d * (k - 1) - extra) // s) + 1)
        for (s, d, (p, q)), k, extra in zip(steps, kernel, params["output_padding"], strict=True)
    ]
    size = _distinct(int(n + rng.integers(0, 4)) for n in least)
    arrays = {
        "x": rng.standard_normal((int(rng.integers(1, 4)), groups * members, *size)),
        "w": rng.standard_normal((groups * members, outputs, *kernel)),
        "b": rng.standard_normal(groups * outputs) if bias else None,
    }
    return Problem(arrays, params | {"groups": groups, "flip": bool(rng.integers(2))})


def deformable_problem(seed, rank=None, *, bias=True, mask=True, integer=False):
    """A call of `deformable` with everything drawn.

    Coordinates stay 0.1 away from integers; ``integer=True`` puts them all on integers, those
    around the borders included.
    """
    rng = np.random.default_rng([3, seed])
    rank = int(rng.integers(1, 4)) if rank is None else rank
    kernel, params = _geometry(rng, rank)
    kernel = tuple(min(k, 3) for k in kernel)
    groups, offset_groups, outputs = (int(v) for v in rng.integers(1, 4, 3))
    channels = math.lcm(groups, offset_groups)
    size = _forward_size(rng, kernel, params)
    out = out_size(size, kernel, **params)
    batch, n_taps = int(rng.integers(1, 3)), math.prod(kernel)
    offset = rng.integers(-2, 3, (batch, offset_groups * rank * n_taps, *out)).astype(np.float64)
    if not integer:
        offset += rng.uniform(0.1, 0.9, offset.shape)
    arrays = {
        "x": rng.standard_normal((batch, channels, *size)),
        "offset": offset,
        "w": rng.standard_normal((groups * outputs, channels // groups, *kernel)),
        "b": rng.standard_normal(groups * outputs) if bias else None,
        "mask": rng.uniform(0, 1, (batch, offset_groups * n_taps, *out)) if mask else None,
    }
    return Problem(arrays, params)
