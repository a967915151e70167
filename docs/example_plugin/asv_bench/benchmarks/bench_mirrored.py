"""Time the operator mirrored: a call, a plan and the gradients."""

import numpy as np

import pyconv

# Images and weights; add to them, do not edit them, or times cannot be compared.
LAYERS = {
    "large": ((1, 16, 112, 112), (32, 16, 3, 3)),
    "small": ((1, 64, 28, 28), (64, 64, 3, 3)),
}


class Layer:
    param_names = ["layer", "dtype"]
    params = [list(LAYERS), ["float32", "float64"]]

    def setup(self, layer, dtype):
        rng = np.random.default_rng(0)
        self.operator = pyconv.get("mirrored")
        self.x, self.weight = (rng.standard_normal(shape).astype(dtype) for shape in LAYERS[layer])
        self.plan = self.operator.plan(self.x.shape, self.weight, padding="same")
        self.y = self.operator(self.x, self.weight, padding="same")  # memory is there from now on

    def time_call(self, layer, dtype):
        self.operator(self.x, self.weight, padding="same", out=self.y)

    def time_plan(self, layer, dtype):
        self.plan(self.x, out=self.y)

    def time_backward(self, layer, dtype):
        self.operator.backward(self.y, self.x, self.weight, padding="same")
