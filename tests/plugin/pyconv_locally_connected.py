"""Locally connected layers as a pyconv plugin: an operator written with NumPy alone.

Every output position has kernels of its own. That is no convolution, so nothing of the compiled
kernels is of use but the sum for the bias: it shows what an operator has to do by itself.
"""

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from pyconv import checks, engine, geometry
from pyconv.checks import Verbatim
from pyconv.operator import Case, Cost, Operator, Problem


def locally_connected(
    x,
    weight,
    bias=None,
    *,
    stride=1,
    padding=0,
    layout="channels_first",
    algorithm="auto",
    max_workspace=None,
    threads=None,
    out=None,
):
    """Weigh the neighbourhood of every output position with kernels of its own.

    ``y[n, o, i] = bias[o] + sum over c, t of weight[o, c, t, i] * x[n, c, i*stride + t - before]``

    Parameters
    ----------
    x : array, shape (N, C, *S) or (C, *S)
        Images with 1 to 3 spatial axes.
    weight : array, shape (O, C, *k, *S_out)
        A kernel for each output channel, input channel and output position.
    bias : array, shape (O,), optional
        Added to each output channel.
    stride, padding
        As for `pyconv.conv`.
    layout : {"channels_first", "channels_last"}
        Axis order of `x` and of the result.
    algorithm : {"auto", "direct"}
        There is only one.
    max_workspace, threads, out
        As for `pyconv.conv`; it runs on one thread whatever `threads` says.

    Returns
    -------
    ndarray, shape (N, O, *S_out) or (O, *S_out)
    """
    return OPERATOR(
        x, weight, bias, stride=stride, padding=padding, layout=layout, algorithm=algorithm,
        max_workspace=max_workspace, threads=threads, out=out,
    )  # fmt: skip


@dataclass(frozen=True)
class LocalProblem(Problem):
    batched: bool = True
    channels_last: bool = False

    def view(self, image):
        """An image as (N, C, S0, S1, S2)."""
        return engine.canonical(image, batched=self.batched, channels_last=self.channels_last)


class LocallyConnected(Operator):
    name = "locally_connected"
    aliases = ("unshared",)
    summary = "Every output position has kernels of its own"
    url = "https://doi.org/10.1109/CVPR.2014.220"
    function = staticmethod(locally_connected)

    def problem(self, shapes, params):
        name, x, weight = self.name, shapes["x"], shapes["weight"]
        if len(weight) not in (4, 6, 8):
            rule = "be (O, C, *k, *S_out) with 1, 2 or 3 spatial axes"
            checks.fail(name, "weight", rule, Verbatim(f"shape {weight}"))
        rank = len(weight) // 2 - 1
        layout = checks.choice(
            name, "layout", params["layout"], ("channels_first", "channels_last")
        )
        if len(x) not in (rank + 1, rank + 2):
            rule = f"have {rank} spatial axes, as weight has, a channel axis and maybe a batch"
            checks.fail(name, "x", rule, Verbatim(f"shape {x}"))
        batched, last = len(x) == rank + 2, layout == "channels_last"
        n = x[0] if batched else 1
        inner = x[1:] if batched else x
        channels, spatial = (inner[-1], inner[:-1]) if last else (inner[0], inner[1:])
        outputs, kernel = weight[0], weight[2 : 2 + rank]
        axes = geometry.conv_axes(
            name, spatial, kernel,
            checks.integers(name, "stride", params["stride"], rank, minimum=1),
            checks.padding(name, params["padding"], rank), (1,) * rank,
        )  # fmt: skip
        extent = tuple(axis.out for axis in axes)
        if weight[1:] != (channels, *kernel, *extent):
            rule = f"have shape (O, {channels}, *k, {', '.join(map(str, extent))})"
            checks.fail(name, "weight", rule, Verbatim(f"shape {weight}"))
        if shapes["bias"] not in (None, (outputs,)):
            got = Verbatim(f"shape {shapes['bias']}")
            checks.fail(name, "bias", f"have shape ({outputs},)", got)
        checks.choice(name, "algorithm", params["algorithm"], self.algorithms)

        result = (*extent, outputs) if last else (outputs, *extent)
        result = (n, *result) if batched else result
        arrays = (x, weight, shapes["bias"], result)
        cost = Cost(
            macs=n * prod(weight),
            macs_valid=n * outputs * channels * prod(geometry.valid_taps(a) for a in axes),
            parameters=prod(weight) + prod(shapes["bias"] or (0,)),
            bytes_moved=4 * sum(prod(shape) for shape in arrays if shape is not None),
        )
        return LocalProblem(
            result, "direct", "there is no other", cost, axes, batched=batched, channels_last=last
        )

    def compute(self, problem, arrays, out, run, prepared=None):
        x, y, bias = problem.view(arrays["x"]), problem.view(out), arrays["bias"]
        weight, axes = _kernels(arrays["weight"]), engine.three(problem.axes)
        used = 0
        for samples, *region in _boxes(run, (len(x), *y.shape[2:])):
            batch, place = slice(*samples), tuple(slice(*side) for side in region)
            total, term = _buffers(run, (samples, *region))
            used = max(used, total.nbytes + term.nbytes)
            for o in range(0 if run.measure else y.shape[1]):
                total[...] = 0 if bias is None else bias[o]
                for c, t in product(range(x.shape[1]), np.ndindex(*weight.shape[2:5])):
                    at, source = _meeting(axes, t, outputs=region)
                    here = (..., *_less(at, region))
                    _multiply(weight[(o, c, *t, *at)], x[(batch, c, *source)], term[here])
                    total[here] += term[here]
                y[(batch, o, *place)] = total
            del total, term  # before the next ones are made
        return used

    def gradients(self, problem, grad, arrays, out, run):
        dy = problem.view(grad)
        if "x" in out:
            self._x_gradient(problem, dy, _kernels(arrays["weight"]), problem.view(out["x"]), run)
        if "weight" in out:
            self._weight_gradient(
                problem, dy, problem.view(arrays["x"]), _kernels(out["weight"]), run
            )
        if "bias" in out:
            engine.bias_gradient(run, dy, out["bias"])

    def _x_gradient(self, problem, dy, weight, dx, run):
        axes = engine.three(problem.axes)
        for samples, *region in _boxes(run, (len(dx), *dx.shape[2:])):
            batch, place = slice(*samples), tuple(slice(*side) for side in region)
            total, term = _buffers(run, (samples, *region))
            for c in range(dx.shape[1]):
                total[...] = 0
                for o, t in product(range(dy.shape[1]), np.ndindex(*weight.shape[2:5])):
                    at, source = _meeting(axes, t, inputs=region)
                    here = (..., *_less(source, region))
                    _multiply(weight[(o, c, *t, *at)], dy[(batch, o, *at)], term[here])
                    total[here] += term[here]
                dx[(batch, c, *place)] = total
            del total, term

    def _weight_gradient(self, problem, dy, x, dw, run):
        axes = engine.three(problem.axes)
        # Each term holds every sample: their sum is one reduction of a contiguous array.
        for region in _boxes(run, dy.shape[2:], at_least=len(x)):
            term = np.empty((len(x), *(hi - lo for lo, hi in region)), run.dtype)
            for o, c, t in product(*map(range, dw.shape[:2]), np.ndindex(*dw.shape[2:5])):
                at, source = _meeting(axes, t, outputs=region)
                here = (slice(None), *_less(at, region))
                term[...] = 0  # where the tap sees nothing but padding
                _multiply(dy[(slice(None), o, *at)], x[(slice(None), c, *source)], term[here])
                dw[(o, c, *t, *map(slice, *zip(*region, strict=True)))] = term.sum(axis=0)
            del term

    def define(self, problem, arrays):
        x = problem.view(arrays["x"])
        weight, axes = _kernels(arrays["weight"]), engine.three(problem.axes)
        widths = [(max(a.before, 0), max(a.after, 0)) for a in axes]
        padded = np.pad(x, [(0, 0), (0, 0), *widths])
        dtype = np.result_type(*(a for a in arrays.values() if a is not None))
        y = np.zeros((len(x), len(weight), *(a.out for a in axes)), dtype)
        for o, c, t in product(*map(range, weight.shape[:2]), np.ndindex(*weight.shape[2:5])):
            first = [step + max(-a.before, 0) for step, a in zip(t, axes, strict=True)]
            window = tuple(
                slice(f, f + (a.out - 1) * a.stride + 1, a.stride)
                for f, a in zip(first, axes, strict=True)
            )
            y[:, o] += weight[(o, c, *t)] * padded[(slice(None), c, *window)]
        if arrays["bias"] is not None:
            y += arrays["bias"].reshape(-1, 1, 1, 1)
        result = np.empty(problem.output_shape, dtype)
        problem.view(result)[...] = y
        return result

    def cases(self):
        yield _case("2-D", (2, 3, 6, 5), 2, (3, 2), (4, 4))
        yield _case("1-D padded", (3, 2, 9), 4, (3,), (5,), stride=2, padding=1)
        yield _case("3-D cropped", (1, 2, 4, 3, 5), 3, (2, 1, 3), (2, 5, 2),
                    padding=((-1, 0), (1, 1), (0, -1)))  # fmt: skip
        yield _case("channels last", (2, 5, 7, 3), 2, (2, 3), (4, 3), stride=(1, 2),
                    layout="channels_last")  # fmt: skip


def _case(name, x, outputs, kernel, out, **params):
    channels = x[-1] if "layout" in params else x[1]
    shapes = {"x": x, "weight": (outputs, channels, *kernel, *out), "bias": (outputs,)}
    return Case(name, shapes, params)


def _kernels(weight):
    """Weights as (O, C, k0, k1, k2, S0, S1, S2)."""
    rank = weight.ndim // 2 - 1
    ones = (np.newaxis,) * (3 - rank)
    kept = (slice(None),) * rank
    return weight[(slice(None), slice(None), *ones, *kept, *ones, *kept)]


def _meeting(axes, taps, outputs=None, inputs=None):
    """Where tap `taps` of those outputs meets those inputs: slices of outputs, and of inputs."""
    at, source = [], []
    for i, (axis, t) in enumerate(zip(axes, taps, strict=True)):
        lo, hi = (0, axis.out) if outputs is None else outputs[i]
        first, last = (0, axis.size) if inputs is None else inputs[i]
        lo = max(lo, -((t - axis.before - first) // axis.stride))
        hi = max(lo, min(hi, (last - 1 + axis.before - t) // axis.stride + 1))
        start = lo * axis.stride + t - axis.before
        stop = start + (hi - lo - 1) * axis.stride + 1 if hi > lo else start
        at.append(slice(lo, hi))
        source.append(slice(start, stop, axis.stride) if hi > lo else slice(0, 0))
    return at, source


def _less(slices, region):
    """The slices relative to the start of a region."""
    return [
        slice(s.start - lo, s.stop - lo, s.step) if s.stop > s.start else slice(0, 0)
        for s, (lo, _) in zip(slices, region, strict=True)
    ]


def _boxes(run, extent, at_least=1):
    """Split the extent into boxes for which the buffers fit the workspace."""
    each = 2 * run.dtype.itemsize * at_least
    if each > run.budget:
        rule = f"be at least {each}, what the sum for one element takes"
        checks.fail(run.operator, "max_workspace", rule, run.budget)
    return engine.boxes(extent, lambda box: each * prod(b - a for a, b in box) <= run.budget)


def _buffers(run, box):
    return np.empty((2, *(hi - lo for lo, hi in box)), run.dtype)


def _multiply(a, b, out):
    """Multiply in the dtype of `out`; 16-bit factors widen without loss."""
    with np.errstate(all="ignore"):
        np.multiply(a, b, out=out, dtype=out.dtype)


OPERATOR = LocallyConnected()
