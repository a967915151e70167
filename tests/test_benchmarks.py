"""The benchmarks cover every built-in operator, on layers that exist."""

import importlib.util
import sys
from pathlib import Path

import pytest

import pyconv

FOLDER = Path(__file__).parent.parent / "asv_bench" / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    """The package of benchmarks, imported the way asv does: as a package of that name."""
    spec = importlib.util.spec_from_file_location(
        "benchmarks", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = package
    try:
        spec.loader.exec_module(package)
        for name in ("_shapes", "bench_forward", "bench_backward"):
            importlib.import_module(f"benchmarks.{name}")
        yield package
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]


def classes(module):
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
    ]


@pytest.mark.parametrize("module", ["bench_forward", "bench_backward"])
def test_every_operator_is_timed_on_all_its_layers(benchmarks, module):
    found = {c.operator: c.params for c in classes(getattr(benchmarks, module))}
    layers = benchmarks._shapes.LAYERS
    assert sorted(found) == sorted(pyconv.operators.builtin_names())
    assert found == {operator: list(layers[operator]) for operator in layers}


@pytest.mark.parametrize("module", ["bench_forward", "bench_backward"])
def test_every_benchmark_runs(benchmarks, module):
    for cls in classes(getattr(benchmarks, module)):
        assert cls.__name__.lower().startswith(cls.operator.replace("_", ""))
        instance = cls()
        layer = cls.params[0]
        instance.setup(layer)
        for name in dir(instance):
            if name.startswith("time_"):
                getattr(instance, name)(layer)
