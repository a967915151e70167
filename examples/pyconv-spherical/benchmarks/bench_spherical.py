"""Time of spherical convolution, next to the built-in deformable one and to NumPy.

``python benchmarks/bench_spherical.py`` prints GFLOP/s; asv runs the class.
"""

import time

import numpy as np
from pyconv_spherical import coordinates

import pyconv

# Channels, rows and columns of the image, channels of the result; 3x3, float32.
LAYERS = {
    "64x64x128": (64, 64, 128, 64),
    "128x32x64": (128, 32, 64, 128),
    "32x128x256": (32, 128, 256, 32),
}


def with_numpy(x, points, weight):
    """The same by NumPy: gather all samples, then one matrix product."""
    height, width = x.shape[2:]
    rows, columns = points[:, :, 0], points[:, :, 1]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top).astype(x.dtype), (columns - left).astype(x.dtype)
    bottom = np.minimum(top + 1, height - 1)
    left, beside = left % width, (left + 1) % width
    samples = (
        x[0][:, top, left] * ((1 - down) * (1 - right))
        + x[0][:, top, beside] * ((1 - down) * right)
        + x[0][:, bottom, left] * (down * (1 - right))
        + x[0][:, bottom, beside] * (down * right)
    )
    matrix = weight.reshape(len(weight), -1)
    flat = samples.reshape(matrix.shape[1], -1)
    return (matrix @ flat).reshape(1, len(weight), *points.shape[3:])


class Spherical:
    """Forward and backward on layers for 360-degree images, one thread."""

    params = (["spherical", "deformable", "numpy"], ["64x64x128", "128x32x64", "32x128x256"])
    param_names = ("what", "layer")

    def setup(self, what, layer):
        channels, height, width, outputs = LAYERS[layer]
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1, channels, height, width), dtype=np.float32)
        weight = rng.standard_normal((outputs, channels, 3, 3), dtype=np.float32)
        out = np.empty((1, outputs, height, width), np.float32)
        self.macs = weight.size * height * width
        if what == "numpy":
            points = coordinates((height, width), (3, 3))
            self.call = lambda: with_numpy(x, points, weight)
            return
        operator, given, params = pyconv.get(what), [x], {"threads": 1}
        if what == "deformable":
            params["padding"] = 1
            given.append(rng.standard_normal((1, 18, height, width), dtype=np.float32))
        plan = operator.plan(x.shape, weight, **params)
        self.call = lambda: plan(*given, out=out)
        self.back = lambda: operator.backward(out, *given, weight, **params)
        self.call()

    def time_forward(self, what, layer):
        self.call()

    def time_backward(self, what, layer):
        if what == "numpy":
            raise NotImplementedError
        self.back()


def main():
    """Print GFLOP/s: medians of interleaved runs."""
    whats, layers = Spherical.params
    print(f"{'layer':12}" + "".join(f"{what:>12}" for what in whats) + "   to deformable, to numpy")
    for layer in layers:
        made = {}
        for what in whats:
            made[what] = Spherical()
            made[what].setup(what, layer)
        took = {what: [] for what in whats}
        for _ in range(15):
            for what in whats:
                start = time.perf_counter()
                made[what].call()
                took[what].append(time.perf_counter() - start)
        median = {what: np.median(took[what]) for what in whats}
        ratio = [
            np.median(np.divide(took[other], took["spherical"]))
            for other in whats
            if other != "spherical"
        ]
        row = "".join(f"{2e-9 * made[what].macs / median[what]:12.1f}" for what in whats)
        print(f"{layer:12}{row}   " + ", ".join(f"{r:.2f}" for r in ratio))


if __name__ == "__main__":
    main()
