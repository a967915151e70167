"""Use an installed pyconv the way its first user would; NumPy is all there is besides."""

from __future__ import annotations

from importlib import metadata

import numpy as np

import pyconv
from pyconv.testing import check_operator

needed = {"pyconv-ops", "numpy"}
present = {d.metadata["Name"] for d in metadata.distributions()} - {"pip", "setuptools", "wheel"}
assert present == needed, f"expected {needed} in this environment, found {present}"

x = np.arange(25.0).reshape(1, 5, 5)
laplace = np.array([[[[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]]])
expected = np.zeros((1, 3, 3))
np.testing.assert_array_equal(pyconv.conv(x, laplace), expected)
np.testing.assert_array_equal(pyconv.get("dilated")(x, laplace, dilation=2), np.zeros((1, 1, 1)))

infos = pyconv.available()
assert len(infos) == 10, infos
for name in infos:
    checks = ["output_shape", "values", "adjoint"]
    results = check_operator(name, checks=checks)
    assert [result.status for result in results] == ["passed"] * len(checks), results
    print(f"{name}: {', '.join(map(str, results))}")
pyconv.show_config()
