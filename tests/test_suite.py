"""Every built-in operator passes the suite that plugins are checked with."""

import pytest

import pyconv
from pyconv.operators import builtin_names
from pyconv.testing import OperatorSuite


class TestBuiltins(OperatorSuite):
    @pytest.fixture(params=builtin_names())
    def op(self, request):
        return pyconv.get(request.param)
