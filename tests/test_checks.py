"""What argument checks accept, and how a refusal reads."""

import enum
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyconv import checks

LIMIT = 2**31 - 1


class Colour(enum.IntEnum):
    RED = 3


class Indexable:
    def __init__(self, result):
        self.result = result

    def __index__(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


class Hostile:
    def __getattr__(self, name):
        raise RuntimeError(name)


class BoolTensor:
    """torch.tensor(True): its __index__ works."""

    dtype = "torch.bool"

    def __index__(self):
        return 1


# Anything that is not an integer nor a sequence of integers.
NOT_INTEGERS = [
    True,
    np.True_,
    np.array(True),
    1.0,
    2.5,
    math.nan,
    math.inf,
    np.float32(1),
    np.array(1.0),
    1j,
    "1",
    b"\x01\x02",
    bytearray(2),
    memoryview(b"ab"),
    None,
    {1: 2, 2: 3},
    {1, 2},
    iter([1, 2]),
    object(),
    int,
    np.timedelta64(1, "s"),
    (1, 2.0),
    [1, True],
    [[1, 2], [3, 4]],
    [None, None],
    np.array([1.0, 2.0]),
    np.array([True, False]),
    np.array([[1, 2], [3, 4]]),
    np.array(["a", "b"]),
    np.array([1, 2], dtype=object),
    Indexable(RuntimeError("no")),
    Indexable("1"),
    Unprintable(),
    Hostile(),
    BoolTensor(),
]


def identify(value):
    return type(value).__name__


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, (2, 2)),
        (np.int8(2), (2, 2)),
        (np.uint64(2), (2, 2)),
        (np.array(2), (2, 2)),
        (Colour.RED, (3, 3)),
        (Indexable(4), (4, 4)),
        ((1, 2), (1, 2)),
        ([1, np.int64(2)], (1, 2)),
        (range(1, 3), (1, 2)),
        (np.array([1, 2], dtype=np.uint8), (1, 2)),
        (LIMIT, (LIMIT, LIMIT)),
    ],
)
def test_integers_accepts(value, expected):
    got = checks.integers("standard", "stride", value, 2, minimum=1)
    assert got == expected
    assert type(got) is tuple
    assert {type(number) for number in got} == {int}


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=identify)
def test_integers_refuses_types(value):
    with pytest.raises(TypeError) as caught:
        checks.integers("standard", "stride", value, 2, minimum=1)
    start = "standard: stride must be an integer >= 1, or one per spatial axis (2); got "
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    "value", [0, -1, (1, 0), (), (1,), [1, 2, 3], np.array([1, 2, 3]), np.int64(0), -(10**30)]
)
def test_integers_refuses_values(value):
    message = re.escape(
        "standard: stride must be an integer >= 1, or one per spatial axis (2); got"
    )
    with pytest.raises(ValueError, match=message):
        checks.integers("standard", "stride", value, 2, minimum=1)


def test_integers_message():
    message = "dilated: stride must be an integer >= 1, or one per spatial axis (2); got 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checks.integers("dilated", "stride", 0, 2, minimum=1)


@pytest.mark.parametrize(
    "value", [LIMIT + 1, 10**30, (1, 10**30), np.uint64(2**63), 1 << 10**6], ids=checks.shown
)
def test_integers_shows_the_upper_bound_when_it_matters(value):
    with pytest.raises(ValueError, match=f"an integer from 1 to {LIMIT}, or one per"):
        checks.integers("standard", "stride", value, 2, minimum=1)


@given(st.integers(), st.integers(-5, 5))
@example(100, 0)
@example(101, 0)
def test_integer_is_identity_within_bounds(value, minimum):
    if minimum <= value <= 100:
        got = checks.integer("standard", "groups", value, minimum=minimum, maximum=100)
        assert got == value
    else:
        with pytest.raises(ValueError, match="standard: groups must be an integer"):
            checks.integer("standard", "groups", value, minimum=minimum, maximum=100)


@pytest.mark.parametrize("value", [*NOT_INTEGERS, (1,), [1]], ids=identify)
def test_integer_refuses_types(value):
    with pytest.raises(TypeError, match=r"^standard: groups must be an integer >= 1; got "):
        checks.integer("standard", "groups", value, minimum=1)


# Padding


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, ((2, 2), (2, 2))),
        (-1, ((-1, -1), (-1, -1))),
        (np.int16(2), ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([0, np.int64(2)], ((0, 0), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, -2], (3, np.int8(4))], ((1, -2), (3, 4))),
        (np.array([1, 2]), ((1, 1), (2, 2))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        ("same", "same"),
        (np.str_("same_lower"), "same_lower"),
        ("causal", "causal"),
        (LIMIT, ((LIMIT, LIMIT), (LIMIT, LIMIT))),
        (-LIMIT, ((-LIMIT, -LIMIT), (-LIMIT, -LIMIT))),
    ],
)
def test_padding_accepts(value, expected):
    got = checks.padding("standard", value, 2)
    assert got == expected
    hash(got)
    if not isinstance(got, str):
        assert {type(end) for pair in got for end in pair} == {int}
    else:
        assert type(got) is str


def test_padding_of_one_axis():
    assert checks.padding("standard", [3], 1) == ((3, 3),)
    assert checks.padding("standard", [(3, 4)], 1) == ((3, 4),)
    with pytest.raises(
        ValueError, match=re.escape("got (3, 4) (for one pair per axis write ((3, 4),))")
    ):
        checks.padding("standard", (3, 4), 1)


def test_padding_hint_for_a_flat_list():
    with pytest.raises(ValueError, match=re.escape("write ((1, 2), (3, 4)))")):
        checks.padding("standard", [1, 2, 3, 4], 2)


# One pair per axis is fine here, and a string is a name.
NOT_PADDING = [
    value
    for value in NOT_INTEGERS
    if not (isinstance(value, (list, np.ndarray)) and np.shape(value) == (2, 2))
    and not isinstance(value, str)
]
NOT_PADDING += [
    ((1, 2), (3, 4.0)),
    ((1, 2), (3, None)),
    ((1, 2), (True, 3)),
    ((1, 2), "ab"),
    ("same", "same"),
    (((1, 2), (3, 4)), ((1, 2), (3, 4))),
]


@pytest.mark.parametrize("value", NOT_PADDING, ids=identify)
def test_padding_refuses_types(value):
    with pytest.raises(
        TypeError, match=r"^standard: padding must be an integer, one integer or one"
    ):
        checks.padding("standard", value, 2)


@pytest.mark.parametrize(
    "value",
    [
        (),
        (1,),
        (1, 2, 3),
        ((1, 2),),
        ((1, 2), (3, 4), (5, 6)),
        ((1, 2), (3,)),
        ((1, 2), (3, 4, 5)),
        ((1, 2), ()),
        ((1, 2), 3),
        np.zeros((2, 3), int),
        np.zeros((2, 0), int),
    ],
    ids=repr,
)
def test_padding_refuses_structures(value):
    with pytest.raises(
        ValueError, match=r"^standard: padding must be an integer, one integer or one"
    ):
        checks.padding("standard", value, 2)


@pytest.mark.parametrize(
    "value", [LIMIT + 1, -LIMIT - 1, 10**30, (0, -(10**30)), ((0, 1), (0, 10**30))]
)
def test_padding_refuses_huge_amounts(value):
    with pytest.raises(
        ValueError, match=f"^standard: padding must stay within -{LIMIT} to {LIMIT}; "
    ):
        checks.padding("standard", value, 2)


@pytest.mark.parametrize("value", ["", "SAMEE", "same ", "reflect"])
def test_padding_refuses_names(value):
    with pytest.raises(
        ValueError, match=r"^standard: padding must be one of 'valid', 'same', .*; got"
    ):
        checks.padding("standard", value, 2)


# Choices and flags


class Mode(str, enum.Enum):
    REFLECT = "reflect"


@pytest.mark.parametrize("value", ["reflect", np.str_("reflect"), Mode.REFLECT])
def test_choice_accepts(value):
    got = checks.choice("standard", "padding_mode", value, checks.PADDING_MODES)
    assert got == "reflect"
    assert type(got) is str


def test_choice_suggests():
    message = (
        "standard: layout must be one of 'channels_first', 'channels_last'; "
        "got 'Channel_last' (did you mean 'channels_last'?)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checks.choice("standard", "layout", "Channel_last", ("channels_first", "channels_last"))


def test_choice_of_one():
    with pytest.raises(ValueError, match=r"^plug: algorithm must be 'direct'; got 'x'$"):
        checks.choice("plug", "algorithm", "x", ("direct",))


def test_choice_does_not_search_a_long_string():
    with pytest.raises(ValueError, match="got 'aaa") as caught:
        checks.choice("standard", "layout", "a" * 10**7, ("channels_first", "channels_last"))
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", [None, 1, True, b"same", ["same"], math.nan], ids=repr)
def test_choice_refuses_types(value):
    with pytest.raises(TypeError, match=r"^standard: layout must be one of 'a', 'b'; got "):
        checks.choice("standard", "layout", value, ("a", "b"))


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_flag_accepts(value):
    assert checks.flag("standard", "flip", value) is bool(value)


@pytest.mark.parametrize("value", [None, 0, 1, "True", 1.0, np.array(True), []], ids=repr)
def test_flag_refuses(value):
    with pytest.raises(TypeError, match=r"^standard: flip must be True or False; got "):
        checks.flag("standard", "flip", value)


# How values are shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (10**30, "1" + "0" * 30),
        (1 << 10**6, "an integer of 1000001 bits"),
        ((1, 1 << 10**6), "(1, an integer of 1000001 bits)"),
        (math.nan, "nan"),
        (None, "None"),
        ("a\nb", r"'a\nb'"),
        (np.zeros((2, 0), np.int8), "array of shape (2, 0) and dtype int8"),
        (np.zeros(3).view(np.recarray), "array of shape (3,) and dtype float64"),
        ([np.zeros(3)], "[array of shape (3,) and dtype float64]"),
        (Unprintable(), "<Unprintable object>"),
        (Hostile(), "<Hostile object>"),
        (checks.Verbatim("as it is " * 20), "as it is " * 20),
    ],
    ids=lambda value: checks.shown(value)[:20],
)
def test_shown(value, text):
    assert checks.shown(value) == text


def self_containing():
    value = []
    value.append(value)
    return value


def nested():
    value = []
    for _ in range(10**5):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        [1] * 10**6,
        {i: i for i in range(10**4)},
        self_containing(),
        nested(),
        b"y" * 999,
    ],
    ids=["str", "list", "dict", "self", "nested", "bytes"],
)
def test_shown_is_short(value):
    assert len(checks.shown(value)) <= 80


def test_shown_takes_a_class_named_like_a_container():
    assert checks.shown(type("list", (), {"__repr__": lambda self: "mine"})()) in (
        "mine",
        "<list object>",
    )


@pytest.mark.parametrize(
    ("function", "error"), [(checks.fail, ValueError), (checks.fail_type, TypeError)]
)
def test_fail(function, error):
    cause = KeyError("why")
    with pytest.raises(error, match=r"^op: x must be y; got \[1\]$") as caught:
        function("op", "x", "be y", [1], cause)
    assert caught.value.__cause__ is cause
