"""What the documents say is so: their examples run, and the names in them exist."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import pyconv

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGES = ["docs/quickstart.rst", "docs/operators.rst", "docs/plugins.rst"]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "pyconv/_kernels/README.md", *PAGES]


def modules():
    yield "pyconv"
    for module in pkgutil.walk_packages(pyconv.__path__, "pyconv."):
        if not module.name.endswith("__main__"):
            yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples_of_docstrings(name):
    module = importlib.import_module(name)
    outcome = doctest.testmod(module, optionflags=FLAGS)
    assert outcome.failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages(page):
    outcome = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=FLAGS)
    assert outcome.attempted
    assert outcome.failed == 0


def test_examples_of_the_readme():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_example_plugin():
    path = ROOT / "docs/example_plugin/central_difference.py"
    assert f"```python\n{path.read_text()}```" in (ROOT / "README.md").read_text()
    spec = importlib.util.spec_from_file_location("central_difference", path)
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)

    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 2, 3, 5))
    params = {"padding": 1, "groups": 2}
    y = plugin.OPERATOR(x, weight, **params)
    by_hand = pyconv.conv(x, weight, **params)
    # A kernel of one tap, at the place of the centre: 1 and 2 elements in, less the padding of 1.
    sums = weight.sum(axis=(2, 3), keepdims=True)
    by_hand -= plugin.SHARE * pyconv.conv(x, sums, groups=2, padding=[(0, 0), (-1, -1)])
    np.testing.assert_allclose(y, by_hand, atol=1e-12)
    np.testing.assert_allclose(y, plugin.OPERATOR.reference(x, weight, **params), atol=1e-12)
    np.testing.assert_array_equal(y, plugin.OPERATOR.plan(x.shape, weight, **params)(x))

    # The result is linear in the weight, so this identity is the whole of its gradient.
    direction = rng.standard_normal(weight.shape)
    grad = rng.standard_normal(y.shape)
    ours = plugin.OPERATOR.backward(grad, x, weight, needs="weight", **params)["weight"]
    change = plugin.OPERATOR(x, direction, **params)
    np.testing.assert_allclose(np.vdot(ours, direction), np.vdot(grad, change))


def test_every_public_name_is_in_the_api_reference():
    listed = set(re.findall(r"^   ([\w.]+)$", (ROOT / "docs/api/index.rst").read_text(), re.M))
    assert set(pyconv.__all__) - {"__version__"} <= listed


@pytest.mark.parametrize("name", sorted(set(pyconv.__all__) - {"__version__"}))
def test_every_public_name_has_a_docstring(name):
    assert inspect.getdoc(getattr(pyconv, name))


def test_the_readme_lists_every_operator():
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(pyconv.operators.builtin_names())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_documents_name_exist(document):
    text = (ROOT / document).read_text()
    named = re.findall(
        r"`((?:pyconv|tests|docs|asv_bench|\.ci)/[\w/.-]*|[\w-]+\.(?:toml|py|md|in))`", text
    )
    missing = [
        name
        for name in named
        if not (ROOT / name).exists() and not ((ROOT / document).parent / name).exists()
    ]
    assert not missing
