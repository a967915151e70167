"""What importing pyconv costs, and what the package's namespace holds."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pyconv
from pyconv import _threads, config

PACKAGE_PARENT = str(Path(pyconv.__file__).parents[1])


def run_python(code, *path, **environment):
    python_path = os.pathsep.join([PACKAGE_PARENT, *map(str, path)])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": python_path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_import_loads_nothing_else():
    code = """
    import __future__, importlib, sys, typing
    before = set(sys.modules)
    import pyconv
    print(*set(sys.modules) - before)
    """
    assert run_python(code) == ["pyconv"]


def test_import_and_built_ins_read_no_metadata(tmp_path):
    (tmp_path / "a_plugin.py").write_text("raise SystemExit('imported')")
    info = tmp_path / "a_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pyconv.operators]\na_plugin = a_plugin:OP\n")
    for name in ("ours", "theirs"):
        (tmp_path / f"{name}.py").write_text("OPERATOR = object()")
    code = """
    import importlib.metadata, os, sys

    def fail(*args, **kwargs):
        raise AssertionError("metadata was read")

    importlib.metadata.entry_points = importlib.metadata.distributions = fail
    import pyconv

    pyconv.set_num_threads(1)
    pyconv.operators.__path__ = [os.environ["BUILT_INS"]]
    assert pyconv.get("ours") is sys.modules["pyconv.operators.ours"].OPERATOR
    print("a_plugin" in sys.modules, "pyconv.operators.theirs" in sys.modules)
    """
    assert run_python(code, tmp_path, BUILT_INS=str(tmp_path)) == ["False", "False"]


def test_namespace_is_complete():
    assert set(dir(pyconv)) >= {*pyconv.__all__, *pyconv._MODULES, "__doc__"}
    assert set(pyconv._HOME_OF) | {"__version__"} == set(pyconv.__all__)
    assert len(set(pyconv.__all__)) == len(pyconv.__all__)
    for name in (*pyconv.__all__, *pyconv._MODULES):
        assert getattr(pyconv, name) is not None


def test_no_name_is_shadowed_by_a_module():
    for name in pyconv.__all__:
        if name != "__version__":
            assert importlib.util.find_spec(f"pyconv.{name}") is None, name


def test_modules_are_reachable():
    code = """
    import pyconv
    print(pyconv.registry.__name__, pyconv.errors.__name__, pyconv.threads.__name__)
    import pyconv._threads
    print(pyconv.threads is pyconv._threads.threads)
    """
    assert run_python(code) == ["pyconv.registry", "pyconv.errors", "threads", "True"]


def test_names_are_cached_and_unknown_ones_refused():
    assert pyconv.get is pyconv.get is pyconv.registry.get
    assert "get" in vars(pyconv)
    with pytest.raises(AttributeError, match="module 'pyconv' has no attribute 'convolve'"):
        _ = pyconv.convolve
    assert not hasattr(pyconv, "_nothing")


def test_version(monkeypatch):
    def version(name):
        assert name == "pyconv-ops"
        raise importlib.metadata.PackageNotFoundError(name)

    assert pyconv.__version__ == config.version()
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert config.version() == "0+unknown"


# show_config


class Kernels:
    @staticmethod
    def config():
        return {
            "compiler": "gcc 12.2.0",
            "openmp": 201511,
            "built": ("base", "avx2", "avx512"),
            "supported": ("base", "avx2"),
            "picked": "avx2",
            "disabled": (),
        }


@pytest.fixture
def described(monkeypatch):
    monkeypatch.setattr("pyconv._kernels._cpu", Kernels, raising=False)
    monkeypatch.setitem(sys.modules, "pyconv._kernels._cpu", Kernels)
    monkeypatch.setattr(config, "version", lambda: "1.2")
    monkeypatch.setattr(config.platform, "platform", lambda: "Linux")
    monkeypatch.setattr(config.platform, "python_version", lambda: "3.12.1")
    monkeypatch.setattr(config.platform, "python_implementation", lambda: "CPython")
    monkeypatch.setattr("numpy.__version__", "2.1.0")


def test_show_config_dicts(described):
    with pyconv.threads(3):
        found = pyconv.show_config("dicts")
    assert found == {
        "pyconv": "1.2",
        "python": "CPython 3.12.1",
        "numpy": "2.1.0",
        "platform": "Linux",
        "kernels": {
            "compiler": "gcc 12.2.0",
            "openmp": "4.5",
            "built": ["base", "avx2", "avx512"],
            "supported": ["base", "avx2"],
            "disabled": [],
            "picked": "avx2",
        },
        "threads": {"count": 3, "source": "threads()"},
    }


def test_show_config_prints(described, capsys):
    with pyconv.threads(3):
        assert pyconv.show_config() is None
    assert capsys.readouterr().out == textwrap.dedent(
        """\
        pyconv:       1.2
        python:       CPython 3.12.1
        numpy:        2.1.0
        platform:     Linux
        kernels:
          compiler:   gcc 12.2.0
          openmp:     4.5
          built:      base, avx2, avx512
          supported:  base, avx2
          disabled:   none
          picked:     avx2
        threads:
          count:      3
          source:     threads()
        """
    )


@pytest.mark.parametrize(("macro", "version"), [(0, None), (202111, "5.2"), (209901, "209901")])
def test_openmp_versions(described, monkeypatch, macro, version):
    found = {**Kernels.config(), "openmp": macro}
    monkeypatch.setattr(Kernels, "config", lambda: found)
    assert pyconv.show_config("dicts")["kernels"]["openmp"] == version


def test_show_config_survives_what_it_is_asked_about(described, monkeypatch):
    def config():
        raise ValueError("PYCONV_DISABLE_CPU: unknown name 'avx3'")

    monkeypatch.setattr(Kernels, "config", config)
    monkeypatch.setattr(_threads, "_process", None)
    monkeypatch.setenv("PYCONV_NUM_THREADS", "many")
    found = pyconv.show_config("dicts")
    assert found["kernels"] == {"error": "ValueError: PYCONV_DISABLE_CPU: unknown name 'avx3'"}
    assert "PYCONV_NUM_THREADS must be a positive integer" in found["threads"]["error"]


def test_show_config_refuses_other_modes():
    with pytest.raises(ValueError, match=r"^show_config: mode must be one of .*; got 'json'"):
        pyconv.show_config("json")
    with pytest.raises(TypeError, match=r"^show_config: mode must be one of"):
        pyconv.show_config(3)
