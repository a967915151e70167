"""Array-likes in, ``out=`` arrays, and element types."""

import ctypes
import gc
import itertools
import re
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import pyconv
from pyconv import arrays, dtypes
from pyconv._kernels._tensor import apart

NATIVE = ["float32", "float64", "float16"]


def take(obj):
    return arrays.as_array("standard", "x", obj)


def address(array):
    return array.__array_interface__["data"][0]


class Exporter:
    """An array behind ``__dlpack__`` alone, with the signature of before DLPack 1.0."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, stream=None):
        if isinstance(self.array, Exception):
            raise self.array
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        if isinstance(self.device, Exception):
            raise self.device
        return self.device


class ModernExporter(Exporter):
    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class Interface:
    """An array behind ``__array_interface__`` alone."""

    def __init__(self, array, **changes):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, **changes}


class Both(Interface):
    def __dlpack__(self, **options):
        raise AssertionError("not to be called")


class Tagged(np.ndarray):
    """A subclass that would get in the way."""

    def __getitem__(self, key):
        raise AssertionError("not to be called")

    def view(self, *arguments):
        raise AssertionError("not to be called")


# In


def test_ndarray_is_returned_itself():
    x = np.zeros((2, 3))[::-1, ::2]
    assert take(x) is x


@pytest.mark.parametrize("kind", [np.recarray, np.memmap, Tagged])
def test_subclasses_become_plain_views(kind):
    x = np.zeros((2, 3), "f4")
    got = take(x.view(kind))
    assert type(got) is np.ndarray
    assert (got.shape, got.dtype, address(got)) == (x.shape, x.dtype, address(x))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_matrix_becomes_a_plain_view():
    x = np.zeros((2, 3))
    got = take(np.asmatrix(x))
    assert type(got) is np.ndarray
    assert got[0].shape == (3,)
    assert address(got) == address(x)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_equal([1.0, 2.0], 2.0)
    with pytest.raises(
        TypeError, match=r"^standard: x must be an array without a mask.*got masked"
    ):
        take(masked)


@pytest.mark.parametrize("wrap", [Exporter, ModernExporter, Interface, Both])
@pytest.mark.parametrize("dtype", NATIVE)
def test_protocols_share_memory(wrap, dtype):
    x = np.arange(24, dtype=dtype).reshape(2, 3, 4)[:, ::-1, 1::2]
    got = take(wrap(x))
    assert type(got) is np.ndarray
    assert (got.shape, got.strides, got.dtype) == (x.shape, x.strides, x.dtype)
    assert address(got) == address(x)
    x[0, 0, 0] = 77
    assert got[0, 0, 0] == 77


@pytest.mark.parametrize("wrap", [Exporter, ModernExporter, Interface])
def test_protocols_keep_their_owner_alive(wrap):
    class Owner(np.ndarray):
        pass

    owner = np.arange(6.0).view(Owner)
    alive = weakref.ref(owner)
    got = take(wrap(owner))
    del owner
    gc.collect()
    assert alive() is not None
    assert got.tolist() == [0, 1, 2, 3, 4, 5]
    del got
    gc.collect()
    assert alive() is None


def test_read_only_sources():
    x = np.arange(3.0)
    x.flags.writeable = False
    assert not take(Interface(x)).flags.writeable
    try:
        x.__dlpack__(max_version=(1, 0))
    except TypeError:  # NumPy before 2.1 cannot export it
        with pytest.raises(
            TypeError, match=r"readable through __dlpack__; got .*ModernExporter.*readonly"
        ):
            take(ModernExporter(x))
    else:
        got = take(ModernExporter(x))
        assert address(got) == address(x)
        assert not got.flags.writeable


@pytest.mark.parametrize("wrap", [Interface, lambda x: x])
def test_unusual_layouts_pass(wrap):
    x = np.arange(6, dtype=np.dtype("f4").newbyteorder())
    unaligned = np.zeros(9, "u1")[1:].view("f4")
    for source in (x, unaligned, np.broadcast_to(np.float32(1), (3, 4)), x[:0]):
        got = take(wrap(source))
        assert (got.dtype, got.shape, got.strides) == (source.dtype, source.shape, source.strides)
        assert address(got) == address(source)


class NoAttributes:
    def __getattr__(self, name):
        raise RuntimeError(name)


class OnlyArray:
    def __array__(self, *_, **__):
        raise AssertionError("a conversion: not to be called")


@pytest.mark.parametrize(
    "obj",
    [
        None,
        1.0,
        1,
        "x",
        b"xx",
        [[1.0, 2.0]],
        (1.0,),
        memoryview(b"ab"),
        object(),
        np.ndarray,
        Exporter,
        NoAttributes(),
        OnlyArray(),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_other_objects_are_refused(obj):
    with pytest.raises(
        TypeError, match=r"^standard: x must be an array: a numpy\.ndarray, or an obj"
    ):
        take(obj)


@pytest.mark.parametrize("device", [(2, 0), (8, 1), (10, 0)])
def test_other_devices_are_refused(device):
    message = rf"^standard: x must be in CPU memory; got .* on DLPack device type {device[0]}$"
    with pytest.raises(TypeError, match=message):
        take(Exporter(np.zeros(3), device))


def test_pinned_host_memory_is_cpu_memory():
    x = np.zeros(3)
    assert address(take(Exporter(x, (3, 0)))) == address(x)


@pytest.mark.parametrize(
    "error", [BufferError("requires\n grad"), RuntimeError("r"), KeyError("r")]
)
def test_failed_exports_give_the_reason(error):
    with pytest.raises(
        TypeError, match=r"^standard: x must be readable through __dlpack__; "
    ) as caught:
        take(Exporter(error))
    assert str(caught.value).endswith(
        f"raised {type(error).__name__}: {' '.join(str(error).split())}"
    )
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("device", [ValueError("meta"), None, (), "cpu", (None, 0)], ids=repr)
def test_failed_device_queries(device):
    with pytest.raises(
        TypeError, match=r"^standard: x must be readable through __dlpack_device__; got"
    ):
        take(Exporter(np.zeros(3), device))


def test_dlpack_without_a_capsule():
    class NoCapsule(Exporter):
        def __dlpack__(self, **_):
            return 42

    with pytest.raises(TypeError, match=r"^standard: x must be readable through __dlpack__; got"):
        take(NoCapsule(None))


@pytest.mark.parametrize(
    "changes",
    [{"shape": "x"}, {"typestr": "?!"}, {"data": None}, {"strides": (1,)}, {"shape": (-1,)}],
)
def test_broken_interfaces(changes):
    with pytest.raises(
        TypeError, match=r"^standard: x must be readable through __array_interface__; g"
    ):
        take(Interface(np.zeros((2, 2)), **changes))


@pytest.mark.parametrize("interface", [None, 42, {}])
def test_interface_that_is_none(interface):
    class Broken:
        __array_interface__ = interface

    with pytest.raises(
        TypeError, match=r"^standard: x must be readable through __array_interface__; g"
    ):
        take(Broken())


class BFloat16Exporter(Exporter):
    """What a torch tensor of bfloat16 exports: the 16 bits under DLPack's own type code."""

    def __dlpack__(self, **_):
        capsule = self.array.view("u2").__dlpack__()
        prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
        get_pointer = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))
        at = get_pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p) + 12
        code = ctypes.c_uint8.from_address(at)
        assert code.value == 1
        code.value = 4
        return capsule


def test_bfloat16_through_dlpack():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3).T
    got = take(BFloat16Exporter(x))
    assert type(got) is np.ndarray
    assert (got.dtype, got.shape, got.strides) == (x.dtype, x.shape, x.strides)
    assert address(got) == address(x)
    assert got.tolist() == x.tolist()


def test_bfloat16_through_dlpack_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(
        TypeError, match=r"^standard: x must be readable through __dlpack__; got .*BFl"
    ):
        take(BFloat16Exporter(np.zeros(3, "f2")))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        tensor = torch.arange(6).to(dtype).reshape(2, 3).t()
        got = take(tensor)
        assert got.dtype.name == str(dtype).removeprefix("torch.")
        assert address(got) == tensor.data_ptr()
        assert got.tolist() == tensor.tolist()
    with pytest.raises(TypeError, match=r"^standard: x must be readable.*require grad.*detach\(\)"):
        take(torch.ones(3, requires_grad=True))
    with pytest.raises(TypeError, match=r"^standard: x must be readable through __dlpack_device__"):
        take(torch.ones(3, device="meta"))


# Out


def check(out, shape=(2, 3), dtype="f4", **inputs):
    return arrays.check_out("standard", out, shape, np.dtype(dtype), inputs)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 3), "f4"),
        np.zeros((3, 2), "f4").T,
        np.zeros((4, 6), "f4")[::-2, ::-2],
        np.zeros((2, 2, 3), "f4")[:, 1],
        np.zeros(25, "u1")[1:].view("f4").reshape(2, 3),
    ],
)
def test_out_layouts(out):
    other = np.zeros((2, 3), "f4")
    assert check(out, x=other, weight=other[:0], bias=None) is out


@pytest.mark.parametrize(
    "out",
    [None, 1, [[0.0] * 3] * 2, np.zeros((2, 3), "f4").view(Tagged), np.ma.zeros((2, 3), "f4")],
    ids=lambda out: type(out).__name__,
)
def test_out_of_another_type(out):
    with pytest.raises(TypeError, match=r"^standard: out must be a numpy\.ndarray"):
        check(out)


@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", "O", np.dtype("f4").newbyteorder()])
def test_out_of_another_dtype(dtype):
    with pytest.raises(
        TypeError, match=r"^standard: out must have the result's dtype float32; got"
    ):
        check(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 2, 3), (2, 0), ()])
def test_out_of_another_shape(shape):
    message = re.escape(f"standard: out must have the result's shape (2, 3); got {shape}")
    with pytest.raises(ValueError, match=message):
        check(np.zeros(shape, "f4"))


def test_out_that_is_read_only():
    out = np.zeros((2, 3), "f4")
    out.flags.writeable = False
    with pytest.raises(
        ValueError, match=r"^standard: out must be writeable; got a read-only array$"
    ):
        check(out)


def test_out_that_overlaps_an_input():
    memory = np.zeros(12, "f4")
    out = memory[:6].reshape(2, 3)
    assert check(out, x=memory[6:]) is out
    for x in (
        memory,
        memory[5:],
        memory[5:4:-1],
        memory.view("u1")[23:],
        np.broadcast_to(out[0], (9, 3)),
    ):
        with pytest.raises(
            ValueError, match=r"^standard: out must not share memory with weight; got"
        ):
            check(out, x=None, weight=x)


def test_arrays_that_lie_apart():
    rng = np.random.default_rng(1)
    memory = np.zeros((6, 7, 8), "f4")
    parts = []
    for _ in range(40):
        index = []
        for extent in memory.shape:
            lo, hi = sorted(rng.integers(0, extent + 1, 2).tolist())
            index.append(slice(lo, hi, int(rng.integers(1, 4))))
        parts.append(memory[tuple(index)][:: rng.choice([-1, 1, 2])])
    for a in parts:
        for b in parts:
            assert apart(a, b) is not np.may_share_memory(a, b)
    assert not apart(memory, memory)


def test_out_of_a_plan_in_any_layout():
    x = np.arange(24, dtype="f4").reshape(1, 2, 3, 4)
    plan = pyconv.get("pointwise").plan(x.shape, np.eye(2, dtype="f4"))
    for out in (np.empty_like(x), np.empty(x.shape, "f4", "F"), np.empty((1, 2, 3, 8), "f4")):
        part = out[..., :: 1 if out.shape[-1] == 4 else 2]
        assert plan(x, out=part) is part
        np.testing.assert_array_equal(part, x)
    with pytest.raises(ValueError, match="pointwise: out must not share memory with x"):
        plan(x, out=x)
    with pytest.raises(ValueError, match="pointwise: out must have the result's shape"):
        plan(x, out=np.empty((1, 2, 4, 3), "f4"))
    with pytest.raises(TypeError, match="pointwise: out must have the result's dtype float32"):
        plan(x, out=np.empty(x.shape, ">f4"))


def test_out_interleaved_with_an_input():
    memory = np.zeros((2, 6), "f4")
    out = memory[:, ::2]
    assert check(out, x=memory[:, 1::2]) is out
    with pytest.raises(ValueError, match="must not share memory with x"):
        check(out, x=memory[1:, ::3])


@pytest.mark.parametrize("x", [0, 1])
def test_memory_that_is_too_hard_to_tell_apart_is_refused(x, monkeypatch):
    error = (np.exceptions.TooHardError, OverflowError)[x]

    def give_up(*_, **__):
        raise error

    monkeypatch.setattr(np, "shares_memory", give_up)
    memory = np.zeros((2, 6), "f4")
    with pytest.raises(ValueError, match="must not share memory with x"):
        check(memory[:, ::2], x=memory[:, 1::2])
    with pytest.raises(ValueError, match="must not share"):
        check(as_strided(memory, (2, 3), (12, 8)), x=memory)


def overlaps_itself(shape, strides, itemsize):
    seen = set()
    for index in itertools.product(*map(range, shape)):
        at = sum(i * stride for i, stride in zip(index, strides, strict=True))
        element = set(range(at, at + itemsize))
        if seen & element:
            return True
        seen |= element
    return False


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-30, 30)), max_size=4))
def test_out_that_overlaps_itself(axes):
    shape = tuple(extent for extent, _ in axes)
    strides = tuple(stride for _, stride in axes)
    memory = np.zeros(1100, "u1")
    out = as_strided(memory[500:].view("f4"), shape, strides)
    assert out.strides == strides
    if overlaps_itself(shape, strides, 4):
        with pytest.raises(
            ValueError, match=r"^standard: out must have each element at an address"
        ):
            check(out, shape)
    else:
        assert check(out, shape) is out


@pytest.mark.parametrize(
    ("shape", "strides", "good"),
    [
        ((2, 3), (12, 8), True),  # interleaved, yet no address twice
        ((2, 3), (8, 8), False),
        ((2, 3), (0, 4), False),
        ((0, 3), (0, 0), True),
        ((1, 1), (0, 0), True),
        ((3,), (2,), False),
    ],
)
def test_out_with_contrived_strides(shape, strides, good):
    out = as_strided(np.zeros(20, "f4"), shape, strides)
    if good:
        assert check(out, shape) is out
    else:
        with pytest.raises(
            ValueError, match="must have each element at an address of its own; got"
        ):
            check(out, shape)


# Element types


def test_storage_codes():
    codes = {"f4": 0, "f8": 1, "f2": 2}
    for name, code in codes.items():
        native = np.dtype(name)
        for _ in range(2):  # the second answer is a remembered one
            assert dtypes.storage_code(native) == code
            assert dtypes.storage_code(native.newbyteorder()) == code + 4
            assert dtypes.storage_code(native.newbyteorder().newbyteorder()) == code


def test_bfloat16():
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    assert dtypes.storage_code(bfloat16) == 3
    assert dtypes.storage_code(bfloat16.newbyteorder()) == 7
    assert dtypes.compute_dtype(bfloat16) == np.float32
    assert dtypes.unit_roundoff(bfloat16) == 2.0**-8
    x = np.zeros(3, bfloat16)
    swapped = np.zeros(3, bfloat16.newbyteorder())
    assert dtypes.common_dtype("standard", {"x": swapped, "weight": x}) == bfloat16
    with pytest.raises(TypeError, match=r"got x: bfloat16, weight: float16$"):
        dtypes.common_dtype("standard", {"x": x, "weight": np.zeros(3, "f2")})


@pytest.mark.parametrize(("name", "compute"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
@pytest.mark.parametrize("order", ["<", ">"])
def test_compute_dtype_and_roundoff(name, compute, order):
    dtype = np.dtype(order + name)
    assert dtypes.compute_dtype(dtype) == np.dtype(compute)
    assert dtypes.compute_dtype(dtype).isnative
    assert dtypes.unit_roundoff(dtype) == np.finfo(name).eps / 2


UNSUPPORTED = {
    "int32": np.dtype("i4"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype(bool),
    "complex64": np.dtype("c8"),
    "object": np.dtype(object),
    "str96": np.dtype("U3"),
    "datetime64[s]": np.dtype("M8[s]"),
    "void16": np.dtype("V2"),
    "a structured dtype": np.dtype([("a", "f4")]),
    np.dtype("longdouble").name: np.dtype("longdouble"),
}
if np.dtype("longdouble") == np.dtype("f8"):
    del UNSUPPORTED["float64"]


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_dtypes(name):
    dtype = UNSUPPORTED[name]
    for function in (dtypes.storage_code, dtypes.compute_dtype, dtypes.unit_roundoff):
        with pytest.raises(TypeError, match=re.escape(f"bfloat16; got {name}")):
            function(dtype)
    x = np.zeros(2, "f4")
    message = (
        "standard: weight must have dtype float32, float64, float16 or bfloat16 "
        f"(nothing is converted silently); got x: float32, weight: {name}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        dtypes.common_dtype("standard", {"x": x, "weight": np.empty(2, dtype), "bias": None})


@pytest.mark.parametrize("name", NATIVE)
def test_common_dtype(name):
    x = np.zeros(2, name)
    swapped = np.zeros(2, np.dtype(name).newbyteorder())
    for given_arrays in (
        {"x": x},
        {"x": x, "w": swapped, "bias": None},
        {"x": swapped, "w": swapped},
    ):
        got = dtypes.common_dtype("standard", given_arrays)
        assert got == np.dtype(name)
        assert got.isnative


def test_mixed_dtypes():
    given_arrays = {
        "x": np.zeros(2, "f4"),
        "weight": np.zeros(2, np.dtype("f8").newbyteorder()),
        "bias": np.zeros(2, "f2"),
    }
    message = (
        "standard: x, weight and bias must have the same dtype; "
        "got x: float32, weight: float64, bias: float16"
    )
    with pytest.raises(TypeError, match=f"^{message}$"):
        dtypes.common_dtype("standard", given_arrays)


def test_wrong_dtypes_are_all_named():
    given_arrays = {"x": np.zeros(2, int), "weight": np.zeros(2, bool), "bias": np.zeros(2)}
    with pytest.raises(
        TypeError, match=r"^standard: x and weight must have dtype .*weight: bool, bias"
    ):
        dtypes.common_dtype("standard", given_arrays)
