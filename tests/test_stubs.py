"""Type stubs of the compiled modules describe what is there."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import pyconv._kernels

MODULES = sorted(
    module.name for module in pkgutil.iter_modules(pyconv._kernels.__path__, "pyconv._kernels.")
)


def parameters_of(function):
    return [
        (p.name, p.default is not p.empty) for p in inspect.signature(function).parameters.values()
    ]


def parameters_in(stub):
    names = [argument.arg for argument in stub.args.args]
    required = len(names) - len(stub.args.defaults)
    return [(name, i >= required) for i, name in enumerate(names)]


@pytest.mark.parametrize("name", MODULES)
def test_stub_has_every_function_with_its_parameters(name):
    module = importlib.import_module(name)
    functions = {
        key: parameters_of(value)
        for key, value in vars(module).items()
        if not key.startswith("_")
        and type(value).__name__ in ("cython_function_or_method", "builtin_function_or_method")
        and value.__module__ == name
    }
    path = Path(pyconv._kernels.__path__[0], name.rpartition(".")[2] + ".pyi")
    nodes = ast.parse(path.read_text()).body if path.exists() else []
    stubs = {n.name: parameters_in(n) for n in nodes if isinstance(n, ast.FunctionDef)}
    assert functions == stubs
