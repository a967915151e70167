"""Plugins that do not do as they should, many of them, and the ways in which they are installed."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv.operators.standard import Standard

PACKAGE_PARENT = str(Path(pyconv.__file__).parents[1])


class Ours(Standard):
    name = "ours"
    aliases = ()


ARRAYS = np.ones((2, 3, 5)), np.ones((4, 3, 2))


def blamed(what):
    """The exception that blames the operator."""
    return pytest.raises(
        pyconv.PluginError, match=rf"^the operator 'ours' is not as it should be: {what}"
    )


# What an operator's own methods return


@pytest.mark.parametrize("stride", [1, [1]], ids=["remembered", "not"])
def test_problem_returns_something_else(stride):
    class Garbage(Ours):
        def problem(self, shapes, params):
            return super().problem(shapes, params).output_shape

    op = Garbage()
    for use, *arguments in (
        (op, *ARRAYS),
        (op.reference, *ARRAYS),
        (op.backward, np.ones((2, 4, 4)), *ARRAYS),
        (op.plan, (2, 3, 5), ARRAYS[1]),
        (op.output_shape, (2, 3, 5), (4, 3, 2)),
    ):
        with blamed(r"problem must return a pyconv\.operator\.Problem; got \(2, 4, 4\)"):
            use(*arguments, stride=stride)


@pytest.mark.parametrize("shape", [None, [2, 4, 4], (2, 4.0, 4), (2, -1, 4), (np.int64(2), 4, 4)])
def test_a_problem_has_no_shape(shape):
    class Garbage(Ours):
        def problem(self, shapes, params):
            return replace(super().problem(shapes, params), output_shape=shape)

    with blamed("a Problem's output_shape must be a tuple of int; got "):
        Garbage()(*ARRAYS)


def returns(result):
    class Garbage(Ours):
        def define(self, problem, arrays):
            return result(super().define(problem, arrays))

    return Garbage().reference


def test_define_returns_something_else():
    shape = r"define must return an array of shape \(2, 4, 4\); got "
    with blamed(shape + "None"):
        returns(lambda y: None)(*ARRAYS)
    with blamed(shape + r"\[\[\[6\.0, 6"):
        returns(lambda y: y.tolist())(*ARRAYS)
    with blamed(shape + r"array of shape \(2, 4, 3\)"):
        returns(lambda y: y[..., 1:])(*ARRAYS)
    with blamed("define must keep the dtype float64; got array of .* dtype float32"):
        returns(np.float32)(*ARRAYS)
    assert returns(np.float32)(*(a.astype(int) for a in ARRAYS)).dtype == np.float32


def test_gradients_are_not_written_but_replaced():
    class Garbage(Ours):
        def gradients(self, problem, grad, arrays, out, run):
            super().gradients(problem, grad, arrays, out, run)
            if "weight" in out:
                out["weight"] = out["weight"].tolist()

    grad = np.ones((2, 4, 4))
    with blamed("gradients must fill the arrays in out; it replaced that of weight"):
        Garbage().backward(grad, *ARRAYS)
    assert list(Garbage().backward(grad, *ARRAYS, needs="x")) == ["x"]


@pytest.mark.parametrize("used", [None, 2.5, -1, True, "0"])
def test_compute_returns_no_workspace(used):
    class Garbage(Ours):
        def compute(self, problem, arrays, out, run, prepared=None):
            super().compute(problem, arrays, out, run, prepared)
            return used

    with blamed("compute must return the bytes of workspace; got "):
        Garbage().plan((2, 3, 5), ARRAYS[1])


def test_an_error_of_an_operator_is_the_caller_s_to_see():
    class Fails(Ours):
        def compute(self, problem, arrays, out, run, prepared=None):
            raise ZeroDivisionError("in a plugin")

    fails = pyconv.register(Fails())
    try:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match=r"^in a plugin$"):
                fails(*ARRAYS)
        assert pyconv.get("ours") is fails
        assert pyconv.get("standard")(*ARRAYS).shape == (2, 4, 4)
    finally:
        pyconv.unregister("ours")


# Ways in which plugins are installed

PLUGIN = """
from pyconv.operators.standard import Standard

class {title}(Standard):
    name = "{name}"
    aliases = ()

OPERATOR = {title}()
"""


def write_info(folder, distribution, *names, module=None):
    """Write the metadata that pip leaves of a distribution."""
    module = module or distribution.replace("-", "_")
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    (info / "METADATA").write_text(text)
    points = "".join(f"{name} = {module}:OPERATOR\n" for name in names)
    (info / "entry_points.txt").write_text(f"[pyconv.operators]\n{points}")


def write_module(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    source = PLUGIN.format(title=name.title(), name=name.partition("_")[2] or name)
    (folder / f"{name}.py").write_text(source)


def run_python(code, *path):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGE_PARENT, *map(str, path)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_two_hundred_plugins(tmp_path):
    """They cost an import nothing, and `get` loads the one that is asked for."""
    for i in range(200):
        write_info(tmp_path, f"many-{i}", f"many{i}", module=f"many_{i}_module")
        (tmp_path / f"many_{i}_module.py").write_text("raise ImportError('not this one')")
    (tmp_path / "many_150_module.py").unlink()
    write_module(tmp_path, "many_150_module")
    path = tmp_path / "many_150_module.py"
    path.write_text(path.read_text().replace('"150_module"', '"many150"'))
    code = """
    import importlib.metadata, sys
    real = importlib.metadata.entry_points
    def fail(**kwargs):
        raise AssertionError("metadata was read")
    importlib.metadata.entry_points = fail
    import pyconv
    pyconv.get("standard")
    importlib.metadata.entry_points = real
    print(pyconv.get("many150").name, *(m for m in sys.modules if m.startswith("many_")))
    infos = pyconv.available()
    print(len(infos), sum(info.status == "broken" for info in infos.values()))
    """
    builtins = len(pyconv.operators.builtin_names())
    expected = ["many150", "many_150_module", f"{builtins + 200}", "199"]
    assert run_python(code, tmp_path) == expected


EDITABLE = {
    # What setuptools writes for a source directory as it is, and for one that is mapped.
    "path": "{source}\n",
    "finder": "import __editable__finder; __editable__finder.install({source!r})\n",
}
FINDER = """
import sys
from importlib.machinery import PathFinder

class Finder:
    def __init__(self, source):
        self.source = source

    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [self.source]) if name == "edited" else None

def install(source):
    sys.meta_path.append(Finder(source))
"""


@pytest.mark.parametrize("kind", EDITABLE)
def test_editable_install(tmp_path, kind):
    site, source = tmp_path / "site", tmp_path / "project" / "src"
    write_info(site, "edited", "edited")
    write_module(source, "edited")
    (site / "__editable__finder.py").write_text(FINDER)
    (site / "__editable__.edited-1.0.pth").write_text(EDITABLE[kind].format(source=str(source)))
    if kind == "path":  # a build leaves its metadata next to the sources: the same plugin again
        info = source / "edited.egg-info"
        info.mkdir()
        for name, text in (
            ("PKG-INFO", "Metadata-Version: 2.1\nName: edited\nVersion: 1.0\n"),
            ("entry_points.txt", "[pyconv.operators]\nedited = edited:OPERATOR\n"),
        ):
            (info / name).write_text(text)
    code = f"""
    import site
    site.addsitedir({str(site)!r})
    import pyconv, sys
    print(pyconv.get("edited").name, pyconv.available()["edited"].status)
    print(sys.modules["edited"].__file__)
    """
    assert run_python(code) == ["edited", "ok", str(source / "edited.py")]


def test_metadata_that_is_no_text(tmp_path, monkeypatch):
    """A distribution whose files are damaged does not hide the others."""
    write_info(tmp_path, "fine", "fine")
    write_module(tmp_path, "fine")
    write_info(tmp_path, "damaged", "damaged")
    (tmp_path / "damaged-1.0.dist-info" / "entry_points.txt").write_bytes(b"[pyconv.operators\xff")
    monkeypatch.syspath_prepend(tmp_path)
    pyconv.refresh()
    try:
        with pytest.warns(RuntimeWarning, match=r"cannot read the entry points of .*damaged"):
            assert pyconv.get("fine").name == "fine"
        assert pyconv.available()["fine"].distribution == "fine"
    finally:
        monkeypatch.undo()
        pyconv.refresh()
        sys.modules.pop("fine", None)
