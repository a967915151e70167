"""Time of partial convolution, next to the standard convolution that it is made of."""

import numpy as np

import pyconv


class Partial:
    """Layers of the U-Net of Liu et al., one thread, float32."""

    params = (["standard", "partial"], ["unet_3x3_64", "unet_5x5s2_128"])
    param_names = ("operator", "layer")

    layers = {
        "unet_3x3_64": ((1, 64, 64, 64), (64, 64, 3, 3), {"padding": 1}),
        "unet_5x5s2_128": ((1, 64, 128, 128), (128, 64, 5, 5), {"padding": 2, "stride": 2}),
    }

    def setup(self, operator, layer):
        shape, weight, params = self.layers[layer]
        rng = np.random.default_rng(0)
        self.op = pyconv.get(operator)
        arrays = {
            "x": rng.standard_normal(shape, dtype=np.float32),
            "mask": (rng.random((shape[0], 1, *shape[2:])) < 0.7).astype(np.float32),
            "weight": rng.standard_normal(weight, dtype=np.float32),
        }
        self.arrays = [arrays[name] for name in self.op.array_names if name in arrays]
        self.params_ = {**params, "threads": 1}
        self.result = self.op(*self.arrays, **self.params_)

    def time_forward(self, operator, layer):
        self.op(*self.arrays, **self.params_)

    def time_backward(self, operator, layer):
        self.op.backward(self.result, *self.arrays, **self.params_)
