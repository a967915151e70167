"""What the documents say is so: their examples run, and the names in them exist."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv.cli import main

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs/example_plugin"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGES = [
    f"docs/{page}.rst"
    for page in (
        "quickstart",
        "training",
        "operators",
        "algorithms",
        "plugins",
        "contract",
        "kernels",
    )
]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "pyconv/_kernels/README.md",
    "docs/command_line.rst",
    *PAGES,
]


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


@pytest.fixture
def mirrored(pip_install):
    """The operator of the example plugin."""
    pip_install(EXAMPLE)
    return pyconv.get("mirrored")


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages(page, request):
    if page == "docs/plugins.rst":
        request.getfixturevalue("mirrored")
    outcome = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=FLAGS)
    assert outcome.attempted
    assert outcome.failed == 0


def test_examples_of_the_readme():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_shows_the_example_plugin():
    code = (EXAMPLE / "src/pyconv_mirrored/__init__.py").read_text()
    points = re.search(
        r"^\[project\.entry-points.*\n.*\n", (EXAMPLE / "pyproject.toml").read_text(), re.M
    )
    readme = (ROOT / "README.md").read_text()
    assert f"```python\n{code}```" in readme
    assert f"```toml\n{points[0]}```" in readme


def test_the_example_plugin_is_what_new_plugin_writes(tmp_path, capsys):
    assert main(["new-plugin", "pyconv-mirrored", "-C", str(tmp_path)]) == 0
    written = tmp_path / "pyconv-mirrored"
    files = {p.relative_to(written): p.read_text() for p in written.rglob("*") if p.is_file()}
    assert len(files) == 7
    for name, text in files.items():
        assert (EXAMPLE / name).read_text() == text, name


def test_the_example_plugin_does_what_it_says(mirrored):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 4, 3, 5))
    y = mirrored(x, weight, padding="same")
    np.testing.assert_allclose(mirrored(x[..., ::-1], weight, padding="same"), y[..., ::-1])


# Commands, in the order of the page and in one directory


def commands(page):
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", text, re.M)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert all(line.startswith("$ ") for line in lines)
    return [shlex.split(line[2:]) for line in lines]


@pytest.mark.parametrize("page", ["docs/command_line.rst", "docs/plugins.rst"])
def test_commands_of_pages(page, tmp_path, monkeypatch, capsys, pip_install):
    picture = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    picture.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save("photo.png")
    for command, *arguments in commands(page):
        if command == "pip":
            assert arguments[:-1] == ["install", "-e"]
            pip_install(tmp_path / arguments[-1])
        else:
            assert command == "pyconv"
            assert main(arguments) == 0, arguments


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
