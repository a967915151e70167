"""The engine for plugins: kernels from C, ctypes and SciPy, next to operators and plain sums."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from setuptools import Extension

import pyconv
from pyconv import kernels
from pyconv.operator import run_of
from pyconv.testing._memory import allocated

EXAMPLES = Path(__file__).parent.parent / "docs/example_kernels"
CC = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")

# Valid convolution with a k0 x k1 kernel at stride 1, depths (tap, channel); and what goes with it.
SOURCE = """
#include <stddef.h>
typedef ptrdiff_t n_t;
typedef struct { n_t channels, k1, width, outer; } grid;

#define FUNCTIONS(real, SUFFIX)                                                                   \\
static n_t place(const grid *g, const n_t *stride, n_t pixel, n_t tap) {                          \\
    return (pixel / g->width + tap / g->k1) * stride[2]                                           \\
           + (pixel % g->width + tap % g->k1) * stride[3];                                        \\
}                                                                                                 \\
void pack_##SUFFIX(void *context, const real *image, const n_t *stride, n_t n, n_t group,         \\
                   n_t pixel, n_t count, n_t depth, n_t depths, real *panel, n_t step) {          \\
    const grid *g = context;                                                                      \\
    for (n_t k = 0; k < depths; k++)                                                              \\
        for (n_t j = 0; j < count; j++) {                                                         \\
            n_t tap = (depth + k) / g->channels, c = (depth + k) % g->channels;                   \\
            panel[g->outer ? j * step + k : k * step + j] =                                       \\
                image[place(g, stride, pixel + j, tap) + c * stride[0]];                          \\
        }                                                                                         \\
}                                                                                                 \\
void unpack_##SUFFIX(void *context, real *image, const n_t *stride, n_t n, n_t group, n_t pixel,  \\
                     n_t count, n_t channel, n_t channels, const real *columns, n_t step) {       \\
    const grid *g = context;                                                                      \\
    for (n_t tap = 0; tap < g->outer; tap++)                                                      \\
        for (n_t c = channel; c < channel + channels; c++)                                        \\
            for (n_t j = 0; j < count; j++)                                                       \\
                image[place(g, stride, pixel + j, tap) + c * stride[0]] +=                        \\
                    columns[(tap * g->channels + c) * step + j];                                  \\
}                                                                                                 \\
void finish_##SUFFIX(void *context, n_t n, n_t channel, n_t channels, n_t pixel, n_t count,       \\
                     real *tile, n_t channel_step, n_t pixel_step) {                              \\
    for (n_t i = 0; i < channels; i++)                                                            \\
        for (n_t j = 0; j < count; j++) {                                                         \\
            real *at = tile + i * channel_step + j * pixel_step;                                  \\
            *at = *at * 2 + 1000 * n + 100 * (channel + i) + (pixel + j);                         \\
        }                                                                                         \\
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if CC is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("kernels")
    loaded = {}
    for real, suffix in (("float", "f32"), ("double", "f64")):
        path = folder / f"{suffix}.c"
        path.write_text(f"{SOURCE}\nFUNCTIONS({real}, {suffix})\n")
        shared = path.with_suffix(".so")
        subprocess.run([CC, "-O1", "-shared", "-fPIC", path, "-o", shared], check=True)
        loaded[suffix] = ctypes.CDLL(str(shared))
    return loaded


def of(library, role):
    return {
        dtype: getattr(library[suffix], f"{role}_{suffix}")
        for dtype, suffix in (("float32", "f32"), ("float64", "f64"))
    }


def context(channels, taps, width, outer):
    return np.array([channels, taps, width, outer], np.intp)


SHAPE, WEIGHT = (2, 12, 9, 21), (2, 7, 3, 4, 6)  # groups, rows, taps, taps, channels


def problem(dtype=np.float32, shape=SHAPE):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal(WEIGHT).astype(dtype)
    bias = rng.standard_normal(14).astype(dtype)
    out = np.zeros((shape[0], 14, shape[2] - 2, shape[3] - 3), dtype)
    return x, weight, bias, out


def as_usual(weight):
    """Those weights as the operators take them."""
    return np.moveaxis(weight, -1, 2).reshape(14, 6, 3, 4)


def make(library, outer=False, any_strides=False, **more):
    return kernels.kernel(
        pack=of(library, "pack"), context=context(6, 4, 18, outer), pixels_outer=outer,
        any_strides=any_strides, **more,
    )  # fmt: skip


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("last", [False, True])
def test_convolve_is_the_operator(library, outer, dtype, last):
    x, weight, bias, out = problem(dtype)
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2)
    native = np.dtype(dtype).newbyteorder("=")
    out = out.astype(native)
    kernels.convolve(make(library, outer), x, weight, bias, out=out)
    call = [a.astype(np.float64) for a in (x, as_usual(weight), bias)]
    exact = pyconv.conv(*call, groups=2)
    size = pyconv.conv(*map(np.abs, call), groups=2).max()
    u = np.finfo(np.float32 if native.itemsize == 2 else native).eps / 2
    np.testing.assert_allclose(out, exact, rtol=np.finfo(native).eps, atol=32 * u * size)


@pytest.mark.parametrize("any_strides", [False, True])
def test_bits_depend_on_nothing_but_the_values(library, any_strides):
    """Threads, workspace, strides, order of the panels, packed weights and the batch."""
    x, weight, bias, out = problem()
    expected = np.empty_like(out)
    kernels.convolve(make(library), x, weight, bias, out=expected, threads=1)
    spread = np.zeros((4, 12, 18, 63), np.float32)[::2, :, ::2, ::3]
    spread[...] = x
    for outer in (False, True):
        kernel = make(library, outer, any_strides)
        for given in (x, spread, np.asfortranarray(x)):
            for threads, workspace in ((1, None), (3, None), (2, 40_000), (1, 100_000)):
                out[...] = 0
                kernels.convolve(
                    kernel, given, weight, bias, out=out, threads=threads, max_workspace=workspace
                )
                np.testing.assert_array_equal(out, expected)
        run = run_of("test", out.dtype, 1, None)
        packed = kernels.pack_weights(run, weight, out.shape[2:])
        kernels.convolve(kernel, x, weight, bias, out=out, run=run, packed=packed)
        np.testing.assert_array_equal(out, expected)
        one = np.empty_like(out[:1])
        kernels.convolve(kernel, x[1:], weight, bias, out=one)
        np.testing.assert_array_equal(one, expected[1:])


def test_few_pixels_with_rows_in_lanes(library):
    x, weight, bias, out = problem(shape=(3, 12, 4, 5))
    kernel = kernels.kernel(
        pack=of(library, "pack"), finish=of(library, "finish"), context=context(6, 4, 2, 0)
    )
    kernels.convolve(kernel, x, weight, bias, out=out)
    expected = pyconv.conv(x, as_usual(weight), bias, groups=2)
    n, m, i = np.ogrid[:3, :14, :4]
    added = (1000 * n + 100 * m + i).reshape(out.shape)
    np.testing.assert_allclose(out, 2 * expected + added, rtol=1e-5)
    run = run_of("test", out.dtype, 1, None)
    packed = kernels.pack_weights(run, weight, out.shape[2:])
    again = np.empty_like(out)
    kernels.convolve(kernel, x, weight, bias, out=again, run=run, packed=packed)
    np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("last", [False, True])
def test_finish_sees_every_result_once(library, dtype, last):
    x, weight, bias, out = problem(dtype)
    if last:
        out = np.ascontiguousarray(np.moveaxis(out, 1, -1)).transpose(0, 3, 1, 2)
    kernel = make(library, finish=of(library, "finish"))
    for threads in (1, 3):
        kernels.convolve(kernel, x, weight, bias, out=out, threads=threads)
        exact = pyconv.conv(*(a.astype(np.float64) for a in (x, as_usual(weight), bias)), groups=2)
        n, m, i, j = np.indices(out.shape)
        expected = 2 * exact + 1000 * n + 100 * m + (i * out.shape[3] + j)
        np.testing.assert_allclose(out, expected, rtol=8 * np.finfo(dtype).eps, atol=1e-3)


def test_finish_of_a_deep_sum(library):
    """Sums of many blocks are made beside the output."""
    x = np.random.default_rng(0).standard_normal((1, 3000, 2, 5)).astype(np.float32)
    weight = np.random.default_rng(1).standard_normal((1, 5, 1, 3000)).astype(np.float32)
    out = np.empty((1, 5, 2, 5), np.float32)
    kernel = kernels.kernel(
        pack=of(library, "pack"), finish=of(library, "finish"), context=context(3000, 1, 5, 0)
    )
    kernels.convolve(kernel, x, weight, out=out)
    exact = np.einsum("mc,cp->mp", weight[0, :, 0].astype(float), x[0].reshape(3000, 10))
    added = 100 * np.arange(5)[:, None] + np.arange(10)
    np.testing.assert_allclose(out[0].reshape(5, 10), 2 * exact + added, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("last", [False, True])
def test_gradients(library, dtype, last):
    x, weight, _, out = problem(dtype)
    kernel = kernels.kernel(
        pack=of(library, "pack"), unpack=of(library, "unpack"), context=context(6, 4, 18, 0)
    )
    back = kernels.kernel(
        pack=of(library, "pack"), unpack=of(library, "unpack"), context=context(6, 4, 18, 12)
    )  # `outer` is the number of taps for `unpack`
    grad = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    wide = [a.astype(np.float64) for a in (grad, x, as_usual(weight))]
    exact = pyconv.get("standard").backward(*wide, groups=2)
    dx, dw = np.empty_like(x), np.empty_like(weight)
    if last:
        dx = np.ascontiguousarray(np.moveaxis(dx, 1, -1)).transpose(0, 3, 1, 2)
    sizes = pyconv.get("standard").backward(*map(np.abs, wide), groups=2)
    u = np.finfo(np.float64 if dtype is np.float64 else np.float32).eps / 2
    results = []
    for threads in (1, 3):
        kernels.weight_gradient(kernel, x, grad, out=dw, threads=threads)
        kernels.input_gradient(back, weight, grad, out=dx, threads=threads)
        for name, got in (("weight", as_usual(dw)), ("x", dx)):
            bound = 32 * u * sizes[name].max()
            np.testing.assert_allclose(got, exact[name], rtol=np.finfo(dtype).eps, atol=bound)
        results.append((dw.copy(), dx.copy()))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_workspace_is_bounded(library):
    x = np.zeros((1, 6, 300, 303), np.float16)  # 2 MB in float32
    weight = np.zeros((1, 4, 3, 4, 6), np.float16)
    out = np.empty((1, 4, 298, 300), np.float16)
    kernel = kernels.kernel(
        pack=of(library, "pack"), unpack=of(library, "unpack"), context=context(6, 4, 300, 12),
        any_strides=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match="max_workspace must be at least"):
        kernels.convolve(kernel, x, weight, out=out, max_workspace=2**20)
    most = 2**23
    for call in (
        lambda: kernels.convolve(kernel, x, weight, out=out, max_workspace=most),
        lambda: kernels.input_gradient(kernel, weight, out, out=x, max_workspace=most),
    ):
        assert allocated(call) <= most + 2**17


def low_level(function, *types, **user):
    scipy = pytest.importorskip("scipy")
    function.restype, function.argtypes = None, types
    return scipy.LowLevelCallable(function, **user)


N, POINTER = ctypes.c_ssize_t, ctypes.c_void_p
FLOATS, STRIDES = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_ssize_t)
PACK = (POINTER, FLOATS, STRIDES, N, N, N, N, N, N, FLOATS, N)


def test_low_level_callable(library):
    pytest.importorskip("scipy")
    where = context(6, 4, 18, 0)
    user = ctypes.c_void_p(where.ctypes.data)
    pack = low_level(library["f32"].pack_f32, *PACK, user_data=user)
    try:
        x, weight, bias, out = problem()
        expected = out.copy()
        kernels.convolve(kernels.kernel(pack={"float32": pack}), x, weight, bias, out=out)
        kernels.convolve(make(library), x, weight, bias, out=expected)
        np.testing.assert_array_equal(out, expected)
        with pytest.raises(TypeError, match="must have the signature void"):
            kernels.kernel(pack={"float64": pack})  # its values are float
        with pytest.raises(TypeError, match="must have the signature void"):
            kernels.kernel(pack={"float32": pack}, finish={"float32": pack})
    finally:
        library["f32"].pack_f32.argtypes = None


def test_ctypes_function_of_python(library):
    """A callback of the interpreter takes the GIL back; what it writes is what counts."""
    calls = []

    @ctypes.CFUNCTYPE(None, POINTER, FLOATS, STRIDES, N, N, N, N, N, N, FLOATS, N)
    def pack(context, image, stride, n, group, pixel, count, depth, depths, panel, step):
        calls.append((n, pixel, count))
        for k in range(depths):
            for j in range(count):
                panel[k * step + j] = (k + 1) * image[(pixel + j) * stride[3]]

    x = np.arange(5, dtype=np.float32).reshape(1, 1, 5)
    out = np.empty((1, 1, 5), np.float32)
    kernels.convolve(
        kernels.kernel(pack={"float32": pack}), x, np.ones((1, 1, 3), np.float32), out=out
    )
    np.testing.assert_array_equal(out, 6 * x)
    assert calls


# The examples of docs/kernels.rst


def example(path):
    spec = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def looks_backwards(convolve):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 5, 9), dtype=np.float32)
    weight = rng.standard_normal((4, 7), dtype=np.float32)
    expected = np.einsum("oc,nchw->nohw", weight, x[..., ::-1])
    np.testing.assert_allclose(convolve(x, weight), expected, atol=1e-5)


def test_numba():
    pytest.importorskip("numba", reason="Numba is not installed")
    looks_backwards(example(EXAMPLES / "with_numba.py").convolve)


@pytest.mark.skipif(CC is None, reason="there is no C compiler")
def test_cython(tmp_path):
    cythonize = pytest.importorskip("Cython.Build").cythonize
    shutil.copy(EXAMPLES / "backwards.pyx", tmp_path)
    (extension,) = cythonize(
        [Extension("backwards", [str(tmp_path / "backwards.pyx")])], quiet=True
    )
    built = tmp_path / f"backwards{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_path("include")
    command = [CC, "-O1", "-shared", "-fPIC", f"-I{include}", *extension.sources, "-o", built]
    if sys.platform == "darwin":
        command[1:1] = ["-undefined", "dynamic_lookup"]
    subprocess.run(command, check=True)
    looks_backwards(example(built).convolve)


def test_an_address_is_enough(library):
    class Compiled:
        address = ctypes.cast(library["f32"].pack_f32, ctypes.c_void_p).value

    x, weight, bias, out = problem()
    kernel = kernels.kernel(pack={"float32": Compiled()}, context=context(6, 4, 18, 0))
    kernels.convolve(kernel, x, weight, bias, out=out)
    np.testing.assert_allclose(out, pyconv.conv(x, as_usual(weight), bias, groups=2), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pack": None}, "pack must be a mapping"),
        ({"pack": {"float32": print}}, "must be a LowLevelCallable"),
        ({"pack": {"float32": lambda: None}, "context": "abc"}, "must be a LowLevelCallable"),
    ],
)
def test_what_is_no_kernel(arguments, message):
    with pytest.raises(TypeError, match=message):
        kernels.kernel(**arguments)


def test_refusals(library):
    x, weight, bias, out = problem()
    kernel = make(library)
    with pytest.raises(TypeError, match="kernel must be a kernel"):
        kernels.convolve(print, x, weight, bias, out=out)
    with pytest.raises(ValueError, match="dtype of pack must be one of"):
        kernels.kernel(pack={"float16": library["f32"].pack_f32})
    single = kernels.kernel(pack={"float32": library["f32"].pack_f32})
    wide = [a.astype(float) for a in (x, weight, bias)]
    with pytest.raises(TypeError, match="kernel must pack float64"):
        kernels.convolve(single, *wide, out=out.astype(float))
    with pytest.raises(TypeError, match="kernel must unpack float32"):
        kernels.input_gradient(single, weight, out, out=x.copy())
    with pytest.raises(ValueError, match="groups that divide the 12 channels"):
        kernels.convolve(kernel, x, np.zeros((5, 2, 3), np.float32), out=out)
    with pytest.raises(ValueError, match="out must have shape"):
        kernels.convolve(kernel, x, weight, bias, out=out[:, 1:])
    with pytest.raises(ValueError, match="bias must have shape"):
        kernels.convolve(kernel, x, weight, bias[1:], out=out)
    with pytest.raises(ValueError, match="share memory"):
        kernels.convolve(kernel, x, weight, bias, out=x)
    with pytest.raises(TypeError, match="same dtype"):
        kernels.convolve(kernel, x, weight.astype(float), bias, out=out)


def capsule(version, size, name=b"pyconv.kernel"):
    """A kernel as another version would hand it over."""
    memory = (ctypes.c_ssize_t * 32)()
    memory[0] = size
    memory[1] = version
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (POINTER, ctypes.c_char_p, POINTER)
    return new(ctypes.cast(memory, POINTER), name, None), memory, name


@pytest.mark.parametrize(
    ("version", "size", "message"),
    [(2, 512, "version 1 of the interface; got 2"), (1, 16, "at least .* bytes")],
)
def test_kernels_of_other_versions_are_refused(version, size, message):
    made, *_keep = capsule(version, size)
    x, weight, bias, out = problem()
    with pytest.raises(ValueError, match=message):
        kernels.convolve(made, x, weight, bias, out=out)


def test_the_interface_is_the_one_that_is_documented():
    """These numbers are compiled into plugins: a change of them is a new ABI_VERSION."""
    assert kernels.ABI_VERSION == 1
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = POINTER, (ctypes.py_object, ctypes.c_char_p)
    address = pointer(kernels.C_API, b"pyconv.kernels.C_API")
    size, version = ctypes.cast(address, ctypes.POINTER(ctypes.c_ssize_t))[:2]
    assert (size, version & 0xFFFFFFFF) == (40, 1)
