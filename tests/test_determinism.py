"""The same bits: for any threads, batch, strides and instruction set, from plans, and again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyconv._kernels import _cpu

from . import calls
from .calls import fixed
from .test_backward import batched

#: Millions of multiply-adds each: there is a thread for every million floating point operations.
LARGE = {
    "standard": fixed("standard", (3, 19, 37, 41), (35, 19, 3, 3), padding=1),
    "standard, few pixels": fixed("standard", (2, 260, 7, 5), (205, 260, 3, 3), padding=1),
    "standard, fewer channels": fixed("standard", (2, 60, 7, 5), (45, 60, 3, 3), padding=1),
    "standard, long": fixed("standard", (2, 5, 60_001), (7, 5, 5), padding="same"),
    "standard, reflect": fixed(
        "standard", (2, 13, 61, 53), (17, 13, 3, 3),
        padding=3, padding_mode="reflect", stride=(1, 2),
    ),
    "standard, 3-D": fixed("standard", (2, 9, 13, 17, 19), (11, 9, 3, 3, 3), padding="same"),
    "pointwise": fixed("pointwise", (3, 67, 37, 41), (45, 67)),
    "pointwise, channels last": fixed(
        "pointwise", (2, 67, 37, 41), (45, 67), layout="channels_last"
    ),
    "grouped": fixed("grouped", (2, 38, 43, 41), (22, 19, 3, 3), groups=2, padding=1),
    "depthwise": fixed("depthwise", (3, 29, 97, 101), (58, 1, 3, 3), padding=1),
    "depthwise, strided": fixed(
        "depthwise", (2, 61, 131, 127), (61, 1, 5, 5), padding="same", stride=2
    ),
    "depthwise, channels last": fixed(
        "depthwise", (2, 37, 97, 101), (37, 1, 3, 3), padding=1, layout="channels_last"
    ),
    "depthwise, one plane": fixed("depthwise", (1, 1, 901, 1003), (1, 1, 3, 3), padding=1),
    "separable": fixed(
        "depthwise_separable", (2, 23, 101, 97), (23, 1, 3, 3), (19, 23), padding=1
    ),
    "spatially separable": fixed(
        "spatially_separable", (2, 13, 101, 97), (11, 13, 3, 1), (12, 11, 1, 3), padding=1
    ),
    "dilated": fixed("dilated", (2, 21, 53, 47), (23, 21, 3, 3), padding=6, dilation=(2, 3)),
    "transposed": fixed("transposed", (2, 43, 29, 31), (43, 21, 4, 4), padding=1, stride=2),
    "transposed, few channels": fixed(
        "transposed", (2, 5, 83, 87), (5, 6, 5, 5), padding=1, stride=(2, 3)
    ),
    "deformable": fixed("deformable", (2, 22, 37, 41), (17, 22, 3, 3), padding=1, offset_groups=2),
    "deformable, one channel": fixed("deformable", (1, 1, 301, 303), (9, 1, 3, 3), padding=1),
    "deformable, float64": fixed(
        "deformable", (2, 12, 59, 53), (30, 6, 3, 3), padding=1, dtype="float64"
    ),
    "deformable, float16": fixed(
        "deformable", (2, 12, 59, 53), (30, 6, 3, 3), padding=1, dtype="float16"
    ),
    "standard, bfloat16": fixed(
        "standard", (3, 19, 37, 41), (35, 19, 3, 3), padding=1, dtype="bfloat16"
    ),
    "standard, float64": fixed(
        "standard", (3, 19, 37, 41), (35, 19, 3, 3), padding=1, dtype="float64"
    ),
}  # fmt: skip

#: (case, algorithm), for all algorithms. Transforms of 53000 kernels would take minutes: there is a
#: case of fewer channels for them.
RUNS = [
    (key, name)
    for key, call in LARGE.items()
    for name in call.algorithms
    if (key, name) != ("standard, few pixels", "fft")
]


def grad_for(call, result=None):
    shape = (call.run() if result is None else result).shape
    return np.random.default_rng(1).standard_normal(shape).astype(call.dtype)


def flat(result):
    """Arrays by name, of a result or of gradients."""
    if not isinstance(result, dict):
        return {"result": result}
    return {
        f"{key} {i}": array
        for key, value in result.items()
        for i, array in enumerate(value if isinstance(value, tuple) else (value,))
    }


def assert_same(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    different = [key for key in a if not calls.same_bits(a[key], b[key])]
    assert not different


# --- threads, runs, plans -----------------------------------------------------------------------


@pytest.mark.parametrize(("key", "algorithm"), RUNS)
def test_threads(key, algorithm):
    """Any number of threads, and the same number twice."""
    call = LARGE[key].with_params(algorithm=algorithm)
    y = call.run(threads=1)
    grad = grad_for(call, y)
    gradients = call.backward(grad, threads=1)
    for threads in (2, 3, 8, 8):
        assert_same(call.run(threads=threads), y)
        assert_same(call.backward(grad, threads=threads), gradients)


@pytest.mark.parametrize("key", LARGE)
def test_threads_with_little_workspace(key):
    """What is split into parts that fit is not split differently for more threads."""
    call = LARGE[key].with_params(max_workspace=2**19)
    y = call.run(threads=1)
    grad = grad_for(call, y)
    gradients = call.backward(grad, threads=1)
    for threads in (2, 8):
        assert_same(call.run(threads=threads), y)
        assert_same(call.backward(grad, threads=threads), gradients)


@pytest.mark.parametrize(("key", "algorithm"), RUNS)
def test_plans(key, algorithm):
    call = LARGE[key].with_params(algorithm=algorithm)
    assert_same(call.run_plan(), call.run())
    assert_same(call.run_plan(threads=3), call.run())


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_plans_of_any_call(name):
    @calls.examples(40)
    @given(calls.calls(name))
    def test(call):
        y = call.run()
        assert_same(call.run_plan(), y)
        out = np.full_like(y, 7)
        assert call.run(out=out) is out
        assert_same(out, y)

    test()


@pytest.mark.parametrize("key", LARGE)
def test_a_plan_keeps_its_weights(key):
    """What happens to the arrays that it was made of changes nothing."""
    call = LARGE[key].map(np.copy)
    later = call.operator.per_call
    args, kwargs = call.arguments(skip=later)
    plan = call.operator.plan(call.arrays["x"].shape, *args, **kwargs)
    y = call.run()
    call.map(lambda array: array.fill(7), [name for name in call.arrays if name not in later])
    assert_same(plan(*(call.arrays[name] for name in later)), y)


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_a_plan_of_many_threads(name):
    """One plan, called at the same time from several threads."""
    call = LARGE[next(key for key, call in LARGE.items() if call.name == name)]
    later = call.operator.per_call
    args, kwargs = call.arguments(skip=later)
    plan = call.operator.plan(call.arrays["x"].shape, *args, **kwargs)
    y, results = call.run(), [None] * 4

    def work(i):
        results[i] = plan(*(call.arrays[key] for key in later))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(results))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        assert_same(result, y)


# --- batches ------------------------------------------------------------------------------------


def check_samples(call):
    """Every sample alone gives what it gives in the batch."""
    y = call.run()
    grad = grad_for(call, y)
    images = [key for key in calls.IMAGES if call.arrays.get(key) is not None]
    gradients = call.backward(grad, needs=images)
    for n in range(len(y)):
        alone = call.sample(n)
        assert_same(alone.run(), y[n : n + 1])
        own = alone.backward(grad[n : n + 1], needs=images)
        assert_same(own, {key: gradients[key][n : n + 1] for key in images})


@pytest.mark.parametrize(("key", "algorithm"), RUNS)
def test_samples(key, algorithm):
    call = LARGE[key].with_params(algorithm=algorithm)
    check_samples(call.map(lambda array: np.concatenate([array, array[::-1]]), calls.IMAGES))


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_samples_of_any_call(name):
    @calls.examples(40)
    @given(calls.calls(name).filter(batched))
    def test(call):
        check_samples(call)

    test()


def test_a_large_batch_is_its_samples():
    """Nor does the batch change the algorithm."""
    for name in calls.OPERATORS:
        call = LARGE[next(key for key, call in LARGE.items() if call.name == name)]
        one = call.sample(0)
        many = one.map(lambda array: np.repeat(array, 17, 0), calls.IMAGES)
        y = many.run()
        for n in (0, 8, 16):
            assert_same(one.run(), y[n : n + 1])


#: Calls with images that are larger than the workspace below, and padding that is a copy.
PADDED = {
    (name, mode): fixed(name, *shapes, padding=3, padding_mode=mode)
    for name, shapes in {
        "standard": ((4, 5, 31, 29), (6, 5, 3, 3)),
        "depthwise": ((4, 5, 31, 29), (10, 1, 3, 3)),
        "depthwise_separable": ((4, 5, 31, 29), (10, 1, 3, 3), (4, 10)),
        "spatially_separable": ((4, 5, 31, 29), (6, 5, 3, 1), (4, 6, 1, 3)),
    }.items()
    for mode in ("zeros", "reflect", "replicate", "circular", "symmetric")
}
OTHERS = {
    ("transposed", ""): fixed("transposed", (4, 7, 11, 13), (7, 6, 5, 3), stride=2),
    ("deformable", "float32"): fixed("deformable", (4, 8, 21, 23), (6, 4, 3, 3), offset_groups=2),
    ("deformable", "float16"): fixed("deformable", (4, 8, 21, 23), (6, 4, 3, 3), dtype="float16"),
}
LITTLE = PADDED | OTHERS


@pytest.mark.parametrize("key", LITTLE, ids=" ".join)
def test_little_workspace(key):
    """The same bits for any threads and batch where the work has to be done in pieces."""
    call = LITTLE[key]
    images = [name for name in calls.IMAGES if call.arrays.get(name) is not None]
    for workspace in (2**14, 2**15, 2**16, 2**17, 2**18):
        few = call.with_params(max_workspace=workspace)
        try:
            y = few.run(threads=1)
            grad = grad_for(few, y)
            gradients = few.backward(grad, threads=1)
        except ValueError as error:
            if "max_workspace" not in str(error):
                raise
            continue
        for threads in (2, 8):
            assert_same(few.run(threads=threads), y)
            assert_same(few.backward(grad, threads=threads), gradients)
        for n in range(len(y)):
            alone = few.sample(n)
            assert_same(alone.run(), y[n : n + 1])
            own = alone.backward(grad[n : n + 1], needs=images)
            assert_same(own, {name: gradients[name][n : n + 1] for name in images})


#: Calls with enough channels side by side to sample them as vectors, and odd numbers of them.
SAMPLED = {
    "1-D": fixed("deformable", (3, 24, 650), (5, 24, 5), padding=2),
    "2-D": fixed("deformable", (3, 38, 23, 21), (6, 19, 3, 3), padding=1, offset_groups=2),
    "3-D": fixed("deformable", (3, 17, 11, 8, 13), (4, 17, 2, 2, 2), padding=1, mask=False),
    "long": fixed("deformable", (2, 301, 8, 9), (4, 301, 3, 2), padding=1),
    "float64": fixed("deformable", (3, 21, 29, 27), (7, 21, 3, 3), padding=1, dtype="float64"),
    "float16": fixed("deformable", (3, 21, 29, 27), (7, 21, 3, 3), padding=1, dtype="float16"),
}


@pytest.mark.parametrize("key", SAMPLED)
def test_deformable_samples_any_way(key):
    """By channels as they lie, by channels in workspace, by single channels: the same bits."""
    call = SAMPLED[key].map(np.copy, calls.IMAGES)
    x, offset, mask = (call.arrays[name] for name in calls.IMAGES)
    for every, value in ((97, np.nan), (89, np.inf), (83, -np.inf), (79, 6e4)):
        offset.flat[::every] = value
    x.flat[:: x.size // 5] = np.inf  # a corner outside must not make it a NaN
    if mask is not None:
        mask.flat[::101] = np.nan
    with np.errstate(invalid="ignore"):
        y = call.run()
        assert np.isfinite(y).any()
        size = x[:1].size * max(4, x.itemsize)
        ways = [call.put("x", x.astype(x.dtype.newbyteorder())), call.put("x", spread(x))]
        ways += [call.put("x", np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1))]
        for way in (call, *ways):
            assert_same(way.run(), y)
            assert_same(way.run(threads=3), y)
            accepted = []
            for quarters in (3, 4, 5, 6, 7, 8, 9, 12, 16, 36):
                budget = size * quarters // 4
                try:
                    assert_same(way.run(max_workspace=budget, threads=1 + quarters % 2), y)
                except ValueError as error:
                    assert "max_workspace" in str(error), error
                    continue
                accepted.append(budget)
            assert min(accepted) < 2 * size, "never too small for an image in another order"


# --- strides ------------------------------------------------------------------------------------


def spread(array):
    """Every second element along each axis of a larger array."""
    large = np.full([2 * n for n in array.shape], 99, array.dtype)
    view = large[(slice(1, None, 2),) * array.ndim]
    view[...] = array
    return view


def reversed_view(array):
    """Negative strides on every axis."""
    backwards = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[backwards])[backwards]


def transposed_memory(array):
    """The first axis is the one that is contiguous."""
    return np.asfortranarray(array)


def rotated_memory(array):
    """Memory order of the axes: 1, 2, ..., 0."""
    order = np.roll(np.arange(array.ndim), -1)
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def channels_inside(array):
    """Channels last in memory, as `numpy.moveaxis` leaves an image."""
    if array.ndim < 3:
        return rotated_memory(array)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def swapped_channels(array):
    """Channels in another order in memory, selected back by a negative stride."""
    axis = min(1, array.ndim - 1)
    return np.flip(np.ascontiguousarray(np.flip(array, axis)), axis)


def unaligned(array):
    """One byte off."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = np.frombuffer(memory.data, array.dtype, array.size, 1).reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


WAYS = (
    spread,
    reversed_view,
    transposed_memory,
    rotated_memory,
    channels_inside,
    swapped_channels,
    unaligned,
    read_only,
)


def check_strides(call, ways):
    y = call.run()
    grad = grad_for(call, y)
    gradients = call.backward(grad)
    for way in ways:
        other = call.map(way)
        assert_same(other.run(), y)
        assert_same(other.backward(way(grad)), gradients)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", LARGE)
def test_strides(key, way):
    check_strides(LARGE[key], [way])


@pytest.mark.parametrize(("key", "algorithm"), RUNS)
def test_results_in_another_order_than_images(key, algorithm):
    call = LARGE[key].with_params(algorithm=algorithm)
    y = call.run()
    for way in (transposed_memory, channels_inside):
        out = way(np.full_like(y, 7))
        call.run(out=out)
        assert_same(out, y)


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_strides_of_any_call(name):
    @calls.examples(30)
    @given(calls.calls(name), st.sampled_from(WAYS))
    def test(call, way):
        check_strides(call, [way])

    test()


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_broadcast_arrays(name):
    """Strides of 0, in the batch and in the gradient."""
    call = LARGE[next(key for key, call in LARGE.items() if call.name == name)]
    still = call.map(lambda a: np.broadcast_to(a[:1], (3, *a.shape[1:])), calls.IMAGES)
    full = still.map(np.ascontiguousarray)
    y = full.run()
    assert_same(still.run(), y)
    one = np.asarray(0.75, call.dtype)
    grad = np.broadcast_to(one, y.shape)
    assert_same(still.backward(grad), full.backward(np.ascontiguousarray(grad)))


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_layouts(name):
    """The result in one layout has the bits of the other's."""
    call = LARGE[next(key for key, call in LARGE.items() if call.name == name)]
    last = call.map(lambda array: np.ascontiguousarray(np.moveaxis(array, 1, -1)), calls.IMAGES)
    last = last.with_params(layout="channels_last")
    y = call.run()
    grad = grad_for(call, y)
    assert_same(np.moveaxis(last.run(), -1, 1), y)
    gradients = last.backward(np.ascontiguousarray(np.moveaxis(grad, 1, -1)))
    for key in calls.IMAGES:
        if key in gradients:
            gradients[key] = np.moveaxis(gradients[key], -1, 1)
    assert_same(gradients, call.backward(grad))


# --- instruction sets ---------------------------------------------------------------------------


@pytest.fixture
def use():
    """`_cpu.use`, undone at the end."""
    before = _cpu.use(_cpu.supported()[0])
    yield _cpu.use
    _cpu.use(before)


def bound(call, grad):
    """Magnitudes of the gradients: those of absolute values, in float64."""
    keys = [key for key in call.arrays if key != "offset"]
    largest = call.astype(np.float64).map(np.abs, keys)
    gradients = flat(largest.backward(np.abs(grad.astype(np.float64))))
    if "offset 0" in gradients:  # not monotonous
        arrays = largest.arrays
        columns = arrays["weight"].sum() * np.abs(grad.astype(float)).max()
        mask = 1 if arrays["mask"] is None else arrays["mask"].max()
        gradients["offset 0"] = np.array(2 * columns * arrays["x"].max() * mask)
    return gradients


@pytest.mark.parametrize("key", LARGE)
def test_instruction_sets(key, use):
    """Each gives the result of float64 within the promise, forward and backward."""
    call = LARGE[key]
    use("base")
    double = call.astype(np.float64)
    exact = double.run()
    magnitude = double.map(np.abs, [key for key in call.arrays if key != "offset"]).run()
    grad = grad_for(call, exact)
    exact_gradients = flat(double.backward(grad.astype(np.float64)))
    magnitudes = bound(call, grad)
    for name in _cpu.supported():
        use(name)
        y = call.run()
        calls.assert_promise(y, exact, magnitude, call.terms, elementwise=False)
        for which, gradient in flat(call.backward(grad)).items():
            calls.assert_promise(
                gradient, exact_gradients[which], np.abs(magnitudes[which]), (1,), elementwise=False
            )


@pytest.mark.parametrize("key", [key for key in LARGE if "depthwise" not in key])
def test_avx2_and_avx512_give_the_same_bits(key, use):
    if not {"avx2", "avx512"} <= set(_cpu.supported()):
        pytest.skip("this CPU has not both, or they are disabled")
    call = LARGE[key]
    results = []
    for name in ("avx2", "avx512"):
        use(name)
        results.append(call.run())
    assert_same(*results)


@pytest.mark.parametrize("name", calls.OPERATORS)
def test_instruction_sets_of_any_call(name, use):
    """Against the oracle."""

    @calls.examples(40)
    @given(calls.calls(name))
    def test(call):
        expected, magnitude = call.expected("scipy"), call.magnitude()
        for name in _cpu.supported():
            use(name)
            calls.assert_promise(call.run(), expected, magnitude, call.terms, elementwise=False)

    test()


@pytest.mark.parametrize("name", _cpu.supported())
def test_threads_of_every_instruction_set(name, use):
    use(name)
    for call in LARGE.values():
        y = call.run(threads=1)
        assert_same(call.run(threads=8), y)
        check_samples(call)
