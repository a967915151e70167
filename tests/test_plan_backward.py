"""Gradients by plans: those of the operator, with less work."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import engine

from . import calls
from .test_backward import array_at, entries, grad_for


def planned(call, **extra):
    """The plan of a call, and the arrays that it takes at each."""
    later = call.operator.per_call
    args, kwargs = call.arguments(skip=later)
    plan = call.operator.plan(call.arrays["x"].shape, *args, **{**kwargs, **extra})
    return plan, [call.arrays[key] for key in later]


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_the_same_bits(name):
    """As those of the operator, for whatever is asked for, again and again."""

    @calls.examples(30)
    @given(calls.calls(name))
    def test(call):
        grad = grad_for(call)
        every = call.backward(grad)
        plan, later = planned(call)
        names = list(every)
        for needs in (names[:1], None, names[1:], (), names[0], None):
            got = plan.backward(grad, *later, needs=needs)
            wanted = names if needs is None else [needs] if isinstance(needs, str) else needs
            assert list(got) == list(wanted)
            for entry in entries(call):
                if entry[0] in got:
                    assert calls.same_bits(array_at(got, entry), array_at(every, entry)), entry

    test()


LAYERS = [
    ("standard", (2, 24, 17, 15), (20, 24, 3, 3), {"padding": 1}),
    ("standard", (2, 24, 17, 15), (20, 24, 3, 3), {"padding": 1, "stride": 2}),
    ("standard", (2, 6, 9, 8), (5, 6, 3, 2), {"padding": 1, "padding_mode": "reflect"}),
    ("standard", (1, 2, 41, 39), (2, 2, 33, 35), {"padding": "same", "algorithm": "fft"}),
    ("dilated", (2, 16, 17, 15), (20, 16, 3, 3), {"padding": 2, "dilation": 2}),
    ("pointwise", (2, 9, 7, 5), (11, 9, 1, 1), {}),
    ("depthwise", (2, 9, 17, 15), (9, 1, 3, 3), {"padding": 1}),
    ("transposed", (2, 24, 9, 8), (24, 20, 3, 3), {"padding": 1}),
    ("transposed", (2, 12, 9, 8), (12, 10, 4, 4), {"padding": 1, "stride": 2}),
    ("deformable", (2, 6, 9, 8), (5, 6, 3, 3), {"padding": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer[0]} {layer[2]}")
def test_layers(layer, dtype):
    """Larger ones, on any number of threads, and in a small workspace."""
    name, x, weight, params = layer
    call = calls.fixed(name, x, weight, dtype=dtype, bias=False, **params)
    grad = grad_for(call)
    for extra in ({}, {"threads": 1}, {"threads": 2}, {"max_workspace": 2**20}):
        wanted = call.backward(grad, **extra)
        plan, later = planned(call, **extra)
        got = plan.backward(grad, *later)
        for key in wanted:
            assert calls.same_bits(got[key], wanted[key]), (key, extra)


def test_from_many_threads():
    call = calls.fixed("standard", (1, 32, 14, 14), (32, 32, 3, 3), padding=1)
    grad = grad_for(call)
    wanted = call.backward(grad)
    plan, later = planned(call)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(plan.backward, grad, *later) for _ in range(12)]
        for run in runs:
            assert all(calls.same_bits(run.result()[key], wanted[key]) for key in wanted)


ENGINE = ("input_gradient", "weight_gradient", "bias_gradient", "pack_for_adjoint")


@pytest.fixture
def counted(monkeypatch):
    """How often the engine has been called, by name."""
    made = dict.fromkeys(ENGINE, 0)

    def counting(name, function):
        def count(*args, **kwargs):
            made[name] += 1
            return function(*args, **kwargs)

        return count

    for name in ENGINE:
        monkeypatch.setattr(engine, name, counting(name, getattr(engine, name)))
    return made


def test_only_what_is_needed_is_done(counted):
    call = calls.fixed("standard", (1, 4, 9, 8), (5, 4, 3, 3))
    grad = grad_for(call)
    plan, later = planned(call)
    steps = {"x": "input_gradient", "weight": "weight_gradient", "bias": "bias_gradient"}
    for count in range(4):
        for needs in itertools.combinations(steps, count):
            for way in (call.backward, lambda g, needs: plan.backward(g, *later, needs=needs)):
                counted.update(dict.fromkeys(steps.values(), 0))
                way(grad, needs=needs)
                assert {n: counted[steps[n]] for n in steps} == {n: n in needs for n in steps}


def test_weights_are_packed_once_and_when_they_are_needed(counted):
    call = calls.fixed("standard", (1, 24, 15, 14), (20, 24, 3, 3), padding=1)
    grad = grad_for(call)
    plan, later = planned(call)
    plan(*later)
    plan.backward(grad, *later, needs=("weight", "bias"))
    assert counted["pack_for_adjoint"] == 0
    for _ in range(3):
        plan.backward(grad, *later)
    assert counted["pack_for_adjoint"] == 1


def test_direct_stays_direct(monkeypatch):
    """Gradients of dense 3x3 kernels may be transformed, unless that is not wanted."""
    taken = []
    for module in (engine._winograd, engine._winograd_lanes):
        monkeypatch.setattr(
            module, "correlate",
            lambda *a, kernel=module.correlate, **k: taken.append(1) or kernel(*a, **k),
        )  # fmt: skip
    for name in ("standard", "transposed"):
        for stride, algorithm in itertools.product((1, 2), ("auto", "direct", "winograd")):
            call = calls.fixed(
                name, (1, 64, 28, 28), (64, 64, 3, 3), padding=1, stride=stride,
                algorithm=algorithm, bias=False,
            )  # fmt: skip
            grad = grad_for(call)
            taken.clear()
            call.backward(grad, needs="x")
            if algorithm == "direct":
                assert not taken, name
            elif algorithm == "winograd" or stride == 1:
                assert taken, name


@pytest.mark.parametrize("name", ["standard", "grouped", "dilated", "transposed"])
def test_algorithms_agree(name):
    """Transformed gradients of inputs are those by the taps, in every geometry that is taken."""
    seen = set()

    @calls.examples(40)
    @given(st.data())
    def test(data):
        rank = data.draw(st.sampled_from([1, 2, 3]))
        kernel = data.draw(st.tuples(*[st.integers(1, 4)] * rank))
        pads = data.draw(st.tuples(*[st.tuples(*[st.integers(-1, 3)] * 2)] * rank))
        groups = 1 if name == "standard" else data.draw(st.integers(1, 2))
        params = {
            "padding": pads,
            "stride": data.draw(st.sampled_from([1, 1, 2])),
            "groups": groups,
            "dilation": data.draw(st.sampled_from([1, 2])),
            "flip": data.draw(st.booleans()),
            "layout": data.draw(st.sampled_from(calls.LAYOUTS)),
        }
        size, ins, outs = (9, 11, 10)[:rank], 3 * groups, 5 * groups
        weight = (ins, outs // groups) if name == "transposed" else (outs, ins // groups)
        call = calls.fixed(
            name, (2, ins, *size), (*weight, *kernel), dtype="float64", bias=False, **params
        )
        grad = grad_for(call)
        direct = call.backward(grad, needs="x", algorithm="direct")["x"]
        for algorithm in call.operator.algorithms:
            try:
                other = call.backward(grad, needs="x", algorithm=algorithm)["x"]
            except ValueError:
                continue  # it is not for this shape
            seen.add((algorithm, params["stride"]))
            np.testing.assert_allclose(other, direct, rtol=0, atol=1e-11)

    test()
    assert {("winograd", 1), ("winograd", 2)} <= seen


def test_keywords_and_optional_arrays():
    call = calls.fixed("deformable", (2, 4, 7, 6), (3, 4, 3, 2), mask=False)
    grad, plan = grad_for(call), planned(call)[0]
    x, offset = call.arrays["x"], call.arrays["offset"]
    wanted = call.backward(grad)
    for got in (
        plan.backward(grad, x, offset),
        plan.backward(grad, x, offset, None),
        plan.backward(grad, mask=None, offset=offset, x=x),
    ):
        assert list(got) == list(wanted) == ["x", "offset", "weight", "bias"]
        assert all(calls.same_bits(got[key], wanted[key]) for key in wanted)


X, WEIGHT, GRAD = np.ones((1, 5)), np.ones((2, 1, 3)), np.ones((2, 3))


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        (
            (GRAD[:1], X),
            {},
            ValueError,
            r"grad must have the result's shape \(2, 3\); got \(1, 3\)",
        ),
        ((GRAD.astype("f4"), X), {}, TypeError, "grad must have the plan's dtype float64"),
        ((GRAD.tolist(), X), {}, TypeError, "grad must be an array"),
        ((None, X), {}, TypeError, "grad must be an array; got None"),
        ((GRAD,), {}, TypeError, "x must be given"),
        ((GRAD, X[:, :4]), {}, ValueError, r"x must have the plan's shape \(1, 5\); got \(1, 4\)"),
        (
            (GRAD, X.astype("f4")),
            {},
            TypeError,
            "x must have the plan's dtype float64; got float32",
        ),
        ((GRAD, X, WEIGHT), {}, TypeError, "this plan takes x; got 2 arrays"),
        ((GRAD, X), {"out": GRAD}, TypeError, "this plan takes x"),
        ((GRAD, X), {"needs": "bias"}, ValueError, r"needs must name arrays that were given"),
        ((GRAD, X), {"needs": 3}, TypeError, "needs must be argument names; got 3"),
    ],
)
def test_refusals(args, kwargs, error, message):
    plan = pyconv.get("standard").plan(X.shape, WEIGHT)
    with pytest.raises(error, match=f"^standard: .*{message}"):
        plan.backward(*args, **kwargs)


def test_a_plugin_without_prepared_gradients():
    """Its ``gradients`` of five arguments is what a plan calls."""

    class Doubled(type(pyconv.get("standard"))):
        name = "doubled"

        def gradients(self, problem, grad, arrays, out, run):
            twice = {**arrays, "weight": 2 * arrays["weight"]}
            super().gradients(problem, grad, twice, out, run)

    op = Doubled()
    plan = op.plan(X.shape, WEIGHT)
    for key, value in op.backward(GRAD, X, WEIGHT).items():
        assert calls.same_bits(plan.backward(GRAD, X)[key], value)
    assert plan.backward(GRAD, X)["x"][0, 2] == 12
