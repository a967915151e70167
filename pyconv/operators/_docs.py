"""Documentation of the parameters that operators share, written once.

`shared` fills the ``%(name)s`` lines of a docstring from `PARAMETERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import indent
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

PARAMETERS = {
    "x": """\
x : array, shape (N, C, *S) or (C, *S)
    Images with 1 to 3 spatial axes; float32, float64, float16 or bfloat16 (`ml_dtypes`). All
    arrays of a call have the same dtype.""",
    "bias": """\
bias : array, shape (O,), optional
    Added to each output channel.""",
    "stride": """\
stride : int or sequence of int
    Step between outputs, in elements, per spatial axis.""",
    "padding": """\
padding : int, sequence, or str
    How much stands around the input, in elements: an integer, one per axis, one
    ``(before, after)`` pair per axis (negative: crop), ``"valid"`` (none), ``"same"`` (output
    ``ceil(S / stride)``, the odd one at the end), ``"same_lower"`` (the odd one first),
    ``"full"`` (every partial overlap) or ``"causal"`` (1-D: outputs see no later input).""",
    "dilation": """\
dilation : int or sequence of int
    Step between taps, in elements, per spatial axis.""",
    "groups": """\
groups : int
    Number of blocks of channels that do not see each other.""",
    "padding_mode": """\
padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
    What stands around the input, as in `numpy.pad` (constant, reflect, edge, wrap, symmetric).""",
    "layout": """\
layout : {"channels_first", "channels_last"}
    Axis order of the images and the result. Weights never change layout.""",
    "flip": """\
flip : bool
    Flip the kernel: convolution as mathematics has it, instead of correlation.""",
    "algorithm": """\
algorithm : {"auto", "direct"}
    How to compute it; both are the same here.""",
    "winograd": """\
algorithm : {"auto", "direct", "winograd"}
    ``"winograd"`` takes fewer products, for kernels of 2 to 5 taps at stride 1, or 3 or 4 at
    stride 2, along the last two axes or one of them; ``"auto"`` takes it where it is expected to
    be faster than ``"direct"``, see :doc:`/algorithms`.""",
    "fft": """\
algorithm : {"auto", "direct", "fft"}
    ``"fft"`` goes by Fourier transforms of blocks; ``"auto"`` takes it for kernels of a thousand
    taps and more, see :doc:`/algorithms`.""",
    "winograd, fft": """\
algorithm : {"auto", "direct", "winograd", "fft"}
    ``"winograd"`` takes fewer products, for kernels of 2 to 5 taps at stride 1, or 3 or 4 at
    stride 2, along the last two axes or one of them; ``"fft"`` goes by Fourier transforms of
    blocks; ``"auto"`` takes what is expected to be the fastest, see :doc:`/algorithms`.""",
    "run": """\
max_workspace : int, optional
    Most bytes of memory to use beyond arguments and result; 32 MiB by default.
threads : int, optional
    Number of threads; by default what `pyconv.threads` and the environment say.
out : ndarray, optional
    Where to put the result: of its shape and dtype, writeable, apart from the inputs.""",
    "raises": """\
ValueError, TypeError
    If an argument does not fit. The message names the operator, the argument, the rule and the
    value; nothing has been written then.
MemoryError
    If there is no memory for the result or the workspace.""",
}


def shared(function: F) -> F:
    """Fill the ``%(name)s`` lines of the docstring of `function`."""
    if function.__doc__:  # python -OO has none
        table = {name: indent(text, "    ").lstrip() for name, text in PARAMETERS.items()}
        function.__doc__ = function.__doc__ % table
    return function
