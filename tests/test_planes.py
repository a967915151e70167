"""Inputs read from planes of padded samples, or packed where the workspace has no room for them."""

from __future__ import annotations

import numpy as np
import pytest

import pyconv

from . import calls

# Shapes of images and weights for which planes cost less than packing, by far.
CASES = {
    "standard": ((2, 6, 23, 37), (5, 6, 3, 3), {"padding": 1}),
    "one row": ((1, 9, 20, 150), (1, 9, 3, 5), {"padding": (1, 2)}),
    "two rows": ((1, 8, 20, 150), (2, 8, 3, 3), {}),
    "three rows": ((1, 8, 20, 90), (3, 8, 3, 3), {"padding": ((0, 3), (2, 1))}),
    "grouped": ((3, 24, 14, 14), (24, 6, 3, 3), {"padding": 1, "groups": 4}),
    "stride 2": ((2, 8, 29, 34), (7, 8, 5, 4), {"padding": 2, "stride": 2}),
    "strides": ((1, 8, 41, 61), (6, 8, 4, 5), {"padding": 2, "stride": (3, 2), "dilation": (1, 2)}),
    "stride above kernel": ((1, 8, 50, 60), (6, 8, 3, 2), {"stride": (2, 4)}),
    "cropped": ((1, 8, 30, 40), (6, 8, 3, 3), {"padding": ((-2, -3), (1, -4))}),
    "reflect": ((1, 8, 30, 40), (6, 8, 5, 5), {"padding": 4, "padding_mode": "reflect"}),
    "circular": ((1, 8, 30, 40), (6, 8, 3, 3), {"padding": 3, "padding_mode": "circular"}),
    "flipped": ((1, 8, 30, 40), (6, 8, 3, 3), {"padding": 1, "flip": True}),
    "whole panels": ((2, 5, 19, 32), (20, 5, 3, 5), {"padding": (1, 2)}),
    "whole panels, stride 2": ((1, 3, 40, 64), (9, 3, 3, 3), {"padding": 1, "stride": 2}),
    "1-D": ((2, 16, 500), (6, 16, 7), {"padding": 3}),
    "1-D stride": ((2, 16, 500), (6, 16, 7), {"padding": 3, "stride": 3}),
    "3-D": ((1, 6, 9, 14, 22), (5, 6, 3, 3, 3), {"padding": 1, "stride": (2, 1, 1)}),
    "3-D strides": ((1, 6, 9, 15, 40), (5, 6, 3, 3, 3), {"padding": 1, "stride": 2}),
    "channels last": ((2, 30, 40, 19), (6, 19, 3, 3), {"padding": 1, "layout": "channels_last"}),
}


def packed_call(shape, kernel, params, dtype):
    """An operator, arrays, parameters of a direct call, and its result by packing, as it must be.

    That is what it does in a small workspace.
    """
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (shape, kernel, kernel[:1])]
    op = pyconv.get("grouped" if "groups" in params else "standard")
    params = {**params, "algorithm": "direct"}
    packed = op(*arrays, **params, max_workspace=2**17)
    calls.assert_near_reference(op, packed, arrays, params)
    return op, arrays, params, packed


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", CASES)
def test_same_bits_as_packing(case, dtype):
    op, arrays, params, packed = packed_call(*CASES[case], dtype)
    assert op(*arrays, **params).tobytes() == packed.tobytes()


@pytest.mark.parametrize("rows", [7, 8, 9, 13, 15])
@pytest.mark.parametrize("size", [(2, 17), (3, 20), (6, 33), (1, 70)])
def test_threads_that_share_out_rows(rows, size):
    """Few pixels: threads take rows, and what is left for the last one may be very few."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 700, *size), np.float32)
    weight = rng.standard_normal((rows, 700, 3, 3), np.float32)
    op = pyconv.get("standard")
    expected = op(x, weight, padding=1, algorithm="direct", threads=1)
    reference = op.reference(x.astype(np.float64), weight.astype(np.float64), padding=1)
    np.testing.assert_allclose(expected, reference, rtol=1e-5, atol=1e-2)
    for threads in (2, 3, 5):
        many = op(x, weight, padding=1, algorithm="direct", threads=threads)
        assert many.tobytes() == expected.tobytes()


# Shapes whose inputs are read where they are, up to the last of the array.
IN_PLACE = {
    "1x1": ((3, 24, 13, 11), (7, 24, 1, 1), {}),
    "1x1, one panel": ((1, 24, 3, 3), (20, 24, 1, 1), {}),
    "1x1, three rows": ((2, 40, 13, 11), (3, 40, 1, 1), {}),
    "1x1, one row": ((2, 40, 30, 11), (1, 40, 1, 1), {}),
    "1x1, grouped": ((2, 40, 9, 11), (14, 20, 1, 1), {"groups": 2}),
    "1x1, many channels": ((1, 1700, 9, 11), (9, 1700, 1, 1), {}),
    # Some channels at a time, being far from each other.
    "far, one row": ((1, 137, 61, 67), (1, 137, 1, 1), {}),
    "far, two rows": ((2, 75, 75, 83), (2, 75, 1, 1), {}),
    "far, three rows": ((1, 41, 40, 53), (3, 41, 2, 3), {}),
    "far, grouped": ((1, 66, 50, 61), (4, 33, 1, 1), {"groups": 2}),
    "far, by steps": ((1, 35, 45, 40), (2, 35, 2, 2), {"dilation": (7, 3), "stride": (2, 1)}),
    "3x3": ((2, 13, 10, 70), (7, 13, 3, 3), {}),
    "3x3, dilated": ((2, 13, 10, 70), (7, 13, 3, 3), {"dilation": (2, 3)}),
    "3x3, flipped": ((2, 13, 10, 70), (7, 13, 3, 3), {"flip": True}),
    "stride 2, 1": ((2, 13, 10, 70), (7, 13, 1, 3), {"stride": (2, 1)}),
    "cropped": ((2, 13, 10, 70), (7, 13, 3, 3), {"padding": ((-1, -2), (-3, 0))}),
    "1-D": ((2, 16, 200), (6, 16, 7), {}),
    "3-D": ((1, 5, 5, 9, 40), (5, 5, 2, 3, 3), {"stride": (2, 1, 1)}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", IN_PLACE)
def test_inputs_where_they_are(case, dtype):
    """The same bits as by copies, whatever lies between and behind the inputs."""
    op, (x, weight, bias), params, packed = packed_call(*IN_PLACE[case], dtype)
    wide = np.full([n + 2 for n in x.shape], np.nan, dtype)
    inner = wide[tuple(slice(1, -1) for _ in x.shape)]
    inner[...] = x
    reversed_rows = np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1]
    for same in (x, inner, reversed_rows, x.swapaxes(1, -1).copy().swapaxes(1, -1)):
        for threads in (1, 3):
            result = op(same, weight, bias, **params, threads=threads)
            assert result.tobytes() == packed.tobytes()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rows", [9, 24])
def test_bands_of_rows_in_lanes(rows, stride):
    """Of samples of more than LARGE_BAND_BYTES some outputs at a time: the bits of packing."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((1, 130, 190, 211), np.float32)
    weight = rng.standard_normal((rows, 130, 3, 3), np.float32)
    op, params = (
        pyconv.get("standard"),
        {"padding": (1, 2), "stride": stride, "algorithm": "direct"},
    )
    plan = op.plan(x.shape, weight, **params, threads=1)
    got = plan(x)
    packed = op(x, weight, **params, max_workspace=2**19)
    assert got.tobytes() == packed.tobytes()
    assert op(x, weight, **params, threads=3).tobytes() == got.tobytes()
    for at in ((0, 0), (90, 100), (189 // stride, 212 // stride)):
        top, left = (stride * n for n in at)
        taps = np.pad(x[0], ((0, 0), (1, 1), (2, 2)))[:, top : top + 3, left : left + 3]
        exact = np.einsum("mcij,cij->m", weight.astype(np.float64), taps.astype(np.float64))
        np.testing.assert_allclose(got[(0, slice(None), *at)], exact, rtol=1e-4, atol=1e-3)


def test_a_plan_knows_the_workspace_of_every_layout():
    """What lies in order is read in place, else there are copies: the plan tells the larger."""
    weight = np.ones((12, 64, 3, 3), np.float32)
    sample = 64 * 52 * 52 * 4
    plan = pyconv.get("standard").plan((1, 64, 52, 52), weight, algorithm="direct", threads=1)
    assert plan.workspace_bytes > sample


def test_planes_are_used():
    """The workspace of a call tells: it holds a padded sample, or less than one."""
    weight = np.ones((6, 64, 3, 3), np.float32)
    sample = 64 * 58 * 58 * 4
    op = pyconv.get("standard")
    params = {"padding": 1, "algorithm": "direct", "threads": 1}
    roomy = op.plan((2, 64, 56, 56), weight, **params)
    assert sample < roomy.workspace_bytes < 3 * sample
    # Half of the workspace has no room for one.
    packed = op.plan((2, 64, 56, 56), weight, **params, max_workspace=sample)
    assert packed.workspace_bytes < sample


# Samples, channels of a group, image: all samples of a group at once, two and one, one each.
TOGETHER = {"all": (5, 4, (9, 13)), "some": (5, 9, (45, 48)), "one": (2, 15, (50, 61))}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("rows", [5, 16])
@pytest.mark.parametrize("case", TOGETHER)
def test_planes_of_a_group(case, rows, last):
    """A task copies the inputs of its group: neither threads nor samples show in the bits."""
    samples, channels, size = TOGETHER[case]
    rng = np.random.default_rng(8)
    x = rng.standard_normal((samples, 3 * channels, *size), np.float32)
    weight = rng.standard_normal((3 * rows, channels, 3, 3), np.float32)
    params = {"groups": 3, "stride": (2, 1), "padding": (1, 2), "algorithm": "direct"}
    op = pyconv.get("grouped")
    expected = op(x, weight, **params, max_workspace=2**16)  # packed, for lack of room
    given = x
    if last:
        given = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        params["layout"] = "channels_last"
    for threads in (1, 2, 3):
        y = op.plan(given.shape, weight, **params, threads=threads)(given)
        assert np.array_equal(np.moveaxis(y, -1, 1) if last else y, expected)
    exact = op.reference(x[:, :channels], weight[:rows], stride=(2, 1), padding=(1, 2), groups=1)
    np.testing.assert_allclose(expected[:, :rows], exact, rtol=1e-4, atol=1e-3)


def test_workspace_of_a_group():
    """There is room for the group's copies, or for less, but not for a sample's."""
    weight = np.ones((64, 16, 3, 3), np.float32)
    sample = 64 * 58 * 58 * 4
    op = pyconv.get("grouped")
    params = {"groups": 4, "stride": 2, "padding": 1, "algorithm": "direct", "threads": 1}
    plan = op.plan((2, 64, 56, 56), weight, **params)
    assert sample // 4 < plan.workspace_bytes < sample


def test_large_samples_are_packed():
    x = np.ones((1, 8, 900, 700), np.float32)
    weight = np.ones((2, 8, 3, 3), np.float32)
    plan = pyconv.get("standard").plan(x.shape, weight, algorithm="direct")
    assert plan.workspace_bytes < 8 * 2**20
    assert np.array_equal(np.unique(plan(x)), [72])


@pytest.mark.parametrize("rows", [2, 40])
def test_taps_that_meet_padding_alone(rows):
    """They are left out, whatever the size of the kernel: they may be infinite."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((2, 9, 4, 31)).astype(np.float32)
    weight = rng.standard_normal((rows, 9, 11, 9)).astype(np.float32)
    op, params = pyconv.get("standard"), {"stride": 4, "padding": (5, 4)}
    got = op(x, weight, **params)
    assert got.shape == (2, rows, 1, 8)
    calls.assert_near_reference(op, got, [x, weight], params)
    weight[:, :, :5] = weight[:, :, 9:] = np.inf
    assert op(x, weight, **params).tobytes() == got.tobytes()
    assert op.plan(x.shape, weight, **params)(x).tobytes() == got.tobytes()
