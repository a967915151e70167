"""``pyconv new-plugin``: what it writes works, and what it refuses leaves nothing behind."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv.cli import main


def new_plugin(capsys, *arguments):
    """Return the exit status, stdout and stderr."""
    status = main(["new-plugin", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("cython", [False, True])
def test_files_and_names(capsys, tmp_path, cython):
    options = ["--cython"] if cython else []
    status, out, err = new_plugin(capsys, "Our.Odd-conv2d", "-C", tmp_path, *options)
    assert (status, err) == (0, "")
    folder = tmp_path / "Our.Odd-conv2d"
    assert os.listdir(tmp_path) == [folder.name]
    compiled = ["setup.py", "src/our_odd_conv2d/_kernels.pyx"] if cython else []
    assert files(folder) == sorted(
        [
            "README.md",
            "asv_bench/asv.conf.json",
            "asv_bench/benchmarks/__init__.py",
            "asv_bench/benchmarks/bench_our_odd_conv2d.py",
            "pyproject.toml",
            "src/our_odd_conv2d/__init__.py",
            "tests/test_our_odd_conv2d.py",
            *compiled,
        ]
    )
    for name in files(folder):
        text = (folder / name).read_text()
        assert name in out
        assert "$" not in text, name
        if name.endswith(".py"):
            ast.parse(text)
            assert max(map(len, text.splitlines())) <= 100, name
        for named in re.findall(r"`([\w/]+\.\w+)`", text) if name == "README.md" else ():
            assert (folder / named).exists(), named
    project = (folder / "pyproject.toml").read_text()
    assert 'name = "Our.Odd-conv2d"' in project
    assert 'our_odd_conv2d = "our_odd_conv2d:OPERATOR"' in project
    assert "class OurOddConv2d(Standard)" in (folder / "src/our_odd_conv2d/__init__.py").read_text()
    assert json.loads((folder / "asv_bench/asv.conf.json").read_text())["repo"] == ".."
    assert f'pip install "{folder}[test]"' in out


def test_a_prefix_is_not_part_of_the_operator(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = new_plugin(capsys, "pyconv-mine")
    assert 'pip install "./pyconv-mine[test]"' in out  # a path, not a project on an index
    assert "pyconv check mine" in out
    new_plugin(capsys, "pyconv-other", "--operator", "odd_one")
    assert 'odd_one = "pyconv_other:OPERATOR"' in Path("pyconv-other/pyproject.toml").read_text()


BAD_NAMES = {
    "": "NAME must be that of a distribution",
    "a b": "NAME must be that of a distribution",
    "../up": "NAME must be that of a distribution",
    ".": "NAME must be that of a distribution",
    "-": "NAME must be that of a distribution",
    "mine-": "NAME must be that of a distribution",
    "größe": "NAME must be that of a distribution",
    "mine\n": "NAME must be that of a distribution",
    "3d-conv": "the module '3d_conv', which must be a Python identifier",
    "class": "the module 'class', which must be a Python identifier",
    "json": "the module 'json', which Python has already",
    "numpy": "the module 'numpy', which Python has already",
    "PyConv": "the module 'pyconv', which Python has already",
    "pyconv-3d": "the operator's name, '3d', must be a Python identifier",
    "pyconv-dilated": "there is an operator called 'dilated' already",
    "atrous": "there is an operator called 'atrous' already",
}


@pytest.mark.parametrize(("name", "text"), BAD_NAMES.items(), ids=map(repr, BAD_NAMES))
def test_bad_names(capsys, tmp_path, name, text):
    status, out, err = new_plugin(capsys, "-C", tmp_path, "--", name)
    assert (status, out) == (2, "")
    assert err.startswith("pyconv: error: new-plugin: ")
    assert text in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("operator", ["", "odd one", "a:b", "_", "lambda", "standard", "ä"])
def test_bad_operator_names(capsys, tmp_path, operator):
    status, _, err = new_plugin(capsys, "mine", "-C", tmp_path, "--operator", operator)
    assert (status, err.count("\n")) == (2, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_nothing_is_overwritten(capsys, tmp_path, kind):
    target = tmp_path / "mine"
    if kind == "directory":
        target.mkdir()
    elif kind == "file":
        target.write_text("precious")
    else:
        target.symlink_to("nowhere")
    status, out, err = new_plugin(capsys, "mine", "-C", tmp_path)
    assert (status, out) == (1, "")
    assert f"{target} exists already" in err
    assert os.listdir(tmp_path) == ["mine"]
    assert files(tmp_path) == (["mine"] if kind == "file" else [])


def test_nowhere_to_write(capsys, tmp_path):
    status, _, err = new_plugin(capsys, "mine", "-C", tmp_path / "missing")
    assert status == 1
    assert "missing: no such directory" in err


@pytest.mark.parametrize("failing", ["write_text", "rename"])
def test_an_error_leaves_nothing_behind(capsys, tmp_path, monkeypatch, failing):
    real = getattr(Path, failing)

    def fail(self, *args, **kwargs):
        if failing == "rename" or self.name == "asv.conf.json":
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, failing, fail)
    status, out, err = new_plugin(capsys, "mine", "-C", tmp_path)
    assert (status, out) == (1, "")
    assert "No space left on device" in err
    assert os.listdir(tmp_path) == []


def test_the_benchmarks_and_the_readme_run(capsys, tmp_path, pip_install):
    new_plugin(capsys, "pyconv-mine", "-C", tmp_path)
    folder = tmp_path / "pyconv-mine"
    pip_install(folder)
    source = (folder / "asv_bench/benchmarks/bench_mine.py").read_text()
    names = {"__name__": "bench"}
    exec(compile(source, "bench", "exec"), names)
    layer = names["Layer"]()
    layer.setup("small", "float32")
    timed = [name for name in dir(layer) if name.startswith("time_")]
    assert timed == ["time_backward", "time_call", "time_plan"]
    for name in timed:
        getattr(layer, name)("small", "float32")
    (block,) = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.M | re.S)
    exec(compile(block, "README", "exec"), {})


def test_compiled_plugin(capsys, tmp_path, pip_install):
    """The package passes its suite as it is; there is a page of the documents for the other one."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools", minversion="77")
    new_plugin(capsys, "pyconv-compiled-even", "--cython", "-C", tmp_path)
    folder = tmp_path / "pyconv-compiled-even"
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, "CFLAGS": "-O0"},  # it is compiled for one run
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    pip_install(folder)
    status = main(["check", "compiled_even"])
    assert status == 0, capsys.readouterr().out
    x, weight = np.ones((1, 1, 5)), np.array([[[1.0, 2.0, 4.0]]])
    np.testing.assert_array_equal(pyconv.get("compiled_even")(x, weight), [[[7.0] * 3]])
