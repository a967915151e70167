"""Shapes and padding along the spatial axes: the one place where they are computed.

Everything is plain integer arithmetic on one axis at a time. `conv_axes` and `transposed_axes`
turn call parameters into `Axis` objects; `adjoint_phases` and `subsample_phases` split an axis
into residue classes on which the strided or dilated problem becomes a dense one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import NoReturn

from pyconv import checks
from pyconv.checks import Verbatim

#: Exclusive bound on every extent, so that index arithmetic cannot overflow 64 bits.
MAX_EXTENT = 2**62

Padding = str | tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a forward convolution.

    Output ``o`` reads the inputs ``o * stride + t * dilation - before`` for the taps
    ``t < kernel``. For a transposed call this is the convolution whose adjoint it is: ``size`` is
    the extent of the call's result and ``out`` that of its input.

    Attributes
    ----------
    size, out : int
        Input and output extent. ``out`` is ``floor((size + before + after - reach) / stride) + 1``,
        or less for a transposed call with ``output_padding >= stride``.
    kernel, stride, dilation : int
        Number of taps, step between outputs and step between taps.
    before, after : int
        Padding at the two ends; negative values crop.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int

    @property
    def reach(self) -> int:
        """Extent covered by the dilated kernel."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def slack(self) -> int:
        """Padded inputs at the end that no output reads; the output padding of the adjoint."""
        return self.size + self.before + self.after - self.reach - (self.out - 1) * self.stride

    @property
    def mirrored(self) -> Axis:
        """At stride 1 the axis of the convolution, of flipped weights, that the adjoint is."""
        return Axis(
            size=self.out, kernel=self.kernel, stride=self.stride, dilation=self.dilation,
            before=self.reach - 1 - self.before, after=self.size - self.out + self.before,
            out=self.size,
        )  # fmt: skip

    @property
    def formula(self) -> str:
        """How the output extent follows from the input extent, with its numbers."""
        numerator = f"{self.size} + {self.before} + {self.after} - {self.reach}"
        return f"floor(({numerator}) / {self.stride}) + 1 = {self.out}"

    @property
    def adjoint_formula(self) -> str:
        """How a transposed call's result extent follows from its input, with its numbers."""
        pads = f"({self.before} + {self.after})"
        steps = f"({self.out} - 1) * {self.stride}"
        return f"{steps} - {pads} + {self.reach} + {self.slack} = {self.size}"


def untouched(size: int) -> Axis:
    """An axis that a convolution does not look along."""
    return Axis(size=size, kernel=1, stride=1, dilation=1, before=0, after=0, out=size)


#: An axis that is not there.
UNIT = untouched(1)


@dataclass(frozen=True, slots=True)
class Phase:
    """One residue class of the adjoint of a strided convolution.

    With ``W`` the taps and ``dY`` the adjoint's input (0 outside ``[0, axis.out)``), for
    ``q < count``::

        result[start + q * step] = sum(W[tap_start + j * tap_step] * dY[q + j * dilation + offset]
                                       for j in range(taps))
    """

    start: int
    step: int
    count: int
    tap_start: int
    tap_step: int
    taps: int
    dilation: int
    offset: int

    def correlated(self, size: int) -> Axis:
        """The class as a convolution of `size` inputs, with its taps the other way round."""
        reach = (self.taps - 1) * -self.dilation + 1
        before = reach - 1 - self.offset
        return Axis(
            size=size, kernel=self.taps, stride=1, dilation=-self.dilation, before=before,
            after=self.count - 1 + reach - before - size, out=self.count,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subsample:
    """One residue class of a dilated convolution.

    The outputs ``start + q * step`` for ``q < count`` are a dense convolution, without dilation, of
    ``xs = x[residue::axis.dilation]``: tap ``t`` reads ``xs[q * stride + t + offset]``.
    """

    start: int
    step: int
    count: int
    residue: int
    stride: int
    offset: int


def conv_axes(
    operator: str,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> tuple[Axis, ...]:
    """Return the axes of a convolution.

    Parameters
    ----------
    operator : str
        Name for error messages.
    size, kernel, stride, dilation : sequence of int
        One value per spatial axis; strides and dilations are at least 1.
    padding : str or tuple of (int, int)
        What `pyconv.checks.padding` returned.
    padding_mode : str
        What the padding is filled with. Any amount goes with any mode, as in `numpy.pad`, except
        that an empty axis can be padded with zeros only.

    Raises
    ------
    ValueError
        For an empty kernel, an output extent that is not positive, ``"causal"`` on more than one
        axis, or an empty axis that the padding mode cannot extend.
    """
    if padding == "causal" and len(size) != 1:
        rule = f"be a causal padding on one spatial axis only, not on {len(size)}"
        checks.fail(operator, "padding", rule, padding)
    axes = []
    for i, (extent, taps, step, rate) in enumerate(
        zip(size, kernel, stride, dilation, strict=True)
    ):
        reach = _reach(operator, i, taps, rate)
        if padding == "valid":
            before = after = 0
        elif padding == "full":
            before = after = reach - 1
        elif padding == "causal":
            before, after = reach - 1, 0
        elif isinstance(padding, str):
            before, after = _same(extent, -(-extent // step), step, reach, padding)
        else:
            before, after = padding[i]
        _bound(operator, i, "input", extent + abs(before) + abs(after) + reach)
        out = (extent + before + after - reach) // step + 1
        axis = Axis(extent, taps, step, rate, before, after, out)
        if out <= 0:
            _fail_extent(operator, i, axis, axis.formula, extent)
        if extent == 0 and padding_mode != "zeros" and (before > 0 or after > 0):
            got = Verbatim(f"{padding_mode!r} with padding {before} + {after}")
            rule = f"be 'zeros' to pad spatial axis {i}, which has size 0"
            checks.fail(operator, "padding_mode", rule, got)
        axes.append(axis)
    return tuple(axes)


def transposed_axes(
    operator: str,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    output_padding: int | Sequence[int] = 0,
    output_size: int | Sequence[int] | None = None,
) -> tuple[Axis, ...]:
    """Return the axes of the forward convolution of which a transposed convolution is the adjoint.

    Parameters
    ----------
    operator : str
        Name for error messages.
    size, kernel, stride, dilation : sequence of int
        One value per spatial axis; `size` is the extent of the transposed convolution's input.
    padding : str or tuple of (int, int)
        What `pyconv.checks.padding` returned: pairs, ``"valid"``, ``"same"`` or ``"same_lower"``.
    output_padding : int or sequence of int
        Extra outputs at the end, less than ``max(stride, dilation)``.
    output_size : int or sequence of int, optional
        Extent of the result: any that the forward convolution maps back to `size`.

    Returns
    -------
    tuple of Axis
        ``axis.size`` is the extent of the result and ``axis.out`` the given `size`.

    Raises
    ------
    ValueError
        For an argument out of range, or a result extent that is not positive.
    """
    rank = len(size)
    extra = checks.integers(operator, "output_padding", output_padding, rank, minimum=0)
    wanted = None
    if isinstance(padding, str) and padding not in ("valid", "same", "same_lower"):
        rule = "be pairs, integers, 'valid', 'same' or 'same_lower' for a transposed convolution"
        checks.fail(operator, "padding", rule, padding)
    if output_size is not None:
        wanted = checks.integers(
            operator, "output_size", output_size, rank, minimum=1, maximum=MAX_EXTENT - 1
        )
    if any(extra) and (wanted is not None or isinstance(padding, str)):
        other = f"padding={padding!r}" if wanted is None else "output_size"
        checks.fail(operator, "output_padding", f"be 0 together with {other}", output_padding)
    axes = []
    for i, (extent, taps, step, rate) in enumerate(
        zip(size, kernel, stride, dilation, strict=True)
    ):
        reach = _reach(operator, i, taps, rate)
        if extra[i] and extra[i] >= max(step, rate):
            rule = f"be less than max(stride, dilation) = {max(step, rate)} on spatial axis {i}"
            checks.fail(operator, "output_padding", rule, output_padding)
        before, after = (0, 0) if isinstance(padding, str) else padding[i]
        least = (extent - 1) * step + reach - before - after  # result without output padding
        if padding in ("same", "same_lower"):
            lowest, highest = (extent - 1) * step + 1, extent * step
            result = highest
        else:
            lowest, highest = least, least + step - 1
            result = least + (max(step - reach, 0) if padding == "valid" else extra[i])
        if wanted is not None:
            result = wanted[i]
            if not lowest <= result <= highest:
                _fail_output_size(operator, i, extent, max(lowest, 1), highest, output_size)
        if padding in ("same", "same_lower"):
            before, after = _same(result, extent, step, reach, padding)
        axis = Axis(result, taps, step, rate, before, after, extent)
        if result <= 0:
            _fail_extent(operator, i, axis, axis.adjoint_formula, extent)
        _bound(operator, i, "output", result + abs(before) + abs(after) + reach + extent)
        axes.append(axis)
    return tuple(axes)


def adjoint_phases(axis: Axis, *, empty: bool = True) -> tuple[Phase, ...]:
    """Split the adjoint of `axis` into residue classes of its result, in order of their start.

    Parameters
    ----------
    axis : Axis
        The forward convolution.
    empty : bool
        Whether classes that no tap reaches (``taps == 0``) are listed too. With them the classes
        cover ``range(axis.size)`` exactly once, in up to ``stride`` pieces; without them there are
        no more than ``kernel``.
    """
    stride, dilation, before = axis.stride, axis.dilation, axis.before
    common = gcd(stride, dilation)
    tap_step = stride // common
    phases = {}
    # Result i and tap t meet where i + before - dilation * t is a multiple of the stride. Taps that
    # are `tap_step` apart meet the same residues; the first `tap_step` taps meet different ones.
    for tap in range(min(axis.kernel, tap_step)):
        start = (dilation * tap - before) % stride
        if start < axis.size:
            phases[start] = Phase(
                start=start,
                step=stride,
                count=ceil_div(axis.size - start, stride),
                tap_start=tap,
                tap_step=tap_step,
                taps=ceil_div(axis.kernel - tap, tap_step),
                dilation=-(dilation // common),
                offset=(start + before - dilation * tap) // stride,
            )
    if not empty:
        return tuple(phases[start] for start in sorted(phases))
    return tuple(
        phases.get(start)
        or Phase(
            start=start,
            step=stride,
            count=ceil_div(axis.size - start, stride),
            tap_start=0,
            tap_step=tap_step,
            taps=0,
            dilation=-(dilation // common),
            offset=0,
        )
        for start in range(min(stride, axis.size))
    )


def subsample_phases(axis: Axis) -> tuple[Subsample, ...]:
    """Split a dilated convolution into dense ones on residue classes of its outputs.

    The classes cover ``range(axis.out)`` exactly once.
    """
    common = gcd(axis.stride, axis.dilation)
    step = axis.dilation // common
    phases = []
    for start in range(min(step, axis.out)):
        offset, residue = divmod(start * axis.stride - axis.before, axis.dilation)
        phases.append(
            Subsample(
                start=start,
                step=step,
                count=ceil_div(axis.out - start, step),
                residue=residue,
                stride=axis.stride // common,
                offset=offset,
            )
        )
    return tuple(phases)


def tap_ranges(axis: Axis) -> list[tuple[int, int, int, int]]:
    """Split the outputs into ranges ``lo .. hi-1`` that read the same taps ``first .. last-1``.

    The other taps lie in the padding; there may be none inside. The time taken grows with the
    kernel, not with the extents.
    """
    inside = []
    for t in range(axis.kernel):
        at = t * axis.dilation - axis.before  # what output 0 reads
        lo = min(max(ceil_div(-at, axis.stride), 0), axis.out)
        inside.append((lo, min(max(ceil_div(axis.size - at, axis.stride), lo), axis.out)))
    ends = sorted({0, axis.out, *(end for pair in inside for end in pair)})
    ranges = []
    for lo, hi in pairwise(ends):
        taps = [t for t, (start, stop) in enumerate(inside) if start <= lo < stop]
        ranges.append((lo, hi, taps[0], taps[-1] + 1) if taps else (lo, hi, 0, 0))
    return ranges


def valid_taps(axis: Axis) -> int:
    """Count the (output, tap) pairs of `axis` that read inside the input rather than its padding.

    The time taken does not depend on the extents.
    """
    return _pairs_up_to(axis, axis.before + axis.size - 1) - _pairs_up_to(axis, axis.before - 1)


def _pairs_up_to(axis: Axis, last: int) -> int:
    """Count the pairs with ``output * stride + tap * dilation <= last``."""
    if last < 0 or axis.out <= 0:
        return 0
    # Tap t goes with floor((last - t * dilation) / stride) + 1 outputs, at most `out`: with all of
    # them for the first `full` taps, and with none from `some` on.
    some = min(axis.kernel, last // axis.dilation + 1)
    full = (last - (axis.out - 1) * axis.stride) // axis.dilation + 1
    full = max(0, min(full, some))
    rest = some - full
    if rest == 0:
        return axis.out * full
    lowest = last - (some - 1) * axis.dilation
    return axis.out * full + rest + _floor_sum(rest, axis.stride, axis.dilation, lowest)


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Return ``sum((a * i + b) // m for i in range(n))`` for a, b >= 0 by Euclid's algorithm."""
    total = 0
    while True:
        total += (n - 1) * n // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        top = a * n + b
        if top < m:
            return total
        # Count the same lattice points along the other axis.
        n, b = divmod(top, m)
        m, a = a, m


def _reach(operator: str, i: int, kernel: int, dilation: int) -> int:
    if kernel < 1:
        checks.fail(operator, f"kernel axis {i}", "have at least one tap", kernel)
    return dilation * (kernel - 1) + 1


def _same(size: int, out: int, stride: int, reach: int, padding: str) -> tuple[int, int]:
    """Return the pads that map `size` to ``out = ceil(size / stride)``."""
    total = max(0, (out - 1) * stride + reach - size)
    half = total // 2
    return (half, total - half) if padding == "same" else (total - half, half)


def _bound(operator: str, i: int, which: str, extent: int) -> None:
    if extent >= MAX_EXTENT:
        what = f"{which} axis {i}"
        checks.fail(operator, what, "have padded and kernel extents below 2**62 in total", extent)


def ceil_div(a: int, b: int) -> int:
    """Return ``a / b``, rounded up."""
    return -(-a // b)


def _fail_extent(operator: str, i: int, axis: Axis, formula: str, size: int) -> NoReturn:
    numbers = (
        f"(input {size}, padding {axis.before} + {axis.after}, kernel {axis.kernel} "
        f"at dilation {axis.dilation}, stride {axis.stride})"
    )
    checks.fail(operator, f"output axis {i}", "be positive", Verbatim(f"{formula} {numbers}"))


def _fail_output_size(
    operator: str, i: int, size: int, lowest: int, highest: int, got: object
) -> NoReturn:
    maps_back = f"that the forward convolution maps back to {size}"
    if highest < lowest:
        rule = f"be left out: spatial axis {i} has no positive size {maps_back}"
    elif lowest == highest:
        rule = f"be {lowest} on spatial axis {i}, the only size {maps_back}"
    else:
        rule = f"be from {lowest} to {highest} on spatial axis {i}, the sizes {maps_back}"
    checks.fail(operator, "output_size", rule, got)
