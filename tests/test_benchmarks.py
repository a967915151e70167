"""The benchmarks cover every operator and algorithm, and each calls what its name says."""

import ast
import gc
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv.operator import Operator
from pyconv.plan import Plan

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "asv_bench" / "benchmarks"
PER_OPERATOR = ["bench_forward", "bench_backward", "bench_algorithms"]
OTHERS = [
    "bench_choice", "bench_import", "bench_instructions", "bench_memory", "bench_overhead",
    "bench_threads", "peers",
]  # fmt: skip


def load(name, path, **more):
    """Import a file under a name."""
    spec = importlib.util.spec_from_file_location(name, path, **more)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmarks():
    """The package of benchmarks, imported the way asv does: as a package of that name."""
    folder = [str(FOLDER)]
    found = load("benchmarks", FOLDER / "__init__.py", submodule_search_locations=folder)
    try:
        for name in ("_shapes", "_instructions", *PER_OPERATOR, *OTHERS):
            importlib.import_module(f"benchmarks.{name}")
        yield found
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def compare(benchmarks):
    """The command, which is a script of its own."""
    path = sys.path[:]
    try:
        yield load("compare", FOLDER.parent / "compare.py")
    finally:
        sys.path[:] = path
        for name in ("compare", "worker"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def prove(compare):
    """The proof, likewise."""
    try:
        yield load("prove", FOLDER.parent / "prove.py")
    finally:
        del sys.modules["prove"]


@pytest.fixture
def calls(monkeypatch):
    """What is called of pyconv: (kind, operator, details)."""
    seen = []
    call, backward, plan_call = Operator.__call__, Operator.backward, Plan.__call__
    plan_backward = Plan.backward

    def noted(kind, function, describe):
        def wrapper(self, *args, **kwargs):
            seen.append((kind, *describe(self, kwargs)))
            return function(self, *args, **kwargs)

        return wrapper

    def of_operator(op, kwargs):
        needs = kwargs.get("needs")
        return op.name, kwargs.get("algorithm", "auto"), kwargs.get("threads"), needs

    def of_plan(plan, kwargs):
        return plan._operator.name, plan.algorithm, plan._threads, kwargs.get("needs")

    monkeypatch.setattr(Operator, "__call__", noted("call", call, of_operator))
    monkeypatch.setattr(Operator, "backward", noted("backward", backward, of_operator))
    monkeypatch.setattr(Plan, "__call__", noted("plan", plan_call, of_plan))
    monkeypatch.setattr(Plan, "backward", noted("plan backward", plan_backward, of_plan))
    return seen


def classes(module):
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
    ]


def of_module(benchmarks, name):
    return {c.operator: c for c in classes(getattr(benchmarks, name))}


def ready(cls, parameter):
    instance = cls()
    instance.setup(parameter)
    return instance


def operators_of(params):
    return {parameter.partition("/")[0] for parameter in params}


# ---- every operator, every algorithm -----------------------------------------------------------


@pytest.mark.parametrize("module", PER_OPERATOR)
def test_every_operator_has_a_class(benchmarks, module):
    found = of_module(benchmarks, module)
    assert sorted(found) == sorted(pyconv.operators.builtin_names())
    for operator, cls in found.items():
        assert cls.__name__.startswith(operator.title().replace("_", ""))


@pytest.mark.parametrize("module", ["bench_forward", "bench_backward"])
def test_every_layer_is_timed(benchmarks, module):
    found = {operator: cls.params for operator, cls in of_module(benchmarks, module).items()}
    layers = benchmarks._shapes.LAYERS
    assert found == {operator: list(layers[operator]) for operator in layers}


def test_every_algorithm_is_timed(benchmarks):
    for operator, cls in of_module(benchmarks, "bench_algorithms").items():
        algorithms = [name for name in pyconv.get(operator).algorithms if name != "auto"]
        assert sorted(cls.params) == sorted(algorithms)
        assert list(benchmarks._shapes.ALGORITHMS[operator]) == cls.params


def test_the_other_tracks_cover_every_operator(benchmarks):
    every = set(pyconv.operators.builtin_names())
    assert set(benchmarks.bench_memory.Workspace.params) == every
    assert set(benchmarks.bench_overhead.Overhead.params) == every
    assert set(benchmarks.bench_instructions.Instructions.params) == every
    assert operators_of(benchmarks.bench_threads.TwoThreads.params) == every
    layers, _ = benchmarks.peers.Peers.params
    assert operators_of(layers) == every - {"sampled", "spatially_separable"}  # no peer has them
    several = {name for name in every if len(pyconv.get(name).algorithms) > 2}
    assert operators_of(benchmarks.bench_choice.Choice.params) == several


def test_parameters_are_literals(benchmarks):
    # asv knows results by them: what pyconv says must not change them.
    count = 0
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for line in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "params":
                    ast.literal_eval(line.value)
                    count += 1
    assert count == 3 * len(pyconv.operators.builtin_names()) + 6


# ---- each calls what its name says -------------------------------------------------------------


def test_forward_benchmarks_call_their_operator(benchmarks, calls):
    for operator, cls in of_module(benchmarks, "bench_forward").items():
        layer = cls.params[0]
        instance = ready(cls, layer)
        calls.clear()
        instance.time_call(layer)
        assert calls == [("call", operator, "auto", 1, None)]
        calls.clear()
        instance.time_plan(layer)
        assert [call[:2] for call in calls] == [("plan", operator)]
        assert calls[0][3] == 1
        assert 0 < instance.track_percent_of_peak(layer) < 1000
        assert {call[:2] for call in calls} == {("plan", operator)}


def test_backward_benchmarks_call_their_operator(benchmarks, calls):
    for operator, cls in of_module(benchmarks, "bench_backward").items():
        layer = cls.params[-1]
        instance = ready(cls, layer)
        for method, expected in {
            "time_all": ("backward", operator, None),
            "time_x": ("backward", operator, ("x",)),
            "time_plan_all": ("plan backward", operator, None),
        }.items():
            calls.clear()
            getattr(instance, method)(layer)
            assert [(call[0], call[1], call[4]) for call in calls] == [expected]
            assert calls[0][3] == 1


def test_algorithm_benchmarks_use_the_algorithm(benchmarks, calls):
    for operator, cls in of_module(benchmarks, "bench_algorithms").items():
        for algorithm in cls.params:
            instance = ready(cls, algorithm)
            calls.clear()
            instance.time_plan(algorithm)
            assert calls == [("plan", operator, algorithm, 1, None)]


def test_thread_benchmarks_use_two_threads(benchmarks, calls, monkeypatch):
    monkeypatch.setattr(benchmarks.bench_threads, "cpus", lambda: 2)
    cls = benchmarks.bench_threads.TwoThreads
    for layer in cls.params:
        instance = ready(cls, layer)
        calls.clear()
        instance.time_plan(layer)
        assert [call[:2] for call in calls] == [("plan", layer.partition("/")[0])]
        assert calls[0][3] == 2
    calls.clear()
    assert instance.track_speedup(layer) > 0
    assert {call[3] for call in calls} == {1, 2}


def test_overhead_benchmarks_call_their_operator(benchmarks, calls):
    cls = benchmarks.bench_overhead.Overhead
    for operator in cls.params:
        instance = ready(cls, operator)
        for method, kind in {"track_call": "call", "track_plan": "plan"}.items():
            calls.clear()
            assert getattr(instance, method)(operator) > 0
            assert {call[:2] for call in calls} == {(kind, operator)}


def test_memory_benchmarks_call_their_operator_within_the_budget(benchmarks, calls):
    cls = benchmarks.bench_memory.Workspace
    for operator in ("pointwise", "deformable"):
        instance = ready(cls, operator)
        calls.clear()
        instance.peakmem_baseline(operator)
        assert not calls
        try:
            grown = instance.track_workspace(operator)
        except NotImplementedError:
            instance.peakmem_call(operator)
        else:
            assert grown < 8 * 2**20
        assert [call[:2] for call in calls] == [("call", operator)]


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset on Linux alone")
def test_an_unbounded_workspace_is_an_error(benchmarks, monkeypatch):
    instance = ready(benchmarks.bench_memory.Workspace, "pointwise")

    def unbounded(operator):
        gc.collect()  # as may happen at any time, and must not be counted
        np.ones(2**22)

    monkeypatch.setattr(instance, "peakmem_call", unbounded)
    garbage = [np.ones(2**22)]
    garbage.append(garbage)
    del garbage
    with pytest.raises(AssertionError, match="bytes were taken"):
        instance.track_workspace("pointwise")


def test_regrets_are_of_the_algorithms(benchmarks, calls):
    cls = benchmarks.bench_choice.Choice
    layer = "grouped/alex_g2_27"
    assert 1 <= ready(cls, layer).track_regret(layer) < 10
    assert {call[:3] for call in calls} == {
        ("plan", "grouped", "direct"), ("plan", "grouped", "winograd"),
    }  # fmt: skip


def test_imports_and_sizes(benchmarks):
    module = benchmarks.bench_import
    assert 0 < module.track_import_time() < 10
    assert 10**5 < module.track_library_size() < 10**9


def test_counted_calls(benchmarks, calls, monkeypatch):
    counted = benchmarks._instructions
    kinds = {"call": "call", "plan": "plan", "all": "backward"}
    assert sorted(kinds) == sorted(counted.KINDS)
    for operator in benchmarks.bench_instructions.Instructions.params:
        for kind, called in kinds.items():
            call = benchmarks._base.Call(operator, benchmarks._shapes.COUNTED[operator])
            run = counted.prepared(kind, call)
            calls.clear()
            run()
            assert [call[:2] for call in calls] == [(called, operator)]


def test_counts_come_from_between_the_marks(benchmarks, monkeypatch):
    def valgrind(command, **more):
        (out,) = (part.partition("=")[2] for part in command if "callgrind-out-file" in part)
        for number, total in enumerate([900, 11, 20, 22], 1):
            Path(f"{out}.{number}").write_text(f"events: Ir\ntotals: {total}\n")

    monkeypatch.setattr(benchmarks._instructions.subprocess, "run", valgrind)
    names = ["call/standard", "plan/standard"]
    assert benchmarks._instructions.counts(names) == {"call/standard": 11, "plan/standard": 22}


def test_peers_without_peers(benchmarks):
    setup = benchmarks.peers.Peers().setup
    with pytest.raises(NotImplementedError, match="ncnn: missing"):
        setup({}, "standard/r50_3x3_28", "ncnn")
    with pytest.raises(NotImplementedError, match="ncnn: unsupported"):
        setup({"layer": {"ncnn": "unsupported: no such layer"}}, "layer", "ncnn")
    with pytest.raises(RuntimeError, match="ncnn: wrong"):
        setup({"layer": {"ncnn": "wrong: 3 is not 4"}}, "layer", "ncnn")
    shapes = {"x": (1, 8, 5, 5), "depthwise": (8, 1, 3, 3), "pointwise": (4, 8), "bias": (4,)}
    assert benchmarks.peers.as_elsewhere(shapes) == {**shapes, "pointwise": (4, 8, 1, 1)}
    times = {"standard/r50_3x3_28": {"pyconv": 2.0, "ncnn": 3.0}}
    assert benchmarks.peers.Peers().track_ratio(times, "standard/r50_3x3_28", "ncnn") == 1.5


# ---- the comparison ----------------------------------------------------------------------------


def test_the_comparison_knows_all_times(benchmarks, compare):
    expected = {
        f"{module}.{cls.__name__}.{method}({parameter})"
        for module in (*PER_OPERATOR, "bench_threads")
        for cls in classes(getattr(benchmarks, module))
        for method in dir(cls)
        if method.startswith("time_")
        for parameter in cls.params
    }
    assert set(compare.benchmarks()) == expected
    assert compare.operator_of("SpatiallySeparableBackward") == "spatially_separable"
    assert compare.operator_of("TwoThreads") == ""


def drawn(ratio, noise, count=24, seed=0):
    """Turns: half of them disturbed, both builds alike."""
    rng = np.random.default_rng(seed)
    weather = 1 + rng.choice([0.0, 1.0], count)
    before = weather * (1 + noise * rng.random(count))
    after = ratio * weather * (1 + noise * rng.random(count))
    return list(before), list(after)


@pytest.mark.parametrize("ratio", [1.1, 1.2, 1.3])
def test_a_slowdown_in_noise_is_seen(compare, ratio):
    for seed in range(10):
        times = compare.Times(*drawn(ratio, 0.03, seed=seed))
        assert times.slower(1.05), (times.fastest, times.ratio, times.least)


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.03])
def test_noise_is_no_slowdown(compare, ratio):
    for seed in range(10):
        assert not compare.Times(*drawn(ratio, 0.2, seed=seed)).slower(1.08)


def test_the_worker_times_a_benchmark(compare):
    # With this very pyconv as both builds.
    folder = Path(pyconv.__file__).parents[1]
    name = "bench_overhead.Overhead.track_call(pointwise)"
    build = (sys.executable, folder)
    times = compare.measure(build, build, [name], 1)[name]
    assert len(times.before) == len(times.after) == compare.ROUNDS
    assert 0.1 < times.fastest < 10


def test_a_comparison_that_fails_has_caught_nothing(prove):
    assert prove.verdict_of(1, "bench_forward.X.time_plan(y)") == "caught"
    assert prove.verdict_of(0, "nothing") == "quiet"
    for status, found in [(1, ""), (1, "nothing"), (0, ""), (2, ""), (-9, "")]:
        assert prove.verdict_of(status, found) == "failed"
    command = [sys.executable, FOLDER.parent / "compare.py", "HEAD", "no-such-commit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "slower by" not in done.stdout


def test_the_worker_takes_a_folder_behind_a_link(compare, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(Path(pyconv.__file__).parents[1])
    process = compare.Process(sys.executable, link)
    try:
        assert process.ask("prepare", name=compare.CONTROL) == {}
    finally:
        process.stop()


def test_patches_of_the_proof_fit_the_sources(prove):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    patches = sorted((ROOT / "asv_bench" / "planted").glob("*.patch"))
    assert [path.stem for path in patches] == sorted(prove.BENCHMARKS)
    for path in patches:
        subprocess.run(["git", "-C", str(ROOT), "apply", "--check", str(path)], check=True)
