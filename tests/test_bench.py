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
from pyconv.bench import layers, machine, processes, random_layers, runner
from pyconv.bench.exact import exact
from pyconv.bench.machine import Limits
from pyconv.bench.peers import worker
from pyconv.bench.report_html import render
from pyconv.bench.report_text import print_report
from pyconv.bench.results import LayerResult, Report, Timing, geometric_mean, summarize
from pyconv.bench.runner import Runner, Settings
from pyconv.cli import main

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
        assert runner._cost(layer).macs > 0
        assert runner._description(layer)["kind"] is not None


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
        assert random_layers.MACS[0] <= runner._cost(layer).macs <= random_layers.MACS[1]
        runner._description(layer)


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
    np.testing.assert_allclose(by_plan.y, right.y, atol=1e-12)
    assert right.error(right.y + 1.1 * right.bound) == pytest.approx(1.1)
    assert right.error(right.y[:, :1]) == right.error(right.y * math.nan) == math.inf


@pytest.mark.parametrize("by_definition", [True, False])
def test_two_libraries_that_agree_overrule_pyconv_as_its_own_judge(by_definition, tmp_path):
    y = np.ones((1, 2))
    for name, value in {"pyconv": y, "torch": 2 * y, "torch_cl": 2 * y, "ort": 2 * y}.items():
        np.save(tmp_path / f"{name}.npy", value)

    def statuses(*names):
        timings = {name: Timing("ok") for name in names}
        right = runner.Exact(y, 1e-3, by_definition)
        runner._compare(right, timings, lambda name: tmp_path / f"{name}.npy")
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
