"""Dilated (atrous) convolution: taps at a distance, and two classical ways to construct it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from pyconv import checks, engine, geometry
from pyconv.engine import Run
from pyconv.geometry import Axis
from pyconv.operator import Array, Case
from pyconv.operators._convolution import Convolution, ConvProblem, conv_case
from pyconv.operators._docs import shared


@shared
def dilated_conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    dilation: Any,
    stride: Any = 1,
    padding: Any = 0,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    flip: bool = False,
    algorithm: str = "auto",
    max_workspace: int | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve with kernels whose taps are `dilation` elements apart.

    ``y[n, o, i] = bias[o] + sum over c, t of
    weight[o, c, t] * x[n, c, i*stride + t*dilation - before]``

    Parameters
    ----------
    %(x)s
    weight : array, shape (O, C/groups, *k)
        A kernel for each output channel and each input channel of its group.
    %(bias)s
    %(dilation)s
    %(stride)s
    %(padding)s
    %(groups)s
    %(padding_mode)s
    %(layout)s
    %(flip)s
    algorithm : {"auto", "direct", "winograd", "zero_insertion", "subsample"}
        ``"direct"`` reads the taps where they are; ``"winograd"`` takes fewer products on each
        residue class of the outputs, for kernels of 2 to 5 taps along the last two axes or one of
        them, at stride 1; ``"auto"`` takes what is expected to be the faster, see
        :doc:`/algorithms`. The others are the textbook constructions, for comparison:
        ``"zero_insertion"`` convolves with the kernel spread out by zeros, which must fit the
        workspace; ``"subsample"`` convolves every ``dilation``-th element with the dense kernel,
        for each residue, and needs zero padding.
    %(run)s

    Returns
    -------
    ndarray
        ``(N, O, *S_out)`` with ``S_out = floor((S + before + after - dilation*(k-1) - 1) / stride)
        + 1``; without the first axis if `x` has none.

    Raises
    ------
    %(raises)s

    References
    ----------
    .. [1] F. Yu, V. Koltun, "Multi-scale context aggregation by dilated convolutions", ICLR 2016,
       arXiv:1511.07122.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    >>> weight = np.array([[[1, 0, -1]]], np.float32)
    >>> pyconv.dilated_conv(x, weight, dilation=3)
    array([[[-6., -6.]]], dtype=float32)
    """
    return OPERATOR(
        x, weight, bias, dilation=dilation, stride=stride, padding=padding, groups=groups,
        padding_mode=padding_mode, layout=layout, flip=flip, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


class Dilated(Convolution):
    name = "dilated"
    aliases = ("atrous",)
    summary = "Taps at a distance: a wide view with few weights"
    url = "https://arxiv.org/abs/1511.07122"
    algorithms = ("auto", "direct", "winograd", "zero_insertion", "subsample")
    function = staticmethod(dilated_conv)

    direct = "a dilation is a stride of the packing, at no cost"

    def check_algorithm(self, problem: ConvProblem) -> None:
        padded = any(a.before > 0 or a.after > 0 for a in problem.axes)
        if problem.algorithm == "subsample" and problem.padding_mode != "zeros" and padded:
            checks.fail(
                self.name, "algorithm",
                f"not be 'subsample' with padding_mode={problem.padding_mode!r}, which does not "
                "keep the residues apart", "subsample",
            )  # fmt: skip

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: Array, run: Run, prepared: Any = None
    ) -> int:
        if problem.algorithm == "zero_insertion":
            return self._zero_insertion(problem, arrays, out, run)
        if problem.algorithm == "subsample":
            return self._subsample(run, problem, arrays, out)
        return super().compute(problem, arrays, out, run, prepared)

    def prepare(self, problem: Any, arrays: dict[str, Any], run: Run) -> Any:
        if problem.algorithm in ("zero_insertion", "subsample"):
            return None
        return super().prepare(problem, arrays, run)

    def _zero_insertion(
        self, problem: ConvProblem, arrays: dict[str, Any], out: Array, run: Run
    ) -> int:
        """A dense convolution with ``dilation - 1`` zeros between the taps of the kernel."""
        weight = self.weight_view(problem, arrays["weight"])
        axes = engine.three(problem.axes)
        shape = (*weight.shape[:3], *(a.reach for a in axes))
        need = prod(shape) * weight.dtype.itemsize
        if need > run.budget // 2:
            checks.fail(
                self.name, "algorithm",
                f"not be 'zero_insertion' for this shape: the kernel with zeros takes {need} "
                f"bytes, more than half of max_workspace ({run.budget})", "zero_insertion",
            )  # fmt: skip
        spread = np.zeros(shape, weight.dtype)
        d0, d1, d2 = (a.dilation for a in axes)
        spread[:, :, :, ::d0, ::d1, ::d2] = weight
        dense = engine.three([
            Axis(a.size, a.reach, a.stride, 1, a.before, a.after, a.out) for a in axes
        ])  # fmt: skip
        used = engine.correlate(
            run.less(need), problem.image.view(arrays["x"]), spread, arrays["bias"],
            problem.image.view(out), dense, problem.padding_mode,
        )  # fmt: skip
        return used + need

    def _subsample(self, run: Run, problem: ConvProblem, arrays: dict[str, Any], out: Array) -> int:
        """A dense convolution of every ``dilation``-th element, for each residue."""
        if run.tight:
            self._subsample(run.measuring(), problem, arrays, out)
        weight = self.weight_view(problem, arrays["weight"])
        x, y = problem.image.view(arrays["x"]), problem.image.view(out)
        axes = engine.three(problem.axes)
        used = 0
        for phase in product(*(geometry.subsample_phases(a) for a in axes)):
            part = engine.every(
                [(p.residue, None, a.dilation) for a, p in zip(axes, phase, strict=True)]
            )
            place = engine.every([(p.start, None, p.step) for p in phase])
            dense = []
            for axis, p in zip(axes, phase, strict=True):
                size = len(range(p.residue, axis.size, axis.dilation))
                dense.append(Axis(size, axis.kernel, p.stride, 1, -p.offset, 0, p.count))
            phase_used = engine.correlate(
                run, x[part], weight, arrays["bias"], y[place], engine.three(dense)
            )
            used = max(used, phase_used)
        return used

    def cases(self) -> Iterator[Case]:
        yield conv_case("2-D", (2, 3, 12, 13), (4, 3, 3, 2), dilation=2, padding="same")
        yield conv_case("1-D causal", (2, 3, 40), (5, 3, 3), dilation=8, padding="causal")
        yield conv_case(
            "2-D strided", (1, 4, 15, 14), (6, 2, 3, 3), dilation=(3, 2), stride=(2, 3), groups=2,
            padding=((2, 3), (1, 0)),
        )  # fmt: skip
        yield conv_case("3-D", (1, 2, 7, 9, 8), (3, 2, 3, 2, 3), dilation=(1, 3, 2), padding=1)
        yield conv_case(
            "winograd", (2, 18, 13, 19), (9, 18, 3, 3), dilation=(2, 3), padding=2,
            algorithm="winograd",
        )  # fmt: skip
        for algorithm in ("zero_insertion", "subsample"):
            yield conv_case(
                algorithm, (2, 3, 14, 11), (4, 3, 3, 2), dilation=(3, 2), stride=(2, 1),
                padding=2, algorithm=algorithm,
            )  # fmt: skip


OPERATOR = Dilated()
