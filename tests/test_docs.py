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
PAGES = [
    "docs/quickstart.rst",
    "docs/operators.rst",
    "docs/algorithms.rst",
    "docs/plugins.rst",
    "docs/kernels.rst",
]
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


@pytest.fixture
def mirrored():
    """The operator of the example plugin, registered."""
    path = ROOT / "docs/example_plugin/mirrored.py"
    spec = importlib.util.spec_from_file_location("mirrored", path)
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    yield pyconv.register(plugin.OPERATOR)
    pyconv.unregister("mirrored")


def test_the_readme_shows_the_example_plugin():
    code = (ROOT / "docs/example_plugin/mirrored.py").read_text()
    assert f"```python\n{code}```" in (ROOT / "README.md").read_text()


def test_the_example_plugin_does_what_it_says(mirrored):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 4, 3, 5))
    y = mirrored(x, weight, padding="same")
    np.testing.assert_allclose(mirrored(x[..., ::-1], weight, padding="same"), y[..., ::-1])


def test_the_example_plugin_passes_the_suite(mirrored):
    results = pyconv.testing.check_operator(mirrored)
    assert not [str(result) for result in results if result.status == "failed"]


def test_every_public_name_is_in_the_api_reference():
    listed = set(re.findall(r"^   ([\w.]+)$", (ROOT / "docs/api/index.rst").read_text(), re.M))
    assert set(pyconv.__all__) - {"__version__"} <= listed
    assert {f"testing.{name}" for name in pyconv.testing.__all__} - {
        "testing.CAPABILITIES"
    } <= listed


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
