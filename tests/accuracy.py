"""How far results are from exact, of every algorithm, for easy and adversarial values.

``python tests/accuracy.py`` prints the table of docs/algorithms.rst.
"""

from __future__ import annotations

from functools import cache

import numpy as np

import pyconv

#: What is promised, in units of ``u * max(conv(|x|, |w|))``.
PROMISE = 32

#: Name in the table: operator, shapes by array name, parameters.
CALLS = {
    "standard": ("standard", {"x": (1, 64, 34, 34), "weight": (16, 64, 3, 3)}, {"padding": 1}),
    "standard, 512 channels": (
        "standard", {"x": (1, 512, 18, 18), "weight": (8, 512, 3, 3)}, {"padding": 1},
    ),
    "standard, 7x7 maps": (
        "standard", {"x": (1, 256, 7, 7), "weight": (16, 256, 3, 3)}, {"padding": 1},
    ),
    "standard, 2x2": ("standard", {"x": (1, 64, 34, 35), "weight": (16, 64, 2, 2)}, {}),
    "standard, 4x4": ("standard", {"x": (1, 64, 34, 35), "weight": (16, 64, 4, 4)}, {}),
    "standard, 5x5": (
        "standard", {"x": (1, 64, 34, 34), "weight": (16, 64, 5, 5)}, {"padding": 2},
    ),
    "3x3 stride 2": (
        "standard", {"x": (1, 64, 41, 42), "weight": (16, 64, 3, 3)}, {"stride": 2},
    ),
    "4x4 stride 2": (
        "standard", {"x": (1, 64, 41, 42), "weight": (16, 64, 4, 4)}, {"stride": 2},
    ),
    "1-D, 2 taps": ("standard", {"x": (1, 64, 900), "weight": (16, 64, 2)}, {}),
    "1-D, 3 taps": ("standard", {"x": (1, 64, 900), "weight": (16, 64, 3)}, {}),
    "1-D, 4 taps": ("standard", {"x": (1, 64, 900), "weight": (16, 64, 4)}, {}),
    "1-D, 5 taps": ("standard", {"x": (1, 64, 900), "weight": (16, 64, 5)}, {}),
    "pointwise": ("pointwise", {"x": (1, 512, 20, 21), "weight": (16, 512, 1, 1)}, {}),
    "grouped": (
        "grouped", {"x": (1, 64, 30, 31), "weight": (16, 16, 3, 3)}, {"padding": 1, "groups": 4},
    ),
    "depthwise": ("depthwise", {"x": (1, 8, 40, 41), "weight": (8, 1, 7, 7)}, {"padding": 3}),
    "one channel, 31x31": (
        "standard", {"x": (1, 1, 80, 81), "weight": (1, 1, 31, 31)}, {"padding": 15},
    ),
    "one channel, 63x63": (
        "standard", {"x": (1, 1, 150, 161), "weight": (1, 1, 63, 63)}, {"padding": 31},
    ),
    "dilated": (
        "dilated", {"x": (1, 64, 40, 41), "weight": (16, 64, 3, 3)}, {"padding": 2, "dilation": 2},
    ),
    "transposed, 4x4 stride 2": (
        "transposed", {"x": (1, 64, 20, 21), "weight": (64, 16, 4, 4)}, {"stride": 2, "padding": 1},
    ),
    "transposed, 3x3 stride 1": (
        "transposed", {"x": (1, 64, 30, 31), "weight": (64, 16, 3, 3)}, {"padding": 1},
    ),
    "deformable": (
        "deformable",
        {"x": (1, 64, 20, 21), "offset": (1, 18, 20, 21), "weight": (16, 64, 3, 3)},
        {"padding": 1},
    ),
    "depthwise_separable": (
        "depthwise_separable",
        {"x": (1, 64, 30, 31), "depthwise": (64, 1, 3, 3), "pointwise": (16, 64)},
        {"padding": 1},
    ),
}  # fmt: skip

#: Values of images and weights.
VALUES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "positive": lambda rng, shape: np.maximum(rng.standard_normal(shape), 0),
    "mixed": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 5, shape),
    "offset": lambda rng, shape: rng.standard_normal(shape) + (1e4 if shape[0] == 1 else 0),
    "equal": lambda rng, shape: np.full(shape, 0.7 if shape[0] == 1 else 0.3),
}


def algorithms(name: str) -> list[str]:
    """Return those an operator has, or the one it is, that take the shapes of a call."""
    operator, shapes, params = CALLS[name]
    op = pyconv.get(operator)
    found = []
    for algorithm in getattr(op, "algorithms", None) or ("auto", "direct"):
        if algorithm != "auto":
            try:
                op.output_shape(*shapes.values(), **params, algorithm=algorithm)
            except ValueError:
                continue
            found.append(algorithm)
    return found


@cache
def exact(name: str, kind: str, dtype: type) -> tuple[list[np.ndarray], np.ndarray, float]:
    """Return the arrays of a call, its result, and ``max(conv(|x|, |w|))``."""
    operator, shapes, params = CALLS[name]
    rng = np.random.default_rng(7)
    make = {**dict.fromkeys(shapes, VALUES[kind]), "offset": VALUES["normal"]}
    arrays = [make[key](rng, shape).astype(dtype) for key, shape in shapes.items()]
    op = pyconv.get(operator)
    wide = [a.astype(np.longdouble if dtype is np.float64 else np.float64) for a in arrays]
    sizes = [a if key == "offset" else abs(a) for key, a in zip(shapes, wide, strict=True)]
    return arrays, op.reference(*wide, **params), op.reference(*sizes, **params).max()


def error(name: str, algorithm: str, kind: str, dtype: type = np.float32) -> float:
    """Return the largest error of a result, in units of ``u * max(conv(|x|, |w|))``."""
    operator, _, params = CALLS[name]
    arrays, right, size = exact(name, kind, dtype)
    y = pyconv.get(operator)(*arrays, **params, algorithm=algorithm)
    off = abs(y.astype(right.dtype) - right).max()
    return float(off / size / (np.finfo(dtype).eps / 2))


def main() -> None:
    """Print the table."""
    row = "{:<26}{:<14}" + "{:>10}" * len(VALUES)
    line = row.format("=" * 24, "=" * 14, *["=" * 8] * len(VALUES))
    print(line, row.format("call", "algorithm", *VALUES), line, sep="\n")
    for name in CALLS:
        for algorithm in algorithms(name):
            figures = [f"{error(name, algorithm, kind):.1f}" for kind in VALUES]
            print(row.format(name, algorithm, *figures))
    print(line)


if __name__ == "__main__":
    main()
