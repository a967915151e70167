"""Everything that pyconv promises of an operator."""

import pytest

import pyconv
from pyconv.testing import OperatorSuite


class TestMirrored(OperatorSuite):
    @pytest.fixture
    def op(self):
        return pyconv.get("mirrored")
