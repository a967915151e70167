"""Central difference convolution (Z. Yu and others, arXiv:2003.04092) as a pyconv plugin.

Besides the inputs it weighs their differences to the one in the centre. That is a standard
convolution whose centre weights are smaller by a share of the sum of all taps.
"""

from pyconv.operators.standard import Standard

SHARE = 0.7


def centre(weight):
    """Index of the centre tap of every kernel."""
    return (slice(None), slice(None), *(k // 2 for k in weight.shape[2:]))


def differenced(arrays):
    """The same arrays with the weight that a standard convolution needs."""
    weight = arrays["weight"].copy()
    taps = tuple(range(2, weight.ndim))
    weight[centre(weight)] -= SHARE * arrays["weight"].sum(axis=taps)
    return {**arrays, "weight": weight}


class CentralDifference(Standard):
    name = "central_difference"
    aliases = ("cdc",)
    summary = "Weighs inputs and their differences to the one in the centre"
    url = "https://arxiv.org/abs/2003.04092"

    def prepare(self, problem, arrays, run):
        return super().prepare(problem, differenced(arrays), run)

    def compute(self, problem, arrays, out, run, prepared=None):
        return super().compute(problem, differenced(arrays), out, run, prepared)

    def gradients(self, problem, grad, arrays, out, run):
        super().gradients(problem, grad, differenced(arrays), out, run)
        if "weight" in out:  # the adjoint of `differenced`
            weight = out["weight"]
            column = (*weight.shape[:2], *(1 for _ in weight.shape[2:]))
            weight -= SHARE * weight[centre(weight)].reshape(column)

    def define(self, problem, arrays):
        return super().define(problem, differenced(arrays))


OPERATOR = CentralDifference()
