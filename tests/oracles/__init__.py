"""Oracles: every operator once more, in float64, from NumPy, SciPy and the formulas alone.

Nothing here imports pyconv, and nothing is shared with it: shapes, padding and channel order are
worked out again. Each operator exists twice:

=============  ==============================  ==================================================
operator       plain loops                     through SciPy
=============  ==============================  ==================================================
convolution    `conv`, gathering patches       `scipy_conv`; `ndimage_conv`, where it can pad
transposed     `transposed`, stamping kernels  `scipy_transposed`, of the input with zeros between
deformable     `deformable`, point by point    `scipy_deformable`
=============  ==============================  ==================================================

`separable` and `spatially_separable` compose either kind. Arrays are batched or not, in either
layout; weights have the shapes of the public contract. ``padding`` is explicit (an int, an int per
axis, or a ``(before, after)`` pair per axis): `pads` and `transposed_pads` work it out from the
string rules.

For gradients there are finite differences (`numerical_gradient`, `directional_derivative`, and
one-sided ones for coordinates that are integers) and the adjoint identity (`adjoint_gap`).
`conv_problem`, `transposed_problem` and `deformable_problem` draw random calls.
"""

from __future__ import annotations

from .arguments import PADDING_MODES, out_size, pads, pairs, per_axis, transposed_pads
from .comparing import assert_close
from .compositions import separable, spatially_separable
from .gradients import (
    adjoint_gap,
    directional_derivative,
    numerical_gradient,
    one_sided_directional_derivative,
    one_sided_gradient,
)
from .loops import conv, deformable, sample, source_index, transposed
from .problems import Problem, conv_problem, deformable_problem, random, transposed_problem
from .with_scipy import ndimage_conv, scipy_conv, scipy_deformable, scipy_transposed

__all__ = [
    "PADDING_MODES",
    "Problem",
    "adjoint_gap",
    "assert_close",
    "conv",
    "conv_problem",
    "deformable",
    "deformable_problem",
    "directional_derivative",
    "ndimage_conv",
    "numerical_gradient",
    "one_sided_directional_derivative",
    "one_sided_gradient",
    "out_size",
    "pads",
    "pairs",
    "per_axis",
    "random",
    "sample",
    "scipy_conv",
    "scipy_deformable",
    "scipy_transposed",
    "separable",
    "source_index",
    "spatially_separable",
    "transposed",
    "transposed_pads",
    "transposed_problem",
]
