"""`pyconv bench`: who is compared, who is believed, and what is made of the numbers."""

import functools
import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import pyconv
from pyconv._kernels import _cpu, _machine
from pyconv.bench import (
    definition,
    gradients,
    layers,
    machine,
    processes,
    random_layers,
    regret,
    runner,
)
from pyconv.bench.exact import exact
from pyconv.bench.machine import Limits
from pyconv.bench.peers import worker
from pyconv.bench.report_html import render
from pyconv.bench.report_text import print_regrets, print_report
from pyconv.bench.results import LayerResult, Report, Timing, geometric_mean, summarize
from pyconv.bench.runner import Runner, Settings
from pyconv.cli import main
from pyconv.operator import Operator

LIMITS = {dtype: Limits(1, dtype, 100e9, 10e9) for dtype in ("float32", "float64")}

# A worker of which pyconv is the real one and the other libraries are pyconv in disguise, each
# with a fault.
FAKES = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("worker", {worker!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
load = worker._load

class Fake:
    def version(self):
        if NAME == "ncnn":
            raise ImportError("No module named 'ncnn'")
        return NAME + " 1.0"

    def prepare(self, layer, arrays, threads, form):
        print("a library that talks")
        run, fetch = load("with_pyconv").prepare(layer, arrays, threads, "call")
        if NAME == "torch":
            if layer["needs"]:
                return run, lambda: {{name: g * 1.01 for name, g in fetch().items()}}
            return run, lambda: fetch() * 1.01
        if NAME == "torch_cl":
            os.kill(os.getpid(), signal.SIGSEGV)
        if NAME == "ort" and layer["operator"] == "depthwise":
            raise NotImplementedError("has no\\nsuch operator")
        if NAME == "openvino":
            return lambda: sys.exit("out of luck"), fetch
        return run, fetch

NAME = sys.argv[1]
if not NAME.startswith("pyconv"):
    worker._load = lambda file: Fake()
worker.main(NAME, 1)
"""

DENSE = layers.conv("3x3", "dense", (1, 3, 9, 8), 4, 3, padding=1)
CHANNELS = layers.depthwise("depthwise", "channels", (2, 5, 9, 8), 3, padding=1)


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    program = tmp_path_factory.mktemp("bench") / "fakes.py"
    program.write_text(FAKES.format(worker=worker.__file__))
    return str(program)


@pytest.fixture
def quick(monkeypatch, fakes):
    """The command, on small measurements and the fakes."""
    monkeypatch.setattr(machine, "TRIAD_ELEMENTS", 1000)
    monkeypatch.setattr(machine, "PEAK_SECONDS", 1e-4)
    monkeypatch.setattr(runner, "Runner", functools.partial(Runner, program=fakes))
    monkeypatch.setattr(layers, "LAYERS", (DENSE, CHANNELS))


def result(name="layer", ours=1.0, group="3x3", threads=1, macs=10**9, **peers):
    timings = {"pyconv": Timing("ok", rounds=[ours]), "pyconv_call": Timing("ok", rounds=[ours])}
    timings |= {peer: Timing("ok", rounds=[seconds]) for peer, seconds in peers.items()}
    layer = layers.conv(group, name, (1, 3, 9, 8), 4, 3)
    return LayerResult(layer, threads, macs, 1000, 0.5, "peak", timings)


def report(*several):
    facts = {
        "date": "today",
        "machine": {"cpu": "A <fast> one", "cpus": 2, "system": "some"},
        "settings": {"rounds": 1, "seconds": 0.1},
    }
    limits = [{"threads": 1, "dtype": "float32", "flops": 1e11, "bandwidth": 1e10}]
    names = dict.fromkeys(n for r in several for n in r.timings)
    return Report(facts, limits, {name: f"{name} 1" for name in names}, list(several))


def run(capsys, *argv):
    status = main(["bench", *map(str, argv)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# --- the machine


@pytest.mark.parametrize("isa", _cpu.supported())
@pytest.mark.parametrize("compute", [0, 1])
def test_peak_counts_its_operations(isa, compute):
    before = _cpu.use(isa)
    try:
        one = _machine.multiply_add(1, compute, 1)
        assert one >= 2 * 8 * 2  # eight chains of two lanes at least
        assert _machine.multiply_add(7, compute, 3) == 21 * one
        assert _machine.multiply_add(0, compute, 1) == 0
    finally:
        _cpu.use(before)


@pytest.mark.parametrize("isa", _cpu.supported())
@pytest.mark.parametrize("size", [0, 1, 7, 4096, 10001])
def test_triad(isa, size):
    before = _cpu.use(isa)
    try:
        a, b = np.arange(size, dtype=float), np.ones(size)
        out = np.zeros(size)
        _machine.triad(a, b, out, 2)
        np.testing.assert_array_equal(out, a + 3)
    finally:
        _cpu.use(before)


def test_the_peak_is_more_than_any_other_kernel_reaches():
    flops = machine.peak("float32", 1)
    assert 1e8 < flops < 1e12
    limit = Limits(1, "float32", flops, 1e10)
    assert limit.least_seconds(10**12, 1) == (2e12 / flops, "peak")
    assert limit.least_seconds(1, 10**10) == (1.0, "memory")


# --- layers


def test_layers_are_legal_and_their_names_unique():
    names = [layer.name for layer in layers.LAYERS]
    assert len(set(names)) == len(names)
    assert {layer.group for layer in layers.LAYERS} == set(layers.CLASSES) - {"cases"}
    for layer in layers.LAYERS:
        assert runner._cost(layer)[0] > 0
        assert layers.description(layer)["kind"] is not None


def test_arrays_are_the_same_each_time():
    layer = layers.deformable("deformable", "moved", (1, 4, 6, 5), 3, offset_groups=2)
    one, other = layer.arrays(), layer.arrays()
    assert {name: array.shape for name, array in one.items()} == layer.shapes
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
        assert array.dtype == np.float32
    assert 0 <= one["mask"].min() <= one["mask"].max() <= 1


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("", ["ab_1", "abc", "b"]), ("b_", ["ab_1"]), ("b", ["ab_1", "abc", "b"]), ("ab?", ["abc"])],
)
def test_select_by_name(pattern, names):
    known = [layers.pointwise("1x1", name, (1, 2, 3, 3), 4) for name in ("ab_1", "abc", "b")]
    assert [layer.name for layer in layers.select(known, pattern=pattern)] == names


def test_random_layers_follow_from_the_seed_and_are_legal():
    drawn = random_layers.random_layers(36, 3)
    assert [str(layer) for layer in drawn] == [
        str(layer) for layer in random_layers.random_layers(36, 3)
    ]
    assert drawn != random_layers.random_layers(36, 4)
    assert {layer.group for layer in drawn} == set(random_layers.RANDOM)
    for layer in drawn:
        assert random_layers.MACS[0] <= runner._cost(layer)[0] <= random_layers.MACS[1]
        layers.description(layer)


# --- numbers


def test_median_and_spread():
    timing = Timing("ok", rounds=[3.0, 1.0, 2.0])
    assert timing.seconds == 2
    assert timing.spread == 1
    assert Timing("failed").seconds is None


def test_geometric_mean():
    assert geometric_mean([4.0, 1.0, None]) == pytest.approx(2)
    assert geometric_mean([]) is None


def test_ratio_is_that_of_the_best_peer_with_a_right_result():
    r = result(ours=2.0, torch=3.0, ort=1.0, ncnn=5.0)
    assert (r.best_peer, r.ratio) == ("ort", 0.5)
    r.timings["ort"].fail("wrong", "off")
    assert (r.best_peer, r.ratio) == ("torch", 1.5)
    assert r.gflops() == pytest.approx(1)
    assert r.share == 0.25
    assert result().ratio is None


def test_summary():
    some = [result("a", 1.0, torch=4.0), result("b", 1.0, torch=0.25), result("c")]
    summary = summarize(some)
    assert (summary.layers, summary.slow, summary.worst.layer.name) == (2, 1, "b")
    assert summary.ratio == pytest.approx(1)
    assert summary.speedup is None
    two = [result("a", 0.25, threads=2), result("b", 1.0, threads=2), result("d", 9.0, threads=2)]
    small = result("c", 9.0, threads=2, macs=1000)  # too small to profit
    assert summarize([*two, small], {r.layer.name: r for r in some}).speedup == pytest.approx(2)


def test_what_no_network_has_is_not_in_the_mean_over_everything():
    r = report(result("a", 1.0, torch=4.0), result("b", 1.0, group="image", torch=9.0))
    assert r.summaries(1)["everything together"].ratio == pytest.approx(4)
    assert r.summaries(1)["One-channel images"].ratio == pytest.approx(9)


# --- processes


def test_measure_repeats_for_the_time_given():
    calls = []
    times = worker.measure(lambda: calls.append(0), 0.01)
    assert len(calls) == times["calls"] + 2  # to warm up, and to see how long it takes
    assert 0 < times["fastest"] <= times["median"] < 1e-4
    assert worker.measure(lambda: sum(range(10**6)), 1e-6)["calls"] == 1


def test_everyone_is_compared_and_no_fault_ends_the_run(fakes):
    names = ["pyconv", "pyconv_call", "torch", "torch_cl", "ort", "openvino", "ncnn"]
    with Runner(names, 1, Settings(2, 0.001), program=fakes) as one:
        assert one.absent == {"ncnn": "No module named 'ncnn'"}
        assert one.versions["ort"] == "ort 1.0"
        dense, channels = one.run([DENSE, CHANNELS], LIMITS, lambda step: None)
    t = dense.timings
    assert [t[name].status for name in names[:-1]] == [
        "ok", "ok", "wrong", "crashed", "ok", "crashed",
    ]  # fmt: skip
    assert "differs from the definition by" in t["torch"].note
    assert not t["torch"].rounds
    assert t["torch_cl"].note == "while it prepared the layer: crashed with SIGSEGV"
    assert t["openvino"].note == "ended with status 1: out of luck"
    assert [len(t[name].rounds) for name in ("pyconv", "pyconv_call", "ort")] == [2, 2, 2]
    assert t["pyconv"].error < 1
    assert dense.best_peer == "ort"
    assert channels.timings["ort"].status == "unsupported"
    assert channels.timings["ort"].note == "has no such operator"
    assert channels.best_peer is None
    everything = report(dense, channels)
    assert {name for _, name in everything.wrong()} == {"torch"}
    assert {name for _, name in everything.troubles()} == {"torch_cl", "openvino"}


def test_a_process_that_does_not_answer_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    program = tmp_path / "silent.py"
    program.write_text("import time; time.sleep(60)")
    process = processes.Process("torch", 1, sys.executable, tmp_path, str(program))
    with pytest.raises(processes.WorkerError, match=r"gave no answer for 0\.2 s"):
        process.start()


def test_results_are_judged_by_the_definition_where_it_is_cheap(monkeypatch):
    right = exact(DENSE)
    assert right.by_definition
    monkeypatch.setattr("pyconv.bench.exact.REFERENCE_MACS", 0)
    by_plan = exact(DENSE)
    assert not by_plan.by_definition
    y, bound = right.values["y"], right.bounds["y"]
    np.testing.assert_allclose(by_plan.values["y"], y, atol=1e-12)
    assert right.error({"y": y + 1.1 * bound}) == pytest.approx(1.1)
    assert right.error({"y": y[:, :1]}) == right.error({"y": y * math.nan}) == math.inf
    assert right.error({"x": y}) == math.inf


@pytest.mark.parametrize("by_definition", [True, False])
def test_two_libraries_that_agree_overrule_pyconv_as_its_own_judge(by_definition, tmp_path):
    y = np.ones((1, 2))
    for name, value in {"pyconv": y, "torch": 2 * y, "torch_cl": 2 * y, "ort": 2 * y}.items():
        np.savez(tmp_path / f"{name}.npz", y=value)

    def statuses(*names):
        timings = {name: Timing("ok") for name in names}
        right = runner.Exact({"y": y}, {"y": 1e-3}, by_definition)
        runner._compare(right, timings, lambda name: tmp_path / f"{name}.npz")
        return [timing.status for timing in timings.values()]

    # One library in two forms is one opinion.
    assert statuses("pyconv", "torch", "torch_cl") == ["ok", "wrong", "wrong"]
    expected = ["ok", "wrong", "wrong"] if by_definition else ["wrong", "ok", "ok"]
    assert statuses("pyconv", "torch", "ort") == expected


@pytest.mark.parametrize("name", ["torch", "torch_cl", "ort", "openvino", "ncnn", "ndimage"])
def test_installed_libraries_agree_with_pyconv(name):
    image = layers.conv("image", "image", (1, 1, 9, 8), 1, 3, padding=1)
    with Runner(["pyconv", name], 1, Settings(1, 0.001)) as one:
        if name in one.absent:
            pytest.skip(one.absent[name])
        found = [r.timings[name] for r in one.run([DENSE, image], LIMITS, lambda step: None)]
    assert {timing.status for timing in found} <= {"ok", "unsupported"}
    assert any(timing.rounds for timing in found)


# --- gradients

SMALL = [
    layers.conv("strided", "conv", (2, 3, 9, 8), 4, (3, 2), stride=2, padding=1),
    layers.conv("grouped", "group", (1, 6, 8, 7), 4, 3, "grouped", groups=2, dilation=2, padding=3),
    layers.conv("1d-3d", "line", (2, 3, 19), 5, 4, stride=3),
    CHANNELS,
    layers.separable("separable", "stages", (2, 3, 9, 8), 4, padding=2, dilation=2),
    layers.transposed("transposed", "up", (2, 3, 5, 4), 4, 3, stride=3, padding=1,
                      output_padding=1),
    layers.deformable("deformable", "moved", (2, 4, 7, 6), 3, offset_groups=2, stride=2),
    layers.deformable("deformable", "unmasked", (1, 2, 5, 6), 3, masked=False, dilation=2),
]  # fmt: skip


def test_gradients_of_every_layer():
    found = gradients.of(layers.LAYERS)
    names = [layer.name for layer in found]
    assert len(set(names)) == len(names)
    assert "r50_3x3_56.x" in names
    assert not any("direct" in name for name in names)
    assert {layer.group for layer in found} == set(gradients.SOURCES) - {"cases"}
    assert layers.TITLES.keys() >= set(gradients.SOURCES)
    groups = {layer.name: layer.group for layer in found}
    assert groups["r50_3x3_56.x"] == "3x3-input"
    assert groups["r50_1x1_56.x"] == "dense-input"
    assert groups["r50_3x3_56.weight"] == groups["r50_1x1_56.weight"] == "dense-weight"
    assert groups["sep_14.pointwise"] == "separable"
    assert groups["dcn_r50_14.all"] == "deformable"
    assert "dcn_r50_14.x" not in names
    ours = gradients.of(layers.cases(pyconv.get("spatially_separable")))
    assert [layer.needs for layer in ours[:2]] == [("x",), ("axis_weights",)]


def test_an_operator_without_gradients_is_left_out(monkeypatch):
    monkeypatch.setattr(type(pyconv.get("deformable")), "gradients", Operator.gradients)
    assert {layer.operator for layer in gradients.of([DENSE, SMALL[-1]])} == {"standard"}


def test_what_gradients_cost():
    layer = layers.conv("3x3", "dense", (2, 3, 9, 8), 4, (3, 2))  # 4x7x7 of it
    x, weight, y = 2 * 3 * 9 * 8, 4 * 3 * 3 * 2, 2 * 4 * 7 * 7
    macs = runner._cost(layer)[0]
    assert macs == y * 3 * 3 * 2
    each = {one.needs: runner._cost(one) for one in gradients.of([layer])}
    assert each[("x",)] == (macs, 4 * (y + weight + x))
    assert each[("weight",)] == (macs, 4 * (y + x + weight))
    (every,) = gradients.of([SMALL[-1]])
    macs = runner._cost(SMALL[-1])[0]
    sizes = sum(math.prod(shape) for shape in every.shapes.values())
    written = sum(math.prod(every.shapes[name]) for name in ("x", "offset", "weight", "bias"))
    assert runner._cost(every) == (2 * macs, 4 * (sizes - every.shapes["bias"][0] + written))


@pytest.mark.parametrize("layer", gradients.of(SMALL), ids=lambda layer: layer.name)
def test_definition_of_gradients_is_the_derivative_of_the_definition(layer):
    rng = np.random.default_rng(1)
    op = pyconv.get(layer.operator)
    arrays = {name: array.astype(float) for name, array in layer.arrays().items()}
    grad = arrays["grad"]

    def value(changed):
        given = {**arrays, **changed}
        y = op.reference(*(given.get(name) for name in op.array_names), **layer.params)
        return float((y * grad).sum())

    order = layers.description(layer)
    found = definition.gradients(order, arrays)
    largest = definition.gradients(order, arrays, magnitudes=True)
    assert found.keys() == set(layer.needs)
    for name, gradient in found.items():
        assert gradient.shape == arrays[name].shape
        assert (np.abs(gradient) <= largest[name] * (1 + 1e-12)).all()
        step = rng.choice((-1.0, 1.0), gradient.shape)
        step *= 1e-4 if name == "offset" else 1  # otherwise linear: any step is right
        change = value({name: arrays[name] + step}) - value({name: arrays[name] - step})
        expected = 2 * float((gradient * step).sum())
        assert change == pytest.approx(expected, rel=1e-6, abs=1e-9 * largest[name].sum())


@pytest.mark.parametrize("layer", gradients.of(SMALL), ids=lambda layer: layer.name)
def test_gradients_are_judged_by_their_definition_where_it_is_cheap(layer, monkeypatch):
    right = exact(layer)
    assert right.by_definition
    monkeypatch.setattr("pyconv.bench.exact.GRADIENT_MACS", 0)
    by_pyconv = exact(layer)
    assert not by_pyconv.by_definition
    assert right.error(by_pyconv.values) < 1e-6
    for what, bound in right.bounds.items():  # that of offsets is an estimate
        least = 0.3 if what == "offset" else 1
        assert least * bound * (1 - 1e-9) <= by_pyconv.bounds[what] <= bound * (1 + 1e-9)
    name = layer.needs[0]
    off = {**right.values, name: right.values[name] + 1.1 * right.bounds[name]}
    assert right.error(off) == pytest.approx(1.1)


def test_offsets_are_no_integers_and_nothing_is_rounded_where_they_are_added():
    (layer,) = gradients.of([SMALL[-2]])
    offset = layer.arrays()["offset"]
    twice = offset.astype(float) * 512
    np.testing.assert_array_equal(twice % 2, 1)
    assert np.abs(offset).max() > 1


def test_gradients_are_compared(fakes):
    names = ["pyconv", "pyconv_call", "torch", "ort"]
    cases = layers.cases(pyconv.get("spatially_separable"))
    with Runner(names, 1, Settings(1, 0.001), program=fakes) as one:
        found = list(one.run(gradients.of([DENSE, SMALL[-1], cases[0]]), LIMITS, lambda step: None))
    assert [r.layer.name.rpartition(".")[2] for r in found] == [
        "x", "weight", "all", "x", "axis_weights",
    ]  # fmt: skip
    for r in found:
        statuses = {name: timing.status for name, timing in r.timings.items()}
        assert statuses["pyconv"] == statuses["pyconv_call"] == "ok"
        assert r.timings["pyconv"].error < 1
        assert (statuses["torch"], statuses["ort"]) == (
            ("unsupported",) * 2 if r.layer.group == "cases" else ("wrong", "ok")
        )


def test_gradients_of_a_plan_are_used_where_it_has_them(monkeypatch):
    with_pyconv = worker._load("with_pyconv")
    plan, calls = pyconv.operator.Plan, []

    def backward(self, grad, *arrays, needs):
        calls.append((self.output_shape, len(arrays), needs))
        return {"x": grad}

    (layer, _) = gradients.of([DENSE])
    order = layers.description(layer)
    monkeypatch.setattr(plan, "backward", backward, raising=False)
    _, fetch = with_pyconv.prepare(order, layer.arrays(), 1, "plan")
    np.testing.assert_array_equal(fetch()["x"], layer.arrays()["grad"])
    assert calls == [((1, 4, 9, 8), 1, ("x",))]


@pytest.mark.parametrize("name", ["torch", "torch_cl"])
def test_installed_libraries_agree_on_gradients(name):
    with Runner(["pyconv", name], 1, Settings(1, 0.001)) as one:
        if name in one.absent:
            pytest.skip(one.absent[name])
        several = gradients.of(SMALL)
        found = [r.timings[name] for r in one.run(several, LIMITS, lambda step: None)]
    assert {timing.status for timing in found} <= {"ok", "unsupported"}
    assert sum(bool(timing.rounds) for timing in found) >= 8


def test_input_and_weights_have_means_of_their_own():
    each = gradients.of([CHANNELS])
    some = [
        LayerResult(layer, 1, 10, 10, 0.5, "peak", {
            "pyconv": Timing("ok", rounds=[1.0]), "torch": Timing("ok", rounds=[seconds]),
        })
        for layer, seconds in zip(each, (8.0, 2.0), strict=True)
    ]  # fmt: skip
    summaries = report(*some).summaries(1)
    assert {title: pytest.approx(s.ratio) for title, s in summaries.items()} == {
        "Depthwise": 4, "Depthwise: input": 8, "Depthwise: weights": 2, "everything together": 4,
    }  # fmt: skip


# --- reports


class Page(HTMLParser):
    """What a page refers to, and the texts it shows."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_self_contained_and_shows_every_layer():
    several = [result(f"layer_{i}", 1.0, torch=i / 4 + 0.1) for i in range(12)]
    several[3].timings["torch"].fail("crashed", "with <SIGSEGV>")
    several.append(result("small", 1e-6, group="overhead", torch=2e-6))
    text = render(report(*several))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"@import|url\(|https?:", text)
    assert "prefers-color-scheme: dark" in text
    assert page.tags.count("svg") == 2
    for r in several:
        assert page.texts.count(r.layer.name) >= 2  # in a chart and in a table
    assert "pyconv bench: A <fast> one" in page.texts
    assert "torch crashed" in page.texts
    assert "float32 peak 100" in page.texts


def test_the_tables(capsys):
    one = [result("a", 1.0, torch=2.0, ort=4.0), result("b", 1.0, torch=0.5)]
    one[1].timings["ort"] = Timing("unsupported", "has no such operator")
    two = [result("a", 0.5, threads=2, torch=2.0)]
    print_report(report(*one, *two), worst=True)
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["a", "2", "0%", "50%", "peak", "2", "1", "0.5", "torch", "2.00"] in lines
    assert ["b", "2", "0%", "50%", "peak", "2", "4", "torch", "0.50"] in lines
    assert ["everything", "together", "1.00", "2", "1.00", "1", "0.50", "b"] in lines
    assert "ort: unsupported: has no such operator (b)" in out
    assert out.index("The lowest ratios") < out.rindex("0.50")


# --- regret

LINE = layers.conv("1d-3d", "line", (1, 2, 40), 3, 4, padding=2)


def test_layers_with_a_choice():
    drawn = regret.draw(5, 1, suits=lambda layer: layer.operator != "standard")
    assert drawn == regret.draw(7, 1, suits=lambda layer: layer.operator != "standard")[:5]
    assert len(drawn) == 5
    for layer in drawn:
        assert layer.operator != "standard"
        assert len(regret.allowed(layer)) > 1
        assert "auto" not in regret.allowed(layer)
    assert regret.draw(1, 1, ["deformable"]) == []  # there is but one
    assert regret.allowed(layers.conv("3x3", "s3", (1, 2, 9, 9), 3, 3, stride=3)) == [
        "direct",
        "fft",
    ]


@pytest.mark.parametrize(("slow", "timed"), [(0, True), (0.01, False)])
def test_regret_is_the_time_of_the_choice_over_the_fastest(slow, timed, monkeypatch):
    seconds = {"direct": 3e-3, "winograd": 1e-3, "fft": 1e-3 + slow}
    calls = []

    def run(plan, given):
        assert given[0].shape == LINE.shapes["x"]
        return plan.algorithm

    def fake(algorithm, time):
        calls.append((algorithm, time))
        return {"median": seconds[algorithm]}

    monkeypatch.setattr(regret, "_run", run)
    monkeypatch.setattr(worker, "measure", fake)
    found = regret.measure(LINE, 1, Settings(3, 0.5))
    chosen = found.chosen
    assert chosen == pyconv.get("standard").plan((1, 2, 40), LINE.arrays()["weight"]).algorithm
    assert found.seconds[chosen] == seconds[chosen]
    assert ("fft" in found.seconds) == timed
    assert found.value == seconds[chosen] / 1e-3
    assert found.best in ("winograd", "fft") if timed else found.best == "winograd"
    assert sum(time == 0.5 for _, time in calls) == 3 * len(found.seconds)


def test_the_tables_of_regrets(capsys):
    some = [
        regret.Regret(DENSE, 1, "direct", {"direct": 4.0, "winograd": 1.0}),
        regret.Regret(LINE, 1, "winograd", {"direct": 4.0, "winograd": 1.0}),
    ]
    print_regrets(some)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1-D", "and", "3-D", "1", "1.00", "0", "1.00"] in lines
    assert ["everything", "together", "2", "2.00", "1", "4.00"] in lines
    assert lines[-2][:4] == ["4.00", "direct", "winograd", "dense"]
    assert lines[-1][:4] == ["1.00", "winograd", "winograd", "line"]


def test_bench_regret(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(random_layers, "MACS", (1e3, 1e5))
    data = tmp_path / "regret.json"
    status, out, err = run(
        capsys, "--regret", 2, "--seed", 1, "--class", "1d-3d", "--rounds", 1, "--time", 1e-4,
        "--threads", 1, "--json", data,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "The worst choices: 1 thread" in out
    results = json.loads(data.read_text())["results"]
    assert len(results) == 2
    for entry in results:
        assert entry["regret"] == entry["seconds"][entry["chosen"]] / min(entry["seconds"].values())
    status, out, _ = run(capsys, "--regret", 2, "--seed", 1, "--list", "atrous")
    assert status == 0
    assert out.count("dilated:") == 2


# --- the command


def test_bench_prints_and_writes_everything(quick, capsys, tmp_path):
    data, page = tmp_path / "bench.json", tmp_path / "bench.html"
    status, out, err = run(
        capsys, "--peers", "--rounds", 2, "--time", 0.001, "--threads", 1,
        "--json", data, "--html", page,
    )  # fmt: skip
    assert status == 1  # torch is wrong
    assert "torch is wrong on dense: differs from the definition" in err
    assert "torch_cl crashed on dense" in err
    assert "dense" in out
    assert "multiply-add peak" in out
    found = json.loads(data.read_text())
    assert [entry["layer"] for entry in found["results"]] == ["dense", "channels"]
    assert len(found["results"][0]["timings"]["ort"]["rounds"]) == 2
    assert found["implementations"]["ort"] == "ort 1.0"
    assert found["machine"]["cpus"] >= 1
    assert "channels" in page.read_text()


def test_bench_of_pyconv_alone(quick, capsys):
    status, out, err = run(capsys, "depthwise", "--rounds", 1, "--time", 0.001, "--threads", "1,2")
    assert (status, err) == (0, "")
    assert "channels" in out
    assert "dense" not in out
    assert out.count("Depthwise: ") == 2


def test_bench_of_gradients(quick, capsys, tmp_path):
    data, page = tmp_path / "bench.json", tmp_path / "bench.html"
    status, out, err = run(
        capsys, "--backward", "--peers", "--rounds", 1, "--time", 0.001, "--threads", 1,
        "--class", "depthwise", "--json", data, "--html", page,
    )  # fmt: skip
    assert status == 1  # torch is wrong
    assert "torch is wrong on channels.weight: differs from the definition" in err
    assert "Depthwise: 1 thread" in out
    assert "ort" not in out
    found = json.loads(data.read_text())
    assert [(r["layer"], r["needs"]) for r in found["results"]] == [
        ("channels.x", ["x"]), ("channels.weight", ["weight"]),
    ]  # fmt: skip
    assert found["settings"]["backward"]
    assert set(found["implementations"]) == {"pyconv", "pyconv_call", "torch", "torch_cl"}
    assert "pyconv bench, gradients: " in page.read_text()


def test_operators_without_layers_run_their_examples(quick, capsys):
    status, out, _ = run(capsys, "spatially_separable", "--rounds", 1, "--time", 0.001)
    assert status == 0
    for case in pyconv.get("spatially_separable").cases():
        assert f"spatially_separable: {case.name}" in out


def test_bench_list(capsys):
    status, out, _ = run(capsys, "--list", "--class", "deformable", "--layers", "*_14*")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "layer", "dcn_r50_14", "dcn_r50_14_n8",
    ]  # fmt: skip
    status, out, _ = run(capsys, "--list", "atrous", "--dtype", "float64")
    assert status == 0
    assert all("float64" in line for line in out.splitlines()[1:])
    status, out, _ = run(capsys, "--list", "--random", 6, "--seed", 1, "--class", "1x1")
    assert out.count("random_1_") == 6
    status, out, _ = run(
        capsys, "--list", "--random", 6, "--seed", 1, "--backward", "--class", "dense-weight"
    )
    lines = out.splitlines()[1:]
    assert [line.split()[0].rpartition("_")[2] for line in lines] == [
        "3x3.weight", "1x1.weight", "strided.weight", "dilated.weight", "3x3.weight", "1x1.weight",
    ]  # fmt: skip
    assert all(line.endswith("gradients of weight") for line in lines)


@pytest.mark.parametrize(
    "argv",
    [
        ["--threads", "0"],
        ["--threads", "1,x"],
        ["--rounds", "0"],
        ["--time", "nan"],
        ["--time", "-1"],
        ["--dtype", "float16"],
        ["--class", "4x4"],
        ["--class", "image", "--random", "3"],
        ["--class", "3x3-input"],
        ["--class", "direct", "--backward"],
        ["--class", "image", "--random", "3", "--backward"],
        ["--regret", "0"],
        ["--regret", "3", "--backward"],
        ["--regret", "3", "--class", "direct"],
        ["--regret", "1", "--class", "deformable"],
        ["--layers", "no_such_layer"],
        ["--random", "many"],
        ["--python", "python3"],
        ["--peers", "--python", "no-such-python"],
        ["no_such_operator"],
    ],
)
def test_bad_usage_is_one_line(capsys, argv):
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert err.startswith("pyconv: error: ")
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_found_out_first(quick, capsys, tmp_path):
    status, out, err = run(capsys, "--json", tmp_path / "none" / "bench.json")
    assert (status, out) == (1, "")
    assert "no such directory" in err


def test_peers_without_any_installed(quick, capsys, tmp_path, monkeypatch):
    program = tmp_path / "none.py"
    program.write_text(
        FAKES.format(worker=worker.__file__).replace('NAME == "ncnn"', 'not NAME.startswith("py")')
    )
    monkeypatch.setattr(runner, "Runner", functools.partial(Runner, program=str(program)))
    status, _, err = run(capsys, "--peers")
    assert status == 1
    assert "no other library is there to compare with" in err
