"""Every built-in operator keeps the contract: the suite that plugins use, on each of them."""

import pytest

import pyconv
from pyconv.operators import builtin_names
from pyconv.testing import OperatorSuite


class TestBuiltins(OperatorSuite):
    @pytest.fixture(params=builtin_names())
    def op(self, request):
        return pyconv.get(request.param)
