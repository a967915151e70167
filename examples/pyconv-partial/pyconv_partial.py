"""Partial convolution, as a pyconv plugin without compiled code.

Liu et al., "Image inpainting for irregular holes using partial convolutions", ECCV 2018: pixels in
holes count nothing, and what is left of a kernel is scaled up to the whole::

    y = (number of taps / taps on known pixels) * conv(mask * x) + bias

where a tap is on a known pixel, else 0. The mask holds for all channels of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

import pyconv
from pyconv import checks
from pyconv.checks import Verbatim
from pyconv.operator import Case, Cost, Operator, Problem

__all__ = ["OPERATOR", "partial_conv"]

STANDARD = pyconv.get("standard")


def partial_conv(
    x: Any,
    mask: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "channels_first",
    algorithm: str = "auto",
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve an image with holes.

    Parameters
    ----------
    x : array, shape (N, C, *S) or (C, *S)
        Images; what they have in holes does not matter, if it is finite.
    mask : array, shape (N, 1, *S) or (1, *S)
        Where it is not 0 the pixel is known. Of the dtype of `x`, and in its layout.
    weight : array, shape (O, C/groups, *k)
        A kernel for each output channel and each input channel of its group.
    bias : array, shape (O,), optional
        Added where a tap is on a known pixel.
    stride, padding, dilation, groups, layout, algorithm, threads, out
        As for `pyconv.conv`. Padding counts as a hole.

    Returns
    -------
    ndarray, shape (N, O, *S_out)

    Examples
    --------
    The mean of the pixels that are known:

    >>> import numpy as np
    >>> from pyconv_partial import partial_conv
    >>> x, mask = np.array([[[2.0, 9, 4, 6]]]), np.array([[[1.0, 0, 1, 1]]])
    >>> partial_conv(x, mask, np.full((1, 1, 2), 0.5))
    array([[[2., 4., 5.]]])
    """
    return OPERATOR(
        x, mask, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
        layout=layout, algorithm=algorithm, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class PartialProblem(Problem):
    """A partial convolution."""

    params: tuple[tuple[str, Any], ...] = ()  # of the convolutions that it is made of
    taps: int = 1
    channel_axis: int = 1
    kernel: tuple[int, ...] = ()


class Partial(Operator):
    """Partial convolution."""

    name = "partial"
    summary = "Convolution of images with holes, scaled up for what is known"
    url = "https://arxiv.org/abs/1804.07723"
    function = staticmethod(partial_conv)
    per_call = ("x", "mask")
    constants = ("mask",)  # a choice of pixels, which has no slope
    algorithms = STANDARD.algorithms

    def problem(self, shapes: dict[str, Any], params: dict[str, Any]) -> PartialProblem:
        """Ask the standard convolution, and check the mask."""
        given = {n: tuple(v) if isinstance(v, list) else v for n, v in params.items()}
        arrays = (shapes["x"], shapes["weight"], shapes["bias"])
        try:
            output = STANDARD.output_shape(*arrays, **given)
        except (TypeError, ValueError) as error:  # the same rules, in our name
            message = str(error).replace(STANDARD.name, self.name, 1)
            raise type(error)(message) from None
        cost = STANDARD.cost(*arrays, **given)
        x, kernel = shapes["x"], shapes["weight"][2:]
        last = given["layout"] == "channels_last"
        axis = len(x) - 1 if last else len(x) - len(kernel) - 1
        wanted = (*x[:axis], 1, *x[axis + 1 :])
        mask = wanted if shapes["mask"] is None else shapes["mask"]  # None: not there yet
        if mask != wanted:
            checks.fail(self.name, "mask", f"have shape {wanted}", Verbatim(f"shape {mask}"))
        cost = Cost(cost.macs, cost.macs_valid, cost.parameters, cost.bytes_moved + 4 * prod(mask))
        return PartialProblem(
            output, given["algorithm"] if given["algorithm"] != "auto" else "direct",
            "the standard convolution of what is known", cost, params=tuple(given.items()),
            taps=prod(kernel), channel_axis=axis, kernel=kernel,
        )  # fmt: skip

    def expected(self, problem: Any, x_shape: tuple[int, ...]) -> dict[str, Any]:
        """Shapes that the calls of a plan will bring."""
        axis = problem.channel_axis
        return {"x": x_shape, "mask": (*x_shape[:axis], 1, *x_shape[axis + 1 :])}

    def known(self, problem: Any, mask: np.ndarray, convolve: Any) -> tuple[np.ndarray, np.ndarray]:
        """Where the mask is not 0, and by how much each result is scaled (0: nothing is known)."""
        dtype = np.result_type(mask, np.float32)
        where = (mask != 0).astype(dtype)
        ones = np.ones((1, 1, *problem.kernel), dtype)
        params = {**dict(problem.params), "groups": 1, "algorithm": "direct"}
        count = convolve(where, ones, **params)
        return where, np.divide(problem.taps, count, out=np.zeros_like(count), where=count > 0)

    def scaled(self, problem: Any, arrays: dict[str, Any], convolve: Any, params: Any) -> Any:
        """The result, in float32 at least."""
        where, scale = self.known(problem, arrays["mask"], convolve)
        x, weight = (wide(arrays[name]) for name in ("x", "weight"))
        y = convolve(x * where, weight, **params) * scale
        if arrays["bias"] is not None:
            trailing = y.ndim - 1 - problem.channel_axis
            bias = wide(arrays["bias"]).reshape(-1, *(1,) * trailing)
            y += bias * (scale > 0)
        return y

    def compute(
        self, problem: Any, arrays: dict[str, Any], out: np.ndarray, run: Any, prepared: Any = None
    ) -> int:
        """Fill the result. Its workspace are a few images, so that is not bounded here."""
        if not run.measure:
            params = {**dict(problem.params), "threads": run.threads}

            def convolve(*given: Any, **options: Any) -> np.ndarray:
                return STANDARD(*given, **{**options, "threads": run.threads})

            with np.errstate(over="ignore"):
                out[...] = self.scaled(problem, arrays, convolve, params)
        return 4 * (prod(problem.output_shape) + arrays["x"].size) * run.dtype.itemsize // 4

    def gradients(
        self, problem: Any, grad: np.ndarray, arrays: dict[str, Any], out: dict[str, Any], run: Any
    ) -> None:
        """Those of the standard convolution of what is known; the mask has none."""

        def convolve(*given: Any, **options: Any) -> np.ndarray:
            return STANDARD(*given, **{**options, "threads": run.threads})

        where, scale = self.known(problem, arrays["mask"], convolve)
        dy = wide(grad)
        x, weight = (wide(arrays[name]) for name in ("x", "weight"))
        needs = [name for name in ("x", "weight") if name in out]
        params = {**dict(problem.params), "threads": run.threads}
        made = STANDARD.backward(dy * scale, x * where, weight, needs=needs, **params)
        if "x" in out:
            made["x"] *= where
        if "bias" in out:
            axes = tuple(i for i in range(dy.ndim) if i != problem.channel_axis)
            known = dy * (scale > 0)
            made["bias"] = np.array(
                [known.take(c, problem.channel_axis).sum(dtype=np.float64)
                 for c in range(len(out["bias"]))] if axes else known
            )  # fmt: skip
        with np.errstate(over="ignore"):
            for name, array in out.items():
                array[...] = made[name]

    def define(self, problem: Any, arrays: dict[str, Any]) -> np.ndarray:
        """The same from the definition of the standard convolution."""
        dtype = np.result_type(*(a for a in arrays.values() if a is not None))
        result = self.scaled(problem, arrays, STANDARD.reference, dict(problem.params))
        return np.asarray(result).astype(dtype)

    def cases(self) -> Any:
        """Example calls."""
        yield _case("2-D", (2, 3, 7, 8), (4, 3, 3, 2), padding=1)
        yield _case("groups", (2, 4, 9, 6), (6, 2, 2, 3), groups=2, stride=2, padding="same")
        yield _case("1-D", (2, 3, 15), (4, 3, 5), dilation=2)
        yield _case("unbatched", (3, 5, 6), (2, 3, 2, 3))
        yield _case("channels last", (2, 6, 5, 4), (3, 4, 3, 3), layout="channels_last")


def wide(array: np.ndarray) -> np.ndarray:
    """An array in native byte order and in float32 at least."""
    return array.astype(np.result_type(array.dtype.newbyteorder("="), np.float32), copy=False)


def _case(name: str, x: Any, weight: Any, **params: Any) -> Case:
    axis = len(x) - 1 if "layout" in params else len(x) - len(weight) + 1
    mask = (*x[:axis], 1, *x[axis + 1 :])
    return Case(name, {"x": x, "mask": mask, "weight": weight, "bias": weight[:1]}, params)


OPERATOR = Partial()
