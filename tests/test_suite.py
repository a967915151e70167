"""Operators keep the contract: the built-in ones, and those of a package with entry points."""

from pathlib import Path

import pytest

import pyconv
from pyconv.operators import builtin_names
from pyconv.testing import OperatorSuite

PLUGIN = Path(__file__).parent / "plugin"


class TestBuiltins(OperatorSuite):
    @pytest.fixture(params=builtin_names())
    def op(self, request):
        return pyconv.get(request.param)


@pytest.fixture(scope="module")
def plugin():
    """The distribution in tests/plugin/, as if pip had installed it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        pyconv.refresh()
        yield "locally_connected"
    pyconv.refresh()


class TestPlugin(OperatorSuite):
    @pytest.fixture
    def op(self, plugin):
        return pyconv.get(plugin)


def test_the_plugin_is_found_by_its_entry_points(plugin):
    info = pyconv.available()[plugin]
    assert (info.distribution, info.version) == ("pyconv-locally-connected", "1.0")
    assert (info.status, info.aliases) == ("ok", ("unshared",))
    assert pyconv.get("unshared") is pyconv.get(f"pyconv-locally-connected:{plugin}")
