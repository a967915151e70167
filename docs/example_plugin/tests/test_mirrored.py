"""Everything that pyconv promises of an operator, and what only this one promises."""

import numpy as np
import pytest

import pyconv
from pyconv.testing import OperatorSuite


class TestMirrored(OperatorSuite):
    @pytest.fixture
    def op(self):
        return pyconv.get("mirrored")


def test_mirrored_images_have_mirrored_results():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 4, 3, 5))
    op = pyconv.get("mirrored")
    y = op(x, weight, padding="same")
    np.testing.assert_allclose(op(x[..., ::-1], weight, padding="same"), y[..., ::-1])
