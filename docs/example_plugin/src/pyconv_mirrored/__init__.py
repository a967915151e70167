"""Convolution that treats left and right alike, as a pyconv plugin.

Every kernel is averaged with its mirror image along the last axis, so that mirroring the input
mirrors the result, whatever the weights: for photographs, say, where left and right mean nothing.
"""

import numpy as np

from pyconv.operators.standard import Standard


def even(weight):
    """The part of `weight` that its mirror image shares."""
    return (weight + weight[..., ::-1]) / 2


class Mirrored(Standard):
    name = "mirrored"
    aliases = ()
    summary = "Standard convolution with kernels averaged with their mirror images"
    url = ""

    def averaged(self, arrays, run):
        """The arrays that the standard convolution takes; `run.dtype` is at least float32."""
        return {**arrays, "weight": even(arrays["weight"].astype(run.dtype))}

    def prepare(self, problem, arrays, run):
        return super().prepare(problem, self.averaged(arrays, run), run)

    def compute(self, problem, arrays, out, run, prepared=None):
        return super().compute(problem, self.averaged(arrays, run), out, run, prepared)

    def gradients(self, problem, grad, arrays, out, run):
        wanted = dict(out)
        if "weight" in out:
            wanted["weight"] = np.empty(out["weight"].shape, run.dtype)
        super().gradients(problem, grad, self.averaged(arrays, run), wanted, run)
        if "weight" in out:
            out["weight"][...] = even(wanted["weight"])

    def define(self, problem, arrays):
        return super().define(problem, {**arrays, "weight": even(arrays["weight"])})


OPERATOR = Mirrored()
